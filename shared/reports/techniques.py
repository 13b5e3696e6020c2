"""The figures of settings of training, as tables, and whether they agree with their sources.

A *record* holds what one training gives; a `SettingResult` the records of one setting, one for each
seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write, write_csv
from shared.cli.launch import machine
from shared.plots.techniques import plot_layer_magnitudes, plot_setting_curves
from shared.reports.annotators import markdown_table
from shared.reports.cards import command_line
from shared.reports.techniques_page import write_techniques_page
from shared.training.fit import fit_points, judge_fit
from shared.training.techniques import CLAIMS, Claim

if TYPE_CHECKING:
    from shared.training.signals import LayerSignal

REACHED = 0.95  # share of the score of the defaults that counts as reached
MAGNITUDES = np.linspace(-10, 4, 57)  # edges of the histograms, powers of ten

# --- one training --------------------------------------------------------------------------------


def run_record(
    log_history: Sequence[Mapping[str, Any]],
    signals: Mapping[str, LayerSignal],
    *,
    score: str,
    problem: str | None,
    dead: float | None,
    uninformed: float,
) -> dict[str, Any]:
    """Return what is kept of a training, as JSON values.

    Parameters
    ----------
    log_history : sequence of mappings
        ``trainer.state.log_history``, with an entry for each step.
    signals : mapping of layer to LayerSignal
        Before the first step.
    score : str
        Key of the validation score in the log.
    problem : str, optional
        What was not finite, if the training diverged. It then has no figures of the end.
    dead : float, optional
        Share of the units that are dead after the training.
    uninformed : float
        Loss of uniform predictions.

    Returns
    -------
    dict
        ``curve`` (lists of ``step``, ``train``, ``valid``, ``score``, one entry per evaluation),
        the figures ``train_loss``, ``valid_loss``, ``score`` (of the last evaluation),
        ``lowest_valid_loss``, ``grad_norm`` (the largest before clipping), ``dead`` and
        ``signal_kept`` (the standard deviation of the last layer's activations over that of the
        first, or the reverse if it is above 1), ``fit`` (the state of `judge_fit`), ``signals``.
    """
    points = fit_points(log_history)
    evaluations = [entry for entry in log_history if "eval_loss" in entry][: len(points)]
    norms = [float(entry["grad_norm"]) for entry in log_history if "grad_norm" in entry]
    verdict = judge_fit(log_history, uninformed=uninformed)
    record: dict[str, Any] = {
        "problem": problem,
        "fit": "diverged" if problem else (verdict and verdict.state),
        "curve": {
            "step": [entry["step"] for entry in evaluations],
            "train": [_finite(point.train) for point in points],
            "valid": [_finite(point.valid) for point in points],
            "score": [entry.get(score) for entry in evaluations],
        },
        "grad_norm": _finite(max(norms, default=math.nan)),
        "dead": dead,
        "signal_kept": _signal_kept(signals),
        "signals": {
            layer: {
                "activations": _shape(signal.activations),
                "gradients": _shape(signal.gradients),
            }
            for layer, signal in signals.items()
        },
    }
    if problem is None and points:
        record |= {
            "train_loss": points[-1].train,
            "valid_loss": points[-1].valid,
            "lowest_valid_loss": min(point.valid for point in points),
            "score": evaluations[-1].get(score),
        }
    return record


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _signal_kept(signals: Mapping[str, LayerSignal]) -> float:
    sizes = [float(np.std(signal.activations)) for signal in signals.values()]
    if not sizes[0] or not sizes[-1]:
        return 0.0
    ratio = sizes[-1] / sizes[0]
    return min(ratio, 1 / ratio) if math.isfinite(ratio) else 0.0


def _shape(values: np.ndarray) -> dict[str, Any]:
    """Return standard deviation, share of zeros, and shares of magnitudes between `MAGNITUDES`."""
    sizes = np.abs(values[np.isfinite(values)].astype(np.float64))
    powers = np.log10(sizes[sizes > 0]).clip(MAGNITUDES[0], MAGNITUDES[-1])
    counts, _ = np.histogram(powers, bins=MAGNITUDES)
    return {
        "std": _finite(float(np.std(values))),
        "zeros": float(np.mean(sizes == 0)),
        "magnitudes": [round(float(count), 5) for count in counts / max(len(values), 1)],
    }


# --- one setting ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class SettingResult:
    """The records of a setting, one per seed.

    Attributes
    ----------
    technique, name : str
    records : sequence of mappings
        From `run_record`, in the order of the seeds.
    note : str
        What was chosen for this setting, such as its learning rate; may be empty.
    """

    technique: str
    name: str
    records: Sequence[Mapping[str, Any]]
    note: str = ""

    def values(self, figure: str, target: float = math.nan) -> np.ndarray:
        """Return a figure of each seed, (seeds,); NaN where there is none.

        ``steps`` are those until the score reaches `target`, infinite if it never does. A training
        that diverged has infinite losses and a score of minus infinity.
        """
        if figure == "steps":
            return np.array([_steps_until(record["curve"], target) for record in self.records])
        worst = {"train_loss": math.inf, "valid_loss": math.inf, "score": -math.inf}
        values = [
            record.get(figure) if not record["problem"] else worst.get(figure, record.get(figure))
            for record in self.records
        ]
        return np.array([math.nan if value is None else value for value in values], dtype=float)

    @property
    def fit(self) -> str:
        """The state of `judge_fit` that most of the seeds have."""
        states = [record["fit"] or "-" for record in self.records]
        return max(dict.fromkeys(states), key=states.count)

    def row(self, target: float) -> dict[str, Any]:
        """Return the row of the setting in a table."""
        steps = self.values("steps", target)
        reached = np.isfinite(steps)
        shown = f"{steps[reached].mean():,.0f}" if reached.any() else "never"
        if 0 < reached.sum() < len(steps):
            shown += f" ({reached.sum()} of {len(steps)} seeds)"
        dead = self.values("dead")
        return {
            "setting": self.name + (f" ({self.note})" if self.note else ""),
            "training loss": _spread(self.values("train_loss"), spread=False),
            "validation loss": _spread(self.values("valid_loss"), spread=False),
            "lowest": _spread(self.values("lowest_valid_loss"), spread=False),
            "score": _spread(self.values("score")),
            "steps to reach": shown,
            "largest gradient": _number(float(np.nanmax([*self.values("grad_norm"), -1.0]))),
            "dead units": "-" if np.isnan(dead).all() else f"{100 * np.nanmean(dead):.0f} %",
            "verdict": self.fit,
        }


def _steps_until(curve: Mapping[str, Sequence[Any]], target: float) -> float:
    for step, score in zip(curve["step"], curve["score"], strict=True):
        if score is not None and score >= target:
            return float(step)
    return math.inf


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.3g}"


def _spread(values: np.ndarray, *, spread: bool = True) -> str:
    """Return mean and, of several seeds, standard deviation; "diverged" and "-" where none is."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "-" if np.isnan(values).all() else "diverged"
    text = f"{finite.mean():.3f}"
    if spread and len(finite) > 1:
        text += f" ± {finite.std(ddof=1):.3f}"
    n_lost = int(np.isinf(values).sum())
    return text + (f" ({n_lost} of {len(values)} diverged)" if n_lost else "")


