"""Documents of a language model: reading, splitting, sizes."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.documents import DocumentArguments, load_documents, split_groups


def load(path, **flags):
    args = DocumentArguments(data=str(path), cache_dir=str(path.parent / "cache"), **flags)
    args.seed = 0
    return load_documents(args)


def test_lines_of_a_file_are_documents(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("emma\r\nolivia\n\n  \nzoé\n".encode() + b"last one")
    documents = load(path, valid_size=0.25, test_size=0.25)
    texts = [text for part in documents.parts.values() for text in part]
    assert sorted(texts) == ["emma", "last one", "olivia", "zoé"]
    assert [len(part) for part in documents.parts.values()] == [2, 1, 1]
    total = sum(map(documents.n_characters, ("train", "valid", "test")))
    assert total == len("emma" + "olivia" + "zoé" + "last one") + 4
    assert "4 lines with text" in documents.describe()
    assert documents.parts == load(path, valid_size=0.25, test_size=0.25).parts


def test_one_long_text_is_cut_at_its_end(tmp_path):
    path = tmp_path / "book.txt.gz"
    text = "".join(f"line {n}\n" for n in range(100))
    path.write_bytes(gzip.compress(text.encode()))
    documents = load(path, documents="file", valid_size=0.1, test_size=0)
    train, valid = documents.parts["train"][0], documents.parts["valid"][0]
    assert train + valid == text
    assert len(train) == int(len(text) * 0.9)
    assert documents.parts["test"] == []
    assert not documents.are_whole
    assert documents.n_characters("valid") == len(valid)


def test_a_pattern_of_files(tmp_path):
    for n in range(4):
        (tmp_path / f"{n}.txt").write_text(f"text {n}\n", encoding="utf-8")
    flags = {"documents": "file", "split": "contiguous", "valid_size": 0.25, "test_size": 0.25}
    documents = load(tmp_path / "*.txt", **flags)
    assert [*documents.parts.values()] == [["text 0\n", "text 1\n"], ["text 2\n"], ["text 3\n"]]


def test_rows_of_another_file_and_near_duplicates_on_one_side(tmp_path):
    words = [" ".join(f"w{(n * 7 + k) % 50}" for k in range(12)) for n in range(20)]
    rows = [text for word in words for text in (word, f"{word} more")]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"text": "{row}"}}\n' for row in rows), encoding="utf-8")
    parts = load(path, valid_size=0.2, test_size=0.2).parts
    assert sum(map(len, parts.values())) == 40
    for part in parts.values():
        assert all((text.removesuffix(" more") in part) for text in part)


def test_equal_lines_on_one_side_unless_asked(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("anna\nbob\nclara\ndan\n" * 10, encoding="utf-8")
    parts = load(path, valid_size=0.25, test_size=0.25).parts
    assert [len(part) for part in parts.values()] == [20, 10, 10]
    assert not set(parts["train"]) & set(parts["valid"])
    parts = load(path, valid_size=0.25, test_size=0.25, keep_together=False).parts
    assert set(parts["train"]) & set(parts["valid"])


def test_nearly_equal_lines_on_one_side(tmp_path):
    lines = [" ".join(f"w{(n * 7 + k) % 50}" for k in range(12)) for n in range(20)]
    path = tmp_path / "lines.txt"
    path.write_text("".join(f"{line}\n{line} more\n" for line in lines), encoding="utf-8")
    parts = load(path, valid_size=0.2, test_size=0.2).parts
    assert sum(map(len, parts.values())) == 40
    for part in parts.values():
        assert all(text.removesuffix(" more") in part for text in part)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=50).filter(lambda g: len(set(g)) > 3),
    st.sampled_from([0, 0.1, 0.3]),
    st.sampled_from([0, 0.1, 0.3]),
    st.sampled_from([None, 0, 1]),
)
def test_a_split_has_each_row_once_and_keeps_groups(groups, valid, test, seed):
    groups = np.array(groups)
    parts = split_groups(groups, [valid, test], seed=seed)
    assert sorted(np.concatenate(parts)) == list(range(len(groups)))
    per_part = [set(groups[part]) for part in parts]
    assert sum(map(len, per_part)) == len(set(groups))
    for members, size in zip(per_part[1:], (valid, test), strict=True):
        expected = max(round(size * len(set(groups))), 1) if size else 0
        assert len(members) == expected
    if seed is None and valid and test:
        assert max(per_part[0]) < min(per_part[1]) < min(per_part[2])


def test_mistakes(tmp_path):
    blank = tmp_path / "blank.txt"
    blank.write_text("\n \n", encoding="utf-8")
    two = tmp_path / "two.txt"
    two.write_text("a\nb\n", encoding="utf-8")
    for path, flags, message in (
        (blank, {}, "no text; all lines are blank"),
        (tmp_path / "none.txt", {}, "no such file"),
        (two, {}, r"2 texts \(nearly equal .* too few"),
        (two, {"valid_size": 0.5, "test_size": 0.5}, "leave nothing to learn from"),
    ):
        with pytest.raises(UserError, match=message):
            load(path, **flags)
    with pytest.raises(UserError, match="--data sample is not a text file"):
        load_documents(DocumentArguments(documents="file"))
