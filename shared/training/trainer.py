"""The Trainer of all recipes: its changes to `transformers.Trainer`.

`LengthGroupedTrainer` is in the order of a run: set-up, training batches, training steps,
evaluation and prediction, checkpoints.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler, SequentialSampler
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
)
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, PredictionOutput, TrainOutput

from shared.cli.errors import UserError
from shared.models.tokenizers import forget_padding
from shared.training.batches import LengthGroupedBatches
from shared.training.checkpoints import (
    check_same_model,
    check_same_rows,
    newest_complete_checkpoint,
    read_end,
    read_progress,
    record_end,
    record_progress,
    record_rows,
    rows_digest,
    was_stopped_early,
)
from shared.training.optimization import AdversarialWeights, Mixup, warm_up_at_constant_rate
from shared.training.prediction_batches import prediction_batches

if TYPE_CHECKING:
    from datasets import Dataset

# Tokens of a batch of `predict` on a CPU, and how many of them may be padding, for each thread.
# With 32 rows instead, issues (200 tokens) take 15 % longer, and comments (15 tokens) 5 %.
CPU_BATCH = 1024, 32


class NotFiniteError(UserError):
    """A training diverged: the loss, a gradient or an output is infinite or not a number.

    Parameters
    ----------
    problem, advice : str
        What is not finite and since when, and what to do.
    """

    def __init__(self, problem: str, advice: str):
        super().__init__(f"{problem}; {advice}")
        self.problem = problem


class LengthGroupedTrainer(Trainer):
    """`transformers.Trainer` with little padding and with predictions in the order of the rows.

    Data sets need a column with the number of tokens, named ``args.length_column_name``. With
    ``--train_sampling_strategy group_by_length``, the Trainer of transformers also shuffles
    evaluation and prediction, so that row i of the output is not row i of the input. Here only
    training is shuffled. `predict` runs from the longest text to the shortest and then restores the
    order of the rows. The column ``weight`` of a row is a factor of its loss, for loss functions
    and collators that know it (`shared.training.collators.SoftLabelCollator`).

    It prints nothing; add `shared.training.callbacks.ReadableProgress` for progress lines.

    Parameters
    ----------
    passes : int
        How often each training batch passes through the model in a step. The copies form one larger
        batch, and dropout differs between them. The loss function gets the logits of all passes,
        one after another, and the labels once (see `shared.training.losses.MultilabelLoss`).
    adversary : AdversarialWeights, optional
        Each step adds the loss at weights that are moved to raise it; see
        `shared.training.optimization`.
    mixup : Mixup, optional
        Training batches are mixtures of two texts each; see `shared.training.optimization`.
    bf16_predictions : bool
        Compute the outputs of `predict` in bfloat16. This takes a half to a quarter of the time on
        hardware with native bfloat16. Use it only for scores that are not compared with those of
        another program.

    Attributes
    ----------
    schedule_steps : int, optional
        Steps that the learning rate schedule is made for, if the training stops before its end.

    Raises
    ------
    UserError
        For ``--label_smoothing_factor`` with a loss function that does not smooth labels by this
        factor, and for ``--gradient_checkpointing`` with a model to train that does not support it.
    """

    def __init__(
        self,
        *args: Any,
        passes: int = 1,
        adversary: AdversarialWeights | None = None,
        mixup: Mixup | None = None,
        bf16_predictions: bool = False,
        **kwargs: Any,
    ):
        if smoothing := getattr(kwargs.get("args"), "label_smoothing_factor", 0.0):
            # The label smoother of the Trainer is for the losses inside models. Here the loss
            # function smooths, so the factor is set to 0 in a copy of the arguments.
            loss = kwargs.get("compute_loss_func")
            if loss and getattr(loss, "label_smoothing", 0.0) != smoothing:
                raise UserError(
                    "--label_smoothing_factor: the loss of this recipe cannot smooth labels; "
                    "remove the flag"
                )
            kwargs["args"] = copy.copy(kwargs["args"])
            kwargs["args"].label_smoothing_factor = 0.0
        if getattr(kwargs.get("args"), "push_to_hub", False):
            # The Trainer would send pickles and an empty card, at each checkpoint; see
            # `shared.reports.hub`.
            kwargs["args"] = copy.copy(kwargs["args"])
            kwargs["args"].push_to_hub = False
        super().__init__(*args, **kwargs)
        if self.args.gradient_checkpointing and self.train_dataset is not None:
            _check_gradient_checkpointing(self.model)
        if kwargs.get("compute_loss_func") is not None:
            # The labels of a causal language model are counted without the first of each row, which
            # its own loss does not use. The loss functions here use all.
            self._loss_shifts_labels = False
        self.passes = passes
        self.adversary = adversary
        self.mixup = mixup
        self.bf16_predictions = bf16_predictions
        self.schedule_steps: int | None = None
        self._progress: dict[str, float] = {}  # of the training that is resumed
        self._started = 0.0
        self._was_stopped = False  # whether early stopping has ended the training that is resumed
        self.add_callback(_RestoreProgress(self))
        self.add_callback(_SaveAfterEpoch())
        self.remove_callback(ProgressCallback)
        self.remove_callback(PrinterCallback)

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train; resume only from a checkpoint of the same model, labels and rows.

        If the training of the checkpoint was complete, its end is loaded, and nothing is trained.
        """
        self._progress, self._was_stopped = {}, False
        if isinstance(resume_from_checkpoint, str):
            check_same_model(resume_from_checkpoint, self.model.config)
            check_same_rows(resume_from_checkpoint, self._rows_digest)
            end = read_end(resume_from_checkpoint)
            if end and end[1].num_train_epochs >= math.ceil(self.args.num_train_epochs):
                folder, self.state, output = end
                self._load_from_checkpoint(folder)
                return output
            self._progress = read_progress(resume_from_checkpoint)
            self.args.eval_on_start = False  # its result is in the log of the checkpoint
            if self.args.restore_callback_states_from_checkpoint:
                self._was_stopped = was_stopped_early(resume_from_checkpoint)
        with self.fast_attention():
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        # One process records it. FSDP can load weights only when it trains.
        if self.args.should_save and not self.is_fsdp_enabled:
            best = self.args.load_best_model_at_end
            record_end(self.args.output_dir, self.state, output, best=best)
        return output

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Create the learning rate schedule, for `schedule_steps` if they are set."""
        n_steps = self.schedule_steps or num_training_steps
        schedule = super().create_scheduler(n_steps, optimizer)
        if (factor := getattr(self.args, "warmup_factor", None)) is not None:
            warm_up_at_constant_rate(schedule, self.args.get_warmup_steps(n_steps), factor)
        return schedule

    @contextlib.contextmanager
    def fast_attention(self) -> Iterator[None]:
        """Train in bfloat16 on a CPU without the fused attention kernel.

        The backward pass of the kernel takes two to five times as long there as that of plain
        matrix products. For pairs of sentences (48 tokens) a whole training step takes half the
        time without it. Prediction in single precision is faster with the kernel, most of all for
        long texts, so the kernel is restored at the end of the ``with`` block.
        """
        model = self.accelerator.unwrap_model(self.model)
        fused = getattr(model.config, "_attn_implementation", None) == "sdpa"
        if not (fused and self.args.bf16 and self.args.device.type == "cpu"):
            yield
            return
        # A head that supports the kernel can have an encoder that does not.
        parts = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
        before = [part.config._attn_implementation for part in parts]
        model.set_attn_implementation("eager")
        try:
            yield
        finally:
            for part, implementation in zip(parts, before, strict=True):
                # `set_attn_implementation` would set those of all parts below, too.
                part.config._attn_implementation_internal = implementation

    # --- training batches ---

    def get_train_dataloader(self) -> DataLoader:
        """Return batches of texts of similar length, the same for any number of processes."""
        args = self.args
        if args.train_sampling_strategy != "group_by_length":
            return super().get_train_dataloader()
        pieces = args.gradient_accumulation_steps * args.world_size
        batches = LengthGroupedBatches(
            self._lengths(self.train_dataset),
            # Not the size of the arguments: `auto_find_batch_size` may have made it smaller.
            self._train_batch_size * pieces,
            args.seed if args.data_seed is None else args.data_seed,
            lambda: int(self.state.epoch or 0),
            pieces,
        )
        dataset = self._remove_unused_columns(self.train_dataset, description="training")
        return self._train_loader(dataset, batches)

    def _set_signature_columns_if_needed(self) -> None:
        """Name the columns that are not unused: the inputs of the model, the labels, ``weight``."""
        super()._set_signature_columns_if_needed()
        columns: list[str] = self._signature_columns
        if "weight" not in columns:
            columns.append("weight")

    def _train_loader(self, dataset: Any, batches: Sampler) -> DataLoader:
        """Return the loader of a data set for a sampler that yields a list of rows per batch."""
        args = self.args
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
        )
        # Accelerate gives process i of N the pieces i, i + N, i + 2 N, ... With `even_batches` it
        # would repeat rows to make all pieces the same size. That is not needed here, because every
        # process gets the same number of pieces.
        config = self.accelerator.dataloader_config
        even, config.even_batches = config.even_batches, False
        try:
            return self.accelerator.prepare(loader)
        finally:
            config.even_batches = even

    @cached_property  # it reads all rows, and every checkpoint records it
    def _rows_digest(self) -> str:
        return rows_digest(self.train_dataset)

    def _lengths(self, dataset: Dataset) -> np.ndarray:
        """Return the number of tokens of each row, (rows,)."""
        return np.asarray(dataset.with_format("numpy")[self.args.length_column_name][:])

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        # Without this, a training that was killed after its last step, before its end was recorded,
        # would train more: an epoch after early stopping, a step if it ends within an epoch.
        if self._was_stopped or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)

    # --- training steps ---

    def training_step(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute loss and gradient of a batch; stop before the weights change if not finite.

        The log would show 0.0 for a loss that is not finite (``logging_nan_inf_filter``).
        """
        loss = super().training_step(model, self._train_inputs(inputs), num_items_in_batch)
        # All processes share their gradients, so a loss that is not finite in one of them spoils
        # the weights of all. All must stop, and so all must see every loss.
        self._stop_unless_finite("loss", self.accelerator.gather(loss))
        if self.adversary is not None:
            # The gradients of the first pass give the direction. Those of the second pass are added
            # to them, as with gradient accumulation.
            with self.adversary.against(self.accelerator.unwrap_model(model)):
                super().training_step(model, self._train_inputs(inputs), num_items_in_batch)
        return loss

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        """Compute the loss of a batch; its ``weight``, (rows,), is for the loss function."""
        if "weight" not in inputs:
            return super().compute_loss(model, inputs, *args, **kwargs)
        inputs, loss = dict(inputs), self.compute_loss_func  # type: ignore[has-type]
        self.compute_loss_func = partial(loss, weight=inputs.pop("weight"))
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            self.compute_loss_func = loss

    def _train_inputs(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a training batch with mixup and with a copy for each pass, if these are set."""
        if self.mixup is not None:
            inputs = self._prepare_inputs(inputs)
            # The seed depends on the step and the rows only. So a resumed run, and the second pass
            # of a step with an adversary, have the same mixtures.
            seed = (self.args.seed, self.state.global_step, int(inputs["input_ids"].sum()))
            inputs = self.mixup(self.accelerator.unwrap_model(self.model), inputs, seed)
        if self.passes > 1:
            # (rows, ...) becomes (passes * rows, ...), except for labels and weights.
            once = {*self.label_names, "weight"}
            inputs = {
                name: value if name in once else torch.cat([value] * self.passes)
                for name, value in inputs.items()
            }
        return dict(inputs)

    def _get_grad_norm(
        self, model: torch.nn.Module, grad_norm: torch.Tensor | float | None = None
    ) -> torch.Tensor | float | None:
        """Return the norm of the gradient; stop if it is not finite."""
        norm = super()._get_grad_norm(model, grad_norm)
        # A finite loss can have a gradient that is not finite. With fp16 this is normal: the
        # gradient scaler skips the step and lowers its factor.
        if self.accelerator.scaler is None and norm is not None:
            self._stop_unless_finite("gradient", torch.as_tensor(norm))
        return norm

    def _stop_unless_finite(self, name: str, value: torch.Tensor) -> None:
        if not torch.isfinite(value).all():
            checkpoint = newest_complete_checkpoint(self.args.output_dir)
            last = (
                f"the last good checkpoint is {checkpoint}"
                if checkpoint
                else "no checkpoint was saved yet"
            )
            step = self.state.global_step
            if name == "output" and not step:  # nothing was trained
                raise UserError("the output of the model is not finite; its weights are damaged")
            when = f"after step {step}" if name == "output" else f"at step {step + 1}"
            raise NotFiniteError(
                f"the {name} is not finite {when}",
                f"lower --learning_rate or check the data; {last}",
            )

    # --- evaluation and prediction ---

    def get_eval_dataloader(self, eval_dataset: Dataset | None = None) -> DataLoader:
        """Return batches from the longest row to the shortest; metrics ignore the order."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return super().get_eval_dataloader(dataset.select(self._longest_first(dataset)))

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Return the batches of `predict`: on a CPU, of few tokens each, with little padding.

        A batch still has at most ``--per_device_eval_batch_size`` rows. The rows must be sorted,
        the longest first.
        """
        loader = super().get_test_dataloader(test_dataset)
        # Accelerate divides the batches of several processes, which must then be of equal size.
        if self.args.device.type != "cpu" or self.args.world_size > 1:
            return loader
        threads = torch.get_num_threads()
        batches = prediction_batches(
            self._lengths(test_dataset),
            max_tokens=CPU_BATCH[0] * threads,
            max_padding=CPU_BATCH[1] * threads,
            max_rows=self.args.eval_batch_size,
            multiple_of=getattr(self.data_collator, "pad_to_multiple_of", 1),
        )
        return DataLoader(
            loader.dataset,
            batch_sampler=[batch.tolist() for batch in batches],
            collate_fn=loader.collate_fn,
            num_workers=self.args.dataloader_num_workers,
        )

    def _get_eval_sampler(self, eval_dataset: Dataset) -> Sampler:
        # The sampler of transformers would shuffle the rows with group_by_length.
        return SequentialSampler(eval_dataset)

    def evaluate(
        self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> dict[str, float]:
        """Evaluate; refuse a `metric_for_best_model` that is not among the metrics."""
        metrics = super().evaluate(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        if metric_key_prefix == "eval":
            self._check_best_metric(metrics)
        return metrics

    def _check_best_metric(self, metrics: Mapping[str, float]) -> None:
        best = self.args.metric_for_best_model
        names = [name.removeprefix("eval_") for name in metrics]
        if best and best.removeprefix("eval_") not in names:
            raise UserError(
                f"--metric_for_best_model {best}: no such metric; choose from {', '.join(names)}"
            )

    def evaluation_loop(
        self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> EvalLoopOutput:
        """Evaluate or predict, with a loss over all rows at once.

        transformers takes the mean over batches. It is not the mean over the rows if the last batch
        of N processes is filled with repeated rows.
        """
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        # In an evaluation without a metric function, transformers keeps no predictions. Then its
        # own loss stays.
        has_predictions = output.predictions is not None and output.label_ids is not None
        if has_predictions and self.compute_loss_func is not None:
            # The repeated rows are already removed here. Without `num_items_in_batch` the loss
            # function returns the mean.
            logits, labels = map(torch.as_tensor, (output.predictions, output.label_ids))
            loss = self.compute_loss_func({"logits": logits}, labels)
            output.metrics[f"{metric_key_prefix}_loss"] = float(loss)
        return output

    def prediction_step(self, *args: Any, **kwargs: Any) -> tuple:
        """Predict a batch; keep the logits only, and stop if they are not finite.

        The Trainer collects all outputs of an evaluation. Encoder-decoders also return the states
        of the encoder, which would fill the memory. After a training that diverged, metrics would
        end with an error of scikit-learn.
        """
        loss, logits, labels = super().prediction_step(*args, **kwargs)
        logits = logits[0] if isinstance(logits, tuple) else logits
        if logits is not None:
            # Of all processes: one alone would stop without a word.
            self._stop_unless_finite("output", self.accelerator.gather(logits.float().sum()))
        return loss, logits, labels

    def predict(self, test_dataset: Dataset, *args: Any, **kwargs: Any) -> PredictionOutput:
        """Predict from the longest row to the shortest; return outputs in the order of the rows.

        The precision is that of the weights, even after a training with `bf16` or `fp16`. So the
        scores equal those of the saved model in any other program. Only `bf16_predictions` changes
        this.
        """
        if not len(test_dataset):  # --valid_size 0
            return PredictionOutput(np.zeros((0, self.model.config.num_labels)), None, {})
        # Mixed precision is a wrapper around the forward method of the model, which accelerate adds
        # when it prepares the model. Without a training the loop in `super().predict` would prepare
        # it. So prepare it here, and then remove the wrapper.
        if not self.accelerator._models:
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        # The loader of the last epoch stays the active one of accelerate, which would cut each
        # batch here to the size of the last batch there.
        self.accelerator.gradient_state.dataloader_references = [None]
        order = self._longest_first(test_dataset)
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.bf16_predictions):
            output = super().predict(test_dataset.select(order), *args, **kwargs)
        # Output j belongs to row order[j]; argsort gives the inverse: where row i is in the output.
        places = np.argsort(order)
        labels = None if output.label_ids is None else output.label_ids[places]
        return PredictionOutput(output.predictions[places], labels, output.metrics)

    def _longest_first(self, dataset: Dataset) -> np.ndarray:
        """Return the row numbers from the longest row to the shortest; ties keep their order."""
        return np.argsort(-self._lengths(dataset), kind="stable")

    # --- checkpoints ---

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if isinstance(self.processing_class, PreTrainedTokenizerBase):
            forget_padding(self.processing_class)
        super()._save(output_dir, state_dict)
        # Nothing reads this pickle, and unpickling a file from others can run any code.
        (Path(output_dir or self.args.output_dir) / "training_args.bin").unlink(missing_ok=True)

    def _save_rng_state(self, output_dir: str) -> None:
        # Not after `_save_checkpoint`: trainer_state.json, which makes a checkpoint complete, is
        # written last.
        super()._save_rng_state(output_dir)
        # The loss since the last log entry: the mean over the processes, as the log has it.
        loss = self.accelerator.gather(self._tr_loss).mean().item()
        if self.args.should_save:  # in one process only
            record_rows(Path(output_dir), self._rows_digest)
            progress = {"loss_sum": self._total_loss_scalar, "loss_since_log": loss}
            progress["logged_step"] = self._globalstep_last_logged
            seconds = self._progress.get("seconds", 0.0) + time.time() - self._started
            progress |= {"seconds": seconds}
            record_progress(Path(output_dir), progress | self.own_progress())

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # A checkpoint holds weights that several layers share once; the others are not missing.
        shared = getattr(self.model, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in shared]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def own_progress(self) -> dict[str, float]:
        """Return further sums over the steps so far, of a subclass, for a checkpoint."""
        return {}

    def restore_own_progress(self, progress: Mapping[str, float]) -> None:
        """Set the sums of `own_progress` that a checkpoint holds."""

    def _finalize_training(self, trial: Any, num_train_samples: int, start_time: float) -> Any:
        # The speed is that of all steps, so the time of the interrupted run counts, too.
        start_time -= self._progress.get("seconds", 0.0)
        return super()._finalize_training(trial, num_train_samples, start_time)


class _RestoreProgress(TrainerCallback):
    """Give a resumed training the sums that its figures are made of.

    The Trainer keeps them outside of its state and starts them at 0, so that the training loss
    would be that of the resumed part.
    """

    def __init__(self, trainer: LengthGroupedTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        trainer, progress = self.trainer, self.trainer._progress
        trainer._started = time.time()
        if progress:
            trainer._initial_global_step = 0
            trainer._total_loss_scalar = progress["loss_sum"]
            trainer._tr_loss += progress["loss_since_log"]
            trainer._globalstep_last_logged = int(progress["logged_step"])
            trainer.restore_own_progress(progress)


class _SaveAfterEpoch(TrainerCallback):
    """After the last step of an epoch, save when the epoch has been logged and evaluated.

    A training that is resumed from this checkpoint starts with the next epoch and would do neither.
    """

    def __init__(self) -> None:
        self.postponed = False

    def on_step_end(self, args, state, control, **kwargs):
        if control.should_save and (state.epoch.is_integer() or control.should_training_stop):
            control.should_save, self.postponed = False, True

    def on_epoch_end(self, args, state, control, **kwargs):
        control.should_save |= self.postponed
        self.postponed = False


def _check_gradient_checkpointing(model: Any) -> None:
    """Refuse a model that cannot compute its activations again in the backward pass."""
    try:
        with warnings.catch_warnings():  # newer versions have another name for it
            warnings.simplefilter("ignore", FutureWarning)
            model.gradient_checkpointing_enable()
            model.gradient_checkpointing_disable()
    except ValueError as error:
        name = model.config.get_text_config().model_type
        raise UserError(
            f"--gradient_checkpointing: {name} models do not support it; remove the flag"
        ) from error
