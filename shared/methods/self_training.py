"""Self-training of the few-label probe, and the choice of its settings.

`ProbeInputs` holds the features of a split. `choose_settings` chooses the settings of the probe by
a validation set, or without one. `fit_with_self_training` fits the probe.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.evaluation.metrics import f1_scores
from shared.methods.linear import Features, LinearClassifier, LinearEnsemble, stack
from shared.methods.probe import fit_probe, probe_features

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

# Maps scores (texts, labels) to predicted labels, bool of the same shape.
Choose = Callable[[np.ndarray], np.ndarray]


class ProbeSettings(NamedTuple):
    """The settings of a few-label probe.

    Attributes
    ----------
    word_weight : float
        Weight of the word vectors beside the sentence embeddings.
    C : float
        Inverse strength of the regularisation. Few texts need strong regularisation (a small C);
        many texts, and classes that exclude each other, need less.
    balance : float
        Exponent of the weight of positives; see `shared.methods.probe.fit_probe`.
    rounds : int
        Rounds of self-training.
    average : bool
        Whether the probes of all rounds are averaged, or the last one is used.
    """

    word_weight: float
    C: float
    balance: float
    rounds: int = 0
    average: bool = False


@dataclass(frozen=True)
class Grid:
    """The settings that a probe is fitted with, and those that a validation set chooses from.

    Attributes
    ----------
    fixed, single_label : ProbeSettings
        Without a validation set, for several labels per text and for one.
    word_weights : tuple of float
        To choose from.
    C_and_balance, single_label_C : tuples of (C, balance)
        To choose from.
    """

    fixed: ProbeSettings
    single_label: ProbeSettings
    word_weights: tuple[float, ...]
    C_and_balance: tuple[tuple[float, float], ...]
    single_label_C: tuple[tuple[float, float], ...]


# Fixed settings were chosen on the sample, arXiv abstracts, questions of cooking.stackexchange.com
# and GoEmotions (several labels per text), and on arXiv, cooking and AG News (one label).
NARROW = Grid(
    fixed=ProbeSettings(0.7, 5, 1.0, rounds=2, average=True),
    single_label=ProbeSettings(0.4, 3, 0.0, rounds=2, average=True),
    word_weights=(1.0, 0.4, 0.0),
    C_and_balance=((1, 1.0), (5, 0.75)),
    single_label_C=((10, 0.0), (100, 0.0)),
)
# The probe that reads words and titles, too. Chosen on the sample, cooking, GoEmotions and AG News.
WIDE = Grid(
    fixed=ProbeSettings(1.0, 2, 1.0, rounds=2, average=True),
    single_label=ProbeSettings(1.0, 3, 0.0, rounds=2, average=True),
    word_weights=(1.0,),
    C_and_balance=((2, 1.0), (5, 0.75)),
    single_label_C=((3, 0.0), (10, 0.0)),
)
TITLE_WEIGHT = 0.7
# Fewer validation texts choose settings by chance.
MIN_VALIDATION_ROWS = 200
# From as many training texts on, the fixed settings of the wide probe have no self-training. Out of
# fold it adds .03 on the sample (353 training texts) and loses .01 on cooking (940).
MANY_ROWS = 500
# With enough texts of one label each, a cross-validation within the training texts chooses C.
C_GRID, C_ROWS, C_ROWS_PER_LABEL = (3.0, 10.0, 30.0), 100, 3
C_FOLDS, C_REPEATS = 5, 3
# The share of the texts of each label that become examples, the weight of such an example (a
# training text has 1), and the maximum number of rounds. Chosen on BANKING77 and the issues;
# elsewhere, shares from .4 to .9 and weights from .1 to 1 differ by less than .01.
SURE, WEIGHT, ROUNDS = 0.7, 0.3, 4


# --- features of a split -------------------------------------------------------------------------


@dataclass(frozen=True)
class ProbeInputs:
    """The texts of a split as vectors, and their labels.

    Attributes
    ----------
    embeddings, words : dict of part to array of shape (texts, width)
        Sentence embeddings and word vectors. The parts are "train", "valid", "extra" (unlabelled
        texts for self-training) and "names" (phrases that name labels).
    labels : dict of "train" and "valid" to array of shape (texts, labels)
        Multi-hot.
    label_of : int array of shape (phrases,)
        The label that each phrase names.
    name_weight : float
        Total weight of the phrases of a label.
    single_label : bool
        Every text has exactly one label.
    tfidf : dict of part to csr_matrix of shape (texts, words), optional
        For the wide probe.
    """

    embeddings: dict[str, np.ndarray]
    words: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    label_of: np.ndarray
    name_weight: float
    single_label: bool
    tfidf: dict[str, csr_matrix] | None = None

    @property
    def grid(self) -> Grid:
        """The settings to choose from."""
        return WIDE if self.tfidf else NARROW

    @property
    def fixed(self) -> ProbeSettings:
        """The settings without a validation set."""
        fixed = self.grid.single_label if self.single_label else self.grid.fixed
        many = self.tfidf and len(self.labels["train"]) >= MANY_ROWS
        return fixed._replace(rounds=0) if many else fixed

    def features(self, part: str, word_weight: float) -> Features:
        """Return the features of a part: (texts, width)."""
        tfidf = self.tfidf[part] if self.tfidf else None
        return probe_features(self.embeddings[part], self.words[part], word_weight, tfidf)

    def fitter(self, word_weight: float, **settings: Any) -> Callable[..., LinearClassifier]:
        """Return ``fit(features, labels, weights=None)`` with the phrases and these settings."""
        return partial(
            fit_probe,
            name_vectors=self.features("names", word_weight),
            name_labels=self.label_of,
            name_weight=self.name_weight,
            single_label=self.single_label,
            **settings,
        )

    def rounds(self, settings: ProbeSettings, choose: Choose) -> Iterator[LinearClassifier]:
        """Yield the probe of the training texts, then that of each round of self-training."""
        w = settings.word_weight
        fit = self.fitter(w, C=settings.C, balance=settings.balance)
        train, extra = self.features("train", w), self.features("extra", w)
        return self_training(fit, train, self.labels["train"], extra, choose)


# --- self-training -------------------------------------------------------------------------------


def self_training(
    fit: Callable[..., LinearClassifier],
    vectors: Features,
    labels: np.ndarray,
    unlabelled: Features,
    choose: Choose,
) -> Iterator[LinearClassifier]:
    """Yield the probe of the labelled texts, then, without end, that of each round.

    Self-training (Scudder 1965, "Probability of Error of Some Adaptive Pattern-Recognition
    Machines"). In each round, the unlabelled texts with the most confident predictions become
    examples, with a smaller weight than human-labelled texts. The probe that is fitted to both
    predicts all unlabelled texts again in the next round.

    Parameters
    ----------
    fit : callable
        ``fit(vectors, labels, weights=...)`` returns a probe.
    vectors : array or MixedFeatures of shape (rows, width)
        Features of the training texts.
    labels : array of shape (rows, labels)
        Multi-hot.
    unlabelled : array or MixedFeatures of shape (texts, width)
        Features of the unlabelled texts. Without any, there is only the first probe.
    choose : callable
    """
    probe = fit(vectors, labels)
    yield probe
    while len(unlabelled):
        # Predictions always replace those of the round before: a wrong label can be corrected.
        scores = probe(unlabelled)
        confident = most_confident(scores, SURE)
        probe = fit(
            stack([vectors, unlabelled[confident]]),
            np.concatenate([labels, choose(scores[confident])]),
            weights=np.concatenate([np.ones(len(labels)), np.full(len(confident), WEIGHT)]),
        )
        yield probe


def most_confident(scores: np.ndarray, share: float) -> np.ndarray:
    """Return the rows with the most confident predictions: a share of the rows of each best label.

    The share is the same for each label. Otherwise a few easy labels would make up most of the
    rows.

    Parameters
    ----------
    scores : array of shape (texts, labels)
    share : float
        Above 0, at most 1; the number of rows is rounded up.

    Returns
    -------
    int array, rows of ``scores`` in ascending order
    """
    best, confidence = scores.argmax(axis=1), scores.max(axis=1, initial=0)
    kept = []
    for label in np.unique(best):
        rows = np.flatnonzero(best == label)
        order = np.argsort(-confidence[rows], kind="stable")
        kept.append(rows[order[: math.ceil(share * len(rows))]])
    return np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)


def fit_with_self_training(
    inputs: ProbeInputs, settings: ProbeSettings, choose: Choose
) -> LinearClassifier | LinearEnsemble:
    """Fit the probe with given settings: the last round, or the mean of all rounds."""
    probes = list(islice(inputs.rounds(settings, choose), 1 + settings.rounds))
    return LinearEnsemble(probes) if settings.average else probes[-1]


# --- choice of the settings ----------------------------------------------------------------------


def choose_settings(
    inputs: ProbeInputs, choose: Choose, *, self_train: bool, seed: int
) -> ProbeSettings:
    """Choose the settings by the validation set, or, if it is small, without labelled texts.

    By validation: the word weight, C and balance with the highest sum of micro and macro F1; then
    as many rounds of self-training, up to four, as do not lower it. With fewer than 200 validation
    texts, chance would choose: the settings are fixed, except C for texts with one label each
    (`choose_C`).

    Parameters
    ----------
    inputs : ProbeInputs
    choose : callable
    self_train : bool
        Whether the probe may be trained on unlabelled texts.
    seed : int
    """
    if len(inputs.labels["valid"]) < MIN_VALIDATION_ROWS:
        settings = inputs.fixed
        if inputs.single_label:
            settings = settings._replace(C=choose_C(inputs, settings, seed=seed))
        return settings if self_train else settings._replace(rounds=0)

    def quality(probe: LinearClassifier, word_weight: float) -> float:
        predicted = choose(probe(inputs.features("valid", word_weight)))
        f1 = f1_scores(inputs.labels["valid"], predicted)
        return f1["micro_f1"] + f1["macro_f1"]

    best, chosen, grid = -1.0, inputs.fixed, inputs.grid
    pairs = grid.single_label_C if inputs.single_label else grid.C_and_balance
    for word_weight, (C, balance) in product(grid.word_weights, pairs):
        settings = ProbeSettings(word_weight, C, balance)
        f1 = quality(next(inputs.rounds(settings, choose)), word_weight)
        if f1 > best:
            best, chosen = f1, settings
    if not self_train:
        return chosen
    for number, probe in enumerate(islice(inputs.rounds(chosen, choose), 1, 1 + ROUNDS), start=1):
        if (f1 := quality(probe, chosen.word_weight)) < best:
            break
        best, chosen = f1, chosen._replace(rounds=number)
    return chosen


def choose_C(inputs: ProbeInputs, settings: ProbeSettings, *, seed: int) -> float:
    """Return the C with the highest accuracy in a cross-validation within the training texts.

    For texts with one label each. Three repetitions of a stratified 5-fold cross-validation (of
    fewer folds if no label has five texts) choose from 3, 10 and 30. With fewer than 100 texts, or
    fewer than three of a label, chance would choose: C is then 3.
    """
    from sklearn.model_selection import RepeatedStratifiedKFold

    labels = inputs.labels["train"]
    counts = labels.sum(axis=0)
    if len(labels) < C_ROWS or counts[counts > 0].min() < C_ROWS_PER_LABEL:
        return C_GRID[0]
    vectors, classes = inputs.features("train", settings.word_weight), labels.argmax(axis=1)
    fit = inputs.fitter(settings.word_weight, balance=settings.balance)
    n_folds = min(C_FOLDS, int(counts.max()))  # so many that a label has a text for each of them
    folds = RepeatedStratifiedKFold(n_splits=n_folds, n_repeats=C_REPEATS, random_state=seed)
    hits = np.zeros(len(C_GRID))
    with warnings.catch_warnings():
        # A label may have fewer texts than there are folds.
        warnings.filterwarnings("ignore", message="The least populated class")
        for train, test in folds.split(vectors, classes):
            for i, C in enumerate(C_GRID):
                predicted = fit(vectors[train], labels[train], C=C)(vectors[test]).argmax(axis=1)
                hits[i] += (predicted == classes[test]).sum()
    return C_GRID[int(hits.argmax())]
