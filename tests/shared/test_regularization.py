"""Adversarial weights and mixtures: what a step is taken on, and that nothing stays behind."""

import copy

import numpy as np
import pytest
import torch
from tiny_training import COLLATOR, LABELS, history, make_rows, make_trainer, weights

from shared.errors import UserError
from shared.losses import MultilabelLoss
from shared.models import load_sequence_classifier
from shared.regularization import AdversarialWeights, Mixup


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


@pytest.mark.parametrize("what", ["embeddings", "weights"])
def test_weights_move_against_the_model_and_back(model, batch, what):
    loss = loss_of(model, batch)
    loss.backward()
    before = copy.deepcopy(model.state_dict())
    with AdversarialWeights(0.05, what).against(model), torch.no_grad():
        assert loss_of(model, batch) > loss
        moved = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
        words = "bert.embeddings.word_embeddings.weight"
        step = model.get_parameter(words) - before[words]
        torch.testing.assert_close(step.norm(), 0.05 * before[words].norm())
        gradient = model.get_parameter(words).grad
        torch.testing.assert_close(step / step.norm(), gradient / gradient.norm())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert words in moved
    assert (len(moved) == 1) == (what == "embeddings")
    assert not [name for name in moved if name.endswith("bias")]


def test_weights_come_back_after_an_error(model, batch):
    loss_of(model, batch).backward()
    before = weights(model)
    with pytest.raises(ValueError), AdversarialWeights(0.1, "weights").against(model):  # noqa: PT011
        raise ValueError
    assert (weights(model) == before).all()


def test_a_step_is_taken_on_both_losses(tiny_model, tmp_path):
    def norms(**options):
        trainer = make_trainer(
            tiny_model, tmp_path, options=options, num_train_epochs=1, max_grad_norm=1e9
        )
        trainer.train()
        return np.array(history(trainer, "loss", "grad_norm"))

    plain, still = norms(), norms(adversary=AdversarialWeights(0.0))
    assert still[1, 0] == pytest.approx(2 * plain[1, 0], rel=1e-5)  # twice the same gradient
    assert still[0, 0] == plain[0, 0]  # the log shows the loss at the weights as they are
    assert norms(adversary=AdversarialWeights(0.1))[1, 0] != pytest.approx(still[1, 0], rel=1e-4)


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
        found = model(**{name: value for name, value in mixed.items() if name != "labels"}).logits
        inputs = {name: value for name, value in twins.items() if name != "labels"}
        torch.testing.assert_close(found, model(**inputs).logits)
    torch.testing.assert_close(mixed["labels"], twins["labels"])


def test_a_resumed_run_mixes_as_an_uninterrupted_one(tiny_model, tmp_path):
    options = {"mixup": Mixup(1.0), "adversary": AdversarialWeights(0.01), "passes": 2}

    def trainer(folder):
        return make_trainer(tiny_model, folder, options=options, save_strategy="epoch")

    whole = trainer(tmp_path / "a")
    whole.train()
    (first, _) = sorted((tmp_path / "a").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    resumed = trainer(tmp_path / "b")
    resumed.train(resume_from_checkpoint=str(first))
    assert (weights(resumed.model) == weights(whole.model)).all()


def test_a_model_that_takes_no_embeddings(batch):
    class Bag(torch.nn.Module):
        def forward(self, input_ids, attention_mask):
            return None

    with pytest.raises(UserError, match="mixup: Bag takes no embeddings to mix"):
        Mixup(1.0)(Bag(), batch, (0,))
