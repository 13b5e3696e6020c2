import csv
import json

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, report_rows, write
from forks import run_script

from shared.evaluation.metrics import f1_scores
from shared.evaluation.thresholds import find_thresholds
from shared.methods.baselines import fit_words, naive_bayes
from shared.methods.linear import WordClassifier
from shared.taggers import load_tagger

LABELS = ("bug", "documentation", "feature", "speed")  # the labels of tiny_issues
CLASSIFIERS = ("naive_bayes", "logistic_regression")


@pytest.fixture
def recipe(monkeypatch, capfd, tiny_issues, tmp_path):
    flags = ["--data", tiny_issues, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path]
    flags += ["--evaluate", "held_out", "--refit", "false"]
    return Recipe("naive_bayes", monkeypatch, capfd, *flags)


def labels_of(lines, names):
    return np.array([[name in line["true_labels"] for name in names] for line in lines])


def test_a_repeated_cross_validation_has_a_mean_and_a_deviation(recipe, tmp_path):
    flags = ["--evaluate", "cross_validation", "--refit", "true", "--folds", 3, "--seed"]
    single = []
    for seed in (1, 2):
        recipe(*flags, seed)
        single.append(read_json(tmp_path / "metrics.json")["test_micro_f1"])
    printed = recipe(*flags, 1, "--repeats", 2)
    metrics = read_json(tmp_path / "metrics.json")
    assert metrics["test_micro_f1"] == single[0]
    assert metrics["test_micro_f1_mean"] == pytest.approx(np.mean(single))
    assert metrics["test_micro_f1_std"] == pytest.approx(np.std(single, ddof=1))
    assert f"{np.mean(single):.3f} ± {np.std(single, ddof=1):.3f} over 2 repeats" in printed
    assert "Out of fold (120 texts, 3 folds, first of 2 repeats)" in printed


def test_the_report_gives_reasons_and_no_row_as_its_own_neighbour(recipe, tiny_issues, tmp_path):
    issues = read_lines(tiny_issues)
    for flags in ([], ["--evaluate", "cross_validation", "--refit", "true"]):
        recipe(*flags)
        page = report_rows(tmp_path)
        assert ("has learned from these rows" in page["note"]) == bool(flags)
        explained = [row for row in page["rows"].values() if "neighbours" in row]
        assert len(explained) == len(page["rows"]) > 0
        tested = {line["row"] for line in read_lines(tmp_path / "test_predictions.jsonl")}
        for row in explained:
            neighbours = {neighbour["row"] for neighbour in row["neighbours"]}
            assert row["row"] not in neighbours
            assert all(issues[number - 1]["labels"] for number in neighbours)
            if not flags:  # they are those of the training set
                assert not neighbours & tested
            text = " ".join(str(issues[row["row"] - 1][name]) for name in ("title", "body"))
            for _, pairs in row.get("words", []):
                assert all(word in text.lower() for word, _ in pairs)
        assert any(row.get("words") for row in explained)


def test_the_plot_of_a_cross_validation_counts_each_row_once(recipe, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "shared.reports.results.plot_label_counts", lambda counts, _: drawn.append(counts)
    )
    recipe("--evaluate", "cross_validation", "--refit", "true")
    assert drawn == [{"all folds": dict.fromkeys(LABELS, 36)}]


@pytest.mark.parametrize("classifier", CLASSIFIERS)
def test_figures_and_files(classifier, recipe, tmp_path):
    printed = recipe("--classifier", classifier)
    metrics = read_json(tmp_path / "metrics.json")
    lines = read_lines(tmp_path / "test_predictions.jsonl")
    names = sorted(lines[0]["scores"])
    y = labels_of(lines, names)
    predicted = np.array([[name in line["labels"] for name in names] for line in lines])
    f1 = f1_scores(y, predicted)
    for name in ("micro_f1", "macro_f1"):
        assert metrics[f"test_{name}"] == f1[name]
        assert metrics[f"test_{name}_low"] <= f1[name] <= metrics[f"test_{name}_high"]
        assert 0 < metrics[f"valid_{name}"] <= 1
    assert f1["micro_f1"] > 0.8  # each label has words of its own
    assert [metrics[f"{part}_samples"] for part in ("train", "valid", "test")] == [60, 30, 30]
    assert (tmp_path / "per_label.csv").is_file()
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "label_counts.png",
        "words_per_text.png",
    ]
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert f"micro F1 | {f1['micro_f1']:.3f}" in card
    assert "load_tagger(" in card
    assert "pipeline(" not in card  # transformers could not load it
    assert f"micro F1 {f1['micro_f1']:.3f}" in printed
    assert "Tags of unlabelled texts, the surest" in printed
    assert len(read_lines(tmp_path / "unlabelled_predictions.jsonl")) == 12
    assert "tag.py" in printed
    tagger = load_tagger(tmp_path)
    for line in lines:
        assert tagger(line["text"]) == {name: line[name] for name in ("labels", "scores")}


