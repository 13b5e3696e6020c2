"""The issues and comments of a repository: all of them, or what changed since the last time.

Issues are listed by their time of creation, oldest first: an issue that is opened meanwhile comes
on the last page, and one that is changed meanwhile stays on its page, so that no page moves. What
changed after its page was fetched is among the changes since the start of the run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import urlencode

from shared.cli.errors import UserError
from shared.cli.launch import progress_bar
from shared.github.client import GithubClient, Page
from shared.github.store import PageStore

_PER_PAGE = 100  # the most that GitHub gives
# A change can be missing for a moment in the lists of the server.
_OVERLAP = timedelta(seconds=60)


@dataclass(frozen=True)
class IssueQuery:
    """Which issues of a repository to fetch; pull requests are among them.

    Attributes
    ----------
    repo : "owner/name".
    state : "all", "open" or "closed".
    since : UTC, as `parse_time` returns it: only issues that changed at this time or later.
    labels : only issues that have all of these.
    """

    repo: str
    state: str = "all"
    since: str | None = None
    labels: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all issues are wanted."""
        return self.state == "all" and self.since is None and not self.labels

    def path(self, since: str | None) -> str:
        """Return the address of the first page below that of the API.

        With `since`, it lists all issues that changed since then, also those that no longer fit.
        """
        flags: dict[str, Any] = {
            "state": "all" if since else self.state,
            "sort": "created",
            "direction": "asc",
        }
        if since or self.since:
            flags["since"] = since or self.since
        if self.labels and not since:
            flags["labels"] = ",".join(self.labels)
        return f"/repos/{self.repo}/issues?{urlencode(flags | {'per_page': _PER_PAGE})}"

    def fits(self, issue: Mapping[str, Any]) -> bool:
        """Return whether an issue that changed is one of those to fetch."""
        labels = {name.lower() for name in label_names(issue)}
        in_state = self.state in ("all", issue.get("state"))
        return in_state and all(name.lower() in labels for name in self.labels)


def label_names(issue: Mapping[str, Any]) -> list[str]:
    """Return the names of the labels of an issue; GitHub writes objects, or rarely strings."""
    labels = issue.get("labels") or []
    return [str(label.get("name") if isinstance(label, dict) else label) for label in labels]


def parse_time(text: str) -> str:
    """Return a date or a time as GitHub wants it: UTC, to the second.

    Parameters
    ----------
    text : str
        In the form of ISO 8601, such as 2026-01-31 or 2026-01-31T12:00:00+01:00; without an offset
        it is UTC.

    Raises
    ------
    UserError
        If it is no date.
    """
    try:
        # Python 3.10 knows no Z.
        time = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
        time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
        return _format(time.astimezone(timezone.utc))
    except (ValueError, OverflowError):
        raise UserError(
            f"--since {text}: not a date; write 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from None


def _format(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def fetch_issues(
    client: GithubClient, store: PageStore, query: IssueQuery, *, update: bool
) -> None:
    """Fetch the issues that the store lacks.

    Parameters
    ----------
    client : GithubClient
    store : PageStore
    query : IssueQuery
    update : bool
        Only what changed since the last run; see `PageStore.begin`.

    Raises
    ------
    UserError
        See `GithubClient.get`. The pages before are kept.
    """
    run = store.begin("issues", update=update)
    first_url = client.api + query.path(run.since)

    def number_of(issue: Mapping[str, Any]) -> int | None:
        return issue.get("number")

    def n_pages(page: Page) -> int | None:
        """Return how many pages there are, after the first one."""
        if page.last_page or not page.next_url or run.since or not query.is_whole:
            return page.last_page
        # Lists of more than 10,000 rows have no last page. Issues are numbered from 1 on.
        newest = f"/repos/{query.repo}/issues?state=all&sort=created&direction=desc&per_page=1"
        rows = client.get(client.api + newest).rows or [{}]
        number = rows[0].get("number")
        return math.ceil(number / _PER_PAGE) if isinstance(number, int) else None

    is_wanted = query.fits if run.since else lambda row: True
    _fetch(client, store, "issues", [first_url], number_of, is_wanted, n_pages)


def fetch_comments(
    client: GithubClient, store: PageStore, query: IssueQuery, *, update: bool
) -> None:
    """Fetch the comments of the issues that are in the store; see `fetch_issues`.

    Those of a whole repository are one list. Those of some issues are a list for each issue.
    """
    run = store.begin("comments", update=update)
    base = f"{client.api}/repos/{query.repo}/issues"

    if query.is_whole:
        since = {"since": run.since} if run.since else {}
        flags = {"sort": "created", "direction": "asc", **since, "per_page": _PER_PAGE}
        urls = [f"{base}/comments?{urlencode(flags)}"]
    else:
        urls = [
            f"{base}/{issue.get('number')}/comments?per_page={_PER_PAGE}"
            for issue in store.rows("issues")
            if issue.get("comments") and (issue.get("updated_at") or "") >= (run.since or "")
        ]

    def number_of(comment: Mapping[str, Any]) -> int | None:
        number = str(comment.get("issue_url", "")).rpartition("/")[2]
        return int(number) if number.isdecimal() else None

    _fetch(client, store, "comments", urls, number_of)


def _fetch(
    client: GithubClient,
    store: PageStore,
    listing: str,
    first_urls: Sequence[str],
    number_of: Callable[[Mapping[str, Any]], int | None],
    is_wanted: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    n_pages: Callable[[Page], int | None] = lambda page: page.last_page,
) -> None:
    """Fetch the pages of a run that are missing, and end the run."""
    run, total = store.run(listing), f"pages of {listing}"
    with progress_bar(f"fetching {listing}", unit="pages") as bar:
        bar.total = None if run.since else store.fact(total)
        if len(first_urls) != 1:
            bar.total = len(first_urls)
        for first_url in first_urls:
            url: str | None = first_url
            visited: set[str] = set()
            while url is not None:
                if url in visited:
                    raise UserError(f"{url}: the links of the server lead to this page twice")
                visited.add(url)
                known = store.page(url)
                if known is None or known.run < run.number:
                    # The last page has the same state after a page more has begun, so it is asked
                    # for without one; an empty one would not be empty then.
                    same = known is not None and (known.next_url or not known.ids)
                    page = client.get(url, known.etag if known and same else None)
                    date = _format(page.date - _OVERLAP)
                    if page.rows is None:
                        store.keep(listing, url, date)
                    else:
                        store.put(
                            listing,
                            url,
                            page.rows,
                            etag=page.etag,
                            next_url=page.next_url,
                            date=date,
                            number_of=number_of,
                            is_wanted=is_wanted,
                        )
                        if bar.total is None and (number := n_pages(page)):
                            bar.total = number
                            if run.since is None:
                                store.keep_facts(**{total: number})
                    known = store.page(url)
                    assert known is not None
                url = known.next_url
                left = "" if client.remaining is None else f", {client.remaining:,} requests left"
                n_rows = store.count("rows", listing)
                bar.set_postfix_str(f"{n_rows:,} {listing}{left}", refresh=False)
                bar.update()
    store.finish(listing)
    if run.since is None:
        store.keep_facts(**{total: store.count("pages", listing)})
