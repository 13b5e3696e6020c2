import json
import shutil
from pathlib import Path

import pytest
from datasets import load_from_disk
from tiny_training import make_rows, make_trainer
from transformers import BertConfig

from shared.cli.errors import UserError
from shared.models.heads import PooledClassifierConfig
from shared.training.checkpoints import (
    check_same_model,
    checkpoint_defect,
    find_checkpoint,
    newest_complete_checkpoint,
    remove_checkpoints,
    rows_digest,
)


@pytest.fixture(scope="module")
def checkpoint(tiny_model, tmp_path_factory):
    """Return the checkpoint of a training of two steps."""
    folder = tmp_path_factory.mktemp("run")
    make_trainer(tiny_model, folder, max_steps=2, save_strategy="steps", save_steps=2).train()
    return folder / "checkpoint-2"


@pytest.fixture
def run(checkpoint, tmp_path):
    """Return the folder of a run with the complete checkpoints 9 and 10."""
    for step in (9, 10):
        shutil.copytree(checkpoint, tmp_path / f"checkpoint-{step}")
    return tmp_path


def truncate(path, share=0.5):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def shorten(path):
    path.write_bytes(path.read_bytes()[:-1])


def empty(path):
    path.write_bytes(b"")


def zero(path):
    """Overwrite a file with zeros, as some file systems do after a power failure."""
    path.write_bytes(bytes(path.stat().st_size))


# --- damage --------------------------------------------------------------------------------------

PARTS = {
    "model.safetensors": "weights",
    "optimizer.pt": "optimizer",
    "scheduler.pt": "scheduler",
    "rng_state.pth": "random state",
    "trainer_state.json": "trainer_state.json",
}
# A checkpoint without them can be resumed.
OPTIONAL = ["config.json", "end_of_training.json", "progress.json", "rows.json"]


def test_a_complete_checkpoint_has_no_defect(run):
    assert checkpoint_defect(run / "checkpoint-10") == ""
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-10")


@pytest.mark.parametrize("damage", [truncate, shorten, empty, zero])
@pytest.mark.parametrize("name", [*PARTS, *OPTIONAL])
def test_a_damaged_part_is_named_and_the_checkpoint_skipped(run, name, damage):
    if name.endswith(".json") and damage is shorten:
        truncate(run / "checkpoint-10" / name, 0.9)  # its last byte is a line end
    else:
        damage(run / "checkpoint-10" / name)
    assert checkpoint_defect(run / "checkpoint-10") == f"{name} is truncated"
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-9")


@pytest.mark.parametrize(("name", "part"), PARTS.items())
def test_a_missing_part_is_named_and_the_checkpoint_skipped(run, name, part):
    (run / "checkpoint-10" / name).unlink()
    assert checkpoint_defect(run / "checkpoint-10") == f"holds no {part}"
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-9")


@pytest.mark.parametrize("name", OPTIONAL)
def test_a_checkpoint_is_complete_without_a_part_that_is_optional(run, name):
    (run / "checkpoint-10" / name).unlink()
    assert checkpoint_defect(run / "checkpoint-10") == ""


def test_no_pickle_is_loaded(run, tmp_path):
    # Empty zip archives: complete as archives, but unpickling them would fail.
    import zipfile

    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        zipfile.ZipFile(run / "checkpoint-10" / name, "w").close()
    assert checkpoint_defect(run / "checkpoint-10") == ""


