import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.sources import Source
from shared.data.task_tables import FurtherColumns, collect_rows, read_number
from shared.data.tasks import TaskArguments, load_tasks, task_columns

WORDS = ("model", "label", "token", "server", "machine", "script", "example", "guide", "page")


def row(i, **changes):
    text = " ".join(f"{WORDS[(i * k + k) % 9]}{i}" for k in range(1, 8))
    return {
        "text": text,
        "topic": "bug" if i % 3 else "question",
        "tags": [["a"], ["a", "b"], []][i % 3],
        "hours": None if i % 10 == 9 else i + 0.5,
        "comments": i % 7,
        "author": f"person {i % 4}",
    } | changes


def load(tmp_path, rows, *, seed=1, **flags):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    args = TaskArguments(data=str(path), **flags)
    args.seed = seed
    return load_tasks(args, seed=args.seed)


def mistake(*args, **flags):
    with pytest.raises(UserError) as error:
        load(*args, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_types_are_those_of_the_cells_and_a_flag_decides(tmp_path):
    rows = [row(i) for i in range(60)]
    data = load(tmp_path, rows, tasks=["topic", "tags", "hours"])
    assert [task.problem for task in data.tasks] == ["single_label", "multi_label", "regression"]
    assert [task.labels for task in data.tasks] == [("bug", "question"), ("a", "b"), ("hours",)]
    assert "must" not in data.describe()
    error = mistake(tmp_path, rows, tasks=["comments"])
    assert "7 whole numbers, 0 to 6" in error
    assert "--task_types comments=single_label" in error
    numbers = load(tmp_path, rows, tasks=["comments"], task_types=["comments=single_label"])
    assert numbers.tasks[0].labels == tuple("0123456")
    multi = load(tmp_path, rows, tasks=["topic"], task_types=["topic=multi_label"])
    assert multi.tasks[0].problem == "multi_label"
    flags = load(tmp_path, [row(i, yes=i % 2) for i in range(60)], tasks=["yes"])
    assert flags.tasks[0].problem == "single_label"


def test_targets_follow_the_rows_and_missing_values_are_nan(tmp_path):
    rows = [row(i) for i in range(60)]
    data = load(tmp_path, rows, tasks=["topic", "tags", "hours"])
    topic, tags, hours = task_columns(data.tasks)
    seen = []
    for part in data.parts.values():
        for number, text, target in zip(part.rows, part.texts, part.targets, strict=True):
            original = rows[number - 1]
            assert original["text"] == text
            assert target[topic].tolist() == [
                original["topic"] == "bug",
                original["topic"] != "bug",
            ]
            if original["tags"]:  # an empty list counts as unlabelled
                assert target[tags].tolist() == [1, len(original["tags"]) == 2]
            else:
                assert np.isnan(target[tags]).all()
            if original["hours"] is None:
                assert np.isnan(target[hours]).all()
            else:
                task = data.tasks[2]
                value = task.mean + task.scale * target[hours][0]
                assert value == pytest.approx(original["hours"], rel=1e-5)
            seen.append(number)
    assert sorted(seen) == list(range(1, 61))
    known = data.parts["train"].targets[:, hours]
    assert np.nanmean(known) == pytest.approx(0, abs=1e-5)
    assert np.nanstd(known) == pytest.approx(1, abs=1e-5)
    negative = load(tmp_path, rows, tasks=["tags"], empty_labels="negative")
    assert not np.isnan(negative.parts["train"].targets).any()


def test_one_task_has_the_rows_that_know_it(tmp_path):
    data = load(tmp_path, [row(i) for i in range(60)], tasks=["topic", "hours"])
    alone = data.only("hours")
    assert alone.parts["train"].targets.shape[1] == 1
    assert not np.isnan(alone.parts["train"].targets).any()
    total = sum(len(part.texts) for part in alone.parts.values())
    assert total == sum(data.known(part)[:, 1].sum() for part in data.parts) == 54
    assert data.only(None) is data
    assert set(data.label_counts()) == {"topic: bug", "topic: question"}


def test_numbers_are_scaled_and_categories_coded_by_the_training_rows():
    rows = [{"text": f"t {i}", "n": i, "c": "ab"[i % 2]} for i in range(4)]
    rows += [{"text": "t 9", "n": None, "c": "new"}, {"text": "t 10", "n": 1e9, "c": None}]
    source = Source("rows", "", ["text", "n", "c"], lambda *_: iter(rows))
    table = collect_rows(source, ["text"], number_columns=["n"], category_columns=["c"])
    further = FurtherColumns.of(table, np.arange(4))
    assert further.categories == {"c": ["a", "b"]}
    numbers, categories = further.encode(table)
    assert categories[:, 0].tolist() == [1, 2, 1, 2, 0, 0]
    np.testing.assert_allclose(numbers[:4, 0], (np.arange(4) - 1.5) / np.std(np.arange(4)))
    assert numbers[4].tolist() == [0, 1]  # missing
    assert numbers[5].tolist() == [10, 0]  # no outlier drowns the text


def test_rows_without_text_are_named():
    rows = [{"text": "" if i % 2 else f"t {i}"} for i in range(13)]
    source = Source("rows", "", ["text"], lambda *_: iter(rows))
    table = collect_rows(source, ["text"])
    assert table.rows == list(range(1, 14, 2))
    assert table.notes == ["rows: left out 6 without text (rows 2, 4, 6, 8, 10, ...)"]


def test_a_number_that_does_not_vary_is_no_division_by_zero():
    rows = [{"text": "a", "n": 3}, {"text": "b", "n": 3}]
    source = Source("rows", "", ["text", "n"], lambda *_: iter(rows))
    table = collect_rows(source, ["text"], number_columns=["n"])
    numbers, _ = FurtherColumns.of(table, np.arange(2)).encode(table)
    assert numbers.tolist() == [[0, 0], [0, 0]]


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_every_row_is_in_one_part_and_copies_are_never_divided(tmp_path_factory, data):
    n_rows = data.draw(st.integers(12, 50))
    rows = [
        row(i, topic=data.draw(st.sampled_from(["bug", "question", None])), hours=float(i % 20))
        for i in range(n_rows)
    ]
    for i in range(10):  # enough that both labels are in the training rows
        rows[i]["topic"] = ("bug", "question")[i % 2]
    rows += [dict(rows[i]) for i in range(0, n_rows, 5)]
    folder = tmp_path_factory.mktemp("tasks")
    seed = data.draw(st.integers(0, 99))
    loaded = load(folder, rows, tasks=["topic", "hours"], seed=seed)
    numbers = [number for part in loaded.parts.values() for number in part.rows]
    assert sorted(numbers) == list(range(1, len(rows) + 1))
    parts = {part: set(rows.texts) for part, rows in loaded.parts.items()}
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["valid"]
    assert not parts["valid"] & parts["test"]


def test_the_same_seed_gives_the_same_split_and_labels_are_spread(tmp_path):
    rows = [row(i, topic="rare" if i % 10 == 0 else "bug") for i in range(100)]
    first, again, other = (
        load(tmp_path, rows, tasks=["topic", "hours"], seed=seed) for seed in (1, 1, 2)
    )
    assert first.parts["test"].rows == again.parts["test"].rows
    assert first.parts["test"].rows != other.parts["test"].rows
    rare = [part.targets[:, 1].sum() for part in first.parts.values()]
    assert rare[0] == 7 or rare[0] == 8
    assert min(rare[1:]) >= 1


def test_held_out_files_have_the_columns_of_the_data(tmp_path):
    rows = [row(i) for i in range(40)]
    held_out = [row(i, author="nobody") for i in range(50, 60)]
    held_out += [rows[3], row(61, topic="new"), row(62, topic="new")]
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in held_out), encoding="utf-8")
    data = load(
        tmp_path,
        rows,
        tasks=["topic", "hours"],
        category_columns=["author"],
        test_data=str(path),
    )
    assert len(data.parts["test"].texts) == 13
    assert 4 not in data.parts["train"].rows + data.parts["valid"].rows  # in the test file
    text = data.describe()
    assert "1 train rows that repeat a held-out text" in text
    assert "labels of topic that --data does not have are not measured: new 2" in text
    assert "column author: no value, or one that no training row has, in test 10 rows" in text
    assert np.isnan(data.parts["test"].targets[-2:, :2]).all()
    error = mistake(tmp_path, rows, tasks=["topic"], valid_data=str(path), test_data=str(path))
    assert "all 11 validation rows nearly repeat a test row" in error


