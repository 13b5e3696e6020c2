"""Checks of a training before it starts, in under a minute."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import Trainer
from transformers.activations import ACT2CLS

from shared.cli.launch import progress
from shared.plots import plot_rate_test

# Enough to judge by; a small encoder gets through it in seconds.
ROWS, TOKENS, BATCHES, STEPS, SECONDS = 16, 64, 8, 50, 15.0
LEARNED = 0.1  # share of the loss of knowing nothing at which a batch counts as known by heart
RARE = 5
LOWEST_RATE, HIGHEST_RATE = 1e-6, 1.0


class CheckResult(NamedTuple):
    """What a check has found: its name, whether all is well, and a sentence."""

    check: str
    well: bool
    text: str


def check_health(
    trainer: Trainer,
    max_length: int | None,
    *,
    lengths: np.ndarray | None = None,
    label_counts: Mapping[str, int] | None = None,
    uninformed: float | None = None,
) -> list[CheckResult]:
    """Check data, model and learning rate of a training that is about to start.

    What Karpathy's "A Recipe for Training Neural Networks" (2019) does by hand, and the
    learning-rate range test of Smith (2017, "Cyclical Learning Rates for Training Neural Networks",
    section 3.3). Runs on the first 64 tokens of batches of up to 16 training rows, for at most 15
    seconds a check, and leaves the weights as they were.

    Parameters
    ----------
    trainer : Trainer
        Ready to train; its training rows say their ``length`` in tokens.
    max_length : int, optional
        Tokens of a text that the model reads. None: all.
    lengths : int array of shape (texts,), optional
        Tokens of each text, at most `max_length`. None: those of the training rows.
    label_counts : mapping of label to its training rows, optional
    uninformed : float, optional
        Loss of a model that knows nothing. None: that of logits of 0, which is ln(classes) where
        classes exclude each other and ln 2 per label where not, times the weights of the loss.

    Returns
    -------
    list of Finding
        They are printed, too. The curve of the range test is ``plots/learning_rate.png`` in the
        output folder.
    """
    args = trainer.args
    model = trainer.accelerator.unwrap_model(trainer.model).to(args.device)
    if lengths is None:
        lengths = trainer.train_dataset.with_format("numpy")[args.length_column_name][:]
    findings = [truncated_texts(lengths, max_length), parameters(model)]
    if label_counts is not None:
        findings.insert(0, rare_labels(label_counts))
    batches = [_cut(trainer, batch) for batch in islice(trainer.get_train_dataloader(), BATCHES)]
    run = _Run(trainer, model)
    with run.undone(), ActivationMonitor(model) as units, torch.no_grad():
        started = perf_counter()
        start = float(np.mean([run.loss(batch).item() for batch in batches]))
        # Forward and backward take about three times as long as forward alone.
        step_seconds = 3 * (perf_counter() - started) / len(batches)
    if uninformed is None:
        uninformed = float(np.mean([run.uninformed_loss(batch) for batch in batches]))
    findings += [initial_loss(start, uninformed), units.finding()]
    if not math.isfinite(start):  # nothing can be learned from there
        if args.process_index == 0:
            print(f"\nHealth\n{describe(findings)}")
        return findings
    with run.undone():
        n_steps = int(np.clip(SECONDS / step_seconds, 15, STEPS))
        rates, losses = run.rate_test(batches, n_steps)
    suggested = suggest_rate(rates, losses)
    with run.undone():
        # Fewer rows and more steps: whether labels reach the weights shows on a handful, too.
        few = {name: value[: ROWS // 4] for name, value in batches[0].items()}
        n_steps = int(np.clip(4 * SECONDS / step_seconds, 15, STEPS))
        enough = LEARNED * uninformed
        learned = run.overfit(few, 3 * suggested, n_steps, enough)
        findings.append(one_batch(learned, enough))
    findings.append(learning_rate(args.learning_rate, suggested))
    if args.process_index == 0:
        plot = Path(args.output_dir) / "plots" / "learning_rate.png"
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot_rate_test(rates, losses, plot, used=args.learning_rate, suggested=suggested)
        print(f"\nHealth\n{describe(findings)}\n\nThe curve of the range test is {plot}.")
    return findings


def describe(findings: Sequence[CheckResult]) -> str:
    """Make a line of each finding; those to look at are marked."""
    return "\n".join(
        f"  {'ok  ' if finding.well else 'LOOK'}  {finding.check:<14}{finding.text}"
        for finding in findings
    )


# --- what is well --------------------------------------------------------------------------------


def rare_labels(counts: Mapping[str, int]) -> CheckResult:
    """Name the labels that fewer than five training rows have."""
    rare = [name for name, count in counts.items() if count < RARE]
    text = f"the rarest of {len(counts)} has {min(counts.values()):,} training rows"
    if rare:
        some = ", ".join(rare[:5]) + (", ..." if len(rare) > 5 else "")
        text = f"{len(rare)} of {len(counts)} have fewer than {RARE} training rows: {some}"
    return CheckResult("labels", not rare, text)


def truncated_texts(lengths: np.ndarray, max_length: int | None) -> CheckResult:
    """Say how many texts fill what the model reads, and so lose their end or nearly do."""
    if max_length is None:
        return CheckResult("texts", True, "all are read to their end")
    share = float(np.mean(np.asarray(lengths) >= max_length))
    return CheckResult("texts", share <= 0.5, f"{share:.0%} are cut at {max_length} tokens")


def parameters(model: torch.nn.Module) -> CheckResult:
    """Count the parameters of each part, and those that train."""
    parts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    train = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    named = ", ".join(f"{name} {count:,}" for name, count in parts.items() if count)
    return CheckResult("parameters", train > 0, f"{train:,} of {every:,} train ({named})")


def initial_loss(found: float, uninformed: float) -> CheckResult:
    """Compare the loss at the start with that of a model that knows nothing.

    A new head starts near it, a fitted one below; far above, something is wired wrong.
    """
    well = math.isfinite(found) and found < 1.3 * uninformed
    return CheckResult("initial loss", well, f"{found:.3f}; knowing nothing costs {uninformed:.3f}")


def one_batch(losses: Sequence[float], enough: float) -> CheckResult:
    """Say whether the model can learn a single batch by heart."""
    text = f"from {losses[0]:.3f} to {losses[-1]:.4f} in {len(losses)} steps on a few rows"
    return CheckResult("memory", losses[-1] < enough, text)


def suggest_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return a tenth of the highest rate at which the loss is at its lowest, or nearly.

    Parameters
    ----------
    rates : array of shape (steps,)
        Rising.
    losses : array of shape (steps,)
        Smoothed over a tenth of the steps here, since each is that of another batch.
    """
    window = np.ones(2 * (len(losses) // 20) + 1)
    smooth = np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")
    return float(rates[np.flatnonzero(smooth <= 1.02 * smooth.min())[-1]] / 10)


def learning_rate(used: float, suggested: float) -> CheckResult:
    """Compare a rate with the suggested one, which is right to an order of magnitude."""
    text = f"{used:.0e}; the range test suggests about {suggested:.0e}"
    return CheckResult("learning rate", suggested / 10 <= used <= suggested * 10, text)


class ActivationMonitor:
    """Watch which units of activation functions stand still while batches pass through a model.

    A unit of a rectifier (ReLU, GELU and their kin) is dead if no token raises it above 0; a value
    of tanh, sigmoid or a recurrent state is saturated within a hundredth of its limits.
    """

    RECTIFIERS = (torch.nn.ReLU, torch.nn.GELU, torch.nn.SiLU)
    BOUNDED = (torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.RNNBase)

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.rectifiers = (*self.RECTIFIERS, *_of_transformers("relu", "gelu", "silu", "swish"))
        self.highest: dict[torch.nn.Module, torch.Tensor] = {}
        self.n_saturated = self.n_bounded = 0

    def __enter__(self) -> ActivationMonitor:
        watched = (*self.rectifiers, *self.BOUNDED)
        self._hooks = [
            module.register_forward_hook(self._note)
            for module in self.model.modules()
            if isinstance(module, watched)
        ]
        return self

    def __exit__(self, *_) -> None:
        for hook in self._hooks:
            hook.remove()

    def _note(self, module: torch.nn.Module, _, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) else output  # recurrent: (steps, last)
        values = getattr(values, "data", values).detach().float()  # of packed sequences
        if isinstance(module, self.rectifiers):
            highest = values.flatten(0, -2).amax(0)
            before = self.highest.get(module, highest)
            self.highest[module] = torch.maximum(before, highest)
            return
        near = values.abs() > 0.99
        if isinstance(module, torch.nn.Sigmoid):
            near |= values < 0.01
        self.n_saturated += int(near.sum())
        self.n_bounded += near.numel()

    def finding(self) -> CheckResult:
        """Sum up what was seen."""
        said, well = [], True
        if self.highest:
            dead = float(
                torch.cat([h.flatten() <= 0 for h in self.highest.values()]).float().mean()
            )
            said.append(f"{dead:.0%} of the rectified units never fire")
            well &= dead < 0.5
        if self.n_bounded:
            saturated = self.n_saturated / self.n_bounded
            said.append(f"{saturated:.0%} of the bounded values are saturated")
            well &= saturated < 0.5
        return CheckResult("units", well, "; ".join(said) or "no activation function to watch")


def _of_transformers(*names: str) -> list[type]:
    # An entry is a class, or a class with its arguments.
    found = [ACT2CLS[name] for name in ACT2CLS if any(name.startswith(n) for n in names)]
    return [entry[0] if isinstance(entry, tuple) else entry for entry in found]


# --- short trainings -----------------------------------------------------------------------------


class _Run:
    """Losses and steps as the Trainer would make them, on a model that is put back afterwards."""

    def __init__(self, trainer: Trainer, model: torch.nn.Module):
        self.trainer = trainer
        self.model = model

    @contextlib.contextmanager
    def undone(self) -> Iterator[None]:
        """Train without dropout or label smoothing, then put back all that has changed."""
        loss = self.trainer.compute_loss_func
        if hasattr(loss, "label_smoothing"):  # below its entropy no loss can fall
            self.trainer.compute_loss_func = plain = copy.copy(loss)
            plain.label_smoothing = 0.0
        before = copy.deepcopy(self.model.state_dict())
        modes = {module: module.training for module in self.model.modules()}
        self.model.train()
        for module in self.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.eval()
        try:
            yield
        finally:
            self.trainer.compute_loss_func = loss
            self.model.load_state_dict(before)
            self.model.zero_grad(set_to_none=True)
            for module, mode in modes.items():
                module.training = mode

    def loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of a batch, in the precision of the training."""
        with self.trainer.accelerator.autocast():
            return self.trainer.compute_loss(self.model, dict(batch))

    def uninformed_loss(self, batch: dict[str, torch.Tensor]) -> float:
        """Return the loss of logits of 0."""
        with torch.no_grad():
            outputs = self.model(**{k: v for k, v in batch.items() if k != "labels"})
        logits = torch.zeros_like(outputs["logits"])
        return float(self.trainer.compute_loss_func({"logits": logits}, batch["labels"]))

    def rate_test(
        self, batches: list[dict[str, torch.Tensor]], n_steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rates from tiny to far too high, and the loss before the step with each."""
        rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, n_steps)
        losses: list[float] = []
        for loss in self._steps(batches, rates, "trying learning rates"):
            if losses and not loss < 4 * min(losses):
                break
            losses.append(loss)
        return rates[: len(losses)], np.array(losses)

    def overfit(
        self, batch: dict[str, torch.Tensor], rate: float, n_steps: int, enough: float
    ) -> list[float]:
        """Return the losses of training on one batch over and over, until one is low enough."""
        losses: list[float] = []
        for loss in self._steps([batch], np.full(n_steps, rate), "learning one batch"):
            losses.append(loss)
            if loss < enough:
                break
        return losses

    def _steps(self, batches, rates: np.ndarray, what: str) -> Iterator[float]:
        """Yield the loss of each batch, then take a step with it."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
        steps = zip(progress(rates, what, unit="steps"), cycle(batches), strict=False)
        for rate, batch in steps:
            loss = self.loss(batch)
            yield loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = rate
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()


def _cut(trainer: Trainer, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keep some rows of a batch, and some tokens from the end that is not padded."""
    ids = batch["input_ids"]
    left = not batch["attention_mask"][:, 0].all()
    columns = slice(-TOKENS, None) if left else slice(0, TOKENS)
    kept = {}
    for name, value in batch.items():
        value = value[:ROWS]
        if value.shape == ids[:ROWS].shape and not value.is_floating_point():
            value = value[:, columns]
        kept[name] = value.to(trainer.args.device)
    return kept
