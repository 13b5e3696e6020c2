import numpy as np
import pytest
from command_line import Recipe, read_json, read_lines, write

from shared.taggers import load_tagger


@pytest.fixture
def flags(tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_model, "--data", tiny_issues, "--cache_dir", tmp_path / "cache"),
        *("--use_cpu", "--bf16", "false", "--max_length", 48, "--train_size", 24),
        *("--num_train_epochs", 2, "--learning_rate", 5e-3, "--augment_share", 0.1),
        *("--supervised_epochs", 10, "--supervised_learning_rate", 5e-3),
        *("--per_device_train_batch_size", 8, "--unlabelled_ratio", 2, "--copies", 2),
        *("--augmentations", "tfidf", "--tag_unlabelled", 0, "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("uda", monkeypatch, capfd, *flags)


@pytest.fixture
def single_label(tiny_issues, tmp_path):
    """Path of the tiny issues with one label each."""
    rows = [{**row, "labels": row["labels"][:1]} for row in read_lines(tiny_issues)]
    return write(tmp_path / "single.jsonl", rows)


def figures(folder):
    """All figures but those that depend on the clock."""
    metrics = read_json(folder / "metrics.json")
    return {k: v for k, v in metrics.items() if "runtime" not in k and "per_second" not in k}


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def test_several_labels_per_text(recipe, tmp_path):
    printed = recipe()
    assert "split: 24 train, 0 valid, 30 test texts" in printed
    assert "unlabelled: 78 of 78 texts" in printed  # 66 rows left out of the training set, and 12
    metrics = figures(tmp_path / "out")
    assert metrics["n_unlabelled"] == 78
    assert metrics["collapse"] is None
    assert 0 <= metrics["supervised_test_micro_f1"] <= 1
    changed = (
        f"{metrics['changed_labels']:.1%} of the unlabelled texts got other labels than before"
    )
    assert changed in printed
    tagger, lines = (
        load_tagger(tmp_path / "out"),
        read_lines(tmp_path / "out/test_predictions.jsonl"),
    )
    expected = [[line["scores"][label] for label in tagger.label_names] for line in lines]
    scores = tagger.scores([line["text"] for line in lines])
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    folders = {path.name for path in (tmp_path / "out").iterdir() if path.is_dir()}
    assert folders == {"plots"}
    assert "TrainOutput" not in printed


def test_every_text_gets_a_label_where_none_is_likely(recipe, tmp_path):
    recipe("--learning_rate", 1e-12, "--supervised_learning_rate", 1e-12)  # the fitted head stays
    lines = read_lines(tmp_path / "out/test_predictions.jsonl")
    assert all(line["labels"] for line in lines)
    assert any(max(line["scores"].values()) < 0.5 for line in lines)


def test_one_label_per_text(recipe, tmp_path, single_label):
    recipe("--data", single_label, "--annealing", "linear", "--truncation_side", "left")
    metrics = figures(tmp_path / "out")
    assert metrics["test_accuracy"] == metrics["test_micro_f1"]
    tagger, lines = (
        load_tagger(tmp_path / "out"),
        read_lines(tmp_path / "out/test_predictions.jsonl"),
    )
    assert all(sum(line["scores"].values()) == pytest.approx(1, abs=1e-4) for line in lines)
    long = " ".join([line["text"] for line in lines[:5]])  # its end alone is read
    end = tagger.scores([long.partition(" ")[2]])
    np.testing.assert_allclose(tagger.scores([long]), end, atol=1e-5)


def test_unlabelled_texts_move_the_model_beyond_the_labelled_ones(recipe, tmp_path, monkeypatch):
    recipe()
    moved = weights(tmp_path / "out")
    recipe("--consistency_weight", 0)
    assert weights(tmp_path / "out") != moved


def test_predictions_keep_the_shares_of_the_labelled_texts(recipe, tmp_path, single_label):
    rows = read_lines(single_label)
    bugs = [row for row in rows if row["labels"] == ["bug"]]
    others = [row for row in rows if row["labels"] not in (["bug"], [])]
    # With the words in another order, these are other texts.
    texts = [" ".join(sorted(row["body"].split())) for row in bugs + others[:30]]
    unlabelled = write(tmp_path / "unlabelled.jsonl", [{"body": text} for text in texts])
    at = recipe.flags.index("--train_size")
    recipe.flags = recipe.flags[:at] + recipe.flags[at + 2 :]
    flags = ["--unlabelled_data", unlabelled]
    flags += [
        "--learning_rate",
        1e-12,
        "--supervised_learning_rate",
        1e-12,
    ]  # the fitted head stays
    shares = {}
    for name, more in {
        "aligned": [],
        "again, with all labelled texts": ["--refit"],
        "not aligned": ["--alignment", "false"],
    }.items():
        printed = recipe("--data", single_label, *flags, *more)
        assert "unlabelled: 60 of 60 texts" in printed
        tagger = load_tagger(tmp_path / "out")
        shares[name] = tagger.scores(texts).mean(axis=0)
        line = "% of the unlabelled texts, as of the labelled ones, instead of "
        assert (line in printed) == (name != "not aligned")
    # A quarter of the labelled texts has each label, and half of the unlabelled ones are bugs.
    assert shares.pop("not aligned")[tagger.label_names.index("bug")] > 0.35
    for values in shares.values():
        np.testing.assert_allclose(values, 0.25, atol=0.015)


def test_a_collapse_keeps_the_supervised_model(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe.module, "describe_collapse", lambda *_: "'bug' fell to nothing")
    printed = recipe()
    metrics = figures(tmp_path / "out")
    assert metrics["collapse"] == "'bug' fell to nothing"
    assert metrics["test_micro_f1"] == metrics["supervised_test_micro_f1"]
    assert "'bug' fell to nothing" in printed
    assert "'bug' fell to nothing" in (tmp_path / "out" / "README.md").read_text()
    # The weights in the folder are those of the figures.
    tagger, lines = (
        load_tagger(tmp_path / "out"),
        read_lines(tmp_path / "out/test_predictions.jsonl"),
    )
    expected = [[line["scores"][label] for label in tagger.label_names] for line in lines]
    scores = tagger.scores([line["text"] for line in lines])
    np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("collapses", ["neither", "the first training", "the second one"])
def test_a_refit_learns_from_all_labelled_rows(recipe, tmp_path, monkeypatch, collapses):
    at = recipe.flags.index("--train_size")
    recipe.flags = recipe.flags[:at] + recipe.flags[at + 2 :]
    flags = ("--test_size", 0.7, "--num_train_epochs", 1)
    recipe(*flags, "--output_dir", tmp_path / "once")
    trained, refit = [], recipe.module.train_again
    answers = {"neither": [None, None], "the first training": ["lost"]}
    answers = answers.get(collapses, [None, "lost"])
    monkeypatch.setattr(recipe.module, "describe_collapse", lambda *_: answers.pop(0))
    monkeypatch.setattr(
        recipe.module, "train_again", lambda *args: trained.append(args[0]) or refit(*args)
    )
    printed = recipe(*flags, "--refit")
    assert [len(trainer.train_dataset) for trainer in trained] == [120] * len(trained)
    assert not answers
    names = [type(trainer).__name__ for trainer in trained]
    card = (tmp_path / "out" / "README.md").read_text()
    if collapses == "the second one":
        assert "This training collapsed: lost. The first tagger is kept." in printed
        assert weights(tmp_path / "out") == weights(tmp_path / "once")
        assert "refit_samples" not in figures(tmp_path / "out")
        return
    assert weights(tmp_path / "out") != weights(tmp_path / "once")
    assert figures(tmp_path / "out")["refit_samples"] == 120
    assert "then fitted on all 120 labelled texts" in card
    if collapses == "neither":
        assert names == ["LengthGroupedTrainer", "ConsistencyTrainer"]
        same = figures(tmp_path / "out")
        assert {k: v for k, v in same.items() if k != "refit_samples"} == figures(tmp_path / "once")
    else:
        assert names == ["LengthGroupedTrainer"]
        assert "collapsed: lost. The model of the labelled texts alone is kept." in card


def test_after_a_collapse_the_test_set_is_not_predicted_again(recipe, monkeypatch):
    predicted, predict = [], recipe.module.LengthGroupedTrainer.predict

    def spy(trainer, dataset, **options):
        predicted.append(options.get("metric_key_prefix"))
        return predict(trainer, dataset, **options)

    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "predict", spy)
    monkeypatch.setattr(recipe.module, "describe_collapse", lambda *_: "lost")
    recipe()
    assert predicted.count("test") == 1


