import errno
import os
import signal
import sys
import warnings
from contextlib import suppress

import pytest
import torch
from huggingface_hub.errors import OfflineModeIsEnabled

from shared.cli import errors
from shared.cli.errors import UserError, exit_on_user_error


@pytest.fixture(autouse=True)
def keep_the_signal_handlers():
    handler = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, handler)


def outcome(error, capsys):
    """Return the exit code and what was printed on stderr."""
    with pytest.raises(SystemExit) as exit, exit_on_user_error():
        raise error
    captured = capsys.readouterr()
    assert captured.out == ""
    return exit.value.code, captured.err


def test_a_users_mistake_is_one_line_and_exit_code_2(capsys):
    code, printed = outcome(UserError("data.jsonl, line 3:\n  not\tJSON"), capsys)
    assert code == 2
    assert printed == "error: data.jsonl, line 3: not JSON\n"


def test_ctrl_c_is_one_line_and_exit_code_130(capsys):
    assert outcome(KeyboardInterrupt(), capsys) == (130, "error: interrupted\n")


def test_ctrl_c_arrives_although_the_launcher_ignores_it(capsys):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(SystemExit) as exit, exit_on_user_error():
        os.kill(os.getpid(), signal.SIGINT)
    assert exit.value.code == 130


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "permissions"),
        (errno.EROFS, "read-only"),
    ],
)
def test_a_disk_that_cannot_be_written_is_a_users_mistake(number, advice, capsys):
    code, printed = outcome(OSError(number, os.strerror(number), "out/metrics.json"), capsys)
    assert code == 2
    assert printed.startswith(f"error: out/metrics.json: {os.strerror(number)}; ")
    assert advice in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "error",
    [
        # What safetensors and torch.save raise on a full disk, in the middle of a checkpoint.
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
    ],
)
def test_a_full_disk_is_recognised_in_any_disguise(error, capsys):
    code, printed = outcome(error, capsys)
    assert code == 2
    assert printed.startswith("error: ")
    assert "No space left on device; free some space" in printed
    assert "--resume_from_checkpoint true" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("XCallback requires x. Run `pip install x`."), "XCallback requires x. Run"),
        (OfflineModeIsEnabled("Cannot reach the hub:\nHF_HUB_OFFLINE is set"), "the hub: Cannot"),
    ],
)
def test_what_is_not_there_is_named(error, expected, capsys):
    code, printed = outcome(error, capsys)
    assert code == 2
    assert printed.startswith(f"error: {expected}")
    assert printed.count("\n") == 1


class PanicException(BaseException):
    """What libraries in Rust raise; not an `Exception`."""


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("x"),
        OSError(errno.ENOENT, "No such file"),
        RecursionError(),
        PanicException("the library\nis broken"),
        ValueError("y" * 40_000),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("folder", ["out", None])
def test_an_unexpected_error_is_one_line_that_names_the_traceback(
    error, folder, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(errors, "_log_folder", tmp_path / folder if folder else None)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    for name in ("out", "temporary"):
        (tmp_path / name).mkdir()
    code, printed = outcome(error, capsys)
    assert code == 1
    assert printed.count("\n") == 1
    assert len(printed) < 1200
    (log,) = (tmp_path / (folder or "temporary")).iterdir()
    assert folder is None or log.name == "error.log"
    assert printed.startswith(f"error: unexpected {type(error).__name__}: ")
    assert "last step: tests/shared/cli/test_errors.py, line " in printed
    assert printed.endswith(f"the traceback is in {log}\n")
    assert log.read_text().startswith("Traceback (most recent call last):")


def test_a_new_run_removes_the_traceback_of_an_earlier_one(tmp_path, monkeypatch):
    monkeypatch.setattr(errors, "_log_folder", None)
    for rank, name in (("0", "error.log"), ("1", "error_rank1.log")):
        monkeypatch.setenv("RANK", rank)
        (tmp_path / name).write_text("old")
        errors.log_errors_to(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")]
)
def test_memory_that_does_not_suffice_is_a_users_mistake(error, capsys):
    code, printed = outcome(error, capsys)
    assert code == 2
    assert "not enough memory" in printed
    assert "--per_device_train_batch_size" in printed
    assert printed.count("\n") == 1


def test_a_long_message_is_cut_in_its_middle(capsys):
    code, printed = outcome(UserError(f"start {'x' * 40_000} end"), capsys)
    assert code == 2
    assert printed.startswith("error: start x")
    assert printed.endswith("x end\n")
    assert len(printed) < 1100


def test_warnings_of_libraries_are_not_shown(capsys, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", [])
    with exit_on_user_error():
        warnings.warn("of a library", UserWarning, stacklevel=1)
    assert capsys.readouterr() == ("", "")


def test_no_error_no_word(capsys):
    with exit_on_user_error():
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("end", [None, SystemExit(143)])
def test_a_process_leaves_its_group_before_the_interpreter_ends(end, tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1
    )
    try:
        with suppress(SystemExit), exit_on_user_error():
            if end:
                raise end
        assert not torch.distributed.is_initialized()
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def test_an_exit_code_of_the_recipe_is_kept(capsys):
    assert outcome(SystemExit(143), capsys) == (143, "")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_only_the_first_process_of_a_launch_speaks(rank, lines, capsys, monkeypatch):
    monkeypatch.setenv("RANK", rank)
    code, printed = outcome(UserError("wrong"), capsys)
    assert code == 2
    assert printed.count("\n") == lines
