"""Fine-tune an encoder on long documents, with any head, judged by cross-validation.

Why: for texts longer than the model reads, and where a single split would say too little. Documents
are cut into overlapping windows; each window is trained with its document's labels, and what the
model makes of them is averaged. Every document is scored once, by the model of the fold that held
it out, beside two baselines on the same folds. --group_column holds out whole prompts, authors or
repositories, which says what to expect of a new one.

What to train (--freeze, --from_scratch):

                    texts like the encoder's own        another domain
    few labels      all: the head alone                 half of the layers: --freeze 3 of 6
    many labels     none: everything, the default       none, or --from_scratch with very many

    accelerate launch recipes/document_classification.py
    accelerate launch recipes/document_classification.py --data reviews.csv --group_column author \\
        --folds 5 --freeze 3 --pooling attention --n_layers 4 --layer_decay 0.9
    accelerate launch recipes/document_classification.py \\
        --config recipes/configs/documents_issues.yaml

Data: as for recipes/github_tagger.py. Texts of --test_data are scored by all folds, averaged.

A run that was stopped goes on with the same command and --resume_from_checkpoint true; finished
folds are kept. A fold trains on all rows of the others for --num_train_epochs and keeps the last
epoch; its threshold is tuned on the scores of the other folds, never on its own.

Expect on two CPU cores, default encoder: the sample, three folds of two epochs, in a few minutes; a
thousand windows of 256 tokens take about a minute per epoch and fold. With a few hundred documents,
four epochs or more (--num_train_epochs).
"""

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from transformers import AutoConfig, set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    folder_fingerprint,
    parse_arguments,
    print_once,
    result_flags,
    start_recipe,
)
from shared.data import DataArguments, cache_folder, load_corpus
from shared.evaluation import (
    assign_folds,
    describe_folds,
    join_folds,
    join_groups,
    make_folds,
    read_column,
    score_folds,
    sigmoid,
    softmax,
    tune_thresholds,
)
from shared.methods import (
    MeanPooling,
    WindowArguments,
    Windows,
    cached_vectors,
    fit_scorer,
    limit_windows,
    logistic_probe,
    normalized,
    tfidf_logistic_regression,
)
from shared.models import (
    DEFAULT_MODEL,
    HeadArguments,
    PooledForSequenceClassification,
    fit_head,
    head_settings,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import write_out_of_fold
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    ReadableProgress,
    TuningArguments,
    check_health,
    check_tuning,
    classification_loss,
    find_checkpoint,
    freeze,
    grouped_optimizer,
    regularizers,
    remove_checkpoints,
    unfreezing_callbacks,
)


