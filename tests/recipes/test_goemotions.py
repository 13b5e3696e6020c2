"""Many labels from the command line: both architectures, their files, and what stops them."""

import csv
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import Recipe, change_json, load_recipe, read_json, read_lines, write
from safetensors.torch import load_file
from sklearn.metrics import classification_report
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import shared.models.heads  # noqa: F401  (makes transformers know the head)
from shared.taggers import load_tagger
from shared.training.optimization import GradualUnfreezing

SCRIPT = "recipes/goemotions.py"
ARCHITECTURES = ("pretrained", "scratch")
LABELS = ["bug", "documentation", "feature", "speed"]
both = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.fixture(scope="module")
def flags(tiny_model, tiny_issues, tmp_path_factory):
    """Flags of a short run: 60, 30 and 30 rows, at most 10 epochs of 5 steps."""
    cache = tmp_path_factory.mktemp("cache")

    def of(architecture, folder):
        return [
            *("--architecture", architecture, "--model", tiny_model, "--data", tiny_issues),
            *("--cache_dir", cache, "--output_dir", folder, "--use_cpu", "--bf16", "false"),
            *("--max_length", 44, "--vocab_size", 300, "--hidden_size", 32),
            *("--num_attention_heads", 2, "--intermediate_size", 64, "--num_hidden_layers", 2),
            *("--num_train_epochs", 10, "--per_device_train_batch_size", 12),
            *("--learning_rate", 1e-2 if architecture == "scratch" else 5e-3),
        ]

    return of


@pytest.fixture(scope="module")
def trained(flags, tmp_path_factory):
    """The folders of a finished run of each architecture."""
    folders = {name: tmp_path_factory.mktemp("trained") / name for name in ARCHITECTURES}
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in folders.items():
            patch.setattr(sys, "argv", [SCRIPT, *map(str, flags(name, folder))])
            load_recipe("goemotions").main()
    return folders


@pytest.fixture
def recipe(monkeypatch, capfd):
    return Recipe("goemotions", monkeypatch, capfd)


class Stopped(Exception):
    """Carries the Trainer of a recipe that was stopped before its training."""


@pytest.fixture
def trainer_of(recipe, flags, tmp_path, monkeypatch):
    """Call the recipe up to its training; return the Trainer it has built."""

    def stop(trainer, **_):
        trainer.create_optimizer()
        raise Stopped(trainer)

    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "train", stop)
    monkeypatch.setattr(recipe.module, "fit_head", lambda *_, **__: None)

    def call(architecture, *more):
        with pytest.raises(Stopped) as stopped:
            recipe(*flags(architecture, tmp_path / "out"), *more)
        return stopped.value.args[0]

    return call


@both
def test_a_refit_saves_another_model_with_the_same_figures(
    architecture, trained, recipe, flags, tmp_path
):
    recipe(*flags(architecture, tmp_path), "--refit", "true")
    expected, actual = (read_json(f / "metrics.json") for f in (trained[architecture], tmp_path))
    timings = [name for name in actual if name.endswith(("_runtime", "_per_second"))]
    assert actual == expected | {name: actual[name] for name in (*timings, "refit_samples")}
    assert actual["refit_samples"] == 120
    weights = [load_file(f / "model.safetensors") for f in (trained[architecture], tmp_path)]
    assert weights[0].keys() == weights[1].keys()
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "was then fitted on all 120" in (tmp_path / "README.md").read_text("utf-8")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("checkpoint", "."))]
    assert load_tagger(tmp_path)("crash error segfault")["labels"]


def predicted(folder):
    """Test texts, what is true and what is predicted: bool arrays of shape (rows, labels)."""
    lines = read_lines(folder / "test_predictions.jsonl")
    arrays = (
        np.array([[name in line[key] for name in LABELS] for line in lines])
        for key in ("true_labels", "labels")
    )
    return lines, *arrays


# --- a finished run ------------------------------------------------------------------------------


@both
def test_it_learns(trained, architecture):
    metrics = read_json(trained[architecture] / "metrics.json")
    assert metrics["test_micro_f1"] > 0.8
    assert metrics["test_micro_f1_low"] < metrics["test_micro_f1"] < metrics["test_micro_f1_high"]


