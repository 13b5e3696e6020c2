import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from forks import run_script
from transformers import PreTrainedTokenizerBase

from shared.data.resampling import load_resampling
from shared.evaluation.metrics import f1_scores
from shared.methods.neighbours import NearestNeighbours
from shared.models.loading import load_encoder, load_tokenizer
from shared.taggers import load_tagger

SCRIPT = "recipes/embedding_lookup.py"


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--use_cpu", "--max_length", 48),
        *("--bf16", "false", "--evaluate", "held_out", "--refit", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("embedding_lookup", monkeypatch, capfd, *flags)


def predictions(folder):
    """Names of the labels, what is true, predicted and scored: each array (rows, labels)."""
    lines = read_lines(folder / "test_predictions.jsonl")
    names = sorted(lines[0]["scores"])
    true, labels = (
        np.array([[name in line[key] for name in names] for line in lines])
        for key in ("true_labels", "labels")
    )
    return names, true, labels, np.array([[line["scores"][n] for n in names] for line in lines])


def pooled(model, texts):
    """Vectors of length one, one text at a time."""
    import torch

    tokenizer = load_tokenizer(str(model))
    encoder = load_encoder(str(model), tokenizer=tokenizer).eval()
    rows = []
    for text in texts:
        ids = tokenizer(text, truncation=True, max_length=48, return_tensors="pt")
        with torch.no_grad():
            vector = encoder(**ids).last_hidden_state[0].mean(0).numpy()
        rows.append(vector / np.linalg.norm(vector))
    return np.array(rows)


@pytest.mark.parametrize("head", ["neighbours", "logistic"])
def test_figures_and_files(head, recipe, tmp_path):
    printed = recipe("--head", head)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    _, true, predicted, _ = predictions(tmp_path / "out")
    f1 = f1_scores(true, predicted)
    for name in ("micro_f1", "macro_f1"):
        assert metrics[f"test_{name}"] == f1[name]
        assert 0 < metrics[f"valid_{name}"] <= 1
    assert metrics["train_samples"] == 60
    plots = {path.name for path in (tmp_path / "out" / "plots").iterdir()}
    assert ("neighbours.png" in plots) == (head == "neighbours")
    assert "training_curve.png" not in plots
    assert f"micro F1 {f1['micro_f1']:.3f}" in printed
    assert "Tags of unlabelled texts, the most doubtful" in printed


def test_votes_are_those_of_the_nearest_texts_and_the_saved_index_gives_them_again(
    recipe, tiny_model, tmp_path
):
    recipe("--max_neighbours", 9)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    k, m = metrics["neighbours"], metrics["votes"]
    assert 1 <= m <= k <= 9
    _, _, predicted, scores = predictions(tmp_path / "out")
    tagger = load_tagger(tmp_path / "out")
    texts = [line["text"] for line in read_lines(tmp_path / "out" / "test_predictions.jsonl")]
    again = tagger.scorer.classifier(pooled(tiny_model, texts))
    # Where rounding swaps two neighbours at the same distance, one vote differs.
    assert np.isclose(tagger.calibrate(again), scores, atol=1e-5).mean() > 0.98
    assert (predicted == (np.rint(again * k) >= m)).mean() > 0.98
    assert tagger.scorer.classifier.k == k
    assert tagger.rule.thresholds == (m / k,) * 4
    assert tagger.label_names == ["bug", "documentation", "feature", "speed"]
    assert tagger.scorer.encoder.model == str(tiny_model)
    assert tagger.scorer.encoder.max_length == 48
    recipe("--head", "logistic")
    assert not (tmp_path / "out" / "plots" / "neighbours.png").exists()  # of the earlier run
    assert hasattr(load_tagger(tmp_path / "out").scorer.classifier, "weights")


def test_texts_with_one_label_each_get_the_most_frequent_of_their_neighbours(
    recipe, tiny_issues, monkeypatch, tmp_path
):
    rows = [row for row in read_lines(tiny_issues) if len(row["labels"]) == 1]
    searched, parts = [], []

    def resample(*args, **kwargs):
        resampling = load_resampling(*args, **kwargs)
        parts.extend(resampling.splits)
        return resampling

    class Spy(NearestNeighbours):
        def search(self, vectors, k, **options):
            searched.append(super().search(vectors, k, **options))
            return searched[-1]

    (tmp_path / "out" / "plots").mkdir(parents=True)
    (tmp_path / "out" / "plots" / "neighbours.png").touch()  # of an earlier run
    monkeypatch.setattr(recipe.module, "NearestNeighbours", Spy)
    monkeypatch.setattr(recipe.module, "load_resampling", resample)
    printed = recipe("--data", write(tmp_path / "one.jsonl", rows), "--max_neighbours", 12)
    names, _, predicted, scores = predictions(tmp_path / "out")
    metrics = read_json(tmp_path / "out" / "metrics.json")
    k = metrics["neighbours"]
    assert "votes" not in metrics
    assert f"best on validation: the label most frequent among the {k} nearest texts" in printed
    assert load_tagger(tmp_path / "out").rule.top_k == 1
    assert not (tmp_path / "out" / "plots" / "neighbours.png").exists()

    labels = load_tagger(tmp_path / "out").scorer.classifier.lookup.labels.argmax(axis=1)

    def most_votes(neighbours):
        actual = labels[neighbours].tolist()
        return max(actual, key=lambda label: (actual.count(label), -actual.index(label)))

    for_choice, test, *_ = searched
    assert for_choice.shape[1] == 12
    chosen = [most_votes(row) for row in test]
    np.testing.assert_array_equal(predicted, np.eye(len(names), dtype=bool)[chosen])
    np.testing.assert_array_equal(scores.argmax(axis=1), chosen)
    assert ((scores >= 0) & (scores <= 1)).all()
    # The k of the rule that is used, the first of the best on validation.
    y = parts[0].labels["valid"].argmax(axis=1)
    f1 = [np.mean([most_votes(row[:n]) for row in for_choice] == y) for n in range(1, 13)]
    assert k == np.argmax(f1) + 1
    assert metrics["valid_micro_f1"] == pytest.approx(max(f1))


def test_vectors_are_computed_once_for_all_seeds_and_sizes(recipe, monkeypatch, tmp_path):
    recipe()
    trainer = recipe.module.LengthGroupedTrainer
    monkeypatch.setattr(trainer, "predict", lambda *args: pytest.fail("embedded again"))
    for flags in ([], ["--train_size", 8], ["--seed", 7], ["--head", "logistic"]):
        recipe(*flags)
    with pytest.raises(pytest.fail.Exception, match="embedded again"):
        recipe("--max_length", 32)


def test_texts_are_tokenised_in_batches_and_their_tokens_kept_nowhere(
    recipe, monkeypatch, tmp_path
):
    # What one call of a tokenizer holds is whole texts, however few of their tokens are asked for.
    rng = np.random.default_rng(0)
    rows = [
        {"text": " ".join(map(str, rng.integers(10**6, size=4))), "labels": labels}
        for labels in [["a"], ["b"], ["a", "b"]] * 700
    ]
    sizes, tokens = [], []

    def tokenizer(self, text, **options):
        sizes.append(len(text))
        return tokenize(self, text, **options)

    def embed(self, rows):
        tokens.append(rows)
        return predict(self, rows)

    tokenize, predict = PreTrainedTokenizerBase.__call__, recipe.module.LengthGroupedTrainer.predict
    monkeypatch.setattr(PreTrainedTokenizerBase, "__call__", tokenizer)
    monkeypatch.setattr(recipe.module, "check_unknown_tokens", lambda *_: 0.0)
    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "predict", embed)
    recipe("--data", write(tmp_path / "many.jsonl", rows))
    assert sum(map(len, tokens)) == len(rows)
    assert sum(sizes) < 1.5 * len(rows)  # the verdict reads the test texts once more
    assert max(sizes) <= 1000
    for part in tokens:
        assert part.cache_files == []
        assert part.column_names == ["input_ids", "length"]
        assert part["length"] == [len(ids) for ids in part["input_ids"]]


