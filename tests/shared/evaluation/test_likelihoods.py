import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from shared.evaluation.likelihoods import (
    causal_log_likelihoods,
    distribution_perplexity,
    perplexity,
)

# Log-probabilities of a bigram model: row, the token before; column, the next one.
BIGRAMS = np.log([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.3, 0.6, 0.1]])
OFFSETS = np.array([[1.0], [-2.0], [3.0]])  # logits are not normalised


class Bigrams(torch.nn.Module):
    """A causal model whose logits depend on the last token alone."""

    device = torch.device("cpu")

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.table = torch.tensor(BIGRAMS + OFFSETS, dtype=torch.float32)

    def forward(self, input_ids, attention_mask=None):
        assert not self.training
        assert torch.is_inference_mode_enabled()

        class Output:
            logits = self.table[input_ids]

        return Output


@pytest.fixture
def bigrams():
    return Bigrams(GPT2Config(n_positions=6))


def test_log_likelihoods_of_a_bigram_model_as_computed_by_hand(bigrams):
    batches = [
        {
            "input_ids": torch.tensor([[0, 2, 1, 1], [1, 0, 0, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        },
        {"input_ids": torch.tensor([[2, 2]])},  # without padding
    ]
    values = causal_log_likelihoods(bigrams, batches)
    by_hand = [[np.log(0.7), np.log(0.6), np.log(0.25)], [np.log(0.5)], [np.log(0.1)]]
    assert len(values) == 3
    for value, expected in zip(values, by_hand, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert perplexity(values) == pytest.approx((0.7 * 0.6 * 0.25 * 0.5 * 0.1) ** (-1 / 5))
    assert bigrams.training  # as it was


def test_labels_say_which_tokens_count(bigrams):
    batch = {
        "input_ids": torch.tensor([[0, 2, 1, 1], [0, 1, 2, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        # A prompt does not count; padding does not count, even where labels forget it.
        "labels": torch.tensor([[-100, -100, 1, 1], [0, -100, 2, 0]]),
    }
    values = causal_log_likelihoods(bigrams, [batch])
    np.testing.assert_allclose(values[0], np.log([0.6, 0.25]), rtol=1e-6)
    np.testing.assert_allclose(values[1], np.log([0.25]), rtol=1e-6)


def test_a_real_model_agrees_with_its_own_loss_and_padding_changes_nothing():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config).eval()
    texts = [torch.randint(0, 50, (1, length)) for length in (7, 3, 16, 1)]
    alone = causal_log_likelihoods(model, [{"input_ids": text} for text in texts])
    assert [len(value) for value in alone] == [6, 2, 15, 0]
    losses = [model(input_ids=text, labels=text).loss.item() for text in texts[:3]]
    np.testing.assert_allclose([-value.mean() for value in alone[:3]], losses, rtol=1e-5)
    ids, mask = torch.zeros(4, 16, dtype=torch.long), torch.zeros(4, 16, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : text.shape[1]], mask[row, : text.shape[1]] = text, 1
    padded = causal_log_likelihoods(model, [{"input_ids": ids, "attention_mask": mask}])
    for value, expected in zip(padded, alone, strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-6)


def test_mistakes_are_one_line(bigrams):
    left = {"input_ids": torch.tensor([[0, 1]]), "attention_mask": torch.tensor([[0, 1]])}
    with pytest.raises(ValueError, match=r"padded on the left.*padding_side"):
        causal_log_likelihoods(bigrams, [left])
    with pytest.raises(ValueError, match="a text has 7 tokens, but gpt2 has 6 positions"):
        causal_log_likelihoods(bigrams, [{"input_ids": torch.zeros(1, 7, dtype=torch.long)}])
    assert bigrams.training
    config = T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="t5 is an encoder-decoder"):
        causal_log_likelihoods(T5ForConditionalGeneration(config), [])
    with pytest.raises(ValueError, match="no token"):
        perplexity([])


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.5, 0.5], 2),
        ([1, 0, 0, 0], 1),
        ([0.25] * 4, 4),
        ([0.7, 0.1, 0.1, 0.1], 2.5611),
        ([0.97, 0.01, 0.01, 0.01], 1.1826),
        ([0.49, 0.49, 0.01, 0.01], 2.2060),
    ],
)
def test_perplexity_of_a_distribution_in_worked_examples(probabilities, expected):
    assert distribution_perplexity(probabilities) == pytest.approx(expected, abs=5e-5)


def test_perplexity_of_a_distribution_is_that_of_texts_drawn_from_it():
    counts = np.array([[4, 3, 2, 1], [10, 0, 0, 0]])
    drawn = [np.log(np.repeat(row[row > 0] / 10, row[row > 0])) for row in counts]
    expected = [perplexity([row]) for row in drawn]
    np.testing.assert_allclose(distribution_perplexity(counts / 10), expected)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        ([], "the vocabulary is empty"),
        (np.ones((2, 0)), "the vocabulary is empty"),
        ([1.5, -0.5], "at least 0; pass logits through a softmax"),
        ([0.5, np.nan], "must be numbers"),
        ([[0.5, 0.5], [0.5, 0.2]], r"must sum to 1, but one sums to 0\.7"),
    ],
)
def test_what_is_no_distribution_is_refused(probabilities, message):
    with pytest.raises(ValueError, match=message):
        distribution_perplexity(probabilities)
