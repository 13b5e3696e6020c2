"""Classify, segment or detect in your images, by a network from scratch or a checkpoint of the hub.

Why: one trunk of convolutions serves three tasks: a class for each image, a class for each pixel
(U-Net), or a box around each object (map of centres, without anchors). From scratch it takes
minutes on two cores, and its steps can be compared: plain convolutions, batch normalisation,
residual blocks (--block). A hub checkpoint (--model) is trained further.

    accelerate launch recipes/images.py
    accelerate launch recipes/images.py --data my_photos/ --image_size 128 --flip horizontal
    accelerate launch recipes/images.py --task segment --data my_scenes.zip --class_weight balanced
    accelerate launch recipes/images.py --config recipes/configs/images_bccd.yaml
    accelerate launch recipes/images.py --model outputs/images --predict new_photos/ \\
        --output_dir outputs/new_photos

- classify: --data is a folder of images for each class, a .zip of that, or a .npz of arrays. A .npz
  can hold a second input (--second_input, a class number beside the image) and a second output
  (--second_output). With several values of --second_weight, each is trained, and the one with the
  best validation accuracy of the first output is kept.
- segment: images/ and masks/ with files of the same names; a mask has one channel of class numbers,
  named in classes.json. Masks that number objects of one class: --instance_class person.
- detect: images and annotations.json: a list of {"file", "split", "objects": [{"label", "box"}]}
  with boxes as x1, y1, x2, y2 in pixels, or COCO's form.

Folders train, valid and test, or the key "split", are the parts; what is missing is drawn, with all
classes spread evenly. Exact duplicates across the parts are left out of the training. All images
get the same size (--image_size): to classify they are stretched, else they keep their proportions.
They stay in memory, three bytes a pixel. Boxes and masks move with their image in the random
changes (--flip, --shift, ...); --preprocess applies classic operations to all images.

report.html has the worst images. Test figures: accuracy beside that of the nearest training image;
mean intersection over union; mean average precision as COCO defines it, all at --image_size.

--predict applies a trained --model to new images of any size. predictions.jsonl has a line for each
(label and scores; the mask and the share of each class; boxes in pixels of the image), masks/ and
overlays/ have pictures in the size of the image.

Expect from scratch, in three to nine minutes of processor time each (recipes/FIGURES.md): accuracy
.695 on CIFAR-10 (9,000 training images) and .78 to .83, by seed, on seven types of clouds (422),
mean IoU .410 on CamVid, IoU .720 on the pedestrians of Penn-Fudan, mAP50 .895 on blood cells.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.evaluation import image_metrics, tune_score
from shared.images import (
    AugmentationArguments,
    ImageArguments,
    check_task_flags,
    load_images,
    load_new_images,
)
from shared.methods import load_image_predictor
from shared.models import (
    ImageModelArguments,
    build_image_model,
    channel_statistics,
    check_sizes,
    read_preprocessor,
    write_preprocessor,
)
from shared.reports import (
    image_results,
    push_to_hub,
    training_sheet,
    write_image_predictions,
    write_image_results,
)
from shared.training import (
    CheckpointOnSignal,
    ImageCollator,
    ImageLossArguments,
    ImageTrainingArguments,
    LengthGroupedTrainer,
    ReadableProgress,
    check_health,
    image_loss,
    image_rows,
    remove_checkpoints,
    round_arguments,
)

BEST = {"classify": "accuracy", "segment": "mean_iou", "detect": "map50"}


@dataclass
class ImageRecipeArguments(
    ImageArguments,
    AugmentationArguments,
    ImageModelArguments,
    ImageLossArguments,
    ImageTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    predict: str | None = flag(
        None, "Apply --model to this image, or those of this folder, .zip or .npz; train nothing."
    )
    health_check: bool = flag(False, "Only check data, model and learning rate (default: false).")
    output_dir: str = flag("outputs/images", "Output folder (default: outputs/images).")
    num_train_epochs: float = flag(20, "Epochs (default: 20).")
    learning_rate: float = flag(2e-3, "Peak learning rate (default: 2e-3).")
    lr_scheduler_type: str = flag("cosine", "Course of the learning rate (default: cosine).")
    weight_decay: float = flag(0.05, "Weight decay (default: .05).")
    metric_for_best_model: str | None = flag(
        None, "Metric of the best checkpoint (default: accuracy, mean_iou or map50, by --task)."
    )

    def __post_init__(self):
        check_task_flags(self)
        if len(self.second_weight) > 1 and not (self.second_output and self.valid_size):
            raise UserError("--second_weight: several need --second_output and validation images")
        if self.predict and not self.model:
            raise UserError("--predict: name the trained model by --model")
        check_sizes(self, self.task)
        self.metric_for_best_model = self.metric_for_best_model or BEST[self.task]
        super().__post_init__()


def main() -> None:
    """Load and split images, build the network, train, evaluate on the test set once, save."""
    args = parse_arguments(ImageRecipeArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.predict:
        predict(args, output_dir)
        return

    # Load and split. A checkpoint knows the size and the mean of the images that it has seen.
    known = read_preprocessor(args.model)
    args.image_size = args.image_size or known.get("size", [])
    args.preprocess = args.preprocess or known.get("operations", [])
    with args.main_process_first(desc="reading images"):
        data = load_images(args, args.task)
    print_once(f"\nData\n{data.describe()}")
    names, size = data.class_names, data.images.shape[1:3]
    mean, std = channel_statistics(data.images[data.parts["train"]])
    mean, std = known.get("image_mean", mean), known.get("image_std", std)

    # What the model reads and how it is judged.
    if not len(data.parts["valid"]):
        args.eval_strategy, args.load_best_model_at_end = "no", False
    collator = ImageCollator(
        data, mean, std, args, seed=args.seed, epoch=lambda: int(trainer.state.epoch or 0)
    )
    train = image_rows(data, "train", augment=True)
    valid, test = (image_rows(data, part) for part in ("valid", "test"))

    def build_trainer(run_args, second_weight):
        """Return a Trainer of a new model; `second_weight` is the share of a second output."""
        set_seed(args.seed)
        model = build_image_model(args, args.task, names, data.context_names, data.second_names)
        loss = image_loss(args, data, model, second_weight=second_weight)
        return LengthGroupedTrainer(
            model=model,
            args=run_args,
            train_dataset=train,
            eval_dataset=valid,
            data_collator=collator,
            compute_loss_func=loss,
            compute_metrics=image_metrics(data),
            # Instead of a number for each pixel, the Trainer collects counts, or boxes.
            preprocess_logits_for_metrics=getattr(loss, "measure", None),
            callbacks=[CheckpointOnSignal(), ReadableProgress()],
        )

    # Train; with a second output, once for each weight. The best on validation is kept.
    weights = args.second_weight if data.second_names else [0.0]
    trainers, sweep = [], []
    for number, weight in enumerate(weights):
        run_args = round_arguments(args, number, num_train_epochs=args.num_train_epochs)
        trainer = build_trainer(run_args, weight)
        if args.health_check:
            trainer.args.output_dir = args.output_dir
            check_health(trainer, None, label_counts=data.label_counts())
            return
        print_once(f"\nTraining ({trainer.model.num_parameters():,} weights)")
        if data.second_names:
            print_once(f"share of {args.second_output} in the loss: {weight}")
        training = trainer.train(resume_from_checkpoint=run_args.resume_from_checkpoint).metrics
        trainers.append((trainer, training))
        figures = trainer.evaluate() if len(weights) > 1 else {}
        sweep.append({"second_weight": weight, **figures})
    best = int(np.argmax([row.get(f"eval_{BEST[args.task]}", 0) for row in sweep]))
    trainer, training = trainers[best]
    history = list(trainer.state.log_history)

    # Evaluate on the test set, once. Boxes count from the score on that suits validation images.
    if args.task == "detect":
        score = tune_score(trainer.predict(valid)) if len(valid) else 0.5
        trainer.model.config.score_threshold = score
    output = trainer.predict(test, metric_key_prefix="test")
    results = image_results(data, output.predictions, trainer.model, collator)

    # Save the model before the pictures are drawn.
    trainer.save_model(args.output_dir)
    if args.process_index != 0:
        return
    write_preprocessor(output_dir, size, mean, std, args.preprocess)
    of_weights = {"second_weights": sweep} if len(sweep) > 1 else {}
    report = write_image_results(
        output_dir,
        trainer.model,
        data,
        results,
        output.metrics | training | of_weights | {"seed": args.seed},
        base_model=args.model,
        operations=args.preprocess,
        log_history=history,
        training_images=training_sheet(data, train, collator, mean, std),
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\n{report}\n\nEverything is in {output_dir}.")


def predict(args: ImageRecipeArguments, output_dir: Path) -> None:
    """Apply a trained model to new images; write predictions, masks, overlays and a page."""
    predictor = load_image_predictor(args.model)
    args.image_size, args.preprocess = list(predictor.size), predictor.operations
    with args.main_process_first(desc="reading images"):
        data, original = load_new_images(args, predictor.task, predictor.context_names)
    trainer = LengthGroupedTrainer(
        model=predictor.model,
        args=args,
        data_collator=ImageCollator(data, predictor.mean, predictor.std, args, seed=args.seed),
        preprocess_logits_for_metrics=predictor.outputs,
        callbacks=[ReadableProgress()],
    )
    outputs = trainer.predict(image_rows(data, "new")).predictions
    if args.process_index != 0:
        return
    table = write_image_predictions(output_dir, data, original, predictor, outputs)
    print(f"\n{table}\n\n{len(data.files):,} images are predicted, in {output_dir}.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
