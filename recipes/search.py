"""Search the flags of a recipe for better ones, in trials that learn from earlier ones.

Why: a learning rate or a number of epochs that suits one data set need not suit the next. Each
trial is a run of another recipe with values from your ranges: at first random ones, then more of
those near the best (TPE; Bergstra et al. 2011). A training that is worse than the median of earlier
ones after as many epochs is stopped. The winner is run once more as a tagger to keep, fitted on
all labelled rows if its recipe has --refit.

    accelerate launch recipes/search.py
    accelerate launch recipes/search.py --recipe github_tagger --data issues.jsonl \\
        --ranges recipes/configs/data/search_fine_tuning.yaml --trials 30
    accelerate launch recipes/search.py --data issues.jsonl --outer_folds 5

--ranges is a YAML file with a line for each flag to vary: a list of values, or numbers from low to
high, as learning_rate: {low: 1e-5, high: 1e-3, log: true}. All runs get the data flags of this
recipe, and those in --recipe.

Trials are compared by --metric on validation rows, or out of fold if the recipe cross-validates;
test rows choose nothing. The best of many scores is too high; the test score of the winner, which
is shown beside that of the recipe's own defaults, is not. With few labelled rows use --outer_folds
(nested cross-validation; Cawley and Talbot 2010): the search is repeated without each fold, and its
winner is tested on that fold. The mean of these tests says what the search is worth.

Data: as described in README.md; for recipes with other data, flags in --recipe. To continue a
stopped search, repeat the command; with more --trials it goes on. Every run has a folder with a
log.

Expect on two CPU cores: the default, twenty trials of naive Bayes on the sample, takes about two
minutes. On 1,500 real issues a search of fifteen trials raised the accuracy on rows that it had not
seen from .604 to .710 (three outer folds, recipes/FIGURES.md).
"""

import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from shared.cli import (
    UserError,
    command_flags,
    exit_on_user_error,
    expand_path,
    flag,
    is_main_process,
    parse_arguments,
    script_flags,
    start_recipe,
)
from shared.data import SplitArguments, write_outer_folds
from shared.reports import write_nested_search, write_search
from shared.training import Objective, Search, read_ranges

DEFAULT_RECIPE, RANGES = "recipes/naive_bayes.py", "recipes/configs/data/search_naive_bayes.yaml"


@dataclass
class SearchArguments(SplitArguments):
    """The flags of this recipe; data flags are passed to every run."""

    recipe: str = flag(
        Path(DEFAULT_RECIPE).stem,
        "Name of the recipe to run, with further flags for all runs in the same string: "
        "'github_tagger --num_train_epochs 3' (default: naive_bayes).",
    )
    ranges: str = flag(RANGES, f"YAML file with the flags to vary (default: {RANGES}).")
    metric: str = flag(
        "micro_f1",
        "What to compare trials by: a metric of metrics.json, without the valid_ or oof_ before it "
        "(default: micro_f1).",
    )
    direction: Literal["maximize", "minimize"] = flag(
        "maximize", "Whether a higher or a lower value is better (default: maximize)."
    )
    trials: int = flag(20, "Trials in all, those of earlier runs included (default: 20).", least=1)
    stop_early: bool = flag(
        True,
        "Stop a training that is worse than the median of earlier ones after as many epochs "
        "(default: true).",
    )
    outer_folds: int = flag(
        0,
        "Folds that test the search: it is repeated without each one, and its winner is tested on "
        "it (default: 0, one search).",
        least=0,
    )
    jobs: int | None = flag(None, "Runs at the same time (default: by cores and memory).", least=1)
    seed: int = flag(
        42, "Seed of the sampler, the outer folds and all runs (default: 42).", least=0
    )
    output_dir: str = flag("outputs/search", "Output folder (default: outputs/search).")

    def __post_init__(self):
        if self.outer_folds == 1:
            raise UserError("--outer_folds 1: must be 2 or more, or 0 for none")
        if self.outer_folds and (self.test_data or self.valid_data):
            raise UserError("--outer_folds: take rows of --data; remove --test_data, --valid_data")
        if self.outer_folds and (column := self.split_by or self.split_time):
            raise UserError(f"--outer_folds: are drawn; remove --split_by, --split_time {column}")
        try:
            self.recipe_name, *self.recipe_flags = shlex.split(self.recipe)
        except ValueError:
            raise UserError(f"--recipe {self.recipe!r}: must be 'NAME' or 'NAME flags'") from None


def main() -> None:
    """Read the ranges, search on all rows or without each outer fold, report."""
    args = parse_arguments(SearchArguments, description=__doc__)
    if not is_main_process():
        return  # one process starts all others
    if find_spec("optuna") is None:
        raise UserError("search needs optuna: pip install -c constraints.txt -e '.[search]'")
    script = f"recipes/{args.recipe_name}.py"
    known = script_flags(script)
    ranges = read_ranges(expand_path(args.ranges), known)
    objective = Objective(args.metric, args.direction)
    output_dir = start_recipe(args)

    def search(folder, data_flags, *, run_winner):
        flags = [*data_flags, f"--seed={args.seed}", *args.recipe_flags]
        runs = Search(
            script=script,
            known=known,
            flags=flags,
            ranges=ranges,
            objective=objective,
            folder=folder,
            n_trials=args.trials,
            seed=args.seed,
            stop_early=args.stop_early,
            n_parallel=args.jobs,
        )
        outcome = runs.run(run_winner=run_winner)
        return outcome, write_search(folder, outcome, objective, script)

    if not args.outer_folds:
        _, report = search(output_dir, command_flags(args, SplitArguments), run_winner=True)
        print(f"\n{report}")
        return

    # Nested cross-validation: no search sees the rows of the fold that tests it.
    outcomes = []
    folds = write_outer_folds(args, args.outer_folds, output_dir, seed=args.seed)
    for n, (train, test) in enumerate(folds, 1):
        print(f"\nOuter fold {n} of {args.outer_folds}")
        data_flags = [f"--data={train}", f"--test_data={test}", "--empty_labels=negative"]
        data_flags += [] if "valid_size" not in known else [f"--valid_size={args.valid_size}"]
        outcomes.append(search(train.parent, data_flags, run_winner=False)[0])
    print(f"\n{write_nested_search(output_dir, outcomes, objective, script)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
