"""Classification heads: pooling, and the classifier on any encoder."""

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
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    pipeline,
)

from shared.cli.errors import UserError
from shared.models.head_arguments import check_n_layers
from shared.models.heads import (
    POOLINGS,
    LayerPooling,
    PooledForSequenceClassification,
    Pooling,
)
from shared.models.loading import load_encoder, load_tokenizer
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


def test_attention_starts_as_the_plain_mean(encoder, batch):
    model, mean = build(encoder, pooling="attention"), build(encoder)
    mean.classifier.load_state_dict(model.classifier.state_dict())
    torch.testing.assert_close(logits(model, batch), logits(mean, batch))


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
    with pytest.raises(ValueError, match="n_layers 3: must be 1 to 2, the model's own"):
        build(encoder, n_layers=3)
    with pytest.raises(UserError, match="--n_layers 3: must be 1 to 2, the model's own"):
        check_n_layers(3, encoder)
