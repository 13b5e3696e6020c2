"""The HTTP interface of a tagger (FastAPI), and the server that runs it (uvicorn).

Every answer is JSON. An error is ``{"error": "one line"}``:

- 404, 405: no such address, or not with this method
- 408: the body of the request took too long
- 413: the body is too large
- 422: the body is not what it should be; the line says where
- 500: a fault of the server, whose log has the traceback
- 503: too many texts are waiting; the header ``Retry-After`` says when to try again
"""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field, StringConstraints
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.cli.errors import UserError
from shared.evaluation.rules import NEVER
from shared.serving.batches import BatchedTagger, Overloaded

GRACE_SECONDS = 30  # for requests that run when the server is told to stop


@dataclass(frozen=True)
class Limits:
    """What a request may hold.

    Attributes
    ----------
    max_texts : int
        Texts per request.
    max_characters : int
        Characters of a text.
    body_seconds : float
        Time for the body of a request to arrive.
    """

    max_texts: int = 128
    max_characters: int = 50_000
    body_seconds: float = 30.0

    @property
    def max_bytes(self) -> int:
        """Size of the body of a request: a character has at most 12 bytes in JSON."""
        return 1000 + self.max_texts * (self.max_characters + 10) * 12


class Record(BaseModel):
    """The tags of a text, both best first; none for a text of blanks.

    With ``--abstain``, also the probability that all labels are right, and whether it is too low.
    """

    labels: list[str]
    scores: dict[str, float]
    confidence: float | None = None
    unsure: bool | None = None


class Tags(BaseModel):
    """What ``POST /tag`` answers: a record for each text, in their order."""

    results: list[Record]


class Label(BaseModel):
    """A label and the score from which on it applies.

    ``threshold`` is null for a label that is never given, and for all labels where the best ones
    apply, whatever their scores.
    """

    name: str
    threshold: float | None


class Labels(BaseModel):
    """What ``GET /labels`` answers."""

    labels: list[Label]


class Health(BaseModel):
    """What ``GET /healthz`` answers."""

    status: str
    model: str
    texts_tagged: int
    texts_waiting: int


def make_app(tagger: BatchedTagger, name: str, limits: Limits) -> FastAPI:
    """Return the application that serves a tagger.

    Parameters
    ----------
    tagger : BatchedTagger
    name : str
        Of the tagger, such as its folder.
    limits : Limits
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with tagger:
            yield

    app = FastAPIOffline(  # its page of documentation needs no network
        title=f"Tagger {name}", version="1", lifespan=lifespan, redoc_url=None
    )
    app.add_middleware(_LimitedBody, limits=limits)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Overloaded, _on_overload)
    app.add_exception_handler(Exception, _on_fault)

    class Texts(BaseModel):
        """What ``POST /tag`` reads."""

        texts: list[Annotated[str, StringConstraints(max_length=limits.max_characters)]] = Field(
            min_length=1, max_length=limits.max_texts
        )

    @app.post("/tag", response_model=Tags, response_model_exclude_unset=True)
    async def tag(body: Texts, request: Request) -> Any:
        """Tag texts: the labels of each, and scores from 0 to 1."""
        tagging = asyncio.ensure_future(tagger.tag(body.texts))
        leaving = asyncio.ensure_future(_until_client_leaves(request))
        await asyncio.wait({tagging, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if not tagging.done():
            tagging.cancel()  # nobody waits for it
            return Response(status_code=499)
        return {"results": tagging.result()}

    @app.get("/labels", response_model=Labels)
    async def labels() -> dict[str, Any]:
        """Return the labels, and from which score on each of them applies."""
        names = tagger.tagger.label_names
        thresholds = tagger.tagger.calibrated_rule.thresholds or [NEVER] * len(names)
        pairs = zip(names, thresholds, strict=True)
        return {
            "labels": [
                {"name": name, "threshold": value if value <= 1 else None} for name, value in pairs
            ]
        }

    @app.get("/healthz", response_model=Health)
    async def healthz() -> dict[str, Any]:
        """Return that the server works, and its load."""
        counts = {"texts_tagged": tagger.n_tagged, "texts_waiting": tagger.n_waiting}
        return {"status": "ok", "model": name, **counts}

    return app


# --- errors --------------------------------------------------------------------------------------


def _error(status: int, message: str, **headers: str) -> JSONResponse:
    return JSONResponse({"error": message}, status, headers)


async def _on_invalid_request(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return _error(422, f"body: no JSON ({first['ctx']['error']})")
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    return _error(422, f"{place}: {first['msg']}")


async def _on_http_error(request: Request, error: Any) -> JSONResponse:
    message = f"{request.method} {request.url.path}: {error.detail}"
    return _error(error.status_code, message, **(error.headers or {}))


async def _on_overload(_: Request, __: Any) -> JSONResponse:
    return _error(503, "too many texts are waiting; try again", **{"Retry-After": "1"})


async def _on_fault(_: Request, __: Exception) -> JSONResponse:
    return _error(500, "a fault of the server; its log has the traceback")


# --- requests ------------------------------------------------------------------------------------


async def _until_client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _LimitedBody:
    """Read the whole body of a request, up to the limits, before it is passed on."""

    def __init__(self, app: ASGIApp, limits: Limits):
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        seconds = self.limits.body_seconds
        try:
            body = await asyncio.wait_for(self._read(receive), seconds)
        except asyncio.TimeoutError:
            answer = _error(408, f"the body took more than {seconds:g} seconds")
            return await answer(scope, receive, send)
        if body is None:  # the client has left
            return None
        if len(body) > self.limits.max_bytes:
            answer = _error(413, f"the body has more than {self.limits.max_bytes:,} bytes")
            return await answer(scope, receive, send)
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        return await self.app(scope, receive_again, send)

    async def _read(self, receive: Receive) -> bytearray | None:
        """Return the body, or a part that is too large already; None if the client leaves."""
        body, more = bytearray(), True
        while more and len(body) <= self.limits.max_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
        return body


# --- server --------------------------------------------------------------------------------------


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes any free one.

    Raises
    ------
    UserError
        If the port is in use, or the address is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).split(" (")[0]  # the place follows, which is said already
        raise UserError(
            f"--host {host} --port {port}: {reason}; choose another port (0: any free one)"
        ) from error
    # Connections inherit it. Without it, the body of an answer waits 40 ms for the client to
    # acknowledge the header; asyncio sets it on sockets of its own only.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def run_server(app: FastAPI, listening: socket.socket) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer the requests that have arrived, and return."""
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS)
    server = uvicorn.Server(config)
    # While the server runs, it has handlers of its own. At its end it raises the signal once more.
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, server.handle_exit) for number in numbers}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
