"""Zero-shot classification: the entailment classes of a model, and words at a mask."""

from types import SimpleNamespace

import pytest
import torch

from shared.cli.errors import UserError
from shared.methods.zero_shot import MaskedWords, entailment_classes
from shared.models.loading import load_masked_language_model, load_tokenizer


def test_scores_of_words_are_not_rounded_under_autocast(tiny_mlm):
    tokenizer = load_tokenizer(str(tiny_mlm))
    model = load_masked_language_model(str(tiny_mlm), tokenizer=tokenizer).eval()
    words = ["crash", "docs", "unheard"]  # the vocabulary has the last one in pieces only
    batch = tokenizer(["it is about [MASK] .", "a [MASK] issue"], padding=True, return_tensors="pt")
    logits = []
    model.register_forward_hook(lambda module, args, output: logits.append(output.logits))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = MaskedWords(model, tokenizer, words)(**batch)["logits"]

    at_mask = logits[0][batch["input_ids"] == tokenizer.mask_token_id].float().log_softmax(-1)
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    assert [len(pieces) for pieces in ids] == [1, 1, 7]
    expected = torch.stack([at_mask[:, pieces].mean(1) for pieces in ids], dim=1)
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["contradiction", "neutral", "entailment"], (2, 0)),
        (["ENTAILMENT", "NEUTRAL", "CONTRADICTION"], (0, 2)),
        # Without a class contradiction, the class at the other end takes its place.
        (["entailment", "not_entailment"], (0, -1)),
        (["no", "maybe", "entailed"], (2, 0)),
    ],
)
def test_classes_of_a_model_are_found_by_their_names(names, expected):
    config = SimpleNamespace(id2label=dict(enumerate(names)), num_labels=len(names))
    assert entailment_classes(config) == expected


@pytest.mark.parametrize("names", [["yes", "no"], ["entailment"]])
def test_a_model_without_entailment_is_refused(names):
    config = SimpleNamespace(id2label=dict(enumerate(names)), num_labels=len(names))
    with pytest.raises(UserError, match="with a class entailment"):
        entailment_classes(config)
