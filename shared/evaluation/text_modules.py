"""Metrics of generated texts as modules of the `evaluate` library, without the hub.

    metrics = evaluate.combine([Bleu(), ChrF(), Rouge(), Meteor(), ExactMatch()])
    metrics.compute(predictions=texts, references=texts_of_people)

Each text has one reference, or a list of them, which may differ in length from text to text. The
values are those of the reference libraries, sacrebleu, rouge-score and NLTK, from 0 to 1: papers
print BLEU, chrF and the metrics of SQuAD times 100. The modules of perplexity take
``log_likelihoods``, a list of numbers for each text, and can be combined with all others.

With ``confidence=0.95`` a module also returns the bounds of a bootstrap interval over the rows, as
``bleu_low`` and ``bleu_high`` (1,000 resamples).

The libraries are imported when a module is made; the extra "generation" installs them.
"""

import re
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from functools import lru_cache, partial
from typing import Any, ClassVar

import datasets
import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.evaluation.answers import squad_scores
from shared.evaluation.bootstrap import statistic_interval
from shared.evaluation.evaluate_base import InMemoryMetric
from shared.evaluation.likelihoods import likelihood_sums, perplexity_of_sums
from shared.evaluation.meteor import CachedStemmer, MeteorScorer, missing_library

_TEXT = datasets.Value("string")

# --- common bases --------------------------------------------------------------------------------


class _CorpusMetric(InMemoryMetric):
    """Metrics that are functions of sums over the rows."""

    keys: Sequence[str]  # the names of the results
    # From the inputs of a module to what each row adds to the sums: (rows, k).
    _row_terms: Callable[..., np.ndarray]

    def __init__(self, *, confidence: float | None = None, **kwargs: Any):
        if confidence is not None and not 0 < confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, not {confidence}")
        super().__init__(**kwargs)
        self.confidence = confidence

    def _compute(self, **inputs: Any) -> dict[str, float]:
        if not all(inputs.values()):
            raise ValueError(f"{type(self).__name__}: no rows, so there is nothing to score")
        terms = self._row_terms(**inputs)
        values = self._from_sums(terms.sum(axis=0, keepdims=True))[0]
        result = {key: float(value) for key, value in zip(self.keys, values, strict=True)}
        if self.confidence is not None:
            if not np.isfinite(terms).all():
                raise ValueError(
                    f"{self.keys[0]} is infinite, as a token has probability 0; there is no "
                    "interval: leave confidence out"
                )
            bounds = statistic_interval(terms, self._from_sums, confidence=self.confidence)
            for bound, values in zip(("low", "high"), bounds, strict=True):
                named = zip(self.keys, values, strict=True)
                result |= {f"{key}_{bound}": float(value) for key, value in named}
        return result

    @abstractmethod
    def _from_sums(self, sums: np.ndarray) -> np.ndarray:
        """Return the metrics of each row of (n, k) sums: (n, keys)."""


class _TextMetric(_CorpusMetric):
    """A metric of texts and the references of each."""

    inputs: ClassVar = {"predictions": _TEXT, "references": datasets.Sequence(_TEXT)}
    blank_references: ClassVar[bool] = False  # whether a reference may be blank

    def add(self, *, prediction: Any = None, reference: Any = None, **inputs: Any) -> None:
        """Add one text and its reference or references."""
        # `evaluate.combine` hands them on by the names of several.
        row = {"predictions": prediction, "references": reference, **inputs}
        self.add_batch(**{name: [value] for name, value in row.items()})

    def add_batch(self, *, predictions: Any = None, references: Any = None, **inputs: Any) -> None:
        """Add texts and the references of each.

        Raises
        ------
        ValueError
            If the numbers of texts and of references differ, a text has no reference, a reference
            is blank where the metric does not allow that, or something is not a text.
        """
        texts = _list_of("predictions", predictions)
        lists = [
            [row] if isinstance(row, str) else _list_of(f"references[{index}]", row)
            for index, row in enumerate(_list_of("references", references))
        ]
        if len(texts) != len(lists):
            raise ValueError(
                f"{len(texts)} predictions, but references of {len(lists)}; each prediction needs "
                "its own reference, or list of references"
            )
        for index, (text, row) in enumerate(zip(texts, lists, strict=True)):
            if not row:
                raise ValueError(f"references[{index}] is empty; every prediction needs one")
            for name, value in [("predictions", text), *(("references", value) for value in row)]:
                if not isinstance(value, str):
                    type_name = type(value).__name__
                    raise ValueError(f"{name}[{index}] holds no text, but {value!r} ({type_name})")
            if not self.blank_references and not all(value.strip() for value in row):
                raise ValueError(
                    f"references[{index}] holds a blank text; leave it out, with its prediction if "
                    "it is the only one"
                )
        super().add_batch(predictions=texts, references=lists, **inputs)


