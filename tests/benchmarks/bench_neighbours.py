"""Compare the speed of `f1_grid`, all k and m at once, with one report per k and m.

    PYTHONPATH=. python tests/benchmarks/bench_neighbours.py

A report is scikit-learn's `classification_report` on the votes of one cell of the grid, as in the
book chapter that the recipe follows. Both start from the same neighbours. It takes a minute and a
half.
"""

import time
import warnings

import numpy as np
from sklearn.metrics import classification_report

from shared.methods import f1_grid

ROWS, TRAIN_ROWS, LABELS = 1000, 2000, 12


def reports(neighbours, train_labels, y):
    """Return micro and macro F1 of every cell with m at most k, from one report per cell."""
    k_max = neighbours.shape[1]
    grid = np.full((2, k_max, k_max), np.nan)
    for k in range(1, k_max + 1):
        votes = train_labels[neighbours[:, :k]].sum(axis=1)
        for m in range(1, k + 1):
            report = classification_report(y, votes >= m, output_dict=True, zero_division=0)
            grid[:, k - 1, m - 1] = [
                report[average]["f1-score"] for average in ("micro avg", "macro avg")
            ]
    return grid


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    train_labels = rng.random((TRAIN_ROWS, LABELS)) < 0.15
    y = rng.random((ROWS, LABELS)) < 0.15
    for k_max in (15, 50):
        neighbours = rng.integers(TRAIN_ROWS, size=(ROWS, k_max))
        start = time.process_time()
        expected = reports(neighbours, train_labels, y)
        slow = time.process_time() - start
        start = time.process_time()
        grid = f1_grid(neighbours, train_labels, y)
        fast = time.process_time() - start
        np.testing.assert_allclose(list(grid.values()), expected)
        cells = k_max * (k_max + 1) // 2
        print(f"{cells} cells, {ROWS} x {LABELS}: {slow / fast:.0f}x, the same figures")
