"""Labels of all rows: those of exact duplicates are joined, or the first ones are kept."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_corpora import names

from shared.data.arguments import SplitArguments
from shared.data.corpus import load_corpus
from shared.data.row_labels import RowLabels


def test_exact_duplicates_keep_the_first_labelled_one(load):
    rows = [
        {"text": "same  text", "labels": []},
        {"text": "other", "labels": ["a"]},
        {"text": " same\n text", "labels": ["a"]},
        {"text": "same text", "labels": ["b"]},
        {"text": "other", "labels": ["a"]},
        {"text": "same text", "labels": []},
        {"text": "Same text", "labels": ["b"]},
    ]
    corpus = load(rows)
    assert list(corpus.dataset["row"]) == [2, 3, 7]
    assert names(corpus) == [["a"], ["a"], ["b"]]
    assert corpus.report["exact_duplicates"] == 4
    assert corpus.report["label_conflicts"] == 1
    assert "with different labels 1" in corpus.describe()


def long(*pairs):
    return [{"text": text, "label": label} for text, label in pairs]


def test_a_table_with_one_row_per_text_and_label(load):
    table = long(("one", "a"), ("two", "b"), ("one", "b"), ("three", "a"), ("three", "c"))
    corpus = load(table, min_label_count=2)
    assert names(corpus) == [["a", "b"], ["b"], ["a"]]
    assert corpus.report["labels"] == {"a": 2, "b": 2}
    assert corpus.report["labels_left_out"] == {"c": 1}
    assert list(corpus.dataset["row"]) == [1, 2, 4]
    assert (corpus.report["joined_rows"], corpus.report["exact_duplicates"]) == (2, 0)
    assert "note: one row per text and label: the labels of 2 rows were added" in corpus.describe()
    first = load(table, duplicate_labels="first")
    assert names(first) == [["a"], ["b"], ["a"]]
    assert first.report["label_conflicts"] == 2


def test_a_table_with_one_row_per_text_and_label_may_repeat_some_rows(load):
    pairs = [(f"text {i}", label) for i in range(10) for label in "ab"[: 1 + i % 2]]
    corpus = load(long(*pairs, *pairs[:4]))
    assert names(corpus) == [["a"], ["a", "b"]] * 5
    # As often as not, annotators agree.
    annotated = [(f"text {i}", label) for i in range(10) for label in ("aab" if i % 2 else "aaa")]
    assert load(long(*annotated)).report["labels"] == {"a": 10}


def test_labels_of_dropped_duplicates_are_counted_and_the_way_out_named(load):
    table = long(("one", "a"), ("one", "b"), *((f"text {i}", "a") for i in range(40)))
    summary = load(table).describe()
    assert "with different labels 1 (--duplicate_labels merge joins them)" in summary
    assert summary.endswith("1 labels left out:\n  b 1")
    assert load(table, drop_labels=["b"]).report["labels_left_out"] == {"b": 1}
    merged = load(table, duplicate_labels="merge")
    assert "--duplicate_labels merge" not in merged.describe()
    assert not merged.report["labels_left_out"]


def test_duplicates_that_disagree_are_no_such_table(load):
    agreeing = long(("one", "a"), ("one", "b"), ("two", "a"), ("two", "a"), ("three", "b"))
    few = long(("one", "a"), ("one", "b"), *((f"text {i}", "a") for i in range(40)))
    several = [{"text": "one", "labels": ["a"]}, {"text": "one", "labels": ["b"]}]
    several += [{"text": "two", "labels": ["a", "b"]}]
    for table in (agreeing, few, several):
        corpus = load(table)
        assert names(corpus)[0] == ["a"]
        assert corpus.report["label_conflicts"] == 1
        assert names(load(table, duplicate_labels="merge"))[0] == ["a", "b"]


def test_one_pair_of_labels_is_a_conflict_and_no_table_of_pairs(load):
    corpus = load(long(*((f"text {i}", "a") for i in range(15)), ("text 0", "b")))
    assert corpus.single_label
    assert "sets of exact duplicates with different labels 1" in corpus.describe(brief=True)


def test_held_out_files_are_read_as_the_data(tmp_path):
    """In a table with one row per text and label, few texts of the test set may have several."""
    train = long(*((f"text {i % 10}", "ab"[i // 10]) for i in range(20)))
    test = long(*((f"test {i}", "a") for i in range(60)), ("test 0", "b"), ("test 1", "b"))
    paths = {}
    for name, table in (("data", train), ("test_data", test)):
        paths[name] = str(tmp_path / f"{name}.jsonl")
        lines = "".join(json.dumps(row) + "\n" for row in table)
        (tmp_path / f"{name}.jsonl").write_text(lines, "utf-8")
    args = SplitArguments(**paths, cache_dir=str(tmp_path / "cache"))
    corpus, held_out = load_corpus(args)
    assert corpus.report["joined_rows"] == 10
    assert names(held_out["test"])[:3] == [["a", "b"], ["a", "b"], ["a"]]
    assert held_out["test"].report["label_conflicts"] == 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.integers(0, 2),
            st.none() | st.lists(st.integers(0, 3), unique=True),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_votes_are_those_of_a_count_by_hand(answers):
    texts = [text for text, _, _ in answers]
    first = np.array([texts.index(text) for text in texts])
    pairs = [
        (row, label) for row, (_, _, labels) in enumerate(answers) for label in sorted(labels or [])
    ]
    rows, ids = np.array(pairs, np.int64).reshape(-1, 2).T
    listed = np.array([labels is not None for _, _, labels in answers])
    vote = RowLabels(rows, ids, listed).vote(first, np.array([who for _, who, _ in answers]))
    expected = {}
    for text in set(texts):
        ballots = {}
        for other, who, labels in answers:
            if other == text and labels is not None:
                ballots.setdefault(who, set()).update(labels)
        voted = sorted({label for ballot in ballots.values() for label in ballot})
        won = [n for n in voted if 2 * sum(n in b for b in ballots.values()) > len(ballots)]
        undecided = len(ballots) > 1 and voted and not won
        expected[texts.index(text)] = won if ballots and not undecided else None
    for row in range(len(answers)):
        won = vote.labels.ids[vote.labels.rows == row].tolist()
        assert (won if vote.labels.listed[row] else None) == expected.get(row)
