"""What a person reads about the agreement of annotators, and the labels merged from theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.evaluation.annotators import AnnotatorPairs, annotator_labels
from shared.reports.excerpts import headline

if TYPE_CHECKING:
    from shared.data.answers import Answers
    from shared.evaluation.merging import MergedLabels

# Of `krippendorff_alpha`: conclusions are safe from the first value on, tentative from the second.
RELIABLE_ALPHA, TENTATIVE_ALPHA = 0.8, 0.667
MERGED_COLUMNS = ("labels", "confidence", "weight", "answers")
DISPUTED_COLUMNS = ("row", "disagreement", "labels", "confidence", "answers", "text")
PAIR_COLUMNS = ("annotator", "other", "texts", "equal", "kappa", "differ_most_in", "differ_in")
CONFUSION_COLUMNS = ("label", "other", "pairs_of_answers")


def merged_records(
    answers: Answers, merged: MergedLabels, trust: float
) -> dict[int, dict[str, Any]]:
    """Return the columns of `MERGED_COLUMNS` for each text, by the number of its row.

    ``labels`` is None for a text without an answer, or whose annotators do not decide it;
    ``confidence`` is None there. ``weight`` is None where the labels count as given by hand: the
    confidence is at least `trust`; else it is the confidence. ``answers`` is their number.
    """
    numbers = answers.corpus.dataset.select(answers.rows)["row"][:]
    records = {}
    for text, (number, n_answers) in enumerate(zip(numbers, answers.n_answers, strict=True)):
        record: dict[str, Any] = dict.fromkeys(MERGED_COLUMNS)
        record["answers"] = int(n_answers)
        if not merged.undecided[text]:
            sure = float(merged.confidence[text])
            record["labels"] = _names(merged.labels[text], answers.label_names)
            record["confidence"] = round(sure, 4)
            record["weight"] = None if sure >= trust else round(sure, 4)
        records[int(number)] = record
    return records


def disputed_texts(answers: Answers, merged: MergedLabels) -> list[dict[str, Any]]:
    """Return the texts to which annotators gave different labels, the most disputed first.

    Returns
    -------
    list of dict
        ``row`` (in the source); ``disagreement``, the share of the pairs of answers that differ;
        ``labels`` and ``confidence``, merged, None where they are undecided; ``answers``, who gave
        which labels; ``text``, its first line. Of texts with the same disagreement, those of which
        the merged labels are least sure come first.
    """
    # The answers of a text that are the same set of labels have the same number.
    sets = np.unique(answers.labels, axis=0, return_inverse=True)[1].ravel()
    equal, sizes = np.unique(np.stack([answers.texts, sets]), axis=1, return_counts=True)
    n = answers.n_answers
    same = np.bincount(equal[0], weights=sizes * (sizes - 1), minlength=len(n))
    disagreement = 1 - same / np.maximum(n * (n - 1), 1)
    several = np.flatnonzero((n > 1) & (disagreement > 0))
    order = np.lexsort((merged.confidence[several], -disagreement[several]))
    texts = several[order]

    starts = np.searchsorted(answers.texts, np.arange(len(n) + 1))  # answers are sorted by text
    rows = answers.corpus.dataset.select(answers.rows[texts])
    records = []
    for text, number, content in zip(texts, rows["row"][:], rows["text"][:], strict=True):
        of_set: dict[str, list[str]] = {}
        for i in range(starts[text], starts[text + 1]):
            labels = ", ".join(_names(answers.labels[i], answers.label_names)) or "no label"
            of_set.setdefault(labels, []).append(answers.annotator_names[answers.annotators[i]])
        said = sorted(of_set.items(), key=lambda item: -len(item[1]))
        decided = not merged.undecided[text]
        chosen = _names(merged.labels[text], answers.label_names)
        record = (
            number,
            round(float(disagreement[text]), 4),
            "; ".join(chosen) if decided else None,
            round(float(merged.confidence[text]), 4) if decided else None,
            "; ".join(f"{labels} ({', '.join(who)})" for labels, who in said),
            headline(content),
        )
        records.append(dict(zip(DISPUTED_COLUMNS, record, strict=True)))
    return records


def pair_rows(answers: Answers, pairs: AnnotatorPairs) -> list[dict[str, Any]]:
    """Return how each pair of annotators agrees, those with the lowest kappa first.

    Returns
    -------
    list of dict
        ``annotator`` and ``other``; ``texts`` that both answered, and the number of ``equal``
        answers; ``kappa`` (Cohen's; None where it is not defined); ``differ_most_in``, the label
        that one of both gave most often without the other, and ``differ_in``, to how many texts.
    """
    kappa, label = pairs.kappa(), pairs.differences.argmax(axis=1)
    rows = []
    for i in np.lexsort((-pairs.shared, np.nan_to_num(kappa, nan=2))):
        differ = int(pairs.differences[i, label[i]])
        cells = (
            answers.annotator_names[pairs.first[i]],
            answers.annotator_names[pairs.second[i]],
            int(pairs.shared[i]),
            int(pairs.equal[i]),
            _rounded(kappa[i]),
            answers.label_names[label[i]] if differ else None,
            differ,
        )
        rows.append(dict(zip(PAIR_COLUMNS, cells, strict=True)))
    return rows


def confusion_rows(confusions: np.ndarray, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the pairs of labels of `label_confusions`, the most frequent first."""
    a, b = np.nonzero(np.triu(confusions))
    order = np.argsort(-confusions[a, b], kind="stable")
    cells = ((label_names[a[i]], label_names[b[i]], int(confusions[a[i], b[i]])) for i in order)
    return [dict(zip(CONFUSION_COLUMNS, row, strict=True)) for row in cells]


def annotator_rows(
    answers: Answers, pairs: AnnotatorPairs, merged: MergedLabels
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return how reliable each annotator is, and which labels they give too often or too seldom.

    Returns
    -------
    rows : list of dict
        ``annotator``; ``answers``; ``compared``, answers of others to the same texts, and the
        share of ``equal`` ones among them; ``kappa``, the mean of Cohen's kappa with each other
        annotator, weighted by their common texts; ``precision``, ``recall`` and ``f1``, expected by
        the probabilities of the merged labels. The lowest F1 comes first.
    by_label : list of dict
        ``annotator``, ``label``, ``given``, ``expected`` (texts with the label among those that
        they answered), ``added`` (given to texts to which it does not apply) and ``missed``, both
        expected numbers. The largest sum of the last two comes first.
    """
    names = answers.annotator_names
    n_given, n_expected, n_hits = annotator_labels(
        answers.texts, answers.annotators, answers.labels, merged.scores
    )
    n_answers = np.bincount(answers.annotators, minlength=len(names))
    kappa = pairs.kappa()
    valid = ~np.isnan(kappa)

    def sums(values: np.ndarray) -> np.ndarray:
        """Return the sum over the pairs of each annotator."""
        first, second = (np.bincount(j, values, len(names)) for j in (pairs.first, pairs.second))
        return first + second

    compared, equal = sums(pairs.shared), sums(pairs.equal)
    mean_kappa = _ratio(sums(np.where(valid, kappa, 0) * pairs.shared), sums(valid * pairs.shared))
    all_given, all_expected, all_hits = (
        counts.sum(axis=1) for counts in (n_given, n_expected, n_hits)
    )
    columns = {
        "equal": _ratio(equal, compared),
        "kappa": mean_kappa,
        "precision": _ratio(all_hits, all_given),
        "recall": _ratio(all_hits, all_expected),
        "f1": _ratio(2 * all_hits, all_given + all_expected),
    }
    rows: list[dict[str, Any]] = [
        {"annotator": names[j], "answers": int(n_answers[j]), "compared": int(compared[j])}
        | {name: _rounded(values[j]) for name, values in columns.items()}
        for j in np.flatnonzero(n_answers)
    ]
    by_label: list[dict[str, Any]] = [
        {
            "annotator": names[j],
            "label": answers.label_names[label],
            "given": int(n_given[j, label]),
            "expected": round(float(n_expected[j, label]), 2),
            "added": round(float(n_given[j, label] - n_hits[j, label]), 2),
            "missed": round(float(n_expected[j, label] - n_hits[j, label]), 2),
        }
        for j, label in zip(*np.nonzero(n_given + n_expected), strict=True)
    ]
    rows.sort(key=lambda row: 2 if row["f1"] is None else row["f1"])
    by_label.sort(key=lambda row: -(row["added"] + row["missed"]))
    return rows, by_label


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1), np.nan)


def alpha_verdict(alpha: float | None) -> str:
    """Say what a value of Krippendorff's alpha allows, by the bounds that he gives."""
    if alpha is None:
        return "the annotators gave one label only, so that chance cannot be told from agreement"
    if alpha >= RELIABLE_ALPHA:
        return f"at least {RELIABLE_ALPHA}: the labels are reliable"
    if alpha >= TENTATIVE_ALPHA:
        return f"between {TENTATIVE_ALPHA} and {RELIABLE_ALPHA}: tentative conclusions only"
    return (
        f"below {TENTATIVE_ALPHA}: too low to draw conclusions; look at disputed.csv and "
        "confusions.csv, say more clearly what the labels mean, and label again"
    )


def markdown_table(rows: Sequence[Mapping[str, Any]], most: int | None = None) -> str:
    """Return rows with the same keys as a Markdown table; with `most`, only the first ones."""

    def lines() -> Iterator[str]:
        yield f"| {' | '.join(name.replace('_', ' ') for name in rows[0])} |"
        yield f"|{'---|' * len(rows[0])}"
        for row in rows[:most]:
            yield f"| {' | '.join(_cell(value) for value in row.values())} |"
        if most is not None and len(rows) > most:
            yield f"\n{len(rows) - most:,} more rows are in the file."

    return "\n".join(lines()) if rows else "None."


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)


def _names(labels: np.ndarray, names: Sequence[str]) -> list[str]:
    return [names[int(label)] for label in np.flatnonzero(labels)]
