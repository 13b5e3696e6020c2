import time

import numpy as np
import pytest
import torch
from transformers import AutoModel, GPT2Config, GPT2Model

from shared.methods.embeddings import MeanPooling, cached_vectors, normalized


def test_padding_does_not_count(tiny_model):
    encoder = AutoModel.from_pretrained(tiny_model).eval()
    pooling = MeanPooling(encoder)
    ids = torch.tensor([[2, 60, 70, 3, 0, 0], [2, 80, 90, 99, 98, 3]])
    mask = (ids != 0).long()
    with torch.no_grad():
        found = pooling(ids, mask)["logits"]
        alone = encoder(ids[:1, :4]).last_hidden_state.mean(1)
    torch.testing.assert_close(found[:1], alone)


def test_a_row_of_padding_alone_gives_zeros_and_decoders_work():
    config = GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=16)
    pooling = MeanPooling(GPT2Model(config)).eval()
    ids = torch.tensor([[5, 6, 7], [0, 0, 0]])
    with torch.no_grad():
        found = pooling(ids, torch.tensor([[1, 1, 1], [0, 0, 0]]))["logits"]
    assert found.shape == (2, 8)
    assert found[0].abs().sum() > 0
    assert (found[1] == 0).all()


def test_normalized():
    vectors = normalized(np.array([[3.0, 4.0], [0.0, 0.0]]))
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0, 0]], rtol=1e-6)


@pytest.fixture
def vectors(tmp_path):
    """Ask the cache for vectors; how often they were computed is in `vectors.computed`."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")

    def ask(texts, max_length=8):
        def compute():
            ask.computed += 1
            return np.full((len(texts), 2), ask.computed, np.float32)

        model = str(tmp_path / "model")
        found, _ = cached_vectors(texts, model, max_length, tmp_path / "cache", compute)
        return found[0, 0]

    ask.computed, ask.folder = 0, tmp_path
    return ask


def test_vectors_are_computed_once(vectors):
    assert [vectors(["a", "b"]), vectors(["a", "b"]), vectors(["ab"]), vectors(["a", "b"])] == [
        *(1, 1),
        *(2, 1),
    ]


def test_another_length_or_changed_weights_are_another_model(vectors):
    assert vectors(["a"]) == 1
    assert vectors(["a"], max_length=9) == 2
    (vectors.folder / "model" / "model.safetensors").write_bytes(b"other weights")
    assert vectors(["a"]) == 3


def test_a_run_that_finds_vectors_reports_what_they_cost(tmp_path):
    def slow():
        deadline = time.perf_counter() + 0.05
        while time.perf_counter() < deadline:
            pass
        return np.ones((2, 3), np.float32)

    asked = (["a", "b"], "a/model", 8, tmp_path)
    _, seconds = cached_vectors(*asked, slow)
    assert seconds >= 0.05
    assert cached_vectors(*asked, slow)[1] == seconds


def test_vectors_that_cannot_be_kept_are_not_lost(vectors, capsys):
    (vectors.folder / "cache").write_text("a file in the way")
    assert vectors(["a"]) == 1
    assert (
        capsys.readouterr().err
        == f"note: {vectors.folder / 'cache'}: vectors not kept (File exists)\n"
    )


@pytest.mark.parametrize("content", [b"", b"half a fi"])
def test_a_damaged_file_is_computed_again(content, vectors):
    vectors(["a"])
    (file,) = (vectors.folder / "cache").iterdir()
    file.write_bytes(content)
    assert [vectors(["a"]), vectors(["a"])] == [2, 2]
