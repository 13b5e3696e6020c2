"""Pages over HTTP from a server on this machine: limits, failures and refusals."""

import json
import threading

import pytest
from chat_server import Reply
from github_server import DROP, NOW, github_server, issue

from shared.cli.errors import UserError
from shared.github.client import GithubClient
from shared.github.token import Token

SECRET = "ghp_a_token_that_nobody_may_see"
PATH = "/repos/owner/name/issues?per_page=100"


class Client:
    """A client whose waits are noted in `waits`, as (seconds, reason)."""

    def __init__(self, server, **options):
        self.waits, self.server = [], server
        options = {"token": Token(SECRET, "GITHUB_TOKEN")} | options
        wait = lambda *wait: self.waits.append(wait)  # noqa: E731
        self.client = GithubClient(server.url, wait=wait, **options)

    def __call__(self, path=PATH, **options):
        with self.client as client:
            return client.get(self.server.url + path, **options)

    def refusal(self, path=PATH):
        with pytest.raises(UserError) as error:
            self(path)
        assert SECRET not in str(error.value)
        return str(error.value)

    @property
    def seconds(self):
        return [seconds for seconds, _ in self.waits]


@pytest.fixture
def server():
    with github_server(3) as server:
        yield server


def in_turn(*replies):
    """Answer the first requests by these, the others as usual."""
    return lambda path, number: replies[number] if number < len(replies) else None


def limited(status=403, message="", **headers):
    return Reply({"message": message}, status, **headers)


# --- pages ---------------------------------------------------------------------------------------


def test_a_page_and_the_next_one(server):
    server.page_size = 2
    page = Client(server)()
    assert [row["number"] for row in page.rows] == [3, 2]
    assert (page.next_url, page.last_page) == (f"{server.url}{PATH}&page=2", 2)
    assert page.date.timestamp() == NOW
    last = Client(server)(f"{PATH}&page=2")
    assert ([row["number"] for row in last.rows], last.next_url) == ([1], None)


def test_the_token_and_the_version_are_in_the_headers(server):
    Client(server)()
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert server.headers[0]["X-GitHub-Api-Version"] == "2022-11-28"
    Client(server, token=None)()
    assert server.headers[1]["Authorization"] is None


def test_a_page_that_has_not_changed_comes_without_rows(server):
    client = Client(server)
    page = client()
    assert client(etag=page.etag).rows is None
    assert client.client.n_unchanged == 1
    server.issues.append(issue(4))
    assert len(client(etag=page.etag).rows) == 4


def test_a_moved_repository_is_followed(server):
    moved = Reply({"message": "Moved Permanently"}, 301, Location=f"{server.url}{PATH}")
    server.answer = lambda path, number: moved if path.startswith("/repos/old") else None
    assert len(Client(server)("/repos/old/name/issues").rows) == 3


def test_redirects_without_end_are_refused(server):
    moved = Reply({}, 301, Location=f"{server.url}{PATH}")
    server.answer = lambda path, number: moved
    assert "redirects without end" in Client(server).refusal()


def test_another_server_gets_no_token_and_no_request_for_a_page(server):
    with github_server(3) as other:
        moved = Reply({}, 301, Location=f"{other.url}{PATH}")
        server.answer = lambda path, number: moved
        assert "leads to another server, 127.0.0.1:" in Client(server).refusal()
        assert other.headers[0]["Authorization"] is None
        link = f'<{other.url}{PATH}&page=2>; rel="next"'
        server.answer = lambda path, number: Reply([issue(1)], Link=link)
        assert "leads to another server" in Client(server).refusal()
        assert len(other.requests) == 1


# --- limits --------------------------------------------------------------------------------------


def test_a_used_up_limit_is_waited_for_by_the_clock_of_the_server(server):
    used_up = {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(NOW + 120)}
    server.answer = in_turn(limited(message="API rate limit exceeded", **used_up))
    client = Client(server)
    assert len(client().rows) == 3
    assert client.waits == [(121, "the limit of requests is used up")]


def test_the_last_request_of_the_limit_is_followed_by_a_wait(server):
    server.remaining = 1
    client = Client(server)
    client()
    assert (client.waits, client.client.remaining) == ([], 0)
    server.remaining = 60
    client()
    assert client.seconds == [601]
    assert len(server.requests) == 2  # none was refused


@pytest.mark.parametrize("status", [403, 429])
def test_a_secondary_limit_is_waited_for_as_long_as_it_says(server, status):
    message = "You have exceeded a secondary rate limit."
    server.answer = in_turn(limited(status, message, Retry_After="7"))
    client = Client(server)
    client()
    assert client.seconds == [7]


