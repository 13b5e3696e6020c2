"""The page of a tagger without a browser: what it says of a text, of a file and of the tagger."""

import json
import threading

import numpy as np
import pytest
from datasets import ClassLabel as Labels
from datasets import Dataset, Features, List, Value

from shared.cli.errors import UserError
from shared.data.corpus import Corpus
from shared.evaluation.calibration import Calibration
from shared.evaluation.rules import NEVER, DecisionRule
from shared.serving import (
    FileState,
    PageActions,
    PageLimits,
    describe_tagger,
    short_examples,
)
from shared.serving.markup import about_html, progress_html, reasons_html, tags_html
from shared.taggers.loading import _SCORERS
from shared.taggers.means import MEAN
from shared.taggers.tagger import Tagger

NAMES = ["bug", "<b>docs</b>", "speed"]


def tagger_with(rule, *scores):
    return Tagger(NAMES, rule, lambda texts: np.array([scores] * len(texts)))


def reasons(page):
    """The last cell of each row of the table: whether and why a label applies."""
    return [row.split("<td>")[-1].split("</td>")[0] for row in page.split("<tr")[2:]]


@pytest.mark.parametrize(
    ("rule", "expected", "sentence"),
    [
        (DecisionRule((0.5, 0.4, 0.9)), ["by threshold", "by threshold", "no"], "reaches its thr"),
        (DecisionRule((0.9,) * 3), ["no"] * 3, "reaches its threshold."),
        (DecisionRule((0.9,) * 3, True), ["as best label", "no", "no"], "the best one always does"),
        (DecisionRule((0.5,) * 3, True), ["by threshold", "no", "no"], "the best one always does"),
        (DecisionRule(top_k=1), ["as best label", "no", "no"], "The best label applies, whatever"),
        (DecisionRule((0.9,) * 3, top_k=1), ["no"] * 3, "The best label applies, if the score re"),
        (DecisionRule((0.5,) * 3, top_k=1), ["by threshold", "no", "no"], "The best label applies"),
        (DecisionRule((NEVER, 0.4, 0.4)), ["no", "by threshold", "no"], "reaches its threshold."),
        (DecisionRule(top_k=2), ["as one of 2 best"] * 2 + ["no"], "The 2 best labels apply"),
    ],
)
def test_the_table_says_why_a_label_applies(rule, expected, sentence):
    tagger = tagger_with(rule, 0.8, 0.4, 0.1)
    page = tags_html(tagger("a text"), tagger)
    assert reasons(page) == expected
    assert sentence in page
    assert ("Threshold" in page) == bool(rule.thresholds)
    assert ("never" in page) == (NEVER in rule.thresholds)
    assert ("No label: no score" in page) == (set(expected) == {"no"})
    assert "&lt;b&gt;docs&lt;/b&gt;" in page
    assert "<b>docs" not in page


def test_thresholds_are_those_of_the_scores_that_are_shown():
    tagger = tagger_with(DecisionRule((0.5,) * 3), 0.8, 0.4, 0.1)
    tagger.calibration = Calibration((0.5,) * 3, (0.3,) * 3, single_label=False)
    page = tags_html(tagger("a text"), tagger)
    for threshold in tagger.calibrated_rule.thresholds:
        assert f'number">{threshold:.3f}</td>' in page


def test_the_best_label_before_calibration_is_not_said_to_reach_its_threshold():
    tagger = tagger_with(DecisionRule((0.9,) * 3, True), 0.8, 0.4, 0.1)
    tagger.calibration = Calibration((1.0,) * 3, (-3.0, 1.0, 0.0), single_label=False)
    record = tagger("a text")
    assert record["labels"] == ["bug"]
    assert next(iter(record["scores"])) != "bug"
    assert reasons(tags_html(record, tagger)) == ["no", "as best label", "no"]


