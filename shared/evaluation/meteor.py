"""METEOR, computed by NLTK with a WordNet of any origin and nothing to download."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from shared.cli.errors import UserError
from shared.data.wordnet import WordNetFiles, find_wordnet

# A new sentence does not begin with a small letter, nor after a title.
_SENTENCE_END = re.compile(r"(?<=[.!?])(?<!\bMr\.)(?<!\bMs\.)(?<!\bMrs\.)(?<!\bDr\.)\s+(?![a-z])")
_PARTS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}  # as NLTK names them


class MeteorScorer:
    """Score texts by METEOR: matches of words, of stems (Porter) and of WordNet's synonyms.

    Parameters
    ----------
    wordnet : str, optional
        Folder with WordNet's files; None finds them (see `shared.data.wordnet.find_wordnet`).
    tokenize : callable, optional
        Makes a list of words of a text, such as ``nltk.word_tokenize``, which needs NLTK's data.
        None does nearly the same without it: texts are split at the ends of sentences, and these
        as in the Penn Treebank. It differs after rare abbreviations, which may end a sentence.
    alpha, beta, gamma : float
        The weight of precision against recall, and shape and weight of the penalty for matches that
        are scattered; NLTK's defaults.

    Raises
    ------
    UserError
        If NLTK or WordNet's files are not there.

    Notes
    -----
    Banerjee and Lavie (2005), METEOR: An Automatic Metric for MT Evaluation with Improved
    Correlation with Human Judgments; the parameters are those of Lavie and Agarwal (2007). Values
    depend on the version of WordNet: 3.0 is NLTK's.
    """

    def __init__(
        self,
        wordnet: str | None = None,
        *,
        tokenize: Callable[[str], Sequence[str]] | None = None,
        alpha: float = 0.9,
        beta: float = 3.0,
        gamma: float = 0.5,
    ):
        try:
            from nltk.stem.porter import PorterStemmer
            from nltk.tokenize import NLTKWordTokenizer
        except ImportError as error:
            raise UserError(missing_library("Meteor", error)) from error
        files = WordNetFiles(find_wordnet(wordnet, user="Meteor", option="wordnet=FOLDER"))
        treebank = NLTKWordTokenizer().tokenize
        self._tokenize = tokenize or (
            lambda text: [
                word for sentence in _SENTENCE_END.split(text) for word in treebank(sentence)
            ]
        )
        self._settings = {
            "stemmer": CachedStemmer(PorterStemmer()),
            "wordnet": _SynonymReader(files),
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
        }

    def __call__(self, prediction: str, references: Sequence[str]) -> float:
        """Return the score of a text, from 0 to 1: that of the reference that fits it best."""
        from nltk.translate.meteor_score import meteor_score

        words = [self._tokenize(reference) for reference in references]
        return float(meteor_score(words, self._tokenize(prediction), **self._settings))


def missing_library(user: str, error: ImportError) -> str:
    """Return the line that says how to install what a metric of generated texts needs."""
    return f'{user} needs {error.name}, which is not installed; pip install -e ".[generation]"'


class CachedStemmer:
    """A stemmer of NLTK that keeps what it has stemmed."""

    def __init__(self, stemmer):
        self.stem = cache(stemmer.stem)


@dataclass(frozen=True)
class _Lemma:
    """A word of a sense, with the method of NLTK's class."""

    word: str

    def name(self) -> str:
        return self.word


@dataclass(frozen=True)
class _Synset:
    """The words of all senses of a word, with the method of NLTK's class."""

    words: tuple[_Lemma, ...]

    def lemmas(self) -> tuple[_Lemma, ...]:
        return self.words


class _SynonymReader:
    """What METEOR needs of NLTK's reader of WordNet, for files in any folder or archive.

    NLTK's own reader cannot read files with the line endings of Windows, and warns that it has no
    data of other languages.
    """

    def __init__(self, files: WordNetFiles):
        from nltk.corpus.reader.wordnet import WordNetCorpusReader

        self.files = files
        self.irregular = {part: files.irregular_forms(part) for part in _PARTS}
        endings = WordNetCorpusReader.MORPHOLOGICAL_SUBSTITUTIONS
        self.endings = {part: endings[letter] for part, letter in _PARTS.items()}
        self.synsets = cache(self._synsets)

    def _synsets(self, word: str) -> list[_Synset]:
        """Return one set of the words of all senses of a word, in all parts of speech."""
        words = {
            synonym
            for part in _PARTS
            for form in self._base_forms(word.lower(), part)
            for sense in self.files.senses(form, part)
            for synonym in self.files.words(part, sense)
        }
        return [_Synset(tuple(_Lemma(synonym) for synonym in words))]

    def _base_forms(self, word: str, part: str) -> set[str]:
        """Return a word and its base forms, by WordNet's rules for inflected words, morphy(7WN)."""
        if word in self.irregular[part]:
            return {word, *self.irregular[part][word]}
        regular = (
            word[: -len(ending)] + base
            for ending, base in self.endings[part]
            if word.endswith(ending)
        )
        return {word, *regular}
