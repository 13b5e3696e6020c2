"""Adversarial training: a generator and a discriminator that learn from each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, relu
from transformers import Trainer, TrainerCallback

from shared.cli.errors import UserError
from shared.plots.images import epoch_grids, write_image_grid
from shared.training.callbacks import ReadableProgress
from shared.training.trainer import LengthGroupedTrainer

if TYPE_CHECKING:
    from shared.models.gan_networks import GanModel

WON = 0.98  # accuracy of a discriminator that tells almost all images apart
AVERAGE_STEPS = 10  # in the first of these the moving average follows faster
_SUMS = ("generator_loss", "discriminator_loss", "discriminator_accuracy")


class AdversarialLoss:
    """The losses of discriminator and generator, from the logits of the discriminator.

    Parameters
    ----------
    name : {"bce", "hinge", "least_squares"}
        Cross-entropy, with the non-saturating loss of the generator (Goodfellow et al. 2014);
        hinge (Lim and Ye 2017); squared differences from 1 and 0 (Mao et al. 2017).
    label_smoothing : float, default 0
        The target of real images is 1 minus this, of generated ones still 0: one-sided smoothing
        (Salimans et al. 2016). Not for hinge.
    """

    def __init__(self, name: str = "bce", *, label_smoothing: float = 0.0):
        self.name, self.label_smoothing = name, label_smoothing

    def of_discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
        """Return the mean loss over real and generated images, whose logits are given, (rows,)."""
        if self.name == "hinge":
            return (relu(1 - real).mean() + relu(1 + fake).mean()) / 2
        return (self._distance(real, 1 - self.label_smoothing) + self._distance(fake, 0.0)) / 2

    def of_generator(self, fake: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of generated images, whose logits are given, (rows,)."""
        return -fake.mean() if self.name == "hinge" else self._distance(fake, 1.0)

    def threshold(self) -> float:
        """Return the logit above which an image counts as real."""
        return 0.5 if self.name == "least_squares" else 0.0

    def uninformed(self) -> float:
        """Return the discriminator's loss if it says the same of all images, unsmoothed."""
        return {"bce": float(np.log(2)), "hinge": 1.0, "least_squares": 0.25}[self.name]

    def _distance(self, logits: torch.Tensor, target: float) -> torch.Tensor:
        targets = torch.full_like(logits, target)
        if self.name == "least_squares":
            return ((logits - targets) ** 2).mean()
        return binary_cross_entropy_with_logits(logits, targets)


