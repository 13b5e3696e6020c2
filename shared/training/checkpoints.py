"""Find the checkpoint to resume from, passing over those a crash left half written."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import write_json

_ROWS = "rows.json"

# Of a config, as far as it has them: sizes that the weights follow, and what the labels are.
_SAME = (
    *("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"),
    *("embedding_size", "ngram_size", "buckets", "num_filters", "filter_widths", "pooling"),
    *("cell", "bidirectional", "num_attention_heads", "last_tokens", "n_layers", "layer_pooling"),
    *("head_sizes", "id2label", "problem_type"),
)


def find_checkpoint(output_dir: str, resume_from_checkpoint: str | None) -> str | None:
    """Return the checkpoint folder to resume from, or None to start afresh.

    Parameters
    ----------
    output_dir : str
        Where a run keeps its ``checkpoint-STEP`` folders.
    resume_from_checkpoint : str, optional
        The flag: "true" for the newest complete checkpoint (none yet: start afresh), a folder, or
        "false" or None to start afresh.

    Raises
    ------
    UserError
        If the named checkpoint is missing or incomplete, or if a fresh start would mix with the
        checkpoints of an unfinished run.
    """
    choice = str(resume_from_checkpoint or "false")
    newest = newest_complete_checkpoint(output_dir)
    if choice.lower() == "true":
        return newest
    if choice.lower() == "false":
        if newest is not None:
            raise UserError(
                f"{output_dir} holds {Path(newest).name} of an unfinished run; continue it with "
                "--resume_from_checkpoint true, or remove the folder, or choose another "
                "--output_dir"
            )
        return None
    if fault := checkpoint_defect(Path(choice)):
        raise UserError(f"--resume_from_checkpoint {choice}: {fault}")
    return choice


def newest_complete_checkpoint(output_dir: str) -> str | None:
    """Return the complete ``checkpoint-STEP`` folder with the highest step, if there is one.

    `transformers.trainer_utils.get_last_checkpoint` takes the highest step even where a crash
    left the folder half written.
    """
    complete = [folder for folder in _checkpoints(output_dir) if not checkpoint_defect(folder)]
    return str(max(complete, key=_step)) if complete else None


def check_same_model(checkpoint: str, config) -> None:
    """Refuse to resume a model of another architecture, or one with other labels.

    Its weights would not fit, or worse, fit and stand for other labels.

    Parameters
    ----------
    checkpoint : str
        Folder to resume from; one without a config.json (sharded weights) is not judged.
    config : PretrainedConfig
        That of the model to train.

    Raises
    ------
    UserError
        If the two differ.
    """
    path = Path(checkpoint, "config.json")
    if not path.is_file():
        return
    found = type(config).from_json_file(path)
    for name in _SAME:
        theirs, ours = _setting(found, name), _setting(config, name)
        if theirs != ours:
            what = "labels" if name == "id2label" else name
            raise UserError(
                f"{checkpoint} was trained with other {what} than this run has; repeat the flags "
                "of that run (data, labels, model, pooling), or choose another --output_dir"
            )


def record_rows(checkpoint: Path, lengths: np.ndarray) -> None:
    """Write down which rows a checkpoint was trained on, by the tokens (rows,) of each in order."""
    with contextlib.suppress(OSError):  # worth no training: one without the note is not judged
        write_json(checkpoint / _ROWS, {"rows": len(lengths), "digest": _digest(lengths)})


def check_same_rows(checkpoint: str, lengths: np.ndarray) -> None:
    """Refuse to resume on other rows: some that it has learned might be held out by now.

    Parameters
    ----------
    checkpoint : str
        One without a note of its rows is not judged.
    lengths : int array of shape (rows,)
        Tokens of each training row, in order.

    Raises
    ------
    UserError
        If they differ.
    """
    path = Path(checkpoint, _ROWS)
    if path.is_file() and json.loads(path.read_text("utf-8"))["digest"] != _digest(lengths):
        raise UserError(
            f"{checkpoint} was trained on other rows than this run has; repeat the flags of that "
            "run (data, split, seed, length), or choose another --output_dir"
        )


def check_same_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Note what is run in a folder, which keeps what is finished, and refuse that of another run.

    Parameters
    ----------
    folder : Path
    run : mapping
        Whatever the results depend on, as JSON has it.

    Raises
    ------
    UserError
        If the folder holds another run.
    """
    path = folder / "run.json"
    if path.is_file() and json.loads(path.read_text("utf-8")) != run:
        raise UserError(
            f"{folder} holds a run with other flags, data or model; choose another --output_dir, "
            "or remove it"
        )
    write_json(path, run)


def _digest(lengths: np.ndarray) -> str:
    return hashlib.sha256(np.asarray(lengths, dtype="<i8").tobytes()).hexdigest()


def _setting(config, name: str):
    """Return a setting of a model, or of the encoder that a head made to measure is on."""
    value = getattr(config, name, getattr(config.get_text_config(), name, None))
    return list(value) if isinstance(value, tuple) else value


def remove_checkpoints(output_dir: str) -> None:
    """Delete every ``checkpoint-STEP`` folder: once a model is final they only take space."""
    for folder in _checkpoints(output_dir):
        shutil.rmtree(folder)


def checkpoint_defect(folder: Path) -> str:
    """Say what a checkpoint lacks to be resumed from; "" if it is complete.

    Nothing is unpickled: archives are checked by their directory, which is written last, weights
    by the length their header promises.
    """
    if not folder.is_dir():
        return "no such folder"
    weights = sorted(folder.glob("*.safetensors"))
    sharded = [path for path in folder.glob("*_[0-9]") if path.is_dir() and any(path.iterdir())]
    if not weights and not sharded:
        return "holds no weights"
    for path in weights:
        if not _is_whole_safetensors(path):
            return f"{path.name} is truncated"
    archives = {
        "optimizer": [*folder.glob("optimizer.pt"), *folder.glob("optimizer.bin")],
        "scheduler": list(folder.glob("scheduler.pt")),
        "random state": list(folder.glob("rng_state*.pth")),
    }
    for part, paths in archives.items():
        if not paths and not (part == "optimizer" and len(sharded) > 1):
            return f"holds no {part}"
        for path in paths:
            if not zipfile.is_zipfile(path):
                return f"{path.name} is truncated"
    try:
        json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    except OSError:
        return "holds no trainer_state.json"
    except ValueError:
        return "trainer_state.json is truncated"
    return ""


def _checkpoints(output_dir: str) -> list[Path]:
    return [
        path
        for path in Path(output_dir).glob("checkpoint-*")
        if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)
    ]


def _step(folder: Path) -> int:
    return int(folder.name.split("-")[1])


def _is_whole_safetensors(path: Path) -> bool:
    # Layout: 8 bytes with the header's length, a JSON header, then the tensors' bytes.
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return False
        (length,) = struct.unpack("<Q", start)
        if 8 + length > size:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)