@pytest.mark.parametrize("index", ["ivf", "hnsw"])
def test_an_approximate_index_is_saved_with_the_tagger(index, recipe, tmp_path):
    recipe("--index", index)
    tagger = load_tagger(tmp_path / "out")
    assert tagger.scorer.classifier.lookup.index_type == index
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")[:5]
    scores = tagger.scores([line["text"] for line in lines])
    for line, row in zip(lines, scores, strict=True):
        saved = [line["scores"][name] for name in tagger.label_names]
        assert row == pytest.approx(saved, abs=1e-5)


def test_the_nearest_training_texts_are_shown(recipe):
    printed = recipe("--query", "zzz", "--label_name_rows", 1)
    assert "Training texts nearest to: zzz" in printed
    table = recipe().partition("Training texts nearest to: ")[2].splitlines()
    cosines = [float(line.split()[0]) for line in table[1:6]]
    assert cosines == sorted(cosines, reverse=True)
    labels = ("bug", "documentation", "feature", "speed", "no label")
    assert all(line.rstrip().endswith(labels) for line in table[1:6])


def test_names_of_labels_stand_among_the_texts(recipe, tmp_path):
    recipe("--train_size", 8, "--label_name_rows", 2)
    lookup = load_tagger(tmp_path / "out").scorer.classifier.lookup
    assert lookup.labels.shape == (8 + 2 * 4, 4)
    np.testing.assert_array_equal(lookup.labels[8:], np.tile(np.eye(4), (2, 1)))
    assert read_json(tmp_path / "out" / "metrics.json")["train_samples"] == 8


