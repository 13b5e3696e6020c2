"""Figures of settings, and whether they agree with the sources."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.reports.techniques import (
    MAGNITUDES,
    SettingResult,
    check_claim,
    run_record,
    write_techniques,
)
from shared.training.signals import LayerSignal
from shared.training.techniques import BASES, CLAIMS, TECHNIQUES, Claim

CLAIM = Claim("dropout", "Some is good", "A. Source 2014", "0.2", "0", "valid_loss", "lower")
NO_SIGNAL = {
    name: LayerSignal(np.array([scale, -scale, 0.0, 2 * scale]), np.zeros(4))
    for name, scale in (("layer 1", 1.0), ("layer 2", 0.5))
}


def record(valid=(1.0, 0.6, 0.5), score=(0.2, 0.6, 0.7), problem=None, dead=0.25):
    log = []
    for number, (loss, value) in enumerate(zip(valid, score, strict=True), 1):
        log.append({"epoch": number, "step": 10 * number, "loss": loss, "grad_norm": 2.0 / number})
        log.append(
            {"epoch": number, "step": 10 * number, "eval_loss": loss, "eval_accuracy": value}
        )
    return run_record(
        log, NO_SIGNAL, score="eval_accuracy", problem=problem, dead=dead, uninformed=1.1
    )


def setting(name, *records, technique="dropout", note=""):
    return SettingResult(technique, name, records, note)


def with_losses(name, losses):
    return setting(name, *[record(valid=(1.0, 0.9, loss)) for loss in losses])


def test_a_record_has_the_figures_of_the_end_and_is_json():
    r = json.loads(json.dumps(record(valid=(1.0, 0.4, 0.5)), allow_nan=False))
    assert (r["train_loss"], r["valid_loss"], r["lowest_valid_loss"]) == (0.5, 0.5, 0.4)
    assert (r["score"], r["grad_norm"]) == (0.7, 2.0)
    assert r["curve"]["step"] == [10, 20, 30]
    assert r["signal_kept"] == pytest.approx(0.5)
    shape = r["signals"]["layer 1"]["activations"]
    assert shape["zeros"] == 0.25
    at = np.flatnonzero(np.histogram([0.0], MAGNITUDES)[0])[0]  # the size 1 is 10 ** 0
    assert shape["magnitudes"][at] == 0.5
    assert r["signals"]["layer 1"]["gradients"] == {
        "std": 0.0,
        "zeros": 1.0,
        "magnitudes": [0.0] * (len(MAGNITUDES) - 1),
    }


def test_a_training_that_diverged_at_its_first_step_is_a_record():
    r = run_record([], NO_SIGNAL, score="eval_accuracy", problem="x", dead=None, uninformed=1.0)
    row = setting("0", r).row(0.5)
    assert (row["validation loss"], row["score"], row["verdict"]) == ("diverged",) * 3
    assert (row["steps to reach"], row["largest gradient"], row["dead units"]) == (
        "never",
        "-",
        "-",
    )


def test_the_row_of_a_setting():
    row = setting("0.2", record(), record(score=(0.1, 0.2, 0.8)), note="rate .1").row(target=0.55)
    assert row["setting"] == "0.2 (rate .1)"
    assert row["score"] == "0.750 ± 0.071"
    assert row["steps to reach"] == "25"
    assert row["dead units"] == "25 %"
    some = setting("0.2", record(), record(score=(0.1, 0.2, 0.3))).row(target=0.55)
    assert some["steps to reach"] == "20 (1 of 2 seeds)"
    mixed = setting("0.2", record(), record(problem="the loss is not finite")).row(0.5)
    assert mixed["score"] == "0.700 (1 of 2 diverged)"


@pytest.mark.parametrize(
    ("better", "worse", "result"),
    [
        ([0.40, 0.41, 0.42], [0.50, 0.51, 0.52], "agrees"),
        ([0.50, 0.51, 0.52], [0.40, 0.41, 0.42], "contradicts"),
        ([0.40, 0.50, 0.45], [0.45, 0.47, 0.46], "no clear difference"),
        ([0.40], [0.50], "one seed tells nothing"),
    ],
)
def test_a_claim_is_compared_over_seeds(better, worse, result):
    row = check_claim(CLAIM, with_losses("0.2", better), with_losses("0", worse), 0.5)
    assert row["result"] == result
    assert row["source"] == "A. Source 2014"


def test_a_setting_that_diverges_loses_to_one_that_does_not():
    fine = setting("0.2", record(), record())
    lost = setting("0", record(problem="p"), record(problem="p"))
    assert check_claim(CLAIM, fine, lost, 0.5)["result"] == "agrees"
    assert check_claim(CLAIM, lost, fine, 0.5)["result"] == "contradicts"
    assert check_claim(CLAIM, lost, lost, 0.5)["result"] == "no clear difference"
    half = setting("0", record(), record(problem="p"))
    assert check_claim(CLAIM, fine, half, 0.5)["result"] == "no clear difference"
    steps = CLAIM._replace(figure="steps")
    never = setting("0", record(score=(0, 0, 0)), record(score=(0, 0, 0)))
    row = check_claim(steps, fine, never, 0.5)
    assert row["result"] == "agrees"
    assert row["measured"] == "steps to reach: 0.2 20.000, 0 never"


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=2, max_size=6))
def test_exchanging_the_settings_turns_the_result_round(losses):
    a, b = (
        with_losses(name, side) for name, side in zip("ab", zip(*losses, strict=True), strict=True)
    )
    there, back = (check_claim(CLAIM, *pair, 0.5)["result"] for pair in ((a, b), (b, a)))
    turned = {"agrees": "contradicts", "contradicts": "agrees"}
    assert back == turned.get(there, there)


def test_claims_name_settings_that_exist():
    for claim in CLAIMS:
        assert {claim.better, claim.worse} <= {*TECHNIQUES[claim.technique]}, claim
    assert {*BASES} <= {*TECHNIQUES}
    assert {claim.technique for claim in CLAIMS} == {*TECHNIQUES}
    figures = {*record(), "steps"}
    assert {claim.figure for claim in CLAIMS} <= figures


def test_the_files_of_a_report(tmp_path):
    names = list(TECHNIQUES["dropout"])
    lost = record(problem="the loss is not finite")
    results = {"dropout": [setting(n, *([lost] if n == "0.5" else [record()])) for n in names]}
    printed = write_techniques(
        tmp_path,
        setting("defaults", record()),
        results,
        {"defaults": [0.5, 0.7]},
        score="accuracy <b>",
        data="some rows",
        seeds=[1, 2],
        cache_dir=str(tmp_path / "cache"),
    )
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| 0.5 | diverged | diverged |" in readme
    assert "![Learning curves](plots/dropout.png)" in readme
    assert "0.600 ± 0.141" in printed
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<section id="dropout"' in page
    assert "accuracy &lt;b&gt;" in page
    assert "https://" not in page.split("<script>")[0]
    assert (tmp_path / "plots" / "dropout.png").stat().st_size > 10_000
    assert (tmp_path / "results.csv").read_text(encoding="utf-8").count("\n") == len(names) + 1
    assert math.isclose(0.95 * 0.7, float(readme.split("defaults (")[1].split(")")[0]))
