"""Folds, out-of-fold scores, and their metrics."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.cli.arguments import command_flags
from shared.cli.errors import UserError
from shared.data.arguments import DataArguments
from shared.evaluation.cross_validation import (
    choose_out_of_fold,
    fold_metrics,
    join_folds,
    make_folds,
    score_folds,
)
from shared.evaluation.metrics import f1_scores
from shared.methods.baselines import fit_words, naive_bayes
from shared.reports.cross_validation import methods_table


def test_a_finished_fold_is_recognised_and_a_fold_of_another_run_is_refused(tmp_path):
    fold_of = np.array([0, 1, 0])
    flags = command_flags(DataArguments(data="a.jsonl"), DataArguments)
    fold = make_folds(tmp_path, fold_of, flags, ["rows"])[0]
    assert not fold.finished
    fold.folder.mkdir()
    scores = np.array([[0.1, 0.9], [0.3, 0.7]])
    fold.save(oof=scores)
    np.testing.assert_array_equal(fold.scores()["oof"], scores)
    assert make_folds(tmp_path, fold_of, flags, ["rows"])[0].finished
    for arguments, difference in (
        ((fold_of, ["--data=b.jsonl"], ["rows"]), "flags"),
        ((fold_of, flags, ["other"]), "data"),
        ((1 - fold_of, flags, ["rows"]), "rows"),
    ):
        with pytest.raises(UserError, match=f"was trained with other {difference}; choose another"):
            _ = make_folds(tmp_path, *arguments)[0].finished


def test_scores_of_folds_are_joined_in_the_order_of_the_rows():
    fold_of = np.array([1, 0, 1])
    fold_scores = [
        {"oof": np.array([[0.1]]), "test": np.array([[0.0], [1.0]])},
        {"oof": np.array([[0.2], [0.3]]), "test": np.array([[0.5], [0.5]])},
    ]
    joined = join_folds(fold_scores, fold_of)
    assert joined["oof"].tolist() == [[0.2], [0.1], [0.3]]
    assert joined["test"].tolist() == [[0.25], [0.75]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_labels_of_a_fold_do_not_influence_its_predictions(seed):
    rng = np.random.default_rng(seed)
    scores, fold_of = rng.random((30, 3)), np.arange(30) % 3
    y = rng.random((30, 3)) < scores
    before = choose_out_of_fold(scores, y, fold_of)
    y[fold_of == 1] = ~y[fold_of == 1]
    after = choose_out_of_fold(scores, y, fold_of)
    np.testing.assert_array_equal(before[fold_of == 1], after[fold_of == 1])
    best = choose_out_of_fold(scores, y, fold_of, single_label=True)
    np.testing.assert_array_equal(best.argmax(axis=1), scores.argmax(axis=1))
    assert (best.sum(axis=1) == 1).all()


def test_a_fold_without_positives_is_left_out_of_the_mean_roc_auc():
    y = np.array([[1], [0], [1], [0], [0], [0]], bool)
    scores = np.array([[0.9], [0.1], [0.2], [0.8], [0.5], [0.4]])
    fold_of = np.array([0, 0, 1, 1, 2, 2])
    metrics = fold_metrics(y, scores, scores >= 0.5, fold_of)
    assert (metrics["roc_auc"], metrics["roc_auc_std"]) == (0.5, pytest.approx(0.5**0.5))
    f1 = [f1_scores(y[fold_of == k], scores[fold_of == k] >= 0.5)["micro_f1"] for k in range(3)]
    assert metrics["micro_f1"] == pytest.approx(np.mean(f1))
    assert metrics["micro_f1_std"] == pytest.approx(np.std(f1, ddof=1))
    assert "roc_auc" not in fold_metrics(y[4:], scores[4:], scores[4:] >= 0.5, fold_of[4:])


def test_the_table_shows_a_dash_for_a_missing_metric():
    metrics = {"a_micro_f1": 0.5, "a_micro_f1_std": 0.1, "a_test_micro_f1": 0.25}
    metrics |= {"b_micro_f1": 0.75, "b_micro_f1_std": 0.0, "b_test_micro_f1": 0.5}
    header, _, *rows = methods_table(metrics, ["a", "b"]).splitlines()
    assert header == "| method | micro F1 | macro F1 | ROC-AUC | micro F1, test |"
    assert rows == [
        "| a | 0.500 ± 0.100 | - | - | 0.250 |",
        "| b | 0.750 ± 0.000 | - | - | 0.500 |",
    ]


def test_a_baseline_never_sees_the_fold_it_scores():
    texts = np.array(["apple pie"] * 3 + ["slow car"] * 3 + ["apple pie", "slow car"], dtype=object)
    y = np.eye(2, dtype=int)[[0, 0, 0, 1, 1, 1, 0, 1]]
    fold_of = np.array([0, 0, 0, 0, 0, 0, 1, 1])
    fold_scores = score_folds(
        partial(fit_words, naive_bayes()), {"oof": texts, "test": texts[:1]}, y, fold_of
    )
    for number, scores in enumerate(fold_scores):
        assert scores["oof"].shape == ((fold_of == number).sum(), 2)
        assert (scores["oof"].argmax(axis=1) == y[fold_of == number].argmax(axis=1)).all()
        assert scores["test"].shape == (1, 2)
    y[-2:] = 0  # fold 0 now learns from rows without any label: every score is 0
    fold_scores = score_folds(partial(fit_words, naive_bayes()), {"oof": texts}, y, fold_of)
    assert not fold_scores[0]["oof"].any()
