"""Labels from a causal language model that runs here: no server, no sampling, no invented labels.

The probability of a label is that with which decoding under the constraint "a label, then the end"
writes it: at each token, the model chooses among those with which a label goes on. Several labels
per text are asked one by one; the answer is the odds of yes. A prompt is read once for all labels
or questions, and what all prompts begin with once for all: the rest follows cached keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.cli.errors import UserError
from shared.cli.launch import has_fast_bf16, runs_on_cpu
from shared.models.causal_scoring import (
    PromptReader,
    ReadPrompts,
    check_cache,
    common_beginning,
    halve_precision,
    plain_tokens,
)
from shared.models.language_models import resolve_language_model
from shared.models.lengths import longest_input
from shared.models.loading import load_causal_language_model, load_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_YES, _NO = ("yes", "Yes", " yes", " Yes"), ("no", "No", " no", " No")
# From tokens that follow the prompts of a batch to the logits after them.
Follow = Callable[[Sequence[int]], torch.Tensor]
Scores = Iterator[tuple[np.ndarray, np.ndarray]]
_CONTENT = "\ue000"  # stands for the content of a message; of no script


class CausalScorer:
    """Scores of labels by a causal language model.

    Parameters
    ----------
    model : PreTrainedModel
        In evaluation mode, on its device.
    tokenizer : PreTrainedTokenizerBase
        Its chat template writes the prompt as the message of a user. Without one, the answer
        follows the prompt on a new line.
    batch_size : int
        Prompts per batch; those of a batch have similar lengths.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, batch_size: int
    ) -> None:
        self._model, self._tokenizer, self._batch_size = model, tokenizer, batch_size
        before, self._after = f"{tokenizer.bos_token or ''}{_CONTENT}\n".split(_CONTENT)
        if tokenizer.chat_template:
            message = [{"role": "user", "content": _CONTENT}]
            rendered = tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True
            )
            before, self._after = rendered.split(_CONTENT)
        self._before = self._markup(before)

    def label_scores(self, prompts: Sequence[str], labels: Sequence[str]) -> Scores:
        """Yield the log probability of each label as the answer to a prompt.

        Yields
        ------
        rows, scores : indices into `prompts`, and a float64 array of shape (rows, labels)

        Raises
        ------
        UserError
            If a prompt is too long, or two labels have the same tokens.
        """
        paths = [(*self._plain(label), self._tokenizer.eos_token_id) for label in labels]
        if len({*paths}) < len(paths):
            raise UserError("the tokenizer of --model writes two labels alike; rename one of them")
        branches = _branches(paths)
        suffix = self._markup(self._after)

        def score(follow: Follow) -> np.ndarray:
            scores: Any = 0.0
            for path, tokens in branches.items():
                logits = follow(path)[:, list(tokens)]
                steps = torch.log_softmax(logits.double(), dim=1).cpu().numpy()
                column = {token: steps[:, [j]] for j, token in enumerate(tokens)}
                n, none = len(path), np.zeros((len(steps), 1))
                scores += np.hstack([column[p[n]] if p[:n] == path else none for p in paths])
            return scores

        return self._score([[*self._plain(prompt), *suffix] for prompt in prompts], score)

    def yes_no_scores(self, prompts: Sequence[str], questions: Sequence[str]) -> Scores:
        """Yield the log odds of yes against no as the answer to each question about a prompt.

        Yields
        ------
        rows, scores : indices into `prompts`, and a float64 array of shape (rows, questions)

        Raises
        ------
        UserError
            If a prompt is too long, or the tokenizer does not tell yes from no.
        """
        yes, no = ({self._plain(word)[0] for word in words} for words in (_YES, _NO))
        if yes & no:
            raise UserError("the tokenizer of --model does not tell yes from no; name another one")
        suffixes = [
            [*self._plain(f"\n\n{question}"), *self._markup(self._after)] for question in questions
        ]

        def score(follow: Follow) -> np.ndarray:
            columns = []
            for suffix in suffixes:
                logits = follow(suffix).double()
                odds = logits[:, list(yes)].logsumexp(1) - logits[:, list(no)].logsumexp(1)
                columns.append(odds.cpu().numpy())
            return np.stack(columns, axis=1)

        return self._score([self._plain(prompt) for prompt in prompts], score)

    def _plain(self, text: str) -> list[int]:
        return plain_tokens(self._tokenizer, [text])[0]

    def _markup(self, text: str) -> list[int]:
        return self._tokenizer(text, add_special_tokens=False).input_ids

    @torch.inference_mode()
    def _score(self, prompts: list[list[int]], score: Callable[[Follow], np.ndarray]) -> Scores:
        """Read the prompts in batches; yield what `score` makes of the tokens that follow them."""
        device = self._model.device
        # The template and its examples, which all prompts begin with, are read once.
        common = common_beginning([prompt[:-1] for prompt in prompts])
        longest = len(self._before) + max(map(len, prompts))
        if (most := longest_input(self._model)) is not None and longest > most:
            raise UserError(
                f"a prompt has {longest:,} tokens, and --model reads {most:,}; lower "
                "--max_characters or --demonstrations"
            )
        reader = PromptReader(self._model, [*self._before, *common])
        order = np.argsort([-len(prompt) for prompt in prompts], kind="stable")
        for start in range(0, len(order), self._batch_size):
            rows = order[start : start + self._batch_size]
            batch = [prompts[row][len(common) :] for row in rows]
            lengths = np.array([len(tokens) for tokens in batch])
            mask = np.arange(lengths.max()) < lengths[:, None]
            ids = np.full(mask.shape, self._tokenizer.pad_token_id)
            ids[mask] = np.concatenate(batch)
            tensors = (torch.tensor(array, device=device) for array in (ids, mask.astype(int)))
            prompts_read = reader.read(*tensors)

            def follow(
                tokens: Sequence[int], prompts_read: ReadPrompts = prompts_read
            ) -> torch.Tensor:
                return prompts_read.follow(tokens)[:, -1] if tokens else prompts_read.logits

            yield rows, score(follow)


