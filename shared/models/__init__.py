"""Models and tokenizers: find, load and check them, build them from scratch, put heads on them.

This room is for everything that has weights or a vocabulary. It does not train models; that is
`shared.training`.

- `sources`: turn the value of ``--model`` into a folder or a hub id.
- `language_models`: the default language model, converted from its package.
- `causal_scoring`: what a causal language model says after a prompt, from cached prompts.
- `loading`: load models and tokenizers, and refuse those that are damaged or do not fit.
- `encoders`: the flags of an encoder that is fine-tuned; its folder and tokenizer; its new head.
- `lengths`: how many tokens a model can read, and where a tokenizer truncates texts.
- `padding`: make the outputs of a model for a text independent of the texts beside it.
- `tokenizers`: tokenise data sets, learn a tokenizer from texts, measure tokenizers.
- `lossless_tokenizers`: learn tokenizers for models that write; decoding gives the text back.
- `transformer`: the transformer from its parts, encoder or decoder; needs no other module.
- `text_generators`: transformers that write texts; needs `transformer` only.
- `recurrent_generators`: a recurrent network that writes a text from another one; needs
  `text_generators` only.
- `forecasters`: models that forecast time series; needs `transformer` only.
- `forecasting`: the flags of these models; how they are built and loaded.
- `heads`: classification heads on an encoder or decoder; needs `transformer` only.
- `head_arguments`: the flags of these heads.
- `first_weights`: what layers start from: a linear fit, mean pooling, random weights of a scheme.
- `output_layer`: the layer that computes the logits, and a shift of them.
- `multi_task`: one encoder with the outputs of several tasks; needs `heads` only.
- `task_models`: the flags of this model, and how it is built for rows.
- `networks`: small networks over word vectors: n-grams, MLP, CNN, RNN; needs no other module.
- `deep_averaging`: the flags of an MLP, and how it is built.
- `small_language_models`: counts, bigram, MLP and recurrent networks that predict the next token;
  needs no other module.
- `tabular_networks`: an ensemble of small networks over the columns of a table; needs `networks`
  only.
- `tabular`: the flags of these, and how they are built for training rows.
- `from_scratch`: build networks and transformers with random weights; read word vectors.
- `image_networks`: convolutional networks that classify, segment and detect; needs no other module.
- `images`: the flags of these, new ones, and image models of the hub.
- `gan_networks`: a generator of images and its discriminator; needs no other module.
- `gans`: the flags of these, and new ones.

May import: `shared.cli`, `shared.plots`, `shared.splitters`, `shared.data`, `shared.images`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "causal_scoring": [
            "PromptReader",
            "check_cache",
            "common_beginning",
            "halve_precision",
            "plain_tokens",
        ],
        "deep_averaging": ["MLPArguments", "build_mlp"],
        "encoders": [
            "EncoderArguments",
            "EncoderChoiceArguments",
            "find_encoder",
            "load_classifier_to_train",
        ],
        "first_weights": [
            "INITIALIZATIONS",
            "append_mean_pooling",
            "fit_head",
            "initialize_layers",
        ],
        "forecasters": ["Forecaster", "ForecasterConfig"],
        "forecasting": ["ForecasterArguments", "build_forecaster", "load_forecaster"],
        "from_scratch": [
            "LANGUAGE_MODELS",
            "LanguageModelArguments",
            "NetworkArguments",
            "Seq2SeqArguments",
            "TransformerArguments",
            "build_language_model",
            "build_network",
            "build_seq2seq_model",
            "build_transformer",
            "read_word_vectors",
        ],
        "gan_networks": ["GanModel"],
        "gans": ["GanArguments", "build_gan", "load_gan"],
        "head_arguments": [
            "HeadArguments",
            "check_n_layers",
            "head_settings",
        ],
        "heads": [
            "PooledForSequenceClassification",
        ],
        "image_networks": [
            "ImageTrunkForClassification",
            "ImageTrunkForDetection",
            "ImageTrunkForSegmentation",
        ],
        "images": [
            "ImageModelArguments",
            "build_image_model",
            "channel_statistics",
            "check_sizes",
            "load_image_model",
            "read_preprocessor",
            "write_preprocessor",
        ],
        "language_models": ["DEFAULT_LANGUAGE_MODEL", "resolve_language_model"],
        "lengths": ["limit_length", "longest_input"],
        "loading": [
            "has_dropout",
            "load_causal_language_model",
            "load_classifier_to_adapt",
            "load_encoder",
            "load_masked_language_model",
            "load_multi_task_model",
            "load_question_answerer",
            "load_sequence_classifier",
            "load_tokenizer",
            "load_translator",
        ],
        "lossless_tokenizers": [
            "encode_prompt",
            "train_lossless_tokenizer",
            "train_pair_tokenizer",
        ],
        "multi_task": ["MultiTaskModel"],
        "task_models": ["TaskModelArguments", "build_multi_task_model"],
        "networks": [
            "TextCNNForSequenceClassification",
            "TextMLPConfig",
            "TextMLPForSequenceClassification",
            "TextNgramsForSequenceClassification",
            "TextRNNForSequenceClassification",
        ],
        "output_layer": ["shift_logits"],
        "recurrent_generators": ["RecurrentForSeq2SeqLM"],
        "small_language_models": [
            "BigramForCausalLM",
            "MLPForCausalLM",
            "NgramForCausalLM",
            "RNNForCausalLM",
            "count_ngrams",
        ],
        "sources": [
            "DEFAULT_MODEL",
            "DEFAULT_MODEL_ON_HUB",
            "TEXT_PREFIX_HELP",
            "TRUNCATION_SIDE_HELP",
            "choose_text_prefix",
            "resolve_model",
        ],
        "tabular": ["TabularArguments", "build_tabular_model"],
        "tabular_networks": ["TabularForSequenceClassification", "join_members"],
        "text_generators": ["TransformerForCausalLM", "TransformerForSeq2SeqLM"],
        "tokenizers": [
            "PADDING_MULTIPLE",
            "UNKNOWN_LIMIT",
            "check_unknown_tokens",
            "count_tokens",
            "tokenization_statistics",
            "tokenize",
            "tokenize_texts",
            "train_tokenizer",
            "unknown_token_share",
        ],
        "transformer": ["TransformerConfig", "TransformerModel"],
    },
)