@pytest.mark.parametrize(
    "reply",
    [
        limited(429),
        limited(403, "You have exceeded a secondary rate limit"),
        limited(403, "You have triggered an abuse detection mechanism."),
        limited(403, "API Rate Limit Exceeded", x_ratelimit_remaining="0"),
        # A time that has passed already, by the clock of the server.
        limited(403, x_ratelimit_remaining="0", x_ratelimit_reset="1726571099"),
    ],
)
def test_a_limit_without_a_time_is_waited_for_longer_each_time(server, reply):
    server.answer = in_turn(reply, reply, reply)
    client = Client(server)
    client()
    assert client.seconds == [60, 120, 240]


def test_a_longer_wait_than_allowed_ends_the_run(server):
    server.answer = in_turn(limited(Retry_After="100"), limited(Retry_After="101"))
    client = Client(server, max_wait=200)
    assert "201 s to wait, more than --max_wait 200" in client.refusal()
    assert client.seconds == [100]
    server.answer = lambda path, number: limited(Retry_After="1")
    message = Client(server, max_wait=0, token=None).refusal()
    assert message.endswith("or set GITHUB_TOKEN, which allows more requests")


def test_a_server_that_never_answers_ends_the_run(server):
    server.answer = lambda path, number: limited(Retry_After="0")
    assert "(secondary limit), 3 times" in Client(server, retries=2).refusal()
    assert len(server.requests) == 3


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply({"error": "Server Error"}, 502),
        Reply(b"<html><body><h1>503 Service Unavailable</h1></body></html>", 503),
        Reply(b"<html>Sign in</html>"),
        Reply(b""),
        Reply(json.dumps([issue(1)]).encode()[:100]),
        Reply({"message": "an object"}),
        Reply(["no object"]),
        Reply([{"title": "without an id"}]),
        DROP,
    ],
)
def test_what_fails_is_asked_again_after_longer_pauses(server, reply):
    server.answer = in_turn(reply, reply)
    client = Client(server)
    assert len(client().rows) == 3
    first, second = client.seconds
    assert 0.5 <= first <= 1 <= second <= 2
    server.answer = lambda path, number: reply
    message = Client(server, retries=1).refusal()
    assert message.endswith("2 times; repeat the command later")
    assert len(message) < 300


def test_a_failing_server_that_names_a_time_is_given_it(server):
    server.answer = in_turn(Reply({}, 503, Retry_After="9"))
    client = Client(server)
    client()
    assert client.seconds == [9]


def test_half_a_body_is_asked_for_again(server):
    class Cut(Reply):
        def wait_and_cut(self):
            self.body = self.body[:20]  # fewer bytes than the header promises

    cut = Cut([issue(1)])
    cut.headers["Content-Length"], cut.wait = len(cut.body), cut.wait_and_cut
    # The connection stays open, so the client must not wait for the rest for long.
    server.answer = in_turn(cut)
    assert len(Client(server, timeout=0.2)().rows) == 3


def test_a_late_answer_is_asked_for_again(server):
    asked_again = threading.Event()

    def answer(path, number):
        if number:
            asked_again.set()
            return None
        return Reply([], wait=lambda: asked_again.wait(10))

    server.answer = answer
    client = Client(server, timeout=0.2)
    assert len(client().rows) == 3
    assert client.waits[0][1] == "no answer within 0.2 s"


def test_a_server_that_cannot_be_reached_ends_the_run_at_once():
    client = GithubClient("http://127.0.0.1:9", wait=None)
    with client, pytest.raises(UserError, match=r"^--api http://127.0.0.1:9: cannot be reached"):
        client.get(f"http://127.0.0.1:9{PATH}")


# --- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "with_token", "without"),
    [
        (401, "Bad credentials", "the token of GITHUB_TOKEN is not valid", "a token is needed"),
        (403, "Resource not accessible", "GITHUB_TOKEN may not read", "a token is needed"),
        (404, "Not Found", "that the token may not read; check --repo", "or set GITHUB_TOKEN"),
        (410, "Issues are disabled for this repo", "turned off", "turned off"),
        (422, "Validation Failed", "--since or --labels", "--since or --labels"),
        (451, "Repository access blocked", "blocked", "blocked"),
        (418, "I'm a teapot", "check --api", "check --api"),
    ],
)
def test_a_refusal_says_what_to_do(server, status, message, with_token, without):
    server.answer = lambda path, number: Reply({"message": f"{message} {SECRET}"}, status)
    for token, expected in ((Token(SECRET, "GITHUB_TOKEN"), with_token), (None, without)):
        if token is None:
            server.answer = lambda path, number: Reply({"message": message}, status)
        line = Client(server, token=token).refusal()
        assert f"status {status}, {message}" in line
        assert expected in line
    assert len(server.requests) == 2