def test_a_training_that_diverges_keeps_the_supervised_model(recipe, tmp_path, monkeypatch):
    loss = recipe.module.ConsistencyLoss

    class Broken(loss):
        def __call__(self, *args):
            return super().__call__(*args) * float("nan")

    monkeypatch.setattr(recipe.module, "ConsistencyLoss", Broken)
    recipe()
    metrics = figures(tmp_path / "out")
    assert metrics["collapse"] == "the loss is not finite at step 1"
    assert metrics["changed_labels"] is None


@pytest.mark.parametrize(("rate", "change"), [(1e-12, "none"), (0.05, "some")])
def test_the_share_of_changed_labels_is_that_of_the_training(recipe, tmp_path, rate, change):
    recipe("--learning_rate", rate)
    changed = figures(tmp_path / "out")["changed_labels"]
    assert (changed == 0) == (change == "none")


@pytest.mark.parametrize("stage", ["LengthGroupedTrainer", "ConsistencyTrainer"])
def test_an_interrupted_run_is_resumed_exactly(recipe, tmp_path, monkeypatch, stage, single_label):
    recipe.flags = [*recipe.flags, "--data", single_label, "--dropout", 0.1]
    recipe()
    expected = figures(tmp_path / "out"), weights(tmp_path / "out")
    again = ("--output_dir", tmp_path / "again")
    with monkeypatch.context() as patch:

        class Interrupted(getattr(recipe.module, stage)):
            def _save_checkpoint(self, *args):
                super()._save_checkpoint(*args)
                raise KeyboardInterrupt

        patch.setattr(recipe.module, stage, Interrupted)
        with pytest.raises(KeyboardInterrupt):
            recipe(*again)
    assert "tagger.json" not in [path.name for path in (tmp_path / "again").iterdir()]
    recipe(*again, "--resume_from_checkpoint", "true")
    assert (figures(tmp_path / "again"), weights(tmp_path / "again")) == expected


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train_size", 2, "--data", "single"], "have no example of 2 of 4 classes"),
        (["--data", "labelled", "--train_size", 90], "--data has no unlabelled text to train on"),
        (["--augmentations", "shuffle"], "there is no augmentation 'shuffle'"),
        (
            ["--dataloader_persistent_workers", "true"],
            "the copies of the first epoch in all epochs",
        ),
        (["--resume_from_checkpoint", "folder"], "true or false; this recipe trains twice"),
    ],
)
def test_mistakes_end_in_one_line(recipe, flags, message, tmp_path, single_label):
    rows = [row for row in read_lines(single_label) if row["labels"]]
    files = {"single": single_label, "labelled": write(tmp_path / "labelled.jsonl", rows)}
    assert message in recipe.mistake(*(files.get(word, word) for word in flags))
