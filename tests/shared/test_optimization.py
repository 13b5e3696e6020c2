"""Rates, decay and freezing, by what a weight is and where it lies."""

from dataclasses import dataclass

import pytest
import torch
from tiny_training import LABELS, make_trainer, weights
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    Trainer,
    TrainingArguments,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from shared.errors import UserError
from shared.model_arguments import TuningArguments, check_tuning
from shared.models import load_sequence_classifier
from shared.optimization import (
    GradualUnfreezing,
    freeze,
    grouped_optimizer,
    layers,
    parameter_groups,
)

SMALL = {"vocab_size": 180, "num_labels": 4, "pad_token_id": 0}
BERT_LAYER = "bert.encoder.layer.{}.output.dense.weight"


@pytest.fixture
def bert(tiny_model):
    return load_sequence_classifier(str(tiny_model), LABELS)


def gpt2():
    return GPT2ForSequenceClassification(GPT2Config(n_embd=8, n_layer=3, n_head=2, **SMALL))


def modernbert():
    sizes = {"hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 2}
    return ModernBertForSequenceClassification(
        ModernBertConfig(intermediate_size=8, **sizes, **SMALL, cls_token_id=1, sep_token_id=2)
    )


def albert():
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    return AlbertForSequenceClassification(AlbertConfig(embedding_size=4, **sizes, **SMALL))


def settings_of(model, **flags):
    """Return the rate and the decay of every parameter, by name."""
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.1, **flags)
    found = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    assert len(found) == len({*model.parameters()})
    return {name: found[p] for name, p in model.named_parameters()}


def test_the_trainer_steps_with_the_groups_of_the_flags(bert, tmp_path):
    @dataclass
    class Arguments(TuningArguments, TrainingArguments):
        pass

    args = Arguments(
        output_dir=str(tmp_path),
        **{"learning_rate": 1.0, "layer_decay": 0.5, "head_learning_rate": 3.0},
        **{"weight_decay": 0.1, "adam_beta1": 0.8, "use_cpu": True},
    )
    settings = grouped_optimizer(args, bert)
    optimizer = Trainer(bert, args, optimizer_cls_and_kwargs=settings).create_optimizer()
    assert {group["lr"] for group in optimizer.param_groups} == {1.0, 0.5, 0.25, 3.0}
    assert {group["betas"][0] for group in optimizer.param_groups} == {0.8}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
        [*bert.parameters()]
    )


@pytest.mark.parametrize("build", [gpt2, modernbert, albert])
def test_biases_and_norms_do_not_decay_whatever_they_are_called(build):
    found = settings_of(build())
    assert {decay for _, decay in found.values()} == {0.0, 0.1}
    for name, (_, decay) in found.items():
        plain = name.endswith("bias") or "norm" in name.lower() or "ln_" in name
        assert decay == (0.0 if plain else 0.1), name


def test_the_rate_falls_from_layer_to_layer(bert):
    found = settings_of(bert, head_learning_rate=5.0, layer_decay=0.5)
    assert found["classifier.weight"] == (5.0, 0.1)
    assert found["bert.pooler.dense.weight"] == (1.0, 0.1)
    assert found[BERT_LAYER.format(1)] == (1.0, 0.1)
    assert found[BERT_LAYER.format(0)] == (0.5, 0.1)
    assert found["bert.embeddings.word_embeddings.weight"] == (0.25, 0.1)
    assert found["bert.embeddings.LayerNorm.weight"] == (0.25, 0.0)


def test_the_last_norm_belongs_to_the_top():
    found = settings_of(gpt2(), layer_decay=0.5)
    assert found["transformer.ln_f.weight"] == (1.0, 0.0)
    assert found["transformer.wte.weight"][0] == 0.125


def test_layers_are_those_of_the_encoder(bert):
    assert layers(bert) is bert.bert.encoder.layer
    model = gpt2()
    assert layers(model) is model.transformer.h


@pytest.mark.parametrize(
    ("what", "trains"),
    [
        ("none", {"word", "0", "1", "classifier"}),
        ("embeddings", {"0", "1", "classifier"}),
        ("0", {"0", "1", "classifier"}),
        ("1", {"1", "classifier"}),
        ("2", {"classifier"}),
        ("all", {"classifier"}),
    ],
)
def test_freezes_from_the_bottom(bert, what, trains):
    freeze(bert, "all")
    count = freeze(bert, what)
    named = {
        "word": "bert.embeddings.word_embeddings.weight",
        **{str(layer): BERT_LAYER.format(layer) for layer in (0, 1)},
        "classifier": "classifier.weight",
    }
    found = {part for part, name in named.items() if bert.get_parameter(name).requires_grad}
    assert found == trains
    assert count == sum(p.numel() for p in bert.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("3", "--freeze 3: the model has 2 layers"),
        ("top", "--freeze top: must be none, embeddings, a number of layers, all or gradual"),
    ],
)
def test_what_cannot_be_frozen(bert, what, message):
    with pytest.raises(UserError, match=message):
        freeze(bert, what)


def test_unfreezes_a_layer_per_epoch(tiny_model, tmp_path):
    trainer = make_trainer(
        tiny_model, tmp_path, callbacks=[GradualUnfreezing()], num_train_epochs=4
    )
    flags = {"learning_rate": 1e-3, "weight_decay": 0.1}
    trainer.optimizer = torch.optim.AdamW(parameter_groups(trainer.model, **flags))
    model = trainer.model
    parts = [model.bert.embeddings, *layers(model), model.classifier]
    seen = []

    def parts_that_moved():
        now = [weights(part) for part in parts]
        if seen:
            moved.append([bool((a != b).any()) for a, b in zip(now, seen[-1], strict=True)])
        seen.append(now)

    class Watch(GradualUnfreezing):
        def on_epoch_begin(self, *args, **kwargs):
            parts_that_moved()

    moved = []
    trainer.add_callback(Watch())
    trainer.train()
    parts_that_moved()
    no, yes = False, True
    assert moved == [[no, no, no, yes], [no, no, yes, yes], [no, yes, yes, yes], [yes] * 4]


def test_unfreezing_on_several_processes(bert):
    class Two(TrainingArguments):
        world_size = 2

    with pytest.raises(UserError, match="gradual unfreezing runs in one process"):
        GradualUnfreezing().on_epoch_begin(Two("x"), None, None, model=bert)


def test_a_projection_of_the_embeddings_lies_below_the_layers():
    electra = ElectraForSequenceClassification(
        ElectraConfig(
            embedding_size=6,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=8,
            **SMALL,
        )
    )
    freeze(electra, "embeddings")
    trained = {name for name, p in electra.named_parameters() if p.requires_grad}
    assert not [name for name in trained if "embeddings" in name]
    assert [name for name in trained if "layer.0" in name]


def test_parameters_of_the_encoder_itself_are_no_head():
    xlnet = XLNetForSequenceClassification(
        XLNetConfig(vocab_size=180, d_model=8, n_layer=2, n_head=2, d_inner=8, num_labels=4)
    )
    freeze(xlnet, "all")
    assert not xlnet.transformer.mask_emb.requires_grad
    assert xlnet.logits_proj.weight.requires_grad


@pytest.mark.parametrize("what", ["embeddings", "1", "all", "gradual"])
def test_frozen_embeddings_cannot_be_moved(what):
    args = TuningArguments(adversary=0.1, freeze=what)
    with pytest.raises(UserError, match=f"--adversary: --freeze {what} leaves the embeddings"):
        check_tuning(args)
    check_tuning(TuningArguments(adversary=0.1, freeze=what, adversary_moves="weights"))
