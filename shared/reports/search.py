"""The results of a hyper-parameter search: tables, a plot and the flags that won."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from shared.cli.files import atomic_write, write_csv
from shared.plots.search import plot_search
from shared.reports.cards import command_line
from shared.training.search_ranges import shown_value, value_flags

if TYPE_CHECKING:
    from shared.training.search import Objective, SearchOutcome

SHOWN_TRIALS = 10


def write_search(folder: Path, outcome: SearchOutcome, objective: Objective, script: str) -> str:
    """Write ``trials.csv``, ``search.png`` and ``README.md``; return what to print.

    Parameters
    ----------
    folder : Path
    outcome : SearchOutcome
    objective : Objective
    script : str
        The recipe that was run.
    """
    names = list(outcome.best["values"])
    rows = [
        {key: value for key, value in row.items() if key != "values"}
        | {name: shown_value(row["values"][name]) for name in names}
        for row in outcome.trials
    ]
    write_csv(folder / "trials.csv", rows)
    plot_search(outcome.trials, folder / "search.png", score=objective.metric)
    report = "\n\n".join(
        [
            _trials_table(outcome, objective),
            *([_importance_table(outcome.importances)] if outcome.importances else []),
            _verdict(outcome, objective),
        ]
    )
    best = shlex.join(value_flags(outcome.best["values"]))
    with atomic_write(folder / "README.md") as file:
        file.write(
            f"# Search of {script}\n\n```bash\n{command_line()}\n```\n\nThe best flags:\n\n"
            f"```bash\n{best}\n```\n\n{report}\n\n![Scores by value of each flag](search.png)\n"
        )
    tagger = f", {outcome.winner.name}/ (the winner)" if outcome.winner else ""
    files = f"Everything is in {folder}: README.md, trials.csv, search.png{tagger}."
    return f"{report}\n\nThe best flags: {best}\n{files}"


def write_nested_search(
    folder: Path, outcomes: Sequence[SearchOutcome], objective: Objective, script: str
) -> str:
    """Write ``README.md`` with the tests of the winner of each outer fold; return what to print.

    Parameters
    ----------
    folder : Path
    outcomes : sequence of SearchOutcome
        One for each outer fold; its trials have test scores.
    objective : Objective
    script : str
        The recipe that was run.
    """
    header = f"| outer fold | {objective.metric} of the winner | of the defaults | the flags |"
    lines = [header, "|---|---|---|---|"]
    pairs = [(outcome.best["test"], outcome.defaults["test"]) for outcome in outcomes]
    for n, (outcome, (winner, default)) in enumerate(zip(outcomes, pairs, strict=True), 1):
        flags = shlex.join(value_flags(outcome.best["values"]))
        lines.append(f"| {n} | {winner:.3f} | {default:.3f} | `{flags}` |")
    winners, defaults = zip(*pairs, strict=True)
    lines.append(f"| mean ± sd | {_spread(winners)} | {_spread(defaults)} | |")
    gains = [winner - default for winner, default in pairs]
    better = [gain > 0 if objective.direction == "maximize" else gain < 0 for gain in gains]
    table = "\n".join(lines)
    verdict = (
        f"On rows that it has not seen, what the search finds differs from the defaults by "
        f"{_spread(gains, sign='+')}; it is better in {sum(better)} of {len(better)} folds."
    )
    with atomic_write(folder / "README.md") as file:
        file.write(
            f"# Search of {script}, tested on outer folds\n\n```bash\n{command_line()}\n```\n\n"
            f"{table}\n\n{verdict}\n"
        )
    return f"{table}\n\n{verdict}\nEverything is in {folder}: README.md, and fold_*/ (searches)."


def _trials_table(outcome: SearchOutcome, objective: Objective) -> str:
    """Return the best trials and the defaults as Markdown."""
    names = list(outcome.best["values"])
    has_test = outcome.defaults["test"] is not None
    header = ["trial", objective.metric, *(["test"] if has_test else []), *names]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    complete = [row for row in outcome.trials if row["state"] == "complete"]
    for row in complete[:SHOWN_TRIALS]:
        # Only the winner's test score is shown, for it was chosen without it.
        test = [_score(row["test"]) if row is outcome.best else ""] if has_test else []
        values = [shown_value(row["values"][name]) for name in names]
        lines.append(f"| {' | '.join([str(row['trial']), _score(row['score']), *test, *values])} |")
    test = [_score(outcome.defaults["test"])] if has_test else []
    defaults = ["defaults", _score(outcome.defaults["score"]), *test, *([""] * len(names))]
    lines.append(f"| {' | '.join(defaults)} |")
    counts = {s: sum(row["state"] == s for row in outcome.trials) for s in ("stopped", "failed")}
    notes = [f"{count} {state}" for state, count in counts.items() if count]
    total = f"{len(outcome.trials)} trials" + (f", {' and '.join(notes)}" if notes else "")
    return "\n".join([*lines, "", f"{total}. All are in trials.csv."])


def _importance_table(importances: dict[str, float]) -> str:
    """Return how much of the variance of the scores each flag explains, as Markdown."""
    lines = ["| flag | share of the variance of the scores |", "|---|---|"]
    lines += [f"| {name} | {share:.2f} |" for name, share in importances.items()]
    return "\n".join(lines)


def _verdict(outcome: SearchOutcome, objective: Objective) -> str:
    """Return what the search has gained, in a sentence or two."""
    best, defaults = outcome.best["score"], outcome.defaults["score"]
    gain = best - defaults if objective.direction == "maximize" else defaults - best
    if gain <= 0:
        return "No trial is better than the defaults of the recipe: keep these."
    text = (
        f"The best trial is better than the defaults by {gain:.3f}, as far as the rows tell that "
        "chose it"
    )
    if outcome.best["test"] is None:
        return text + ", so that this gain is too high; --outer_folds measures it."
    tested = outcome.best["test"] - outcome.defaults["test"]
    return text + f"; on the test rows the difference is {tested:+.3f}."


def _score(value: Any) -> str:
    return f"{value:.4f}"


def _spread(values: Sequence[float], sign: str = "") -> str:
    """Return mean and standard deviation as text."""
    return f"{mean(values):{sign}.3f} ± {stdev(values):.3f}"
