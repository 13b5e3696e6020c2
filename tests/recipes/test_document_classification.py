import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from forks import run_script

from shared.evaluation.metrics import f1_scores
from shared.taggers import load_tagger

SCRIPT = "recipes/document_classification.py"


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--use_cpu", "--bf16", "false"),
        *("--window", 32, "--stride", 8, "--folds", 2, "--num_train_epochs", 1),
        *("--learning_rate", 2e-3, "--per_device_train_batch_size", 12),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("document_classification", monkeypatch, capfd, *flags)


@pytest.fixture
def trainings(recipe, monkeypatch):
    """The training rows of each fold that is trained."""
    actual = []
    original = recipe.module.LengthGroupedTrainer.train

    def spy(trainer, **options):
        actual.append(len(trainer.train_dataset))
        return original(trainer, **options)

    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "train", spy)
    return actual


def with_column(tiny_issues, path, column, values):
    rows = read_lines(tiny_issues)
    return write(path, [{**row, column: values(i)} for i, row in enumerate(rows)])


def test_every_document_is_scored_once_by_the_fold_that_held_it_out(recipe, tmp_path, tiny_issues):
    printed = recipe()
    out = tmp_path / "out"
    lines, metrics = read_lines(out / "oof_predictions.jsonl"), read_json(out / "metrics.json")
    assert [line["row"] for line in lines] == list(range(1, 121))
    rows = read_lines(tiny_issues)
    names = sorted(lines[0]["scores"])
    for line in lines:
        assert line["true_labels"] == sorted(rows[line["row"] - 1]["labels"])
    for number in (0, 1):
        held = [line for line in lines if line["fold"] == number]
        assert len(held) == 60
        scores = np.load(out / f"fold_{number}" / "scores.npz")["oof"]
        # The other fold calibrates them: their order, label by label, stays.
        written = np.array([[line["scores"][name] for name in names] for line in held])
        order = np.argsort(scores, axis=0)
        assert (np.diff(np.take_along_axis(written, order, axis=0), axis=0) >= -1e-6).all()
        assert not [*(out / f"fold_{number}").glob("checkpoint-*")]
    true, actual = (
        np.array([[name in line[key] for name in names] for line in lines])
        for key in ("true_labels", "labels")
    )
    assert metrics["oof_micro_f1"] == f1_scores(true, actual)["micro_f1"]
    assert metrics["tfidf_micro_f1"] > 0.8  # the words tell the labels
    for method in ("model", "tfidf", "frozen"):
        assert f"| {method} | {metrics[f'{method}_micro_f1']:.3f} ±" in printed
        assert 0.5 < metrics[f"{method}_roc_auc"] <= 1
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| tfidf |" in card
    assert f"--model {out} --data FILE" in card
    # The mean of the folds is a tagger.
    texts = [line["text"] for line in read_lines(out / "unlabelled_predictions.jsonl")]
    folds = [load_tagger(out / f"fold_{number}").scores(texts) for number in range(2)]
    mean = load_tagger(out)
    np.testing.assert_allclose(mean.raw_scores(texts), np.mean(folds, axis=0), atol=1e-6)
    assert mean.calibration is not None


def test_a_finished_fold_is_never_computed_again(recipe, trainings, tmp_path):
    out = tmp_path / "out"
    recipe()
    figures = read_json(out / "metrics.json")
    recipe()
    assert len(trainings) == 2
    (out / "fold_1" / "fold.json").unlink()
    recipe()
    assert len(trainings) == 3
    assert read_json(out / "metrics.json") == figures
    line = recipe.mistake("--num_train_epochs", 3)
    assert line.startswith(f"{out}/fold_0 was trained with other flags")


def test_an_interrupted_fold_goes_on_from_its_checkpoint(recipe, monkeypatch, tmp_path):
    out = tmp_path / "out"
    recipe("--num_train_epochs", 2, "--output_dir", tmp_path / "whole")
    trainer = recipe.module.LengthGroupedTrainer
    original = trainer.training_step

    def interrupted(self, *args, **options):
        if self.state.epoch >= 1 and "fold_1" in self.args.output_dir:
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(trainer, "training_step", interrupted)
    assert recipe.mistake("--num_train_epochs", 2, code=130) == "interrupted"
    monkeypatch.setattr(trainer, "training_step", original)
    assert [path.name for path in out.glob("fold_*/scores.npz")] == ["scores.npz"]
    line = recipe.mistake("--num_train_epochs", 2)
    assert f"{out}/fold_1 holds checkpoint-" in line
    recipe("--num_train_epochs", 2, "--resume_from_checkpoint", "true")
    whole = read_json(tmp_path / "whole" / "metrics.json")
    assert read_json(out / "metrics.json") == whole


