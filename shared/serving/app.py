"""The HTTP interface of a tagger (FastAPI).

Every answer is JSON. The errors are those of `shared.serving.http`, and 503: too many texts are
waiting; the header ``Retry-After`` says when to try again.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field, StringConstraints

from shared.evaluation.rules import NEVER
from shared.serving.batches import BatchedTagger, Overloaded
from shared.serving.http import answer_in_json, error_response


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
    answer_in_json(app, max_bytes=limits.max_bytes, body_seconds=limits.body_seconds)
    app.add_exception_handler(Overloaded, _on_overload)

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


async def _on_overload(_: Request, __: Any) -> Response:
    return error_response(503, "too many texts are waiting; try again", **{"Retry-After": "1"})


async def _until_client_leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
