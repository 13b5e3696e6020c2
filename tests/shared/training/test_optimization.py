"""Tests of parameter groups, freezing, adversarial weights and mixup."""

import copy
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tiny_training import COLLATOR, LABELS, history, make_rows, make_trainer, weights
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

from shared.cli.errors import UserError
from shared.models.loading import load_sequence_classifier
from shared.training.losses import MultilabelLoss
from shared.training.optimization import (
    AdversarialWeights,
    GradualUnfreezing,
    Mixup,
    TuningArguments,
    check_tuning,
    freeze,
    grouped_optimizer,
    layers,
    parameter_groups,
)

# --- parameter groups ----------------------------------------------------------------------------

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
    """Return the learning rate and the weight decay of each parameter, by name."""
    groups = parameter_groups(model, learning_rate=1.0, weight_decay=0.1, **flags)
    rates = {p: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(rates)
    assert len(rates) == len({*model.parameters()})
    return {name: rates[p] for name, p in model.named_parameters()}


def test_the_optimizer_of_the_trainer_has_the_groups_of_the_flags(bert, tmp_path):
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
def test_biases_and_norms_have_no_weight_decay(build):
    settings = settings_of(build())
    assert {decay for _, decay in settings.values()} == {0.0, 0.1}
    for name, (_, decay) in settings.items():
        exempt = name.endswith("bias") or "norm" in name.lower() or "ln_" in name
        assert decay == (0.0 if exempt else 0.1), name


def test_the_learning_rate_falls_from_layer_to_layer(bert):
    settings = settings_of(bert, head_learning_rate=5.0, layer_decay=0.5)
    assert settings["classifier.weight"] == (5.0, 0.1)
    assert settings["bert.pooler.dense.weight"] == (1.0, 0.1)
    assert settings[BERT_LAYER.format(1)] == (1.0, 0.1)
    assert settings[BERT_LAYER.format(0)] == (0.5, 0.1)
    assert settings["bert.embeddings.word_embeddings.weight"] == (0.25, 0.1)
    assert settings["bert.embeddings.LayerNorm.weight"] == (0.25, 0.0)


def test_the_last_normalisation_has_the_rate_of_the_top_layer():
    settings = settings_of(gpt2(), layer_decay=0.5)
    assert settings["transformer.ln_f.weight"] == (1.0, 0.0)
    assert settings["transformer.wte.weight"][0] == 0.125


# --- freezing ------------------------------------------------------------------------------------


def test_layers_are_those_of_the_encoder(bert):
    assert layers(bert) is bert.bert.encoder.layer
    model = gpt2()
    assert layers(model) is model.transformer.h


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("none", {"word", "0", "1", "classifier"}),
        ("embeddings", {"0", "1", "classifier"}),
        ("0", {"0", "1", "classifier"}),
        ("1", {"1", "classifier"}),
        ("2", {"classifier"}),
        ("all", {"classifier"}),
    ],
)
def test_freezes_from_the_bottom(bert, part, expected):
    freeze(bert, "all")
    n_trained = freeze(bert, part)
    parameters = {
        "word": "bert.embeddings.word_embeddings.weight",
        **{str(layer): BERT_LAYER.format(layer) for layer in (0, 1)},
        "classifier": "classifier.weight",
    }
    trained = {key for key, name in parameters.items() if bert.get_parameter(name).requires_grad}
    assert trained == expected
    assert n_trained == sum(p.numel() for p in bert.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("3", "--freeze 3: the model has 2 layers; give at most 2"),
        ("top", "--freeze top: must be none, embeddings, a number of layers, all or gradual"),
    ],
)
def test_unknown_parts_are_refused(bert, part, message):
    with pytest.raises(UserError, match=message):
        freeze(bert, part)


def test_unfreezes_one_layer_per_epoch(tiny_model, tmp_path):
    trainer = make_trainer(
        tiny_model, tmp_path, callbacks=[GradualUnfreezing()], num_train_epochs=4
    )
    flags = {"learning_rate": 1e-3, "weight_decay": 0.1}
    trainer.optimizer = torch.optim.AdamW(parameter_groups(trainer.model, **flags))
    model = trainer.model
    parts = [model.bert.embeddings, *layers(model), model.classifier]
    snapshots = []

    def compare_with_last_epoch():
        now = [weights(part) for part in parts]
        if snapshots:
            changed.append([bool((a != b).any()) for a, b in zip(now, snapshots[-1], strict=True)])
        snapshots.append(now)

    class Watch(GradualUnfreezing):
        def on_epoch_begin(self, *args, **kwargs):
            compare_with_last_epoch()

    changed = []
    trainer.add_callback(Watch())
    trainer.train()
    compare_with_last_epoch()
    no, yes = False, True
    assert changed == [[no, no, no, yes], [no, no, yes, yes], [no, yes, yes, yes], [yes] * 4]


def test_gradual_unfreezing_on_several_processes_is_refused(bert):
    class Two(TrainingArguments):
        world_size = 2

    with pytest.raises(UserError, match="gradual unfreezing runs in one process"):
        GradualUnfreezing().on_epoch_begin(Two("x"), None, None, model=bert)


def test_a_projection_of_the_embeddings_is_frozen_with_them():
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


def test_parameters_of_the_encoder_outside_its_layers_are_not_head():
    xlnet = XLNetForSequenceClassification(
        XLNetConfig(vocab_size=180, d_model=8, n_layer=2, n_head=2, d_inner=8, num_labels=4)
    )
    freeze(xlnet, "all")
    assert not xlnet.transformer.mask_emb.requires_grad
    assert xlnet.logits_proj.weight.requires_grad


