"""Dynamic batching: the texts of requests that arrive while a batch runs form the next batch.

A request alone is tagged at once. Under load, batches grow, and the tagger scores many texts in
hardly more time than one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from shared.taggers.tagger import Tagger

Records = list[dict[str, Any]]


class Overloaded(Exception):
    """More texts are waiting than the server takes."""


@dataclass
class _Request:
    texts: Sequence[str]
    records: asyncio.Future[Records]


class BatchedTagger:
    """Tags the texts of concurrent requests together, one batch at a time.

    Used as an asynchronous context manager: the batches run inside the ``async with`` block.

    Parameters
    ----------
    tagger : Tagger
        Called in a thread of its own, by one batch at a time.
    n_scores : int, optional
        As in `Tagger.tag`.
    max_batch : int
        Texts per batch. A request with more texts is a batch alone.
    max_waiting : int
        Texts that may wait.
    """

    def __init__(
        self,
        tagger: Tagger,
        n_scores: int | None = None,
        *,
        max_batch: int = 64,
        max_waiting: int = 4096,
    ):
        self.tagger, self.n_scores = tagger, n_scores
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self.n_tagged = 0  # texts so far
        self._requests: deque[_Request] = deque()
        self._arrival = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "tagger")

    @property
    def n_waiting(self) -> int:
        """Number of texts that wait for a batch. Those of clients that have left do not count."""
        return sum(len(r.texts) for r in self._requests if not r.records.cancelled())

    async def __aenter__(self) -> BatchedTagger:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._worker.cancel()
        await asyncio.gather(self._worker, return_exceptions=True)
        self._thread.shutdown()

    async def tag(self, texts: Sequence[str]) -> Records:
        """Return a record with ``labels`` and ``scores`` for each text, as `Tagger.tag`.

        A task that is cancelled while it waits leaves the queue.

        Raises
        ------
        Overloaded
            If `max_waiting` texts are waiting already.
        """
        if self.n_waiting + len(texts) > self.max_waiting:
            raise Overloaded
        request = _Request(texts, asyncio.get_running_loop().create_future())
        self._requests.append(request)
        self._arrival.set()
        return await request.records  # if this is cancelled, so is the future

    async def _work(self) -> None:
        while True:
            await self._arrival.wait()
            while batch := self._next_batch():
                await self._tag_batch(batch)
            self._arrival.clear()

    def _next_batch(self) -> list[_Request]:
        batch: list[_Request] = []
        n_texts = 0
        while self._requests:
            request = self._requests[0]
            if not request.records.cancelled():
                n_texts += len(request.texts)
                if batch and n_texts > self.max_batch:
                    break
                batch.append(request)
            self._requests.popleft()
        return batch

    async def _tag_batch(self, batch: list[_Request]) -> None:
        texts = [text for request in batch for text in request.texts]
        loop = asyncio.get_running_loop()
        try:
            records = await loop.run_in_executor(
                self._thread, self.tagger.tag, texts, self.n_scores
            )
        except Exception as error:
            if len(batch) > 1:  # find the request that the tagger cannot read
                for request in batch:
                    await self._tag_batch([request])
            elif not batch[0].records.done():
                batch[0].records.set_exception(error)
            return
        self.n_tagged += len(texts)
        start = 0
        for request in batch:
            stop = start + len(request.texts)
            if not request.records.done():  # its client may have left
                request.records.set_result(records[start:stop])
            start = stop
