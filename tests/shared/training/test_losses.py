import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forks import run_script
from tiny_training import SOFT, history, make_rows, make_trainer, weighted_rows
from transformers import AutoModelForMaskedLM

from shared.cli.errors import UserError
from shared.models.loading import load_sequence_classifier
from shared.training.collators import IGNORE_INDEX
from shared.training.losses import (
    MultilabelLoss,
    RegressionLoss,
    SingleLabelLoss,
    balanced_class_weight,
    balanced_pos_weight,
    classification_loss,
    masked_token_loss,
    score_masked_tokens_only,
    span_loss,
)

ROOT = Path(__file__).parents[3]
POS_WEIGHT = [1.0, 2.0, 3.0, 4.0]
TOLERANCE = 1e-5


# --- the formula ---------------------------------------------------------------------------------


def outputs(logits):
    return {"logits": torch.as_tensor(logits)}


@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
def test_multilabel_loss_is_binary_cross_entropy_over_rows_and_labels(pos_weight):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4))
    labels = (rng.random((6, 4)) < 0.4).astype(np.float32)
    p = 1 / (1 + np.exp(-logits))
    weight = np.ones(4) if pos_weight is None else np.array(pos_weight)
    pairs = -weight * labels * np.log(p) - (1 - labels) * np.log1p(-p)
    loss = MultilabelLoss(None if pos_weight is None else torch.tensor(pos_weight))
    assert loss(outputs(logits), torch.tensor(labels)).item() == pytest.approx(pairs.mean())
    assert loss(outputs(logits), torch.tensor(labels), 48).item() == pytest.approx(pairs.sum() / 48)


def test_two_passes_are_averaged_and_r_drop_adds_their_divergence():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 4))
    labels = torch.tensor(rng.random((6, 4)) < 0.4).float()
    first, second = (MultilabelLoss()(outputs(z), labels).item() for z in logits)
    p, q = 1 / (1 + np.exp(-logits))
    one_way, other_way = (
        a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b)) for a, b in ((p, q), (q, p))
    )
    cross_entropy, divergence = first + second, (one_way + other_way).mean() / 2
    for weight in (0, 1, 3):
        loss = MultilabelLoss(r_drop=weight)
        value = loss(outputs(logits.reshape(12, 4)), labels).item()
        assert value == pytest.approx((cross_entropy + weight * divergence) / 2)
        assert loss(outputs(logits[0]), labels).item() == pytest.approx(
            first
        )  # as in an evaluation


@pytest.mark.parametrize(
    ("focus", "margin", "smoothing"),
    [((2, 2), 0, 0), ((0, 4), 0.05, 0), ((1, 0.5), 0.2, 0.1), ((0, 0), 0, 0.2), ((0, 0), 0.1, 0)],
)
def test_focus_margin_and_smoothing(focus, margin, smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4), scale=2)
    labels = (rng.random((6, 4)) < 0.4).astype(np.float32)
    t = labels * (1 - smoothing) + smoothing / 2
    p = 1 / (1 + np.exp(-logits))
    shifted = np.maximum(p - margin, 0)
    positive = -np.array(POS_WEIGHT) * np.log(p) * (1 - p) ** focus[0]
    negative = -np.log1p(-shifted) * shifted ** focus[1]
    expected = (t * positive + (1 - t) * negative).mean()
    loss = MultilabelLoss(
        torch.tensor(POS_WEIGHT), focus=focus, margin=margin, label_smoothing=smoothing
    )
    assert loss(outputs(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("focus", [(0.5, 0.5), (0, 4)])
def test_focus_has_finite_gradients_where_a_score_is_certain(focus):
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    for labels in ([[1.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]]):
        MultilabelLoss(focus=focus, margin=0.05)(outputs(logits), torch.tensor(labels)).backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(("weight", "focus", "smoothing"), [(None, 0, 0), (POS_WEIGHT, 2, 0.1)])
def test_single_label_loss_is_cross_entropy_over_classes(weight, focus, smoothing):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 4))
    labels = np.eye(4)[rng.integers(4, size=6)]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    t = labels * (1 - smoothing) + smoothing / 4
    rows = (-t * np.log(p) * (1 - p) ** focus * (1 if weight is None else weight)).sum(1)
    loss = SingleLabelLoss(weight and torch.tensor(weight), focus=focus, label_smoothing=smoothing)
    labels = torch.tensor(labels)
    assert loss(outputs(logits), labels).item() == pytest.approx(rows.mean(), rel=1e-5)
    twice = outputs(np.concatenate([logits, logits]))
    assert loss(twice, labels).item() == pytest.approx(rows.mean(), rel=1e-5)
    # The Trainer counts the elements of the labels: 48 for 12 rows, twice as many as here.
    assert loss(outputs(logits), labels, 48).item() == pytest.approx(rows.sum() / 12, rel=1e-5)


