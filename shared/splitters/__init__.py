"""Splits of data with several labels per row: k-fold, shuffle, train-validation-test, samples.

The splitters need only arrays of labels and follow the splitter interface of scikit-learn.

Modules:

- `multilabel`: the public splitters, and a measure of how well a split keeps the label odds;
- `_table`: reads labels, pairs and groups into one table, and assigns its rows to parts;
- `_kernels`: the compiled loops that assign the rows and then improve the split;
- `_exchange`: the compiled loop that improves the split of rows with many labels;
- `_background`: runs the compiled loops in a thread, so that Ctrl-C ends them.

May import: `shared.cli`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "multilabel": [
            "MultilabelStratifiedKFold",
            "MultilabelStratifiedShuffleSplit",
            "RepeatedMultilabelStratifiedKFold",
            "label_distribution_error",
            "nested_slice",
            "nested_slices",
            "train_valid_test_split",
        ],
    },
)
