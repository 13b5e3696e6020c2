"""From the logits of windows to answers: the best spans, and when there is no answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.data.questions import Question
from shared.methods.answer_windows import (
    FIRST,
    STOP,
    QuestionWindows,
    check_windows,
    question_windows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Span:
    """A piece of a context that may answer a question.

    Attributes
    ----------
    text : str
    start : int
        The character of the context with which it begins.
    score : float
        Its probability among all spans of all windows and "no answer".
    """

    text: str
    start: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What a model says to a question.

    Attributes
    ----------
    spans : list of Span
        The best ones, the best first; they differ in their text.
    no_answer_score : float
        Probability that there is no answer.
    margin : float
        How far the score of "no answer" lies above that of the best span, in logits. It is compared
        with a threshold.
    """

    spans: list[Span]
    no_answer_score: float
    margin: float

    def text(self, threshold: float | None) -> str:
        """Return the best span, or "" if `margin` is above the threshold; None: always a span."""
        if not self.spans or (threshold is not None and self.margin > threshold):
            return ""
        return self.spans[0].text


def best_answers(
    logits: np.ndarray,
    windows: QuestionWindows,
    questions: Sequence[Question],
    *,
    max_answer_length: int,
    n_best: int = 3,
) -> list[Answer]:
    """Return the answer of each question.

    Parameters
    ----------
    logits : float array of shape (windows, length, 2)
        Of start and end, in the order of `windows`; `length` may exceed that of a window.
    windows : QuestionWindows
        With offsets.
    questions : sequence of Question
    max_answer_length : int
        Tokens.
    n_best : int, default 3

    Notes
    -----
    The score of a span is the sum of the logits of its start and its end; all spans of at most
    `max_answer_length` tokens are compared, in all windows. That of "no answer" is the sum at the
    first token, of the window that is most sure of an answer (Devlin et al. 2019, BERT, 4.3).
    """
    targets = np.array(windows.rows["labels"][:]).reshape(-1, 5)
    order = np.argsort(windows.question, kind="stable")
    bounds = np.searchsorted(windows.question[order], np.arange(len(questions) + 1))
    answers = []
    for number, question in enumerate(questions):
        spans, nulls = [], []  # spans: (score, start, stop), in characters
        totals = []
        for window in order[bounds[number] : bounds[number + 1]]:
            first, stop = targets[window, FIRST], targets[window, STOP]
            nulls.append(float(logits[window, 0].sum()))
            if stop == first:
                continue
            scores = span_scores(logits[window, first:stop], max_answer_length)
            totals.append(_log_sum(scores))
            offsets = windows.offsets[window]
            # Different spans may have the same text, so more are looked at than are returned.
            for best in _largest(scores, 8 * n_best):
                begin, length = divmod(int(best), scores.shape[1])
                spans.append(
                    (float(scores[begin, length]), offsets[begin, 0], offsets[begin + length, 1])
                )
        null = min(nulls)
        total = _log_sum(np.array([null, *totals]))
        chosen: dict[str, Span] = {}
        spans.sort(key=lambda span: -span[0])
        for score, start, stop in spans:
            text, begin = _strip(question.context, int(start), int(stop))
            if text and text not in chosen:
                chosen[text] = Span(text, begin, float(np.exp(score - total)))
            if len(chosen) == n_best:
                break
        margin = null - spans[0][0] if spans else float("inf")
        answers.append(Answer(list(chosen.values()), float(np.exp(null - total)), margin))
    return answers


def span_scores(logits: np.ndarray, max_answer_length: int) -> np.ndarray:
    """Return the score of each span: row i, column j is that of tokens i to i + j.

    Parameters
    ----------
    logits : float array of shape (tokens, 2)
        Of start and end.
    max_answer_length : int

    Returns
    -------
    float64 array of shape (tokens, min(max_answer_length, tokens))
        -inf where a span would pass the end.
    """
    n_tokens = len(logits)
    width = min(max_answer_length, n_tokens)
    ends = np.concatenate([logits[:, 1], np.full(width - 1, -np.inf)]).astype(np.float64)
    return logits[:, :1].astype(np.float64) + np.lib.stride_tricks.sliding_window_view(ends, width)


def _largest(scores: np.ndarray, most: int) -> np.ndarray:
    """Return the flat indices of the largest finite scores."""
    flat = scores.ravel()
    most = min(most, len(flat))
    best = np.argpartition(-flat, most - 1)[:most]
    return best[np.isfinite(flat[best])]


def _log_sum(values: np.ndarray) -> float:
    """Return the logarithm of the sum of the exponentials."""
    largest = values.max()
    return float(largest + np.log(np.exp(values - largest).sum()))


def _strip(text: str, start: int, stop: int) -> tuple[str, int]:
    """Return a piece of a text without white space around it, and where it begins."""
    piece = text[start:stop]
    return piece.strip(), start + len(piece) - len(piece.lstrip())


