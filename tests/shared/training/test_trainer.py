import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_tiny_model
from tiny_training import (
    COLLATOR,
    SOFT,
    history,
    make_rows,
    make_trainer,
    weighted_rows,
    weights,
)
from transformers import (
    AutoModelForMaskedLM,
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
)

from shared.cli.errors import UserError
from shared.models.heads import PooledForSequenceClassification
from shared.models.loading import load_encoder, load_sequence_classifier, load_tokenizer
from shared.training.batches import LengthGroupedBatches
from shared.training.checkpoints import find_checkpoint
from shared.training.losses import MultilabelLoss
from shared.training.trainer import LengthGroupedTrainer, NotFiniteError

# --- models that cannot do everything ------------------------------------------------------------


def test_gradient_checkpointing_is_refused_by_models_that_do_not_support_it(tmp_path):
    folder = save_tiny_model(tmp_path / "model", "albert", ["crash"])
    with pytest.raises(UserError, match="--gradient_checkpointing: albert models do not support"):
        make_trainer(folder, tmp_path, gradient_checkpointing=True)
    # The same encoder below a head of ours.
    tokenizer = load_tokenizer(str(folder))
    encoder = load_encoder(str(folder), tokenizer=tokenizer)
    model = PooledForSequenceClassification.from_encoder(encoder, list("abcd"))
    args = TrainingArguments(str(tmp_path), use_cpu=True, gradient_checkpointing=True)
    with pytest.raises(UserError, match="--gradient_checkpointing: albert models do not support"):
        LengthGroupedTrainer(model=model, args=args, train_dataset=make_rows(8))


@pytest.mark.parametrize("name", ["gemma2", "fnet"])
def test_training_in_bfloat16_puts_back_the_attention_of_each_part(name, tmp_path):
    folder = str(save_tiny_model(tmp_path / "model", name, ["crash"]))
    encoder = load_encoder(folder, tokenizer=load_tokenizer(folder))
    before = encoder.config._attn_implementation
    model = PooledForSequenceClassification.from_encoder(encoder, list("abcd"))
    model.config._attn_implementation_internal = "sdpa"
    args = TrainingArguments(str(tmp_path), use_cpu=True, bf16=True)
    trainer = LengthGroupedTrainer(model=model, args=args)
    with trainer.fast_attention():
        assert encoder.config._attn_implementation == "eager"
    assert encoder.config._attn_implementation == before
    assert model.config._attn_implementation == "sdpa"


# --- training ------------------------------------------------------------------------------------


def test_a_resumed_run_equals_an_uninterrupted_one(tiny_model, tmp_path):
    flags = {"dropout": 0.1, "save_strategy": "steps", "save_steps": 4, "num_train_epochs": 2}
    flags |= {"logging_steps": 5}  # neither at the checkpoints nor at the end
    flags |= {"eval_strategy": "epoch", "eval_on_start": True}
    whole = make_trainer(tiny_model, tmp_path, **flags)
    expected = without_times(whole.train().metrics)
    for step in (4, 8, 12):  # in the first and in the second epoch, of six steps each; at the end
        checkpoint = tmp_path / f"checkpoint-{step}"
        (checkpoint / "end_of_training.json").unlink(missing_ok=True)
        resumed = make_trainer(tiny_model, tmp_path / "resumed", **flags)
        metrics = resumed.train(resume_from_checkpoint=str(checkpoint)).metrics
        assert resumed.state.global_step == 12
        np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))
        assert without_times(metrics) == expected
        logs = [map(without_times, trainer.state.log_history) for trainer in (resumed, whole)]
        assert list(logs[0]) == list(logs[1])


def test_a_training_that_ended_within_an_epoch_makes_no_more_steps(tiny_model, tmp_path):
    flags = {"save_strategy": "steps", "save_steps": 8, "max_steps": 8}  # six are an epoch
    whole = make_trainer(tiny_model, tmp_path, **flags)
    whole.train()
    (tmp_path / "checkpoint-8" / "end_of_training.json").unlink()
    resumed = make_trainer(tiny_model, tmp_path / "resumed", **flags)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert resumed.state.global_step == 8
    np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))


