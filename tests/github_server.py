"""A server with the issues of a made-up repository, which answers as GitHub's REST API does.

It has pages with Link headers, states of pages (ETags), limits of requests, and whatever a test
makes of single requests.
"""

import hashlib
import json
import threading
from contextlib import contextmanager, suppress
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlencode, urlsplit

from chat_server import Reply

NOW = 1_790_000_000  # the time of the server, in seconds; 2026-09-21T14:13:20Z
REPO = "owner/name"
DROP = "drop the connection"


def issue(number, *, updated="2026-01-01T00:00:00Z", labels=(), pull=False, **fields):
    """Return an issue in the form of GitHub."""
    row = {
        "url": f"https://api.github.com/repos/{REPO}/issues/{number}",
        "repository_url": f"https://api.github.com/repos/{REPO}",
        "id": 1000 + number,
        "number": number,
        "title": f"Issue {number}",
        "user": {"login": "someone", "id": 1, "type": "User"},
        "labels": [{"id": len(name), "name": name, "color": "ededed"} for name in labels],
        "state": "open",
        "assignee": None,
        "comments": 0,
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": updated,
        "body": f"The body of {number}.",
    }
    if pull:
        row["pull_request"] = {"url": f"https://api.github.com/repos/{REPO}/pulls/{number}"}
    return row | fields


def comment(number, of, body="A comment.", **fields):
    """Return a comment on an issue in the form of GitHub."""
    url = f"https://api.github.com/repos/{REPO}/issues/{of}"
    return {"id": number, "issue_url": url, "body": body, "updated_at": "2026-01-01"} | fields


class GithubServer:
    """A made-up repository.

    Attributes
    ----------
    url : base of the API.
    issues, comments : lists of rows, which a test may change.
    page_size : rows on a page, at most; also if more are asked for.
    cursors : whether links have cursors in place of page numbers, and none to the last page.
    remaining : requests that are left, None: no limit. `reset`: when there are more, in seconds.
    requests : the paths with queries that were asked for. `headers`: of each request.
    answer : called with the path and the number of requests before it; returns a `Reply` in place
        of the usual one, `DROP`, or None.
    """

    def __init__(self, n_issues=0, page_size=100):
        self.issues = [issue(number) for number in range(1, n_issues + 1)]
        self.url = "http://127.0.0.1"
        self.comments, self.page_size, self.cursors = [], page_size, False
        self.remaining, self.reset = None, NOW + 600
        self.requests, self.headers, self.answer = [], [], lambda path, number: None

    def reply(self, target, headers):
        """Return the answer to a request."""
        number = len(self.requests)
        self.requests.append(target)
        self.headers.append(headers)
        if (special := self.answer(target, number)) is not None:
            return special
        parts = urlsplit(target)
        flags = dict(parse_qsl(parts.query))
        rows = self.rows(parts.path, flags)
        limits = {}
        if self.remaining is not None:
            limits = {"X_RateLimit_Reset": str(self.reset), "X_RateLimit_Limit": "60"}
            if self.remaining == 0:
                limits["X_RateLimit_Remaining"] = "0"
                return Reply({"message": "API rate limit exceeded"}, 403, **limits)
        if rows is None:
            return Reply({"message": "Not Found"}, 404)
        size = min(int(flags.get("per_page", 30)), self.page_size)
        name = "after" if self.cursors else "page"
        start = int(flags.get(name, 0 if self.cursors else 1))
        start = start if self.cursors else (start - 1) * size
        body = json.dumps(rows[start : start + size])
        reply = Reply(body.encode(), Content_Type="application/json; charset=utf-8", **limits)
        reply.headers["ETag"] = f'W/"{hashlib.sha256(body.encode()).hexdigest()}"'
        if headers.get("If-None-Match") == reply.headers["ETag"]:
            reply.status, reply.body = 304, b""
        elif self.remaining is not None:  # what has not changed costs nothing
            self.remaining -= 1
        if limits:
            reply.headers["X-RateLimit-Remaining"] = str(self.remaining)
        if start + size < len(rows):

            def link(value, rel):
                query = urlencode(flags | {name: value})
                return f'<{self.url}{parts.path}?{query}>; rel="{rel}"'

            links = [link(start + size if self.cursors else start // size + 2, "next")]
            if not self.cursors:
                links.append(link(-(-len(rows) // size), "last"))
            reply.headers["Link"] = ", ".join(links)
        return reply

    def rows(self, path, flags):
        """Return all rows that a path lists; None: there is no such path."""
        since = flags.get("since", "")
        if path == f"/repos/{REPO}/issues":
            rows = [row for row in self.issues if row["updated_at"] >= since]
            if flags.get("state", "open") != "all":
                rows = [row for row in rows if row["state"] == flags.get("state", "open")]
            for name in filter(None, flags.get("labels", "").split(",")):
                rows = [row for row in rows if name in [part["name"] for part in row["labels"]]]
            return rows[::-1] if flags.get("direction", "desc") == "desc" else rows
        if path == f"/repos/{REPO}/issues/comments":
            return [row for row in self.comments if row["updated_at"] >= since]
        if path.startswith(f"/repos/{REPO}/issues/") and path.endswith("/comments"):
            end = f"/issues/{path.split('/')[-2]}"
            return [row for row in self.comments if row["issue_url"].endswith(end)]
        return None


@contextmanager
def github_server(*args, **options):
    """Run a `GithubServer`."""
    state, lock = GithubServer(*args, **options), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            with lock:
                reply = state.reply(self.path, self.headers)
            if reply == DROP:
                self.close_connection = True
                return
            reply.wait()
            self.send_response_only(reply.status)
            headers = {"Date": formatdate(NOW, usegmt=True), "Content-Length": len(reply.body)}
            for name, value in (headers | reply.headers).items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_):
            pass

        def handle(self):
            with suppress(ConnectionError):  # a client that was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
