"""Models in the ONNX format: run by onnxruntime on the CPU, without torch.

`shared.taggers.onnx_export` makes them. `OnnxScorer` is the tagger of a model that was trained;
`OnnxEmbedder` embeds the texts of a probe or a lookup, whose classifier stays as it is.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError, first_line
from shared.evaluation.decisions import sigmoid, softmax
from shared.methods.embeddings import normalized
from shared.methods.windows import WINDOW_POOLINGS, pool_windows, split_into_windows
from shared.taggers.folder import TOKENIZER, TaggerContents, add_tokenizer
from shared.training.collators import token_mask
from shared.training.prediction_batches import prediction_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from shared.taggers.loading import Loading

METHOD = "onnx"
ONNX = "model.onnx"
# Tokens of a batch, and how many of them may be padding, for each thread. The same texts in batches
# of 1,024 tokens take 5 to 20 % longer; another batch takes as long as 8 tokens or so.
BATCH = 256, 8
# onnxruntime adds the input of a layer and normalises the sum in one operator, which takes 16 to
# 23 % of the time of an encoder in 8-bit integers. Two operators take less than half of that.
SLOW_FUSIONS = ["SkipLayerNormFusion"]


class OnnxModel:
    """A model of token ids, with its tokenizer.

    Parameters
    ----------
    path : Path
        A file with the inputs ``input_ids`` and ``attention_mask``, int64 of shape (rows, length),
        and one output, of shape (rows, width).
    tokenizer : PreTrainedTokenizerFast
        Truncates texts at its ``model_max_length``, and says how rows are padded.

    Raises
    ------
    UserError
        If onnxruntime is not installed, or cannot read the file.

    Notes
    -----
    It uses OMP_NUM_THREADS threads, by default one per core. Threads that wait sleep, as those of
    torch do in recipes.
    """

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerFast):
        self.path, self.tokenizer = path, tokenizer
        try:
            import onnxruntime
        except ImportError:
            raise UserError(
                f'{path}: is run by onnxruntime, which is not installed; pip install -e ".[export]"'
            ) from None
        options = onnxruntime.SessionOptions()
        threads = os.environ.get("OMP_NUM_THREADS", "")
        options.intra_op_num_threads = int(threads) if threads.isdecimal() else 0  # 0: all cores
        self.threads = options.intra_op_num_threads or os.cpu_count() or 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                path,
                options,
                providers=["CPUExecutionProvider"],
                disabled_optimizers=SLOW_FUSIONS,
            )
        except Exception as error:  # its errors share no base class
            raise UserError(f"{path}: cannot be read: {first_line(error)}") from error

    def __call__(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """Return the outputs of rows of token ids: float32, of shape (rows, width)."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        (output,) = self._session.get_outputs()
        outputs = np.zeros((len(rows), output.shape[1]), np.float32)
        limits = {"max_tokens": BATCH[0] * self.threads, "max_padding": BATCH[1] * self.threads}
        for batch in prediction_batches(lengths, **limits):
            mask = token_mask(lengths[batch], lengths[batch[0]], self.tokenizer.padding_side)
            ids = np.full(mask.shape, self.tokenizer.pad_token_id, np.int64)
            ids[mask] = np.concatenate([rows[i] for i in batch])
            inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
            (outputs[batch],) = self._session.run(None, inputs)
        return outputs

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the model and its tokenizer to a tagger folder."""
        if self.path.resolve() != (folder / ONNX).resolve():
            shutil.copyfile(self.path, folder / ONNX)
        contents.files = [ONNX]
        add_tokenizer(folder, contents, self.tokenizer)

    @classmethod
    def load(cls, folder: Path) -> OnnxModel:
        """Load what `save` has added."""
        # Not AutoTokenizer, which imports torch. The file tokenizer.json says it all.
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / TOKENIZER)
        return cls(folder / ONNX, tokenizer)


class OnnxEmbedder:
    """Sentence embeddings of texts by an `OnnxModel`, in the place of an `Embedder`."""

    def __init__(self, model: OnnxModel):
        self.model, self.tokenizer = model, model.tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors of length one: float32, of shape (texts, width)."""
        rows, _ = split_into_windows(self.tokenizer, texts, stride=0, max_windows=1)
        return normalized(self.model(rows))


class OnnxScorer:
    """A model that was trained, in the ONNX format.

    Parameters
    ----------
    model : OnnxModel
        Returns logits.
    windows : dict
        ``stride``, ``max_windows`` and ``pooling``, as `shared.methods.windows.saved_windows`
        returns them.
    single_label : bool
        Labels exclude each other: scores are a softmax of the logits, else sigmoids.
    """

    def __init__(self, model: OnnxModel, windows: dict[str, Any], single_label: bool):
        self.model, self.windows, self.single_label = model, windows, single_label
        self.tokenizer = model.tokenizer

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the probabilities of the model; those of windows are pooled as logits."""
        stride, max_windows = self.windows["stride"], self.windows["max_windows"]
        rows, documents = split_into_windows(
            self.tokenizer, texts, stride=stride, max_windows=max_windows
        )
        lengths = np.array([len(row) for row in rows])
        logits = self.model(rows)
        if len(rows):
            pooling = self.windows["pooling"]
            logits = pool_windows(logits, documents, pooling=pooling, weights=lengths)
        return softmax(logits) if self.single_label else sigmoid(logits)

    def save(self, folder: Path, contents: TaggerContents) -> None:
        """Add the model, its tokenizer and the windows."""
        contents.method = METHOD
        contents.settings |= {"windows": self.windows, "single_label": self.single_label}
        self.model.save(folder, contents)

    @classmethod
    def load(cls, folder: Path, contents: TaggerContents, loading: Loading) -> OnnxScorer:
        """Load the model and its tokenizer; device and precision of `loading` are not used."""
        windows, single_label = contents.settings["windows"], contents.settings["single_label"]
        if windows["pooling"] not in WINDOW_POOLINGS:
            raise ValueError(f"pooling {windows['pooling']!r}")
        return cls(OnnxModel.load(folder), windows, single_label)
