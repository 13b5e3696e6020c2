"""Adversarial training: losses, two optimisers as one, and what the log says."""

import copy
import math

import pytest
import torch
from transformers import TrainerControl, TrainerState, get_scheduler

from shared.plots.images import epoch_grids
from shared.training.adversarial import (
    AdversarialLoss,
    AdversarialOptimizer,
    SampleGrids,
    judge_discriminator,
)


@pytest.mark.parametrize("name", ["bce", "hinge", "least_squares"])
def test_losses(name):
    loss = AdversarialLoss(name)
    undecided = torch.full((4,), loss.threshold())
    assert float(loss.of_discriminator(undecided, undecided)) == pytest.approx(loss.uninformed())
    real, fake = (loss.threshold() + offset * torch.ones(4) for offset in (0.5, -0.5))
    if name != "least_squares":
        real, fake = 10 * real, 10 * fake
    low, high = loss.of_discriminator(real, fake), loss.of_discriminator(fake, real)
    assert low < 0.1 < high
    assert loss.of_generator(real) < loss.of_generator(fake)


def test_only_the_targets_of_real_images_are_smoothed():
    loss = AdversarialLoss(label_smoothing=0.1)
    # The best logit of a real image is that of .9; of a generated one it is still -infinity.
    best = math.log(9)
    fake = torch.tensor([-50.0])
    at = {x: float(loss.of_discriminator(torch.tensor([x]), fake)) for x in (best, best + 1, 50.0)}
    assert at[best] < at[best + 1] < at[50.0]
    assert at[best] == pytest.approx(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / 2, rel=1e-5)
    plain = AdversarialLoss()
    assert float(loss.of_generator(fake)) == float(plain.of_generator(fake))


def two_networks():
    torch.manual_seed(0)
    networks = [torch.nn.Linear(3, 2) for _ in range(2)]
    optimizer = AdversarialOptimizer(
        torch.optim.AdamW(networks[0].parameters(), lr=0.1),
        torch.optim.AdamW(networks[1].parameters(), lr=0.3),
    )
    return networks, optimizer, get_scheduler("linear", optimizer, 0, 8)


def step(networks, optimizer, schedule):
    for network in networks:
        network(torch.ones(1, 3)).square().sum().backward()
    optimizer.discriminator.step()
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def test_each_step_is_of_one_network():
    networks, optimizer, _ = two_networks()
    before = [network.weight.clone() for network in networks]
    for network in networks:
        network(torch.ones(1, 3)).sum().backward()
    optimizer.discriminator.step()
    assert torch.equal(networks[0].weight, before[0])
    assert not torch.equal(networks[1].weight, before[1])
    after = networks[1].weight.clone()
    optimizer.step()
    assert not torch.equal(networks[0].weight, before[0])
    assert torch.equal(networks[1].weight, after)


def test_both_optimisers_and_the_schedule_go_on_after_a_restart():
    networks, optimizer, schedule = two_networks()
    for _ in range(3):
        step(networks, optimizer, schedule)
    saved = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    again, other, other_schedule = two_networks()
    for network, source in zip(again, networks, strict=True):
        network.load_state_dict(source.state_dict())
    other.load_state_dict(saved[0])
    other_schedule.load_state_dict(saved[1])
    for _ in range(3):
        step(networks, optimizer, schedule)
        step(again, other, other_schedule)
    rates = [group["lr"] for group in other.param_groups]
    assert rates == pytest.approx([0.1 * 2 / 8, 0.3 * 2 / 8])  # the schedule reaches both
    assert other.discriminator.param_groups[0]["lr"] == rates[1]
    for network, source in zip(again, networks, strict=True):
        assert torch.equal(network.weight, source.weight)


def test_a_discriminator_that_has_won_is_said():
    def log(*accuracies):
        return [{"discriminator_accuracy": a, "discriminator_loss": 0.1} for a in accuracies]

    assert "tells 99.9% of the images apart" in judge_discriminator(log(0.6, 0.9, 0.9, 0.999))
    assert judge_discriminator(log(1, 1, 1, 1, 0.7, 0.7, 0.7, 0.8)) is None
    assert judge_discriminator([{"eval_spread": 1.0}]) is None


@pytest.mark.parametrize(("epoch", "kept"), [(0, []), (None, []), (999.5, [9, 999]), (2e3, None)])
def test_grids_of_another_run_are_deleted_but_not_those_before_a_restart(tmp_path, epoch, kept):
    grids = SampleGrids(tmp_path / "samples", 4, 0)
    state = TrainerState(epoch=epoch)
    grids.on_train_begin(None, state, TrainerControl())  # without the folder
    (tmp_path / "samples").mkdir()
    for name in ("epoch_1000.png", "epoch_009.png", "epoch_999.png", "epoch_x.png"):
        (tmp_path / "samples" / name).touch()
    assert [*epoch_grids(tmp_path / "samples")] == [9, 999, 1000]
    grids.on_train_begin(None, state, TrainerControl())
    assert [*epoch_grids(tmp_path / "samples")] == ([9, 999, 1000] if kept is None else kept)