def _branches(paths: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], dict[int, None]]:
    """Return the beginnings after which several tokens are possible, with these tokens."""
    tokens: dict[tuple[int, ...], dict[int, None]] = {}
    for path in paths:
        for n, token in enumerate(path):
            tokens.setdefault(path[:n], {})[token] = None
    return {beginning: choices for beginning, choices in tokens.items() if len(choices) > 1}


def load_causal_scorer(
    name: str, cache: Path, *, batch_size: int, bf16: bool | None
) -> CausalScorer:
    """Load a language model onto the accelerator, or onto the CPU without one.

    Parameters
    ----------
    name, cache
        See `shared.models.language_models.resolve_language_model`.
    batch_size : int
        Prompts per batch.
    bf16 : bool, optional
        Compute in bfloat16 (default: if the hardware has it).

    Raises
    ------
    UserError
        If there is no such model, or it is not one that can be loaded.
    """
    folder = resolve_language_model(name, cache)
    tokenizer = load_tokenizer(folder)
    model = load_causal_language_model(folder, tokenizer=tokenizer)
    check_cache(model, folder)
    on_cpu = runs_on_cpu(False)
    if has_fast_bf16(on_cpu=on_cpu) if bf16 is None else bf16:
        model = halve_precision(model)
    if not on_cpu:
        model = model.to(torch.accelerator.current_accelerator())
    return CausalScorer(model, tokenizer, batch_size=batch_size)


def batch_calibrated(scores: np.ndarray) -> np.ndarray:
    """Subtract from the scores of each label their mean over the texts.

    A small model prefers some labels whatever the text; what is left is what the text adds.

    Parameters
    ----------
    scores : float array of shape (texts, labels)
        Log probabilities or log odds.

    Notes
    -----
    Zhou et al. (2024), Batch Calibration: Rethinking Calibration for In-Context Learning and Prompt
    Engineering. It takes the labels to be about equally frequent.
    """
    return scores - scores.mean(axis=0)