@pytest.mark.parametrize("loss_class", [MultilabelLoss, SingleLabelLoss])
@pytest.mark.parametrize("options", [{}, {"r_drop": 2.0}])
def test_weights_multiply_the_loss_of_each_row(loss_class, options):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 3, 4)), torch.tensor(rng.dirichlet(np.ones(4), 3))
    weight = torch.tensor([0.5, 0.0, 2.5])
    loss = loss_class(**options)
    of_rows = [
        loss(outputs(logits[:, [row]].reshape(2, 4)), labels[[row]]).item() for row in range(3)
    ]
    actual = loss(outputs(logits.reshape(6, 4)), labels, weight=weight).item()
    assert actual == pytest.approx(np.mean(of_rows * weight.numpy()))
    assert loss(outputs(logits.reshape(6, 4)), labels).item() == pytest.approx(np.mean(of_rows))


def test_r_drop_of_classes_adds_the_divergence_of_two_passes():
    logits = np.random.default_rng(0).normal(size=(2, 6, 4))
    labels = torch.eye(4)[[0, 1, 2, 3, 0, 1]]
    first, second = (SingleLabelLoss()(outputs(z), labels).item() for z in logits)
    p, q = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    divergence = ((p - q) * np.log(p / q)).sum(1).mean() / 2
    loss = SingleLabelLoss(r_drop=3)
    value = loss(outputs(logits.reshape(12, 4)), labels).item()
    assert value == pytest.approx((first + second + 3 * divergence) / 2, rel=1e-5)
    assert loss(outputs(logits[0]), labels).item() == pytest.approx(first)  # as in an evaluation


def test_regression_loss_is_squared_error():
    values, labels = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert RegressionLoss()(outputs(values), labels).item() == pytest.approx(2.5)
    assert RegressionLoss()(outputs(values), labels, 10).item() == pytest.approx(0.5)
    # Of several dimensions, and two passes.
    twice, deep = torch.cat([values, values])[..., None], labels[..., None]
    assert RegressionLoss()(outputs(twice), deep).item() == pytest.approx(2.5)


def test_the_loss_of_half_precision_logits_is_computed_in_single_precision():
    logits = torch.full((2, 4), 20.0)
    labels = torch.ones(2, 4, dtype=torch.int64)
    full, half = (
        MultilabelLoss()(outputs(logits.to(dtype)), labels)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    assert half == full
    assert 0 < half < 1e-8


def test_span_loss_is_the_mean_cross_entropy_of_start_and_end_over_the_choices():
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 9, 2, generator=rng)
    # Start, end, first and after the last token of the context, and a number; the second row has no
    # answer.
    labels = torch.tensor([[4, 5, 3, 7, 70], [0, 0, 2, 5, 71]])
    first = logits[0, [0, 3, 4, 5, 6]].log_softmax(0)
    second = logits[1, [0, 2, 3, 4]].log_softmax(0)
    expected = -(first[2, 0] + first[3, 1] + second[0].sum()) / 4
    loss = span_loss({"logits": logits}, labels)
    torch.testing.assert_close(loss, expected)

    padded = torch.cat([logits, torch.full((2, 3, 2), 9.0)], dim=1)
    torch.testing.assert_close(span_loss({"logits": padded}, labels), expected)
    halves = [
        span_loss({"logits": logits[i : i + 1]}, labels[i : i + 1], labels.numel()) for i in (0, 1)
    ]
    torch.testing.assert_close(sum(halves), expected)
    # Cut before the answer of the first row: none is left.
    short = span_loss({"logits": logits[:1, :5]}, labels[:1])
    torch.testing.assert_close(short, -logits[0, [0, 3, 4]].log_softmax(0)[0].mean())


def test_masked_tokens_have_the_same_weight_for_every_split_of_a_batch():
    rng = np.random.default_rng(0)
    log_p = torch.tensor(-rng.random((6, 9)))
    labels = torch.where(
        torch.tensor(rng.random((6, 9)) < np.linspace(0.1, 0.9, 9)), 7, IGNORE_INDEX
    )
    # The Trainer pads gathered predictions with this value.
    log_p[labels == IGNORE_INDEX] = IGNORE_INDEX
    n_masked = (labels != IGNORE_INDEX).sum()
    expected = -log_p[labels != IGNORE_INDEX].mean()
    assert masked_token_loss(outputs(log_p), labels).item() == pytest.approx(expected.item())
    for size in (1, 3, 5):
        pieces = zip(log_p.split(size), labels.split(size), strict=True)
        total = sum(masked_token_loss(outputs(z), y, n_masked) for z, y in pieces)
        assert total.item() == pytest.approx(expected.item())


