import re
import subprocess
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn_metrics
from sklearn.exceptions import UndefinedMetricWarning

from shared.cli.errors import UserError
from shared.evaluation.decisions import sigmoid
from shared.evaluation.metrics import (
    average_precision_and_roc_auc,
    classification_report,
    f1_scores,
    multilabel_averages,
    multilabel_metrics,
    one_label_each,
    per_label_report,
    single_label_metrics,
    single_label_scores,
)
from shared.evaluation.rules import NEVER

# At least two labels: scikit-learn treats one column as a binary task, with other averages.
shapes = st.tuples(st.integers(1, 12), st.integers(2, 5))
pairs = shapes.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))
# A coarse grid, so that equal scores are frequent.
scored = shapes.flatmap(
    lambda shape: st.tuples(
        arrays(bool, shape), arrays(np.float64, shape, elements=st.integers(-4, 4).map(float))
    )
)


def names(y):
    return [f"label {column}" for column in range(np.shape(y)[1])]


def example(rows=200, labels=6, seed=0):
    rng = np.random.default_rng(seed)
    y_true = rng.random((rows, labels)) < np.linspace(0.05, 0.4, labels)
    return y_true, 2 * y_true - 1 + rng.normal(size=y_true.shape)


def evaluation(logits, labels):
    return SimpleNamespace(predictions=logits, label_ids=labels)


# --- building blocks against scikit-learn --------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(pairs)
def test_averages_equal_sklearn(pair):
    y_true, y_pred = pair
    for average, ours in multilabel_averages(y_true, y_pred).items():
        theirs = sklearn_metrics.precision_recall_fscore_support(
            y_true, y_pred, average=average, zero_division=0
        )[:3]
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12, err_msg=average)


@settings(max_examples=150, deadline=None)
@given(scored)
def test_ranking_metrics_equal_sklearn_with_ties(pair):
    y_true, scores = pair
    average_precision, roc_auc = average_precision_and_roc_auc(y_true, scores)
    for column in range(y_true.shape[1]):
        y, s = y_true[:, column], scores[:, column]
        if y.any():
            expected = sklearn_metrics.average_precision_score(y, s)
            assert average_precision[column] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(average_precision[column])
        if y.any() and not y.all():
            expected = sklearn_metrics.roc_auc_score(y, s)
            assert roc_auc[column] == pytest.approx(expected, abs=1e-12)
        else:
            assert np.isnan(roc_auc[column])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20))