@both
def test_the_table_of_labels_is_that_of_scikit_learn(trained, architecture):
    _, y, actual = predicted(trained[architecture])
    expected = classification_report(
        y, actual, target_names=LABELS, output_dict=True, zero_division=0
    )
    with open(trained[architecture] / "per_label.csv", encoding="utf-8", newline="") as file:
        rows = {row["label"]: row for row in csv.DictReader(file)}
    for name in LABELS:
        for column, key in (("precision",) * 2, ("recall",) * 2, ("f1", "f1-score")):
            assert float(rows[name][column]) == pytest.approx(expected[name][key], abs=1e-4)
        assert int(rows[name]["support"]) == expected[name]["support"]
    metrics = read_json(trained[architecture] / "metrics.json")
    for name in ("micro", "macro"):
        value = expected[f"{name} avg"]["f1-score"]
        assert metrics[f"test_{name}_f1"] == pytest.approx(value)


@both
def test_the_pipeline_and_the_recipe_tag_give_the_same_scores(
    trained, architecture, tiny_issues, monkeypatch, capfd, tmp_path
):
    lines, _, actual = predicted(trained[architecture])
    folder = str(trained[architecture])
    calibrate, raw_scores = load_tagger(folder).calibrate, []
    tagger = pipeline("text-classification", model=folder, top_k=None)
    for scores in tagger([line["text"] for line in lines], truncation=True):
        by_name = {score["label"]: score["score"] for score in scores}
        raw_scores.append([by_name[name] for name in LABELS])
    written = [[line["scores"][name] for name in LABELS] for line in lines]
    np.testing.assert_allclose(calibrate(np.array(raw_scores)), written, atol=1e-4)
    assert (actual == (np.array(raw_scores) >= tagger.model.config.thresholds)).all()

    tag = Recipe("tag", monkeypatch, capfd, "--model", folder, "--use_cpu")
    tag("--data", tiny_issues, "--output", tmp_path / "tagged.jsonl")
    tagged = read_lines(tmp_path / "tagged.jsonl")
    for line in lines:
        other = tagged[line["row"] - 1]
        assert other["scores"] == pytest.approx(line["scores"], abs=1e-4)
        assert other["labels"] == line["labels"]


@both
def test_the_whole_text_counts_and_the_padding_does_not(trained, architecture):
    # A mask the wrong way round would do the opposite.
    model = AutoModelForSequenceClassification.from_pretrained(trained[architecture]).eval()
    tokenizer = AutoTokenizer.from_pretrained(trained[architecture])
    short, long = "crash in the loading of a model", "docs " * 30
    with torch.no_grad():
        alone = model(**tokenizer(short, return_tensors="pt")).logits[0]
        batch = tokenizer([short, long], return_tensors="pt", padding=True, truncation=True)
        torch.testing.assert_close(model(**batch).logits[0], alone, atol=1e-5, rtol=0)
        words = short.split()
        for i in range(len(words)):
            other = " ".join([*words[:i], "typo", *words[i + 1 :]])
            changed = model(**tokenizer(other, return_tensors="pt")).logits[0]
            assert (changed - alone).abs().max() > 1e-4


@both
def test_a_stopped_run_ends_where_an_uninterrupted_one_ends(
    trained, architecture, recipe, flags, tmp_path, monkeypatch
):
    step = recipe.module.LengthGroupedTrainer.training_step

    def break_down(trainer, *args, **kwargs):
        if trainer.state.global_step == 12:
            raise Stopped
        return step(trainer, *args, **kwargs)

    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "training_step", break_down)
    command = flags(architecture, tmp_path)
    with pytest.raises(Stopped):
        recipe(*command)
    monkeypatch.setattr(recipe.module.LengthGroupedTrainer, "training_step", step)
    assert "of an unfinished run" in recipe.mistake(*command)
    printed = recipe(*command, "--resume_from_checkpoint", "true")
    assert "epoch  2.00" not in printed
    expected = load_file(trained[architecture] / "model.safetensors")
    actual = load_file(tmp_path / "model.safetensors")
    for name, weights in expected.items():
        assert torch.equal(actual[name], weights), name
    assert (tmp_path / "test_predictions.jsonl").read_bytes() == (
        trained[architecture] / "test_predictions.jsonl"
    ).read_bytes()


def test_the_card_says_how_to_load_the_model(trained):
    for folder in trained.values():
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert f'tagger = load_tagger("{folder}")' in card
        assert f'model="{folder}", top_k=None, trust_remote_code=True)' in card
        assert "Predicts which of 4 labels a text has: none, one or several." in card
        assert (folder / "heads.py").is_file()


