"""Find the checkpoint to resume from, and check that it is complete and fits the run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import remove_folder, write_json
from shared.cli.launch import is_main_process, print_once

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PretrainedConfig, TrainerState, TrainingArguments
    from transformers.trainer_utils import TrainOutput

_STATE_FILE = "trainer_state.json"
_ROWS_FILE = "rows.json"
_PROGRESS_FILE = "progress.json"
_END_FILE = "end_of_training.json"
_DIGESTED_COLUMNS = ("input_ids", "start", "numbers", "codes", "labels", "label", "weight")
REFIT_FOLDER = ".refit"  # in the output folder: the checkpoints of a second training
ROUNDS_FOLDER = ".rounds"  # the folders of several trainings

# Settings of a model config that a checkpoint must share with the run, where the config has them:
# those that set the shapes of the weights, and those that set the meaning of the labels.
_COMPARED_SETTINGS = (
    *("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size"),
    *("embedding_size", "ngram_size", "buckets", "num_filters", "filter_widths", "pooling"),
    *("cell", "bidirectional", "num_attention_heads", "last_tokens", "n_layers", "layer_pooling"),
    *("head_sizes", "id2label", "problem_type", "context_size", "num_layers"),
    *("num_decoder_layers", "copies_source", "n_numbers", "category_counts", "members"),
    *("architecture", "input_size", "horizon", "columns", "targets", "mean", "scale"),
    *("individual", "patch_size", "patch_stride", "centring", "kernel_size"),
)

# --- which checkpoint ----------------------------------------------------------------------------


def find_checkpoint(output_dir: str, resume_from_checkpoint: str | None) -> str | None:
    """Return the checkpoint folder to resume from, or None to start from the beginning.

    Parameters
    ----------
    output_dir : str
        Where a run keeps its ``checkpoint-STEP`` folders.
    resume_from_checkpoint : str, optional
        Value of the flag. "true": the newest complete checkpoint, or None if there is none; if
        there are incomplete ones, a note says so. A folder: that checkpoint. "false" or None: start
        from the beginning.

    Raises
    ------
    UserError
        If the named checkpoint is missing or incomplete, or if a new run would write among the
        checkpoints, also incomplete ones, of an unfinished run.
    """
    choice = str(resume_from_checkpoint or "false")
    newest = newest_complete_checkpoint(output_dir)
    last = max(_checkpoints(output_dir), key=_step, default=None)
    if choice.lower() == "true":
        if newest is None and last is not None:
            print_once(
                f"note: {last} {checkpoint_defect(last)} (it was saved with --save_only_model, or "
                "in part); starting from the beginning"
            )
        return newest
    if choice.lower() == "false":
        if last is not None:
            raise UserError(
                f"{output_dir} holds {Path(newest or last).name} of an unfinished run; continue it "
                "with --resume_from_checkpoint true, or remove the folder, or choose another "
                "--output_dir"
            )
        return None
    if defect := checkpoint_defect(Path(choice)):
        raise UserError(f"--resume_from_checkpoint {choice}: {defect}")
    return choice


def check_resume_switch(args: TrainingArguments, reason: str) -> None:
    """Refuse a folder as ``--resume_from_checkpoint`` of a run with several trainings.

    Parameters
    ----------
    args : TrainingArguments
    reason : str
        The end of the message, such as "each fold finds its own".
    """
    if str(args.resume_from_checkpoint or "false").lower() not in ("true", "false"):
        raise UserError(f"--resume_from_checkpoint: true or false; {reason}")


def newest_complete_checkpoint(output_dir: str) -> str | None:
    """Return the complete ``checkpoint-STEP`` folder with the highest step, or None.

    `transformers.trainer_utils.get_last_checkpoint` returns the folder with the highest step even
    if a crash left it incomplete.
    """
    complete = [folder for folder in _checkpoints(output_dir) if not checkpoint_defect(folder)]
    # One without sums over its steps was being deleted, or is of an older version.
    best = max(complete, key=lambda c: ((c / _PROGRESS_FILE).is_file(), _step(c)), default=None)
    return None if best is None else str(best)


def remove_checkpoints(output_dir: str) -> None:
    """Delete every ``checkpoint-STEP`` folder; a finished run does not need them.

    Those of a second training (`shared.training.refit`), or of several trainings
    (`shared.training.rounds`), are deleted, too. Of all processes of a launch, the first one
    deletes them.
    """
    if not is_main_process():
        return
    for folder in _checkpoints(output_dir):
        remove_folder(folder)
    for name in (REFIT_FOLDER, ROUNDS_FOLDER):
        if (folder := Path(output_dir, name)).is_dir():
            remove_folder(folder)


def _checkpoints(output_dir: str) -> list[Path]:
    return [
        path
        for path in Path(output_dir).glob("checkpoint-*")
        if path.is_dir() and re.fullmatch(r"checkpoint-\d+", path.name)
    ]


def _step(folder: Path) -> int:
    return int(folder.name.split("-")[1])


# --- is it complete ------------------------------------------------------------------------------


def checkpoint_defect(folder: Path) -> str:
    """Return what is wrong with a checkpoint, as part of a message; "" if it is complete.

    Nothing is unpickled. Of a zip archive the check reads the directory, which is written last. Of
    a safetensors file it compares the size with the size that the header gives.
    """
    if not folder.is_dir():
        return "no such folder"
    weights = sorted(folder.glob("*.safetensors"))
    # Sharded training (FSDP) saves folders instead: pytorch_model_fsdp_0, optimizer_0.
    sharded = [path for path in folder.glob("*_[0-9]") if path.is_dir() and any(path.iterdir())]
    if not weights and not sharded:
        return "holds no weights"
    for path in weights:
        if not _is_whole_safetensors(path):
            return f"{path.name} is truncated"
    archives = {
        "optimizer": [*folder.glob("optimizer.pt"), *folder.glob("optimizer.bin")],
        "scheduler": list(folder.glob("scheduler.pt")),
        "random state": list(folder.glob("rng_state*.pth")),  # one per process
    }
    for part, paths in archives.items():
        # One of several sharded folders is that of the optimiser.
        if not paths and not (part == "optimizer" and len(sharded) > 1):
            return f"holds no {part}"
        for path in paths:
            if not zipfile.is_zipfile(path):
                return f"{path.name} is truncated"
    if not (folder / _STATE_FILE).is_file():
        return f"holds no {_STATE_FILE}"
    for name in (_STATE_FILE, "config.json", _ROWS_FILE, _PROGRESS_FILE, _END_FILE):
        try:
            if (folder / name).is_file():
                json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError:
            return f"{name} is truncated"
    return ""


def _is_whole_safetensors(path: Path) -> bool:
    # Layout: 8 bytes with the length of the header, a JSON header, then the bytes of the tensors.
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return False
        (length,) = struct.unpack("<Q", start)
        # Check before reading: in a damaged file this number can be larger than the memory.
        if 8 + length > size:
            return False
        try:
            header = json.loads(file.read(length))
        except ValueError:
            return False
    # Offsets count from the end of the header.
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


# --- does it fit the run -------------------------------------------------------------------------


def check_same_model(checkpoint: str, config: PretrainedConfig) -> None:
    """Check that a checkpoint has the architecture and the labels of the model to train.

    Otherwise its weights would not fit, or they would fit and belong to other labels.

    Parameters
    ----------
    checkpoint : str
        Folder to resume from. One without a config.json (sharded weights) is not checked.
    config : PretrainedConfig
        Config of the model to train.

    Raises
    ------
    UserError
        If the two differ.
    """
    path = Path(checkpoint, "config.json")
    if not path.is_file():
        return
    saved = type(config).from_json_file(path)
    for name in _COMPARED_SETTINGS:
        if _setting(saved, name) != _setting(config, name):
            difference = "labels" if name == "id2label" else name
            raise UserError(
                f"{checkpoint} was trained with other {difference} than this run has; repeat the "
                "flags of that run (data, labels, model, pooling), or choose another --output_dir"
            )


def _setting(config: PretrainedConfig, name: str) -> Any:
    """Return a setting of a model or, if it has none of this name, of the encoder inside it."""
    value = getattr(config, name, getattr(config.get_text_config(), name, None))
    # JSON has no tuples: a config that was saved and read again has lists.
    return list(value) if isinstance(value, tuple) else value


def rows_digest(dataset: Dataset) -> str:
    """Return the SHA-256 of tokens, labels and weights of all training rows, in their order."""
    digest = hashlib.sha256()
    names = [name for name in _DIGESTED_COLUMNS if name in dataset.column_names]
    for batch in dataset.select_columns(names).with_format("arrow").iter(10_000):
        for name in names:
            column = batch[name].combine_chunks()
            while hasattr(column, "value_lengths"):  # a list
                digest.update(np.asarray(column.value_lengths(), "<i8").tobytes())
                column = column.flatten()
            digest.update(np.asarray(column).astype("<f8").tobytes())
    return digest.hexdigest()


def record_rows(checkpoint: Path, digest: str) -> None:
    """Write the `rows_digest` of the training rows into a checkpoint, for `check_same_rows`."""
    # A checkpoint without this file is not checked, so a write error need not end the training.
    with contextlib.suppress(OSError):
        write_json(checkpoint / _ROWS_FILE, {"digest": digest})


def check_same_rows(checkpoint: str, digest: str) -> None:
    """Check that a checkpoint was trained on the rows of this run.

    With other rows, a row that the checkpoint has already learned could now be in the validation
    set or test set.

    Parameters
    ----------
    checkpoint : str
        One without a digest of its rows is not checked.
    digest : str
        The `rows_digest` of this run.

    Raises
    ------
    UserError
        If the rows differ.
    """
    path = Path(checkpoint, _ROWS_FILE)
    if path.is_file() and json.loads(path.read_text("utf-8"))["digest"] != digest:
        raise UserError(
            f"{checkpoint} was trained on other rows or labels than this run has; repeat the flags "
            "of that run (data, split, seed, length), or choose another --output_dir"
        )


# --- sums over the steps so far ------------------------------------------------------------------


def record_progress(checkpoint: Path, progress: Mapping[str, float]) -> None:
    """Write the sums over the steps so far, of losses and time, into a checkpoint."""
    # Without this file the figures of a resumed training are those of the resumed part, so a write
    # error need not end the training.
    with contextlib.suppress(OSError, ValueError):
        write_json(checkpoint / _PROGRESS_FILE, progress)


def read_progress(checkpoint: str) -> dict[str, float]:
    """Return what `record_progress` wrote; empty if it wrote nothing."""
    path = Path(checkpoint, _PROGRESS_FILE)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


# --- the end of a training -----------------------------------------------------------------------


def record_end(output_dir: str, state: TrainerState, output: TrainOutput, *, best: bool) -> None:
    """Record in the newest checkpoint that the training is complete.

    A run that is stopped later, in its evaluation or in a second training, then does not repeat
    it. Nothing is recorded if no checkpoint holds the weights that the training ended with.

    Parameters
    ----------
    output_dir : str
        Where the training keeps its checkpoints.
    state : TrainerState
        At the end of the training.
    output : TrainOutput
        What the training returned.
    best : bool
        Whether the training ended with the weights of its best checkpoint, not of its last step.
    """
    newest = newest_complete_checkpoint(output_dir)
    weights = f"checkpoint-{state.best_global_step if best else state.global_step}"
    if newest is None or not any(Path(output_dir, weights).glob("*.safetensors")):
        return
    end = {"weights": weights, "state": asdict(state), "output": output._asdict()}
    with contextlib.suppress(OSError, ValueError):  # without the file, the last epochs are repeated
        write_json(Path(newest, _END_FILE), end)


def read_end(checkpoint: str) -> tuple[str, TrainerState, TrainOutput] | None:
    """Return what `record_end` recorded: the folder of the weights, the state and the output.

    None if the training of the checkpoint was not complete.
    """
    path = Path(checkpoint, _END_FILE)
    if not path.is_file():
        return None
    from transformers import TrainerState
    from transformers.trainer_utils import TrainOutput

    end = json.loads(path.read_text(encoding="utf-8"))
    folder = str(Path(checkpoint).parent / end["weights"])
    return folder, TrainerState(**end["state"]), TrainOutput(**end["output"])


def was_stopped_early(checkpoint: str) -> bool:
    """Return whether a callback, such as early stopping, ended the training of a checkpoint."""
    state = json.loads(Path(checkpoint, _STATE_FILE).read_text(encoding="utf-8"))
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {}).get("args", {})
    # At its last step, every training is stopped.
    return bool(control.get("should_training_stop")) and state["global_step"] < state["max_steps"]


# --- the same run --------------------------------------------------------------------------------


def check_same_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Write the settings of a run into its folder; refuse a folder with those of another run.

    A recipe that keeps finished parts in its folder calls this, so that it never mixes the parts of
    two runs.

    Parameters
    ----------
    folder : Path
    run : mapping
        All settings that the results depend on; must be the same after a round trip through JSON.

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
