"""A Trainer whose batches hold texts of similar length and whose predictions keep their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from transformers import Trainer
from transformers.trainer_utils import PredictionOutput

from shared.checkpoints import newest_complete_checkpoint
from shared.errors import UserError


class LengthGroupedSampler(torch.utils.data.Sampler):
    """Shuffle rows so that each global batch holds texts of similar length.

    Rows are shuffled, cut into pools of 50 batches, sorted by length within a pool, cut into
    batches, and the batches shuffled; the longest comes first, so that a batch too large for the
    memory fails at once. Padding falls to a few per cent of the tokens.

    The order depends on (seed, epoch) alone: a resumed run sees the batches of an uninterrupted
    one, and N processes share the global batches of one process (transformers' own sampler groups
    by the batch of one device, and draws from the global generator).

    Parameters
    ----------
    lengths : array of shape (rows,)
        Tokens of each row.
    batch_size : int
        Rows per optimiser step, over all devices and accumulation steps.
    seed : int
        Together with the epoch, seeds the order.
    epoch : callable
        Returns the number of the epoch that is about to start. Asked rather than told: the hooks
        that tell a sampler its epoch do not reach it in a resumed run on several processes.
    """

    pool = 50

    def __init__(self, lengths: np.ndarray, batch_size: int, seed: int, epoch: Callable[[], int]):
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch()))
        order = rng.permutation(len(self.lengths))
        size = self.pool * self.batch_size
        pools = np.arange(len(order)) // size
        order = order[np.lexsort((-self.lengths[order], pools))]
        full = len(order) // self.batch_size * self.batch_size
        batches = rng.permutation(order[:full].reshape(-1, self.batch_size))
        if len(batches):
            longest = int(self.lengths[batches].max(axis=1).argmax())
            batches[[0, longest]] = batches[[longest, 0]]
        # The incomplete batch stays last, so that every other step has the full size.
        return iter(np.concatenate([batches.ravel(), order[full:]]).tolist())


class LengthGroupedTrainer(Trainer):
    """`transformers.Trainer` that wastes little on padding and keeps predictions in row order.

    Data sets need a column of token counts named ``args.length_column_name``. With
    ``--train_sampling_strategy group_by_length``, the stock Trainer also shuffles evaluation and
    prediction, so that row i of the output is not row i of the input; here only training is
    shuffled, and `predict` runs from the longest text to the shortest and puts the rows back.
    """

    def _get_train_sampler(self, train_dataset=None):
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        # The argument has already lost the columns that the model does not take.
        lengths = self._lengths(self.train_dataset)
        batch_size = (
            self.args.train_batch_size
            * self.args.gradient_accumulation_steps
            * self.args.world_size
        )
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return LengthGroupedSampler(lengths, batch_size, seed, lambda: int(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset):
        return torch.utils.data.SequentialSampler(eval_dataset)

    def get_eval_dataloader(self, eval_dataset=None):
        """Evaluate from the longest row to the shortest; no metric depends on the order."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        return super().get_eval_dataloader(dataset.select(self._longest_first(dataset)))

    def predict(self, test_dataset, *args, **kwargs) -> PredictionOutput:
        """Predict from the longest row to the shortest; outputs are in the order of the rows.

        Always in the precision of the weights, whatever `bf16` or `fp16` did for the training:
        scores then equal those of the saved model in any other program.
        """
        if not self.accelerator._models:  # without a training, the loop below would wrap it
            self.accelerator.prepare_model(self.model, evaluation_mode=True)
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
        order = self._longest_first(test_dataset)
        output = super().predict(test_dataset.select(order), *args, **kwargs)
        rows = np.argsort(order)
        labels = None if output.label_ids is None else output.label_ids[rows]
        return PredictionOutput(output.predictions[rows], labels, output.metrics)

    def _longest_first(self, dataset) -> np.ndarray:
        return np.argsort(-self._lengths(dataset), kind="stable")

    def _lengths(self, dataset) -> np.ndarray:
        return np.asarray(dataset.with_format("numpy")[self.args.length_column_name][:])

    def training_step(self, model, inputs, num_items_in_batch=None):
        """Stop on a non-finite loss, before the optimiser spoils the weights with it.

        The log would show a harmless 0.0 for it (``logging_nan_inf_filter``).
        """
        loss = super().training_step(model, inputs, num_items_in_batch)
        # Gradients are shared between processes, and so is the news that they are spoilt.
        if not torch.isfinite(self.accelerator.gather(loss)).all():
            kept = newest_complete_checkpoint(self.args.output_dir)
            raise UserError(
                f"the loss is not finite at step {self.state.global_step + 1}; lower "
                "--learning_rate or check the data; "
                + (f"the last good checkpoint is {kept}" if kept else "no checkpoint was saved yet")
            )
        return loss
