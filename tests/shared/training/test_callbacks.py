import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from forks import run_script
from tiny_training import make_trainer
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import ProgressCallback

from shared.training.callbacks import CheckpointOnSignal, ReadableProgress, TrainingLog
from shared.training.checkpoints import checkpoint_defect

ROOT = Path(__file__).parents[3]


# --- CheckpointOnSignal --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def interrupted(tiny_model, tmp_path_factory):
    """Run `signal_script.py`; return its results, folder, exit code and stderr."""
    folder = tmp_path_factory.mktemp("interrupted")
    script = Path(__file__).with_name("signal_script.py")
    run = run_script(script, tiny_model, folder, check=False)
    assert (folder / "results.json").is_file(), run.stderr
    results = json.loads((folder / "results.json").read_text())
    return SimpleNamespace(results=results, folder=folder, code=run.returncode, stderr=run.stderr)


@pytest.mark.parametrize(
    ("moment", "step"),
    [("in an epoch", 9), ("at the end of an epoch", 12), ("in the first epoch", 2)],
)
def test_a_run_resumed_after_ctrl_c_equals_an_uninterrupted_one(interrupted, moment, step):
    # The best epoch is not the newest, so a later checkpoint is not kept for being the best.
    assert (interrupted.results["evaluations"], interrupted.results["best step"]) == (3, 6)
    assert interrupted.results[moment] == {
        "code": 130,
        "newest": f"checkpoint-{step}",
        "steps": 18,
        "same evaluations": True,
        "same best step": True,
        "same weights": [True, True],
        "handler restored": True,
    }


def test_sigterm_leaves_a_complete_checkpoint_and_ends_the_process_with_143(interrupted):
    assert interrupted.code == 143
    folder = interrupted.folder / "terminated"
    assert [path.name for path in folder.iterdir()] == ["checkpoint-4"]
    assert checkpoint_defect(folder / "checkpoint-4") == ""
    assert "not reached" not in interrupted.stderr
    assert (
        f"stopped by SIGTERM after step 4 of 18; checkpoint in {folder / 'checkpoint-4'}; "
        "continue with the same command and --resume_from_checkpoint true\n"
    ) in interrupted.stderr


@pytest.fixture
def callback():
    """Return a callback with its handlers installed; restore the handlers afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    callback = CheckpointOnSignal()
    callback.on_train_begin(None, TrainerState(), TrainerControl())
    yield callback
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_a_second_ctrl_c_stops_at_once(callback):
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_after_the_last_step_still_ends_the_process(callback):
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(SystemExit) as exit:
        callback.on_train_end(None, TrainerState(), TrainerControl())
    assert exit.value.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_a_signal_no_checkpoint_is_requested(callback):
    state = TrainerState(epoch=0.5, global_step=3)
    control = TrainerControl()
    callback.on_step_end(None, state, control)
    callback.on_epoch_end(None, state, control)
    callback.on_save(None, state, control)
    callback.on_train_end(None, state, control)
    assert not control.should_save
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# --- ReadableProgress ----------------------------------------------------------------------------


def test_one_line_per_evaluation_and_nothing_else(tiny_model, tmp_path, capsys):
    trainer = make_trainer(
        tiny_model,
        tmp_path,
        callbacks=[ReadableProgress()],
        eval_strategy="epoch",
        logging_strategy="epoch",
    )
    trainer.compute_metrics = lambda prediction: {"micro_f1": 0.25, "macro_f1": 0.125}
    trainer.remove_callback(ProgressCallback)
    capsys.readouterr()
    trainer.train()
    trainer.predict(trainer.eval_dataset)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    valid = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [line.split() for line in lines] == [
        f"epoch {epoch}.00 loss {loss:.3f} valid loss {valid_loss:.3f} "
        "micro F1 0.250 macro F1 0.125".split()
        for epoch, loss, valid_loss in zip((1, 2), losses, valid, strict=True)
    ]
    assert printed.err == ""  # not a terminal, so no progress bars


def test_without_evaluations_one_line_per_log_entry(tiny_model, tmp_path, capsys):
    trainer = make_trainer(
        *(tiny_model, tmp_path), callbacks=[ReadableProgress()], logging_strategy="epoch"
    )
    trainer.remove_callback(ProgressCallback)
    capsys.readouterr()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert capsys.readouterr().out.splitlines() == [
        f"  epoch  {epoch}.00   loss {loss:.3f}" for epoch, loss in zip((1, 2), losses, strict=True)
    ]


def end_of_training(state):
    """Call what a training of three epochs calls at its end."""
    for epoch, (loss, valid) in enumerate([(1.0, 0.9), (0.5, 0.7), (0.1, 0.9)], 1):
        state.log_history += [
            {"epoch": epoch, "loss": loss},
            {"epoch": epoch, "eval_loss": valid},
        ]
    progress = ReadableProgress()
    progress.on_train_begin(None, state, None)
    progress.on_train_end(None, state, None)


def test_the_end_of_a_training_says_that_it_has_overfit(capsys):
    end_of_training(TrainerState(max_steps=3))
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("  Overfit: the validation loss rose from 0.700 (epoch 2) to 0.900")


def test_other_processes_write_nothing(capsys):
    state = TrainerState(epoch=1.0, is_world_process_zero=False)
    ReadableProgress().on_evaluate(None, state, None, metrics={"eval_loss": 1.0})
    end_of_training(state)
    assert capsys.readouterr().out == ""


def test_accuracy_replaces_micro_f1_where_they_are_equal(capsys):
    metrics = {"eval_accuracy": 0.5, "eval_micro_f1": 0.5, "eval_macro_f1": 0.25}
    ReadableProgress().on_evaluate(None, TrainerState(epoch=2.0), None, metrics=metrics)
    assert capsys.readouterr().out.split()[2:] == ["accuracy", "0.500", "macro", "F1", "0.250"]


def test_a_metric_that_was_not_computed_is_left_out(capsys):
    ReadableProgress().on_evaluate(None, TrainerState(epoch=2.0), None, metrics={"eval_loss": 1.0})
    assert capsys.readouterr().out.split() == ["epoch", "2.00", "valid", "loss", "1.000"]


# --- TrainingLog ---------------------------------------------------------------------------------


def test_the_log_and_its_plot_grow_with_the_training(tmp_path):
    log, sizes = TrainingLog(tmp_path, "eval_accuracy"), []
    state = TrainerState(is_world_process_zero=True)
    for step in (1, 2):
        state.log_history += [
            {"epoch": step, "loss": 1 / step, "step": step},
            {"epoch": step, "eval_loss": 0.5, "eval_accuracy": step / 2, "step": step},
        ]
        log.on_evaluate(None, state, None)
        sizes.append((tmp_path / "plots" / "training_curve.png").read_bytes())
    assert sizes[0] != sizes[1]
    state.log_history.append({"epoch": 2, "train_runtime": 3.0, "step": 2})
    log.on_train_end(None, state, None)
    written = json.loads((tmp_path / "training_log.json").read_text())
    assert written == {"log_history": state.log_history}
    TrainingLog(tmp_path / "other").on_train_end(None, TrainerState(is_world_process_zero=False), 0)
    assert not (tmp_path / "other").exists()
