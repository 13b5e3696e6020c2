import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from shared.data.tasks import Task
from shared.training.multi_task import MultiTaskLoss

TASKS = [
    Task("topic", "single_label", ("bug", "question", "feature")),
    Task("tags", "multi_label", ("a", "b")),
    Task("hours", "regression", ("hours",)),
]


@pytest.fixture
def targets():
    rng = np.random.default_rng(0)
    n_rows = 24
    values = np.concatenate(
        [
            np.eye(3)[rng.integers(0, 3, n_rows)],
            rng.integers(0, 2, (n_rows, 2)),
            rng.normal(size=(n_rows, 1)),
        ],
        axis=1,
    )
    values[:6, :3], values[4:9, 3:5], values[20:, 5] = np.nan, np.nan, np.nan
    return values


@pytest.fixture
def logits(targets):
    return torch.randn(*targets.shape, generator=torch.Generator().manual_seed(1))


def test_losses_are_those_of_torch_over_the_known_rows(targets, logits):
    loss = MultiTaskLoss(TASKS, targets, normalize=False)
    y = torch.from_numpy(targets).float()
    topic, tags, hours = loss.task_losses(logits, y)
    torch.testing.assert_close(topic, cross_entropy(logits[6:, :3], y[6:, :3]))
    known = ~y[:, 3].isnan()
    expected = binary_cross_entropy_with_logits(logits[known, 3:5], y[known, 3:5])
    torch.testing.assert_close(tags, expected)
    torch.testing.assert_close(hours, (logits[:20, 5] - y[:20, 5]).square().mean())
    torch.testing.assert_close(loss({"logits": logits}, y), (topic + tags + hours) / 3)
    weighted = MultiTaskLoss(TASKS, targets, weights=[2, 1, 1], normalize=False)
    torch.testing.assert_close(weighted({"logits": logits}, y), topic / 2 + tags / 4 + hours / 4)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_best_constant_prediction_has_a_loss_of_one(targets, balanced):
    loss = MultiTaskLoss(TASKS, targets, balanced=balanced)
    y = torch.from_numpy(targets).float()
    constant = torch.zeros(y.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = loss({"logits": constant.expand_as(y)}, y)
        value.backward()
        return value

    optimizer.step(closure)
    assert closure().item() == pytest.approx(1, abs=1e-4)


def test_the_gradient_is_the_same_however_a_batch_is_split(targets, logits):
    loss = MultiTaskLoss(TASKS, targets)
    y = torch.from_numpy(targets).float()
    log_variances = torch.tensor([0.3, -0.2, 0.1])
    for extra in ({}, {"log_variances": log_variances}):
        whole = loss({"logits": logits, **extra}, y, y.numel())
        parts = sum(
            loss({"logits": logits[rows], **extra}, y[rows], y.numel())
            for rows in (slice(0, 4), slice(4, 17), slice(17, 24))
        )
        torch.testing.assert_close(whole, parts)
        # All training rows at once: the mean over the known rows.
        torch.testing.assert_close(whole, loss({"logits": logits, **extra}, y))


def test_a_row_without_a_task_gives_it_no_gradient(targets, logits):
    loss = MultiTaskLoss(TASKS, targets, balanced=True)
    logits.requires_grad_()
    loss({"logits": logits}, torch.from_numpy(targets).float()).backward()
    assert torch.isfinite(logits.grad).all()
    missing = torch.from_numpy(np.isnan(targets))
    assert (logits.grad[missing] == 0).all()
    assert (logits.grad[~missing] != 0).all()


def test_a_batch_in_which_nobody_has_a_task_is_no_nan(targets, logits):
    loss = MultiTaskLoss(TASKS, targets)
    rows = torch.from_numpy(targets[:4]).float()
    assert torch.isfinite(loss({"logits": logits[:4]}, rows))
    assert torch.isfinite(loss({"logits": logits[:4]}, rows, rows.numel()))


def test_passes_are_averaged(targets, logits):
    loss = MultiTaskLoss(TASKS, targets)
    y = torch.from_numpy(targets).float()
    other = logits.flip(0)
    both = loss({"logits": torch.cat([logits, other])}, y, y.numel())
    single = [loss({"logits": one}, y, y.numel()) for one in (logits, other)]
    torch.testing.assert_close(both, sum(single) / 2)


def test_uncertainty_weighs_as_in_the_paper(targets, logits):
    loss = MultiTaskLoss(TASKS, targets, normalize=False)
    y = torch.from_numpy(targets).float()
    topic, tags, hours = loss.task_losses(logits, y)
    s = torch.tensor([0.5, -1.0, 0.2])
    expected = (-s[0]).exp() * topic + (-s[1]).exp() * tags + (-s[2]).exp() * hours / 2
    torch.testing.assert_close(
        loss({"logits": logits, "log_variances": s}, y), expected + s.sum() / 2
    )
