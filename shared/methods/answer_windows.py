"""Questions with their contexts as windows of tokens, for models that mark an answer in a text.

A window holds the question and a piece of the context. The context of a long one is spread over
several windows, which overlap. The position of the first token, [CLS], stands for "no answer here".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.models.lengths import limit_length

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from shared.data.questions import Question

# Columns of the targets of a window, in `labels`: the first and last token of the answer (0, 0:
# none), the first token of the context and the one after its last, and the number of the window.
START, END, FIRST, STOP, WINDOW = range(5)
_QUESTIONS_PER_CALL = 500
_LONGEST_QUESTION = 64  # tokens; the end of a longer one is not read (BERT's script does the same)


@dataclass(frozen=True)
class QuestionWindows:
    """Windows of questions, and where their tokens stand in the contexts.

    Attributes
    ----------
    rows : Dataset
        A row for each window: ``input_ids``, ``token_type_ids`` if the model reads them, ``length``
        and ``labels``, five numbers (see `START` and the others).
    question : int array of shape (windows,)
        The index of the question of each window.
    offsets : list of int arrays of shape (tokens of the context in the window, 2)
        First character of each token in the context, and the one after its last. Empty if they were
        not kept.
    """

    rows: Dataset
    question: np.ndarray
    offsets: list[np.ndarray]


def check_windows(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, max_length: int, stride: int
) -> None:
    """Set the length of a window, and check that the tokenizer and the model can read windows.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Its ``model_max_length`` is set to `max_length`.
    model : PreTrainedModel
    max_length : int
        Tokens of a window: question, context and special tokens.
    stride : int
        Tokens of the context that neighbouring windows share.

    Raises
    ------
    UserError
        If a window is longer than the input of the model or leaves no room for a new token of the
        context, if the tokenizer cannot say where tokens stand in a text, or if it does not put
        [CLS] first, where "no answer" is, or pads on the left.
    """
    limit_length(tokenizer, model, max_length)
    name = type(tokenizer).__name__
    if not tokenizer.is_fast:
        raise UserError(
            f"{name}: cannot say where its tokens stand in a text; name a model with a fast "
            "tokenizer"
        )
    ids = tokenizer("a", "a")["input_ids"]
    if tokenizer.cls_token_id is None or ids[0] != tokenizer.cls_token_id:
        raise UserError(
            f"{name}: puts no [CLS] before a text, where a model says that there is no answer; "
            "name an encoder such as BERT or RoBERTa"
        )
    if tokenizer.padding_side != "right":
        raise UserError(f"{name}: pads on the left; name an encoder such as BERT or RoBERTa")
    room = max_length - tokenizer.num_special_tokens_to_add(pair=True) - _LONGEST_QUESTION
    room = max(room, max_length // 4)
    if stride >= room:
        raise UserError(
            f"--stride {stride}: must be 0 to {room - 1}, less than the {room} tokens of context "
            f"that a window of --max_length {max_length} is sure to hold"
        )


def question_windows(
    questions: Sequence[Question],
    tokenizer: PreTrainedTokenizerBase,
    *,
    stride: int,
    keep_offsets: bool = True,
    empty_windows: int | None = None,
    seed: int = 0,
) -> QuestionWindows:
    """Cut questions with their contexts into windows.

    Parameters
    ----------
    questions : sequence of Question
        An answer is a target if a window holds all of it. Of several answers, the first one is.
    tokenizer : PreTrainedTokenizerBase
        A window has at most its ``model_max_length`` tokens; see `check_windows`.
    stride : int
        Tokens of the context that neighbouring windows share.
    keep_offsets : bool, default True
        False saves memory, for training.
    empty_windows : int, optional
        Keep only so many windows of a question that hold none of its answer, drawn at random, for
        training; a question without any answer keeps as many. None: all.
    seed : int, default 0
        Of that draw.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    length = tokenizer.model_max_length
    special = tokenizer.num_special_tokens_to_add(pair=True)
    longest_question = min(_LONGEST_QUESTION, 3 * length // 4 - special)
    reads_types = "token_type_ids" in tokenizer.model_input_names
    names = ["input_ids", *(["token_type_ids"] if reads_types else []), "labels"]
    features = Features({name: List(Value("int32")) for name in names} | {"length": Value("int32")})
    rng = np.random.default_rng(seed)
    pieces: list[Dataset] = []
    of_question: list[int] = []
    offsets: list[np.ndarray] = []
    for start in progress(
        range(0, len(questions), _QUESTIONS_PER_CALL), "tokenising", unit="batches"
    ):
        batch = questions[start : start + _QUESTIONS_PER_CALL]
        tokens = tokenizer(
            _cut([question.text for question in batch], tokenizer, longest_question),
            [question.context for question in batch],
            truncation="only_second",
            max_length=length,
            stride=stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_token_type_ids=reads_types,
            split_special_tokens=True,
        )
        columns: dict[str, list] = {name: [] for name in features}
        owners = np.array(tokens["overflow_to_sample_mapping"])
        spans, targets = [], []
        for window, owner in enumerate(owners):
            is_context = np.array([s == 1 for s in tokens.sequence_ids(window)])
            first, stop = int(is_context.argmax()), int(len(is_context) - is_context[::-1].argmax())
            if not is_context.any():  # white space alone, that the tokenizer drops
                first = stop = len(is_context)
            spans.append(np.array(tokens["offset_mapping"][window], np.int32)[first:stop])
            targets.append((*_target(batch[owner], spans[-1], first), first, stop))
        for window in _kept(owners, np.array([t[END] > 0 for t in targets]), empty_windows, rng):
            for name in names[:-1]:
                columns[name].append(tokens[name][window])
            columns["labels"].append((*targets[window], len(of_question)))
            columns["length"].append(len(tokens["input_ids"][window]))
            of_question.append(start + int(owners[window]))
            if keep_offsets:
                offsets.append(spans[window])
        pieces.append(Dataset.from_dict(columns, features=features))
    if not pieces:
        pieces.append(Dataset.from_dict({name: [] for name in features}, features=features))
    return QuestionWindows(concatenate_datasets(pieces), np.array(of_question, int), offsets)


def _cut(texts: list[str], tokenizer: PreTrainedTokenizerBase, most: int) -> list[str]:
    """Return texts without what stands after their first tokens."""
    texts, room = list(texts), most
    while True:
        tokens = tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            split_special_tokens=True,
            verbose=False,
        )["offset_mapping"]
        long = [i for i, offsets in enumerate(tokens) if len(offsets) > most]
        if not long:
            return texts
        for i in long:
            texts[i] = texts[i][: tokens[i][room - 1][1]]
        room -= 1  # a piece of a word may have more tokens than it had in the word


