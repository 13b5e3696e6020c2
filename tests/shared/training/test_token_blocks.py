"""Blocks of tokens: every token but the first is predicted exactly once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.models.lossless_tokenizers import train_lossless_tokenizer
from shared.models.small_language_models import contexts
from shared.training.collators import IGNORE_INDEX, NextTokenCollator
from shared.training.losses import next_token_loss, token_losses
from shared.training.token_blocks import token_blocks, token_stream

B = 1
documents = st.lists(st.lists(st.integers(2, 9), max_size=12), min_size=1, max_size=8)


def joined(documents):
    return np.array([B, *(token for text in documents for token in (*text, B))])


def test_a_stream_has_boundaries_around_texts():
    tokenizer = train_lossless_tokenizer(["ab", "<|endoftext|>"], "characters", 100)
    stream = token_stream(["ab", "<|endoftext|>", "b"], tokenizer, B)
    # What looks like a boundary in a text is none.
    assert np.flatnonzero(stream == B).tolist() == [0, 3, 17, 19]
    assert tokenizer.decode(stream[4:17]) == "<|endoftext|>"
    assert token_stream(["ab", "b"], tokenizer, None).tolist() == [*stream[1:3], stream[18]]


@settings(max_examples=40, deadline=None)
@given(documents, st.integers(1, 9))
def test_packed_blocks_predict_each_token_once(documents, size):
    stream = joined(documents)
    rows = token_blocks(stream, size)["input_ids"]
    assert [len(row) - 1 for row in rows[:-1]] == [size] * (len(rows) - 1)
    assert 1 <= len(rows[-1]) - 1 <= size
    assert [token for row in rows for token in row[1:]] == stream[1:].tolist()


@settings(max_examples=40, deadline=None)
@given(documents, st.integers(1, 9))
def test_blocks_of_documents_predict_each_token_once_and_see_one_document(documents, size):
    stream = joined(documents)
    dataset = token_blocks(stream, size, boundary=B)
    rows = list(dataset["input_ids"])
    assert [token for row in rows for token in row[1:]] == stream[1:].tolist()
    assert all(B not in row[1:-1] for row in rows)
    assert sum(row[0] == B for row in rows) == len(documents)
    assert max(len(row) - 1 for row in rows) <= size
    assert dataset["length"][:] == [len(row) - 1 for row in rows]


@settings(max_examples=60, deadline=None)
@given(documents, st.integers(1, 9), st.integers(1, 5), st.sampled_from([None, B]))
def test_a_block_has_the_context_of_its_first_token(documents, size, context_size, boundary):
    stream = joined(documents)
    dataset = token_blocks(stream, size, boundary=boundary, context_size=context_size)
    batch = NextTokenCollator(pad_token_id=5)(list(dataset))
    counted = batch["labels"] != IGNORE_INDEX
    assert batch["labels"][counted].tolist() == stream[1:].tolist()
    read = contexts(batch["input_ids"], context_size, B)[counted]
    whole = contexts(torch.from_numpy(stream)[None, :-1], context_size, B)[0]
    assert torch.equal(read, whole)
    assert dataset["length"][:] == [len(row) - 1 for row in dataset["input_ids"]]


@settings(max_examples=25, deadline=None)
@given(documents, st.integers(1, 9))
def test_a_batch_has_each_token_and_the_one_after_it(documents, size):
    stream = joined(documents)
    features = list(token_blocks(stream, size, boundary=B))
    batch = NextTokenCollator(pad_token_id=5)(features)
    for feature, ids, labels in zip(
        features, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True
    ):
        row, n = feature["input_ids"], feature["length"]
        assert ids == row[:-1] + [5] * (len(ids) - n)
        assert labels == row[1:] + [IGNORE_INDEX] * (len(ids) - n)


def test_the_loss_is_the_same_however_a_batch_is_cut():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 6)
    labels = torch.randint(0, 6, (3, 4))
    labels[0, 2:] = labels[2, 1:] = IGNORE_INDEX
    n = int((labels != IGNORE_INDEX).sum())
    whole = next_token_loss({"logits": logits}, labels)
    parts = [next_token_loss({"logits": logits[i : i + 1]}, labels[i : i + 1], n) for i in range(3)]
    assert sum(parts).item() == pytest.approx(whole.item())
    # In an evaluation the logits are reduced first, and padded with -100.
    losses = token_losses(logits, labels)
    losses[labels == IGNORE_INDEX] = -100
    assert next_token_loss({"logits": losses}, labels).item() == pytest.approx(whole.item())
    by_hand = -logits.log_softmax(-1)[1, 3, labels[1, 3]]
    assert losses[1, 3].item() == pytest.approx(by_hand.item())
