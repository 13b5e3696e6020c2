"""Sentence embeddings: mean pooling, vectors in the cache, and texts that are embedded once."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoModel, GPT2Config, GPT2Model, TrainingArguments

from shared.methods import embeddings
from shared.methods.embeddings import (
    CachedEmbedder,
    cached_vectors,
    embed_split,
    normalized,
)
from shared.methods.mean_pooling import MeanPooling
from shared.models.loading import load_encoder, load_tokenizer
from shared.training.collators import PaddingCollator
from shared.training.trainer import LengthGroupedTrainer

# --- pooling -------------------------------------------------------------------------------------


def test_padding_does_not_count(tiny_model):
    encoder = AutoModel.from_pretrained(tiny_model).eval()
    pooling = MeanPooling(encoder)
    ids = torch.tensor([[2, 60, 70, 3, 0, 0], [2, 80, 90, 99, 98, 3]])
    mask = (ids != 0).long()
    with torch.no_grad():
        pooled = pooling(ids, mask)["logits"]
        alone = encoder(ids[:1, :4]).last_hidden_state.mean(1)
    torch.testing.assert_close(pooled[:1], alone)


def test_a_row_of_padding_alone_gives_zeros_and_decoders_work():
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    pooling = MeanPooling(GPT2Model(config)).eval()
    ids = torch.tensor([[5, 6, 7], [0, 0, 0]])
    with torch.no_grad():
        pooled = pooling(ids, torch.tensor([[1, 1, 1], [0, 0, 0]]))["logits"]
    assert pooled.shape == (2, 8)
    assert pooled[0].abs().sum() > 0
    assert (pooled[1] == 0).all()


def test_normalized():
    vectors = normalized(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]], rtol=1e-6)


# --- cache ---------------------------------------------------------------------------------------


@pytest.fixture
def vectors(tmp_path):
    """Return a function that gets vectors of texts, each the number of computations so far."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")

    def get(texts, max_length=8):
        def compute():
            get.computed += 1
            return np.full((len(texts), 2), get.computed, np.float32)

        model = str(tmp_path / "model")
        array, _ = cached_vectors(texts, model, max_length, tmp_path / "cache", compute)
        return array[0, 0]

    get.computed, get.folder = 0, tmp_path
    return get


def test_vectors_are_computed_once(vectors):
    assert [vectors(["a", "b"]), vectors(["a", "b"]), vectors(["ab"]), vectors(["a", "b"])] == [
        *(1, 1),
        *(2, 1),
    ]


def test_another_length_or_changed_weights_need_new_vectors(vectors):
    assert vectors(["a"]) == 1
    assert vectors(["a"], max_length=9) == 2
    (vectors.folder / "model" / "model.safetensors").write_bytes(b"other weights")
    assert vectors(["a"]) == 3


def test_the_time_of_cached_vectors_is_that_of_their_computation(tmp_path):
    def slow():
        deadline = time.perf_counter() + 0.05
        while time.perf_counter() < deadline:
            pass
        return np.ones((2, 3), np.float32)

    key = (["a", "b"], "a/model", 8, tmp_path)
    _, seconds = cached_vectors(*key, slow)
    assert seconds >= 0.05
    assert cached_vectors(*key, slow)[1] == seconds


def test_vectors_are_returned_even_if_the_cache_cannot_be_written(vectors, capsys):
    (vectors.folder / "cache").write_text("a file in the way")
    assert vectors(["a"]) == 1
    assert (
        capsys.readouterr().err
        == f"note: {vectors.folder / 'cache'}: embeddings not cached (File exists)\n"
    )


@pytest.mark.parametrize("content", [b"", b"half a fi"])
def test_vectors_of_a_damaged_file_are_computed_again(content, vectors):
    vectors(["a"])
    (file,) = (vectors.folder / "cache").iterdir()
    file.write_bytes(content)
    assert [vectors(["a"]), vectors(["a"])] == [2, 2]


# --- embedder ------------------------------------------------------------------------------------


class CountingTrainer:
    """Stands for a Trainer of `MeanPooling`: its vectors depend on the tokens; it counts rows."""

    def __init__(self, bf16_predictions=False):
        self.bf16_predictions = bf16_predictions
        self.model, self.n_rows = None, 0

    def predict(self, rows):
        self.n_rows += len(rows)
        return SimpleNamespace(
            predictions=np.array([[sum(ids), len(ids)] for ids in rows["input_ids"]], float)
        )


@pytest.fixture
def make_embedder(tiny_model, tmp_path):
    """Return a function that makes an embedder of a trainer; all embedders share one cache."""

    def make(trainer, max_length=16):
        tokenizer = load_tokenizer(str(tiny_model))
        tokenizer.model_max_length = max_length
        return CachedEmbedder(trainer, tokenizer, str(tiny_model), tmp_path / "cache")

    return make


TEXTS = ["slow memory", "the docs", "crash"]