def test_balanced_pos_weight():
    weight = balanced_pos_weight([50, 20, 4, 1, 0, 90], 100)
    # sqrt((n - k) / k), but at least 1 and at most the cap; 0 positives count as 1.
    expected = [1, 2, np.sqrt(24), np.sqrt(99), np.sqrt(99), 1]
    assert weight.dtype == torch.float32
    np.testing.assert_allclose(weight, expected, rtol=1e-6)
    np.testing.assert_allclose(balanced_pos_weight([20, 4], 100, power=1), [4, 20], rtol=1e-6)
    np.testing.assert_allclose(balanced_pos_weight([20, 4], 100, power=0), [1, 1])
    np.testing.assert_allclose(balanced_pos_weight([20, 4], 100, cap=3), [2, 3])


def test_balanced_class_weight():
    weight = balanced_class_weight([50, 30, 20], list("abc"))
    np.testing.assert_allclose(weight, [2 / 3, 10 / 9, 5 / 3], rtol=1e-6)
    assert balanced_class_weight([999, 1], list("ab"), cap=5).tolist() == pytest.approx([0.5005, 5])
    with pytest.raises(UserError, match="class 'b' has no training row, so it cannot get a bal"):
        balanced_class_weight([5, 0], list("ab"))


# --- the scale under the real Trainer ------------------------------------------------------------


@pytest.fixture(scope="module")
def two_processes(tiny_model, tmp_path_factory):
    """Run `distributed_script.py` on two processes; return its results, model, stderr and code."""
    folder = tmp_path_factory.mktemp("two_processes")
    script = Path(__file__).with_name("distributed_script.py")
    run = run_script(script, tiny_model, folder, processes=2, check=False)
    assert (folder / "results.json").is_file(), run.stderr
    results = json.loads((folder / "results.json").read_text())
    return SimpleNamespace(
        results=results, model=folder / "model", stderr=run.stderr, code=run.returncode
    )


def one_process(model, folder, pos_weight, accumulation, loss=MultilabelLoss, **options):
    """Return the losses and gradient norms of three steps of 16 rows."""
    trainer = make_trainer(
        model,
        folder,
        loss=loss(None if pos_weight is None else torch.tensor(pos_weight)),
        per_device_train_batch_size=16 // accumulation,
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        num_train_epochs=1,
        **options,
    )
    trainer.train()
    return history(trainer, "loss", "grad_norm")


