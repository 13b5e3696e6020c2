"""Plots of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.plots.figures import new_figure, save_figure
from shared.plots.fonts import fonts_for


def plot_next_tokens(probabilities: np.ndarray, tokens: Sequence[str], path: Path) -> None:
    """Heat map of the probability of each token after each other one.

    Parameters
    ----------
    probabilities : float array of shape (tokens, tokens)
        Row i: of the tokens after token i.
    tokens : sequence of str
        As they are to be shown.
    path : Path
    """
    size = 2.5 + 0.16 * len(tokens)
    figure, axes = new_figure(size + 1, size)
    # The root makes small probabilities visible beside large ones.
    image = axes.imshow(np.sqrt(probabilities), cmap="Blues", vmin=0, vmax=1)
    fonts, undrawable = fonts_for("".join(tokens))
    tokens = ["?" if {*token} & undrawable else token.replace("$", r"\$") for token in tokens]
    rotation = 90 if max(map(len, tokens)) > 2 else 0
    axes.set_xticks(range(len(tokens)), tokens, fontsize=7, family=fonts, rotation=rotation)
    axes.set_yticks(range(len(tokens)), tokens, fontsize=7, family=fonts)
    axes.set(xlabel="next token", ylabel="token", title="Probability of the next token")
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    shares = [0, 0.01, 0.05, 0.1, 0.25, 0.5, 1]
    bar.set_ticks(list(np.sqrt(shares)), labels=[f"{share:g}" for share in shares])
    axes.grid(visible=False)
    save_figure(figure, path)
