"""Chat completions, from a real server that misbehaves."""

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from socket import socket

import pytest
from chat_server import Reply, chat_server, completion, error
from forks import ROOT

from shared.cli.errors import UserError
from shared.llm.budget import Budget, BudgetSpent, Usage
from shared.llm.cache import AnswerCache
from shared.llm.endpoint import Completion, Endpoint, NoAnswer, check_endpoint

SCHEMA = {"type": "object"}
KEY = "sk-a-key-that-nobody-may-see"


class Client:
    """Asks a server, without waiting; `pauses` are the seconds that it would have waited."""

    def __init__(self, url, path, **options):
        self.url, self.path, self.options, self.pauses = url, path, options, []
        self.budget = options.pop("budget", None) or Budget()

    async def _sleep(self, seconds):
        self.pauses.append(seconds)
        await asyncio.sleep(0)  # lets others work

    def __call__(self, *texts, together=False):
        """Return the answers to some prompts, one after the other or together."""

        async def ask():
            with AnswerCache(self.path) as cache:
                options = {"cache": cache, "budget": self.budget, "sleep": self._sleep}
                async with Endpoint(self.url, "m", **options, **self.options) as endpoint:
                    tasks = (endpoint.complete(conversation(text)) for text in texts)
                    if together:
                        return await asyncio.gather(*tasks)
                    return [await task for task in tasks]

        return asyncio.run(ask())


def conversation(text):
    return [{"role": "user", "content": text}]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


def in_turn(*replies):
    """Return a function that gives these replies, and the last one for ever."""
    return lambda body, number: replies[min(number, len(replies) - 1)]


def test_what_is_sent_and_what_comes_back(path):
    with chat_server(in_turn("bug")) as server:
        client = Client(f"{server.url}/", path, key=KEY, schema=SCHEMA, temperature=0.3)
        assert client("a text") == [Completion("bug", "", 100, 10)]
    (body,) = server.requests
    assert body["messages"] == conversation("a text")
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.3, 256)
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert server.keys == [f"Bearer {KEY}"]
    assert client.budget.used == Usage(1, 100, 10)


# Ask a server for the answer to a text, and print it.
ASK = """
import asyncio, pathlib, sys
from shared.llm.budget import Budget
from shared.llm.cache import AnswerCache
from shared.llm.endpoint import Endpoint

async def ask(url, path, text):
    with AnswerCache(pathlib.Path(path)) as cache:
        async with Endpoint(url, "m", cache=cache, budget=Budget()) as endpoint:
            answer = await endpoint.complete([{"role": "user", "content": text}])
            print(answer.text)

asyncio.run(ask(*sys.argv[1:]))
"""


def test_what_another_process_asks_is_waited_for(path):
    asked, waited_for = threading.Event(), threading.Event()

    class Waiting(Client):
        async def _sleep(self, seconds):
            await super()._sleep(seconds)
            waited_for.set()

    def answer(body, number):
        text = body["messages"][0]["content"]
        if text == "shared":
            asked.set()  # by the other process
        wait = {"own": asked, "shared": waited_for}[text].wait
        return Reply(completion(f"answer {number}"), wait=lambda: wait(30))

    with chat_server(answer) as server, ThreadPoolExecutor(1) as pool:
        command = [sys.executable, "-c", ASK, server.url, path, "shared"]
        other = pool.submit(subprocess.check_output, command, cwd=ROOT, text=True, timeout=60)
        client = Waiting(server.url, path)
        answers = client("own", "shared")
        assert [answer.text for answer in answers][1:] == other.result().splitlines()
    assert sorted(server.prompts) == ["own", "shared"]
    assert client.budget.used.requests == 1


def test_a_claim_is_renewed_until_its_answer_comes_and_ends_with_a_failure(path, monkeypatch):
    renewed, renew = threading.Event(), AnswerCache.renew_claims

    def spy(cache):
        renew(cache)
        renewed.set()

    monkeypatch.setattr(AnswerCache, "renew_claims", spy)
    monkeypatch.setattr("shared.llm.endpoint.CLAIM_SECONDS", 0.01)
    late = Reply(completion("bug"), wait=lambda: renewed.wait(60))
    with chat_server(in_turn(late, error("a filter", 400))) as server:
        client = Client(server.url, path)
        assert client("one")[0].text == "bug"
        assert renewed.is_set()
        with pytest.raises(UserError, match="a filter"):
            client("two")
        with pytest.raises(UserError, match="a filter"):
            client("two")  # it does not wait
    assert not client.pauses


