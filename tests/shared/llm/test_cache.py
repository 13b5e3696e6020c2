import multiprocessing
import sqlite3

import pytest

from shared.cli.errors import UserError
from shared.llm.cache import AnswerCache


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