@dataclass
class DocumentArguments(
    WindowArguments, HeadArguments, TuningArguments, DataArguments, EpochTrainingArguments
):
    """What this recipe adds to the Trainer's flags, and the defaults it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    folds: int = flag(3, "Parts, of which each is held out once (default: 3).")
    group_column: str | None = flag(
        None, "Column whose values are each held out as a whole, beside near duplicates."
    )
    test_data: str | None = flag(None, "File of test rows for all folds together (default: none).")
    from_scratch: bool = flag(False, "Start from random weights (default: false).")
    class_weight: Literal["none", "balanced"] = flag(
        "balanced", "Weight of labels or classes: alike, or more the rarer (default: balanced)."
    )
    focus: float = flag(0.0, "Power by which sure rows count less: focal loss (default: 0, off).")
    health_check: bool = flag(False, "Check data, model and rate, then stop (default: no).")
    # Defaults of transformers.TrainingArguments that suit a small encoder and few rows.
    output_dir: str = flag("outputs/documents", "Folder (default: outputs/documents).")
    num_train_epochs: float = flag(2, "Passes over the training windows (default: 2).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4; BERT-base and larger: 3e-5).")
    per_device_train_batch_size: int = flag(16, "Windows per step and device (default: 16).")
    per_device_eval_batch_size: int = flag(64, "Windows per evaluation batch (default: 64).")
    eval_strategy: str = flag("no", "Must stay: no rows are kept back.")
    load_best_model_at_end: bool = flag(False, "Must stay: a fold keeps its last epoch.")

    def __post_init__(self):
        if self.focus < 0:
            raise UserError(f"--focus {self.focus}: must be 0 or more")
        if str(self.resume_from_checkpoint or "false").lower() not in ("true", "false"):
            raise UserError("--resume_from_checkpoint: true or false; each fold finds its own")
        if self.eval_strategy != "no" or self.load_best_model_at_end:
            raise UserError(
                "--eval_strategy: no rows are kept back; every fold keeps its last epoch"
            )
        check_tuning(self)
        if self.from_scratch and self.freeze != "none":
            raise UserError("--from_scratch: random weights are not to be frozen; drop --freeze")
        self.head = head_settings(self)
        super().__post_init__()


def main() -> None:
    """Load, fold, cut into windows, train each fold, compare with baselines, save."""
    args = parse_arguments(DocumentArguments, description=__doc__)
    output_dir = start_recipe(args)
    corpus, held_out = load_corpus(args)
    names, single_label = corpus.label_names, corpus.single_label
    # "oof", out of fold, are the labelled rows that no test row repeats; "test" the held-out file's
    rows = corpus.labelled[~corpus.repeats([*held_out.values()])[corpus.labelled]]
    sources = {"oof": (corpus, rows)}
    sources |= {part: (other, other.labelled) for part, other in held_out.items()}
    documents = {part: source.dataset.select(rows) for part, (source, rows) in sources.items()}
    y = {part: source.label_matrix(rows) for part, (source, rows) in sources.items()}

    # Folds: near duplicates, and groups, on one side; every label in every fold as far as it can be
    groups = corpus.groups[rows]
    if args.group_column:
        groups = join_groups(groups, read_column(args, corpus, args.group_column)[rows])
    fold_of = assign_folds(y["oof"], args.folds, groups=groups, seed=args.seed)
    print_once(describe_folds(fold_of, y["oof"], names))
    model_folder = resolve_model(args.model)
    data = [source.fingerprint for source, _ in sources.values()] + [
        folder_fingerprint(model_folder)
    ]
    folds = make_folds(output_dir, fold_of, result_flags(args, DocumentArguments), data)
    to_train = [fold for fold in folds if args.health_check or not fold.finished]
    resume = args.resume_from_checkpoint
    checkpoints = {fold.number: find_checkpoint(str(fold.folder), resume) for fold in to_train}

    # Documents become windows; a window has the labels of its document
    tokenizer = load_tokenizer(model_folder)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_windows(tokenizer, encoder, args)
    cut = {"stride": args.stride, "max_windows": args.max_windows}
    with args.main_process_first(desc="tokenising"):
        windows = {k: Windows.of_texts(found, tokenizer, **cut) for k, found in documents.items()}
    for part, found in windows.items():
        print_once(f"{part}: {len(found.rows):,} windows of {len(y[part]):,} documents")
    collator = MultilabelCollator(tokenizer, len(names))
    kind = {"single_label": single_label, "balanced": args.class_weight == "balanced"}
    kind |= {"focus": args.focus, "label_smoothing": args.label_smoothing_factor}
    kind |= {"totals": y["oof"].sum(axis=0)}
    losses = [
        classification_loss(y["oof"][fold_of != fold.number], names, **kind) for fold in folds
    ]

    # Train the folds that are not finished
    head = args.head | {
        "problem_type": f"{'single' if single_label else 'multi'}_label_classification"
    }
    for fold in to_train:
        print_once(f"\nFold {fold.number} of {args.folds}")
        set_seed(args.seed)
        below = type(encoder)(encoder.config) if args.from_scratch else copy.deepcopy(encoder)
        model = PooledForSequenceClassification.from_encoder(below, names, **head)
        model.config.one_label_each = single_label
        model.config.windows = {**cut, "pooling": args.window_pooling}
        n_trained = freeze(model, args.freeze)
        print_once(f"{n_trained:,} of {model.num_parameters():,} parameters train")
        tokens = windows["oof"].of(fold_of != fold.number).rows
        loss = losses[fold.number]
        if not (args.from_scratch or args.health_check or checkpoints[fold.number]):
            start = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, tokens, collator, loss, **start)
        trainer = LengthGroupedTrainer(
            model=model,
            args=replace(args, output_dir=str(fold.folder)),
            train_dataset=tokens,
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            optimizer_cls_and_kwargs=grouped_optimizer(args, model),
            callbacks=[
                CheckpointOnSignal(),
                ReadableProgress(),
                *unfreezing_callbacks(args.freeze),
            ],
            **regularizers(args),
        )
        if args.health_check:
            counts = dict(zip(names, y["oof"][fold_of != fold.number].sum(axis=0), strict=True))
            most = args.max_windows and args.max_windows * tokenizer.model_max_length
            check_health(trainer, most, lengths=windows["oof"].tokens, label_counts=counts)
            return
        trainer.train(resume_from_checkpoint=checkpoints[fold.number])
        to_score = windows | {"oof": windows["oof"].of(fold_of == fold.number)}
        logits = {k: found.predict(trainer, args.window_pooling) for k, found in to_score.items()}
        trainer.save_model()
        if args.process_index == 0:
            fold.save(**{k: (softmax if single_label else sigmoid)(z) for k, z in logits.items()})
            remove_checkpoints(str(fold.folder))

    # Baselines on the same folds: words, and the vectors of the encoder as it comes
    embedder = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=collator,
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    texts = {part: np.array(found["text"][:], dtype=object) for part, found in documents.items()}
    settings = (args.window, cut, args.bf16)
    vectors = {}
    for part, found in windows.items():
        compute = partial(found.predict, embedder)
        known = cached_vectors(
            texts[part], model_folder, settings, cache_folder(args.cache_dir), compute
        )
        vectors[part] = normalized(known[0])
    if args.process_index != 0:
        return
    scores = {"model": join_folds([fold.scores() for fold in folds], fold_of)}
    baselines = {"tfidf": (tfidf_logistic_regression, texts), "frozen": (logistic_probe, vectors)}
    for method, (pipeline, inputs) in baselines.items():
        of_folds = score_folds(partial(fit_scorer, pipeline()), inputs, y["oof"], fold_of)
        scores[method] = join_folds(of_folds, fold_of)

    # The models get the threshold that all out-of-fold scores together suggest
    if not single_label:
        thresholds = tune_thresholds(scores["model"]["oof"], y["oof"], tolerance=2)
        for fold in folds:
            config = AutoConfig.from_pretrained(fold.folder)
            config.update({"thresholds": thresholds.tolist()})
            config.save_pretrained(fold.folder)
    report = write_out_of_fold(
        output_dir,
        corpus=corpus,
        documents=documents,
        labels=y,
        fold_of=fold_of,
        scores=scores,
        settings={"folds": args.folds, "seed": args.seed},
    )
    print(f"\n{report}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
