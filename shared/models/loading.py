"""Load models and tokenizers, and refuse what is damaged, incomplete or does not fit.

Every folder is treated as data that somebody else wrote:

- Only safetensors files are read. A pickle can run code when it is loaded.
- No code from the folder runs (``trust_remote_code`` stays off).
- Weights that are missing, truncated or of another size are an error. transformers would start
  them at random and only print a warning, and the results would be wrong.
- A tokenizer without its vocabulary, or with more tokens than the model has embeddings, is an
  error.
- Each model computes a short text with and without padding (`shared.models.padding`), so that the
  scores of a text never depend on the texts beside it, and an architecture that cannot read plain
  texts is refused before anything is trained.

Each refusal is a `UserError` of one line that names the folder.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.errors import UserError, first_line
from shared.models.checks import check_config, check_weight_files
from shared.models.lengths import longest_input
from shared.models.sources import DEFAULT_MODEL, DEFAULT_MODEL_ON_HUB, resolve_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

# Names of the dropout rates in configs: BERT and related models, DistilBERT, ModernBERT, GPT-2.
_ATTENTION_DROPOUT = {"attention_probs_dropout_prob", "attention_dropout", "attn_pdrop"}
_DROPOUT = {
    *("hidden_dropout_prob", "classifier_dropout", "classifier_dropout_prob", "dropout"),
    *("embedding_dropout", "mlp_dropout", "embd_pdrop", "resid_pdrop", "pooler_dropout"),
    "seq_classif_dropout",
}
_TASKS = {
    "AutoModel": "encoder",
    "AutoModelForSequenceClassification": "text classifier",
    "AutoModelForCausalLM": "language model",
    "AutoModelForMaskedLM": "masked language model",
    "AutoModelForQuestionAnswering": "model with start and end heads",
    "AutoModelForSeq2SeqLM": "translator",
}
# Outputs that a config may ask for and that nothing here reads. The Trainer would collect them.
_PLAIN_OUTPUTS = {"output_hidden_states": False, "output_attentions": False, "return_dict": True}
# What from_pretrained raises for files that are damaged or of another format: anything, as it
# trusts them.
_UNREADABLE = (Exception,)


# --- tokenizers ----------------------------------------------------------------------------------


def load_tokenizer(
    folder: str, text_prefix: str | None = None, truncation_side: str | None = None
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a resolved model and make sure that it can pad.

    A tokenizer without a padding token, as that of GPT-2, pads with its end-of-text token.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    text_prefix : str, optional
        Put before each text by the functions of `shared.models.tokenizers`, and saved with the
        tokenizer. None: the prefix that was saved with it, usually none.
    truncation_side : {"right", "left"}, optional
        Where a long text loses tokens, also after the tokenizer is saved. "left" keeps the end of
        the text, and cuts off its prefix. None: the side that was saved with it, usually "right".

    Raises
    ------
    UserError
        For missing or damaged files, a missing vocabulary, or a tokenizer that has neither a
        padding nor an end-of-text token.
    """
    from transformers import AutoTokenizer

    settings = {"text_prefix": text_prefix, "truncation_side": truncation_side}
    settings = {name: value for name, value in settings.items() if value is not None}
    try:
        # AutoTokenizer reads the config, too, if there is one beside the tokenizer.
        if (Path(folder) / "config.json").is_file():
            _register_architecture(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **settings)
        length = tokenizer.model_max_length
        if not length >= 1:
            raise ValueError(f"model_max_length {length} in tokenizer_config.json is below 1")
        if not isinstance(tokenizer.init_kwargs.get("text_prefix", ""), str):
            raise ValueError("text_prefix in tokenizer_config.json is not a text")
    except UserError:
        raise
    except _UNREADABLE as error:
        if not _reads_sentencepiece() and list(Path(folder).glob("*.model")):
            # transformers names another library here, which cannot read the file.
            raise UserError(
                f"{folder}: the tokenizer is a SentencePiece model; install what reads it: "
                "pip install sentencepiece protobuf"
            ) from error
        raise UserError(f"{folder}: no usable tokenizer: {first_line(error)}") from error
    # If the vocabulary file is missing, transformers builds a tokenizer of special tokens only, to
    # which every word is unknown.
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise UserError(f"{folder}: no usable tokenizer: the vocabulary is missing")
    if tokenizer.pad_token_id is None:
        if tokenizer.eos_token_id is None:
            raise UserError(f"{folder}: the tokenizer has neither a padding nor an end token")
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _reads_sentencepiece() -> bool:
    """Return whether the libraries that read a SentencePiece model are installed."""
    try:
        names = ("sentencepiece", "google.protobuf")
        return all(importlib.util.find_spec(name) for name in names)
    except ModuleNotFoundError:  # no package at all begins with google
        return False


