"""The clicks of a person on disk: nothing is lost, and nothing is overwritten."""

import errno
import json
import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.serving.annotation_log import (
    LABELLED_FILE,
    LOG,
    AnnotationLog,
    ConflictError,
    text_id,
)


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def rows(folder):
    """Return text to labels ("skipped" if there are none) of labelled.jsonl, in its order."""
    return {
        row["text"]: row["labels"] if row["annotation_status"] == "labelled" else "skipped"
        for row in lines(folder / LABELLED_FILE)
    }


def version(log, text):
    annotation = log.get(text_id(text))
    return annotation.version if annotation else 0


def test_a_click_is_a_line_and_a_row(tmp_path):
    with AnnotationLog(tmp_path, "anna") as log:
        log.label("a crash", 3, ("bug", "speed"), "sure", seen=0)
        log.skip("what?", 5, "", seen=0)
        log.label("hello", 6, (), "", seen=0)
        assert [event["action"] for event in lines(tmp_path / LOG)] == ["label", "skip", "label"]
        first, second, third = lines(tmp_path / LABELLED_FILE)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "row": 3,
        "text": "a crash",
        "labels": ["bug", "speed"],
        "annotation_status": "labelled",
        "annotator": "anna",
        "note": "sure",
    }
    assert (second["labels"], second["annotation_status"]) == (None, "skipped")
    assert (third["labels"], third["annotation_status"]) == ([], "labelled")


def test_without_an_annotator_there_is_no_column(tmp_path):
    with AnnotationLog(tmp_path) as log:
        log.label("a", 1, ("bug",), "", seen=0)
    assert "annotator" not in lines(tmp_path / LABELLED_FILE)[0]


def test_undo_takes_back_one_click_after_the_other_and_keeps_notes(tmp_path):
    with AnnotationLog(tmp_path) as log:
        log.label("a", 1, ("bug",), "", seen=0)
        log.label("a", 1, ("speed",), "", seen=1)
        log.skip("b", 2, "", seen=0)
        log.note("a", 1, "hm", seen=2)
        assert rows(tmp_path) == {"a": ["speed"], "b": "skipped"}
        assert log.undo(seen=3) == text_id("b")
        assert rows(tmp_path) == {"a": ["speed"]}
        assert log.undo(seen=2) == text_id("a")
        assert rows(tmp_path) == {"a": ["bug"]}
        assert lines(tmp_path / LABELLED_FILE)[0]["note"] == "hm"
    with AnnotationLog(tmp_path) as log:  # also after a new start
        log.undo(seen=1)
        assert rows(tmp_path) == {}
        assert log.get(text_id("a")).note == "hm"
        with pytest.raises(ConflictError):
            log.undo(seen=1)
        assert len(lines(tmp_path / LOG)) == 7


def test_who_saw_an_older_version_changes_nothing(tmp_path):
    with AnnotationLog(tmp_path) as log:
        log.label("a", 1, ("bug",), "", seen=0)
        for click in (
            lambda: log.label("a", 1, ("speed",), "", seen=0),
            lambda: log.skip("a", 1, "", seen=0),
            lambda: log.note("a", 1, "note", seen=0),
            lambda: log.label("b", 2, ("speed",), "", seen=1),
            lambda: log.undo(seen=0),
        ):
            with pytest.raises(ConflictError):
                click()
        assert len(lines(tmp_path / LOG)) == 1
        assert rows(tmp_path) == {"a": ["bug"]}


CLICKS = st.lists(
    st.tuples(
        st.sampled_from(["label", "label", "skip", "note", "undo", "reopen"]),
        st.sampled_from(["a", "b\n", "é \u2028"]),
        st.lists(st.sampled_from(["bug", "speed"]), unique=True).map(tuple),
        st.sampled_from(["", "hm", "half \ud800"]),
    ),
    max_size=12,
)


@pytest.fixture(scope="module")
def fast_disk():
    """Wait for no disk: the order of the writes is the same."""
    with mock.patch("os.fsync"):
        yield


