"""The made-to-measure head: what it computes, and that transformers and peft know it."""

import copy

import numpy as np
import pytest
import torch
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

from shared.classifier import PooledForSequenceClassification
from shared.errors import UserError
from shared.losses import MultilabelLoss
from shared.models import load_encoder, load_tokenizer
from shared.pooling import POOLINGS

HEADS = [
    *({"pooling": kind} for kind in POOLINGS),
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


def test_a_new_head_leaves_the_encoder_as_it_is(encoder):
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


def test_hidden_states_come_back_only_where_they_are_asked_for(encoder, batch):
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
def test_saves_and_loads_by_its_folder_alone(encoder, batch, head, tmp_path):
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


def test_the_pipeline_gives_its_sigmoid_scores(encoder, tiny_model, tmp_path):
    tokenizer = load_tokenizer(str(tiny_model))
    model = build(encoder, pooling="mean_max", n_layers=2)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    text = "crash when loading the model"
    (found,) = pipeline("text-classification", model=str(tmp_path), top_k=None)([text])
    found = {entry["label"]: entry["score"] for entry in found}
    with torch.no_grad():
        scores = model(**tokenizer(text, return_tensors="pt")).logits[0].sigmoid()
    assert found == pytest.approx(dict(zip(LABELS, scores.tolist(), strict=True)), abs=1e-5)


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


def test_samples_of_dropout_differ_and_are_averaged(encoder, batch):
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
def test_the_loss_is_that_of_the_problem(encoder, batch, problem_type, labels, function):
    model = build(encoder, problem_type=problem_type)
    output = model(**inputs(batch), labels=labels)
    torch.testing.assert_close(output.loss, function(output.logits, labels))


def test_embeddings_can_take_the_place_of_ids(encoder, batch):
    model = build(encoder)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(batch["input_ids"])
        found = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"]).logits
    torch.testing.assert_close(found, logits(model, batch))


def test_checkpointing_and_compiling_change_nothing(encoder, batch):
    model = build(encoder, pooling="attention", n_layers=2)
    model(**batch).loss.backward()
    plain = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    model.train()  # checkpointing is off in evaluation
    model.dropout.p = 0.0  # the only one here
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


def test_a_prompt_trains_in_front_of_it(encoder, batch):
    model = build(encoder, pooling="last", last_tokens=4)
    config = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=3)
    prompted = get_peft_model(model, config)
    before = logits(prompted, batch)
    optimizer = torch.optim.SGD([p for p in prompted.parameters() if p.requires_grad], lr=1.0)
    prompted(**batch).loss.backward()
    optimizer.step()
    assert prompted.prompt_encoder.default.embedding.weight.shape == (3, 32)
    assert not torch.allclose(logits(prompted, batch), before, atol=1e-4)


def test_the_trainer_trains_it(encoder, tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, num_train_epochs=4)
    trainer.model = trainer.model_wrapped = build(encoder, dropout_samples=2).train()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_more_layers_than_there_are(encoder):
    with pytest.raises(UserError, match="--n_layers 3: must be 1 to 2, the model's own"):
        build(encoder, n_layers=3)
