"""Sentence embeddings: one vector of length one per text, cached."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.files import atomic_write, folder_fingerprint
from shared.cli.launch import max_over_processes
from shared.models.tokenizers import tokenize_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from shared.data.corpus import Corpus
    from shared.data.splits import Split
    from shared.training.trainer import LengthGroupedTrainer

KEPT_TEXTS = 100_000  # whose vectors are kept in memory, 150 MB of them for the default encoder
EMBED_ALL = 5000  # labelled texts up to which all are embedded, also those that a run does not use


# --- vectors of length one -----------------------------------------------------------------------


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (rows, width) scaled to length one, float32; inner products are then cosines.

    A zero vector stays zero.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)


# --- embedding texts -----------------------------------------------------------------------------


class Embedder:
    """Sentence embeddings of texts: computed by a Trainer, and normalised.

    Parameters
    ----------
    trainer : LengthGroupedTrainer
        Trainer of a `MeanPooling` model.
    tokenizer : PreTrainedTokenizerBase
        Truncates texts at its ``model_max_length``.
    """

    def __init__(self, trainer: LengthGroupedTrainer, tokenizer: PreTrainedTokenizerBase):
        self.trainer, self.tokenizer = trainer, tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors of length one: float32, of shape (texts, width)."""
        return normalized(self._compute(texts))

    def _compute(self, texts: Sequence[str]) -> np.ndarray:
        return self.trainer.predict(tokenize_texts(self.tokenizer, texts)).predictions


class CachedEmbedder(Embedder):
    """Sentence embeddings of texts that are kept in a cache, and the last ones in memory.

    The last `KEPT_TEXTS` texts, in whatever lists, need neither the model nor the cache again.

    Parameters
    ----------
    trainer, tokenizer
        As in `Embedder`.
    model_folder : str
        The return value of `shared.models.resolve_model`.
    cache_dir : Path
        From `shared.data.cache_folder`.

    Attributes
    ----------
    n_texts : int
        Number of texts embedded so far, those from the cache on disk included.
    seconds : float
        Time in seconds that it took to embed them. For texts from the cache, this is the time of
        the run that embedded them.
    """

    def __init__(
        self,
        trainer: LengthGroupedTrainer,
        tokenizer: PreTrainedTokenizerBase,
        model_folder: str,
        cache_dir: Path,
    ):
        super().__init__(trainer, tokenizer)
        self.model_folder, self.cache_dir = model_folder, cache_dir
        self.n_texts, self.seconds = 0, 0.0
        self._known: dict[bytes, np.ndarray] = {}  # hash of a text: its vector

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors of length one: float32, of shape (texts, width)."""
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        if keys and all(key in self._known for key in keys):
            return np.stack([self._known[key] for key in keys])
        # Truncation and precision change the vectors, so they are part of the cache's key.
        settings: tuple[object, ...] = (
            self.tokenizer.model_max_length,
            self.trainer.bf16_predictions,
        )
        if prefix := self.tokenizer.init_kwargs.get("text_prefix"):
            settings += (prefix,)
        if self.tokenizer.truncation_side != "right":
            settings += (("truncation_side", self.tokenizer.truncation_side),)
        if (fingerprint := getattr(self.trainer.model, "fingerprint", None)) is not None:
            settings += (fingerprint,)  # of static embeddings
        vectors, seconds = cached_vectors(
            texts, self.model_folder, settings, self.cache_dir, lambda: self._compute(texts)
        )
        self.n_texts += len(texts)
        self.seconds += seconds
        vectors = normalized(vectors)
        for key, vector in zip(keys, vectors, strict=True):
            self._known.pop(key, None)  # to its place at the end
            self._known[key] = vector
        for key in list(islice(self._known, max(len(self._known) - KEPT_TEXTS, 0))):
            del self._known[key]
        return vectors


class SourceVectors:
    """Vectors of the labelled texts of a data set, embedded when they are first asked for.

    Of at most `EMBED_ALL` labelled texts, all are embedded in one call: the cache then serves runs
    with another seed or training size.

    Parameters
    ----------
    source : Corpus
    embed : callable
        Maps texts to an array of shape (texts, width), such as a `CachedEmbedder`.
    """

    def __init__(self, source: Corpus, embed: Callable[[Sequence[str]], np.ndarray]):
        self.source, self.embed = source, embed
        self._vectors: np.ndarray | None = None  # (texts embedded so far, width)
        self._position = np.full(len(source.dataset), -1)  # of each row in `_vectors`

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors of labelled rows, given as int64 indices: shape (rows, width)."""
        new = rows[self._position[rows] < 0]
        if self._vectors is None or len(new):
            if len(self.source.labelled) <= EMBED_ALL:
                new = self.source.labelled
            vectors = self.embed(self.source.dataset.select(new)["text"])
            n_before = 0 if self._vectors is None else len(self._vectors)
            self._position[new] = n_before + np.arange(len(new))
            parts = [vectors] if self._vectors is None else [self._vectors, vectors]
            self._vectors = np.concatenate(parts)
        return self._vectors[self._position[rows]]


