"""report.html: what it shows, that user text stays text, and that many labels leave it usable."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Dataset

from shared.evaluation.label_errors import find_label_errors
from shared.evaluation.rules import NEVER, DecisionRule
from shared.reports.page import PAGE, without_texts, write_page
from shared.reports.page_data import MOST_CURVES, MOST_ROWS
from shared.reports.page_parts import chart_library

METRICS = {"test_micro_f1": 0.5, "test_micro_f1_low": 0.4, "test_micro_f1_high": 0.625}
ATTACK = "<script>alert(1)</script>"
LINE_SEPARATOR = "\u2028"


class Page(HTMLParser):
    """Collects the scripts, and the rows and headings of the table of labels."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.rows, self.sorted, self.links = [], [], [], []
        self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "script":
            self.scripts.append([attributes.get("id"), ""])
        self.cell = tag if tag in ("script", "th", "td") else self.cell
        if tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.rows[-1].append("")
            if "aria-sort" in attributes:
                self.sorted.append(attributes["aria-sort"])

    def handle_endtag(self, tag):
        if tag == self.cell:
            self.cell = None

    def handle_data(self, text):
        if self.cell == "script":
            self.scripts[-1][1] += text
        elif self.cell:
            self.rows[-1][-1] += text

    def values(self, name):
        (text,) = [text for script, text in self.scripts if script == name]
        return json.loads(text)


def write(folder, y, scores, names, texts=None, **options):
    single_label = options.get("single_label", False)
    texts = texts or [f"text {i}" for i in range(len(y))]
    predicted = scores >= 0.5
    if single_label:
        predicted = scores == scores.max(axis=1, keepdims=True)
    predicted = options.pop("predicted", predicted)
    thresholds = options.get("thresholds", 0.5)
    rule = DecisionRule.of(thresholds, len(names), single_label=single_label)
    errors, _ = find_label_errors(y, scores, names, single_label=single_label)
    write_page(
        folder,
        title="a title",
        evaluation="On rows.",
        rows=Dataset.from_dict({"row": [10 + i for i in range(len(y))], "text": texts}),
        label_names=names,
        y_true=y,
        scores=scores,
        predicted=predicted,
        label_errors=errors,
        cache_dir=str(folder.parent),  # the same for all tests
        **{"metrics": METRICS, "rule": rule, **options},
    )
    text = (folder / PAGE).read_text("utf-8")
    return text, Page(text), predicted


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    y = rng.random((60, 3)) < 0.4
    return y, np.clip(0.4 * y + 0.6 * rng.random((60, 3)), 0, 1)


def test_the_slider_has_the_counts_of_each_threshold(arrays, tmp_path):
    y, scores = arrays
    text, page, _ = write(tmp_path, y, scores, ["a", "b", "c"], thresholds=[0.5, 1 / 3, 0.7])
    assert "0.400 to 0.625" in text
    curves = page.values("data")["curves"]
    assert [curve["label"] for curve in curves] == [0, 1, 2]
    for curve, threshold in zip(curves, (0.5, 1 / 3, 0.7), strict=True):
        label = curve["label"]
        at = curve["saved"]
        assert curve["threshold"][at] == pytest.approx(threshold, abs=1e-5)
        chosen = scores[:, label] >= threshold
        assert curve["predicted"][at] == chosen.sum()
        assert curve["true_positives"][at] == (chosen & y[:, label]).sum()
        assert curve["positives"] == y[:, label].sum()
        assert len(curve["threshold"]) <= 61


def test_the_figures_are_those_of_the_rows_out_of_fold_beside_a_test_file(arrays, tmp_path):
    metrics = METRICS | {"oof_micro_f1": 0.75, "oof_micro_f1_low": 0.7, "oof_micro_f1_high": 0.8}
    text, _, _ = write(tmp_path, *arrays, ["a", "b", "c"], metrics=metrics)
    assert "0.700 to 0.800" in text
    assert "0.400 to 0.625" not in text