def test_texts_are_embedded_and_counted_once(make_embedder):
    trainer = CountingTrainer()
    embed = make_embedder(trainer)
    vectors = embed(TEXTS)
    assert trainer.n_rows == embed.n_texts == 3
    np.testing.assert_array_equal(embed(TEXTS), vectors)
    # Also in another list, which the cache on disk does not have.
    np.testing.assert_array_equal(embed(TEXTS[:0:-1]), vectors[:0:-1])
    assert trainer.n_rows == embed.n_texts == 3
    embed(["again"])
    assert trainer.n_rows == embed.n_texts == 4


def test_only_the_last_texts_are_kept_in_memory(make_embedder, monkeypatch):
    monkeypatch.setattr(embeddings, "KEPT_TEXTS", 2)
    trainer = CountingTrainer()
    embed = make_embedder(trainer)
    vectors = embed(TEXTS)
    np.testing.assert_array_equal(embed(TEXTS[:0:-1]), vectors[:0:-1])
    np.testing.assert_array_equal(embed(TEXTS), vectors)  # from the cache on disk
    assert trainer.n_rows == 3
    np.testing.assert_array_equal(embed(TEXTS[:1]), vectors[:1])
    assert trainer.n_rows == 4


def test_embeddings_have_length_one(make_embedder):
    vectors = make_embedder(CountingTrainer())(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (3, 2)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_the_next_run_counts_the_seconds_of_the_run_that_embedded_the_texts(make_embedder):
    first = make_embedder(CountingTrainer())
    first(TEXTS)
    assert first.seconds > 0
    trainer = CountingTrainer()
    second = make_embedder(trainer)
    second(TEXTS)
    assert trainer.n_rows == 0
    assert second.seconds == first.seconds
    second(TEXTS)
    assert second.seconds == first.seconds


def test_another_maximum_length_or_precision_needs_new_embeddings(make_embedder):
    for trainer, max_length in (
        (CountingTrainer(), 16),
        (CountingTrainer(), 3),
        (CountingTrainer(bf16_predictions=True), 16),
    ):
        vectors = make_embedder(trainer, max_length)(TEXTS)
        assert trainer.n_rows == 3
        assert vectors.shape == (3, 2)


def test_embeddings_equal_those_of_the_encoder(make_embedder, tiny_model, tmp_path):
    encoder = load_encoder(str(tiny_model), tokenizer=load_tokenizer(str(tiny_model)))
    args = TrainingArguments(output_dir=str(tmp_path / "out"), use_cpu=True, disable_tqdm=True)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(load_tokenizer(str(tiny_model))),
    )
    embed = make_embedder(trainer, max_length=4)  # the first text is truncated
    texts = ["slow memory of the server", "docs"]
    vectors = embed(texts)
    for text, vector in zip(texts, vectors, strict=True):
        tokens = embed.tokenizer(text, truncation=True, return_tensors="pt")
        with torch.no_grad():
            mean = encoder.eval()(**tokens).last_hidden_state.mean(1)
        np.testing.assert_allclose(vector, normalized(mean.numpy())[0], atol=1e-5)


# --- the rows of a split -------------------------------------------------------------------------


@pytest.mark.parametrize("all_at_once", [True, False])
def test_the_rows_of_splits_are_embedded_once(all_at_once, monkeypatch):
    monkeypatch.setattr(embeddings, "EMBED_ALL", 20 if all_at_once else 19)
    texts = [f"text {number}" for number in range(30)]
    labelled = np.arange(0, 30, 3)
    labelled = np.sort(np.concatenate([labelled, labelled + 1]))  # 20 rows
    source = SimpleNamespace(dataset=Dataset.from_dict({"text": texts}), labelled=labelled)
    calls = []

    def embed(part):
        calls.append(list(part))
        return np.array([[int(text.split()[1])] for text in part])

    def split(train, test, left_out):
        parts = {"train": train, "valid": [], "test": test}
        sources = {part: (source, labelled[np.array(rows, int)]) for part, rows in parts.items()}
        rows = labelled[np.array(left_out, int)]
        return SimpleNamespace(corpus=source, sources=sources, left_out=rows)

    known = {}
    first, second = split([9, 2], [4, 5], [0, 1]), split([4, 9], [7], [])
    vectors = embed_split(first, embed, known, left_out=first.left_out[:1])
    again = embed_split(second, embed, known)
    for part, rows in (*first.sources.items(), ("left_out", (source, first.left_out[:1]))):
        np.testing.assert_array_equal(vectors[part][:, 0], rows[1])
    for part, (_, rows) in second.sources.items():
        np.testing.assert_array_equal(again[part][:, 0], rows)
    assert again["left_out"].shape == (0, 1)
    if all_at_once:
        assert calls == [[texts[row] for row in labelled]]
    else:
        expected = [[9, 2], [4, 5], [0], [7]]
        assert calls == [[texts[row] for row in labelled[rows]] for rows in expected]
