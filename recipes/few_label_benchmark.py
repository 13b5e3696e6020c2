"""Compare all methods on your data, by number of labels and seed, and recommend one.

Why: the best method depends on the data and on the number of labels, and one run with one seed is
not reliable. Here every method trains on the same nested subsets of the training rows, with the
same seeds, and is evaluated on the same test rows; the recipes themselves are run. The learning
curves are those of "Natural Language Processing with Transformers", chapter 9. This recipe adds
what that chapter leaves out: the standard deviation over seeds, the time of each method, and a
significance test of the differences (a paired bootstrap over the test rows).

    accelerate launch recipes/few_label_benchmark.py \\
        --config recipes/configs/few_label_benchmark_sample.yaml
    accelerate launch recipes/few_label_benchmark.py --data issues.jsonl --sizes 8 64 --seeds 1 2
    accelerate launch recipes/few_label_benchmark.py --methods naive_bayes fine_tuning \\
        --method_flags "fine_tuning: --num_train_epochs 4"
    accelerate launch recipes/few_label_benchmark.py --data issues.jsonl --methods tfidf pet \\
        --method_flags "pet: --masked_model outputs/domain_adaptation --prompts my_prompts.yaml"

Data: as described in README.md; every method gets the same data flags. To continue a stopped
run, repeat the command: a finished cell (method, size, seed) is computed again only if its flags or
the data have changed. Every cell has a folder with a log in cells/.

By default (--protocol few) a method with n training texts sees n labelled texts, and no others
before the test. With --protocol chapter, settings are chosen on validation rows, as in that book:
figures are higher than a person with n labels can reach.

The run writes results.csv, learning_curves.png and README.md: F1 at each size, seconds, and the
recommendation, which is based on the validation set or, without one, on the test set.
`train_seconds` is the time of everything that depends on labels or training rows; `predict_seconds`
is the time to score all test texts, including their embedding (even if it was cached). Both depend
on the number of cells that run at the same time.

Expect on two CPU cores: most cells take a few seconds, a cell of fine-tuning one to ten minutes.
"""

import importlib.util
import shlex
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

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
from shared.methods import label_word_ids, read_prompt_templates
from shared.models import DEFAULT_MODEL, load_tokenizer, resolve_model
from shared.plots import plot_learning_curves
from shared.reports import Result, command_line, curves, report, result_rows


class Method(NamedTuple):
    """A script and its flags; it must accept --seed, --train_size, --output_dir and the data flags.

    `encoder`: it accepts --model and --max_length. `embeds`: its first cell caches the embeddings
    that the others need, so they wait for it. `uses_labels`: if false, one cell per seed serves
    all sizes. `prepare`: a command that runs once before the cells and leaves a model, which the
    flag `prepared` names; with that flag among --method_flags nothing is prepared. `package`: an
    optional package that it needs. `unlabelled`: it trains on unlabelled texts. `slow`: it reads
    each text with a large model. These three run only if they are named.
    """

    script: str
    flags: str = ""
    encoder: bool = True
    embeds: bool = False
    uses_labels: bool = True
    prepare: str = ""
    prepared: str = "--model"
    package: str = ""
    unlabelled: bool = False
    slow: bool = False


NAIVE_BAYES, LOOKUP = "recipes/naive_bayes.py", "recipes/embedding_lookup.py"
PROMPTS = "recipes/prompts.py"
HELD_OUT = "--evaluate held_out --refit false"  # all methods are tested on the same rows
METHODS = {
    "label_names": Method("recipes/zero_shot.py", "--method embedding", uses_labels=False),
    "zero_shot_nli": Method(
        "recipes/zero_shot.py", "--method nli", encoder=False, uses_labels=False
    ),
    "zero_shot_prompts": Method(PROMPTS, encoder=False, uses_labels=False, slow=True),
    "few_shot_prompts": Method(PROMPTS, "--method few_shot", encoder=False, slow=True),
    "naive_bayes": Method(NAIVE_BAYES, HELD_OUT, encoder=False),
    "augmented_naive_bayes": Method(
        NAIVE_BAYES, f"--augment swap delete {HELD_OUT}", encoder=False
    ),
    "tfidf": Method(NAIVE_BAYES, f"--classifier logistic_regression {HELD_OUT}", encoder=False),
    "embedding_lookup": Method(LOOKUP, HELD_OUT, embeds=True),
    "embedding_probe": Method(LOOKUP, f"--head logistic {HELD_OUT}", embeds=True),
    "few_label_probe": Method("recipes/few_label_probe.py", HELD_OUT, embeds=True),
    "static_probe": Method(
        "recipes/few_label_probe.py", f"--encoder static {HELD_OUT}", embeds=True
    ),
    "fine_tuning": Method("recipes/github_tagger.py"),
    "augmented_fine_tuning": Method("recipes/augmentation.py"),
    "adapted_fine_tuning": Method(
        "recipes/github_tagger.py", prepare="recipes/domain_adaptation.py"
    ),
    "co_training": Method("recipes/co_training.py", embeds=True, unlabelled=True),
    "uda": Method("recipes/uda.py", unlabelled=True),
    "self_training": Method("recipes/self_training.py", unlabelled=True),
    "pet": Method(
        "recipes/pet.py",
        prepare="recipes/domain_adaptation.py",
        prepared="--masked_model",
        unlabelled=True,
    ),
    "setfit": Method("tests/benchmarks/setfit_peer.py", package="setfit"),
}


