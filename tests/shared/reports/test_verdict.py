"""The verdict on a run says in plain words what its metrics mean."""

import pytest

from shared.models.loading import load_tokenizer
from shared.reports.verdict import fit_metrics, reading_metrics, verdict

GOOD = {
    **{"test_micro_f1": 0.8, "test_micro_f1_low": 0.75, "test_macro_f1": 0.7},
    **{"baseline_micro_f1": 0.6, "baseline_macro_f1": 0.4},
}


def about(**changes):
    return " ".join(verdict(GOOD | changes))


def test_a_tagger_that_loses_to_naive_bayes_does_not_end_like_a_success():
    worse = about(test_accuracy=0.55, test_micro_f1=0.55, baseline_micro_f1=0.78)
    assert worse.startswith("Naive Bayes, which trains in seconds, is better: accuracy 0.780 on ")
    assert "this tagger 0.550. Train longer or on more labelled texts" in worse
    assert "is as good: micro F1 0.800" in about(baseline_micro_f1=0.8)


def test_a_tagger_that_wins():
    assert about() == "Better than naive Bayes: micro F1 0.800 against 0.600 on the same rows."
    assert about(baseline_micro_f1=0.76).startswith("Not clearly better than naive Bayes")
    assert "higher macro F1, 0.710 against 0.700" in about(baseline_macro_f1=0.71)
    assert verdict({"test_micro_f1": 0.5}) == []  # nothing to compare with


def test_texts_that_the_model_does_not_read():
    sentences = verdict({"texts_cut": 0.34, "unknown_tokens": 0.663})
    assert sentences[0].startswith("34.0 % of the texts are longer than the model reads, and were")
    assert "Try a higher --max_length" in sentences[0]
    assert sentences[1].startswith("66.3 % of the tokens are unknown to the model: its vocabulary")
    quiet = verdict({"texts_cut": 0.0, "unknown_tokens": 0.0004})
    assert quiet == [
        "No text is longer than the model reads.",
        "Under 0.1 % of the tokens are unknown to the model.",
    ]


def test_how_much_is_read(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.model_max_length = 6  # two of them are special
    words = ["crash", "error", "docs"]
    texts = [" ".join(words[:1] * 4), " ".join(words[:1] * 5), "中 crash"]
    n_tokens = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert n_tokens == [4, 5, 2]
    metrics = reading_metrics(tokenizer, texts)
    assert metrics == {"texts_cut": 1 / 3, "unknown_tokens": pytest.approx(1 / 11)}
    # Two windows that share a token read 4 + 3 tokens; without a limit, nothing is cut.
    assert reading_metrics(tokenizer, texts, max_windows=2, stride=1)["texts_cut"] == 0
    assert reading_metrics(tokenizer, ["crash " * 99], max_windows=None)["texts_cut"] == 0
    assert reading_metrics(tokenizer, texts[:2] * 50, max_texts=3)["texts_cut"] in (1 / 3, 2 / 3)


def test_a_training_that_overfits():
    log = []
    for epoch, (loss, valid) in enumerate([(1.0, 0.9), (0.5, 0.7), (0.1, 0.9)], 1):
        log += [{"epoch": epoch, "loss": loss}, {"epoch": epoch, "eval_loss": valid}]
    metrics = fit_metrics(log)
    assert metrics["fit"] == "overfit"
    assert verdict(metrics) == [metrics["fit_explained"]]
    assert fit_metrics(log[:4]) == {}  # two evaluations say nothing