def test_mistakes_name_the_flag_the_row_and_what_to_do(tmp_path):
    rows = [row(i) for i in range(40)]
    assert "--tasks" in mistake(tmp_path, rows)
    assert "did you mean 'hours'" in mistake(tmp_path, rows, tasks=["hour"])
    assert "named twice" in mistake(tmp_path, rows, tasks=["topic"], number_columns=["topic"])
    assert "named twice" in mistake(tmp_path, rows, tasks=["topic"], text_columns=["topic"])
    assert "write COLUMN=TYPE" in mistake(tmp_path, rows, tasks=["topic"], task_types=["topic"])
    assert "--label_column" in mistake(tmp_path, rows, tasks=["topic"], label_column="topic")
    broken = [*rows, row(41, comments="many")]
    error = mistake(tmp_path, broken, tasks=["topic"], number_columns=["comments"])
    assert "row 41: column 'comments': 'many' is no number" in error
    error = mistake(tmp_path, broken, tasks=["comments"], task_types=["comments=regression"])
    assert "row 41: column 'comments': 'many' is no number" in error
    broken = [*rows, row(41, author=["a", "b"])]
    error = mistake(tmp_path, broken, tasks=["topic"], category_columns=["author"])
    assert "row 41: column 'author': a list is no category" in error
    one = [row(i, topic="bug", hours=1.0) for i in range(40)]
    assert "nothing to learn" in mistake(tmp_path, one, tasks=["topic"])
    assert "one value only" in mistake(tmp_path, one, tasks=["hours"])
    several = [*rows, row(41, topic=["bug", "question"])]
    error = mistake(tmp_path, several, tasks=["topic"], task_types=["topic=single_label"])
    assert "row 41: column 'topic' has no label or several" in error
    assert "no row has a text" in mistake(
        tmp_path, [row(i, text=" ") for i in range(5)], tasks=["topic"]
    )
    empty = [row(i, author=None, comments=None) for i in range(40)]
    error = mistake(tmp_path, empty, tasks=["topic"], category_columns=["author"])
    assert "no training row has a value in column 'author'" in error
    error = mistake(tmp_path, empty, tasks=["topic"], number_columns=["comments"])
    assert "no training row has a number in column 'comments'" in error
    held_out = tmp_path / "test.jsonl"
    held_out.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    error = mistake(tmp_path, rows, tasks=["hours"], test_data=str(held_out))
    assert "rows.jsonl: no train row is left" in error
    assert "left out: 36 train rows that repeat a held-out text" in error
    assert "leave nothing" in mistake(
        tmp_path, rows, tasks=["topic"], valid_size=0.5, test_size=0.5
    )


