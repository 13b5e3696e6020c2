"""Choose the texts that a person should label next.

Why: labels cost hours, and not every text teaches the same. From labelled and unlabelled texts this
recipe chooses the next --batch of texts, which differ from each other, and says why it wants each
of them: many others resemble it, or it may have a rare label. It also works from no label at all,
and better with the names of the labels (--candidate_labels) or with a tagger (--model).

    accelerate launch recipes/label_next.py --data issues.jsonl --batch 20
    accelerate launch recipes/label_next.py --data texts.csv --candidate_labels bug question
    accelerate launch recipes/label_next.py --data labelled.json --unlabelled_data texts.csv
    accelerate launch recipes/label_next.py --data issues.jsonl --model my_tagger
    accelerate launch recipes/label_next.py --config recipes/configs/label_next_sample.yaml

Strategies (--strategy): `mix`, the default; `coverage`, `k_center` and `k_means`, which read no
labels; `entropy`, `margin`, `least_confidence` and `bald`, where a model doubts; `balance`, for
labels with few examples; `random`. See shared/methods/acquisition.py. The model is the few-label
probe, fitted in a fraction of a second on embeddings that are computed once; with --model, any
saved tagger.

Data: as described in README.md: rows of --data without labels are the texts to choose from, and
those of --unlabelled_data if it is given. Near duplicates of labelled texts are passed over.

Output: to_label.jsonl and to_label.csv, with suggested labels, strategy, score and reason, and an
empty `labels` to fill in (the file is then data for every recipe); label_studio.json and
label_studio.xml, tasks for Label Studio (1.23) with the suggested labels as predictions. After each
batch, repeat the command: agreement.json has the agreement of successive models, and the run says
when labelling more no longer changes what the model says (Bloodgood and Vijay-Shanker 2009).

--simulate asks what this saves on data that have labels: each strategy labels the training rows
from no label on, beside random choice, and is tested on rows that it never sees. It writes F1 by
labels and seed, the labels that each strategy needs for the F1 of random choice, and where it would
have stopped: results.csv, learning_curves.png and README.md.

Expect on one CPU core: after the embeddings (41 seconds for 1,000 texts of at most 256 tokens in
bfloat16), a batch from 50,000 texts takes seconds. With `mix`, 90 labels on issues of
huggingface/datasets and 85 on GoEmotions gave the macro F1 of 200 that were drawn at random.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import TrainingArguments

from shared.cli import (
    UserError,
    choose_precision,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    progress_bar,
    start_recipe,
)
from shared.data import (
    LabellingPool,
    SplitArguments,
    cache_folder,
    load_corpus,
    split_for_simulation,
)
from shared.methods import (
    STRATEGIES,
    BatchProbe,
    CachedEmbedder,
    MeanPooling,
    embed_names,
    simulate,
    simulation_tasks,
)
from shared.models import (
    DEFAULT_MODEL,
    TEXT_PREFIX_HELP,
    TRUNCATION_SIDE_HELP,
    check_unknown_tokens,
    choose_text_prefix,
    limit_length,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import (
    AgreementLog,
    batch_records,
    show_batch,
    write_batch,
    write_simulation,
)
from shared.taggers import load_known_labels, load_tagger, tagger_fingerprint
from shared.training import LengthGroupedTrainer, PaddingCollator, ReadableProgress

STRATEGY_NAMES = ", ".join(STRATEGIES)
PASSES = 10  # with dropout, of `bald` with --model
POOL_SHARE = 0.8  # of the training rows, from which a seed of --simulate chooses


@dataclass
class LabelNextArguments(SplitArguments, TrainingArguments):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    batch: int = flag(20, "Number of texts to label next (default: 20).", least=1)
    strategy: str = flag("mix", f"How to choose them: {STRATEGY_NAMES} (default: mix).")
    unlabelled_data: str | None = flag(
        None,
        "File with the texts to choose from, in the form of --data; its labels are not read "
        "(default: the rows of --data without a label).",
    )
    max_unlabelled: int = flag(
        50_000,
        "Maximum number of texts to choose from, drawn by --seed (default: 50,000).",
        least=1,
    )
    candidate_labels: list[str] | None = flag(
        None, "Names of all labels, also of those without a text (default: those of the data)."
    )
    descriptions: str | None = flag(
        None, "YAML file: label to phrase or phrases that replace its name (default: none)."
    )
    name_weight: float = flag(
        1.0,
        "Weight of a label's name as a labelled text; 0 if it has no meaning (default: 1).",
        least=0,
        most=1e6,
    )
    model: str | None = flag(
        None, "Folder of a tagger that scores the texts (default: a probe is fitted)."
    )
    encoder: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    text_prefix: str | None = flag(None, TEXT_PREFIX_HELP)
    max_length: int = flag(
        256, "Tokens per text; longer texts are truncated (default: 256).", least=1
    )
    truncation_side: Literal["right", "left"] | None = flag(None, TRUNCATION_SIDE_HELP)
    simulate: bool = flag(
        False, "Measure what the strategies save, on data with labels (default: false)."
    )
    strategies: list[str] = flag(
        ["mix", "coverage", "balance", "entropy", "k_means"],
        "Strategies that --simulate compares with random (default: mix coverage balance entropy "
        "k_means).",
    )
    labels: int = flag(200, "Labels up to which --simulate goes (default: 200).", least=1)
    seeds: list[int] = flag(
        [1, 2, 3],
        "Seeds of --simulate: split and strategies (default: 1 2 3).",
        least=0,
        below=2**32,
    )
    multilabel: bool | None = flag(
        None,
        "A text has any number of labels; false: exactly one (default: as the labelled rows; "
        "without any, as the tagger of --model, else true).",
    )
    valid_size: float = flag(0.0, "Must be 0: there is no validation set.", least=0, most=0)
    bf16: bool | None = flag(
        None,
        "Compute in bfloat16; false for exact figures (default: if the hardware supports it).",
    )
    per_device_eval_batch_size: int = flag(32, "Texts per batch and device (default: 32).")
    output_dir: str = flag("outputs/label_next", "Output folder (default: outputs/label_next).")

    def __post_init__(self):
        for name in [self.strategy, *self.strategies]:
            if name not in STRATEGIES:
                raise UserError(f"--strategy {name}: there are {', '.join(STRATEGIES)}")
        self.seeds = sorted({*self.seeds})
        self.candidate_labels = list(dict.fromkeys(self.candidate_labels or [])) or None
        for name in ("valid_data", "train_size", "train_per_label"):
            if getattr(self, name) is not None:
                raise UserError(f"--{name}: has no meaning here; remove it")
        if self.test_data and not self.simulate:
            raise UserError("--test_data: acts with --simulate; add it")
        for name in ("model", "unlabelled_data", "candidate_labels"):
            if self.simulate and getattr(self, name) is not None:
                raise UserError(
                    f"--{name}: --simulate takes texts and labels from --data; remove it"
                )
        if self.model and self.candidate_labels:
            raise UserError("--candidate_labels: the labels are those of --model; remove it")
        choose_precision(self)
        super().__post_init__()


def main() -> None:
    """Choose the next batch, or simulate what the strategies save."""
    args = parse_arguments(LabelNextArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.simulate:
        compare_strategies(args, output_dir)
    else:
        choose_next(args, output_dir)


def choose_next(args: LabelNextArguments, output_dir: Path) -> None:
    """Load, embed, score, choose, write the batch; compare the model with the one before."""
    # Load. A tagger brings the names of the labels.
    tagger = None
    if args.model:
        tagger = load_tagger(args.model, args, cache_dir=cache_folder(args.cache_dir))
        corpus, _ = load_known_labels(args, tagger, f"--model {args.model}")
    else:
        corpus, _ = load_corpus(args, label_names=args.candidate_labels, labels_required=False)
    pool = LabellingPool.of(corpus, args, seed=args.seed)
    names, y = corpus.label_names, pool.labels
    if args.batch > len(pool.candidates):
        raise UserError(
            f"--batch {args.batch}: there are {len(pool.candidates):,} texts to choose from; give "
            f"--batch {len(pool.candidates)}"
        )
    multilabel = args.multilabel
    if multilabel is None:
        multilabel = not corpus.single_label
        if not len(y):
            multilabel = tagger is None or tagger.rule.top_k != 1
    if not multilabel and not (y.sum(axis=1) == 1).all():
        raise UserError("--multilabel false: some labelled rows have several labels, or none")
    print_once(f"\nto choose from: {len(pool.candidates):,} texts; labelled: {len(y):,}")

    # Embed: the mean of the encoder's last hidden states. The Trainer only predicts here.
    embed = load_embedder(args, pool.texts)
    vectors = np.concatenate([embed(part) for part in pool.parts if part])
    embedded_names = embed_names(names, embed, args.descriptions, weight=args.name_weight)

    # Score: by the tagger, or by a probe on embeddings and words.
    probe = BatchProbe.of_texts(
        vectors, pool.texts, embedded_names, single_label=not multilabel, seed=args.seed
    )
    scores, rule = None, probe.rule
    if tagger is not None:
        scores, rule = tagger.scores(pool.texts), tagger.calibrated_rule
    elif names and probe.can_fit(y):
        scores = probe.scores(pool.labelled, y)
    if args.process_index != 0:
        return

    # Choose, and write what a person needs for it.
    options = {"scores": scores, "seed": args.seed}
    arguments = pool.labelled, y, pool.candidates, args.batch
    if STRATEGIES[args.strategy].needs and scores is None:
        raise UserError(
            f"--strategy {args.strategy}: needs labelled texts, or names of labels "
            "(--candidate_labels), or a tagger (--model); take coverage"
        )
    if args.strategy == "bald" and tagger is not None:
        try:
            texts = [pool.texts[i] for i in pool.candidates]
            committee = tagger.scorer.dropout_scores(texts, PASSES, seed=args.seed)
        except (AttributeError, ValueError):  # no trained model, or one without dropout
            raise UserError(
                "--strategy bald: the tagger of --model has no dropout; take entropy, or remove "
                "--model"
            ) from None
        options["committee"] = committee  # probabilities: (candidates, passes, labels)
    batch = probe.choose(args.strategy, *arguments, **options)
    rows = np.array(batch.rows)
    records = batch_records(
        batch,
        [pool.texts[row] for row in rows],
        pool.numbers[rows].tolist(),
        names,
        None if scores is None else scores[rows],
        rule,
        y.sum(axis=0, dtype=int),
    )
    model = "the probe" if tagger is None else args.model
    write_batch(output_dir, records, names, single_label=not multilabel, model=model)
    print(f"\n{show_batch(records)}")

    # Does labelling more still change what the model says?
    if scores is not None:
        log = AgreementLog(output_dir / "agreement.json", single_label=not multilabel)
        fitted_on = pool.fingerprint if tagger is None else tagger_fingerprint(args.model)
        with_labels = [[names[j] for j in np.flatnonzero(row)] for row in rule.choose(scores)]
        log.add(dict(zip(pool.texts, with_labels, strict=True)), len(y), fitted_on)
        print(f"\n{log.describe()}")
    print(f"\nEverything is in {output_dir}:")
    print("to_label.jsonl, to_label.csv, label_studio.json and label_studio.xml.")


def load_embedder(args: LabelNextArguments, texts: Sequence[str]) -> CachedEmbedder:
    """Return what embeds texts: the mean of the encoder's last hidden states, cached."""
    model_folder = resolve_model(args.encoder)
    prefix = choose_text_prefix(args.encoder, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix, args.truncation_side)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_length(tokenizer, encoder, args.max_length)
    check_unknown_tokens(tokenizer, texts)
    trainer = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=PaddingCollator(tokenizer),
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    return CachedEmbedder(trainer, tokenizer, model_folder, cache_folder(args.cache_dir))


