"""Compare all methods on your data, by number of labels and seed, and say which one to take.

Why: which method is best depends on the data and on how many labels there are, and one run with one
seed tells little. Here every method learns from the same nested slices of the training rows under
the same seeds and is tested on the same rows, by running the recipes themselves as a person would.
The figure is that of "Natural Language Processing with Transformers", chapter 9, with what that
chapter leaves out: a spread over seeds, the time each method takes, and whether a difference is
real (a paired bootstrap over the test rows).

    accelerate launch recipes/few_label_benchmark.py \\
        --config recipes/configs/few_label_benchmark_sample.yaml
    accelerate launch recipes/few_label_benchmark.py --data issues.jsonl --sizes 8 64 --seeds 1 2
    accelerate launch recipes/few_label_benchmark.py --methods naive_bayes fine_tuning \\
        --method_flags "fine_tuning: --num_train_epochs 4"

Data: as for recipes/github_tagger.py; its flags are handed on to every method. A run that was
stopped goes on with the same command: a finished cell (method, size, seed) is never computed again,
unless its flags or the data change. Every cell leaves its folder below cells/, with a log.

Leaves results.csv, learning_curves.png and README.md: F1 at each size, seconds, recommendation. The
method to take is chosen by validation. `train_seconds` is all that depends on labels or on the
training rows, `predict_seconds` the scoring of all test texts, the embedding of these included
(also where other cells had embedded them before). Both depend on how many cells run at a time.

Expect on two CPU cores: one cell of a few seconds after another, fine-tuning one to ten minutes.
"""

import importlib.util
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from shared.cli import (
    Job,
    UserError,
    atomic_write,
    command_flags,
    exit_on_user_error,
    flag,
    is_main_process,
    machine,
    parse_arguments,
    run_jobs,
    start_recipe,
    write_csv,
)
from shared.data import SplitArguments, load_corpus, split_corpus
from shared.plots import plot_learning_curves
from shared.reports import Result, command_line, curves, report, result_rows


class Method(NamedTuple):
    """A script with flags; it takes --seed, --train_size, --output_dir and the flags of data.

    `encoder`: it takes --model and --max_length. `embeds`: it keeps the vectors of all texts in the
    cache, so that its first cell goes ahead of its others. `uses_labels`: if not, one cell per seed
    stands for every size. `prepare`: a command that runs once before the cells, in a folder that
    `{prepared}` stands for in the flags. `package`: an optional one that it needs.
    """

    script: str
    flags: str = ""
    encoder: bool = True
    embeds: bool = False
    uses_labels: bool = True
    prepare: str = ""
    package: str = ""


NAIVE_BAYES, LOOKUP = "recipes/naive_bayes.py", "recipes/embedding_lookup.py"
METHODS = {
    "label_names": Method("recipes/zero_shot.py", "--method embedding", uses_labels=False),
    "zero_shot_nli": Method("recipes/zero_shot.py", encoder=False, uses_labels=False),
    "naive_bayes": Method(NAIVE_BAYES, encoder=False),
    "tfidf": Method(NAIVE_BAYES, "--classifier logistic_regression", encoder=False),
    "embedding_lookup": Method(LOOKUP, embeds=True),
    "embedding_probe": Method(LOOKUP, "--head logistic", embeds=True),
    "few_label_probe": Method("recipes/few_label_probe.py", embeds=True),
    "fine_tuning": Method("recipes/github_tagger.py"),
    "adapted_fine_tuning": Method(
        "recipes/github_tagger.py",
        "--model {prepared}",
        prepare="recipes/domain_adaptation.py",
    ),
    "setfit": Method("tests/benchmarks/setfit_peer.py", package="setfit"),
}


@dataclass
class BenchmarkArguments(SplitArguments):
    """Flags of this recipe; those of data go to every method."""

    methods: list[str] = flag(
        [name for name, method in METHODS.items() if not method.package],
        f"Any of {', '.join(METHODS)} (default: all that need no further package).",
    )
    sizes: list[str] = flag(
        ["8", "16", "32", "64", "128", "all"],
        "Numbers of training rows, each slice part of the next (default: 8 16 32 64 128 all).",
    )
    seeds: list[int] = flag([1, 2, 3], "Of the split, the slices and the methods (default: 1 2 3).")
    method_flags: list[str] = flag(
        [], "Further flags of a method, each as 'METHOD: flags' (default: none)."
    )
    model: str | None = flag(None, "Encoder of all methods that have one (default: their own).")
    max_length: int | None = flag(None, "Tokens of a text that it reads (default: their own).")
    jobs: int | None = flag(
        None,
        "Cells at a time; 0 computes none and reports on the finished ones (default: by cores and "
        "memory).",
    )
    keep_models: bool = flag(
        False, "Keep the weights of every cell, 90 MB each with the default encoder (default: no)."
    )
    output_dir: str = flag(
        "outputs/few_label_benchmark", "Folder (default: outputs/few_label_benchmark)."
    )

    def __post_init__(self):
        self.methods, self.seeds = list(dict.fromkeys(self.methods)), sorted({*self.seeds})
        if wrong := [size for size in self.sizes if size != "all" and not size.isdecimal()]:
            raise UserError(f"--sizes {wrong[0]}: must be a number of rows, or all")
        self.sizes = sorted({*self.sizes}, key=lambda size: float(size.replace("all", "inf")))
        for name in ("train_size", "train_per_label"):
            if getattr(self, name) is not None:
                raise UserError(f"--{name}: give the numbers of training rows with --sizes")
        self.further = {}
        for text in self.method_flags:
            name, colon, flags = text.partition(":")
            if not colon or name not in METHODS:
                raise UserError(f"--method_flags {text!r}: must be 'METHOD: flags'")
            self.further[name] = shlex.split(flags)
        for name in self.methods:
            if name not in METHODS:
                raise UserError(f"--methods {name}: there are {', '.join(METHODS)}")
            package = METHODS[name].package
            if package and importlib.util.find_spec(package) is None:
                raise UserError(
                    f"--methods {name}: first pip install -c constraints.txt '.[{package}]'"
                )


