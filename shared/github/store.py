"""Pages of lists on disk: a fetch goes on after an interruption, later ones ask for changes.

A *listing* is a list of the server, such as the issues of a repository, on many pages. A *run*
fetches all of it, or what changed since an earlier run. Each page is a transaction of its own, so
that a kill loses at most the page that was on its way. The file holds rows, addresses and states
(ETags) of pages; it holds no token.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.cli.errors import UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS pages (
    url TEXT PRIMARY KEY, listing TEXT, run INTEGER, etag TEXT, next_url TEXT, ids TEXT
);
CREATE TABLE IF NOT EXISTS rows (
    listing TEXT, id INTEGER, number INTEGER, run INTEGER, content BLOB, PRIMARY KEY (listing, id)
);
CREATE INDEX IF NOT EXISTS numbers ON rows (listing, number, id);
"""


@dataclass(frozen=True)
class Run:
    """A fetch of a listing, finished or not.

    Attributes
    ----------
    number : int
        Counts the runs of the listing from 1.
    since : str or None
        Only rows that changed since this time are fetched; None: all.
    started : str or None
        Time of the first page, by the clock of the server; None before it.
    finished : str or None
        `started` of the last run that has ended: the time for which the rows are complete.
    is_open : bool
        Whether pages are missing.
    """

    number: int = 0
    since: str | None = None
    started: str | None = None
    finished: str | None = None
    is_open: bool = False


@dataclass(frozen=True)
class StoredPage:
    """What is known of a page.

    Attributes
    ----------
    run : number of the last run that has fetched it, or found it unchanged.
    etag, next_url : see `shared.github.client.Page`.
    ids : of its rows.
    """

    run: int
    etag: str | None
    next_url: str | None
    ids: list[int]


