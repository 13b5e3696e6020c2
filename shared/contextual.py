"""Words inserted or substituted by what a masked language model expects in their place."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared.errors import UserError
from shared.models import longest_input
from shared.progress import progress
from shared.words import PLAIN_WORD, word_spans

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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
