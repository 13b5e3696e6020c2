import pytest
import torch
from transformers import AutoModel

from shared.cli.errors import UserError
from shared.models import load_encoder, load_multi_task_model, load_tokenizer
from shared.models.multi_task import VARIANCE_RATE, MultiTaskModel

TASKS = [
    {"name": "topic", "problem": "single_label", "labels": ["bug", "question", "feature"]},
    {"name": "tags", "problem": "multi_label", "labels": ["a", "b"], "threshold": 0.4},
    {"name": "hours", "problem": "regression", "labels": ["hours"], "mean": 3.0, "scale": 2.0},
]
FURTHER = {"numbers": [["comments", 2.0, 1.5]], "categories": [["author", ["ann", "bob"]]]}


@pytest.fixture
def tokenizer(tiny_model):
    return load_tokenizer(str(tiny_model))


@pytest.fixture
def encoder(tiny_model, tokenizer):
    return load_encoder(str(tiny_model), tokenizer=tokenizer)


@pytest.fixture
def batch(tokenizer):
    texts = ["the server fails", "a much longer text about a model and its labels"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def test_the_encoder_keeps_its_weights_and_all_tasks_get_outputs(encoder, batch):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = MultiTaskModel.of_tasks(encoder, TASKS, **FURTHER).eval()
    after = model.encoder.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert model(**batch).logits.shape == (2, 6)
    assert model.config.id2label[3] == "tags: a"
    with pytest.raises(ValueError, match="MultiTaskLoss"):
        model(**batch, labels=torch.zeros(2, 6))


def test_further_columns_change_the_outputs_and_missing_is_the_default(encoder, batch):
    model = MultiTaskModel.of_tasks(encoder, TASKS, **FURTHER).eval()
    missing = model(**batch).logits
    numbers, categories = torch.tensor([[0.0, 1.0]] * 2), torch.zeros(2, 1, dtype=torch.int64)
    explicit = model(**batch, numbers=numbers, categories=categories).logits
    torch.testing.assert_close(missing, explicit)
    other = model(**batch, numbers=torch.tensor([[1.0, 0.0]] * 2), categories=categories).logits
    assert (other != missing).all()
    known = model(**batch, numbers=numbers, categories=categories + 1).logits
    assert (known != missing).all()
    # A value that no training row has is a vector of zeros, also after a training step.
    model.train()
    model(**batch, numbers=numbers, categories=categories).logits.sum().backward()
    torch.optim.SGD(model.parameters(), lr=1).step()
    assert (model.category_embeddings[0].weight[0] == 0).all()


def test_a_saved_model_is_the_same_also_without_this_project(encoder, tokenizer, batch, tmp_path):
    model = MultiTaskModel.of_tasks(
        encoder, TASKS, **FURTHER, head_sizes=[8], pooling="attention", text_columns=["text"]
    ).eval()
    expected = model(**batch).logits
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_multi_task_model(str(tmp_path), tokenizer=tokenizer).eval()
    torch.testing.assert_close(loaded(**batch).logits, expected)
    assert loaded.config.tasks == TASKS
    assert loaded.config.categories == FURTHER["categories"]
    assert {path.name for path in tmp_path.glob("*.py")} == {
        *("multi_task.py", "heads.py", "transformer.py")
    }
    remote = AutoModel.from_pretrained(tmp_path, trust_remote_code=True).eval()
    torch.testing.assert_close(remote(**batch).logits, expected)


def test_another_model_is_refused(tiny_model, tokenizer):
    with pytest.raises(UserError, match="no model of several tasks"):
        load_multi_task_model(str(tiny_model), tokenizer=tokenizer)


def test_the_model_of_a_task_has_its_outputs(encoder, batch):
    model = MultiTaskModel.of_tasks(encoder, TASKS, head_sizes=[8]).eval()
    logits = model(**batch).logits
    for number, columns in enumerate((slice(0, 3), slice(3, 5), slice(5, 6))):
        single = model.task_model(number).eval()
        torch.testing.assert_close(single(**batch).logits, logits[:, columns])
        assert list(single.config.id2label.values()) == TASKS[number]["labels"]
    assert single.config.problem_type == "regression"
    with pytest.raises(ValueError, match="further columns"):
        MultiTaskModel.of_tasks(encoder, TASKS, **FURTHER).task_model(0)


def test_log_variances_are_learned_in_training_only(encoder, batch):
    model = MultiTaskModel.of_tasks(encoder, TASKS, weights_by_uncertainty=True)
    assert model.eval()(**batch).log_variances is None
    with torch.no_grad():
        model.log_variances += 0.01
    variances = model.train()(**batch).log_variances
    torch.testing.assert_close(variances, torch.full((3,), 0.01 * VARIANCE_RATE))
    plain = MultiTaskModel.of_tasks(encoder, TASKS).train()
    assert plain(**batch).log_variances is None
