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
    MaskedWords,
    calibrate,
    calibration_offsets,
    check_templates,
    entailment_classes,
    entailment_scores,
    flatten_phrases,
    label_phrases,
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
def test_what_a_name_attracts_from_any_text_is_taken_away(scores):
    actual = calibrate(scores, calibration_offsets(scores))
    assert logit(actual).mean(axis=0) == pytest.approx(0, abs=1e-6)
    shift = logit(scores) - logit(actual)
    assert np.ptp(shift, axis=0) == pytest.approx(0, abs=1e-6)  # the order of texts stays


def test_too_few_texts_say_nothing_about_a_name():
    scores = np.full((5, 2), 0.9)
    assert calibrate(scores, calibration_offsets(np.full((19, 2), 0.9))) is scores
    assert calibrate(scores, calibration_offsets(np.full((20, 2), 0.9))) == pytest.approx(0.5)
    certain = np.array([[0.0, 1.0]] * 20)
    assert np.isfinite(calibrate(certain, calibration_offsets(certain))).all()


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
