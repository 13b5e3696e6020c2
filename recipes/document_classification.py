"""Fine-tune an encoder with any head on long documents, and evaluate it by cross-validation.

Why: the texts are longer than the model can read, or there are too few to trust a single split.
Documents are cut into overlapping windows. Each window is trained with the labels of its document,
and the logits of a document's windows are averaged. Every document is scored once, by the fold that
did not train on it, and two baselines are scored on the same folds. --group_column holds out whole
prompts, authors or repositories, so that the figures hold for new ones.

Which layers to train (--freeze, --from_scratch):

                    texts like those of the encoder     another domain
    few labels      all: train only the head            half of the layers: --freeze 3 of 6
    many labels     none: train everything (default)    none; with very many, --from_scratch

    accelerate launch recipes/document_classification.py
    accelerate launch recipes/document_classification.py --data reviews.csv --group_column author \\
        --folds 5 --freeze 3 --pooling attention --n_layers 4 --layer_decay 0.9
    accelerate launch recipes/document_classification.py \\
        --config recipes/configs/documents_issues.yaml

Data: as for recipes/github_tagger.py. Texts of --test_data get the mean score of all folds. A fold
trains on the rows of all other folds for --num_train_epochs and keeps the last epoch. Its threshold
is tuned on the scores of the other folds. To continue a stopped run, repeat the command with
--resume_from_checkpoint true; finished folds are kept.

Expect on two CPU cores with the default encoder: the sample, three folds of two epochs, takes a few
minutes; a thousand windows of 256 tokens take about a minute per epoch and fold. With a few hundred
documents, train for four epochs or more (--num_train_epochs).
"""