class _MeanOverTexts(_TextMetric):
    """Metrics that are means of the scores of the texts."""

    def _row_terms(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        rows = zip(predictions, references, strict=True)
        steps = progress(rows, type(self).__name__, unit="texts", total=len(predictions))
        scores = [self._score(prediction, row) for prediction, row in steps]
        return np.column_stack([np.array(scores, dtype=np.float64), np.ones(len(scores))])

    def _from_sums(self, sums: np.ndarray) -> np.ndarray:
        return sums[:, :-1] / sums[:, -1:]

    @abstractmethod
    def _score(self, prediction: str, references: list[str]) -> Sequence[float]:
        """Return the scores of one text, in the order of the keys."""


# --- n-grams by sacrebleu ------------------------------------------------------------------------


class _SacreBleuMetric(_TextMetric):
    """A metric of sacrebleu."""

    metric: Any  # an instance of sacrebleu.metrics.base.Metric

    @property
    def signature(self) -> str:
        """The settings and version in sacrebleu's form, for papers; to be read after `compute`."""
        return str(self.metric.get_signature())

    def _row_terms(self, predictions: list[str], references: list[list[str]]) -> np.ndarray:
        # sacrebleu wants the first references of all texts, then the second ones, and so on, and
        # None where a text has fewer.
        most = max(len(row) for row in references)
        columns = zip(*(row + [None] * (most - len(row)) for row in references), strict=True)
        texts = progress(predictions, type(self).__name__, unit="texts")
        statistics = self.metric._extract_corpus_statistics(texts, list(columns))
        return np.array(statistics, dtype=np.int64)

    def _from_sums(self, sums: np.ndarray) -> np.ndarray:
        # Sums over resamples come as floating-point numbers.
        counts = np.rint(sums).astype(np.int64).tolist()
        scores = [self.metric._compute_score_from_stats(row).score / 100 for row in counts]
        return np.array(scores)[:, None]


class Bleu(_SacreBleuMetric):
    """BLEU by sacrebleu: ``Bleu()``, the result is "bleu" (Papineni et al. 2002).

    Parameters
    ----------
    tokenize : {"13a", "intl", "char", "zh", "none"}, default "13a"
        "13a" is that of WMT, "intl" also splits punctuation of other scripts, "zh" is for Chinese,
        "char" for languages without spaces, "none" for texts whose words are split already.
    lowercase : bool, default False
    smooth_method : {"exp", "floor", "add-k", "none"}, default "exp"
        What to count for n-grams of a length that never match.
    max_ngram_order : int, default 4
    effective_order : bool, default False
        Leave out n-grams longer than the texts: for BLEU of single short sentences.
    confidence : float, optional
        Also return an interval; see the module.

    Notes
    -----
    Post (2018), A Call for Clarity in Reporting BLEU Scores: print `signature` beside the figure.
    """

    keys = ("bleu",)
    tokenizers: ClassVar = ("13a", "intl", "char", "zh", "none")  # the others download models
    smooth_methods: ClassVar = ("exp", "floor", "add-k", "none")

    def __init__(
        self,
        *,
        tokenize: str = "13a",
        lowercase: bool = False,
        smooth_method: str = "exp",
        max_ngram_order: int = 4,
        effective_order: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if max_ngram_order < 1:
            raise ValueError(f"max_ngram_order must be at least 1, not {max_ngram_order}")
        for name, value, allowed in [
            ("tokenize", tokenize, self.tokenizers),
            ("smooth_method", smooth_method, self.smooth_methods),
        ]:
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ImportError as error:
            raise UserError(missing_library("Bleu", error)) from error
        self.metric = BLEU(
            tokenize=tokenize,
            lowercase=lowercase,
            smooth_method=smooth_method,
            max_ngram_order=max_ngram_order,
            effective_order=effective_order,
        )


class ChrF(_SacreBleuMetric):
    """Character n-gram F-score by sacrebleu: ``ChrF()``, the result is "chrf" (Popović 2015).

    Parameters
    ----------
    word_order : int, default 0
        Longest n-grams of words to count as well; 2 is chrF++, and the result is "chrf++".
    lowercase : bool, default False
    confidence : float, optional
        Also return an interval; see the module.
    """

    def __init__(self, *, word_order: int = 0, lowercase: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if word_order < 0:
            raise ValueError(f"word_order must be at least 0, not {word_order}")
        try:
            from sacrebleu.metrics.chrf import CHRF
        except ImportError as error:
            raise UserError(missing_library("ChrF", error)) from error
        self.metric = CHRF(word_order=word_order, lowercase=lowercase)
        self.keys = ("chrf" + "+" * word_order,)


# --- ROUGE and METEOR ----------------------------------------------------------------------------


class Rouge(_MeanOverTexts):
    """F1 of ROUGE by rouge-score: ``Rouge()``, the results have the names of the types (Lin 2004).

    Parameters
    ----------
    types : sequence of str, default ("rouge1", "rouge2", "rougeL", "rougeLsum")
        "rouge1" to "rouge9", n-grams of words; "rougeL", the longest common subsequence;
        "rougeLsum", that of the lines of a text: put each sentence of a summary on a line.
    use_stemmer : bool, default False
        Compare stems (Porter, English), as most papers do.
    tokenize : callable, optional
        Makes a list of words of a text. None lowers the case and keeps a to z and 0 to 9 alone:
        texts in other letters need another one, such as ``list`` for Chinese.
    confidence : float, optional
        Also return intervals; see the module.

    Notes
    -----
    Of several references, the one that fits best counts, for each type. The value of a corpus is
    the mean over its texts.
    """

    def __init__(
        self,
        types: Sequence[str] = ("rouge1", "rouge2", "rougeL", "rougeLsum"),
        *,
        use_stemmer: bool = False,
        tokenize: Callable[[str], Sequence[str]] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(types, str):
            types = (types,)
        if not types or not all(re.fullmatch("rouge([1-9]|L|Lsum)", name) for name in types):
            raise ValueError(f"types must be rouge1 to rouge9, rougeL or rougeLsum, not {types!r}")
        try:
            from nltk.stem.porter import PorterStemmer

            # It imports absl, whose logger takes the standard error of this moment and later closes
            # it, unless it is the real one.
            with redirect_stderr(sys.__stderr__):
                from rouge_score.rouge_scorer import RougeScorer
                from rouge_score.tokenize import tokenize as split_words
        except ImportError as error:
            raise UserError(missing_library("Rouge", error)) from error
        self.keys = tuple(types)
        stemmer = CachedStemmer(PorterStemmer()) if use_stemmer else None
        tokenizer = _Tokenizer(tokenize or partial(split_words, stemmer=stemmer))
        self._tokenize = tokenizer.tokenize
        self._scorer = RougeScorer(self.keys, tokenizer=tokenizer)
        # The two types of subsequence are the same where no text has lines, and the slowest part.
        single_line = dict.fromkeys("rougeL" if t == "rougeLsum" else t for t in self.keys)
        self._single_line = RougeScorer(list(single_line), tokenizer=tokenizer)

    def _score(self, prediction: str, references: list[str]) -> list[float]:
        for reference in references:
            if not self._tokenize(reference):
                raise ValueError(
                    f"Rouge finds no word in the reference {reference[:50]!r}: it reads the "
                    "letters a to z and digits; pass tokenize=list, or a tokenizer of the language"
                )
        if any("\n" in text for text in (prediction, *references)):
            scores = self._scorer.score_multi(references, prediction)
        else:
            scores = self._single_line.score_multi(references, prediction)
            scores["rougeLsum"] = scores.get("rougeL")
        return [scores[key].fmeasure for key in self.keys]


class _Tokenizer:
    """A function as the tokenizer that rouge-score expects; it keeps the words of the last texts.

    rouge-score asks for those of a prediction once for each reference.
    """

    def __init__(self, tokenize: Callable[[str], Sequence[str]]):
        self.tokenize = lru_cache(maxsize=64)(tokenize)


class Meteor(_MeanOverTexts):
    """METEOR by NLTK: ``Meteor()``, the result is "meteor"; English (Banerjee and Lavie 2005).

    Parameters
    ----------
    wordnet, tokenize, alpha, beta, gamma
        As in `shared.evaluation.meteor.MeteorScorer`, which says where WordNet is searched.
    confidence : float, optional
        Also return an interval; see the module.

    Notes
    -----
    Of several references, the one that fits best counts. The value of a corpus is the mean over its
    texts.
    """

    keys = ("meteor",)

    def __init__(
        self,
        *,
        wordnet: str | None = None,
        tokenize: Callable[[str], Sequence[str]] | None = None,
        alpha: float = 0.9,
        beta: float = 3.0,
        gamma: float = 0.5,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._scorer = MeteorScorer(wordnet, tokenize=tokenize, alpha=alpha, beta=beta, gamma=gamma)

    def _score(self, prediction: str, references: list[str]) -> list[float]:
        return [self._scorer(prediction, references)]


# --- answers -------------------------------------------------------------------------------------


class ExactMatch(_MeanOverTexts):
    """Share of texts that equal a reference: ``ExactMatch()``, the result is "exact_match".

    Every character counts; `SquadScores` compares answers.
    """

    keys = ("exact_match",)
    blank_references = True

    def _score(self, prediction: str, references: list[str]) -> list[float]:
        return [float(prediction in references)]


class SquadScores(_MeanOverTexts):
    """Exact match and F1 of answers as SQuAD counts them: ``SquadScores()``.

    The results are "squad_exact_match" and "squad_f1", the means of
    `shared.evaluation.answers.squad_scores`.
    """

    keys = ("squad_exact_match", "squad_f1")
    blank_references = True

    def _score(self, prediction: str, references: list[str]) -> Sequence[float]:
        return squad_scores(prediction, references)


# --- likelihoods ---------------------------------------------------------------------------------


class _LikelihoodMetric(_CorpusMetric):
    """A metric of the log-likelihoods of tokens."""

    inputs: ClassVar = {"log_likelihoods": datasets.Sequence(datasets.Value("float64"))}

    def add_batch(self, *, log_likelihoods: Any = None, **inputs: Any) -> None:
        """Add the log-likelihoods of texts, and what else the metric has as inputs.

        Raises
        ------
        ValueError
            If they are no lists of numbers, one for each text, or an input is not as long.
        """
        rows = [
            np.asarray(_list_of(f"log_likelihoods[{index}]", row, "numbers"), dtype=np.float64)
            for index, row in enumerate(_list_of("log_likelihoods", log_likelihoods, "lists"))
        ]
        own = {name: values for name, values in inputs.items() if name in self.inputs}
        for name, values in own.items():
            if len(values) != len(rows):
                raise ValueError(f"log_likelihoods of {len(rows)} texts, but {len(values)} {name}")
        super().add_batch(log_likelihoods=rows, **own)


class Perplexity(_LikelihoodMetric):
    """Perplexity of texts: ``Perplexity()``, the result is "perplexity".

    The input ``log_likelihoods`` has a list for each text: log p (natural logarithm) of each token
    that counts, as `shared.evaluation.causal_log_likelihoods` returns them. The mean is taken over
    all tokens. ``confidence`` resamples texts.
    """

    keys = ("perplexity",)

    def _row_terms(self, log_likelihoods: list[list[float]]) -> np.ndarray:
        sums = likelihood_sums(log_likelihoods)
        return sums[sums[:, 1] > 0]  # a resample of texts without tokens has no perplexity

    def _from_sums(self, sums: np.ndarray) -> np.ndarray:
        return perplexity_of_sums(sums)[:, None]


class _BitsPerUnit(_LikelihoodMetric):
    """Bits that a model needs for a text, for each unit of the text."""

    inputs: ClassVar = {**_LikelihoodMetric.inputs, "references": _TEXT}

    def add_batch(self, *, references: Any = None, **inputs: Any) -> None:
        """Add the log-likelihoods of texts, and the texts; raises as for perplexity."""
        texts = [
            row[0] if isinstance(row, list) and len(row) == 1 else row
            for row in _list_of("references", references)
        ]
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise ValueError(f"references[{index}] must be one text, not {text!r:.60}")
        super().add_batch(references=texts, **inputs)

    def _row_terms(self, log_likelihoods: list[list[float]], references: list[str]) -> np.ndarray:
        sizes = np.array([self._size(text) for text in references])
        if not sizes.any():
            raise ValueError("references hold no character: there is nothing to divide the bits by")
        return np.column_stack([likelihood_sums(log_likelihoods)[:, 0], sizes])

    def _from_sums(self, sums: np.ndarray) -> np.ndarray:
        # A resample of empty texts alone has no value, whatever the bits of their tokens.
        sizes = np.where(sums[:, 1:] > 0, sums[:, 1:], np.nan)
        return sums[:, :1] / np.log(2) / sizes

    def _size(self, text: str) -> int:
        raise NotImplementedError


class BitsPerCharacter(_BitsPerUnit):
    """Bits for each character: ``BitsPerCharacter()``, the result is "bits_per_character".

    ``log_likelihoods`` as in `Perplexity`; ``references`` are the texts that they belong to, one
    each. Unlike perplexity, models with different tokenizers can be compared, if all tokens of a
    text count: let it begin with a BOS token.
    """

    keys = ("bits_per_character",)

    def _size(self, text: str) -> int:
        return len(text)


class BitsPerByte(_BitsPerUnit):
    """Bits for each byte of UTF-8: ``BitsPerByte()``; else as `BitsPerCharacter`."""

    keys = ("bits_per_byte",)

    def _size(self, text: str) -> int:
        return len(text.encode())


# --- input ---------------------------------------------------------------------------------------


def _list_of(name: str, values: Any, content: str = "texts") -> list:
    """Return the values of a list, an array or a column of a data set as a list."""
    if values is None or isinstance(values, (str, bytes, dict)) or not hasattr(values, "__iter__"):
        raise ValueError(f"{name} must be a list of {content}, not {values!r:.60}")
    return list(values)