def test_a_label_that_the_tagger_does_not_have_has_no_curve_and_no_part_in_calibration(
    arrays, tmp_path
):
    y, scores = arrays
    options = {"rule": DecisionRule.of(0.5, 2), "n_unknown": 1, "raw_scores": scores}
    _, page, _ = write(tmp_path, y, scores, ["a", "b", "c"], **options)
    data = page.values("data")
    assert [curve["label"] for curve in data["curves"]] == [0, 1]
    after = data["calibration"]["measures"][1]
    assert after["brier"] == pytest.approx(((scores - y)[:, :2] ** 2).mean())


SENTENCES = {
    "the 2 best labels of a text apply",
    "have their best label although",
    "had thresholds of their own",
}


@pytest.mark.parametrize(
    ("chosen_by", "rule", "sentence"),
    [
        ("itself", DecisionRule.of(0.6, 3), None),
        ("itself", DecisionRule(top_k=2), "the 2 best labels of a text apply"),
        ("itself", DecisionRule.of(0.9, 3, at_least_one=True), "have their best label although"),
        ("folds", DecisionRule.of(0.6, 3), "had thresholds of their own"),
    ],
)
def test_the_page_says_by_which_rule_labels_apply(arrays, tmp_path, chosen_by, rule, sentence):
    y, scores = arrays
    predicted = rule.choose(scores) if chosen_by == "itself" else scores >= 0.3
    text, page, _ = write(tmp_path, y, scores, ["a", "b", "c"], rule=rule, predicted=predicted)
    assert {part for part in SENTENCES if part in text} == ({sentence} if sentence else set())
    for curve in page.values("data")["curves"]:
        if rule.top_k:
            assert curve["saved"] is None
        else:
            assert curve["threshold"][curve["saved"]] == rule.thresholds[0]


def test_a_label_that_is_never_given_has_no_number_as_threshold(arrays, tmp_path):
    _, page, _ = write(tmp_path, *arrays, ["a", "b", "c"], thresholds=[0.5, NEVER, 0.7])
    head, *rows = page.rows[: 1 + 3]
    assert [row[head.index("Threshold")] for row in rows] == ["0.500", "never", "0.700"]
    curve = page.values("data")["curves"][1]
    assert curve["threshold"][curve["saved"]] == NEVER
    assert curve["predicted"][curve["saved"]] == 0


def test_thresholds_near_0_and_1_stay_apart(tmp_path):
    scores = np.array([[1e-9], [2e-9], [3e-9], [0.99991], [0.99999]])
    y = np.array([[0], [1], [0], [1], [1]], dtype=bool)
    _, page, _ = write(tmp_path, y, scores, ["a"])
    (curve,) = page.values("data")["curves"]
    assert len(set(curve["threshold"])) == 6


def test_the_library_of_the_charts_is_kept_on_disk(tmp_path, monkeypatch):
    import vl_convert

    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: "made")
    folder = tmp_path / "cache"
    assert chart_library(folder) == "made"
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: "made again")
    assert chart_library(folder) == "made"
    (file,) = folder.iterdir()
    for damaged in (b"", b"no library", file.read_bytes()[:-9]):
        file.write_bytes(damaged)
        assert chart_library(folder) == "made again"
    assert chart_library(file / "no folder") == "made again"


def test_worst_errors_and_most_doubtful_rows_come_first(arrays, tmp_path):
    y, scores = arrays
    _, page, predicted = write(tmp_path, y, scores, ["a", "b", "c"])
    rows = page.values("rows")
    wrong = (predicted != y).any(axis=1)
    size = (np.abs(scores - y) * (predicted != y)).max(axis=1)
    assert rows["errors"] == np.argsort(-size, kind="stable")[: wrong.sum()].tolist()
    assert rows["errors_total"] == wrong.sum()
    joint = np.where(predicted, scores, 1 - scores).prod(axis=1)
    assert rows["doubtful"][0] == joint.argmin()
    first = rows["rows"][str(rows["errors"][0])]
    assert first["row"] == 10 + rows["errors"][0]
    assert all(rows["rows"][str(i)]["reason"] for i in rows["label_errors"])