def without_times(figures):
    return {k: v for k, v in figures.items() if "runtime" not in k and "per_second" not in k}


def test_the_speed_of_a_resumed_training_is_that_of_all_its_steps(tiny_model, tmp_path):
    flags = {"save_strategy": "steps", "save_steps": 6, "num_train_epochs": 2}
    make_trainer(tiny_model, tmp_path, **flags).train()
    progress = tmp_path / "checkpoint-6" / "progress.json"
    sums = json.loads(progress.read_text())
    progress.write_text(json.dumps(sums | {"seconds": 1000.0}))
    resumed = make_trainer(tiny_model, tmp_path, **flags)
    metrics = resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6")).metrics
    assert metrics["train_runtime"] > 1000
    assert metrics["train_steps_per_second"] == pytest.approx(0.012, abs=1e-3)


@pytest.mark.parametrize("save_total_limit", [1, 9])
def test_a_complete_training_is_not_repeated(save_total_limit, tiny_model, tmp_path):
    def trainer():
        flags = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 9}
        flags |= {"load_best_model_at_end": True, "learning_rate": 0.1}
        stop = EarlyStoppingCallback(early_stopping_patience=2)
        flags |= {"save_total_limit": save_total_limit}
        flags |= {"restore_callback_states_from_checkpoint": True}
        return make_trainer(tiny_model, tmp_path, callbacks=[stop], **flags)

    first, second = trainer(), trainer()
    expected = first.train()
    assert first.state.best_global_step < expected.global_step < 9 * 6
    checkpoint = find_checkpoint(tmp_path, "true")
    assert second.train(resume_from_checkpoint=checkpoint) == expected
    assert second.state.log_history == first.state.log_history
    np.testing.assert_array_equal(weights(second.model), weights(first.model))

    # Without the record, for example after a kill, the last epochs are trained again, but no more.
    (Path(checkpoint) / "end_of_training.json").unlink()
    again = trainer().train(resume_from_checkpoint=checkpoint).metrics
    assert again != expected.metrics
    assert without_times(again) == without_times(expected.metrics)


@pytest.mark.parametrize("sampling", ["group_by_length", "random"])
def test_the_weights_of_rows_are_no_unused_column(sampling, tiny_model, tmp_path):
    options = {"rows": weighted_rows(), "collator": SOFT, "train_sampling_strategy": sampling}
    losses = []
    for remove in (False, True):
        trainer = make_trainer(
            tiny_model, tmp_path, remove_unused_columns=remove, num_train_epochs=1, **options
        )
        trainer.train()
        losses.append(history(trainer, "loss"))
    assert losses[0] == losses[1]
    rows = weighted_rows().remove_columns("weight")
    options |= {"rows": rows, "remove_unused_columns": True, "num_train_epochs": 1}
    unweighted = make_trainer(tiny_model, tmp_path, **options)
    unweighted.train()
    assert history(unweighted, "loss") != losses[0]


def test_a_schedule_may_be_longer_than_the_training(tiny_model, tmp_path):
    rates = []
    for steps, schedule in ((8, None), (4, 8)):
        trainer = make_trainer(tiny_model, tmp_path, max_steps=steps)
        trainer.schedule_steps = schedule
        trainer.train()
        log = trainer.state.log_history
        rates.append([entry["learning_rate"] for entry in log if "loss" in entry])
    assert rates[1] == rates[0][:4]


