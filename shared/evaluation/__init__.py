"""From logits to labels to metrics; everything but cross-validation needs only arrays.

May import: `shared.training` and the floors below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bootstrap": ["bootstrap_interval", "paired_bootstrap"],
        "cross_validation": [
            "assign_folds",
            "describe_folds",
            "join_folds",
            "join_groups",
            "make_folds",
            "read_column",
            "score_folds",
        ],
        "decisions": [
            "at_least_one",
            "choose_labels",
            "f1_by_threshold",
            "f1_by_top_k",
            "sigmoid",
            "softmax",
            "top_k",
            "tune_thresholds",
        ],
        "evaluate_modules": [
            "Accuracy",
            "AveragePrecision",
            "F1",
            "MultilabelF1",
            "MultilabelPrecision",
            "MultilabelRecall",
            "RocAuc",
            "SubsetAccuracy",
        ],
        "folded_data": ["load_and_fold"],
        "metrics": [
            "classification_report",
            "f1_scores",
            "multilabel_metrics",
            "per_label_report",
            "single_label_metrics",
        ],
    },
)
