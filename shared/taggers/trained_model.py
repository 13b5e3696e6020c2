"""The tagger of a model that was trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.cli.errors import UserError
from shared.evaluation.calibration import Calibration
from shared.evaluation.decisions import sigmoid, softmax
from shared.evaluation.rules import DecisionRule
from shared.methods.attributions import Chosen, Contributions, gradient_contributions
from shared.methods.windows import Windows, saved_windows
from shared.models.lengths import limit_to_input
from shared.models.loading import (
    base_of_adapter,
    has_dropout,
    load_sequence_classifier,
    load_tokenizer,
)
from shared.taggers.folder import (
    ADAPTER,
    EncoderReference,
    TaggerContents,
    refuse_other_files,
    transformers_files,
    write_tagger,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from shared.methods.embeddings import Embedder
    from shared.taggers.loading import Loading
    from shared.training.trainer import LengthGroupedTrainer

METHOD = "trained_model"


def save_trained_model(
    folder: Path,
    label_names: Sequence[str],
    rule: DecisionRule,
    calibration: Calibration | None = None,
) -> None:
    """Make a tagger of a folder in which the Trainer has saved a model and its tokenizer.

    If the model is an adapter, the tagger refers to the model below it.
    """
    files = transformers_files(folder)
    contents = TaggerContents(METHOD, list(label_names), rule, calibration, files=files)
    if (base := base_of_adapter(str(folder))) is not None:
        max_length = load_tokenizer(str(folder)).model_max_length
        contents.encoder = EncoderReference.of(base, max_length)
    write_tagger(folder, contents)


class TrainedModelScorer:
    """A model that was trained: an encoder with a head, or a network from scratch.

    Parameters
    ----------
    trainer : LengthGroupedTrainer
        Its model may name in its config the windows of a long text (``windows``). Without them, a
        text is truncated.
    tokenizer : PreTrainedTokenizerBase
    base : EncoderReference, optional
        The model below an adapter.
    """

    def __init__(
        self,
        trainer: LengthGroupedTrainer,
        tokenizer: PreTrainedTokenizerBase,
        base: EncoderReference | None = None,
    ):
        self.trainer, self.tokenizer, self.base = trainer, tokenizer, base
        config = trainer.model.config
        self._windows = saved_windows(trainer.model, tokenizer)
        self._pooling = self._windows.pop("pooling")
        single_label = config.problem_type == "single_label_classification"
        self._to_scores = softmax if single_label else sigmoid

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the model; those of windows are pooled as logits."""
        windows = Windows.of_strings(texts, self.tokenizer, **self._windows)
        return self._to_scores(windows.predict(self.trainer, self._pooling))

    def dropout_scores(self, texts: Sequence[str], passes: int, *, seed: int) -> np.ndarray:
        """Return the probabilities of passes with other units dropped: (texts, passes, labels).

        Of a long text it reads the first window.

        Raises
        ------
        ValueError
            If the model has no dropout: all passes would be the same.
        """
        from shared.methods.uncertainty import DropoutPasses
        from shared.models.tokenizers import tokenize_texts
        from shared.training.trainer import LengthGroupedTrainer

        if not has_dropout(self.trainer.model):
            raise ValueError("the model has no dropout")
        trainer = LengthGroupedTrainer(
            model=DropoutPasses(self.trainer.model, passes, seed),
            args=self.trainer.args,
            data_collator=self.trainer.data_collator,
            bf16_predictions=self.trainer.bf16_predictions,
        )
        logits = trainer.predict(tokenize_texts(self.tokenizer, texts)).predictions
        return self._to_scores(logits.reshape(-1, logits.shape[-1])).reshape(logits.shape)

    def contributions(self, texts: Sequence[str], chosen: Chosen) -> Contributions:
        """Return what the words of texts add to the logits of chosen labels, by gradient x input.

        Raises
        ------
        ValueError
            As `gradient_contributions`.
        """
        options = {**self._windows, "pooling": self._pooling}
        return gradient_contributions(self.trainer, self.tokenizer, texts, chosen, **options)

    @cached_property
    def embed(self) -> Embedder | None:
        """The mean of the last hidden states of the encoder below the head; None without one.

        Of a long text it reads the first window.
        """
        from shared.methods.embeddings import Embedder
        from shared.methods.mean_pooling import MeanPooling
        from shared.training.trainer import LengthGroupedTrainer

        model = self.trainer.model
        if hasattr(model, "get_base_model"):  # an adapter
            model = model.get_base_model()
        encoder = model.base_model
        if encoder is model:  # a network from scratch
            return None
        if hasattr(encoder, "decoder"):
            encoder = encoder.get_encoder()
        trainer = LengthGroupedTrainer(
            model=MeanPooling(encoder),
            args=self.trainer.args,
            data_collator=self.trainer.data_collator,
            bf16_predictions=self.trainer.bf16_predictions,
        )
        return Embedder(trainer, self.tokenizer)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Save the model, unless the Trainer has done it before, and record its files."""
        if not any(name.endswith(".safetensors") for name in transformers_files(folder)):
            self.trainer.model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            if (folder / ADAPTER).is_file():  # peft does not save the config
                self.trainer.model.config.save_pretrained(folder)
        contents.method, contents.files = METHOD, transformers_files(folder)
        contents.encoder = self.base if ADAPTER in contents.files else None

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> TrainedModelScorer:
        """Load the model and its tokenizer; of an adapter, also the model below it."""
        refuse_other_files(folder, contents)
        tokenizer = load_tokenizer(str(folder))
        encoder = contents.encoder
        if encoder is None and ADAPTER in contents.files:
            raise ValueError("encoder is missing")
        base = encoder.resolve(loading.encoder) if encoder else None
        model = load_sequence_classifier(str(folder), tokenizer=tokenizer, base=base)
        limit_to_input(tokenizer, model)
        if model.config.num_labels != len(contents.label_names):
            raise UserError(f"{folder}: the model and tagger.json have other numbers of labels")
        return cls(loading.trainer(model, tokenizer), tokenizer, encoder)
