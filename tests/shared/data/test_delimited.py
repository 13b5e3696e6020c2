"""CSV and TSV files of any origin: rows come back as they were written, or the file is refused."""

import csv
import io

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.delimited import parse_delimiter
from shared.data.readers import open_source

SETTINGS = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
# Few characters, so that marks, separators and line ends meet often.
CELLS = st.text(st.sampled_from('ab",;\t\n\\é '), max_size=8)
PLAIN_CELLS = st.text(st.sampled_from('ab" é'), max_size=6)  # no separators


def tables(cells):
    """Rows of one to three cells, without rows that are blank lines in a file."""
    return st.integers(1, 3).flatmap(
        lambda width: st.lists(
            st.lists(cells, min_size=width, max_size=width).filter(
                lambda row: len(row) > 1 or row[0].strip()
            ),
            min_size=1,
            max_size=6,
        )
    )


def open_table(path, text, **flags):
    path.write_bytes(text.encode())
    return open_source(str(path), **flags)


def try_to_open(path, text):
    """Return the source, or None and why it is refused."""
    try:
        return open_table(path, text), ""
    except UserError as error:
        return None, str(error)


def rows_of(source):
    return [list(row.values()) for row in source.read()]


def write_table(rows, delimiter, **options):
    text = io.StringIO(newline="")
    names = ["x", "y", "z"][: len(rows[0])]
    csv.writer(text, delimiter=delimiter, **options).writerows([names, *rows])
    return text.getvalue()


@SETTINGS
@given(
    rows=tables(CELLS),
    name=st.sampled_from(["a.csv", "a.tsv"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    escape=st.booleans(),
)
def test_quoted_tables_come_back_or_are_refused(tmp_path, rows, name, quoting, line_end, escape):
    options = {"quoting": quoting, "lineterminator": line_end}
    if escape:
        options |= {"doublequote": False, "escapechar": "\\"}
        rows = [[cell.replace("\\", "") for cell in row] for row in rows]
        rows = [row for row in rows if len(row) > 1 or row[0].strip()] or [["a"] * len(rows[0])]
    text = write_table(rows, "," if name == "a.csv" else "\t", **options)
    source, error = try_to_open(tmp_path / name, text)
    if source is None:
        assert "--quoting" in error  # the message names the way out, which gives the same rows
        known = "backslash" if escape else "double"
        source = open_table(tmp_path / name, text, quoting=known)
    assert rows_of(source) == rows


@SETTINGS
@given(rows=tables(PLAIN_CELLS), name=st.sampled_from(["a.csv", "a.tsv"]))
def test_plain_quotation_marks_join_no_rows(tmp_path, rows, name):
    """At most the marks around a cell are lost, which cannot be told from quoted cells."""
    if len(rows[0]) == 1 and name == "a.csv":
        rows = [[row[0], "x"] for row in rows]  # one column of lines follows the rules of CSV
    delimiter = "," if name == "a.csv" else "\t"
    lines = [["x", "y", "z"][: len(rows[0])], *rows]
    text = "".join(delimiter.join(row) + "\n" for row in lines)
    source, error = try_to_open(tmp_path / name, text)
    if source is None:
        assert "--quoting none" in error
    else:
        without_marks = [[cell.replace('"', "") for cell in row] for row in rows]
        read = [[cell.replace('"', "") for cell in row] for row in rows_of(source)]
        assert read == without_marks
    assert rows_of(open_table(tmp_path / name, text, quoting="none")) == rows


TWEETS = ['"Hello there', "how are you", 'all of you"', "he said", "bye"]


def test_a_tsv_file_with_plain_quotation_marks_keeps_its_rows(tmp_path):
    rows = [[text, f"label {number}"] for number, text in enumerate([*TWEETS, 'a 6" pipe'])]
    text = "text\tlabels\n" + "".join("\t".join(row) + "\n" for row in rows)
    source = open_table(tmp_path / "a.tsv", text)
    assert rows_of(source) == rows
    assert source.notes == ["quotation marks are read as plain characters (--quoting none)"]


def refused(path, text, **flags):
    with pytest.raises(UserError) as error:
        rows_of(open_table(path, text, **flags))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "delimiter"), [("a.tsv", "\t"), ("a.csv", ",")])
def test_rows_that_may_be_one_cell_are_refused(tmp_path, name, delimiter):
    rows = [[text, f"label {number}"] for number, text in enumerate(TWEETS)]
    text = f"text{delimiter}labels\n" + "".join(delimiter.join(row) + "\n" for row in rows)
    error = refused(tmp_path / name, text)
    assert f"{name}, line 4: quotation marks join several lines to one row" in error
    assert "--quoting none if quotation marks are plain" in error
    assert "--quoting double if cells hold line breaks" in error
    assert rows_of(open_table(tmp_path / name, text, quoting="none")) == rows
    assert len(rows_of(open_table(tmp_path / name, text, quoting="double"))) == 3


def test_cells_of_several_lines_that_are_no_rows_are_read(tmp_path):
    text = 'text,labels\n"Dear Sir,\n\nplease, help, now",bug\n"a ""b""",docs\n'
    assert rows_of(open_table(tmp_path / "a.csv", text)) == [
        ["Dear Sir,\n\nplease, help, now", "bug"],
        ['a "b"', "docs"],
    ]


