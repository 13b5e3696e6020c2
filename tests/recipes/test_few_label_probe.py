import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from forks import run_script

from shared.evaluation.metrics import f1_scores
from shared.methods import CachedEmbedder
from shared.taggers import load_tagger

SCRIPT = "recipes/few_label_probe.py"
FOLDS = ("--evaluate", "cross_validation", "--refit", "true")


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--use_cpu", "--max_length", 48),
        *("--bf16", "false", "--evaluate", "held_out", "--refit", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("few_label_probe", monkeypatch, capfd, *flags)


def predicted(folder):
    """What is true and what is predicted: arrays of shape (rows, labels)."""
    lines = read_lines(folder / "test_predictions.jsonl")
    names = sorted(lines[0]["scores"])
    return (
        np.array([[name in line[key] for name in names] for line in lines])
        for key in ("true_labels", "labels")
    )


def test_figures_and_files(recipe, tmp_path):
    printed = recipe()
    metrics = read_json(tmp_path / "out" / "metrics.json")
    y, actual = predicted(tmp_path / "out")
    for name in ("micro_f1", "macro_f1"):
        assert metrics[f"test_{name}"] == f1_scores(y, actual)[name]
        assert 0 < metrics[f"valid_{name}"] <= 1
    # The encoder is random; the words tell the labels.
    assert metrics["test_micro_f1"] > 0.8
    assert f"micro F1 {metrics['test_micro_f1']:.3f}" in printed
    assert "Tags of unlabelled texts, the most doubtful" in printed


def test_every_text_has_a_label_where_every_training_text_has_one(recipe, tmp_path, tiny_issues):
    recipe("--train_size", 4)
    _, actual = predicted(tmp_path / "out")
    assert actual.any(axis=1).all()
    rows = read_lines(tiny_issues)
    for row in rows[:60]:
        row["labels"] = []
    data = write(tmp_path / "some_without.jsonl", rows)
    recipe("--data", data, "--empty_labels", "negative")
    _, actual = predicted(tmp_path / "out")
    assert not actual.any(axis=1).all()


def test_the_vocabulary_is_learned_from_training_and_unlabelled_texts_alone(
    recipe, monkeypatch, tmp_path, tiny_issues
):
    learned = []
    analysis = recipe.module.LatentSemanticAnalysis
    original = analysis.fit

    def spy(fit_texts, **options):
        learned.append(list(fit_texts))
        return original(fit_texts, **options)

    monkeypatch.setattr(analysis, "fit", spy)
    recipe("--train_size", 8)
    recipe("--train_size", 8, "--max_unlabelled", 5)
    assert [len(texts) for texts in learned] == [60 + 12, 8 + 5]  # the whole pool is read
    tested = {line["text"] for line in read_lines(tmp_path / "out" / "test_predictions.jsonl")}
    assert not tested & set(learned[0])
    assert set(learned[1]) < set(learned[0])


def test_the_name_of_a_label_is_an_example_of_it(recipe, tmp_path, tiny_issues):
    # Nobody has used the label; its name is one of the words.
    described = write(tmp_path / "described.yaml", "speed: [slow, memory latency]\n")
    flags = ["--train_size", 8, "--descriptions", described]
    recipe(*flags)
    named = read_json(tmp_path / "out" / "metrics.json")
    recipe(*flags, "--name_weight", 0)
    assert read_json(tmp_path / "out" / "metrics.json") != named
    described = write(tmp_path / "described.yaml", "fast: slow\n")
    assert "there is no label 'fast'" in recipe.mistake("--descriptions", described)


def test_wide_features_are_saved_with_the_tagger(recipe, inputs, tmp_path):
    recipe("--features", "wide")
    assert inputs[0].tfidf["train"].shape[0] == 60
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    tags = load_tagger(tmp_path / "out")([line["text"] for line in lines])
    for tag, line in zip(tags, lines, strict=True):
        assert tag["labels"] == line["labels"]
        assert tag["scores"] == pytest.approx(line["scores"], abs=1e-4)
    # The texts have titles, which double the width of the vectors.
    recipe("--features", "auto")
    wide, narrow = inputs
    assert narrow.tfidf is None
    assert wide.embeddings["train"].shape[1] == 2 * narrow.embeddings["train"].shape[1]


def test_static_embeddings_are_saved_with_the_tagger(recipe, tmp_path):
    for features in ("narrow", "wide"):
        recipe("--encoder", "static", "--features", features)
        lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
        assert read_json(tmp_path / "out" / "tagger.json")["encoder"] is None
        moved = (tmp_path / "out").rename(tmp_path / features)
        tags = load_tagger(moved)([line["text"] for line in lines])
        for tag, line in zip(tags, lines, strict=True):
            assert tag["labels"] == line["labels"]
            assert tag["scores"] == pytest.approx(line["scores"], abs=1e-4)


@pytest.mark.parametrize("encoder", ["transformer", "static"])
def test_the_side_of_the_truncation_is_saved_with_the_tagger(recipe, tmp_path, encoder):
    flags = ("--max_length", 8, "--train_size", 16, "--encoder", encoder, "--features", "narrow")
    flags += ("--tag_unlabelled", 0, "--self_training", 0)
    vectors = {}
    for side in ("left", "right"):
        recipe(*flags, "--truncation_side", side)  # with the cache of the run before
        lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
        texts = [line["text"] for line in lines]
        tagger = load_tagger(tmp_path / "out", cache_dir=tmp_path / "cache")
        for tag, line in zip(tagger(texts), lines, strict=True):
            assert tag["scores"] == pytest.approx(line["scores"], abs=1e-4)
        vectors[side] = tagger.scorer.embed(texts)
        # One side of a text is read alone.
        words = texts[0].split()
        half = " ".join(words[-10:] if side == "left" else words[:10])
        np.testing.assert_allclose(tagger.scorer.embed([half])[0], vectors[side][0], atol=1e-5)
        assert len(words) > 20
    assert (np.abs(vectors["left"] - vectors["right"]).max(axis=1) > 1e-3).all()


@pytest.fixture
def inputs(recipe, monkeypatch):
    """The `ProbeInputs` of each fit, in order."""
    seen, original = [], recipe.module.ProbeInputs

    def spy(**values):
        seen.append(original(**values))
        return seen[-1]

    monkeypatch.setattr(recipe.module, "ProbeInputs", spy)
    return seen


def test_it_teaches_itself_with_unlabelled_texts(recipe, inputs):
    recipe("--train_size", 8)  # 52 of the pool, 12 that never had a label
    recipe("--train_size", 8, "--self_training", 6)
    recipe("--train_size", 8, "--max_unlabelled", 5)
    recipe()
    sizes = [(len(i.labels["train"]), len(i.embeddings["extra"])) for i in inputs]
    assert sizes == [(8, 64), (8, 58), (8, 5), (60, 12)]
    assert "0 rounds of self-training" in recipe("--train_size", 8, "--self_training", 0)


@pytest.mark.parametrize(
    ("used", "texts"),
    [
        (["--train_size", 8], 8 + 60 + 52 + 12),  # training, held-out, left-out, unlabelled texts
        (["--train_size", 8, "--max_unlabelled", 5], 8 + 60 + 5 + 12),
        (["--train_size", 8, "--max_unlabelled", 0], 8 + 60),
        (["--train_size", 8, "--self_training", 0], 8 + 60),
        (FOLDS, 120 + 12),
    ],
)
def test_only_the_texts_that_are_used_are_embedded(recipe, monkeypatch, used, texts):
    monkeypatch.setattr("shared.methods.embeddings.EMBED_ALL", 10)
    embedded, compute = [], CachedEmbedder._compute
    monkeypatch.setattr(
        CachedEmbedder, "_compute", lambda self, rows: embedded.extend(rows) or compute(self, rows)
    )
    recipe(*used, "--name_weight", 0, "--tag_unlabelled", 0, "--features", "narrow")
    assert len(embedded) == len(set(embedded)) <= texts
    # Of 12 unlabelled texts, those that repeat a held-out text are used, too.
    assert len(embedded) >= texts - 12


def test_cross_validation_tests_every_text_and_all_texts_teach_the_tagger(recipe, inputs, tmp_path):
    printed = recipe("--evaluate", "auto", "--refit", "true", "--folds", 4)
    assert [len(i.labels["train"]) for i in inputs] == [90, 90, 90, 90, 120]
    assert "Out of fold (120 texts, 4 folds)" in printed
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(1, 121))
    y, actual = predicted(tmp_path / "out")
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["test_micro_f1"] == f1_scores(y, actual)["micro_f1"] > 0.8
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "fitted on all 120 labelled texts" in card
    # The tagger has seen these texts, so that it is better on them than the folds were.
    tags = load_tagger(tmp_path / "out")([line["text"] for line in lines])
    pairs = zip(tags, lines, strict=True)
    right = [set(tag["labels"]) == set(line["true_labels"]) for tag, line in pairs]
    assert np.mean(right) > metrics["test_subset_accuracy"]


