"""A launch: its hardware, its output folder, and the progress that it shows."""

import io
import itertools
import re
import sys
from types import SimpleNamespace

import pytest
import torch

from shared.cli.errors import UserError
from shared.cli.launch import (
    choose_precision,
    countdown,
    has_fast_bf16,
    machine,
    progress,
    progress_bar,
    runs_on_cpu,
    start_recipe,
)

# --- hardware ------------------------------------------------------------------------------------


def test_bf16_is_fast_where_the_processor_has_instructions_for_it(monkeypatch):
    for name, expected in (("avx512_bf16", True), ("amx_bf16", True), ("avx512_f", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True})
        assert has_fast_bf16(on_cpu=True) is expected
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert has_fast_bf16(on_cpu=True) is False


def test_a_graphics_processor_decides_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    for native in (True, False):
        # Emulated bfloat16 is slower than single precision.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True, native=native: native or including_emulation,
        )
        assert has_fast_bf16(on_cpu=False) is native
    assert machine() == "2 x Some GPU"


def test_the_flag_accelerate_and_the_want_of_a_gpu_choose_the_cpu(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert runs_on_cpu(use_cpu=True)
    assert not runs_on_cpu(use_cpu=False)
    for value, expected in (("True", True), ("False", False)):  # as `accelerate launch` sets it
        monkeypatch.setenv("ACCELERATE_USE_CPU", value)
        assert runs_on_cpu(use_cpu=False) is expected
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert runs_on_cpu(use_cpu=False)


def test_other_accelerators_than_cuda_are_used(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    # XPU says whether it has bfloat16, MPS does not: then only --bf16 true turns it on.
    for name, native in (("xpu", True), ("xpu", False), ("mps", False)):
        device = torch.device(name)
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda device=device: device)
        monkeypatch.setattr(torch.xpu, "is_bf16_supported", lambda native=native: native)
        assert not runs_on_cpu(use_cpu=False)
        for wanted in (None, True, False):
            args = SimpleNamespace(use_cpu=False, bf16=wanted, fp16=False)
            choose_precision(args)
            assert not args.use_cpu
            assert args.bf16 is (native if wanted is None else wanted)
        assert machine() == f"1 x {name.upper()}"


def test_the_machine_is_described_without_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine().startswith(f"CPU, {torch.get_num_threads()} threads, ")


# --- output folder -------------------------------------------------------------------------------


def test_files_of_rows_that_a_run_could_replace_are_refused(tmp_path, monkeypatch):
    folder = tmp_path / "out"
    folder.mkdir()
    rows = folder / "unlabelled_predictions.jsonl"
    rows.write_text("{}")
    (tmp_path / "link.jsonl").symlink_to(rows)
    monkeypatch.setenv("OUT", str(folder))
    for name, path in [
        ("data", rows),
        ("valid_data", tmp_path / "link.jsonl"),
        ("test_data", "$OUT/../out/unlabelled_predictions.jsonl"),
    ]:
        args = SimpleNamespace(output_dir=str(folder), **{name: str(path)})
        with pytest.raises(UserError, match=rf"--{name} .*: lies in --output_dir, where files are"):
            start_recipe(args)
    args = SimpleNamespace(output_dir=str(folder / "below"), data=str(rows), test_data=None)
    assert start_recipe(args) == folder / "below"


# --- progress ------------------------------------------------------------------------------------


def test_rows_pass_through_and_nothing_is_written_to_a_file(capsys):
    assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_a_log_file_gets_a_line_of_progress_each_minute(monkeypatch, capsys):
    now = itertools.count(step=0.25)  # seconds
    monkeypatch.setattr("tqdm.std.time", lambda: next(now))
    assert list(progress(iter(range(800)), "reading", total=800)) == [*range(800)]
    written = capsys.readouterr().err
    shares = re.findall(r"^reading: +(\d+)% (\d+)/800 \[.* rows/s\]$", written, re.MULTILINE)
    assert 3 <= len(shares) == len(written.splitlines()) <= 6
    assert shares == sorted(shares, key=lambda share: int(share[1]))


def test_only_the_first_process_shows_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    for rank, disabled in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        bar = progress([], "reading")
        assert bool(bar.disable) == disabled
        list(bar)


@pytest.mark.parametrize(("on_terminal", "n_sleeps"), [(True, 131), (False, 3)])
def test_a_countdown_shows_what_is_left(on_terminal, n_sleeps, monkeypatch):
    output, sleeps = io.StringIO(), []
    output.isatty = lambda: on_terminal
    monkeypatch.setattr(sys, "stderr", output)
    monkeypatch.setattr("shared.cli.launch.time.sleep", sleeps.append)
    with progress_bar("fetching", unit="pages"):
        countdown(130.5, "the limit is used up")
    assert (sum(sleeps), len(sleeps)) == (130.5, n_sleeps)
    left = re.findall(r"the limit is used up: (\d+:\d\d) min left", output.getvalue())
    assert left[0] == "2:11"
    assert left[-1] == ("0:01" if on_terminal else "0:11")
    if not on_terminal:
        assert len(output.getvalue().splitlines()) == 3
