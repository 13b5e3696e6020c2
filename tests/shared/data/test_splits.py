import json

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.data.arguments import SplitArguments
from shared.data.corpus import load_data, load_held_out
from shared.data.splits import split_corpus


@pytest.fixture
def split(tmp_path):
    """Split rows of (text, labels); other keywords are files of such rows, or flags."""

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


def texts(parts, part):
    return list(parts.rows[part]["text"])


def test_parts_are_disjoint_have_their_sizes_and_the_labels_of_their_rows(split):
    parts = split([*some_rows(40), ("nobody looked at it", None)])
    assert [len(parts.rows[part]) for part in ("train", "valid", "test")] == [20, 10, 10]
    together = texts(parts, "train") + texts(parts, "valid") + texts(parts, "test")
    assert sorted(together) == sorted(text for text, _ in some_rows(40))
    for part, y in parts.labels.items():
        assert y.dtype == np.uint8
        assert [np.flatnonzero(row).tolist() for row in y] == list(parts.rows[part]["labels"])
        assert y.sum(axis=0).tolist() == [len(y) / 2] * 2
    assert parts.describe() == "split: 20 train, 10 valid, 10 test texts"


def test_the_seed_decides(split):
    assert texts(split(some_rows(40)), "test") == texts(split(some_rows(40)), "test")
    assert texts(split(some_rows(40)), "test") != texts(split(some_rows(40), seed=1), "test")


def test_training_sizes_are_nested_and_leave_the_other_parts_alone(split):
    whole = split(some_rows(40))
    slices = [split(some_rows(40), train_size=size) for size in (4, 10, 20)]
    for smaller, larger in zip(slices, [*slices[1:], whole], strict=True):
        assert set(texts(smaller, "train")) <= set(texts(larger, "train"))
        assert texts(smaller, "test") == texts(whole, "test")
    assert [len(parts.rows["train"]) for parts in slices] == [4, 10, 20]
    # What a slice leaves out counts as unlabelled.
    assert [len(parts.unlabelled) for parts in slices] == [16, 10, 0]
    for parts in slices:
        assert parts.left_out.tolist() == parts.unlabelled.tolist()
    for size in (0, 21):
        with pytest.raises(UserError, match=f"--train_size {size}: the pool has 20 rows"):
            split(some_rows(40), train_size=size)
    for seed in (-1, 2**32):
        with pytest.raises(UserError, match=f"--seed {seed}: must be 0 or more, below 4294967296"):
            split(some_rows(40), seed=seed)


def test_files_of_their_own_take_the_place_of_parts_and_are_not_trained_on(split):
    rows = some_rows(20)
    test = [*some_rows(3, "test"), rows[4]]
    valid = [*some_rows(3, "valid"), rows[5], test[0]]
    parts = split(rows, test_data=test)
    assert texts(parts, "test") == [text for text, _ in test]
    assert len(parts.rows["train"]) + len(parts.rows["valid"]) == 19
    assert rows[4][0] not in texts(parts, "train") + texts(parts, "valid")
    assert parts.describe().startswith("left out: 1 labelled texts that a held-out file repeats\n")

    parts = split(rows, valid_data=valid, test_data=test)
    assert texts(parts, "train") == [text for text, _ in rows[:4] + rows[6:]]
    assert texts(parts, "valid") == [text for text, _ in valid[:4]]  # the last is tested on
    assert parts.repeated == 3

    parts = split(rows, valid_data=valid, test_data=test, drop_repeated=False)
    assert [len(parts.rows[part]) for part in ("train", "valid", "test")] == [20, 5, 4]
    assert "left out" not in parts.describe()


def test_a_label_without_rows_in_a_part_is_named(split):
    parts = split([*some_rows(20), ("the only c", ["c"])])
    missing = [part for part, y in parts.labels.items() if not y[:, 2].any()]
    assert len(missing) == 2
    for part in missing:
        assert f"note: no {part} text has the label c" in parts.describe()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (some_rows(2), "data.jsonl: 2 labelled rows are too few for 3 parts"),
        ([(f"text {i}", ["a"]) for i in range(9)], "every labelled row has every label"),
    ],
)
def test_nothing_to_split(split, rows, message):
    with pytest.raises(UserError, match=message):
        split(rows)


def test_a_part_without_any_label_is_refused(split):
    nothing = [(f"test {i}", []) for i in range(3)]
    with pytest.raises(UserError, match="no test text has a label; label more rows of --data"):
        split(some_rows(9), test_data=nothing, empty_labels="negative")


def test_a_held_out_file_that_repeats_everything_is_to_blame(split):
    with pytest.raises(UserError, match=r"0 labelled .* too few for 2 parts \(9 more repeat held"):
        split(some_rows(9), test_data=some_rows(9))


def test_unlabelled_rows_repeat_no_held_out_row(split):
    words = [f"word{i}" for i in range(40)]
    long = [(" ".join([*words, f"text{i}"]), ["ab"[i % 2]]) for i in range(1)]
    rows = [*some_rows(24), *long]
    near = (" ".join([*words, "nearly"]), None)
    test = [*some_rows(3, "test"), ("unlabelled but tested", ["a"])]
    unlabelled = [("nobody looked", None), near, ("unlabelled but tested", None)]
    for seed in range(4):
        parts = split([*rows, *unlabelled], seed=seed, test_data=test)
        source, _ = parts.sources["train"]
        found = source.dataset.select(parts.unlabelled)["text"]
        held = long[0][0] in texts(parts, "valid")
        assert sorted(found) == (["nobody looked"] if held else ["nobody looked", near[0]])


def test_as_many_training_rows_of_each_label(split):
    rows = [(f"text {i}", "a" if i % 5 else "b") for i in range(60)]
    found = [split(rows, train_per_label=size) for size in (1, 3, 100)]
    assert [parts.labels["train"].sum(axis=0).tolist() for parts in found] == [
        [1, 1],
        [3, 3],
        [24, 6],
    ]
    assert set(texts(found[0], "train")) < set(texts(found[1], "train"))
    with pytest.raises(UserError, match="--train_per_label 0: must be 1"):
        split(rows, train_per_label=0)
    with pytest.raises(UserError, match="--train_per_label: some texts have several"):
        split([*rows, ("both", ["a", "b"])], train_per_label=2)
