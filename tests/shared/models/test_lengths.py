"""How much of a text a model reads: its longest input, and tokenizers that truncate there."""

from types import SimpleNamespace

import pytest
import torch
from tiny_models import config_of
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
)

from shared.cli.errors import UserError
from shared.models.heads import PooledForSequenceClassification, encoder_of
from shared.models.lengths import limit_length, limit_to_input, longest_input

LABELS = ["bug", "docs", "speed"]
SMALL = {
    "vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        (BertConfig(**SMALL, max_position_embeddings=32), 32),
        (RobertaConfig(**SMALL, max_position_embeddings=34, pad_token_id=1), 32),
        (DistilBertConfig(vocab_size=20, dim=8, n_layers=1, n_heads=2, hidden_dim=8), 512),
        (ModernBertConfig(**SMALL, max_position_embeddings=64, pad_token_id=0), 64),
    ],
)
def test_the_model_reads_its_longest_input(config, longest):
    model = AutoModelForSequenceClassification.from_config(config)
    assert longest_input(model) == longest
    model(input_ids=torch.full((1, longest), 5), attention_mask=torch.ones(1, longest).long())


@pytest.mark.parametrize(
    ("name", "settings", "longest"),
    [
        ("bert", {}, 64),
        ("roberta", {}, 62),
        ("ibert", {}, 62),
        ("nystromformer", {}, 64),
        ("gpt2", {}, 64),
        ("opt", {}, 64),
        ("mpt", {}, 64),
        ("bart", {}, 64),
        ("modernbert", {}, 64),
        ("deberta-v2", {}, 64),
        # Only relative positions: no limit.
        ("deberta-v2", {"position_biased_input": False}, None),
        ("t5", {}, None),
        ("xlnet", {}, None),
        ("bloom", {}, None),
    ],
)
def test_an_encoder_reads_its_longest_input_also_below_a_head(name, settings, longest):
    encoder = AutoModel.from_config(config_of(name, 20, **settings))
    if encoder.config.is_encoder_decoder:
        encoder = encoder_of(encoder)
    model = PooledForSequenceClassification.from_encoder(encoder, LABELS)
    assert longest_input(encoder) == longest_input(model) == longest
    rows = torch.full((1, longest or 160), 5)
    model(input_ids=rows, attention_mask=torch.ones_like(rows))


def test_the_length_limit_leaves_room_for_padding():
    tokenizer = SimpleNamespace(num_special_tokens_to_add=lambda: 2)
    model = BertModel(BertConfig(**SMALL | {"max_position_embeddings": 50}))
    limit_length(tokenizer, model, 48)
    with pytest.raises(UserError, match="--max_length 50: must be 3 to 48 tokens"):
        limit_length(tokenizer, model, 50)
    for own, expected in ((32, 32), (50, 48), (int(1e30), 48)):
        tokenizer.model_max_length = own
        limit_to_input(tokenizer, model)
        assert tokenizer.model_max_length == expected
