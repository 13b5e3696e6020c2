"""First weights of a classifier: the fitted head, and mean pooling for BERT."""

import copy

import numpy as np
import pytest
import torch
from tiny_training import COLLATOR, LABELS, make_rows
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from shared.models.first_weights import append_mean_pooling, fit_head, initialize_layers
from shared.models.loading import load_sequence_classifier
from shared.training.losses import MultilabelLoss


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    return load_sequence_classifier(str(tiny_model), LABELS).eval()


@pytest.fixture(scope="module")
def tokenized_batch():
    return COLLATOR(list(make_rows(8)))


def logits_of(model, batch):
    with torch.no_grad():
        return model(**{name: batch[name] for name in ("input_ids", "attention_mask")}).logits


def test_the_layer_gives_the_first_token_the_direction_of_the_mean(model, tokenized_batch):
    inputs = {name: tokenized_batch[name] for name in ("input_ids", "attention_mask")}
    mask = tokenized_batch["attention_mask"][..., None]
    with torch.no_grad():
        states = model.base_model(**inputs).last_hidden_state
        append_mean_pooling(model, scale=1000.0)
        first = model.base_model(**inputs).last_hidden_state[:, 0]
    mean = (states * mask).sum(1) / mask.sum(1)
    mean = mean - mean.mean(1, keepdim=True)  # layer normalisation subtracts it
    assert torch.cosine_similarity(first, mean).min() > 0.999


def test_padding_does_not_change_the_scores_of_a_mean(model, tokenized_batch):
    append_mean_pooling(model)
    wider = {
        name: torch.nn.functional.pad(tokenized_batch[name], (0, 8)) for name in tokenized_batch
    }
    torch.testing.assert_close(
        logits_of(model, wider), logits_of(model, tokenized_batch), atol=1e-5, rtol=0
    )


