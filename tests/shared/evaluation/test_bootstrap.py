import numpy as np
import pytest

from shared.evaluation.bootstrap import (
    bootstrap_interval,
    paired_bootstrap,
    statistic_interval,
)
from shared.evaluation.metrics import f1_scores


def example(rows=200, labels=6, seed=0):
    rng = np.random.default_rng(seed)
    y_true = rng.random((rows, labels)) < np.linspace(0.05, 0.4, labels)
    return y_true, 2 * y_true - 1 + rng.normal(size=y_true.shape)


def metric_value(y_true, y_pred, metric):
    if metric == "subset_accuracy":
        return (y_true == y_pred).all(axis=1).mean()
    return f1_scores(y_true, y_pred)[metric]


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1", "subset_accuracy"])
def test_bootstrap_interval_equals_a_loop_over_resamples(metric):
    y_true, logits = example(rows=150)
    y_pred = logits > 0
    rng = np.random.default_rng(1)
    draws = [rng.integers(0, len(y_true), len(y_true)) for _ in range(4000)]
    looped = [metric_value(y_true[rows], y_pred[rows], metric) for rows in draws]
    interval = bootstrap_interval(y_true, y_pred, metric=metric, n_resamples=4000)
    low, high = interval
    # A bound's standard error is about .0015 on either side; accuracies are 1/150 apart.
    np.testing.assert_allclose(interval, np.quantile(looped, [0.025, 0.975]), rtol=0, atol=0.01)
    assert low < metric_value(y_true, y_pred, metric) < high


def test_bootstrap_interval_covers_the_true_value_with_its_confidence():
    y_true, logits = example(rows=200_000)
    truth = f1_scores(y_true, logits > 0)["micro_f1"]
    covered = 0
    for seed in range(1, 201):
        y_true, logits = example(rows=200, seed=seed)
        low, high = bootstrap_interval(y_true, logits > 0, n_resamples=400, confidence=0.9)
        covered += low <= truth <= high
    assert 0.9 - 0.065 < covered / 200 < 0.9 + 0.065  # three standard errors


@pytest.mark.parametrize("rows", [30, 300])
def test_interval_of_macro_f1_contains_it_where_labels_are_rare(rows):
    """Counted as 0 where they are absent, the labels would put the interval below the metric."""
    rng = np.random.default_rng(0)
    y_true = rng.random((rows, 150)) < 1.5 / rows
    y_pred = np.where(rng.random(y_true.shape) < 0.4, False, y_true)
    low, high = bootstrap_interval(y_true, y_pred, metric="macro_f1")
    margin = (high - low) / 10
    assert low + margin < f1_scores(y_true, y_pred)["macro_f1"] < high - margin


def test_interval_contains_the_metric_of_few_rows():
    for rows in (1, 2, 3):
        for bits in range(4**rows):
            y_true, y_pred = np.array([bits >> i & 1 for i in range(2 * rows)]).reshape(2, rows, 1)
            for metric in ("micro_f1", "macro_f1", "subset_accuracy"):
                low, high = bootstrap_interval(
                    y_true, y_pred, metric=metric, n_resamples=20, confidence=0.1
                )
                assert low <= metric_value(y_true, y_pred, metric) <= high


def test_bootstrap_is_seeded_leaves_the_global_generator_and_widens_with_confidence():
    y_true, logits = example()
    state = np.random.get_state()[1].copy()
    first = bootstrap_interval(y_true, logits > 0, random_state=3)
    assert first == bootstrap_interval(y_true, logits > 0, random_state=3)
    assert first != bootstrap_interval(y_true, logits > 0, random_state=4)
    assert (np.random.get_state()[1] == state).all()
    low, high = bootstrap_interval(y_true, logits > 0, random_state=3, confidence=0.5)
    assert first[0] < low < high < first[1]
    assert bootstrap_interval(y_true, y_true) == (1.0, 1.0)
    with pytest.raises(ValueError, match="metric must be"):
        bootstrap_interval(y_true, y_true, metric="f1")


def test_paired_bootstrap_detects_a_difference():
    y_true, logits = example(rows=400)
    better, worse = logits > 0, logits > 0.9
    result = paired_bootstrap(y_true, better, worse)
    difference = f1_scores(y_true, better)["micro_f1"] - f1_scores(y_true, worse)["micro_f1"]
    assert result["difference"] == pytest.approx(difference)
    assert 0 < result["low"] < difference < result["high"]
    assert result["p_value"] < 0.01
    mirrored = paired_bootstrap(y_true, worse, better)
    assert mirrored["p_value"] == pytest.approx(result["p_value"], abs=0.01)
    assert paired_bootstrap(y_true, better, better) == {
        "difference": 0,
        "low": 0,
        "high": 0,
        "p_value": 1,
    }


def test_paired_bootstrap_keeps_its_level_where_there_is_no_difference():
    rejected = 0
    for seed in range(200):
        y_true, logits = example(rows=150, seed=seed)
        noise = np.random.default_rng(1000 + seed).normal(size=(2, *logits.shape))
        pred_a, pred_b = logits + noise > 0
        result = paired_bootstrap(y_true, pred_a, pred_b, n_resamples=300)
        rejected += result["p_value"] <= 0.1
    assert 0.1 - 0.065 < rejected / 200 < 0.1 + 0.065  # three standard errors


def test_rows_of_a_group_count_as_one_observation():
    y_true, logits = example(rows=100)
    better, worse = logits > 0, logits > 0.9
    alone = paired_bootstrap(y_true, better, worse)
    once = paired_bootstrap(y_true, better, worse, groups=np.arange(100)[::-1])
    # The multinomial draw is over distinct rows, in the same order; a reversed order is the same.
    assert once == alone
    twice = [np.concatenate([part, part]) for part in (y_true, better, worse)]
    grouped = paired_bootstrap(*twice, groups=np.tile(np.arange(100), 2))
    assert grouped == pytest.approx(alone)
    independent = paired_bootstrap(*twice)
    assert independent["high"] - independent["low"] < 0.85 * (alone["high"] - alone["low"])


def test_interval_of_a_statistic_equals_that_of_the_same_metric():
    y_true, logits = example(rows=150)
    y_pred = logits > 0
    terms = np.column_stack([2 * (y_true & y_pred).sum(1), y_true.sum(1) + y_pred.sum(1)])
    low, high = statistic_interval(terms, lambda sums: sums[:, :1] / sums[:, 1:])
    expected = bootstrap_interval(y_true, y_pred, metric="micro_f1")
    np.testing.assert_allclose([low[0], high[0]], expected, rtol=1e-12)
