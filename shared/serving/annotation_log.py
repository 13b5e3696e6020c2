"""What a person said about texts, on disk: each click at once, and nothing is ever overwritten.

A folder has two files:

- ``clicks.jsonl``, the log. A click is a line, written and synchronised before anybody hears of it.
  A correction is a further line, and so is an undo.
- ``labelled.jsonl``, what the log amounts to: a row for each text, data for every recipe. It is
  derived from the log, and made anew when the log is opened.

A kill leaves the log complete but for a line that it cut in two, whose click was not answered yet;
the next start removes that half. One process has the log at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from threading import RLock
from typing import Any

from shared.cli.errors import UserError
from shared.cli.files import atomic_write
from shared.data.columns import ANNOTATION_STATUS, LABELLED, SKIPPED
from shared.data.writers import write_json_lines

try:
    import fcntl
except ImportError:  # Windows: files have no locks
    fcntl = None  # type: ignore[assignment]

LOG = "clicks.jsonl"
LABELLED_FILE = "labelled.jsonl"
_STATUS = {"label": LABELLED, "skip": SKIPPED}  # what a click on a text makes of it


class ConflictError(Exception):
    """The text, or the last click, is no longer what the person saw."""


@dataclass(frozen=True)
class Annotation:
    """What a person has said about a text.

    Attributes
    ----------
    text : str
    row : int
        Its row in the data that it was shown from.
    status : str, optional
        `LABELLED` or `SKIPPED`; None: neither, but there is a note, or a click was taken back.
    labels : tuple of str
        None of them applies if it is empty and the status is `LABELLED`.
    note : str
    version : int
        Number of the last click on this text. 0: there was none.
    time : str
        Of that click, ISO 8601, in UTC.
    annotator : str, optional
    """

    text: str
    row: int
    status: str | None = None
    labels: tuple[str, ...] = ()
    note: str = ""
    version: int = 0
    time: str = ""
    annotator: str | None = None

    def record(self) -> dict[str, Any]:
        """Return the row of ``labelled.jsonl``."""
        labels = list(self.labels) if self.status == LABELLED else None
        annotator = {} if self.annotator is None else {"annotator": self.annotator}
        return {
            "row": self.row,
            "text": self.text,
            "labels": labels,
            ANNOTATION_STATUS: self.status,
            **annotator,
            "note": self.note,
            "time": self.time,
        }


def text_id(text: str) -> str:
    """Return the identity of a text, whatever file it is read from: 16 hexadecimal digits."""
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class AnnotationLog:
    """The clicks of one person in a folder; a context manager that releases it.

    All methods may be called from several threads.

    Parameters
    ----------
    folder : Path
        Exists.
    annotator : str, optional
        Who clicks.

    Raises
    ------
    UserError
        If another process has the log open, the log is damaged, or holds clicks of another person.
    """

    def __init__(self, folder: Path, annotator: str | None = None) -> None:
        self.folder, self.annotator = folder, annotator
        self.warning: str | None = None  # why labelled.jsonl is behind the log
        self._lock = RLock()
        self._annotations: dict[str, Annotation] = {}
        self._clicks: list[tuple[int, str]] = []  # those that can be taken back: number and text
        self._before: list[Annotation | None] = []  # the annotation before each of them
        self._events = 0
        self._log = os.open(folder / LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            self._claim()
            self._size = self._replay()
            os.ftruncate(self._log, self._size)
            _synchronise_folder(folder)
            self._rewrite()
        except BaseException:
            os.close(self._log)
            raise

    def __enter__(self) -> AnnotationLog:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self.warning is not None:
                self._update_file(None)
            os.close(self._log)

    # --- reading ---------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Number of clicks so far, undone ones and undos included."""
        return self._events

    @property
    def last_click(self) -> tuple[int, str] | None:
        """Number and text of the click that `undo` would take back."""
        with self._lock:
            return self._clicks[-1] if self._clicks else None

    def get(self, identity: str) -> Annotation | None:
        """Return what is known of a text by its `text_id`; None: nothing."""
        return self._annotations.get(identity)

    def annotations(self) -> list[Annotation]:
        """Return all texts that are labelled or skipped, in the order of ``labelled.jsonl``."""
        with self._lock:
            return [annotation for annotation in self._annotations.values() if annotation.status]

    # --- clicking --------------------------------------------------------------------------------

    def label(
        self, text: str, row: int, labels: tuple[str, ...], note: str, *, seen: int
    ) -> Annotation:
        """Label a text. As all clicks, this returns when it is on the disk.

        Parameters
        ----------
        text, row
        labels : tuple of str
            Empty: none of the labels applies.
        note : str
        seen : int
            The version of the text that the person saw.

        Raises
        ------
        ConflictError
            If the text has another version by now. Nothing is changed.
        UserError
            If the log cannot be written. Nothing is changed.
        """
        return self._click("label", text, row, labels, note, seen)

    def skip(self, text: str, row: int, note: str, *, seen: int) -> Annotation:
        """Pass over a text, as `label` does."""
        return self._click("skip", text, row, (), note, seen)

    def note(self, text: str, row: int, note: str, *, seen: int) -> Annotation:
        """Note something about a text, as `label` does. A note is not taken back by `undo`."""
        return self._click("note", text, row, (), note, seen)

    def undo(self, *, seen: int) -> str:
        """Take back the last click that labelled or skipped a text; return the text's `text_id`.

        Notes stay. Repeated, it takes back the clicks before.

        Parameters
        ----------
        seen : int
            The number of the click that the person wants to take back (`last_click`).

        Raises
        ------
        ConflictError
            If it is not the last one any more, or there is none. Nothing is changed.
        UserError
            If the log cannot be written. Nothing is changed.
        """
        with self._lock:
            if not self._clicks or self._clicks[-1][0] != seen:
                raise ConflictError
            identity = self._clicks[-1][1]
            self._append({"action": "undo", "undoes": seen})
            self._update_file(None)
            return identity

    def _click(
        self, action: str, text: str, row: int, labels: tuple[str, ...], note: str, seen: int
    ) -> Annotation:
        identity = text_id(text)
        with self._lock:
            before = self._annotations.get(identity)
            if seen != (0 if before is None else before.version):
                raise ConflictError
            event: dict[str, Any] = {"action": action, "row": row, "text": text, "note": note}
            if action == "label":
                event["labels"] = list(labels)
            self._append(event)
            after = self._annotations[identity]
            is_new = after.status is not None and (before is None or before.status is None)
            if after.status is not None:
                self._update_file(after if is_new else None)
            return after

    # --- the log ---------------------------------------------------------------------------------

    def _claim(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--output_dir {self.folder}: another process labels into this folder; open its "
                "page in a second tab, end it, or choose another folder"
            ) from None
        except OSError:  # a file system without locks
            pass

    def _replay(self) -> int:
        """Apply the log; return the size of its complete lines."""
        place, size = self.folder / LOG, 0
        with place.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):  # a kill cut it
                    break
                try:
                    event = json.loads(line)
                    self._apply(event)
                except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                    raise UserError(
                        f"{place}, line {number}: not a line that annotate.py wrote; mend it, or "
                        "choose another --output_dir"
                    ) from None
                other = event.get("annotator")
                if other != self.annotator:
                    raise UserError(
                        f"--output_dir {self.folder}: holds the labels of "
                        f"{other or 'somebody without a name'}; give "
                        f"{f'--annotator {other}' if other else 'no --annotator'}, or another "
                        "folder for each person"
                    )
                size += len(line)
        return size

    def _append(self, event: dict[str, Any]) -> None:
        """Write an event to the log, and apply it when it is on the disk."""
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        annotator = {} if self.annotator is None else {"annotator": self.annotator}
        event = {"event": self._events + 1, "time": time, **annotator, **event}
        # Half a surrogate pair, which a note may hold, stays an escape.
        text = json.dumps(event, ensure_ascii=False) + "\n"
        line = text.encode(errors="backslashreplace")
        try:
            _write_all(self._log, line)
            os.fsync(self._log)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._log, self._size)
            raise UserError(
                f"{self.folder / LOG}: cannot be written ({error.strerror}); the click is not "
                "saved: free some space, and click again"
            ) from error
        self._size += len(line)
        self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        """Change the state as an event says."""
        number, time, action = event["event"], event["time"], event["action"]
        if number != self._events + 1:
            raise ValueError("a line is missing")
        if action == "undo":
            self._undo(number, time, event["undoes"])
        else:
            identity = text_id(event["text"])
            before = self._annotations.get(identity)
            after = before or Annotation(event["text"], int(event["row"]))
            after = replace(after, note=event["note"], version=number, time=time)
            after = replace(after, annotator=event.get("annotator"))
            if action != "note":
                labels = tuple(event["labels"]) if action == "label" else ()
                after = replace(after, status=_STATUS[action], labels=labels)
                self._clicks.append((number, identity))
                self._before.append(before)
            # The rows of labelled.jsonl stand in the order in which they came into it.
            if before is None or before.status is None:
                self._annotations.pop(identity, None)
            self._annotations[identity] = after
        self._events = number

    def _undo(self, number: int, time: str, undoes: int) -> None:
        if self._clicks[-1][0] != undoes:
            raise ValueError("not the last click")
        _, identity = self._clicks.pop()
        now, before = self._annotations[identity], self._before.pop()
        before = before or Annotation(now.text, now.row, annotator=now.annotator)
        restored = replace(before, note=now.note, version=number, time=time)
        self._annotations[identity] = restored

    # --- labelled.jsonl --------------------------------------------------------------------------

    def _update_file(self, new: Annotation | None) -> None:
        """Append a row, or write the whole file; a failure is a warning, as the log is complete."""
        try:
            if new is None or self.warning is not None:
                self._rewrite()
            else:
                with (self.folder / LABELLED_FILE).open(
                    "a", encoding="utf-8", newline="\n"
                ) as file:
                    write_json_lines(file, [new.record()])
                    file.flush()
                    os.fsync(file.fileno())
            self.warning = None
        except OSError as error:
            self.warning = (
                f"{self.folder / LABELLED_FILE} cannot be written ({error.strerror}); the clicks "
                f"are safe in {LOG}: free some space"
            )

    def _rewrite(self) -> None:
        with atomic_write(self.folder / LABELLED_FILE) as file:
            write_json_lines(file, self._records())

    def _records(self) -> Iterator[dict[str, Any]]:
        return (annotation.record() for annotation in self.annotations())


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _synchronise_folder(folder: Path) -> None:
    """Put the name of a new file on the disk, too."""
    with suppress(OSError):  # Windows cannot open a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
