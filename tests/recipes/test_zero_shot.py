from dataclasses import fields

import numpy as np
import pytest
from command_line import Recipe, launch, read_json, read_lines, write
from forks import run_script

from shared.evaluation.metrics import f1_scores
from shared.taggers import load_tagger

SCRIPT = "recipes/zero_shot.py"
TEMPLATES = ["this issue is about {label}.", "{label} first"]


@pytest.fixture
def flags(tiny_nli, tiny_model, tiny_issues, tmp_path):
    return [
        *("--model", tiny_nli, "--embedding_model", tiny_model, "--data", tiny_issues),
        *("--use_cpu", "--max_length", 48, "--bf16", "false"),
        *("--cache_dir", tmp_path / "cache", "--output_dir", tmp_path / "out"),
    ]


@pytest.fixture
def recipe(monkeypatch, capfd, flags):
    return Recipe("zero_shot", monkeypatch, capfd, *flags)


def test_scores_are_those_of_the_pipeline(recipe, tmp_path, tiny_nli):
    from transformers import pipeline

    flags = ["--templates", *TEMPLATES, "--block_size", 7, "--calibrate", "false"]
    recipe("--method", "nli", *flags)
    classify = pipeline("zero-shot-classification", model=str(tiny_nli), device="cpu")
    classify.tokenizer.model_max_length = 48
    for line in read_lines(tmp_path / "out" / "test_predictions.jsonl")[:6]:
        labels = sorted(line["scores"])
        expected = np.zeros(len(labels))
        for template in TEMPLATES:
            form = template.replace("{label}", "{}")
            options = {"hypothesis_template": form, "multi_label": True}
            actual = classify(line["text"], labels, **options)
            scores = dict(zip(actual["labels"], actual["scores"], strict=True))
            expected += [scores[name] / len(TEMPLATES) for name in labels]
        assert [line["scores"][name] for name in labels] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", ["auto", "nli", "fill_mask", "embedding"])
def test_figures_and_files(method, recipe, tmp_path, tiny_nli, tiny_mlm, tiny_model):
    model = {"fill_mask": tiny_mlm, "embedding": tiny_model}.get(method, tiny_nli)
    printed = recipe("--method", method, "--model", model)
    metrics = read_json(tmp_path / "out" / "metrics.json")
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    names = sorted(lines[0]["scores"])
    y, chosen = (
        np.array([[name in line[key] for name in names] for line in lines])
        for key in ("true_labels", "labels")
    )
    assert metrics["test_micro_f1"] == f1_scores(y, chosen)["micro_f1"]
    assert f"micro F1 {metrics['test_micro_f1']:.3f}" in printed
    assert "Tags of unlabelled texts, the most doubtful" in printed
    assert (tmp_path / "out" / "plots" / "cutoffs.png").stat().st_size > 10_000
    for file in ("README.md", "report.html"):
        assert "No model was trained" in (tmp_path / "out" / file).read_text(encoding="utf-8")
    if metrics["top_k"]:
        assert (chosen.sum(axis=1) == metrics["top_k"]).all()
    else:
        tagger = load_tagger(tmp_path / "out")
        scores = tagger.raw_scores([line["text"] for line in lines])
        scores = scores[:, [tagger.label_names.index(name) for name in names]]
        assert (chosen == (scores >= metrics["threshold"])).mean() > 0.99


def test_words_in_the_gap(recipe, tmp_path, tiny_mlm):
    from transformers import pipeline

    words = write(
        tmp_path / "words.yaml",
        "bug: [crash, error]\nspeed: slow\ndocumentation: typo\nfeature: support\n",
    )
    prompt = ["--templates", "this is {mask}", "--descriptions", words, "--calibrate", "false"]
    recipe("--method", "fill_mask", "--model", tiny_mlm, *prompt)
    fill = pipeline("fill-mask", model=str(tiny_mlm), device="cpu")
    every = ["crash", "error", "slow", "typo", "support"]
    line = min(
        read_lines(tmp_path / "out" / "test_predictions.jsonl"), key=lambda x: len(x["text"])
    )
    # The pipeline takes no pairs; one line of text with the separator written out is the same.
    actual = fill(f"{line['text']} [SEP] this is [MASK]", targets=every)
    share = {row["token_str"]: row["score"] for row in actual}
    total = sum(share.values())
    expected = {"bug": (share["crash"] + share["error"]) / 2, "speed": share["slow"]}
    expected |= {"documentation": share["typo"], "feature": share["support"]}
    # Token types differ between the two ways, so that scores do, a little.
    for name, value in expected.items():
        assert line["scores"][name] == pytest.approx(value / total, rel=0.15)