# --- models --------------------------------------------------------------------------------------


def load_sequence_classifier(
    folder: str,
    label_names: list[str] | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    dropout: float | None = None,
    base: str | None = None,
) -> PreTrainedModel:
    """Load a multilabel sequence classifier, with a new head if label names are given.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    label_names : list of str, optional
        Labels of a new head, which starts at random and is to be trained; an adapter of a
        classifier with other labels gives its encoder. None loads a trained classifier with its own
        labels, and refuses weights that lack any part of it.
    tokenizer : PreTrainedTokenizerBase, optional
        Checked against the model, which must have an embedding for each of its tokens. The config
        of the model gets its padding token and, for an encoder-decoder, its end token. The
        tokenizer is changed in place: it gets the padding side that the model needs and, for an
        encoder-decoder, splits special tokens in texts and gets a padding token that is not its
        end token.
    dropout : float, optional
        Rate of all dropout layers except those of the attention. None keeps the rates of the
        config, usually 0.1. Use more for small training sets: a small encoder memorises a thousand
        texts in six epochs.
    base : str, optional
        If the folder holds an adapter: the model that it was trained on, as `resolve_model` returns
        it. None: where the adapter says.

    Notes
    -----
    Attention dropout is set to 0 if the config has it. The fused attention kernel on CPUs does not
    support dropout, and with that kernel a training step takes a third of the time. Only
    safetensors are read, never pickles, and no code from the folder runs.

    Raises
    ------
    UserError
        For missing, truncated or mismatched weights.
    """
    return _load_classifier(folder, label_names, tokenizer, dropout, base)[0]


def load_classifier_to_adapt(
    folder: str, label_names: list[str], *, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, list[str]]:
    """Load a classifier to train with an adapter; return it and the names of its new modules.

    The new modules start at random. They must be trained and saved in full with the adapter,
    because no file holds weights for them. Parameters and errors are those of
    `load_sequence_classifier`.
    """
    model, missing = _load_classifier(folder, label_names, tokenizer, None)
    return model, sorted({key.rpartition(".")[0] for key in missing})


