"""Decision thresholds that are tuned, or one fixed number: the flag ``--thresholds``."""

from __future__ import annotations

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.decisions import tune_thresholds
from shared.evaluation.rules import DecisionRule

THRESHOLDS_HELP = (
    "Decision thresholds: global (one for all labels, tuned on the validation set), per_label (one "
    "per label, tuned there), or a number between 0 and 1, such as .5, for all labels"
)


def fixed_threshold(setting: str) -> float | None:
    """Return the number of a value of ``--thresholds``; None if the thresholds are to be tuned.

    Raises
    ------
    UserError
        If the value is neither global nor per_label nor a number between 0 and 1.
    """
    if setting in ("global", "per_label"):
        return None
    try:
        number = float(setting)
    except ValueError:
        number = np.nan
    if not 0 < number < 1:
        raise UserError(
            f"--thresholds {setting}: must be global, per_label or a number between 0 and 1"
        )
    return number


def find_thresholds(
    scores: np.ndarray,
    y_true: np.ndarray,
    *,
    setting: str = "global",
    metric: str = "micro_f1",
    tolerance: float = 0.0,
) -> np.ndarray:
    """Return the thresholds of a value of ``--thresholds``: shape (labels,).

    Parameters
    ----------
    scores, y_true, metric, tolerance
        As in `tune_thresholds`.
    setting : str
        global or per_label tunes; a number is the threshold of all labels.

    Raises
    ------
    UserError
        As `fixed_threshold` and `tune_thresholds`.
    """
    if (number := fixed_threshold(setting)) is not None:
        return np.full(np.shape(scores)[1], number)
    per_label = setting == "per_label"
    return tune_thresholds(scores, y_true, metric=metric, per_label=per_label, tolerance=tolerance)


def tuned_rule(
    scores: np.ndarray,
    y_true: np.ndarray,
    *,
    single_label: bool,
    every_text_has_a_label: bool = False,
) -> DecisionRule:
    """Return the decision rule of a classifier by its validation rows, of which there may be none.

    With one label per text, the best label applies. With several, a global threshold is tuned,
    with a tolerance of 2 (`tune_thresholds`). Without validation rows, it is one half, which no
    score of a text may reach: if every text has a label, then its best one applies, too.

    Parameters
    ----------
    scores, y_true : arrays of shape (validation rows, labels)
        Probabilities, and labels of 0 and 1.
    single_label, every_text_has_a_label : bool

    Raises
    ------
    UserError
        As `tune_thresholds`.
    """
    return DecisionRule.of(
        0.5 if single_label else tune_thresholds(scores, y_true, tolerance=2),
        y_true.shape[1],
        single_label=single_label,
        at_least_one=every_text_has_a_label and not len(y_true),
    )
