"""Each loader that is not `load_and_split` divides rows by the column of a part or a time."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.data.arguments import DataArguments, FoldSplitArguments
from shared.data.documents import DocumentArguments, load_documents
from shared.data.folded_numbers import load_and_fold_numbers
from shared.data.folds import load_and_fold
from shared.data.pairs import PairArguments, load_pairs
from shared.data.questions import QuestionArguments, load_questions
from shared.data.tables import TableArguments, load_table
from shared.data.tasks import TaskArguments, load_tasks
from shared.data.template_questions import load_template_questions

N = 24
PARTS = ("train", "valid", "test")
WORDS = ("model", "label", "token", "server", "machine", "script", "example", "guide", "page")

TEMPLATE = """
Version:
  pattern: 'Version: (\\d+\\.\\d)'
  questions: ["Which version?"]
  forms: ["now on {}"]
  test_forms: ["it is {} here"]
"""


@dataclass
class FoldArguments(FoldSplitArguments, DataArguments):
    test_data: str | None = None
    group_column: str | None = None


def row(i):
    text = " ".join(f"{WORDS[(i * k + k) % 9]}{i * k}" for k in range(1, 8))
    return {
        "text": f"{i} {text}\nVersion: {i}.1",
        "target": f"title {i}",
        "question": "Which?",
        "answers": f"{i} ",
        "labels": "xy"[i % 2],
        "number": i / 2,
        "when": f"2024-01-{1 + (i * 7) % N:02}",
        "part": ("train", "train", "dev", "test")[i % 4],
    }


def fold(load, args):
    data = load(args, folds=2, group_column=args.group_column, seed=0)
    return data, {part: data.documents[part]["text"][:] for part in data.documents}


def pairs(args):
    data = load_pairs(args)
    return data, data.sources


def documents(args):
    data = load_documents(args)
    return data, data.parts


def tasks(args):
    data = load_tasks(args, seed=args.seed)
    return data, {part: rows.texts for part, rows in data.parts.items()}


def table(args):
    data = load_table(args)
    assert "when" not in data.schema.columns or not args.split_time
    return data, {part: rows.row_numbers - 1 for part, rows in data.parts.items()}


def questions(args):
    data = (load_template_questions if args.answer_column == "-" else load_questions)(args)
    return data, {part: [q.context for q in rows] for part, rows in data.parts.items()}


LOADERS = {
    "pairs": (pairs, PairArguments, {"source_column": "text", "target_column": "target"}),
    "documents": (documents, DocumentArguments, {}),
    "questions": (questions, QuestionArguments, {"context_column": "text"}),
    "template": (questions, QuestionArguments, {"answer_column": "-"}),
    "tasks": (tasks, TaskArguments, {"tasks": ["labels"]}),
    "table": (table, TableArguments, {"drop_columns": ["text", "target", "answers"]}),
    "folds": (lambda args: fold(load_and_fold, args), FoldArguments, {}),
    "numbers": (
        lambda args: fold(load_and_fold_numbers, args),
        FoldArguments,
        {"label_column": "number"},
    ),
}


@pytest.fixture
def loader(tmp_path):
    """`loader(name)(rows, **flags)`: the data, and the numbers of the rows of each part."""

    def loader(name):
        read, arguments, own = LOADERS[name]

        def load(rows, **flags):
            path = tmp_path / "rows.jsonl"
            path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
            args = arguments(data=str(path), **(own | flags))
            args.seed, args.cache_dir, args.questions_per_text = 0, str(tmp_path / "cache"), 1
            args.template = str(tmp_path / "template.yaml")
            data, texts = read(args)
            parts = {
                part: {int(str(text).split()[0]) for text in of_part}
                for part, of_part in texts.items()
            }
            return data, parts

        (tmp_path / "template.yaml").write_text(TEMPLATE, encoding="utf-8")
        load.arguments = arguments
        return load

    return loader


@pytest.fixture(params=LOADERS)
def load(request, loader):
    """`loader` of each name."""
    return loader(request.param)


def mistake(load, rows, **flags):
    with pytest.raises(UserError) as error:
        load(rows, **flags)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_the_newest_rows_are_the_test(load, capfd):
    rows = [row(i) for i in range(N)]
    data, parts = load(rows, split_time="when", test_size=0.3)
    order = sorted(range(N), key=lambda i: rows[i]["when"])
    assert parts["test"] == set(order[-round(0.3 * N) :])
    times = [{rows[i]["when"] for i in part} for part in parts.values() if part]
    assert sum(map(len, times)) == N
    if "oof" not in parts:
        assert max(times[0]) < min(times[1])
        assert max(times[1]) < min(times[2])
    metrics = data.method.metrics()
    assert (metrics["split"], metrics["split_column"]) == ("time", "when")
    assert metrics["split_test_from"] == min(rows[i]["when"] for i in parts["test"])
    printed = capfd.readouterr().out + (data.describe() if hasattr(data, "describe") else "")
    assert "split by time (when): " in printed
    assert metrics["split_test_from"] in printed


def test_the_parts_of_a_column(load):
    data, parts = load([row(i) for i in range(N)], split_by="part")
    wanted: dict[str, set[int]] = {"train": set(), "valid": set(), "test": set()}
    for i in range(N):
        wanted[("train", "train", "valid", "test")[i % 4]].add(i)
    if "oof" in parts:
        wanted = {"oof": wanted["train"] | wanted["valid"], "test": wanted["test"]}
    assert parts == wanted
    assert data.method.metrics() == {"split": "column", "split_column": "part"}


def test_a_text_that_a_later_part_repeats_is_left_out(load):
    rows = [row(i) for i in range(N)]
    rows[4] = row(7) | {"part": "train"}  # row 7 is for the test
    _, parts = load(rows, split_by="part")
    assert 4 not in set.union(*parts.values())
    assert [part for part, texts in parts.items() if 7 in texts] == ["test"]


def test_validation_rows_that_all_repeat_test_rows_are_refused(load):
    rows = [row(i) for i in range(N)]
    for i in range(2, N, 4):  # for validation; the next row is for the test
        rows[i] = row(i + 1) | {"part": "dev"}
        rows[i]["text"] = rows[i]["text"].replace("\n", "!\n")
    if "valid_size" in load.arguments.__dataclass_fields__:
        error = mistake(load, rows, split_by="part")
        assert error.endswith("choose others, or none (--valid_size 0)")
        _, parts = load(rows, split_by="part", valid_size=0)
        assert not parts["valid"]
    else:  # validation rows are in the folds
        _, parts = load(rows, split_by="part")
        assert parts["oof"] == {i for i in range(N) if i % 4 < 2}


def test_what_does_not_fit_is_one_line(load):
    rows = [row(i) for i in range(N)]
    rows[2]["part"] = rows[2]["when"] = None
    assert "row 3" in mistake(load, rows, split_by="part")
    assert "row 3" in mistake(load, rows, split_time="when")
    rows = [row(i) for i in range(N)]
    assert "did you mean 'part'" in mistake(load, rows, split_by="parts")
    both = mistake(load, rows, split_by="part", split_time="when")
    assert both == "--split_by and --split_time: give one of them"
    assert "no row to use is for test" in mistake(
        load, [row(i) | {"part": "train"} for i in range(N)], split_by="part"
    )
    if "test_data" in load.arguments.__dataclass_fields__:
        error = mistake(load, rows, split_time="when", test_data="other.jsonl")
        assert error == "--split_time: divides the rows of --data; remove --test_data"


def test_rows_without_validation_draw_it_from_training(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [row(i) | {"part": "test" if i % 4 == 3 else "train"} for i in range(N)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    args = PairArguments(data=str(path), split_by="part", source_column="text")
    args.target_column, args.seed = "target", 0
    data = load_pairs(args)
    assert [len(data.sources[part]) for part in PARTS] == [16, 2, 6]
    assert "they are drawn from the training rows" in data.describe()


def test_the_latest_of_equal_pairs_stays(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [row(i) for i in range(N)]
    rows = [row(3) | {"part": "train"}, *rows, row(3) | {"part": "valid"}]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    args = PairArguments(data=str(path), split_by="part", source_column="text")
    args.target_column, args.seed = "target", 0
    data = load_pairs(args)
    owners = [part for part in PARTS for text in data.sources[part] if text.startswith("3 ")]
    assert owners == ["test"]
    assert "repeated 2" in data.describe()


def test_flags_that_would_not_act(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("one\ntwo\nthree\n", encoding="utf-8")
    with pytest.raises(UserError, match="is a text file, which has no columns"):
        load_documents(DocumentArguments(data=str(path), split_time="when"))
    with pytest.raises(UserError, match="--split contiguous: "):
        load_documents(DocumentArguments(data="x.csv", split_time="a", split="contiguous"))
    with pytest.raises(UserError, match="--test_size: only with --split_time"):
        load_table(TableArguments(test_size=0.5))
    squad = {"title": "a", "paragraphs": []}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [squad]}), encoding="utf-8")
    with pytest.raises(UserError, match="SQuAD's format has no column"):
        load_questions(QuestionArguments(data=str(tmp_path / "squad.json"), split_by="part"))


def test_a_fold_has_no_test_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row(i))}\n" for i in range(N)), encoding="utf-8")
    args = FoldArguments(data=str(path), split_time="when", cache_dir=str(tmp_path / "cache"))
    data = load_and_fold(args, folds=3, group_column=None, seed=0)
    assert len(data.fold_of) == len(data.labels["oof"]) == 18
    assert np.bincount(data.fold_of).tolist() == [6, 6, 6]
    assert len(data.fingerprints) == 1


@pytest.mark.parametrize(
    ("name", "flags", "expected"),
    [
        ("tasks", {"split_by": "part", "tasks": ["part"]}, "cannot be predicted"),
        ("tasks", {"split_time": "number", "number_columns": ["number"]}, "is no input"),
        ("tasks", {"split_by": "part", "category_columns": ["part"]}, "is no input"),
        ("numbers", {"split_time": "number"}, "cannot be predicted"),
        ("table", {"split_by": "part", "label_column": "part"}, "cannot be predicted"),
        ("folds", {"split_by": "part", "label_column": "part"}, "cannot be predicted"),
    ],
)
def test_a_column_that_divides_the_rows_is_neither_target_nor_input(loader, name, flags, expected):
    (column, *_) = flags.values()
    error = mistake(loader(name), [row(i) for i in range(N)], **flags)
    assert error == f"--{next(iter(flags))} {column}: divides the rows, and {expected}"


@pytest.mark.parametrize("name", ["folds", "numbers"])
def test_groups_that_folds_and_test_share_are_counted(loader, capfd, name):
    rows = [row(i) | {"when": f"2024-01-{1 + i // 3:02}", "group": i % 5} for i in range(N)]
    rows[-1]["group"] = "new"
    flags = {"split_time": "when", "group_column": "group"}
    loader(name)(rows, **flags)
    assert "note: 5 of 6 values of 'group' are both in the folds" in capfd.readouterr().out
    # Here, the column of the times is that of the groups.
    _, parts = loader(name)(rows, **(flags | {"group_column": "when"}))
    assert parts["oof"] | parts["test"] == set(range(N))
    assert "values of" not in capfd.readouterr().out
