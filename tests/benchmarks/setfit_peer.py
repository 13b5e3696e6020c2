"""SetFit 1.2.0, to compare with the few-label recipes: same data, split, subsets and encoder.

    PYTHONPATH=. python tests/benchmarks/setfit_peer.py --data issues.jsonl --train_size 8 --seed 1

SetFit (Tunstall et al. 2022, "Efficient Few-Shot Learning Without Prompts") trains the encoder on
pairs of training texts, then fits one logistic regression per label. The settings are those of its
documentation for several labels per text (one-vs-rest, a label applies from a probability of one
half); only the input data and the output files are those of a recipe. The number of pairs grows
with the square of the rows: 64 rows of 128 tokens take minutes on two CPU cores.

Needs the optional extra: pip install -c constraints.txt '.[setfit]'
"""

import tempfile
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    is_main_process,
    parse_arguments,
    start_recipe,
)
from shared.data import SplitArguments, load_and_split
from shared.evaluation import DecisionRule, choose_labels
from shared.models import DEFAULT_MODEL, resolve_model
from shared.reports import TaggerCard, describe_output, split_metrics, write_results


@dataclass
class SetFitArguments(SplitArguments):
    """The flags, with the defaults of SetFit; only max_length has that of the recipes."""

    model: str = flag(DEFAULT_MODEL, f"Encoder: a hub id or a folder (default: {DEFAULT_MODEL}).")
    max_length: int = flag(256, "Tokens per text; longer texts are truncated (default: 256).")
    batch_size: int = flag(16, "Pairs per training batch (default: 16).")
    num_epochs: int = flag(1, "Epochs over the pairs (default: 1).")
    max_steps: int = flag(-1, "Maximum number of steps (default: -1, no limit).")
    output_dir: str = flag("outputs/setfit", "Output folder (default: outputs/setfit).")
    seed: int = flag(42, "Random seed of the split and the training (default: 42).")


def main() -> None:
    """Load, split, train, evaluate, save."""
    args = parse_arguments(SetFitArguments, description=__doc__)
    if not is_main_process():
        return
    try:
        from setfit import SetFitModel, Trainer, TrainingArguments
    except ModuleNotFoundError:
        raise UserError("setfit: pip install -c constraints.txt '.[setfit]'") from None
    from datasets import Dataset

    output_dir = start_recipe(args)
    corpus, split = load_and_split(args, seed=args.seed)
    rows, y = split.rows, split.labels

    model = SetFitModel.from_pretrained(
        resolve_model(args.model), multi_target_strategy="one-vs-rest"
    )
    model.model_body.max_seq_length = args.max_length
    train = {"text": rows["train"]["text"], "label": y["train"].astype(int).tolist()}
    started = perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        training = TrainingArguments(
            output_dir=scratch,
            batch_size=args.batch_size,
            num_epochs=args.num_epochs,
            max_steps=args.max_steps,
            max_length=args.max_length,
            seed=args.seed,
            save_strategy="no",
            report_to="none",
        )
        Trainer(model=model, args=training, train_dataset=Dataset.from_dict(train)).train()
    trained = perf_counter()

    def score(part):
        texts = list(rows[part]["text"])
        if not texts:  # --valid_size 0
            return np.zeros(y[part].shape)
        return np.asarray(model.predict_proba(texts, as_numpy=True, show_progress_bar=False))

    scores = {"test": score("test")}
    scored = perf_counter()
    scores["valid"] = score("valid")
    single_label = corpus.single_label
    predicted = {
        p: choose_labels(actual, 0.5, single_label=single_label) for p, actual in scores.items()
    }
    runtimes = {"train_runtime": trained - started, "test_runtime": scored - trained}
    report = write_results(
        output_dir,
        split,
        scores["test"],
        predicted["test"],
        {**split_metrics(split, scores, predicted), **runtimes, "seed": args.seed},
        card=TaggerCard(args, max_length=args.max_length),
        rule=DecisionRule.of(0.5, len(corpus.label_names), single_label=single_label),
    )
    print(f"\nTest ({len(y['test']):,} texts)\n\n{report}\n\n{describe_output(output_dir)}")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
