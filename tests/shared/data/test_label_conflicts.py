from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.label_conflicts import text_groups

LONG = (
    "the loader fails with a broken pipe after the second epoch of the training run on my machine"
)


def test_copies_near_duplicates_and_their_labels(load):
    rows = [
        {"text": LONG, "labels": ["bug"]},
        {"text": "something else entirely", "labels": ["bug"]},
        {"text": LONG.replace(" ", "  "), "labels": ["docs"]},
        {"text": LONG + " today", "labels": ["bug"]},
        {"text": "how do I install it", "labels": []},
        {"text": "how do I install it", "labels": ["docs"]},
    ]
    groups = text_groups(load(rows, duplicate_labels="separate"))
    assert [group.rows for group in groups] == [[0, 2, 3], [4, 5]]
    assert [group.n_texts for group in groups] == [2, 1]
    assert [group.label_sets for group in groups] == [2, 1]
    assert [group.copies_conflict for group in groups] == [True, False]


def test_near_duplicates_may_differ_while_copies_agree(load):
    rows = [
        {"text": LONG, "labels": ["bug"]},
        {"text": LONG, "labels": ["bug"]},
        {"text": LONG + " today", "labels": ["docs", "bug"]},
    ]
    (group,) = text_groups(load(rows, duplicate_labels="separate"))
    assert (group.label_sets, group.copies_conflict) == (2, False)


def test_no_group(load):
    assert text_groups(load([{"text": "one", "labels": "a"}, {"text": "two", "labels": "b"}])) == []


@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), min_size=2, max_size=12))
def test_sets_of_copies_are_those_of_a_count(tmp_path_factory, pairs):
    from shared.data.arguments import DataArguments
    from shared.data.corpus import load_data

    if len({text for text, _ in pairs}) < 2:
        return
    folder = tmp_path_factory.mktemp("rows")
    path = folder / "rows.csv"
    lines = [f"{text * 9} {text},{label}" for text, label in pairs]
    path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")
    args = DataArguments(
        data=str(path), cache_dir=str(folder / "cache"), duplicate_labels="separate"
    )
    groups = text_groups(load_data(args))
    expected = {
        text: [i for i, (other, _) in enumerate(pairs) if other == text] for text, _ in pairs
    }
    expected = [rows for rows in expected.values() if len(rows) > 1]
    assert sorted(group.rows for group in groups) == sorted(expected)
    for group in groups:
        n_labels = len({pairs[i][1] for i in group.rows})
        assert (group.label_sets, group.copies_conflict) == (n_labels, n_labels > 1)
