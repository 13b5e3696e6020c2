"""Texts of a language model: limits, ends, windows and the choice of tokens."""

import numpy as np
import pytest
import torch

from shared.methods.text_sampling import SamplingArguments, sample_tokens
from shared.models.small_language_models import count_ngrams
from shared.models.text_generators import TransformerForCausalLM
from shared.models.transformer import TransformerConfig

B = 1


@pytest.fixture(scope="module")
def counts():
    """After 1 comes 2; after 2 comes 3 (80 %) or 4 (20 %); after them 1."""
    stream = np.array([B] + ([2, 3, B] * 4 + [2, 4, B]) * 50)
    return count_ngrams(stream, 2, vocab_size=5, smoothing=1e-9, boundary=B)


def sample(model, start=(B,), *, window=4, end=B, seed=0, **flags):
    args = SamplingArguments(**{"samples": 400, "sample_length": 9} | flags)
    return sample_tokens(model, list(start), args, window=window, end=end, seed=seed)


def share_of_fours(texts):
    return np.mean([text == [2, 4] for text in texts])


def test_texts_end_and_have_the_frequencies_of_the_model(counts):
    texts = sample(counts)
    assert len(texts) == 400
    assert all(text in ([2, 3], [2, 4]) for text in texts)
    assert share_of_fours(texts) == pytest.approx(0.2, abs=0.07)
    assert texts == sample(counts)
    assert texts != sample(counts, seed=1)


def test_temperature_and_the_best_tokens(counts):
    assert share_of_fours(sample(counts, temperature=0)) == 0
    assert share_of_fours(sample(counts, temperature=0.5)) == pytest.approx(1 / 17, abs=0.04)
    assert share_of_fours(sample(counts, top_k=1)) == 0
    assert share_of_fours(sample(counts, top_p=0.7)) == 0
    assert share_of_fours(sample(counts, top_p=0.9)) > 0.1


def test_a_prompt_and_no_end(counts):
    assert sample(counts, [B, 2], samples=3, temperature=0) == [[3]] * 3
    (text,) = sample(counts, samples=1, temperature=0, end=None, sample_length=100)
    assert text == ([2, 3, B] * 34)[:100]


def test_a_text_is_longer_than_the_model_reads():
    torch.manual_seed(0)
    config = TransformerConfig(
        vocab_size=9,
        hidden_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        intermediate_size=16,
        max_position_embeddings=6,
        initializer_range=0.5,
    )
    model = TransformerForCausalLM(config).train()
    (text,) = sample(model, [3, 4], samples=1, window=6, temperature=0, end=None)
    assert model.training
    assert len(text) == 9
    # Each token is the most likely one after the window that it was written in.
    model.eval()
    row = [3, 4, *text]
    for position in range(2, len(row)):
        begin = 0 if position < 6 else position - 3 - (position - 6) % 3
        with torch.no_grad():
            logits = model(torch.tensor([row[begin:position]])).logits[0, -1]
        assert row[position] == logits.argmax()
