"""Rows, batches and Trainer of models that read a text and write another one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Seq2SeqTrainingArguments, set_seed

from shared.models.lossless_tokenizers import train_pair_tokenizer
from shared.models.text_generators import TransformerForSeq2SeqLM, shift_right
from shared.models.transformer import TransformerConfig
from shared.training.losses import SequenceLoss, token_losses
from shared.training.sequences import (
    SequenceCollator,
    SequenceTrainer,
    decode_texts,
    losses_of_tokens,
    tokenize_pairs,
)

SOURCES = ["a cat", "the dog ran home <|endoftext|>", "a", "the cat sat on the mat"] * 3
TARGETS = ["eine Katze", "der Hund", "ein", "die Katze"] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_pair_tokenizer(SOURCES + TARGETS, 300)


@pytest.fixture
def rows(tokenizer):
    lengths = {"max_source_length": 10, "max_target_length": 8}
    return tokenize_pairs(SOURCES, TARGETS, tokenizer, **lengths)


@pytest.fixture
def trainer(tokenizer, rows, tmp_path):
    def make(**flags):
        set_seed(0)
        config = TransformerConfig(
            vocab_size=len(tokenizer),
            **{"hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16, "dropout": 0.0},
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.bos_token_id,
            initializer_range=0.3,
        )
        model = TransformerForSeq2SeqLM(config)
        flags = {"per_device_eval_batch_size": 5, "max_steps": 1, "logging_steps": 1} | flags
        flags |= {"use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
        return SequenceTrainer(
            model=model,
            args=Seq2SeqTrainingArguments(
                output_dir=str(tmp_path), remove_unused_columns=False, report_to="none", **flags
            ),
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=tokenizer,
            data_collator=SequenceCollator(tokenizer, model.prepare_decoder_input_ids_from_labels),
            compute_loss_func=SequenceLoss(flags.get("label_smoothing_factor", 0.0)),
            preprocess_logits_for_metrics=losses_of_tokens,
            compute_metrics=lambda output: {"rows": len(output[0])},
        )

    return make


def test_rows_end_with_the_end_token_and_are_truncated(rows, tokenizer):
    ends = {row[-1] for name in ("input_ids", "labels") for row in rows[name]}
    assert ends == {tokenizer.eos_token_id}
    assert max(map(len, rows["input_ids"])) == 10
    assert max(map(len, rows["labels"])) <= 8
    assert rows["length"][0] == len(rows["input_ids"][0]) + len(rows["labels"][0])
    # The name of the end token in a text is text.
    assert rows["input_ids"][1].count(tokenizer.eos_token_id) == 1


def test_a_target_does_not_begin_with_what_the_decoder_starts_with(tiny_model):
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lengths = {"max_source_length": 10, "max_target_length": 8}
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    plain = tokenize_pairs(["a b"], ["c d"], tokenizer, **lengths)
    rows = tokenize_pairs(["a b"], ["c d"], tokenizer, **lengths, start_token_id=start)
    assert plain["labels"][0] == [start, *rows["labels"][0]]
    assert rows["labels"][0][-1] == end
    assert rows["input_ids"] == plain["input_ids"]
    assert rows["length"][0] == plain["length"][0] - 1


def test_a_batch_has_padded_labels_and_the_labels_before_each():
    padding = SimpleNamespace(pad_token_id=0, padding_side="right")
    collate = SequenceCollator(padding, lambda labels: shift_right(labels, 9, 0))
    features = [{"input_ids": [5, 6, 7], "labels": [3, 4, 1]}, {"input_ids": [5], "labels": [1]}]
    batch = collate(features)
    assert batch["input_ids"][:, :4].tolist() == [[5, 6, 7, 0], [5, 0, 0, 0]]
    assert batch["labels"].tolist() == [[3, 4, 1], [1, -100, -100]]
    assert batch["decoder_input_ids"].tolist() == [[9, 3, 4], [9, 1, 0]]
    assert "decoder_input_ids" not in collate([{"input_ids": [5]}])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_torch_for_any_split(smoothing):
    generator = torch.manual_seed(0)
    logits = torch.randn(4, 5, 7, generator=generator)
    labels = torch.randint(0, 7, (4, 5), generator=generator)
    labels[0, 3:] = labels[2, 1:] = -100
    loss = SequenceLoss(smoothing)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), label_smoothing=smoothing
    )
    torch.testing.assert_close(loss({"logits": logits}, labels), expected)
    n = int((labels != -100).sum())
    parts = sum(loss({"logits": logits[i::2]}, labels[i::2], n) for i in range(2))
    torch.testing.assert_close(parts, expected)
    # An evaluation hands the losses of tokens, without smoothing.
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    losses = token_losses(logits, labels)
    torch.testing.assert_close(loss({"logits": losses}, labels), plain)


@pytest.mark.parametrize("generates", [False, True])
def test_an_evaluation_is_that_of_the_model(trainer, rows, tokenizer, generates):
    trainer = trainer(predict_with_generate=generates, label_smoothing_factor=0.1)
    trainer._gen_kwargs = {}
    metrics = trainer.evaluate(max_new_tokens=3)
    assert metrics["eval_rows"] == len(rows)
    if not generates:  # then the Trainer takes the mean over batches
        batch = trainer.data_collator([rows[i] for i in range(len(rows))])
        with torch.no_grad():
            loss = trainer.model.eval()(**batch).loss
        assert metrics["eval_loss"] == pytest.approx(float(loss), rel=1e-5)


def test_texts_are_written_in_the_order_of_the_rows(trainer, rows, tokenizer):
    trainer = trainer()
    written = trainer.generate(rows, max_new_tokens=5, num_beams=2)
    assert trainer.args.predict_with_generate is False
    texts = decode_texts(tokenizer, written)
    for row, text in zip(rows, texts, strict=True):
        ids = torch.tensor([row["input_ids"]])
        alone = trainer.model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, num_beams=2
        )
        assert text == tokenizer.decode(alone[0], skip_special_tokens=True).strip()
    assert len(set(texts)) > 1


def test_a_step_has_the_same_gradient_however_it_is_cut(trainer):
    norms = []
    for size, pieces in ((12, 1), (3, 4)):
        run = trainer(
            per_device_train_batch_size=size,
            gradient_accumulation_steps=pieces,
            label_smoothing_factor=0.1,
        )
        run.train()
        norms.append([entry["grad_norm"] for entry in run.state.log_history if "loss" in entry])
        norms[-1] += [entry["loss"] for entry in run.state.log_history if "loss" in entry]
    assert np.allclose(*norms, rtol=1e-4)