def test_every_shard_of_the_weights_is_checked(run):
    folder = run / "checkpoint-10"
    weights = (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shutil.copy(weights, folder / "model-00002-of-00002.safetensors")
    assert checkpoint_defect(folder) == ""
    shorten(folder / "model-00002-of-00002.safetensors")
    assert checkpoint_defect(folder) == "model-00002-of-00002.safetensors is truncated"


# --- choice --------------------------------------------------------------------------------------


def test_the_newest_has_the_highest_step_not_the_last_name(run):
    assert sorted(path.name for path in run.iterdir())[-1] == "checkpoint-9"
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-10")


def test_folders_of_other_names_and_files_are_no_checkpoints(run, checkpoint):
    for name in ("checkpoint-11-old", "checkpoint-best", "my-checkpoint-12"):
        shutil.copytree(checkpoint, run / name)
    (run / "checkpoint-13").write_text("a file")
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-10")


def test_a_checkpoint_that_was_being_deleted_comes_last(run):
    (run / "checkpoint-10" / "progress.json").unlink()
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-9")
    shutil.rmtree(run / "checkpoint-9")
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-10")  # of an older version


def test_no_complete_checkpoint(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    assert newest_complete_checkpoint(tmp_path) is None
    assert newest_complete_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("flag", ["true", "True", True])
def test_resumes_from_the_newest_or_starts_from_the_beginning(run, tmp_path, flag):
    assert find_checkpoint(run, flag) == str(run / "checkpoint-10")
    assert find_checkpoint(tmp_path / "nothing", flag) is None


@pytest.mark.parametrize("flag", [None, "false", "False"])
def test_a_new_run_does_not_mix_with_an_unfinished_one(run, tmp_path, flag):
    assert find_checkpoint(tmp_path / "nothing", flag) is None
    with pytest.raises(UserError, match=r"holds checkpoint-10 of an unfinished run; continue it w"):
        find_checkpoint(run, flag)


def test_incomplete_checkpoints_alone_are_noted_or_refused(run, capsys):
    for step in (9, 10):  # as with --save_only_model
        (run / f"checkpoint-{step}" / "optimizer.pt").unlink()
    assert find_checkpoint(run, "true") is None
    note = capsys.readouterr().out
    assert note.startswith(f"note: {run / 'checkpoint-10'} holds no optimizer (it was saved with")
    assert note.endswith("; starting from the beginning\n")
    with pytest.raises(UserError, match="holds checkpoint-10 of an unfinished run; continue it w"):
        find_checkpoint(run, "false")


def test_a_named_checkpoint(run):
    older = str(run / "checkpoint-9")
    assert find_checkpoint(run, older) == older
    (Path(older) / "scheduler.pt").unlink()
    with pytest.raises(UserError, match=f"--resume_from_checkpoint {older}: holds no scheduler"):
        find_checkpoint(run, older)
    with pytest.raises(UserError, match="--resume_from_checkpoint none: no such folder"):
        find_checkpoint(run, "none")
    with pytest.raises(UserError, match="holds no weights"):
        find_checkpoint(run, str(run))


def test_the_function_of_transformers_would_return_the_incomplete_one(run):
    from transformers.trainer_utils import get_last_checkpoint

    (run / "checkpoint-10" / "optimizer.pt").unlink()
    assert get_last_checkpoint(run) == str(run / "checkpoint-10")
    assert newest_complete_checkpoint(run) == str(run / "checkpoint-9")


def test_remove_checkpoints_removes_nothing_else(run):
    kept = ["checkpoint-11-old", "checkpoint-best", "metrics.json", "plots"]
    for name in kept:
        (run / name).mkdir()
    (run / "checkpoint-12").write_text("a file")
    remove_checkpoints(run)
    assert sorted(path.name for path in run.iterdir()) == sorted([*kept, "checkpoint-12"])


def test_the_checked_state_is_the_file_the_trainer_writes(checkpoint):
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == 2


def test_a_checkpoint_of_another_model_or_of_other_labels_is_refused(tmp_path):
    def config(labels=("a", "b"), **changes):
        return BertConfig(id2label=dict(enumerate(labels)), **changes)

    config().save_pretrained(tmp_path)
    check_same_model(str(tmp_path), config())
    check_same_model(str(tmp_path / "no config"), config())
    others = {"labels": config("bc"), "hidden_size": config(hidden_size=24)}
    others["problem_type"] = config(problem_type="regression")
    others["num_attention_heads"] = config(num_attention_heads=4)
    for name, other in others.items():
        with pytest.raises(UserError, match=f"was trained with other {name} than this run"):
            check_same_model(str(tmp_path), other)


def test_a_checkpoint_with_another_head_is_refused(tmp_path):
    def config(**head):
        return PooledClassifierConfig(text_config=BertConfig().to_dict(), **head)

    config(head_sizes=(8,)).save_pretrained(tmp_path)
    check_same_model(str(tmp_path), config(head_sizes=(8,)))
    others = {"head_sizes": (4,), "n_layers": 2, "last_tokens": 3, "layer_pooling": "concatenate"}
    for name, value in others.items():
        with pytest.raises(UserError, match=f"was trained with other {name} than this run"):
            check_same_model(str(tmp_path), config(**{"head_sizes": (8,), name: value}))


def test_a_checkpoint_of_other_rows_is_refused(checkpoint, tiny_model, tmp_path):
    make_trainer(tiny_model, tmp_path, max_steps=3).train(resume_from_checkpoint=str(checkpoint))
    # Of the same lengths, as all texts are that were cut.
    same = make_rows()
    other_tokens = same.map(lambda row: {"input_ids": row["input_ids"][::-1]})
    other_labels = same.map(lambda row: {"labels": [(i + 1) % 4 for i in row["labels"]]})
    for rows in (make_rows(seed=5), other_tokens, other_labels, same.select(range(47, -1, -1))):
        trainer = make_trainer(tiny_model, tmp_path, max_steps=3, rows=rows)
        with pytest.raises(UserError, match="was trained on other rows or labels than this run"):
            trainer.train(resume_from_checkpoint=str(checkpoint))


def test_the_digest_of_rows_does_not_depend_on_how_they_are_stored(tmp_path):
    rows = make_rows()
    rows.save_to_disk(tmp_path / "rows", num_shards=3)
    for stored in (load_from_disk(str(tmp_path / "rows")), rows.select([*range(48)])):
        assert rows_digest(stored) == rows_digest(rows)
