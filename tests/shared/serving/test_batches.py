"""Batches of concurrent requests: who shares one, who leaves, and what fails."""

import asyncio
import threading

import pytest

from shared.serving.batches import BatchedTagger, Overloaded


class Recorder:
    """A tagger that records its batches; each waits until `gate` is open."""

    def __init__(self):
        self.batches, self.gate = [], threading.Event()
        self.gate.set()

    def tag(self, texts, n_scores=None):
        self.batches.append(list(texts))
        assert self.gate.wait(10)
        if "broken" in texts:
            raise ValueError("cannot be read")
        return [{"labels": [text], "scores": {}} for text in texts]


def labels(records):
    return [record["labels"][0] for record in records]


async def until(condition):
    """Let the other tasks run until a condition holds."""

    async def wait():
        while not condition():
            await asyncio.sleep(0)

    await asyncio.wait_for(wait(), 10)


def test_requests_that_arrive_during_a_batch_share_the_next_one():
    async def scenario():
        recorder = Recorder()
        recorder.gate.clear()
        async with BatchedTagger(recorder, max_batch=4) as tagger:
            first = asyncio.create_task(tagger.tag(["a"]))
            await until(lambda: recorder.batches)
            others = [asyncio.create_task(tagger.tag(t)) for t in (["b", "c"], ["d"], ["e", "f"])]
            await until(lambda: tagger.n_waiting == 5)
            recorder.gate.set()
            answers = [labels(answer) for answer in await asyncio.gather(first, *others)]
        assert answers == [["a"], ["b", "c"], ["d"], ["e", "f"]]
        assert recorder.batches == [["a"], ["b", "c", "d"], ["e", "f"]]
        assert tagger.n_tagged == 6

    asyncio.run(scenario())


def test_a_request_that_is_larger_than_a_batch_is_one():
    async def scenario():
        recorder = Recorder()
        async with BatchedTagger(recorder, max_batch=2) as tagger:
            assert labels(await tagger.tag(list("abcde"))) == list("abcde")
        assert recorder.batches == [list("abcde")]

    asyncio.run(scenario())


def test_a_client_that_leaves_is_not_tagged_and_makes_room():
    async def scenario():
        recorder = Recorder()
        recorder.gate.clear()
        async with BatchedTagger(recorder, max_waiting=2) as tagger:
            running = asyncio.create_task(tagger.tag(["a"]))
            await until(lambda: recorder.batches)
            leaving = asyncio.create_task(tagger.tag(["b", "c"]))
            await until(lambda: tagger.n_waiting == 2)
            with pytest.raises(Overloaded):
                await tagger.tag(["d"])
            running.cancel()
            leaving.cancel()
            await asyncio.gather(running, leaving, return_exceptions=True)
            assert tagger.n_waiting == 0
            staying = asyncio.create_task(tagger.tag(["d"]))
            await until(lambda: tagger.n_waiting == 1)
            recorder.gate.set()
            assert labels(await staying) == ["d"]
        assert recorder.batches == [["a"], ["d"]]

    asyncio.run(scenario())


def test_one_request_that_fails_does_not_fail_the_others():
    async def scenario():
        recorder = Recorder()
        recorder.gate.clear()
        async with BatchedTagger(recorder) as tagger:
            requests = [asyncio.create_task(tagger.tag([text])) for text in ("a", "broken", "b")]
            await until(lambda: recorder.batches)
            recorder.gate.set()
            a, error, b = await asyncio.gather(*requests, return_exceptions=True)
            assert labels(a) == ["a"]
            assert labels(b) == ["b"]
            assert str(error) == "cannot be read"
            assert labels(await tagger.tag(["c"])) == ["c"]  # it goes on

    asyncio.run(scenario())
