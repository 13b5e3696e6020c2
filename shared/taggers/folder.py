"""The folder of a tagger: what it holds, written as a whole and checked when it is read.

- ``tagger.json``: method, labels, decision rule, encoder, settings, and the SHA-256 of each file.
- ``tagger.safetensors``: arrays, such as the weights of a linear classifier.
- ``words.json``: the vocabulary, for methods that have one.
- The files of transformers (weights, config, tokenizer), for a model that was trained.

Nothing in it is a pickle, and nothing that is loaded can run code. ``tagger.json`` is written last:
files that do not fit to it, after an interruption or an edit, are refused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import ROOT, atomic_write, folder_fingerprint, write_json
from shared.evaluation.calibration import Calibration
from shared.evaluation.rules import DecisionRule
from shared.models.sources import resolve_model
from shared.models.tokenizers import forget_padding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT = 3  # raise it whenever an older version cannot read a folder any more
READABLE = (2, 3)  # 2: without calibration
MANIFEST = "tagger.json"
ARRAYS = "tagger.safetensors"
WORDS = "words.json"
TOKENIZER = "tokenizer"  # a folder, of taggers that hold no model of transformers
ADAPTER = "adapter_config.json"
# What transformers and peft write beside the weights. A Python file is the code of a model of this
# project, for programs without it; `load_tagger` never runs it.
_TRANSFORMERS_FILES = (
    *("*.py", "config.json", ADAPTER, "*.safetensors.index.json", "*.model"),
    *(
        "preprocessor_config.json",
        "tokenizer*",
        "vocab*",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
)


# --- encoder -------------------------------------------------------------------------------------

# What the scores depend on beside the weights. transformers reads the files of a vocabulary only if
# there is no tokenizer.json, which holds it, too.
_SETTINGS = (
    *("config.json", ADAPTER, "tokenizer_config.json", "tokenizer.json"),
    *("special_tokens_map.json", "added_tokens.json"),
)
_VOCABULARY = ("vocab.txt", "vocab.json", "merges.txt", "*.model")
# Keys of these files that change no score: names and versions, the precision of the file (models
# are loaded in single precision), and lengths, since a tagger has its own.
_IGNORED = (
    *("transformers_version", "_name_or_path", "name_or_path", "base_model_name_or_path"),
    *("dtype", "torch_dtype", "model_max_length", "truncation", "padding"),
)


@dataclass(frozen=True)
class EncoderReference:
    """The encoder that a tagger was fitted on, or the model below an adapter.

    The folder of the tagger does not hold it.

    Attributes
    ----------
    model : str
        The name of the default encoder, a hub id, or the path of a folder: absolute, or relative
        to the project for a model that the project holds.
    sha256 : dict of str to str
        Of each of its parts, from `encoder_sha256`.
    max_length : int
        Tokens per text.
    text_prefix : str, optional
        What stands before each text. None: what was saved with its tokenizer, usually nothing.
    truncation_side : {"right", "left"}, optional
        Where a long text loses tokens. None: as saved with its tokenizer, usually "right".
    """

    model: str
    sha256: dict[str, str]
    max_length: int
    text_prefix: str | None = None
    truncation_side: str | None = None

    @classmethod
    def of(
        cls,
        model: str,
        max_length: int,
        text_prefix: str | None = None,
        truncation_side: str | None = None,
    ) -> EncoderReference:
        """Return the reference of a model that `resolve_model` can find."""
        name, folder = model, Path(model).expanduser()
        if folder.is_dir():
            folder = folder.resolve()
            own = folder.is_relative_to(ROOT / "recipes")
            name = folder.relative_to(ROOT).as_posix() if own else str(folder)
        sha256 = encoder_sha256(resolve_model(model))
        return cls(name, sha256, max_length, text_prefix, truncation_side)

    def resolve(self, moved_to: str | None = None) -> str:
        """Return the folder or hub id of the encoder.

        Parameters
        ----------
        moved_to : str, optional
            Another place that holds it, such as the value of a flag ``--encoder``.

        Raises
        ------
        UserError
            If the encoder is missing, or its weights, its config or its tokenizer are not those of
            the fit.
        """
        differences = ""
        if moved_to is not None:
            source = resolve_model(moved_to, flag="encoder")
            differences = self._differences(source)
            if not differences:
                return source
            # Of several taggers, one may have been fitted on another encoder, which did not move.
        saved = str(ROOT / self.model) if (ROOT / self.model).is_dir() else self.model
        if os.path.isabs(saved) and not Path(saved).is_dir():
            if moved_to is not None:
                raise self._other(moved_to, differences)
            raise UserError(
                f"the encoder {self.model} that the tagger was fitted on is missing; put it back, "
                "or name its new place with --encoder"
            )
        source = resolve_model(saved, flag="encoder")
        if changes := self._differences(source):
            raise self._other(moved_to or self.model, differences or changes)
        return source

    def to_json(self, folder: Path, *, is_adapter: bool) -> dict[str, Any]:
        """Return what is saved in a folder.

        A model that lies beside its adapter is saved as ``../base``: both can be moved together.
        """
        place = ROOT / self.model
        is_beside = place.is_dir() and place.parent == folder.resolve().parent
        model = f"{os.pardir}/{place.name}" if is_adapter and is_beside else self.model
        return {**vars(self), "model": model}

    @classmethod
    def from_json(cls, values: dict[str, Any], folder: Path) -> EncoderReference:
        """Return what was saved in a folder; ``../base`` becomes an absolute path."""
        encoder = cls(**values)
        if encoder.model.startswith(f"{os.pardir}/"):
            encoder = replace(encoder, model=str((folder / encoder.model).resolve()))
        return encoder

    def _differences(self, source: str) -> str:
        """Return the parts of another encoder that differ, as text; "" if there are none."""
        other = encoder_sha256(source)
        names = sorted({*other, *self.sha256})
        return ", ".join(name for name in names if other.get(name) != self.sha256.get(name))

    def _other(self, place: str, differences: str) -> UserError:
        return UserError(
            f"--encoder {place}: not the encoder that the tagger was fitted on (different: "
            f"{differences}); name that encoder, or fit the tagger again"
        )


def encoder_sha256(source: str) -> dict[str, str]:
    """Return the SHA-256 of each part of a model that its outputs depend on.

    Parameters
    ----------
    source : str
        From `resolve_model`.

    Returns
    -------
    dict of str to str
        "weights": of all safetensors files; then of each file of config and tokenizer, by name. Of
        a JSON file its values count, without those that change no score, such as the version of
        transformers that wrote it. If the model is an adapter, the parts of the model that it
        belongs to follow, as "base/...".

    Raises
    ------
    UserError
        If the model has no safetensors file, or the model of an adapter is missing.
    """
    from shared.models.loading import base_of_adapter

    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        patterns = ["*.safetensors", *_SETTINGS, *_VOCABULARY]
        folder = Path(snapshot_download(source, allow_patterns=patterns))
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise UserError(f"{source}: holds no safetensors file, so its weights cannot be recognised")
    digest = hashlib.sha256()
    for path in paths:
        _update(digest, path)
    parts = {"weights": digest.hexdigest()}
    parts |= {
        name: _settings_sha256(folder / name) for name in _SETTINGS if (folder / name).is_file()
    }
    if "tokenizer.json" not in parts:
        vocabulary = [path for pattern in _VOCABULARY for path in folder.glob(pattern)]
        parts |= {path.name: _sha256(path) for path in vocabulary}
    if (base := base_of_adapter(str(folder))) is not None:
        base_parts = encoder_sha256(resolve_model(base, flag="encoder"))
        parts |= {f"base/{name}": sha256 for name, sha256 in base_parts.items()}
    return parts


def _settings_sha256(path: Path) -> str:
    """Return the SHA-256 of the values in a JSON object that may change a score."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        kept = {name: value for name, value in values.items() if name not in _IGNORED}
    except (ValueError, AttributeError):
        return _sha256(path)  # damaged; the library that reads it says so
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


