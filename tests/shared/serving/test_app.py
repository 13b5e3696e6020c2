"""The HTTP interface of a tagger, through a real server in a thread."""

import http.client
import json
import signal
import socket
import threading
from functools import partial

import pytest
import uvicorn

from shared.cli.errors import UserError
from shared.evaluation.rules import NEVER, DecisionRule
from shared.serving import BatchedTagger, Limits, bind, make_app, run_server
from shared.taggers.tagger import Tagger

LIMITS = Limits(max_texts=3, max_characters=20, body_seconds=0.5)


class Lengths:
    """Scores texts by their length; one text is a fault, one waits."""

    def __init__(self):
        self.gate, self.waiting = threading.Event(), threading.Event()

    def __call__(self, texts):
        import numpy as np

        if "fault" in texts:
            raise ValueError("a secret of the server")
        if "wait" in texts:
            self.waiting.set()
            assert self.gate.wait(10)
        return np.array([[min(len(text) / 10, 1), 0.5] for text in texts])


class Client:
    """Sends requests to a server, each on a connection of its own."""

    def __init__(self, port):
        self.port = port

    def __call__(self, method, path, body=None, **headers):
        """Return status, JSON and headers of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        if body is not None and not isinstance(body, (bytes, list)):
            body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        connection.request(method, path, body, headers, encode_chunked=isinstance(body, list))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, json.loads(text) if text[:1] == b"{" else text, answer.headers


@pytest.fixture
def scorer():
    return Lengths()


@pytest.fixture
def rule():
    return DecisionRule((0.3, 0.6))


@pytest.fixture
def client(scorer, rule):
    """A client of a running server."""
    tagger = BatchedTagger(Tagger(["long", "odd"], rule, scorer), max_waiting=4)
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(tagger, "mine", LIMITS), log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield Client(listening.getsockname()[1])
    scorer.gate.set()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_texts_come_back_in_order_with_labels_and_scores(client):
    status, answer, _ = client("POST", "/tag", {"texts": ["1234", "", "é" * 20]})
    assert status == 200
    assert answer["results"] == [
        {"labels": ["long"], "scores": {"odd": 0.5, "long": 0.4}},
        {"labels": [], "scores": {}},
        {"labels": ["long"], "scores": {"long": 1.0, "odd": 0.5}},
    ]


@pytest.mark.parametrize("rule", [DecisionRule((0.3, NEVER))])
def test_a_label_that_is_never_given_has_no_threshold(client):
    (_, (first, second)) = client("GET", "/labels")[1].popitem()
    assert first == {"name": "long", "threshold": 0.3}
    assert second == {"name": "odd", "threshold": None}


def test_labels_health_and_documentation(client):
    labels = [{"name": "long", "threshold": 0.3}, {"name": "odd", "threshold": 0.6}]
    assert client("GET", "/labels")[:2] == (200, {"labels": labels})
    client("POST", "/tag", {"texts": ["a", "b"]})
    health = {"status": "ok", "model": "mine", "texts_tagged": 2, "texts_waiting": 0}
    assert client("GET", "/healthz")[:2] == (200, health)
    page = client("GET", "/docs")[1].decode()
    assert "http" not in page.replace("http://127.0.0.1", "")  # it needs no network
    schema = client("GET", "/openapi.json")[1]
    assert {*schema["paths"]} == {"/tag", "/labels", "/healthz"}
    texts = schema["components"]["schemas"]["Texts"]["properties"]["texts"]
    assert (texts["maxItems"], texts["items"]["maxLength"]) == (3, 20)


@pytest.mark.parametrize(
    ("body", "status", "expected"),
    [
        (b"[1", 422, "body: no JSON (Expecting ',' delimiter)"),
        (b"", 422, "body: Field required"),
        ({"text": ["a"]}, 422, "texts: Field required"),
        ({"texts": "a"}, 422, "texts: Input should be a valid list"),
        ({"texts": ["a", 5]}, 422, "texts.1: Input should be a valid string"),
        ({"texts": []}, 422, "texts: List should have at least 1 item"),
        ({"texts": ["a"] * 4}, 422, "texts: List should have at most 3 items"),
        ({"texts": ["a" * 21]}, 422, "texts.0: String should have at most 20 characters"),
        (b" " * 10_000, 413, "the body has more than 2,080 bytes"),
        ([b" " * 1000] * 10, 413, "the body has more than 2,080 bytes"),  # no Content-Length
        ({"texts": ["fault"]}, 500, "a fault of the server; its log has the traceback"),
    ],
)
def test_mistakes(body, status, expected, client):
    actual, answer, _ = client("POST", "/tag", body)
    assert actual == status
    assert answer["error"].startswith(expected)
    assert client("POST", "/tag", {"texts": ["a"]})[0] == 200  # it goes on


def test_other_addresses_and_methods(client):
    assert client("GET", "/nothing")[:2] == (404, {"error": "GET /nothing: Not Found"})
    assert client("GET", "/tag")[:2] == (405, {"error": "GET /tag: Method Not Allowed"})


def test_a_body_that_does_not_arrive(client):
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(b"POST /tag HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408
        assert json.load(answer) == {"error": "the body took more than 0.5 seconds"}


def test_too_many_texts_wait_and_clients_leave(client, scorer):
    first = threading.Thread(target=client, args=("POST", "/tag", {"texts": ["wait"]}))
    first.start()
    assert scorer.waiting.wait(10)
    body = json.dumps({"texts": ["a", "b", "c"]})
    request = "POST /tag HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(f"{request}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        while client("GET", "/healthz")[1]["texts_waiting"] != 3:
            pass
        status, answer, headers = client("POST", "/tag", {"texts": ["d", "e"]})
        assert (status, headers["Retry-After"]) == (503, "1")
        assert answer == {"error": "too many texts are waiting; try again"}
    while client("GET", "/healthz")[1]["texts_waiting"]:  # its client has left
        pass
    scorer.gate.set()
    assert client("POST", "/tag", {"texts": ["d", "e"]})[0] == 200
    first.join(10)


def test_an_answer_is_not_held_back():
    with bind("127.0.0.1", 0) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_the_server_has_begun_ends_it(number, scorer, monkeypatch):
    tagger = BatchedTagger(Tagger(["long"], DecisionRule((0.5,)), scorer))
    run, before = uvicorn.Server.run, signal.getsignal(number)

    def run_after_signal(server, sockets):
        signal.raise_signal(number)
        run(server, sockets)

    monkeypatch.setattr(uvicorn.Server, "run", run_after_signal)
    run_server(make_app(tagger, "mine", LIMITS), bind("127.0.0.1", 0))
    assert signal.getsignal(number) == before


def test_ctrl_c_while_the_server_is_set_up_is_ctrl_c(scorer, monkeypatch):
    tagger = BatchedTagger(Tagger(["long"], DecisionRule((0.5,)), scorer))
    interrupt = partial(signal.raise_signal, signal.SIGINT)
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda config: interrupt())
    with bind("127.0.0.1", 0) as listening, pytest.raises(KeyboardInterrupt):
        run_server(make_app(tagger, "mine", LIMITS), listening)


def test_a_port_in_use_and_an_address_of_another_machine():
    with bind("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: Address already in use; choose ano"):
            bind("127.0.0.1", port)
    with pytest.raises(UserError, match=r"--host 192.0.2.1 --port 0: "):
        bind("192.0.2.1", 0)
