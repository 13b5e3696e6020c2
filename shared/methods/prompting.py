"""Prompting: a causal language model continues a prompt, and words for the labels are scored.

In the order of use: demonstrations are chosen for a text, both are written as a prompt, the model
gives each word its log probability, content-free texts calibrate it, and words become labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.methods.prompt_templates import PromptTemplates
from shared.models.causal_scoring import (
    PromptReader,
    check_cache,
    common_beginning,
    halve_precision,
    plain_tokens,
)
from shared.models.lengths import longest_input
from shared.models.loading import load_causal_language_model, load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer

CONTENT_FREE = ("N/A", "", "[MASK]")  # Zhao et al. 2021, section 5
_SEPARATOR = "\n\n"  # between the instruction, the demonstrations and the text
_CONTENT = "\ue000"  # stands for the content of a message; of no script
# A text of the training set and the word that answers it.
Demonstration = tuple[str, str]


# --- demonstrations ------------------------------------------------------------------------------


class Demonstrations:
    """Labelled texts that a prompt shows before the text to classify, in several orders.

    Small models follow the last demonstrations and the labels that are frequent among them (Zhao
    et al. 2021), so the scores of several orders are averaged.

    Parameters
    ----------
    texts : sequence of str
        The texts to show or, with `vectors`, to choose from.
    words : sequence of str
        The answer to each text.
    n : int
        Demonstrations in a prompt; all texts, if they are fewer.
    n_orders : int
        In the first one, the nearest text stands last; without `vectors` all are random.
    seed : int
        Of the random orders.
    vectors : array of shape (texts, width), optional
        Of length one: each text to classify gets the texts that are most similar to it (Liu et al.
        2022), but for itself. Without them, all get the first n.
    embed : callable, optional
        From texts to such vectors, with `vectors`.
    """

    def __init__(
        self,
        texts: Sequence[str] = (),
        words: Sequence[str] = (),
        n: int = 0,
        n_orders: int = 1,
        seed: int = 42,
        vectors: np.ndarray | None = None,
        embed: Any = None,
    ) -> None:
        n = min(n, len(texts))
        self.texts, self.words, self.n = list(texts), list(words), n
        self.n_orders, self.seed, self.vectors, self.embed = n_orders, seed, vectors, embed
        rng = np.random.default_rng(seed)
        self._orders = [rng.permutation(n) for _ in range(n_orders)]
        if vectors is not None and n:
            self._orders[0] = np.arange(n)[::-1]

    def __call__(self, texts: Sequence[str]) -> list[list[list[Demonstration]]]:
        """Return the demonstrations of each text, in each order: orders, texts, demonstrations."""
        chosen = [np.arange(self.n)] * len(texts)
        if self.vectors is not None:
            similarities = self.embed(texts) @ self.vectors.T
            chosen = [self._nearest(*pair) for pair in zip(texts, similarities, strict=True)]
        pairs = list(zip(self.texts, self.words, strict=True))
        return [
            [[pairs[row] for row in rows[order[order < len(rows)]]] for rows in chosen]
            for order in self._orders
        ]

    def _nearest(self, text: str, similarities: np.ndarray) -> np.ndarray:
        """Return the rows of the most similar texts, without the text itself."""
        best = np.argsort(-similarities, kind="stable")[: self.n + 100]
        return np.array([row for row in best if self.texts[row] != text][: self.n], dtype=int)


# --- prompts -------------------------------------------------------------------------------------


class PromptWriter:
    """Writes prompts as tokens.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    template : str
        With ``{text}``, and ``{label}`` at its end.
    instruction : str
        Stands before everything else; may be empty.
    chat : bool
        Whether demonstrations and text are turns of a conversation, in the chat template of the
        tokenizer; else all is one text, in which empty lines separate them.
    max_length : int
        Tokens of a text, of the demonstrations, too; longer ones lose their end.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: str,
        instruction: str,
        *,
        chat: bool,
        max_length: int,
    ) -> None:
        if chat and not tokenizer.chat_template:
            raise UserError("--chat: the tokenizer of --model has no chat template; remove it")
        self._tokenizer, self._chat, self._max_length = tokenizer, chat, max_length
        self._before, after = template.removesuffix("{label}").split("{text}")
        # A space before a word belongs to the token of the word.
        self._after = after.rstrip(" ")
        self._space = after[len(self._after) :] and " "
        self._instruction = instruction
        # What the tokenizer puts before any text, such as <s>.
        first = tokenizer("").input_ids[:1]
        self._start = first if first == [tokenizer.bos_token_id] else []

    def word_tokens(self, words: Sequence[str]) -> list[list[int]]:
        """Return the tokens of words, as they follow a prompt.

        Raises
        ------
        UserError
            If two words have the same tokens, or one has none.
        """
        context = "" if self._chat else self._after
        space = "" if self._chat else self._space
        tokens = plain_tokens(self._tokenizer, [context, *(context + space + w for w in words)])
        n = len(common_beginning(tokens))
        if n < len(tokens[0]):  # the end of the prompt and the word share a token
            tokens, n = plain_tokens(self._tokenizer, ["", *(space + word for word in words)]), 0
        paths = [tuple(ids[n:]) for ids in tokens[1:]]
        for i, path in enumerate(paths):
            if not path or path in paths[:i]:
                raise UserError(
                    f"--prompts: the tokenizer of --model cannot tell {words[i]!r} from the words "
                    "of other labels; choose another word"
                )
        return [list(path) for path in paths]

    def write(
        self,
        texts: Sequence[str],
        demonstrations: Sequence[Sequence[Demonstration]],
        max_tokens: int | None,
    ) -> list[list[int]]:
        """Return the tokens of a prompt for each text.

        Parameters
        ----------
        texts : sequence of str
        demonstrations : sequence of sequences of (text, word)
            Of each text, in their order.
        max_tokens : int, optional
            Tokens of a prompt. A longer one loses the end of its text, nothing else.

        Raises
        ------
        UserError
            If a prompt would be too long with an empty text.
        """
        shown = list({text: None for group in demonstrations for text, _ in group})
        cut = dict(zip(shown, self._cut(shown, self._max_length), strict=True))
        turns = [[(cut[text], word) for text, word in group] for group in demonstrations]
        texts = self._cut(texts, self._max_length)
        prompts = self._tokens(texts, turns)
        for i, prompt in enumerate(prompts):
            if max_tokens is not None and len(prompt) > max_tokens:
                n_rest = len(self._tokens([""], turns[i : i + 1])[0])
                # Tokens at the seams may differ by a few.
                for room in range(max_tokens - n_rest, 0, -1):
                    (text,) = self._cut([texts[i]], room)
                    (prompts[i],) = self._tokens([text], turns[i : i + 1])
                    if len(prompts[i]) <= max_tokens:
                        break
                else:
                    raise UserError(
                        f"a prompt has {n_rest:,} tokens without its text, and --model reads "
                        f"{max_tokens:,}; lower --demonstrations or --max_length"
                    )
        return prompts

    def _cut(self, texts: Sequence[str], n_tokens: int) -> list[str]:
        """Return texts without what stands after their first tokens, and without blank ends."""
        if not texts:
            return []
        texts = [text.strip() for text in texts]
        options = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
        options |= {"split_special_tokens": True}
        offsets = self._tokenizer(texts, **options).offset_mapping
        return [
            text if len(pairs) <= n_tokens else text[: pairs[n_tokens - 1][1]]
            for text, pairs in zip(texts, offsets, strict=True)
        ]

    def _tokens(
        self, texts: Sequence[str], turns: Sequence[Sequence[Demonstration]]
    ) -> list[list[int]]:
        """Return the tokens of prompts."""
        head = f"{self._instruction}{_SEPARATOR}" if self._instruction else ""

        def asked(text: str) -> str:
            return f"{self._before}{text}{self._after}"

        if not self._chat:
            strings = [
                head
                + "".join(f"{asked(t)}{self._space}{word}{_SEPARATOR}" for t, word in group)
                + asked(text)
                for text, group in zip(texts, turns, strict=True)
            ]
            # A model needs a token to begin with.
            empty = [self._tokenizer.eos_token_id]
            rows = plain_tokens(self._tokenizer, strings)
            return [[*self._start, *ids] or empty for ids in rows]
        prompts = []
        markup: dict[int, list[list[int]]] = {}  # by the number of demonstrations
        for text, group in zip(texts, turns, strict=True):
            contents = [string for t, word in group for string in (asked(t), word)] + [asked(text)]
            contents[0] = head + contents[0]
            if len(group) not in markup:
                markup[len(group)] = self._markup(len(contents))
            pieces = zip(
                plain_tokens(self._tokenizer, contents), markup[len(group)][1:], strict=True
            )
            rest = [ids for pair in pieces for part in pair for ids in part]
            prompts.append([*markup[len(group)][0], *rest])
        return prompts

    def _markup(self, n_messages: int) -> list[list[int]]:
        """Return the tokens before, between and after the messages of a conversation."""
        roles = ["user", "assistant"]
        messages = [{"role": roles[i % 2], "content": _CONTENT} for i in range(n_messages)]
        rendered: Any = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        parts = rendered.split(_CONTENT)
        if len(parts) != n_messages + 1:
            raise UserError("--chat: the chat template of --model leaves messages out; remove it")
        return [self._tokenizer(part, add_special_tokens=False).input_ids for part in parts]


