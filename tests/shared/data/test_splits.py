"""Tests of the split into training, validation and test set."""

import json

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.data.arguments import SplitArguments
from shared.data.corpus import load_data, load_held_out
from shared.data.splits import split_corpus
from shared.evaluation.metrics import f1_scores, subset_accuracy


@pytest.fixture
def make_split(tmp_path):
    """`make_split(rows, **flags)` splits rows of (text, labels); file flags also take rows."""

    def run(rows, seed=0, **flags):
        for name, value in {"data": rows, **flags}.items():
            if isinstance(value, list):
                lines = (json.dumps({"text": text, "labels": labels}) for text, labels in value)
                (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
                flags[name] = str(tmp_path / f"{name}.jsonl")
        args = SplitArguments(**flags, cache_dir=str(tmp_path / "cache"))
        corpus = load_data(args)
        return split_corpus(corpus, load_held_out(args, corpus), args, seed=seed)

    return run


def some_rows(n, prefix="text"):
    return [(f"{prefix} {i}", ["ab"[i % 2]]) for i in range(n)]


def texts(split, part):
    return list(split.rows[part]["text"])


def test_sets_are_disjoint_with_the_right_sizes_and_labels(make_split):
    split = make_split([*some_rows(40), ("an unlabelled text", None)])
    assert [len(split.rows[part]) for part in ("train", "valid", "test")] == [20, 10, 10]
    together = texts(split, "train") + texts(split, "valid") + texts(split, "test")
    assert sorted(together) == sorted(text for text, _ in some_rows(40))
    for part, y in split.labels.items():
        assert y.dtype == np.uint8
        assert [np.flatnonzero(row).tolist() for row in y] == list(split.rows[part]["labels"])
        assert y.sum(axis=0).tolist() == [len(y) / 2] * 2
    assert split.describe() == "split: 20 train, 10 valid, 10 test texts"


def test_same_seed_same_split(make_split):
    assert texts(make_split(some_rows(40)), "test") == texts(make_split(some_rows(40)), "test")
    assert texts(make_split(some_rows(40)), "test") != texts(
        make_split(some_rows(40), seed=1), "test"
    )


def test_training_sets_are_nested_and_do_not_change_the_test_set(make_split):
    whole = make_split(some_rows(40))
    slices = [make_split(some_rows(40), train_size=size) for size in (4, 10, 20)]
    for smaller, larger in zip(slices, [*slices[1:], whole], strict=True):
        assert set(texts(smaller, "train")) <= set(texts(larger, "train"))
        assert texts(smaller, "test") == texts(whole, "test")
    assert [len(split.rows["train"]) for split in slices] == [4, 10, 20]
    # Rows that a smaller training set leaves out count as unlabelled.
    assert [len(split.unlabelled) for split in slices] == [16, 10, 0]
    for split in slices:
        assert split.left_out.tolist() == split.unlabelled.tolist()
    for size in (0, 21):
        with pytest.raises(UserError, match=f"--train_size {size}: the pool has 20 rows"):
            make_split(some_rows(40), train_size=size)
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match=f"--seed {seed}: must be 0 or more, below 4294967296"):
            make_split(some_rows(40), seed=seed)


def test_held_out_files_replace_sets_and_are_not_trained_on(make_split):
    rows = some_rows(20)
    test = [*some_rows(3, "test"), rows[4]]
    valid = [*some_rows(3, "valid"), rows[5], test[0]]
    split = make_split(rows, test_data=test)
    assert texts(split, "test") == [text for text, _ in test]
    assert len(split.rows["train"]) + len(split.rows["valid"]) == 19
    assert rows[4][0] not in texts(split, "train") + texts(split, "valid")
    assert split.describe().startswith("left out: 1 labelled texts that a held-out file repeats\n")

    split = make_split(rows, valid_data=valid, test_data=test)
    assert texts(split, "train") == [text for text, _ in rows[:4] + rows[6:]]
    assert texts(split, "valid") == [text for text, _ in valid[:4]]  # the last is in the test set
    assert split.repeated == 3

    split = make_split(rows, valid_data=valid, test_data=test, drop_repeated=False)
    assert [len(split.rows[part]) for part in ("train", "valid", "test")] == [20, 5, 4]
    assert "left out" not in split.describe()

    with pytest.raises(UserError, match="all 4 validation rows nearly repeat a test row; choose"):
        make_split(rows, valid_data=test, test_data=test)


