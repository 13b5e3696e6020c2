"""Texts put into other words by a translation there and back."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shared.models import longest_input
from shared.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
