"""Pairs of texts: reading, splitting, sizes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.errors import UserError
from shared.data.near_duplicates import near_duplicate_groups
from shared.data.pairs import PairArguments, load_pairs


def write(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def load(path, *, seed=0, **flags):
    args = PairArguments(data=str(path), **flags)
    args.seed = seed
    return load_pairs(args)


def rows_of(n):
    return [{"source": f"text number {i} of many", "target": f"title {i}"} for i in range(n)]


values = st.one_of(st.none(), st.text("ab \n", max_size=9), st.integers(0, 3))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.fixed_dictionaries({"source": values, "target": values}), max_size=30),
    sizes=st.tuples(st.sampled_from([0, 0.2]), st.sampled_from([0, 0.3])),
)
def test_each_complete_pair_is_in_one_part(rows, sizes, tmp_path_factory):
    path = write(tmp_path_factory.mktemp("pairs") / "rows.jsonl", [*rows_of(5), *rows])
    pairs = load(path, valid_size=sizes[0], test_size=sizes[1])
    cells = [(row["source"], row["target"]) for row in rows]
    texts = [[str("" if cell is None else cell).strip() for cell in row] for row in cells]
    complete = {tuple(row) for row in texts if all(row)}
    complete |= {(row["source"], row["target"]) for row in rows_of(5)}
    actual = [
        pair
        for part in ("train", "valid", "test")
        for pair in zip(pairs.sources[part], pairs.targets(part), strict=True)
    ]
    assert len(actual) == len(set(actual))
    assert set(actual) == complete
    # Nearly equal sources are on one side.
    part_of = [p for p, texts in pairs.sources.items() for _ in texts]
    groups = near_duplicate_groups([source for source, _ in actual])
    assert len({*zip(groups, part_of, strict=True)}) == len(set(groups))
    for part, size in zip(("valid", "test"), sizes, strict=True):
        assert bool(pairs.sources[part]) == bool(size)
    again = load(path, valid_size=sizes[0], test_size=sizes[1])
    assert again == pairs


def test_what_is_left_out_is_counted(tmp_path):
    rows = rows_of(6)
    rows += [rows[0], {"source": " ", "target": "x"}, {"source": "x", "target": None}]
    described = load(write(tmp_path / "rows.jsonl", rows)).describe()
    assert "rows.jsonl: 6 of 9 rows: source -> target; train 4, valid 1, test 1 pairs" in described
    assert "left out repeated 1, without source 1, without target 1" in described


def test_issues_of_github_are_bodies_with_titles(tmp_path):
    rows = [{"title": f"Bug {i}", "body": f"It fails {i} times", "labels": []} for i in range(8)]
    rows[3]["body"] = None
    rows[4]["pull_request"] = {"url": "x"}
    path = write(tmp_path / "issues.jsonl", rows)
    pairs = load(path, valid_size=0, test_size=0)
    assert pairs.columns == ("body", "title")
    assert pairs.targets("train") == [f"Bug {i}" for i in (0, 1, 2, 5, 6, 7)]
    assert "left out without body 1, pull requests 1" in pairs.describe()
    both = load(path, valid_size=0, test_size=0, pull_requests=True)
    assert len(both.sources["train"]) == 7


def test_files_of_their_own_and_repeated_sources(tmp_path):
    train = write(tmp_path / "train.jsonl", rows_of(6))
    test = write(tmp_path / "test.jsonl", rows_of(2)[1:])
    pairs = load(train, test_data=str(test), valid_size=0)
    assert pairs.sources["test"] == ["text number 1 of many"]
    assert len(pairs.sources["train"]) == 5
    assert "left out: 1 train pairs that repeat a held-out source" in pairs.describe()
    kept = load(train, test_data=str(test), valid_size=0, drop_repeated=False)
    assert len(kept.sources["train"]) == 6


def test_a_list_of_targets_are_references(tmp_path):
    rows = [{"a": f"text {i} here", "b": [f"one {i}", "", f"two {i}"]} for i in range(3)]
    path = write(tmp_path / "rows.jsonl", rows)
    pairs = load(path, source_column="a", target_column="b", valid_size=0, test_size=0)
    assert pairs.references["train"][1] == ["one 1", "two 1"]
    assert pairs.targets("train") == ["one 0", "one 1", "one 2"]


def test_mistakes(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"en": "a", "de": "b"}] * 3)
    with pytest.raises(UserError, match=r"which column has the texts to read.*--source_column"):
        load(path)
    with pytest.raises(UserError, match=r"no column 'dee'.*did you mean 'de'"):
        load(path, source_column="en", target_column="dee")
    with pytest.raises(UserError, match="both are en"):
        load(path, source_column="en", target_column="en")
    with pytest.raises(UserError, match="too few to hold some out"):
        load(path, source_column="en", target_column="de")
    blank = write(tmp_path / "blank.jsonl", [{"source": "a", "target": " "}])
    with pytest.raises(UserError, match="none of 1 rows has a text in both columns"):
        load(blank)
    with pytest.raises(UserError, match="leave nothing to learn"):
        load(path, valid_size=0.5, test_size=0.5)
    same = write(tmp_path / "same.jsonl", rows_of(1))
    with pytest.raises(UserError, match="no pair is left to learn from"):
        load(same, test_data=str(same), valid_size=0)
