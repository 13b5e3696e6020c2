"""Turn the models of a tagger into ONNX files, in single precision or in 8-bit integers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line
from shared.methods.titles import TitledEmbedder
from shared.methods.windows import saved_windows
from shared.taggers.embeddings import EmbeddingScorer
from shared.taggers.means import MeanScorer
from shared.taggers.onnx_model import OnnxEmbedder, OnnxModel, OnnxScorer
from shared.taggers.tagger import Scorer, Tagger
from shared.taggers.trained_model import TrainedModelScorer
from shared.taggers.words import WordScorer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

# The first one with an operator for attention, which onnxruntime 1.23 and later can run.
OPSET = 23
# What is quantised: matrix products with weights, and tables of token vectors. The last layer of a
# head, a Gemm, is small and decides the scores; it stays in single precision.
_QUANTIZED = ["MatMul", "Gather"]


def export_tagger(tagger: Tagger, folder: Path) -> Tagger:
    """Return a tagger whose models of torch are exported to ONNX, in single precision.

    The parts that are arrays stay as they are: the classifier of a probe or a lookup, and taggers
    of words in a mean.

    Parameters
    ----------
    tagger : Tagger
        From `load_tagger`.
    folder : Path
        Gets the files; `Tagger.save` copies them.

    Raises
    ------
    UserError
        If nothing in the tagger is computed by torch, if a part of it is exported already or cannot
        be exported, or if onnx or onnxruntime is not installed.
    """
    _require_onnx()
    if _is_exported(tagger.scorer):
        raise UserError("the tagger is exported already; name the tagger that it was made of")
    paths = _new_paths(folder)

    def convert(part: Any) -> OnnxModel:
        return _export_model(part.trainer.model, part.tokenizer, next(paths))

    return replace(tagger, scorer=_with_models(tagger.scorer, convert))


def quantize_tagger(tagger: Tagger, folder: Path) -> Tagger:
    """Return an exported tagger whose models compute in 8-bit integers.

    Weights are quantised once, with a scale per channel; activations when they are computed, with a
    scale per batch (dynamic quantisation), so that it needs no data. A score therefore depends a
    little on the other texts of the batch. Weights and activations in blocks (``MatMulNBits``)
    changed scores a tenth as much, but were no faster than single precision.

    Parameters
    ----------
    tagger : Tagger
        From `export_tagger`.
    folder : Path
        Gets the files; `Tagger.save` copies them.
    """
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    paths = _new_paths(folder)
    capabilities = torch.cpu.get_capabilities()
    # Without VNNI, two products of 8 bits are added in 16 bits, which overflow: weights then have 7
    # bits. CPUs that are not of this family have no such instruction.
    is_x86 = "avx2" in capabilities
    has_vnni = capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")

    def convert(part: Any) -> OnnxModel:
        path = next(paths)
        with _quiet():
            quantize_dynamic(
                part.model.path,
                path,
                op_types_to_quantize=_QUANTIZED,
                per_channel=True,
                reduce_range=is_x86 and not has_vnni,
                weight_type=QuantType.QInt8,
            )
        return OnnxModel(path, part.tokenizer)

    return replace(tagger, scorer=_with_models(tagger.scorer, convert))


def _with_models(scorer: Scorer, convert: Callable[[Any], OnnxModel]) -> Scorer:
    """Return a scorer whose models are converted; its other parts stay.

    `convert` gets the part of the scorer that has the model: for embeddings, the embedder.
    """
    if not _uses_torch(scorer):
        raise UserError(
            "a tagger of words needs no export: tag and serve run it without torch as it is"
        )
    if isinstance(scorer, MeanScorer):
        members = [
            replace(member, scorer=_with_models(member.scorer, convert))
            if _uses_torch(member.scorer)
            else member
            for member in scorer.members
        ]
        return replace(scorer, members=members)
    if isinstance(scorer, EmbeddingScorer):
        embed: Any = OnnxEmbedder(convert(scorer.embedder))
        if isinstance(scorer.embed, TitledEmbedder):
            embed = TitledEmbedder(embed, scorer.embed.title_weight)
        options = scorer.analysis, scorer.word_weight, scorer.wide
        return EmbeddingScorer(embed, None, scorer.classifier, *options)
    if isinstance(scorer, TrainedModelScorer):
        config = scorer.trainer.model.config
        windows = saved_windows(scorer.trainer.model, scorer.tokenizer)
        single_label = config.problem_type == "single_label_classification"
        return OnnxScorer(convert(scorer), windows, single_label)
    if isinstance(scorer, OnnxScorer):
        return OnnxScorer(convert(scorer), scorer.windows, scorer.single_label)
    raise UserError(
        "a zero-shot tagger cannot be exported: it scores pairs of sentences; tag texts with it, "
        "train a tagger on them, and export that"
    )


def _uses_torch(scorer: Scorer) -> bool:
    """Return whether a scorer has more to convert than words."""
    if isinstance(scorer, MeanScorer):
        return any(_uses_torch(member.scorer) for member in scorer.members)
    return not isinstance(scorer, WordScorer)


def _is_exported(scorer: Scorer) -> bool:
    """Return whether a scorer, or a member of a mean, is run by onnxruntime."""
    if isinstance(scorer, MeanScorer):
        return any(_is_exported(member.scorer) for member in scorer.members)
    return isinstance(getattr(scorer, "embedder", scorer), (OnnxEmbedder, OnnxScorer))


def _new_paths(folder: Path) -> Iterator[Path]:
    return (folder / f"{number}.onnx" for number in count(len([*folder.glob("*.onnx")])))


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'export needs {error.name}, which is not installed; pip install -e ".[export]"'
        ) from None


def _export_model(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, path: Path
) -> OnnxModel:
    """Write a model that returns ``logits`` of token ids as an ONNX file."""
    import torch
    from onnxscript.optimizer import optimize_ir

    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__}: runs without torch only as a fast tokenizer; train the "
            "tagger on a model that has one"
        )

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)["logits"]

    # Two rows of different lengths, so that no size of the example is taken for a constant.
    batch = tokenizer(["a a a a a", "a"], padding=True, return_tensors="pt", truncation=True)
    inputs = {name: batch[name].cpu() for name in ("input_ids", "attention_mask")}
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    model.eval().cpu()
    try:
        with _quiet(), torch.no_grad(), _attention_of_whole_rows(model):
            program = torch.onnx.export(
                Logits().eval(),
                kwargs=inputs,
                dynamo=True,
                dynamic_shapes=dict.fromkeys(inputs, sizes),
                input_names=list(inputs),
                output_names=["logits"],
                opset_version=OPSET,
                # It would make operators of rotary positions that onnxruntime cannot run.
                optimize=False,
                verbose=False,
            )
            assert program is not None  # it is with dynamo=True
            # Fold constants: the quantiser finds only weights that need no transposition.
            optimize_ir(program.model)
            program.save(path)
    except Exception as error:  # torch.export raises anything for code that it cannot trace
        cause: BaseException = error
        while cause.__cause__ is not None:  # the exporter wraps it several times
            cause = cause.__cause__
        name = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        raise UserError(
            f"{name} models cannot be exported ({first_line(cause)[:200]}); tag with the tagger as "
            "it is"
        ) from error
    return OnnxModel(path, tokenizer)


@contextmanager
def _attention_of_whole_rows(model: torch.nn.Module) -> Iterator[None]:
    """Export attention as one operator of whole hidden states, without a transposition per head.

    It takes 4 % less time in 8-bit integers. Models without the attention of torch stay as they
    are.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attention(
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        **options: Any,
    ) -> tuple[torch.Tensor, None]:
        """Return the output of attention, (rows, length, heads, width), as transformers wants it.

        The inputs are (rows, heads, length, width).
        """
        n_rows, n_heads, length, width = query.shape
        is_plain = attention_mask is not None and key.shape[1] == n_heads
        if not is_plain or options.get("position_bias") is not None:
            return sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **options
            )
        symbolic: Any = torch.onnx.ops.symbolic
        output = symbolic(
            "Attention",
            [*(part.transpose(1, 2).flatten(2) for part in (query, key, value)), attention_mask],
            {
                "q_num_heads": n_heads,
                "kv_num_heads": n_heads,
                "scale": width**-0.5 if scaling is None else scaling,
            },
            dtype=query.dtype,
            shape=(n_rows, length, n_heads * value.shape[-1]),
            version=OPSET,
        )
        return output.unflatten(2, (n_heads, -1)), None

    AttentionInterface.register("onnx", attention)
    AttentionMaskInterface.register("onnx", sdpa_mask)
    parts: list[Any] = [part for part in model.modules() if isinstance(part, PreTrainedModel)]
    changed = [part.config for part in parts if part.config._attn_implementation == "sdpa"]
    for config in changed:
        config._attn_implementation_internal = "onnx"
    try:
        yield
    finally:
        for config in changed:
            config._attn_implementation_internal = "sdpa"


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the messages of the exporter and the quantiser, which tell a user nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
