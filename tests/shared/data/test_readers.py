"""Files and hub data sets: the rows read equal the rows written, and errors name the place."""

import csv
import gzip
import io
import json
import sys

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data import json_rows, readers
from shared.data.readers import open_source

# No lone surrogates, which UTF-8 cannot hold, nor, in CSV before Python 3.11, null characters.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
CSV_TEXT = TEXT if sys.version_info >= (3, 11) else TEXT.filter(lambda text: "\0" not in text)
ROWS = st.lists(st.fixed_dictionaries({"title": TEXT, "body": TEXT}), min_size=1, max_size=20)
CSV_ROWS = st.lists(
    st.fixed_dictionaries({"title": CSV_TEXT, "body": CSV_TEXT}), min_size=1, max_size=20
)
SETTINGS = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def to_csv(rows, delimiter=","):
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def read_rows(path, columns=None, **options):
    return list(open_source(str(path), **options).read(columns))


def message(path, **options):
    """Return the one-line error that reading a file raises."""
    with pytest.raises(UserError) as error:
        read_rows(path, **options)
    text = str(error.value)
    assert str(path) in text
    assert "\n" not in text
    return text


@SETTINGS
@given(
    rows=ROWS,
    suffix=st.sampled_from([".jsonl", ".jsonl.gz", ".json", ".json.gz"]),
    array=st.booleans(),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    bom=st.booleans(),
    chunk=st.integers(3, 50),
)
def test_json_round_trip(tmp_path, rows, suffix, array, ascii_only, indent, bom, chunk):
    if array:
        text = json.dumps(rows, ensure_ascii=ascii_only, indent=indent)
    else:
        text = "\r\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path = write(tmp_path / f"rows{suffix}", text.encode("utf-8-sig" if bom else "utf-8"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "CHUNK_BYTES", chunk)  # rows and characters cut at any byte
        assert (read_rows(path)) == rows


@SETTINGS
@given(
    rows=CSV_ROWS, suffix=st.sampled_from([".csv", ".csv.gz", ".tsv", ".TSV"]), bom=st.booleans()
)
def test_delimited_round_trip(tmp_path, rows, suffix, bom):
    text = to_csv(rows, "," if suffix.startswith(".csv") else "\t")
    path = write(tmp_path / f"rows{suffix}", text.encode("utf-8-sig" if bom else "utf-8"))
    assert (read_rows(path)) == rows


@SETTINGS
@given(rows=ROWS)
def test_parquet_round_trip(tmp_path, rows):
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    assert (read_rows(tmp_path / "rows.parquet")) == rows
    only = [{"body": row["body"]} for row in rows]
    assert (read_rows(tmp_path / "rows.parquet", columns=["body"])) == only


def test_delimited_file_without_header(tmp_path):
    path = write(tmp_path / "rows.tsv", 'a\t1,2\n"say ""hi"""\t3\n')
    names = ["text", "labels"]
    expected = [{"text": "a", "labels": "1,2"}, {"text": 'say "hi"', "labels": "3"}]
    assert (read_rows(path, column_names=names)) == expected
    assert open_source(str(path), column_names=names).columns == names


def test_blank_lines_are_not_rows(tmp_path):
    assert (read_rows(write(tmp_path / "a.jsonl", '\n{"a": 1}\n\n{"a": 2}\n\n'))) == [
        {"a": 1},
        {"a": 2},
    ]
    assert (read_rows(write(tmp_path / "a.csv", "a\n\n1\n"))) == [{"a": "1"}]


def test_a_text_of_a_hundred_thousand_words(tmp_path):
    text = "word " * 100_000
    for path in (
        write(tmp_path / "a.csv", to_csv([{"text": text}])),
        write(tmp_path / "a.json", json.dumps([{"text": text}])),
    ):
        assert (read_rows(path)) == [{"text": text}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json.gz", "a.csv", "a.tsv.gz"])
def test_empty_file(tmp_path, name):
    assert "the file is empty" in message(write(tmp_path / name, ""))


def test_blank_json_file_is_empty(tmp_path):
    assert "the file is empty" in message(write(tmp_path / "a.json", "\ufeff \n\n"))


@pytest.mark.parametrize("content", ["[]", "{}\n{}\n"])
def test_file_without_rows(tmp_path, content):
    with pytest.raises(UserError, match="no rows"):
        open_source(str(write(tmp_path / "a.json", content)))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 2\n{"a": 3}\n', "line 2: invalid JSON (Expecting"),
        ("a.jsonl", '{\n "a" 1\n}\n', "line 1: invalid JSON"),
        ("a.jsonl", '{\n "a": 1\n}\n{\n "b": 1,\n', "line 6: invalid JSON after row 1 (Expecting"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: expected an object with columns, found [1]"),
        ("a.json", '{"a": ' + "[" * 100_000, "line 1: invalid JSON"),
        ("a.json", '[{"a": 1},\n{"a": 2}\n{"a": 3}]', "line 2: invalid JSON after row 2"),
        ("a.json", '[{"a": 1},\n{"a": 2},\n{"a" 3}]', "line 3: invalid JSON after row 2"),
        ("a.json", '[{"a": 1},\n{"a": 2}', "line 2: invalid JSON after row 2"),
        ("a.json", '[{"a": 1},\n{"a": "cut', "line 2: invalid JSON after row 1"),
        ("a.json", '[{"a": 1},\n]', "line 2: invalid JSON after row 1"),
        ("a.json", '[{"a": 1}]\n[{"a": 2}]', "invalid JSON after row 1"),
        ("a.json", "[", "line 1: invalid JSON after row 0"),
        ("a.json", '[{"a": 1}, "b"]', 'row 2: expected an object with columns, found "b"'),
        ("a.json", "title,body\n", "neither a JSON array nor JSON lines (begins with 'title"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "line 3: 3 cells, but 2 columns (a, b)"),
        ("a.csv", 'a,b\n"1\n",2\n1\n', "line 4: 1 cells, but 2 columns"),
        ("a.csv", 'a,b\n1,"2\n', "line 2: unexpected end of data"),
        ("a.csv", 'a,b\n"1"x,2\n', "line 2: "),
        ("a.csv", "a,a\n1,2\n", "line 1: the header names a column twice"),
        ("a.txt", "a\nb\n", "unknown file type; a .txt file must have columns with tabs"),
        ("a.doc", "a", "unknown file type; use one of .jsonl"),
        ("a.xlsx", "no workbook", "cannot be read as an Excel workbook"),
        ("a.parquet", "", "cannot be read as Parquet"),
        ("a.parquet", "no Parquet at all", "cannot be read as Parquet"),
        ("a.parquet.gz", "", "unknown file type"),
    ],
)
def test_damaged_file(tmp_path, name, content, expected):
    assert expected in message(write(tmp_path / name, content))


