"""Pipelines of words and a classic classifier, from flags: features, classifier, strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.data.words import WordAnalyzer
from shared.methods.baselines import naive_bayes, tfidf_logistic_regression

if TYPE_CHECKING:
    from sklearn.base import ClassifierMixin
    from sklearn.pipeline import Pipeline

_TREE_TERMS = 2000  # trees look at each of them for every node


@dataclass
class WordArguments:
    """Flags of recipes that classify by words."""

    classifier: Literal["naive_bayes", "logistic_regression", "linear_svm", "boosted_trees"] = flag(
        "naive_bayes", "The classifier (default: naive_bayes)."
    )
    strategy: Literal["binary_relevance", "label_powerset", "classifier_chain"] = flag(
        "binary_relevance",
        "How it gives several labels: one classifier per label; one of the sets of labels that "
        "occur; one per label that also sees the labels before it (default: binary_relevance).",
    )
    tfidf: bool | None = flag(
        None, "Weigh terms by TF-IDF; false: count them (default: false for naive_bayes)."
    )
    analyzer: Literal["word", "char", "char_wb"] = flag(
        "word", "Terms: words, characters, or characters within words (default: word)."
    )
    ngram_range: list[int] = flag(
        [],
        "Shortest and longest run of words or characters that is a term (default: 1 1 for "
        "naive_bayes and boosted_trees, otherwise 1 2; 2 5 for characters).",
    )
    min_df: float = flag(
        1.0, "Leave out terms of fewer texts; below 1: a share of the texts (default: 1)."
    )
    max_df: float = flag(
        1.0, "Leave out terms of more texts; at most 1: a share of the texts (default: 1)."
    )
    max_features: int | None = flag(
        None,
        f"Keep the most frequent terms only (default: all; {_TREE_TERMS:,} for boosted_trees).",
        least=1,
    )
    sublinear_tf: bool = flag(True, "TF-IDF: use the logarithm of a term's count (default: true).")

    def __post_init__(self) -> None:
        low, high = self.ngrams
        if not 1 <= low <= high <= 10:
            raise UserError(
                f"--ngram_range {' '.join(map(str, self.ngram_range))}: must be two numbers from 1 "
                "to 10, the smaller first"
            )
        for name in ("min_df", "max_df"):
            value = getattr(self, name)
            # NaN fails both comparisons.
            if not (0 < value < 1 or (1 <= value <= 1e9 and value == int(value))):
                raise UserError(
                    f"--{name} {value:g}: must be a share between 0 and 1, or a whole number of "
                    "texts"
                )

    @property
    def ngrams(self) -> tuple[int, int]:
        """Shortest and longest term; (0, 0) if the flag has another number of values."""
        if len(self.ngram_range) == 2:
            return self.ngram_range[0], self.ngram_range[1]
        if self.ngram_range:
            return 0, 0
        if self.analyzer != "word":
            return 2, 5
        return (1, 1) if self.classifier in ("naive_bayes", "boosted_trees") else (1, 2)


def word_pipeline(args: WordArguments, *, seed: int = 0) -> Pipeline:
    """Return the pipeline that the flags describe; `fit_words` fits it.

    At the defaults, naive Bayes is `naive_bayes` and logistic regression is
    `tfidf_logistic_regression`. The others:

    - linear_svm: a linear support vector machine (``C=1``, balanced classes). Its scores are
      sigmoids of the distance to the boundary, no probabilities.
    - boosted_trees: a hundred boosted trees of depth 4, each node of which looks at a tenth of the
      terms (stochastic gradient boosting, Friedman 2002). It takes two to four times as long.

    Parameters
    ----------
    args : WordArguments
    seed : int
        Of the trees.
    """
    from sklearn.pipeline import make_pipeline
    from skmultilearn import problem_transform

    tfidf = args.classifier != "naive_bayes" if args.tfidf is None else args.tfidf
    vectorizer = (tfidf_logistic_regression() if tfidf else naive_bayes())[0]
    terms = _TREE_TERMS if args.classifier == "boosted_trees" else None
    options: dict[str, Any] = {
        "min_df": _share_or_number(args.min_df, args.min_df < 1),
        # 1 is all texts, not a single one.
        "max_df": _share_or_number(args.max_df, args.max_df <= 1),
        "max_features": args.max_features or terms,
    }
    if tfidf:
        options["sublinear_tf"] = args.sublinear_tf
    if args.analyzer == "word":
        options["analyzer"] = WordAnalyzer(args.ngrams)
    else:
        options |= {"analyzer": args.analyzer, "ngram_range": args.ngrams}
    strategy = {
        "binary_relevance": problem_transform.BinaryRelevance,
        "label_powerset": problem_transform.LabelPowerset,
        "classifier_chain": problem_transform.ClassifierChain,
    }[args.strategy]
    classifier = strategy(_classifier(args.classifier, seed), require_dense=[False, True])
    return make_pipeline(vectorizer.set_params(**options), classifier)


def _classifier(name: str, seed: int) -> ClassifierMixin:
    from sklearn.ensemble import GradientBoostingClassifier
    from sklearn.svm import LinearSVC

    if name == "linear_svm":
        return LinearSVC(class_weight="balanced")
    if name == "boosted_trees":
        return GradientBoostingClassifier(max_depth=4, max_features=0.1, random_state=seed)
    pipeline = naive_bayes() if name == "naive_bayes" else tfidf_logistic_regression()
    return pipeline[-1].classifier


def _share_or_number(value: float, is_share: bool) -> float | int:
    return float(value) if is_share else int(value)
