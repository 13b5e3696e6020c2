"""The batches of a training: texts of similar length, in random order."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler


class LengthGroupedBatches(Sampler):
    """Sample batches of texts of similar length, in random order.

    The rows are shuffled and divided into pools of 50 batches. In each pool they are sorted by
    length and divided into batches. Then the batches are shuffled. The longest batch comes first,
    so that a batch that does not fit into memory fails at once. A few per cent of the tokens are
    padding.

    Each epoch contains every row once. The sizes of the batches differ by one row at most. Other
    samplers end with a small last batch, whose gradient counts as much as that of a full batch, or
    drop it. So ``--dataloader_drop_last`` has nothing to drop here.

    The batches depend on (seed, epoch) only. A resumed run has the batches of an uninterrupted run,
    and N processes have the batches of one process: each process takes its pieces of every batch.
    The samplers of transformers group the rows of one device only, repeat rows to fill the last
    batch of N processes, and use the global random generator.

    Parameters
    ----------
    lengths : array of shape (rows,)
        Number of tokens of each row.
    batch_size : int
        Maximum number of rows per step of the optimiser, over all devices and accumulation steps.
    seed : int
        The order of the rows depends on it and on the epoch.
    epoch : callable
        Returns the number of the epoch that is about to start. It is a function, because in a
        resumed run on several processes the hooks that tell a sampler its epoch do not reach it.
    pieces : int
        Number of devices times accumulation steps. Each batch is yielded as this number of lists,
        one after another. If a batch has fewer rows than pieces, its first row is repeated; this is
        the only case where an epoch contains a row more than once.
    """

    pool = 50  # batches per pool

    def __init__(
        self,
        lengths: np.ndarray,
        batch_size: int,
        seed: int,
        epoch: Callable[[], int],
        pieces: int = 1,
    ):
        self.lengths = np.asarray(lengths)
        self.n_batches = -(-len(self.lengths) // batch_size)  # rounded up
        self.seed = seed
        self.epoch = epoch
        self.pieces = pieces

    def __len__(self) -> int:
        return self.n_batches * self.pieces

    def __iter__(self) -> Iterator[list[int]]:
        if not self.n_batches:
            return
        # Every process seeds its generator alike, so all compute the same batches without
        # communication. The global generators are not used.
        rng = np.random.default_rng((self.seed, self.epoch()))
        order = rng.permutation(len(self.lengths))
        # (rows,), the pool of each place in the order. Batch i is in pool i // 50.
        sizes = [len(batch) for batch in self._divide(order)]
        pools = np.repeat(np.arange(self.n_batches) // self.pool, sizes)
        # Sort by pool (the last key of lexsort comes first), then from the longest row to the
        # shortest. Pools are contiguous in the order, so no row changes its pool.
        order = order[np.lexsort((-self.lengths[order], pools))]
        batches = self._divide(order)
        # The first row of a sorted batch is its longest.
        longest = int(np.argmax([self.lengths[batch[0]] for batch in batches]))
        others = rng.permutation([i for i in range(self.n_batches) if i != longest])
        for i in (longest, *others):
            # Consecutive pieces form one step of the optimiser, over processes and accumulation
            # steps. No piece may be empty: every process needs a batch in each step.
            for piece in np.array_split(batches[i], self.pieces):
                yield piece.tolist() or batches[i][:1].tolist()

    def _divide(self, order: np.ndarray) -> list[np.ndarray]:
        """Divide rows into the batches of an epoch, whose sizes differ by one row at most."""
        return np.array_split(order, self.n_batches)
