"""The page to read before training: its figures are those of the rows, and it survives any data."""

import json
import re

import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from conftest import KEYWORDS

LONG = (
    "the loader fails with a broken pipe after the second epoch of the training run on my machine"
)
TEMPLATE = "## What happened\n\n## Which version\nversion: {}\n"


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--use_cpu", "--bf16", "false"),
        *("--max_length", 48),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("explore", monkeypatch, capfd, *flags)


def page_of(folder):
    """Return the page, and the data of its charts."""
    page = (folder / "explore.html").read_text(encoding="utf-8")
    return page, json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL).group(1))


def test_figures_of_labels_words_lengths_and_the_map(recipe, tmp_path, tiny_issues):
    printed = recipe("--max_map", 50, "--projection", "pca")
    figures = read_json(tmp_path / "out" / "explore.json")
    rows = read_lines(tiny_issues)
    labelled = [row for row in rows if row["labels"]]
    assert {k: figures["rows"][k] for k in ("rows_read", "rows", "labelled", "unlabelled")} == {
        **{"rows_read": 132, "rows": 132, "labelled": 120, "unlabelled": 12}
    }
    for entry in figures["labels"]["labels"]:
        with_label = [i for i, row in enumerate(rows, 1) if entry["label"] in row["labels"]]
        assert entry["texts"] == len(with_label)
        assert entry["rows"] == with_label[:10]
        assert entry["share"] == len(with_label) / len(labelled)
    for pair in figures["labels"]["pairs"]:
        both = [i for i, row in enumerate(rows, 1) if {*pair["labels"]} <= {*row["labels"]}]
        assert (pair["texts"], pair["rows"]) == (len(both), both[:10])
    # The words of a label are its keywords.
    for entry in figures["words"]:
        best = [word["word"] for word in entry["words"][:4]]
        assert {*best} <= {*KEYWORDS[entry["label"]].split()}
    tokens = [len(f"{row['title']} {row['body']}".split()) + 2 for row in rows]
    assert figures["lengths"]["tokens"]["max"] == max(tokens)
    assert figures["lengths"]["model_limit"] == 64
    (cut,) = (cut for cut in figures["lengths"]["cuts"] if cut["max_length"] == 64)
    assert cut["texts_cut"] == sum(n > 64 for n in tokens)
    assert cut["share_of_tokens"] == pytest.approx(
        sum(max(n - 64, 0) for n in tokens) / sum(tokens)
    )
    assert sum(bin["texts"] for bin in figures["lengths"]["histogram"]) == 132
    page, data = page_of(tmp_path / "out")
    assert len(data["points"]) == 50
    assert sum(point["labels"] is None for point in data["points"]) == 12
    for point in data["points"]:
        row = rows[point["row"] - 1]
        assert point["text"] == f"{row['title']}\n\n{row['body']}"[:500]
        names = [data["names"][label] for label in point["labels"] or []]
        assert sorted(names) == sorted(row["labels"])
    for number, step in enumerate(figures["next_steps"], 1):
        assert f"{number}. {step['text'][:40]}" in printed
        assert f'id="{step["section"]}"' in page
    assert "120 labelled texts are few" in printed


