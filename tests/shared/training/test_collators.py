from types import SimpleNamespace

import numpy as np
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.training.collators import MultilabelCollator, SoftLabelCollator, with_soft_labels

N_LABELS = 4
rows = st.fixed_dictionaries(
    {
        "input_ids": st.lists(st.integers(1, 30_000), min_size=1, max_size=40),
        "labels": st.lists(st.integers(0, N_LABELS - 1), max_size=5),
    }
)
batches = st.lists(rows, min_size=1, max_size=9)


def collator(side="right", pad_id=0, **options):
    tokenizer = SimpleNamespace(pad_token_id=pad_id, padding_side=side)
    return MultilabelCollator(tokenizer, N_LABELS, **options)


@settings(max_examples=150, deadline=None)
@given(batches, st.sampled_from(["left", "right"]), st.integers(0, 7), st.sampled_from([1, 8, 16]))
def test_pads_to_the_longest_row_on_the_side_of_the_tokenizer(features, side, pad_id, multiple):
    batch = collator(side, pad_id, pad_to_multiple_of=multiple)(features)
    lengths = [len(feature["input_ids"]) for feature in features]
    width = batch["input_ids"].shape[1]
    assert width % multiple == 0
    assert width - multiple < max(lengths) <= width
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert batch["attention_mask"].shape == (len(features), width)
    for feature, ids, mask in zip(
        features, batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True
    ):
        n = len(feature["input_ids"])
        pads, ones = [pad_id] * (width - n), [1] * n
        zeros = [0] * (width - n)
        if side == "right":
            assert ids == feature["input_ids"] + pads
            assert mask == ones + zeros
        else:
            assert ids == pads + feature["input_ids"]
            assert mask == zeros + ones


@settings(max_examples=100, deadline=None)
@given(batches)
def test_labels_become_float_multi_hot_rows(features):
    labels = collator()(features)["labels"]
    assert labels.dtype == torch.float32
    assert labels.shape == (len(features), N_LABELS)
    for feature, row in zip(features, labels.tolist(), strict=True):
        assert {i for i, value in enumerate(row) if value == 1.0} == set(feature["labels"])
        assert set(row) <= {0.0, 1.0}


def test_soft_labels_and_weights_of_rows():
    tokens = Dataset.from_dict({"text": "ab", "input_ids": [[5, 6], [7]], "length": [2, 1]})
    labels, tokenizer = (
        np.array([[0.2, 0.8], [1, 0]]),
        SimpleNamespace(pad_token_id=0, padding_side="right"),
    )
    rows = with_soft_labels(tokens, labels, np.array([0.5, 2]))
    assert rows.column_names == ["input_ids", "length", "labels", "weight"]
    batch = SoftLabelCollator(tokenizer)(list(rows))
    np.testing.assert_allclose(batch["labels"], labels)
    assert batch["weight"].tolist() == [0.5, 2]
    assert batch["labels"].dtype == batch["weight"].dtype == torch.float32
    batch = SoftLabelCollator(tokenizer)(list(with_soft_labels(tokens, labels)))
    assert set(batch) == {"input_ids", "attention_mask", "labels"}


@settings(max_examples=20, deadline=None)
@given(batches)
def test_features_without_labels_make_a_batch_without_labels(features):
    with_labels = collator()(features)
    batch = collator()([{"input_ids": feature["input_ids"]} for feature in features])
    assert batch.keys() == {"input_ids", "attention_mask"}
    for name, tensor in batch.items():
        assert torch.equal(tensor, with_labels[name])


def test_accepts_arrays_and_ignores_other_columns():
    plain = {"input_ids": [1, 2, 3], "labels": [0, 2]}
    other = {"input_ids": np.array([1, 2, 3]), "labels": np.array([0, 2]), "length": 3, "text": "x"}
    batch = collator()([plain, other])
    assert batch.keys() == {"input_ids", "attention_mask", "labels"}
    for tensor in batch.values():
        assert torch.equal(tensor[0], tensor[1])


def test_agrees_with_the_padding_of_the_tokenizer(tiny_model):
    from shared.models.loading import load_tokenizer

    for side in ("left", "right"):
        tokenizer = load_tokenizer(str(tiny_model))
        tokenizer.padding_side = side
        texts = ["crash", "the docs fail with a new version", "x" * 20]
        ids = tokenizer(texts)["input_ids"]
        expected = tokenizer(texts, padding=True, pad_to_multiple_of=8, return_tensors="pt")
        batch = MultilabelCollator(tokenizer, N_LABELS)([{"input_ids": row} for row in ids])
        assert torch.equal(batch["input_ids"], expected["input_ids"])
        assert torch.equal(batch["attention_mask"], expected["attention_mask"])
