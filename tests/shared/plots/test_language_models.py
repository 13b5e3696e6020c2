import numpy as np
import pytest

from shared.plots import plot_next_tokens


@pytest.mark.parametrize(
    "tokens", [["a", "b"], ["<|endoftext|>", "$", "$", "\\n"], ["中", "\ue123"]]
)
def test_next_tokens(written, tokens):
    probabilities = np.full((len(tokens),) * 2, 1 / len(tokens))
    assert written(plot_next_tokens, probabilities, tokens)[0] > 300
