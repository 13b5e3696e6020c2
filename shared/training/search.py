"""Hyper-parameter search: trials of a recipe, what they score, and the best of them.

A trial is one run of a recipe with flags of the ranges. Its score comes from validation rows or
from out-of-fold predictions, never from test rows: the best of many test scores is no estimate of
anything.

Sources: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (the sampler, TPE);
Golovin et al. 2017, "Google Vizier: A Service for Black-Box Optimization", section 3.2.2 (the
median rule for stopping); Hutter et al. 2014, "An Efficient Approach for Assessing Hyperparameter
Importance" (fANOVA).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from shared.cli.errors import UserError
from shared.cli.files import expand_path
from shared.cli.jobs import (
    STOPPED,
    Job,
    completed_jobs,
    continued_by_same_command,
    jobs_and_threads,
)
from shared.training.search_ranges import shown_value, value_flags

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

FIRST_TRIALS = 5  # drawn at random; no trial is stopped before as many have ended
LEAST_TRIALS_FOR_IMPORTANCE = 8


class Objective(NamedTuple):
    """What a search maximises or minimises.

    Attributes
    ----------
    metric : str
        Name of a metric of ``metrics.json`` without its part, such as "micro_f1".
    direction : whether a higher or a lower score is better.
    """

    metric: str
    direction: Literal["maximize", "minimize"]

    def score(self, metrics: Mapping[str, Any]) -> float:
        """Return the score of a finished run: on its validation rows or out of its folds.

        Raises
        ------
        UserError
            If the run has no such score, or it is not a finite number.
        """
        # A cross-validation tests each labelled row by a model that has not seen it.
        out_of_fold = metrics.get("split") == "cross_validation"
        for part in ("valid", "oof", *(["test"] if out_of_fold else [])):
            value = metrics.get(f"{part}_{self.metric}")
            if isinstance(value, (int, float)) and math.isfinite(value):
                return float(value)
        parts = [name.split("_", 1) for name in metrics if name.startswith(("valid_", "oof_"))]
        names = ", ".join(sorted({name for _, name in parts})) or (
            "none: the recipe needs validation rows or a cross-validation"
        )
        raise UserError(f"--metric {self.metric}: the recipe gives no such score; it has {names}")

    def best_so_far(self, folder: Path) -> dict[int, float]:
        """Return the best score of a running training up to the end of each epoch.

        The scores are those that the Trainer saves with each checkpoint. A run without an
        evaluation per epoch has none.

        Parameters
        ----------
        folder : Path
            Output folder of the run.
        """
        states = sorted(
            folder.glob("checkpoint-*/trainer_state.json"),
            key=lambda path: int(path.parent.name.rpartition("-")[2]),
        )
        log: list[dict[str, Any]] = []
        with contextlib.suppress(OSError, ValueError, IndexError):  # one that is being written
            log = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"]
        choose, best, scores = max if self.direction == "maximize" else min, None, {}
        for entry in log:
            value, epoch = entry.get(f"eval_{self.metric}"), entry.get("epoch", 0)
            if value is None or not math.isfinite(value):
                continue
            best = value if best is None else choose(best, value)
            if abs(epoch - round(epoch)) < 0.01:
                scores[round(epoch)] = best
        return scores


@dataclass(frozen=True)
class SearchOutcome:
    """What a search has tried.

    Attributes
    ----------
    trials : list of dict
        One for each trial, the best first: "trial" (its number), "state" ("complete", "stopped" or
        "failed"), "score" (None unless complete), "test" (the same metric of the test rows, None if
        there are none), "seconds", and "values" (flag to value).
    defaults : dict
        "score" and "test" of the recipe with its own defaults.
    importances : dict of flag to float
        Share of the variance of the scores that the flag explains; empty if there are too few
        trials to tell.
    winner : Path or None
        Folder of the winner that was run once more.
    """

    trials: list[dict[str, Any]]
    defaults: dict[str, Any]
    importances: dict[str, float]
    winner: Path | None

    @property
    def best(self) -> dict[str, Any]:
        """The best trial."""
        return self.trials[0]


@dataclass(frozen=True)
class Search:
    """A search over the flags of one recipe on one set of rows.

    Attributes
    ----------
    script : str
        The recipe, such as ``recipes/naive_bayes.py``.
    known : set of str
        The names of its flags.
    flags : list of str
        Flags of all runs.
    ranges : dict of flag to range, from `read_ranges`.
    objective : Objective
    folder : Path
        Receives a folder for each run, and ``search.journal`` with what was tried.
    n_trials : int
        Trials in all, those of earlier runs included.
    seed : int
        Of the sampler.
    stop_early : bool
        Whether to stop trainings that are worse than the median of earlier ones.
    n_parallel : int, optional
        Runs at a time; see `jobs_and_threads`.
    """

    script: str
    known: frozenset[str]
    flags: list[str]
    ranges: dict[str, BaseDistribution]
    objective: Objective
    folder: Path
    n_trials: int
    seed: int
    stop_early: bool = True
    n_parallel: int | None = None
    _trials: dict[str, Trial] = field(default_factory=dict)  # by the name of their job

    def run(self, *, run_winner: bool) -> SearchOutcome:
        """Run the recipe's own defaults, the trials that are missing and, if wanted, the winner.

        Trials that an earlier run has begun go on first. Ctrl-C or SIGTERM ends the process with a
        line that says how to continue.

        Raises
        ------
        UserError
            If the recipe fails with its defaults, if no trial succeeds, or as `Objective.score`.
        """
        study, defaults = self._study, self._job("defaults")
        n_parallel, threads = jobs_and_threads(self.n_parallel)
        print(f"{self.n_trials} trials, {n_parallel} at a time, {threads} threads each")
        for trial in self._begun():
            self._trials[f"trial_{trial.number}"] = trial
        to_run = [] if defaults.finished else [defaults]
        for trial in self._trials.values():
            job = self._trial_job(trial)
            if job.finished:  # the earlier run ended before it could note this
                self._note(job, trial.user_attrs.get("seconds", 0.0), None)
            else:
                to_run.append(job)
        ended_before = self._n_ended()
        if ended_before:
            print(f"{ended_before} trials have ended before")
        started, n_new = time.perf_counter(), 0
        completed = completed_jobs(
            to_run, n_parallel, threads, next_job=self._next, is_hopeless=self._is_hopeless
        )
        with continued_by_same_command(completed):
            for job, seconds, failure in completed:
                line = self._note(job, seconds, failure)
                n_new += job.name != "defaults"
                minutes = (time.perf_counter() - started) / 60
                left = minutes / max(n_new, 1) * (self.n_trials - self._n_ended())
                clock = f"({minutes:.1f} min, about {left:.1f} to go)"
                print(f"  {self._n_ended():3}/{self.n_trials}  {line}   {seconds:4.0f} s   {clock}")
        if not any(row["score"] is not None for row in self._rows()):
            raise UserError(f"no trial was successful; see {self.folder}/trial_*/log.txt")
        winner = None
        if run_winner:
            job = self._job("winner", study.best_trial.params)
            winner = job.folder
            if not job.finished:
                print("the winner once more, as a tagger to keep", flush=True)
                with continued_by_same_command(last := completed_jobs([job], 1, threads)):
                    for _, _, failure in last:
                        if failure:
                            raise UserError(f"the winner failed: {failure} ({winner}/log.txt)")
        return SearchOutcome(self._rows(), self._scores(defaults), self._importances(), winner)

    @cached_property
    def _study(self) -> Study:
        """The trials of this search in its journal, which optuna's own tools read, too."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        defaults = self._job("defaults")
        # With other flags, ranges or data it is another search.
        identity = repr((defaults.command, defaults.data, sorted(self.ranges.items()), self.seed))
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(self.folder / "search.journal"))),
            study_name=hashlib.sha256(identity.encode()).hexdigest()[:16],
            direction=self.objective.direction,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=FIRST_TRIALS),
            load_if_exists=True,
        )

    def _job(self, name: str, values: Mapping[str, Any] | None = None) -> Job:
        """Return a run of the recipe with these values; the winner learns from all rows."""
        common = {"refit": "true"} if name == "winner" else {"tag_unlabelled": "0"}
        words = [f"--{key}={value}" for key, value in common.items() if key in self.known]
        command = (self.script, *words, *self.flags, *value_flags(values or {}))
        # Other content of a file that a flag names makes another job.
        paths = [expand_path(word.rpartition("=")[2]) for word in self.flags]
        stats = [(path.name, path.stat()) for path in paths if path.is_file()]
        data = tuple(f"{file} {stat.st_size} {stat.st_mtime_ns}" for file, stat in stats)
        resumable = "resume_from_checkpoint" in self.known
        return Job(name, self.folder / name, command, data, resumable=resumable)

    def _trial_job(self, trial: Trial) -> Job:
        return self._job(f"trial_{trial.number}", trial.params)

    def _begun(self) -> list[Trial]:
        """Return the trials that an earlier run has begun and not ended."""
        from optuna.trial import Trial, TrialState

        begun = self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        return [Trial(self._study, trial._trial_id) for trial in begun]

    def _n_ended(self) -> int:
        return sum(t.state.is_finished() for t in self._study.get_trials(deepcopy=False))

    def _next(self) -> Job | None:
        """Return the job of a further trial, or None if there are enough."""
        import optuna

        # The random state depends on the seed and the number of the trial only, so that a search
        # that was stopped goes on as it would have. Trials that run count as bad ones
        # (constant_liar), so that those that run at the same time are not alike.
        while (n := len(self._study.get_trials(deepcopy=False))) < self.n_trials:
            self._study.sampler = optuna.samplers.TPESampler(
                seed=self.seed + n, n_startup_trials=FIRST_TRIALS, constant_liar=True
            )
            trial = self._study.ask(self.ranges)
            if not self._repeats_another(trial):
                self._trials[f"trial_{trial.number}"] = trial
                return self._trial_job(trial)
        return None

    def _repeats_another(self, trial: Trial) -> bool:
        """Return whether a trial has the values of an earlier one; if so, note the same scores."""
        for other in self._study.get_trials(deepcopy=False):
            if other.state.name == "COMPLETE" and other.params == trial.params:
                trial.set_user_attr("test", other.user_attrs["test"])
                trial.set_user_attr("seconds", 0.0)
                self._study.tell(trial, other.value)
                print(f"  trial_{trial.number} has the values of trial_{other.number}", flush=True)
                return True
        return False

    def _is_hopeless(self, job: Job) -> bool:
        """Return whether a running trial is worse than the median at the same epoch."""
        trial = self._trials.get(job.name)
        if not self.stop_early or trial is None:
            return False
        return self._report(trial, job) and trial.should_prune()

    def _report(self, trial: Trial, job: Job) -> bool:
        """Tell the study the scores of a training so far; return whether there are new ones."""
        scores = self.objective.best_so_far(job.folder)
        known = {*self._study.get_trials(deepcopy=False)[trial.number].intermediate_values}
        new = sorted(scores.keys() - known)
        for epoch in new:
            trial.report(scores[epoch], epoch)
        return bool(new)

    def _note(self, job: Job, seconds: float, failure: str | None) -> str:
        """Note the end of a run in the journal, remove its weights, return what to print."""
        from optuna.trial import TrialState

        for weights in job.folder.rglob("*.safetensors"):
            weights.unlink()
        if job.name == "defaults":
            if failure:
                raise UserError(f"the recipe fails without a search: {failure}")
            return f"defaults   {self.objective.metric} {self._scores(job)['score']:.4g}"
        trial = self._trials[job.name]
        trial.set_user_attr("seconds", round(seconds, 1))
        values = ", ".join(f"{name} {shown_value(v)}" for name, v in trial.params.items())
        if failure:
            state = TrialState.PRUNED if failure == STOPPED else TrialState.FAIL
            self._study.tell(trial, state=state)
            place = "" if failure == STOPPED else f" ({job.folder}/log.txt)"
            return f"{job.name}   {failure}{place}   {values}"
        self._report(trial, job)
        score, test = self._scores(job).values()
        trial.set_user_attr("test", test)
        self._study.tell(trial, score)
        best = " (best)" if self._study.best_trial.number == trial.number else ""
        return f"{job.name}   {self.objective.metric} {score:.4g}{best}   {values}"

    def _scores(self, job: Job) -> dict[str, Any]:
        """Return the score of a finished run and the same metric on test rows, if it has these."""
        metrics = job.metrics()
        held_out = metrics.get("split") != "cross_validation"
        test = metrics.get(f"test_{self.objective.metric}") if held_out else None
        return {"score": self.objective.score(metrics), "test": test}

    def _rows(self) -> list[dict[str, Any]]:
        """Return all trials that have ended, the best first."""
        names = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}
        sign = -1 if self.objective.direction == "maximize" else 1
        rows = []
        for trial in self._study.get_trials(deepcopy=False):
            row = {"trial": trial.number, "state": names[trial.state.name], "score": None}
            if row["state"] == "complete":  # one that was stopped has its last score
                row["score"] = trial.value
            row |= {name: trial.user_attrs.get(name) for name in ("test", "seconds")}
            rows.append(row | {"values": trial.params})
        return sorted(
            rows, key=lambda row: math.inf if row["score"] is None else sign * row["score"]
        )

    def _importances(self) -> dict[str, float]:
        """Return the share of the variance of the scores that each flag explains."""
        import optuna

        scores = [row["score"] for row in self._rows() if row["score"] is not None]
        if len(scores) < LEAST_TRIALS_FOR_IMPORTANCE or len({*scores}) == 1:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        return optuna.importance.get_param_importances(self._study, evaluator=evaluator)
