"""What strategies of active learning save: learning curves, and tables beside random choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write, write_csv
from shared.cli.launch import machine
from shared.plots.learning_curves import plot_learning_curves
from shared.reports.cards import command_line

if TYPE_CHECKING:
    from shared.methods.active_learning import Round

BASELINE = "random"
SIZES_SHOWN = 6  # columns of the table
_EXPLANATION = (
    "`labels for` is where the mean curve of a strategy first reaches the F1 of random choice with "
    "all labels; `saved` is the share of the labels that it does not need. `stable at` is where "
    "successive models agreed (mean kappa of three rounds at least .99), with the number of seeds."
)

# The rounds of each strategy and seed.
Simulations = Mapping[str, Mapping[int, Sequence["Round"]]]


def write_simulation(output_dir: Path, simulations: Simulations, data: str, setting: str) -> str:
    """Write ``results.csv``, ``learning_curves.png`` and ``README.md``; return the text to print.

    Parameters
    ----------
    output_dir : Path
    simulations : Simulations
    data : str
        Description of the data.
    setting : str
        What the seeds share, the end of a sentence that names them.
    """
    write_csv(output_dir / "results.csv", simulation_rows(simulations))
    by_seed = next(iter(simulations.values()))
    sizes = np.array([r.n_labels for r in next(iter(by_seed.values()))])
    curves = simulation_curves(simulations)
    plot_learning_curves(curves, sizes, output_dir / "learning_curves.png")
    tables = "\n\n".join(
        f"{metric.replace('_f1', '').capitalize()} F1\n\n{simulation_table(simulations, metric)}"
        for metric in ("macro_f1", "micro_f1")
    )
    with atomic_write(output_dir / "README.md") as file:
        file.write(
            f"# What to label next\n\n{date.today()}, {machine()}. Mean ± standard deviation over "
            f"seeds {', '.join(map(str, by_seed))}, {setting}\n\n"
            f"```bash\n{command_line()}\n```\n\n![F1 by labels](learning_curves.png)\n\n"
            f"{tables}\n\n{_EXPLANATION}\n\n## Data\n\n```\n{data}\n```\n"
        )
    return (
        f"{tables}\n\n{_EXPLANATION}\n\nEverything is in {output_dir}:\n"
        "README.md (these tables), results.csv and learning_curves.png."
    )


def simulation_rows(simulations: Simulations) -> list[dict[str, Any]]:
    """Return one row per strategy, seed and number of labels, for a CSV file."""
    return [
        {
            **{"strategy": strategy, "seed": seed, "labels": r.n_labels},
            **{"micro_f1": round(r.micro_f1, 4), "macro_f1": round(r.macro_f1, 4)},
            **{"kappa": None if r.kappa is None else round(r.kappa, 4), "stable": r.stable},
        }
        for strategy, by_seed in simulations.items()
        for seed, rounds in by_seed.items()
        for r in rounds
    ]


def simulation_curves(
    simulations: Simulations,
) -> dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Return the mean and the standard deviation over seeds of each strategy, as arrays (sizes,).

    The form is that of `shared.plots.learning_curves.plot_learning_curves`.
    """
    curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for strategy, by_seed in simulations.items():
        curves[strategy] = {}
        for metric in ("micro_f1", "macro_f1"):
            values = np.array([[getattr(r, metric) for r in rounds] for rounds in by_seed.values()])
            spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
            curves[strategy][metric] = values.mean(axis=0), spread
    return curves


def simulation_table(simulations: Simulations, metric: str) -> str:
    """Return a Markdown table: F1 by number of labels, and the labels that each strategy needs.

    The last columns: how many labels a strategy needs, on its mean curve, for the F1 that random
    choice reaches with all of them; which share of the labels that saves; and where its successive
    models agreed (the mean over the seeds in which they did, and how many did).
    """
    from shared.methods.active_learning import labels_to_reach

    curves = simulation_curves(simulations)
    n_labels = [r.n_labels for r in next(iter(simulations[BASELINE].values()))]
    last = len(n_labels) - 1
    shown = np.unique(np.linspace(0, last, SIZES_SHOWN).round().astype(int))
    target = curves[BASELINE][metric][0][-1]
    head = [f"{n_labels[i]:,}" for i in shown]
    lines = [
        f"| strategy | {' | '.join(head)} | labels for {target:.3f} | saved | stable at |",
        f"|{'---|' * (len(head) + 4)}",
    ]
    for strategy, by_seed in simulations.items():
        mean, spread = curves[strategy][metric]
        cells = [f"{mean[i]:.3f} ± {spread[i]:.3f}" for i in shown]
        needed = labels_to_reach(n_labels, mean.tolist(), float(target))
        cells += (
            ["-", "-"] if needed is None else [f"{needed:.0f}", f"{1 - needed / n_labels[-1]:.0%}"]
        )
        stops = [stop for rounds in by_seed.values() if (stop := _stop(rounds)) is not None]
        cells.append(f"{np.mean(stops):.0f} ({len(stops)} of {len(by_seed)})" if stops else "-")
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _stop(rounds: Sequence[Round]) -> int | None:
    """Return the number of labels at which the models of a simulation became stable."""
    return next((r.n_labels for r in rounds if r.stable), None)
