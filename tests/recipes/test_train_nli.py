import gzip
import json

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, write

WORDS = ["crash", "error", "docs", "typo", "support", "option", "slow", "memory", "file", "label"]


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Paths of 120 and 60 pairs: entailed if the second sentence's word is in the first."""
    folder = tmp_path_factory.mktemp("pairs")
    return [write(folder / f"{n}.jsonl", make_pairs(n)) for n in (120, 60)]


def make_pairs(n):
    rng = np.random.default_rng(n)
    rows = []
    for number in range(n):
        words = list(rng.choice(WORDS, 4, replace=False))
        label = ["entailment", "neutral", "contradiction"][number % 3]
        other = [word for word in WORDS if word not in words]
        word = words[0] if label == "entailment" else rng.choice(other)
        end = " not" if label == "contradiction" else ""
        rows.append({"premise": " ".join(words), "hypothesis": f"{word}{end}", "label": label})
    return rows


@pytest.fixture
def flags(tiny_model, pairs, tmp_path):
    return [
        *("--model", tiny_model, "--use_cpu", "--bf16", "false", "--max_length", 32),
        *("--train_data", pairs[0], "--test_data", pairs[1], "--output_dir", tmp_path / "out"),
        *("--rank", 8, "--num_train_epochs", 20, "--learning_rate", 3e-3),
        *("--per_device_train_batch_size", 12),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("train_nli", monkeypatch, capfd, *flags)


def test_an_adapter_that_zero_shot_classification_can_use(recipe, tmp_path, monkeypatch, capfd):
    printed = recipe()
    metrics = read_json(tmp_path / "out" / "metrics.json")
    assert metrics["train_pairs"] == 120
    # Random words in a random encoder: what it learns is whether the second sentence ends in "not".
    (stem,) = (name.removesuffix("_hypothesis_only") for name in metrics if "only" in name)
    assert metrics[f"{stem}_accuracy"] > 0.5
    assert metrics[f"{stem}_two_way_accuracy"] >= metrics[f"{stem}_accuracy"]
    assert f"accuracy {metrics[f'{stem}_accuracy']:.3f}" in printed
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files >= {"adapter_model.safetensors", "adapter_config.json", "config.json", "README.md"}
    assert not [name for name in files if name.startswith(("model.", "checkpoint-", "training_"))]

    zero_shot = Recipe("zero_shot", monkeypatch, capfd)
    data = write(tmp_path / "texts.csv", "text\ncrash error\nslow memory\n")
    zero_shot(
        *("--model", tmp_path / "out", "--data", data, "--candidate_labels", "crash", "slow"),
        *(
            "--max_length",
            32,
            "--use_cpu",
            "--output_dir",
            tmp_path / "tags",
            "--cache_dir",
            tmp_path / "cache",
        ),
    )
    assert (tmp_path / "tags" / "unlabelled_predictions.jsonl").read_text().count("\n") == 2


def test_health_is_checked_and_nothing_is_trained(recipe, tmp_path):
    printed = recipe("--health_check")
    assert "uniform predictions have a loss of 1.099" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["plots"]


def test_pairs_made_of_classified_texts(recipe, tmp_path, tiny_issues):
    printed = recipe("--topic_data", tiny_issues, "--topic_rows", 50, "--max_steps", 2)
    assert f"{tiny_issues}: 150 training pairs" in printed
    config = write(tmp_path / "topics.yaml", f"data: {tiny_issues}\ndrop_labels: [bug, speed]\n")
    printed = recipe("--topic_data", config, "--topic_negatives", 1, "--max_steps", 2)
    assert f"{config}: 1" in printed


def test_no_pair_is_both_trained_and_tested_on(recipe, pairs):
    printed = recipe("--train_data", *pairs, "--max_steps", 1)
    assert f"{pairs[1]}: left out 60 pairs that are test pairs" in printed
    assert f"{pairs[1]}: 0 training pairs" not in printed


def test_a_file_of_pairs_and_of_classified_texts_is_trained_on_as_both(recipe, tmp_path):
    rows = [
        row | {"text": f"{row['premise']} {i}", "labels": [["docs", "speed"][i % 2]]}
        for i, row in enumerate(make_pairs(40))
    ]
    both = write(tmp_path / "both.jsonl", rows)
    printed = recipe(
        *("--train_data", both, both, "--topic_data", both, both, "--topic_negatives", 1),
        *("--max_steps", 1),
    )
    card = (tmp_path / "out" / "README.md").read_text()
    for pairs in (40, 80):
        assert printed.count(f"{both}: {pairs} training pairs") == 1
        assert f"both.jsonl: {pairs} pairs" in card
    assert read_json(tmp_path / "out" / "metrics.json")["train_pairs"] == 120


def test_figures_are_named_after_folder_and_file_and_kept_apart(recipe, tmp_path):
    files = {
        "mnli/validation_matched.jsonl.gz": "mnli_validation_matched",
        "mnli/dev.matched.jsonl.gz": "mnli_dev.matched",
        "mnli/dev.mismatched.jsonl": "mnli_dev.mismatched",
        "v1.0/test.JSON": "v1.0_test",
        "v1.0/test.jsonl": "v1.0_test_2",
        "other/v1.0/test.jsonl": "v1.0_test_2_2",
        "v1.0/test_two_way.jsonl": "v1.0_test_two_way_2",
    }
    for number, name in enumerate(files, 6):
        content = "".join(json.dumps(row) + "\n" for row in make_pairs(number)).encode()
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, gzip.compress(content) if name.endswith(".gz") else content)
    printed = recipe("--test_data", *(tmp_path / name for name in files), "--max_steps", 1)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    ending = "_hypothesis_only"
    actual = [name.removesuffix(ending) for name in metrics if name.endswith(ending)]
    assert sorted(actual) == sorted(files.values())
    for name, stem in files.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(f"{tmp_path / name}, "))
        accuracy, two_way, alone = (
            metrics[f"{stem}_{key}"] for key in ("accuracy", "two_way_accuracy", "hypothesis_only")
        )
        assert f"accuracy {accuracy:.3f}, entailed or not {two_way:.3f}; by" in line
        assert line.endswith(f" {alone:.3f}")


