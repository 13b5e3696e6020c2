import numpy as np
import pytest

from shared.plots import plot_learning_curves


@pytest.mark.parametrize("n_methods", [1, 10, 13])
def test_learning_curves(drawn, written, n_methods):
    some, missing = np.array([0.2, 0.5, 0.7]), np.array([0.3, np.nan, np.nan])
    curves = {
        f"method_{i}": {"micro_f1": (some, 0.1 * some), "macro_f1": (missing, 0 * some)}
        for i in range(n_methods)
    }
    args = (plot_learning_curves, curves, np.array([8, 64, 768]))
    width, height = written(*args, flat=["method_0"])
    assert width >= 1400
    assert height >= 650
    lines = drawn(*args, flat=["method_0"]).axes[0].lines
    assert [line.get_linestyle() for line in lines] == ["--"] + ["-"] * (n_methods - 1)