# --- the model -----------------------------------------------------------------------------------


class WordsAfterPrompts(torch.nn.Module):
    """A causal language model that outputs the log probabilities of words after prompts.

    `trainer.predict` returns them as ``predictions``, of shape (rows, words): for each word the sum
    over its tokens.

    Parameters
    ----------
    model : PreTrainedModel
        From `shared.models.load_causal_language_model`.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._beginning: list[int] = []
        self._words: list[list[int]] = []
        self._reader: PromptReader | None = None

    def set_prompts(self, beginning: list[int], words: list[list[int]]) -> None:
        """Set what all prompts begin with, and the tokens of the words that follow them."""
        self._beginning, self._words, self._reader = beginning, words, None

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Score prompts without their beginning, (rows, length)."""
        # The weights have the precision that is wanted. Autocast would round the logits.
        with torch.autocast(input_ids.device.type, enabled=False):
            if self._reader is None:
                self._reader = PromptReader(self.model, self._beginning)
            prompts = self._reader.read(input_ids, attention_mask)
            first = prompts.logits.float().log_softmax(-1)
            scores = []
            for tokens in self._words:
                score = first[:, tokens[0]]
                if rest := tokens[1:]:
                    logits = prompts.follow(tokens[:-1], len(rest)).float()
                    steps = logits.log_softmax(-1)
                    places = torch.arange(len(rest), device=steps.device)
                    score = score + steps[:, places, torch.tensor(rest, device=steps.device)].sum(1)
                scores.append(score)
        return {"logits": torch.stack(scores, dim=1)}


