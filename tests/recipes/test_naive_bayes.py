import numpy as np
import pytest
from command_line import PYTHON, TWO_PROCESSES, Recipe, read_json, read_lines, run

from shared.evaluation.decisions import tune_thresholds
from shared.evaluation.metrics import f1_scores
from shared.methods.baselines import fit_scorer, naive_bayes, tfidf_logistic_regression

LAUNCH = (
    *(PYTHON, "-m", "accelerate.commands.launch"),
    *("--config_file", "recipes/configs/accelerate/one_cpu.yaml"),
)
CLASSIFIERS = {"naive_bayes": naive_bayes, "logistic_regression": tfidf_logistic_regression}


@pytest.fixture
def recipe(monkeypatch, capfd, tiny_issues, tmp_path):
    flags = ("--data", tiny_issues, "--cache_dir", tmp_path / "cache", "--output_dir", tmp_path)
    return Recipe("naive_bayes", monkeypatch, capfd, *flags)


def labels_of(lines, names):
    return np.array([[name in line["true_labels"] for name in names] for line in lines])


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
    assert f"micro f1 | {f1['micro_f1']:.3f}" in card
    assert "pipeline(" not in card  # there is no model to load
    assert f"micro F1 {f1['micro_f1']:.3f}" in printed
    assert "Tags for texts without labels" in printed
    assert "tag.py" not in printed


def test_scores_are_those_of_the_classifier_and_thresholds_those_of_validation(
    recipe, tmp_path, monkeypatch
):
    seen = {}

    def spy(*fitted_on):
        score = fit_scorer(*fitted_on)

        def scorer(texts):
            seen["scores"].append(score(texts))
            return seen["scores"][-1]

        seen["scores"] = []
        return scorer

    def spy_tune(scores, labels, **options):
        assert scores is seen["scores"][0]
        seen["thresholds"] = tune_thresholds(scores, labels, **options)
        return seen["thresholds"]

    monkeypatch.setattr(recipe.module, "fit_scorer", spy)
    monkeypatch.setattr(recipe.module, "tune_thresholds", spy_tune)
    for thresholds in ("global", "per_label"):
        recipe("--thresholds", thresholds)
        lines = read_lines(tmp_path / "test_predictions.jsonl")
        names = sorted(lines[0]["scores"])
        scores = np.array([[line["scores"][name] for name in names] for line in lines])
        np.testing.assert_allclose(scores, seen["scores"][1], atol=1e-6)
        expected = f1_scores(labels_of(lines, names), seen["scores"][1] >= seen["thresholds"])
        metrics = read_json(tmp_path / "metrics.json")
        assert metrics["test_micro_f1"] == expected["micro_f1"]


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
        return fit_scorer(pipeline, texts, labels)

    monkeypatch.setattr(recipe.module, "fit_scorer", spy)
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


@pytest.mark.parametrize("launcher", [LAUNCH, TWO_PROCESSES])
def test_through_a_launcher(launcher, tiny_issues, tmp_path):
    process = run(
        *(*launcher, "recipes/naive_bayes.py", "--data", tiny_issues),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    )
    assert process.stdout.count("Everything is in") == 1
    assert "Warning" not in process.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--data", "nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--train_size", 61], "--train_size 61: the pool has 60 rows"),
        (["--label_column", "tags"], "no column 'tags'"),
        (["--classifier", "svm"], "--classifier"),
        (["--seed", -1], "--seed -1: must be 0 or more"),
        (["--augment", "shuffle"], "no augmentation 'shuffle'; there are synonym, swap"),
        (["--augment", "swap", "--copies", 0], "--copies 0: must be 1 or more"),
    ],
)
def test_mistakes(flags, expected, recipe):
    assert expected in recipe.mistake(*flags)
