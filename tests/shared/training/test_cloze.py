"""Cloze training: scores and losses against their formulas, batches, and the Trainer."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForMaskedLM, AutoTokenizer, TrainingArguments

from shared.training import (
    ClozeCollator,
    ClozeTrainer,
    DecoupledLabelLoss,
    LabelWords,
    SingleLabelLoss,
    score_masked_tokens_only,
    with_soft_labels,
)
from shared.training.cloze import against_all_words, conditioned_token_loss
from shared.training.collators import IGNORE_INDEX

WORDS = LabelWords([[7], [9], [4, 11]])


@pytest.fixture
def scores():
    """Scores of 20 words in 6 rows."""
    return 3 * torch.randn(6, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_label_scores_give_the_softmax_over_the_words_of_the_labels(scores):
    labels = torch.stack([scores[:, 7], scores[:, 9], scores[:, [4, 11]].mean(1)], dim=1)
    torch.testing.assert_close(WORDS(scores).softmax(1), labels.softmax(1))


def test_a_label_alone_competes_with_the_words_of_no_label(scores):
    others = scores[:, [i for i in range(20) if i not in (4, 7, 9, 11)]]
    expected = torch.cat([scores[:, [9]], others], dim=1).softmax(1)[:, 0]
    torch.testing.assert_close(WORDS(scores)[:, 1].sigmoid(), expected)


def test_the_decoupled_loss_is_that_of_the_probabilities_among_all_words(scores):
    words = LabelWords([[7], [9], [4]])
    q = scores.softmax(1)[:, [7, 9, 4]]
    torch.testing.assert_close(against_all_words(words(scores)).sigmoid(), q)
    labels = torch.eye(3)[[0, 1, 2, 2, 1, 0]]
    expected = -torch.where(labels > 0, q.log(), (1 - q).log())
    loss = DecoupledLabelLoss()
    outputs = {"logits": words(scores)}
    assert loss(outputs, labels).item() == pytest.approx(expected.mean().item(), rel=1e-5)
    pieces = zip(words(scores).split(4), labels.split(4), strict=True)
    parts = sum(loss({"logits": z}, y, labels.numel()) for z, y in pieces)
    assert parts.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_tokens_are_pulled_up_beside_a_right_label_and_down_beside_a_wrong_one():
    p = torch.tensor([[0.2, 0.5, 1.0], [0.3, 1.0, 1.0]])
    targets = torch.tensor([[3, 4, IGNORE_INDEX], [5, IGNORE_INDEX, 6]])
    is_right = torch.tensor([True, False])
    loss = conditioned_token_loss(p.log(), targets, is_right)
    # 1 - p is at least 1e-6, so that the loss of a sure token stays finite.
    expected = -(np.log(0.2) + np.log(0.5) + np.log(0.7) + np.log(1e-6)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    assert conditioned_token_loss(p.log(), targets, is_right, 8).item() == pytest.approx(
        expected / 2, rel=1e-4
    )


def test_the_head_at_a_place_scores_as_the_whole_model(tiny_mlm):
    ids = torch.randint(5, 150, (4, 20), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    place = torch.tensor([3, 0, 19, 7])
    whole = AutoModelForMaskedLM.from_pretrained(tiny_mlm)(**batch).logits
    model = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
    score_masked_tokens_only(model, WORDS)
    torch.testing.assert_close(model(**batch, place=place).logits, WORDS(whole[range(4), place]))
    targets = torch.full_like(ids, IGNORE_INDEX)
    targets[1, 2] = 8
    expected = whole[1, 2].log_softmax(0)[8]  # the same model still scores masked tokens
    torch.testing.assert_close(model(**batch, targets=targets).logits[1, 2], expected)


# --- batches -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def features(tokenizer, n=6, **more):
    """Rows of 5 to 10 tokens with a mask at place 2, one of three labels each, and numbers."""
    rows = []
    for number in range(n):
        words = [20 + number, 30, tokenizer.mask_token_id, *range(40, 42 + number)]
        labels = np.eye(3)[number % 3].tolist()
        rows.append({"input_ids": words, "labels": labels, "place": 2, "sample": number} | more)
    return rows


def test_places_move_with_padding_on_the_left(tokenizer, tiny_model):
    left = AutoTokenizer.from_pretrained(tiny_model, padding_side="left")
    for side in (tokenizer, left):
        batch = ClozeCollator(side)(features(side))
        at_place = batch["input_ids"][range(6), batch["place"]]
        assert (at_place == side.mask_token_id).all()
        assert "masked" not in batch


@settings(max_examples=20)
@given(st.integers(0, 2**31), st.integers(0, 50))
def test_a_filled_in_label_is_right_or_wrong_as_it_says(tokenizer, seed, epoch):
    rows = features(tokenizer)
    options = {"seed": seed, "epoch": lambda: epoch, "label_words": WORDS}
    batch = ClozeCollator(tokenizer, **options)(rows)
    masked = batch["masked"]
    word = masked["input_ids"][range(6), batch["place"]].tolist()
    for number, row in enumerate(rows):
        label = int(np.argmax(row["labels"]))
        assert (word[number] in WORDS.word_ids[label]) == masked["is_right"][number]
        assert word[number] in (4, 7, 9, 11)
    assert (masked["targets"][range(6), batch["place"]] == IGNORE_INDEX).all()
    assert (masked["targets"] != IGNORE_INDEX).any(dim=1).all()
    assert (batch["input_ids"][range(6), batch["place"]] == tokenizer.mask_token_id).all()
    # What is drawn for a row does not depend on the other rows.
    alone = ClozeCollator(tokenizer, **options)(rows[3:4])["masked"]
    assert alone["is_right"][0] == masked["is_right"][3]
    length = len(rows[3]["input_ids"])
    assert alone["input_ids"][0, :length].tolist() == masked["input_ids"][3, :length].tolist()


def test_a_text_with_all_labels_or_none_has_one_kind_of_label_to_fill_in(tokenizer):
    for labels, expected in ([1, 1, 1], True), ([0, 0, 0], False):
        batch = ClozeCollator(tokenizer, label_words=WORDS)(features(tokenizer, labels=labels))
        assert (batch["masked"]["is_right"] == expected).all()


def test_each_training_row_brings_a_masked_text_along_and_a_predicted_row_none(tokenizer):
    texts = Dataset.from_dict({"input_ids": [[60 + i, 61, 62, 63] for i in range(5)]})
    epoch = 0
    collator = ClozeCollator(tokenizer, epoch=lambda: epoch, texts=texts)
    rows = features(tokenizer)
    first = collator(rows)["masked"]
    assert first["input_ids"].shape[0] == 6
    assert ((first["targets"] != IGNORE_INDEX).sum(1) >= 1).all()
    assert torch.equal(collator(rows)["masked"]["input_ids"], first["input_ids"])
    epoch = 1
    assert not torch.equal(collator(rows)["masked"]["input_ids"], first["input_ids"])
    assert "masked" not in collator([{k: v for k, v in r.items() if k != "sample"} for r in rows])


# --- the Trainer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["pet", "adapet"])
def test_accumulated_batches_make_the_step_of_one_batch(loss, tiny_mlm, tokenizer, tmp_path):
    rows = features(tokenizer)
    plain = Dataset.from_list([{k: r[k] for k in ("input_ids",)} for r in rows])
    plain = plain.add_column("length", [len(r["input_ids"]) for r in rows])
    train = with_soft_labels(plain, np.array([r["labels"] for r in rows]))
    train = train.add_column("place", [2] * 6).add_column("sample", range(6))
    weights = []
    for size, pieces in ((6, 1), (2, 3)):
        model = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
        score_masked_tokens_only(model, WORDS)
        args = TrainingArguments(
            str(tmp_path / f"{loss}{size}"),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=pieces,
            max_steps=1,
            optim="sgd",
            max_grad_norm=0,
            learning_rate=1.0,
            save_strategy="no",
            use_cpu=True,
            train_sampling_strategy="group_by_length",
            disable_tqdm=True,
        )
        trainer = ClozeTrainer(
            model=model,
            args=args,
            train_dataset=train,
            data_collator=ClozeCollator(
                tokenizer,
                texts=plain if loss == "pet" else None,
                label_words=WORDS if loss == "adapet" else None,
            ),
            compute_loss_func=SingleLabelLoss() if loss == "pet" else DecoupledLabelLoss(),
            masked_weight=0.5,
        )
        trainer.train()
        weights.append(model.get_input_embeddings().weight.detach())
        assert trainer.predict(train.remove_columns("sample")).predictions.shape == (6, 3)
    before = AutoModelForMaskedLM.from_pretrained(tiny_mlm).get_input_embeddings().weight
    assert (weights[0] - before).abs().max() > 1e-3
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