def test_pushing_sends_card_and_tagger_and_no_pickle(recipe, flags, tmp_path, monkeypatch):
    commits = []

    class Hub:
        def __init__(self, token=None):
            pass

        def create_repo(self, name, **_):
            return SimpleNamespace(repo_id=f"someone/{name}")

        def create_commit(self, _, operations, **__):
            commits.append({operation.path_in_repo for operation in operations})
            return SimpleNamespace(commit_url="https://hub/commit")

    # Every way to the hub: those of the Trainer raise an error.
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setattr("transformers.Trainer.init_hf_repo", None)
    monkeypatch.setattr("transformers.Trainer.push_to_hub", None)
    options = ("--num_train_epochs", 1, "--hub_strategy", "every_save")
    printed = recipe(*flags("scratch", tmp_path / "out"), "--push_to_hub", *options)
    assert "files: https://hub/commit" in printed
    assert [*map(sorted, commits)] == [
        [
            *("README.md", "config.json", "heads.py", "metrics.json", "model.safetensors"),
            *("per_label.csv", "plots/label_counts.png", "plots/training_curve.png"),
            *("plots/words_per_text.png", "report.html", "tagger.json"),
            *("tokenizer.json", "tokenizer_config.json", "transformer.py"),
        ]
    ]
    assert "Verdict\n- " in printed


# --- what is built -------------------------------------------------------------------------------


def test_the_sizes_from_scratch_are_those_of_the_flags(trainer_of, recipe, monkeypatch):
    learned = []
    original = recipe.module.train_tokenizer

    def spy(texts, *args):
        learned.extend(texts)
        return original(texts, *args)

    monkeypatch.setattr(recipe.module, "train_tokenizer", spy)
    trainer = trainer_of("scratch", "--dropout", 0.3, "--head_dropout", 0.2)
    assert learned == trainer.train_dataset["text"]  # and no others
    model = trainer.model
    config = model.config.get_text_config()
    assert config.vocab_size == len(trainer.processing_class) <= 300
    assert (config.hidden_size, config.num_hidden_layers, config.intermediate_size) == (32, 2, 64)
    assert config.num_attention_heads == 2
    assert config.max_position_embeddings == 48  # 44, and what a batch is padded to
    assert model.config.pooling == "max"
    assert (config.dropout, model.config.head_dropout) == (0.3, 0.2)
    assert len({group["lr"] for group in trainer.optimizer.param_groups}) == 1
    assert trainer_of("scratch", "--pooling", "mean").model.config.pooling == "mean"


