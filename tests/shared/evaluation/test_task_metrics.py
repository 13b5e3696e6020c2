from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, mean_absolute_error, mean_squared_error, r2_score

from shared.data.tasks import Task
from shared.evaluation.task_metrics import (
    multi_task_metrics,
    regression_metrics,
    task_outputs,
    task_scores,
    tune_task_thresholds,
)

TOPIC = Task("topic", "single_label", ("bug", "question", "feature"))
TAGS = Task("tags", "multi_label", ("a", "b"))
HOURS = Task("hours", "regression", ("hours",), 10.0, 4.0)


@given(st.integers(0, 1000), st.integers(3, 40))
def test_metrics_of_numbers_are_those_of_the_libraries(seed, n_rows):
    rng = np.random.default_rng(seed)
    y_true, y_pred = rng.normal(size=n_rows), rng.integers(0, 5, n_rows)
    scores = regression_metrics(y_true, y_pred)
    assert scores["mae"] == pytest.approx(mean_absolute_error(y_true, y_pred))
    assert scores["rmse"] == pytest.approx(mean_squared_error(y_true, y_pred) ** 0.5)
    assert scores["r2"] == pytest.approx(r2_score(y_true, y_pred))
    if np.ptp(y_pred):
        assert scores["spearman"] == pytest.approx(spearmanr(y_true, y_pred).statistic)


def test_numbers_that_do_not_vary_give_no_nan():
    assert regression_metrics(np.ones(3), np.arange(3.0)) | {"mae": 0, "rmse": 0} == {
        **{"mae": 0, "rmse": 0, "r2": 0.0, "spearman": 0.0}
    }
    assert regression_metrics(np.arange(3.0), np.ones(3))["spearman"] == 0


def joined(n_rows=40):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(n_rows, 6)).astype(np.float32)
    topic = rng.integers(0, 3, n_rows)
    targets = np.concatenate(
        [np.eye(3)[topic], rng.integers(0, 2, (n_rows, 2)), rng.normal(size=(n_rows, 1))], axis=1
    )
    targets[:5, :3], targets[5:12, 3:5], targets[12:20, 5] = np.nan, np.nan, np.nan
    return logits, targets, topic


def test_each_task_is_measured_on_the_rows_that_have_it():
    tasks = [TOPIC, TAGS, HOURS]
    logits, targets, topic = joined()
    scores = task_scores(tasks, logits, targets, {"tags": 0.4})
    macro = f1_score(topic[5:], logits[5:, :3].argmax(1), average="macro")
    assert scores["topic_macro_f1"] == pytest.approx(macro)
    assert scores["topic_accuracy"] == np.mean(topic[5:] == logits[5:, :3].argmax(1))
    known = ~np.isnan(targets[:, 3])
    chosen = 1 / (1 + np.exp(-logits[known, 3:5])) >= 0.4
    micro = f1_score(targets[known, 3:5].astype(int), chosen, average="micro")
    assert scores["tags_micro_f1"] == pytest.approx(micro)
    rows = ~np.isnan(targets[:, 5])
    errors = 4 * (logits[rows, 5] - targets[rows, 5])
    assert scores["hours_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-5)
    main = [scores["topic_macro_f1"], scores["tags_micro_f1"], scores["hours_r2"]]
    assert scores["mean_score"] == pytest.approx(np.mean(main))


def test_a_task_without_rows_is_left_out():
    logits, targets, _ = joined()
    targets[:, :3] = np.nan
    scores = task_scores([TOPIC, TAGS, HOURS], logits, targets, {"tags": 0.5})
    assert not [name for name in scores if name.startswith("topic")]
    assert task_scores([TOPIC], logits[:, :3], targets[:, :3], {}) == {}


def test_thresholds_are_tuned_on_the_known_rows():
    # Half of the known rows below a probability of .5 have the label; those without are far below.
    logits = np.array([[-4.0]] * 10 + [[-1.0]] * 10 + [[1.0]] * 10 + [[5.0]] * 5)
    targets = np.array([[0.0]] * 10 + [[1.0]] * 20 + [[np.nan]] * 5)
    task = Task("tags", "multi_label", ("a",))
    threshold = tune_task_thresholds([task], logits, targets)["tags"]
    assert 1 / (1 + np.exp(4)) < threshold <= 1 / (1 + np.exp(1))
    assert tune_task_thresholds([task], logits, targets * np.nan) == {"tags": 0.5}
    metrics = multi_task_metrics([task])
    assert metrics(SimpleNamespace(predictions=logits, label_ids=targets))["tags_micro_f1"] == 1


def test_outputs_are_probabilities_or_numbers_in_their_unit():
    np.testing.assert_allclose(task_outputs(TOPIC, np.zeros((2, 3))), 1 / 3)
    np.testing.assert_allclose(task_outputs(TAGS, np.zeros((2, 2))), 0.5)
    np.testing.assert_allclose(task_outputs(HOURS, np.array([[0.0], [2.0]])), [[10], [18]])
