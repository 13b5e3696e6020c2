"""Classification heads: pooling, the classifier on any encoder, and first weights."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, PromptTuningConfig, TaskType, get_peft_model
from tiny_training import COLLATOR, LABELS, make_rows, make_trainer
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    DistilBertModel,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2Model,
    pipeline,
)

from shared.cli.errors import UserError
from shared.models.heads import (
    POOLINGS,
    LayerPooling,
    PooledForSequenceClassification,
    Pooling,
    append_mean_pooling,
    fit_head,
)
from shared.models.loading import load_encoder, load_sequence_classifier, load_tokenizer
from shared.training.losses import MultilabelLoss

# --- pooling -------------------------------------------------------------------------------------


WIDTH = 5


def plain(method, states, last_tokens=1):
    """Pool the real states (length, width) of one text, in NumPy."""
    if method == "first":
        return states[0]
    if method == "last":
        return states[-last_tokens:].mean(0)
    if method == "max":
        return states.max(0)
    if method == "mean_max":
        return np.concatenate([states.mean(0), states.max(0)])
    return states.mean(0)


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    left=st.booleans(),
    last_tokens=st.integers(1, 8),
    method=st.sampled_from(POOLINGS),
    seed=st.integers(0, 99),
)
@settings(max_examples=120, deadline=None)
def test_each_row_is_pooled_over_its_real_tokens(lengths, left, last_tokens, method, seed):
    rng = np.random.default_rng(seed)
    longest = max(*lengths, 1)
    states = rng.normal(size=(len(lengths), longest, WIDTH)).astype(np.float32)
    mask = np.arange(longest) < np.array(lengths)[:, None]
    if left:
        mask = mask[:, ::-1].copy()
    pooling = Pooling(method, WIDTH, last_tokens)
    if method == "attention":  # its first weights in a classifier
        torch.nn.init.zeros_(pooling.context.weight)
    pooled = pooling(torch.from_numpy(states), torch.from_numpy(mask.astype(np.int64)))
    assert pooled.shape == (len(lengths), pooling.out_width)
    for row, length in enumerate(lengths):
        expected = np.zeros(pooling.out_width)
        if length:
            expected = plain(method, states[row][mask[row]], last_tokens)
        np.testing.assert_allclose(pooled[row].detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("method", POOLINGS)
def test_a_row_of_padding_alone_has_finite_gradients(method):
    torch.manual_seed(0)
    pooling = Pooling(method, WIDTH)
    states = torch.randn(2, 3, WIDTH, requires_grad=True)
    mask = torch.tensor([[0, 0, 0], [1, 1, 0]])
    pooling(states, mask).square().sum().backward()
    gradients = [states.grad, *(p.grad for p in pooling.parameters())]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert states.grad[0].eq(0).all()
    assert states.grad[1, 2].eq(0).all()


def test_attention_weighs_tokens_by_their_score():
    torch.manual_seed(0)
    pooling = Pooling("attention", WIDTH)
    states = torch.randn(1, 4, WIDTH)
    with torch.no_grad():
        score = pooling.context(torch.tanh(pooling.hidden(states[0, :3])))
        expected = (score.softmax(0) * states[0, :3]).sum(0)
        pooled = pooling(states, torch.tensor([[1, 1, 1, 0]]))[0]
    torch.testing.assert_close(pooled, expected)


def test_layers_are_averaged_or_concatenated():
    layers = [torch.randn(2, 3, WIDTH) for _ in range(4)]
    averaged = LayerPooling("weighted", 2, WIDTH)
    torch.testing.assert_close(averaged(layers), (layers[2] + layers[3]) / 2)
    with torch.no_grad():
        averaged.weights.copy_(torch.tensor([0.0, 50.0]))
    torch.testing.assert_close(averaged(layers), layers[3])
    together = LayerPooling("concatenate", 3, WIDTH)
    assert together.out_width == 3 * WIDTH
    torch.testing.assert_close(together(layers), torch.cat(layers[1:], -1))


# --- classifier ----------------------------------------------------------------------------------


HEADS = [
    *({"pooling": method} for method in POOLINGS),
    {"pooling": "last", "last_tokens": 3},
    {"n_layers": 2, "layer_pooling": "weighted", "pooling": "attention"},
    {"n_layers": 2, "layer_pooling": "concatenate", "head_sizes": [16, 8], "dropout_samples": 3},
]
name_of = lambda head: "-".join(map(str, head.values()))  # noqa: E731


@pytest.fixture
def encoder(tiny_model):
    return load_encoder(str(tiny_model), tokenizer=load_tokenizer(str(tiny_model)))


def build(encoder, **head):
    torch.manual_seed(0)
    return PooledForSequenceClassification.from_encoder(encoder, LABELS, **head).eval()


@pytest.fixture(scope="module")
def batch():
    return COLLATOR(list(make_rows(6)))


def inputs(batch):
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def logits(model, batch):
    with torch.no_grad():
        return model(**inputs(batch)).logits


def test_a_new_head_does_not_change_the_encoder(encoder):
    before = copy.deepcopy(encoder.state_dict())
    model = build(encoder)
    for name, weights in model.encoder.state_dict().items():
        assert torch.equal(weights, before[name])


def test_the_default_head_is_a_linear_layer_on_the_mean(encoder, batch):
    model = build(encoder)
    with torch.no_grad():
        states = encoder(**inputs(batch)).last_hidden_state
        mask = batch["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        torch.testing.assert_close(logits(model, batch), model.classifier(mean))


def test_hidden_states_are_returned_only_on_request(encoder, batch):
    model = build(encoder, n_layers=2)
    with torch.no_grad():
        assert model(**inputs(batch)).hidden_states is None
        assert len(model(**inputs(batch), output_hidden_states=True).hidden_states) == 3


@pytest.mark.parametrize("head", HEADS, ids=name_of)
def test_padding_does_not_change_the_scores(encoder, batch, head):
    model = build(encoder, **head)
    wider = {name: torch.nn.functional.pad(batch[name], (0, 8)) for name in batch}
    torch.testing.assert_close(logits(model, wider), logits(model, batch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("head", HEADS, ids=name_of)
def test_a_saved_model_loads_from_its_folder(encoder, batch, head, tmp_path):
    model = build(encoder, **head)
    model.config.thresholds = [0.25] * len(LABELS)
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert loaded.config.thresholds == [0.25] * len(LABELS)
    assert [*loaded.config.id2label.values()] == LABELS
    torch.testing.assert_close(logits(loaded.eval(), batch), logits(model, batch))


def test_the_pipeline_returns_the_sigmoid_scores(encoder, tiny_model, tmp_path):
    tokenizer = load_tokenizer(str(tiny_model))
    model = build(encoder, pooling="mean_max", n_layers=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "crash when loading the model"
    (entries,) = pipeline("text-classification", model=str(tmp_path), top_k=None)([text])
    by_label = {entry["label"]: entry["score"] for entry in entries}
    with torch.no_grad():
        scores = model(**tokenizer(text, return_tensors="pt")).logits[0].sigmoid()
    assert by_label == pytest.approx(dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-5)


@pytest.mark.parametrize(
    "other",
    [
        DistilBertModel(DistilBertConfig(vocab_size=180, dim=8, n_layers=2, n_heads=2)),
        GPT2Model(GPT2Config(vocab_size=180, n_embd=8, n_layer=2, n_head=2)),
    ],
    ids=["distilbert", "gpt2"],
)
def test_other_architectures_take_a_head(other, batch):
    model = build(other, n_layers=2, pooling="last")
    wider = {name: torch.nn.functional.pad(batch[name], (0, 8)) for name in batch}
    torch.testing.assert_close(logits(model, wider), logits(model, batch), atol=1e-5, rtol=0)


def test_dropout_samples_differ_and_their_losses_are_averaged(encoder, batch):
    model = build(encoder, dropout_samples=4, head_dropout=0.5).train()
    torch.manual_seed(0)
    output = model(**batch)
    samples = output.logits.view(4, len(batch["labels"]), len(LABELS))
    assert not torch.allclose(samples[0], samples[1])
    each = [MultilabelLoss()({"logits": sample}, batch["labels"]) for sample in samples]
    torch.testing.assert_close(output.loss, torch.stack(each).mean())
    torch.testing.assert_close(MultilabelLoss()(output, batch["labels"]), output.loss)
    assert logits(model.eval(), batch).shape == batch["labels"].shape


@pytest.mark.parametrize(
    ("problem_type", "labels", "function"),
    [
        ("regression", torch.rand(6, 4), torch.nn.functional.mse_loss),
        ("single_label_classification", torch.arange(6) % 4, torch.nn.functional.cross_entropy),
    ],
)
def test_the_loss_follows_the_problem_type(encoder, batch, problem_type, labels, function):
    model = build(encoder, problem_type=problem_type)
    output = model(**inputs(batch), labels=labels)
    torch.testing.assert_close(output.loss, function(output.logits, labels))


def test_embeddings_can_replace_token_ids(encoder, batch):
    model = build(encoder)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(batch["input_ids"])
        scores = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(scores, logits(model, batch))


def test_checkpointing_and_compiling_change_nothing(encoder, batch):
    model = build(encoder, pooling="attention", n_layers=2)
    model(**batch).loss.backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.train()  # checkpointing is off in evaluation
    model.dropout.p = 0.0  # the only dropout layer of this model
    model.activation_checkpointing_enable()
    model(**batch).loss.backward()
    for p, gradient in zip(model.parameters(), plain, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-6, rtol=1e-4)
    model.activation_checkpointing_disable()
    model.eval()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(logits(compiled, batch), logits(model, batch))


def test_an_adapter_trains_the_head_and_merges_into_it(encoder, batch, tmp_path):
    model = build(encoder, pooling="attention")
    start = copy.deepcopy(model)
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS, target_modules=["query", "value"], modules_to_save=["pooling"]
    )
    adapted = get_peft_model(model, config)
    trained = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert any("classifier" in name for name in trained)
    assert any("lora" in n for n in trained)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    for _ in range(3):
        optimizer.zero_grad()
        adapted(**batch).loss.backward()
        optimizer.step()
    expected = logits(adapted, batch)
    assert not torch.allclose(expected, logits(start, batch), atol=1e-3)
    adapted.save_pretrained(tmp_path)
    merged = PeftModel.from_pretrained(start, tmp_path).merge_and_unload()
    torch.testing.assert_close(logits(merged.eval(), batch), expected, atol=1e-5, rtol=1e-4)


def test_prompt_tuning_trains_a_prompt(encoder, batch):
    model = build(encoder, pooling="last", last_tokens=4)
    config = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)
    prompted = get_peft_model(model, config)
    before = logits(prompted, batch)
    optimizer = torch.optim.SGD([p for p in prompted.parameters() if p.requires_grad], lr=1.0)
    prompted(**batch).loss.backward()
    optimizer.step()
    assert prompted.prompt_encoder.default.embedding.weight.shape == (3, 32)
    assert not torch.allclose(logits(prompted, batch), before, atol=1e-4)


def test_the_loss_falls_in_training(encoder, tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, num_train_epochs=4)
    trainer.model = trainer.model_wrapped = build(encoder, dropout_samples=2).train()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_more_layers_than_the_model_has_are_refused(encoder):
    with pytest.raises(UserError, match="--n_layers 3: must be 1 to 2, the model's own"):
        build(encoder, n_layers=3)


# --- first weights -------------------------------------------------------------------------------


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
