"""Training: everything between a loaded model with tokenised rows and a trained model.

Modules:

- `arguments`: the training flags of all recipes;
- `trainer`: the Trainer that all recipes use;
- `batches`: the order of the training rows, batches of texts of similar length;
- `prediction_batches`: the batches of a prediction on a CPU;
- `collators`: make batches of tokenised rows: padding, labels, masked tokens, augmented texts;
- `token_blocks`: texts as blocks of tokens of equal length, for language models;
- `sequences`: rows, batches and the Trainer of models that read a text and write another one;
- `multi_task`: batches, the loss and its weights of several tasks;
- `losses`: the loss functions, and weights for rare classes and labels;
- `cloze`: fill-in-the-blank training: words that stand for labels, at the mask of a pattern;
- `consistency`: training on unlabelled texts and changed copies of them; its losses are in
  `consistency_losses`;
- `adversarial`: a generator and a discriminator that learn from each other;
- `optimization`: learning rates per layer, frozen layers, adversarial training, mixup;
- `adapters`: tuning methods that train few weights, such as LoRA;
- `checkpoints`: find a checkpoint that a run can resume from, and check that it fits the run;
- `refit`: a second training on all labelled rows, for the epochs that the first one found;
- `rounds`: several trainings in one run, and their folders;
- `callbacks`: checkpoints on Ctrl-C, progress lines, the training log and its plot;
- `health`: checks before a training, such as the initial loss and the learning rate;
- `search`: hyper-parameter search: the trials of a recipe; its ranges are in `search_ranges`;
- `signals`: activations and gradients of layers;
- `fit`: whether a training has underfit or overfit, from its log;
- `techniques`: settings of training to compare, and what their sources say of them.
- `images`: batches of images, and the losses of segmentation and detection;

May import: `shared.cli`, `shared.plots`, `shared.splitters`, `shared.data`, `shared.images` and
`shared.models`.
"""

import lazy_loader

# Names are imported on first use, so that importing the package costs nothing.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "adapters": [
            "activation_bytes",
            "adapt",
            "add_adapter",
            "save_merged",
            "training_footprint",
        ],
        "adversarial": [
            "AdversarialLoss",
            "AdversarialOptimizer",
            "AdversarialProgress",
            "AdversarialTrainer",
            "SampleGrids",
            "judge_discriminator",
        ],
        "arguments": [
            "CheckpointArguments",
            "EpochTrainingArguments",
            "ImageTrainingArguments",
            "TableTrainingArguments",
        ],
        "callbacks": [
            "CheckpointOnSignal",
            "EarlyStoppingArguments",
            "ReadableProgress",
            "TrainingLog",
            "early_stopping",
        ],
        "checkpoints": [
            "check_resume_switch",
            "check_same_run",
            "find_checkpoint",
            "remove_checkpoints",
        ],
        "cloze": [
            "ClozeArguments",
            "ClozeCollator",
            "ClozeTrainer",
            "DecoupledLabelLoss",
            "LabelWords",
            "cloze_objective",
            "cloze_rows",
        ],
        "collators": [
            "AugmentingCollator",
            "MaskingCollator",
            "MultilabelCollator",
            "NextTokenCollator",
            "PaddingCollator",
            "SoftLabelCollator",
            "TableCollator",
            "with_soft_labels",
        ],
        "consistency": ["ConsistencyArguments", "ConsistencyTrainer"],
        "consistency_losses": ["AnnealedLoss", "ConsistencyLoss", "LabelAlignment"],
        "fit": ["judge_fit"],
        "health": ["ActivationMonitor", "check_health"],
        "images": [
            "ImageCollator",
            "ImageLossArguments",
            "image_loss",
            "image_rows",
            "predict_masks",
        ],
        "losses": [
            "LOSS_SETTINGS",
            "EntailmentLoss",
            "MultilabelLoss",
            "RegressionLoss",
            "SequenceLoss",
            "SingleLabelLoss",
            "balanced_pos_weight",
            "classification_loss",
            "masked_token_loss",
            "next_token_loss",
            "score_masked_tokens_only",
            "span_loss",
            "token_losses",
        ],
        "multi_task": [
            "MultiTaskCollator",
            "MultiTaskLoss",
            "TaskWeightArguments",
            "check_task_weights",
            "multi_task_loss",
            "task_dataset",
        ],
        "optimization": [
            "TuningArguments",
            "check_tuning",
            "freeze",
            "grouped_optimizer",
            "regularizers",
            "unfreezing_callbacks",
        ],
        "refit": ["RefitArguments", "refit_arguments", "train_again"],
        "rounds": ["round_arguments"],
        "sequences": [
            "SequenceCollator",
            "SequenceTrainer",
            "decode_texts",
            "losses_of_tokens",
            "tokenize_pairs",
        ],
        "search": ["Objective", "Search"],
        "search_ranges": ["read_ranges"],
        "signals": ["layer_signals"],
        "techniques": ["BASES", "CLAIMS", "TECHNIQUES", "best_rate", "departures", "run_arguments"],
        "token_blocks": ["token_blocks", "token_stream"],
        "trainer": ["LengthGroupedTrainer", "NotFiniteError"],
    },
)
