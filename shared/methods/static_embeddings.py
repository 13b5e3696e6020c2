"""Static embeddings: the vectors of an encoder's tokens, without the encoder.

Each token of the vocabulary passes the encoder once, on its own. From then on, the vector of a text
is the mean of the vectors of its tokens, which takes no more time than tokenisation. This is the
method of Model2Vec (Tulkens and van Dongen 2024), whose own package does not work with the version
of transformers that the recipes need.
"""

from __future__ import annotations

import copy
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from shared.methods.embeddings import cached_vectors
from shared.methods.mean_pooling import MeanPooling
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DIMENSIONS = 256
TOKENS_PER_BATCH = 1024  # each is a row of three tokens or so
SIF = 1e-4  # of the weight a / (a + p) of a token (Arora et al. 2017), as in Model2Vec


class StaticEncoder(torch.nn.Module):
    """The mean of the static vectors of a text's tokens, in the place of `MeanPooling`.

    Parameters
    ----------
    vectors : array of shape (vocabulary, dimensions)
        float16. Special tokens have zeros.

    Attributes
    ----------
    fingerprint : str
        Another one for other vectors.
    """

    def __init__(self, vectors: np.ndarray):
        super().__init__()
        self.vectors = torch.nn.Embedding.from_pretrained(torch.tensor(vectors).float())
        self.fingerprint = hashlib.sha256(vectors.tobytes()).hexdigest()

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Pool rows of shape (rows, length); padding is a special token or is masked."""
        mask = attention_mask[..., None].to(self.vectors.weight.dtype)
        # The Trainer takes the output named "logits" for the predictions.
        return {"logits": (self.vectors(input_ids) * mask).sum(1) / mask.sum(1).clamp(min=1)}


def distil(
    trainer: LengthGroupedTrainer,
    tokenizer: PreTrainedTokenizerBase,
    model_folder: str,
    cache_dir: Path,
) -> np.ndarray:
    """Return the static vectors of all tokens, from the cache if they have been computed before.

    Tokens are weighted by smooth inverse frequency (Arora et al. 2017, "A Simple but Tough-to-Beat
    Baseline for Sentence Embeddings"), with frequencies by Zipf's law, since a vocabulary lists
    frequent tokens first.

    Parameters
    ----------
    trainer : LengthGroupedTrainer
        Trainer of the `MeanPooling` model of the encoder.
    tokenizer : PreTrainedTokenizerBase
    model_folder : str
        The return value of `shared.models.resolve_model`.
    cache_dir : Path
        From `shared.data.cache_folder`.

    Returns
    -------
    float16 array of shape (vocabulary, dimensions)
        At most 256 dimensions, by principal component analysis.
    """
    from datasets import Dataset
    from sklearn.decomposition import PCA

    assert isinstance(trainer.model, MeanPooling)
    # The special tokens around a token are those around a text of one token.
    example = tokenizer("a", return_special_tokens_mask=True)
    special = np.asarray(example["special_tokens_mask"], dtype=bool)
    place = int(np.flatnonzero(~special)[0])
    special[place] = True  # to keep it; some tokenizers make two tokens of the text
    size = max(tokenizer.get_vocab().values()) + 1
    ids = np.tile(np.asarray(example["input_ids"])[special], (size, 1))
    ids[:, place] = np.arange(size)

    def compute() -> np.ndarray:
        rows = {"input_ids": ids, "length": np.full(len(ids), ids.shape[1])}
        args = copy.copy(trainer.args)
        args.per_device_eval_batch_size = TOKENS_PER_BATCH
        return (
            LengthGroupedTrainer(
                model=trainer.model,
                args=args,
                data_collator=trainer.data_collator,
                bf16_predictions=trainer.bf16_predictions,
            )
            .predict(Dataset.from_dict(rows))
            .predictions
        )

    # A number that is no token, between two that are, has no text.
    words = [word or "" for word in tokenizer.convert_ids_to_tokens(list(range(size)))]
    settings = ("static", trainer.bf16_predictions)
    vectors, _ = cached_vectors(words, model_folder, settings, cache_dir, compute)
    # The vocabulary of BERT begins with a thousand tokens that stand for nothing.
    unused = re.compile(r"\[unused\d+\]")
    special_words = {"", *tokenizer.all_special_tokens}
    known = np.array([w not in special_words and not unused.fullmatch(w) for w in words])
    n_known = int(known.sum())
    pca = PCA(min(DIMENSIONS, n_known, vectors.shape[1]), svd_solver="full")
    reduced = pca.fit_transform(vectors[known])
    frequency = 1 / np.arange(2, n_known + 2)
    weights = SIF / (SIF + frequency / frequency.sum())
    result = np.zeros((len(words), reduced.shape[1]), np.float16)
    result[known] = reduced * weights[:, None]
    return result