def test_the_same_text_twice_costs_once(path):
    with chat_server(in_turn("bug")) as server:
        assert len(Client(server.url, path)("one", "one", together=True)) == 2
    assert len(server.requests) == 1


def test_what_was_answered_costs_nothing(path):
    with chat_server(in_turn("bug")) as server:
        Client(server.url, path)("one", "two")
        again = Client(server.url, path)
        assert [answer.text for answer in again("one", "two", "three")] == ["bug"] * 3
        assert again.budget.used.requests == 1
        Client(server.url, path, temperature=1.0)("one")
        assert server.prompts == ["one", "two", "three", "one"]


@pytest.mark.parametrize(
    ("reply", "pauses"),
    [
        (error("slow down", 429, Retry_After="0.05"), [0.05]),
        (error("slow down", 503, Retry_After="7"), [7]),
        (Reply(b"<html>oops", 500), [0.75]),
        (Reply(b'{"choices": [', 200), [0.75]),
        (Reply({"choices": []}), [0.75]),
        (Reply([1]), [0.75]),
        (Reply(b"\xff", 502), [0.75]),
    ],
    ids=["429", "503", "500", "cut JSON", "no choice", "a list", "502"],
)
def test_what_fails_now_and_then_is_asked_again(reply, pauses, path):
    with chat_server(in_turn(reply, reply, "bug")) as server:
        client = Client(server.url, path)
        assert client("a text")[0].text == "bug"
    assert len(server.requests) == 3
    # Without word of the server, each pause is about twice as long.
    expected = pauses * 2 if reply.headers else [pauses[0], 2 * pauses[0]]
    assert client.pauses == pytest.approx(expected, rel=0.34 if not reply.headers else 0.1)


def test_a_date_to_come_back_at(path):
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    with chat_server(in_turn(error("busy", 503, Retry_After=date), "bug")) as server:
        client = Client(server.url, path)
        client("a text")
    assert 25 < client.pauses[0] <= 30
    with chat_server(in_turn(error("busy", 503, Retry_After="soon"), "bug")) as server:
        client = Client(server.url, path)
        client("another")
    assert client.pauses[0] <= 1


def test_where_one_request_is_told_to_wait_all_do(path):
    with chat_server(in_turn("bug", error("busy", 429, Retry_After="5"), "bug")) as server:
        client = Client(server.url, path)
        client("one", "two", "three")
    assert len(server.requests) == 4
    assert client.pauses == pytest.approx([5, 5], abs=2)


def test_a_server_that_asks_for_an_hour_ends_the_run(path):
    with chat_server(in_turn(error("quota", 429, Retry_After="3600"))) as server:
        with pytest.raises(UserError, match="asks to wait for 3,600 s"):
            Client(server.url, path)("a text")
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "status 401, wrong key ***; set the environment variable of --api_key_variable"),
        (403, "may not use this model"),
        (404, "it may not serve --model m"),
        (400, "status 400, wrong key ***; change the flag"),
        (307, "status 307"),
    ],
)
def test_what_will_always_fail_ends_the_run_at_once(status, expected, path):
    with chat_server(in_turn(error(f"wrong key {KEY}", status))) as server:
        client = Client(server.url, path, key=KEY)
        with pytest.raises(UserError) as raised:
            client("a text")
    assert expected in str(raised.value)
    assert KEY not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(server.requests) == 1
    assert client.budget.used.tokens == 0


