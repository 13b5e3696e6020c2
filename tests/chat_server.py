"""A server of chat completions in a thread, which answers as a test says."""

import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Reply:
    """An answer of the server: a status, headers and a body. It is sent when `wait` returns."""

    def __init__(self, body, status=200, *, wait=None, **headers):
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status, self.wait = status, wait or (lambda: None)
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def completion(text, *, finish_reason="stop", usage=(100, 10), **message):
    """Return the body of a completion."""
    body = {
        "choices": [
            {"message": {"content": text, **message}, "finish_reason": finish_reason, "index": 0}
        ]
    }
    if usage:
        body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return body


def error(message, status, **headers):
    """Return an error as OpenAI writes it."""
    return Reply({"error": {"message": message}}, status, **headers)


class ChatServer:
    """What the server was sent, and where it is.

    Attributes
    ----------
    url : base of the API.
    requests : bodies, in the order in which they came.
    keys : values of the header ``Authorization``.
    """

    def __init__(self, url):
        self.url, self.requests, self.keys = url, [], []

    @property
    def prompts(self):
        """The first message of each request."""
        return [request["messages"][0]["content"] for request in self.requests]


@contextmanager
def chat_server(answer):
    """Run a server.

    `answer` is called with a body and the number of requests before it; it returns the text of an
    answer, or a `Reply`.
    """
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.requests)
                state.requests.append(body)
                state.keys.append(self.headers.get("Authorization"))
            reply = Reply({"error": "no such path"}, 404)
            if self.path == "/v1/chat/completions":
                reply = answer(body, number)
            if isinstance(reply, str):
                reply = Reply(completion(reply))
            reply.wait()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_):
            pass

        def handle(self):
            with suppress(ConnectionError):  # a client that did not wait
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state = ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
