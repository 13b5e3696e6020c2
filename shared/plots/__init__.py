"""Plots of a run, as PNG files. They need only arrays and mappings.

Modules:

- `classes`: a classifier of one class per row: confusion matrix, reliability diagram.
- `columns`: the importance of the columns of a table.
- `decisions`: F1 over votes of neighbours, labels per text and thresholds.
- `figures`: colours, size, labels, legend, and how a figure is saved.
- `fonts`: fonts that draw a text in any script.
- `gans`: the training of a generator and a discriminator.
- `images`: sheets, grids and animations of images.
- `language_models`: the probabilities of the next token.
- `learning_curves`: methods by the number of labelled rows.
- `numbers`: predicted numbers against the true ones.
- `search`: the trials of a hyper-parameter search.
- `series`: forecasts of time series, and their errors.
- `tasks`: several tasks, and the trade-off between two of them.
- `techniques`: settings of one network: curves, sizes of activations and gradients.
- `texts`: lengths of texts, and how many have each label.
- `training`: losses and a metric by epoch, and the learning-rate range test.

May import: `shared.cli`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classes": ["plot_confusion", "plot_reliability"],
        "columns": ["plot_importance"],
        "decisions": ["plot_cutoffs", "plot_neighbour_grid"],
        "gans": ["plot_adversarial_curve"],
        "images": ["plot_image_sheet", "write_animation", "write_image_grid"],
        "language_models": ["plot_next_tokens"],
        "learning_curves": ["plot_learning_curves"],
        "numbers": ["plot_predicted_numbers"],
        "search": ["plot_search"],
        "series": ["plot_forecasts", "plot_step_errors"],
        "tasks": ["plot_task_scores", "plot_trade_off"],
        "techniques": ["plot_layer_magnitudes", "plot_setting_curves"],
        "texts": ["plot_label_counts", "plot_words_per_text"],
        "training": ["plot_rate_test", "plot_training_curve"],
    },
)
