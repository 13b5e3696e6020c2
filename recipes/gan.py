"""Generate images like yours, by a generator that learns against a discriminator.

Why: a generator that is trained from scratch makes new images of one kind (digits, letters,
textures), small ones on a CPU in minutes. Its training is also the one that fails in the most ways:
the samples repeat themselves, or the discriminator wins. Both are measured and said.

    accelerate launch recipes/gan.py
    accelerate launch recipes/gan.py --data my_photos/ --image_size 64 --flip horizontal
    accelerate launch recipes/gan.py --config recipes/configs/gan_mnist.yaml
    accelerate launch recipes/gan.py --data my_arrays.npz --features outputs/my_classifier
    accelerate launch recipes/gan.py --model outputs/gan --generate 100 --output_dir outputs/new

- --architecture gan: fully connected layers (Goodfellow et al. 2014); dcgan: convolutions by the
  rules of Radford et al. 2016.
- Each step is one of the discriminator, then one of the generator, each with an Adam and a learning
  rate of its own (--discriminator_learning_rate). --label_smoothing_factor lowers the target of
  real images only (Salimans et al. 2016). --ema averages the generator's weights over the steps.
- --data: a folder or .zip of images, a .npz of arrays; classes (a folder for each) are not needed.

Figures: the Frechet distance of Heusel et al. 2017, but on the features of --features: a classifier
of images that this project has trained (a folder), or one that is trained on the classes of these
images first (the default, kept in the folder "features" of the output), or pixels, if there are no
classes. Compare figures with the same features, test images and --n_samples only; those on
Inception's features are others. Beside it: the figure of training images, which is the best to
expect, and of noise; the share of test images with a sample near them (coverage); whether samples
repeat themselves or training images. The best epoch is chosen on validation images.

Output: the model (generator and discriminator), metrics.json, plots/ (samples, interpolation, a GIF
over the epochs), samples/ (a grid of the same latent vectors for each epoch), report.html.
--generate writes new images of a trained --model into images/, others with another --seed.

Expect, on one core (recipes/FIGURES.md): the sample in 1.5 minutes, Frechet distance 3.8 (training
images .5); 7,000 digits of MNIST in 8 minutes, 4.3 (.14); Omniglot in 5 minutes, 6.5 (.10); 422
photographs of clouds in 7 minutes, 11.7 (1.3).
"""

from dataclasses import dataclass
from typing import Literal

from transformers import set_seed

from shared.cli import (
    UserError,
    exit_on_user_error,
    flag,
    parse_arguments,
    print_once,
    start_recipe,
)
from shared.evaluation import sample_figures
from shared.images import AugmentationArguments, ImageFileArguments, load_images
from shared.methods import FeatureArguments, check_sample_sizes, load_image_features
from shared.models import GanArguments, build_gan, load_gan
from shared.reports import (
    GRID,
    GRIDS,
    count_channels,
    draw_samples,
    generator_results,
    push_to_hub,
    weight_counts,
    write_generator_results,
    write_samples,
)
from shared.training import (
    AdversarialLoss,
    AdversarialProgress,
    AdversarialTrainer,
    CheckpointOnSignal,
    ImageCollator,
    ImageTrainingArguments,
    SampleGrids,
    check_health,
    find_checkpoint,
    image_rows,
    remove_checkpoints,
)

CENTRE = [0.5] * 3  # mean and deviation that bring pixels to the range of tanh, -1 to 1


@dataclass
class GanRecipeArguments(
    ImageFileArguments,
    AugmentationArguments,
    FeatureArguments,
    GanArguments,
    ImageTrainingArguments,
):
    """The flags of this recipe, and the Trainer defaults that it changes."""

    data: str = flag(
        "sample",
        "Images: 'sample' (scikit-learn's handwritten digits, the default), a folder or a .zip of "
        "it, with a folder for each class or without, or a .npz of arrays. Folders named train, "
        "valid and test, or ending so, are the parts.",
    )
    colours: Literal["auto", "grey", "colour"] = flag(
        "auto", "Channels: 1 (grey), 3, or what the images need (default: auto)."
    )
    loss: Literal["bce", "hinge", "least_squares"] = flag(
        "bce", "Cross-entropy, hinge or squared differences (default: bce)."
    )
    model: str | None = flag(None, "With --generate: folder of a trained model (default: none).")
    generate: int | None = flag(
        None, "Write so many images of a trained --model; train nothing.", least=1, most=10**6
    )
    health_check: bool = flag(
        False, "Only check images, networks and the discriminator's learning rate (default: false)."
    )
    output_dir: str = flag("outputs/gan", "Output folder (default: outputs/gan).")
    num_train_epochs: float = flag(60, "Epochs (default: 60).")
    learning_rate: float = flag(
        1e-3, "Learning rate of the generator; lower it for many images (default: 1e-3)."
    )
    discriminator_learning_rate: float | None = flag(
        None, "Learning rate of the discriminator (default: the same).", above=0
    )
    adam_beta1: float = flag(0.5, "First moment of both Adams (default: .5).")
    lr_scheduler_type: str = flag("constant", "Course of both rates (default: constant).")
    warmup_steps: float = flag(0, "Warm-up steps; below 1: share of all steps (default: 0).")
    max_grad_norm: float = flag(
        0.0, "Largest norm of the generator's gradient; 0: any (default: 0)."
    )
    bf16: bool | None = flag(False, "Train in bfloat16 (default: false).")
    metric_for_best_model: str | None = flag(
        "frechet_distance", "Metric of the best checkpoint (default: frechet_distance)."
    )
    greater_is_better: bool | None = flag(
        None, "Whether a higher metric is better (default: all but frechet_distance)."
    )

    def __post_init__(self):
        if bool(self.model) != bool(self.generate):
            raise UserError("--model, --generate: give both, or none of them")
        if self.mixup:
            raise UserError("--mixup: the generator would learn mixtures; remove it")
        if self.loss == "hinge" and self.label_smoothing_factor:
            raise UserError("--label_smoothing_factor: the hinge loss has no targets to smooth")
        if self.greater_is_better is None:
            metric = (self.metric_for_best_model or "").removeprefix("eval_")
            self.greater_is_better = metric != "frechet_distance"
        super().__post_init__()