def test_labels_that_only_held_out_files_have_count_as_misses(make_split):
    test = [("test 0", ["a", "new"]), ("test 1", ["odd"]), ("test 2", ["b"]), ("test 3", ["new"])]
    valid = [("valid 0", ["a"]), ("valid 1", ["odd", "b"])]
    split = make_split(some_rows(20), test_data=test, valid_data=valid)
    assert split.corpus.label_names == ["a", "b"]
    assert split.corpus.single_label
    assert [y.shape for y in split.labels.values()] == [(20, 2), (2, 2), (4, 2)]
    assert list(split.rows["test"]["labels"]) == [[0], [], [1], []]
    assert split.label_counts("test") == {"a": 1, "b": 1}
    predicted = np.eye(2, dtype=bool)[[0, 1, 1, 0]]
    y, y_pred = split.with_unknown_labels("test", predicted)
    assert y.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0]]
    assert subset_accuracy(y, y_pred) == 1 / 4
    # 2 of the 4 predictions are right, and the rows have 5 labels.
    f1 = f1_scores(y, y_pred)
    assert f1["micro_f1"] == pytest.approx(2 * 2 / (4 + 5))
    assert f1["macro_f1"] == pytest.approx((2 / 3 + 2 / 3 + 0 + 0) / 4)
    (y,) = split.with_unknown_labels("valid")
    assert y.tolist() == [[1, 0, 0], [0, 1, 1]]
    (y,) = split.with_unknown_labels("train")
    assert y is split.labels["train"]
    small = make_split(some_rows(20), test_data=test, valid_data=valid, train_per_label=3)
    assert small.labels["train"].sum(axis=0).tolist() == [3, 3]


def test_with_one_unknown_label_each_micro_f1_is_still_the_accuracy(make_split):
    test = [("test 0", ["a"]), ("test 1", ["new"]), ("test 2", ["b"]), ("test 3", ["odd"])]
    split = make_split(some_rows(20), test_data=test)
    y, y_pred = split.with_unknown_labels("test", np.eye(2, dtype=bool)[[0, 1, 1, 0]])
    assert f1_scores(y, y_pred)["micro_f1"] == subset_accuracy(y, y_pred) == 1 / 2


def test_set_with_unknown_labels_only_is_an_error(make_split):
    test = [(f"test {i}", ["new"]) for i in range(3)]
    with pytest.raises(UserError, match="no test text has a label that --data has; label more"):
        make_split(some_rows(9), test_data=test)


def test_label_missing_from_a_set_is_reported(make_split):
    split = make_split([*some_rows(20), ("the only c", ["c"])])
    missing = [part for part, y in split.labels.items() if not y[:, 2].any()]
    assert len(missing) == 2
    for part in missing:
        assert f"note: no {part} text has the label c" in split.describe()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (some_rows(2), "data.jsonl: 2 labelled rows are too few for 3 parts"),
        ([(f"text {i}", ["a"]) for i in range(9)], "has every label: .* --empty_labels negative"),
    ],
)
def test_nothing_to_split(make_split, rows, message):
    with pytest.raises(UserError, match=message):
        make_split(rows)


def test_set_without_any_label_is_an_error(make_split):
    nothing = [(f"test {i}", []) for i in range(3)]
    with pytest.raises(UserError, match="no test text has a label; label more rows of --data"):
        make_split(some_rows(9), test_data=nothing, empty_labels="negative")


def test_error_counts_rows_that_a_held_out_file_repeats(make_split):
    with pytest.raises(UserError, match=r"0 labelled .* too few for 2 parts \(9 more repeat held"):
        make_split(some_rows(9), test_data=some_rows(9))


def test_unlabelled_rows_do_not_repeat_held_out_rows(make_split):
    words = [f"word{i}" for i in range(40)]
    long = [(" ".join([*words, f"text{i}"]), ["ab"[i % 2]]) for i in range(1)]
    rows = [*some_rows(24), *long]
    near = (" ".join([*words, "nearly"]), None)
    test = [*some_rows(3, "test"), ("unlabelled but tested", ["a"])]
    unlabelled = [("unlabelled", None), near, ("unlabelled but tested", None)]
    for seed in range(4):
        split = make_split([*rows, *unlabelled], seed=seed, test_data=test)
        source, _ = split.sources["train"]
        unlabelled_texts = source.dataset.select(split.unlabelled)["text"]
        in_valid = long[0][0] in texts(split, "valid")
        assert sorted(unlabelled_texts) == (["unlabelled"] if in_valid else ["unlabelled", near[0]])


def test_same_number_of_training_rows_per_label(make_split):
    rows = [(f"text {i}", "a" if i % 5 else "b") for i in range(60)]
    splits = [make_split(rows, train_per_label=size) for size in (1, 3, 100)]
    assert [split.labels["train"].sum(axis=0).tolist() for split in splits] == [
        [1, 1],
        [3, 3],
        [24, 6],
    ]
    assert set(texts(splits[0], "train")) < set(texts(splits[1], "train"))
    with pytest.raises(UserError, match="--train_per_label 0: must be 1"):
        make_split(rows, train_per_label=0)
    with pytest.raises(UserError, match="--train_per_label: some texts have several"):
        make_split([*rows, ("both", ["a", "b"])], train_per_label=2)
