"""The page on which a person labels texts, and the HTTP interface behind it.

Everything but the page itself is JSON, for the script of the page:

- ``GET /`` is the page; ``GET /api/state`` the progress; ``GET /api/text`` a text with its labels.
- ``POST /api/clicks`` labels, skips or notes a text, or takes the last click back. It answers when
  the click is on the disk. Each click names the version that the person saw; if another tab was
  faster, nothing is changed, and the answer is 409 with the text as it is now.

All of them need the token: the page in its address, the others in the header ``Authorization``. The
errors are those of `shared.serving.http`, and 401: the token is missing or another one; 507: the
click could not be written.
"""

from __future__ import annotations

import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from shared.cli.errors import UserError
from shared.data.columns import LABELLED, SKIPPED
from shared.serving.annotation_log import ConflictError
from shared.serving.annotation_queue import Queue
from shared.serving.http import answer_in_json, error_response

if TYPE_CHECKING:
    from shared.data.label_guide import GuideEntry
    from shared.data.texts_to_label import TextToLabel
    from shared.serving.annotation_background import Background

MAX_BODY_BYTES = 1_000_000
BODY_SECONDS = 30.0
MAX_NOTE = 10_000  # characters
# A browser must ask this server only, and tell nobody the address of the page, which has the token.
_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Task:
    """What a person is asked.

    Attributes
    ----------
    label_names : sequence of str
        In the order of their keys.
    single_label : bool
        Whether a text has exactly one of them, or any number.
    guide : mapping of str to GuideEntry
        For some or all of the labels.
    title : str
        Such as the name of the file.
    output : str
        Path of the file of labelled texts, for the commands that the page shows at the end.
    """

    label_names: Sequence[str]
    single_label: bool
    guide: Mapping[str, GuideEntry]
    title: str
    output: str


class Click(BaseModel):
    """What ``POST /api/clicks`` reads."""

    action: Literal["label", "skip", "note", "undo"]
    id: str = ""
    seen: int
    labels: list[str] = []
    note: Annotated[str, Field(max_length=MAX_NOTE)] = ""


