"""Compare the splitters with scikit-multilearn and iterative-stratification: quality, sizes, speed.

    python tests/benchmarks/bench_splitters.py [--quick] [--table dense]

Prints Markdown tables; all libraries split the same matrices in the same run. The quality tables
need the label matrices of Mulan and GoEmotions in the folder RECIPES_DATA (default ../shared/data)
and are skipped without them. A library that is not installed is left out. It takes about fifteen
minutes, most of them for scikit-multilearn; with --quick, which uses fewer seeds and leaves out the
longest run, about three. --table prints only one of the tables.
"""

import argparse
import gzip
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import scipy.sparse as sp

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from shared.splitters import (  # noqa: E402
    MultilabelStratifiedKFold,
    MultilabelStratifiedShuffleSplit,
    label_distribution_error,
)

DATA = Path(os.environ.get("RECIPES_DATA", ROOT.parent / "shared" / "data"))
MULAN = ("emotions", "yeast", "scene", "medical", "enron", "bibtex", "Corel5k")
SPLITS = ("5-fold", "20 % test")


def ours(y, split, seed, order):
    if split == "5-fold":
        splits = MultilabelStratifiedKFold(5, order=order, random_state=seed).split(None, y)
        return [test for _, test in splits]
    splitter = MultilabelStratifiedShuffleSplit(1, test_size=0.2, order=order, random_state=seed)
    return next(splitter.split(None, y))


def scikit_multilearn(y, split, seed, order):
    from skmultilearn.model_selection import IterativeStratification

    np.random.seed(seed)  # it draws from the global generator
    X = np.zeros((len(y), 1))
    if split == "5-fold":
        splits = IterativeStratification(n_splits=5, order=order).split(X, y)
        return [test for _, test in splits]
    # The same as its iterative_train_test_split, but for both orders.
    splitter = IterativeStratification(2, order=order, sample_distribution_per_fold=[0.2, 0.8])
    return next(splitter.split(X, y))


def iterative_stratification(y, split, seed):
    from iterstrat import ml_stratifiers

    if split == "5-fold":
        splitter = ml_stratifiers.MultilabelStratifiedKFold(5, shuffle=True, random_state=seed)
        return [test for _, test in splitter.split(y, y)]
    splitter = ml_stratifiers.MultilabelStratifiedShuffleSplit(1, test_size=0.2, random_state=seed)
    return next(splitter.split(y, y))


def libraries():
    """Return name and function of each installed library, ours first."""
    actual = {
        "ours, order 1": partial(ours, order=1),
        "ours, order 2": partial(ours, order=2),
    }
    peers = {
        "iterative-stratification": {"iterative-stratification": iterative_stratification},
        "scikit-multilearn": {
            "scikit-multilearn, order 1": partial(scikit_multilearn, order=1),
            "scikit-multilearn, order 2": partial(scikit_multilearn, order=2),
        },
    }
    for package, functions in peers.items():
        try:
            print(f"{package} {version(package)}")
            actual |= functions
        except PackageNotFoundError:
            print(f"{package} is not installed and left out")
    return actual


def matrices():
    """Yield name and label matrix of each data set."""
    for name in MULAN:
        yield name, np.load(DATA / "mulan" / f"{name}.npz")["y"]
    with gzip.open(DATA / "goemotions" / "train.tsv.gz", "rt", encoding="utf-8") as lines:
        labels = [[int(label) for label in line.split("\t")[1].split(",")] for line in lines]
    y = np.zeros((len(labels), 28), np.uint8)
    for row, row_labels in enumerate(labels):
        y[row, row_labels] = 1
    yield "GoEmotions", y


def random_matrix(n_rows, n_labels, density):
    """Return a sparse matrix of 0 and 1; some positives have the same position."""
    rng = np.random.default_rng(0)
    n = int(n_rows * n_labels * density)
    entries = rng.integers(0, n_rows, n), rng.integers(0, n_labels, n)
    return sp.csr_array(
        sp.csr_array((np.ones(n, bool), entries), (n_rows, n_labels)), dtype=np.int8
    )