def compare_strategies(args: LabelNextArguments, output_dir: Path) -> None:
    """For each seed, split, and label by each strategy; report."""
    strategies = list(dict.fromkeys(["random", *args.strategies]))
    sizes = range(args.batch, args.labels + 1, args.batch)
    if not sizes:
        raise UserError(f"--batch {args.batch}: is above --labels {args.labels}")
    corpus, held_out = load_corpus(args)
    splits, pools = split_for_simulation(corpus, held_out, args, share=POOL_SHARE)
    embed = load_embedder(args, corpus.dataset["text"])
    simulations = {strategy: {} for strategy in strategies}
    n_batches = len(args.seeds) * len(strategies) * len(sizes)
    with progress_bar("simulating", n_batches, unit="batches") as bar:
        for seed, task in simulation_tasks(corpus, splits, pools, embed, args):
            for strategy in strategies:
                choose = partial(task.probe.choose, strategy)
                options = {"sizes": sizes, "seed": seed, "on_round": bar.update}
                simulations[strategy][seed] = simulate(task, choose, **options)
    if args.process_index == 0:
        setting = f"each with a random {POOL_SHARE:.0%} of the training rows to choose from. "
        setting += f"Batches of {args.batch}."
        print(f"\n{write_simulation(output_dir, simulations, corpus.describe(), setting)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
