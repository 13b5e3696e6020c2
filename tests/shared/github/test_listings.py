"""All pages of a list, however often the fetch is stopped, and what changed since."""

from email.utils import formatdate

import httpx2
import pytest
from chat_server import Reply
from github_server import NOW, GithubServer, comment, github_server, issue
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.github.client import GithubClient
from shared.github.listings import (
    IssueQuery,
    fetch_comments,
    fetch_issues,
    label_names,
    parse_time,
)
from shared.github.store import PageStore

QUERY = IssueQuery("owner/name")
LATER = "2026-09-22T00:00:00Z"  # than the time of the server


class Fetch:
    """Fetches from a server into one store."""

    def __init__(self, server, path):
        self.server, self.path = server, path

    def __call__(self, query=QUERY, *, update=False, comments=False):
        """Fetch; return the requests that it took."""
        n_before = len(self.server.requests)
        with PageStore(self.path, {}) as store, self.client() as client:
            store._database.execute("PRAGMA synchronous = OFF")  # no test cuts the power
            fetch_issues(client, store, query, update=update)
            if comments:
                fetch_comments(client, store, query, update=update)
        return self.server.requests[n_before:]

    def client(self):
        return GithubClient(self.server.url, retries=0, wait=None)

    def rows(self, listing="issues"):
        with PageStore(self.path, {}) as store:
            return list(store.rows(listing))


@pytest.fixture
def server():
    with github_server(7, page_size=3) as server:
        yield server


@pytest.fixture
def fetch(server, tmp_path):
    return Fetch(server, tmp_path / "pages.sqlite")


@pytest.mark.parametrize("cursors", [False, True])
def test_all_pages_are_fetched_in_the_order_of_creation(server, fetch, cursors):
    server.cursors = cursors
    requests = fetch()
    assert fetch.rows() == server.issues
    assert "state=all&sort=created&direction=asc&per_page=100" in requests[0]
    # Where no link leads to the last page, the newest issue tells how many there are.
    newest = [path for path in requests if "direction=desc&per_page=1" in path]
    assert (len(newest), len(requests)) == ((1, 4) if cursors else (0, 3))


def test_a_repetition_asks_only_whether_pages_have_changed(server, fetch):
    fetch()
    server.issues[0]["title"] = "Another title"  # of the first page
    del server.issues[4]  # of the second one, so that the third one moves
    server.issues.append(issue(8))
    fetch()
    assert fetch.rows() == server.issues
    server.remaining = 60
    fetch()
    # Each page but the last one is known; of that, the state says nothing of a page after it.
    assert server.remaining == 59


def test_a_page_that_begins_after_a_full_one_is_seen(server, fetch):
    del server.issues[6:]
    fetch()
    server.issues.append(issue(7))
    fetch()
    assert len(fetch.rows()) == 7


def test_an_update_asks_for_changes_since_the_start_of_the_last_fetch(server, fetch):
    fetch()
    changed = issue(2, updated=LATER, labels=["bug"])
    server.issues[1] = changed
    server.issues.append(issue(8, updated=LATER))
    (request,) = fetch(update=True)
    assert "since=2026-09-21T14%3A12%3A20Z" in request  # with a minute of overlap
    assert fetch.rows() == server.issues


def test_an_update_without_changes_costs_nothing(server, fetch):
    fetch()
    server.remaining = 60
    for expected in (59, 59, 59):
        assert len(fetch(update=True)) == 1
        assert server.remaining == expected


def test_an_update_removes_what_no_longer_fits(server, fetch):
    query = IssueQuery("owner/name", state="open", labels=("Bug",))
    server.issues = [issue(number, labels=["Bug", "x"]) for number in range(1, 5)]
    assert "labels=Bug" in fetch(query)[0]
    server.issues[0] = issue(1, updated=LATER, labels=["Bug"], state="closed")
    server.issues[1] = issue(2, updated=LATER, labels=["x"])
    server.issues[2] = issue(3, updated=LATER, labels=["bug"])
    fetch(query, update=True)
    assert [row["number"] for row in fetch.rows()] == [3, 4]


def test_an_update_before_any_fetch_fetches_everything(server, fetch):
    fetch(update=True)
    assert fetch.rows() == server.issues


# --- comments ------------------------------------------------------------------------------------


def test_comments_of_a_whole_repository_are_one_list(server, fetch):
    server.comments = [comment(number, of=number % 3 + 1) for number in range(5)]
    requests = fetch(comments=True)
    assert sum("/issues/comments?" in path for path in requests) == 2
    assert sorted(fetch.rows("comments"), key=lambda row: row["id"]) == server.comments
    server.comments[0]["body"], server.comments[0]["updated_at"] = "Changed.", LATER
    requests = fetch(update=True, comments=True)
    assert "since=2026" in requests[1]
    assert [row["id"] for row in fetch.rows("comments") if row["body"] == "Changed."] == [0]


