"""Why a text got its labels: the words that weigh most, and the nearest labelled texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.launch import progress
from shared.data.arguments import DataArguments
from shared.data.corpus import cache_folder, load_data
from shared.data.words import WordAnalyzer
from shared.methods.neighbours import NearestNeighbours
from shared.methods.titles import titles
from shared.taggers.folder import tagger_fingerprint
from shared.taggers.means import MeanScorer
from shared.taggers.tagger import Tagger

if TYPE_CHECKING:
    from shared.data.corpus import Corpus

# From texts and k to the rows of their k nearest neighbours and the cosines, both of shape
# (texts, k), or narrower if there are fewer.
Search = Callable[[Sequence[str], int], tuple[np.ndarray, np.ndarray]]
_PROBE_TEXT = "a text"
BLOCK_ROWS = 256  # texts that are embedded between two states of the progress bar


class Explainer:
    """Say why a tagger gave texts their labels.

        explainer = Explainer(load_tagger("outputs/mine"), load_data(DataArguments(data=...)))
        explainer(["Tokenizer drops the last word"])[0]
        # {"words": {"bug": [["drops", 1.93], ...]}, "neighbours": [{"row": 17, ...}, ...]}

    Making one embeds the reference, and is slow; a call takes a forward pass, and for a trained
    model a backward pass for each label of a text.

    Parameters
    ----------
    tagger : Tagger
    reference : Corpus, optional
        Its labelled texts are searched for neighbours: by the embeddings of the tagger (the mean of
        the last hidden states of a trained model), and for methods without an encoder by TF-IDF.
        None: a tagger that votes by neighbours names those; others have none.
    reference_rows : int array, optional
        The labelled rows of the reference that are searched. None: all.
    n_words : int, default 5
        Words of each label.
    n_neighbours : int, default 3
    version : str, optional
        What changes whenever the tagger does, such as its `tagger_version`: the vectors of the
        reference are then kept in the cache of prepared data. None: they are not kept.
    cache_dir : str, optional
        The folder of that cache. None: the default one.

    Attributes
    ----------
    notes : list of str
        What cannot be said of this tagger, and why.
    """

    def __init__(
        self,
        tagger: Tagger,
        reference: Corpus | None = None,
        *,
        reference_rows: np.ndarray | None = None,
        n_words: int = 5,
        n_neighbours: int = 3,
        version: str | None = None,
        cache_dir: str | None = None,
    ):
        self.tagger, self.n_words, self.n_neighbours = tagger, n_words, n_neighbours
        self.notes: list[str] = []
        self._label_ids = {name: i for i, name in enumerate(tagger.label_names)}
        self._contributions = getattr(tagger.scorer, "contributions", None)
        try:
            if self._contributions is None:
                raise ValueError("its method weighs no words")
            self._contributions([_PROBE_TEXT], [[0]])
        except (ValueError, NotImplementedError) as error:
            self._contributions = None
            self.notes.append(f"no words are named as reasons: {error}")
        members = _members(tagger)
        scorers: list[Any] = [member.scorer for member in members]
        lookups = [
            member
            for member in members
            if hasattr(getattr(member.scorer, "classifier", None), "lookup")
        ]
        embedders = [each.embed for each in scorers if getattr(each, "embed", None) is not None]
        self._search: Search | None = None
        if reference is not None:
            if reference_rows is None:
                reference_rows = reference.labelled
            rows = reference.dataset.select(reference_rows)
            self._groups = reference.groups[reference_rows]
            if embedders:
                self._search = self._by_embeddings(
                    embedders[0], rows["text"][:], version, cache_dir
                )
            else:
                self._search = self._by_words(rows["text"])
            names = np.array(reference.label_names, dtype=object)
            numbers, first_lines = rows["row"][:], titles(rows["text"][:])
            ids = rows["labels"][:]
            self._describe = lambda row: {
                "row": numbers[row],
                "text": first_lines[row],
                "labels": names[ids[row]].tolist(),
            }
        elif lookups:
            scorer: Any = lookups[0].scorer
            lookup = scorer.classifier.lookup
            self._search = self._in_index(lookup, scorer.embed)
            names = np.array(lookups[0].label_names, dtype=object)  # in their order there
            self._describe = lambda row: {
                "number": row + 1,
                "labels": names[lookup.labels[row] > 0].tolist(),
            }
        else:
            self.notes.append("no neighbours are named: the tagger holds no training texts")

    def __call__(
        self,
        texts: Sequence[str | None],
        labels: Sequence[Sequence[str]] | None = None,
        groups: np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """Explain the labels of texts.

        Parameters
        ----------
        texts : sequence of str or None
            As for `Tagger.tag`.
        labels : sequence of sequences of str, optional
            The labels to explain of each text. None: those that the tagger gives it.
        groups : int array of shape (texts,), optional
            Of texts that are rows of the reference: their ``reference.groups``. A row and its near
            duplicates are then no neighbours of it. None: any text of the reference may be one.

        Returns
        -------
        list of dict, one for each text
            ``words``: for each label the words that speak for it, as [word, contribution to the
            logit], the heaviest first; see `shared.methods.attributions`. ``neighbours``, the
            nearest first: ``cosine`` and ``labels``, and of a text of the reference its ``row`` in
            the file (from 1) and its first line as ``text``; of a text that the tagger holds its
            ``number`` among the training texts. Both are empty for a text that is blank, and what
            the tagger cannot say is missing.
        """
        if labels is None:
            labels = [record["labels"] for record in self.tagger.tag(texts)]
        numbers = [i for i, text in enumerate(texts) if text and text.strip()]
        filled = [str(texts[i]) for i in numbers]
        explanations: list[dict[str, Any]] = [{} for _ in texts]
        if self._contributions is not None:
            chosen = [[self._label_ids[name] for name in labels[i]] for i in numbers]
            for explanation in explanations:
                explanation["words"] = {}
            contributions = self._contributions(filled, chosen) if filled else []
            for i, of_text in zip(numbers, contributions, strict=True):
                words = [_strongest(each, self.n_words) for each in of_text]
                explanations[i]["words"] = dict(zip(labels[i], words, strict=True))
        if self._search is not None:
            for explanation in explanations:
                explanation["neighbours"] = []
            if filled:
                own = None if groups is None else np.asarray(groups)[numbers]
                for i, pairs in zip(numbers, self._nearest(filled, own), strict=True):
                    explanations[i]["neighbours"] = [
                        {"cosine": round(cosine, 4), **self._describe(row)} for row, cosine in pairs
                    ]
        return explanations

    # --- neighbours ---

    def _nearest(
        self, texts: Sequence[str], groups: np.ndarray | None
    ) -> list[list[tuple[int, float]]]:
        """Return the nearest neighbours of each text outside of its group, with their cosines."""
        assert self._search is not None
        n_own = 0
        if groups is not None:
            n_own = int((self._groups == groups[:, None]).sum(axis=1).max())
        nearest, cosines = self._search(texts, self.n_neighbours + n_own)
        pairs = []
        for number, of_text in enumerate(zip(nearest.tolist(), cosines.tolist(), strict=True)):
            others = [
                (row, cosine)
                for row, cosine in zip(*of_text, strict=True)
                if groups is None or self._groups[row] != groups[number]
            ]
            pairs.append(others[: self.n_neighbours])
        return pairs

    def _by_embeddings(
        self,
        embed: Callable,
        reference: Sequence[str],
        version: str | None,
        cache_dir: str | None,
    ) -> Search:
        """Return the search among texts that are embedded, or were in an earlier run."""
        from shared.methods.embeddings import CachedEmbedder, cached_vectors, normalized

        def unit(texts: Sequence[str]) -> np.ndarray:
            return normalized(embed(texts))  # with titles, they are longer

        # A cache has one file for each list of texts.
        cached = isinstance(getattr(embed, "embed", embed), CachedEmbedder)
        n_rows = len(reference) if cached else BLOCK_ROWS

        def embed_reference() -> np.ndarray:
            starts = range(0, len(reference), n_rows)
            blocks = progress(starts, "embedding the labelled texts", unit="blocks")
            return np.concatenate([unit(reference[i : i + n_rows]) for i in blocks])

        if version is None:
            vectors = embed_reference()
        else:
            key = hashlib.sha256(version.encode()).hexdigest()
            folder = cache_folder(cache_dir)
            vectors, _ = cached_vectors(reference, f"tagger {key}", (), folder, embed_reference)
        index = NearestNeighbours(vectors, np.zeros((len(vectors), 0)))
        return self._in_index(index, unit)

    def _in_index(self, index: NearestNeighbours, embed: Callable) -> Search:
        vectors = index.vectors

        def search(texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
            queries = embed(texts)
            rows = index.search(queries, min(k, len(vectors)))
            return rows, np.einsum("tw,tkw->tk", queries, vectors[rows])

        return search

    def _by_words(self, reference: Sequence[str]) -> Search:
        """Return the search among the TF-IDF vectors of texts."""
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.neighbors import NearestNeighbors

        vectorizer = TfidfVectorizer(analyzer=WordAnalyzer(), sublinear_tf=True)
        index = NearestNeighbors(metric="cosine", algorithm="brute")
        index.fit(vectorizer.fit_transform(reference))

        def search(texts: Sequence[str], k: int) -> tuple[np.ndarray, np.ndarray]:
            queries = vectorizer.transform(texts)
            distances, rows = index.kneighbors(queries, min(k, len(reference)))
            return rows, 1 - distances

        return search


def load_explainer(tagger: Tagger, args: Any) -> tuple[Explainer, str]:
    """Return the explainer that the flags of ``tag.py`` describe, and the version of its texts.

    Parameters
    ----------
    tagger : Tagger
    args : dataclass
        ``model`` names the folders of the tagger, ``explain_data`` the file of labelled texts,
        ``text_columns`` and ``label_column`` its columns; ``column_names``, ``delimiter``,
        ``quoting`` and ``encoding`` say how a CSV file is read.

    Raises
    ------
    UserError
        If the file cannot be read, or has no labelled text.
    """
    version = tagger_version(args)
    if args.explain_data is None:
        return Explainer(tagger, version=version), ""
    names = ("text_columns", "label_column", "column_names", "delimiter", "quoting", "encoding")
    reading = {name: getattr(args, name) for name in names}
    reference = load_data(DataArguments(data=args.explain_data, **reading))
    return Explainer(tagger, reference, version=version), reference.fingerprint


def tagger_version(args: Any) -> str:
    """Return a text that changes whenever the vectors of taggers may.

    Parameters
    ----------
    args : shared.taggers.arguments.TaggerArguments
        With the folders of the taggers in ``model``.
    """
    return " ".join([*map(tagger_fingerprint, args.model), *(["bf16"] if args.bf16 else [])])


def explains_slowly(tagger: Tagger) -> bool:
    """Return whether words are weighed by the gradients of a model: many passes for each text."""
    return any(hasattr(member.scorer, "trainer") for member in _members(tagger))


def _members(tagger: Tagger) -> list[Tagger]:
    """Return the taggers of a mean, also of means in it; else the tagger itself."""
    if not isinstance(tagger.scorer, MeanScorer):
        return [tagger]
    return [each for member in tagger.scorer.members for each in _members(member)]


def _strongest(words: Mapping[str, float], n_words: int) -> list[list[Any]]:
    """Return the words with the highest weights above 0, as [word, weight]."""
    ranked = sorted(words.items(), key=lambda item: -item[1])[:n_words]
    return [[word, float(f"{weight:.4g}")] for word, weight in ranked if weight > 0]