def long_tailed_matrix(n_rows, n_labels=1000, labels_per_row=19, n_topics=40):
    """Return a dense matrix with few frequent and many rare labels, which go together by topic."""
    rng = np.random.default_rng(0)
    popularity = (np.arange(n_labels) + 10.0) ** -0.9
    affinity = rng.gamma(0.4, 1, (n_topics, n_labels))
    length = rng.gamma(4, 1 / 4, (n_rows, 1))
    rates = length * (rng.dirichlet(np.full(n_topics, 0.08), n_rows) @ affinity) * popularity
    low, high = 0.0, 1e6  # the factor for the wanted number of labels, by bisection
    for _ in range(60):
        factor = (low + high) / 2
        too_many = (1 - np.exp(-factor * rates[:2000])).sum(axis=1).mean() > labels_per_row
        low, high = (low, factor) if too_many else (factor, high)
    y = rng.random(rates.shape) < 1 - np.exp(-factor * rates)
    return y[:, rng.permutation(n_labels)].astype(np.int8)


def largest_size_error(parts, split, n):
    """Return the largest difference between the size of a part and the requested size."""
    test = -(-n // 5)
    wanted = [n - test, test] if split == "20 % test" else [n // 5 + (i < n % 5) for i in range(5)]
    sizes = sorted(map(len, parts)), sorted(wanted)
    return max(abs(a - b) for a, b in zip(*sizes, strict=True))


def seconds(function, repeats=1):
    """Return the seconds of processor time of the fastest of a few runs.

    All libraries use one core, and other work on the machine is not counted.
    """
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def table(title, header, rows):
    print(f"\n{title}\n\n| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def quality(actual, n_seeds):
    if not (DATA / "mulan").is_dir():
        print(f"\nQuality is skipped: there is no {DATA / 'mulan'} (set RECIPES_DATA).")
        return
    size_rows = []

    def rows():
        for name, y in matrices():
            for split in SPLITS:
                errors, sizes = [], []
                for function in actual.values():
                    parts = [function(y, split, seed) for seed in range(n_seeds)]
                    error = [1e4 * label_distribution_error(y, p) for p in parts]
                    errors.append(f"{np.mean(error):.2f} ± {np.std(error):.2f}")
                    sizes.append(str(max(largest_size_error(p, split, len(y)) for p in parts)))
                size = f"{y.shape[0]} x {y.shape[1]}"
                size_rows.append([name, size, split, *sizes])
                yield [name, size, split, *errors]

    header = ["data", "rows x labels", "split", *actual]
    table(f"Label-distribution error x 10,000, mean ± sd of {n_seeds} seeds", header, rows())
    table("Rows too many or too few in a part, at most", header, size_rows)


def speed(actual, quick):
    def rows():
        for n_rows, n_labels, density in ((40_000, 28, 0.05), (20_000, 1000, 0.003)):
            y = random_matrix(n_rows, n_labels, density).toarray()
            for split in SPLITS:
                row = [f"{n_rows} x {n_labels} ({density})", split]
                first = None
                for name, function in actual.items():
                    slow = name.startswith("scikit-multilearn") and n_labels == 1000
                    if slow and (quick or split == "5-fold"):
                        row.append("not run")
                        continue
                    if slow:
                        print(f"(running {name} on {row[0]}: minutes)", file=sys.stderr)
                    repeats = 1 if slow else 3
                    time_taken = seconds(partial(function, y, split, 0), repeats)
                    first = first or time_taken
                    row.append(f"{time_taken:.4f} ({time_taken / first:.0f}x)")
                yield row

    title = "Seconds of processor time (in brackets: times ours, order 1), dense matrix, best of 3"
    table(title, ["rows x labels (density)", "split", *actual], rows())


def dense(actual, quick):
    """Print speed and quality for 19 labels per row."""

    def rows():
        for n_rows in (1000, 16_000):
            matrices = {
                "equally frequent labels": random_matrix(n_rows, 1000, 0.0192).toarray(),
                "long tail": long_tailed_matrix(n_rows),
            }
            for tail, y in matrices.items():
                for split in SPLITS:
                    row = [f"{n_rows:,} x 1,000, {tail}", split]
                    for name, function in actual.items():
                        if name == "scikit-multilearn, order 2":  # hours
                            continue
                        repeats = 3 if n_rows == 1000 and not quick else 1
                        time_taken = seconds(partial(function, y, split, 0), repeats)
                        parts = function(y, split, 0)
                        counts = np.array([y[part].sum(axis=0) for part in parts])
                        missing = ((counts == 0) & (y.sum(axis=0) >= len(parts))).sum()
                        error = 1e4 * label_distribution_error(y, parts)
                        row.append(f"{time_taken:.3f} / {error:.2f} / {missing}")
                    yield row

    title = (
        "19 labels per row: seconds of processor time / error x 10,000 / labels missing in a part"
    )
    names = [name for name in actual if name != "scikit-multilearn, order 2"]
    table(title, ["rows x labels", "split", *names], rows())


def scaling(quick):
    def rows():
        for n_rows in (10_000, 100_000, 300_000, 1_000_000)[: 2 if quick else 4]:
            y = random_matrix(n_rows, 100, 0.05)
            times = [seconds(partial(ours, y, split, 0, 1)) for split in SPLITS]
            tracemalloc.start()
            ours(y, "20 % test", 0, 1)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            yield [
                f"{n_rows:,} x 100",
                f"{y.nnz:,}",
                *(f"{t:.3f}" for t in times),
                f"{1e6 * times[1] / y.nnz:.2f}",
                f"{peak / 1e6:.0f}",
                f"{peak / y.nnz:.0f}",
            ]

    header = ["rows x labels", "positives", *(f"{split}, s" for split in SPLITS)]
    header += ["µs per positive (20 % test)", "peak memory, MB", "bytes per positive"]
    table(
        "Growth, sparse matrix of density .05, order 1, seconds of processor time", header, rows()
    )


def first_call():
    code = (
        "import time; import numpy as np\n"
        "from shared.splitters.multilabel import train_valid_test_split\n"
        "y = np.random.default_rng(0).random((441, 9)) < 0.13\n"
        "train_valid_test_split(y, random_state=0); print(time.process_time())"
    )

    def rows():
        with tempfile.TemporaryDirectory() as folder:
            for cache in ("nothing compiled yet", "compiled code in the cache"):
                times = [
                    float(
                        subprocess.run(
                            [sys.executable, "-c", code],
                            cwd=ROOT,
                            env={**os.environ, "NUMBA_CACHE_DIR": folder},
                            capture_output=True,
                            check=True,
                        ).stdout
                    )
                    for _ in range(1 if cache == "nothing compiled yet" else 3)
                ]
                yield [cache, f"{min(times):.2f}"]

    title = "First split (441 x 9) of a new process, with all imports"
    table(title, ["", "seconds of processor time"], rows())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="2 seeds instead of 10, small sizes")
    tables = ("quality", "speed", "dense", "scaling", "first_call")
    parser.add_argument("--table", choices=tables, help="this table only")
    arguments = parser.parse_args()
    quick = arguments.quick
    warnings.filterwarnings("ignore")  # scikit-multilearn's, of what it uses in scikit-learn
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, numpy {np.__version__}")
    actual = libraries()
    ours(np.ones((10, 10)), "5-fold", 0, 1)  # compiles
    ours(np.eye(10), "5-fold", 0, 1)
    for name, show in {
        "quality": partial(quality, actual, 2 if quick else 10),
        "speed": partial(speed, actual, quick),
        "dense": partial(dense, actual, quick),
        "scaling": partial(scaling, quick),
        "first_call": first_call,
    }.items():
        if arguments.table in (None, name):
            show()


if __name__ == "__main__":
    main()