# --- contents ------------------------------------------------------------------------------------


@dataclass
class TaggerContents:
    """What a tagger folder holds.

    Attributes
    ----------
    method : str
        Which scorer reads it; see `shared.taggers.loading.load_scorer`.
    label_names : list of str
    rule : DecisionRule
    calibration : Calibration, optional
    settings : dict
        JSON values.
    arrays : dict of str to array
    words : sequence of str
    encoder : EncoderReference, optional
    files : sequence of str
        Other files in the folder that the tagger needs, such as the weights of a trained model.
    """

    method: str
    label_names: list[str]
    rule: DecisionRule
    calibration: Calibration | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    words: Sequence[str] = ()
    encoder: EncoderReference | None = None
    files: Sequence[str] = ()


def is_tagger(folder: str | Path) -> bool:
    """Return whether a folder holds a ``tagger.json``."""
    return (Path(folder) / MANIFEST).is_file()


def tagger_fingerprint(folder: str | Path) -> str:
    """Return a text that changes whenever a tagger does: the SHA-256 of ``tagger.json``.

    It covers the other files. For a model of transformers, names, sizes and times of its files; for
    one of the hub, its id and the revision in the local cache.
    """
    path = Path(folder).expanduser()
    if is_tagger(path):
        return _sha256(path / MANIFEST)
    if path.is_dir():
        return folder_fingerprint(str(path))
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(str(folder), "config.json")
    return f"{folder} {Path(config).parent.name}" if isinstance(config, str) else str(folder)