def main() -> None:
    """Check data and flags, run the cells that are not finished, report on all."""
    args = parse_arguments(BenchmarkArguments, description=__doc__)
    if not is_main_process():
        return  # one process starts all others
    output_dir = start_recipe(args)

    # Prepared here, the data is read by every cell from the cache; and here a mistake costs nothing
    corpus, held_out = load_corpus(args)
    pools = []
    for seed in args.seeds:
        split = split_corpus(corpus, held_out, args, seed=seed)
        pools.append(len(split.labels["train"]))
    for size in args.sizes:
        if size != "all" and not 0 < int(size) <= min(pools):
            raise UserError(f"--sizes {size}: the pool has {min(pools)} training rows")
    for name in [name for name in args.methods if METHODS[name].prepare]:
        if not len(corpus.unlabelled):
            print(f"\nnote: without {name}: {args.data} has no unlabelled texts to adapt to")
            args.methods.remove(name)
    data = tuple(source.fingerprint for source in (corpus, *held_out.values()))

    # One cell for each method, size and seed; what they wait for
    cells = grid(args, output_dir / "cells", data)
    preparations = [cell.after for cell in cells.values() if cell.needs_it]
    every = dict.fromkeys([*preparations, *cells.values()])
    to_run = [cell for cell in every if not cell.finished]
    print(f"\n{len(every)} cells, of which {len(every) - len(to_run)} were finished before")
    n_failed = 0
    if args.jobs != 0:
        n_failed = run_jobs(to_run, n_parallel=args.jobs, keep_models=args.keep_models)

    # Figures of all that is finished
    results = [
        Result(method, size, seed, cell.metrics(), cell.folder / "test_predictions.jsonl")
        for (method, size, seed), cell in cells.items()
        if cell.finished
    ]
    if not results:
        print("no cell is finished; nothing to report")
    else:
        n_rows = [round(sum(pools) / len(pools)) if s == "all" else int(s) for s in args.sizes]
        write_report(output_dir, results, args, n_rows, corpus.describe())
    if n_failed:
        raise UserError(
            f"{n_failed} of {len(every)} cells failed, named above; see their log.txt; the same "
            "command tries them again and keeps the finished ones"
        )


def grid(args: BenchmarkArguments, folder: Path, data: tuple) -> dict[tuple[str, str, int], Job]:
    """Every (method, size, seed) with its cell, in the order to run them."""
    cells, leader, led = {}, None, None
    for name in args.methods:
        method, after = METHODS[name], None
        common = command_flags(args, SplitArguments)
        if method.encoder:
            common += [f"--model={args.model}"] if args.model else []
            common += [f"--max_length={args.max_length}"] if args.max_length else []
        if method.prepare:
            command = (*shlex.split(method.prepare), *common)
            after = Job(f"{name}, preparation", folder / name / "prepared", command, data)
        flags = method.flags.replace("{prepared}", shlex.quote(str(folder / name / "prepared")))
        for size in args.sizes:
            for seed in args.seeds:
                slice_name = size if method.uses_labels else "no_labels"
                words = [method.script, *common, *shlex.split(flags), *args.further.get(name, [])]
                words.append(f"--seed={seed}")
                if method.uses_labels and size != "all":
                    words.append(f"--train_size={size}")
                cells[name, size, seed] = cell = Job(
                    f"{name}, {slice_name.replace('_', ' ')}, seed {seed}",
                    folder / name / slice_name / str(seed),
                    tuple(words),
                    data,
                    after=after or (leader if method.embeds else None),
                    needs_it=after is not None,
                )
                if method.embeds and led != name:
                    leader, led = cell, name
    return cells


def write_report(output_dir: Path, results, args, n_rows: Sequence[int], data: str) -> None:
    """Write results.csv, learning_curves.png and README.md; print the tables."""
    write_csv(output_dir / "results.csv", result_rows(results))
    flat = [name for name in args.methods if not METHODS[name].uses_labels]
    lines = curves(results, args.sizes)
    plot_learning_curves(lines, n_rows, output_dir / "learning_curves.png", flat=flat)
    tables = report(results, args.sizes)
    with atomic_write(output_dir / "README.md") as file:
        file.write(
            f"# Methods by number of labels\n\n{date.today()}, {machine()}. Mean ± standard "
            f"deviation over seeds {', '.join(map(str, args.seeds))}.\n\n"
            f"```bash\n{command_line()}\n```\n\n![F1 by training size](learning_curves.png)\n\n"
            f"{tables}\n## Data\n\n```\n{data}\n```\n"
        )
    print(f"\n{tables}\nEverything is in {output_dir}:")
    print("README.md (these tables), results.csv, learning_curves.png and cells/.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
