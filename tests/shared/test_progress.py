"""The progress bar: rows pass through it, and only one process on a terminal shows it."""

import io
import sys

from shared.progress import progress


def test_rows_pass_through_and_nothing_is_written_to_a_file(capsys):
    assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_only_the_first_process_shows_a_bar_on_a_terminal(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    for rank, disabled in (("0", False), ("1", True)):
        monkeypatch.setenv("RANK", rank)
        bar = progress([], "reading")
        assert bool(bar.disable) == disabled
        list(bar)
