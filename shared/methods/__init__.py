"""Ways to classify: baselines, few-label probe, neighbours, zero-shot, windows, augmentation.

May import: `shared.evaluation` and the floors below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "augmentation": [
            "NAMES_HELP",
            "AugmentationArguments",
            "add_augmented_copies",
            "augment",
            "augmentation_table",
            "load_augmentations",
        ],
        "baselines": [
            "fit_and_score",
            "fit_scorer",
            "logistic_probe",
            "naive_bayes",
            "naive_bayes_labels",
            "tfidf_logistic_regression",
        ],
        "embeddings": [
            "CachedEmbedder",
            "MeanPooling",
            "cached_vectors",
            "embed_split",
            "normalized",
        ],
        "fold_baselines": ["fold_baselines"],
        "neighbours": ["NearestNeighbours", "f1_grid", "micro_f1_by_k"],
        "probe": ["fit_probe", "latent_semantic_vectors", "self_train"],
        "windows": ["WindowArguments", "Windows", "limit_windows"],
        "zero_shot": [
            "CLASSES",
            "MaskedWords",
            "calibrate",
            "check_lengths",
            "check_templates",
            "entailment_classes",
            "entailment_scores",
            "flatten_phrases",
            "label_phrases",
            "read_pairs",
            "tokenize_pairs",
            "tokenize_texts",
            "topic_pairs",
        ],
    },
)
