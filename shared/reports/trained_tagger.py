"""Save a model that was trained as a tagger, with its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.reports.cards import TaggerCard
from shared.reports.reasons import Reasons
from shared.reports.results import write_results
from shared.taggers.loading import Loading
from shared.taggers.tagger import Tagger
from shared.taggers.trained_model import TrainedModelScorer, save_trained_model

if TYPE_CHECKING:
    from transformers import Trainer

    from shared.data.splits import Split
    from shared.evaluation.calibration import Calibration
    from shared.evaluation.rules import DecisionRule


def save_trained_tagger(
    trainer: Trainer,
    output_dir: Path,
    metrics: Mapping[str, Any],
    *,
    split: Split,
    scores: np.ndarray,
    predicted: np.ndarray,
    rule: DecisionRule,
    card: TaggerCard,
    calibration: Calibration | None = None,
    log_history: Sequence[Mapping[str, Any]] = (),
    top_scores: int | None = None,
    all_rows: Split | None = None,
) -> str:
    """Save the model of a Trainer as a tagger, with its results; return the report to print.

    All processes of a launch must call this; the first one writes. ``tagger.json`` is written last:
    a folder that holds parts of two taggers, after an interruption, is no tagger.

    Parameters
    ----------
    trainer : Trainer
    output_dir, metrics, split, scores, predicted, card, log_history, top_scores
        As in `write_results`: those of the model that was evaluated.
    rule : DecisionRule
        Also of a model that is trained again.
    calibration : Calibration, optional
        Of the scores of the model that was evaluated.
    all_rows : Split, optional
        If the model was trained again after the evaluation: the rows it learned from. Card and
        metrics then say that the figures are not those of this model.
    """
    config = trainer.model.config
    config.one_label_each = rule.top_k == 1
    if rule.thresholds:
        config.thresholds = list(rule.thresholds)
    trainer.save_model(str(output_dir))
    if trainer.args.process_index != 0:
        return ""
    if all_rows is not None:
        metrics = {**metrics, "refit_samples": len(all_rows.labels["train"])}
        card = replace(card, evaluation=split.explain(all_rows))
    reasons = None
    # With several processes, a model may be in pieces, and all would have to take part.
    if trainer.args.world_size == 1:
        loading, tokenizer = Loading(trainer.args, trainer.args.bf16), trainer.processing_class
        scorer = TrainedModelScorer(loading.trainer(trainer.model, tokenizer), tokenizer)
        reasons = Reasons(Tagger(split.corpus.label_names, rule, scorer), all_rows or split)
    report = write_results(
        output_dir,
        split,
        scores,
        predicted,
        metrics,
        card=card,
        rule=rule,
        calibrated=None if calibration is None else calibration.apply(scores, predicted),
        thresholds=rule.thresholds or None,
        reasons=reasons,
        log_history=log_history,
        top_scores=top_scores,
    )
    save_trained_model(output_dir, split.corpus.label_names, rule, calibration)
    return report
