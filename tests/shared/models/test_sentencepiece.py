"""Tokenizers that come with a SentencePiece model alone, in the layouts of published models."""

import importlib.util
import io
import json

import pytest
import sentencepiece
from transformers import AutoConfig

from shared.cli.errors import UserError
from shared.models.loading import load_tokenizer

TEXTS = [
    *("the crash of the model in training", "docs are slow and old", "please add an option"),
    "a traceback error in data",
] * 20
_BERT_TOKENS = "[CLS],[SEP],[MASK]"
_BYTES = {"model_type": "bpe", "byte_fallback": True, "vocab_size": 320}
# Type of a model: its file, what tokenizer_config.json says, and how SentencePiece was trained.
LAYOUTS = {
    "albert": (
        "spiece.model",
        {},
        {"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1, "control_symbols": _BERT_TOKENS},
    ),
    "camembert": ("sentencepiece.bpe.model", {}, {}),
    "deberta-v2": (
        "spm.model",
        {"do_lower_case": False, "vocab_type": "spm"},
        {
            **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]"},
            **{"bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
        },
    ),
    "gemma": (
        "tokenizer.model",
        {},
        {"pad_id": 0, "eos_id": 1, "bos_id": 2, "unk_id": 3, **_BYTES},
    ),
    "llama": ("tokenizer.model", {"tokenizer_class": "LlamaTokenizer"}, _BYTES),
    "mbart": ("sentencepiece.bpe.model", {"src_lang": "en_XX"}, {}),
    "t5": ("spiece.model", {}, {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}),
    "xlm-roberta": ("sentencepiece.bpe.model", {}, {}),
    "xlnet": ("spiece.model", {}, {"control_symbols": "<cls>,<sep>,<pad>,<mask>,<eod>"}),
}


def save_layout(folder, name):
    """Write a folder with a config and a SentencePiece model; return the model's processor."""
    file, settings, training = LAYOUTS[name]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"vocab_size": 60, **training},
    )
    (folder / file).write_bytes(model.getvalue())
    AutoConfig.for_model(name).save_pretrained(folder)
    if settings:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.mark.parametrize("name", LAYOUTS)
def test_tokens_are_those_of_sentencepiece(name, tmp_path):
    processor = save_layout(tmp_path, name)
    tokenizer = load_tokenizer(str(tmp_path))
    assert tokenizer.pad_token_id is not None
    for text in TEXTS[:4]:
        tokens = tokenizer.tokenize(text)
        expected = processor.encode(text, out_type=str)
        # Llama and Gemma put no space before the first word.
        assert tokens == expected or "".join(tokens) == "".join(expected).removeprefix("▁")


def test_without_the_libraries_the_message_names_them(tmp_path, monkeypatch):
    (tmp_path / "spiece.model").write_bytes(b"no SentencePiece model")
    AutoConfig.for_model("albert").save_pretrained(tmp_path)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else name
    )
    with pytest.raises(UserError, match="pip install sentencepiece protobuf"):
        load_tokenizer(str(tmp_path))