@settings(max_examples=50)
@given(CLICKS)
@pytest.mark.usefixtures("fast_disk")
def test_labelled_rows_are_what_the_log_amounts_to(clicks):
    """Whatever is clicked: against a model that keeps all states, and after each new start."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log, states, notes = AnnotationLog(folder), [{}], {}
        for action, text, labels, note in clicks:
            state = dict(states[-1])
            if action == "reopen":
                log.__exit__()
                log = AnnotationLog(folder)
            elif action == "undo":
                if len(states) > 1:
                    log.undo(seen=log.last_click[0])
                    states.pop()
                else:
                    assert log.last_click is None
            elif action == "note":
                log.note(text, 1, note, seen=version(log, text))
                notes[text] = note
            else:
                notes[text] = note
                if action == "label":
                    log.label(text, 1, labels, note, seen=version(log, text))
                else:
                    log.skip(text, 1, note, seen=version(log, text))
                state[text] = list(labels) if action == "label" else "skipped"
                states.append(state)
            assert rows(folder) == states[-1]
            actual = {row["text"]: row["note"] for row in lines(folder / LABELLED_FILE)}
            assert actual == {text: notes[text] for text in states[-1]}
        before = (folder / LABELLED_FILE).read_bytes()
        log.__exit__()
        AnnotationLog(folder).__exit__()
        assert (folder / LABELLED_FILE).read_bytes() == before


@pytest.mark.usefixtures("fast_disk")
def test_a_kill_at_any_byte_loses_no_whole_click(tmp_path):
    folder = tmp_path / "log"
    folder.mkdir()
    with AnnotationLog(folder) as log:
        log.label("é", 1, ("bug",), "", seen=0)
        log.label("b", 2, ("speed",), "", seen=0)
    whole = (folder / LOG).read_bytes()
    first = whole.index(b"\n") + 1
    for size in {*range(0, len(whole), 9), first - 1, first, len(whole) - 1, len(whole)}:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / LOG).write_bytes(whole[:size])
        with AnnotationLog(copy) as log:
            expected = [["bug"], ["speed"]][: (size >= first) + (size == len(whole))]
            assert list(rows(copy).values()) == expected
            assert len(lines(copy / LOG)) == len(expected)
            log.label("c", 3, (), "", seen=0)
            assert list(rows(copy).values()) == [*expected, []]
        shutil.rmtree(copy)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace('"event": 1', '"event": 2', 1),
        lambda text: text.replace("label", "lable", 1),
        lambda text: "[]\n" + text,
        lambda text: "\n" + text,
        lambda text: text + '{"event": 3, "time": "", "action": "undo", "undoes": 1}\n',
    ],
)
def test_a_damaged_log_is_one_line_and_stays_as_it_is(damage, tmp_path):
    with AnnotationLog(tmp_path) as log:
        log.label("a", 1, ("bug",), "", seen=0)
        log.label("b", 1, ("bug",), "", seen=0)
    damaged = damage((tmp_path / LOG).read_text())
    (tmp_path / LOG).write_text(damaged)
    with pytest.raises(
        UserError, match=rf"{LOG}, line \d: not a line that annotate.py wrote; mend"
    ):
        AnnotationLog(tmp_path)
    assert (tmp_path / LOG).read_text() == damaged


def test_a_folder_is_for_one_person(tmp_path):
    with AnnotationLog(tmp_path, "anna") as log:
        log.label("a", 1, ("bug",), "", seen=0)
    with pytest.raises(UserError, match=r"holds the labels of anna; give --annotator anna, or"):
        AnnotationLog(tmp_path, "ben")
    with pytest.raises(UserError, match=r"holds the labels of anna; give --annotator anna, or"):
        AnnotationLog(tmp_path)


def _open(folder, queue):
    try:
        AnnotationLog(folder)
        queue.put("opened")
    except UserError as error:
        queue.put(str(error))


def test_one_process_has_the_log_at_a_time(tmp_path):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with AnnotationLog(tmp_path):
        process = context.Process(target=_open, args=(tmp_path, queue))
        process.start()
        assert "another process labels into this folder" in queue.get(timeout=30)
        process.join()
    AnnotationLog(tmp_path).__exit__()


def fill_disk(monkeypatch):
    """Let half of the next write of the log succeed, and nothing after it."""
    write, calls = os.write, []

    def limited(descriptor, data):
        calls.append(data)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("shared.serving.annotation_log.os.write", limited)


def test_on_a_full_disk_a_click_is_refused_and_nothing_is_broken(tmp_path, monkeypatch):
    with AnnotationLog(tmp_path) as log:
        log.label("a", 1, ("bug",), "", seen=0)
        with monkeypatch.context() as patch:
            fill_disk(patch)
            with pytest.raises(UserError, match=r"No space left on device.; the click is not"):
                log.label("b", 1, ("bug",), "", seen=0)
        assert log.get(text_id("b")) is None
        log.label("b", 1, ("speed",), "", seen=0)
    with AnnotationLog(tmp_path):
        assert rows(tmp_path) == {"a": ["bug"], "b": ["speed"]}


def test_labelled_rows_that_cannot_be_written_are_caught_up(tmp_path):
    with AnnotationLog(tmp_path) as log:
        log.label("a", 1, ("bug",), "", seen=0)
        (tmp_path / LABELLED_FILE).unlink()
        (tmp_path / LABELLED_FILE).mkdir()  # nobody can write it, not even root
        log.label("b", 2, ("bug",), "", seen=0)
        assert "cannot be written" in log.warning
        assert len(lines(tmp_path / LOG)) == 2
        (tmp_path / LABELLED_FILE).rmdir()
        log.label("c", 3, ("bug",), "", seen=0)
        assert log.warning is None
        assert [*rows(tmp_path)] == ["a", "b", "c"]
