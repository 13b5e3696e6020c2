"""The folder of a tagger: what was written comes back, or one line says what is wrong."""

import json
import shutil

import numpy as np
import pytest
from command_line import change_json, write

from shared.cli.errors import UserError
from shared.evaluation.rules import DecisionRule
from shared.taggers.folder import (
    EncoderReference,
    TaggerContents,
    read_tagger,
    tagger_fingerprint,
    write_tagger,
)

RULE = DecisionRule((0.5, 0.25))


@pytest.fixture
def folder(tmp_path):
    contents = TaggerContents(
        "words",
        ["bug", "naïve"],
        RULE,
        settings={"a": [1, 2]},
        arrays={"weights": np.arange(6.0).reshape(2, 3).T},  # not contiguous
        words=["one", "日本"],
    )
    write_tagger(tmp_path, contents)
    return tmp_path


def change(folder, **values):
    manifest = json.loads((folder / "tagger.json").read_text("utf-8")) | values
    (folder / "tagger.json").write_text(json.dumps(manifest), encoding="utf-8")


def test_what_was_written_comes_back(folder):
    contents = read_tagger(folder)
    assert (contents.method, contents.label_names) == ("words", ["bug", "naïve"])
    assert (contents.rule, contents.settings) == (RULE, {"a": [1, 2]})
    np.testing.assert_array_equal(contents.arrays["weights"], np.arange(6.0).reshape(2, 3).T)
    assert contents.words == ["one", "日本"]
    assert sorted(path.name for path in folder.iterdir()) == [
        "tagger.json",
        "tagger.safetensors",
        "words.json",
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"format": 99, "written_by": "recipes 9.0"}, "written by recipes 9.0 in format 99"),
        ({"label_names": ["a", "a"]}, "has a name twice"),
        ({"label_names": ["a", " "]}, "has a blank name"),
        ({"label_names": "ab"}, "no list of names"),
        ({"rule": {"thresholds": [0.5]}}, "no threshold for each of the 2 labels"),
        ({"rule": None}, "damaged"),
        ({"encoder": {"model": "x"}}, "damaged"),
        ({"files": {"../x.json": "0"}}, "outside of the folder"),
        ({"files": {"/etc/hosts": "0"}}, "outside of the folder"),
        ({"files": ["tagger.safetensors"]}, "damaged"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder, values, expected):
    change(folder, **values)
    with pytest.raises(UserError, match=expected) as error:
        read_tagger(folder)
    assert str(folder) in str(error.value)


def test_files_that_changed_or_are_missing_are_refused(folder):
    words = (folder / "words.json").read_text("utf-8")
    (folder / "words.json").write_text(words.replace("one", "two"), encoding="utf-8")
    with pytest.raises(UserError, match=r"words.json: changed since the tagger was saved"):
        read_tagger(folder)
    (folder / "words.json").unlink()
    with pytest.raises(UserError, match=r"words.json: missing; copy the whole folder"):
        read_tagger(folder)


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_manifest_that_is_no_json_is_refused(folder, text):
    (folder / "tagger.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="no tagger"):
        read_tagger(folder)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_numbers_that_json_does_not_have_are_refused(folder, value):
    change(folder, settings={"a": [1, value]})
    with pytest.raises(UserError, match="no tagger"):
        read_tagger(folder)


def test_the_fingerprint_changes_with_any_file(folder):
    before = tagger_fingerprint(folder)
    contents = read_tagger(folder)
    contents.arrays["weights"][0, 0] = 7
    contents.files = []
    write_tagger(folder, contents)
    assert tagger_fingerprint(folder) != before


def test_an_encoder_is_found_where_it_was_and_where_it_was_moved(tiny_model, tmp_path):
    encoder = EncoderReference.of(str(tiny_model), 48)
    assert encoder.resolve() == str(tiny_model)
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    assert encoder.resolve(str(moved)) == str(moved)
    missing = EncoderReference(str(tmp_path / "gone"), encoder.sha256, 48)
    with pytest.raises(UserError, match="is missing; put it back, or name its new place"):
        missing.resolve()
    assert missing.resolve(str(moved)) == str(moved)


def test_another_encoder_is_refused(tiny_model, tiny_nli, tmp_path):
    encoder = EncoderReference.of(str(tiny_model), 48)
    # Of several taggers, one may be fitted on an encoder that did not move.
    assert encoder.resolve(str(tiny_nli)) == str(tiny_model)
    missing = EncoderReference(str(tmp_path / "gone"), encoder.sha256, 48)
    with pytest.raises(UserError, match="not the encoder that the tagger was fitted on"):
        missing.resolve(str(tiny_nli))
    changed = EncoderReference(str(tiny_nli), encoder.sha256, 48)
    with pytest.raises(UserError, match="not the encoder that the tagger was fitted on"):
        changed.resolve()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="holds no safetensors file"):
        EncoderReference.of(str(tmp_path / "empty"), 48)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"hidden_act": "relu"}),
        ("config.json", {"layer_norm_eps": 0.1}),
        ("tokenizer_config.json", {"do_lower_case": False}),
        ("tokenizer.json", {"normalizer": None}),
        ("special_tokens_map.json", {"cls_token": "[MASK]"}),
    ],
)
def test_an_encoder_with_another_config_or_tokenizer_is_refused(file, values, tiny_model, tmp_path):
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    encoder = EncoderReference.of(str(moved), 48)
    if not (moved / file).exists():
        write(moved / file, "{}")
    change_json(moved / file, **values)
    with pytest.raises(UserError, match=f"was fitted on .different: {file}.; name that encoder"):
        encoder.resolve()


def test_differences_that_change_no_score_are_accepted(tiny_model, tmp_path):
    encoder = EncoderReference.of(str(tiny_model), 48)
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    for name, values in (
        ("config.json", {"transformers_version": "4.8.2", "_name_or_path": "elsewhere"}),
        ("tokenizer_config.json", {"model_max_length": 7, "name_or_path": "elsewhere"}),
        ("tokenizer.json", {"truncation": {"max_length": 5}, "padding": {"pad_id": 0}}),
    ):
        content = json.loads((moved / name).read_text("utf-8"))
        write(moved / name, json.dumps(values | content | values, indent=7))
    (moved / "vocab.txt").unlink()  # tokenizer.json holds the words, too
    (moved / "README.md").write_text("A card.")
    assert encoder.resolve(str(moved)) == str(moved)


def test_the_vocabulary_counts_where_it_is_in_a_file_of_its_own(tiny_model, tmp_path):
    moved = shutil.copytree(tiny_model, tmp_path / "moved")
    (moved / "tokenizer.json").unlink()
    encoder = EncoderReference.of(str(moved), 48)
    assert encoder.resolve() == str(moved)
    words = (moved / "vocab.txt").read_text("utf-8").splitlines()
    (moved / "vocab.txt").write_text("\n".join([*words[:-2], words[-1], words[-2]]), "utf-8")
    with pytest.raises(UserError, match=r"different: vocab.txt"):
        encoder.resolve()


def test_the_fingerprint_of_a_model_of_the_hub_is_its_name_and_revision(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert tagger_fingerprint("someone/tagger") == "someone/tagger"
    folder = tmp_path / "models--someone--tagger"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0123")
    (folder / "snapshots" / "0123").mkdir(parents=True)
    (folder / "snapshots" / "0123" / "config.json").write_text("{}")
    assert tagger_fingerprint("someone/tagger") == "someone/tagger 0123"
