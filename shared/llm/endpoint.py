"""Chat completions over HTTP, from any server that speaks the protocol of OpenAI.

What a server does now and then (it asks to wait, fails, or does not answer in time) is asked again
after a pause; what it will always do (a wrong key, an unknown model) ends the run with one line.
The key is sent in a header. It is in no message, no log and no cache.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError
from shared.cli.launch import print_once
from shared.cli.web import check_url, retry_after
from shared.llm.budget import Budget, Usage
from shared.llm.cache import CLAIM_SECONDS, AnswerCache

if TYPE_CHECKING:
    import httpx2

Message = Mapping[str, str]

_LONGEST_WAIT = 600  # seconds that a server may ask for
_FIRST_PAUSE = 1.0  # seconds; each further one is twice as long
_LONGEST_PAUSE = 60.0
_POLL = 0.2  # seconds between looks whether another process has its answer
# Of one byte of text, more than any usual tokenizer makes: English has 0.25, Chinese 0.4.
_TOKENS_PER_BYTE = 0.5


class NoAnswer(Exception):
    """The server does not answer this request, though it answers others."""


@dataclass(frozen=True)
class Completion:
    """What a model has answered.

    Attributes
    ----------
    text : str
    problem : str
        Why the text is no whole answer: "" (it is one), "cut off" or "refused".
    input_tokens, output_tokens : int
    """

    text: str
    problem: str = ""
    input_tokens: int = 0
    output_tokens: int = 0


class Endpoint:
    """A model behind a URL; an asynchronous context manager.

    Parameters
    ----------
    url : str
        Base of the API, such as ``https://api.openai.com/v1``.
    model : str
        Its name there.
    cache : AnswerCache
        Asked first; what is in it costs nothing.
    budget : Budget
    key : str, optional
        Sent as bearer token.
    schema : dict, optional
        JSON schema of the answers. It is left out as soon as the server refuses it.
    temperature : float
    max_tokens : int
        Of an answer.
    timeout : float
        Seconds until a request counts as failed.
    retries : int
        Further attempts after one that has failed.
    sleep : callable
        Waits for some seconds; to be replaced in tests.

    Attributes
    ----------
    from_cache : int
        Answers that were in the cache.

    Raises
    ------
    UserError
        If the URL is none, or holds a password.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        cache: AnswerCache,
        budget: Budget,
        key: str | None = None,
        schema: Mapping[str, Any] | None = None,
        temperature: float = 0.0,
        max_tokens: int = 256,
        timeout: float = 60.0,
        retries: int = 6,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        check_endpoint(url)
        self.url, self.model = url.rstrip("/"), model
        self.cache, self.budget, self.from_cache = cache, budget, 0
        self._key, self._timeout, self._retries, self._sleep = key, timeout, retries, sleep
        self._settings = {"model": model, "temperature": temperature}
        self._max_tokens, self._length_name = max_tokens, "max_tokens"
        self._schema, self._schema_works = schema, False
        self._n_answers = 0  # from the server
        self._pause_until = 0.0

    async def __aenter__(self) -> Endpoint:
        import httpx2

        headers = {} if self._key is None else {"Authorization": f"Bearer {self._key}"}
        # The number of connections is limited by who asks.
        limits = httpx2.Limits(max_connections=None)
        self._client: httpx2.AsyncClient = httpx2.AsyncClient(
            headers=headers, timeout=self._timeout, limits=limits
        )
        self._renewals = asyncio.create_task(self._renew_claims())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._renewals.cancel()
        await asyncio.gather(self._renewals, return_exceptions=True)
        await self._client.aclose()

    async def _renew_claims(self) -> None:
        """Keep the claims of the requests that are on their way, while this process lives."""
        while True:
            await asyncio.sleep(CLAIM_SECONDS / 4)
            self.cache.renew_claims()

    async def complete(self, messages: Sequence[Message], sample: int = 0) -> Completion:
        """Return the answer to a conversation, from the cache or from the server.

        While another process that shares the cache asks the same, its answer is waited for.

        Parameters
        ----------
        messages : sequence of dict with "role" and "content"
        sample : int
            Number of the answer, where several are wanted to the same conversation.

        Raises
        ------
        BudgetSpent
            If the request could pass a limit. It is not sent.
        NoAnswer
            If the server answers other requests, but not this one.
        UserError
            If the server cannot be reached, or refuses key, model or settings.
        """
        request = {
            **self._settings,
            "endpoint": self.url,
            "messages": list(messages),
            "max_tokens": self._max_tokens,
            "sample": sample,
        }
        while (cached := self.cache.get(request)) is None:
            if not self.cache.claim(request):
                await self._sleep(_POLL)
                continue
            try:
                completion = await self._ask(messages)
            except BaseException:
                self.cache.release(request)
                raise
            self.cache.put([(request, asdict(completion))])
            return completion
        self.from_cache += 1
        return Completion(**cached)

    async def _ask(self, messages: Sequence[Message]) -> Completion:
        """Send a request until it is answered."""
        import httpx2

        n_bytes = sum(len(message["content"].encode()) + 16 for message in messages)
        most = Usage(1, int(n_bytes * _TOKENS_PER_BYTE) + 1, self._max_tokens)
        n_before, attempt = self._n_answers, 0
        while True:
            if (pause := self._pause_until - time.monotonic()) > 0:
                await self._sleep(pause)
            await self.budget.reserve(most)
            status = 0
            # An attempt that fails may be charged for.
            used, with_schema = most, self._schema is not None
            try:
                response = await self._client.post(
                    f"{self.url}/chat/completions", json=self._body(messages)
                )
                status, wait = response.status_code, None
                if status == 200:
                    completion = self._read(response, most)
                    used = Usage(1, completion.input_tokens, completion.output_tokens)
                    self._n_answers += 1
                    self._schema_works |= with_schema
                    return completion
                problem, wait = (
                    self._problem(response),
                    retry_after(response.headers.get("retry-after")),
                )
                used = Usage(1)
                if self._adapts(status, problem, with_schema):
                    continue
                if not _is_temporary(status):
                    raise self._refusal(status, problem)
            except httpx2.TimeoutException:
                problem, wait = f"no answer within {self._timeout:g} s", None
            except (httpx2.RequestError, _Unreadable) as error:
                problem, wait = self._without_key(str(error) or type(error).__name__), None
                if isinstance(error, httpx2.ConnectError):
                    used = Usage(1)
                    if not self._n_answers:
                        raise UserError(
                            f"--endpoint {self.url}: cannot be reached ({problem}); start the "
                            "server, or check the address"
                        ) from None
            except httpx2.InvalidURL as error:
                raise UserError(f"--endpoint {self.url}: {error}") from None
            finally:
                await self.budget.settle(most, used)
            attempt += 1
            if attempt > self._retries:
                if self._n_answers > n_before:
                    raise NoAnswer(problem)
                raise UserError(
                    f"--endpoint {self.url}: {problem}, {attempt} times; what was answered is "
                    "kept: repeat the command later"
                )
            await self._pause(attempt, wait, for_all=status == 429)

    def _body(self, messages: Sequence[Message]) -> dict[str, Any]:
        body = {
            **self._settings,
            "messages": list(messages),
            self._length_name: self._max_tokens,
        }
        if self._schema is not None:
            schema = {"name": "answer", "strict": True, "schema": self._schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def _read(self, response: httpx2.Response, most: Usage) -> Completion:
        """Return the completion in a response.

        Raises
        ------
        _Unreadable
            If there is none in it.
        """
        try:
            body = response.json()
            choice = body["choices"][0]
            message, reason = choice["message"], choice.get("finish_reason")
            text, refusal = message.get("content"), message.get("refusal")
            usage = body.get("usage") or {}
            tokens = usage.get("prompt_tokens"), usage.get("completion_tokens")
        except (ValueError, LookupError, TypeError, AttributeError):
            raise _Unreadable(f"no chat completion ({self._problem(response)})") from None
        problem = {"length": "cut off", "content_filter": "refused"}.get(reason or "", "")
        if refusal or not isinstance(text, str):
            problem = problem or "refused"
        # A server that does not count is assumed to have used what was set aside.
        counts = zip(tokens, (most.input_tokens, most.output_tokens), strict=True)
        numbers = [count if isinstance(count, int) else limit for count, limit in counts]
        return Completion(text if isinstance(text, str) else "", problem, *numbers)

    def _problem(self, response: httpx2.Response) -> str:
        """Return the status and the message of a response, without the key."""
        try:
            body = response.json()
            error = body.get("error", body)
            message = error.get("message") if isinstance(error, dict) else error
        except (ValueError, AttributeError):
            message = response.text
        text = self._without_key(str(message or response.reason_phrase))
        return f"status {response.status_code}, {' '.join(text.split())[:300]}"

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text

    def _adapts(self, status: int, problem: str, with_schema: bool) -> bool:
        """Change what is sent, where a server refuses a part of it; return whether it was."""
        if status not in (400, 415, 422, 501):
            return False
        if "max_completion_tokens" in problem and self._length_name == "max_tokens":
            self._length_name = "max_completion_tokens"
            return True
        # Where the server has answered under the schema, it refuses something else.
        if with_schema and not self._schema_works:
            if self._schema is not None:
                print_once("note: the server takes no JSON schema; invalid answers are asked again")
            self._schema = None
            return True
        return False

    def _refusal(self, status: int, problem: str) -> Exception:
        """Return the error for a request that the server will never answer."""
        advice = {
            401: "set the environment variable of --api_key_variable to a valid key",
            403: "the key may not use this model; name another --model, or another key",
            404: f"it may not serve --model {self.model}, or the address is not the base of an API",
        }
        # A single text can be too long, or offend a filter.
        if status in (400, 413, 422) and self._n_answers:
            return NoAnswer(problem)
        hint = advice.get(status, "change the flag that it names")
        return UserError(f"--endpoint {self.url}: {problem}; {hint}")

    async def _pause(self, attempt: int, wait: float | None, *, for_all: bool) -> None:
        """Wait before the next attempt: as long as the server says, else longer each time."""
        if wait is None:
            longest = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
            # Requests that failed together must not come again together.
            wait = longest * random.uniform(0.5, 1)
        if wait > _LONGEST_WAIT:
            raise UserError(
                f"--endpoint {self.url}: asks to wait for {wait:,.0f} s; what was answered is "
                "kept: repeat the command then"
            )
        if for_all:  # the server would refuse them, too
            self._pause_until = max(self._pause_until, time.monotonic() + wait)
        else:
            await self._sleep(wait)


class _Unreadable(Exception):
    """A response that holds no completion."""


def check_endpoint(url: str) -> None:
    """Check the base of an API; see `shared.cli.web.check_url`."""
    example = "http://127.0.0.1:8000/v1"
    check_url(url, "--endpoint", example=example, secret="--api_key_variable")


def _is_temporary(status: int) -> bool:
    return status in (408, 409, 425, 429) or status >= 500
