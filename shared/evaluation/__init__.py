"""Evaluation: turn logits into labels, tune thresholds, compute metrics and their uncertainty.

Every module except `cross_validation`, and those of generated texts, works on NumPy arrays alone.

- `decisions`: from logits to scores, from scores to labels; tuning of thresholds.
- `metrics`: metric functions for the Trainer, and per-label reports.
- `importance`: which columns of a table a classifier relies on.
- `label_errors`: rows that are likely to have a wrong label.
- `thresholds`: thresholds that are tuned, or one fixed number: the flag `--thresholds`
- `reliability`: how far scores are from probabilities
- `rules`: the decision rule that a tagger carries; records of predictions
- `evaluate_modules`: the same metrics as modules of the `evaluate` library.
- `text_modules`: metrics of generated texts, answers and log-likelihoods, for the same library.
- `answers`: exact match and F1 of answers, as SQuAD counts them.
- `generated_texts`: these metrics by name, and the first sentence as a summary to compare with.
- `evaluate_base`: what the modules for that library have in common.
- `meteor`: METEOR with a WordNet of any origin.
- `likelihoods`: perplexity, and the log-likelihoods of a causal language model.
- `task_metrics`: metrics of numbers, and of several tasks at once.
- `calibration`: probabilities from scores; confidence in a row; thresholds that reach a precision.
- `bootstrap`: confidence intervals, and paired comparison of two systems.
- `agreement`: how far labels of a model agree with those of a person, or of another model;
  Cohen's kappa; when labelling more no longer pays; Fleiss' kappa and Krippendorff's alpha of any
  number of annotators.
- `annotators`: where annotators differ: by pair, by label and by annotator.
- `merging`: one set of labels from those of several annotators: majority, Dawid-Skene.
- `collapse`: whether a training on unlabelled texts has collapsed.
- `cross_validation`: the files of a fold, and out-of-fold scores.
- `image_samples`: Frechet distance, coverage and collapse of generated images.
- `image_tasks`: the metrics of the tasks of images.
- `detection`: mean average precision of boxes, as COCO defines it.
- `segmentation`: intersection over union of classes of pixels.

May import: `shared.training` and the rooms below it.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": [
            "agreement",
            "agreement_table",
            "alpha_interval",
            "answer_counts",
            "decision_kappa",
            "fleiss_kappa",
            "is_stable",
            "krippendorff_alpha",
        ],
        "annotators": [
            "AnnotatorPairs",
            "annotator_labels",
            "label_agreement",
            "label_confusions",
        ],
        "answers": ["answer_figures", "squad_scores"],
        "bootstrap": ["bootstrap_interval", "paired_bootstrap", "statistic_interval"],
        "calibration": ["Calibration", "calibrate", "fit_calibration"],
        "collapse": ["describe_collapse"],
        "cross_validation": [
            "Fold",
            "join_folds",
            "make_folds",
            "score_folds",
            "unfinished_folds",
        ],
        "decisions": [
            "at_least_one",
            "best_cutoff",
            "choose_labels",
            "f1_by_threshold",
            "f1_by_top_k",
            "sigmoid",
            "softmax",
            "top_k",
            "tune_thresholds",
        ],
        "detection": [
            "average_precisions",
            "detection_metrics",
            "kept_boxes",
            "suppress_boxes",
            "true_boxes",
            "tune_score",
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
        "generated_texts": ["TEXT_METRICS", "first_sentence", "score_texts"],
        "image_samples": [
            "describe_sample_collapse",
            "frechet_distance",
            "gaussian_distance",
            "nearest",
            "sample_figures",
        ],
        "image_tasks": ["image_metrics"],
        "importance": ["permutation_importance"],
        "likelihoods": ["causal_log_likelihoods", "distribution_perplexity", "perplexity"],
        "merging": ["merge_by_dawid_skene", "merge_by_majority"],
        "metrics": [
            "classification_report",
            "f1_scores",
            "multilabel_metrics",
            "per_label_report",
            "single_label_metrics",
            "two_output_metrics",
        ],
        "rules": ["DecisionRule", "prediction_records", "scores_per_text"],
        "segmentation": ["class_iou", "pixel_counts", "segmentation_metrics"],
        "task_metrics": ["held_out_scores", "multi_task_metrics", "regression_metrics"],
        "text_modules": [
            "BitsPerByte",
            "BitsPerCharacter",
            "Bleu",
            "ChrF",
            "ExactMatch",
            "Meteor",
            "Perplexity",
            "Rouge",
            "SquadScores",
        ],
        "thresholds": ["THRESHOLDS_HELP", "find_thresholds", "fixed_threshold", "tuned_rule"],
    },
)
