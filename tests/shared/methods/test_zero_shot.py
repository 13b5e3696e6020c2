"""Zero-shot classification: phrases, templates, entailment, words at a mask, calibration."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.cli.errors import UserError
from shared.evaluation.decisions import softmax
from shared.methods.zero_shot import (
    CalibratedMean,
    Calibration,
    MaskedWords,
    check_templates,
    entailment_classes,
    entailment_scores,
    flatten_phrases,
    label_phrases,
    note_crowding,
)
from shared.models.loading import load_masked_language_model, load_tokenizer


def test_scores_of_words_are_not_rounded_under_autocast(tiny_mlm):
    tokenizer = load_tokenizer(str(tiny_mlm))
    model = load_masked_language_model(str(tiny_mlm), tokenizer=tokenizer).eval()
    words = ["crash", "docs", "unheard"]  # the vocabulary has the last one in pieces only
    batch = tokenizer(["it is about [MASK] .", "a [MASK] issue"], padding=True, return_tensors="pt")
    logits = []
    model.register_forward_hook(lambda module, args, output: logits.append(output.logits))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = MaskedWords(model, tokenizer, words)(**batch)["logits"]

    at_mask = logits[0][batch["input_ids"] == tokenizer.mask_token_id].float().log_softmax(-1)
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    assert [len(pieces) for pieces in ids] == [1, 1, 7]
    expected = torch.stack([at_mask[:, pieces].mean(1) for pieces in ids], dim=1)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["contradiction", "neutral", "entailment"], (2, 0)),
        (["ENTAILMENT", "NEUTRAL", "CONTRADICTION"], (0, 2)),
        # Without a class contradiction, the class at the other end takes its place.
        (["entailment", "not_entailment"], (0, -1)),
        (["no", "maybe", "entailed"], (2, 0)),
    ],
)
def test_classes_of_a_model_are_found_by_their_names(names, expected):
    config = SimpleNamespace(id2label=dict(enumerate(names)), num_labels=len(names))
    assert entailment_classes(config) == expected


@pytest.mark.parametrize("names", [["yes", "no"], ["entailment"]])
def test_a_model_without_entailment_is_refused(names):
    config = SimpleNamespace(id2label=dict(enumerate(names)), num_labels=len(names))
    with pytest.raises(UserError, match="with a class entailment"):
        entailment_classes(config)


def logit(p):
    return np.log(p / (1 - p))


probabilities = arrays(np.float64, (20, 3), elements=st.floats(0.001, 0.999))


@given(probabilities)
def test_half_of_what_a_name_attracts_from_any_text_is_taken_away(scores):
    before, after = logit(scores), logit(Calibration.of(scores)(scores))
    assert after.mean() == pytest.approx(0, abs=1e-6)
    bias = before.mean(axis=0) - before.mean()
    assert after.mean(axis=0) == pytest.approx(bias / 2, abs=1e-6)
    assert np.ptp(before - after, axis=0) == pytest.approx(0, abs=1e-6)  # the order of texts stays


@given(probabilities)
def test_standardized_scores_are_on_one_scale_whatever_the_method_calls_likely(scores):
    squeezed = 1 / (1 + np.exp(-logit(scores) / 10 - 1))  # the same order, other numbers
    actual = [Calibration.of(values, standardize=True)(values) for values in (scores, squeezed)]
    if np.ptp(logit(scores), axis=1).max() > 0.01:
        np.testing.assert_allclose(*actual, atol=1e-5)
    for shift in (True, False):
        few = Calibration.of(scores[:1], shift=shift, standardize=True)(scores[:1])
        assert np.isfinite(few).all()
        assert (np.argsort(few, kind="stable") == np.argsort(scores[:1], kind="stable")).all()


def test_too_few_texts_say_nothing_about_a_name():
    scores, one_label = np.full((5, 2), [0.9, 0.1]), np.full((20, 1), 0.7)
    assert Calibration.of(np.tile(scores, (3, 1)))(scores) == pytest.approx(scores)
    moved = Calibration.of(np.tile(scores, (4, 1)))(scores)
    assert logit(moved[0]) == pytest.approx(logit(scores[0]) / 2)
    assert Calibration.of(one_label, standardize=True)(one_label) == pytest.approx(0.5)
    certain = np.array([[0.0, 1.0]] * 20)
    assert np.isfinite(Calibration.of(certain)(certain)).all()
    assert Calibration.of(certain, shift=False)(certain) == pytest.approx(certain)


def test_a_method_that_fits_the_labels_has_the_greater_weight():
    rng = np.random.default_rng(0)
    best = rng.integers(4, size=200)
    noise = rng.normal(size=(2, 200, 4))
    sure = 1 / (1 + np.exp(-noise[0] - 6 * np.eye(4)[best]))
    unsure = 1 / (1 + np.exp(-noise[1]))
    crowded = 1 / (1 + np.exp(-noise[0] - 6 * np.eye(4)[best] - [20, 0, 0, 0]))
    for other in (unsure, crowded):
        mean = CalibratedMean.of([sure, other])
        assert mean.weights[0] > 0.7
        assert sum(mean.weights) == pytest.approx(1)
        assert (mean([sure, other]).argmax(axis=1) == best).mean() > 0.9
    few = CalibratedMean.of([sure[:19], unsure[:19]])
    assert few.weights == [0.5, 0.5]
    one_label = CalibratedMean.of([sure[:, :1], unsure[:, :1]])
    assert one_label.weights == [0.5, 0.5]
    assert np.isfinite(one_label([sure[:, :1], unsure[:, :1]])).all()


@given(probabilities)
def test_one_method_has_its_own_scores(scores):
    mean = CalibratedMean.of([scores], shift=False)
    assert mean.weights == [1.0]
    assert mean([scores]) == pytest.approx(scores)
    assert CalibratedMean.of([scores])([scores]) == pytest.approx(Calibration.of(scores)(scores))


def test_methods_that_give_all_labels_the_same_score_can_be_averaged():
    same = np.full((30, 3), 0.5)
    varied = np.random.default_rng(0).uniform(0.1, 0.9, (30, 3))
    assert CalibratedMean.of([same, same])([same, same]) == pytest.approx(0.5)
    assert CalibratedMean.of([same, varied]).weights == pytest.approx([0, 1], abs=1e-6)


def test_a_note_names_the_label_on_which_texts_crowd(capsys):
    names = ["bug", "question", "praise"]
    scores = np.eye(3)[[0] * 13 + [1] * 4 + [2] * 3]
    note_crowding(scores, names)
    printed = capsys.readouterr().out
    assert "note: 'bug' is the best label of 65% of the texts" in printed
    assert "--descriptions" in printed
    note_crowding(np.eye(3)[[0] * 12 + [1] * 8], names)  # as many as half the texts may have one
    note_crowding(scores[:, :2], names[:2])  # one of two labels is often that frequent
    note_crowding(scores[:12], names)  # too few texts
    assert capsys.readouterr().out == ""


def test_entailment_is_weighed_against_contradiction_alone():
    logits = np.array([[2.0, 9.0, -1.0], [0.0, -9.0, 0.0]])
    expected = softmax(logits[:, [0, 2]])[:, 0]
    assert entailment_scores(logits, (0, 2)) == pytest.approx(expected)


def test_phrases_of_labels(tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text("bug: [a fault, an error]\n")
    phrases = label_phrases(["bug", "good-first_issue"], str(file))
    assert phrases == [["a fault", "an error"], ["good first issue"]]
    flat, owner = flatten_phrases(phrases)
    assert flat == ["a fault", "an error", "good first issue"]
    assert owner.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("bugg: a fault", "there is no label 'bugg' .there are bug"),
        ("bug: '...'", "label 'bug': '...' is not a phrase"),
        ("bug: []", "label 'bug': '' is not a phrase"),
        ("- bug", "expected lines of 'label: phrase'"),
        ("bug: [", "not valid YAML"),
    ],
)
def test_descriptions_with_a_mistake(content, expected, tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=expected):
        label_phrases(["bug"], str(file))


@pytest.mark.parametrize("template", ["About it.", "{label} and {label}", "{label} {mask}", "{x}"])
def test_a_template_holds_its_slot_once(template):
    with pytest.raises(UserError, match=r"must hold \{label\} once"):
        check_templates([template], "{label}")
    check_templates(["About {label}."], "{label}")