def test_the_line_of_an_error_in_an_array_read_in_small_pieces(tmp_path, monkeypatch):
    rows = [json.dumps({"a": "x" * 10}) for _ in range(9)]
    rows[6] = '{"a" 1}'
    path = write(tmp_path / "a.json", "[" + ",\n".join(rows) + "]")
    monkeypatch.setattr(json_rows, "CHUNK_BYTES", 7)
    assert "line 7: invalid JSON after row 6" in message(path)


@pytest.mark.parametrize("end", [-1, -12, 5])
def test_truncated_gzip(tmp_path, end):
    whole = gzip.compress(json.dumps({"a": "é" * 1000}).encode() * 3)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[:end])
    assert "truncated or damaged gzip file" in message(tmp_path / "a.jsonl.gz")


def test_gz_file_that_is_not_compressed(tmp_path):
    (tmp_path / "a.jsonl.gz").write_text("{}")
    assert "truncated or damaged gzip file" in message(tmp_path / "a.jsonl.gz")


def test_folder_and_missing_file(tmp_path):
    with pytest.raises(UserError, match="this is a folder, without"):
        open_source(str(tmp_path))
    for missing in ("gone.jsonl", "./gone", "gone.csv.gz", "a/b/c", str(tmp_path / "gone")):
        with pytest.raises(UserError, match="no such file"):
            open_source(missing)


def test_sample_is_the_file_of_the_project(tmp_path, monkeypatch):
    sample = write(tmp_path / "issues.jsonl", '{"title": "a", "labels": []}\n')
    monkeypatch.setattr(readers, "SAMPLE", sample)
    assert open_source("sample").columns == ["title", "labels"]
    sample.unlink()
    with pytest.raises(UserError, match="no such file"):
        open_source("sample")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one data set, `org/name`, that holds class ids."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["ham", "spam"]),
            "tags": datasets.List(datasets.ClassLabel(names=["x", "y"])),
        }
    )
    rows = {"text": ["a", "b"], "label": [1, -1], "tags": [[0, 1], []]}
    dataset = datasets.Dataset.from_dict(rows, features=features)

    def load_dataset(name, config, *, split):
        if name != "org/name":
            raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist")
        if split != "train":
            raise ValueError(f'Unknown split "{split}". Should be one of ["train"].')
        return dataset

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *args, **kwargs: None)


@pytest.mark.usefixtures("hub")
def test_hub_data_set():
    source = open_source("org/name")
    assert source.columns == ["text", "label", "tags"]
    assert source.class_names == {"label": ["ham", "spam"], "tags": ["x", "y"]}
    assert list(source.read(["text", "label"])) == [
        {"text": "a", "label": 1},
        {"text": "b", "label": -1},
    ]
    assert source.version == open_source("org/name").version


@pytest.mark.usefixtures("hub")
def test_missing_hub_data_set():
    with pytest.raises(UserError, match=r"org/gone: no such file, and no usable hub data set"):
        open_source("org/gone")
    with pytest.raises(UserError, match=r'Unknown split "dev"\. Should be one of'):
        open_source("org/name", split="dev")


@pytest.mark.usefixtures("hub")
def test_hub_that_does_not_answer(monkeypatch):
    def no_network(*args, **kwargs):
        raise ConnectionError("Name or service not known")

    def load_dataset(*args, **kwargs):
        raise AssertionError("load_dataset must not be called without a network")

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", no_network)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"the hub does not answer; .*HF_HUB_OFFLINE=1"):
        open_source("org/name")


@pytest.mark.usefixtures("hub")
def test_hub_data_set_offline_and_not_in_the_cache(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("Couldn't reach 'org/name' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", load_dataset)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="unset HF_HUB_OFFLINE to download it"):
        open_source("org/name")