def test_repeats_have_folds_of_their_own_and_a_mean(recipe, trainings, tmp_path):
    printed = recipe("--repeats", 2, "--seed", 7)
    folders = [tmp_path / "out", tmp_path / "out" / "repeat_2"]
    first, second = (read_json(folder / "metrics.json") for folder in folders)
    assert (first["seed"], second["seed"], first["repeats"]) == (7, 8, 2)
    folds = [
        [line["fold"] for line in read_lines(folder / "oof_predictions.jsonl")]
        for folder in folders
    ]
    assert folds[0] != folds[1]
    for name in ("oof_micro_f1", "oof_macro_f1", "tfidf_micro_f1"):
        values = first[name], second[name]
        assert first[f"{name}_mean"] == pytest.approx(np.mean(values))
        assert first[f"{name}_std"] == pytest.approx(np.std(values, ddof=1))
    assert "| oof_micro_f1 | " in printed
    assert "## Repeated cross-validation" in (tmp_path / "out" / "README.md").read_text()
    assert not (folders[1] / "unlabelled_predictions.jsonl").exists()
    assert len(trainings) == 4
    recipe("--repeats", 2, "--seed", 7)  # nothing is trained again
    assert len(trainings) == 4


def test_groups_are_held_out_whole(recipe, tmp_path, tiny_issues):
    authors = [{"login": f"user {number % 7}"} for number in range(132)]
    data = with_column(tiny_issues, tmp_path / "rows.jsonl", "user", lambda i: authors[i])
    recipe("--data", data, "--group_column", "user")
    fold_of = {}
    for line in read_lines(tmp_path / "out" / "oof_predictions.jsonl"):
        fold_of.setdefault((line["row"] - 1) % 7, set()).add(line["fold"])
    assert len(fold_of) == 7
    assert all(len(folds) == 1 for folds in fold_of.values())
    one = with_column(tiny_issues, tmp_path / "one.jsonl", "user", lambda i: "same")
    line = recipe.mistake("--data", one, "--group_column", "user")
    assert "are in only 1 groups" in line


def test_one_class_each_and_test_texts_by_all_folds(recipe, tmp_path, tiny_issues):
    rows = [{**row, "labels": row["labels"][:1]} for row in read_lines(tiny_issues)[:120]]
    data, test = write(tmp_path / "a.jsonl", rows[:90]), write(tmp_path / "b.jsonl", rows[90:])
    out = tmp_path / "out"
    flags = ("--pooling", "attention", "--n_layers", 2, "--head_sizes", 8, "--dropout_samples", 2)
    rates = ("--freeze", 1, "--layer_decay", 0.5, "--focus", 2, "--window_pooling", "max")
    recipe("--data", data, "--test_data", test, *flags, *rates)
    for part, size in (("oof", 90), ("test", 30)):
        lines = read_lines(out / f"{part}_predictions.jsonl")
        assert len(lines) == size
        for line in lines:
            assert sum(line["scores"].values()) == pytest.approx(1, abs=1e-5)
            assert line["labels"] == list(line["scores"])[:1]
    folds = [np.load(out / f"fold_{number}" / "scores.npz")["test"] for number in (0, 1)]
    names = sorted(lines[0]["scores"])
    mean = [[line["scores"][name] for name in names] for line in lines]
    calibrated = load_tagger(out).calibrate(np.mean(folds, axis=0))
    np.testing.assert_allclose(calibrated, mean, atol=1e-6)
    assert read_json(out / "metrics.json")["model_test_roc_auc"] > 0.5
    head = read_json(out / "fold_0" / "config.json")
    assert (head["pooling"], head["n_layers"], head["head_sizes"]) == ("attention", 2, [8])