@pytest.mark.parametrize(
    ("classifier", "strategy"),
    [("linear_svm", "label_powerset"), ("boosted_trees", "classifier_chain")],
)
def test_options_of_words_and_the_terms_of_the_labels(classifier, strategy, recipe, tmp_path):
    options = ("--analyzer", "char_wb", "--ngram_range", 2, 4, "--min_df", 3, "--max_features", 600)
    printed = recipe("--classifier", classifier, "--strategy", strategy, *options, "--terms", 2)
    tagger = load_tagger(tmp_path)
    words = tagger.scorer.classifier.features.words
    assert len(words) == 600
    assert {len(word) for word in words} == {2, 3, 4}
    lines = read_lines(tmp_path / "test_predictions.jsonl")
    scores = tagger.scores([line["text"] for line in lines])
    names = tagger.label_names
    expected = [[line["scores"][name] for name in names] for line in lines]
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    assert read_json(tmp_path / "metrics.json")["test_micro_f1"] > 0.4
    with (tmp_path / "terms.csv").open(encoding="utf-8", newline="") as file:
        terms = list(csv.DictReader(file))
    assert {row["label"] for row in terms} == {*LABELS}
    for row in terms:
        assert row["term"] in words
        assert (float(row["weight"]) > 0) == (row["side"] == "for")
    strongest = [row["term"] for row in terms if (row["label"], row["side"]) == ("bug", "for")]
    table = printed[printed.index("\nTerms\n") :]
    assert f"bug            for      {strongest[0]} " in table
    assert table.count(" for  ") == len(LABELS)


def test_counts_and_tfidf_are_options_of_every_classifier(recipe, tmp_path):
    recipe("--tfidf", "true", "--ngram_range", 1, 2, "--terms", 0)
    assert (tmp_path / "terms.csv").exists() is False
    features = load_tagger(tmp_path).scorer.classifier.features
    assert features.idf is not None
    assert any(" " in word for word in features.words)
    recipe("--classifier", "linear_svm", "--tfidf", "false")
    assert load_tagger(tmp_path).scorer.classifier.features.idf is None


def test_scores_are_those_of_the_classifier_and_thresholds_those_of_validation(
    recipe, tmp_path, monkeypatch
):
    seen = {}

    score = WordClassifier.__call__

    def spy(classifier, texts):
        seen["scores"].append(score(classifier, texts))
        return seen["scores"][-1]

    def spy_tune(scores, labels, **options):
        assert scores is seen["scores"][0]
        seen["thresholds"] = find_thresholds(scores, labels, **options)
        return seen["thresholds"]

    monkeypatch.setattr(WordClassifier, "__call__", spy)
    monkeypatch.setattr(recipe.module, "find_thresholds", spy_tune)
    for thresholds in ("global", "per_label"):
        seen["scores"] = []
        recipe("--thresholds", thresholds)
        lines = read_lines(tmp_path / "test_predictions.jsonl")
        names = sorted(lines[0]["scores"])
        scores = np.array([[line["scores"][name] for name in names] for line in lines])
        calibrated = load_tagger(tmp_path).calibrate(seen["scores"][1])
        np.testing.assert_allclose(scores, calibrated, atol=1e-6)
        expected = f1_scores(labels_of(lines, names), seen["scores"][1] >= seen["thresholds"])
        metrics = read_json(tmp_path / "metrics.json")
        assert metrics["test_micro_f1"] == expected["micro_f1"]


def test_without_validation_rows_a_text_has_its_best_label_too(recipe, tmp_path):
    recipe("--valid_size", 0)
    lines = read_lines(tmp_path / "test_predictions.jsonl")
    for line in lines:
        best, *others = line["scores"].items()
        assert line["labels"] == [best[0], *(name for name, score in others if score >= 0.5)]
    assert read_json(tmp_path / "tagger.json")["rule"]["at_least_one"]
    recipe("--valid_size", 0, "--empty_labels", "negative")
    assert not read_json(tmp_path / "tagger.json")["rule"]["at_least_one"]


