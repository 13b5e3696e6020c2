"""What to do next: advice that follows from the figures of `shared.reports.exploration`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from shared.data.languages import NO_LANGUAGE
from shared.models.tokenizers import UNKNOWN_LIMIT
from shared.reports.exploration import RARE

DOMINANT = 0.8  # share of the labelled texts from which a label makes accuracy say little
CUT_SHARE = 0.1  # of the texts, above which the default length is too short
USUAL_LENGTH = 256  # the default --max_length of most recipes
OTHER_LANGUAGES = 0.05  # share of the texts from which they are mentioned
TEMPLATE_WORDS = 0.1  # share of the words in shared lines from which they are mentioned
LARGE_SHIFT, CERTAIN_SHIFT = 0.05, 4.0  # of the share of a label, and its z-score
FEW_LABELLED = 500  # below, recipes test by cross-validation
_ROWS = 5

Step = dict[str, str]


def next_steps(figures: Mapping[str, Any], *, default_model: bool = False) -> list[Step]:
    """Return what to do, the most urgent first, as ``section`` (of the page) and ``text``.

    Parameters
    ----------
    figures : mapping
        Those of explore.json; sections that were not computed are missing.
    default_model : bool
        Whether the encoder is the default one, which was trained on English.
    """
    checks: list[tuple[str, Callable[[Mapping[str, Any]], Iterator[str]]]] = [
        ("copies", _about_conflicts),
        ("labels", partial(_about_labels, figures["rows"])),
        ("lengths", _about_lengths),
        ("languages", partial(_about_languages, default_model)),
        ("templates", _about_templates),
        ("time", _about_time),
        ("copies", _about_copies),
        ("rows", _about_rows),
    ]
    return [
        {"section": section, "text": text}
        for section, check in checks
        if section in figures
        for text in check(figures[section])
    ]


def _about_conflicts(copies: Mapping[str, Any]) -> Iterator[str]:
    if n := copies["conflicts_of_copies"]:
        yield (
            f"{_count(n, 'set')} of copies of one text with different labels "
            f"({_group_rows(copies['conflicting'][0])}): correct "
            "the rows, or give --duplicate_labels merge (all labels) or majority."
        )
    if n := copies["conflicts"] - copies["conflicts_of_copies"]:
        # The list of groups has an end, and sets of copies come first.
        first = next((g for g in copies["conflicting"] if not g["copies_conflict"]), None)
        rows = f" ({_group_rows(first)})" if first else ""
        yield (
            f"{_count(n, 'group')} of nearly the same text with different labels{rows}: check "
            "which labels are right."
        )


def _about_labels(rows: Mapping[str, Any], labels: Mapping[str, Any]) -> Iterator[str]:
    if not rows["labelled"]:
        yield (
            "No text has a label: the recipe label_next chooses which texts to label first, and "
            "zero_shot labels them by the names of the labels. If there are labels, name their "
            "column (--label_column)."
        )
        return
    if similar := labels["similar_names"]:
        listed = "; ".join(" and ".join(names) for names in similar[:_ROWS])
        more = f"; and {len(similar) - _ROWS:,} more" if len(similar) > _ROWS else ""
        yield f"Labels whose names are nearly the same: {listed}{more}. Join them by --label_map."
    if n_rare := labels["rare"]:
        rare = [entry for entry in labels["labels"] if entry["texts"] < RARE][:_ROWS]
        examples = ", ".join(f"{entry['label']} {entry['texts']}" for entry in rare)
        examples += ", ..." if n_rare > len(rare) > 0 else ""
        have = "has" if n_rare == 1 else "have"
        step = f"--min_label_count {RARE} leaves {'it' if n_rare == 1 else 'them'} out"
        if n_rare == labels["n_labels"]:
            step = "label more texts (the recipe label_next chooses which)"
        yield (
            f"{_count(n_rare, 'label')} of {labels['n_labels']:,} {have} fewer than {RARE} texts"
            f"{f' ({examples})' if examples else ''}: {step}."
        )
    first = labels["labels"][0]
    if len(labels["labels"]) > 1 and first["share"] >= DOMINANT:
        yield (
            f"{_percent(first['share'])} of the labelled texts are {first['label']}: a classifier "
            "that says so of every text has this accuracy; read macro F1."
        )
    if rows["unlabelled"] > rows["labelled"]:
        yield (
            f"{rows['unlabelled']:,} texts have no label, and {rows['labelled']:,} have: "
            "label_next chooses which to label next; co_training and self_training learn from "
            "those without."
        )
    if rows["labelled"] < FEW_LABELLED:
        yield (
            f"{rows['labelled']:,} labelled texts are few: test by cross-validation (best, "
            "few_label_probe), and read the intervals of the figures."
        )


def _about_lengths(lengths: Mapping[str, Any]) -> Iterator[str]:
    if (share := lengths["unknown_tokens"]) > UNKNOWN_LIMIT:
        yield (
            f"{lengths['model']} does not know {_percent(share)} of the tokens: take an encoder "
            "for these texts (--model), or naive_bayes, which reads any script."
        )
    limit = lengths["model_limit"]
    usual = next(cut for cut in lengths["cuts"] if cut["max_length"] == USUAL_LENGTH)
    if usual["share_of_texts"] > CUT_SHARE:
        text = (
            f"{_percent(usual['share_of_texts'])} of the texts are longer than {USUAL_LENGTH} "
            "tokens, the default of most recipes, which cuts "
            f"{_percent(usual['share_of_tokens'])} of all tokens: "
        )
        # A multiple of 128 will do: batches are padded to their longest text.
        wanted = -(-int(lengths["tokens"]["p95"]) // 128) * 128
        share = 0.95
        if limit is not None and wanted > limit:
            wanted = limit
            cut = next(cut for cut in lengths["cuts"] if cut["max_length"] == limit)
            share = 1 - cut["share_of_texts"]
        text += f"--max_length {wanted} reads {_percent(share)} of them whole"
        if wanted == limit:
            text += ", and is the most that the model reads; document_classification reads all"
        yield f"{text}. If the end says more than the beginning: --truncation_side left."
    elif lengths["tokens"]["p99"] <= USUAL_LENGTH / 2:
        wanted = max(-(-int(lengths["tokens"]["p99"]) // 32) * 32, 32)
        yield (
            f"{_percent(0.99)} of the texts have at most {wanted} tokens: --max_length {wanted} "
            "loses next to nothing."
        )
    if n := lengths["short_texts"]:
        rows = _some([entry["row"] for entry in lengths["short"]], n)
        yield f"{_count(n, 'text')} of one or two words ({rows}): do they say enough for a label?"


def _about_languages(default_model: bool, languages: Mapping[str, Any]) -> Iterator[str]:
    known = [e for e in languages["languages"] if e["language"] not in ("", NO_LANGUAGE)]
    if not known:
        return
    main, *others = known
    n = sum(entry["texts"] for entry in others)
    if n / languages["texts_counted"] >= OTHER_LANGUAGES:
        listed = ", ".join(f"{entry['language']} {entry['texts']:,}" for entry in others[:_ROWS])
        yield (
            f"{_percent(n / languages['texts_counted'])} of the texts are not in the main "
            f"language, {main['language']} ({listed}): take a multilingual encoder (--model)."
        )
    elif main["language"] != "en" and default_model:
        yield (
            f"Most texts are in the language {main['language']}, and the default encoder was "
            "trained on English: take a multilingual encoder, or one of this language (--model)."
        )


def _about_templates(templates: Mapping[str, Any]) -> Iterator[str]:
    if n := templates["mostly_template"]:
        rows = _some([entry["row"] for entry in templates["mostly"]], n)
        yield (
            f"{_count(n, 'text')} of hardly more than lines that many share ({rows}): leave out "
            "what nobody has filled in."
        )
    if templates["share_of_words"] >= TEMPLATE_WORDS:
        yield (
            f"{_percent(templates['share_of_words'])} of all words are in lines that many texts "
            f"share, such as “{templates['frequent'][0]['line'][:60]}”: remove them, or they fill "
            "the tokens that a model reads."
        )


def _about_time(time: Mapping[str, Any]) -> Iterator[str]:
    shifts = [
        shift
        for shift in time["shifts"]
        if abs(shift["z"]) >= CERTAIN_SHIFT and abs(shift["after"] - shift["before"]) >= LARGE_SHIFT
    ]
    if shifts:
        listed = ", ".join(
            f"{shift['label']} {_percent(shift['before'])} to {_percent(shift['after'])}"
            for shift in shifts[:3]
        )
        yield (
            f"Labels change with time (the newest {_percent(time['newest_share'])} against the "
            f"others: {listed}): --split_time {time['column']} tests on the newest texts, as in "
            "use."
        )


def _about_copies(copies: Mapping[str, Any]) -> Iterator[str]:
    if n := copies["texts"]:
        yield (
            f"{n:,} texts are copies or near duplicates, in {_count(copies['groups'], 'group')}: "
            "nothing to do; recipes drop exact copies, and keep the others on one side of a split."
        )


def _about_rows(rows: Mapping[str, Any]) -> Iterator[str]:
    if n := rows["blank_texts"]:
        yield f"{_count(n, 'row')} without text ({_some(rows['blank_rows'], n)}): left out."


def _percent(share: float) -> str:
    return f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def _some(rows: list[int], total: int) -> str:
    """Return the first rows, as "rows 3, 17 and 5 more"."""
    shown = rows[:_ROWS]
    more = f" and {total - len(shown):,} more" if total > len(shown) else ""
    return f"row{'' if total == 1 else 's'} {', '.join(map(str, shown))}{more}"


def _group_rows(group: Mapping[str, Any]) -> str:
    rows = sorted(row for entry in group["labels"] for row in entry["rows"])
    return f"the first: {_some(rows, group['texts'])}"
