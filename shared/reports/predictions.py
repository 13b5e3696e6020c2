"""Predictions of a classifier: JSON lines, text to print, and the tags of unlabelled rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import atomic_write
from shared.cli.launch import is_main_process, print_once, progress, wait_for_all_processes
from shared.data.corpus import cache_folder
from shared.evaluation.rules import prediction_records, scores_per_text
from shared.reports.excerpts import headline
from shared.taggers.loading import load_tagger
from shared.taggers.tagger import BLOCK_SIZE

if TYPE_CHECKING:
    from shared.data.corpus import Corpus

UNLABELLED_FILE = "unlabelled_predictions.jsonl"
N_EXAMPLES = 3  # of the surest and of the most doubtful rows
Example = tuple[float, str, np.ndarray, np.ndarray]  # order, text, scores, predicted labels


# --- JSON lines ----------------------------------------------------------------------------------


def write_predictions(
    path: Path,
    rows: Iterable[Mapping[str, Any]],
    label_names: Sequence[str],
    y_true: np.ndarray,
    scores: np.ndarray,
    predicted: np.ndarray,
    top_scores: int | None = None,
) -> None:
    """Write one JSON line per row: row number, text, true labels, predicted labels, scores.

    Parameters
    ----------
    path : Path
    rows : iterable of mappings
        Each has ``row``, the row number in the source, and ``text``; with cross-validation also
        ``fold``.
    label_names : sequence of str
        Names of the columns of `y_true`.
    y_true : array of shape (rows, labels)
        Multi-hot. Its last columns may be labels that the classifier does not know.
    scores, predicted : array of shape (rows, labels that the classifier knows)
        Probabilities, predicted labels.
    top_scores : int, optional
        Number of scores of each row; None: the default of the flag ``--top_scores``.
    """
    n_scores = scores_per_text(scores.shape[1], top_scores)
    records = prediction_records(scores, predicted, label_names, n_scores)
    with atomic_write(path) as file:
        for row, truth, prediction in zip(rows, y_true, records, strict=True):
            true_labels = [label_names[i] for i in np.flatnonzero(truth).tolist()]
            line = {name: row[name] for name in ("row", "fold", "text") if name in row}
            line["true_labels"] = true_labels
            file.write(json.dumps(line | prediction, ensure_ascii=False) + "\n")


# --- text to print -------------------------------------------------------------------------------


def format_examples(
    texts: Iterable[str],
    scores: np.ndarray,
    predicted: np.ndarray,
    label_names: Sequence[str],
) -> str:
    """Return the headline of each text and, on the next line, its predicted labels.

    Parameters
    ----------
    texts : iterable of str
    scores, predicted : array of shape (texts, labels)
        Probabilities and predicted labels.
    label_names : sequence of str
    """
    return "\n".join(
        f"  {headline(text)}\n    -> {format_labels(row_scores, chosen, label_names)}"
        for text, row_scores, chosen in zip(texts, scores, predicted, strict=True)
    )


def format_labels(scores: np.ndarray, predicted: np.ndarray, label_names: Sequence[str]) -> str:
    """Return the predicted labels of one row, with their scores, on one line.

    `scores` and `predicted` have the shape (labels,).
    """
    (prediction,) = prediction_records(scores[None], predicted[None], label_names)
    best, best_score = next(iter(prediction["scores"].items()))
    chosen = [f"{label} ({prediction['scores'][label]:.2f})" for label in prediction["labels"]]
    return ", ".join(chosen) or f"no label (highest score: {best}, {best_score:.2f})"


# --- unlabelled rows -----------------------------------------------------------------------------


def describe_neighbours(
    query: str,
    query_vector: np.ndarray,
    texts: Sequence[str],
    vectors: np.ndarray,
    labels: Sequence[np.ndarray],
    label_names: Sequence[str],
    *,
    n_shown: int = 5,
) -> str:
    """Return the texts nearest to a query, as text: cosine, first line and labels of each.

    Parameters
    ----------
    query : str
    query_vector : array of shape (width,)
        Of length one, as the rows of `vectors`.
    texts : sequence of str
    vectors : array of shape (texts, width)
    labels : sequence of arrays of shape (labels,)
        Multi-hot, one for each text.
    label_names : sequence of str
    n_shown : int
        Number of texts.
    """
    cosines = vectors @ query_vector
    lines = [f"Training texts nearest to: {headline(query, 60)}"]
    for row in np.argsort(-cosines, kind="stable")[:n_shown].tolist():
        names = (
            ", ".join(label_names[i] for i in np.flatnonzero(labels[row]).tolist()) or "no label"
        )
        lines.append(f"  {cosines[row]:.3f}  {headline(texts[row], 60):60}  {names}")
    return "\n".join(lines)


def tag_unlabelled(output_dir: Path, corpus: Corpus, args: Any) -> None:
    """Tag the unlabelled rows of the data; print the surest and the most doubtful ones.

    Writes ``unlabelled_predictions.jsonl``, one line per row in the order of the data: row number,
    text, labels, scores, and the margin, which is small for a doubtful row
    (`shared.evaluation.rules.DecisionRule.margin`). All processes of a launch must call this.

    Parameters
    ----------
    output_dir : Path
        The folder of the tagger.
    corpus : Corpus
    args : dataclass
        Of the recipe. ``tag_unlabelled`` is the maximum number of rows, ``top_scores`` the number
        of scores of each. If it is one of `TrainingArguments`, its device, batch size and precision
        are used.
    """
    wait_for_all_processes()  # until the first one has saved the tagger
    rows = corpus.unlabelled[: args.tag_unlabelled]
    if not len(rows):
        if is_main_process():
            (output_dir / UNLABELLED_FILE).unlink(missing_ok=True)  # left by an earlier run
        return
    trainer_args = args if hasattr(args, "per_device_eval_batch_size") else None
    bf16 = trainer_args is not None and bool(args.bf16)
    cache_dir = cache_folder(args.cache_dir)
    tagger = load_tagger(output_dir, trainer_args, bf16=bf16, cache_dir=cache_dir)

    print_once(f"\nTagging {len(rows):,} unlabelled texts (Ctrl-C is safe: the tagger is saved)")

    n_scores = scores_per_text(len(tagger.label_names), args.top_scores)
    # All processes predict; the first one writes.
    path = output_dir / UNLABELLED_FILE if is_main_process() else Path(os.devnull)
    surest: list[Example] = []
    doubtful: list[Example] = []
    with atomic_write(path) if is_main_process() else path.open("w", encoding="utf-8") as file:
        starts = range(0, len(rows), BLOCK_SIZE)
        for start in progress(starts, "tagging unlabelled texts", unit="blocks"):
            block = corpus.dataset.select(rows[start : start + BLOCK_SIZE])
            raw_scores = tagger.raw_scores(block["text"][:])
            scores, predicted = tagger.calibrate(raw_scores), tagger.choose(raw_scores)
            margins = tagger.rule.margin(raw_scores)
            records = prediction_records(scores, predicted, tagger.label_names, n_scores)
            for row, record, margin in zip(block, records, margins.tolist(), strict=True):
                line = {"row": row["row"], "text": row["text"], **record}
                line["margin"] = round(margin, 6)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            # Keep the first examples of all blocks so far. Sure texts without a label say little.
            order = np.argsort(margins, kind="stable")
            sure = order[predicted[order].any(axis=1)][::-1]
            for examples, best, sign in ((surest, sure, -1), (doubtful, order, 1)):
                examples += [
                    (sign * margins[i], block[i]["text"], scores[i], predicted[i])
                    for i in best[:N_EXAMPLES].tolist()
                ]
                examples.sort(key=lambda example: example[0])
                del examples[N_EXAMPLES:]

    for name, examples in (("surest", surest), ("most doubtful", doubtful)):
        if examples:
            texts = [text for _, text, _, _ in examples]
            scores, predicted = (np.stack([e[i] for e in examples]) for i in (2, 3))
            shown = format_examples(texts, scores, predicted, tagger.label_names)
            print_once(f"\nTags of unlabelled texts, the {name}\n{shown}")
    total = len(corpus.unlabelled)
    number = f"all {total:,}" if len(rows) == total else f"the first {len(rows):,} of {total:,}"
    print_once(f"\nThe tags of {number} unlabelled texts are in {output_dir / UNLABELLED_FILE}.")