class PageStore:
    """A file of pages; a context manager that closes it. One process at a time can use it.

    Parameters
    ----------
    path : Path
        Created if it does not exist.
    settings : mapping
        Flags that decide which rows are fetched, by name, with JSON values. Those of an existing
        file must be the same.

    Raises
    ------
    UserError
        If the file cannot be used, is in use, or holds rows of other settings.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path, self._is_new = path, not path.exists()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot be created ({error.strerror})") from None
        with self._errors():
            self._database = sqlite3.connect(path, timeout=0, isolation_level="IMMEDIATE")
            # Until the file is closed, no other process can use it.
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.executescript(f"BEGIN IMMEDIATE; {_TABLES} COMMIT;")
        saved = self.fact("settings")
        if saved is None or not self._has_pages():
            self.keep_facts(settings=dict(settings))
        elif saved != settings:
            self.close()
            names = [name for name in settings if saved.get(name) != settings[name]]
            before = ", ".join(f"--{name} {_words(saved.get(name))}" for name in names)
            raise UserError(
                f"{path}: was fetched with {before}; repeat these flags, choose another --output, "
                "or delete this file to fetch everything anew"
            )

    def __enter__(self) -> PageStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; remove a new one without any page."""
        is_useless = self._is_new and not self._has_pages()
        self._database.close()
        if is_useless:
            self.path.unlink(missing_ok=True)

    # --- runs ---

    def run(self, listing: str) -> Run:
        """Return the last run of a listing."""
        return Run(**(self.fact(f"run of {listing}") or {}))

    def begin(self, listing: str, *, update: bool) -> Run:
        """Begin a run, or go on with the one that was stopped.

        Parameters
        ----------
        listing : str
        update : bool
            Whether to fetch only what changed since the last run. Without one, everything is
            fetched; so it is if a run of everything was stopped.
        """
        run = self.run(listing)
        if run.is_open and (run.since is None or update):
            return run
        since = run.finished if update else None
        run = Run(run.number + 1, since, finished=run.finished, is_open=True)
        with self._transaction():
            self._set(f"run of {listing}", vars(run))
        return run

    def finish(self, listing: str) -> None:
        """End a run. After one of everything, rows and pages that it has not met are removed."""
        run, database = self.run(listing), self._database
        finished = run.started
        with self._transaction():
            if run.since is None:
                old = "WHERE listing = ? AND run < ?"
                gone = database.execute(f"DELETE FROM rows {old}", (listing, run.number))
                self._count_changes(gone.rowcount)
                database.execute(f"DELETE FROM pages {old}", (listing, run.number))
            else:
                query = "SELECT 1 FROM pages WHERE listing = ? AND run = ? AND ids != '[]'"
                if self._one(query, listing, run.number) is None:
                    # The next update asks for the same page, with its state.
                    finished = run.since
            ended = Run(run.number, run.since, run.started, finished)
            self._set(f"run of {listing}", vars(ended))

    # --- pages and rows ---

    def page(self, url: str) -> StoredPage | None:
        """Return what is known of a page; None: nothing."""
        query = "SELECT run, etag, next_url, ids FROM pages WHERE url = ?"
        if (row := self._one(query, url)) is None:
            return None
        run, etag, next_url, ids = row
        return StoredPage(run, etag, next_url, json.loads(ids))

    def put(
        self,
        listing: str,
        url: str,
        rows: Sequence[Mapping[str, Any]],
        *,
        etag: str | None,
        next_url: str | None,
        date: str,
        number_of: Callable[[Mapping[str, Any]], int | None],
        is_wanted: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    ) -> None:
        """Keep a page; from now on, no interruption loses it.

        Parameters
        ----------
        listing, url : str
        rows : sequence of dict with an `id`
        etag, next_url : str, optional
        date : str
            Time of the page, by the clock of the server.
        number_of : callable
            Returns the number of a row, by which rows are ordered.
        is_wanted : callable
            Rows for which it is false are removed.
        """
        run, database, n_changes = self.run(listing), self._database, 0
        with self._transaction():
            for row in rows:
                key = (listing, row["id"])
                if not is_wanted(row):
                    gone = database.execute("DELETE FROM rows WHERE listing = ? AND id = ?", key)
                    n_changes += gone.rowcount
                    continue
                content = zlib.compress(json.dumps(row).encode())
                query = "SELECT content FROM rows WHERE listing = ? AND id = ?"
                n_changes += self._one(query, *key) != (content,)
                database.execute(
                    "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)",
                    (*key, number_of(row), run.number, content),
                )
            ids = json.dumps([row["id"] for row in rows])
            database.execute(
                "INSERT OR REPLACE INTO pages VALUES (?, ?, ?, ?, ?, ?)",
                (url, listing, run.number, etag, next_url, ids),
            )
            self._count_changes(n_changes)
            self._note_start(listing, run, date)

    def keep(self, listing: str, url: str, date: str) -> None:
        """Note that a page and its rows have not changed."""
        run, page = self.run(listing), self.page(url)
        assert page is not None
        with self._transaction():
            self._database.execute("UPDATE pages SET run = ? WHERE url = ?", (run.number, url))
            self._database.executemany(
                "UPDATE rows SET run = ? WHERE listing = ? AND id = ?",
                [(run.number, listing, id) for id in page.ids],
            )
            self._note_start(listing, run, date)

    def _note_start(self, listing: str, run: Run, date: str) -> None:
        if run.started is None:
            self._set(f"run of {listing}", vars(run) | {"started": date})

    def rows(self, listing: str, number: int | None = None) -> Iterator[dict[str, Any]]:
        """Yield the rows of a listing in the order of their numbers, or those of one number."""
        query = "SELECT content FROM rows WHERE listing = ? "
        query += "" if number is None else "AND number = ? "
        values = (listing,) if number is None else (listing, number)
        with self._errors():
            cursor = self._database.execute(f"{query}ORDER BY number, id", values)
            for (content,) in cursor:
                yield json.loads(zlib.decompress(content))

    def count(self, table: str, listing: str) -> int:
        """Return the number of "rows", or of the "pages" of the last run."""
        query = f"SELECT COUNT(*) FROM {table} WHERE listing = ?"
        if table == "pages":
            query += f" AND run = {self.run(listing).number}"
        return self._one(query, listing)[0]

    def _has_pages(self) -> bool:
        return self._one("SELECT 1 FROM pages LIMIT 1") is not None

    # --- facts ---

    @property
    def n_changes(self) -> int:
        """How many rows were added, changed or removed; a fact, so that it can be set to 0."""
        return self.fact("changes") or 0

    def fact(self, name: str) -> Any:
        """Return a JSON value that was kept by name; None without one."""
        row = self._one("SELECT value FROM facts WHERE name = ?", name)
        return None if row is None else json.loads(row[0])

    def keep_facts(self, **facts: Any) -> None:
        """Keep JSON values by name."""
        with self._transaction():
            for name, value in facts.items():
                self._set(name, value)

    def _count_changes(self, n_changes: int) -> None:
        if n_changes:
            self._set("changes", self.n_changes + n_changes)

    def _set(self, name: str, value: Any) -> None:
        query = "INSERT OR REPLACE INTO facts VALUES (?, ?)"
        self._database.execute(query, (name, json.dumps(value)))

    def _one(self, query: str, *values: Any) -> Any:
        with self._errors():
            return self._database.execute(query, values).fetchone()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors(), self._database:
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Report errors of the file as a `UserError`."""
        try:
            yield
        except sqlite3.Error as error:
            reason = str(error)
            if "full" in reason:
                advice = "free some space and repeat the command; the pages before are kept"
            elif "locked" in reason:
                advice = "another fetch is writing this file; wait until it has ended"
            else:
                advice = "delete it to fetch everything anew, or choose another --output"
            raise UserError(f"{self.path}: {reason}; {advice}") from None


def _words(value: Any) -> str:
    """Return the value of a flag as it is typed."""
    return "unset" if value is None else " ".join(value) if isinstance(value, list) else str(value)
