"""Windows of documents: no token is lost, and pooling equals a loop over documents."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from shared.cli.errors import UserError
from shared.methods.windows import (
    WindowArguments,
    Windows,
    limit_windows,
    pool_windows,
    split_into_windows,
)
from shared.models.loading import load_encoder, load_tokenizer

WORDS = [
    "the",
    "model",
    "with",
    "training",
    "data",
    "file",
    "crash",
    "docs",
    "slow",
    "memory",
]
texts_of_words = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@settings(max_examples=60, deadline=None)
@given(texts_of_words, st.integers(4, 20), st.data())
def test_every_token_is_in_a_window_and_neighbours_share_the_stride(tokenizer, texts, width, data):
    stride = data.draw(st.integers(0, width - 3))
    tokenizer.model_max_length = width
    ids, documents = split_into_windows(tokenizer, texts, stride=stride)
    assert sorted({*documents.tolist()}) == list(range(len(texts)))
    assert (np.diff(documents) >= 0).all()
    for number, text in enumerate(texts):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        windows = [ids[i] for i in np.flatnonzero(documents == number)]
        assert all(len(window) <= width for window in windows)
        assert all(
            (w[0], w[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) for w in windows
        )
        first, *others = [window[1:-1] for window in windows]
        together = list(first)
        for before, window in zip([first, *others], others, strict=False):
            assert before[len(before) - stride :] == window[:stride]
            together += window[stride:]
        assert together == whole


@settings(max_examples=30, deadline=None)
@given(texts_of_words, st.integers(1, 4))
def test_max_windows_keeps_the_first_windows_of_a_document(tokenizer, texts, most):
    tokenizer.model_max_length = 8
    ids, documents = split_into_windows(tokenizer, texts, stride=2)
    kept, owners = split_into_windows(tokenizer, texts, stride=2, max_windows=most)
    expected = [
        ids[i] for number in range(len(texts)) for i in np.flatnonzero(documents == number)[:most]
    ]
    assert kept == expected
    assert (np.bincount(owners) == np.minimum(np.bincount(documents), most)).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_pooling_equals_a_loop_over_documents(documents, seed):
    rng = np.random.default_rng(seed)
    documents = np.array(documents)
    values, weights = rng.normal(size=(len(documents), 3)), rng.integers(1, 9, len(documents))
    masks = [documents == number for number in np.unique(documents)]
    for pooling, window_weights, expected in (
        ("mean", None, [values[mask].mean(axis=0) for mask in masks]),
        (
            "mean",
            weights,
            [np.average(values[mask], axis=0, weights=weights[mask]) for mask in masks],
        ),
        ("max", None, [values[mask].max(axis=0) for mask in masks]),
    ):
        pooled = pool_windows(values, documents, pooling=pooling, weights=window_weights)
        np.testing.assert_allclose(pooled, expected, rtol=1e-12, atol=1e-12)


def test_another_pooling_is_refused():
    with pytest.raises(ValueError, match="there are mean, max"):
        pool_windows(np.zeros((1, 1)), np.zeros(1, int), pooling="median")


def test_windows_have_the_labels_of_their_document(tokenizer):
    tokenizer.model_max_length = 8
    texts = [" ".join(WORDS[:20]), WORDS[0], " ".join(WORDS[:9])]
    dataset = Dataset.from_dict({"text": texts, "labels": [[0], [], [1, 2]], "row": [4, 5, 6]})
    windows = Windows.of_texts(dataset, tokenizer, stride=2)
    assert windows.rows["labels"][:] == [dataset["labels"][i] for i in windows.documents]
    assert windows.rows["length"][:] == [len(ids) for ids in windows.rows["input_ids"]]
    some = windows.of(np.array([True, False, True]))
    assert {*some.documents.tolist()} == {0, 2}
    assert len(some.rows) == len(some.documents) == len(windows.rows) - 1


def test_windows_of_a_tokenizer_that_truncates_on_the_left_begin_at_the_end(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model), truncation_side="left")
    tokenizer.model_max_length = 6
    expected = [" ".join(WORDS[start:stop]) for start, stop in ((6, 10), (2, 6), (0, 2))]
    for most in (1, 2, None):
        ids, _ = split_into_windows(tokenizer, [" ".join(WORDS)], stride=0, max_windows=most)
        windows = [tokenizer.decode(window, skip_special_tokens=True) for window in ids]
        assert windows == expected[:most]


def test_no_texts_have_no_windows_and_no_predictions(tokenizer):
    windows = Windows.of_strings([], tokenizer, stride=2)
    assert len(windows.rows) == len(windows.documents) == len(windows.tokens) == 0

    def predict(rows):
        return SimpleNamespace(predictions=np.zeros((len(rows), 3)))

    trainer = SimpleNamespace(predict=predict)
    for pooling in ("mean", "max"):
        assert windows.predict(trainer, pooling).shape == (0, 3)


def test_predictions_are_pooled_by_document_weighted_by_tokens(tokenizer):
    tokenizer.model_max_length = 8
    dataset = Dataset.from_dict({"text": [" ".join(WORDS[:8]), WORDS[0]]})
    windows = Windows.of_texts(dataset, tokenizer, stride=0)
    lengths = np.array(windows.rows["length"][:])
    assert lengths.tolist() == [8, 4, 3]

    def predict(rows):
        return SimpleNamespace(predictions=np.array(rows["length"][:], float)[:, None])

    trainer = SimpleNamespace(predict=predict)
    assert windows.predict(trainer).tolist() == [[(8 * 8 + 4 * 4) / 12], [3]]
    assert windows.predict(trainer, "max").tolist() == [[8], [3]]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"window": 65}, "--window 65: must be 3 to 64 tokens"),
        ({"window": 32, "stride": 30}, "--stride 30: must be 0 to 29"),
    ],
)
def test_impossible_windows_are_refused(flags, expected, tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    encoder = load_encoder(str(tiny_model), tokenizer=tokenizer)
    with pytest.raises(UserError, match=expected):
        limit_windows(tokenizer, encoder, WindowArguments(**flags))
    limit_windows(tokenizer, encoder, WindowArguments(window=64, stride=61, max_windows=1))
    assert tokenizer.model_max_length == 64
