"""Augmentation by language models: inserted and substituted words, back translation."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.methods.word_augmentation import PLAIN_WORD, word_spans
from shared.models.loading import longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# --- words by a masked language model ------------------------------------------------------------


class ContextualWords:
    """Inserts words into texts, or puts others in their place, by a masked language model.

    Kobayashi 2018, "Contextual Augmentation", with a masked language model as in Wu et al. 2019,
    "Conditional BERT Contextual Augmentation", not conditioned on labels. Only plain words of prose
    are replaced or get a new neighbour; special tokens, code, white space and what is beyond the
    model's length stay as they are. All words of a text are masked at once, and texts go through
    the model in batches. (nlpaug's `ContextualWordEmbsAug` fails on transformers 5.)

    Parameters
    ----------
    model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        From `shared.models.load_masked_language_model` and `load_tokenizer`.
    action : "insert" or "substitute"
        Put a new word before a word, or another in its place, which is never the same word.
    share : float
        Share of the plain words, above 0; one word at least.
    top_k : int
        A new word is drawn from so many, the likeliest ones, by their probability.
    batch_size : int
        Texts per forward pass.

    Raises
    ------
    UserError
        For a tokenizer that cannot tell where in the text its tokens lie, or without whole words.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        action: Literal["insert", "substitute"],
        share: float,
        *,
        top_k: int = 10,
        batch_size: int = 8,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.action, self.share = action, share
        self.top_k, self.batch_size = top_k, batch_size
        self.max_length = longest_input(model) or 512
        # Tokens that are whole words: behind a space, RoBERTa's begin with a mark, BERT's do not.
        mark = tokenizer.tokenize("a a")[-1].removesuffix("a")
        words = {
            token_id: tokenizer.convert_tokens_to_string([token]).strip()
            for token, token_id in tokenizer.get_vocab().items()
            if token.startswith(mark)
        }
        words = {token_id: word for token_id, word in sorted(words.items()) if word.isalpha()}
        if not (tokenizer.is_fast and words):
            raise UserError(
                f"{tokenizer.name_or_path}: {action} needs a fast tokenizer of words or word pieces"
            )
        self.word_ids, self.words = list(words), list(words.values())
        self.same = defaultdict(list)  # "The" and "the" are the same word
        for number, word in enumerate(self.words):
            self.same[word.casefold()].append(number)

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts with words changed; each depends on its own generator alone."""
        masked = [self._mask(text, rng) for text, rng in zip(texts, rngs, strict=True)]
        rows = [row for row, (_, positions, _) in enumerate(masked) if positions]
        rows.sort(key=lambda row: len(masked[row][0]))
        augmented = list(texts)
        starts = range(0, len(rows), self.batch_size)
        for start in progress(starts, f"augmenting ({self.action})", unit="batches"):
            batch = rows[start : start + self.batch_size]
            scores = self._scores([masked[row][:2] for row in batch])
            for row, found in zip(batch, scores, strict=True):
                augmented[row] = self._fill(texts[row], masked[row][2], found, rngs[row])
        return augmented

    def _mask(
        self, text: str, rng: np.random.Generator
    ) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """Return ids with masks, where these are, and the span of text that each stands for."""
        insert = self.action == "insert"
        # Masks that are inserted need room: one for each share of the words.
        longest = int((self.max_length - 1) / (1 + self.share)) if insert else self.max_length
        encoded = self.tokenizer(text, truncation=True, max_length=longest)
        spans = []
        for start, end in word_spans(text, PLAIN_WORD):
            first, last = encoded.char_to_token(start), encoded.char_to_token(end - 1)
            if first is not None and last is not None:
                spans.append((first, first if insert else last + 1, (start, end)))
        ids, positions, done = [], [], 0
        n = math.ceil(self.share * len(spans))
        chosen = [spans[i] for i in sorted(rng.choice(len(spans), n, replace=False))] if n else []
        for first, stop, _ in chosen:
            ids += encoded["input_ids"][done:first]
            positions.append(len(ids))
            ids.append(self.tokenizer.mask_token_id)
            done = stop
        ids += encoded["input_ids"][done:]
        return ids, positions, [span for _, _, span in chosen]

    def _scores(self, masked: list[tuple[list[int], list[int]]]) -> list[np.ndarray]:
        """Return, for each row of ids, the logits of all words in its masks: (masks, words)."""
        import torch

        width = max(len(ids) for ids, _ in masked)
        input_ids = torch.full((len(masked), width), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, (ids, _) in enumerate(masked):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
        device = self.model.device
        with torch.inference_mode():
            inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
            logits = self.model(**{k: v.to(device) for k, v in inputs.items()}).logits
            found = [logits[row, positions] for row, (_, positions) in enumerate(masked)]
        return [rows[:, self.word_ids].float().cpu().numpy() for rows in found]

    def _fill(
        self,
        text: str,
        spans: list[tuple[int, int]],
        scores: np.ndarray,
        rng: np.random.Generator,
    ) -> str:
        """Put a word drawn by its score before each span of the text, or in its place."""
        pieces, done = [], 0
        for (start, end), row in zip(spans, scores, strict=True):
            original = text[start:end]
            if self.action == "substitute":
                row[self.same.get(original.casefold(), [])] = -np.inf
            best = np.argsort(-row, kind="stable")[: self.top_k]
            weights = np.exp(row[best] - row[best[0]])
            word = self.words[rng.choice(best, p=weights / weights.sum())]
            pieces.append(text[done:start])
            if self.action == "insert":
                pieces.append(f"{word} ")
                done = start
            else:
                pieces.append(word.capitalize() if original[0].isupper() else word)
                done = end
        return "".join([*pieces, text[done:]])


# --- back translation ----------------------------------------------------------------------------


_CODE_BLOCK = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
_LINE_ENDS = re.compile(r"(\A\s+|\s*\n\s*|\s+\Z)")


class BackTranslation:
    """Translates each line of a text into another language and back.

    Sennrich et al. 2016, "Improving Neural Machine Translation Models with Monolingual Data"; for
    classification Xie et al. 2020, "Unsupervised Data Augmentation". The way there is the best of a
    beam search, the way back one of its beams, drawn at random. Lines of code blocks, lines without
    letters and lines too long for a model stay as they are; so do line breaks and indentation.

    Parameters
    ----------
    to_model, to_tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        From `shared.models.load_translator` and `load_tokenizer`: into the other language.
    from_model, from_tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        And back.
    num_beams : int
        Beams of the search, and so the wordings that the way back offers.
    batch_size : int
        Lines per batch.

    Notes
    -----
    The wordings of a line are kept: a second copy of a text, or an epoch, translates nothing again.
    """

    def __init__(
        self,
        to_model: PreTrainedModel,
        to_tokenizer: PreTrainedTokenizerBase,
        from_model: PreTrainedModel,
        from_tokenizer: PreTrainedTokenizerBase,
        *,
        num_beams: int = 4,
        batch_size: int = 16,
    ):
        self.there = to_model, to_tokenizer
        self.back = from_model, from_tokenizer
        self.num_beams, self.batch_size = num_beams, batch_size
        self.wordings: dict[str, list[str]] = {}

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts in other words; each depends on its own generator alone."""
        cut = [self._lines(text) for text in texts]
        asked = {line for lines in cut for line, is_prose in lines if is_prose}
        self._translate(sorted(asked - self.wordings.keys()))
        return [
            "".join(self._reword(line, rng) if is_prose else line for line, is_prose in lines)
            for lines, rng in zip(cut, rngs, strict=True)
        ]

    @staticmethod
    def _lines(text: str) -> list[tuple[str, bool]]:
        """Cut a text into lines without white space around, and all else, which stays."""
        lines = []
        for number, piece in enumerate(_CODE_BLOCK.split(text)):
            is_code = number % 2 == 1
            for part in [piece] if is_code else _LINE_ENDS.split(piece):
                lines.append((part, not is_code and any(map(str.isalpha, part))))
        return lines

    def _reword(self, line: str, rng: np.random.Generator) -> str:
        wordings = self.wordings[line]
        return wordings[rng.integers(len(wordings))]

    def _translate(self, lines: list[str]) -> None:
        there = zip(lines, self._generate(*self.there, lines, 1), strict=True)
        foreign = {line: found[0] for line, found in there if found and found[0].strip()}
        back = self._generate(*self.back, list(foreign.values()), self.num_beams)
        wordings = dict(zip(foreign, back, strict=True))
        for line in lines:
            found = [" ".join(wording.split()) for wording in wordings.get(line, [])]
            self.wordings[line] = [wording for wording in found if wording] or [line]

    def _generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        lines: list[str],
        wordings: int,
    ) -> list[list[str]]:
        """Return so many translations of each line, the best first; none where it is too long."""
        import torch

        limit = longest_input(model) or 512
        ids = tokenizer(lines)["input_ids"] if lines else []
        # Lines of one length at a time: without padding, no line has to do with its neighbours.
        rows = defaultdict(list)
        for row, tokens in enumerate(ids):
            rows[len(tokens)].append(row)
        batches = [
            rows[length][start : start + self.batch_size]
            for length in sorted(rows)
            if length <= limit
            for start in range(0, len(rows[length]), self.batch_size)
        ]
        translated = [[] for _ in lines]
        for batch in progress(batches, "augmenting (back_translation)", unit="batches"):
            input_ids = torch.tensor([ids[row] for row in batch], device=model.device)
            with torch.inference_mode():
                generated = model.generate(
                    input_ids=input_ids,
                    attention_mask=torch.ones_like(input_ids),
                    num_beams=self.num_beams,
                    num_return_sequences=wordings,
                    do_sample=False,
                    # More than twice as long is a model that finds no end.
                    max_new_tokens=min(limit - 1, 2 * input_ids.shape[1] + 8),
                )
            found = tokenizer.batch_decode(generated, skip_special_tokens=True)
            for number, row in enumerate(batch):
                translated[row] = found[number * wordings : (number + 1) * wordings]
        return translated
