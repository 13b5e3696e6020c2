"""A tiny random model of each text architecture that transformers can classify with.

Each is made from its config, with sizes of a few dozens. All share one tokenizer, which knows the
words of the tests' data.
"""

import json
from functools import cache
from pathlib import Path

SIZES = {  # by all the names that configs have for them
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "d_ff", "n_inner", "ffn_dim", "dff", "d_inner"), 64),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size", "hidden_dim"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 64),
    **{"num_key_value_heads": 2, "d_kv": 8, "d_head": 8, "head_dim": 8, "word_embed_proj_dim": 32},
    # Without dropout, as the tests compare runs.
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout"), 0.0),
    **dict.fromkeys(("dropout_rate", "resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
}
# Type of a model: what its config needs beside the sizes.
ENCODERS = {
    "albert": {},
    "bert": {},
    "big_bird": {"block_size": 16},
    "camembert": {},
    "canine": {"num_hash_buckets": 64, "local_transformer_stride": 16},
    "convbert": {},
    "data2vec-text": {},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "distilbert": {},
    "electra": {"embedding_size": 16},
    "ernie": {},
    "esm": {},
    "eurobert": {},
    "flaubert": {},
    "fnet": {},
    "funnel": {"block_sizes": [1, 1], "architectures": []},
    "gte": {},
    "ibert": {},
    "layoutlm": {"max_2d_position_embeddings": 16},
    "longformer": {"attention_window": 16},
    "megatron-bert": {},
    "mobilebert": {
        **{"true_hidden_size": 16, "intra_bottleneck_size": 16, "num_feedforward_networks": 1},
        "embedding_size": 32,
    },
    "modernbert": {},
    "mpnet": {},
    "nomic_bert": {},
    "nystromformer": {},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 32},
    "roberta": {},
    "roberta-prelayernorm": {},
    "roformer": {},
    "squeezebert": {"embedding_size": 32},
    "xlm": {},
    "xlm-roberta": {},
    "xlm-roberta-xl": {},
    "xlnet": {},
    "yoso": {},
}
DECODERS = {
    "biogpt": {},
    "bloom": {},
    "ctrl": {},
    "falcon": {},
    "gemma": {},
    "gemma2": {},
    "gpt2": {},
    "gpt_bigcode": {},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gptj": {"rotary_dim": 4},
    "llama": {},
    "mistral": {},
    "modernbert-decoder": {},
    "mpt": {},
    "openai-gpt": {},
    "opt": {},
    "phi": {},
    "phi3": {},
    "qwen3": {},
    "smollm3": {},
    "stablelm": {},
}
ENCODER_DECODERS = {
    "bart": {},
    "bigbird_pegasus": {"block_size": 16},
    "mbart": {},
    "mt5": {"decoder_start_token_id": 1},
    "mvp": {},
    "plbart": {},
    "t5": {"decoder_start_token_id": 1},
    "umt5": {"decoder_start_token_id": 1},
}
# Those to which padding makes a difference on either side: texts are computed by length.
SENSITIVE = ("canine", "convbert", "fnet", "funnel", "mobilebert", "nystromformer", "yoso")
# Refused, with what the message says.
REFUSED = {
    "mra": ({"max_position_embeddings": 256}, "need a kernel for CUDA"),
    "reformer": (
        {
            **{"attn_layers": ["lsh", "local"], "axial_pos_embds_dim": [16, 16]},
            **{"axial_pos_shape": [8, 8], "lsh_attn_chunk_length": 4, "num_buckets": 2},
            **{"local_attn_chunk_length": 4, "is_decoder": False},
        },
        "give the same text other outputs each time",
    ),
    "xmod": ({}, "cannot read plain texts"),
}
ACCEPTED = {**ENCODERS, **DECODERS, **ENCODER_DECODERS}


def config_of(name, vocab_size, **settings):
    """Return the config of a tiny model of a type."""
    from transformers import AutoConfig

    default = AutoConfig.for_model(name)
    known = {*default.to_dict(), *default.attribute_map}
    sizes = {key: value for key, value in SIZES.items() if key in known}
    special = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    extra = ACCEPTED[name] if name in ACCEPTED else REFUSED[name][0]
    tokens = {"vocab_size": vocab_size} if "vocab_size" in known else {}
    if name == "funnel":  # its blocks say how many layers there are
        sizes = {key: size for key, size in sizes.items() if "layer" not in key}
    return AutoConfig.for_model(name, **{**sizes, **tokens, **special, **extra, **settings})


def save_tiny_model(folder, name, words, head="AutoModel", **settings):
    """Save a tiny random model of a type with a tokenizer of some words; return the folder.

    Parameters
    ----------
    folder : Path
    name : str
        The type of the model, such as "bert".
    words : iterable of str
        The vocabulary, beside special tokens and letters.
    head : str
        A class of transformers.
    **settings
        For the config.
    """
    import torch
    import transformers

    tokenizer = word_tokenizer(tuple(words))
    tokenizer.save_pretrained(folder)
    config = config_of(name, len(tokenizer), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, head).from_config(config)
        # Larger than usual, so that the scores of texts differ.
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1 and parameter.std() < 0.1:
                    parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    return Path(folder)


@cache
def word_tokenizer(words):
    """Return a tokenizer of whole words and single letters, with all usual special tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(set(words))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        **{"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"},
        **{"sep_token": "[SEP]", "mask_token": "[MASK]", "eos_token": "[SEP]"},
        bos_token="[CLS]",
    )


def change_tokenizer(folder, **settings):
    """Change the settings of a saved tokenizer, such as ``padding_side``."""
    path = Path(folder) / "tokenizer_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(values | settings), encoding="utf-8")