@pytest.mark.parametrize("pos_weight", [None, POS_WEIGHT])
def test_sixteen_rows_give_the_same_loss_and_gradient_for_every_split(
    tiny_model, tmp_path, two_processes, pos_weight
):
    expected = one_process(tiny_model, tmp_path, pos_weight, 1)
    assert np.shape(expected) == (2, 3)
    splits = {
        "4 x 4": one_process(tiny_model, tmp_path, pos_weight, 4),
        "2 processes x 8": two_processes.results[f"{pos_weight} 1"],
        "2 processes x 4 x 2": two_processes.results[f"{pos_weight} 4"],
    }
    for name, values in splits.items():
        np.testing.assert_allclose(values, expected, atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("loss", [SingleLabelLoss, lambda _: RegressionLoss()])
def test_the_scale_of_the_other_losses_does_not_depend_on_the_split(tiny_model, tmp_path, loss):
    whole, pieces = (
        one_process(tiny_model, tmp_path, None, accumulation, loss=loss) for accumulation in (1, 4)
    )
    np.testing.assert_allclose(pieces, whole, atol=TOLERANCE, rtol=0)


def test_two_passes_change_nothing_without_dropout_and_r_drop_adds_to_the_loss_with_it(
    tiny_model, tmp_path
):
    def r_drop(pos_weight):
        return MultilabelLoss(pos_weight, r_drop=1000.0)

    run = partial(one_process, tiny_model, tmp_path, None)
    twice = {"passes": 2}
    once = run(1)
    for accumulation in (1, 4):
        values = run(accumulation, loss=r_drop, options=twice)
        np.testing.assert_allclose(values, once, atol=TOLERANCE, rtol=0)
    (plain, *_), _ = run(1, options=twice, dropout=0.5)
    (with_r_drop, *_), _ = run(1, loss=r_drop, options=twice, dropout=0.5)
    assert with_r_drop > plain + 0.02  # the same passes, plus their divergence


@pytest.mark.parametrize("loss", [MultilabelLoss, SingleLabelLoss])
def test_weighted_rows_have_the_same_scale_for_every_split(tiny_model, tmp_path, loss):
    rows = weighted_rows()
    whole, pieces, unweighted = (
        one_process(tiny_model, tmp_path, None, accumulation, loss=loss, rows=train, collator=SOFT)
        for accumulation, train in ((1, rows), (4, rows), (1, rows.remove_columns("weight")))
    )
    np.testing.assert_allclose(pieces, whole, atol=TOLERANCE, rtol=0)
    assert np.abs(np.subtract(whole, unweighted)).max() > 0.01


def test_two_processes_weigh_rows_as_one_does(tiny_model, tmp_path, two_processes):
    options = {"rows": weighted_rows(), "collator": SOFT}
    expected = one_process(tiny_model, tmp_path, None, 1, **options)
    for name in ("weighted 1", "weighted 4"):
        np.testing.assert_allclose(two_processes.results[name], expected, atol=TOLERANCE, rtol=0)


def test_the_plain_mean_would_grow_with_the_number_of_pieces(tiny_model, tmp_path):
    class PlainMean(MultilabelLoss):
        def __call__(self, outputs, labels, num_items_in_batch=None):
            return super().__call__(outputs, labels)

    (_, (whole, *_)), (_, (pieces, *_)) = (
        one_process(tiny_model, tmp_path, None, accumulation, loss=PlainMean)
        for accumulation in (1, 4)
    )
    assert pieces == pytest.approx(4 * whole, rel=0.01)


def test_two_processes_predict_each_row_once_and_in_order(two_processes):
    rows = make_rows(41, seed=2)
    model = load_sequence_classifier(str(two_processes.model)).eval()
    with torch.no_grad():
        expected = [model(torch.tensor(ids)[None]).logits[0].tolist() for ids in rows["input_ids"]]
    np.testing.assert_allclose(two_processes.results["predictions"], expected, atol=TOLERANCE)


def test_a_loss_that_fails_in_one_process_stops_all_with_one_line(two_processes):
    lines = [line for line in two_processes.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "the loss is not finite at step 2" in lines[0]
    assert two_processes.code != 0


# --- choice of the loss --------------------------------------------------------------------------


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("single_label", [False, True])
def test_classification_loss_fits_the_labels(single_label, balanced):
    y = np.eye(3, dtype=int)[[0, 0, 0, 1, 1, 2]]
    settings = {"focus": 2.0, "label_smoothing": 0.1, "r_drop": 0.5}
    loss = classification_loss(y, "abc", single_label=single_label, balanced=balanced, **settings)
    if single_label:
        weight = balanced_class_weight(y.sum(axis=0), "abc") if balanced else None
        expected = SingleLabelLoss(weight, **settings)
    else:
        weight = balanced_pos_weight(y.sum(axis=0), 6) if balanced else None
        expected = MultilabelLoss(weight, focus=(2, 2), label_smoothing=0.1, r_drop=0.5)
    logits = np.random.default_rng(0).normal(size=(2 * len(y), 3))  # two passes
    targets = torch.as_tensor(y)
    assert type(loss) is type(expected)
    assert loss(outputs(logits), targets) == expected(outputs(logits), targets)


def test_a_class_that_only_other_folds_have_gets_the_weight_of_a_class_with_one_row():
    labels = np.eye(3, dtype=np.uint8)[[0, 0, 1]]
    options = {"single_label": True, "balanced": True}
    with pytest.raises(UserError, match="class 'c' has no training row"):
        classification_loss(labels, "abc", **options)
    loss = classification_loss(labels, "abc", totals=np.array([2, 1, 1]), **options)
    assert loss.weight.tolist() == balanced_class_weight([2, 1, 1], "abc").tolist()
    with pytest.raises(UserError, match="class 'c' has no training row"):
        classification_loss(labels, "abc", totals=np.array([2, 1, 0]), **options)


# --- masked-language modelling -------------------------------------------------------------------


def test_scoring_the_masked_tokens_only_gives_the_same_loss_and_gradients(tiny_mlm):
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 150, (4, 20), generator=generator)
    labels = torch.where(torch.rand(ids.shape, generator=generator) < 0.2, ids, IGNORE_INDEX)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    whole = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
    expected = whole(**batch, labels=labels).loss
    sparse = AutoModelForMaskedLM.from_pretrained(tiny_mlm)
    score_masked_tokens_only(sparse)
    scored = []
    sparse.get_output_embeddings().register_forward_hook(lambda *args: scored.append(args[-1]))
    output = sparse(**batch, targets=labels)
    loss = masked_token_loss(output, labels)

    masked = labels != IGNORE_INDEX
    assert scored[0].shape[:-1] == (masked.sum(),)
    assert output.logits.shape == labels.shape
    assert (output.logits[~masked] == 0).all()
    assert (output.logits[masked] < 0).all()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for value in (expected, loss):
        value.backward()
    gradients = (model.get_input_embeddings().weight.grad for model in (sparse, whole))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