def test_comments_of_some_issues_are_a_list_for_each(server, fetch):
    query = IssueQuery("owner/name", state="open")
    server.issues = [issue(number, comments=number % 2 * 4) for number in range(1, 5)]
    server.comments = [comment(number, of=number // 4 * 2 + 1) for number in range(8)]
    requests = fetch(query, comments=True)
    # Two pages of issues, then two of the comments of each issue that has any.
    assert [path.split("?")[0].split("/")[4:] for path in requests] == [
        *(["issues"], ["issues"]),
        *(["issues", number, "comments"] for number in "1133"),
    ]
    assert len(fetch.rows("comments")) == 8
    server.issues[2] |= {"updated_at": LATER}
    server.comments.append(comment(8, of=3))
    _, *requests = fetch(query, update=True, comments=True)
    assert requests
    assert all("/issues/3/comments" in path for path in requests)
    assert len(fetch.rows("comments")) == 9


def test_comments_can_be_added_later(server, fetch):
    fetch()
    server.comments = [comment(1, of=1)]
    fetch(update=True, comments=True)
    assert fetch.rows("comments") == server.comments


# --- interruptions -------------------------------------------------------------------------------

CHANGES = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from(["bug", "docs"]), st.booleans()), max_size=4
)


class DirectClient(GithubClient):
    """Calls the server without a connection between them."""

    def __init__(self, server):
        super().__init__(server.url, retries=0, wait=None)
        self.server = server

    def __enter__(self):
        def handle(request):
            reply = self.server.reply(request.url.raw_path.decode(), request.headers)
            headers = {"Date": formatdate(NOW, usegmt=True)} | reply.headers
            return httpx2.Response(reply.status, headers=headers, content=reply.body)

        self._client = httpx2.Client(transport=httpx2.MockTransport(handle))
        return self


class DirectFetch(Fetch):
    def client(self):
        return DirectClient(self.server)


@settings(max_examples=25, deadline=None)
@given(
    n_issues=st.integers(0, 11),
    page_size=st.integers(1, 4),
    stops=st.lists(st.integers(0, 9), max_size=4),
    changes=CHANGES,
    cursors=st.booleans(),
)
def test_a_fetch_that_is_stopped_and_updated_ends_as_one_that_is_not(
    n_issues, page_size, stops, changes, cursors, tmp_path_factory
):
    server = GithubServer(n_issues, page_size)
    server.cursors = cursors
    fetch = DirectFetch(server, tmp_path_factory.mktemp("pages") / "pages.sqlite")
    for update in (False, True):
        for stop in stops:
            failing = len(server.requests) + stop
            server.answer = lambda path, n, failing=failing: (
                Reply({}, 500) if n == failing else None
            )
            try:
                fetch(update=update)
            except UserError:
                assert len(server.requests) == failing + 1
        server.answer = lambda path, n: None
        fetch(update=update)
        assert fetch.rows() == server.issues
        for number, label, pull in changes:
            rows = {row["number"]: row for row in server.issues}
            if number in rows or number > n_issues:
                rows[number] = issue(number, updated=LATER, labels=[label], pull=pull)
            server.issues = [rows[number] for number in sorted(rows)]
    for update in (True, False):
        fetch(update=update)
        assert fetch.rows() == server.issues


def test_a_fetch_that_was_stopped_asks_for_no_page_twice(server, fetch):
    server.answer = lambda path, number: Reply({}, 500) if number == 2 else None
    with pytest.raises(UserError):
        fetch()
    assert fetch() == server.requests[2:3]
    assert fetch.rows() == server.issues


def test_links_that_lead_back_end_the_run(server, fetch):
    link = f'<{server.url}/again>; rel="next"'
    server.answer = lambda path, number: Reply([issue(1)], Link=link)
    with pytest.raises(UserError, match="/again: the links of the server lead to this page twice"):
        fetch()
    assert sum(path == "/again" for path in server.requests) == 1


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"),
        ("2026-01-31 12:00:00+01:00", "2026-01-31T11:00:00Z"),
    ],
)
def test_times_are_utc(text, expected):
    assert parse_time(text) == expected


@pytest.mark.parametrize("text", ["yesterday", "", "31.01.2026", "0001-01-01T00:00:00+05:00"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(UserError, match=r"--since .*: not a date"):
        parse_time(text)


def test_labels_are_objects_or_strings():
    assert label_names({"labels": [{"name": "a"}, "b"]}) == ["a", "b"]
    assert label_names({"labels": None}) == label_names({}) == []


def test_the_time_of_the_server_is_before_that_of_the_changes():
    assert parse_time("2026-09-21T14:13:20Z") < LATER
    assert NOW == 1_790_000_000
