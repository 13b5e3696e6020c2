"""Ask a language model for the labels of many texts, and count its answers.

Several answers to the same prompt are votes: the share of those that give a label is its score. An
answer that cannot be read is asked again, with the complaint; after some times the text stays
without labels.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from shared.llm.answers import AnswerFormat
from shared.llm.budget import BudgetSpent
from shared.llm.endpoint import Endpoint, Message, NoAnswer

# Why a text has no labels, or is to be looked at.
NOT_ASKED = "not asked: the budget is spent"
INVALID = "no valid answer"
REFUSED = "refused"
DISAGREE = "answers differ"

_CUT_OFF = "The answer was cut off. Answer with the JSON object alone."


@dataclass
class Labelling:
    """What a model says of n texts.

    Attributes
    ----------
    scores : float array of shape (n, labels)
        Probability of each label; NaN in the rows of texts without an answer.
    problems : list of n str
        One of the constants of this module, or what the server has said; "" for none.
    """

    scores: np.ndarray
    problems: list[str]

    @property
    def answered(self) -> np.ndarray:
        """bool array of shape (n,): which texts have an answer."""
        return ~np.isnan(self.scores[:, 0])

    @property
    def not_asked(self) -> np.ndarray:
        """bool array of shape (n,): which texts the budget did not allow."""
        return np.array([problem == NOT_ASKED for problem in self.problems], bool)

    def choose(self, multilabel: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels, and the confidence in them.

        Parameters
        ----------
        multilabel : bool
            Whether all labels with a score of .5 or more apply, or the best one.

        Returns
        -------
        chosen : bool array of shape (n, labels)
            No label in the rows of texts without an answer.
        confidence : float array of shape (n,)
            The score of the label; with several, the lowest probability of the decisions about
            each label. NaN without an answer.
        """
        scores = np.nan_to_num(self.scores)
        if multilabel:
            chosen = (scores >= 0.5) & self.answered[:, None]
            confidence = np.maximum(scores, 1 - scores).min(axis=1)
        else:
            best = scores.argmax(axis=1)[:, None]
            chosen = (np.arange(scores.shape[1]) == best) & self.answered[:, None]
            confidence = scores.max(axis=1)
        return chosen, np.where(self.answered, confidence, np.nan)


async def ask_for_labels(
    endpoint: Endpoint,
    prompt_of: Callable[[int], str],
    n_texts: int,
    answers: AnswerFormat,
    *,
    samples: int,
    attempts: int,
    concurrency: int,
    on_answer: Callable[[], object],
) -> Labelling:
    """Ask for the labels of texts, several requests at a time.

    Parameters
    ----------
    endpoint : Endpoint
        Inside of its ``async with``.
    prompt_of : callable
        Returns the prompt for the text of a number.
    n_texts : int
    answers : AnswerFormat
    samples : int
        Answers to each prompt.
    attempts : int
        How often an answer is asked for before the text stays without it.
    concurrency : int
        Requests at a time. The first one is sent alone: what is wrong with all of them, it says.
    on_answer : callable
        Called after each sample.

    Returns
    -------
    Labelling
        A text of which the budget did not allow all samples counts as not asked.
    """
    votes: list[list[list[int]]] = [[] for _ in range(n_texts)]
    problems: list[list[str]] = [[] for _ in range(n_texts)]
    queue = product(range(n_texts), range(samples))

    async def ask(text: int, sample: int) -> None:
        try:
            votes[text].append(
                await _converse(endpoint, prompt_of(text), sample, answers, attempts)
            )
        except BudgetSpent:
            problems[text].append(NOT_ASKED)
        except (NoAnswer, _NoLabels) as error:
            problems[text].append(str(error))
        on_answer()

    async def work(jobs: Iterator[tuple[int, int]]) -> None:
        for text, sample in jobs:
            await ask(text, sample)

    for first in queue:
        await ask(*first)
        break
    workers = [asyncio.create_task(work(queue)) for _ in range(concurrency)]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    labelling = Labelling(np.full((n_texts, len(answers.label_names)), np.nan), [])
    for text, (labels, reasons) in enumerate(zip(votes, problems, strict=True)):
        problem = NOT_ASKED if NOT_ASKED in reasons else next(iter(reasons), "")
        if labels and NOT_ASKED not in reasons:
            votes_for = np.zeros((len(labels), len(answers.label_names)))
            for vote, indices in zip(votes_for, labels, strict=True):
                vote[indices] = 1
            labelling.scores[text] = votes_for.mean(axis=0)
            if reasons or len({*map(tuple, labels)}) > 1:
                problem = DISAGREE
        labelling.problems.append(problem)
    return labelling


class _NoLabels(Exception):
    """A conversation that ended without labels."""


async def _converse(
    endpoint: Endpoint, prompt: str, sample: int, answers: AnswerFormat, attempts: int
) -> list[int]:
    """Return the labels that the model gives; ask again where its answer cannot be read."""
    messages: list[Message] = [{"role": "user", "content": prompt}]
    for _ in range(attempts):
        completion = await endpoint.complete(messages, sample)
        if completion.problem == "refused":
            raise _NoLabels(REFUSED)
        complaint = _CUT_OFF
        if not completion.problem:
            try:
                return answers.read(completion.text)
            except ValueError as error:
                names = ", ".join(answers.label_names)
                complaint = f"{error} The labels are: {names}. {answers.instruction}"
        messages += [
            {"role": "assistant", "content": completion.text},
            {"role": "user", "content": complaint},
        ]
    raise _NoLabels(INVALID)
