"""The features in which generated images are compared with real ones: which ones, and their flags.

They are those of a classifier that is named, of one that is trained on the classes of the images
first, or the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.cli.arguments import flag
from shared.cli.launch import print_once
from shared.images.reading import ImageData
from shared.methods.image_features import ImageFeatures, load_feature_network
from shared.models.images import (
    ImageModelArguments,
    build_image_model,
    channel_statistics,
    write_preprocessor,
)

if TYPE_CHECKING:
    from shared.training.arguments import ImageTrainingArguments

# Flags of the run that are also those of the training of the classifier.
_SHARED_FLAGS = ("seed", "use_cpu", "full_determinism", "dataloader_num_workers", "disable_tqdm")


@dataclass
class FeatureArguments:
    """Flags of the figures of generated images."""

    features: str = flag(
        "auto",
        "Where the Frechet distance is measured: the folder of a classifier of images of this "
        "project; 'auto' (train one, or pixels without classes); 'pixels' (default: auto).",
    )
    feature_size: int = flag(
        32, "Features: so many principal components (default: 32).", least=1, most=4096
    )
    feature_epochs: float = flag(
        5, "Epochs of the classifier of --features auto (default: 5).", above=0, most=1000
    )
    n_samples: int = flag(
        2000, "Generated images that the figures are made of (default: 2000).", least=2, most=10**6
    )


def load_image_features(
    args: Any, data: ImageData, *, is_resumed: bool
) -> tuple[ImageFeatures, str]:
    """Return the features of the figures, and what they are called; train a classifier if needed.

    Parameters
    ----------
    args : FeatureArguments, AugmentationArguments and TrainingArguments
        A new classifier is kept in the folder ``features`` of the output.
    data : ImageData
    is_resumed : bool
        The classifier that the run has trained before is used again.

    Raises
    ------
    UserError
        As `load_feature_network`.
    """
    train = data.images[data.parts["train"]]
    if args.features == "pixels" or (args.features == "auto" and len(data.class_names) < 2):
        return ImageFeatures(train, args.feature_size), "pixels"
    name, title = args.features, f"the classifier {args.features}"
    if args.features == "auto":
        folder = Path(args.output_dir, "features")
        if not (is_resumed and (folder / "config.json").is_file()):
            _train_classifier(args, data, folder)
        name, title = str(folder), "a classifier of these images"
    return ImageFeatures(train, args.feature_size, *load_feature_network(name)), title


def _train_classifier(args: Any, data: ImageData, folder: Path) -> None:
    """Train a small classifier on the classes of the images, and save it."""
    from transformers import set_seed

    from shared.evaluation.metrics import two_output_metrics
    from shared.training.callbacks import ReadableProgress
    from shared.training.images import ImageCollator, image_rows
    from shared.training.losses import SingleLabelLoss
    from shared.training.trainer import LengthGroupedTrainer

    print_once("\nTraining the classifier that gives the features")
    set_seed(args.seed)
    mean, std = channel_statistics(data.images[data.parts["train"]])
    sizes = ImageModelArguments(width=16, num_levels=3)
    trainer = LengthGroupedTrainer(
        model=build_image_model(sizes, "classify", data.class_names),
        args=classifier_settings(args, folder),
        train_dataset=image_rows(data, "train"),
        data_collator=ImageCollator(data, mean, std, args, seed=args.seed),
        compute_loss_func=SingleLabelLoss(),
        compute_metrics=two_output_metrics(len(data.class_names)),
        callbacks=[ReadableProgress()],
    )
    trainer.train()
    accuracy = trainer.predict(image_rows(data, "test")).metrics["test_accuracy"]
    print_once(f"  its test accuracy: {accuracy:.3f}")
    trainer.save_model()
    if args.process_index == 0:
        write_preprocessor(folder, data.images.shape[1:3], mean, std)
    trainer.accelerator.wait_for_everyone()


def classifier_settings(args: Any, folder: Path) -> ImageTrainingArguments:
    """Return the settings of the classifier of ``--features auto``, whose folder is given.

    Flags of the generator's training do not change it: figures of generators that were trained in
    different ways are measured on the same features.
    """
    from shared.training.arguments import ImageTrainingArguments

    return ImageTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=args.feature_epochs,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        warmup_steps=0,
        max_grad_norm=0.0,
        bf16=False,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        **{name: getattr(args, name) for name in _SHARED_FLAGS},
    )
