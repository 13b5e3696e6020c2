"""Find the best tagger for your labels, fit it on all of them, and tag the rest.

Why: which method is best depends on the data and on the number of labels. This recipe runs the
candidates that fit the time on your labelled texts, each by cross-validation: every text is tested
by a classifier that has not seen it. It shows a table with intervals, takes the best method, or the
mean of two methods where that is better, fitted on all labelled texts, and tags the unlabelled
texts. One sentence says what was taken, and why.

    accelerate launch recipes/best.py --data issues.jsonl
    accelerate launch recipes/best.py --data issues.jsonl --minutes 120
    accelerate launch recipes/best.py --data issues.jsonl --candidates tfidf few_label_probe

Candidates: naive Bayes, TF-IDF with logistic regression (both recipes/naive_bayes.py), the probe
(recipes/few_label_probe.py), and fine-tuning (recipes/document_classification.py, the mean of the
models of all folds, each of which has learned from the other folds). Fine-tuning is left out if it
would take longer than the rest of --minutes; its time is estimated from that of the probe.

Data: as described in README.md, at least two labelled texts for each fold. To continue a
stopped run, repeat the command: a finished candidate is evaluated again only if its flags or the
data have changed. Every candidate has a folder with its own report in cells/.

The best of several figures is a little too high. For figures to publish, keep a test set that no
choice has seen, and score it once with recipes/tag.py.

Expect on two CPU cores: the sample (441 texts) takes three minutes without fine-tuning.
"""

import shlex
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Literal, NamedTuple

from shared.cli import (
    Job,
    UserError,
    command_flags,
    exit_on_user_error,
    flag,
    has_fast_bf16,
    is_main_process,
    parse_arguments,
    run_jobs,
    runs_on_cpu,
    start_recipe,
)
from shared.data import (
    DataArguments,
    TaggingArguments,
    cache_folder,
    cross_validation,
    load_corpus,
)
from shared.evaluation import calibrate
from shared.models import (
    DEFAULT_MODEL,
    TRUNCATION_SIDE_HELP,
    check_unknown_tokens,
    load_tokenizer,
    resolve_model,
)
from shared.reports import (
    Reasons,
    TaggerCard,
    candidates_table,
    choose_candidate,
    describe_output,
    mean_candidates,
    read_candidate,
    split_metrics,
    tag_unlabelled,
    write_results,
)
from shared.taggers import copy_tagger, load_tagger, read_tagger, save_mean

EPOCHS = 4  # of fine-tuning, in each fold


class Method(NamedTuple):
    """A recipe that writes out-of-fold predictions, and saves a tagger of all labelled texts.

    `length_flag`: its flag for the tokens per text, if it has an encoder. `trains`: it fine-tunes
    the encoder, which takes minutes or hours.
    """

    script: str
    flags: str
    length_flag: str = ""
    trains: bool = False
    predictions: str = "test_predictions.jsonl"


WORDS, FOLDS = "recipes/naive_bayes.py", "--evaluate cross_validation"
METHODS = {
    "naive_bayes": Method(WORDS, FOLDS),
    "tfidf": Method(WORDS, f"{FOLDS} --classifier logistic_regression"),
    "few_label_probe": Method("recipes/few_label_probe.py", FOLDS, "max_length"),
    "fine_tuning": Method(
        "recipes/document_classification.py",
        f"--max_windows 1 --stride 0 --num_train_epochs {EPOCHS}",
        "window",
        trains=True,
        predictions="oof_predictions.jsonl",
    ),
}


@dataclass
class BestArguments(TaggingArguments, DataArguments):
    """The flags of this recipe; data flags are passed to every candidate."""

    candidates: list[str] = flag(
        list(METHODS), f"Methods to try (default: all, {', '.join(METHODS)})."
    )
    minutes: float = flag(
        30.0,
        "Time for all candidates. Fine-tuning is left out if it would take longer, as far as the "
        "time of few_label_probe tells (default: 30).",
        above=0,
    )
    folds: int = flag(5, "Folds of the cross-validation (default: 5).", least=2)
    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    truncation_side: Literal["right", "left"] | None = flag(None, TRUNCATION_SIDE_HELP)
    seed: int = flag(42, "Random seed of the folds and of the methods (default: 42).")
    output_dir: str = flag("outputs/best", "Output folder (default: outputs/best).")

    def __post_init__(self):
        self.candidates = list(dict.fromkeys(self.candidates))
        if wrong := [name for name in self.candidates if name not in METHODS]:
            raise UserError(f"--candidates {wrong[0]}: there are {', '.join(METHODS)}")