def test_a_text_that_holds_the_mask_token_is_a_text_like_others(recipe, tmp_path, tiny_mlm):
    texts = ["crash error", "crash [MASK] error", "[MASK] [MASK] slow", "typo"]
    flags = ["--method", "fill_mask", "--model", tiny_mlm, "--candidate_labels", "crash", "slow"]
    predictions = []
    for rows in (texts, texts[:1], texts[3:]):
        data = write(tmp_path / f"{len(predictions)}.jsonl", [{"text": text} for text in rows])
        recipe(*flags, "--data", data)
        predictions.append(read_lines(tmp_path / "out" / "unlabelled_predictions.jsonl"))
    assert predictions[0][0]["scores"] == pytest.approx(predictions[1][0]["scores"], abs=1e-5)
    assert predictions[0][3]["scores"] == pytest.approx(predictions[2][0]["scores"], abs=1e-5)


def scores_of(path):
    """Return the scores of a file of predictions: (texts, labels)."""
    lines = read_lines(path)
    return np.array([[line["scores"][name] for name in sorted(line["scores"])] for line in lines])


def test_calibration_brings_the_labels_nearer_to_each_other(recipe, tmp_path):
    path = tmp_path / "out" / "test_predictions.jsonl"
    logits = []
    for calibrate in ("true", "false"):
        recipe("--method", "nli", "--calibrate", calibrate)
        scores = scores_of(path)
        logits.append(np.log(scores / (1 - scores)))
    calibrated, plain = logits
    assert np.ptp(plain - calibrated, axis=0).max() < 1e-3  # the order of texts by a label stays
    assert np.ptp(calibrated.mean(axis=0)) < 0.7 * np.ptp(plain.mean(axis=0))


def test_auto_is_the_mean_of_two_methods_which_its_tagger_holds(recipe, tmp_path, tiny_model):
    recipe()
    lines = read_lines(tmp_path / "out" / "test_predictions.jsonl")
    texts = [line["text"] for line in lines]
    tagger = load_tagger(tmp_path / "out")
    for line, record in zip(lines, tagger(texts), strict=True):
        assert record["labels"] == line["labels"]
        assert record["scores"] == pytest.approx(line["scores"], abs=1e-4)
    weights = read_json(tmp_path / "out" / "tagger.json")["settings"]["weights"]
    assert len(weights) == 2
    assert sum(weights) == pytest.approx(1)
    members = [load_tagger(tmp_path / "out" / name).scores(texts) for name in ("nli", "embedding")]
    expected = np.average(members, axis=0, weights=weights)
    assert tagger.raw_scores(texts) == pytest.approx(expected)
    for method, member, model in (
        ("nli", members[0], []),
        ("embedding", members[1], ["--model", tiny_model]),
    ):
        recipe("--method", method, *model)
        alone = load_tagger(tmp_path / "out").raw_scores(texts)
        assert (alone.argmax(axis=1) == member.argmax(axis=1)).all()
        logits = np.log(member / (1 - member))  # on one scale
        assert (logits - logits.mean(axis=1, keepdims=True)).std() == pytest.approx(1, abs=0.25)


def test_the_tagger_scores_as_many_rows_at_once_as_block_size_says(recipe, tmp_path, monkeypatch):
    from shared.methods.zero_shot import SentenceScorer
    from shared.taggers.loading import Loading

    sizes, predict = [], SentenceScorer._predict

    def record(self, texts, *sentences):
        sizes.append(len(texts) * len(sentences[0]))
        return predict(self, texts, *sentences)

    monkeypatch.setattr(SentenceScorer, "_predict", record)
    data = write(tmp_path / "new.csv", "text\n" + "".join(f"page {i}\n" for i in range(9)))
    labels = ["--candidate_labels", "bug", "speed", "--method", "nli"]
    recipe("--data", data, *labels, "--block_size", 6)
    assert max(sizes) == 6  # also in the tagger, which tags the rows at the end
    assert Loading().block_size == 10_000


def test_predictions_that_crowd_on_a_label_are_noted(recipe, tmp_path):
    data = write(tmp_path / "new.jsonl", [{"text": "crash error " * 9 + str(i)} for i in range(30)])
    labels = ["--candidate_labels", "bug", "feature", "speed"]
    flags = ["--data", data, "--calibrate", "false"]
    assert "of the texts; unless most texts have it" in recipe(*flags, *labels)
    assert "is the best label of" not in recipe(*flags, *labels[:3])