def embed_split(
    split: Split,
    embed: Callable[[Sequence[str]], np.ndarray],
    known: dict[int, SourceVectors] | None = None,
    *,
    left_out: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Return one vector per row of "train", "valid", "test" and "left_out": shape (rows, width).

    Parameters
    ----------
    split : Split
    embed : callable
        Maps texts to an array of shape (texts, width), such as a `CachedEmbedder`.
    known : dict, optional
        Receives the vectors of each source. Pass the same one for several splits of a source, such
        as folds, so that its texts are embedded once.
    left_out : int64 array, optional
        Those rows of ``split.left_out`` that are needed (default: none).
    """
    vectors: dict[str, np.ndarray] = {}
    source_vectors = {} if known is None else known
    left_out = split.left_out[:0] if left_out is None else left_out
    parts = {**split.sources, "left_out": (split.corpus, left_out)}
    for part, (source, rows) in parts.items():
        # Parts of one source share its vectors. A `Corpus` is not hashable, hence its id.
        if id(source) not in source_vectors:
            source_vectors[id(source)] = SourceVectors(source, embed)
        vectors[part] = source_vectors[id(source)](rows)
    return vectors


def cached_vectors(
    texts: Sequence[str],
    model_folder: str,
    settings: object,
    cache_dir: str | Path,
    compute: Callable[[], np.ndarray],
) -> tuple[np.ndarray, float]:
    """Return vectors of texts, from the cache if the same model has embedded the same texts before.

    Parameters
    ----------
    texts : sequence of str
    model_folder : str
        Folder or hub id. A folder counts as another model when one of its files changes.
    settings : object
        Everything else that the vectors depend on, such as the maximum length in tokens; compared
        by its ``repr``.
    cache_dir : str or Path
        Folder that gets one file per list of texts.
    compute : callable
        Returns the array of shape (texts, width); called only if the cache has no such array.

    Returns
    -------
    vectors : array of shape (texts, width)
    seconds : float
        Time in seconds that it took to compute them. For vectors from the cache, this is the time
        of the run that computed them.
    """
    # A new number in front makes all older files invalid.
    key = hashlib.sha256(f"3 {model_folder} {settings!r}".encode())
    key.update(folder_fingerprint(model_folder).encode())
    for text in texts:
        encoded = text.encode()
        # The length in front separates texts: ["a", "b"] and ["ab"] must get different keys.
        key.update(len(encoded).to_bytes(8, "little") + encoded)
    path = Path(cache_dir) / f"vectors-{key.hexdigest()[:32]}.npz"

    # A file that is missing or damaged counts as not cached.
    vectors, seconds = None, 0.0
    unreadable = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
    with contextlib.suppress(*unreadable), np.load(path, allow_pickle=False) as cached:
        seconds, vectors = float(cached["seconds"]), cached["vectors"]

    # `compute` needs all processes of a launch. If one process lacks the file (each machine may
    # have its own cache), all must compute; otherwise that process would wait for ever.
    if not max_over_processes(vectors is None):
        assert vectors is not None  # true in every process, or the maximum would be 1
        return vectors, seconds
    started = perf_counter()
    vectors = compute()
    seconds = perf_counter() - started
    # The first process of each machine writes the file.
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return vectors, seconds
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.savez(file, allow_pickle=False, vectors=vectors, seconds=seconds)
    except OSError as error:  # a full disk or the like costs the cache, not the run
        print(f"note: {path.parent}: embeddings not cached ({error.strerror})", file=sys.stderr)
    return vectors, seconds