def make_annotation_app(
    queue: Queue, task: Task, token: str, background: Background | None = None
) -> FastAPI:
    """Return the application on which a person labels texts.

    Parameters
    ----------
    queue : Queue
    task : Task
    token : str
        Secret; only requests that have it are answered.
    background : Background, optional
        Estimates the F1 and looks for the next batch while the application runs.
    """
    log = queue.log

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if background is not None:
            background.start()
        yield
        if background is not None:
            background.stop()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    answer_in_json(app, max_bytes=MAX_BODY_BYTES, body_seconds=BODY_SECONDS)

    def check_token(request: Request) -> None:
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        _check(token, sent if scheme == "Bearer" else "")

    checked = [Depends(check_token)]

    def state() -> dict[str, Any]:
        counts, last = queue.counts(), log.last_click
        annotations = log.annotations()
        return {
            "version": log.version,
            "texts": len(queue),
            "labelled": counts[LABELLED],
            "skipped": counts[SKIPPED],
            "all_labelled": sum(annotation.status == LABELLED for annotation in annotations),
            "label_counts": Counter(name for a in annotations for name in a.labels),
            "undo": None if last is None else {"click": last[0], "id": last[1]},
            "warning": log.warning or (background and background.warning),
            "estimate": background and background.estimate and asdict(background.estimate),
        }

    def item(identity: str | None) -> dict[str, Any] | None:
        if identity is None:
            return None
        located = queue.find(identity)
        if located is None:
            raise HTTPException(404, "there is no such text")
        text, position = located
        annotation = log.get(identity)
        return {
            "id": identity,
            "position": position,
            "text": text.text,
            "row": text.row,
            "suggested": _suggested(text, task),
            "scores": text.scores,
            "reason": text.reason,
            "version": annotation.version if annotation else 0,
            "status": annotation.status if annotation else None,
            "labels": annotation.labels if annotation else [],
            "note": annotation.note if annotation else "",
        }

    def answer(identity: str | None, status: int = 200, **more: Any) -> JSONResponse:
        return JSONResponse({"state": state(), "item": item(identity), **more}, status, _HEADERS)

    @app.get("/", response_class=HTMLResponse)
    def page(request: Request) -> HTMLResponse:
        """Return the page."""
        _check(token, request.query_params.get("token", ""))
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'"
        )
        headers = {"Content-Security-Policy": policy, **_HEADERS}
        return HTMLResponse(_page(task, nonce), headers=headers)

    @app.get("/api/state", dependencies=checked)
    def get_state() -> JSONResponse:
        """Return the progress."""
        return JSONResponse(state(), headers=_HEADERS)

    @app.get("/api/text", dependencies=checked)
    def get_text(position: int | None = None, id: str | None = None) -> JSONResponse:
        """Return a text by position or id, or else the first open one (null: none is open)."""
        if id is not None:
            return answer(id)
        return answer(queue.next_open() if position is None else queue.at(position))

    @app.post("/api/clicks", dependencies=checked)
    def click(body: Click) -> JSONResponse:
        """Do what a click says; return the next open text, or for an undo or a note the same."""
        try:
            if body.action == "undo":
                return answer(log.undo(seen=body.seen))
            located = queue.find(body.id)
            if located is None:
                return error_response(404, "there is no such text")
            text, position = located
            place = (text.text, text.row)
            if body.action == "label":
                labels = _checked_labels(body.labels, task)
                log.label(*place, labels, body.note, seen=body.seen)
            elif body.action == "skip":
                log.skip(*place, body.note, seen=body.seen)
            else:
                log.note(*place, body.note, seen=body.seen)
                return answer(body.id)
            return answer(queue.next_open(-1 if position is None else position))
        except ConflictError:
            last = log.last_click
            shown: str | None = body.id
            if body.action == "undo":
                shown = last[1] if last else queue.next_open()
            return answer(shown, 409, error="another tab was faster; nothing was changed")
        except UserError as error:
            return error_response(507, str(error))

    return app


def _check(token: str, sent: str) -> None:
    # Bytes: the comparison of strings refuses other characters than those of ASCII.
    if not secrets.compare_digest(sent.encode(errors="replace"), token.encode()):
        raise HTTPException(401, "wrong token; open the address that the program has printed")


def _suggested(text: TextToLabel, task: Task) -> list[str]:
    """Return the suggested labels that the task has; the best one, if a text has exactly one."""
    names = [name for name in text.suggested if name in task.label_names]
    if task.single_label and len(names) > 1:
        return [max(names, key=lambda name: text.scores.get(name, 0.0))]
    return names


def _checked_labels(labels: Sequence[str], task: Task) -> tuple[str, ...]:
    """Return labels in the order of the task, without repeats."""
    if unknown := [name for name in labels if name not in task.label_names]:
        raise HTTPException(422, f"labels: there is no label {unknown[0]!r}")
    chosen = tuple(name for name in task.label_names if name in labels)
    if task.single_label and len(chosen) != 1:
        raise HTTPException(422, "labels: a text has exactly one label here")
    return chosen


# --- the page ------------------------------------------------------------------------------------

_FOLDER = Path(__file__).parent


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    return environment.get_template("annotation.html.j2")


def _page(task: Task, nonce: str) -> str:
    labels = [
        {"name": name, **asdict(task.guide[name])} if name in task.guide else {"name": name}
        for name in task.label_names
    ]
    settings = {"labels": labels, "single": task.single_label, "output": task.output}
    # In a script of HTML, "</script>" would end it.
    embedded = json.dumps(settings).replace("<", "\\u003c")
    return _template().render(
        title=task.title,
        nonce=nonce,
        css=(_FOLDER / "annotation.css").read_text("utf-8"),
        script=(_FOLDER / "annotation.js").read_text("utf-8"),
        settings=embedded,
        single=task.single_label,
        has_guide=bool(task.guide),
        max_note=MAX_NOTE,
    )
