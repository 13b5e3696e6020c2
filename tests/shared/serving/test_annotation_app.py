"""The HTTP interface of the page on which a person labels texts, through a real server."""

import http.client
import json
import subprocess
import sys
import threading
import time
from urllib.parse import quote

import pytest
import uvicorn

from shared.cli.errors import UserError
from shared.data import GuideEntry, TextToLabel
from shared.serving import AnnotationLog, Background, Queue, Task, bind, make_annotation_app
from shared.serving.annotation_app import MAX_BODY_BYTES
from shared.serving.annotation_log import text_id

TOKEN = "a-secret"
TEXTS = [
    TextToLabel("a crash", 1, ("bug", "unknown"), {"bug": 0.9}, "many are near it"),
    TextToLabel("</script><b>", 2),
    TextToLabel("slow", 7),
]


class Client:
    """Sends requests with the token, each on a connection of its own."""

    def __init__(self, port):
        self.port = port

    def __call__(self, method, path, body=None, token=TOKEN):
        """Return the status and the JSON of the answer."""
        status, text, _ = self.raw(method, path, body, {"Authorization": f"Bearer {token}"})
        return status, json.loads(text)

    def raw(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        data = None if body is None else json.dumps(body).encode()
        connection.request(
            method, path, data, {"Content-Type": "application/json", **dict(headers)}
        )
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, text, answer.headers

    def click(self, action, text="", seen=0, **more):
        body = {"action": action, "id": text_id(text), "seen": seen, **more}
        return self("POST", "/api/clicks", body)


@pytest.fixture
def single():
    return False


@pytest.fixture
def log(tmp_path):
    with AnnotationLog(tmp_path) as log:
        yield log


@pytest.fixture
def queue(log):
    return Queue(TEXTS, log)


@pytest.fixture
def client(queue, single):
    guide = {"bug": GuideEntry("It fails. </script>", ("crash",))}
    task = Task(["bug", "speed"], single, guide, "texts & more.csv", "out/labelled.jsonl")
    app = make_annotation_app(queue, task, TOKEN)
    listening = bind("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield Client(listening.getsockname()[1])
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()


def test_texts_come_in_their_order_until_all_are_done(client, log):
    status, first = client("GET", "/api/text")
    assert status == 200
    assert first["item"] == {
        "id": text_id("a crash"),
        "position": 0,
        "text": "a crash",
        "row": 1,
        "suggested": ["bug"],  # of the labels that there are
        "scores": {"bug": 0.9},
        "reason": "many are near it",
        "version": 0,
        "status": None,
        "labels": [],
        "note": "",
    }
    assert first["state"]["undo"] is None
    _, second = client.click("label", "a crash", labels=["speed", "bug", "bug"], note="hm")
    assert second["item"]["text"] == "</script><b>"
    assert second["state"]["label_counts"] == {"bug": 1, "speed": 1}
    _, third = client.click("skip", "</script><b>")
    assert third["item"]["text"] == "slow"
    _, last = client.click("label", "slow", labels=[])
    assert last["item"] is None
    state = last["state"]
    assert (state["texts"], state["labelled"], state["skipped"], state["version"]) == (3, 2, 1, 3)
    assert [(a.text, a.labels, a.note, a.row) for a in log.annotations()] == [
        ("a crash", ("bug", "speed"), "hm", 1),
        ("</script><b>", (), "", 2),
        ("slow", (), "", 7),
    ]


def test_a_skipped_or_labelled_text_can_be_changed_and_the_next_is_the_first_open_one(client):
    client.click("skip", "</script><b>")
    _, answer = client("GET", "/api/text?position=1")
    assert answer["item"]["status"] == "skipped"
    _, answer = client.click("label", "</script><b>", seen=1, labels=["bug"])
    assert answer["item"]["text"] == "slow"
    _, answer = client.click("label", "slow", labels=["bug"])
    assert answer["item"]["text"] == "a crash"  # from the start again
    assert client("GET", "/api/text?position=9")[1]["item"] is None


def test_undo_and_notes_answer_with_their_text(client):
    client.click("label", "slow", labels=["speed"])
    _, answer = client.click("note", "slow", seen=1, note="hm")
    assert (answer["item"]["text"], answer["item"]["note"]) == ("slow", "hm")
    assert answer["state"]["undo"] == {"click": 1, "id": text_id("slow")}
    _, answer = client.click("undo", seen=1)
    assert (answer["item"]["text"], answer["item"]["status"]) == ("slow", None)
    assert answer["item"]["note"] == "hm"


def test_a_second_tab_sees_the_first_and_overwrites_nothing(client, log):
    client.click("label", "a crash", labels=["bug"])
    assert client("GET", "/api/state")[1]["version"] == 1
    status, answer = client.click("label", "a crash", labels=["speed"])  # as it was before
    assert status == 409
    assert "nothing was changed" in answer["error"]
    assert (answer["item"]["labels"], answer["item"]["version"]) == (["bug"], 1)
    client.click("label", "slow", labels=["speed"])
    status, answer = client.click("undo", seen=1)
    assert (status, answer["item"]["text"]) == (409, "slow")
    assert [a.labels for a in log.annotations()] == [("bug",), ("speed",)]


def test_an_undo_that_another_tab_has_done_shows_the_next_text(client):
    client.click("label", "a crash", labels=["bug"])
    client.click("undo", seen=1)
    status, answer = client.click("undo", seen=1)
    assert (status, answer["item"]["text"]) == (409, "a crash")


def test_many_clicks_at_once_are_all_kept(queue, client, log):
    queue.replace([TextToLabel(f"text {i}", i) for i in range(60)])

    def click(first):
        for i in range(first, 60, 3):
            assert client.click("label", f"text {i}", labels=["bug"])[0] == 200

    threads = [threading.Thread(target=click, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {a.text for a in log.annotations()} == {f"text {i}" for i in range(60)}
    lines = (log.folder / "labelled.jsonl").read_text().splitlines()
    assert len({json.loads(line)["text"] for line in lines}) == len(lines) == 60


@pytest.mark.parametrize("single", [True])
def test_with_one_label_per_text_a_click_has_exactly_one(client):
    for labels in ([], ["bug", "speed"]):
        status, answer = client.click("label", "slow", labels=labels)
        assert (status, answer["error"].split(": ", 1)[1]) == (
            422,
            "labels: a text has exactly one label here",
        )
    assert client.click("label", "slow", labels=["bug"])[0] == 200


@pytest.mark.parametrize(
    ("click", "status", "message"),
    [
        ({"action": "label", "id": text_id("slow"), "seen": 0, "labels": ["x"]}, 422, "label 'x'"),
        ({"action": "label", "id": "0" * 16, "seen": 0}, 404, "there is no such text"),
        ({"action": "label", "id": text_id("slow")}, 422, "seen: Field required"),
        ({"action": "remove", "seen": 0}, 422, "action: Input should be"),
        ({"action": "note", "seen": 0, "note": "x" * 10_001}, 422, "note: String should have at"),
        ({"action": "note", "seen": 0, "note": "x" * MAX_BODY_BYTES}, 413, "more than 1,000,000 b"),
    ],
)
def test_mistakes_change_nothing(click, status, message, client, log):
    actual, answer = client("POST", "/api/clicks", click)
    assert actual == status
    assert message in answer["error"]
    assert log.version == 0


def test_a_click_that_cannot_be_written_is_an_error(client, log, monkeypatch):
    def fail(*_, **__):
        raise UserError("clicks.jsonl: cannot be written")

    monkeypatch.setattr(log, "label", fail)
    answer = client.click("label", "slow", labels=["bug"])
    assert answer == (507, {"error": "clicks.jsonl: cannot be written"})


@pytest.mark.parametrize(
    "path", ["/", "/api/state", "/api/text", "/api/text?position=0&token=a-secret"]
)
def test_nobody_is_answered_without_the_token(path, client, log, capfd):
    for token in ("", "a-secre", "a-secret ", "é"):
        headers = {"Authorization": f"Bearer {token}".encode("latin-1")} if token else {}
        place = f"/?token={quote(token)}" if path == "/" else path
        status, text, _ = client.raw("GET", place, headers=headers)
        assert status == 401
        assert json.loads(text)["error"].startswith("GET /")
        assert b"secre" not in text
    click = {"action": "skip", "id": text_id("slow"), "seen": 0}
    assert client("POST", "/api/clicks", click, token="other")[0] == 401
    assert log.version == 0
    assert client.raw("GET", "/docs")[0] == client.raw("GET", "/openapi.json")[0] == 404
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_the_page_holds_all_it_needs_and_no_text_is_markup(client):
    status, page, headers = client.raw("GET", f"/?token={TOKEN}")
    page = page.decode()
    assert status == 200
    assert "<title>Label texts &amp; more.csv</title>" in page
    assert page.count("</script>") == 2
    assert "It fails. \\u003c/script>" in page
    assert TOKEN not in page
    assert "http://" not in page
    assert "https://" not in page
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert headers["Referrer-Policy"] == "no-referrer"
    nonce = policy.split("'nonce-")[1].split("'")[0]
    assert page.count(f'nonce="{nonce}"') == 3
    assert client.raw("GET", f"/?token={TOKEN}")[2]["Content-Security-Policy"] != policy


# --- beside it -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("forked_scripts")
def test_the_f1_is_estimated_when_there_are_enough_labels(queue, log, monkeypatch):
    words = {"bug": "crash traceback", "speed": "slow memory"}
    texts = [TextToLabel(f"{words[name]} {i}", i) for i in range(12) for name in words]
    queue.replace(texts)
    background = Background(queue, [*words], single_label=True, load_if_changed=lambda: None)
    for number, text in enumerate(texts[:21]):
        background.look()
        assert (background.estimate is None) == (number < 20)
        log.label(text.text, text.row, (("bug", "speed")[number % 2],), "", seen=0)
    estimate = background.estimate
    assert (estimate.micro_f1, estimate.n_texts, estimate.n_labels) == (1, 20, 2)
    # Not for every label anew.
    monkeypatch.setattr("subprocess.Popen", None)
    background.look()


def test_the_page_goes_on_with_a_file_that_has_changed(queue, log):
    answers = [None, TEXTS[:1], UserError("a.jsonl, line 2: no JSON"), TEXTS]

    def load():
        answer = answers.pop(0)
        if isinstance(answer, UserError):
            raise answer
        return answer

    background = Background(queue, ["bug"], single_label=False, load_if_changed=load)
    lengths, warnings = [], []
    for _ in range(4):
        background.look()
        lengths.append(len(queue))
        warnings.append(background.warning)
    assert lengths == [3, 1, 1, 3]
    assert warnings == [None, None, "a.jsonl, line 2: no JSON", None]


def test_a_text_of_the_batch_before_can_still_be_labelled_and_taken_back(queue, client, log):
    queue.replace(TEXTS[:1])
    status, answer = client.click("label", "slow", labels=["bug"])  # a page shows it still
    assert (status, answer["item"]["text"]) == (200, "a crash")
    restarted = Queue(TEXTS[:1], log)
    assert restarted.find(text_id("slow")) == (TextToLabel("slow", 7), None)
    _, answer = client.click("undo", seen=1)
    assert (answer["item"]["text"], answer["item"]["position"]) == ("slow", None)


def test_the_end_does_not_wait_for_the_estimate(queue, log, monkeypatch):
    started, popen = threading.Event(), subprocess.Popen

    def slow(_, **options):
        started.set()
        return popen([sys.executable, "-c", "import time; time.sleep(60)"], **options)

    monkeypatch.setattr("subprocess.Popen", slow)
    for i in range(20):
        log.label(f"text {i}", i, ("bug",), "", seen=0)
    background = Background(queue, ["bug"], single_label=False, load_if_changed=lambda: None)
    begun = time.perf_counter()
    background.start()
    assert started.wait(30)
    background.stop()
    assert time.perf_counter() - begun < 50
    assert background.estimate is None