def _target(question: Question, spans: np.ndarray, first: int) -> tuple[int, int]:
    """Return the first and last token of the answer in a window; (0, 0) if it is not in it."""
    if not question.answers or not len(spans):
        return 0, 0
    start, stop = question.starts[0], question.starts[0] + len(question.answers[0])
    if start < spans[0, 0] or stop > spans[-1, 1]:
        return 0, 0
    # All tokens that share a character with the answer.
    inside = np.flatnonzero((spans[:, 1] > start) & (spans[:, 0] < stop))
    return (first + int(inside[0]), first + int(inside[-1])) if len(inside) else (0, 0)


def _kept(
    owners: np.ndarray, has_answer: np.ndarray, empty_windows: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Return the windows to keep, in ascending order; each question keeps one at least."""
    if empty_windows is None:
        return np.arange(len(owners))
    ranks = np.empty(len(owners), int)  # of the empty windows of a question, at random
    order = np.lexsort((rng.random(len(owners)), has_answer, owners))
    _, firsts = np.unique(owners[order], return_index=True)
    ranks[order] = np.arange(len(owners)) - np.repeat(firsts, np.diff([*firsts, len(owners)]))
    answered = np.zeros(owners.max() + 1, bool)
    answered[owners[has_answer]] = True
    most = np.where(answered[owners], empty_windows, max(empty_windows, 1))
    return np.flatnonzero(has_answer | (ranks < most))