@pytest.mark.parametrize(
    ("name", "text", "rows", "note"),
    [
        ("a.csv", "text;labels\na, b;bug\n", [["a, b", "bug"]], "separated by a semicolon"),
        ("a.csv", "text|labels\na|bug\n", [["a", "bug"]], "separated by a bar"),
        ("a.tsv", 'text,labels\n"a, b",bug\n', [["a, b", "bug"]], "separated by a comma"),
        ("a.csv", "text\tlabels\na, b\tbug\n", [["a, b", "bug"]], "separated by a tab"),
        ("a.tsv", 'text\tlabels\n"a" b\tbug\n', [['"a" b', "bug"]], "read as plain characters"),
        ("a.csv", 'text,labels\n"a \\"b\\", c",bug\n', [['a "b", c', "bug"]], "a backslash comes"),
        ("a.csv", "text,labels,,\na,bug,,\n,,,\nb,,\n", [["a", "bug"], ["", ""], ["b", ""]], ""),
        ("a.csv", ",text,labels\n0,a,bug\n", [["0", "a", "bug"]], ""),  # the index of pandas
        ("a.csv", "\n\ntext,labels\na,bug\n", [["a", "bug"]], ""),  # blank lines
        # Excel's first line; rows with empty cells at their end that were added or left out.
        ("a.csv", "sep=,\ntext,labels\na,bug\n", [["a", "bug"]], ""),
        ("a.csv", 'sep=;\r\n"text";a,b\r\n"x, ""y""";b\r\n', [['x, "y"', "b"]], "a semicolon"),
        ("a.tsv", "sep=\t\ntext\tlabels\na\tbug\n", [["a", "bug"]], ""),
        ("a.csv", "text,labels\na,bug,, \nb,bug\n", [["a", "bug"], ["b", "bug"]], ""),
        ("a.csv", 'text,labels\n"a",bug\n\n"b",bug\n', [["a", "bug"], ["b", "bug"]], ""),
        ("a.tsv", 'text\tlabels\n\n"a ""b"" c"\tbug\n', [['a "b" c', "bug"]], ""),
    ],
)
def test_tables_of_other_programs(tmp_path, name, text, rows, note):
    source = open_table(tmp_path / name, text)
    assert rows_of(source) == rows
    assert note in " ".join(source.notes)
    assert bool(note) == bool(source.notes)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", 'text,labels\n"a" b,bug\n', "line 2: ',' expected after '\"'; quote cells"),
        ("a.csv", 'text,labels\n"a" b,bug\n', "give --quoting none"),
        ("a.csv", "text,labels\na; b\n", "line 2: 1 cells, but 2 columns (text, labels)"),
        ("a.csv", "text,labels\na; b\n", "with --delimiter"),
        ("a.csv", "text,labels\na, b,bug\n", "line 2: 3 cells, but 2 columns (text, labels)"),
        ("a.csv", "sep=;\ntext;labels\na;b;c\n", "line 3: 3 cells, but 2 columns"),
        ("a.csv", "text,labels,\na,bug,docs\n", "line 2: 'docs' is in a column that has no name"),
        ("a.csv", "text,labels\na,bug\rb,docs\n", "a line ends with a carriage return alone"),
    ],
)
def test_what_fits_no_rule_names_the_way_out(tmp_path, name, text, expected):
    assert expected in refused(tmp_path / name, text)


def test_empty_cells_may_be_missing_at_the_end_of_a_row(tmp_path):
    text = 'id,text,labels,notes,more\n1,a,bug,x,\n\n2,"b, ""c""",docs\n3\n'
    source = open_table(tmp_path / "a.csv", text)
    assert source.columns == ["id", "text", "labels", "notes", "more"]
    assert [row["notes"] for row in source.read(["id"])] == ["x", "", ""]
    assert [*source.read(required=["id"])][2]["text"] == ""
    with pytest.raises(UserError, match=r"a.csv, line 5: 1 cells, .*; text, labels, .* missing"):
        list(source.read(["text", "labels"]))
    with pytest.raises(UserError, match=r"a.csv, line 4: 3 cells, .*; notes, more: missing"):
        list(source.read())
    # In a file that plain quotation marks fit better, these rows have all of their cells.
    error = refused(tmp_path / "b.csv", 'text,labels\n"a,b"\n"c","d"\n')
    assert "b.csv, line 2: 1 cells" in error
    assert error.endswith("give --quoting none")


def test_delimiter_and_quoting_by_flag(tmp_path):
    path, text = tmp_path / "a.csv", 'text:labels\n"a":bug\n'
    source = open_table(path, text, delimiter=":", quoting="none")
    assert rows_of(source) == [['"a"', "bug"]]
    assert rows_of(open_table(path, text, delimiter=":")) == [["a", "bug"]]
    names = ["text", "labels"]
    assert rows_of(open_table(path, "a;bug\n", column_names=names)) == [["a", "bug"]]
    assert [parse_delimiter(value) for value in (None, ";", "tab", "\\t")] == [
        *(None, ";", "\t", "\t")
    ]
    for value in ("", "ab", '"', "\n"):
        with pytest.raises(UserError, match="--delimiter"):
            parse_delimiter(value)