PROTOCOLS = {
    "few": "Protocol few: a method with n training texts has seen n labelled texts.",
    "chapter": "Protocol chapter: settings were chosen on further, labelled validation texts.",
}


@dataclass
class BenchmarkArguments(SplitArguments):
    """The flags of this recipe; data flags are passed to every method."""

    methods: list[str] = flag(
        [name for name, m in METHODS.items() if not (m.package or m.unlabelled or m.slow)],
        f"Any of {', '.join(METHODS)} (default: all that need no further package, train on no "
        "unlabelled texts and prompt no language model).",
    )
    sizes: list[str] = flag(
        ["8", "16", "32", "64", "128", "all"],
        "Numbers of training rows; subsets are nested (default: 8 16 32 64 128 all).",
    )
    protocol: Literal["few", "chapter"] = flag(
        "few",
        "Labelled rows that methods may see: few: the training rows alone (as with --valid_size "
        "0); chapter: validation rows, too, which choose settings (default: few).",
    )
    seeds: list[int] = flag(
        [1, 2, 3], "Seeds of split, subsets and methods (default: 1 2 3).", least=0, below=2**32
    )
    method_flags: list[str] = flag(
        [],
        "Further flags of a method, each as 'METHOD: flags'; a model of pet or adapted_fine_tuning "
        "takes the place of the one that they would adapt (default: none).",
    )
    model: str | None = flag(None, "Encoder of all methods that use one (default: their own).")
    max_length: int | None = flag(
        None, "Tokens per text for methods with an encoder (default: theirs).", least=1
    )
    jobs: int | None = flag(
        None, "Cells to run in parallel; 0: only report (default: by cores and memory).", least=0
    )
    keep_models: bool = flag(
        False, "Keep the weights of all cells, 90 MB each for the default encoder (default: false)."
    )
    output_dir: str = flag(
        "outputs/few_label_benchmark", "Output folder (default: outputs/few_label_benchmark)."
    )

    def __post_init__(self):
        self.methods, self.seeds = list(dict.fromkeys(self.methods)), sorted({*self.seeds})
        if wrong := [size for size in self.sizes if size != "all" and not size.isdecimal()]:
            raise UserError(f"--sizes {wrong[0]}: must be a number of rows, or all")
        self.sizes = sorted({*self.sizes}, key=lambda size: float(size.replace("all", "inf")))
        for name in ("train_size", "train_per_label"):
            if getattr(self, name) is not None:
                raise UserError(f"--{name}: give the numbers of training rows with --sizes")
        if self.protocol == "few":
            if self.valid_data is not None:
                raise UserError("--valid_data: no validation rows with --protocol few")
            self.valid_size = 0.0
        self.more_flags = {}
        for text in self.method_flags:
            name, colon, flags = text.partition(":")
            if not colon or name not in METHODS:
                raise UserError(f"--method_flags {text!r}: must be 'METHOD: flags'")
            self.more_flags[name] = shlex.split(flags)
        for name in self.methods:
            if name not in METHODS:
                raise UserError(f"--methods {name}: there are {', '.join(METHODS)}")
            package = METHODS[name].package
            if package and importlib.util.find_spec(package) is None:
                install = f"pip install -c constraints.txt '.[{package}]'"
                raise UserError(f"--methods {name}: first {install}")


def main() -> None:
    """Load and check the data, run the cells that are not finished, report on all cells."""
    args = parse_arguments(BenchmarkArguments, description=__doc__)
    if not is_main_process():
        return  # one process starts all others
    output_dir = start_recipe(args)

    # Prepare the data here, once: all cells then read it from the cache, and mistakes in data or
    # flags stop the run before any training.
    corpus, held_out = load_corpus(args)
    splits = (split_corpus(corpus, held_out, args, seed=seed) for seed in args.seeds)
    pools = [len(split.labels["train"]) for split in splits]
    for size in args.sizes:
        if size != "all" and not 0 < int(size) <= min(pools):
            raise UserError(f"--sizes {size}: the pool has {min(pools)} training rows")
    for name in args.methods.copy():
        if len(corpus.unlabelled):
            break
        method, purpose = METHODS[name], ""
        if is_prepared(name, args):
            purpose = (
                f"adapt a model to; name one: --method_flags '{name}: {method.prepared} MODEL'"
            )
        elif method.unlabelled and "all" in args.sizes:
            # Rows that a smaller training set leaves out count as unlabelled.
            purpose = "train on"
        if purpose:
            print(f"\nnote: {name} is left out: {args.data} has no unlabelled texts to {purpose}")
            args.methods.remove(name)
    if "pet" in args.methods and args.jobs != 0:
        check_pet_words(args, corpus.label_names)
    data = tuple(source.fingerprint for source in (corpus, *held_out.values()))

    # One cell per method, size and seed. Preparations run first; finished cells are not run again.
    cells = grid(args, output_dir / "cells", data)
    preparations = [cell.after for cell in cells.values() if cell.needs_it]
    all_cells = dict.fromkeys([*preparations, *cells.values()])
    to_run = [cell for cell in all_cells if not cell.finished]
    print(f"\n{len(all_cells)} cells, {len(all_cells) - len(to_run)} of them finished before")
    n_failed = 0
    if args.jobs != 0:
        n_failed = run_jobs(to_run, n_parallel=args.jobs, keep_models=args.keep_models)

    # Report on all finished cells, those of earlier runs included.
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
            f"{n_failed} of {len(all_cells)} cells failed, named above; see their log.txt; repeat "
            "the command to run only these again"
        )