def main() -> None:
    """Load and split images, build both networks, train, measure samples on the test set, save."""
    args = parse_arguments(GanRecipeArguments, description=__doc__)
    output_dir = start_recipe(args)
    if args.generate:
        model = load_gan(args.model)
        if args.process_index == 0:
            write_samples(model.to(args.device), output_dir, args.generate, args.seed)
            print(f"\n{args.generate:,} images are in {output_dir / 'images'}.")
        return
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)

    # Load and split.
    with args.main_process_first(desc="reading images"):
        data = load_images(args, "generate")
    channels = count_channels(data, args.colours)
    print_once(f"\nData\n{data.describe()}, {'grey' if channels == 1 else 'in colours'}")
    images = {part: data.images[rows] for part, rows in data.parts.items()}
    for part, n in (
        ("train", max(args.per_device_train_batch_size, 2)),
        ("test", args.feature_size + 1),
    ):
        if len(images[part]) < n:
            raise UserError(
                f"--data {args.data}: has {len(images[part])} {part} images, and needs {n}; add "
                "some, or lower --per_device_train_batch_size and --feature_size"
            )

    # The features of the figures, and what is measured of samples in each evaluation.
    features, network = None, "pixels"
    if not args.health_check:
        features, network = load_image_features(args, data, is_resumed=checkpoint is not None)
        print_once(f"Features of the figures: {features.n_features} components of {network}")
        check_sample_sizes(features, n_samples=args.n_samples, n_valid=len(images["valid"]))
        real = features(images["valid"]) if len(images["valid"]) else None

    def measure(model):
        samples = model.sample(args.n_samples, args.seed + 1).numpy()
        return sample_figures(features(samples), real)

    # The two networks.
    set_seed(args.seed)
    model = build_gan(args, images["train"].shape[1:3], channels)
    if not len(images["valid"]):
        args.eval_strategy, args.load_best_model_at_end = "no", False
    loss = AdversarialLoss(args.loss, label_smoothing=args.label_smoothing_factor)
    trainer = AdversarialTrainer(
        model=model,
        args=args,
        train_dataset=image_rows(data, "train", augment=True),
        eval_dataset=image_rows(data, "valid"),
        data_collator=ImageCollator(
            data, CENTRE, CENTRE, args, seed=args.seed, epoch=lambda: int(trainer.state.epoch or 0)
        ),
        compute_loss_func=loss,
        discriminator_learning_rate=args.discriminator_learning_rate or args.learning_rate,
        ema=args.ema,
        measure=measure,
        callbacks=[
            CheckpointOnSignal(),
            AdversarialProgress(),
            SampleGrids(output_dir / GRIDS, GRID, args.seed),
        ],
    )
    if args.health_check:
        check_health(trainer, None, uninformed=loss.uninformed())
        return

    # Train.
    print_once(f"\nTraining (weights: {weight_counts(model)})")
    training = trainer.train(resume_from_checkpoint=checkpoint).metrics
    history = list(trainer.state.log_history)

    # Save the model before it is measured.
    trainer.save_model()
    if args.process_index != 0:
        return
    draw_samples(model, history, output_dir, args.seed)

    # Measure new samples against the test images, once. Save figures, page and card.
    samples = model.sample(args.n_samples, args.seed + 2).numpy()
    results = generator_results(features, data, samples, history, seed=args.seed)
    setting = (
        f"{args.n_samples:,} samples against {len(images['test']):,} test images, on "
        f"{features.n_features} components of {network}. Figures on other features differ."
    )
    write_generator_results(
        output_dir,
        model,
        data,
        results,
        training | {"features": network, "n_samples": args.n_samples, "seed": args.seed},
        architecture=args.architecture,
        setting=setting,
        seed=args.seed,
    )
    remove_checkpoints(args.output_dir)
    push_to_hub(output_dir, args)
    print(f"\nTest: {setting}\n\n{results.report}\n\nEverything is in {output_dir}.")


if __name__ == "__main__":
    with exit_on_user_error():
        main()
