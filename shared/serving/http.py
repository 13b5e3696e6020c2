"""What every server here shares: errors as JSON, limits of a request, the socket, its end.

Every error is ``{"error": "one line"}``:

- 404, 405: no such address, or not with this method
- 408: the body of the request took too long
- 413: the body is too large
- 422: the body is not what it should be; the line says where
- 500: a fault of the server, whose log has the traceback
"""

import asyncio
import signal
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.cli.errors import UserError

GRACE_SECONDS = 30  # for requests that run when the server is told to stop


def answer_in_json(app: FastAPI, *, max_bytes: int, body_seconds: float) -> None:
    """Make every error of an application one line of JSON, and limit the bodies of requests.

    Parameters
    ----------
    app : FastAPI
    max_bytes : int
        Size of the body of a request.
    body_seconds : float
        Time for it to arrive.
    """
    app.add_middleware(_LimitedBody, max_bytes=max_bytes, body_seconds=body_seconds)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_fault)


# --- errors --------------------------------------------------------------------------------------


def error_response(status: int, message: str, **headers: str) -> JSONResponse:
    """Return an error as an answer."""
    return JSONResponse({"error": message}, status, headers)


async def _on_invalid_request(_: Request, error: Any) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return error_response(422, f"body: no JSON ({first['ctx']['error']})")
    place = ".".join(str(part) for part in first["loc"] if part != "body") or "body"
    return error_response(422, f"{place}: {first['msg']}")


async def _on_http_error(request: Request, error: Any) -> JSONResponse:
    message = f"{request.method} {request.url.path}: {error.detail}"
    return error_response(error.status_code, message, **(error.headers or {}))


async def _on_fault(_: Request, __: Exception) -> JSONResponse:
    return error_response(500, "a fault of the server; its log has the traceback")


# --- requests ------------------------------------------------------------------------------------


class _LimitedBody:
    """Read the whole body of a request, up to the limits, before it is passed on."""

    def __init__(self, app: ASGIApp, max_bytes: int, body_seconds: float):
        self.app, self.max_bytes, self.body_seconds = app, max_bytes, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            body = await asyncio.wait_for(self._read(receive), self.body_seconds)
        except asyncio.TimeoutError:
            answer = error_response(408, f"the body took more than {self.body_seconds:g} seconds")
            return await answer(scope, receive, send)
        if body is None:  # the client has left
            return None
        if len(body) > self.max_bytes:
            answer = error_response(413, f"the body has more than {self.max_bytes:,} bytes")
            return await answer(scope, receive, send)
        messages = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive()

        return await self.app(scope, receive_again, send)

    async def _read(self, receive: Receive) -> bytearray | None:
        """Return the body, or a part that is too large already; None if the client leaves."""
        body, more = bytearray(), True
        while more and len(body) <= self.max_bytes:
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


def address_of(listening: socket.socket) -> str:
    """Return the URL of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


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