def _load_classifier(
    folder: str,
    label_names: list[str] | None,
    tokenizer: PreTrainedTokenizerBase | None,
    dropout: float | None,
    base: str | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a classifier; return it and the names of the weights that the folder lacks."""
    from transformers import AutoModelForSequenceClassification

    head: dict[str, Any] = {}
    if label_names is not None:
        head = {
            "num_labels": len(label_names),
            "id2label": dict(enumerate(label_names)),
            "label2id": {name: i for i, name in enumerate(label_names)},
            "problem_type": "multi_label_classification",
        }
    other_labels = False
    if label_names is not None and _is_adapter_of_classifier(folder):
        other_labels = list(load_config(folder).id2label.values()) != label_names
    # The head in an adapter file does not fit other labels.
    own_head = {} if other_labels else head
    model, missing = _load(AutoModelForSequenceClassification, folder, own_head, dropout, base)
    if other_labels:
        model, missing = _with_new_head(model, head, folder)
    refused = missing
    if label_names is not None:
        # The head is new. So may be the pooler, the layer between the encoder and the head, which
        # some encoders are published without. The encoder itself must be complete.
        refused = [key for key in missing if key.startswith(f"{model.base_model_prefix}.")]
        refused = [key for key in refused if "pooler" not in key]
    _check(model, refused, tokenizer, folder)
    return model, missing


def load_encoder(
    folder: str, *, tokenizer: PreTrainedTokenizerBase, dropout: float | None = None
) -> PreTrainedModel:
    """Load an encoder or a decoder without a head, to use its hidden states.

    Of an encoder-decoder such as T5 or BART, the encoder is returned.

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
    from transformers import AutoModel, AutoModelForSequenceClassification

    if _is_adapter_of_classifier(folder):
        classifier, missing = _load(AutoModelForSequenceClassification, folder, dropout=dropout)
        model = _base_of_merged(classifier, folder)
    else:
        model, missing = _load(AutoModel, folder, dropout=dropout)
    if model.config.is_encoder_decoder:
        from shared.models.heads import encoder_of

        model = encoder_of(model)
    # Hidden states do not pass through the pooler, so it may be missing.
    _check(model, [key for key in missing if "pooler" not in key], tokenizer, folder)
    return model


def load_masked_language_model(
    folder: str, *, tokenizer: PreTrainedTokenizerBase, new_head: bool = False
) -> PreTrainedModel:
    """Load a model that predicts masked tokens.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    tokenizer : PreTrainedTokenizerBase
        As in `load_sequence_classifier`. It must have a mask token.
    new_head : bool
        Whether an encoder without a head gets a new one. The output layer is tied to the token
        embeddings, as in BERT, so that only the layer before it starts at random.

    Raises
    ------
    UserError
        For a tokenizer without a mask token, another architecture, a missing head, or missing,
        truncated or mismatched weights.
    """
    import torch
    from transformers import AutoModelForMaskedLM

    if tokenizer.mask_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no mask token; name an encoder such as BERT")
    model, missing = _load(AutoModelForMaskedLM, folder)
    if model.config.is_encoder_decoder:
        raise UserError(
            f"{folder}: an encoder-decoder ({model.config.model_type}) is not trained on single "
            "masked tokens; name an encoder"
        )
    missing_in_encoder = [k for k in missing if k.startswith(f"{model.base_model_prefix}.")]
    if missing and not missing_in_encoder and not new_head:
        raise UserError(
            f"{folder}: has no head for masked-language modelling; "
            "train one (recipes/domain_adaptation.py), or name a model that has one"
        )
    # transformers leaves the bias of some new heads (Longformer, FNet) as the memory was.
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in missing and name.endswith("bias"):
            torch.nn.init.zeros_(parameter)
    _check(model, missing_in_encoder, tokenizer, folder, part=model.base_model)
    return model


def load_question_answerer(
    folder: str,
    *,
    tokenizer: PreTrainedTokenizerBase,
    dropout: float | None = None,
    new_head: bool = False,
) -> PreTrainedModel:
    """Load a model that marks the start and the end of an answer in a text.

    Its output has ``logits``, (rows, length, 2), in place of ``start_logits`` and ``end_logits``.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned; of an adapter of a classifier, the encoder is taken.
    tokenizer, dropout
        As in `load_sequence_classifier`.
    new_head : bool
        Whether an encoder without these heads gets new ones, which start at random.

    Raises
    ------
    UserError
        For another architecture, missing heads, or missing, truncated or mismatched weights.
    """
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

    if _is_adapter_of_classifier(folder):
        classifier, _ = _load(AutoModelForSequenceClassification, folder, dropout=dropout)
        encoder = _base_of_merged(classifier, folder).state_dict()
        config = copy.deepcopy(classifier.config)
        config.num_labels = 2
        model = AutoModelForQuestionAnswering.from_config(config)
        missing = model.base_model.load_state_dict(encoder, strict=False).missing_keys
        missing = [*(f"{model.base_model_prefix}.{key}" for key in missing), "head"]
    else:
        two = {"num_labels": 2}  # start and end, also after a training as classifier
        model, missing = _load(AutoModelForQuestionAnswering, folder, two, dropout)
    if model.config.is_encoder_decoder:
        raise UserError(
            f"{folder}: an encoder-decoder ({model.config.model_type}) writes answers; name an "
            "encoder, which marks them"
        )
    missing_in_encoder = [k for k in missing if k.startswith(f"{model.base_model_prefix}.")]
    missing_in_encoder = [key for key in missing_in_encoder if "pooler" not in key]
    if missing and not missing_in_encoder and not new_head:
        raise UserError(
            f"{folder}: has no heads for answers; train them, or name a model that has them"
        )

    def join(_: Any, __: Any, output: Any) -> dict[str, Any]:
        return {"logits": torch.stack([output["start_logits"], output["end_logits"]], dim=-1)}

    model.register_forward_hook(join)
    _check(model, missing_in_encoder, tokenizer, folder)
    return model


def load_multi_task_model(folder: str, *, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Load a `shared.models.multi_task.MultiTaskModel` that was trained.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    tokenizer : PreTrainedTokenizerBase
        As in `load_sequence_classifier`.

    Raises
    ------
    UserError
        For another architecture, or missing, truncated or mismatched weights.
    """
    from transformers import AutoModel

    model, missing = _load(AutoModel, folder)
    if model.config.model_type != "multi-task":
        raise UserError(f"{folder}: no model of several tasks ({model.config.model_type})")
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


def load_causal_language_model(
    folder: str, *, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedModel:
    """Load a model that predicts the next token, such as Llama or GPT-2, in evaluation mode.

    Parameters
    ----------
    folder : str
        What `resolve_model` returned.
    tokenizer : PreTrainedTokenizerBase
        Must have no more tokens than the model has embeddings, and an end token.

    Raises
    ------
    UserError
        For another architecture, another tokenizer, or missing, truncated or mismatched weights.
    """
    from transformers import AutoModelForCausalLM

    model, missing = _load(AutoModelForCausalLM, folder)
    _check_weights(missing, folder)
    _check_vocabulary(model, tokenizer, folder)
    model.eval()
    if not _is_causal(model):
        raise UserError(
            f"{folder}: a {model.config.model_type} that predicts hidden tokens, not next ones; "
            "name a model such as GPT-2"
        )
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer has no end token; name another model")
    return model


def _is_causal(model: PreTrainedModel) -> bool:
    """Return whether the logits of a token stay the same if a token after it changes."""
    import torch

    ids = torch.tensor([[2, 3, 4], [2, 3, 5]]) % model.config.get_text_config().vocab_size
    with torch.no_grad():
        one, other = model(input_ids=ids).logits[:, :2]
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def load_config(folder: str) -> PreTrainedConfig:
    """Load the config of a model, also of an architecture of this project.

    Raises
    ------
    UserError
        If the folder has none, or a damaged one.
    """
    from transformers import AutoConfig

    try:
        _register_architecture(folder)
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except UserError:
        raise
    except _UNREADABLE as error:
        raise UserError(f"{folder}: cannot load the model: {first_line(error)}") from error


def base_of_adapter(folder: str) -> str | None:
    """Return the model that an adapter was trained on, a name for `resolve_model`.

    None if the folder holds no adapter. If the path that the adapter names does not exist, as after
    both were moved, a folder of the same name beside the adapter is taken.

    Raises
    ------
    UserError
        If the config of the adapter is damaged.
    """
    path = Path(folder) / "adapter_config.json"
    if not path.is_file():
        return None
    try:
        base: str = json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except _UNREADABLE as error:
        raise UserError(f"{folder}: cannot load the adapter: {first_line(error)}") from error
    if base == DEFAULT_MODEL_ON_HUB:
        return DEFAULT_MODEL
    beside = Path(folder).resolve().parent / Path(base).name
    is_moved = not Path(base).is_dir() and (beside / "config.json").is_file()
    return str(beside) if is_moved else base


def _load(
    auto_class: Any,
    folder: str,
    config_changes: dict[str, Any] | None = None,
    dropout: float | None = None,
    base: str | None = None,
) -> tuple[PreTrainedModel, list[str]]:
    """Load a model in single precision; return it and the names of the weights the folder lacks.

    If the folder holds an adapter, it is merged into the model that it was trained on. The caller
    decides which weights may be missing.
    """
    import torch
    from transformers import AutoConfig
    from transformers.utils import logging

    config_changes = dict(config_changes or {})
    verbosity = logging.get_verbosity()
    # transformers would print a table of new weights; the caller checks them instead.
    logging.set_verbosity_error()
    try:
        _register_architecture(folder)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        # Attention dropout is slow on CPUs; see the notes of `load_sequence_classifier`.
        for name, value in config.to_dict().items():
            if name in _ATTENTION_DROPOUT:
                config_changes[name] = 0.0
            elif name in _DROPOUT and dropout is not None and value is not None:
                config_changes[name] = dropout
        if config.model_type in ("big_bird", "bigbird_pegasus"):
            # The sparse attention is random, and a short batch turns it off for all that follow.
            config_changes["attention_type"] = "original_full"
        config.update(config_changes)
        for part in {id(c): c for c in (config, config.get_text_config())}.values():
            part.update(_PLAIN_OUTPUTS)
        if base is None and (name := base_of_adapter(folder)) is not None:
            base = resolve_model(name)
        check_weight_files(base or folder)
        model, report = auto_class.from_pretrained(
            base or folder,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,  # also from bfloat16 files: mixed precision needs such weights
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for other labels; the caller checks the rest
            output_loading_info=True,
        )
    except UserError:
        raise
    except _UNREADABLE as error:
        if "Unrecognized configuration class" in str(error):
            raise UserError(
                f"{folder}: transformers has no {_TASKS[auto_class.__name__]} for "
                f"{config.model_type} models; name another model"
            ) from error
        _refuse_pickles(folder, error)
        raise UserError(f"{folder}: cannot load the model: {first_line(error)}") from error
    finally:
        logging.set_verbosity(verbosity)
    # transformers starts a tensor of another size at random, as if it were missing.
    missing = [*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])]
    if base:
        model, missing = _merge_adapter(model, folder, missing)
    return model, missing


def _refuse_pickles(folder: str, error: Exception) -> None:
    """Say how to convert a folder whose weights are pickles only."""
    files = sorted(path.name for path in Path(folder).glob("pytorch_model*.bin"))
    if not files or list(Path(folder).glob("*.safetensors")):
        return
    architectures = getattr(load_config(folder), "architectures", None) or ["AutoModel"]
    raise UserError(
        f"{folder}: the weights are a pickle ({files[0]}), which can run code when it is read and "
        'is refused; if you trust its source, convert it: python -c "import transformers; '
        f"m = transformers.{architectures[0]}.from_pretrained('{folder}'); "
        f"m.save_pretrained('{folder}')\""
    ) from error


def _register_architecture(folder: str) -> None:
    """Check the config, and import the module of an architecture of this project, if it names one.

    The import registers the architecture with transformers.
    """
    from transformers import PreTrainedConfig

    config, _ = PreTrainedConfig.get_config_dict(folder)
    check_config(config, folder)
    match config.get("model_type"):
        case "pooled-classifier":
            import shared.models.heads
        case "multi-task":
            import shared.models.multi_task
        case "text-cnn" | "text-ngrams" | "text-rnn":
            import shared.models.networks
        case "transformer-parts":
            import shared.models.text_generators
        case "recurrent-seq2seq":
            import shared.models.recurrent_generators
        case str(name) if name.startswith("language-model-"):
            import shared.models.small_language_models  # noqa: F401


def _merge_adapter(
    model: PreTrainedModel, folder: str, missing: list[str]
) -> tuple[PreTrainedModel, list[str]]:
    """Add an adapter to the weights of its model; return the model and what it still lacks."""
    from peft import PeftModel
    from safetensors import safe_open

    try:
        with safe_open(Path(folder) / "adapter_model.safetensors", framework="np") as file:
            # Modules that the adapter file holds in full, such as a head, are no longer missing.
            saved = {key.removeprefix("base_model.model.") for key in file.keys()}  # noqa: SIM118
        adapted = PeftModel.from_pretrained(model, folder)
        # Virtual tokens stand before the text; there are no weights to merge them into.
        if not adapted.active_peft_config.is_prompt_learning:
            adapted = adapted.merge_and_unload()
    except _UNREADABLE as error:
        raise UserError(f"{folder}: cannot load the adapter: {first_line(error)}") from error
    return adapted, [key for key in missing if key not in saved]


def _is_adapter_of_classifier(folder: str) -> bool:
    """Return whether a folder holds an adapter with the head of a classifier."""
    if base_of_adapter(folder) is None:
        return False
    settings = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    return settings.get("task_type") == "SEQ_CLS"


def _base_of_merged(classifier: PreTrainedModel, folder: str) -> PreTrainedModel:
    """Return the encoder of a classifier that an adapter was merged into."""
    from transformers import PreTrainedModel

    if not isinstance(classifier, PreTrainedModel):
        raise UserError(
            f"{folder}: virtual tokens of prompt tuning are no part of an encoder; name another "
            "model"
        )
    return classifier.base_model


def _with_new_head(
    classifier: PreTrainedModel, head: dict[str, Any], folder: str
) -> tuple[PreTrainedModel, list[str]]:
    """Return a classifier with the encoder of another one, and the names of its random weights."""
    encoder = _base_of_merged(classifier, folder)
    config = copy.deepcopy(classifier.config)
    config.update(head)
    model = type(classifier)(config)
    model.base_model.load_state_dict(encoder.state_dict())
    prefix = f"{model.base_model_prefix}."
    return model, [key for key in model.state_dict() if not key.startswith(prefix)]


def _check(
    model: PreTrainedModel,
    missing: list[str],
    tokenizer: PreTrainedTokenizerBase | None,
    folder: str,
    part: PreTrainedModel | None = None,
) -> None:
    """Refuse a model that lacks weights or does not fit its tokenizer; make both fit otherwise.

    The config gets the padding token of the tokenizer and, for an encoder-decoder, its end token;
    `load_sequence_classifier` says how the tokenizer changes. `part` is the part of the model whose
    outputs must not depend on padding; None: the whole model.
    """
    _check_weights(missing, folder)
    if tokenizer is None:
        return
    _check_vocabulary(model, tokenizer, folder)
    # The heads of encoder-decoders read the end token, of which each text must hold one.
    if model.config.is_encoder_decoder:
        tokenizer.split_special_tokens = True
        if tokenizer.pad_token_id == tokenizer.eos_token_id:
            tokenizer.pad_token = tokenizer.unk_token
        if tokenizer.eos_token_id is not None:
            model.config.eos_token_id = tokenizer.eos_token_id
    # The heads of decoders read the last token that is no padding, by the config.
    for config in (model.config, model.config.get_text_config()):
        config.pad_token_id = tokenizer.pad_token_id
    from shared.models.padding import fit_to_padding

    fit_to_padding(part or model, tokenizer, folder, longest_input(model))


def _check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str
) -> None:
    """Refuse a tokenizer with more tokens than the model has embeddings."""
    # Fewer tokens than embeddings are fine: some models round the number of embeddings up.
    n_embeddings = _number_of_embeddings(model)
    # The highest id counts, for ids can have holes.
    n_tokens = max(tokenizer.get_vocab().values(), default=-1) + 1
    if n_embeddings is not None and n_tokens > n_embeddings:
        raise UserError(
            f"{folder}: the tokenizer has {n_tokens} tokens but the model only "
            f"{n_embeddings} embeddings; they do not belong together"
        )


def _number_of_embeddings(model: PreTrainedModel) -> int | None:
    """Return the size of the vocabulary; None if the model hashes characters, as CANINE."""
    try:
        return len(model.get_input_embeddings().weight)
    except NotImplementedError:
        return None


def _check_weights(missing: list[str], folder: str) -> None:
    """Refuse weights that are missing or of another size."""
    if missing:
        raise UserError(
            f"{folder}: the weights lack {len(missing)} tensors of the model or hold them in "
            f"another size, first {min(missing)}; they belong to another architecture or are "
            "incomplete"
        )


# --- dropout --------------------------------------------------------------------------------------


def has_dropout(model: PreTrainedModel) -> bool:
    """Return whether the model has dropout, so that two training passes of a text differ."""
    import torch

    return any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