def test_confusions_and_calibration(tmp_path):
    y = np.eye(3, dtype=bool)[[0, 0, 1, 2]]
    scores = np.full((4, 3), 0.1)
    scores[[0, 1, 2, 3], [1, 1, 1, 2]] = 0.8
    _, page, _ = write(
        tmp_path, y, scores, ["a", "b", "c"], single_label=True, raw_scores=scores**2
    )
    data = page.values("data")
    assert data["confusions"]["pairs"] == [[0, 1, 2]]
    assert "curves" not in data
    assert data["abstention"]["predicted"][-1] == data["abstention"]["positives"] == 4
    assert data["abstention"]["true_positives"][-1] == 2
    before, after = data["calibration"]["measures"]
    assert after["ece"] == pytest.approx(0.3)
    assert before["ece"] == pytest.approx(0.14)
    assert data["coverage"][-1]["subset_accuracy"] == 0.5


def test_what_users_wrote_stays_text(arrays, tmp_path):
    y, scores = arrays
    texts = [f"{ATTACK} & {LINE_SEPARATOR} </script><!-- '\"{{{{ 7 * 7 }}}}"] * len(y)
    text, page, _ = write(tmp_path, y, scores, [ATTACK, "b", "c"], texts)
    assert ATTACK not in text
    assert LINE_SEPARATOR not in text
    # The scripts of the page itself, and no other ones.
    assert [name for name, _ in page.scripts] == ["data", "rows", None, None]
    assert page.values("data")["labels"][0] == ATTACK
    assert page.values("rows")["rows"]["0"]["text"] == texts[0]
    assert any(row[0] == ATTACK for row in page.rows if row)
    # Nothing is loaded from anywhere.
    assert all(link.startswith("#") for link in page.links)


def test_a_published_page_has_no_texts(arrays, tmp_path):
    y, scores = arrays
    texts = [f"secret </script> {i}" for i in range(len(y))]
    text, page, _ = write(tmp_path, y, scores, ["a", "b", "c"], texts)
    assert "secret" in text
    public = without_texts(text)
    assert "secret" not in public
    assert Page(public).values("rows") is None
    assert Page(public).values("data") == page.values("data")


def test_thousands_of_labels_leave_the_page_small(tmp_path):
    rng = np.random.default_rng(0)
    n_rows, n_labels = 400, 5000
    y = np.zeros((n_rows, n_labels), dtype=bool)
    y[np.arange(n_rows).repeat(3), rng.integers(0, n_labels, 3 * n_rows)] = True
    scores = np.clip(rng.random(y.shape) * 0.45 + 0.4 * y, 0, 1)
    names = [f"label {i} <b>" for i in range(n_labels)]
    texts = [f"{i} " + "word " * 1000 for i in range(n_rows)]
    text, page, _ = write(tmp_path, y, scores, names, texts, thresholds=[0.5] * n_labels)
    assert len(text.encode()) < 6_000_000
    data, rows = page.values("data"), page.values("rows")
    assert len(data["curves"]) == MOST_CURVES
    assert f"{MOST_CURVES} of 5,000 labels have a curve" in text
    assert len(rows["doubtful"]) == MOST_ROWS < rows["doubtful_total"]
    assert rows["rows"]["0"]["cut"] > 0
    assert len([row for row in page.rows if row and re.match("label ", row[0])]) >= n_labels


def test_the_table_of_labels_sorts(arrays, tmp_path):
    y, scores = arrays
    _, page, _ = write(tmp_path, y, scores, ["a", "b", "c"])
    assert page.sorted == ["none"] * 7  # the label and its figures, without a threshold
