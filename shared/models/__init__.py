"""Weights: loading, classification heads, networks from scratch, tokenizers.

May import: `shared.cli`, `shared.data`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "from_scratch": [
            "NetworkArguments",
            "TransformerArguments",
            "build_network",
            "build_transformer",
            "read_word_vectors",
        ],
        "heads": [
            "HeadArguments",
            "PooledForSequenceClassification",
            "append_mean_pooling",
            "fit_head",
            "head_settings",
        ],
        "loading": [
            "DEFAULT_MODEL",
            "DEFAULT_MODEL_ON_HUB",
            "has_dropout",
            "limit_length",
            "load_classifier_to_adapt",
            "load_encoder",
            "load_masked_language_model",
            "load_sequence_classifier",
            "load_tokenizer",
            "longest_input",
            "resolve_model",
        ],
        "networks": [
            "TextCNNForSequenceClassification",
            "TextNgramsForSequenceClassification",
            "TextRNNForSequenceClassification",
        ],
        "tokenizers": [
            "PADDING_MULTIPLE",
            "tokenization_statistics",
            "tokenize",
            "train_tokenizer",
        ],
    },
)