@pytest.mark.parametrize(("abstain", "word"), [(0.9, "Unsure: all"), (0.01, "All")])
def test_with_abstain_it_says_how_sure_the_labels_are(abstain, word):
    tagger = tagger_with(DecisionRule((0.5,) * 3), 0.8, 0.4, 0.1)
    assert "with probability" not in " ".join(tags_html(tagger("a text"), tagger).split())
    tagger.calibration = Calibration((0.5,) * 3, (0.3,) * 3, single_label=False)
    tagger.unsure_below = abstain
    record = tagger("a text")
    page = " ".join(tags_html(record, tagger).split())
    assert f"<p>{word} labels are right with probability {record['confidence']:.2f}.</p>" in page


def test_the_table_says_that_it_lacks_labels():
    tagger = tagger_with(DecisionRule((0.5,) * 3), 0.8, 0.4, 0.1)
    page = tags_html(tagger.tag(["a text"], 2)[0], tagger)
    assert len(reasons(page)) == 2
    assert "1 more with lower scores." in page


def test_the_reasons_are_words_and_near_texts():
    page = reasons_html(
        {
            "words": {"bug": [["crash", 2.0], ["fails", 0.5]], "docs": []},
            "neighbours": [
                {"cosine": 0.875, "row": 17, "text": "Crash on start", "labels": ["bug", "speed"]},
                {"cosine": 0.5, "number": 3, "labels": []},  # of the texts that a tagger holds
            ],
        }
    )
    assert '--share: 1.0">crash <small>2.00</small>' in page
    assert '--share: 0.25">fails <small>0.50</small>' in page
    assert '<th scope="row">docs</th>\n<td>none</td>' in page
    assert 'Crash on start <span class="note">(row 17)</span></td>\n<td>bug, speed</td>' in page
    assert 'training text 3</td>\n<td>none</td>\n<td class="number">0.500</td>' in page


def test_reasons_that_a_tagger_cannot_give_have_no_table():
    assert "Nearest" not in reasons_html({"words": {"bug": [["crash", 2.0]]}})
    assert "Words" not in reasons_html(
        {"words": {}, "neighbours": [{"number": 1, "labels": [], "cosine": 1}]}
    )
    assert "<table" not in reasons_html({})


def test_text_of_others_is_escaped_everywhere():
    near = {"cosine": 0.5, "row": 1, "text": "<script>", "labels": ["<script>"]}
    for page in (
        about_html(["<script>"]),
        progress_html("<script>", 0.5),
        reasons_html({"words": {"<script>": [["<script>", 1.0]]}, "neighbours": [near]}),
    ):
        assert "&lt;script&gt;" in page
        assert "<script" not in page


# --- what the buttons do -------------------------------------------------------------------------


def actions(tag_file=None, explainer=None):
    tagger = tagger_with(DecisionRule((0.5,) * 3), 0.8, 0.4, 0.1)
    limits = PageLimits(max_characters=10)
    return PageActions(tagger, tag_file, threading.Lock(), explainer, limits=limits)


def test_a_text_has_labels_before_the_reasons_for_them():
    calls = []

    def explainer(texts, labels):
        calls.append((texts, labels))
        return [{"words": {"bug": [["crash", 2.0]]}}]

    states = actions(explainer=explainer).on_text("a text")
    tags, waiting = next(states)
    assert "Labels: <strong>bug</strong>" in tags
    assert "Looking for the reasons" in waiting
    assert calls == []
    ((tags_again, why),) = states
    assert tags_again == tags
    assert "crash" in why
    assert calls == [(["a text"], [["bug"]])]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "The text is empty: type or paste one."),
        (" \n", "The text is empty: type or paste one."),
        ("a" * 11, "The text has 11 characters, more than 10: shorten it."),
    ],
)
def test_a_text_that_is_refused(text, line):
    ((page, why),) = actions().on_text(text)
    assert f'role="alert">{line}</p>' in page
    assert why == ""