def test_two_runs_agree_and_parts_are_those_of_the_tagger(recipe, tmp_path, trained):
    figures = []
    for _ in range(2):
        recipe()
        figures.append(read_json(tmp_path / "metrics.json"))
        for runtime in ("train_runtime", "test_runtime"):
            assert figures[-1].pop(runtime) > 0
    assert figures[0] == figures[1]
    rows = [
        [line["row"] for line in read_lines(folder / "test_predictions.jsonl")]
        for folder in (tmp_path, trained[0])
    ]
    assert rows[0] == rows[1]
    tagger = read_json(trained[0] / "metrics.json")
    recipe("--train_size", 8)
    smaller = read_json(tmp_path / "metrics.json")
    assert (smaller["train_samples"], smaller["test_samples"]) == (8, tagger["test_samples"])


def test_augmented_copies_join_the_training_texts(recipe, tmp_path, monkeypatch):
    learned = []

    def spy(pipeline, texts, labels):
        learned.append((list(texts), labels))
        return fit_words(pipeline, texts, labels)

    monkeypatch.setattr(recipe.module, "fit_words", spy)
    recipe("--train_size", 16)
    recipe("--train_size", 16, "--augment", "swap", "delete", "--copies", 2)
    (texts, labels), (more, their_labels) = learned
    assert more[:16] == texts
    assert len(more) == 48
    assert their_labels.tolist() == [*labels.tolist()] * 3
    for row in range(16, 48):
        words = more[row].lower().split()
        assert words != texts[row % 16].lower().split()
        assert set(words) < set(texts[row % 16].lower().split())
    assert more[16:32] != more[32:]
    first = read_json(tmp_path / "metrics.json")
    assert first["train_samples"] == 16
    recipe("--train_size", 16, "--augment", "swap", "delete", "--copies", 2)
    assert learned[2][0] == more


def test_labels_that_only_the_test_file_has_count_as_misses(recipe, tiny_issues, tmp_path):
    rows = [row for row in read_lines(tiny_issues) if row["labels"]]
    test_rows = rows[80:]
    for row in test_rows[:12]:
        row["labels"] = [*row["labels"], "foo"]
    for row in test_rows[12:15]:
        row["labels"] = ["bar"]
    (folder := tmp_path / "rows").mkdir()
    flags = (
        *("--data", write(folder / "data.jsonl", rows[:80])),
        *("--test_data", write(folder / "test.jsonl", test_rows)),
    )
    printed = recipe(*flags)
    note = "test.jsonl has labels that --data does not have: foo 12, bar 3; they count as misses"
    assert printed.count(note) == 1
    assert note in (tmp_path / "README.md").read_text(encoding="utf-8")
    lines = read_lines(tmp_path / "test_predictions.jsonl")
    assert len(lines) == 40
    assert sorted(lines[0]["scores"]) == sorted(LABELS)  # the classifier does not know them
    assert [line["true_labels"] for line in lines if "bar" in line["true_labels"]] == [["bar"]] * 3
    names = [*LABELS, "foo", "bar"]
    predicted = np.array([[name in line["labels"] for name in names] for line in lines])
    y = labels_of(lines, names)
    metrics = read_json(tmp_path / "metrics.json")
    for name, value in f1_scores(y, predicted).items():
        assert metrics[f"test_{name}"] == pytest.approx(value)
    assert metrics["test_subset_accuracy"] == (y == predicted).all(axis=1).mean()
    for name in ("micro_f1", "macro_f1"):
        low, high = (metrics[f"test_{name}_{bound}"] for bound in ("low", "high"))
        assert low < metrics[f"test_{name}"] < high
    with (tmp_path / "per_label.csv").open(encoding="utf-8", newline="") as file:
        table = {row["label"]: row for row in csv.DictReader(file)}
    for name, support in (("foo", "12"), ("bar", "3")):
        row = table[name]
        assert (row["support"], row["predicted"], row["threshold"]) == (support, "0", "")
        assert float(row["f1"]) == 0
    message = recipe.mistake(*flags, "--unknown_labels", "error")
    assert "test.jsonl: labels that are not among the expected ones: foo 12, bar 3 (" in message


def test_through_accelerate_launch_and_by_two_processes(tiny_issues, tmp_path):
    words = ["recipes/naive_bayes.py", "--data", tiny_issues, "--cache_dir", tmp_path / "cache"]
    words += ["--output_dir", tmp_path / "out"]
    for process in (launch(*words), run_script(*words, processes=2)):
        assert process.stdout.count("Everything is in") == 1
        assert "Warning" not in process.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--train_size", 61], "--train_size 61: the pool has 60 rows"),
        (["--label_column", "tags"], "no column 'tags'"),
        (["--classifier", "svm"], "--classifier"),
        (["--ngram_range", 2, 1], "--ngram_range 2 1: must be two numbers"),
        (["--ngram_range", 1], "--ngram_range 1: must be two numbers"),
        (["--min_df", "nan"], "--min_df nan: must be a finite number"),
        (["--max_df", 1.5], "--max_df 1.5: must be a share"),
        (["--min_df", 500], "--min_df, --max_df: no term of the 60 training texts is left"),
        (["--max_features", 0], "--max_features 0: must be 1 or more"),
        (["--terms", -1], "--terms -1: must be 0 or more"),
        (["--seed", -1], "--seed -1: must be 0 or more"),
        (["--augment", "shuffle"], "no augmentation 'shuffle'; there are synonym, swap"),
        (["--augment", "swap", "--copies", 0], "--copies 0: must be 1 or more"),
    ],
)
def test_mistakes(flags, expected, recipe):
    assert expected in recipe.mistake(*flags)


