"""Find the best tagger for your labels, fit it on all of them, and tag the rest.

Why: which method is best depends on the data and on the number of labels. This recipe runs the
candidates that fit the time on your labelled texts, each by cross-validation: every text is tested
by a classifier that has not seen it. It shows a table with intervals, takes the best method, or the
mean of two methods where that is better, fitted on all labelled texts, and tags the unlabelled
texts. One sentence says what was taken, and why.

    accelerate launch recipes/best.py --data issues.jsonl
    accelerate launch recipes/best.py --data issues.jsonl --minutes 120
    accelerate launch recipes/best.py --data issues.jsonl --candidates tfidf few_label_probe
    accelerate launch recipes/best.py --data issues.jsonl --split_time created_at

Candidates: naive Bayes, TF-IDF with logistic regression (both recipes/naive_bayes.py), the probe
(recipes/few_label_probe.py), and fine-tuning (recipes/document_classification.py, the mean of the
models of all folds, each of which has learned from the other folds). Fine-tuning is left out if it
would take longer than the rest of --minutes; its time is estimated from that of the probe.

Data: as described in README.md, at least two labelled texts for each fold. To continue a
stopped run, repeat the command: a finished candidate is evaluated again only if its flags or the
data have changed. Every candidate has a folder with its own report in cells/.

The best of several figures is a little too high. For figures to publish, hold out test rows that no
choice has seen: with --split_time the newest ones, with --split_by those of a column. Then all
candidates learn from the same training rows and are compared on the same validation rows; with
--split_time these are the newer ones. What is taken learns from both, fine-tuning from the training
rows alone, and is tested once on the test rows.

Expect on two CPU cores: the sample (441 texts) takes three minutes without fine-tuning.
"""

import shlex
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, NamedTuple

from shared.cli import (
    Job,
    UserError,
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
    ChoiceSplitArguments,
    DataArguments,
    Resampling,
    TaggingArguments,
    cache_folder,
    choose_by_column,
    choose_by_folds,
    cross_validation,
    load_corpus,
    split_for_choice,
)
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
    explain_choice,
    mean_candidates,
    read_candidate,
    save_candidate,
    scores_to_report,
    split_metrics,
    tag_unlabelled,
    write_results,
)
from shared.taggers import load_tagger, read_tagger

EPOCHS = 4  # of fine-tuning, in each fold


class Method(NamedTuple):
    """A recipe that writes predictions of texts it has not learned from, and saves a tagger.

    `length_flag`: its flag for the tokens per text, if it has an encoder. `trains`: it fine-tunes
    the encoder in folds, which takes minutes or hours; it has no flag --evaluate.
    """

    script: str
    flags: str = ""
    length_flag: str = ""
    trains: bool = False


METHODS = {
    "naive_bayes": Method("recipes/naive_bayes.py"),
    "tfidf": Method("recipes/naive_bayes.py", "--classifier logistic_regression"),
    "few_label_probe": Method("recipes/few_label_probe.py", length_flag="max_length"),
    "fine_tuning": Method(
        "recipes/document_classification.py",
        f"--max_windows 1 --stride 0 --num_train_epochs {EPOCHS}",
        "window",
        trains=True,
    ),
}