def test_the_model_with_the_layer_loads_in_transformers(model, tokenized_batch, tmp_path):
    append_mean_pooling(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(loaded).__name__ == "BertForSequenceClassification"
    torch.testing.assert_close(
        logits_of(loaded, tokenized_batch), logits_of(model, tokenized_batch), atol=1e-6, rtol=0
    )


def test_the_layer_is_added_only_once(model, tmp_path):
    layers = model.config.num_hidden_layers
    append_mean_pooling(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    append_mean_pooling(loaded)
    assert loaded.config.num_hidden_layers == len(loaded.bert.encoder.layer) == layers + 1


def test_parts_that_start_at_zero_get_gradients(model, tokenized_batch):
    append_mean_pooling(model)
    MultilabelLoss()(model(**tokenized_batch), tokenized_batch["labels"]).backward()
    layer = model.bert.encoder.layer[-1]
    for part in (layer.attention.self.query, layer.output.dense):
        assert part.weight.grad.abs().max() > 0


def test_other_architectures_are_not_changed():
    config = DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8)
    model = DistilBertForSequenceClassification(config)
    before = copy.deepcopy(model.state_dict())
    append_mean_pooling(model)
    assert model.state_dict().keys() == before.keys()


def fit(model, rows, **options):
    fit_head(model, rows, COLLATOR, MultilabelLoss(), device=torch.device("cpu"), **options)


def test_the_head_minimises_loss_and_penalty(model):
    """At the minimum, the gradient of loss + penalty is zero, for standardised features."""
    rows = make_rows(64)
    fit(model, rows, l2=0.1)
    batch = COLLATOR(list(rows))
    features = []
    hook = model.classifier.register_forward_pre_hook(lambda _, x: features.append(x[0]))
    logits_of(model, batch)
    hook.remove()
    x = features[0]
    std, mean = x.std(0, correction=0), x.mean(0)
    weight = (model.classifier.weight.detach() * std).requires_grad_()
    bias = (model.classifier.bias + model.classifier.weight @ mean).detach().requires_grad_()
    z = (x - mean) / std @ weight.T + bias
    objective = MultilabelLoss()({"logits": z}, batch["labels"]) + 0.1 * (weight**2).sum(1).mean()
    objective.backward()
    assert weight.grad.abs().max() < 1e-4
    assert bias.grad.abs().max() < 1e-4


def test_fitting_the_head_is_deterministic_and_keeps_the_encoder(model):
    rows, other = make_rows(64), copy.deepcopy(model)
    encoder = copy.deepcopy(model.bert.state_dict())
    fit(model, rows)
    fit(other, rows)
    assert torch.equal(model.classifier.weight, other.classifier.weight)
    for name, value in model.bert.state_dict().items():
        assert torch.equal(value, encoder[name]), name


def test_a_large_data_set_is_sampled(model):
    rows, part = make_rows(64), copy.deepcopy(model)
    drawn = np.random.default_rng(7).choice(64, 24, replace=False)
    fit(model, rows, max_rows=24, seed=7)
    fit(part, rows.select(drawn))
    torch.testing.assert_close(model.classifier.weight, part.classifier.weight)


def test_a_nearly_constant_feature_gets_no_huge_weight(model):
    with torch.no_grad():  # the first output of the pooler is nearly constant
        model.bert.pooler.dense.weight[0].mul_(1e-6)
    fit(model, make_rows(64))
    weight = model.classifier.weight.abs().max(dim=0).values
    assert weight[0] < 20 * weight[1:].mean()


def test_features_in_bfloat16_give_nearly_the_same_head(model):
    rows, other = make_rows(64), copy.deepcopy(model)
    fit(model, rows)
    fit(other, rows, bf16=True)
    batch = COLLATOR(list(rows))
    difference = (logits_of(model, batch) - logits_of(other, batch)).abs().mean()
    assert difference < 0.1 * logits_of(model, batch).std()


def test_a_head_that_scores_every_token_keeps_its_start():
    model = GPT2ForSequenceClassification(
        GPT2Config(
            vocab_size=200, n_embd=8, n_layer=1, n_head=2, num_labels=len(LABELS), pad_token_id=0
        )
    )
    before = model.score.weight.clone()
    fit(model, make_rows(16))
    assert torch.equal(model.score.weight, before)


# --- initialize_layers ---------------------------------------------------------------------------


@pytest.fixture
def stack():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(n, m) for n, m in ((200, 300), (300, 300), (300, 100))]
    modules = [module for layer in layers for module in (layer, torch.nn.ReLU())]
    return layers, torch.nn.Sequential(*modules), torch.randn(64, 200)


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        ("zeros", lambda n, m: 0.0),
        ("small", lambda n, m: 0.01),
        ("large", lambda n, m: 1.0),
        ("xavier", lambda n, m: (2 / (n + m)) ** 0.5),
        ("kaiming", lambda n, m: (2 / n) ** 0.5),
    ],
)
def test_first_weights_have_the_deviation_of_their_scheme(stack, scheme, expected):
    layers, network, x = stack
    initialize_layers(layers, scheme, lambda: network(x))
    for layer in layers:
        deviation = expected(layer.in_features, layer.out_features)
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.03)
        assert not layer.bias.any()


def test_lsuv_gives_the_outputs_of_each_layer_unit_variance_on_the_batch(stack):
    layers, network, x = stack
    initialize_layers(layers, "lsuv", lambda: network(x))
    with torch.no_grad():
        for i in (0, 2, 4):
            assert network[: i + 1](x).std().item() == pytest.approx(1, abs=0.02)
    rows = layers[1].weight @ layers[1].weight.T  # still orthogonal, up to a factor
    torch.testing.assert_close(rows / rows[0, 0], torch.eye(300), atol=1e-4, rtol=0)


def test_lsuv_ends_where_a_batch_has_no_variance(stack):
    layers, network, _ = stack
    initialize_layers(layers, "lsuv", lambda: network(torch.zeros(4, 200)))
    assert all(layer.weight.isfinite().all() for layer in layers)
