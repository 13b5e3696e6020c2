"""A tagger of each fold of a cross-validation, and one of their mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from shared.cli.files import write_json
from shared.evaluation.calibration import CalibratedScores, calibrate
from shared.evaluation.cross_validation import Fold
from shared.evaluation.decisions import tune_thresholds
from shared.evaluation.rules import DecisionRule
from shared.taggers.means import save_mean
from shared.taggers.trained_model import save_trained_model


def save_mean_of_folds(
    folder: Path,
    folds: Sequence[Fold],
    label_names: Sequence[str],
    scores: Mapping[str, np.ndarray],
    y: np.ndarray,
    *,
    fold_of: np.ndarray,
    single_label: bool,
) -> tuple[DecisionRule, dict[str, CalibratedScores]]:
    """Make a tagger of the model of each fold, with the same thresholds, and one of their mean.

    Parameters
    ----------
    folder : Path
        The folders of the folds are below it.
    folds : sequence of Fold
        In their folders the Trainer has saved models and tokenizers.
    label_names : sequence of str
    scores : mapping of part to array of shape (rows, labels)
        Probabilities: of "oof" out of fold; of "test", if there is one, the mean of all folds.
    y : array of shape (rows, labels)
        Multi-hot labels of "oof". Thresholds and calibration suit these rows best.
    fold_of : int array of shape (rows,)
        The fold that holds out each row.
    single_label : bool
        Each row has exactly one label: the best one is taken, without a threshold.

    Returns
    -------
    rule : DecisionRule
        Of the mean.
    calibrated : dict of part to CalibratedScores
        Of "oof", the scores of each fold are calibrated on the other folds.
    """
    rule = DecisionRule(top_k=1)
    if not single_label:
        thresholds = tune_thresholds(scores["oof"], y, tolerance=2)
        rule = DecisionRule.of(thresholds, len(label_names))
    for fold in folds:
        if not single_label:
            config_file = fold.folder / "config.json"
            config = json.loads(config_file.read_text(encoding="utf-8"))
            write_json(config_file, config | {"thresholds": thresholds.tolist()})
        save_trained_model(fold.folder, label_names, rule)
    calibration, calibrated = calibrate(
        *({"test": scores["oof"]}, {"test": rule.choose(scores["oof"])}, {"test": y}),
        single_label=single_label,
        fold_of=fold_of,
    )
    assert calibration is not None  # there are folds
    assert calibrated is not None
    calibrated_parts = {"oof": calibrated}
    if "test" in scores:
        calibrated_parts["test"] = calibration.apply(scores["test"], rule.choose(scores["test"]))
    save_mean(folder, [fold.folder.name for fold in folds], label_names, rule, calibration)
    return rule, calibrated_parts
