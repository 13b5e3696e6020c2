"""Compare ways to read long documents: window pooling, stride, and the number of windows.

    ./run.sh document_classification --config recipes/configs/documents_issues.yaml --folds 2 \\
        --seed 1 --output_dir outputs/windows
    PYTHONPATH=. python tests/benchmarks/bench_windows.py --seed 1 \\
        --config recipes/configs/documents_issues.yaml --folds 2 --output_dir outputs/windows

The flags are those of a run of the recipe, of which some folds may be unfinished. The others score
their held-out documents again, with each pooling, stride and number of windows; the models stay
those of the run. Prints Markdown: F1 over these documents, one half at the threshold that is tuned
on the other half, and the difference in micro F1 from the first window alone, with its interval.
Data with one label per text are not supported.
"""

from itertools import product
from pathlib import Path

import numpy as np

from recipes.document_classification import DocumentArguments
from shared.cli import parse_arguments
from shared.data import load_and_fold
from shared.evaluation import f1_scores, paired_bootstrap, sigmoid
from shared.evaluation.cross_validation import choose_out_of_fold
from shared.methods import Windows
from shared.methods.windows import pool_windows
from shared.models import PooledForSequenceClassification, load_tokenizer
from shared.training import LengthGroupedTrainer, MultilabelCollator, ReadableProgress

STRIDES = (0, 64, 128)
MAX_WINDOWS = (2, 4, None)


def score(args, data, folds):
    """Return the out-of-fold logits of all windows of each stride, with documents and lengths."""
    scored = {}
    for stride, fold in product(STRIDES, folds):
        folder = Path(args.output_dir) / f"fold_{fold}"
        tokenizer = load_tokenizer(folder)
        trainer = LengthGroupedTrainer(
            model=PooledForSequenceClassification.from_pretrained(folder),
            args=args,
            data_collator=MultilabelCollator(tokenizer, data.labels["oof"].shape[1]),
            callbacks=[ReadableProgress()],
        )
        held_out = np.flatnonzero(data.fold_of == fold)
        windows = Windows.of_texts(
            data.documents["oof"].select(held_out), tokenizer, stride=stride, max_windows=None
        )
        rows = windows.rows.select_columns(["input_ids", "length"])
        part = (
            trainer.predict(rows).predictions,
            held_out[windows.documents],
            np.array(rows["length"]),
        )
        scored.setdefault(stride, []).append(part)
    return {
        k: [np.concatenate(values) for values in zip(*v, strict=True)] for k, v in scored.items()
    }


def pooled(scored, stride, pooling, max_windows):
    """Return the scores of all documents, (documents, labels), and their mean number of windows."""
    logits, documents, lengths = scored[stride]
    order = np.argsort(documents, kind="stable")
    logits, documents, lengths = logits[order], documents[order], lengths[order]
    number = np.arange(len(documents)) - np.searchsorted(documents, documents)
    kept = number < (max_windows or len(documents))
    values = pool_windows(logits[kept], documents[kept], pooling=pooling, weights=lengths[kept])
    return sigmoid(values), kept.sum() / len(values)


def main():
    """Score the folds of a run again; print the table."""
    args = parse_arguments(DocumentArguments)
    data = load_and_fold(args, folds=args.folds, group_column=args.group_column, seed=args.seed)
    folds = [n for n in range(args.folds) if Path(args.output_dir, f"fold_{n}/fold.json").is_file()]
    y = data.labels["oof"][np.isin(data.fold_of, folds)]
    half = np.random.default_rng(0).permutation(len(y)) % 2
    scored = score(args, data, folds)
    print(f"\n{len(y):,} documents of {len(folds)} folds\n")
    ways = [(STRIDES[0], "mean", 1), *product(STRIDES, ("mean", "max"), MAX_WINDOWS)]
    print(
        "| stride | pooling | windows at most | windows per text | micro F1 | macro F1 | from one |"
    )
    print("|---|---|---|---|---|---|---|")
    first = None
    for way in ways:
        scores, n_windows = pooled(scored, *way)
        chosen = choose_out_of_fold(scores, y, half)
        first = chosen if first is None else first
        f1, change = f1_scores(y, chosen), paired_bootstrap(y, chosen, first)
        print("|", " | ".join(map(str, way)).replace("None", "all"), end=" | ")
        print(f"{n_windows:.2f} | {f1['micro_f1']:.3f} | {f1['macro_f1']:.3f}", end=" | ")
        print(f"{change['difference']:+.3f} ({change['low']:+.3f} to {change['high']:+.3f}) |")


if __name__ == "__main__":
    main()
