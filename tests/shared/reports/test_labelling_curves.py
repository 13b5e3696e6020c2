import numpy as np
import pytest

from shared.methods import Round
from shared.reports import simulation_curves, simulation_rows, simulation_table


def rounds(*f1, stable_at=None):
    return [
        Round(10 * i, 0.5, value, None if i == 1 else 0.9, stable_at is not None and i >= stable_at)
        for i, value in enumerate(f1, 1)
    ]


SIMULATIONS = {
    "random": {1: rounds(0.1, 0.2, 0.3), 2: rounds(0.1, 0.2, 0.5)},
    "mix": {1: rounds(0.2, 0.6, 0.6, stable_at=2), 2: rounds(0.2, 0.4, 0.6)},
    "bad": {1: rounds(0.0, 0.0, 0.0), 2: rounds(0.0, 0.0, 0.0)},
}


def test_the_table_says_what_a_strategy_saves():
    lines = simulation_table(SIMULATIONS, "macro_f1").splitlines()
    assert lines[0] == "| strategy | 10 | 20 | 30 | labels for 0.400 | saved | stable at |"
    cells = {line.split(" | ")[0][2:]: line.split(" | ")[-3:] for line in lines[2:]}
    assert cells["random"] == ["30", "0%", "- |"]
    # .4 lies two thirds of the way from .2 at 10 labels to .5 at 20.
    assert cells["mix"] == ["17", "44%", "20 (1 of 2) |"]
    assert cells["bad"] == ["-", "-", "- |"]
    assert "0.400 ± 0.141" in lines[2]


def test_curves_and_rows():
    mean, spread = simulation_curves(SIMULATIONS)["random"]["macro_f1"]
    assert mean == pytest.approx([0.1, 0.2, 0.4])
    assert spread == pytest.approx([0, 0, np.std([0.3, 0.5], ddof=1)])
    rows = simulation_rows(SIMULATIONS)
    assert len(rows) == 18
    assert rows[7] == {
        **{"strategy": "mix", "seed": 1, "labels": 20, "micro_f1": 0.5, "macro_f1": 0.6},
        **{"kappa": 0.9, "stable": True},
    }
