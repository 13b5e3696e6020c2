"""Health check of data, model and learning rate before a training, in under a minute."""

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
from shared.models.tokenizers import (
    UNKNOWN_LIMIT,
    describe_unknown_tokens,
    unknown_token_share,
)
from shared.plots.training import plot_rate_test

# Small numbers, which are enough for the checks: a small encoder needs a few seconds for them.
ROWS, TOKENS, BATCHES, STEPS, SECONDS = 16, 64, 8, 50, 15.0
LEARNED = 0.1  # share of the loss of uniform predictions below which a batch counts as learned
RARE = 5  # a label with fewer training rows is reported
LOWEST_RATE, HIGHEST_RATE = 1e-6, 1.0


class CheckResult(NamedTuple):
    """Result of one check: its name, whether it passed, and one sentence with the figures."""

    name: str
    passed: bool
    text: str


def check_health(
    trainer: Trainer,
    max_length: int | None,
    *,
    lengths: np.ndarray | None = None,
    label_counts: Mapping[str, int] | None = None,
    uninformed: float | None = None,
) -> list[CheckResult]:
    """Check data, model and learning rate of a training before it starts.

    The checks are those that Karpathy ("A Recipe for Training Neural Networks", 2019) makes by
    hand, and the learning-rate range test of Smith (2017, "Cyclical Learning Rates for Training
    Neural Networks", section 3.3). They use the first 64 tokens of batches of up to 16 training
    rows. The number of steps is set so that a check takes at most about 15 seconds, but is at least
    15. The weights are restored afterwards.

    Parameters
    ----------
    trainer : Trainer
        Ready to train. Rows of texts must have their ``length`` in tokens; of a model that reads
        something else no length is checked. Without a tokenizer
        (``processing_class``) unknown tokens are not counted.
    max_length : int, optional
        Number of tokens of a text that the model reads. None: all.
    lengths : int array of shape (texts,), optional
        Tokens of each text, at most `max_length`. None: those of the training rows.
    label_counts : mapping of label to its number of training rows, optional
    uninformed : float, optional
        Loss of uniform predictions. None: the loss of logits of 0. This is ln(classes) if each text
        has one class, and ln 2 per label if texts can have several, times the weights of the loss.
        A loss for which 0 is no uniform prediction has a method ``uninformed_logits``.

    Returns
    -------
    list of CheckResult
        They are printed, too. The curve of the range test is ``plots/learning_rate.png`` in the
        output folder.
    """
    args = trainer.args
    model = trainer.accelerator.unwrap_model(trainer.model).to(args.device)
    batches = [
        _shorten(trainer, batch) for batch in islice(trainer.get_train_dataloader(), BATCHES)
    ]
    results = [parameters(model)]
    if (tokenizer := trainer.processing_class) is not None:
        results.insert(0, unknown_tokens(unknown_token_share(trainer.train_dataset, tokenizer)))
    if "input_ids" in batches[0]:  # texts
        if lengths is None:
            lengths = trainer.train_dataset.with_format("numpy")[args.length_column_name][:]
        results.insert(0, truncated_texts(lengths, max_length))
    if label_counts is not None:
        results.insert(0, rare_labels(label_counts))
    trial = _TrialTraining(trainer, model)

    # One pass without training: the initial loss, the activations, and the time of a step.
    with trial.restored_afterwards(), ActivationMonitor(model) as monitor, torch.no_grad():
        started = perf_counter()
        initial = float(np.mean([trial.loss(batch).item() for batch in batches]))
        # Forward and backward together take about three times as long as forward alone.
        step_seconds = 3 * (perf_counter() - started) / len(batches)
    if uninformed is None:
        uninformed = float(np.mean([trial.uninformed_loss(batch) for batch in batches]))
    results += [initial_loss(initial, uninformed), monitor.result()]
    if not math.isfinite(initial):  # training from such a loss shows nothing
        if args.process_index == 0:
            print(f"\nHealth\n{describe(results)}")
        return results

    with trial.restored_afterwards():
        n_steps = int(np.clip(SECONDS / step_seconds, 15, STEPS))
        rates, losses = trial.rate_test(batches, n_steps)
    suggested = suggest_rate(rates, losses)

    with trial.restored_afterwards():
        # A few rows are enough to see whether the weights can fit the labels. A quarter of the rows
        # takes about a quarter of the time, so there can be four times as many steps.
        small_batch = {name: value[: ROWS // 4] for name, value in batches[0].items()}
        n_steps = int(np.clip(4 * SECONDS / step_seconds, 15, STEPS))
        target = LEARNED * uninformed
        # `suggested` is a tenth of the highest usable rate; three times as much is still below it.
        batch_losses = trial.overfit(small_batch, 3 * suggested, n_steps, target)
        results.append(one_batch(batch_losses, target))
    results.append(learning_rate(args.learning_rate, suggested))

    if args.process_index == 0:
        plot = Path(args.output_dir) / "plots" / "learning_rate.png"
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot_rate_test(rates, losses, plot, used=args.learning_rate, suggested=suggested)
        print(f"\nHealth\n{describe(results)}\n\nThe curve of the range test is in {plot}.")
    return results


def describe(results: Sequence[CheckResult]) -> str:
    """Return one line per result: ``ok`` if the check passed, ``LOOK`` if not."""
    return "\n".join(
        f"  {'ok  ' if result.passed else 'LOOK'}  {result.name:<14}{result.text}"
        for result in results
    )


# --- the checks ----------------------------------------------------------------------------------


def rare_labels(counts: Mapping[str, int]) -> CheckResult:
    """Check that each label has at least five training rows."""
    rare = [name for name, count in counts.items() if count < RARE]
    text = f"the rarest of {len(counts)} labels has {min(counts.values()):,} training rows"
    if rare:
        names = ", ".join(rare[:5]) + (", ..." if len(rare) > 5 else "")
        text = f"{len(rare)} of {len(counts)} labels have fewer than {RARE} training rows: {names}"
    return CheckResult("labels", not rare, text)


def truncated_texts(lengths: np.ndarray, max_length: int | None) -> CheckResult:
    """Check that at most half of the texts reach the length at which they are truncated."""
    if max_length is None:
        return CheckResult("texts", True, "no text is truncated")
    share = float(np.mean(np.asarray(lengths) >= max_length))
    return CheckResult("texts", share <= 0.5, f"{share:.0%} reach the limit of {max_length} tokens")


def unknown_tokens(share: float) -> CheckResult:
    """Check that at most 3 % of the tokens are unknown to the tokenizer."""
    return CheckResult("tokens", share <= UNKNOWN_LIMIT, describe_unknown_tokens(share))


def parameters(model: torch.nn.Module) -> CheckResult:
    """Count the parameters of each part, and check that some of them train."""
    parts = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    n_all = sum(p.numel() for p in model.parameters())
    listed = ", ".join(f"{name} {count:,}" for name, count in parts.items() if count)
    return CheckResult("parameters", n_trained > 0, f"{n_trained:,} of {n_all:,} train ({listed})")


def initial_loss(initial: float, uninformed: float) -> CheckResult:
    """Compare the initial loss with the loss of uniform predictions.

    A new head starts near it, and a fitted head below it. If the loss is far above it,
    something is probably wrong in the model or in the labels.
    """
    passed = math.isfinite(initial) and initial < 1.3 * uninformed
    text = f"{initial:.3f}; uniform predictions have a loss of {uninformed:.3f}"
    return CheckResult("initial loss", passed, text)


def one_batch(losses: Sequence[float], target: float) -> CheckResult:
    """Check that the model can overfit a few rows, down to a loss of `target`."""
    text = f"loss from {losses[0]:.3f} to {losses[-1]:.4f} in {len(losses)} steps on a few rows"
    return CheckResult("overfitting", losses[-1] < target, text)


def suggest_rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return a tenth of the highest rate at which the loss is still close to its minimum.

    Parameters
    ----------
    rates : array of shape (steps,)
        In ascending order.
    losses : array of shape (steps,)
        Loss at each rate. They are smoothed over about a tenth of the steps, because each is the
        loss of another batch.
    """
    window = np.ones(2 * (len(losses) // 20) + 1)
    # A moving average. At the ends fewer values are in the window, so divide by their number.
    smooth = np.convolve(losses, window, "same") / np.convolve(np.ones(len(losses)), window, "same")
    return float(rates[np.flatnonzero(smooth <= 1.02 * smooth.min())[-1]] / 10)


def learning_rate(used: float, suggested: float) -> CheckResult:
    """Compare the learning rate with the suggested one, which is right within a factor of ten."""
    text = f"{used:.0e}; the range test suggests about {suggested:.0e}"
    return CheckResult("learning rate", suggested / 10 <= used <= suggested * 10, text)


class ActivationMonitor:
    """Count dead and saturated units of the activation functions while batches pass a model.

    A unit of a rectifier (ReLU, GELU, SiLU) is dead if its output is above 0 for no token. A value
    of tanh, sigmoid or a recurrent state is saturated if it is within 0.01 of a limit.

    A context manager: the model is watched inside the ``with`` block only.
    """

    RECTIFIERS = (torch.nn.ReLU, torch.nn.GELU, torch.nn.SiLU)
    BOUNDED = (torch.nn.Tanh, torch.nn.Sigmoid, torch.nn.RNNBase)

    def __init__(self, model: torch.nn.Module):
        self.model = model
        self.rectifiers = (
            *self.RECTIFIERS,
            *_transformers_classes("relu", "gelu", "silu", "swish"),
        )
        self.highest: dict[torch.nn.Module, torch.Tensor] = {}  # of each unit, over all tokens
        self.n_saturated = self.n_bounded = 0

    def __enter__(self) -> ActivationMonitor:
        watched = (*self.rectifiers, *self.BOUNDED)
        self._hooks = [
            module.register_forward_hook(self._record)
            for module in self.model.modules()
            if isinstance(module, watched)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _record(self, module: torch.nn.Module, _: Any, output: Any) -> None:
        # Recurrent networks return (states of all steps, last state); the first may be a
        # PackedSequence, whose values are in `data`.
        values = output[0] if isinstance(output, tuple) else output
        values = (values if torch.is_tensor(values) else values.data).detach().float()
        if values.ndim == 4:  # of an image, whose units are channels: (rows, units, height, width)
            values = values.movedim(1, -1)
        if isinstance(module, self.rectifiers):
            highest = values.flatten(0, -2).amax(0)  # (units,)
            before = self.highest.get(module, highest)
            self.highest[module] = torch.maximum(before, highest)
            return
        near_limit = values.abs() > 0.99
        if isinstance(module, torch.nn.Sigmoid):  # its lower limit is 0, not -1
            near_limit |= values < 0.01
        self.n_saturated += int(near_limit.sum())
        self.n_bounded += near_limit.numel()

    @property
    def dead_share(self) -> float | None:
        """Share of the units of rectifiers that are dead; None without rectifiers."""
        if not self.highest:
            return None
        return float(torch.cat([h.flatten() <= 0 for h in self.highest.values()]).float().mean())

    def result(self) -> CheckResult:
        """Check that fewer than half of the units are dead and fewer than half saturated."""
        texts, passed = [], True
        if (dead := self.dead_share) is not None:
            texts.append(f"{dead:.0%} of the ReLU, GELU and SiLU units are dead (never above 0)")
            passed &= dead < 0.5
        if self.n_bounded:
            saturated = self.n_saturated / self.n_bounded
            texts.append(f"{saturated:.0%} of the tanh, sigmoid and recurrent values are saturated")
            passed &= saturated < 0.5
        return CheckResult(
            "activations", passed, "; ".join(texts) or "no activation function found"
        )


def _transformers_classes(*prefixes: str) -> list[type]:
    """Return the activation classes of transformers whose names begin with one of the prefixes."""
    entries = [ACT2CLS[name] for name in ACT2CLS if name.startswith(prefixes)]
    # An entry is a class, or a pair of a class and its arguments.
    return [entry[0] if isinstance(entry, tuple) else entry for entry in entries]


# --- short trainings -----------------------------------------------------------------------------


class _TrialTraining:
    """A few losses and steps as the Trainer would compute them; the model is restored after them.

    Parameters
    ----------
    trainer : Trainer
    model : torch.nn.Module
        The model of the trainer, unwrapped.
    """

    def __init__(self, trainer: Trainer, model: torch.nn.Module):
        self.trainer = trainer
        self.model = model

    @contextlib.contextmanager
    def restored_afterwards(self) -> Iterator[None]:
        """Turn dropout and label smoothing off; afterwards restore weights, modes and loss."""
        loss = self.trainer.compute_loss_func
        if hasattr(loss, "label_smoothing"):
            # With smoothed labels the loss cannot fall below their entropy, so a batch could not
            # count as learned. The copy keeps the loss of the trainer unchanged.
            self.trainer.compute_loss_func = unsmoothed = copy.copy(loss)
            unsmoothed.label_smoothing = 0.0
        before = copy.deepcopy(self.model.state_dict())
        modes = {module: module.training for module in self.model.modules()}
        # The modes of a training, but without the randomness of dropout.
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
        """Return the loss of a batch with logits of 0, or with the loss's `uninformed_logits`."""
        loss = self.trainer.compute_loss_func
        with torch.no_grad():
            outputs = self.model(**{k: v for k, v in batch.items() if k != "labels"})
        logits = getattr(loss, "uninformed_logits", torch.zeros_like)(outputs["logits"])
        return float(loss({"logits": logits}, batch["labels"]))

    def rate_test(
        self, batches: list[dict[str, torch.Tensor]], n_steps: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return learning rates from very low to far too high, and the loss before each step.

        The test ends early once the loss is four times its minimum. Both arrays have the shape
        (steps,).
        """
        rates = np.geomspace(LOWEST_RATE, HIGHEST_RATE, n_steps)
        losses: list[float] = []
        for loss in self._steps(batches, rates, "trying learning rates"):
            if losses and not loss < 4 * min(losses):  # "not <" also stops at NaN
                break
            losses.append(loss)
        return rates[: len(losses)], np.array(losses)

    def overfit(
        self, batch: dict[str, torch.Tensor], rate: float, n_steps: int, target: float
    ) -> list[float]:
        """Train on one batch again and again; return the losses, the last below `target` if any."""
        losses: list[float] = []
        for loss in self._steps([batch], np.full(n_steps, rate), "learning one batch"):
            losses.append(loss)
            if loss < target:
                break
        return losses

    def _steps(
        self, batches: list[dict[str, torch.Tensor]], rates: np.ndarray, description: str
    ) -> Iterator[float]:
        """Yield the loss of each batch, and then take a step with it unless the caller stops."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
        steps = zip(progress(rates, description, unit="steps"), cycle(batches), strict=False)
        for rate, batch in steps:
            loss = self.loss(batch)
            yield loss.item()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = rate
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()


def _shorten(trainer: Trainer, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the first rows of a batch, and their tokens at the end that is not padded."""
    if "input_ids" not in batch:  # not of texts
        return {name: value[:ROWS].to(trainer.args.device) for name, value in batch.items()}
    ids = batch["input_ids"]
    # Without a mask, padding is on the right.
    padded_left = "attention_mask" in batch and not batch["attention_mask"][:, 0].all()
    columns = slice(-TOKENS, None) if padded_left else slice(0, TOKENS)
    short = {}
    for name, value in batch.items():
        value = value[:ROWS]
        # Arrays of the shape of the ids have a column per token. Float labels (rows, labels) can
        # have the same shape by chance.
        if value.shape == ids[:ROWS].shape and not value.is_floating_point():
            value = value[:, columns]
        short[name] = value.to(trainer.args.device)
    return short
