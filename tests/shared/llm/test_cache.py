import multiprocessing
import sqlite3

import pytest

from shared.cli.errors import UserError
from shared.llm.cache import CLAIM_SECONDS, AnswerCache


def test_an_answer_is_kept_for_its_request_alone(tmp_path):
    path = tmp_path / "folder" / "answers.sqlite"
    request = {"model": "m", "messages": [{"role": "user", "content": "ä text"}], "sample": 0}
    with AnswerCache(path) as cache:
        assert cache.get(request) is None
        cache.put([(request, {"text": "bug"})])
    with AnswerCache(path) as cache:
        assert cache.get(dict(reversed(request.items()))) == {"text": "bug"}
        for other in ({"model": "n"}, {"sample": 1}, {"temperature": 0.5}):
            assert cache.get(request | other) is None
    assert "ä text".encode() not in path.read_bytes()


def write_answers(path, start):
    with AnswerCache(path) as cache:
        for i in range(start, start + 40):
            cache.put([({"i": i}, i)])


def test_two_processes_write_at_the_same_time(tmp_path):
    path = tmp_path / "answers.sqlite"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_answers, args=(path, n)) for n in (0, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(30)
        assert writer.exitcode == 0
    with AnswerCache(path) as cache:
        assert [cache.get({"i": i}) for i in range(60)] == list(range(60))


def test_one_of_two_claims_a_request(tmp_path, monkeypatch):
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    request, other = {"i": 0}, {"i": 1}
    path = tmp_path / "answers.sqlite"
    with AnswerCache(path) as first, AnswerCache(path) as second:
        assert first.claim(request)
        assert not second.claim(request)
        assert not first.claim(request)  # another task of the same process asks
        assert second.claim(other)
        second.release(request)  # it is not its own
        assert not second.claim(request)
        first.release(request)
        assert second.claim(request)
        second.put([(request, "answer")])
        assert not first.claim(request)  # it is answered
        assert first.get(request) == "answer"


def test_a_claim_that_nobody_renews_is_void(tmp_path, monkeypatch):
    start, clock = 1e9, [1e9]
    monkeypatch.setattr("time.time", lambda: clock[0])
    path, request = tmp_path / "answers.sqlite", {"i": 0}
    with AnswerCache(path) as killed, AnswerCache(path) as alive:
        assert killed.claim(request)
        clock[0] = start + CLAIM_SECONDS * 0.9
        assert not alive.claim(request)
        killed.renew_claims()
        clock[0] = start + CLAIM_SECONDS * 1.8
        assert not alive.claim(request)
        clock[0] = start + CLAIM_SECONDS * 2
        assert alive.claim(request)
        killed.renew_claims()  # it was no kill, but a long pause
        killed.release(request)
        assert not killed.claim(request)
        # The clock was set back by a day; the claim would last as long.
        clock[0] = start - 86400
        assert killed.claim(request)


def test_a_full_disk_is_one_line(tmp_path):
    path = tmp_path / "answers.sqlite"
    with AnswerCache(path) as cache:
        cache.put([({"i": 0}, "x")])
        cache._database.execute("PRAGMA max_page_count = 1")
        with pytest.raises(UserError, match=r"cannot be written \(.*full\); the answers"):
            cache.put([({"i": 1}, "x" * 100_000)])
        assert cache.get({"i": 0}) == "x"


def test_a_kill_within_a_transaction_leaves_what_was_kept(tmp_path):
    path = tmp_path / "answers.sqlite"
    with AnswerCache(path) as cache:
        cache.put([({"i": 0}, 0)])
    other = sqlite3.connect(path)
    other.execute("INSERT INTO answers VALUES ('x', '1')")  # never committed
    other.close()
    with AnswerCache(path) as cache:
        assert cache.get({"i": 0}) == 0


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "answers.sqlite"
    path.write_text("no database, but a file of some length" * 100)
    with pytest.raises(UserError, match="cannot be used as a cache"):
        AnswerCache(path)