@dataclass
class BestArguments(TaggingArguments, ChoiceSplitArguments, DataArguments):
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

    # Prepare the data and the rows of the choice here, once: the candidates then read the data from
    # the cache, and mistakes in data or flags stop the run before any training.
    model_folder = resolve_model(args.model)
    corpus, _ = load_corpus(args)
    check_unknown_tokens(load_tokenizer(model_folder), corpus.dataset["text"])
    if args.split_by or args.split_time:
        split = split_for_choice(args, corpus, seed=args.seed)
        choice = choose_by_column(args, split, output_dir)
        resampling = Resampling(corpus, [split], None)
    else:
        resampling = cross_validation(corpus, args.folds, seed=args.seed)
        split, choice = resampling.tested, choose_by_folds(args, resampling)
    names = choice.label_names

    def job(name):
        method = METHODS[name]
        common = [*choice.flags, f"--seed={args.seed}", "--tag_unlabelled=0"]
        common += [f"--top_scores={len(names)}"]
        common += [f"--folds={args.folds}"] if method.trains else choice.evaluate
        if method.length_flag:
            common += [f"--model={args.model}", f"--{method.length_flag}={args.max_length}"]
            side = args.truncation_side
            common += [f"--truncation_side={side}"] if side else []
        command = (method.script, *common, *shlex.split(method.flags))
        folder = output_dir / "cells" / name
        return Job(name, folder, command, (choice.fingerprint,), resumable=method.trains)

    def run(jobs, n_parallel):
        to_run = [job for job in jobs if not job.finished]
        if to_run and run_jobs(to_run, n_parallel=n_parallel, keep_models=True):
            raise UserError("a candidate failed, named above; see its log.txt; then repeat")

    # First the fast candidates, side by side. The time that the probe took to read a text says how
    # long fine-tuning would take: an epoch reads a text forwards and backwards, about three times.
    fast = {name: job(name) for name in args.candidates if not METHODS[name].trains}
    slow = {name: job(name) for name in args.candidates if METHODS[name].trains}
    print(f"\nCandidates, {choice.title}: {', '.join(args.candidates)}")
    run(fast.values(), None)
    finished = dict(fast)
    for name, candidate in slow.items():
        minutes, left = 0.0, args.minutes - (perf_counter() - started) / 60
        if "few_label_probe" in fast:
            probe = fast["few_label_probe"].metrics()
            per_text = probe["test_runtime"] / probe["test_samples"]
            reads = args.folds * (1 + 3 * EPOCHS * (1 - 1 / args.folds))
            minutes = per_text * reads * choice.n_rows / 60
        if minutes > max(left, 0) and not candidate.finished:
            about = f"about {minutes:.0f} minutes, and {max(left, 0):.0f} are left"
            print(f"  {name} is left out: it takes {about}; see --minutes")
            continue
        run([candidate], 1)
        finished[name] = candidate

    # Compare what all candidates, and the mean of every two, say of the same rows.
    singles = []
    for name, cell in finished.items():
        in_folds = METHODS[name].trains and choice.fold_of is not None
        predictions = cell.folder / f"{'oof' if in_folds else 'test'}_predictions.jsonl"
        singles.append(read_candidate(name, predictions, read_tagger(cell.folder).rule, choice))
    candidates = [*singles, *mean_candidates(singles)]
    best, reason = choose_candidate(candidates, measured=choice.measured)

    # Save the best tagger, as its recipe has fitted it, and load it to apply it.
    folders = {name: cell.folder for name, cell in finished.items()}
    calibrated = save_candidate(output_dir, best, folders, choice, single_label=corpus.single_label)
    loading = {"bf16": has_fast_bf16(on_cpu=runs_on_cpu(use_cpu=False))}  # as the candidates
    tagger = load_tagger(output_dir, cache_dir=cache_folder(args.cache_dir), **loading)

    # Report what the choice was made on, or the test rows of a column; tag the unlabelled texts.
    scores, predicted, rule = scores_to_report(best, tagger, split, choice)
    comparison = f"{candidates_table(candidates, best)}\n\n{reason}"
    of_folds = any(METHODS[name].trains for name in best.names)
    explanation = f"{explain_choice(resampling, has_fold_models=of_folds)}\n\n{comparison}"
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        split_metrics(split, scores, predicted) | {"seed": args.seed},
        card=TaggerCard(args, evaluation=explanation),
        rule=rule,
        calibrated=calibrated,
        reasons=Reasons(tagger, split),
        top_scores=args.top_scores,
    )
    print(f"\n{best.name}, {resampling.title()}\n\n{report}\n\n{comparison}")
    tag_unlabelled(output_dir, corpus, args)
    print(f"\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
