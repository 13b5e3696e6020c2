import json

import numpy as np
import pytest

from shared.cli.errors import UserError
from shared.evaluation.metrics import f1_scores
from shared.reports.comparison import (
    Result,
    curves,
    f1_table,
    recommend,
    report,
    result_rows,
    time_table,
)

NAMES = ["a", "b", "c"]


@pytest.fixture
def made_up(tmp_path):
    """Make a result whose test predictions are right for the share `test` of the 60 rows."""

    def result(method, size, seed, *, test, valid, first_row=0, seconds=1.0):
        rng = np.random.default_rng(seed)
        truth = rng.random((60, 3)) < 0.4
        wrong = np.random.default_rng([seed, *method.encode()]).random(60) >= test
        predicted = truth ^ wrong[:, None]
        path = tmp_path / f"{method}-{size}-{seed}.jsonl"
        lines = [
            {
                "row": first_row + i,
                "text": "line\u2028break",
                "true_labels": [n for n, y in zip(NAMES, truth[i], strict=True) if y],
                "labels": [n for n, y in zip(NAMES, predicted[i], strict=True) if y],
                "scores": dict.fromkeys(NAMES, 0.5),
            }
            for i in range(60)
        ]
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        metrics = {f"test_{name}": value for name, value in f1_scores(truth, predicted).items()}
        metrics |= {"valid_micro_f1": valid, "train_runtime": seconds, "test_runtime": 0.6}
        return Result(method, size, seed, metrics | {"test_samples": 60}, path)

    return result


@pytest.fixture
def results(made_up):
    """By validation, the first method is best with 8 texts and the second with all texts."""
    return [
        made_up(method, size, seed, test=test, valid=valid)
        for method, size, test, valid in (
            *(("probe", "8", 0.9, 0.8), ("words", "8", 0.4, 0.5), ("slow", "8", 0.95, 0.4)),
            *(("probe", "all", 0.7, 0.6), ("words", "all", 0.7, 0.61), ("slow", "all", 0.1, 0.2)),
        )
        for seed in (1, 2)
    ]


def test_a_method_is_chosen_by_validation_and_compared_on_test(results):
    few, all_rows = (recommend(results, size) for size in ("8", "all"))
    assert (few.best, few.runner_up) == ("probe", "words")  # though "slow" is best on test
    assert few.chosen_on == pytest.approx((0.8, 0.5))
    assert few.verdict == "significant"
    assert 0 < few.test["low"] < few.test["difference"] < few.test["high"]
    assert (all_rows.best, all_rows.verdict) == ("words", "not significant")


def test_a_method_without_every_seed_is_not_recommended(results):
    without = [r for r in results if (r.method, r.size, r.seed) != ("probe", "8", 2)]
    assert recommend(without, "8").best == "words"
    # No method has every seed; and with one method there is no comparison.
    assert recommend([results[0], results[3]], "8") is None
    alone = recommend([r for r in results if r.method == "words"], "8")
    assert (alone.best, alone.runner_up, alone.verdict) == (
        *("words", None),
        "no second method",
    )
    assert recommend(results, "64") is None


def test_the_verdict_says_if_the_second_method_is_better_on_test(made_up):
    pair = [
        made_up("bad", "8", 1, test=0.2, valid=0.9),
        made_up("good", "8", 1, test=0.9, valid=0.5),
    ]
    assert recommend(pair, "8").verdict == "significant, but good is better on test"


def test_results_on_different_test_rows_are_not_compared(made_up):
    pair = [
        made_up("one", "8", 1, test=0.9, valid=0.9),
        made_up("two", "8", 1, test=0.9, valid=0.5, first_row=1),
    ]
    with pytest.raises(
        UserError, match=r"two-8-1.jsonl: its test rows differ from those of .*one-8"
    ):
        recommend(pair, "8")


def test_labels_that_only_the_test_rows_have_count_as_misses(made_up):
    pair = [
        made_up("good", "8", 1, test=0.9, valid=0.9),
        made_up("bad", "8", 1, test=0.4, valid=0.5),
    ]
    before = recommend(pair, "8").test["difference"]
    f1 = []
    for result in pair:
        lines = [json.loads(line) for line in result.predictions.read_text().split("\n") if line]
        for line in lines:
            line["true_labels"].append("unknown")
        result.predictions.write_text("".join(json.dumps(line) + "\n" for line in lines))
        hits = sum(len(set(line["labels"]) & set(line["true_labels"])) for line in lines)
        size = sum(len(line["labels"]) + len(line["true_labels"]) for line in lines)
        f1.append(2 * hits / size)
    after = recommend(pair, "8").test["difference"]
    assert after == pytest.approx(f1[0] - f1[1])
    assert after < before


def test_csv_rows(results):
    rows = result_rows(results)
    assert len(rows) == 12
    assert list(rows[0]) == [
        *("method", "size", "seed", "micro_f1", "macro_f1", "train_seconds", "predict_seconds")
    ]
    assert rows[0]["micro_f1"] == round(results[0].metrics["test_micro_f1"], 4)
    assert (rows[0]["train_seconds"], rows[0]["predict_seconds"]) == (1.0, 0.6)


def table_cells(table):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]


def test_tables_hold_mean_and_spread(results):
    header, _, *rows = table_cells(f1_table(results[1:], ["8", "64", "all"], "micro_f1"))
    assert header == ["method", "8", "64", "all"]
    assert [row[0] for row in rows] == ["probe", "words", "slow"]
    f1 = [r.metrics["test_micro_f1"] for r in results if (r.method, r.size) == ("words", "8")]
    assert rows[1][1] == f"{np.mean(f1):.3f} ± {np.std(f1, ddof=1):.3f}"
    assert rows[0][1].endswith("(1 of 2 seeds)")
    assert "±" not in rows[0][1]
    assert [row[2] for row in rows] == ["-"] * 3
    assert sum("**" in row[3] for row in rows) == 1

    header, _, *rows = table_cells(time_table(results, ["8", "64"]))
    assert header[-1] == "1,000 texts"
    assert rows[0] == ["probe", "1", "-", "10"]


def test_report_names_the_choice(results):
    text = report(results, ["8", "64", "all"])
    assert "| 8 | **probe** (0.800) | words (0.500) | +" in text
    assert "| all | **words** (0.610) | probe (0.600) | " in text


def test_curves(results):
    by_method = curves(results[:1] + results[2:4], ["8", "64"])
    mean, deviation = by_method["probe"]["micro_f1"]
    assert mean[0] == results[0].metrics["test_micro_f1"]
    assert deviation.tolist() == [0, 0]
    assert np.isnan(mean[1])
    pair = [r.metrics["test_macro_f1"] for r in results[2:4]]
    assert by_method["words"]["macro_f1"][1][0] == pytest.approx(np.std(pair, ddof=1))


def test_micro_f1_is_called_accuracy_if_each_text_has_one_label(results):
    for result in results:
        result.metrics["test_accuracy"] = result.metrics["test_micro_f1"]
    assert "## Accuracy on test" in report(results, ["8", "64", "all"])
    assert list(curves(results, ["8"])["probe"]) == ["accuracy", "macro_f1"]
    # The name holds for all texts or for none.
    del results[0].metrics["test_accuracy"]
    assert "## Micro F1 on test" in report(results, ["8", "64", "all"])
