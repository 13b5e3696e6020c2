"""Answers on disk: a request that was answered once never costs again.

The file holds answers and hashes of requests, but no texts and no keys. Each answer is a
transaction of its own: a kill loses none, and several processes may share the file. Two that ask
the same question at the same moment both pay for it.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError

_SECONDS_TO_WAIT = 60  # for another process that writes


class AnswerCache:
    """A file of answers by request; a context manager that closes it.

    Parameters
    ----------
    path : Path
        Created if it does not exist.

    Raises
    ------
    UserError
        If the file cannot be opened, or is another file.
    """

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)
            with self._database:
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS answers (request TEXT PRIMARY KEY, answer TEXT)"
                )
        except (sqlite3.Error, OSError) as error:
            raise UserError(
                f"{path}: cannot be used as a cache ({error}); delete it, or name another folder "
                "with --cache_dir"
            ) from error

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def get(self, request: Mapping[str, Any]) -> Any:
        """Return the answer to a request, which is anything that JSON can hold; None: not asked."""
        query = "SELECT answer FROM answers WHERE request = ?"
        row = self._database.execute(query, (_hash(request),)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, answers: Iterable[tuple[Mapping[str, Any], Any]]) -> None:
        """Keep answers, each with its request; from now on, no interruption loses them."""
        rows = [(_hash(request), json.dumps(answer)) for request, answer in answers]
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)


def _hash(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