def main() -> None:
    """Load and check the data, run the candidates, choose, save, tag the unlabelled texts."""
    args = parse_arguments(BestArguments, description=__doc__)
    if not is_main_process():
        return  # one process starts all others
    output_dir, started = start_recipe(args), perf_counter()

    # Prepare the data and the folds here, once: the candidates then read the data from the cache,
    # and mistakes in data or flags stop the run before any training.
    model_folder = resolve_model(args.model)
    corpus, _ = load_corpus(args)
    check_unknown_tokens(load_tokenizer(model_folder), corpus.dataset["text"])
    resampling = cross_validation(corpus, args.folds, seed=args.seed)
    split, names = resampling.tested, corpus.label_names

    def job(name):
        method = METHODS[name]
        common = [*command_flags(args, DataArguments), f"--folds={args.folds}"]
        common += [f"--seed={args.seed}", "--tag_unlabelled=0", f"--top_scores={len(names)}"]
        if method.length_flag:
            common += [f"--model={args.model}", f"--{method.length_flag}={args.max_length}"]
            side = args.truncation_side
            common += [f"--truncation_side={side}"] if side else []
        command = (method.script, *common, *shlex.split(method.flags))
        folder = output_dir / "cells" / name
        return Job(name, folder, command, (corpus.fingerprint,), resumable=method.trains)

    def run(jobs, n_parallel):
        to_run = [job for job in jobs if not job.finished]
        if to_run and run_jobs(to_run, n_parallel=n_parallel, keep_models=True):
            raise UserError("a candidate failed, named above; see its log.txt; then repeat")

    # First the fast candidates, side by side. The time that the probe took to read a text says how
    # long fine-tuning would take: an epoch reads a text forwards and backwards, about three times.
    fast = {name: job(name) for name in args.candidates if not METHODS[name].trains}
    slow = {name: job(name) for name in args.candidates if METHODS[name].trains}
    print(f"\nCandidates, each by cross-validation: {', '.join(args.candidates)}")
    run(fast.values(), None)
    finished = dict(fast)
    for name, candidate in slow.items():
        minutes, left = 0.0, args.minutes - (perf_counter() - started) / 60
        if "few_label_probe" in fast:
            probe = fast["few_label_probe"].metrics()
            per_text = probe["test_runtime"] / probe["test_samples"]
            reads = args.folds * (1 + 3 * EPOCHS * (1 - 1 / args.folds))
            minutes = per_text * reads * len(corpus.labelled) / 60
        if minutes > max(left, 0) and not candidate.finished:
            about = f"about {minutes:.0f} minutes, and {max(left, 0):.0f} are left"
            print(f"  {name} is left out: it takes {about}; see --minutes")
            continue
        run([candidate], 1)
        finished[name] = candidate

    # Compare the out-of-fold scores of all candidates, and of the mean of every two.
    options = {"rows": split.rows["test"]["row"][:], "labels": split.labels["test"]}
    singles = [
        read_candidate(
            name,
            cell.folder / METHODS[name].predictions,
            read_tagger(cell.folder).rule,
            label_names=names,
            **options,
        )
        for name, cell in finished.items()
    ]
    candidates = [*singles, *mean_candidates(singles)]
    best, reason = choose_candidate(candidates)

    # Save the best tagger; its recipe has fitted it on all labelled texts, or, for fine-tuning, on
    # those of each fold. Report, and tag the unlabelled texts.
    # The scores of a single method are calibrated already, so that its report needs thresholds
    # after calibration.
    calibrated, rule = None, best.rule
    if len(best.names) == 1:
        copy_tagger(finished[best.name].folder, output_dir)
        calibration = read_tagger(output_dir).calibration
        if calibration is not None and rule.thresholds:
            rule = replace(rule, thresholds=tuple(calibration.thresholds(rule.thresholds).tolist()))
    else:
        for name in best.names:
            copy_tagger(finished[name].folder, output_dir / name)
        calibration, calibrated = calibrate(
            *({"test": values} for values in (best.scores, best.predicted, best.labels)),
            single_label=corpus.single_label,
            fold_of=resampling.fold_of,
        )
        save_mean(output_dir, best.names, names, best.rule, calibration)
    comparison = f"{candidates_table(candidates, best)}\n\n{reason}"
    scores, predicted = {"valid": best.scores[:0]}, {"valid": best.predicted[:0]}
    scores["test"], predicted["test"] = best.scores, best.predicted
    metrics = split_metrics(split, scores, predicted) | {"seed": args.seed}
    explanation = resampling.explain()
    if any(METHODS[name].trains for name in best.names):
        explanation = replace(resampling, all_rows=None).explain()
        explanation += (
            " The tagger in this folder holds, for fine-tuning, the models of all folds; other "
            "methods in it were fitted on all labelled texts."
        )
    card = TaggerCard(args, evaluation=f"{explanation}\n\n{comparison}")
    options = {"card": card, "rule": rule, "top_scores": args.top_scores, "calibrated": calibrated}
    loading = {"bf16": has_fast_bf16(on_cpu=runs_on_cpu(use_cpu=False))}  # as the candidates
    tagger = load_tagger(output_dir, cache_dir=cache_folder(args.cache_dir), **loading)
    options |= {"reasons": Reasons(tagger, split)}
    report = write_results(output_dir, split, best.scores, best.predicted, metrics, **options)
    print(f"\n{best.name}, {resampling.title()}\n\n{report}\n\n{comparison}")
    tag_unlabelled(output_dir, corpus, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
