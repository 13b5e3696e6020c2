import torch

from shared.methods.zero_shot import MaskedWords
from shared.models.loading import load_masked_language_model, load_tokenizer


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
