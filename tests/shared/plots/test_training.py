import pytest

from shared.plots import plot_training_curve

HISTORY = [
    {"epoch": 1.0, "loss": 0.7, "grad_norm": 1.0},
    {"epoch": 1.0, "eval_loss": 0.6, "eval_micro_f1": 0.4},
    {"epoch": 2.0, "loss": 0.5},
    {"epoch": 2.0, "eval_loss": 0.55, "eval_micro_f1": 0.6},
    {"epoch": 2.0, "train_runtime": 3.0},
]


@pytest.mark.parametrize(
    "log_history",
    [HISTORY, [], HISTORY[:1], HISTORY[1:2], [{"epoch": 1.0, "eval_loss": float("nan")}]],
    ids=["usual", "no log", "training only", "validation only", "nan"],
)
def test_training_curve(written, log_history):
    written(plot_training_curve, log_history)


def test_training_curve_shows_the_metric_asked_for(tmp_path):
    sizes = []
    for metric in ("eval_micro_f1", "eval_none"):
        plot_training_curve(HISTORY, tmp_path / "plot.png", metric=metric)
        sizes.append((tmp_path / "plot.png").read_bytes())
    assert sizes[0] != sizes[1]
