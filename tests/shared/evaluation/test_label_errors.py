import numpy as np
import pytest

from shared.evaluation.label_errors import find_label_errors, recovery_table

NAMES = ["bug", "docs", "speed"]


@pytest.fixture
def several():
    """Return labels of which rows 3 and 40 are wrong, and scores that know the right ones."""
    rng = np.random.default_rng(0)
    y = rng.random((200, 3)) < 0.4
    scores = np.clip(0.8 * y + 0.2 * rng.random(y.shape), 0.01, 0.99)
    y[3], scores[3] = [False, True, False], [0.99, 0.01, 0.01]
    y[40], scores[40] = [True, False, False], [0.98, 0.02, 0.99]
    return y, scores


def test_rows_whose_labels_contradict_the_scores_come_first(several):
    y, scores = several
    errors, quality = find_label_errors(y, scores, NAMES)
    assert {error.row for error in errors} == {3, 40}
    assert quality.shape == (200,)
    assert set(np.argsort(quality)[:2].tolist()) == {3, 40}
    by_row = {error.row: error for error in errors}
    assert (by_row[3].labels, by_row[3].suggested) == (("docs",), ("bug",))
    assert by_row[40].suggested == ("bug", "speed")
    assert [error.score for error in errors] == sorted(error.score for error in errors)


def test_a_reason_names_what_is_missing_and_what_is_wrong(several):
    errors, _ = find_label_errors(*several, NAMES)
    (reason,) = [error.reason for error in errors if error.row == 3]
    missing, wrong = reason.split("; ")
    assert missing.startswith("scored ")
    assert missing.endswith(" for `bug`, which it does not have")
    assert wrong.endswith(" for `docs`, which it has")


def test_one_label_per_text():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 3, 200)
    scores = np.full((200, 3), 0.05)
    scores[np.arange(200), true] = 0.9 + 0.001 * rng.random(200)
    labels = true.copy()
    labels[7] = (true[7] + 1) % 3
    errors, quality = find_label_errors(np.eye(3)[labels], scores, NAMES, single_label=True)
    (error,) = errors
    assert (error.row, quality.argmin()) == (7, 7)
    assert (error.labels, error.suggested) == ((NAMES[labels[7]],), (NAMES[true[7]],))


@pytest.mark.parametrize("n_labels", [1, 3])
def test_labels_without_rows_and_rows_without_labels(n_labels):
    y = np.zeros((6, n_labels))
    y[0, 0] = 1
    errors, quality = find_label_errors(y, np.full(y.shape, 0.3), NAMES[:n_labels])
    assert len(quality) == 6
    assert {error.row for error in errors} <= {0}


@pytest.mark.parametrize("n_labels", [1, 3])
@pytest.mark.parametrize("value", [0, 1])
def test_labels_of_no_row_or_of_all_rows(n_labels, value):
    y = np.full((6, n_labels), value)
    _, quality = find_label_errors(y, np.full(y.shape, 0.7), NAMES[:n_labels])
    assert len(quality) == 6
    assert np.isfinite(quality).all()


def test_one_label_that_all_rows_have():
    errors, quality = find_label_errors(np.ones((6, 1)), np.ones((6, 1)), ["a"], single_label=True)
    assert errors == []
    assert len(quality) == 6


def test_the_quality_with_several_labels_is_that_of_cleanlab(several):
    from cleanlab.multilabel_classification import get_label_quality_scores

    from shared.evaluation.calibration import fit_probabilities

    y, scores = several
    _, quality = find_label_errors(y, scores, NAMES)
    p = fit_probabilities(scores, y)(scores)
    labels = [np.flatnonzero(row).tolist() for row in y]
    expected = get_label_quality_scores(labels, p, aggregator_kwargs={"method": np.min})
    np.testing.assert_allclose(quality, expected)


def test_the_table_counts_planted_rows():
    planted = np.arange(100) % 10 == 0
    perfect = np.where(planted, 0.0, 1.0)
    lines = recovery_table(perfect, planted).splitlines()
    assert lines[1].split()[-4:] == ["5", "1.00", "0.50", "0"]
    assert lines[2].split()[-4:] == ["10", "1.00", "1.00", "1"]
    assert lines[3].split()[-4:] == ["10", "0.50", "1.00", "2"]
