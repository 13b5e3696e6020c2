import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.cli import files
from shared.cli.errors import UserError
from shared.cli.files import (
    ROOT,
    atomic_write,
    expand_path,
    kept_record,
    make_output_dir,
    remove_abandoned,
    temporary_folder,
    write_csv,
    write_json,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("mode", ["w", "wb"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_file_whole_and_nothing_else(tmp_path, mode, error):
    path = tmp_path / "result.txt"
    path.write_text("old")

    def fail():
        with atomic_write(path, mode) as file:
            file.write("half" if mode == "w" else b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.txt"]


def test_nothing_appears_under_the_name_before_all_is_written(tmp_path):
    path = tmp_path / "result.txt"
    with atomic_write(path) as file:
        file.write("text")
        assert not path.exists()
    assert names(tmp_path) == ["result.txt"]


def test_text_is_utf8_with_plain_line_ends_whatever_the_locale(tmp_path):
    with atomic_write(tmp_path / "a") as file:
        file.write("é🙂\nb\n")
    with atomic_write(tmp_path / "b", "wb") as file:
        file.write(b"\r\n\0")
    assert (tmp_path / "a").read_bytes() == "é🙂\nb\n".encode()
    assert (tmp_path / "b").read_bytes() == b"\r\n\0"


def test_two_writers_do_not_meet(tmp_path, monkeypatch):
    path = tmp_path / "result.txt"
    with atomic_write(path) as first:
        first.write("first")
        monkeypatch.setattr(os, "getpid", lambda: 1)
        with atomic_write(path) as second:
            second.write("second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["result.txt"]


def kill_while_writing(path):
    """Write a part of a file, and of a folder, in a process that is killed then."""
    script = """if True:
        import os, signal, sys
        from pathlib import Path
        from shared.cli.files import atomic_write, temporary_folder
        path = Path(sys.argv[1])
        with temporary_folder(path.parent) as folder, atomic_write(path) as file:
            (folder / "part").write_text("half")
            file.write("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", script, str(path)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL
    for left in path.parent.glob(".*"):
        os.utime(left, (0, 0))  # not of this second


linux = pytest.mark.skipif(os.name != "posix", reason="no locks")


@linux
def test_what_a_killed_process_left_is_deleted_by_the_next_one(tmp_path):
    for folder in (tmp_path, tmp_path / "inside"):
        folder.mkdir(exist_ok=True)
        kill_while_writing(folder / "result.txt")
        assert len(names(folder)) == 2
    with atomic_write(tmp_path / "result.txt") as file:
        file.write("whole")
    assert (tmp_path / "result.txt").read_text() == "whole"
    make_output_dir(str(tmp_path))
    assert names(tmp_path) == ["inside", "result.txt"]
    assert names(tmp_path / "inside") == []


@linux
def test_what_a_living_process_writes_is_left_alone(tmp_path):
    (tmp_path / ".mine.tmp").write_text("no temporary file of this project")
    with temporary_folder(tmp_path) as folder, atomic_write(tmp_path / "result.txt") as file:
        file.write("text")
        for path in tmp_path.iterdir():
            os.utime(path, (0, 0))
        remove_abandoned(tmp_path)
        assert folder.is_dir()
    assert names(tmp_path) == [".mine.tmp", "result.txt"]


def test_write_json(tmp_path):
    value = {"name": "Schrödinger 🙂", "f1": 0.5, "rows": [1, 2], "none": None}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert "Schrödinger 🙂" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_write_json_refuses_what_json_cannot_hold(tmp_path, value):
    write_json(tmp_path / "a.json", {"loss": 1.0})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"loss": value})
    assert json.loads((tmp_path / "a.json").read_text()) == {"loss": 1.0}
    assert names(tmp_path) == ["a.json"]


def test_a_record_is_made_once_and_again_if_it_is_damaged(tmp_path):
    made = []

    def make():
        made.append(len(made))
        return {"number": made[-1]}

    for _ in range(2):
        assert kept_record(tmp_path, [{"b": 1, "a": 2}, 3], make) == {"number": 0}
    assert kept_record(tmp_path, [{"a": 2, "b": 1}, 3], make) == {"number": 0}  # the same
    (path,) = tmp_path.iterdir()
    path.write_text('{"half')
    assert kept_record(tmp_path, [{"b": 1, "a": 2}, 3], make) == {"number": 1}
    assert kept_record(tmp_path, [{"b": 1, "a": 2}, 4], make) == {"number": 2}
    assert len([*tmp_path.iterdir()]) == 2


def test_write_csv_quotes_what_needs_it(tmp_path):
    rows = [{"label": 'a, "b"', "f1": 0.5}, {"label": "c\nd", "f1": ""}]
    write_csv(tmp_path / "a.csv", rows)
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {"label": 'a, "b"', "f1": "0.5"},
            {"label": "c\nd", "f1": ""},
        ]
    assert (tmp_path / "a.csv").read_bytes().startswith(b"label,f1\n")


def test_make_output_dir_makes_parents_and_leaves_nothing_in_it(tmp_path):
    folder = make_output_dir(str(tmp_path / "a" / "b"))
    assert folder == tmp_path / "a" / "b"
    assert names(folder) == []
    (folder / "writable").write_text("mine")
    assert make_output_dir(str(folder)) == folder
    assert (folder / "writable").read_text() == "mine"


@pytest.mark.parametrize("path", ["file", "file/below"])
def test_make_output_dir_says_that_a_file_is_in_the_way(tmp_path, path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=rf"--output_dir .*{path}: a file is in the way"):
        make_output_dir(str(tmp_path / path))


def test_make_output_dir_says_what_the_system_says(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\); choose another"):
        make_output_dir(str(tmp_path / "a"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_make_output_dir_finds_out_that_a_folder_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written"):
        make_output_dir(str(tmp_path))
    tmp_path.chmod(0o700)


def test_variables_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPES_DATA", str(tmp_path))
    monkeypatch.setenv("HOME", "/home/someone")
    assert expand_path("$RECIPES_DATA/x.csv") == tmp_path / "x.csv"
    assert str(expand_path("~/${RECIPES_DATA}")).startswith("/home/someone")
    monkeypatch.delenv("RECIPES_DATA")
    monkeypatch.setattr(files, "ROOT", tmp_path / "project")
    with pytest.raises(UserError, match="RECIPES_DATA is not set"):
        expand_path("$RECIPES_DATA/x.csv")
    default_folder = tmp_path / "shared" / "data"
    default_folder.mkdir(parents=True)
    assert expand_path("$RECIPES_DATA/x.csv") == default_folder / "x.csv"