def test_copies_conflicts_templates_and_time_name_their_rows(recipe, tmp_path):
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]
    rows = [
        {"body": TEMPLATE.format(i) + f"crash of {words[i]}", "labels": ["bug"]} for i in range(8)
    ]
    rows += [
        {"body": LONG, "labels": ["bug"]},
        {"body": f"{LONG} ", "labels": ["docs"]},
        {"body": " ", "labels": ["docs"]},
        {"body": TEMPLATE.format(99), "labels": []},
        {"body": "ok", "labels": ["Bug"]},
    ]
    rows = [
        row | {"created_at": f"2024-{1 + i // 2:02}-03T00:00:00Z"} for i, row in enumerate(rows)
    ]
    printed = recipe("--data", write(tmp_path / "rows.jsonl", rows), "--map", "false")
    figures = read_json(tmp_path / "out" / "explore.json")
    assert figures["rows"]["blank_rows"] == [11]
    assert figures["rows"]["exact_duplicates"] == 1
    (conflict,) = figures["copies"]["conflicting"]
    assert conflict["copies_conflict"]
    assert {tuple(e["labels"]): e["rows"] for e in conflict["labels"]} == {
        ("bug",): [9],
        ("docs",): [10],
    }
    assert [entry["line"] for entry in figures["templates"]["frequent"]] == [
        *("## What happened", "## Which version", "version: 0"),
    ]
    assert figures["templates"]["frequent"][0]["rows"] == [*range(1, 9), 12]
    assert [entry["row"] for entry in figures["templates"]["mostly"]] == [12]
    assert [entry["row"] for entry in figures["lengths"]["short"]] == [13]
    time = figures["time"]
    assert (time["column"], time["unit"], time["first"]) == ("created_at", "week", "2024-01-03")
    assert sum(time["texts"]) == time["dated"] == 11
    assert "map" not in figures
    assert page_of(tmp_path / "out")[1]["points"] == []
    printed = " ".join(printed.split())
    for text in (
        "1 set of copies of one text with different labels (the first: rows 9, 10)",
        "Labels whose names are nearly the same: Bug and bug.",
        "1 row without text (row 11)",
        "1 text of hardly more than lines that many share (row 12)",
    ):
        assert text in printed


def test_texts_and_names_are_no_html(recipe, tmp_path):
    attack = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    rows = [{"text": f"{attack} {n}", "labels": [f"{attack} {n % 2}"]} for n in range(6)]
    recipe("--data", write(tmp_path / "rows.jsonl", rows))
    page, data = page_of(tmp_path / "out")
    assert "<script>alert(1)" not in page
    assert "<img src=x" not in page
    assert data["names"] == [f"{attack} 0", f"{attack} 1"]


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "only one text"}],
        [{"text": "a", "labels": ["x"]}, {"text": "b"}, {"text": "c"}],
        [{"text": "体育新闻今天的比赛", "labels": "体育"}, {"text": "股票大跌", "labels": "财经"}],
        [{"text": "\U0001f600 !", "labels": ["x"]}, {"text": "?", "labels": ["y"]}],
        [{"text": f"text {chr(97 + n)}", "labels": ["x"]} for n in range(5)],
    ],
    ids=["one", "few", "chinese", "signs", "one label"],
)
def test_little_data(recipe, tmp_path, rows):
    recipe("--data", write(tmp_path / "rows.jsonl", rows))
    assert read_json(tmp_path / "out" / "explore.json")["rows"]["rows"] == len(rows)


def test_a_sample_of_many_texts(recipe, tmp_path):
    recipe("--max_texts", 40, "--map", "false")
    figures = read_json(tmp_path / "out" / "explore.json")
    assert figures["lengths"]["texts_counted"] == figures["languages"]["texts_counted"] == 40
    assert figures["labels"]["labels"][0]["texts"] > 24
    assert "of 40 texts drawn at random" in page_of(tmp_path / "out")[0]


def test_mistakes_are_one_line(recipe, tmp_path):
    assert "--time_column when" in recipe.mistake("--time_column", "when")
    assert "--max_length 99" in recipe.mistake("--max_length", 99)
    empty = write(tmp_path / "empty.jsonl", "")
    assert "empty.jsonl" in recipe.mistake("--data", empty)
    assert "--text_columns" in recipe.mistake("--text_columns", "nothing")


def test_through_accelerate(flags, tmp_path):
    process = launch("recipes/explore.py", *flags, "--max_map", 30)
    assert "What to do next" in process.stdout
    page, data = page_of(tmp_path / "out")
    assert len(data["points"]) == 30
    assert "http://" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