def test_every_labelled_text_is_tested_and_teaches(recipe, tmp_path):
    printed = recipe("--evaluate", "auto", "--refit", "true")
    assert "folds: 24, 24, 24, 24, 24 texts" in printed
    assert "Out of fold (120 texts, 5 folds)" in printed
    lines = read_lines(tmp_path / "test_predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(1, 121))
    names = sorted(lines[0]["scores"])
    texts, y = [line["text"] for line in lines], labels_of(lines, names)
    expected = fit_words(naive_bayes(), texts, y)(texts)
    np.testing.assert_allclose(load_tagger(tmp_path).raw_scores(texts), expected, atol=1e-9)
    # No score of the report comes from a classifier that has seen the text.
    scores = np.array([[line["scores"][name] for name in names] for line in lines])
    of_all_rows = load_tagger(tmp_path).scores(texts)
    assert np.isclose(scores, of_all_rows, atol=1e-6).all(axis=1).mean() < 0.1
    recipe("--refit", "true")  # held out: thresholds from validation, then a fit on all rows
    np.testing.assert_allclose(load_tagger(tmp_path).raw_scores(texts), expected, atol=1e-9)
    assert len(read_lines(tmp_path / "test_predictions.jsonl")) == 30


def test_planted_label_errors_are_found_and_no_tagger_is_saved(recipe, tmp_path):
    flags = ("--evaluate", "auto", "--refit", "true", "--classifier", "logistic_regression")
    printed = recipe(*flags, "--simulate_noise", 0.1)
    assert "Planted label errors: 12 of 120 rows" in printed
    assert "No tagger was saved" in printed
    assert not (tmp_path / "tagger.json").exists()
    with (tmp_path / "simulated_label_errors.csv").open(encoding="utf-8", newline="") as file:
        errors = list(csv.DictReader(file))
    # Each label has words of its own: the first ones of the list are planted.
    assert sum(error["planted"] == "True" for error in errors[:24]) >= 6
    line = recipe.mistake(*flags, "--simulate_noise", 0.1, "--evaluate", "held_out")
    assert "--simulate_noise: needs --evaluate cross_validation" in line
    assert "earlier run" not in printed
    recipe(*flags)
    assert "is of an earlier run" in recipe(*flags, "--simulate_noise", 0.1)


@pytest.mark.parametrize("evaluate", ["held_out", "cross_validation"])
def test_one_label_that_some_texts_do_not_have(evaluate, recipe, tmp_path):
    rows = [
        {"text": f"{'cheap pills' if i % 2 else 'a meeting'} {i}", "labels": ["spam"] * (i % 2)}
        for i in range(60)
    ]
    data = write(tmp_path / "one.jsonl", rows)
    flags = ("--data", data, "--empty_labels", "negative", "--min_label_count", 1)
    folder = tmp_path / "out"
    recipe(*flags, "--evaluate", evaluate, "--refit", "true", "--output_dir", folder)
    assert (folder / "report.html").exists()
    assert (folder / "label_errors.csv").exists()


def test_held_out_labels_that_data_does_not_have_leave_the_report_as_it_is(recipe, tmp_path):
    words = {"a": "apple pie", "b": "boat trip", "c": "cat food"}
    rows = [
        {"text": f"{words[label]} {i}", "labels": [label]} for i in range(40) for label in words
    ]
    train = write(tmp_path / "train.jsonl", [row for row in rows if row["labels"] != ["c"]])
    test = write(tmp_path / "test.jsonl", [{**row, "text": f"{row['text']} x"} for row in rows])
    folder = tmp_path / "out"
    recipe("--data", train, "--test_data", test, "--output_dir", folder)
    metrics = read_json(folder / "metrics.json")
    page = (folder / "report.html").read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["single"]
    measures = data["calibration"]["measures"][-1]
    assert measures["ece"] == pytest.approx(metrics["test_ece"])
    assert measures["brier"] == pytest.approx(metrics["test_brier"])
    with (folder / "label_errors.csv").open(encoding="utf-8", newline="") as file:
        assert all(error["labels"] != "c" for error in csv.DictReader(file))