def write_tagger(folder: Path, contents: TaggerContents) -> None:
    """Write all files of a tagger; those in `contents.files` must exist."""
    files = list(contents.files)
    if contents.arrays:
        from safetensors.numpy import save

        arrays = {name: np.ascontiguousarray(array) for name, array in contents.arrays.items()}
        with atomic_write(folder / ARRAYS, "wb") as file:
            file.write(save(arrays))
        files.append(ARRAYS)
    if len(contents.words):
        with atomic_write(folder / WORDS) as file:
            json.dump(list(contents.words), file, ensure_ascii=False)
        files.append(WORDS)
    encoder = None
    if contents.encoder is not None:
        encoder = contents.encoder.to_json(folder, is_adapter=ADAPTER in files)
    manifest = {
        "format": FORMAT,
        "written_by": f"text-classification-recipes {_version()}",
        "method": contents.method,
        "label_names": contents.label_names,
        "rule": contents.rule.to_json(),
        "calibration": contents.calibration and contents.calibration.to_json(),
        "encoder": encoder,
        "settings": contents.settings,
        "files": {name: _sha256(folder / name) for name in sorted(files)},
    }
    write_json(folder / MANIFEST, manifest)


def read_tagger(folder: Path) -> TaggerContents:
    """Read and check the files that `write_tagger` wrote.

    Raises
    ------
    UserError
        If the folder is no tagger, was written by another version, or if a file is missing, was
        changed or is damaged.
    """
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
        manifest = json.loads(text, parse_constant=_refuse_constant)
        written_format, written_by = manifest["format"], manifest["written_by"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}: no tagger ({MANIFEST} is missing or damaged)") from error
    if written_format not in READABLE:
        raise UserError(
            f"{folder}: written by {written_by} in format {written_format}, but this version reads "
            f"the formats {' and '.join(map(str, READABLE))}; use that version, or train the "
            "tagger again"
        )
    from safetensors import SafetensorError

    try:
        _check_files(folder, manifest["files"])
        arrays, words = {}, []
        if ARRAYS in manifest["files"]:
            from safetensors.numpy import load_file

            arrays = load_file(folder / ARRAYS)
        if WORDS in manifest["files"]:
            words = json.loads((folder / WORDS).read_text(encoding="utf-8"))
        label_names, encoder = _label_names(manifest["label_names"]), None
        calibration = manifest.get("calibration")
        if manifest["encoder"]:
            encoder = EncoderReference.from_json(manifest["encoder"], folder)
        return TaggerContents(
            method=manifest["method"],
            label_names=label_names,
            rule=DecisionRule.from_json(manifest["rule"], len(label_names)),
            calibration=calibration and Calibration.from_json(calibration, len(label_names)),
            settings=manifest["settings"],
            arrays=arrays,
            words=words,
            encoder=encoder,
            files=list(manifest["files"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise UserError(f"{folder}/{MANIFEST}: damaged: {error}") from error


def transformers_files(folder: Path) -> list[str]:
    """Return the names of all files in a folder that transformers and peft read."""
    weights = [path.name for path in folder.glob("*.safetensors") if path.name != ARRAYS]
    others = [path.name for name in _TRANSFORMERS_FILES for path in folder.glob(name)]
    return sorted({*weights, *others})


def add_tokenizer(
    folder: Path, contents: TaggerContents, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Save a tokenizer in a folder of its own, and record its files."""
    forget_padding(tokenizer)
    tokenizer.save_pretrained(folder / TOKENIZER)
    names = sorted(path.name for path in (folder / TOKENIZER).iterdir())
    contents.files = [*contents.files, *(f"{TOKENIZER}/{name}" for name in names)]


def refuse_other_files(folder: Path, contents: TaggerContents) -> None:
    """Check that the manifest of a tagger names all files of transformers in its folder.

    Raises
    ------
    UserError
        If there is another one. transformers would obey it, too.
    """
    if contents.files and (extra := {*transformers_files(folder)} - {*contents.files}):
        raise UserError(f"{folder}: {min(extra)} does not belong to the tagger; remove it")


def copy_tagger(source: Path, target: Path) -> None:
    """Copy the files of a tagger, and of its members if it is a mean, to another folder.

    The model below an adapter is not copied; the copy refers to it.

    Raises
    ------
    UserError
        As `read_tagger`.
    """
    target.mkdir(parents=True, exist_ok=True)
    contents = read_tagger(source)
    for name in contents.files:
        if Path(name).name == MANIFEST:
            copy_tagger((source / name).parent, (target / name).parent)
        else:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / name, target / name)
    # Arrays and words are among the files. The manifest is written anew: the model below an adapter
    # may lie elsewhere from the copy.
    write_tagger(target, replace(contents, arrays={}, words=[]))


def _refuse_constant(name: str) -> NoReturn:
    """Refuse NaN and Infinity, which JSON does not have and Python reads."""
    raise ValueError(name)


def _label_names(names: Any) -> list[str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("label_names is no list of names")
    if not names or len({*names}) < len(names) or not all(map(str.strip, names)):
        raise ValueError("label_names is empty, has a name twice or has a blank name")
    return names


def _check_files(folder: Path, files: dict[str, str]) -> None:
    """Check that each file has the SHA-256 that was recorded."""
    for name, sha256 in files.items():
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} is outside of the folder")
        if not path.is_file():
            raise UserError(f"{path}: missing; copy the whole folder, or train the tagger again")
        if _sha256(path) != sha256:
            raise UserError(
                f"{path}: changed since the tagger was saved; copy the whole folder again, or "
                "train the tagger again"
            )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    _update(digest, path)
    return digest.hexdigest()


def _update(digest: Any, path: Path) -> None:
    """Add the content of a file to a hash, in blocks of a megabyte."""
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)


def _version() -> str:
    """Return the version of this project; a copied recipe has none."""
    try:
        return importlib.metadata.version("text-classification-recipes")
    except importlib.metadata.PackageNotFoundError:
        return "(a copy)"