def test_single_label_scores_equal_sklearn(rows):
    y_true, y_pred = np.array(rows).T
    scores = single_label_scores(y_true, y_pred, num_labels=4)
    assert scores["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(y_true, y_pred))
    for average in ("macro", "weighted"):
        expected = sklearn_metrics.f1_score(
            y_true, y_pred, labels=range(4), average=average, zero_division=0
        )
        assert scores[f"{average}_f1"] == pytest.approx(expected, abs=1e-12)


def test_empty_labels_and_rows_count_as_zero():
    y_true = np.array([[1, 0, 0], [0, 0, 0]])
    scores = f1_scores(y_true, y_true)
    assert scores["micro_f1"] == 1
    assert scores["macro_f1"] == pytest.approx(1 / 3)
    assert scores["samples_f1"] == 0.5
    assert set(f1_scores(0 * y_true, 0 * y_true).values()) == {0.0}


def test_sigmoid_is_stable_and_keeps_the_order():
    x = np.array([-1e4, -700, -100, -50, 0, 50, 1e4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = sigmoid(x)
    np.testing.assert_allclose(y[2:5], [np.exp(-100), np.exp(-50), 0.5], rtol=1e-12)
    assert y[0] == 0
    assert y[-1] == 1
    assert (np.diff(y[:5]) > 0).all()


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([[0, 2]], "must be 0 or 1, found 2 in row 0, column 1"),
        ([[0, 1], [np.nan, 0]], "found nan in row 1, column 0"),
        ([0, 1], "expected \\(rows, labels\\)"),
        (np.empty((0, 3)), "expected \\(rows, labels\\)"),
        ([[0, 1, 1]], "must agree"),
    ],
)
def test_labels_that_are_not_multi_hot_are_refused(y, message):
    with pytest.raises(ValueError, match=message):
        f1_scores(y, [[0, 1]])


# --- metric functions ----------------------------------------------------------------------------


def test_multilabel_metrics_equal_sklearn():
    y_true, logits = example()
    metrics = multilabel_metrics(names(y_true))(evaluation(logits, y_true.astype(np.float32)))
    y_pred = logits >= 0
    expected = {
        f"{average}_f1": sklearn_metrics.f1_score(y_true, y_pred, average=average, zero_division=0)
        for average in ("micro", "macro", "weighted", "samples")
    } | {
        "micro_precision": sklearn_metrics.precision_score(y_true, y_pred, average="micro"),
        "micro_recall": sklearn_metrics.recall_score(y_true, y_pred, average="micro"),
        "subset_accuracy": sklearn_metrics.accuracy_score(y_true, y_pred),
        "average_precision": sklearn_metrics.average_precision_score(
            y_true, logits, average="micro"
        ),
        "macro_average_precision": sklearn_metrics.average_precision_score(y_true, logits),
        "roc_auc": sklearn_metrics.roc_auc_score(y_true, logits),
    }
    assert metrics == pytest.approx(expected, abs=1e-12)
    assert {type(value) for value in metrics.values()} == {float}


def test_each_label_has_its_own_threshold_and_an_equal_score_reaches_it():
    logits = np.zeros((1, 3))  # sigmoid = .5
    y_true = np.array([[1, 1, 0]])
    metrics = multilabel_metrics(names(y_true), thresholds=[0.5, 0.6, 0.4])
    metrics = metrics(evaluation(logits, y_true))
    assert metrics["micro_precision"] == 0.5  # predicted: the first, which is right, and the third
    assert metrics["micro_recall"] == 0.5
    with pytest.raises(ValueError, match="one for each of the 3 labels"):
        multilabel_metrics(names(y_true), thresholds=[0.5, 0.6])


def test_half_precision_and_tuples_of_outputs():
    y_true, logits = example()
    logits = logits.astype(np.float16)
    compute_metrics = multilabel_metrics(names(y_true))
    expected = compute_metrics(evaluation(logits.astype(np.float64), y_true))
    assert compute_metrics(evaluation(logits, y_true)) == expected
    assert compute_metrics(evaluation((logits, np.zeros(3)), y_true)) == expected


def test_labels_without_both_classes_are_left_out_of_ranking_metrics():
    y_true, logits = example()
    y_true[:, 0], y_true[:, 1] = False, True
    metrics = multilabel_metrics(names(y_true))(evaluation(logits, y_true))
    expected = sklearn_metrics.roc_auc_score(y_true[:, 2:], logits[:, 2:])
    assert metrics["roc_auc"] == pytest.approx(expected)
    expected = sklearn_metrics.average_precision_score(y_true[:, 1:], logits[:, 1:])
    assert metrics["macro_average_precision"] == pytest.approx(expected)

    metrics = multilabel_metrics(names(y_true))(evaluation(logits, np.zeros_like(y_true)))
    assert not {"roc_auc", "average_precision", "macro_average_precision"} & set(metrics)
    assert not np.isnan(list(metrics.values())).any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_name_row_and_label(value):
    y_true, logits = example(rows=5, labels=3)
    logits[3, 1] = value
    for factory, labels in ((multilabel_metrics, y_true), (single_label_metrics, [0, 1, 2, 0, 1])):
        with pytest.raises(UserError, match=r"row 3 for label 'label 1'.*--learning_rate"):
            factory(names(y_true))(evaluation(logits, labels))


def test_shapes_that_disagree_are_refused():
    y_true, logits = example(rows=5, labels=3)
    with pytest.raises(ValueError, match=r"expected \(rows, 4\)"):
        multilabel_metrics(["a", "b", "c", "d"])(evaluation(logits, y_true))
    with pytest.raises(ValueError, match="must agree"):
        multilabel_metrics(["a", "b", "c"])(evaluation(logits, y_true[:4]))
    with pytest.raises(ValueError, match=r"from 0 to 2 per row"):
        single_label_metrics(["a", "b", "c"])(evaluation(logits, [0, 1, 2, 3, 0]))


def test_single_label_metrics_take_the_highest_logit():
    logits = np.array([[3.0, 1, 0], [0, 1, 2], [0, 2, 1], [1, 0, 0]])
    metrics = single_label_metrics(["a", "b", "c"])(evaluation(logits, np.array([0, 2, 0, 0])))
    assert metrics["accuracy"] == 0.75
    assert metrics["macro_f1"] == pytest.approx((0.8 + 0 + 1) / 3)
    assert metrics["weighted_f1"] == pytest.approx((3 * 0.8 + 1) / 4)


# --- report --------------------------------------------------------------------------------------


def test_report_text_begins_as_sklearn_prints_it():
    y_true, logits = example(labels=5)
    y_true[:, 4] = False
    label_names = ["bug", "a very long name of a label", "question", "docs", "never"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        expected = sklearn_metrics.classification_report(
            y_true, logits > 0, target_names=label_names, zero_division=0
        )
    ours = classification_report(y_true, logits > 0, label_names)
    width = len(expected.split("\n")[0])
    assert [line[:width] for line in ours.split("\n")] == expected.split("\n")
    assert "predicted" in ours

    ours = classification_report(
        y_true, logits > 0, label_names, thresholds=[0.5] * 5, scores=sigmoid(logits)
    )
    header, *lines = ours.rstrip("\n").split("\n")
    assert header.endswith("predicted threshold  avg prec")
    assert {len(line) for line in lines[1:5]} == {len(header)}  # all but "never"
    assert all(line == line.rstrip() for line in lines)


def test_with_hundreds_of_labels_the_report_lists_the_notable_ones():
    # Label k has 100 - k rows, and its F1 falls from 1 (label 0) to 0 (label 99); 100 has no row.
    y_true = np.tri(100, 101, dtype=bool)[::-1] & (np.arange(101) < 100)
    y_pred = y_true & (np.arange(100)[:, None] >= np.arange(101))
    label_names = [f"label {k}" for k in range(101)]
    whole = classification_report(y_true, y_pred, label_names, max_labels=101)
    assert whole == classification_report(y_true, y_pred, label_names)
    report = classification_report(y_true, y_pred, label_names, max_labels=100)
    blocks = report.rstrip().split("\n\n")
    titles = [block.split("\n")[0] for block in blocks[1:4]]
    assert titles == [f"The {name} of 101 labels" for name in ("most frequent", "best", "worst")]
    shown = [re.findall(r"label \d+", block) for block in blocks[1:4]]
    rows = per_label_report(y_true, y_pred, label_names)[:100]
    assert shown[0] == label_names[:10]
    by_f1 = sorted(rows, key=lambda row: (-row["f1"], -row["support"]))
    assert shown[1] == [row["label"] for row in by_f1[:10]]
    by_f1 = sorted(rows, key=lambda row: (row["f1"], -row["support"]))
    assert shown[2] == [row["label"] for row in by_f1[:10]]
    assert blocks[4] == whole.rstrip().split("\n\n")[-1]  # the averages are those of all labels


def test_with_one_label_each_micro_f1_is_called_accuracy():
    y_true, y_pred = np.eye(3, dtype=int)[[0, 1, 2, 2]], np.eye(3, dtype=int)[[0, 1, 1, 2]]
    assert one_label_each(y_true, y_pred)
    lines = classification_report(y_true, y_pred, ["a", "b", "c"]).split("\n")
    names = [line.rpartition(" avg")[0].strip() or line.split()[0] for line in lines[6:-1]]
    assert names == ["accuracy", "macro", "weighted"]
    assert lines[6].split() == ["accuracy", "0.75", "0.75", "0.75", "4", "4"]
    y_pred[0] = 0
    assert not one_label_each(y_true, y_pred)
    assert "micro avg" in classification_report(y_true, y_pred, ["a", "b", "c"])
    prediction = SimpleNamespace(predictions=np.eye(3)[[0, 1, 1, 2]], label_ids=y_true)
    metrics = multilabel_metrics(["a", "b", "c"], single_label=True)(prediction)
    assert metrics["accuracy"] == metrics["micro_f1"] == 0.75


def test_the_report_of_one_label_has_no_averages():
    y = np.array([[1], [0], [1]])
    _, blank, line, end = classification_report(y, y, ["spam"]).split("\n")
    assert (blank, end) == ("", "")
    assert line.split() == ["spam", "1.00", "1.00", "1.00", "2", "2"]


def test_per_label_report_holds_plain_values():
    y_true = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    y_pred = np.array([[1, 1, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    rows = per_label_report(
        y_true, y_pred, ["a", "b", "c"], thresholds=np.array([0.5, 0.25, 0.75]), scores=y_pred
    )
    assert rows[0] == {
        "label": "a",
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "support": 2,
        "predicted": 2,
        "threshold": 0.5,
        "average_precision": 0.5,
    }
    assert rows[1]["f1"] == pytest.approx(0.8)
    assert rows[2]["average_precision"] is None
    assert all(type(v) in (str, float, int) for v in rows[1].values())
    with pytest.raises(ValueError, match="zip"):
        per_label_report(y_true, y_pred, ["a", "b"])


def test_a_threshold_that_no_score_reaches_is_called_never():
    y = np.array([[1, 0], [0, 1]])
    report = classification_report(y, y * [1, 0], ["a", "b"], thresholds=[0.25, NEVER])
    header, _, first, second, *_ = report.splitlines()
    assert header.endswith("threshold")
    assert first.endswith("0.25")
    assert second.endswith("never")


def test_importing_needs_only_numpy():
    code = (
        "import sys, shared.evaluation.bootstrap, shared.evaluation.decisions;"
        "sys.exit(bool({'sklearn', 'scipy', 'torch', 'pandas', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
