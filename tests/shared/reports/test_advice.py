"""Advice follows from the figures, and only from them."""

import pytest

from shared.reports.advice import next_steps

ROWS = {"labelled": 900, "unlabelled": 0, "blank_texts": 0, "blank_rows": []}
GROUP = {
    "texts": 7,
    "copies_conflict": True,
    "labels": [{"labels": ["a"], "rows": [9, 2]}, {"labels": ["b"], "rows": [5, 6, 7, 8, 11]}],
}


def label(name, texts):
    return {"label": name, "texts": texts, "share": texts / 900}


def labels(*counts, similar=()):
    entries = [label(chr(97 + i), n) for i, n in enumerate(counts)]
    rare = sum(n < 10 for n in counts)
    figures = {"labels": entries, "n_labels": len(entries), "similar_names": list(similar)}
    return figures | {"rare": rare}


def lengths(**values):
    cuts = {128: 0.5, 256: 0.31, 512: 0.04}
    cuts = [
        {"max_length": n, "share_of_texts": share, "share_of_tokens": share / 2}
        for n, share in values.pop("cuts", cuts).items()
    ]
    defaults = {"unknown_tokens": 0.0, "model": "m", "model_limit": 512, "short_texts": 0}
    defaults |= {"tokens": {"p95": 330.0, "p99": 600.0}, "short": []}
    return defaults | values | {"cuts": cuts}


def texts(figures, **options):
    return [step["text"].replace("\u00a0", " ") for step in next_steps(figures, **options)]


def test_nothing_stands_out():
    assert texts({"rows": ROWS, "labels": labels(400, 500)}) == []


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({"labels": labels(500, 391, 9)}, "1 label of 3 has fewer than 10 texts (c 9): --min_"),
        ({"labels": labels(880, 20)}, "98 % of the labelled texts are a: a classifier that"),
        ({"labels": labels(5, 4)}, "(a 5, b 4): label more texts"),
        ({"labels": labels(450, 450, similar=[["x", "X"]])}, "nearly the same: x and X. Join"),
        ({"rows": ROWS | {"labelled": 0}, "labels": labels()}, "No text has a label"),
        ({"rows": ROWS | {"unlabelled": 901}, "labels": labels(450, 450)}, "901 texts have"),
        ({"rows": ROWS | {"labelled": 99}, "labels": labels(50, 49)}, "99 labelled texts are few"),
        ({"lengths": lengths()}, "--max_length 384 reads 95 % of them whole. If"),
        (
            {"lengths": lengths(tokens={"p95": 900.0, "p99": 2000.0})},
            "--max_length 512 reads 96 % of them whole, and is the most that the model reads",
        ),
        (
            {"lengths": lengths(cuts={256: 0.0}, tokens={"p95": 20.0, "p99": 33.0})},
            "99 % of the texts have at most 64 tokens: --max_length 64",
        ),
        ({"lengths": lengths(unknown_tokens=0.66)}, "m does not know 66 % of the tokens"),
        (
            {"lengths": lengths(short_texts=9, short=[{"row": n} for n in range(1, 8)])},
            "9 texts of one or two words (rows 1, 2, 3, 4, 5 and 4 more)",
        ),
        (
            {"copies": {"conflicts_of_copies": 1, "conflicts": 1, "conflicting": [GROUP],
                        "texts": 7, "groups": 1}},
            "1 set of copies of one text with different labels (the first: rows 2, 5, 6, 7, 8 and",
        ),
        (
            {"rows": ROWS | {"blank_texts": 1, "blank_rows": [4]}},
            "1 row without text (row 4): left out.",
        ),
        (
            {"copies": {"conflicts_of_copies": 1, "conflicts": 3, "conflicting": [GROUP],
                        "texts": 7, "groups": 3}},
            "2 groups of nearly the same text with different labels: check which labels are right.",
        ),
        (
            {"labels": labels(5, 4) | {"n_labels": 5000, "rare": 4000}},
            "4,000 labels of 5,000 have fewer than 10 texts (a 5, b 4, ...): --min_label_count 10",
        ),
        (
            {"labels": labels(500, 400) | {"n_labels": 5000, "rare": 4000}},
            "4,000 labels of 5,000 have fewer than 10 texts: --min_label_count 10 leaves them out.",
        ),
        (
            {"time": {"column": "when", "newest_share": 0.25, "shifts": [
                {"label": "a", "before": 0.1, "after": 0.4, "z": 6.0},
                {"label": "b", "before": 0.1, "after": 0.11, "z": 5.0},
                {"label": "c", "before": 0.4, "after": 0.1, "z": -2.0},
            ]}},
            "(the newest 25 % against the others: a 10 % to 40 %): --split_time when tests",
        ),
        (
            {"templates": {"mostly_template": 0, "share_of_words": 0.2,
                           "frequent": [{"line": "## Steps"}]}},
            "20 % of all words are in lines that many texts share, such as “## Steps”",
        ),
    ],
)  # fmt: skip
def test_advice(figures, expected):
    steps = texts({"rows": ROWS} | figures)
    assert any(expected in step for step in steps), steps


def test_languages():
    entries = [{"language": "de", "texts": 90}, {"language": "", "texts": 9}]
    figures = {"rows": ROWS, "languages": {"texts_counted": 100, "languages": entries}}
    assert texts(figures) == []
    (step,) = texts(figures, default_model=True)
    assert "in the language de" in step
    entries[1] = {"language": "fr", "texts": 10}
    (step,) = texts(figures)
    assert step.startswith("10 % of the texts are not in the main language, de (fr 10)")
    entries[:] = [{"language": "zxx", "texts": 100}]
    assert texts(figures) == []
