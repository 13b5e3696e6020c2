"""Reasons of report.html: planted words, nearest training texts, and what they may cost."""

import json
import re
from functools import partial

import numpy as np
import pytest

from shared.data.arguments import DataArguments
from shared.data.corpus import Corpus, load_data
from shared.data.splits import split_without_validation
from shared.evaluation.rules import DecisionRule
from shared.methods.baselines import fit_words, naive_bayes
from shared.reports import reasons as reasons_module
from shared.reports.page import PAGE, without_texts, write_page
from shared.reports.reasons import Reasons
from shared.taggers import Tagger, WordScorer

PLANTED = {"bug": "crash", "docs": "typo"}
NAMES = [*PLANTED]
ATTACK = "<script>alert(1)</script>"
FILLER = ["model", "run", "data", "file", "after", "version", "install", "batch", "token"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """40 texts of nine words of filler, one planted word and, in front, markup."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        label = NAMES[i % 2]
        words = [*rng.permutation(FILLER), str(i), PLANTED[label]]
        rows.append({"text": f"{ATTACK} {' '.join(words)}", "labels": [label]})
    rows.append({"text": rows[0]["text"].upper(), "labels": ["bug"]})  # a near duplicate
    folder = tmp_path_factory.mktemp("corpus")
    path = folder / "texts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_data(DataArguments(data=str(path), cache_dir=str(folder)))


def tagger_of(split):
    classifier = fit_words(naive_bayes(), split.rows["train"]["text"], split.labels["train"])
    return Tagger(NAMES, DecisionRule.of(0.5, 2), WordScorer(classifier))


@pytest.fixture(scope="module")
def folds(corpus):
    """The split of a cross-validation, which tests its training rows."""
    return split_without_validation(corpus, train=corpus.labelled, test=corpus.labelled)


def explain(split, lists, labels, reasons=None):
    reasons = reasons or Reasons(tagger_of(split), split)
    return reasons.explain(split, NAMES, lists, labels)


def test_planted_words_speak_for_the_labels_of_their_rows(folds):
    labels = {0: [0, 1], 3: [1]}
    reasons, note = explain(folds, [[3, 0], [0]], labels)
    assert [*reasons] == [3, 0]
    for row, of_row in labels.items():
        assert [label for label, _ in reasons[row]["words"]] == of_row
    assert reasons[3]["words"][0][1][0][0] == "typo"
    (_, of_bug), (_, of_docs) = reasons[0]["words"]
    assert of_bug[0][0] == "crash"
    assert "crash" not in dict(of_docs)
    assert note.startswith("2 rows, the first of each list, have reasons of the saved tagger: the ")
    assert "the nearest of 41 training texts. It has learned from these rows, too" in note


def test_a_row_is_no_neighbour_of_itself_and_neither_is_its_near_duplicate(folds, corpus):
    rows = corpus.labelled.tolist()
    reasons, _ = explain(folds, [rows], {key: [0] for key in rows})
    for row, reason in reasons.items():
        numbers = {neighbour["row"] for neighbour in reason["neighbours"]}
        assert len(numbers) == 3
        assert row + 1 not in numbers
    for row, other in ((0, 41), (40, 1)):
        assert other not in {neighbour["row"] for neighbour in reasons[row]["neighbours"]}
    neighbour = reasons[2]["neighbours"][0]
    assert corpus.dataset[neighbour["row"] - 1]["labels"] == neighbour["labels"]


def test_rows_that_were_held_out_may_have_any_training_text_as_neighbour(corpus):
    split = split_without_validation(corpus, train=np.arange(30), test=np.arange(30, 41))
    reasons, note = explain(split, [[10]], {10: [0]})  # which repeats the first training text
    assert "learned from these rows" not in note
    assert {neighbour["row"] for neighbour in reasons[10]["neighbours"]} <= {*range(1, 31)}
    # A file of held-out rows numbers its groups anew.
    other = Corpus(corpus.dataset, corpus.report)
    split.sources["test"] = (other, np.arange(11))
    split.rows["test"] = other.dataset.select(range(11))
    reasons, _ = explain(split, [[0]], {0: [0]})
    assert reasons[0]["neighbours"][0]["row"] == 1
    assert reasons[0]["neighbours"][0]["cosine"] == pytest.approx(1)


def test_the_first_rows_of_all_lists_are_explained(folds, monkeypatch):
    limits = reasons_module._QUICK._replace(rows=3, labels=1, searched=10)
    monkeypatch.setattr(reasons_module, "_QUICK", limits)
    reasons, note = explain(folds, [[5, 6, 7], [], [8, 9]], {key: [1, 0] for key in range(10)})
    assert [*reasons] == [5, 8, 6]
    assert all([label for label, _ in each["words"]] == [1] for each in reasons.values())
    assert "the nearest of 9 of 41 training texts" in note
    numbers = {n["row"] for each in reasons.values() for n in each["neighbours"]}
    assert numbers <= {*range(1, 42, 5)}


def test_of_a_slow_method_few_rows_are_explained(folds, monkeypatch):
    tagger = tagger_of(folds)
    tagger.scorer.trainer = None  # what only a trained model has
    lists = [list(range(20))]
    reasons, _ = explain(folds, lists, {key: [0] for key in range(20)}, Reasons(tagger, folds))
    assert [*reasons] == [0]  # 41 training texts
    small = split_without_validation(folds.corpus, train=np.arange(31), test=np.arange(31, 41))
    # Nothing is computed for them, either.
    monkeypatch.setattr(reasons_module, "Explainer", None)
    assert explain(small, [[0]], {0: [0]}, Reasons(tagger, small)) == ({}, "")


def test_a_method_that_weighs_no_words_has_neighbours_alone(folds):
    tagger = Tagger(NAMES, DecisionRule.of(0.5, 2), lambda texts: np.full((len(texts), 2), 0.7))
    reasons, note = explain(folds, [[0]], {0: [0]}, Reasons(tagger, folds))
    assert [*reasons[0]] == ["neighbours"]
    assert "saved tagger: the nearest of 41 training texts" in note


def test_the_page_has_the_reasons_as_text_and_a_published_one_has_none(folds, tmp_path):
    y = folds.labels["test"]
    scores = np.where(y, 0.4, 0.3)
    scores[:4] = 1 - scores[:4]
    names = [*NAMES, "of held-out rows alone"]
    none = np.zeros((len(y), 1))
    y, scores = np.hstack([y, none]), np.hstack([scores, none])
    y[0, 2] = 1
    write_page(
        tmp_path,
        title="a title",
        evaluation="On rows.",
        rows=folds.rows["test"],
        label_names=names,
        y_true=y,
        scores=scores,
        predicted=scores > 0.5,
        rule=DecisionRule.of(0.5, 2),
        metrics={"test_micro_f1": 0.5},
        n_unknown=1,
        explain=partial(Reasons(tagger_of(folds), folds).explain, folds, names),
        cache_dir=str(tmp_path.parent),
    )
    text = (tmp_path / PAGE).read_text("utf-8")
    assert ATTACK not in text
    (values,) = re.findall(r'id="rows">(.*?)</script>', text, re.DOTALL)
    rows = json.loads(values)
    assert "training texts" in rows["note"]
    # A missed label comes before one that is right; the tagger knows nothing of the third one.
    first = rows["rows"]["0"]
    assert first["true"] == [0, 2]
    assert {label for label, _ in first["words"]} == {0, *first["predicted"]}
    assert all(ATTACK in neighbour["text"] for neighbour in first["neighbours"])
    public = without_texts(text)
    assert rows["note"] not in public
    assert 'neighbours":' not in public
