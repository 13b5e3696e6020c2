"""Tuning methods: which weights train, the memory they need, and unsupported architectures."""

import copy

import pytest
import torch
from peft import PeftModel
from tiny_training import LABELS, make_trainer
from transformers import DistilBertConfig, DistilBertModel

from shared.cli.errors import UserError
from shared.models.heads import PooledForSequenceClassification
from shared.models.loading import load_encoder, load_tokenizer
from shared.training.adapters import activation_bytes, adapt, training_footprint


@pytest.fixture
def model(tiny_model):
    encoder = load_encoder(str(tiny_model), tokenizer=load_tokenizer(str(tiny_model)))
    return PooledForSequenceClassification.from_encoder(encoder, LABELS)


@pytest.mark.parametrize("method", ["full", "partial", "head", "lora", "dora", "ia3", "prompt"])
def test_the_head_trains_with_every_method(model, method):
    trained = [n for n, p in adapt(model, method).named_parameters() if p.requires_grad]
    assert [name for name in trained if "classifier" in name and name.endswith("weight")]
    assert (len(trained) == 2) == (method == "head")


@pytest.mark.parametrize(("frozen", "expected"), [(None, {1}), (0, {0, 1}), (2, set())])
def test_the_upper_layers_train(model, frozen, expected):
    adapt(model, "partial", frozen_layers=frozen)
    layers = {
        layer
        for layer in (0, 1)
        if all(p.requires_grad for p in model.encoder.encoder.layer[layer].parameters())
    }
    assert layers == expected
    assert not model.encoder.embeddings.word_embeddings.weight.requires_grad


def test_footprint_counts_weights_gradients_and_moments(model, tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, num_train_epochs=1)
    trainer.model = trainer.model_wrapped = adapt(model, "head")
    trainer.train()
    n_all, n_head = sum(p.numel() for p in model.parameters()), 32 * 4 + 4
    n_trained, n_bytes = training_footprint(trainer)
    assert n_trained == n_head
    # Weights, gradients and two moments in single precision, and the step counters of AdamW.
    assert n_bytes == 4 * (n_all + 3 * n_head) + 4 * 2


def test_frozen_layers_leave_no_activations(model, tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, num_train_epochs=1)
    kept = {}
    for method in ("full", "partial", "head"):
        trainer.model = trainer.model_wrapped = adapt(model, method)
        kept[method] = activation_bytes(trainer)
    rows, width = len(next(iter(trainer.get_train_dataloader()))["labels"]), 32
    assert kept["full"] > kept["partial"] > kept["head"]
    # The linear head keeps its input, and the loss a few numbers per label and row.
    assert rows * width * 4 <= kept["head"] <= rows * (width + 16 * len(LABELS)) * 4


def test_unsupported_architecture_and_too_many_frozen_layers():
    encoder = DistilBertModel(DistilBertConfig(vocab_size=9, dim=8, n_layers=1, n_heads=2))
    encoder.config.model_type = "unknown-architecture"
    model = PooledForSequenceClassification.from_encoder(encoder, LABELS)
    torch.manual_seed(0)
    with pytest.raises(
        UserError, match="--methods ia3: peft does not support IA3 for 'unknown-arch"
    ):
        adapt(model, "ia3")
    with pytest.raises(UserError, match="--frozen_layers 2: the model has 1 layers; give 0 to 1"):
        adapt(model, "partial", frozen_layers=2)


@pytest.mark.parametrize("method", ["lora", "ia3", "prompt"])
def test_the_whole_head_trains_and_is_saved_with_the_adapter(tiny_model, tmp_path, method):
    encoder = load_encoder(str(tiny_model), tokenizer=load_tokenizer(str(tiny_model)))
    head = {"head_sizes": [8], "pooling": "attention", "n_layers": 2}
    base = PooledForSequenceClassification.from_encoder(encoder, LABELS, **head)
    adapted = adapt(copy.deepcopy(base), method, rank=2, prompt_tokens=3)
    parts = ("layer_pooling", "token_pooling", "hidden_layers", "classifier")
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if any(part in name for part in parts) and "original_module" not in name:
                assert parameter.requires_grad
                parameter.normal_()
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path)
    ids = torch.arange(5, 15).reshape(2, 5)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(ids).logits, adapted.eval()(ids).logits)
