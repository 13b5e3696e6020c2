"""Answers on disk: a request that was answered once never costs again.

The file holds answers and hashes of requests, but no texts and no keys. Each answer is a
transaction of its own: a kill loses none, and several processes may share the file. Who asks claims
the request first, so that nobody else pays for it, too. A claim is renewed while its process lives,
and void a few seconds after a kill.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError

CLAIM_SECONDS = 10.0  # from the last renewal of a claim until it is void
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
        If the file cannot be opened or written, or is another file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._owner = uuid.uuid4().hex  # of the claims of this object
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)
            # As safe as to delete the journal after each transaction, and faster.
            self._database.execute("PRAGMA journal_mode = PERSIST")
            with self._database:
                for columns in (
                    "answers (request TEXT PRIMARY KEY, answer TEXT)",
                    "claims (request TEXT PRIMARY KEY, owner TEXT, renewed REAL)",
                ):
                    self._database.execute(f"CREATE TABLE IF NOT EXISTS {columns}")
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
        """Keep answers, each with its request; from now on, no interruption loses them.

        Claims of these requests end.
        """
        rows = [(_hash(request), json.dumps(answer)) for request, answer in answers]
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?)", rows)
            keys = [(key,) for key, _ in rows]
            database.executemany("DELETE FROM claims WHERE request = ?", keys)

    def claim(self, request: Mapping[str, Any]) -> bool:
        """Claim a request before it is asked; return whether nobody has answered or claimed it.

        A claim ends with `put` or `release`, or `CLAIM_SECONDS` after it was made or last renewed.
        """
        key, now = _hash(request), time.time()
        with self._transaction() as database:
            changes = database.execute(
                "INSERT INTO claims SELECT ?, ?, ? "
                "WHERE NOT EXISTS (SELECT 1 FROM answers WHERE request = ?) "
                "ON CONFLICT (request) DO UPDATE "
                "SET owner = excluded.owner, renewed = excluded.renewed "
                # The clock may have been set back since.
                "WHERE abs(claims.renewed - excluded.renewed) > ?",
                (key, self._owner, now, key, CLAIM_SECONDS),
            )
        return changes.rowcount == 1

    def renew_claims(self) -> None:
        """Renew all claims of this object."""
        with self._transaction() as database:
            query = "UPDATE claims SET renewed = ? WHERE owner = ?"
            database.execute(query, (time.time(), self._owner))

    def release(self, request: Mapping[str, Any]) -> None:
        """End a claim of this object without an answer."""
        with self._transaction() as database:
            query = "DELETE FROM claims WHERE request = ? AND owner = ?"
            database.execute(query, (_hash(request), self._owner))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Commit what the ``with`` block writes, as a whole or not at all."""
        try:
            with self._database:
                yield self._database
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path}: cannot be written ({error}); the answers so far are kept: make room "
                "on the disk, and repeat the command"
            ) from error


def _hash(request: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
