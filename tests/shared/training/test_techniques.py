import pytest

from shared.training.techniques import best_rate


@pytest.mark.parametrize(
    ("losses", "factor", "note"),
    [
        ({0.3: 0.5, 1.0: 0.4, 3.0: 0.6}, 1.0, "rate 0.001"),
        ({0.3: 0.5, 1.0: 0.6, 3.0: None}, 0.3, "rate 0.0003, lowest tried"),
        ({0.3: None, 1.0: 0.6, 3.0: 0.5}, 3.0, "rate 0.003, highest tried"),
        ({0.3: None, 1.0: None, 3.0: None}, 0.3, "rate 0.0003, lowest tried"),
    ],
)
def test_the_rate_with_the_lowest_loss_is_chosen_and_an_end_is_named(losses, factor, note):
    assert best_rate(losses, 1e-3) == (factor, note)
