"""Baselines of tables: gaps, categories and classes that a fold lacks."""

import numpy as np
import pytest

from shared.evaluation.cross_validation import make_folds
from shared.methods import TABLE_BASELINES, score_table_baselines
from shared.methods.table_baselines import fit_table_baseline


@pytest.fixture
def table():
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(90, 2))
    codes = generator.integers(1, 4, size=(90, 1))
    labels = (numbers[:, 0] > 0).astype(int)
    labels[:2] = 2  # a class of two rows
    numbers[::5, 1] = np.nan
    return np.hstack([numbers, codes]), (labels[:, None] == np.arange(3)).astype(np.uint8)


SETTINGS = {"n_numbers": 2, "category_counts": [3], "seed": 0}


@pytest.mark.parametrize("name", TABLE_BASELINES)
def test_a_baseline_learns_with_gaps_and_unseen_categories(name, table):
    features, y = table
    # Without the rare class, so that there is a choice of settings for logistic regression only.
    rows = slice(2, None) if name == "logistic" else slice(None)
    score = fit_table_baseline(name, **SETTINGS)(features[rows], y[rows])
    new = features.copy()
    new[:, 2] = 0  # unseen
    new[:3, 0] = np.nan
    scores = score(new)
    np.testing.assert_allclose(scores.sum(axis=1), 1)
    assert (scores.argmax(axis=1)[3:] == y[3:].argmax(axis=1)).mean() > 0.85
    if name == "logistic":
        assert (scores[:, 2] == 0).all()


def test_finished_fits_are_kept(table, tmp_path, monkeypatch):
    from shared.methods import table_baselines

    features, y = table
    fold_of = np.arange(90) % 2
    folds = make_folds(tmp_path, fold_of, [], [])
    for fold in folds:
        fold.folder.mkdir()
    monkeypatch.setattr(table_baselines, "TABLE_BASELINES", {"boosting": "trees"})
    parts = {"oof": features, "test": features[:7]}
    first = score_table_baselines(folds, parts, y, fold_of, **SETTINGS)
    assert first["boosting"]["oof"].shape == (90, 3)
    assert first["boosting"]["test"].shape == (7, 3)
    monkeypatch.setattr(table_baselines, "fit_table_baseline", None)
    again = score_table_baselines(folds, parts, y, fold_of, **SETTINGS)
    np.testing.assert_array_equal(again["boosting"]["oof"], first["boosting"]["oof"])