class AdversarialOptimizer(torch.optim.Optimizer):
    """Two optimisers as one, so that schedules and checkpoints hold both.

    `step` is that of the generator, which ends a training step; the discriminator's comes before
    it, by ``discriminator.step()``. The parameter groups are those of both.

    Parameters
    ----------
    generator, discriminator : torch.optim.Optimizer
    """

    def __init__(self, generator: torch.optim.Optimizer, discriminator: torch.optim.Optimizer):
        self.generator, self.discriminator = generator, discriminator
        super().__init__([*generator.param_groups, *discriminator.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        """Take a step of the generator."""
        return self.generator.step(closure)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` has returned."""
        self.generator.load_state_dict(state_dict["generator"])
        self.discriminator.load_state_dict(state_dict["discriminator"])
        # Each has made new groups, whose learning rates a schedule is to change.
        self.param_groups = [*self.generator.param_groups, *self.discriminator.param_groups]


class AdversarialTrainer(LengthGroupedTrainer):
    """A Trainer whose steps train a discriminator, then the generator against it.

    A step draws latent vectors from the seed and the number of the step, so that a resumed run
    draws the same ones. The log has both losses and the accuracy of the discriminator on the
    images of a step, before its own step. On several processes each step takes the mean of their
    gradients; batch normalisation sees the images of its own process.

    Parameters
    ----------
    model : GanModel
    compute_loss_func : AdversarialLoss
    discriminator_learning_rate : float
    ema : float
        Decay of the moving average of the generator; 0: there is none.
    measure : callable
        Takes the model; returns its metrics, for `evaluate`.
    **kwargs
        For `LengthGroupedTrainer`.

    Raises
    ------
    UserError
        For ``--gradient_accumulation_steps``: both networks take a step for each batch.
    """

    model: GanModel
    compute_loss_func: AdversarialLoss  # type: ignore[assignment]

    def __init__(
        self,
        *,
        discriminator_learning_rate: float,
        ema: float = 0.0,
        measure: Callable[[GanModel], dict[str, float]],
        **kwargs: Any,
    ):
        if kwargs["args"].gradient_accumulation_steps > 1:
            raise UserError(
                "--gradient_accumulation_steps: each batch is a step of both networks; raise "
                "--per_device_train_batch_size"
            )
        super().__init__(**kwargs)
        self.discriminator_learning_rate, self.ema = discriminator_learning_rate, ema
        self.measure = measure
        self._sums = torch.zeros(len(_SUMS) + 1, dtype=torch.float64)
        self.add_callback(_MoveAverage(self))

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimisers of both networks, of the type of ``--optim``."""
        if self.optimizer is None:  # type: ignore[has-type]
            kind, settings = Trainer.get_optimizer_cls_and_kwargs(self.args, self.model)
            settings = settings | {"weight_decay": self.args.weight_decay}
            rates = {"lr": self.discriminator_learning_rate}
            self.optimizer = AdversarialOptimizer(
                kind(self.model.generator.parameters(), **settings),
                kind(self.model.discriminator.parameters(), **settings | rates),
            )
        return self.optimizer

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; a resumed training begins with the sums of its log."""
        self._sums.zero_()
        return super().train(*args, **kwargs)

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        """Take the discriminator's step, and compute the gradient of the generator.

        Returns
        -------
        tensor
            The sum of both losses.
        """
        gan = self.accelerator.unwrap_model(model)
        gan.train()
        loss = self.compute_loss_func
        images = self._real(self._prepare_inputs(inputs))
        with self.compute_loss_context_manager():
            # Batch normalisation needs two rows, which the last batch of an epoch may not have.
            generated = gan.generator(self._latents(max(len(images), 2)))
            logits = gan.discriminator(images), gan.discriminator(generated.detach())
            discriminator_loss = loss.of_discriminator(*logits)
        self._stop_unless_finite("loss", self.accelerator.gather(discriminator_loss.detach()))
        self.accelerator.backward(discriminator_loss)
        self._share_gradients(gan.discriminator)
        _inner(self.optimizer).discriminator.step()

        gan.discriminator.requires_grad_(False)  # its gradient is not needed below
        try:
            with self.compute_loss_context_manager():
                generator_loss = loss.of_generator(gan.discriminator(generated))
            self._stop_unless_finite("loss", self.accelerator.gather(generator_loss.detach()))
            self.accelerator.backward(generator_loss)
        finally:
            gan.discriminator.requires_grad_(True)
        self._share_gradients(gan.generator)
        gan.discriminator.zero_grad()

        threshold = loss.threshold()
        correct = (logits[0] > threshold).double().mean() + (logits[1] < threshold).double().mean()
        values = torch.stack(
            [generator_loss.detach().double(), discriminator_loss.detach().double(), correct / 2]
        )
        self._sums += torch.cat([values.cpu(), torch.ones(1, dtype=torch.float64)])
        return generator_loss.detach() + discriminator_loss.detach()

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *_: Any, **__: Any) -> Any:
        """Return the loss of the discriminator, for the health check."""
        images = self._real(inputs)
        with torch.no_grad():
            generated = model.generator(self._latents(len(images)))
        logits = model.discriminator(images), model.discriminator(generated)
        return self.compute_loss_func.of_discriminator(*logits)

    def _real(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return inputs["pixel_values"][:, : self.model.config.channels].contiguous()

    def _latents(self, n: int) -> torch.Tensor:
        seed = (self.args.seed, self.state.global_step, self.args.process_index)
        return self.model.draw_latents(n, int(np.random.default_rng(seed).integers(2**62)))

    def _share_gradients(self, network: torch.nn.Module) -> None:
        """Give all processes the mean of their gradients."""
        if self.args.world_size > 1:
            for parameter in network.parameters():
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add both losses and the accuracy of the discriminator since the last entry."""
        if "loss" in logs:
            *sums, n_steps = self.accelerator.reduce(self._sums.to(self.args.device)).tolist()
            if n_steps:
                logs |= {name: value / n_steps for name, value in zip(_SUMS, sums, strict=True)}
            self._sums.zero_()
        super().log(logs, *args, **kwargs)

    def own_progress(self) -> dict[str, float]:
        """Return the sums since the last log entry, for a checkpoint."""
        return {f"sum_{i}": value for i, value in enumerate(self._sums.tolist())}

    def restore_own_progress(self, progress: Mapping[str, float]) -> None:
        """Set the sums that a checkpoint holds."""
        for i in range(len(self._sums)):
            self._sums[i] = progress.get(f"sum_{i}", 0.0)

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Return the metrics of generated images."""
        metrics = {f"{metric_key_prefix}_{k}": v for k, v in self.measure(self.model).items()}
        self._check_best_metric(metrics)
        self.log(dict(metrics))
        control = self.control  # type: ignore[has-type]
        self.control = self.callback_handler.on_evaluate(self.args, self.state, control, metrics)
        return metrics


def _inner(optimizer: Any) -> AdversarialOptimizer:
    """Return the optimiser that accelerate has wrapped."""
    return getattr(optimizer, "optimizer", optimizer)


class _MoveAverage(TrainerCallback):
    """Update the moving average of the generator after each step."""

    def __init__(self, trainer: AdversarialTrainer) -> None:
        self.trainer = trainer

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self.trainer.ema:
            step = state.global_step + 1
            # The first weights are forgotten at once.
            self.trainer.model.update_average(min(self.trainer.ema, step / (step + AVERAGE_STEPS)))


class AdversarialProgress(ReadableProgress):
    """Print both losses, the discriminator's accuracy and the metrics of an evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, float] = {}

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Keep the losses; print them if there is no evaluation."""
        if logs and "generator_loss" in logs:
            self.logged = {name.replace("_", " "): logs[name] for name in _SUMS}
            if args.eval_strategy == "no":
                self._write(state, self.logged)

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        """Print the line of an evaluation."""
        shown = {k.removeprefix("eval_").replace("_", " "): v for k, v in metrics.items()}
        self._write(state, self.logged | shown)


class SampleGrids(TrainerCallback):
    """After each epoch, write a grid of the images of the same latent vectors.

    Parameters
    ----------
    folder : Path
        The grids are ``epoch_001.png``, ...
    n : int
        Images of a grid.
    seed : int
    """

    def __init__(self, folder: Path, n: int, seed: int) -> None:
        self.folder, self.n, self.seed = folder, n, seed

    def on_train_begin(self, args, state, control, **kwargs):
        """Delete the grids that another run left of epochs to come."""
        if state.is_world_process_zero:
            for epoch, path in epoch_grids(self.folder).items():
                if epoch > (state.epoch or 0):
                    path.unlink()

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        """Write the grid of the epoch."""
        if state.is_world_process_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            images = model.sample(self.n, self.seed).numpy()
            write_image_grid(images, self.folder / f"epoch_{round(state.epoch):03}.png")


def judge_discriminator(log_history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return what shows that the discriminator has won, and what to do; None: it has not.

    The last quarter of the log counts, as of `AdversarialTrainer`.
    """
    accuracies = [e["discriminator_accuracy"] for e in log_history if "discriminator_loss" in e]
    if not accuracies:
        return None
    last = float(np.mean(accuracies[-max(1, len(accuracies) // 4) :]))
    if last > WON:
        return (
            f"the discriminator tells {last:.1%} of the images apart, so that the generator has "
            "almost no gradient; lower --discriminator_learning_rate, or set "
            "--label_smoothing_factor .1 or --dropout .3"
        )
    return None
