"""Classify the rows of a table, numbers and categories, with an ensemble of small networks.

Why: trees are the usual choice for tables. The mean of a few small networks (an MLP with ELU, batch
norm and dropout) can be better, or worse. This recipe trains them, and beside them logistic
regression, a random forest and gradient boosting at settings chosen on the training rows, all on
the same folds. The table of methods says which one to take.

    accelerate launch recipes/tabular.py
    accelerate launch recipes/tabular.py --data my_table.csv --label_column species --folds 5
    accelerate launch recipes/tabular.py --config recipes/configs/tabular_water.yaml
    accelerate launch recipes/tabular.py --model outputs/tabular --predict new_rows.csv \\
        --output_dir outputs/new_rows

- Columns: numeric if all their values are numbers, else categorical (--categorical_columns,
  --drop_columns). A missing number becomes the median, and an input of its own says that it is
  missing; a missing category is a category.
- Nothing is learned from held-out rows: each fold fits medians, scales and categories to its own
  training rows. A category that these lack has no effect.
- Equal rows stay in one fold. Each fold trains until the loss of its validation rows (--valid_size,
  from the training rows) has not improved for --patience evaluations, and keeps the best epoch.
- The model that is saved has the networks of all folds, with their preprocessing. Rows of
  --test_data, or those that --split_by or --split_time holds out, get the mean score of all folds.

To continue a stopped run, repeat the command with --resume_from_checkpoint true; finished folds are
kept. The card shows the importance of each column (permutation), confusion and reliability.

Expect on water potability (3,276 rows with gaps, most frequent class .610), five folds, seed 42:
networks .685, random forest .671, gradient boosting .667, logistic regression .610. On the 1,508
training rows of a split without gaps a random forest is better: .661 against .627. A run takes two
to five minutes of processor time, most of it for the forest (recipes/FIGURES.md).
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    result_flags,
    start_recipe,
)
from shared.data import (
    TableArguments,
    TableRows,
    assign_folds,
    describe_folds,
    load_table,
    open_rows,
    read_rows,
)
from shared.evaluation import (
    join_folds,
    make_folds,
    multilabel_metrics,
    permutation_importance,
    unfinished_folds,
)
from shared.methods import (
    TABLE_BASELINES,
    load_table_classifier,
    one_hot,
    score_table_baselines,
    table_dataset,
)
from shared.models import TabularArguments, build_tabular_model, join_members
from shared.plots import plot_training_curve
from shared.reports import push_to_hub, write_table_predictions, write_table_results
from shared.splitters import MultilabelStratifiedShuffleSplit
from shared.training import (
    CheckpointOnSignal,
    EarlyStoppingArguments,
    LengthGroupedTrainer,
    ReadableProgress,
    TableCollator,
    TableTrainingArguments,
    check_health,
    check_resume_switch,
    classification_loss,
    early_stopping,
    remove_checkpoints,
)


@dataclass
class TableRecipeArguments(
    TableArguments, TabularArguments, EarlyStoppingArguments, TableTrainingArguments
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    folds: int = flag(5, "Number of cross-validation folds (default: 5).", least=2)
    valid_size: float = flag(
        0.15, "Share of training rows that say when to stop (default: .15).", above=0, below=1
    )
    baselines: bool = flag(True, "Also fit regression, forest and boosting (default: true).")
    class_weight: Literal["none", "balanced"] = flag(
        "none", "Loss weight of classes: all equal, or higher if rarer (default: none)."
    )
    model: str | None = flag(None, "Folder of a model for --predict (default: none).")
    predict: str | None = flag(
        None, "Predict the rows of this file with a trained --model; train nothing."
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/tabular", "Output folder (default: outputs/tabular).")
    num_train_epochs: float = flag(200, "Maximum number of epochs (default: 200).")
    patience: int = flag(20, "Epochs without a lower loss before the end (default: 20).", least=1)
    learning_rate: float = flag(2e-3, "Learning rate (default: 2e-3).")
    weight_decay: float = flag(0.01, "Weight decay (default: .01).")
    metric_for_best_model: str | None = flag("loss", "Metric of the best epoch (default: loss).")

    def __post_init__(self):
        check_resume_switch(self, "each fold finds its own")
        if bool(self.predict) != bool(self.model):
            raise UserError("--predict and --model: give both, a file of rows and a trained model")
        super().__post_init__()


def main() -> None:
    """Load, assign folds, train each fold, compare with baselines, join the folds, save."""
    args = parse_arguments(TableRecipeArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.predict:
        predict(args, output_dir)
        return

    # Load, and assign folds: equal rows stay together, classes are spread evenly.
    with args.main_process_first(desc="loading the table"):
        table = load_table(args)
    print_once(f"\nData\n{table.describe()}")
    names, n_numbers = table.schema.label_names, len(table.schema.numeric)
    parts = table.parts
    features = {part: rows.features() for part, rows in parts.items()}
    y = {part: one_hot(rows.labels, len(names)) for part, rows in parts.items()}
    fold_of = assign_folds(y["oof"], args.folds, groups=table.groups, seed=args.seed, unit="rows")
    print_once(describe_folds(fold_of, y["oof"], names, unit="rows"))

    # Train each fold; one that an earlier run has finished, with the same flags and data, is kept.
    flags = result_flags(args, TableRecipeArguments, "baselines")
    folds = make_folds(output_dir, fold_of, flags, table.fingerprints)
    for fold, checkpoint in unfinished_folds(folds, args):
        print_once(f"\nFold {fold.number} of {args.folds}")
        set_seed(args.seed)
        # Validation rows say when to stop; the rest trains.
        rows = np.flatnonzero(fold_of != fold.number)
        divide = MultilabelStratifiedShuffleSplit(
            1, test_size=args.valid_size, random_state=args.seed
        )
        ((train, valid),) = divide.split(None, y["oof"][rows], table.groups[rows])
        train, valid = rows[train], rows[valid]
        trainer = LengthGroupedTrainer(
            model=build_tabular_model(args, table.schema, parts["oof"].of(train)),
            args=replace(args, output_dir=str(fold.folder)),
            train_dataset=table_dataset(parts["oof"].of(train), len(names)),
            eval_dataset=table_dataset(parts["oof"].of(valid), len(names)),
            data_collator=TableCollator(),
            compute_loss_func=classification_loss(
                y["oof"][train],
                names,
                single_label=True,
                balanced=args.class_weight == "balanced",
                totals=y["oof"].sum(axis=0),
                label_smoothing=args.label_smoothing_factor,
            ),
            compute_metrics=multilabel_metrics(names, single_label=True),
            callbacks=[CheckpointOnSignal(), ReadableProgress(), *early_stopping(args)],
        )
        if args.health_check:
            counts = dict(zip(names, y["oof"][train].sum(axis=0), strict=True))
            check_health(trainer, None, label_counts=counts)
            return
        trainer.train(resume_from_checkpoint=checkpoint)

        # Score the rows of this fold, also with each column shuffled, and all test rows.
        def score(features: np.ndarray, trainer: LengthGroupedTrainer = trainer) -> np.ndarray:
            rows = TableRows.of_features(features, n_numbers)
            return np.exp(trainer.predict(table_dataset(rows, len(names))).predictions)

        is_held_out = fold_of == fold.number
        to_score = features | {"oof": features["oof"][is_held_out]}
        scores = {part: score(values) for part, values in to_score.items()}
        importance = permutation_importance(
            score, to_score["oof"], y["oof"][is_held_out], seed=args.seed
        )
        trainer.save_model()
        if args.process_index == 0:
            curve = fold.folder / "training_curve.png"
            plot_training_curve(trainer.state.log_history, curve, metric="eval_accuracy")
            fold.save(**scores, importance=importance)
            remove_checkpoints(str(fold.folder))
    if args.process_index != 0:
        return

    # One model of all folds, and the baselines on the same folds.
    models = [load_table_classifier(fold.folder).model for fold in folds]
    join_members(models).save_pretrained(output_dir)
    methods = {"networks": join_folds([fold.scores() for fold in folds], fold_of)}
    if args.baselines:
        methods |= score_table_baselines(
            folds,
            features,
            y["oof"],
            fold_of,
            n_numbers=n_numbers,
            category_counts=table.schema.category_counts,
            seed=args.seed,
        )
    report = write_table_results(
        output_dir,
        args,
        table=table,
        labels=y,
        folds=folds,
        fold_of=fold_of,
        scores=methods,
        names=TABLE_BASELINES,
    )
    print(f"\n{report}")
    push_to_hub(output_dir, args)


def predict(args: TableRecipeArguments, output_dir: Path) -> None:
    """Predict the rows of a file with a trained model; write ``predictions.jsonl`` and ``.csv``."""
    classifier = load_table_classifier(args.model)
    source = open_rows(args, args.predict)
    rows, notes = read_rows(classifier.schema, source, labelled=False)
    for note in notes:
        print_once(f"note: {note}")
    names = classifier.schema.label_names
    trainer = LengthGroupedTrainer(
        model=classifier.model,
        args=args,
        data_collator=TableCollator(),
        callbacks=[ReadableProgress()],
    )
    scores = np.exp(trainer.predict(table_dataset(rows, len(names))).predictions)
    if args.process_index != 0:
        return
    write_table_predictions(output_dir, source.read(), scores, names)
    print(f"{len(rows):,} rows are predicted, in {output_dir}: predictions.jsonl, predictions.csv.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
