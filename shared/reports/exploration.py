"""The figures of explore.json and explore.html, a section at a time, as plain JSON values.

Every list of texts has their row numbers in the source, counted from 1. All lists have an end, so
that the page of a million rows stays small; beside a list is the number that it stands for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.data.languages import SURE
from shared.evaluation.confusion import co_occurrences, largest_pairs
from shared.reports.excerpts import headline

if TYPE_CHECKING:
    from shared.data.corpus import Corpus
    from shared.data.label_conflicts import TextGroup
    from shared.data.shared_lines import SharedLines
    from shared.methods.log_odds import WordCounts

MOST_ROWS = 10  # that a cell of a table names
MOST_ENTRIES = 100  # of a list: groups, lines, texts
MOST_LABELS = 1000
MOST_CELLS = 20  # labels of the heat map
RARE = 10  # texts, below which a label can hardly be learned and tested
MOST_CHARACTERS = 500  # of a text in a group, or on the map
GROUP_TEXTS = 4  # of a group that are shown
LENGTHS = (128, 256, 512)  # tokens
SHORT_WORDS = 3  # a text with fewer words is short
TEMPLATE_SHARE = 0.8  # of the words of a text, from which it is hardly more than shared lines
TREND_LABELS = 8
MOST_PERIODS = 48
_YEAR = 365


# --- rows ----------------------------------------------------------------------------------------


def row_numbers(corpus: Corpus) -> np.ndarray:
    """Return the number of each row of a data set in its source, counted from 1."""
    return corpus.dataset.data["row"].to_numpy()


def row_figures(corpus: Corpus) -> dict[str, Any]:
    """Return how many rows were read, kept and left out, and why."""
    report = corpus.report
    names = (
        *("source", "layout", "text_columns", "label_columns", "rows_read", "pull_requests"),
        *("blank_texts", "exact_duplicates", "joined_rows", "rows", "labelled", "unlabelled"),
        "notes",
    )
    figures = {name: report[name] for name in names}
    return figures | {"blank_rows": report["first_blank_rows"]}


# --- labels --------------------------------------------------------------------------------------


def label_figures(corpus: Corpus) -> dict[str, Any]:
    """Return how often labels occur, alone and together."""
    labelled, names = corpus.labelled, corpus.label_names
    numbers = row_numbers(corpus)[labelled]
    y = corpus.label_matrix(labelled).astype(bool)
    counts = y.sum(axis=0)
    order = np.argsort(-counts, kind="stable")
    together = co_occurrences(y)
    pairs = []
    for a, b, count in _upper_pairs(together):
        shared = numbers[np.flatnonzero(y[:, a] & y[:, b])[:MOST_ROWS]]
        entry = {"labels": [names[a], names[b]], "texts": count, "rows": shared.tolist()}
        entry["shares"] = [count / int(counts[a]), count / int(counts[b])]
        pairs.append(entry)
    shown = order[:MOST_CELLS]
    return {
        "n_labels": len(names),
        "single_label": bool(len(labelled)) and corpus.single_label,
        "labels": [
            {
                "label": names[label],
                "texts": int(counts[label]),
                "share": float(counts[label]) / max(len(labelled), 1),
                "rows": numbers[np.flatnonzero(y[:, label])[:MOST_ROWS]].tolist(),
            }
            for label in order[:MOST_LABELS].tolist()
        ],
        "labels_per_text": np.bincount(y.sum(axis=1)).tolist() if len(y) else [],
        "pairs": pairs,
        "together": {
            "labels": [names[label] for label in shown],
            "counts": together[shown][:, shown].toarray().tolist(),
        },
        "similar_names": similar_names(names),
        "rare": int((counts < RARE).sum()) if len(labelled) else 0,
        "left_out": corpus.report["labels_left_out"],
    }


def _upper_pairs(together: Any) -> list[tuple[int, int, int]]:
    from scipy.sparse import triu

    return largest_pairs(triu(together, k=1), MOST_ENTRIES)


def similar_names(names: Sequence[str]) -> list[list[str]]:
    """Return labels whose names differ only in case, signs or a plural s."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        # "C", "C++" and "C#" are three languages.
        key = re.sub(r"[^\w+#]+|_+", "", name.casefold()).removesuffix("s")
        by_key.setdefault(key or name, []).append(name)
    return [similar for similar in by_key.values() if len(similar) > 1]