def test_a_file_has_a_bar_until_it_is_done(tmp_path):
    calls = []

    def tag_file(path, columns):
        calls.append((path, columns))
        yield FileState(1000, 4000)
        yield FileState(4000, 4000, tmp_path / "tagged")

    pages = list(actions(tag_file).on_file(str(tmp_path / "new.csv"), " subject, message ,"))
    assert calls == [(tmp_path / "new.csv", ["subject", "message"])]
    lines, outputs = zip(*pages, strict=True)
    assert '<progress value="0.25"' in lines[1]
    assert "1,000 of 4,000 rows are tagged." in lines[1]
    assert "<progress" not in lines[2]
    assert outputs == (None, None, str(tmp_path / "tagged"))


def test_mistakes_in_a_file_name_no_path_and_no_flag(tmp_path):
    def tag_file(path, columns):
        raise UserError(f"--output {path}: no column <a>; use --text_columns")

    *_, (line, output) = actions(tag_file).on_file(str(tmp_path / "new.csv"), "")
    assert 'role="alert">new.csv: no column &lt;a&gt;; use &#34;Text columns&#34;</p>' in line
    assert output is None
    ((line, output),) = actions(tag_file).on_file(None, "")
    assert "No file: choose one first." in line


# --- what was loaded -----------------------------------------------------------------------------


def test_the_line_about_a_tagger(tmp_path):
    tagger = tagger_with(DecisionRule((0.5,) * 3), 0.8, 0.4, 0.1)
    line = f"{tmp_path}: a model of transformers, 3 labels"
    assert describe_tagger(str(tmp_path), tagger) == line
    (tmp_path / "tagger.json").write_text('{"method": "words"}')
    line = f"{tmp_path}: a classifier of words, 3 labels"
    assert describe_tagger(str(tmp_path), tagger) == line
    metrics = {"test_micro_f1": 0.5, "test_micro_f1_low": 0.4, "test_micro_f1_high": 0.6}
    metrics |= {"test_macro_f1": 0.3, "test_samples": 1200}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    line += "; micro F1 0.500 (95 % interval 0.400 to 0.600), macro F1 0.300 on 1,200 test texts"
    assert describe_tagger(str(tmp_path), tagger) == line


@pytest.mark.parametrize("method", [*_SCORERS, MEAN, "of_a_later_version"])
def test_the_line_names_each_method(method, tmp_path):
    (tmp_path / "tagger.json").write_text(json.dumps({"method": method}))
    tagger = tagger_with(DecisionRule((0.5,) * 3), 0.8, 0.4, 0.1)
    line = describe_tagger(str(tmp_path), tagger)
    assert line.endswith(", 3 labels")
    assert (f": {method}," in line) == (method == "of_a_later_version")


# --- what it shows of a data set -----------------------------------------------------------------


def corpus_of(*rows):
    """A data set of (text, labels as ids, or None)."""
    columns = {"text": [text for text, _ in rows], "labels": [labels for _, labels in rows]}
    columns["words"] = [len(text.split()) for text, _ in rows]
    features = Features(
        {"text": Value("string"), "labels": List(Labels(names=NAMES)), "words": Value("int32")}
    )
    return Corpus(Dataset.from_dict(columns, features), {})


def test_examples_are_short_texts_of_different_labels():
    five, six, seven = (f"{' '.join(['word'] * n)}" for n in (5, 6, 7))
    corpus = corpus_of(
        ("too short", [0]),
        (f"{seven} c", [0, 1]),
        (f"{six} a", [0]),
        (f"{six} b", [1]),
        (f"{five} d", [0]),
        (f"{five} e", None),
    )
    # The most frequent label first; the third one has no text.
    assert short_examples(corpus, 2) == [f"{five} d", f"{six} b"]
    assert short_examples(corpus, 3) == [f"{five} d", f"{six} b", f"{five} e"]
    assert len(short_examples(corpus)) == 5