def choose_threshold(
    answers: Sequence[Answer], scores: Sequence[float] | np.ndarray, questions: Sequence[Question]
) -> float | None:
    """Return the margin above which "no answer" gives the highest mean score.

    Parameters
    ----------
    answers : sequence of Answer
    scores : float array of shape (questions,)
        What the best span of each question scores, 0 where the context has no answer.
    questions : sequence of Question
        Of the validation set.

    Returns
    -------
    float or None
        None, always a span, if every question has an answer. Of equally good thresholds, one in the
        middle between two margins, the nearest to 0.
    """
    has_answer = np.array([bool(question.answers) for question in questions], bool)
    if has_answer.all():
        return None
    margins = np.array([answer.margin for answer in answers])
    order = np.argsort(margins, kind="stable")
    # After k questions in this order have their span, and the others none.
    gains = np.where(has_answer, np.asarray(scores, float), 0.0)[order]
    losses = (~has_answer)[order].astype(float)
    totals = np.concatenate([[0], np.cumsum(gains)]) + losses.sum()
    totals -= np.concatenate([[0], np.cumsum(losses)])
    finite = margins[order]
    finite = finite[np.isfinite(finite)]
    totals = totals[: len(finite) + 1]
    if not len(finite):
        return 0.0
    between = np.concatenate([[finite[0] - 1], (finite[:-1] + finite[1:]) / 2, [finite[-1] + 1]])
    # No threshold can part equal margins.
    is_possible = np.concatenate([[True], finite[:-1] < finite[1:], [True]])
    best = np.flatnonzero(is_possible & (totals >= totals[is_possible].max() - 1e-9))
    return float(between[best[np.abs(between[best]).argmin()]])


def answer_settings(model: PreTrainedModel, folder: str) -> dict[str, Any]:
    """Return the settings that a trained model has in its config.

    Returns
    -------
    dict
        ``null_threshold`` (see `Answer.text`), ``stride`` and ``max_answer_length``.

    Raises
    ------
    UserError
        If the model was not trained by recipes/span_qa.py.
    """
    settings = getattr(model.config, "question_answering", None)
    names = {"null_threshold", "stride", "max_answer_length"}
    if not isinstance(settings, dict) or not names <= settings.keys():
        raise UserError(
            f"{folder}: has no settings of a model that recipes/span_qa.py has trained; train it "
            "with that recipe"
        )
    return settings


class Answerer:
    """A trained model that answers questions; `load_answerer` loads it.

    ::

        answerer = load_answerer("outputs/span_qa")
        answerer(["Which Python version?"], ["It fails on Python 3.10 only."])

    Parameters
    ----------
    model, tokenizer
        From `shared.models.load_question_answerer` and `load_tokenizer`.
    """

    def __init__(self, model: Any, tokenizer: Any):
        self.model, self.tokenizer = model.eval(), tokenizer
        self.settings = answer_settings(model, model.name_or_path)
        check_windows(tokenizer, model, tokenizer.model_max_length, self.settings["stride"])

    def __call__(
        self, questions: Sequence[str], contexts: Sequence[str], *, batch_size: int = 16
    ) -> list[dict[str, Any]]:
        """Answer each question from the context at the same place.

        Returns
        -------
        list of dict
            `answer_record` of each.
        """
        import torch

        from shared.training.collators import PaddingCollator

        rows = [Question(q, c) for q, c in zip(questions, contexts, strict=True)]
        windows = question_windows(rows, self.tokenizer, stride=self.settings["stride"])
        collate = PaddingCollator(self.tokenizer)
        width = max(windows.rows["length"][:], default=0)
        logits = np.zeros((len(windows.rows), width, 2), np.float32)
        for start in range(0, len(logits), batch_size):
            batch = collate([windows.rows[i] for i in range(start, len(logits))[:batch_size]])
            batch = {k: v.to(self.model.device) for k, v in batch.items() if k != "labels"}
            with torch.no_grad():
                output = self.model(**batch)["logits"].float().cpu().numpy()[:, :width]
            logits[start : start + len(output), : output.shape[1]] = output
        answers = best_answers(
            logits, windows, rows, max_answer_length=self.settings["max_answer_length"]
        )
        return [answer_record(answer, self.settings["null_threshold"]) for answer in answers]


def answer_record(answer: Answer, threshold: float | None) -> dict[str, Any]:
    """Return an answer as JSON values.

    Returns
    -------
    dict
        ``answer`` ("": none), its ``start`` in the context (null: none), its ``score``,
        ``no_answer_score``, and ``best``: the best spans with text, start and score.
    """
    text = answer.text(threshold)
    return {
        "answer": text,
        "start": answer.spans[0].start if text else None,
        "score": answer.spans[0].score if text else answer.no_answer_score,
        "no_answer_score": answer.no_answer_score,
        "best": [vars(span) for span in answer.spans],
    }


def load_answerer(folder: str) -> Answerer:
    """Load a model that recipes/span_qa.py has trained.

    Raises
    ------
    UserError
        If the folder holds no such model.
    """
    from shared.models.loading import load_question_answerer, load_tokenizer
    from shared.models.sources import resolve_model

    source = resolve_model(folder)
    tokenizer = load_tokenizer(source)
    return Answerer(load_question_answerer(source, tokenizer=tokenizer), tokenizer)