def test_the_folds_tag_new_documents_together(recipe, monkeypatch, capfd, tmp_path, tiny_issues):
    rows = read_lines(tiny_issues)
    test = write(tmp_path / "test.jsonl", rows[90:120])
    data = write(tmp_path / "train.jsonl", rows[:90])
    recipe("--data", data, "--test_data", test)
    tag = Recipe("tag", monkeypatch, capfd, "--use_cpu")
    folders = [tmp_path / "out" / f"fold_{number}" for number in (0, 1)]
    tag("--model", *folders, "--data", test, "--output", tmp_path / "tagged.jsonl")
    expected = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    tagger = load_tagger(tmp_path / "out")
    for line, actual in zip(expected, read_lines(tmp_path / "tagged.jsonl"), strict=True):
        raw_scores = np.array([[actual["scores"][name] for name in tagger.label_names]])
        calibrated = dict(zip(tagger.label_names, tagger.calibrate(raw_scores)[0], strict=True))
        # A calibration can stretch the rounding of its input.
        assert calibrated == pytest.approx(line["scores"], abs=1e-3)
        assert {*actual["labels"]} == {*line["labels"]}


def test_labels_that_only_the_test_file_has_count_as_misses(recipe, tmp_path, tiny_issues):
    rows = read_lines(tiny_issues)[:120]
    for row in rows[90:100]:
        row["labels"] = ["foo"]
    data, test = write(tmp_path / "a.jsonl", rows[:90]), write(tmp_path / "b.jsonl", rows[90:])
    printed = recipe("--data", data, "--test_data", test)
    assert "b.jsonl has labels that --data does not have: foo 10; they count as misses" in printed
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert [line["true_labels"] for line in lines[:10]] == [["foo"]] * 10
    assert "foo" not in lines[0]["scores"]
    hits = sum(len(set(line["labels"]) & set(line["true_labels"])) for line in lines)
    size = sum(len(line["labels"]) + len(line["true_labels"]) for line in lines)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["test_micro_f1"] == pytest.approx(2 * hits / size)
    assert metrics["model_test_micro_f1"] == metrics["test_micro_f1"]


def test_a_label_on_fewer_texts_than_folds_is_named_and_no_obstacle(recipe, tmp_path, tiny_issues):
    rows = read_lines(tiny_issues)[:120]
    rows[0]["labels"] = ["bug", "rare"]
    printed = recipe("--data", write(tmp_path / "rare.jsonl", rows))
    assert "labels on fewer texts than the 2 folds: rare (1)" in printed
    assert read_json(tmp_path / "out" / "metrics.json")["model_roc_auc"] > 0


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (["--n_layers", 3], "--n_layers 3: must be 1 to 2"),
        (["--freeze", 3], "--freeze 3: the model has 2 layers"),
        (["--freeze", "half"], "--freeze half: must be none, embeddings, a number of layers"),
        (["--freeze", 1, "--from_scratch"], "--from_scratch: random weights cannot stay frozen"),
        (["--window", 65], "--window 65: must be 3 to 64 tokens"),
        (["--stride", 32], "--stride 32: must be 0 to 29"),
        (["--max_windows", 0], "--max_windows 0: must be 1 or more"),
        (["--folds", 1], "--folds 1: must be 2 or more"),
        (["--folds", 121], "--folds 121: the 120 texts are in only 120 groups"),
        (["--group_column", "repo"], "no column 'repo' (found: title, body, labels)"),
        (["--focus", -1], "--focus -1.0: must be 0 or more"),
        (["--layer_decay", 0], "--layer_decay 0.0: must be above 0"),
        (["--head_dropout", 1], "--head_dropout 1.0: must be 0 or more, below 1"),
        (["--head_sizes", 8, 0], "--head_sizes 0: must be 1 or more"),
        (["--eval_strategy", "epoch"], "--eval_strategy: must be no; every fold keeps"),
        (["--resume_from_checkpoint", "here"], "--resume_from_checkpoint: true or false"),
    ],
)
def test_mistakes_name_the_flag(mistake, expected, recipe, tmp_path):
    assert expected in recipe.mistake(*mistake)
    assert not [*tmp_path.glob("out/fold_*/*")]


