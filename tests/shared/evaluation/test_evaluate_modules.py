import json
import re
import socket
import threading
from pathlib import Path

import evaluate
import numpy as np
import pytest

from shared.evaluation.decisions import sigmoid
from shared.evaluation.evaluate_modules import (
    F1,
    Accuracy,
    AveragePrecision,
    MultilabelF1,
    MultilabelPrecision,
    MultilabelRecall,
    RocAuc,
    SubsetAccuracy,
)
from shared.evaluation.metrics import multilabel_averages, multilabel_metrics, single_label_metrics


@pytest.fixture(autouse=True)
def no_network_and_no_files(monkeypatch, tmp_path):
    """Every test here runs with sockets blocked, in an empty folder that must stay empty."""

    def refuse(*args, **kwargs):
        raise AssertionError("a module tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    yield
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    y_true = rng.random((90, 5)) < 0.3
    return y_true.astype(int), 2.0 * y_true - 1 + rng.normal(size=y_true.shape)


def all_modules(**thresholds):
    return evaluate.combine(
        [
            *[MultilabelF1(a, **thresholds) for a in ("micro", "macro", "weighted", "samples")],
            MultilabelPrecision("micro", **thresholds),
            MultilabelRecall("micro", **thresholds),
            SubsetAccuracy(**thresholds),
            AveragePrecision("micro"),
            AveragePrecision("macro"),
            RocAuc(),
        ]
    )


class Evaluation:
    def __init__(self, predictions, label_ids):
        self.predictions, self.label_ids = predictions, label_ids


@pytest.mark.parametrize("thresholds", [{}, {"thresholds": [0.3, 0.4, 0.5, 0.6, 0.7]}])
def test_combined_modules_equal_the_metric_function(rows, thresholds):
    y_true, logits = rows
    compute_metrics = multilabel_metrics(list("abcde"), **thresholds)
    expected = compute_metrics(Evaluation(logits, y_true))
    modules = all_modules(**thresholds)
    result = modules.compute(predictions=sigmoid(logits), references=y_true)
    assert result == pytest.approx(expected, abs=1e-12)
    assert {type(value) for value in result.values()} == {float}


def test_the_example_of_the_readme():
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import evaluate\n.*?)```", readme, re.DOTALL)
    variables = {}
    exec(example, variables)
    rounded = {name: round(value, 3) for name, value in variables["results"].items()}
    assert example.rstrip().endswith(f"# {json.dumps(rounded)}")


def test_batches_and_single_rows_add_up_and_modules_can_be_used_again(rows):
    y_true, logits = rows
    scores = sigmoid(logits)
    modules = all_modules()
    expected = modules.compute(predictions=scores, references=y_true)
    for start in range(0, 80, 32):
        stop = min(start + 32, 80)
        modules.add_batch(predictions=scores[start:stop], references=y_true[start:stop].tolist())
    for score, reference in zip(scores[80:], y_true[80:], strict=True):
        modules.add(prediction=score, reference=reference)
    assert modules.compute() == expected
    assert modules.compute(predictions=scores, references=y_true) == expected


def test_zeros_and_ones_are_scores_too(rows):
    y_true, logits = rows
    y_pred = (logits > 0).astype(int)
    for average, (precision, recall, f1) in multilabel_averages(y_true, y_pred).items():
        modules = [m(average) for m in (MultilabelPrecision, MultilabelRecall, MultilabelF1)]
        result = evaluate.combine(modules).compute(predictions=y_pred, references=y_true)
        assert list(result.values()) == pytest.approx([precision, recall, f1])
        assert set(result) == {f"{average}_{name}" for name in ("precision", "recall", "f1")}


def test_single_label_modules_equal_the_metric_function():
    rng = np.random.default_rng(0)
    logits, classes = rng.normal(size=(50, 4)), rng.integers(0, 3, 50)  # class 3 never occurs
    expected = single_label_metrics(list("abcd"))(Evaluation(logits, classes))
    modules = [Accuracy(), F1("macro", num_labels=4), F1("weighted", num_labels=4)]
    result = evaluate.combine(modules).compute(
        predictions=logits.argmax(axis=1), references=classes
    )
    assert result == pytest.approx(expected, abs=1e-12)


def test_ranking_modules_leave_out_a_metric_that_no_label_has():
    modules = evaluate.combine([AveragePrecision("micro"), RocAuc(), MultilabelF1("micro")])
    assert modules.compute(predictions=[[0.2, 0.7]] * 3, references=[[0, 0]] * 3) == {"micro_f1": 0}


def test_mistakes_are_reported_and_leave_the_module_usable():
    module = MultilabelF1("micro")
    with pytest.raises(ValueError, match="no rows"):
        module.compute()
    with pytest.raises(ValueError, match="through a sigmoid"):
        module.compute(predictions=[[3.2, -1]], references=[[1, 0]])
    with pytest.raises(ValueError, match=r"must be 0 or 1, found 2\.0"):
        module.compute(predictions=[[0.2, 0.1]], references=[[2, 0]])
    with pytest.raises(ValueError, match=r"same number of labels, found \[1, 2\]"):
        module.compute(predictions=[[0.2, 0.1], [0.3]], references=[[1, 0], [1]])
    with pytest.raises(ValueError, match="Mismatch in the number"):
        module.compute(predictions=[[0.2, 0.1]], references=[[1, 0]] * 2)
    assert module.compute(predictions=[[0.7, 0.1]], references=[[1, 0]]) == {"micro_f1": 1.0}
    with pytest.raises(ValueError, match="average must be one of"):
        MultilabelF1("binary")
    with pytest.raises(TypeError, match=r"^MultilabelF1 has no option threshold$"):
        MultilabelF1("micro", threshold=0.3)


def test_global_generator_is_left_alone(rows):
    y_true, logits = rows
    state = np.random.get_state()[1].copy()
    all_modules().compute(predictions=sigmoid(logits), references=y_true)
    assert (np.random.get_state()[1] == state).all()


def test_processes_share_rows_through_the_cache_folder(rows, tmp_path_factory):
    """Two threads stand for two processes: the library's file locks tell them apart as well."""
    y_true, logits = rows
    scores = sigmoid(logits)
    cache_dir = tmp_path_factory.mktemp("cache")
    results = {}

    def work(process_id):
        module = MultilabelF1(
            "micro", num_process=2, process_id=process_id, cache_dir=str(cache_dir), timeout=20
        )
        part = slice(process_id, None, 2)
        results[process_id] = module.compute(predictions=scores[part], references=y_true[part])

    threads = [threading.Thread(target=work, args=(process_id,)) for process_id in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = MultilabelF1("micro").compute(predictions=scores, references=y_true)
    assert results == {0: alone, 1: None}
