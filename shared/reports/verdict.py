"""The verdict at the end of a run: what its metrics mean, in plain words, and what to do about it.

`reading_metrics` measures how much of the texts a model reads, `fit_metrics` whether its training
has underfit or overfit. `verdict` turns the metrics of a run, those of ``metrics.json``, into
sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.files import ROOT
from shared.models.tokenizers import UNKNOWN_LIMIT, unknown_token_share, with_prefix
from shared.training.fit import judge_fit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MANY_CUT = 0.1  # share of cut texts from which the verdict says what to do


def reading_metrics(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_windows: int | None = 1,
    stride: int = 0,
    max_texts: int = 2000,
) -> dict[str, float]:
    """Return how much of the texts a model does not read.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Texts are cut at its ``model_max_length``.
    texts : sequence of str
    max_windows, stride : int
        For a model that reads a text in windows: the maximum number of them, None for all that the
        text needs, and the number of tokens that two neighbours share.
    max_texts : int
        From more texts, this number is measured, evenly spread over all.

    Returns
    -------
    dict of float
        ``texts_cut``, the share of the texts that are longer than the model reads, and
        ``unknown_tokens``, the share of the tokens that stand for something outside the vocabulary.
    """
    from datasets import Dataset

    rows = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), max_texts)).astype(int))
    sample = with_prefix(tokenizer, [texts[row] for row in rows.tolist()])
    encoded = tokenizer(sample, add_special_tokens=False, verbose=False)["input_ids"]
    room = tokenizer.model_max_length - tokenizer.num_special_tokens_to_add()
    longest = np.inf if max_windows is None else room + (max_windows - 1) * (room - stride)
    unknown = unknown_token_share(Dataset.from_dict({"input_ids": encoded}), tokenizer)
    cut = sum(len(ids) > longest for ids in encoded) / len(encoded)
    return {"texts_cut": cut, "unknown_tokens": unknown}


def fit_metrics(log_history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return whether a training has underfit or overfit, for ``metrics.json``.

    Parameters
    ----------
    log_history : sequence of mappings
        ``trainer.state.log_history``.

    Returns
    -------
    dict
        ``fit``, the state of `shared.training.fit.judge_fit`, and ``fit_explained``, its sentence;
        empty if there were too few evaluations.
    """
    judged = judge_fit(log_history)
    return {} if judged is None else {"fit": judged.state, "fit_explained": judged.sentence}


def verdict(metrics: Mapping[str, Any]) -> list[str]:
    """Return sentences about a run: better than the baseline, read the texts, under- or overfit?

    Parameters
    ----------
    metrics : mapping
        Those of ``metrics.json``: of `shared.reports.results.split_metrics`, `fit_metrics` and
        `reading_metrics`. What was not measured is not mentioned.
    """
    fit = [metrics["fit_explained"]] if "fit_explained" in metrics else []
    return [*_about_baseline(metrics), *_about_reading(metrics), *fit]


def compare_with_baseline(
    metric: str, value: float, baseline: float, name: str, *, certain: bool
) -> str:
    """Return a sentence that says which is better, the tagger or a baseline.

    Parameters
    ----------
    metric : str
        What the figures are.
    value, baseline : float
        Of the tagger, and of the baseline on the same rows.
    name : str
        Of the baseline.
    certain : bool
        Whether a tagger with the higher figure is better beyond chance.
    """
    if baseline >= value:
        advice = "Train longer or on more labelled texts, or use a simpler method"
        if (ROOT / "recipes" / "best.py").is_file():
            advice += "; `./run.sh best` compares the methods on your data"
        comparison = "is better" if baseline > value else "is as good"
        return (
            f"{name[0].upper()}{name[1:]}, which trains in seconds, {comparison}: {metric} "
            f"{baseline:.3f} on the same rows, this tagger {value:.3f}. {advice}."
        )
    figures = f"{metric} {value:.3f} against {baseline:.3f} on the same rows"
    if certain:
        return f"Better than {name}: {figures}."
    return f"Not clearly better than {name}: {figures}, which may be chance."


def _about_baseline(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Compare micro F1 with that of naive Bayes; mention macro F1 if it says the opposite."""
    if "baseline_micro_f1" not in metrics:
        return
    micro = "accuracy" if "test_accuracy" in metrics else "micro F1"
    value, baseline = metrics["test_micro_f1"], metrics["baseline_micro_f1"]
    certain = baseline < metrics["test_micro_f1_low"]
    yield compare_with_baseline(micro, value, baseline, "naive Bayes", certain=certain)
    macro, baseline_macro = metrics["test_macro_f1"], metrics["baseline_macro_f1"]
    if value > baseline and macro < baseline_macro:
        yield (
            f"But naive Bayes has the higher macro F1, {baseline_macro:.3f} against {macro:.3f}: "
            "it is better at the rare labels."
        )


def _about_reading(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Say how many texts were cut and tokens are unknown; if they are many, also what to do."""
    cut, unknown = metrics.get("texts_cut"), metrics.get("unknown_tokens")
    if cut == 0:
        yield "No text is longer than the model reads."
    elif cut is not None:
        sentence = f"{_percent(cut)} of the texts are longer than the model reads, and were cut"
        if cut >= MANY_CUT:
            sentence += (
                "; what stands at their end has no effect. Try a higher --max_length or, where a "
                "text is read in windows, --max_windows"
            )
        yield f"{sentence}."
    if unknown == 0:
        yield "No token is unknown to the model."
    elif unknown is not None:
        sentence = f"{_percent(unknown)} of the tokens are unknown to the model"
        if unknown > UNKNOWN_LIMIT:
            sentence += (
                ": its vocabulary lacks these words, or their script. Take a --model that was "
                "trained on the language of the texts or, from scratch, a larger --vocab_size"
            )
        yield f"{sentence}."


def _percent(share: float) -> str:
    return "Under 0.1 %" if share < 0.001 else f"{100 * share:.1f} %"
