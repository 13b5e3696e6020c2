"""Active learning with the few-label probe: fit, choose, label, fit again; and its simulation.

The texts are embedded once. After each batch of labels, `BatchProbe` is fitted in a fraction of a
second. `simulate` does what a person would do, on texts whose labels are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.evaluation.agreement import decision_kappa, is_stable
from shared.evaluation.metrics import f1_scores
from shared.evaluation.rules import DecisionRule
from shared.methods.acquisition import STRATEGIES, Batch, Pool, choose_batch
from shared.methods.probe import LatentSemanticAnalysis
from shared.methods.self_training import ProbeInputs
from shared.methods.zero_shot import flatten_phrases, label_phrases

if TYPE_CHECKING:
    from shared.data.corpus import Corpus
    from shared.data.splits import Split

COMMITTEE = 8  # models of `bald`
STOP_TEXTS = 2000  # on which successive models are compared


class EmbeddedNames(NamedTuple):
    """The names of labels as labelled texts.

    Attributes
    ----------
    phrases : list of str
        Those that stand for the labels; may be empty.
    vectors : float array of shape (phrases, width), or None
        Their embeddings; None without phrases.
    label_of : int array of shape (phrases,)
        The label that each phrase names.
    n_labels : int
    weight : float
        Total weight of the phrases of a label; a labelled text has weight 1.
    """

    phrases: list[str]
    vectors: np.ndarray | None
    label_of: np.ndarray
    n_labels: int
    weight: float


def embed_names(
    names: Sequence[str],
    embed: Callable[[Sequence[str]], np.ndarray],
    descriptions: str | None,
    *,
    weight: float,
) -> EmbeddedNames:
    """Embed the phrases that stand for labels, as `label_phrases` reads them from `descriptions`.

    Parameters
    ----------
    names : sequence of str
        Of all labels.
    embed : callable
        From texts to vectors.
    descriptions : str, optional
        YAML file: label to phrases that replace its name.
    weight : float
        As in `EmbeddedNames`; 0: the names have no meaning and are not embedded.
    """
    if not weight or not names:
        return EmbeddedNames([], None, np.zeros(0, int), len(names), weight)
    phrases, label_of = flatten_phrases(label_phrases(names, descriptions))
    return EmbeddedNames(phrases, embed(phrases), label_of, len(names), weight)


class BatchProbe:
    """The few-label probe without self-training, with its fixed settings, for texts embedded once.

    Parameters
    ----------
    embeddings, words : float arrays of shape (texts, width)
        Sentence embeddings of length one, and vectors of the words of the same texts.
    name_embeddings, name_words : float arrays of shape (phrases, width)
        Those of the phrases that name labels; may be empty.
    label_of : int array of shape (phrases,)
        The label that each phrase names.
    n_labels : int
    single_label : bool
        Whether each text has exactly one label.
    name_weight : float
        Total weight of the phrases of a label; a labelled text has weight 1.

    Attributes
    ----------
    rule : DecisionRule
        The best label of each text, and with several labels per text those with a probability of at
        least one half.
    """

    def __init__(
        self,
        embeddings: np.ndarray,
        words: np.ndarray,
        *,
        name_embeddings: np.ndarray,
        name_words: np.ndarray,
        label_of: np.ndarray,
        n_labels: int,
        single_label: bool,
        name_weight: float = 1.0,
    ):
        inputs = ProbeInputs(
            embeddings={"all": embeddings, "names": name_embeddings},
            words={"all": words, "names": name_words},
            labels={"train": np.zeros((0, n_labels), np.uint8)},
            label_of=label_of,
            name_weight=name_weight,
            single_label=single_label,
        )
        settings = inputs.fixed
        self._fit = inputs.fitter(settings.word_weight, C=settings.C, balance=settings.balance)
        self.features = inputs.features("all", settings.word_weight)
        self.embeddings, self.single_label = embeddings, single_label
        self.has_names = bool(len(label_of))
        self.rule = DecisionRule.of(0.5, n_labels, single_label=single_label, at_least_one=True)

    @classmethod
    def of_texts(
        cls,
        embeddings: np.ndarray,
        texts: Sequence[str],
        names: EmbeddedNames,
        *,
        single_label: bool,
        seed: int,
        n_seen: int | None = None,
    ) -> BatchProbe:
        """Return the probe of some texts, with vectors of their words by latent semantic analysis.

        Parameters
        ----------
        embeddings : float array of shape (texts, width)
        texts : sequence of str
        names : EmbeddedNames
        single_label : bool
        seed : int
            Of the analysis.
        n_seen : int, optional
            The analysis learns the words of the first texts only, so many; default: of all.
        """
        analysis = LatentSemanticAnalysis.fit(texts[:n_seen], seed=seed)
        return cls(
            embeddings,
            analysis(texts),
            name_embeddings=embeddings[:0] if names.vectors is None else names.vectors,
            name_words=analysis(names.phrases),
            label_of=names.label_of,
            n_labels=names.n_labels,
            single_label=single_label,
            name_weight=names.weight,
        )

    def can_fit(self, labels: np.ndarray) -> bool:
        """Return whether there is anything to learn from: labelled texts or names of labels."""
        return self.has_names or bool(labels.any())

    def scores(
        self, labelled: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
    ) -> np.ndarray:
        """Fit on labelled texts; return the probabilities of all texts: (texts, labels).

        Parameters
        ----------
        labelled : int array of shape (n,)
        labels : array of shape (n, labels)
            Multi-hot.
        weights : array of shape (n,), optional
        """
        probe = self._fit(self.features[labelled], labels, weights=weights)
        # In the precision of the features, so that these are not copied.
        weights_32 = probe.weights.astype(np.float32)
        return replace(probe, weights=weights_32)(self.features)

    def committee(
        self, labelled: np.ndarray, labels: np.ndarray, rows: np.ndarray, *, seed: int
    ) -> np.ndarray:
        """Return the probabilities of models of a bootstrap: (rows, models, labels).

        Each model weighs the labelled texts differently, by draws of an exponential distribution
        (Rubin 1981, "The Bayesian Bootstrap"): unlike draws with replacement, no label is lost.
        """
        rng = np.random.default_rng(seed)
        weights = rng.exponential(size=(COMMITTEE, len(labelled)))
        return np.stack([self.scores(labelled, labels, w)[rows] for w in weights], axis=1)

    def choose(
        self,
        strategy: str,
        labelled: np.ndarray,
        labels: np.ndarray,
        candidates: np.ndarray,
        size: int,
        *,
        scores: np.ndarray | None,
        seed: int,
        committee: np.ndarray | None = None,
    ) -> Batch:
        """Return the batch of a strategy, or that of ``coverage`` where nothing can be fitted yet.

        Parameters
        ----------
        strategy : str
            One of `STRATEGIES`.
        labelled, labels, candidates, scores, committee
            As in `Pool`. The scores are None where there is no model yet; without a committee,
            ``bald`` reads that of `committee`.
        size : int
        seed : int
        """
        needs = STRATEGIES[strategy].needs
        if needs is not None and scores is None:
            strategy, needs = "coverage", None
        if needs == "committee" and committee is None:
            committee = self.committee(labelled, labels, candidates, seed=seed)
        pool = Pool(
            self.embeddings,
            labelled,
            labels,
            candidates,
            scores,
            committee,
            single_label=self.single_label,
        )
        return choose_batch(pool, strategy, size, seed=seed)


# --- simulation ----------------------------------------------------------------------------------


class SimulationTask(NamedTuple):
    """What `simulate` reads.

    Attributes
    ----------
    probe : BatchProbe
        Of the texts of the pool and of the test set.
    labels : array of shape (texts, labels)
        The labels of all texts, multi-hot.
    pool, test : int arrays
        The texts to choose from, in ascending order, and those to test on.
    """

    probe: BatchProbe
    labels: np.ndarray
    pool: np.ndarray
    test: np.ndarray


def simulation_tasks(
    corpus: Corpus,
    splits: Sequence[Split],
    pools: Sequence[np.ndarray],
    embed: Callable[[Sequence[str]], np.ndarray],
    args: Any,
) -> Iterator[tuple[int, SimulationTask]]:
    """Yield each seed with its task, in the first process of a launch; all processes embed.

    Parameters
    ----------
    corpus, splits, pools
        As of `shared.data.split_for_simulation`.
    embed : callable
        From texts to vectors, such as a `CachedEmbedder`.
    args
        With `seeds`, `seed`, `descriptions`, `name_weight` and `process_index`.
    """
    tested = [rows for s in splits for source, rows in [s.sources["test"]] if source is corpus]
    used = corpus.dataset.select(np.unique(np.concatenate([*pools, *tested])))["text"][:]
    embed(used)  # all at once, so that they are cached
    names = embed_names(corpus.label_names, embed, args.descriptions, weight=args.name_weight)
    for seed, split, pool in zip(args.seeds, splits, pools, strict=True):
        texts, test_texts = corpus.dataset.select(pool)["text"][:], split.rows["test"]["text"][:]
        vectors = np.concatenate([embed(texts), embed(test_texts)])
        if args.process_index != 0:
            continue
        probe = BatchProbe.of_texts(
            vectors,
            [*texts, *test_texts],
            names,
            n_seen=len(texts),
            single_label=corpus.single_label,
            seed=args.seed,
        )
        y = np.concatenate([corpus.label_matrix(pool), split.labels["test"]])
        yield seed, SimulationTask(probe, y, *np.split(np.arange(len(y)), [len(texts)]))


class Round(NamedTuple):
    """A simulation after some batches.

    Attributes
    ----------
    n_labels : int
        Texts that have been labelled.
    micro_f1, macro_f1 : float
        On the test texts.
    kappa : float or None
        Agreement with the model of the batch before, see `decision_kappa`.
    stable : bool
        Whether the agreement says that labelling more no longer pays, see `is_stable`.
    """

    n_labels: int
    micro_f1: float
    macro_f1: float
    kappa: float | None
    stable: bool


def simulate(
    task: SimulationTask,
    choose: Callable[..., Batch],
    *,
    sizes: Sequence[int],
    seed: int,
    on_round: Callable[[], object] = lambda: None,
) -> list[Round]:
    """Label batch after batch as a strategy says, from no label on; measure the model after each.

    Parameters
    ----------
    task : SimulationTask
        The labels of a text of its pool are read when the text is chosen.
    choose : callable
        Called as `BatchProbe.choose` without its first argument, which names a strategy.
    sizes : sequence of int
        The numbers of labelled texts after each batch, in ascending order.
    seed : int
        Of `choose_batch`, and of the committee.
    on_round : callable
        Called after each batch.
    """
    probe, labels, pool, test = task
    stop_texts = pool[:: -(-len(pool) // STOP_TEXTS)]
    labelled, kappas = pool[:0], list[float]()
    rounds = list[Round]()

    def fitted() -> np.ndarray | None:
        return probe.scores(labelled, labels[labelled]) if probe.can_fit(labels[labelled]) else None

    scores, before = fitted(), None
    for n_labels in sizes:
        candidates = np.setdiff1d(pool, labelled)
        options = {"scores": scores, "seed": seed + n_labels}
        size = n_labels - len(labelled)
        batch = choose(labelled, labels[labelled], candidates, size, **options)
        labelled = np.concatenate([labelled, batch.rows])
        scores = fitted()
        # Without scores, no label applies to any of the texts so far.
        decided = np.zeros(labels.shape, bool) if scores is None else probe.rule.choose(scores)
        if before is not None:
            single_label = probe.single_label
            kappas.append(decision_kappa(before, decided[stop_texts], single_label=single_label))
        before = decided[stop_texts]
        f1 = f1_scores(labels[test], decided[test])
        kappa = kappas[-1] if kappas else None
        rounds.append(Round(n_labels, f1["micro_f1"], f1["macro_f1"], kappa, is_stable(kappas)))
        on_round()
    return rounds


def labels_to_reach(n_labels: Sequence[int], f1: Sequence[float], target: float) -> float | None:
    """Return the number of labels at which a curve first reaches a value; None if it never does.

    Between two points the curve is a straight line.
    """
    if f1[0] >= target:
        return float(n_labels[0])
    for i in range(1, len(f1)):
        if f1[i] >= target:
            share = (target - f1[i - 1]) / (f1[i] - f1[i - 1])
            return float(n_labels[i - 1] + share * (n_labels[i] - n_labels[i - 1]))
    return None