def test_rates_fall_with_depth_and_the_head_has_its_own(trainer_of, tiny_model):
    trainer = trainer_of(
        *("pretrained", "--layer_decay", 0.5, "--head_learning_rate", 1, "--weight_decay", 0.1)
    )
    model, rates, decays = trainer.model, {}, {}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            rates[parameter], decays[parameter] = group["lr"], group["weight_decay"]
    assert set(rates) == set(model.parameters())
    layers = model.encoder.encoder.layer
    assert rates[model.classifier.weight] == 1
    depths = (layers[1], layers[0], model.encoder.embeddings)
    for part, rate in zip(depths, (5e-3, 2.5e-3, 1.25e-3), strict=True):
        for parameter in part.parameters():
            assert rates[parameter] == pytest.approx(rate)
    assert decays[model.classifier.weight] == 0.1
    assert decays[model.classifier.bias] == 0
    assert model.config.pooling == "mean"
    word = load_file(tiny_model / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(model.encoder.embeddings.word_embeddings.weight, word)


def test_the_loss_is_that_of_the_flags(trainer_of):
    plain = trainer_of("scratch", "--pos_weight", 0).compute_loss_func
    assert plain.pos_weight.tolist() == [1] * 4
    loss = trainer_of("scratch", "--loss", "asymmetric").compute_loss_func
    assert (loss.focus, loss.margin) == ((0, 4), 0.05)
    assert (loss.pos_weight > 1).all()


def test_what_trains_and_against_what_is_that_of_the_flags(trainer_of):
    flags = ["--freeze", "gradual", "--adversary", 0.01, "--adversary_moves", "weights"]
    trainer = trainer_of("pretrained", *flags, "--mixup", 0.5)
    assert (trainer.adversary.epsilon, trainer.adversary.target) == (0.01, "weights")
    assert trainer.mixup.alpha == 0.5
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained == {"classifier.weight", "classifier.bias"}
    assert any(isinstance(c, GradualUnfreezing) for c in trainer.callback_handler.callbacks)


def test_class_numbers_of_a_file_without_a_header(recipe, flags, tiny_issues, tmp_path):
    rows = [row for row in read_lines(tiny_issues) if row["labels"]]
    names = [*reversed(LABELS), "never"]
    numbers = [",".join(str(names.index(name)) for name in row["labels"]) for row in rows]
    lines = [
        f"{row['title']} {row['body']}\t{number}\tid\n"
        for row, number in zip(rows, numbers, strict=True)
    ]
    parts = {
        name: write(tmp_path / f"{name}.tsv", "".join(lines[start::3]))
        for start, name in enumerate(("train", "dev", "test"))
    }
    labels = write(tmp_path / "labels.txt", "\n".join(names) + "\n")
    recipe(
        *(*flags("pretrained", tmp_path / "out"), "--num_train_epochs", 1),
        *("--data", parts["train"], "--valid_data", parts["dev"], "--test_data", parts["test"]),
        *("--column_names", "text", "labels", "id", "--class_names", labels),
    )
    actual = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    assert [sorted(line["true_labels"]) for line in actual] == [
        sorted(row["labels"]) for row in rows[2::3]
    ]
    config = read_json(tmp_path / "out" / "config.json")
    assert [*config["id2label"].values()] == names[:4]


def test_one_threshold_for_all_or_one_for_each(recipe, flags, tmp_path):
    command = [*flags("pretrained", tmp_path), "--num_train_epochs", 1]
    for threshold_mode, n in (("global", {1}), ("per_label", {2, 3, 4})):
        recipe(*command, "--thresholds", threshold_mode)
        assert len(set(read_json(tmp_path / "config.json")["thresholds"])) in n


@both
def test_health_is_checked_and_nothing_is_trained(recipe, flags, tmp_path, architecture):
    printed = recipe(*flags(architecture, tmp_path / "out"), "--health_check")
    assert "uniform predictions have a loss of" in printed
    assert "Training" not in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--hidden_size", 30, "--num_attention_heads", 4], "must be a multiple of"),
        (["--num_hidden_layers", 0], "--num_hidden_layers 0: must be 1 or more"),
        (["--pooling", "median"], "invalid choice: 'median'"),
        (["--dropout", 1], "--dropout 1.0: must be 0 or more, below 1"),
        (["--architecture", "pretrained", "--freeze", 3], "--freeze 3: the model has 2 layers"),
        (["--architecture", "scratch", "--freeze", 1], "random weights cannot stay frozen"),
        (["--mixup", -1], "--mixup -1.0: must be 0 or more, below 100"),
        (["--vocab_size", 5], "--vocab_size 5: the special tokens alone are 5"),
        (["--max_length", 2], "--max_length 2: must be 3 to 8 tokens"),
        (["--architecture", "pretrained", "--max_length", 65], "must be 3 to 64 tokens"),
        (["--class_names", "gone.txt"], "--class_names gone.txt: cannot be read"),
        (["--architecture", "cnn"], "invalid choice: 'cnn'"),
    ],
)
def test_flag_mistakes_name_the_flag(recipe, flags, tmp_path, wrong, expected):
    assert expected in recipe.mistake(*flags("scratch", tmp_path), *wrong)


def test_an_encoder_of_other_sizes_cannot_go_on_from_a_checkpoint(
    recipe, flags, tmp_path, monkeypatch
):
    def break_down(trainer, *_, **__):
        raise Stopped

    monkeypatch.setattr(recipe.module, "find_thresholds", break_down)
    command = [*flags("scratch", tmp_path), "--eval_strategy", "no", "--save_strategy", "epoch"]
    command += ["--load_best_model_at_end", "false", "--num_train_epochs", 1]
    with pytest.raises(Stopped):
        recipe(*command)
    command += ["--resume_from_checkpoint", "true"]
    for name, value in (("hidden_size", 64), ("intermediate_size", 32), ("pooling", "mean")):
        line = recipe.mistake(*command, f"--{name}", value)
        assert f"was trained with other {name} than this run has" in line


def test_a_folder_with_other_weights_is_refused(
    recipe, trained, flags, tmp_path, monkeypatch, capfd
):
    tag = Recipe("tag", monkeypatch, capfd, "--use_cpu", "--output", tmp_path / "tagged.jsonl")
    folder = shutil.copytree(trained["scratch"], tmp_path / "copy")
    encoder = read_json(folder / "config.json")["text_config"]
    change_json(folder / "config.json", text_config={**encoder, "hidden_size": 16})
    (folder / "tagger.json").unlink()  # it would notice any change
    assert "belong to another architecture" in tag.mistake("--model", folder)