# --- what the sources say ------------------------------------------------------------------------


def check_claim(
    claim: Claim, better: SettingResult, worse: SettingResult, target: float
) -> dict[str, str]:
    """Compare a claim with the measurement: a row for a table.

    ``result`` is "agrees" or "contradicts" if the 95 % interval of the mean difference between the
    settings (Student's t over seeds, paired) excludes 0, else "no clear difference".
    """
    a, b = better.values(claim.figure, target), worse.values(claim.figure, target)
    sign = 1 if claim.direction == "lower" else -1
    with np.errstate(invalid="ignore"):
        differences = sign * (b - a)
    # Neither reached the target, or both diverged.
    differences[a == b] = 0.0
    figure = {"steps": "steps to reach", "grad_norm": "largest gradient"}
    name = figure.get(claim.figure, claim.figure.replace("_", " ").replace("train", "training"))
    name = name.replace("valid ", "validation ")
    return {
        "technique": claim.technique,
        "what the source says": claim.sentence,
        "source": claim.source,
        "measured": f"{name}: {better.name} {_shown(a)}, {worse.name} {_shown(b)}",
        "result": _result(differences),
    }


def _result(differences: np.ndarray) -> str:
    n, differences = len(differences), differences[~np.isnan(differences)]
    if not len(differences):
        return "not measured"
    if n < 2:
        return "one seed tells nothing"
    if np.isinf(differences).any():
        agrees, contradicts = (differences > 0).all(), (differences < 0).all()
    else:
        from scipy.stats import t

        margin = t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n)
        agrees, contradicts = differences.mean() > margin, differences.mean() < -margin
    return "agrees" if agrees else "contradicts" if contradicts else "no clear difference"


def _shown(values: np.ndarray) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "never" if (values == np.inf).any() else "diverged"
    mean = float(finite.mean())
    text = f"{mean:,.0f}" if mean >= 100 else f"{mean:.3g}" if mean < 0.01 else f"{mean:.3f}"
    return text if len(finite) == len(values) else f"{text} ({len(finite)} of {len(values)} seeds)"


# --- the report ----------------------------------------------------------------------------------