def test_a_file_of_test_rows_of_its_own(recipe, tiny_issues, tmp_path):
    lines = tiny_issues.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:100]), encoding="utf-8")
    (tmp_path / "test.jsonl").write_text("".join(lines[90:120]), encoding="utf-8")
    recipe("--data", tmp_path / "train.jsonl", "--test_data", tmp_path / "test.jsonl")
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(1, 31))


def test_two_processes_give_the_figures_of_one(flags, tmp_path):
    process = launch(SCRIPT, *flags)
    assert "best on validation: a label applies if" in process.stdout
    assert "Warning" not in process.stderr
    one = read_json(tmp_path / "out" / "metrics.json")
    two_flags = [*flags, "--cache_dir", tmp_path / "other", "--output_dir", tmp_path / "two"]
    process = run_script(SCRIPT, *two_flags, processes=2)
    two = read_json(tmp_path / "two" / "metrics.json")
    for metrics in (one, two):
        for runtime in ("embed_runtime", "train_runtime", "test_runtime"):
            assert metrics.pop(runtime) > 0
    assert two == pytest.approx(one, abs=1e-4)
    assert process.stdout.count("Everything is in") == 1
    assert "Warning" not in process.stderr


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--max_neighbours", 0], "--max_neighbours 0: must be 1 or more"),
        (["--label_name_rows", -1], "--label_name_rows -1: must be 0 or more"),
        (["--max_length", 65], "--max_length 65: must be 3 to 64 tokens"),
        (["--train_size", 0], "--train_size 0: must be 1 or more"),
        (["--seed", -1], "--seed -1: must be 0 or more"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)


@pytest.mark.parametrize("head", ["neighbours", "logistic"])
def test_cross_validation_tests_every_text_and_all_texts_are_looked_up(head, recipe, tmp_path):
    flags = ["--head", head, "--evaluate", "auto", "--refit", "true", "--folds", 3]
    printed = recipe(*flags)
    assert "Out of fold (120 texts, 3 folds)" in printed
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert [line["row"] for line in lines] == list(range(1, 121))
    classifier = load_tagger(tmp_path / "out").scorer.classifier
    if head == "neighbours":
        assert "best on training texts: a label applies if" in printed
        assert len(classifier.lookup.labels) == 120
        # The k that is reported is that of the tagger, not that of a fold.
        assert read_json(tmp_path / "out" / "metrics.json")["neighbours"] == classifier.k
        assert (tmp_path / "out" / "plots" / "neighbours.png").is_file()


def test_a_prefix_of_the_texts_is_a_part_of_the_tagger(recipe, tmp_path):
    scores = []
    for number, prefix in enumerate(("", "crash slow crash ")):
        folder = tmp_path / f"out{number}"
        out = recipe("--text_prefix", prefix, "--output_dir", folder)
        assert ("before each text: 'crash slow crash '" in out) is bool(prefix)
        assert read_json(folder / "tagger.json")["encoder"]["text_prefix"] == prefix
        lines = read_lines(folder / "test_predictions.jsonl")
        tags = load_tagger(folder)([line["text"] for line in lines])
        scores.append([[line["scores"][name] for name in sorted(line["scores"])] for line in lines])
        again = [[tag["scores"][name] for name in sorted(tag["scores"])] for tag in tags]
        np.testing.assert_allclose(again, scores[-1], atol=1e-4)
    assert not np.allclose(*scores)  # the second run found no vectors of the first one
