import numpy as np
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from shared.models import shift_logits

IDS = torch.tensor([[5, 6, 7]])


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def test_each_logit_gets_its_constant():
    # An inner layer has an output per label as well.
    config = BertConfig(
        vocab_size=10,
        hidden_size=2,
        num_attention_heads=1,
        num_hidden_layers=1,
        intermediate_size=2,
    )
    model = BertForSequenceClassification(config)
    before = logits(model)
    assert shift_logits(model, np.array([0.5, -2.0]))
    torch.testing.assert_close(logits(model), before + torch.tensor([[0.5, -2.0]]))


def test_a_model_without_a_bias_stays_as_it_is():
    config = GPT2Config(vocab_size=10, n_embd=4, n_head=1, n_layer=1, pad_token_id=0)
    model = GPT2ForSequenceClassification(config)
    before = logits(model)
    assert not shift_logits(model, np.array([0.5, -2.0]))
    torch.testing.assert_close(logits(model), before)
