"""Classifiers of table rows to compare a network with, at settings chosen on the training rows.

Each function of `TABLE_BASELINES` fits one; the settings are those of the lowest log loss in an
inner cross-validation of three folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write
from shared.cli.launch import progress
from shared.evaluation.cross_validation import join_folds

if TYPE_CHECKING:
    from shared.evaluation.cross_validation import Fold

TABLE_BASELINES = {
    "logistic": "logistic regression",
    "forest": "random forest",
    "boosting": "gradient boosting",
}
_INNER_FOLDS = 3
_MOST_CODES = 255  # that gradient boosting reads as categories


def score_table_baselines(
    folds: Sequence[Fold],
    features: Mapping[str, np.ndarray],
    y: np.ndarray,
    fold_of: np.ndarray,
    **settings: Any,
) -> dict[str, dict[str, np.ndarray]]:
    """Fit all baselines on the folds of a cross-validation; keep what is computed in their folders.

    Parameters
    ----------
    folds : sequence of Fold
        Finished ones.
    features : mapping of part to array of shape (rows, columns)
        The part "oof" has the rows of `y`; all rows of "test", if any, are scored by every fold.
    y : array of shape (rows, classes)
        One-hot.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.
    **settings
        Of `fit_table_baseline`.

    Returns
    -------
    dict of baseline to part to array of shape (rows, classes)
        As `shared.evaluation.cross_validation.join_folds` returns it.
    """
    fold_scores: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in TABLE_BASELINES}
    pairs = [(name, fold) for name in TABLE_BASELINES for fold in folds]
    for name, fold in progress(pairs, "fitting baselines", unit="fits"):
        path = fold.folder / f"{name}.npz"
        if not path.is_file():
            held_out = fold_of == fold.number
            score = fit_table_baseline(name, **settings)(features["oof"][~held_out], y[~held_out])
            to_score = {**features, "oof": features["oof"][held_out]}
            with atomic_write(path, "wb") as file:
                np.savez(
                    file,
                    allow_pickle=False,
                    **{part: score(rows) for part, rows in to_score.items()},
                )
        with np.load(path, allow_pickle=False) as arrays:
            fold_scores[name].append(dict(arrays))
    return {name: join_folds(scores, fold_of) for name, scores in fold_scores.items()}


def fit_table_baseline(
    name: str, *, n_numbers: int, category_counts: Sequence[int], seed: int
) -> Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]:
    """Return a function that fits a baseline to training rows.

    Logistic regression reads numbers that are scaled, with the median and an input of its own for a
    missing cell, and an input for each category. A random forest reads the same without scaling,
    and gradient boosting reads missing cells and categories as they are.

    Parameters
    ----------
    name : one of `TABLE_BASELINES`
    n_numbers : int
        Numeric columns; they come first.
    category_counts : sequence of int
        Categories of each of the other columns; their codes begin at 1.
    seed : int

    Returns
    -------
    fit : callable
        ``fit(features, labels)`` for float array (rows, columns) and multi-hot array (rows,
        classes) returns a function from features to probabilities (rows, classes), for
        `shared.evaluation.cross_validation.score_folds`. A class without a training row gets 0.
    """
    from sklearn.model_selection import GridSearchCV, StratifiedKFold

    def fit(features: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        y = labels.argmax(axis=1)
        pipeline, settings = _pipeline(name, n_numbers, category_counts, seed)
        if np.bincount(y)[np.unique(y)].min() < _INNER_FOLDS:
            # The class would be missing in some folds. Boosting cannot hold out rows of it either.
            if name == "boosting":
                pipeline.set_params(early_stopping=False, max_iter=100)
        else:
            cv = StratifiedKFold(_INNER_FOLDS, shuffle=True, random_state=seed)
            pipeline = GridSearchCV(pipeline, settings, scoring="neg_log_loss", cv=cv)
        fitted = pipeline.fit(features, y)

        def score(rows: np.ndarray) -> np.ndarray:
            scores = np.zeros((len(rows), labels.shape[1]))
            scores[:, fitted.classes_] = fitted.predict_proba(rows)
            return scores

        return score

    return fit


def _pipeline(
    name: str, n_numbers: int, category_counts: Sequence[int], seed: int
) -> tuple[Any, dict[str, list[Any]]]:
    """Return an estimator and the settings to choose from."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    n_columns = n_numbers + len(category_counts)
    if name == "boosting":
        # Codes up to 254 are read as categories, higher ones as numbers.
        categorical = [
            n_numbers + j for j, count in enumerate(category_counts) if count < _MOST_CODES
        ]
        model = HistGradientBoostingClassifier(
            max_iter=1000, early_stopping=True, categorical_features=categorical, random_state=seed
        )
        return model, {"learning_rate": [0.03, 0.1], "max_leaf_nodes": [7, 31]}
    numbers = [
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        *([StandardScaler()] if name == "logistic" else []),
    ]
    columns = ColumnTransformer(
        [
            ("numbers", make_pipeline(*numbers), list(range(n_numbers))),
            (
                "categories",
                OneHotEncoder(handle_unknown="ignore"),
                list(range(n_numbers, n_columns)),
            ),
        ],
        sparse_threshold=0.0,
    )
    if name == "logistic":
        model = make_pipeline(columns, LogisticRegression(max_iter=5000))
        return model, {"logisticregression__C": [0.01, 0.1, 1.0, 10.0]}
    forest = RandomForestClassifier(200, n_jobs=-1, random_state=seed)
    return make_pipeline(columns, forest), {
        "randomforestclassifier__min_samples_leaf": [1, 5],
        "randomforestclassifier__max_features": ["sqrt", 0.5],
    }
