"""Pseudo-labels: which unlabelled texts a student learns from, with which labels and weights.

A `Teacher` labels the unlabelled texts. `choose_texts` chooses among them class by class, the same
number of each, by how much the teacher doubts its predictions; the loss of a row has a higher
weight, the surer the teacher is (sections 3.2 and 3.3 of Mukherjee and Awadallah 2020, see
`shared.methods.uncertainty`). `student_rows` joins them with the labelled texts.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.cli.arguments import flag
from shared.evaluation.decisions import sigmoid, softmax
from shared.methods.uncertainty import DropoutPasses, bald, entropy, label_variance
from shared.training.collators import with_soft_labels
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from datasets import Dataset

    from shared.evaluation.rules import DecisionRule

    # Tokenised rows, their labels or probabilities (rows, labels), and their weights (rows,).
    LabelledRows = tuple[Dataset, np.ndarray, np.ndarray]

SMALLEST_VARIANCE = 1e-10  # of a text in which all passes agree; the weight stays finite


@dataclass
class AcquisitionArguments:
    """Flags about the texts that a student learns from, which `Teacher.choose` reads."""

    uncertainty: Literal["dropout", "none"] = flag(
        "dropout",
        "dropout: passes with dropout say how far the teacher doubts a text, and the texts weigh "
        "accordingly; none: one pass, and all have the same weight (default: dropout).",
    )
    passes: int = flag(
        5, "Passes of --uncertainty dropout over each unlabelled text (default: 5).", least=2
    )
    acquisition: Literal["surest", "easy", "hard", "uniform"] = flag(
        "surest",
        "Which texts of a class are chosen: those with the highest scores (surest); or drawn, "
        "rather those without doubt (easy), those in doubt (hard), or any (uniform) (default: "
        "surest).",
    )
    chosen: float = flag(
        0.5,
        "Share of the unlabelled texts that a student learns from, the same number of each "
        "predicted class (default: 0.5).",
        above=0,
        most=1,
    )
    pseudo_labels: Literal["hard", "soft"] = flag(
        "hard",
        "Labels of the chosen texts: what the teacher decides for, or its probabilities (default: "
        "hard).",
    )


@dataclass
class StudentArguments:
    """The flags of recipes whose last training is that of a student, on pseudo-labels."""

    labelled_share: float = flag(
        0.1,
        "Share of the labelled texts in the loss of a student (default: .1).",
        above=0,
        below=1,
    )
    student_epochs: float = flag(
        3, "Epochs of a student (default: 3; --num_train_epochs is for its first teacher).", above=0
    )
    valid_size: float = flag(
        0.0,
        "Share of the labelled rows for a validation set, which chooses thresholds, and between "
        "epochs and rounds if there are several (default: 0, none).",
        least=0,
        below=1,
    )


# --- teachers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TeacherPredictions:
    """What a teacher says about unlabelled texts.

    Attributes
    ----------
    scores : float array of shape (texts, labels)
        Probabilities.
    uncertainty : float array of shape (texts,)
        How much the teacher may learn from a text: high for hard ones.
    variance : float array of shape (texts,)
        Of the predicted label, at most one quarter.
    """

    scores: np.ndarray
    uncertainty: np.ndarray
    variance: np.ndarray

    @classmethod
    def of_model(
        cls, trainer: LengthGroupedTrainer, texts: Dataset, *, passes: int
    ) -> TeacherPredictions:
        """Return what the model of a Trainer says, after its training.

        Parameters
        ----------
        trainer : LengthGroupedTrainer
            With the collator of the texts. It predicts in bfloat16 if it trains so.
        texts : Dataset
            Tokenised, without labels.
        passes : int
            With dropout (`DropoutPasses`); 0: one without.
        """
        args, model = copy.copy(trainer.args), trainer.model
        args.eval_strategy, args.load_best_model_at_end = "no", False
        predictor = LengthGroupedTrainer(
            model=DropoutPasses(model, passes) if passes else model,
            args=args,
            data_collator=trainer.data_collator,
            bf16_predictions=args.bf16,
        )
        logits = predictor.predict(texts).predictions  # (texts, passes, labels)
        if not passes or not len(texts):
            logits = logits.reshape(len(texts), 1, model.config.num_labels)
        single_label = model.config.problem_type == "single_label_classification"
        to_scores = softmax if single_label else sigmoid
        probabilities = to_scores(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape)
        if passes:
            return cls.of_passes(probabilities, single_label=single_label)
        return cls.of_scores(probabilities[:, 0], single_label=single_label)

    @classmethod
    def of_passes(cls, probabilities: np.ndarray, *, single_label: bool) -> TeacherPredictions:
        """Return the mean of several passes with dropout, (texts, passes, labels), and its doubt.

        The uncertainty is BALD, and the variance that of the passes.
        """
        return cls(
            probabilities.mean(axis=1),
            bald(probabilities, single_label=single_label),
            label_variance(probabilities, single_label=single_label),
        )

    @classmethod
    def of_scores(cls, scores: np.ndarray, *, single_label: bool) -> TeacherPredictions:
        """Return the scores of a teacher without dropout, (texts, labels).

        There is one prediction of each text only. So its uncertainty is the entropy of the scores,
        and its variance that of a label that applies with this probability, p (1 - p).
        """
        spread = scores * (1 - scores)
        variance = spread[np.arange(len(scores)), scores.argmax(axis=1)]
        return cls(
            scores,
            entropy(scores, single_label=single_label),
            variance if single_label else spread.mean(axis=1),
        )

    def weights(self) -> np.ndarray:
        """Return the weight of each text in the loss, log(1 / variance): float array (texts,).

        Equation 12 of the paper. `SMALLEST_VARIANCE` bounds it.
        """
        return -np.log(np.maximum(self.variance, SMALLEST_VARIANCE))


@dataclass(frozen=True)
class Teacher:
    """A model that labels the unlabelled texts for a student, who may be the next teacher.

    Attributes
    ----------
    round : int
        0 for the first teacher.
    predictions : TeacherPredictions
        About the unlabelled texts.
    labels : mapping of "train" and "unlabelled" to bool array (rows, labels)
        Those that it predicts.
    rule : DecisionRule
        That chose them.
    valid_f1 : float
        Micro F1 on the validation rows; 0 without any.
    trainer : LengthGroupedTrainer, optional
        None if it was trained in another run.
    chosen : LabelledRows, optional
        The unlabelled texts that it was trained on, as another teacher labelled them.
    """

    round: int
    predictions: TeacherPredictions
    labels: Mapping[str, np.ndarray]
    rule: DecisionRule
    valid_f1: float = 0.0
    trainer: LengthGroupedTrainer | None = None
    chosen: LabelledRows | None = None

    def choose(
        self, texts: Dataset, args: AcquisitionArguments, *, seed: int | tuple[int, ...]
    ) -> LabelledRows:
        """Choose one or more texts for a student; return them with labels and weights.

        Parameters
        ----------
        texts : Dataset
            All unlabelled texts, tokenised.
        args : AcquisitionArguments
        seed : int or tuple of int
            As in `choose_texts`.
        """
        n_texts = max(round(args.chosen * len(texts)), 1)
        rows = choose_texts(self.predictions, n_texts, args.acquisition, seed=seed)
        hard, weighted = args.pseudo_labels == "hard", args.uncertainty == "dropout"
        labels = self.labels["unlabelled"] if hard else self.predictions.scores
        weights = self.predictions.weights() if weighted else np.ones(len(labels))
        return texts.select(rows), labels[rows], weights[rows]

    def explain(self) -> str:
        """Return a sentence for the card, about the pseudo-labels that the model has learned."""
        if self.chosen is None:
            return ""
        return (
            f"The tagger was also fitted on {len(self.chosen[0]):,} unlabelled texts, with the "
            f"labels of a teacher (round {self.round} of self-training)."
        )


# --- the texts of a student ----------------------------------------------------------------------


def choose_texts(
    predictions: TeacherPredictions, n_texts: int, acquisition: str, *, seed: int | tuple[int, ...]
) -> np.ndarray:
    """Choose the unlabelled texts that a student learns from, the same number of each class.

    The class of a text is its best label. A class with too few texts gives all of them, and the
    others give more.

    Parameters
    ----------
    predictions : TeacherPredictions
    n_texts : int
        Number of texts to choose, in all.
    acquisition : {"easy", "hard", "uniform", "surest"}
        Texts of a class are drawn without replacement, with a probability that is proportional to
        1 - B or to B, with the uncertainty B (equations 10 and 11 of the paper), or the same for
        all. Where a text has a B above 1, as with many labels, 1 - B is 1 - B / the highest one.
        "surest": not drawn, but those with the highest score of their class; of equal scores, any.
    seed : int or tuple of int
        The draw depends on it and on the predictions, and changes little if they do.

    Returns
    -------
    int64 array of rows, in ascending order
    """
    best = predictions.scores.argmax(axis=1)
    classes, sizes = np.unique(best, return_counts=True)
    # Sampling without replacement by the Gumbel trick: the texts with the highest sum of log weight
    # and noise. Unlike a draw from the sums of all weights, it hardly changes if a weight does.
    noise = np.random.default_rng(seed).gumbel(size=len(best))
    if acquisition == "surest":
        order = np.lexsort((noise, -predictions.scores.max(axis=1, initial=0)))
    else:
        uncertainty = predictions.uncertainty
        weights = {
            "easy": 1 - uncertainty / np.fmax.reduce(uncertainty, initial=1),
            "hard": uncertainty,
            "uniform": np.ones(len(best)),
        }[acquisition]
        keys = np.log(np.maximum(weights, np.finfo(float).tiny)) + noise
        order = np.argsort(-keys, kind="stable")
    chosen = [np.zeros(0, np.int64)]
    # From the smallest class to the largest: each gives an equal part of what is still to choose.
    for n_done, i in enumerate(np.argsort(sizes, kind="stable")):
        n_of_class = (n_texts - sum(map(len, chosen))) // (len(classes) - n_done)
        chosen.append(order[best[order] == classes[i]][:n_of_class])
    return np.sort(np.concatenate(chosen))


def student_rows(
    labelled: Sequence[LabelledRows], chosen: Sequence[LabelledRows], share: float
) -> Dataset:
    """Return the training rows of a student, with soft labels and weights.

    Parameters
    ----------
    labelled, chosen : sequences of LabelledRows
        The labelled rows, and the chosen unlabelled texts.
    share : float
        As for `student_weights`.
    """
    from datasets import concatenate_datasets

    none = np.zeros(0)
    weights = student_weights(
        np.concatenate([none, *(weights for *_, weights in labelled)]),
        np.concatenate([none, *(weights for *_, weights in chosen)]),
        share,
    )
    parts = [part for part in (*labelled, *chosen) if len(part[0])]
    tokens = [rows.select_columns(["input_ids", "length"]) for rows, *_ in parts]
    labels = np.concatenate([labels for _, labels, _ in parts])
    return with_soft_labels(concatenate_datasets(tokens), labels, weights)


def student_weights(labelled: np.ndarray, chosen: np.ndarray, share: float) -> np.ndarray:
    """Return the weights of the rows of a student, with a mean of 1: float array (all rows,).

    Parameters
    ----------
    labelled, chosen : arrays of shape (rows,)
        Weights of the labelled rows and of the chosen unlabelled texts, among themselves.
    share : float
        The labelled rows have at least this share of all weights, so that a few of them are not
        lost among thousands of pseudo-labels. Where all weights of one kind are 0, the other kind
        has all.
    """
    n_rows = len(labelled) + len(chosen)
    share = max(share, len(labelled) / n_rows) if labelled.any() else 0.0
    if not chosen.any():
        share = 1.0
    shares = zip((labelled, chosen), (share, 1 - share), strict=True)
    parts = [w * part * n_rows / w.sum() if w.any() else w for w, part in shares]
    return np.concatenate(parts)