def test_an_encoder_without_a_pooler_gets_one_in_the_adapter(recipe, tiny_mlm, tmp_path):
    recipe("--model", tiny_mlm, "--max_steps", 2)
    from shared.models.loading import load_sequence_classifier

    load_sequence_classifier(str(tmp_path / "out"))  # refuses weights that lack a part


def test_a_resumed_run_is_the_uninterrupted_one(recipe, tmp_path):
    weights = []
    for stops in ([], [3]):
        out = tmp_path / f"out{len(stops)}"
        flags = ["--output_dir", out, "--num_train_epochs", 2, "--save_strategy", "steps"]
        flags += ["--save_steps", 3, "--save_total_limit", 9]
        if stops:
            monkey = recipe.module.remove_checkpoints
            recipe.monkeypatch.setattr(recipe.module, "remove_checkpoints", lambda folder: None)
            recipe(*flags)
            recipe.monkeypatch.setattr(recipe.module, "remove_checkpoints", monkey)
            flags += ["--resume_from_checkpoint", out / "checkpoint-3"]
        recipe(*flags)
        weights.append((out / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_through_accelerate_launch(flags):
    process = launch("recipes/train_nli.py", *flags, "--max_steps", 2)
    assert "Everything is in" in process.stdout
    assert "Warning" not in process.stderr


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"premise": "a", "hypothesis": "b", "label": "maybe"}, "row 1: the label is 'maybe'"),
        ({"premise": "a", "hypothesis": "b", "label": 7}, "row 1: the label is 7"),
        ({"premise": " ", "hypothesis": "b", "label": 0}, "row 1: premise must be text"),
        ({"premise": "a", "hypothesis": None, "label": 0}, "row 1: hypothesis must be text"),
        ({"premise": "a", "hypothesis": "b", "label": -1}, "no pair has a label"),
        ({"premise": "a", "label": 0}, "no column 'hypothesis'"),
    ],
)
def test_pairs_that_are_none(row, expected, recipe, tmp_path):
    path = tmp_path / "wrong.jsonl"
    path.write_text(json.dumps(row) + "\n")
    message = recipe.mistake("--train_data", path)
    assert message.startswith(f"--train_data {path}")
    assert expected in message


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--rank", 0], "--rank 0: must be 1 or more"),
        (["--template", "about"], "--template 'about': must contain {label}"),
        (["--train_data", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)