from copy import deepcopy
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
    """The flags of this recipe, and the Trainer defaults that it changes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    folds: int = flag(3, "Number of cross-validation folds (default: 3).")
    group_column: str | None = flag(
        None, "Column of groups (authors, repositories): each stays in one fold (default: none)."
    )
    test_data: str | None = flag(None, "File of test rows, scored by all folds (default: none).")
    from_scratch: bool = flag(False, "Train from random weights (default: false).")
    class_weight: Literal["none", "balanced"] = flag(
        "balanced", "Loss weight of labels: all equal, or higher if rarer (default: balanced)."
    )
    focus: float = flag(0.0, "Focal loss: power that lowers the loss of easy rows (default: 0).")
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/documents", "Output folder (default: outputs/documents).")
    num_train_epochs: float = flag(2, "Epochs over the training windows (default: 2).")
    learning_rate: float = flag(1e-4, "Peak rate (default: 1e-4; BERT-base and larger: 3e-5).")
    per_device_train_batch_size: int = flag(16, "Windows per training batch (default: 16).")
    per_device_eval_batch_size: int = flag(64, "Windows per evaluation batch (default: 64).")
    eval_strategy: str = flag("no", "Must stay no: a fold has no validation rows.")
    load_best_model_at_end: bool = flag(False, "Must stay false: a fold keeps its last epoch.")

    def __post_init__(self):
        if self.focus < 0:
            raise UserError(f"--focus {self.focus}: must be 0 or more")
        if str(self.resume_from_checkpoint or "false").lower() not in ("true", "false"):
            raise UserError("--resume_from_checkpoint: true or false; each fold finds its own")
        if self.eval_strategy != "no" or self.load_best_model_at_end:
            raise UserError("--eval_strategy: must be no; every fold keeps its last epoch")
        check_tuning(self)
        if self.from_scratch and self.freeze != "none":
            raise UserError("--from_scratch: random weights cannot stay frozen; remove --freeze")
        self.head = head_settings(self)
        super().__post_init__()


def main() -> None:
    """Load, assign folds, cut into windows, train each fold, compare with baselines, save."""
    args = parse_arguments(DocumentArguments, description=__doc__)
    output_dir = start_recipe(args)

    # Load. "oof" (out of fold) are the labelled rows of --data that repeat no test row, "test" those
    # of --test_data; y maps these names to multi-hot labels, (documents, labels).
    corpus, held_out = load_corpus(args)
    names, single_label = corpus.label_names, corpus.single_label
    rows = corpus.labelled[~corpus.repeats([*held_out.values()])[corpus.labelled]]
    sources = {"oof": (corpus, rows)}
    sources |= {part: (other, other.labelled) for part, other in held_out.items()}
    documents = {part: source.dataset.select(rows) for part, (source, rows) in sources.items()}
    y = {part: source.label_matrix(rows) for part, (source, rows) in sources.items()}

    # Assign folds: near duplicates and groups stay together, labels are spread evenly.
    groups = corpus.groups[rows]
    if args.group_column:
        groups = join_groups(groups, read_column(args, corpus, args.group_column)[rows])
    fold_of = assign_folds(y["oof"], args.folds, groups=groups, seed=args.seed)
    print_once(describe_folds(fold_of, y["oof"], names))

    # A fold that an earlier run has finished with the same flags, data and model is not repeated.
    model_folder = resolve_model(args.model)
    fingerprints = [source.fingerprint for source, _ in sources.values()]
    fingerprints.append(folder_fingerprint(model_folder))
    folds = make_folds(output_dir, fold_of, result_flags(args, DocumentArguments), fingerprints)
    to_train = [fold for fold in folds if args.health_check or not fold.finished]
    resume = args.resume_from_checkpoint
    checkpoints = {fold.number: find_checkpoint(str(fold.folder), resume) for fold in to_train}

    # Cut documents into windows; a window has the labels of its document.
    tokenizer = load_tokenizer(model_folder)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_windows(tokenizer, encoder, args)
    cutting = {"stride": args.stride, "max_windows": args.max_windows}
    with args.main_process_first(desc="tokenising"):
        windows = {k: Windows.of_texts(d, tokenizer, **cutting) for k, d in documents.items()}
    for part in windows:
        print_once(f"{part}: {len(windows[part].rows):,} windows of {len(y[part]):,} documents")

    # One loss per fold, built before any training, so that a fold without a class stops the run now.
    balanced, smoothing = args.class_weight == "balanced", args.label_smoothing_factor
    options = {"single_label": single_label, "balanced": balanced, "totals": y["oof"].sum(axis=0)}
    options |= {"focus": args.focus, "label_smoothing": smoothing}
    train_labels = [y["oof"][fold_of != fold.number] for fold in folds]
    losses = [classification_loss(labels, names, **options) for labels in train_labels]
    collator = MultilabelCollator(tokenizer, len(names))
    to_scores, kind_of_labels = (softmax, "single") if single_label else (sigmoid, "multi")

    # Train every fold that is not finished, always from the same encoder and the same seed.
    for fold in to_train:
        print_once(f"\nFold {fold.number} of {args.folds}")
        set_seed(args.seed)
        base = type(encoder)(encoder.config) if args.from_scratch else deepcopy(encoder)
        model = PooledForSequenceClassification.from_encoder(
            base, names, **args.head, problem_type=f"{kind_of_labels}_label_classification"
        )
        model.config.one_label_each = single_label
        model.config.windows = {**cutting, "pooling": args.window_pooling}
        n_trained = freeze(model, args.freeze)
        print_once(f"{n_trained:,} of {model.num_parameters():,} parameters train")
        train, loss = windows["oof"].of(fold_of != fold.number).rows, losses[fold.number]
        if not (args.from_scratch or args.health_check or checkpoints[fold.number]):
            start = {"device": args.device, "bf16": args.bf16, "seed": args.seed}
            fit_head(model, train, collator, loss, **start)
        callbacks = [CheckpointOnSignal(), ReadableProgress(), *unfreezing_callbacks(args.freeze)]
        trainer = LengthGroupedTrainer(
            model=model,
            args=replace(args, output_dir=str(fold.folder)),
            train_dataset=train,
            processing_class=tokenizer,
            data_collator=collator,
            compute_loss_func=loss,
            optimizer_cls_and_kwargs=grouped_optimizer(args, model),
            callbacks=callbacks,
            **regularizers(args),
        )
        if args.health_check:
            counts = dict(zip(names, train_labels[fold.number].sum(axis=0), strict=True))
            longest = args.max_windows and args.max_windows * tokenizer.model_max_length
            check_health(trainer, longest, lengths=windows["oof"].tokens, label_counts=counts)
            return
        trainer.train(resume_from_checkpoint=checkpoints[fold.number])

        # Score the documents of this fold, and all test documents; then keep the fold's model.
        to_score = windows | {"oof": windows["oof"].of(fold_of == fold.number)}
        logits = {k: part.predict(trainer, args.window_pooling) for k, part in to_score.items()}
        trainer.save_model()
        if args.process_index == 0:
            fold.save(**{part: to_scores(values) for part, values in logits.items()})
            remove_checkpoints(str(fold.folder))

    # Embed all documents with the encoder before fine-tuning, for a baseline.
    embedder = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=collator,
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    texts = {part: np.array(rows["text"][:], dtype=object) for part, rows in documents.items()}
    settings, cache = (args.window, cutting, args.bf16), cache_folder(args.cache_dir)
    vectors = {}
    for part in windows:
        embed = partial(windows[part].predict, embedder)
        vectors[part], _ = cached_vectors(texts[part], model_folder, settings, cache, embed)
        vectors[part] = normalized(vectors[part])
    if args.process_index != 0:
        return

    # Out-of-fold scores of the model, and of both baselines trained on the same folds.
    scores = {"model": join_folds([fold.scores() for fold in folds], fold_of)}
    baselines = {"tfidf": (tfidf_logistic_regression, texts), "frozen": (logistic_probe, vectors)}
    for method, (pipeline, inputs) in baselines.items():
        fold_scores = score_folds(partial(fit_scorer, pipeline()), inputs, y["oof"], fold_of)
        scores[method] = join_folds(fold_scores, fold_of)

    # For later use, save each model with the threshold that suits all out-of-fold scores best.
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