def load_words_after_prompts(
    folder: str, bf16: bool
) -> tuple[WordsAfterPrompts, PreTrainedTokenizerBase]:
    """Load a causal language model, as `PromptScorer` needs it, and its tokenizer.

    Parameters
    ----------
    folder : str
        From `shared.models.resolve_language_model`.
    bf16 : bool
        Compute in bfloat16; the output layer stays in single precision.

    Raises
    ------
    UserError
        As `shared.models.load_causal_language_model` and `shared.models.check_cache`, or if the
        tokenizer does not say where in a text its tokens are.
    """
    tokenizer = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise UserError(f"{folder}: the tokenizer does not say where its tokens are in a text")
    model = load_causal_language_model(folder, tokenizer=tokenizer)
    check_cache(model, folder)
    return WordsAfterPrompts(halve_precision(model) if bf16 else model), tokenizer


# --- from texts to scores ------------------------------------------------------------------------


@dataclass(frozen=True)
class Scoring:
    """How prompts are written and words scored.

    Attributes
    ----------
    normalization : {"mean", "sum"}
        The log probability of a word is the mean over its tokens, or their sum: with it, words of
        several tokens are unlikely because they have several.
    chat : bool
        As in `PromptWriter`.
    max_length : int
        As in `PromptWriter`.
    """

    normalization: Literal["mean", "sum"] = "mean"
    chat: bool = False
    max_length: int = 256