def test_a_server_that_is_not_there(path):
    with closing(socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(UserError, match=f"--endpoint {url}: cannot be reached"):
            Client(url, path)("a text")


def test_a_server_that_never_answers_ends_the_run_after_the_retries(path):
    with chat_server(in_turn(Reply({}, 500))) as server:
        client = Client(server.url, path, retries=2)
        with pytest.raises(UserError, match="status 500, Internal Server Error, 3 times"):
            client("a text")
    assert len(server.requests) == 3


def test_an_error_with_the_status_of_success_is_shown(path):
    with chat_server(in_turn(error(f"quota of {KEY} exceeded", 200))) as server:
        client = Client(server.url, path, key=KEY, retries=1)
        with pytest.raises(UserError, match=r"\(status 200, quota of \*\*\* exceeded\), 2 times"):
            client("a text")


def test_a_text_that_the_server_cannot_take_does_not_end_the_run(path):
    def answer(body, number):
        refused = body["messages"][0]["content"] == "bad"
        return error("context length exceeded", 400) if refused else "bug"

    with chat_server(answer) as server:
        client = Client(server.url, path)
        with pytest.raises(NoAnswer, match="context length exceeded"):
            client("good", "bad")
        assert client("good", "also good")[1].text == "bug"


def test_a_schema_that_the_server_refuses_is_left_out_from_then_on(path, capsys):
    def answer(body, number):
        return error("response_format?", 400) if "response_format" in body else "bug"

    with chat_server(answer) as server:
        answers = Client(server.url, path, schema=SCHEMA)("1", "2", "3", "4", together=True)
    assert [a.text for a in answers] == ["bug"] * 4
    assert len(server.requests) == 8
    assert capsys.readouterr().out.count("takes no JSON schema") == 1


def test_a_refusal_after_the_schema_has_worked_is_about_the_text(path):
    with chat_server(in_turn("bug", error("too long", 400), "bug")) as server:
        client = Client(server.url, path, schema=SCHEMA)
        with pytest.raises(NoAnswer, match="too long"):
            client("one", "two")
        client("three")
    assert "response_format" in server.requests[-1]


def test_models_that_name_the_length_otherwise(path):
    def answer(body, number):
        if "max_tokens" in body:
            return error("use 'max_completion_tokens' instead of max_tokens", 400)
        return "bug"

    with chat_server(answer) as server:
        Client(server.url, path, max_tokens=99)("one", "two")
    assert [body.get("max_completion_tokens") for body in server.requests] == [None, 99, 99]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (completion('{"label": "bu', finish_reason="length"), ('{"label": "bu', "cut off")),
        (completion(None), ("", "refused")),
        (completion(None, refusal="I cannot"), ("", "refused")),
        (completion("", finish_reason="content_filter"), ("", "refused")),
    ],
)
def test_answers_that_are_not_whole(body, expected, path):
    with chat_server(in_turn(Reply(body))) as server:
        answer = Client(server.url, path)("a text")[0]
    assert (answer.text, answer.problem) == expected


def test_a_server_that_does_not_count_is_charged_for_the_most(path):
    with chat_server(in_turn(Reply(completion("bug", usage=None)))) as server:
        client = Client(server.url, path, max_tokens=30)
        client("a text of some words")
    assert client.budget.used.output_tokens == 30
    assert 5 < client.budget.used.input_tokens < 40


def test_the_budget_ends_before_it_is_passed_and_the_cache_is_free(path):
    with chat_server(in_turn("bug")) as server:
        client = Client(server.url, path, budget=Budget(requests=2))
        with pytest.raises(BudgetSpent):
            client("1", "2", "3")
        assert server.prompts == ["1", "2"]
        again = Client(server.url, path, budget=Budget(requests=1))
        assert len(again("1", "2", "3")) == 3


def test_attempts_that_fail_count(path):
    with chat_server(in_turn(Reply({}, 500))) as server:
        client = Client(server.url, path, budget=Budget(requests=3))
        with pytest.raises(BudgetSpent):
            client("a text")
    assert len(server.requests) == 3


def test_no_key_in_any_file(path, tmp_path):
    with chat_server(in_turn(error(f"busy {KEY}", 503), "bug")) as server:
        Client(server.url, path, key=KEY)("a text")
    for file in tmp_path.iterdir():
        assert KEY.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("127.0.0.1:8000", "must be a URL"),
        ("ftp://host/v1", "must be a URL"),
        ("http://", "must be a URL"),
        ("http://[::1", "not a URL"),
        ("http://host:99999/v1", "not a URL"),
        ("https://me:secret@host/v1", "holds a user name"),
    ],
)
def test_urls_that_are_refused(url, expected):
    with pytest.raises(UserError, match=expected) as error:
        check_endpoint(url)
    assert "secret" not in str(error.value)


def test_requests_run_side_by_side(path):
    everybody = threading.Barrier(8, timeout=30)  # broken if one waits for another
    with chat_server(in_turn(Reply(completion("bug"), wait=everybody.wait))) as server:
        assert len(Client(server.url, path)(*"12345678", together=True)) == 8


def test_an_answer_that_comes_too_late_is_asked_for_again(path):
    asked_again = threading.Event()

    def answer(body, number):
        if number:
            asked_again.set()
            return "bug"
        return Reply(completion("late"), wait=asked_again.wait)

    with chat_server(answer) as server:
        client = Client(server.url, path, timeout=1.0)
        assert client("a text")[0].text == "bug"
    # The server may charge for what nobody has read.
    assert client.budget.used.requests == 2
    assert client.budget.used.output_tokens == 256 + 10
