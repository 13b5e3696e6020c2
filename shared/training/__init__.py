"""Batches and steps: the Trainer, and everything that it is built from.

May import: `shared.models` and the floors below it, `shared.plots`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": ["activation_bytes", "adapt", "save_merged", "training_footprint"],
        "callbacks": ["CheckpointOnSignal", "ReadableProgress", "TrainingLog"],
        "checkpoints": ["check_same_run", "find_checkpoint", "remove_checkpoints"],
        "collators": [
            "AugmentingCollator",
            "MaskingCollator",
            "MultilabelCollator",
            "PaddingCollator",
        ],
        "health": ["check_health"],
        "losses": [
            "LOSS_SETTINGS",
            "EntailmentLoss",
            "MultilabelLoss",
            "SingleLabelLoss",
            "balanced_pos_weight",
            "classification_loss",
            "masked_token_loss",
            "score_masked_tokens_only",
        ],
        "optimization": [
            "TuningArguments",
            "check_tuning",
            "freeze",
            "grouped_optimizer",
            "regularizers",
            "unfreezing_callbacks",
        ],
        "trainer": ["EpochTrainingArguments", "LengthGroupedTrainer"],
    },
)
