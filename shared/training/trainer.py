"""A Trainer that groups texts by length and keeps predictions in the order of the rows."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainingArguments
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput, TrainOutput

from shared.cli.arguments import flag
from shared.cli.errors import UserError
from shared.cli.launch import choose_precision
from shared.training.checkpoints import (
    check_same_model,
    check_same_rows,
    newest_complete_checkpoint,
    record_rows,
)
from shared.training.optimization import AdversarialWeights, Mixup

# --- arguments -----------------------------------------------------------------------------------


@dataclass
class EpochTrainingArguments(TrainingArguments):
    """Validate, log and save after each epoch, and keep the best.

    Raises
    ------
    UserError
        For a rate, a number of epochs, a batch size or a patience that is not above 0.
    """

    num_train_epochs: float = flag(8, "Passes over the training rows, at most (default: 8).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4; BERT-base and larger: 3e-5).")
    warmup_steps: float = flag(0.1, "Warm-up: steps, or below 1 a share of them (default: .1).")
    per_device_train_batch_size: int = flag(16, "Texts per step and device (default: 16).")
    per_device_eval_batch_size: int = flag(64, "Texts per evaluation batch (default: 64).")
    bf16: bool | None = flag(None, "Train in bfloat16 (default: where the hardware has it).")
    train_sampling_strategy: Literal["random", "sequential", "group_by_length"] = flag(
        "group_by_length", "Order of the training rows (default: group_by_length)."
    )
    eval_strategy: str = flag("epoch", "When to validate: no, steps, epoch (default: epoch).")
    save_strategy: str = flag("epoch", "When to save: no, steps, epoch, best (default: epoch).")
    save_total_limit: int | None = flag(1, "Checkpoints to keep beside the best (default: 1).")
    logging_strategy: str = flag("epoch", "When to log the loss: as for saving (default: epoch).")
    load_best_model_at_end: bool = flag(True, "Keep the best epoch, not the last (default: true).")
    metric_for_best_model: str | None = flag("micro_f1", "What is best (default: micro_f1).")
    restore_callback_states_from_checkpoint: bool = flag(True, "Resume patience, too.")
    ddp_find_unused_parameters: bool | None = flag(False, "For models that use only some weights.")

    def __post_init__(self):
        for name in ("learning_rate", "num_train_epochs", "per_device_train_batch_size"):
            if not getattr(self, name) > 0:
                raise UserError(f"--{name} {getattr(self, name)}: must be above 0")
        if getattr(self, "patience", 1) < 1:
            raise UserError(f"--patience {self.patience}: must be 1 or more")
        choose_precision(self)
        super().__post_init__()


# --- batches and Trainer -------------------------------------------------------------------------


class LengthGroupedBatches(Sampler):
    """Shuffle rows into batches that hold texts of similar length.

    Rows are shuffled, cut into pools of 50 batches, sorted by length within a pool, cut into
    batches, and the batches shuffled; the longest comes first, so that a batch too large for the
    memory fails at once. Padding falls to a few per cent of the tokens.

    Every row comes once per epoch. Batches differ by one row at most, where others end with the
    few rows left over, whose gradient would count as much as that of a full batch, or drop them
    (``--dataloader_drop_last`` has nothing to drop here).

    The batches depend on (seed, epoch) alone: a resumed run sees those of an uninterrupted one, and
    N processes share those of one process, each taking pieces of every batch (transformers' own
    samplers group by the batch of one device, repeat rows to fill the last batch of N processes,
    and draw from the global generator).

    Parameters
    ----------
    lengths : array of shape (rows,)
        Tokens of each row.
    batch_size : int
        Rows per optimiser step at most, over all devices and accumulation steps.
    seed : int
        Together with the epoch, seeds the order.
    epoch : callable
        Returns the number of the epoch that is about to start. Asked rather than told: the hooks
        that tell a sampler its epoch do not reach it in a resumed run on several processes.
    pieces : int
        Devices times accumulation steps: each batch comes as so many lists of rows, one after
        another. A batch with fewer rows than that repeats its first: the one exception to once.
    """

    pool = 50

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        epoch: Callable[[], int],
        pieces: int = 1,
    ):
        self.lengths = np.asarray(lengths)
        self.n_batches = -(-len(self.lengths) // batch_size)
        self.seed = seed
        self.epoch = epoch
        self.pieces = pieces

    def __len__(self) -> int:
        return self.n_batches * self.pieces

    def __iter__(self) -> Iterator[list[int]]:
        if not self.n_batches:
            return
        rng = np.random.default_rng((self.seed, self.epoch()))
        order = rng.permutation(len(self.lengths))
        sizes = [len(batch) for batch in self._cut(order)]
        pools = np.repeat(np.arange(self.n_batches) // self.pool, sizes)
        order = order[np.lexsort((-self.lengths[order], pools))]
        batches = self._cut(order)
        longest = int(np.argmax([self.lengths[batch[0]] for batch in batches]))
        others = rng.permutation([i for i in range(self.n_batches) if i != longest])
        for i in (longest, *others):
            for piece in np.array_split(batches[i], self.pieces):
                yield piece.tolist() or batches[i][:1].tolist()

    def _cut(self, order: np.ndarray) -> list[np.ndarray]:
        return np.array_split(order, self.n_batches)


class LengthGroupedTrainer(Trainer):
    """`transformers.Trainer` that wastes little on padding and keeps predictions in row order.

    Data sets need a column of token counts named ``args.length_column_name``. With
    ``--train_sampling_strategy group_by_length``, the stock Trainer also shuffles evaluation and
    prediction, so that row i of the output is not row i of the input; here only training is
    shuffled, and `predict` runs from the longest text to the shortest and puts the rows back.

    It prints nothing of itself: `shared.training.callbacks.ReadableProgress` does, where it is added.

    Parameters
    ----------
    passes : int
        How often a training batch goes through the model in each step, as one batch so many times
        as large: dropout differs between the passes. The loss function gets the logits of all
        passes, one after another, and the labels once (see `shared.training.losses.MultilabelLoss`).
    adversary : AdversarialWeights, optional
        Of `shared.training.optimization`: each step adds the loss at weights moved against the model.
    mixup : Mixup, optional
        Of `shared.training.optimization`: training batches are mixtures of two texts each.
    bf16_predictions : bool
        Compute what `predict` returns in bfloat16, two to four times as fast where the hardware has
        it, for scores that are not compared with those of another program.
    """

    def __init__(
        self,
        *args,
        passes: int = 1,
        adversary: AdversarialWeights | None = None,
        mixup: Mixup | None = None,
        bf16_predictions: bool = False,
        **kwargs,
    ):
        if smoothing := getattr(kwargs.get("args"), "label_smoothing_factor", 0.0):
            # The Trainer's own is for the losses of models; here the loss function smooths, or not.
            loss = kwargs.get("compute_loss_func")
            if loss and getattr(loss, "label_smoothing", 0.0) != smoothing:
                raise UserError("--label_smoothing_factor: this recipe's loss smooths no labels")
            kwargs["args"] = copy.copy(kwargs["args"])
            kwargs["args"].label_smoothing_factor = 0.0
        super().__init__(*args, **kwargs)
        self.passes = passes
        self.adversary = adversary
        self.mixup = mixup
        self.bf16_predictions = bf16_predictions
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs) -> TrainOutput:
        """Train; go on from a checkpoint only if it is one of the same model, labels and rows."""
        if isinstance(resume_from_checkpoint, str):
            check_same_model(resume_from_checkpoint, self.model.config)
            check_same_rows(resume_from_checkpoint, self._lengths(self.train_dataset))
        with self.fast_attention():
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        # A pickle that nothing reads: who loads the folder should not have to trust it.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def _save_checkpoint(self, *args, **kwargs):
        super()._save_checkpoint(*args, **kwargs)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            record_rows(folder, self._lengths(self.train_dataset))

    @contextlib.contextmanager
    def fast_attention(self) -> Iterator[None]:
        """Train in bfloat16 on CPUs without the fused attention kernel.

        Its backward pass takes there two to five times as long as that of plain matrix products: on
        pairs of sentences (48 tokens) a whole training step takes half the time without it.
        Prediction, in single precision, is faster with it, and most on long texts.
        """
        model = self.accelerator.unwrap_model(self.model)
        fused = getattr(model.config, "_attn_implementation", None) == "sdpa"
        if not (fused and self.args.bf16 and self.args.device.type == "cpu"):
            yield
            return
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            model.set_attn_implementation("sdpa")

    def get_train_dataloader(self) -> DataLoader:
        """Train on batches of similar length, the same for any number of processes."""
        args = self.args
        if args.train_sampling_strategy != "group_by_length":
            return super().get_train_dataloader()
        pieces = args.gradient_accumulation_steps * args.world_size
        batches = LengthGroupedBatches(
            self._lengths(self.train_dataset),
            self._train_batch_size * pieces,  # smaller where auto_find_batch_size found it so
            args.seed if args.data_seed is None else args.data_seed,
            lambda: int(self.state.epoch or 0),
            pieces,
        )
        loader = DataLoader(
            self._remove_unused_columns(self.train_dataset, description="training"),
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
        )
        # Each process takes every N-th piece; there is nothing to even out.
        config = self.accelerator.dataloader_config
        even, config.even_batches = config.even_batches, False
        try:
            return self.accelerator.prepare(loader)
        finally:
            config.even_batches = even

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)

    def get_eval_dataloader(self, eval_dataset=None):
        """Evaluate from the longest row to the shortest; no metric depends on the order."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return super().get_eval_dataloader(dataset.select(self._longest_first(dataset)))

    def evaluate(self, *args, metric_key_prefix="eval", **kwargs) -> dict[str, float]:
        """Evaluate, and refuse a `metric_for_best_model` that there is not."""
        metrics = super().evaluate(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        wanted = self.args.metric_for_best_model
        names = [name.removeprefix("eval_") for name in metrics]
        if metric_key_prefix == "eval" and wanted and wanted.removeprefix("eval_") not in names:
            raise UserError(f"--metric_for_best_model {wanted}: there are {', '.join(names)}")
        return metrics

    def evaluation_loop(self, *args, metric_key_prefix="eval", **kwargs) -> EvalLoopOutput:
        """Take the loss over all rows at once.

        The stock mean over batches weighs rows unequally where the last batch of N processes is
        filled with repeated rows.
        """
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        # Without a metric function the stock loop keeps no predictions to take it over.
        known = output.predictions is not None and output.label_ids is not None
        if known and self.compute_loss_func is not None:
            logits, labels = map(torch.as_tensor, (output.predictions, output.label_ids))
            loss = self.compute_loss_func({"logits": logits}, labels)
            output.metrics[f"{metric_key_prefix}_loss"] = float(loss)
        return output

    def predict(self, test_dataset, *args, **kwargs) -> PredictionOutput:
        """Predict from the longest row to the shortest; outputs are in the order of the rows.

        In the precision of the weights, whatever `bf16` or `fp16` did for the training: scores then
        equal those of the saved model in any other program. Only `bf16_predictions` changes that.
        """
        if not self.accelerator._models:  # without a training, the loop below would wrap it
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        order = self._longest_first(test_dataset)
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.bf16_predictions):
            output = super().predict(test_dataset.select(order), *args, **kwargs)
        rows = np.argsort(order)
        labels = None if output.label_ids is None else output.label_ids[rows]
        return PredictionOutput(output.predictions[rows], labels, output.metrics)

    def _longest_first(self, dataset) -> np.ndarray:
        return np.argsort(-self._lengths(dataset), kind="stable")

    def _lengths(self, dataset) -> np.ndarray:
        return np.asarray(dataset.with_format("numpy")[self.args.length_column_name][:])

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Stop on a non-finite loss before the optimiser uses its gradient.

        The log would show a harmless 0.0 for such a loss (``logging_nan_inf_filter``).
        """
        loss = super().training_step(model, self._train_inputs(inputs), num_items_in_batch)
        # Gradients are shared between processes, and so is the news that they are spoilt.
        self._stop_unless_finite("loss", self.accelerator.gather(loss))
        if self.adversary is not None:
            with self.adversary.against(self.accelerator.unwrap_model(model)):
                super().training_step(model, self._train_inputs(inputs), num_items_in_batch)
        return loss

    def _train_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Mix the texts of a batch, and repeat it for each pass, where that is asked for."""
        if self.mixup is not None:
            inputs = self._prepare_inputs(inputs)
            # The same mixture whenever the same rows meet at the same step.
            seed = (self.args.seed, self.state.global_step, int(inputs["input_ids"].sum()))
            inputs = self.mixup(self.accelerator.unwrap_model(self.model), inputs, seed)
        if self.passes > 1:
            inputs = {
                name: value if name in self.label_names else torch.cat([value] * self.passes)
                for name, value in inputs.items()
            }
        return dict(inputs)

    def _get_grad_norm(self, model, grad_norm=None):
        # A finite loss can have such a gradient; fp16 scales its own down.
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None and norm is not None:
            self._stop_unless_finite("gradient", torch.as_tensor(norm))
        return norm

    def _stop_unless_finite(self, name: str, value: torch.Tensor) -> None:
        if not torch.isfinite(value).all():
            kept = newest_complete_checkpoint(self.args.output_dir)
            raise UserError(
                f"the {name} is not finite at step {self.state.global_step + 1}; lower "
                "--learning_rate or check the data; "
                + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was saved yet")
            )
