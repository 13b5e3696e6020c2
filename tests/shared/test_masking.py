import pytest
import torch
from transformers import AutoModelForMaskedLM

from shared.collators import IGNORED
from shared.losses import hidden_token_loss
from shared.masking import MaskedWords, score_hidden_tokens_only
from shared.models import load_masked_language_model, load_tokenizer


def test_the_loss_over_hidden_tokens_alone_is_the_loss(tiny_mlm):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 150, (4, 20), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.2, ids, IGNORED)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    whole = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
    expected = whole(**batch, labels=labels).loss
    sparse = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
    score_hidden_tokens_only(sparse)
    scored = []
    sparse.get_output_embeddings().register_forward_hook(lambda *args: scored.append(args[-1]))
    output = sparse(**batch, targets=labels)
    loss = hidden_token_loss(output, labels)

    hidden = labels != IGNORED
    assert scored[0].shape[:-1] == (hidden.sum(),)
    assert output.logits.shape == labels.shape
    assert (output.logits[~hidden] == 0).all()
    assert (output.logits[hidden] < 0).all()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for piece in (expected, loss):
        piece.backward()
    gradients = (model.get_input_embeddings().weight.grad for model in (sparse, whole))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_scores_of_words_are_not_rounded_under_autocast(tiny_mlm):
    tokenizer = load_tokenizer(str(tiny_mlm))
    model = load_masked_language_model(str(tiny_mlm), tokenizer=tokenizer).eval()
    words = ["crash", "docs", "unheard"]  # the last one in pieces
    batch = tokenizer(["it is about [MASK] .", "a [MASK] issue"], padding=True, return_tensors="pt")
    logits = []
    model.register_forward_hook(lambda module, args, output: logits.append(output.logits))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = MaskedWords(model, tokenizer, words)(**batch)["logits"]

    at_mask = logits[0][batch["input_ids"] == tokenizer.mask_token_id].float().log_softmax(-1)
    ids = [tokenizer.encode(word, add_special_tokens=False) for word in words]
    assert [len(pieces) for pieces in ids] == [1, 1, 7]
    expected = torch.stack([at_mask[:, pieces].mean(1) for pieces in ids], dim=1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