@pytest.mark.parametrize("part", ["embeddings", "1", "all", "gradual"])
def test_frozen_embeddings_cannot_be_moved(part):
    args = TuningArguments(adversary=0.1, freeze=part)
    with pytest.raises(
        UserError, match=f"--adversary: with --freeze {part} the embeddings have no"
    ):
        check_tuning(args)
    check_tuning(TuningArguments(adversary=0.1, freeze=part, adversary_moves="weights"))


# --- adversarial weights -------------------------------------------------------------------------


@pytest.fixture
def model(tiny_model):
    torch.manual_seed(0)
    return load_sequence_classifier(str(tiny_model), LABELS).eval()


@pytest.fixture(scope="module")
def batch():
    return COLLATOR(list(make_rows(6)))


def loss_of(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return MultilabelLoss()(model(**inputs), batch["labels"])


@pytest.mark.parametrize("target", ["embeddings", "weights"])
def test_weights_move_to_raise_the_loss_and_are_restored(model, batch, target):
    loss = loss_of(model, batch)
    loss.backward()
    before = copy.deepcopy(model.state_dict())
    with AdversarialWeights(0.05, target).against(model), torch.no_grad():
        assert loss_of(model, batch) > loss
        moved = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
        words = "bert.embeddings.word_embeddings.weight"
        step = model.get_parameter(words) - before[words]
        torch.testing.assert_close(step.norm(), 0.05 * before[words].norm())
        gradient = model.get_parameter(words).grad
        torch.testing.assert_close(step / step.norm(), gradient / gradient.norm())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert words in moved
    assert (len(moved) == 1) == (target == "embeddings")
    assert not [name for name in moved if name.endswith("bias")]


def test_weights_are_restored_after_an_error(model, batch):
    loss_of(model, batch).backward()
    before = weights(model)
    with pytest.raises(ValueError), AdversarialWeights(0.1, "weights").against(model):  # noqa: PT011
        raise ValueError
    assert (weights(model) == before).all()


def test_a_step_uses_the_gradients_of_both_losses(tiny_model, tmp_path):
    def norms(**options):
        trainer = make_trainer(
            tiny_model, tmp_path, options=options, num_train_epochs=1, max_grad_norm=1e9
        )
        trainer.train()
        return np.array(history(trainer, "loss", "grad_norm"))

    plain, unmoved = norms(), norms(adversary=AdversarialWeights(0.0))
    assert unmoved[1, 0] == pytest.approx(2 * plain[1, 0], rel=1e-5)  # twice the same gradient
    assert unmoved[0, 0] == plain[0, 0]  # the log shows the loss at the current weights
    assert norms(adversary=AdversarialWeights(0.1))[1, 0] != pytest.approx(unmoved[1, 0], rel=1e-4)


# --- mixup ---------------------------------------------------------------------------------------


def test_rows_are_mixed_with_their_labels(model, batch):
    mixed = Mixup(0.5)(model, batch, (1, 2))
    again = Mixup(0.5)(model, batch, (1, 2))
    assert torch.equal(mixed["labels"], again["labels"])
    rng = np.random.default_rng((1, 2))
    share = rng.beta(0.5, 0.5, 6)[:, None]
    partner = rng.permutation(6)
    labels, mask = batch["labels"].numpy(), batch["attention_mask"].numpy()
    np.testing.assert_allclose(
        mixed["labels"], share * labels + (1 - share) * labels[partner], atol=1e-6
    )
    assert (mixed["attention_mask"].numpy() == (mask | mask[partner])).all()
    with torch.no_grad():
        embeds = model.get_input_embeddings()(batch["input_ids"]).numpy() * mask[..., None]
    expected = share[..., None] * embeds + (1 - share[..., None]) * embeds[partner]
    np.testing.assert_allclose(mixed["inputs_embeds"].detach(), expected, atol=1e-6)
    assert "input_ids" not in mixed


def test_mixing_a_text_with_itself_changes_nothing(model, batch):
    twins = {name: value[:1].repeat(4, *[1] * (value.dim() - 1)) for name, value in batch.items()}
    mixed = Mixup(1.0)(model, twins, (0,))
    with torch.no_grad():
        logits = model(**{name: value for name, value in mixed.items() if name != "labels"}).logits
        inputs = {name: value for name, value in twins.items() if name != "labels"}
        torch.testing.assert_close(logits, model(**inputs).logits)
    torch.testing.assert_close(mixed["labels"], twins["labels"])


def test_a_resumed_run_mixes_the_rows_of_an_uninterrupted_one(tiny_model, tmp_path):
    options = {"mixup": Mixup(1.0), "adversary": AdversarialWeights(0.01), "passes": 2}

    def trainer(folder):
        return make_trainer(tiny_model, folder, options=options, save_strategy="epoch")

    whole = trainer(tmp_path / "a")
    whole.train()
    (first, _) = sorted((tmp_path / "a").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    resumed = trainer(tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(first))
    assert (weights(resumed.model) == weights(whole.model)).all()


def test_a_model_that_takes_no_embeddings_is_refused(batch):
    class Bag(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return None

    with pytest.raises(UserError, match="mixup: Bag takes no embeddings to mix"):
        Mixup(1.0)(Bag(), batch, (0,))