class PromptScorer:
    """Scores the labels of texts by the words that a causal language model expects.

    Parameters
    ----------
    trainer : Trainer
        Of a `WordsAfterPrompts`.
    tokenizer : PreTrainedTokenizerBase
    prompts : PromptTemplates
    demonstrations : Demonstrations
    scoring : Scoring
    block_size : int
        Texts that are scored at once; limits the memory.
    offsets : array of shape (prompts, words), optional
        What calibration subtracts from the log probabilities of the words, for each order in each
        template. None: nothing; see `calibrate`.
    """

    def __init__(
        self,
        trainer: Trainer,
        tokenizer: PreTrainedTokenizerBase,
        prompts: PromptTemplates,
        demonstrations: Demonstrations,
        scoring: Scoring,
        block_size: int = 10_000,
        offsets: np.ndarray | None = None,
    ) -> None:
        self.trainer, self.tokenizer, self.prompts = trainer, tokenizer, prompts
        self.demonstrations, self.scoring, self.block_size = demonstrations, scoring, block_size
        self._words = [word for group in prompts.words for word in group]
        self._label_of = np.repeat(np.arange(len(prompts.words)), [len(g) for g in prompts.words])
        options: dict[str, Any] = {"chat": scoring.chat, "max_length": scoring.max_length}
        self._writers = [
            PromptWriter(tokenizer, template, prompts.instruction, **options)
            for template in prompts.templates
        ]
        self._tokens = [writer.word_tokens(self._words) for writer in self._writers]
        n_prompts = len(prompts.templates) * demonstrations.n_orders
        self.offsets = np.zeros((n_prompts, len(self._words))) if offsets is None else offsets
        if self.offsets.shape != (n_prompts, len(self._words)):
            raise ValueError("offsets of other prompts or words")

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probability of each label, of sum 1 for each text: (texts, labels).

        It is the mean over templates and orders. The probability of a label is the mean over its
        words.
        """
        parts = [np.zeros((0, len(self.prompts.words)))]
        starts = range(0, len(texts), self.block_size)
        for start in progress(starts, "scoring", unit="blocks"):
            block = self._log_probabilities(texts[start : start + self.block_size])
            words = np.exp(_log_softmax(block - self.offsets[:, None])).mean(axis=0)
            labels = range(len(self.prompts.words))
            means = np.stack([words[:, self._label_of == i].mean(1) for i in labels], axis=1)
            parts.append(means / means.sum(axis=1, keepdims=True))
        return np.concatenate(parts)

    def calibrate(self, texts: Sequence[str] | None = None) -> None:
        """Make all words equally probable over some texts, since a model prefers some.

        Parameters
        ----------
        texts : sequence of str, optional
            Texts like those to classify, in which all labels are about equally frequent (batch
            calibration: Zhou et al. 2024). Default: `CONTENT_FREE` (contextual calibration: Zhao et
            al. 2021, Calibrate Before Use). The latter are averaged as probabilities, the former as
            log probabilities, as in these sources.
        """
        if texts is None:
            probabilities = np.exp(_log_softmax(self._log_probabilities(CONTENT_FREE)))
            self.offsets = np.log(probabilities.mean(axis=1))
        else:
            self.offsets = _log_softmax(self._log_probabilities(texts)).mean(axis=1)

    def show(self, text: str) -> str:
        """Return the prompts of a text as the model reads them, with an empty line between."""
        shown = [
            self.tokenizer.decode(writer.write([text], group, self._longest(words))[0])
            for writer, words in zip(self._writers, self._tokens, strict=True)
            for group in self.demonstrations([text])
        ]
        return "\n\n".join(f"{prompt}\n" for prompt in shown)

    def _longest(self, words: list[list[int]]) -> int | None:
        """Return how many tokens a prompt may have, so that each word fits behind it."""
        longest = longest_input(self.trainer.model.model)
        return None if longest is None else longest - max(map(len, words))

    def _log_probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """Return those of the words by each prompt, not calibrated: (prompts, texts, words)."""
        texts = list(texts)
        demonstrations = self.demonstrations(texts)
        return np.stack(
            [
                self._score(writer, words, texts, group)
                for writer, words in zip(self._writers, self._tokens, strict=True)
                for group in demonstrations
            ]
        )

    def _score(
        self,
        writer: PromptWriter,
        words: list[list[int]],
        texts: list[str],
        demonstrations: list[list[Demonstration]],
    ) -> np.ndarray:
        """Return the log probability of each word by one template and order: (texts, words)."""
        from datasets import Dataset

        prompts = writer.write(texts, demonstrations, self._longest(words))
        beginning = common_beginning([prompt[:-1] for prompt in prompts])
        self.trainer.model.set_prompts(beginning, words)
        rows = [prompt[len(beginning) :] for prompt in prompts]
        dataset = Dataset.from_dict({"input_ids": rows, "length": [len(row) for row in rows]})
        scores = self.trainer.predict(dataset).predictions.astype(np.float64)
        is_mean = self.scoring.normalization == "mean"
        return scores / [len(ids) for ids in words] if is_mean else scores


def _log_softmax(values: np.ndarray) -> np.ndarray:
    """Return values over the last axis, shifted so that their exponentials have the sum 1."""
    return values - np.logaddexp.reduce(values, axis=-1, keepdims=True)
