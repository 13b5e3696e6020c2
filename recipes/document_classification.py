"""Fine-tune an encoder with any head on long documents, and evaluate it by cross-validation.

Why: the texts are longer than the model can read, or too few for a reliable single split. Documents
are cut into overlapping windows. Each window is trained with the labels of its document, and the
logits of a document's windows are averaged. Every document is scored once, by the fold that did not
train on it, and so are two baselines. --group_column holds out whole prompts, authors or
repositories, so that the figures are those to expect for a new one.

Which layers to train (--freeze, --from_scratch):

                    texts like those of the encoder     another domain
    few labels      all: train only the head            half of the layers: --freeze 3 of 6
    many labels     none: train everything (default)    none; with very many, --from_scratch

    accelerate launch recipes/document_classification.py
    accelerate launch recipes/document_classification.py --data reviews.csv --group_column author \\
        --folds 5 --freeze 3 --pooling attention --n_layers 4 --layer_decay 0.9
    accelerate launch recipes/document_classification.py --data essays.csv --problem regression \\
        --label_column score
    accelerate launch recipes/document_classification.py \\
        --config recipes/configs/documents_issues.yaml

Data: as described in README.md. Texts of --test_data, or those that --split_by or --split_time
holds out, are in no fold and get the mean score of all folds. A fold trains on the other folds for
--num_train_epochs and keeps the last epoch; its threshold is tuned on their scores. --repeats 3
runs three cross-validations with folds of their own (seeds 42, 43, 44) and gives the mean and the
spread of their figures; the tagger is that of the first. To continue a stopped run, repeat the
command with --resume_from_checkpoint true; finished folds are kept. With --problem regression,
--label_column holds a number, and the figures are MAE, RMSE, R2 and Spearman.

Expect on two CPU cores with the default encoder: the sample, three folds of two epochs, takes a few
minutes; a thousand windows of 256 tokens take about a minute per epoch and fold. With a few hundred
documents, train for four epochs or more.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    folder_fingerprint,
    make_output_dir,
    parse_arguments,
    print_once,
    result_flags,
    start_recipe,
)
from shared.data import (
    DataArguments,
    TaggingArguments,
    TextFoldArguments,
    cache_folder,
    load_and_fold,
    load_and_fold_numbers,
)
from shared.evaluation import join_folds, make_folds, sigmoid, softmax, unfinished_folds
from shared.methods import MeanPooling, WindowArguments, Windows, fold_baselines, limit_windows
from shared.models import (
    EncoderChoiceArguments,
    HeadArguments,
    PooledForSequenceClassification,
    check_n_layers,
    check_unknown_tokens,
    choose_text_prefix,
    fit_head,
    head_settings,
    load_encoder,
    load_tokenizer,
    resolve_model,
)
from shared.reports import (
    push_to_hub,
    reading_metrics,
    summarize_repeats,
    tag_unlabelled,
    write_out_of_fold,
    write_out_of_fold_numbers,
)
from shared.taggers import save_mean_of_folds
from shared.training import (
    CheckpointOnSignal,
    EpochTrainingArguments,
    LengthGroupedTrainer,
    MultilabelCollator,
    ReadableProgress,
    RegressionLoss,
    SoftLabelCollator,
    TuningArguments,
    check_health,
    check_resume_switch,
    check_tuning,
    classification_loss,
    freeze,
    grouped_optimizer,
    regularizers,
    remove_checkpoints,
    unfreezing_callbacks,
)


@dataclass
class DocumentArguments(
    TaggingArguments,
    EncoderChoiceArguments,
    WindowArguments,
    HeadArguments,
    TuningArguments,
    TextFoldArguments,
    DataArguments,
    EpochTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    problem: Literal["classification", "regression"] = flag(
        "classification",
        "What --label_column holds: labels, or a number to predict (default: classification).",
    )
    from_scratch: bool = flag(False, "Train from random weights (default: false).")
    class_weight: Literal["none", "balanced"] = flag(
        "balanced", "Loss weight of labels: all equal, or higher if rarer (default: balanced)."
    )
    focus: float = flag(
        0.0, "Focal loss: power that lowers the loss of easy rows (default: 0).", least=0, most=100
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/documents", "Output folder (default: outputs/documents).")
    num_train_epochs: float = flag(2, "Epochs over the training windows (default: 2).")
    eval_strategy: str = flag("no", "Must stay no: a fold has no validation rows.")
    load_best_model_at_end: bool = flag(False, "Must stay false: a fold keeps its last epoch.")

    def __post_init__(self):
        check_resume_switch(self, "each fold finds its own")
        if self.eval_strategy != "no" or self.load_best_model_at_end:
            raise UserError("--eval_strategy: must be no; every fold keeps its last epoch")
        check_tuning(self)
        if self.problem == "regression":
            for name in ("focus", "mixup", "label_smoothing_factor"):
                if getattr(self, name):
                    raise UserError(f"--{name}: for labels, not for --problem regression")
        if self.from_scratch and self.freeze != "none":
            raise UserError("--from_scratch: random weights cannot stay frozen; remove --freeze")
        self.head = head_settings(self)
        super().__post_init__()


def main() -> None:
    """Run the cross-validation, and its repeats with other seeds; summarise them."""
    args = parse_arguments(DocumentArguments, description=__doc__)
    output_dir = start_recipe(args)
    cross_validate(args, output_dir)
    if args.health_check:
        return
    folders = [output_dir]
    for repeat in range(2, args.repeats + 1):
        seed = args.seed + repeat - 1
        print_once(f"\nRepeat {repeat} of {args.repeats}, seed {seed}")
        folders.append(make_output_dir(str(output_dir / f"repeat_{repeat}")))
        changed = {"seed": seed, "tag_unlabelled": 0}
        cross_validate(replace(args, output_dir=str(folders[-1]), **changed), folders[-1])
    if args.repeats > 1 and args.process_index == 0:
        print(f"\n{summarize_repeats(folders)}\n\nmetrics.json and README.md have these, too.")
    push_to_hub(output_dir, args)


def cross_validate(args: DocumentArguments, output_dir: Path) -> None:
    """Load, assign folds, cut into windows, train each fold, compare with baselines, save."""
    # Load and assign folds: near duplicates and groups stay together, labels are spread evenly.
    # Part "oof" (out of fold) is --data, "test" --test_data; y maps both to (documents, labels).
    regression = args.problem == "regression"
    load = load_and_fold_numbers if regression else load_and_fold
    data = load(args, folds=args.folds, group_column=args.group_column, seed=args.seed)
    names = [data.name] if regression else data.corpus.label_names
    single_label = not regression and data.corpus.single_label
    documents, y, fold_of = data.documents, data.labels, data.fold_of

    # A fold that an earlier run has finished with the same flags, data and model is not repeated.
    model_folder = resolve_model(args.model)
    fingerprints = [*data.fingerprints, folder_fingerprint(model_folder)]
    flags = result_flags(args, DocumentArguments, "repeats")
    folds = make_folds(output_dir, fold_of, flags, fingerprints)
    to_train = unfinished_folds(folds, args)

    # Cut documents into windows; a window has the labels of its document.
    prefix = choose_text_prefix(args.model, args.text_prefix)
    tokenizer = load_tokenizer(model_folder, prefix, args.truncation_side)
    encoder = load_encoder(model_folder, tokenizer=tokenizer)
    limit_windows(tokenizer, encoder, args)
    check_n_layers(args.n_layers, encoder)
    check_unknown_tokens(tokenizer, documents["oof"]["text"][:])
    cutting = {"stride": args.stride, "max_windows": args.max_windows}
    with args.main_process_first(desc="tokenising"):
        windows = {k: Windows.of_texts(d, tokenizer, **cutting) for k, d in documents.items()}
    for part in windows:
        print_once(f"{part}: {len(windows[part].rows):,} windows of {len(y[part]):,} documents")

    # With one label per document the loss is cross-entropy over classes, else that of each label;
    # of numbers it is the squared error.
    to_scores, task = (softmax, "single") if single_label else (sigmoid, "multi")
    problem = "regression" if regression else f"{task}_label_classification"
    weighting = {"single_label": single_label, "balanced": args.class_weight == "balanced"}
    weighting |= {"focus": args.focus, "label_smoothing": args.label_smoothing_factor}
    weighting |= {"totals": y["oof"].sum(axis=0)}
    collator = MultilabelCollator(tokenizer, len(names))
    if regression:
        collator, to_scores = SoftLabelCollator(tokenizer), np.asarray

    # Train every fold that is not finished, always from the same encoder and the same seed.
    for fold, checkpoint in to_train:
        print_once(f"\nFold {fold.number} of {args.folds}")
        set_seed(args.seed)
        train_labels = y["oof"][fold_of != fold.number]
        if regression:
            loss = RegressionLoss(float(train_labels.mean()), float(train_labels.std()) or 1.0)
        else:
            loss = classification_loss(train_labels, names, **weighting)
        base = type(encoder)(encoder.config) if args.from_scratch else deepcopy(encoder)
        model = PooledForSequenceClassification.from_encoder(
            base, names, **args.head, problem_type=problem
        )
        model.config.one_label_each = single_label
        model.config.windows = {**cutting, "pooling": args.window_pooling}
        n_trained = freeze(model, args.freeze)
        print_once(f"{n_trained:,} of {model.num_parameters():,} parameters train")
        train = windows["oof"].of(fold_of != fold.number).rows
        # Fit the head to the features of the encoder, so that training does not start at random.
        if not (args.from_scratch or args.health_check or checkpoint):
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
            counts = dict(zip(names, train_labels.sum(axis=0), strict=True))
            counts = None if regression else counts
            longest = args.max_windows and args.max_windows * tokenizer.model_max_length
            check_health(trainer, longest, lengths=windows["oof"].tokens, label_counts=counts)
            return
        trainer.train(resume_from_checkpoint=checkpoint)

        if regression:
            model.rescale(loss.mean, loss.scale)

        # Score the documents of this fold, and all test documents; then keep the fold's model.
        to_score = windows | {"oof": windows["oof"].of(fold_of == fold.number)}
        logits = {k: part.predict(trainer, args.window_pooling) for k, part in to_score.items()}
        trainer.save_model()
        if args.process_index == 0:
            fold.save(**{part: to_scores(values) for part, values in logits.items()})
            remove_checkpoints(str(fold.folder))

    # Two baselines on the same folds: logistic regression on TF-IDF, and on the embeddings of the
    # encoder before fine-tuning.
    embedder = LengthGroupedTrainer(
        model=MeanPooling(encoder),
        args=args,
        data_collator=collator,
        callbacks=[ReadableProgress()],
        bf16_predictions=args.bf16,
    )
    baselines = fold_baselines(
        data,
        windows,
        embedder,
        model_folder=model_folder,
        settings=(args.window, cutting, args.bf16, prefix, tokenizer.truncation_side),
        cache_dir=cache_folder(args.cache_dir),
    )
    if args.process_index != 0:
        if not regression:
            tag_unlabelled(output_dir, data.corpus, args)
        return
    scores = {"model": join_folds([fold.scores() for fold in folds], fold_of), **baselines}
    reading = reading_metrics(tokenizer, documents["oof"]["text"], **cutting)
    settings = {"folds": args.folds, "seed": args.seed} | reading
    for fold in folds:
        remove_checkpoints(str(fold.folder))  # in case that a run was stopped while it did this
    if regression:
        folders = [fold.folder.name for fold in folds]
        report = write_out_of_fold_numbers(
            output_dir, data, scores, base_model=args.model, settings=settings, folders=folders
        )
        print(f"\n{report}\n\nEverything is in {output_dir}.")
        return

    # For later use, save each model with the threshold that suits all out-of-fold scores best, and
    # the mean of all of them.
    rule, calibrated = save_mean_of_folds(
        *(output_dir, folds, names, scores["model"], y["oof"]),
        fold_of=fold_of,
        single_label=single_label,
    )
    report = write_out_of_fold(
        output_dir,
        data,
        scores,
        calibrated=calibrated,
        rule=rule,
        settings=settings,
        top_scores=args.top_scores,
        cache_dir=args.cache_dir,
    )
    print(f"\n{report}")
    tag_unlabelled(output_dir, data.corpus, args)


if __name__ == "__main__":
    with exit_on_user_error():
        main()
