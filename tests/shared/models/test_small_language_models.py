"""Counts and small networks that predict the next token: definitions, loading, writing."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from shared.models.small_language_models import (
    BigramConfig,
    BigramForCausalLM,
    MLPConfig,
    MLPForCausalLM,
    RNNConfig,
    RNNForCausalLM,
    contexts,
    count_ngrams,
)

V, B = 7, 1  # tokens of the vocabulary, and the one between two texts
streams = st.lists(st.integers(0, V - 1), min_size=2, max_size=60).map(np.array)
STREAM = np.array([B, 2, 3, 4, B, 2, 3, B, 5, 2, 3, 4, 6, B])


def build(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "counts":
            return count_ngrams(STREAM, 3, vocab_size=V, smoothing=0.1, boundary=B)
        if name == "bigram":
            model = BigramForCausalLM(BigramConfig(vocab_size=V))
            torch.nn.init.normal_(model.table.weight)
        elif name == "mlp":
            sizes = {"context_size": 3, "embedding_size": 4, "hidden_size": 8}
            model = MLPForCausalLM(MLPConfig(vocab_size=V, **sizes))
        else:
            sizes = {"embedding_size": 4, "hidden_size": 8, "num_layers": 2}
            model = RNNForCausalLM(RNNConfig(vocab_size=V, cell=name, **sizes))
        return model.eval()


each_model = pytest.mark.parametrize("name", ["counts", "bigram", "mlp", "rnn", "lstm", "gru"])


def context_by_hand(row, position, size, boundary):
    """The last `size` tokens up to a position, from the last boundary on, filled up before it."""
    context = list(row[max(position + 1 - size, 0) : position + 1])
    if boundary is not None and boundary in context:
        context = context[len(context) - 1 - context[::-1].index(boundary) :]
    fill = 0 if boundary is None else boundary
    return [fill] * (size - len(context)) + context


@settings(max_examples=100, deadline=None)
@given(streams, st.integers(0, 5), st.sampled_from([None, B]))
def test_a_context_does_not_reach_over_the_start_of_a_text(row, size, boundary):
    actual = contexts(torch.tensor(row)[None], size, boundary)[0].tolist()
    assert actual == [context_by_hand(row, i, size, boundary) for i in range(len(row))]


@settings(max_examples=100, deadline=None)
@given(streams, st.integers(1, 4), st.floats(1e-3, 10), st.sampled_from([None, B]))
def test_probabilities_are_smoothed_counts(stream, n, smoothing, boundary):
    model = count_ngrams(stream, n, vocab_size=V, smoothing=smoothing, boundary=boundary)
    keys = [tuple(context_by_hand(stream, i, n - 1, boundary)) for i in range(len(stream))]
    counts = Counter(zip(keys[:-1], stream[1:].tolist(), strict=True))
    logits = model(torch.tensor(stream)[None]).logits[0]
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(len(stream)))
    for key, row in zip(keys, logits.exp().tolist(), strict=True):
        seen = sum(counts[key, token] for token in range(V))
        expected = [(counts[key, t] + smoothing) / (seen + V * smoothing) for t in range(V)]
        assert row == pytest.approx(expected, rel=1e-5)


def test_counts_that_cannot_be():
    with pytest.raises(ValueError, match="at least two tokens"):
        count_ngrams(STREAM[:1], 2, vocab_size=V, smoothing=1, boundary=B)
    with pytest.raises(ValueError, match="do not fit into 64 bits"):
        count_ngrams(STREAM, 23, vocab_size=V, smoothing=1, boundary=B)
    count_ngrams(STREAM, 22, vocab_size=V, smoothing=1, boundary=B)


def test_the_bigram_learns_the_counts():
    torch.manual_seed(0)
    model = BigramForCausalLM(BigramConfig(vocab_size=V))
    ids = torch.tensor(STREAM)[None]
    optimizer = torch.optim.Adam(model.parameters(), 0.3)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    counted = count_ngrams(STREAM, 2, vocab_size=V, smoothing=1e-9, boundary=B)
    assert loss.item() == pytest.approx(counted(ids, labels=ids).loss.item(), abs=1e-3)


@each_model
@settings(max_examples=20, deadline=None)
@given(row=st.lists(st.integers(0, V - 1), min_size=2, max_size=12), data=st.data())
def test_nothing_depends_on_what_comes_after_it(name, row, data):
    model = build(name)
    n = data.draw(st.integers(1, len(row) - 1))
    whole, part = (model(torch.tensor([tokens])).logits for tokens in (row, row[:n]))
    torch.testing.assert_close(whole[:, :n], part)


@each_model
def test_the_loss_is_that_of_the_next_tokens(name):
    model, ids = build(name), torch.tensor(STREAM)[None]
    log_p = model(ids).logits.log_softmax(-1)[0, :-1]
    chosen = log_p[torch.arange(len(STREAM) - 1), STREAM[1:]]
    assert model(ids, labels=ids).loss.item() == pytest.approx(-chosen.mean().item(), rel=1e-5)
    assert model(ids, labels=ids, num_items_in_batch=2).loss.item() == pytest.approx(
        -chosen.sum().item() / 2, rel=1e-5
    )


@each_model
def test_a_saved_model_loads_and_writes_the_same(name, tmp_path):
    model = build(name)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor(STREAM)[None]
    assert type(loaded) is type(model)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    options = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None}
    start = {"input_ids": ids[:, :3], "attention_mask": torch.ones_like(ids[:, :3])}
    written = loaded.generate(**start, **options)
    assert written.shape == (1, 11)
    for position in range(3, 11):  # each is the most likely one after those before it
        before = model(written[:, :position]).logits[0, -1]
        assert before[written[0, position]] == before.max()
