"""An encoder to fine-tune: how flags find it, and its new head."""

import torch

from shared.models.encoders import EncoderArguments, find_encoder, load_classifier_to_train
from shared.models.loading import load_tokenizer

LABELS = ["bug", "docs", "speed"]


def test_the_flags_decide_what_the_tokenizer_reads(tiny_model):
    args = EncoderArguments(model=str(tiny_model), text_prefix="add: ", truncation_side="left")
    folder, tokenizer = find_encoder(args)
    assert folder == str(tiny_model)
    assert tokenizer.init_kwargs["text_prefix"] == "add: "
    assert tokenizer.truncation_side == "left"
    _, plain = find_encoder(EncoderArguments(model=str(tiny_model)))
    assert "text_prefix" not in plain.init_kwargs
    assert plain.truncation_side == "right"


def test_a_classifier_to_train_has_the_head_that_its_seed_decides(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))

    def load(seed, **options):
        options = {"tokenizer": tokenizer, **options}
        return load_classifier_to_train(str(tiny_model), LABELS, seed=seed, **options)

    first, same, other = load(1), load(1), load(2)
    assert torch.equal(first.classifier.weight, same.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)
    assert first.config.problem_type == "multi_label_classification"
    assert first.config.mean_pooling_layer
    plain = load(1, single_label=True, dropout=0.3, mean_pooling=False)
    assert plain.config.problem_type == "single_label_classification"
    assert plain.config.num_hidden_layers == first.config.num_hidden_layers - 1
    assert plain.dropout.p == 0.3
