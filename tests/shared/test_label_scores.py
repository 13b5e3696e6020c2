import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shared.errors import UserError
from shared.metrics import softmax
from shared.zero_shot import (
    calibrate,
    check_templates,
    entailment_scores,
    flat_phrases,
    label_phrases,
)


def logit(p):
    return np.log(p / (1 - p))


probabilities = arrays(np.float64, (20, 3), elements=st.floats(0.001, 0.999))


@given(probabilities)
def test_what_a_name_attracts_from_any_text_is_taken_away(scores):
    found = calibrate(scores, scores)
    assert logit(found).mean(axis=0) == pytest.approx(0, abs=1e-6)
    shift = logit(scores) - logit(found)
    assert np.ptp(shift, axis=0) == pytest.approx(0, abs=1e-6)  # the order of texts stays


def test_too_few_texts_say_nothing_about_a_name():
    scores = np.full((5, 2), 0.9)
    assert calibrate(scores, np.full((19, 2), 0.9)) is scores
    assert calibrate(scores, np.full((20, 2), 0.9)) == pytest.approx(0.5)
    certain = np.array([[0.0, 1.0]] * 20)
    assert np.isfinite(calibrate(certain, certain)).all()


@given(arrays(np.float64, (4, 3), elements=st.floats(-1e4, 1e4)))
def test_softmax_sums_to_one_however_large_the_logits(logits):
    found = softmax(logits)
    assert found.sum(axis=1) == pytest.approx(1)
    best = logits.argmax(axis=1)
    assert found[np.arange(4), best].tolist() == found.max(axis=1).tolist()


def test_entailment_is_weighed_against_contradiction_alone():
    logits = np.array([[2.0, 9.0, -1.0], [0.0, -9.0, 0.0]])
    expected = softmax(logits[:, [0, 2]])[:, 0]
    assert entailment_scores(logits, (0, 2)) == pytest.approx(expected)


def test_phrases_of_labels(tmp_path):
    file = tmp_path / "labels.yaml"
    file.write_text("bug: [a fault, an error]\n")
    phrases = label_phrases(["bug", "good-first_issue"], str(file))
    assert phrases == [["a fault", "an error"], ["good first issue"]]
    flat, owner = flat_phrases(phrases)
    assert flat == ["a fault", "an error", "good first issue"]
    assert owner.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("bugg: a fault", "there is no label 'bugg' .there are bug"),
        ("bug: '...'", "label 'bug': '...' says nothing"),
        ("bug: []", "label 'bug': '' says nothing"),
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
