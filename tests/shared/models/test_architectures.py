"""All text architectures: scores depend on the text alone, whatever tokenizer and config say."""

import numpy as np
import pytest
import torch
from tiny_models import (
    ACCEPTED,
    REFUSED,
    SENSITIVE,
    change_tokenizer,
    save_tiny_model,
)

from shared.cli.errors import UserError
from shared.models.heads import PooledForSequenceClassification
from shared.models.loading import load_encoder, load_sequence_classifier, load_tokenizer
from shared.models.tokenizers import tokenize_texts
from shared.training.collators import PaddingCollator

WORDS = [f"w{number}" for number in range(60)]
RNG = np.random.default_rng(0)
TEXTS = [" ".join(RNG.choice(WORDS, size=size)) for size in RNG.permutation(range(1, 40, 3))]
LABELS = {0: "a", 1: "b", 2: "c"}


def scores(model, tokenizer, batch_size):
    """Return the logits of all texts, computed in batches."""
    collate, rows = PaddingCollator(tokenizer), tokenize_texts(tokenizer, TEXTS).to_list()
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    with torch.no_grad():
        return torch.cat([model(**collate(batch)).logits for batch in batches])


def assert_depends_on_the_text_alone(model, tokenizer):
    together = scores(model, tokenizer, len(TEXTS))
    assert together.std(0).min() > 1e-4  # the texts differ
    torch.testing.assert_close(scores(model, tokenizer, 1), together, atol=1e-5, rtol=1e-5)
    return together


@pytest.mark.parametrize("name", ACCEPTED)
def test_scores_depend_on_the_text_alone(name, tmp_path):
    head = "AutoModelForSequenceClassification"
    folder = save_tiny_model(tmp_path, name, WORDS, head, id2label=LABELS)
    tokenizer = load_tokenizer(str(folder))
    model = load_sequence_classifier(str(folder), tokenizer=tokenizer)
    expected = assert_depends_on_the_text_alone(model, tokenizer)

    # Saved for generation, with another padding token, and with outputs that nothing reads.
    change_tokenizer(folder, padding_side="left", pad_token="[MASK]")
    model.config.update({"output_hidden_states": True, "return_dict": False})
    if name in ("gpt2", "llama", "qwen3"):  # of encoders, it decides which positions texts have
        model.config.pad_token_id = None
    model.config.save_pretrained(folder)
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.padding_side == "left"
    model = load_sequence_classifier(str(folder), tokenizer=tokenizer)
    changed = assert_depends_on_the_text_alone(model, tokenizer)
    if name not in SENSITIVE:  # their texts are padded up to a multiple of 8
        torch.testing.assert_close(changed, expected, atol=1e-5, rtol=1e-5)  # no token is read


@pytest.mark.parametrize(
    "name",
    [
        *SENSITIVE,
        *("bart", "deberta", "distilbert", "gemma2", "gpt2", "ibert", "layoutlm", "longformer"),
        *("modernbert", "squeezebert", "t5", "xlnet"),
    ],
)
def test_heads_of_ours_take_any_encoder(name, tmp_path):
    folder = save_tiny_model(tmp_path / "encoder", name, WORDS)
    change_tokenizer(folder, padding_side="left")
    tokenizer = load_tokenizer(str(folder))
    encoder = load_encoder(str(folder), tokenizer=tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = PooledForSequenceClassification.from_encoder(encoder, list(LABELS.values())).eval()
        torch.nn.init.normal_(model.classifier.weight)
    expected = assert_depends_on_the_text_alone(model, tokenizer)

    # Saved and loaded, as a tagger is.
    model.save_pretrained(tmp_path / "classifier")
    loaded = load_sequence_classifier(str(tmp_path / "classifier"), tokenizer=tokenizer)
    torch.testing.assert_close(scores(loaded, tokenizer, 40), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_cannot_classify_is_named(name, tmp_path):
    folder = save_tiny_model(tmp_path, name, WORDS)
    for load in (load_encoder, lambda f, **o: load_sequence_classifier(f, ["a", "b"], **o)):
        with pytest.raises(UserError, match=f"{name} models {REFUSED[name][1]}"):
            load(str(folder), tokenizer=load_tokenizer(str(folder)))