def is_prepared(name: str, args: BenchmarkArguments) -> bool:
    """Return whether a method needs its preparation: further flags may name another model."""
    method, words = METHODS[name], args.more_flags.get(name, [])
    return bool(method.prepare) and method.prepared not in [w.split("=")[0] for w in words]


def check_pet_words(args: BenchmarkArguments, label_names: Sequence[str]) -> None:
    """Raise a UserError for words that pet would refuse, but only after its preparation."""
    parser = ArgumentParser(allow_abbrev=False)
    model = args.model or DEFAULT_MODEL
    parser.add_argument("--masked_model", nargs="?", default=model, const=model)
    parser.add_argument("--prompts", nargs="?")
    flags, _ = parser.parse_known_args(args.more_flags.get("pet", []))
    try:
        prompts = read_prompt_templates(flags.prompts, label_names, "{mask}", ["{text} {mask}"])
        tokenizer = load_tokenizer(resolve_model(flags.masked_model, flag="masked_model"))
        label_word_ids(tokenizer, prompts, label_names)
    except UserError as error:
        raise UserError(f"--method_flags 'pet: --prompts FILE': {error}") from error


def grid(args: BenchmarkArguments, folder: Path, data: tuple) -> dict[tuple[str, str, int], Job]:
    """Return the cell of every (method, size, seed), in the order to run them."""
    cells, first_to_embed, embedding_method = {}, None, None
    for name in args.methods:
        method, preparation = METHODS[name], None
        common = command_flags(args, SplitArguments)
        if method.encoder:
            common += [f"--model={args.model}"] if args.model else []
            common += [f"--max_length={args.max_length}"] if args.max_length else []
        if method.unlabelled:
            common.append(f"--valid_size={args.valid_size}")  # its own default is 0
        if is_prepared(name, args):
            command = (*shlex.split(method.prepare), *common)
            preparation = Job(f"{name}, preparation", folder / name / "prepared", command, data)
        if not method.package:  # a recipe, not a peer
            common.append("--tag_unlabelled=0")
        common += [method.prepared, str(preparation.folder)] if preparation else []
        common += [*shlex.split(method.flags), *args.more_flags.get(name, [])]
        for size, seed in product(args.sizes, args.seeds):
            subset = size if method.uses_labels else "no_labels"
            command = [method.script, *common, f"--seed={seed}"]
            if method.uses_labels and size != "all":
                command.append(f"--train_size={size}")
            cells[name, size, seed] = cell = Job(
                f"{name}, {subset.replace('_', ' ')}, seed {seed}",
                folder / name / subset / str(seed),
                tuple(command),
                data,
                after=preparation or (first_to_embed if method.embeds else None),
                needs_it=preparation is not None,
            )
            # A method that embeds waits for the first cell of the previous one, its other cells
            # for its own first cell: no text is embedded twice at the same time.
            if method.embeds and embedding_method != name:
                first_to_embed, embedding_method = cell, name
    return cells


def write_report(output_dir: Path, results, args, n_rows: Sequence[int], data: str) -> None:
    """Write results.csv, learning_curves.png and README.md; print the tables."""
    write_csv(output_dir / "results.csv", result_rows(results))
    flat = [name for name in args.methods if not METHODS[name].uses_labels]  # drawn as one line
    lines = curves(results, args.sizes)
    plot_learning_curves(lines, n_rows, output_dir / "learning_curves.png", flat=flat)
    tables = report(results, args.sizes)
    with atomic_write(output_dir / "README.md") as file:
        file.write(
            f"# Methods by number of labels\n\n{date.today()}, {machine()}. Mean ± standard "
            f"deviation over seeds {', '.join(map(str, args.seeds))}. "
            f"{PROTOCOLS[args.protocol]}\n\n"
            f"```bash\n{command_line()}\n```\n\n![F1 by training size](learning_curves.png)\n\n"
            f"{tables}\n## Data\n\n```\n{data}\n```\n"
        )
    print(f"\n{tables}\nEverything is in {output_dir}:")
    print("README.md (these tables), results.csv, learning_curves.png and cells/.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