def test_settings_that_validation_chose_are_those_of_all_rows(recipe, monkeypatch, tmp_path):
    fits, fit = [], recipe.module.fit_with_self_training

    def spy(inputs, settings, choose):
        fits.append((len(inputs.labels["train"]), settings))
        return fit(inputs, settings, choose)

    monkeypatch.setattr(recipe.module, "fit_with_self_training", spy)
    recipe("--refit", "true")
    assert [n for n, _ in fits] == [60, 120]
    assert fits[0][1] == fits[1][1]


def test_two_runs_and_two_processes_give_the_same_figures(recipe, flags, tmp_path):
    figures = []
    for _ in range(2):
        recipe()
        figures.append(read_json(tmp_path / "out" / "metrics.json"))
    for name in ("one", "two"):
        folders = ["--cache_dir", tmp_path / name / "cache", "--output_dir", tmp_path / name]
        words = (SCRIPT, *flags, *folders)
        process = launch(*words) if name == "one" else run_script(*words, processes=2)
        assert process.stdout.count("Everything is in") == 1
        assert "Warning" not in process.stderr
        figures.append(read_json(tmp_path / name / "metrics.json"))
    for metrics in figures:
        for runtime in ("embed_runtime", "train_runtime", "test_runtime"):
            assert metrics.pop(runtime) > 0
    assert figures[0] == figures[1]
    for metrics in figures[2:]:
        assert metrics == pytest.approx(figures[0], abs=1e-4)


def test_data_without_unlabelled_texts(recipe, tmp_path, tiny_issues):
    data = write(tmp_path / "labelled.jsonl", read_lines(tiny_issues)[:120])
    assert "Tags of unlabelled texts" not in recipe("--data", data)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--encoder", "static", "--text_prefix", "x"], "--text_prefix: static embeddings have no"),
        (["--vocabulary_size", 0], "--vocabulary_size 0: must be 1 or more"),
        (["--name_weight", -1], "--name_weight -1.0: must be 0 or more"),
        (["--self_training", -1], "--self_training -1: must be 0 or more"),
        (["--max_unlabelled", -1], "--max_unlabelled -1: must be 0 or more"),
        (["--train_size", 61], "--train_size 61: the pool has 60 rows"),
        ([*FOLDS, "--train_size", 8], "uses all labelled rows; remove --train_size"),
        ([*FOLDS, "--refit", "false"], "uses all labelled rows; remove --refit false"),
        ([*FOLDS, "--folds", 1], "--folds 1: must be 2 or more"),
        ([*FOLDS, "--folds", 121], "--folds 121: the 120 texts"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)
