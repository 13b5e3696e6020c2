from functools import partial

import numpy as np
import pytest

from shared.methods import (
    STRATEGIES,
    Batch,
    BatchProbe,
    SimulationTask,
    labels_to_reach,
    simulate,
)


@pytest.fixture
def task():
    """Texts of four classes around four directions, a probe with names, pool and test."""
    rng = np.random.default_rng(0)
    classes = rng.choice(4, size=200, p=[0.6, 0.2, 0.15, 0.05])
    classes[:4] = range(4)
    vectors = np.eye(4, 12, dtype=np.float32)[classes] + rng.normal(size=(200, 12)) * 0.25
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return vectors, np.eye(4, dtype=np.uint8)[classes]


def make_probe(vectors, *, names=True, single_label=True):
    n = 4 if names else 0
    return BatchProbe(
        vectors,
        np.zeros((len(vectors), 1), np.float32),
        name_embeddings=np.eye(4, 12, dtype=np.float32)[:n],
        name_words=np.zeros((n, 1), np.float32),
        label_of=np.arange(n),
        n_labels=4,
        single_label=single_label,
    )


def run(task, choose, sizes=(10, 20, 30), **options):
    vectors, labels = task
    probe = make_probe(vectors, **options)
    choose = partial(probe.choose, choose) if isinstance(choose, str) else choose
    task = SimulationTask(probe, labels, np.arange(150), np.arange(150, 200))
    return simulate(task, choose, sizes=sizes, seed=1)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("names", [True, False])
def test_more_labels_give_a_better_model(task, strategy, names):
    rounds = run(task, strategy, sizes=(2, 60), names=names, single_label=strategy != "margin")
    assert [r.n_labels for r in rounds] == [2, 60]
    if not names:  # the names alone tell the classes
        assert rounds[1].macro_f1 > rounds[0].macro_f1
    assert rounds[1].micro_f1 > 0.85
    assert (rounds[0].kappa, rounds[0].stable) == (None, False)
    assert rounds[1].kappa <= 1
    assert rounds == run(task, strategy, (2, 60), names=names, single_label=strategy != "margin")


def test_only_labels_of_chosen_texts_are_read_and_none_twice(task):
    vectors, labels = task
    seen = []

    def choose(labelled, known, candidates, size, *, scores, seed):
        assert known.tolist() == labels[labelled].tolist()
        assert candidates.tolist() == sorted({*range(150)} - {*labelled.tolist()})
        assert scores.shape == labels.shape
        seen.append(len(labelled))
        return Batch(rows=candidates[:size].tolist())

    rounds = run(task, choose)
    assert seen == [0, 10, 20]
    # Other labels of the texts that were not chosen change nothing that is known of the model.
    changed = labels.copy()
    changed[30:150] = changed[30:150][:, ::-1]
    assert run((vectors, changed), choose) == rounds


def test_a_model_that_no_longer_changes_is_stable(task):
    rounds = run(task, "random", sizes=range(10, 151, 10))
    stops = [r.n_labels for r in rounds if r.stable]
    assert stops
    first = [r.n_labels for r in rounds].index(stops[0])
    assert np.mean([r.kappa for r in rounds[first - 2 : first + 1]]) >= 0.99


def test_names_alone_are_something_to_learn_from(task):
    vectors, labels = task
    none = np.zeros(0, int)
    for single_label in (True, False):
        scores = make_probe(vectors, single_label=single_label).scores(none, labels[:0])
        assert (scores.argmax(axis=1) == labels.argmax(axis=1)).mean() > 0.9
    assert not make_probe(vectors, names=False).can_fit(labels[:0])


def test_a_committee_has_different_models_and_knows_all_labels(task):
    vectors, labels = task
    rows = np.arange(4)  # one text of each class
    committee = make_probe(vectors, names=False).committee(rows, labels[:4], rows, seed=0)
    assert committee.shape == (4, 8, 4)
    assert (committee > 0).all()
    assert committee.std(axis=1).max() > 0.01


@pytest.mark.parametrize(
    ("target", "expected"), [(0.1, 10), (0.2, 10), (0.3, 15), (0.5, 30), (0.6, None)]
)
def test_labels_to_reach(target, expected):
    # Between 20 and 30, the curve falls before it rises again.
    actual = labels_to_reach([10, 20, 25, 30], [0.2, 0.4, 0.3, 0.5], target)
    assert actual == (expected if expected is None else pytest.approx(expected))
