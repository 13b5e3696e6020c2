"""Static embeddings: the vectors of tokens, and of texts."""

import numpy as np
import pytest
import torch

from shared.methods.mean_pooling import MeanPooling
from shared.methods.static_embeddings import StaticEncoder, distil
from shared.models import load_encoder, load_tokenizer
from shared.taggers.loading import Loading


@pytest.fixture(scope="module")
def distilled(tiny_model, tmp_path_factory):
    tokenizer = load_tokenizer(str(tiny_model))
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    trainer = Loading().trainer(MeanPooling(encoder), tokenizer)
    cache = tmp_path_factory.mktemp("cache")
    vectors = distil(trainer, tokenizer, str(tiny_model), cache)
    return vectors, tokenizer, trainer, (str(tiny_model), cache)


def test_a_text_is_the_mean_of_its_tokens_without_padding():
    vectors = np.array([[0, 0], [1, 2], [3, 4]], np.float16)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    pooled = StaticEncoder(vectors)(torch.tensor([[1, 2, 2], [0, 1, 1]]), mask)["logits"]
    np.testing.assert_allclose(pooled, [[2, 3], [2 / 3, 4 / 3]], rtol=1e-6)


def test_special_tokens_have_no_vector_and_frequent_ones_less_weight(distilled):
    vectors, tokenizer, _, _ = distilled
    special = tokenizer.all_special_ids
    assert vectors.shape[0] == len(tokenizer)
    assert vectors.dtype == np.float16
    assert not vectors[special].any()
    lengths = np.linalg.norm(np.delete(vectors, special, axis=0).astype(float), axis=1)
    assert (lengths > 0).mean() > 0.9


def test_distances_between_tokens_are_those_of_the_encoder(distilled, monkeypatch):
    _, tokenizer, trainer, folders = distilled
    monkeypatch.setattr("shared.methods.static_embeddings.SIF", 1e9)  # all weights are one
    vectors = distil(trainer, tokenizer, *folders).astype(float)
    ids = [i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids][:20]
    first, last = tokenizer("a")["input_ids"][0], tokenizer("a")["input_ids"][-1]
    batch = torch.tensor([[first, i, last] for i in ids])
    with torch.inference_mode():
        expected = trainer.model(batch, torch.ones_like(batch))["logits"].numpy()
    between = np.linalg.norm(expected[:, None] - expected[None], axis=2)
    ours = np.linalg.norm(vectors[ids][:, None] - vectors[ids][None], axis=2)
    np.testing.assert_allclose(ours, between, atol=0.02 * between.max())