def word_figures(
    words: list[list[tuple[int, float, int, int]]],
    counts: WordCounts,
    y: np.ndarray,
    numbers: np.ndarray,
    names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return the words that tell each label, those of frequent labels first.

    Parameters
    ----------
    words : list
        From `shared.methods.telling_words`.
    counts : WordCounts
        Of the labelled texts, in the order of `y`.
    y : bool array of shape (labelled texts, labels)
    numbers : int array of shape (labelled texts,)
        The row of each text in the source.
    names : sequence of str
    """
    present = counts.present.tocsc()
    figures = []
    for label in np.argsort(-y.sum(axis=0), kind="stable")[:MOST_LABELS].tolist():
        entries = []
        for word, score, with_label, others in words[label]:
            texts = present.indices[present.indptr[word] : present.indptr[word + 1]]
            rows = np.sort(numbers[texts[y[texts, label]]])[:3]
            entries.append(
                {"word": counts.words[word], "z": round(score, 2), "texts": with_label}
                | {"other_texts": others, "rows": rows.tolist()}
            )
        figures.append({"label": names[label], "texts": int(y[:, label].sum()), "words": entries})
    return figures


# --- lengths -------------------------------------------------------------------------------------


def length_figures(
    corpus: Corpus,
    sample: np.ndarray,
    tokens: np.ndarray,
    unknown: float,
    *,
    model: str,
    limit: int | None,
) -> dict[str, Any]:
    """Return the lengths of texts in words and tokens, and what a limit would cut.

    Parameters
    ----------
    corpus : Corpus
    sample : int array of shape (n,)
        The texts whose tokens were counted.
    tokens : int array of shape (n,)
        Special tokens included.
    unknown : float
        The share of them that the tokenizer does not know.
    model : str
        The name of the encoder.
    limit : int, optional
        Tokens that it reads at most; None: not known.
    """
    words = corpus.dataset.data["words"].to_numpy()
    numbers = row_numbers(corpus)
    lengths = sorted({*LENGTHS, *([limit] if limit else [])})
    longest = sample[np.argsort(-tokens, kind="stable")[:MOST_ROWS]]
    tokens_of = dict(zip(sample.tolist(), tokens.tolist(), strict=True))
    short = np.flatnonzero(words < SHORT_WORDS)
    return {
        # A script without spaces has a word for each character.
        "characters_count_as_words": corpus.report["unspaced_texts"] > 0,
        "words": _percentiles(words),
        "model": model,
        "model_limit": limit,
        "unknown_tokens": unknown,
        "texts_counted": len(tokens),
        "tokens": _percentiles(tokens),
        "histogram": _histogram(tokens),
        "cuts": [
            {
                "max_length": length,
                "texts_cut": int((tokens > length).sum()),
                "share_of_texts": float((tokens > length).mean()),
                "share_of_tokens": float(np.maximum(tokens - length, 0).sum() / tokens.sum()),
            }
            for length in lengths
        ],
        "longest": [
            _text_entry(corpus, i, numbers) | {"words": int(words[i]), "tokens": tokens_of[i]}
            for i in longest.tolist()
        ],
        "short_texts": len(short),
        "short": [_text_entry(corpus, i, numbers) for i in short[:MOST_ENTRIES].tolist()],
    }


def _percentiles(values: np.ndarray) -> dict[str, float]:
    points = (5, 25, 50, 75, 95, 99)
    figures = dict(zip((f"p{p}" for p in points), np.percentile(values, points), strict=True))
    return {name: float(value) for name, value in figures.items()} | {
        "mean": float(values.mean()),
        "max": int(values.max()),
    }


def _histogram(values: np.ndarray) -> list[dict[str, float]]:
    """Return the number of values in bins whose ends grow by a quarter of an octave."""
    edges = np.unique(np.round(2 ** np.arange(0, np.log2(values.max() + 1) + 1, 0.25)))
    edges = edges[: np.searchsorted(edges, values.max(), side="right") + 1]
    edges = edges[max(np.searchsorted(edges, values.min(), side="right") - 1, 0) :]
    counts, _ = np.histogram(values, edges)
    return [
        {"from": int(low), "to": int(high), "texts": int(count)}
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _text_entry(corpus: Corpus, index: int, numbers: np.ndarray) -> dict[str, Any]:
    return {"row": int(numbers[index]), "text": headline(corpus.dataset[index]["text"], 160)}


# --- languages -----------------------------------------------------------------------------------


def language_figures(
    corpus: Corpus, sample: np.ndarray, languages: Sequence[tuple[str, float]]
) -> dict[str, Any]:
    """Return the languages of texts, with the surest texts of each.

    Parameters
    ----------
    corpus : Corpus
    sample : int array of shape (n,)
    languages : sequence of (str, float)
        From `shared.data.detect_languages`, of the texts of `sample`.
    """
    numbers = row_numbers(corpus)
    probability = np.array([p for _, p in languages])
    codes = np.array([code if p >= SURE else "" for code, p in languages])
    entries = []
    for code, count in Counter(codes.tolist()).most_common():
        members = np.flatnonzero(codes == code)
        best = members[np.argsort(-probability[members], kind="stable")[:MOST_ROWS]]
        entries.append(
            {"language": code, "texts": count, "share": count / len(codes)}
            | {"rows": numbers[sample[best]].tolist()}
            | {"example": headline(corpus.dataset[int(sample[best[0]])]["text"], 100)}
        )
    return {"texts_counted": len(codes), "languages": entries}


# --- copies --------------------------------------------------------------------------------------


def copy_figures(corpus: Corpus, groups: Sequence[TextGroup]) -> dict[str, Any]:
    """Return the groups of texts that are the same, or nearly so, and those with other labels.

    Parameters
    ----------
    corpus : Corpus
        The rows that `groups` are of, exact copies among them.
    groups : sequence of TextGroup
    """
    conflicts = [group for group in groups if group.label_sets > 1]
    # Copies of one text with different labels come first: one of them is wrong.
    conflicts.sort(key=lambda group: not group.copies_conflict)
    exact = [group for group in groups if group.n_texts == 1]
    return {
        "groups": len(groups),
        "texts": sum(len(group.rows) for group in groups),
        "exact_groups": len(exact),
        "exact_texts": sum(len(group.rows) for group in exact),
        "conflicts": len(conflicts),
        "conflicts_of_copies": sum(group.copies_conflict for group in conflicts),
        "largest": [_group_entry(corpus, group) for group in groups[:MOST_ENTRIES]],
        "conflicting": [_group_entry(corpus, group) for group in conflicts[:MOST_ENTRIES]],
    }


def _group_entry(corpus: Corpus, group: TextGroup) -> dict[str, Any]:
    names = corpus.label_names
    # Of each set of labels as many rows, so that none is beyond the end of the list.
    by_labels: dict[tuple[int, ...] | None, list[int]] = {}
    of_group = corpus.dataset.select(group.rows)["labels"]
    for index, ids in zip(group.rows, of_group, strict=True):
        by_labels.setdefault(None if ids is None else tuple(ids), []).append(int(index))
    most = max(1, MOST_ENTRIES // len(by_labels))
    listed = sorted(index for rows in by_labels.values() for index in rows[:most])
    counts = {
        None if ids is None else tuple(names[i] for i in ids): len(rows)
        for ids, rows in by_labels.items()
    }
    dataset = corpus.dataset.select(listed[:MOST_ENTRIES])
    members: dict[tuple[str, ...] | None, list[int]] = {}
    seen: dict[tuple[Any, str], dict[str, Any]] = {}
    for row, ids, text in zip(dataset["row"], dataset["labels"], dataset["text"], strict=True):
        labels = None if ids is None else tuple(names[i] for i in ids)
        members.setdefault(labels, []).append(row)
        entry = {"row": row, "labels": labels and list(labels), "text": text[:MOST_CHARACTERS]}
        seen.setdefault((labels, " ".join(text.split())), entry)
    # One text of each set of labels first, then others.
    firsts = {entry["labels"] and tuple(entry["labels"]): entry for entry in [*seen.values()][::-1]}
    shown = [*firsts.values(), *(e for e in seen.values() if e not in firsts.values())]
    return {
        "texts": len(group.rows),
        "different_texts": group.n_texts,
        "copies_conflict": group.copies_conflict,
        "labels": [
            {"labels": labels and list(labels), "rows": rows, "texts": counts[labels]}
            for labels, rows in members.items()
        ],
        "examples": sorted(shown[:GROUP_TEXTS], key=lambda entry: entry["row"]),
    }


# --- templates -----------------------------------------------------------------------------------


def template_figures(corpus: Corpus, shared: SharedLines) -> dict[str, Any]:
    """Return the lines that many texts share, and the texts that are hardly more than these."""
    numbers = row_numbers(corpus)
    words = corpus.dataset.data["words"].to_numpy()
    mostly = np.flatnonzero(shared.share >= TEMPLATE_SHARE)
    return {
        "lines": len(shared.lines),
        "share_of_words": float((shared.share * words).sum() / words.sum()),
        "texts_with_shared_lines": int((shared.share > 0).sum()),
        "frequent": [
            {
                "line": line[:200],
                "texts": count,
                "share": count / len(words),
                "rows": numbers[positions].tolist(),
            }
            for line, count, positions in shared.lines[:MOST_ENTRIES]
        ],
        "mostly_template": len(mostly),
        "mostly": [_text_entry(corpus, i, numbers) for i in mostly[:MOST_ENTRIES].tolist()],
    }


# --- time ----------------------------------------------------------------------------------------


def time_figures(corpus: Corpus, column: str, times: np.ndarray) -> dict[str, Any]:
    """Return texts and labels by period, and how much the share of a label has changed.

    Parameters
    ----------
    corpus : Corpus
    column : str
    times : datetime64 array of shape (rows,)
        NaT where it is not known.
    """
    dated = np.flatnonzero(~np.isnat(times))
    days = times[dated].astype("datetime64[D]")
    unit, starts = _periods(days)
    first, period = np.unique(starts, return_inverse=True)
    labelled = np.isin(dated, corpus.labelled)
    y = corpus.label_matrix(dated).astype(bool)[labelled]
    period_of = period[labelled]
    counts = y.sum(axis=0)
    shown = np.argsort(-counts, kind="stable")[:TREND_LABELS]
    shown = shown[counts[shown] > 0].tolist()
    n = len(first)
    is_new = _is_newest(times[dated][labelled])
    per_label = {
        corpus.label_names[label]: np.bincount(period_of[y[:, label]], minlength=n).tolist()
        for label in shown
    }
    return {
        "column": column,
        "dated": len(dated),
        "undated": len(times) - len(dated),
        "first": str(days.min()),
        "last": str(days.max()),
        "unit": unit,
        "periods": [str(start) for start in first],
        "texts": np.bincount(period, minlength=n).tolist(),
        "labelled": np.bincount(period_of, minlength=n).tolist(),
        "labels": per_label,
        "newest_share": float(is_new.mean()) if len(is_new) else 0.0,
        "shifts": _shifts(y, is_new, corpus.label_names),
    }


def _periods(days: np.ndarray) -> tuple[str, np.ndarray]:
    """Return the unit of at most `MOST_PERIODS` periods, and the first day of that of each day."""
    span = int((days.max() - days.min()).astype(int)) + 1
    months = days.astype("datetime64[M]")
    starts: dict[str, Any] = {
        "day": days,
        "week": days - ((days.astype(int) + 3) % 7).astype("timedelta64[D]"),  # Monday
        "month": months,
        "quarter": months - (months.astype(int) % 3).astype("timedelta64[M]"),
        "year": days.astype("datetime64[Y]"),
    }
    lengths = {"day": 1, "week": 7, "month": _YEAR / 12, "quarter": _YEAR / 4}
    unit = next((u for u, length in lengths.items() if span <= MOST_PERIODS * length), "year")
    return unit, starts[unit].astype("datetime64[D]")


def _is_newest(times: np.ndarray) -> np.ndarray:
    """Return which texts are the newest quarter; equal times are not divided, so it may be more."""
    n_new = len(times) // 4
    if not n_new:
        return np.zeros(len(times), bool)
    return times >= np.sort(times)[-n_new]


def _shifts(y: np.ndarray, is_new: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return labels by how much their share differs between the newest texts and the others."""
    if is_new.all() or not is_new.any():
        return []
    old, new = y[~is_new], y[is_new]
    before, after, pooled = old.mean(axis=0), new.mean(axis=0), y.mean(axis=0)
    # The z-test of two proportions.
    error = np.sqrt(pooled * (1 - pooled) * (1 / len(old) + 1 / len(new)))
    z = (after - before) / np.maximum(error, 1e-12)
    return [
        {"label": names[label], "before": float(before[label])}
        | {"after": float(after[label]), "z": round(float(z[label]), 1)}
        for label in np.argsort(-np.abs(z), kind="stable")[:MOST_ENTRIES].tolist()
    ]


# --- map -----------------------------------------------------------------------------------------


def map_points(corpus: Corpus, rows: np.ndarray, points: np.ndarray) -> list[dict[str, Any]]:
    """Return the points of the map with row number, labels and the beginning of the text.

    Parameters
    ----------
    corpus : Corpus
    rows : int array of shape (points,)
    points : array of shape (points, 2)
    """
    dataset = corpus.dataset.select(rows)
    columns: Iterable = zip(
        dataset["row"], dataset["labels"], dataset["text"], points.tolist(), strict=True
    )
    return [
        {"row": row, "labels": labels, "x": round(x, 4), "y": round(y, 4)}
        | {"text": text[:MOST_CHARACTERS]}
        for row, labels, text, (x, y) in columns
    ]