@pytest.mark.parametrize(
    ("cell", "number"),
    [(3, 3.0), ("4.5", 4.5), (" 1e3 ", 1000.0), (None, None), ("", None), (float("nan"), None)],
)
def test_read_number(cell, number):
    assert read_number(cell) == number


@pytest.mark.parametrize("cell", ["many", [1], {"a": 1}, True, "inf", float("inf")])
def test_read_number_refuses_others(cell):
    with pytest.raises(ValueError, match=r"is no number|is not finite"):
        read_number(cell)


def test_a_row_without_text_is_left_out_of_all_columns():
    rows = [
        {"text": "a", "n": 1, "c": "x"},
        {"text": "", "n": 2, "c": "y"},
        {"text": "b", "n": 3, "c": "z"},
        {"text": "c", "n": 4, "c": "w", "pull_request": {"url": "u"}},
    ]
    source = Source("rows", "", ["text", "n", "c", "pull_request"], lambda *_: iter(rows))
    options = {"number_columns": ["n"], "category_columns": ["c"]}
    table = collect_rows(source, ["text"], **options)
    assert table.rows == [1, 3]
    assert table.numbers["n"].tolist() == [1, 3]
    assert table.categories["c"] == ["x", "z"]
    assert table.notes == ["rows: left out 1 pull request, 1 without text (row 2)"]
    assert collect_rows(source, ["text"], pull_requests=True, **options).rows == [1, 3, 4]
