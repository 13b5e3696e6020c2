"""Baselines of a cross-validation: what a fine-tuned model must beat on the same folds."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.launch import is_main_process
from shared.evaluation.cross_validation import join_folds, score_folds
from shared.methods.baselines import (
    fit_ridge,
    fit_ridge_on_words,
    fit_words,
    logistic_probe,
    tfidf_logistic_regression,
)
from shared.methods.strategies import fit_strategy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import Trainer

    from shared.data.folded_numbers import FoldedNumbers
    from shared.data.folds import FoldedData
    from shared.methods.windows import Windows


def fold_baselines(
    data: FoldedData | FoldedNumbers,
    windows: Mapping[str, Windows],
    embedder: Trainer,
    *,
    model_folder: str,
    settings: object,
    cache_dir: str | Path,
) -> dict[str, dict[str, np.ndarray]]:
    """Score two baselines on the folds: logistic regression on words, and on embeddings.

    Parameters
    ----------
    data : FoldedData or FoldedNumbers
    windows : part to Windows
        The windows of the documents of each part.
    embedder : Trainer
        Of a `shared.methods.embeddings.MeanPooling` model: the encoder before fine-tuning.
    model_folder, settings, cache_dir
        As in `shared.methods.embeddings.cached_vectors`: embeddings are computed once.

    Returns
    -------
    dict of "tfidf" and "frozen" to part to array of shape (documents, labels)
        Probabilities, as `shared.evaluation.cross_validation.join_folds` returns them. "tfidf" is
        logistic regression on TF-IDF, "frozen" the same on the mean embedding of a document's
        windows; for numbers both are ridge regression, and the arrays hold numbers. All processes
        embed, the main one fits; the others get an empty dict.
    """
    from shared.methods.embeddings import cached_vectors, normalized

    texts, vectors = {}, {}
    for part, documents in data.documents.items():
        strings = documents["text"][:]
        texts[part] = np.array(strings, dtype=object)
        embed = partial(windows[part].predict, embedder)
        raw, _ = cached_vectors(strings, model_folder, settings, cache_dir, embed)
        vectors[part] = normalized(raw)
    if not is_main_process():
        return {}
    scores = {}
    baselines: dict[str, tuple[Any, Mapping[str, np.ndarray]]] = {
        "tfidf": (partial(fit_words, tfidf_logistic_regression()), texts),
        "frozen": (partial(fit_strategy, logistic_probe()), vectors),
    }
    if data.labels["oof"].dtype.kind == "f":
        baselines = {"tfidf": (fit_ridge_on_words, texts), "frozen": (fit_ridge, vectors)}
    for method, (fit, inputs) in baselines.items():
        scores[method] = join_folds(
            score_folds(fit, inputs, data.labels["oof"], data.fold_of), data.fold_of
        )
    return scores
