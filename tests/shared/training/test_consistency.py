"""Tests of consistency training: losses, batches, and the Trainer."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forks import run_script
from tiny_consistency import make_consistency_trainer, make_unlabelled
from tiny_training import COLLATOR, history, make_rows, weights
from transformers import TrainerCallback

from shared.cli.errors import UserError
from shared.training.batches import LengthGroupedBatches
from shared.training.consistency import ConsistencyBatches, ConsistencyCollator
from shared.training.consistency_losses import (
    AnnealedLoss,
    ConsistencyLoss,
    LabelAlignment,
    annealing_threshold,
)
from shared.training.losses import MultilabelLoss, SingleLabelLoss

# --- the loss of labelled rows -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "at_start", "half_way"),
    [
        ("linear", 0, 0.5),
        ("log", 0, 1 - math.exp(-2.5)),
        ("exp", math.exp(-5), math.exp(-2.5)),
        ("none", 1, 1),
    ],
)
def test_thresholds_rise_from_a_guess_to_one(schedule, at_start, half_way):
    for n_classes in (2, 4):
        for progress, rise in ((0, at_start), (0.5, half_way)):
            expected = rise * (1 - 1 / n_classes) + 1 / n_classes
            threshold = annealing_threshold(schedule, progress, n_classes)
            assert threshold == pytest.approx(expected)
        end = annealing_threshold(schedule, 1, n_classes)
        assert end == pytest.approx(1, abs=0.01)  # the paper's log schedule ends at .993


def test_a_row_whose_class_is_learned_has_no_gradient():
    # Probabilities of the class: .75 and .4, beside a threshold of 1/2 + .2 / 2 = .6.
    p = torch.tensor([[0.75, 0.25], [0.4, 0.6]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logits = p.log().requires_grad_()
    loss = AnnealedLoss(SingleLabelLoss(), "linear", lambda: 0.2)({"logits": logits}, labels, 4)
    loss.backward()
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.4)) / 2)
    # The gradient of cross-entropy: (p - label) / rows.
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0], [-0.3, 0.3]]))


def test_labels_that_do_not_exclude_each_other_are_judged_one_by_one():
    p = torch.tensor([[0.7, 0.3, 0.5]])  # right with .7, .7 and .5
    labels = torch.tensor([[1.0, 0.0, 1.0]])
    logits = p.logit().requires_grad_()
    AnnealedLoss(MultilabelLoss(), "linear", lambda: 0.2)({"logits": logits}, labels).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, -0.5 / 3]]))


def test_without_annealing_it_is_the_loss_itself():
    logits, labels = torch.randn(5, 3), torch.eye(3)[[0, 1, 2, 1, 0]]
    plain = SingleLabelLoss()({"logits": logits}, labels, 30)
    annealed = AnnealedLoss(SingleLabelLoss(), "none", lambda: 0.0)({"logits": logits}, labels, 30)
    assert annealed == plain


# --- the loss of unlabelled rows -----------------------------------------------------------------


def bits(target, prediction):
    """Return KL(target, prediction) of two distributions, in nats."""
    return sum(p * math.log(p / q) for p, q in zip(target, prediction, strict=True))


def test_consistency_of_classes_by_hand():
    # Sharpened by a temperature of .5, odds of 9 : 1 become 81 : 1. The second row is not confident
    # enough, the third agrees with its target.
    target = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9]]).log()
    prediction = torch.tensor([[0.6, 0.4], [0.2, 0.8], [1 / 82, 81 / 82]]).log()
    loss = ConsistencyLoss(single_label=True, temperature=0.5, confidence=0.8)
    expected = bits([81 / 82, 1 / 82], [0.6, 0.4])
    assert loss(prediction, target).item() == pytest.approx(expected / 3)
    assert loss(prediction, target, torch.tensor(12)).item() == pytest.approx(expected / 12)
    loss.weight = torch.tensor([3.0, 5.0])
    assert loss(prediction, target).item() == pytest.approx(3 * expected / 3, rel=1e-5)


def test_consistency_of_labels_by_hand():
    # The first label applies, the second does not, the third is in doubt.
    target = torch.tensor([[0.9, 0.1, 0.6]]).logit()
    prediction = torch.tensor([[0.6, 0.3, 0.1]]).logit()
    loss = ConsistencyLoss(single_label=False, temperature=0.5, confidence=0.8)
    first = bits([81 / 82, 1 / 82], [0.6, 0.4])
    second = bits([1 / 82, 81 / 82], [0.3, 0.7])
    assert loss(prediction, target).item() == pytest.approx((first + second) / 3)
    # The weight of a label is for texts that have it.
    loss.weight = torch.tensor([3.0, 5.0, 7.0])
    assert loss(prediction, target).item() == pytest.approx((3 * first + second) / 3)


@pytest.mark.parametrize("single_label", [True, False])
def test_extreme_logits_have_a_finite_loss_and_gradient(single_label):
    target = torch.tensor([[200.0, -200.0], [-200.0, 200.0]])
    logits = torch.tensor([[-200.0, 200.0], [0.0, 0.0]], requires_grad=True)
    loss = ConsistencyLoss(single_label=single_label)(logits, target)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("single_label", [True, False])
def test_alignment_gives_targets_the_wanted_shares(single_label):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(size=(500, 3)) * 3 + [2.5, 0.0, -2.0])  # a sure model
    scores = logits.softmax(-1) if single_label else logits.sigmoid()
    shares = [0.2, 0.5, 0.3]
    assert abs(scores.mean(0).numpy() - shares).max() > 0.3
    alignment = LabelAlignment(shares, scores.numpy(), single_label=single_label)
    aligned = alignment(logits).softmax(-1) if single_label else alignment(logits).sigmoid()
    np.testing.assert_allclose(aligned.mean(0), shares, atol=1e-4)
    torch.testing.assert_close(alignment.probabilities(logits), aligned)


def test_alignment_leaves_shares_as_they_are_where_they_are_wanted():
    scores = np.random.default_rng(0).random((50, 3))
    alignment = LabelAlignment(scores.mean(0), scores, single_label=False)
    np.testing.assert_allclose(alignment.shift, 0, atol=1e-9)


def test_a_label_that_no_text_has_gets_a_bounded_shift():
    scores = np.tile([1.0, 0.0], (9, 1))
    alignment = LabelAlignment([0.5, 0.5], scores, single_label=True)
    assert alignment.shift.tolist() == [-5, 5]
    assert alignment(torch.tensor([[20.0, 0.0]])).argmax() == 0


def test_alignment_follows_a_model_that_drifts():
    scores = np.full((8, 2), 0.5)
    alignment = LabelAlignment([0.5, 0.5], scores, single_label=True)
    drifted = torch.tensor([[1.5, -1.5]] * 8)
    means = []
    for _ in range(200):
        p = alignment.probabilities(drifted)
        means.append(p[:, 0].mean().item())
        alignment.update(p.sum(0).numpy(), 8, 8)
    assert means[0] > 0.9
    assert max(abs(mean - 0.5) for mean in means[100:]) < 0.05


def test_an_alignment_does_not_depend_on_the_split_of_a_step():
    scores = np.tile([0.7, 0.3], (4, 1))
    whole, pieces = (LabelAlignment([0.5, 0.5], scores, single_label=True) for _ in range(2))
    start = pieces.shift.tolist()
    whole.update(np.array([3.0, 5.0]), 8, 8)
    pieces.update(np.array([1.0, 1.0]), 2, 8)
    assert pieces.shift.tolist() == start
    pieces.update(np.array([2.0, 4.0]), 6, 8)
    for alignment in (whole, pieces):
        assert alignment.mean == pytest.approx([0.9 * 0.5 + 0.1 * 3 / 8, 0.9 * 0.5 + 0.1 * 5 / 8])
        moved = 0.1 * np.log(0.5 / alignment.mean)
        assert alignment.shift == pytest.approx(np.add(start, moved))


# --- batches -------------------------------------------------------------------------------------


def make_batches(pieces=1, epoch=0, n_labelled=5, batch_size=4):
    lengths = np.random.default_rng(0).integers(3, 60, size=50)
    unlabelled = LengthGroupedBatches(lengths, 3 * batch_size, 7, lambda: epoch, pieces)
    return ConsistencyBatches(n_labelled, batch_size, unlabelled)


def test_an_epoch_has_each_unlabelled_row_once_and_labelled_rows_equally_often():
    batches = list(make_batches())
    assert len(batches) == len(make_batches()) == 5
    rows = np.concatenate(batches)
    unlabelled = rows[rows >= 5] - 5
    assert sorted(unlabelled) == list(range(50))
    assert np.bincount(rows[rows < 5]).tolist() == [4] * 5
    assert all(sum(row < 5 for row in batch) == 4 for batch in batches)


def test_other_epochs_have_other_batches_and_more_labelled_rows_than_there_are_repeat():
    assert list(make_batches()) == list(make_batches())
    first, second = (next(iter(make_batches(epoch=epoch))) for epoch in (0, 1))
    assert [row for row in first if row < 5] != [row for row in second if row < 5]
    for batch in make_batches(n_labelled=2):
        assert sorted(row for row in batch if row < 2) == [0, 0, 1, 1]


def test_pieces_make_up_the_same_batches():
    whole, pieces = list(make_batches()), list(make_batches(pieces=2))
    assert len(pieces) == 2 * len(whole)
    for i, batch in enumerate(whole):
        assert sorted(pieces[2 * i] + pieces[2 * i + 1]) == sorted(batch)
        assert [sum(row < 5 for row in piece) for piece in pieces[2 * i : 2 * i + 2]] == [2, 2]


def test_the_collator_takes_the_copies_in_turn_and_pads_each_part_alone():
    labelled = {"input_ids": [1] * 20, "labels": [2]}
    unlabelled = {"input_ids": [2] * 3, "copies": [[3] * 4, [4] * 9]}
    for epoch, ids in ((0, [3] * 4), (1, [4] * 9), (2, [3] * 4)):
        batch = ConsistencyCollator(COLLATOR, lambda epoch=epoch: epoch)([labelled, unlabelled])
        assert batch["input_ids"].shape == (1, 24)
        assert batch["labels"].tolist() == [[0, 0, 1, 0]]
        assert batch["texts"]["input_ids"][0, :4].tolist() == [2, 2, 2, 0]
        changed = batch["changed"]
        assert changed["input_ids"][changed["attention_mask"].bool()].tolist() == ids
        assert "labels" not in changed


# --- the Trainer ---------------------------------------------------------------------------------

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def two_processes(tiny_model, tmp_path_factory):
    """Return the losses and gradient norms of steps on two processes."""
    folder = tmp_path_factory.mktemp("two_processes")
    script = Path(__file__).with_name("distributed_consistency_script.py")
    run = run_script(script, tiny_model, folder, processes=2, check=False)
    assert (folder / "results.json").is_file(), run.stderr
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("single_label", [True, False])
def test_a_step_has_the_same_loss_and_gradient_for_every_split(
    tiny_model, tmp_path, two_processes, single_label
):
    def run(accumulation):
        trainer = make_consistency_trainer(
            tiny_model,
            tmp_path,
            single_label=single_label,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
        )
        trainer.train()
        return history(trainer, "loss", "grad_norm")

    expected = run(1)
    assert np.shape(expected) == (2, 3)  # 40 unlabelled rows, two per labelled row
    splits = {
        "4 x 2": run(4),
        "2 processes x 4": two_processes[f"{single_label} 1"],
        "2 processes x 2 x 2": two_processes[f"{single_label} 2"],
    }
    for name, values in splits.items():
        np.testing.assert_allclose(values, expected, atol=TOLERANCE, rtol=0, err_msg=name)


def test_the_loss_has_both_parts(tiny_model, tmp_path):
    losses = {}
    for weight in (0.0, 1.0, 3.0):
        trainer = make_consistency_trainer(tiny_model, tmp_path, weight=weight)
        trainer.train()
        losses[weight] = history(trainer, "loss")[0][0]
    assert losses[1.0] > losses[0.0]
    assert losses[3.0] - losses[0.0] == pytest.approx(3 * (losses[1.0] - losses[0.0]), abs=1e-5)


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_model, tmp_path):
    flags = {"dropout": 0.1, "save_strategy": "steps", "save_steps": 2, "num_train_epochs": 3}
    flags |= {"annealing": "linear", "logging_steps": 1, "single_label": True}
    flags |= {"teacher_decay": 0.8}
    whole = make_consistency_trainer(tiny_model, tmp_path, **flags)
    whole.train()
    assert whole.state.global_step == 9
    for step in (2, 6):  # in the first epoch, and at the end of the second
        (tmp_path / f"checkpoint-{step}" / "end_of_training.json").unlink(missing_ok=True)
        resumed = make_consistency_trainer(tiny_model, tmp_path / "resumed", **flags)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))
        assert history(resumed, "loss") == history(whole, "loss")
        np.testing.assert_array_equal(weights(resumed.teacher), weights(whole.teacher))
        for name in ("shift", "mean"):
            values = (getattr(trainer.alignment, name).tolist() for trainer in (resumed, whole))
            assert len({*map(tuple, values)}) == 1


def test_other_unlabelled_rows_are_another_run(tiny_model, tmp_path):
    flags = {"save_strategy": "steps", "save_steps": 2}
    make_consistency_trainer(tiny_model, tmp_path, **flags).train()
    rows = make_unlabelled(seed=5)
    other = make_consistency_trainer(tiny_model, tmp_path / "other", unlabelled=rows, **flags)
    with pytest.raises(UserError, match="was trained on other rows"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_evaluation_has_the_supervised_loss_alone(tiny_model, tmp_path):
    trainer = make_consistency_trainer(tiny_model, tmp_path)
    rows = make_rows(20, seed=1)
    loss = trainer.evaluate(rows)["eval_loss"]
    logits, labels = trainer.predict(rows)[:2]
    expected = MultilabelLoss()({"logits": torch.tensor(logits)}, torch.tensor(labels))
    assert loss == pytest.approx(expected.item())


def test_the_teacher_is_a_moving_mean_of_the_weights(tiny_model, tmp_path):
    trainer = make_consistency_trainer(tiny_model, tmp_path, teacher_decay=0.75)
    before = []

    class Record(TrainerCallback):
        def on_step_begin(self, args, state, control, model, **kwargs):
            before.append(weights(model))

    trainer.add_callback(Record())
    trainer.train()
    expected = before[0]
    for values in before[1:]:
        expected = 0.75 * expected + 0.25 * values
    assert len(before) == 3
    assert abs(before[2] - before[0]).max() > 1e-4
    np.testing.assert_allclose(weights(trainer.teacher), expected, atol=1e-7)


def test_targets_are_those_of_the_teacher(tiny_model, tmp_path):
    losses = {}
    for decay in (0.0, 0.999999):  # which keeps the first weights
        trainer = make_consistency_trainer(
            tiny_model, tmp_path, teacher_decay=decay, learning_rate=0.05, logging_steps=1
        )
        trainer.train()
        losses[decay] = history(trainer, "loss")[0]
    assert losses[0.0][0] == losses[0.999999][0]
    assert abs(losses[0.0][2] - losses[0.999999][2]) > 1e-3


def test_targets_are_computed_without_dropout(tiny_model, tmp_path):
    # With the text as its own copy, and no dropout, the only divergence is that of sharpening.
    rows = make_unlabelled()
    rows = rows.map(lambda row: {"copies": [row["input_ids"]]})
    options = {"unlabelled": rows, "temperature": 1.0, "confidence": 0.0, "aligned": False}
    for dropout, lowest in ((0.0, None), (0.5, 1e-3)):
        losses = []
        for weight in (0.0, 100.0):
            options["weight"] = weight
            trainer = make_consistency_trainer(tiny_model, tmp_path, dropout=dropout, **options)
            # Neither part moves the weights, so that only the first loss of each run counts.
            trainer.args.max_steps = 1
            trainer.train()
            losses.append(history(trainer, "loss")[0][0])
        if lowest is None:
            assert losses[0] == pytest.approx(losses[1], abs=1e-5)
        else:
            assert losses[1] > losses[0] + lowest


@pytest.mark.parametrize(("confidence", "n_read", "share"), [(0.0, 14, 1.0), (0.999, 1, 0.0)])
def test_copies_of_doubtful_texts_are_not_read(tiny_model, tmp_path, confidence, n_read, share):
    trainer = make_consistency_trainer(tiny_model, tmp_path, confidence=confidence)
    trainer.args.max_steps = 1
    sizes = []

    def count(model, args, kwargs):
        if model.training:
            sizes.append(len(kwargs["input_ids"]))

    trainer.model.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    assert sizes == [8, n_read]
    assert history(trainer, "confident") == [[share]]


def test_the_progress_is_that_of_the_steps(tiny_model, tmp_path):
    trainer = make_consistency_trainer(tiny_model, tmp_path)
    trainer.state = SimpleNamespace(global_step=3, max_steps=12)
    assert trainer.progress == 0.25
