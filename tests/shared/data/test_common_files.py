"""The same texts in the forms that programs export: each is read as it is, and named as read."""

import csv
import json
import random

import datasets
import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_corpora import names

from shared.cli.errors import UserError
from shared.data.readers import open_source

LABELS = ["bug", "docs", "feature"]
TEXTS = [f'this café is naïve, he said "no" to number {i}' for i in range(12)]
# Each label, and each pair of labels.
EXPECTED = [sorted({LABELS[i % 3], LABELS[(i + i // 3) % 3]}) for i in range(12)]
HOT = [[int(label in row) for label in LABELS] for row in EXPECTED]
ROWS = [{"text": text, "labels": row} for text, row in zip(TEXTS, EXPECTED, strict=True)]


def table(path, header, rows, encoding="utf-8", **options):
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def joined(path, encoding="utf-8", **options):
    """A table with the labels of a text in one cell."""
    cells = ([row["text"], ",".join(row["labels"])] for row in ROWS)
    return table(path, ["text", "labels"], cells, encoding, **options)


def printed(path, to_text):
    return table(path, ["text", "labels"], ([r["text"], to_text(r["labels"])] for r in ROWS))


def wide(path, to_cell=int):
    cells = ([i, t, *map(to_cell, h)] for i, (t, h) in enumerate(zip(TEXTS, HOT, strict=True)))
    return table(path, ["number", "comment_text", *LABELS], cells)


def dump(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def lines(path, rows, **options):
    text = "".join(json.dumps(row, **options) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def excel(path):
    book = openpyxl.Workbook()
    book.active.append(["text", "labels"])
    for row in ROWS:
        book.active.append([row["text"], ",".join(row["labels"])])
    book.create_sheet("empty")
    book.save(path)
    return path


def several(folder, pattern):
    lines(folder / "a.jsonl", ROWS[:5])
    lines(folder / "b.jsonl", ROWS[5:])
    return folder / pattern


def listed(folder):
    several(folder, "")
    return f"{folder / 'a.jsonl'}, {folder / 'b.jsonl'}"


def saved(folder):
    dataset = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(str(folder / "saved"))
    return folder / "saved"


FORMS = {
    "columns of 0 and 1": (lambda f: wide(f / "a.csv"), "(columns of 0 and 1)"),
    "floats": (lambda f: wide(f / "a.csv", float), "texts: comment_text (the only column of"),
    "true and false": (lambda f: wide(f / "a.csv", bool), "labels: bug, docs, feature (columns"),
    "Python lists": (lambda f: printed(f / "a.csv", str), "lists in a string, such as ['bug'"),
    "NumPy arrays": (
        lambda f: printed(f / "a.csv", lambda row: f"[{' '.join(map(repr, row))}]"),
        "lists in a string",
    ),
    "JSON lists": (lambda f: printed(f / "a.csv", json.dumps), 'such as ["bug"'),
    "semicolons": (
        lambda f: joined(f / "a.csv", "utf-8-sig", delimiter=";"),
        "format: CSV with a semicolon between columns",
    ),
    "Windows-1252": (
        lambda f: joined(f / "a.csv", "cp1252", delimiter=";"),
        "not UTF-8: read as Windows-1252, such as 'café', 'naïve' (--encoding)",
    ),
    "Unicode text of Excel": (
        lambda f: joined(f / "a.txt", "utf-16", delimiter="\t"),
        "format: TSV; ",
    ),
    "UTF-16 without a mark": (
        lambda f: joined(f / "a.csv", "utf-16-be"),
        "read as UTF-16-BE by its zero bytes",
    ),
    "old Macs": (
        lambda f: joined(f / "a.csv", lineterminator="\r"),
        "lines end with a carriage return alone",
    ),
    "Excel": (lambda f: excel(f / "a.xlsx"), "format: Excel, sheet 'Sheet'"),
    "pretty-printed objects": (
        lambda f: lines(f / "a.json", ROWS, indent=1),
        "format: JSON objects, one after another",
    ),
    "wrapped": (lambda f: dump(f / "a.json", {"n": 12, "rows": ROWS}), "the rows in 'rows'"),
    "pandas, columns": (
        lambda f: dump(
            f / "a.json",
            {k: {str(i): row[k] for i, row in enumerate(ROWS)} for k in ("text", "labels")},
        ),
        "format: JSON of pandas, orient 'columns'",
    ),
    "pandas, index": (
        lambda f: dump(f / "a.json", {str(i): row for i, row in enumerate(ROWS)}),
        "format: JSON of pandas, orient 'index'",
    ),
    "pandas, split": (
        lambda f: dump(
            f / "a.json",
            {"columns": ["text", "labels"], "index": [0], "data": [list(r.values()) for r in ROWS]},
        ),
        "format: JSON of pandas, orient 'split'",
    ),
    "lists of columns": (
        lambda f: dump(f / "a.json", {k: [r[k] for r in ROWS] for k in ("text", "labels")}),
        "a list for each column",
    ),
    "a pattern": (lambda f: several(f, "*.jsonl"), "format: 2 files, JSON lines"),
    "a list of files": (listed, "format: 2 files, JSON lines"),
    "a saved data set": (saved, "format: a saved data set, split 'train'"),
    "doccano": (
        lambda f: lines(
            f / "a.jsonl",
            [{"id": 1, "text": r["text"], "label": r["labels"], "Comments": []} for r in ROWS],
        ),
        "format: a doccano export",
    ),
    "Prodigy, choices": (
        lambda f: lines(
            f / "a.jsonl",
            [{"text": r["text"], "accept": r["labels"], "answer": "accept"} for r in ROWS],
        ),
        "format: a Prodigy export (JSON lines); texts: text; labels: accept",
    ),
    "another name": (
        lambda f: lines(f / "a.jsonl", [{"text": r["text"], "tags": r["labels"]} for r in ROWS]),
        "labels: tags (by its name)",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_labels_and_is_named(load, tmp_path, form):
    make, said = FORMS[form]
    corpus = load(make(tmp_path))
    assert corpus.dataset["text"][:] == TEXTS
    assert names(corpus) == EXPECTED
    assert said in corpus.describe()


def test_a_0_or_1_for_each_class(load, mistake, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(LABELS))
    rows = [{"text": t, "labels": h} for t, h in zip(TEXTS, HOT, strict=True)]
    assert "with --class_names" in mistake(rows)
    flags = {"class_names": str(tmp_path / "names.txt")}
    corpus = load([*rows, {"text": "none", "labels": [0, 0, 0]}], **flags)
    assert names(corpus) == [*EXPECTED, []]
    assert "note: labels are a 0 or 1 for each line of --class_names" in corpus.describe()
    assert "are no 0 or 1 for each class" in mistake(
        [*rows, {"text": "a", "labels": [2, 1]}], **flags
    )
    (tmp_path / "two.txt").write_text("ham\nspam")
    error = mistake([{"text": "a", "labels": [0, 1]}], class_names=str(tmp_path / "two.txt"))
    assert "may be numbers of classes, or a 0 or 1 for each class" in error


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ((True, False), ["false", "true"]),
        ((1.0, 0.0), ["0", "1"]),
        (("1.0", "0.0"), ["0", "1"]),
        (("yes", "no"), ["no", "yes"]),
    ],
)
def test_two_classes(load, cells, expected):
    assert load([{"text": str(cell), "label": cell} for cell in cells]).label_names == expected


# What is not clear is refused, with the flag that decides


def test_columns_that_could_be_labels(mistake, tmp_path):
    both = [{"text": t, "topic": "a", "bug": i % 2, "docs": 1} for i, t in enumerate(TEXTS)]
    error = mistake(both)
    assert (
        "several columns could be the labels (topic, bug, docs); give --label_column top" in error
    )
    apart = [{"open": i % 2, "text": t, "bug": 1 - i % 2} for i, t in enumerate(TEXTS)]
    assert "do not stand together, so that some may be no labels" in mistake(apart)
    one = [{"text": t, "spam": i % 2} for i, t in enumerate(TEXTS)]
    error = mistake(one)
    assert "for classes 0 and 1: --label_column spam; for one label that applies or not" in error
    texts = [{"question": t, "answer": f"{t} again", "label": "a"} for t in TEXTS]
    assert "several columns hold texts (question, answer)" in mistake(texts)
    spans = [{"text": t, "spans": []} for t in TEXTS]
    assert "spans are parts of texts, no labels of whole texts" in mistake(spans)


def test_a_column_of_sentences_that_is_not_read_is_named(load):
    rows = [{"title": f"title {t}", "abstract": t, "labels": "a"} for t in TEXTS]
    rows[0]["labels"] = "b"
    note = "note: not read, but with sentences: abstract (--text_columns)"
    assert note in load(rows).describe()
    assert "not read" not in load(rows, text_columns=["title"]).describe()


def test_several_sheets_splits_or_keys(load, mistake, tmp_path):
    book = openpyxl.load_workbook(excel(tmp_path / "a.xlsx"))
    book["empty"].append(["text", "labels"])
    book["empty"].append(["one", "bug"])
    book.save(tmp_path / "a.xlsx")
    error = mistake(tmp_path / "a.xlsx")
    assert "several sheets have rows (Sheet, empty); name one of them with --data_split" in error
    assert names(load(tmp_path / "a.xlsx", data_split="empty")) == [["bug"]]

    path = dump(tmp_path / "a.json", {"first": ROWS[:2], "second": ROWS[2:]})
    assert "several lists of rows (first, second); name one of them with" in mistake(path)
    assert names(load(path, data_split="second")) == EXPECTED[2:]

    folder = saved(tmp_path)
    assert "its splits are train, test; name one of them" in mistake(folder, data_split="dev")
    assert "note: read the split 'train' (--data_split); not read: " in load(folder).describe()
    assert names(load(folder / "test")) == EXPECTED
    (folder / "test" / "state.json").write_text("{")
    assert "cannot be read as a saved data set" in mistake(folder / "test")


def test_cells_of_a_workbook_are_those_of_a_csv_file(tmp_path):
    from datetime import date

    book = openpyxl.Workbook()
    for row in (
        [None],
        ["text", "n", None, "day"],
        ["a", 3.0, None, date(2024, 5, 31)],
        ["b", 0.5],
    ):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    rows = [
        {"text": "a", "n": "3", "day": "2024-05-31T00:00:00"},
        {"text": "b", "n": "0.5", "day": ""},
    ]
    assert list(open_source(str(tmp_path / "a.xlsx")).read()) == rows
    book.active.append(["c", 1, "lost"])
    book.save(tmp_path / "a.xlsx")
    with pytest.raises(UserError, match="row 5: 'lost' is in a column that has no name"):
        open_source(str(tmp_path / "a.xlsx"))


def test_files_of_a_pattern_must_fit_together(mistake, load, tmp_path):
    several(tmp_path, "")
    assert "no file fits this pattern" in mistake(tmp_path / "*.csv")
    lines(tmp_path / "c.jsonl", [{"text": "good", "labels": ["bug"]}, {"text": 5, "labels": []}])
    assert f"{tmp_path / 'c.jsonl'}, row 2: column 'text' holds 5" in mistake(tmp_path / "*.jsonl")
    joined(tmp_path / "a.csv")
    table(tmp_path / "b.csv", ["text", "tags"], [["a", "b"]])
    assert "has other columns than" in mistake(tmp_path / "*.csv")


def test_a_folder_for_each_class(load, mistake, tmp_path):
    for part in ("train", "test"):
        for number, label in enumerate(LABELS * 2):
            path = tmp_path / "set" / part / label / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{part} text {number}", encoding="utf-8")
    corpus = load(tmp_path / "set")
    description = corpus.describe()
    assert "format: a folder of text files for each of 3 classes" in description
    assert "note: read the folder 'train' (--data_split); not read: " in description
    assert corpus.report["labels"] == dict.fromkeys(LABELS, 2)
    assert load(tmp_path / "set" / "test").dataset["text"][0] == "test text 0"
    assert "folders of classes are in test, train; name one" in mistake(
        tmp_path / "set", data_split="dev"
    )
    path.write_bytes("schön".encode("cp1252"))
    error = mistake(tmp_path / "set" / "test")
    assert f"{path}: not UTF-8 but probably cp1252; name its --encoding" in error
    assert "schön" in load(tmp_path / "set" / "test", encoding="cp1252").dataset["text"][:]
    (tmp_path / "empty").mkdir()
    assert "this is a folder, without a folder of text files" in mistake(tmp_path / "empty")
    joined(tmp_path / "empty" / "a.csv")
    assert "give one file in it, such as" in mistake(tmp_path / "empty")


# Encodings


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    texts=st.lists(st.text("abc déñçàö€ßn", min_size=1).filter(str.strip), min_size=1),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"]),
)
def test_a_named_encoding_reads_what_was_written(tmp_path, texts, encoding):
    path = tmp_path / "a.csv"
    table(path, ["text", "n"], [[text, "1"] for text in texts], encoding)
    rows = list(open_source(str(path), encoding=encoding).read())
    assert [row["text"] for row in rows] == texts
    marked = encoding in ("utf-8-sig", "utf-16", "utf-32")
    if marked or encoding == "utf-8":
        assert [row["text"] for row in open_source(str(path)).read()] == texts


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "ошибка в модели при загрузке"),
        ("cp1250", "żółta łódka płynie, że aż miło"),
        ("gb18030", "模型加载失败"),
        ("shift_jis", "モデルの読み込みに失敗"),
    ],
)
def test_other_encodings_are_refused_with_what_they_would_give(
    mistake, load, tmp_path, encoding, text
):
    path = table(tmp_path / "a.csv", ["text", "label"], [[text, "a"], ["b", "b"]], encoding)
    error = mistake(path)
    assert "line 2: not UTF-8 (byte 0x" in error
    assert "give its --encoding: " in error
    assert f"{encoding} (" in error
    assert load(path, encoding=encoding).dataset["text"][0] == text
    assert "--encoding nonsense: there is no such encoding" in mistake(path, encoding="nonsense")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_one_damaged_byte_is_no_encoding(mistake, tmp_path, name):
    rows = {
        "a.jsonl": '{"text": "é à ü"}\n{"text": "é?"}',
        "a.json": '[{"text": "é à"},\n{"text": "ü?"}]',
    }
    content = rows.get(name, "text\né à ü\né?\n").encode().replace(b"?", b"\xff")
    (tmp_path / name).write_bytes(content)
    error = mistake(tmp_path / name)
    line = 3 if name == "a.csv" else 2
    assert f"line {line}: not UTF-8 (byte 0xff at position {content.index(255)})" in error


def test_the_place_of_a_byte_beyond_the_first_chunk(tmp_path, monkeypatch):
    from shared.data import encodings

    monkeypatch.setattr(encodings, "CHUNK_BYTES", 7)
    content = b"text\n" + "été\n".encode() * 20 + b"\xff\n"
    (tmp_path / "a.csv").write_bytes(content)
    place = f"line 22: not UTF-8 \\(byte 0xff at position {content.index(255)}\\)"
    with pytest.raises(UserError, match=place):
        open_source(str(tmp_path / "a.csv"))


# Several annotators


def test_annotators_vote_or_stay_apart(load):
    rng = random.Random(0)
    rows = [{**row, "annotator": name} for row in ROWS[:3] for name in ("one", "two")]
    rows += [
        {**ROWS[3], "labels": labels, "annotator": n}
        for n, labels in enumerate(["bug"] * 2 + ["docs"])
    ]
    rows += [{**ROWS[4], "labels": label, "annotator": label} for label in ("bug", "docs")]
    rng.shuffle(rows)
    corpus = load(rows)
    found = dict(zip(corpus.dataset["text"], names(corpus), strict=True))
    assert found == {
        **dict(zip(TEXTS[:3], EXPECTED, strict=False)),
        TEXTS[3]: ["bug"],
        TEXTS[4]: None,
    }
    assert (
        "of 5 texts with several, 3 in full agreement, 1 without a majority (unlabelled)"
        in corpus.describe()
    )
    apart = load(rows, duplicate_labels="separate")
    assert len(apart.dataset) == len(rows)
    assert all(
        len(set(apart.groups[[t == text for t in apart.dataset["text"]]])) == 1 for text in found
    )
    named = [{("who" if key == "annotator" else key): row[key] for key in row} for row in rows]
    assert names(load(named, annotator_column="who")) == names(corpus)
    assert names(load(named)) != names(corpus)
