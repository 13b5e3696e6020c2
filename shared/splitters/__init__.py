"""Splits of multilabel data: k-fold, shuffle split, train-validation-test, nested slices.

They need only arrays and follow scikit-learn's splitter interface.
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
            "label_distribution_error",
            "nested_slice",
            "nested_slices",
            "train_valid_test_split",
        ],
    },
)
