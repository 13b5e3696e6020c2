"""Augmentation by language models: inserted and substituted words, and back translation.

Both leave code and layout as they are, and draw only from the generator of each text: the result
for a text does not depend on its batch.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.cli.launch import progress
from shared.methods.word_augmentation import PLAIN_WORD, word_spans
from shared.models.lengths import longest_input

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# --- words from a masked language model ----------------------------------------------------------


class ContextualWords:
    """Inserts words into texts, or replaces words, with predictions of a masked language model.

    Kobayashi 2018, "Contextual Augmentation", with a masked language model as in Wu et al. 2019,
    "Conditional BERT Contextual Augmentation", not conditioned on labels. Only plain words of prose
    are replaced or get a new word before them. Special tokens, code, white space and the text
    beyond the model's length stay as they are. All chosen words of a text are masked at once, and
    texts go through the model in batches. (nlpaug's `ContextualWordEmbsAug` fails on transformers
    5.)

    Parameters
    ----------
    model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        From `shared.models.load_masked_language_model` and `load_tokenizer`.
    action : {"insert", "substitute"}
        Insert a new word before a word, or replace a word with a different one.
    share : float
        Share of the plain words that are chosen, above 0; at least one word.
    top_k : int
        A new word is drawn from the `top_k` most probable ones, by their probability.
    batch_size : int
        Texts per forward pass.

    Raises
    ------
    UserError
        For a tokenizer that does not know the positions of its tokens in the text (a slow one), or
        whose vocabulary has no whole words.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        action: str,
        share: float,
        *,
        top_k: int = 10,
        batch_size: int = 8,
    ):
        self.model, self.tokenizer = model, tokenizer
        self.action, self.share = action, share
        self.top_k, self.batch_size = top_k, batch_size
        self.max_length = longest_input(model) or 512
        # Find the tokens that are whole words. After a space, RoBERTa's tokens begin with a mark;
        # BERT's do not (the mark is then empty, and `isalpha` drops the pieces with ##).
        mark = tokenizer.tokenize("a a")[-1].removesuffix("a")
        words = {
            token_id: tokenizer.convert_tokens_to_string([token]).strip()
            for token, token_id in tokenizer.get_vocab().items()
            if token.startswith(mark)
        }
        words = {token_id: word for token_id, word in sorted(words.items()) if word.isalpha()}
        if not (tokenizer.is_fast and words):
            raise UserError(
                f"{tokenizer.name_or_path}: {action} needs a fast tokenizer "
                "with whole words in its vocabulary"
            )
        self.word_ids, self.words = list(words), list(words.values())
        # Word in lower case to its positions in `self.words`: "The" and "the" are the same word.
        self.same_word = defaultdict(list)
        for position, word in enumerate(self.words):
            self.same_word[word.casefold()].append(position)

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts with changed words; each depends only on its own generator."""
        masked = [self._mask(text, rng) for text, rng in zip(texts, rngs, strict=True)]
        rows = [row for row, (_, positions, _) in enumerate(masked) if positions]
        rows.sort(key=lambda row: len(masked[row][0]))  # similar lengths need little padding
        augmented = list(texts)
        starts = range(0, len(rows), self.batch_size)
        for start in progress(starts, f"augmenting ({self.action})", unit="batches"):
            batch = rows[start : start + self.batch_size]
            scores = self._scores([masked[row][:2] for row in batch])
            for row, word_scores in zip(batch, scores, strict=True):
                augmented[row] = self._fill(texts[row], masked[row][2], word_scores, rngs[row])
        return augmented

    def _mask(
        self, text: str, rng: np.random.Generator
    ) -> tuple[list[int], list[int], list[tuple[int, int]]]:
        """Return ids with masks, the positions of the masks, and their spans of the text."""
        insert = self.action == "insert"
        # Inserted masks make the input longer: leave room for one per share of the words.
        longest = int((self.max_length - 1) / (1 + self.share)) if insert else self.max_length
        encoded = self.tokenizer(text, truncation=True, max_length=longest)

        # For each word: its first token, the end of the tokens that a mask replaces (none if the
        # mask is inserted), and its span. Words beyond the truncation have no tokens.
        words = []
        for start, end in word_spans(text, PLAIN_WORD):
            first, last = encoded.char_to_token(start), encoded.char_to_token(end - 1)
            if first is not None and last is not None:
                words.append((first, first if insert else last + 1, (start, end)))
        n = math.ceil(self.share * len(words))
        chosen = [words[i] for i in sorted(rng.choice(len(words), n, replace=False))] if n else []

        # Copy the tokens up to each chosen word, then put a mask; `done` is the next token to copy.
        ids: list[int] = []
        positions, done = [], 0
        for first, stop, _ in chosen:
            ids += encoded["input_ids"][done:first]
            positions.append(len(ids))
            ids.append(self.tokenizer.mask_token_id)
            done = stop
        ids += encoded["input_ids"][done:]
        return ids, positions, [span for _, _, span in chosen]

    def _scores(self, masked: list[tuple[list[int], list[int]]]) -> list[np.ndarray]:
        """Return the logits of all whole words at the masks of each row: (masks, words)."""
        import torch

        width = max(len(ids) for ids, _ in masked)
        input_ids = torch.full((len(masked), width), self.tokenizer.pad_token_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, (ids, _) in enumerate(masked):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            attention_mask[row, : len(ids)] = 1
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        with torch.inference_mode():
            inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
            logits = self.model(**inputs).logits  # (rows, width, vocabulary)
            at_masks = [logits[row, positions] for row, (_, positions) in enumerate(masked)]
        return [rows[:, self.word_ids].float().cpu().numpy() for rows in at_masks]

    def _fill(
        self,
        text: str,
        spans: list[tuple[int, int]],
        scores: np.ndarray,
        rng: np.random.Generator,
    ) -> str:
        """Insert a word before each span of the text, or replace the span; `scores` are logits."""
        pieces, done = [], 0  # `done` is the next character to copy
        for (start, end), row in zip(spans, scores, strict=True):
            original = text[start:end]
            if self.action == "substitute":
                row[self.same_word.get(original.casefold(), [])] = -np.inf
            # Softmax over the `top_k` words only; the largest logit is subtracted against overflow.
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


# `split` by a pattern with one group puts the matches into its result, at the odd positions.
_CODE_BLOCK = re.compile(r"(```.*?(?:```|\Z))", re.DOTALL)
# White space at either end of the text, and line breaks with the indentation around them.
_LINE_ENDS = re.compile(r"(\A\s+|\s*\n\s*|\s+\Z)")


class BackTranslation:
    """Translates each line of a text into another language and back.

    Sennrich et al. 2016, "Improving Neural Machine Translation Models with Monolingual Data"; for
    classification Xie et al. 2020, "Unsupervised Data Augmentation". The translation into the other
    language is the best result of a beam search. The translation back is one of the beams, drawn at
    random. Lines of code blocks, lines without letters and lines too long for a model stay as they
    are, as do line breaks and indentation.

    Parameters
    ----------
    to_model, to_tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        Translate into the other language; from `shared.models.load_translator` and
        `load_tokenizer`.
    from_model, from_tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        Translate back.
    num_beams : int
        Beams of the search, and so the number of wordings to draw from.
    batch_size : int
        Lines per batch.

    Notes
    -----
    The wordings of a line are kept in memory: for a second copy of a text, or in the next epoch,
    nothing is translated again.
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
        self.forward = to_model, to_tokenizer
        self.backward = from_model, from_tokenizer
        self.num_beams, self.batch_size = num_beams, batch_size
        self.wordings: dict[str, list[str]] = {}  # line to its wordings

    def __call__(self, texts: Sequence[str], rngs: Sequence[np.random.Generator]) -> list[str]:
        """Return the texts in other words; each depends only on its own generator."""
        parts_of_texts = [self._split(text) for text in texts]
        prose = {part for parts in parts_of_texts for part, is_prose in parts if is_prose}
        self._translate(sorted(prose - self.wordings.keys()))
        return [
            "".join(self._reword(part, rng) if is_prose else part for part, is_prose in parts)
            for parts, rng in zip(parts_of_texts, rngs, strict=True)
        ]

    @staticmethod
    def _split(text: str) -> list[tuple[str, bool]]:
        """Split a text into (part, is prose) pairs.

        Prose is a line without the white space around it. All other parts (code, white space, lines
        without letters) must not change. The parts joined are the text.
        """
        parts = []
        for number, block in enumerate(_CODE_BLOCK.split(text)):
            is_code = number % 2 == 1
            for part in [block] if is_code else _LINE_ENDS.split(block):
                parts.append((part, not is_code and any(map(str.isalpha, part))))
        return parts

    def _reword(self, line: str, rng: np.random.Generator) -> str:
        wordings = self.wordings[line]
        return wordings[rng.integers(len(wordings))]

    def _translate(self, lines: list[str]) -> None:
        """Add the wordings of new lines to `self.wordings`; a line without any keeps its own."""
        translations = zip(lines, self._generate(*self.forward, lines, 1), strict=True)
        # Lines that were too long have no translation; a blank one cannot be translated back.
        foreign = {line: beams[0] for line, beams in translations if beams and beams[0].strip()}
        back = self._generate(*self.backward, list(foreign.values()), self.num_beams)
        wordings = dict(zip(foreign, back, strict=True))
        for line in lines:
            # A wording must stay one line, so all its white space becomes single spaces.
            cleaned = [" ".join(wording.split()) for wording in wordings.get(line, [])]
            self.wordings[line] = [wording for wording in cleaned if wording] or [line]

    def _generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        lines: list[str],
        n_wordings: int,
    ) -> list[list[str]]:
        """Return `n_wordings` translations of each line, best first; none for a line too long."""
        import torch

        limit = longest_input(model) or 512
        ids = tokenizer(lines)["input_ids"] if lines else []
        # A batch holds lines of the same length: without padding, the translation of a line does
        # not depend on the other lines of its batch.
        rows_by_length = defaultdict(list)
        for row, tokens in enumerate(ids):
            rows_by_length[len(tokens)].append(row)
        batches = [
            rows_by_length[length][start : start + self.batch_size]
            for length in sorted(rows_by_length)
            if length <= limit
            for start in range(0, len(rows_by_length[length]), self.batch_size)
        ]
        translated: list[list[str]] = [[] for _ in lines]
        for batch in progress(batches, "augmenting (back_translation)", unit="batches"):
            input_ids = torch.tensor([ids[row] for row in batch], device=model.device)
            with torch.inference_mode():
                generated = model.generate(
                    input_ids=input_ids,
                    attention_mask=torch.ones_like(input_ids),
                    num_beams=self.num_beams,
                    num_return_sequences=n_wordings,
                    do_sample=False,
                    # A model that writes more than twice the input has usually failed to stop.
                    max_new_tokens=min(limit - 1, 2 * input_ids.shape[1] + 8),
                )
            # The beams of a line are `n_wordings` rows in sequence: (lines * n_wordings, length).
            wordings = tokenizer.batch_decode(generated, skip_special_tokens=True)
            for number, row in enumerate(batch):
                translated[row] = wordings[number * n_wordings : (number + 1) * n_wordings]
        return translated
