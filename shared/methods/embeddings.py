"""One vector per text: the mean of a model's last hidden states."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from shared.cli.files import atomic_write, folder_fingerprint
from shared.cli.launch import max_over_processes
from shared.models.tokenizers import tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from shared.data.splits import Split
    from shared.training.trainer import LengthGroupedTrainer


class MeanPooling(torch.nn.Module):
    """An encoder or decoder whose output is the mean of its last hidden states, padding left out.

    What sentence encoders are trained for (Reimers and Gurevych 2019, "Sentence-BERT", section 3).
    `trainer.predict` returns the vectors as ``predictions``, of shape (rows, width).

    Parameters
    ----------
    encoder : PreTrainedModel
        From `shared.models.load_encoder`.
    """

    def __init__(self, encoder: torch.nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Pool rows of shape (rows, length); a row of padding alone gives zeros."""
        output = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden = output.last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        return {"logits": (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)}


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Vectors (rows, width) of length one, float32: their inner products are cosines.

    A zero vector stays one.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(length, np.finfo(np.float32).tiny)


class CachedEmbedder:
    """Sentence embeddings of texts: computed by a Trainer, normalised, kept in a cache.

    Parameters
    ----------
    trainer : LengthGroupedTrainer
        Of a `MeanPooling` model.
    tokenizer : PreTrainedTokenizerBase
        Cuts texts at its ``model_max_length``.
    model_folder : str
        What `shared.models.resolve_model` returned.
    cache_dir : Path
        From `shared.data.cache_folder`.

    Attributes
    ----------
    n_texts : int
        Texts embedded so far.
    seconds : float
        Time that embedding them took, also where an earlier run did it and the cache has them.
    """

    def __init__(
        self,
        trainer: LengthGroupedTrainer,
        tokenizer: PreTrainedTokenizerBase,
        model_folder: str,
        cache_dir: Path,
    ):
        self.trainer, self.tokenizer = trainer, tokenizer
        self.model_folder, self.cache_dir = model_folder, cache_dir
        self.n_texts, self.seconds = 0, 0.0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors of length one: float32, of shape (texts, width)."""
        settings = (self.tokenizer.model_max_length, self.trainer.bf16_predictions)
        vectors, seconds = cached_vectors(
            texts, self.model_folder, settings, self.cache_dir, lambda: self._compute(texts)
        )
        self.n_texts += len(texts)
        self.seconds += seconds
        return normalized(vectors)

    def _compute(self, texts: Sequence[str]) -> np.ndarray:
        from datasets import Dataset

        # `map` tokenises in batches: one call for all texts would keep their tokens untruncated.
        rows = Dataset.from_dict({"text": list(texts)})
        tokens = tokenize(rows, self.tokenizer).remove_columns("text")
        return self.trainer.predict(tokens).predictions


def embed_split(
    split: Split, embed: Callable[[Sequence[str]], np.ndarray]
) -> dict[str, np.ndarray]:
    """One vector for each row of "train", "valid", "test" and "left_out": shape (rows, width).

    All labelled texts of a source are embedded at once, whatever the seed and the training size
    leave of them, so that the cache serves the next run with others.
    """
    vectors, known = {}, {}
    left_out = (split.corpus, split.left_out)
    for part, (source, indices) in {**split.sources, "left_out": left_out}.items():
        if id(source) not in known:
            known[id(source)] = embed(source.dataset.select(source.labelled)["text"])
        vectors[part] = known[id(source)][np.searchsorted(source.labelled, indices)]
    return vectors


def cached_vectors(
    texts: Sequence[str],
    model_folder: str,
    settings: object,
    cache_dir: str | Path,
    compute: Callable[[], np.ndarray],
) -> tuple[np.ndarray, float]:
    """Vectors of texts, from the cache if the same model has embedded the same texts before.

    Parameters
    ----------
    texts : sequence of str
    model_folder : str
        Folder or hub id; a folder counts as changed when its weights do.
    settings : object
        What else the vectors depend on, such as the tokens that the model reads; by its ``repr``.
    cache_dir : str or Path
        Receives one file per set of texts.
    compute : callable
        Returns the array of shape (texts, width) where it is not known yet.

    Returns
    -------
    vectors : array of shape (texts, width)
    seconds : float
        Time that computing them took, also where an earlier run did it and the cache has them.
    """
    key = hashlib.sha256(f"3 {model_folder} {settings!r}".encode())
    key.update(folder_fingerprint(model_folder).encode())
    for text in texts:
        encoded = text.encode()
        key.update(len(encoded).to_bytes(8, "little") + encoded)
    path = Path(cache_dir) / f"vectors-{key.hexdigest()[:32]}.npz"
    vectors, seconds = None, 0.0
    unreadable = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
    with contextlib.suppress(*unreadable), np.load(path, allow_pickle=False) as kept:
        seconds, vectors = float(kept["seconds"]), kept["vectors"]
    # Processes compute together: none may start while another has found its file and gone on.
    if not max_over_processes(vectors is None):
        return vectors, seconds
    started = perf_counter()
    vectors = compute()
    seconds = perf_counter() - started
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return vectors, seconds
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, "wb") as file:
            np.savez(file, allow_pickle=False, vectors=vectors, seconds=seconds)
    except OSError as error:  # they are there all the same
        print(f"note: {path.parent}: vectors not kept ({error.strerror})", file=sys.stderr)
    return vectors, seconds