def test_the_help_says_that_descriptions_matter_most():
    from recipes.zero_shot import ZeroShotArguments

    helps = {f.name: f.metadata.get("help", "") for f in fields(ZeroShotArguments)}
    assert "What matters most" in helps["descriptions"]
    assert "What matters most" not in helps["templates"]


def test_texts_that_nobody_has_labelled(recipe, tmp_path):
    data = write(tmp_path / "new.csv", "text\nthe page crashes\nplease add support\nslow\n")
    printed = recipe("--data", data, "--candidate_labels", "bug", "feature")
    lines = read_lines(tmp_path / "out" / "unlabelled_predictions.jsonl")
    assert [line["text"] for line in lines] == ["the page crashes", "please add support", "slow"]
    assert all(len(line["labels"]) == 1 for line in lines)
    assert all(line["labels"][0] == max(line["scores"], key=line["scores"].get) for line in lines)
    assert "The tags of all 3 unlabelled texts are in" in printed
    recipe("--data", data, "--candidate_labels", "bug", "feature", "--threshold", 0)
    lines = read_lines(tmp_path / "out" / "unlabelled_predictions.jsonl")
    assert all(len(line["labels"]) == 2 for line in lines)


def test_two_processes_give_the_same_figures(flags, tmp_path):
    figures = []
    words = (SCRIPT, *flags, "--output_dir")
    for name, process in (
        ("one", launch(*words, tmp_path / "one")),
        ("two", run_script(*words, tmp_path / "two", processes=2)),
    ):
        assert process.stdout.count("Everything is in") == 1
        assert "Warning" not in process.stderr
        figures.append(read_json(tmp_path / name / "metrics.json"))
        figures[-1].pop("test_runtime")
    assert figures[1] == pytest.approx(figures[0], abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        (["--model", "./nowhere"], "--model ./nowhere: no such folder"),
        (["--templates", "about nothing"], "'about nothing': must hold {label}"),
        (["--templates", "{label} {x}"], "no other braces"),
        (["--templates", "{label} {label}"], "must hold {label} once"),
        (["--seed", -1], "--seed -1: must be 0 or more"),
        (["--templates", "{label}" + " a" * 60 + "."], "leaves no room for a text"),
        (["--top_k", 1, "--threshold", 0.5], "use only one of them"),
        (["--method", "nli", "--text_prefix", "x"], "--text_prefix: only for methods that embed"),
        (["--top_k", 0], "--top_k 0: must be 1 or more"),
        (["--threshold", 2], "--threshold 2.0: must be 0 or more, at most 1"),
        (["--descriptions", "nowhere.yaml"], "--descriptions nowhere.yaml: No such file"),
    ],
)
def test_mistakes(wrong, expected, recipe):
    assert expected in recipe.mistake(*wrong)


def test_mistakes_about_models(recipe, tiny_model, tiny_mlm, trained):
    assert "no head for masked-language modelling" in recipe.mistake(
        "--method", "fill_mask", "--model", tiny_model
    )
    assert "with a class entailment" in recipe.mistake("--model", trained[0])


def test_mistakes_about_labels(recipe, tmp_path):
    data = write(tmp_path / "new.csv", "text\nthe page crashes\nplease add support\n")
    assert "no candidate labels" in recipe.mistake("--data", data)
    wrong = ["--data", data, "--candidate_labels", "bug", "?!"]
    assert "label '?!': '?!' is not a phrase with letters" in recipe.mistake(*wrong)
    described = write(tmp_path / "described.yaml", "bugs: something is broken\n")
    assert "there is no label 'bugs'" in recipe.mistake("--descriptions", described)
    described = write(tmp_path / "described.yaml", "- bug\n")
    assert "expected lines of 'label: phrase'" in recipe.mistake("--descriptions", described)


def test_the_adapter_that_ships_sorts_texts_by_topics_it_never_saw(monkeypatch, capfd, tmp_path):
    texts = {
        "football": "The striker scored twice and the team won the cup final.",
        "cooking": "Fry the onions in butter, add the flour and stir in the milk.",
        "astronomy": "The telescope found a planet that circles a distant star.",
    }
    data = write(tmp_path / "texts.jsonl", [{"text": text} for text in texts.values()])
    flags = ["--data", data, "--candidate_labels", *texts, "--use_cpu"]
    flags += ["--output_dir", tmp_path / "out", "--cache_dir", tmp_path / "cache"]
    Recipe("zero_shot", monkeypatch, capfd)(*flags)
    lines = read_lines(tmp_path / "out" / "unlabelled_predictions.jsonl")
    assert [line["labels"] for line in lines] == [[topic] for topic in texts]
