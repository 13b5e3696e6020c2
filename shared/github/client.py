"""Pages of a list, from GitHub's REST API.

The server says in headers where the next page is (Link), how many requests are left and when there
are more (X-RateLimit-*), or how long to wait (Retry-After). Requests are sent one after the other,
as GitHub asks for: https://docs.github.com/rest/using-the-rest-api/best-practices-for-using-the-rest-api

What fails now and then (status 5xx, a lost connection, half an answer) is asked again; what always
fails (a wrong token, no such repository) ends the run with one line. The token is sent in a header,
to the server of `GithubClient.api` only. It is in no message and no file.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from shared.cli.errors import UserError
from shared.cli.launch import countdown
from shared.cli.web import parse_date, retry_after

if TYPE_CHECKING:
    import httpx2

    from shared.github.token import Token

_FIRST_PAUSE = 1.0  # seconds after a failure; each further one is twice as long
_FIRST_LIMIT_PAUSE = 60.0  # the same for a limit without a time, as GitHub asks for


@dataclass(frozen=True)
class Page:
    """A page of a list.

    Attributes
    ----------
    rows : list of dict, each with a number `id`; None if the page has not changed.
    etag : names this state of the page, to ask whether it has changed.
    next_url : where the next page is; None: there is none.
    last_page : number of the last page, where the server says it.
    date : UTC, by the clock of the server.
    """

    rows: list[dict[str, Any]] | None
    etag: str | None
    next_url: str | None
    last_page: int | None
    date: datetime


class GithubClient:
    """A connection to the REST API of GitHub, or of a GitHub Enterprise Server; a context manager.

    Parameters
    ----------
    api : str
        Base URL, such as ``https://api.github.com``, without a slash at its end.
    token : Token, optional
    max_wait : float
        Most seconds that one request may wait for limits.
    timeout : float
        Seconds until a request counts as failed.
    retries : int
        Further attempts after one that has failed.
    wait : callable
        Called with seconds and a reason; to be replaced in tests.

    Attributes
    ----------
    n_requests : int
    n_unchanged : int
        Those that the server has answered by "not modified", which costs nothing of the limit.
    remaining : int or None
        Requests that are left of the limit; None if the server does not say.
    """

    def __init__(
        self,
        api: str,
        token: Token | None = None,
        *,
        max_wait: float = 3900.0,
        timeout: float = 30.0,
        retries: int = 6,
        wait: Callable[[float, str], None] = countdown,
    ) -> None:
        self.api, self.n_requests, self.n_unchanged = api, 0, 0
        self.remaining: int | None = None
        self._token, self._timeout, self._retries = token, timeout, retries
        self._max_wait, self._wait = max_wait, wait
        self._reset: datetime | None = None  # when there are requests again; None: now
        self._date = _now()  # of the last response
        self._reached = False

    def __enter__(self) -> GithubClient:
        import httpx2

        headers = {
            "Accept": "application/vnd.github+json",
            "User-Agent": "text-classification-recipes",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.value}"
        # A redirect to another server does not get the token.
        self._client: httpx2.Client = httpx2.Client(
            headers=headers, timeout=self._timeout, follow_redirects=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, url: str, etag: str | None = None) -> Page:
        """Return a page.

        Parameters
        ----------
        url : str
        etag : str, optional
            That of the page as it is known; if the server has no other one, `Page.rows` is None.

        Raises
        ------
        UserError
            If the server cannot be reached, refuses the request or the token, or wants a longer
            wait than allowed.
        """
        import httpx2

        headers = {} if etag is None else {"If-None-Match": etag}
        waited, n_limits = 0.0, 0

        def wait_for_limit(seconds: float, reason: str) -> None:
            nonlocal waited
            waited += seconds
            if waited > self._max_wait:
                raise UserError(
                    f"{self.api}: {reason}: {waited:,.0f} s to wait, more than --max_wait "
                    f"{self._max_wait:g}; repeat the command then"
                    + ("" if self._token else ", or set GITHUB_TOKEN, which allows more requests")
                )
            self._wait(seconds, reason)

        if self._reset is not None:
            # The last response has said that the next request would be refused.
            seconds, self._reset = (self._reset - self._date).total_seconds() + 1, None
            if seconds > 1:
                wait_for_limit(seconds, "the limit of requests is used up")
        for attempt in range(self._retries + 1):
            pause = None
            try:
                self.n_requests += 1
                response = self._client.get(url, headers=headers)
                self._reached = True
                self._read_limits(response)
                if response.status_code == 304 and etag is not None:
                    self.n_unchanged += 1
                    return Page(None, etag, None, None, self._date)
                if response.status_code == 200:
                    return self._read(response)
                problem = self._problem(response)
                if limit := self._limit(response, n_limits):
                    n_limits, problem = n_limits + 1, limit[1]
                    if attempt < self._retries:
                        wait_for_limit(*limit)
                    continue
                if response.status_code < 500 and response.status_code != 408:
                    raise self._refusal(response.status_code, problem)
                pause = retry_after(response.headers.get("retry-after"))
            except httpx2.TimeoutException:
                problem = f"no answer within {self._timeout:g} s"
            except httpx2.InvalidURL as error:
                raise UserError(f"--api {self.api}: {error}") from None
            except httpx2.TooManyRedirects:
                raise UserError(f"{url}: redirects without end; check --api and --repo") from None
            except (httpx2.RequestError, _Unreadable) as error:
                problem = self._without_token(str(error) or type(error).__name__)
                if isinstance(error, httpx2.ConnectError) and not self._reached:
                    raise UserError(
                        f"--api {self.api}: cannot be reached ({problem}); check the network and "
                        "the address"
                    ) from None
            if attempt < self._retries:
                if pause is not None:
                    wait_for_limit(pause, problem)
                else:
                    self._wait(_FIRST_PAUSE * 2**attempt * random.uniform(0.5, 1), problem)
        raise UserError(
            f"{self.api}: {problem}, {self._retries + 1} times; repeat the command later"
        )

    def _read_limits(self, response: httpx2.Response) -> None:
        """Keep what the headers say about the time and the limit."""
        self._date = parse_date(response.headers.get("date")) or _now()
        self.remaining = _number(response.headers.get("x-ratelimit-remaining"))
        reset = _number(response.headers.get("x-ratelimit-reset"))
        self._reset = None
        if self.remaining == 0 and reset is not None:
            self._reset = datetime.fromtimestamp(min(reset, 2**36), timezone.utc)

    def _limit(self, response: httpx2.Response, n_before: int) -> tuple[float, str] | None:
        """Return for how long the server wants no requests, and why; None if it is no limit.

        The times are those of GitHub's documentation: Retry-After; the end of the hour for which
        all requests are used up; else a minute, then twice as long each time.
        """
        if response.status_code not in (403, 429):
            return None
        message, backoff = self._problem(response).lower(), _FIRST_LIMIT_PAUSE * 2**n_before
        seconds = retry_after(response.headers.get("retry-after"))
        reset, self._reset = self._reset, None
        if seconds is not None:
            return seconds, "the server asks to wait (secondary limit)"
        if self.remaining == 0:
            left = 0.0 if reset is None else (reset - self._date).total_seconds() + 1
            return left if left > 0 else backoff, "the limit of requests is used up"
        if response.status_code == 429 or "rate limit" in message or "abuse" in message:
            return backoff, "the server asks to wait (secondary limit)"
        return None

    def _read(self, response: httpx2.Response) -> Page:
        """Return the page in a response.

        Raises
        ------
        _Unreadable
            If there is none in it.
        UserError
            If the page, or the next one, is on another server.
        """
        start = self._without_token(" ".join(response.text[:200].split())[:60])
        try:
            rows = response.json()
        except ValueError:
            raise _Unreadable(
                f"an answer that is no JSON (begins with {start!r}); is --api the base of an API, "
                "such as https://HOST/api/v3?"
            ) from None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("id"), int) for row in rows
        ):
            raise _Unreadable(f"an answer that is no list of issues (begins with {start!r})")
        next_url, last = (response.links.get(rel, {}).get("url") for rel in ("next", "last"))
        for url in filter(None, (str(response.url), next_url)):
            if _origin(url) != _origin(self.api):
                raise UserError(
                    f"--api {self.api}: leads to another server, {_origin(url)[1]}; name that one"
                )
        page = parse_qs(urlsplit(last or "").query).get("page", [""])[0]
        etag = response.headers.get("etag")
        return Page(rows, etag, next_url, _number(page), self._date)

    def _problem(self, response: httpx2.Response) -> str:
        """Return the status and the message of a response, without the token."""
        try:
            message = response.json()["message"]
        except (ValueError, LookupError, TypeError):
            message = re.sub("<[^>]*>", " ", response.text)
        text = self._without_token(" ".join(str(message).split())[:200])
        return f"status {response.status_code}" + (f", {text}" if text else "")

    def _without_token(self, text: str) -> str:
        return text.replace(self._token.value, "***") if self._token else text

    def _refusal(self, status: int, problem: str) -> UserError:
        """Return the error for a request that the server will never answer."""
        source = self._token.source if self._token else "GITHUB_TOKEN"
        advice = {
            401: f"the token of {source} is not valid; set another one, or unset it",
            403: f"the token of {source} may not read this repository",
            404: "no such repository, or a private one that the token may not read; check --repo",
            410: "the repository has no issues: they are turned off",
            422: "a value of --since or --labels, or the page, is not accepted",
            451: "the repository is blocked",
        }
        if not self._token:
            advice[401] = advice[403] = "a token is needed; set GITHUB_TOKEN, or `gh auth login`"
            advice[404] = "no such repository, or a private one; check --repo, or set GITHUB_TOKEN"
        hint = advice.get(status, "check --api and --repo")
        return UserError(f"{self.api}: {problem}: {hint}")


class _Unreadable(Exception):
    """A response that holds no page."""


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isascii() and value.isdecimal() else None


def _origin(url: str) -> tuple[str, str]:
    """Return the scheme, and the host with its port."""
    parts = urlsplit(url)
    ports = {"http": 80, "https": 443}
    return parts.scheme, f"{parts.hostname}:{parts.port or ports.get(parts.scheme)}"