@pytest.mark.parametrize("factor", [0, 0.25])
def test_the_learning_rate_of_a_warm_up_may_be_constant(factor, tiny_model, tmp_path):
    class Rates(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            self.seen = []

        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            self.seen.append(optimizer.param_groups[0]["lr"])

    rates = []
    for warmup_factor in (None, factor):
        callback = Rates()
        flags = {"max_steps": 8, "warmup_steps": 3, "callbacks": [callback]}
        trainer = make_trainer(tiny_model, tmp_path, **flags)
        trainer.args.warmup_factor = warmup_factor
        trainer.train()
        rates.append(callback.seen)
    assert rates[1][:3] == [pytest.approx(1e-3 * factor)] * 3
    assert rates[1][3:] == rates[0][3:]


def test_a_schedule_without_a_warm_up_is_refused(tiny_model, tmp_path):
    flags = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"}
    trainer = make_trainer(tiny_model, tmp_path, **flags)
    trainer.args.warmup_factor = 0.5
    with pytest.raises(UserError, match="--warmup_factor: this --lr_scheduler_type has no"):
        trainer.train()


def test_all_pieces_of_a_step_hold_texts_of_similar_length(tiny_model, tmp_path):
    rows = make_rows()
    trainer = make_trainer(
        tiny_model,
        tmp_path,
        rows=rows,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=3,
        seed=5,
    )

    def rows_of_pieces():
        return list(trainer.get_train_dataloader().batch_sampler)

    def batches(seed):
        return list(LengthGroupedBatches(rows["length"], 12, seed, lambda: 0, pieces=3))

    assert rows_of_pieces() == batches(seed=5)
    trainer.args.data_seed = 6
    assert rows_of_pieces() == batches(seed=6)
    trainer.args.train_sampling_strategy = "sequential"
    assert rows_of_pieces() == np.arange(48).reshape(-1, 4).tolist()


class BrokenLoss(MultilabelLoss):
    """Return infinity or NaN at one step."""

    def __init__(self, step, value):
        super().__init__()
        self.step, self.value, self.calls = step, value, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        loss = super().__call__(*args, **kwargs)
        return loss * self.value if self.calls == self.step else loss


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights_change(
    tiny_model, tmp_path, value
):
    class AfterStep(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            self.weights = weights(model)

    last = AfterStep()
    trainer = make_trainer(
        tiny_model,
        tmp_path,
        loss=BrokenLoss(4, value),
        callbacks=[last],
        save_strategy="steps",
        save_steps=2,
    )
    with pytest.raises(UserError) as error:
        trainer.train()
    assert str(error.value) == (
        "the loss is not finite at step 4; lower --learning_rate or check the data; the last good "
        f"checkpoint is {tmp_path / 'checkpoint-2'}"
    )
    assert trainer.state.global_step == 3
    np.testing.assert_array_equal(weights(trainer.model), last.weights)


def test_the_message_says_if_there_is_no_checkpoint(tiny_model, tmp_path):
    trainer = make_trainer(tiny_model, tmp_path, loss=BrokenLoss(1, float("nan")))
    before = weights(trainer.model)
    with pytest.raises(UserError, match=r"at step 1; .*; no checkpoint was saved yet"):
        trainer.train()
    np.testing.assert_array_equal(weights(trainer.model), before)


class BrokenGradient(torch.autograd.Function):
    """Return the input unchanged, with a gradient of NaN."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights_change(
    tiny_model, tmp_path
):
    class Loss(MultilabelLoss):
        def __call__(self, *args, **kwargs):
            return BrokenGradient.apply(super().__call__(*args, **kwargs))

    trainer = make_trainer(tiny_model, tmp_path, loss=Loss())
    before = weights(trainer.model)
    with pytest.raises(NotFiniteError, match="the gradient is not finite at step 1; ") as error:
        trainer.train()
    assert error.value.problem == "the gradient is not finite at step 1"
    np.testing.assert_array_equal(weights(trainer.model), before)


# --- evaluation and prediction -------------------------------------------------------------------


def plain_forward(model, rows):
    """Return the logits of each row, computed alone and without padding."""
    model.eval()
    with torch.no_grad():
        return [model(torch.tensor(ids)[None]).logits[0].tolist() for ids in rows["input_ids"]]


@pytest.mark.parametrize("trained", [True, False])
def test_predictions_are_in_order_and_in_full_precision_after_bf16_training(
    tiny_model, tmp_path, trained
):
    rows = make_rows(30, seed=2)
    trainer = make_trainer(
        tiny_model, tmp_path, bf16=True, max_steps=2, per_device_eval_batch_size=4
    )
    if trained:
        trainer.train()
    trainer.save_model(tmp_path / "saved")
    expected = plain_forward(load_sequence_classifier(str(tmp_path / "saved")), rows)
    for _ in range(2):
        output = trainer.predict(rows, metric_key_prefix="other")
        np.testing.assert_allclose(output.predictions, expected, atol=1e-5)
    np.testing.assert_array_equal(output.label_ids, COLLATOR([*rows])["labels"])
    assert "other_loss" in output.metrics


def test_all_rows_are_predicted_after_a_training_in_random_order(tiny_model, tmp_path):
    """The last batch of the training had three rows."""
    flags = {"train_sampling_strategy": "random", "num_train_epochs": 1}
    trainer = make_trainer(tiny_model, tmp_path, rows=make_rows(43), **flags)
    trainer.train()
    assert len(trainer.predict(make_rows(20, seed=1)).predictions) == 20


def test_rows_without_labels_can_be_predicted(tiny_model, tmp_path):
    rows = make_rows(10, seed=2)
    trainer = make_trainer(tiny_model, tmp_path)
    output = trainer.predict(rows.remove_columns("labels"))
    assert output.label_ids is None
    np.testing.assert_array_equal(output.predictions, trainer.predict(rows).predictions)


def test_evaluation_pairs_predictions_and_labels(tiny_model, tmp_path):
    arrays = {}

    def compute_metrics(prediction):
        arrays["labels"], arrays["logits"] = prediction.label_ids, prediction.predictions
        return {"x": 1.0}

    trainer = make_trainer(tiny_model, tmp_path, per_device_eval_batch_size=4)
    trainer.compute_metrics = compute_metrics
    rows = trainer.eval_dataset
    assert trainer.evaluate()["eval_x"] == 1.0
    longest_first = np.argsort(-np.array(rows["length"]), kind="stable")
    expected = np.array(plain_forward(trainer.model, rows))
    np.testing.assert_allclose(arrays["logits"], expected[longest_first], atol=1e-5)
    np.testing.assert_array_equal(arrays["labels"], COLLATOR([*rows])["labels"][longest_first])
    other = make_rows(7, seed=3)
    trainer.evaluate(other)
    assert len(arrays["labels"]) == 7


@pytest.mark.parametrize(("bf16", "expected"), [(True, "eager"), (False, "sdpa")])
def test_bf16_training_on_a_cpu_does_not_use_the_fused_attention(
    bf16, expected, tiny_model, tmp_path
):
    kernels = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            kernels.append(model.config._attn_implementation)

    trainer = make_trainer(tiny_model, tmp_path, bf16=bf16, max_steps=2, callbacks=[Watch()])
    trainer.train()
    assert kernels == [expected] * 2
    assert trainer.model.config._attn_implementation == "sdpa"


def test_predictions_in_bfloat16_are_close_to_those_in_single_precision(tiny_model, tmp_path):
    logits = []
    for fast in (False, True):
        trainer = make_trainer(tiny_model, tmp_path)
        trainer.bf16_predictions = fast
        logits.append(trainer.predict(make_rows(20)).predictions)
    assert logits[0].dtype == logits[1].dtype == np.float32
    assert 0 < np.abs(logits[1] - logits[0]).max() < 0.05


def test_label_smoothing_is_applied_by_the_loss_or_refused(tiny_model, tmp_path):
    losses = {}
    for smoothing in (0.0, 0.5):
        loss = MultilabelLoss(label_smoothing=smoothing)
        options = {"loss": loss, "label_smoothing_factor": smoothing, "max_steps": 2}
        trainer = make_trainer(tiny_model, tmp_path, **options)
        trainer.train()
        (losses[smoothing],) = history(trainer, "loss")
    assert losses[0.0] != losses[0.5]
    with pytest.raises(UserError, match="--label_smoothing_factor: the loss of this recipe cannot"):
        make_trainer(tiny_model, tmp_path, label_smoothing_factor=0.1)


def test_weights_that_layers_share_are_not_reported_as_missing(tiny_mlm, tmp_path, monkeypatch):
    warnings = []
    monkeypatch.setattr("transformers.trainer.logger.warning", warnings.append)
    model = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
    args = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    trainer = LengthGroupedTrainer(model=model, args=args)
    trainer.save_model(tmp_path / "checkpoint-1")
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    assert warnings == []
    weights = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    del weights["cls.predictions.transform.dense.bias"]
    save_file(weights, tmp_path / "checkpoint-1" / "model.safetensors", {"format": "pt"})
    trainer._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    assert "['cls.predictions.transform.dense.bias']" in warnings[0]
