"""Ways to classify texts: the methods that recipes train, compare or add to a model.

Each module holds one method, or one step that several recipes share. They rest on the models, the
trainer and the metrics of the rooms below.

- `linear`: fitted linear classifiers of words and of vectors, as plain arrays
- `baselines`: naive Bayes, TF-IDF and logistic regression on vectors
- `word_pipelines`: classic classifiers from flags: terms, classifier, strategy
- `strategies`: several labels per text: binary relevance, label powerset, classifier chain
- `trees`: fitted gradient-boosted trees, as plain arrays
- `task_words`: a linear model of words for each of several tasks, also for numbers
- `fold_baselines`: two baselines on the folds of a cross-validation
- `mean_pooling`: an encoder whose output is one vector per text
- `embeddings`: sentence embeddings, with a cache of vectors
- `static_embeddings`: vectors of tokens, distilled from an encoder
- `neighbours`: k nearest neighbours in a FAISS index; F1 for all k at once
- `log_odds`: the words that tell the texts of a label from the others
- `projection`: vectors of texts as points of a map
- `titles`: the first lines of texts, and embeddings of their own for them
- `probe`: logistic regression on embeddings, latent semantic analysis and words
- `attributions`, `linear_attributions`: what each word of a text adds to the logit of a label
- `uncertainty`: Monte-Carlo dropout: how far a trained model doubts its predictions
- `pseudo_labels`: teachers; the unlabelled texts that a student learns from, labels and weights
- `co_training`: two classifiers with different views of the texts label them for each other
- `self_training`: the probe learns from unlabelled texts; the choice of its settings
- `acquisition`: which texts to label next: strategies of active learning
- `active_learning`: the probe, fitted again after each batch of labels; its simulation
- `words_estimate`: the F1 of a classifier of words, out of fold, within seconds
- `patterns`: pattern-exploiting training: texts in patterns, words for labels, the mean of patterns
- `prompt_templates`: how prompts ask for labels: templates and verbalizers from YAML
- `prompting`: a causal language model continues prompts; words for the labels are scored
- `zero_shot`: no labels: phrases for labels, entailment scores, masked words, calibration
- `entailment`: sentence pairs that train a model for natural language inference
- `text_generation`: how a model that writes a text from another one chooses its tokens
- `text_sampling`: texts that a language model writes
- `image_predictor`: a trained model of images, applied to images of any size
- `table_classifier`: a trained classifier of table rows, and its rows for the Trainer
- `table_baselines`: logistic regression and trees on the folds of a table
- `windows`: long documents as overlapping windows of tokens
- `answer_windows`: questions with their contexts as overlapping windows of tokens
- `answer_spans`: answers from the logits of windows, and when there is none
- `answer_patterns`: answers by patterns, the baseline of question answering
- `augmentation`: flags of augmentation; applies augmentations to training texts
- `word_augmentation`: synonyms, swapped and deleted words, errors of spelling and typing
- `tfidf_augmentation`: words that say little about a text, replaced by others
- `model_augmentation`: words from a masked language model; back translation
- `image_neighbours`: the nearest image, a baseline of image classifiers
- `image_features`: features of images, in which generated and real ones are compared
- `feature_classifier`: which features these are; a classifier is trained for them if needed
- `latents`: ways through the latent space of a generator

May import: `shared.cli`, `shared.plots`, `shared.splitters`, `shared.data`, `shared.images`,
`shared.models`, `shared.training` and `shared.evaluation`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "acquisition": ["STRATEGIES", "Batch", "Pool", "choose_batch"],
        "active_learning": [
            "BatchProbe",
            "Round",
            "SimulationTask",
            "embed_names",
            "labels_to_reach",
            "simulate",
            "simulation_tasks",
        ],
        "answer_patterns": ["baseline_answers"],
        "answer_spans": [
            "Answer",
            "answer_record",
            "answer_settings",
            "best_answers",
            "choose_threshold",
            "load_answerer",
        ],
        "answer_windows": ["WINDOW", "check_windows", "question_windows"],
        "augmentation": [
            "NAMES_HELP",
            "AugmentationArguments",
            "add_augmented_copies",
            "augment",
            "augmentation_table",
            "load_augmentations",
            "tokenize_copies",
        ],
        "baselines": [
            "fit_and_score",
            "fit_words",
            "logistic_probe",
            "naive_bayes",
            "naive_bayes_labels",
            "tfidf_logistic_regression",
        ],
        "co_training": ["View", "co_train"],
        "embeddings": [
            "CachedEmbedder",
            "Embedder",
            "cached_vectors",
            "embed_split",
            "normalized",
        ],
        "entailment": ["CLASSES", "read_pairs", "tokenize_pairs", "topic_pairs"],
        "feature_classifier": ["FeatureArguments", "load_image_features"],
        "fold_baselines": ["fold_baselines"],
        "image_features": ["ImageFeatures", "check_sample_sizes"],
        "image_neighbours": ["nearest_image_classes"],
        "image_predictor": ["load_image_predictor"],
        "latents": ["corner_grid", "slerp"],
        "linear": [
            "LinearClassifier",
            "LinearEnsemble",
            "MixedFeatures",
            "WordClassifier",
            "WordFeatures",
            "fit_tfidf",
        ],
        "log_odds": ["WordCounts", "telling_words"],
        "mean_pooling": ["MeanPooling"],
        "neighbours": [
            "NearestNeighbours",
            "NeighbourVote",
            "choose_votes",
            "f1_grid",
            "micro_f1_by_k",
        ],
        "patterns": [
            "best_label_accuracy",
            "ensemble_scores",
            "label_word_ids",
            "soft_labels",
            "tokenize_pattern",
        ],
        "probe": ["LatentSemanticAnalysis", "fit_probe"],
        "projection": ["project"],
        "self_training": [
            "TITLE_WEIGHT",
            "ProbeInputs",
            "ProbeSettings",
            "choose_settings",
            "fit_with_self_training",
        ],
        "prompt_templates": ["PromptTemplates", "read_prompt_templates"],
        "prompting": [
            "Demonstrations",
            "PromptScorer",
            "Scoring",
            "WordsAfterPrompts",
            "load_words_after_prompts",
        ],
        "pseudo_labels": [
            "AcquisitionArguments",
            "StudentArguments",
            "Teacher",
            "TeacherPredictions",
            "choose_texts",
            "student_rows",
        ],
        "strategies": ["ClassifierChain", "LabelPowerset", "feature_weights", "fit_strategy"],
        "static_embeddings": ["StaticEncoder", "distil"],
        "table_baselines": ["TABLE_BASELINES", "score_table_baselines"],
        "table_classifier": ["load_table_classifier", "one_hot", "table_dataset"],
        "task_words": ["words_of_tasks"],
        "titles": ["TitledEmbedder", "have_titles"],
        "trees": ["BoostedTrees"],
        "text_generation": ["GenerationArguments", "generation_settings"],
        "text_sampling": ["SamplingArguments", "sample_tokens"],
        "uncertainty": ["DropoutPasses", "bald", "entropy", "label_variance"],
        "windows": ["WindowArguments", "Windows", "limit_windows"],
        "words_estimate": ["WordsEstimate", "words_out_of_fold"],
        "word_pipelines": ["WordArguments", "word_pipeline"],
        "zero_shot": [
            "CalibratedMean",
            "Calibration",
            "MaskedWords",
            "SentenceScorer",
            "check_lengths",
            "check_templates",
            "entailment_classes",
            "entailment_scores",
            "flatten_phrases",
            "label_phrases",
            "load_scoring_model",
            "note_crowding",
        ],
    },
)
