"""Damaged and hostile model folders are refused in one line, and no pickle is ever opened."""

import json
import shutil

import pytest
from command_line import change_json, read_json

from shared.cli.errors import UserError
from shared.models.loading import load_sequence_classifier, load_tokenizer

LABELS = ["a", "b"]


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model, tmp_path / "model")


def load(folder):
    """Load the tokenizer and a classifier; return the message of a refusal, or ""."""
    try:
        tokenizer = load_tokenizer(str(folder))
        load_sequence_classifier(str(folder), LABELS, tokenizer=tokenizer)
    except UserError as error:
        return str(error)
    return ""


def refusal(folder):
    """Return the message of a refusal, one line that names the folder."""
    message = load(folder)
    assert str(folder) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


# --- pickles -------------------------------------------------------------------------------------


@pytest.fixture
def pickle_was_opened(folder, tmp_path):
    """Put a pickle into the folder that leaves a file when it is loaded; return that file."""
    import pickle

    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap()))
    return tmp_path / "opened"


@pytest.mark.parametrize("beside", [True, False])
def test_an_index_that_names_a_pickle_is_refused(folder, beside, pickle_was_opened):
    if not beside:
        (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"embeddings.weight": "pytorch_model.bin"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    message = refusal(folder)
    assert "model.safetensors.index.json: names pytorch_model.bin; only safetensors" in message
    assert not pickle_was_opened.exists()


@pytest.mark.parametrize(
    "name", ["../model/model.safetensors", "/etc/model.safetensors", 5, None, "model.pt"]
)
def test_a_shard_is_a_safetensors_file_of_the_folder(folder, name):
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"metadata": {}, "weight_map": {"embeddings.weight": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "only safetensors files beside it are read" in refusal(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 5}', '{"weight_map": {}}', "[" * 100_000]
)
def test_a_damaged_index_is_refused(folder, text):
    (folder / "model.safetensors.index.json").write_text(text)
    assert "no index of weights" in refusal(folder)


def test_weights_in_a_pickle_alone_are_refused(folder, pickle_was_opened):
    (folder / "model.safetensors").unlink()
    refusal(folder)
    change_json(folder / "config.json", transformers_weights="pytorch_model.bin")
    refusal(folder)
    assert not pickle_was_opened.exists()


def test_an_adapter_in_a_pickle_is_refused(folder, tiny_model, pickle_was_opened):
    config = {"base_model_name_or_path": str(tiny_model), "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "pytorch_model.bin").rename(folder / "adapter_model.bin")
    refusal(folder)
    assert not pickle_was_opened.exists()


# --- configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", 0),
        ("hidden_size", -8),
        ("hidden_size", 10**12),
        ("hidden_size", "wide"),
        ("hidden_size", 8.5),
        ("hidden_size", 33),  # no multiple of the heads
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", 0),
        ("num_attention_heads", 0),
        ("num_attention_heads", 10**9),
        ("intermediate_size", -1),
        ("vocab_size", 0),
        ("vocab_size", 10**12),
        ("max_position_embeddings", 0),
        ("type_vocab_size", 0),
        ("pad_token_id", 10**6),
        ("hidden_act", "zzz"),
        ("hidden_dropout_prob", 7),
        ("layer_norm_eps", "zzz"),
        ("model_type", "zzz"),
        ("model_type", 5),
        ("architectures", 5),
        ("id2label", ["a", "b"]),
        ("id2label", {"0": "a", "2": "b"}),
        ("id2label", {"0": "a", "1": ["b"]}),
        ("id2label", {"x": "a"}),
        ("id2label", {"0": "a", "1": "a"}),
        ("id2label", {"0": "a", "1": " "}),
        ("id2label", 5),
        ("num_labels", 10**12),
        ("text_config", 5),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_or_does_no_harm(folder, name, value):
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {name: value}))
    # Nothing reads the names of classes.
    harmless = name == "architectures"
    assert (load(folder) == "") if harmless else refusal(folder)


@pytest.mark.parametrize("text", ["", "5", "[]", "null", '"x"', "{}", "[" * 100_000, "\ud800"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_file_of_another_form_is_refused_or_not_needed(folder, name, text):
    (folder / "vocab.txt").unlink()
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    # The defaults of a tokenizer do without a config of their own.
    if name == "tokenizer_config.json":
        load(folder)  # raises nothing else
    else:
        assert refusal(folder)


def test_a_tokenizer_with_ids_beyond_the_embeddings_is_refused(folder):
    tokens = read_json(folder / "tokenizer.json")
    (last,) = [word for word, i in tokens["model"]["vocab"].items() if i == 100]
    tokens["model"]["vocab"][last] = 100_000  # as many tokens as before
    (folder / "tokenizer.json").write_text(json.dumps(tokens))
    assert "they do not belong together" in refusal(folder)


@pytest.mark.parametrize("length", [-1, 0, "long", float("nan")])
def test_a_length_that_makes_no_sense_is_refused(folder, length):
    config = read_json(folder / "tokenizer_config.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": length}))
    assert "no usable tokenizer" in refusal(folder)