def test_a_class_that_a_fold_has_no_row_of_is_noted(recipe, tmp_path, tiny_issues):
    rows = [{**row, "labels": row["labels"][:1]} for row in read_lines(tiny_issues)[:120]]
    rows[0]["labels"] = ["rare"]
    data = write(tmp_path / "rare.jsonl", rows)
    printed = recipe("--data", data, "--max_steps", 1)
    assert "note: labels on fewer texts than the 2 folds: rare (1)" in printed


def test_from_scratch_and_the_first_window_alone(recipe, tmp_path):
    recipe("--from_scratch", "--max_windows", 1, "--max_steps", 2)
    assert "model_micro_f1" in read_json(tmp_path / "out" / "metrics.json")


def test_a_health_check_leaves_no_fold(recipe, tmp_path):
    printed = recipe("--health_check")
    assert "Health" in printed
    assert "no text is truncated" in printed
    assert "reach the limit of 64 tokens" in recipe("--health_check", "--max_windows", 2)
    assert not [*tmp_path.glob("out/fold_*/fold.json")]


def test_through_accelerate_launch(flags):
    process = launch(SCRIPT, *flags)
    assert "Everything is in" in process.stdout
    assert process.stderr == ""


def test_two_processes_train_each_fold_together(recipe, flags, tmp_path):
    flags += ["--head_dropout", 0]  # each process has its own random numbers
    recipe("--head_dropout", 0)
    two = ["--output_dir", tmp_path / "two", "--per_device_train_batch_size", 6]
    process = run_script(SCRIPT, *flags, *two, processes=2)
    assert process.stdout.count("Everything is in") == 1
    one, two = (read_json(tmp_path / name / "metrics.json") for name in ("out", "two"))
    assert two == pytest.approx(one, abs=1e-4)


def test_a_regression_predicts_numbers_out_of_fold(recipe, tmp_path, tiny_issues):
    rows = read_lines(tiny_issues)
    for i, row in enumerate(rows):
        row["hours"] = None if i == 5 else 1000 + 3 * ("speed" in row["labels"]) + i % 2 / 10
        row["author"] = f"person {i % 9}"
    held_out, data = write(tmp_path / "test.jsonl", rows[:20]), tmp_path / "rows.jsonl"
    write(data, rows[10:])
    flags = ("--problem", "regression", "--label_column", "hours", "--data", data)
    line = recipe.mistake(*flags, "--label_column", "x")
    assert line.endswith("name the right one with --label_column")
    flags += ("--test_data", held_out, "--group_column", "author", "--num_train_epochs", 8)
    printed = recipe(*flags)
    out = tmp_path / "out"
    metrics, lines = read_json(out / "metrics.json"), read_lines(out / "oof_predictions.jsonl")
    # The words tell the numbers, which are far from 0; the tiny model learns a part of them.
    assert metrics["oof_r2"] > 0.1
    assert metrics["tfidf_r2"] > 0.3
    assert [line["true_value"] for line in lines] == [
        rows[line["row"] + 9]["hours"] for line in lines
    ]
    # Those that repeat a test row are in no fold, and an author is in one fold.
    assert {line["row"] for line in lines}.isdisjoint(range(1, 11))
    fold_of = {}
    for line in lines:
        author = rows[line["row"] + 9]["author"]
        assert fold_of.setdefault(author, line["fold"]) == line["fold"]
    errors = [abs(line["value"] - line["true_value"]) for line in lines]
    assert np.mean(errors) == metrics["oof_mae"]
    assert "tfidf" in printed
    assert len(read_lines(out / "test_predictions.jsonl")) == 19  # one has no number
    from transformers import pipeline

    import shared.models.heads  # noqa: F401

    models = [pipeline("text-classification", str(out / f"fold_{n}")) for n in range(2)]
    # The tiny texts have one window each if they are short.
    line = min(read_lines(out / "test_predictions.jsonl"), key=lambda line: len(line["text"]))
    options = {"function_to_apply": "none", "truncation": True}
    values = [model(line["text"], **options)[0]["score"] for model in models]
    assert np.mean(values) == pytest.approx(line["value"], abs=1e-2)
    assert "is no number" in recipe.mistake(*flags, "--label_column", "labels")
    assert "for labels, not" in recipe.mistake(*flags, "--focus", 1)