def write_techniques(
    output_dir: Path,
    default: SettingResult,
    results: Mapping[str, Sequence[SettingResult]],
    test: Mapping[str, Sequence[float]],
    *,
    score: str,
    data: str,
    seeds: Sequence[int],
    cache_dir: str | None,
) -> str:
    """Write tables, figures and pages; return the report to print.

    Parameters
    ----------
    output_dir : Path
        Receives ``README.md``, ``report.html``, ``results.csv``, ``claims.csv`` and ``plots/``.
    default : SettingResult
        Of the flags as they are, without a change.
    results : mapping of technique to sequence of SettingResult
    test : mapping of setting to test scores, one per seed
        Of the defaults and of the best setting.
    score : str
        What the score is.
    data : str
        Description of the data.
    seeds : sequence of int
    cache_dir : str, optional
        Of `shared.data.corpus.cache_folder`.
    """
    (output_dir / "plots").mkdir(exist_ok=True)
    finite = default.values("score")[np.isfinite(default.values("score"))]
    target = REACHED * float(finite.mean()) if len(finite) else math.inf
    tables = {name: [s.row(target) for s in settings] for name, settings in results.items()}
    by_name = {(s.technique, s.name): s for settings in results.values() for s in settings}
    claims = [
        check_claim(
            claim,
            by_name[claim.technique, claim.better],
            by_name[claim.technique, claim.worse],
            target,
        )
        for claim in CLAIMS
        if claim.technique in results
    ]
    curves = {name: setting_curves(settings) for name, settings in results.items()}
    for name, lines in curves.items():
        plot_setting_curves(lines, output_dir / "plots" / f"{name}.png", score=score, title=name)
    signals = {
        setting.name: setting.records[0]["signals"] for setting in results.get("initialisation", [])
    }
    if signals:
        path = output_dir / "plots" / "signals.png"
        plot_layer_magnitudes(signals, MAGNITUDES, path)

    rows = [{"technique": name, **row} for name, table in tables.items() for row in table]
    write_csv(output_dir / "results.csv", rows)
    columns = ("technique", "what the source says", "source", "measured", "result")
    write_csv(output_dir / "claims.csv", claims, columns)
    defaults = markdown_table([default.row(target)])
    facts = (
        f"{date.today()}, {machine()}. Means over seeds {', '.join(map(str, seeds))}. The score is "
        f"{score}. Figures are those of the validation set after the last step; lowest is the "
        f"lowest validation loss on the way. Steps are those until {REACHED:.0%} of the score of "
        f"the defaults ({target:.3f}); the largest gradient is the norm before clipping. The "
        "training loss includes dropout."
    )
    tested = markdown_table(
        [{"setting": name, "test score": _spread(np.array(v))} for name, v in test.items()]
    )
    note = (
        "The best setting was chosen among all by its validation score, which therefore flatters "
        "it; its test score does not."
    )
    text = "\n".join(
        [
            f"## What the sources say\n\n{markdown_table(claims)}\n",
            *(f"## {name}\n\n{markdown_table(table)}\n" for name, table in tables.items()),
            f"## Defaults\n\n{defaults}\n",
            f"## Test\n\n{note}\n\n{tested}\n",
        ]
    )
    pictures = text
    for name in tables:
        pictures = pictures.replace(
            f"## {name}\n", f"## {name}\n\n![Learning curves](plots/{name}.png)\n"
        )
    if signals:
        pictures = pictures.replace(
            "## initialisation\n", "## initialisation\n\n![Signals by layer](plots/signals.png)\n"
        )
    with atomic_write(output_dir / "README.md") as file:
        file.write(
            f"# Techniques of training, measured\n\n{facts}\n\n```bash\n{command_line()}\n```\n\n"
            f"{pictures}\n## Data\n\n```\n{data}\n```\n"
        )
    write_techniques_page(
        output_dir,
        facts=facts,
        note=note,
        claims=claims,
        tables=tables,
        default=default.row(target),
        test={name: _spread(np.array(v)) for name, v in test.items()},
        curves=curves,
        signals=signals,
        magnitudes=MAGNITUDES,
        score=score,
        cache_dir=cache_dir,
    )
    return text


def setting_curves(settings: Sequence[SettingResult]) -> dict[str, dict[str, list[float | None]]]:
    """Return for each setting ``step``, ``train``, ``valid`` and ``score``: means over the seeds.

    Seeds that diverged are left out; a setting without another one has empty lists.
    """
    curves = {}
    for setting in settings:
        records = [r["curve"] for r in setting.records if not r["problem"]]
        n_points = min((len(curve["step"]) for curve in records), default=0)
        lines: dict[str, list[float | None]] = {
            "step": list(records[0]["step"][:n_points]) if records else []
        }
        for name in ("train", "valid", "score"):
            values = np.array([curve[name][:n_points] for curve in records], dtype=float)
            means = values.mean(axis=0) if len(records) else []
            lines[name] = [_finite(float(value)) for value in means]
        curves[setting.name] = lines
    return curves
