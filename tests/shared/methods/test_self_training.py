"""Self-training of the probe, and the choice of its settings with and without validation rows."""

import math
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.sparse import csr_matrix

from shared.evaluation.metrics import f1_scores
from shared.methods.linear import LinearEnsemble
from shared.methods.probe import fit_probe
from shared.methods.self_training import (
    NARROW,
    WIDE,
    ProbeInputs,
    ProbeSettings,
    choose_C,
    choose_settings,
    fit_with_self_training,
    most_confident,
    self_training,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4))
Y = (X[:, :3] > 0.3).astype(np.uint8)
NONE = np.zeros((0, 4)), np.zeros(0, int)


def at_half(scores):
    return scores >= 0.5


def test_the_most_confident_texts_of_each_label():
    scores = np.array([[0.9, 0.1], [0.6, 0.2], [0.8, 0.7], [0.1, 0.2], [0.2, 0.3]])
    assert most_confident(scores, 0.5).tolist() == [0, 2, 4]
    assert most_confident(scores, 0.3).tolist() == [0, 4]
    assert most_confident(scores, 1.0).tolist() == [0, 1, 2, 3, 4]
    assert most_confident(scores[:0], 0.5).tolist() == []


@given(
    scores=arrays(
        np.float64, st.tuples(st.integers(0, 20), st.integers(1, 4)), elements=st.floats(0, 1)
    ),
    share=st.floats(0.01, 1),
)
def test_each_label_keeps_its_share_of_the_most_confident_rows(scores, share):
    kept = most_confident(scores, share)
    assert (np.diff(kept) > 0).all()
    best, confidence = scores.argmax(axis=1), scores.max(axis=1, initial=0)
    for label in np.unique(best):
        rows = np.flatnonzero(best == label)
        inside = np.isin(rows, kept)
        assert inside.sum() == math.ceil(share * len(rows))
        assert confidence[rows[inside]].min() >= confidence[rows[~inside]].max(initial=0)


def test_confident_texts_join_the_training_texts_with_less_weight():
    fits = []

    def fit(vectors, labels, weights=None):
        fits.append((len(labels), weights))
        settings = {"C": 2.0, "balance": 1.0, "name_weight": 1.0}
        return fit_probe(vectors, labels, *NONE, **settings, weights=weights)

    probes = list(islice(self_training(fit, X[:6], Y[:6], X, at_half), 5))
    assert len(probes) == len(fits) == 5
    assert fits[0] == (6, None)
    for n, weights in fits[1:]:
        assert 6 + 21 <= n < 6 + 30
        assert weights.tolist() == [1.0] * 6 + [0.3] * (n - 6)
    alone = list(self_training(fit, X[:6], Y[:6], X[:0], at_half))
    assert len(alone) == 1  # without unlabelled texts there is nothing to go on with


def inputs_of(n_valid, *, single_label=False, n=24, wide=False):
    rng = np.random.default_rng(1)
    y = np.eye(3, dtype=np.uint8)[rng.integers(3, size=n + n_valid)]
    vectors = np.eye(3)[y.argmax(axis=1)] + rng.normal(size=(n + n_valid, 3)) * 0.7
    parts = {"train": vectors[:n], "valid": vectors[n:], "extra": vectors, "names": np.eye(3)}
    return ProbeInputs(
        embeddings=parts,
        words={part: np.zeros((len(values), 1)) for part, values in parts.items()},
        labels={"train": y[:n], "valid": y[n:]},
        label_of=np.arange(3),
        name_weight=1.0,
        single_label=single_label,
        tfidf={part: csr_matrix(v.clip(0)) for part, v in parts.items()} if wide else None,
    )


def test_without_validation_rows_the_settings_are_fixed():
    options = {"self_train": True, "seed": 0}
    assert choose_settings(inputs_of(0), at_half, **options) == NARROW.fixed
    one_label = inputs_of(0, single_label=True)
    assert choose_settings(one_label, at_half, **options) == NARROW.single_label
    alone = choose_settings(inputs_of(0), at_half, self_train=False, seed=0)
    assert alone == NARROW.fixed._replace(rounds=0)
    # Few validation rows choose by chance.
    assert choose_settings(inputs_of(150), at_half, **options) == NARROW.fixed


def test_the_wide_probe_needs_no_self_training_with_many_texts():
    options = {"self_train": True, "seed": 0}
    assert choose_settings(inputs_of(0, wide=True), at_half, **options) == WIDE.fixed
    many = choose_settings(inputs_of(0, wide=True, n=500), at_half, **options)
    assert many == WIDE.fixed._replace(rounds=0)
    assert choose_settings(inputs_of(0, n=500), at_half, **options) == NARROW.fixed


def test_the_wide_probe_teaches_itself_with_mixed_features():
    inputs = inputs_of(0, wide=True)
    probe = fit_with_self_training(inputs, WIDE.fixed, at_half)
    scores = probe(inputs.features("train", 1.0))
    assert (scores.argmax(axis=1) == inputs.labels["train"].argmax(axis=1)).mean() > 0.7


def test_validation_rows_choose_the_settings():
    inputs = inputs_of(210)
    settings = choose_settings(inputs, at_half, self_train=True, seed=0)
    assert not settings.average
    assert 0 <= settings.rounds <= 4

    def quality(settings):
        probe = fit_with_self_training(inputs, settings, at_half)
        predicted = at_half(probe(inputs.features("valid", settings.word_weight)))
        f1 = f1_scores(inputs.labels["valid"], predicted)
        return f1["micro_f1"] + f1["macro_f1"]

    for word_weight in (1.0, 0.4, 0.0):
        for C, balance in ((1, 1.0), (5, 0.75)):
            assert quality(settings) >= quality(ProbeSettings(word_weight, C, balance))


def test_enough_texts_of_each_label_choose_C_within_the_training_texts():
    few = inputs_of(0, single_label=True)
    assert choose_C(few, NARROW.single_label, seed=0) == 3
    many = inputs_of(0, single_label=True, n=150)
    chosen = choose_C(many, NARROW.single_label, seed=0)
    assert chosen in (3, 10, 30)
    assert choose_C(many, NARROW.single_label, seed=0) == chosen


def test_many_labels_with_few_texts_each_choose_C():
    """No label has a text for each of five folds."""
    y = np.eye(40, dtype=np.uint8)[np.repeat(np.arange(40), 3)]
    vectors = np.eye(40)[y.argmax(axis=1)] + RNG.normal(size=(120, 40)) * 0.5
    parts = {"train": vectors, "names": np.eye(40)}
    inputs = ProbeInputs(
        embeddings=parts,
        words={part: np.zeros((len(values), 1)) for part, values in parts.items()},
        labels={"train": y},
        label_of=np.arange(40),
        name_weight=1.0,
        single_label=True,
    )
    assert choose_C(inputs, NARROW.single_label, seed=0) in (3, 10, 30)


def test_the_mean_of_all_rounds_or_the_last_one():
    inputs = inputs_of(0)
    vectors = inputs.features("train", 0.7)
    mean = fit_with_self_training(inputs, NARROW.fixed, at_half)
    assert isinstance(mean, LinearEnsemble)
    rounds = list(islice(inputs.rounds(NARROW.fixed, at_half), 3))
    np.testing.assert_allclose(mean(vectors), np.mean([r(vectors) for r in rounds], axis=0))
    last = fit_with_self_training(inputs, NARROW.fixed._replace(average=False), at_half)
    np.testing.assert_allclose(last(vectors), rounds[-1](vectors))
