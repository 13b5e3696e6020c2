"""An ensemble of networks over table rows."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from shared.data.tables import TableRows, TableSchema
from shared.models import TabularArguments, build_tabular_model, join_members

NAN = float("nan")


@pytest.fixture
def rows():
    generator = np.random.default_rng(0)
    numbers = (100 + 5 * generator.normal(size=(40, 3))).astype(np.float32)
    numbers[::4, 1] = NAN
    codes = generator.integers(1, 3, size=(40, 2))  # of 3 and of 2 categories
    return numbers, codes


def build(rows, **settings):
    torch.manual_seed(settings.pop("seed", 0))
    args = TabularArguments(**{"members": 3, "hidden_size": 8, **settings})
    numbers, codes = rows
    categories = {"colour": ["", "red", "blue"], "kind": ["old", "new"]}
    columns = [f"number {i}" for i in range(numbers.shape[1])]
    zeros = [0.0] * len(columns)
    schema = TableSchema("label", ["a", "b", "c"], columns, zeros, zeros, categories, [])
    places = np.arange(len(numbers))
    return build_tabular_model(args, schema, TableRows(numbers, codes, places % 3, places)).eval()


def outputs(model, numbers, codes):
    with torch.no_grad():
        return model(torch.as_tensor(numbers), torch.as_tensor(codes)).logits


@pytest.mark.parametrize("scaling", ["standard", "robust"])
def test_numbers_are_scaled_by_the_training_rows(rows, scaling):
    model = build(rows, scaling=scaling)
    numbers, codes = rows
    inputs = model.members[0].preprocessing(torch.as_tensor(numbers), torch.as_tensor(codes))
    values, missing = inputs[:, :3].detach().numpy(), inputs[:, 3:6].detach().numpy()
    filled = np.where(np.isnan(numbers), np.nanmedian(numbers, axis=0), numbers)
    if scaling == "standard":
        expected = (filled - filled.mean(axis=0)) / filled.std(axis=0)
    else:
        low, middle, high = np.nanquantile(numbers, [0.25, 0.5, 0.75], axis=0)
        expected = (filled - middle) / (high - low)
        expected /= np.sqrt(1 + (expected / 3) ** 2)
    np.testing.assert_allclose(values, expected, atol=1e-4)
    np.testing.assert_array_equal(missing, np.isnan(numbers))
    # A gap where the training rows have none is filled, and is no other input.
    gap = torch.tensor([[NAN, 100.0, NAN]])
    inputs = model.members[0].preprocessing(gap, torch.ones(1, 2, dtype=torch.long))
    assert torch.isfinite(inputs).all()
    assert inputs[0, 3:6].tolist() == [0, 0, 0]
    assert (inputs.abs() < 100).all()


def test_constant_and_empty_columns_do_not_harm(rows):
    numbers, codes = rows
    numbers[:, 0], numbers[:, 1] = 7, NAN
    for scaling in ("standard", "robust"):
        assert torch.isfinite(outputs(build((numbers, codes), scaling=scaling), *rows)).all()


def test_a_category_that_no_training_row_has_does_not_count(rows):
    numbers, codes = rows
    assert codes.max() == 2  # the first column has a third category
    model = build(rows)
    first, third = codes.copy(), codes.copy()
    first[:, 0], third[:, 0] = 0, 3
    unseen = outputs(model, numbers, first)
    torch.testing.assert_close(outputs(model, numbers, third), unseen)
    assert not torch.allclose(outputs(model, numbers, codes), unseen)


def test_the_ensemble_is_the_mean_and_each_member_has_a_loss_of_its_own(rows):
    model = build(rows)
    numbers, codes = map(torch.as_tensor, rows)
    with torch.no_grad():
        single = [member(numbers, codes).softmax(-1) for member in model.members]
    torch.testing.assert_close(
        outputs(model, *rows).exp(), torch.stack(single).mean(0), atol=1e-6, rtol=1e-5
    )
    labels = torch.arange(40) % 3
    expected = [-p[torch.arange(40), labels].log().mean() for p in single]
    model.train()
    for module in model.modules():  # dropout and batch norm as in prediction
        if module is not model:
            module.eval()
    output = model(numbers, codes, labels=labels)
    assert output.logits.shape == (120, 3)
    torch.testing.assert_close(output.loss, torch.stack(expected).mean())


def test_joined_folds_and_a_saved_model_give_the_same_scores(rows, tmp_path):
    numbers, codes = rows
    other = (3 * numbers - 20, codes)  # another scale
    models = [build(rows), build(other, seed=1)]
    joined = join_members(models).eval()
    assert joined.config.members == 6
    mean = torch.stack([outputs(model, *rows).exp() for model in models]).mean(0)
    torch.testing.assert_close(outputs(joined, *rows).exp(), mean, atol=1e-6, rtol=1e-5)
    joined.save_pretrained(tmp_path)
    for options in ({}, {"trust_remote_code": True}):
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, **options).eval()
        torch.testing.assert_close(outputs(loaded, *rows), outputs(joined, *rows), atol=0, rtol=0)
        assert loaded.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.json", "model.safetensors", "networks.py", "tabular_networks.py"),
    }


@pytest.mark.parametrize("scheme", ["xavier", "lsuv", "small", "large"])
def test_first_weights(rows, scheme):
    first, other = build(rows), build(rows, initialization=scheme)
    weights = [model.members[0].layers[0].linear.weight.detach() for model in (first, other)]
    assert not torch.equal(*weights)
    if scheme in ("small", "large"):
        assert float(weights[1].std()) == pytest.approx(0.01 if scheme == "small" else 1, rel=0.2)


def test_a_batch_of_one_row_trains(rows):
    model = build(rows).train()
    numbers, codes = (torch.as_tensor(values[:1]) for values in rows)
    model(numbers, codes, labels=torch.tensor([0])).loss.backward()


def test_a_table_of_categories_only(rows):
    numbers, codes = rows
    assert outputs(build((numbers[:, :0], codes)), numbers[:, :0], codes).shape == (40, 3)
