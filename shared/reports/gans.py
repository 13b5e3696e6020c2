"""What a recipe says of a generator of images: figures, pictures, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.cli.errors import UserError
from shared.cli.files import atomic_write, write_json
from shared.cli.launch import progress
from shared.evaluation.image_samples import describe_sample_collapse, nearest, sample_figures
from shared.images.reading import ImageData
from shared.methods.image_neighbours import nearest_image_classes
from shared.methods.latents import corner_grid
from shared.plots.gans import plot_adversarial_curve
from shared.plots.images import epoch_grids, write_animation, write_image_grid
from shared.reports.cards import write_model_card
from shared.reports.images import Sheet, text_table, write_sheets

if TYPE_CHECKING:
    from shared.methods.image_features import ImageFeatures
    from shared.models.gan_networks import GanModel

GRID = 64  # images of a grid
_SAMPLES = "generated images"  # name of their figures
_TRAINING = "training images"
GRIDS = "samples"  # folder of the grids of the epochs
SIDE = 8  # images of a side of the interpolation
_OVER_EPOCHS = 10  # grids of the sheet over the epochs
_NEAREST = 12  # samples with their nearest training image
COPIED = 0.5  # a sample is a copy if it is nearer than this share of a held-out image's distance
_ADVICE = (
    "lower --learning_rate, set --label_smoothing_factor .1, --dropout .3 or --loss hinge, or "
    "try another --seed"
)


def count_channels(data: ImageData, colours: str) -> int:
    """Return 1 if all images are grey, else 3.

    Parameters
    ----------
    data : ImageData
    colours : {"auto", "grey", "colour"}
        "grey": a coloured image is a mistake; "colour": 3 in any case.

    Raises
    ------
    UserError
        For a coloured image, by its name.
    """
    if colours == "colour":
        return 3
    images = data.images
    is_grey = np.array([(i == i[..., :1]).all() for i in images])
    if is_grey.all():
        return 1
    if colours == "grey":
        name = data.files[int(np.argmin(is_grey))]
        raise UserError(
            f"--colours grey: {data.source}, {name} has colours; add --preprocess grey, or choose "
            "--colours auto"
        )
    return 3


def weight_counts(model: GanModel) -> str:
    """Return the number of weights of each network, as text."""
    return ", ".join(f"{name} {n:,}" for name, n in model.num_weights().items())


class GeneratorResults(NamedTuple):
    """What is measured of a generator.

    Attributes
    ----------
    figures : mapping of set of images to the figures of `sample_figures`
        Of generated images, and of what they are compared with.
    collapse : str or None
        How the samples repeat themselves or leave out classes; None if they do not.
    note : str or None
        A line about a training that has failed.
    report : str
        All of it, as text.
    """

    figures: Mapping[str, Mapping[str, float]]
    collapse: str | None
    note: str | None
    report: str


def generator_results(
    features: ImageFeatures,
    data: ImageData,
    samples: np.ndarray,
    log_history: Sequence[Mapping[str, Any]],
    *,
    seed: int,
) -> GeneratorResults:
    """Measure samples on the test images, beside training images, noise and the mean image.

    Parameters
    ----------
    features : ImageFeatures
    data : ImageData
    samples : uint8 array of shape (samples, height, width, 3)
    log_history : sequence of mappings
        Of an `shared.training.adversarial.AdversarialTrainer`.
    seed : int
        Of the images that the samples are compared with.
    """
    from shared.training.adversarial import judge_discriminator

    test = data.images[data.parts["test"]]
    seen, real = features(samples), features(test)
    figures = {_SAMPLES: sample_figures(seen, real)}
    figures |= reference_figures(features, data, len(samples), seed)
    of_samples, of_test = features.classes(samples), features.classes(test)
    names = features.class_names
    collapse = describe_sample_collapse(figures[_SAMPLES], of_samples, of_test, names)
    note = collapse_note(collapse, judge_discriminator(log_history))
    known = features(data.images[data.parts["train"]])
    distances = [float(np.median(nearest(rows, known)[0])) for rows in (seen, real)]
    sizes = dict.fromkeys(figures, len(samples))
    sizes[_TRAINING] = min(len(samples), len(data.parts["train"]))
    lines = [figures_table(figures, sizes), copying(*distances)]
    if of_samples is not None and of_test is not None:
        lines.append(class_shares(names, of_samples, of_test))
    report = "\n\n".join(lines + ([note] if note else []))
    return GeneratorResults(figures, collapse, note, report)


def reference_figures(
    features: ImageFeatures, data: ImageData, n: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return the figures of images that a generator is compared with, by name.

    The training images are the best that can be expected, noise and copies of the mean image the
    worst.

    Parameters
    ----------
    features : ImageFeatures
    data : ImageData
        Its test images are compared with `n` of the others (fewer, if there are fewer).
    n, seed : int
    """
    rng = np.random.default_rng(seed)
    train, test = (data.images[data.parts[part]] for part in ("train", "test"))
    real = features(test)
    chosen = rng.permutation(len(train))[:n]
    noise = rng.integers(0, 256, (n, *test.shape[1:]), dtype=np.uint8)
    mean = np.repeat(train.mean(axis=0).round().astype(np.uint8)[None], n, axis=0)
    sets = {_TRAINING: train[chosen], "noise": noise, "the mean image": mean}
    return {name: sample_figures(features(images), real) for name, images in sets.items()}


def figures_table(figures: Mapping[str, Mapping[str, float]], sizes: Mapping[str, int]) -> str:
    """Return a table of `sample_figures`, a row for each set of images, with its size."""
    names = {"frechet_distance": "Frechet", "twin_distance": "twins"}
    return text_table(
        [
            {"compared with test images": name, "images": f"{sizes[name]:,}"}
            | {names.get(key, key): float(value) for key, value in row.items()}
            for name, row in figures.items()
        ]
    )


def class_shares(names: Sequence[str], samples: np.ndarray, real: np.ndarray) -> str:
    """Return a table: the share of each class among samples and test images."""
    shares = [np.bincount(v, minlength=len(names)) / len(v) for v in (samples, real)]
    return text_table(
        [
            {"class, as the features' network says": name, "samples": float(a), "real": float(b)}
            for name, a, b in zip(names, *shares, strict=True)
        ]
    )


def copying(samples: float, held_out: float) -> str:
    """Return a sentence: whether a generator has copied training images.

    Parameters
    ----------
    samples, held_out : float
        Median distance of a sample, and of a held-out image, to the nearest training image.
    """
    ratio = samples / max(held_out, np.finfo(float).tiny)
    verdict = "copies" if ratio < COPIED else "no copies"
    return (
        f"A sample is {ratio:.2f} times as far from its nearest training image as a test image is: "
        f"{verdict}."
    )


def collapse_note(collapse: str | None, won: str | None) -> str | None:
    """Return a line about a training that has failed, and what to do; None if it has not."""
    parts = [f"collapse: {collapse}; {_ADVICE}"] if collapse else []
    return "; ".join(parts + ([won] if won else [])) or None


def draw_samples(
    model: GanModel, log_history: Sequence[Mapping[str, Any]], output_dir: Path, seed: int
) -> None:
    """Write the training curve, a grid of samples, an interpolation and a GIF into ``plots``.

    The interpolation is spherical, between latent vectors in the four corners. ``samples.gif``
    shows the grids of the epochs.
    """
    folder = output_dir / "plots"
    folder.mkdir(exist_ok=True)
    plot_adversarial_curve(log_history, folder / "training_curve.png")
    write_image_grid(model.sample(GRID, seed).numpy(), folder / "samples.png")
    latents = corner_grid(model.draw_latents(4, seed), SIDE)
    write_image_grid(model.images_of(latents).numpy(), folder / "interpolation.png")
    grids = [*epoch_grids(output_dir / GRIDS).values()]
    if grids:
        write_animation(grids, folder / "samples.gif")


def write_samples(model: GanModel, output_dir: Path, n: int, seed: int) -> None:
    """Write `n` generated images into ``images``, and the first of them as ``samples.png``.

    The same seed gives the same images, and a larger `n` the same first ones.
    """
    from PIL import Image

    folder = output_dir / "images"
    folder.mkdir(exist_ok=True)
    latents = model.draw_latents(n, seed)
    write_image_grid(model.images_of(latents[:GRID]).numpy(), output_dir / "samples.png")
    for start in progress(range(0, n, GRID), "generating", unit="batches"):
        for number, image in enumerate(model.images_of(latents[start : start + GRID]), start):
            with atomic_write(folder / f"{number:06}.png", "wb") as file:
                Image.fromarray(image.numpy()).save(file, format="PNG")


def sample_sheets(model: GanModel, data: ImageData, output_dir: Path, seed: int) -> list[Sheet]:
    """Return pictures for the report: grids, and samples beside their nearest training images."""
    samples = model.sample(_NEAREST, seed).numpy()
    train = data.parts["train"]
    rows = nearest_image_classes(data.images[train], train, samples)
    files = [Path(data.files[row]).name for row in rows]
    grids = [*epoch_grids(output_dir / GRIDS).values()]
    places = np.linspace(0, len(grids) - 1, min(_OVER_EPOCHS, len(grids)))
    shown = [grids[round(place)] for place in places]
    return [
        picture_sheet(
            "Samples", "Generated images, not chosen.", [output_dir / "plots/samples.png"]
        ),
        picture_sheet(
            "Interpolation",
            "Spherical interpolation between the latent vectors in the corners.",
            [output_dir / "plots/interpolation.png"],
        ),
        picture_sheet(
            "Over the epochs",
            "Images of the same latent vectors after some of the epochs.",
            shown,
            columns=5,
        ),
        Sheet(
            "Nearest training images",
            "Samples, each before the training image with the most similar pixels.",
            [image for i, row in enumerate(rows) for image in (samples[i], data.images[row])],
            [word for file in files for word in ("sample", file)],
        ),
    ]


def picture_sheet(title: str, note: str, paths: Sequence[Path], columns: int = 1) -> Sheet:
    """Return a sheet of pictures in files, with the names of the files if there are several."""
    from PIL import Image

    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    names = [path.stem.replace("_", " ") for path in paths] if len(paths) > 1 else [""] * len(paths)
    return Sheet(title, note, images, names, columns=columns)


def generator_usage(folder: Path) -> str:
    """Return how to load a generator and make images with it, as Markdown."""
    return f"""```python
from PIL import Image
from transformers import AutoModel

model = AutoModel.from_pretrained("{folder}", trust_remote_code=True)
for number, image in enumerate(model.sample(16, seed=1).numpy()):
    Image.fromarray(image).save(f"generated_{{number}}.png")
```

`trust_remote_code=True` lets transformers run the Python file in this folder, the architecture of
the model. Or from the command line:

```bash
accelerate launch recipes/gan.py --model {folder} --generate 100 --output_dir generated
```

![generated images](plots/samples.png)

![spherical interpolation between four latent vectors](plots/interpolation.png)"""


def write_generator_results(
    output_dir: Path,
    model: GanModel,
    data: ImageData,
    results: GeneratorResults,
    metrics: Mapping[str, Any],
    *,
    architecture: str,
    setting: str,
    seed: int,
) -> None:
    """Write ``metrics.json``, ``pictures``, ``report.html`` and the model card.

    Parameters
    ----------
    output_dir : Path
        With the pictures of `draw_samples`.
    model : GanModel
    data : ImageData
    results : GeneratorResults
    metrics : mapping
        Those of the training, and further facts about the run.
    architecture : str
        That of the flag, for the headings.
    setting : str
        What the figures were measured on.
    seed : int
        Of the samples in the report.
    """
    of_samples = {f"test_{name}": value for name, value in results.figures[_SAMPLES].items()}
    others = {
        f"{name.replace(' ', '_')}_frechet_distance": row["frechet_distance"]
        for name, row in results.figures.items()
        if name != _SAMPLES
    }
    failures = {"collapse": results.collapse, "note": results.note}
    facts = {**metrics, **failures, "n_weights": model.num_weights()}
    write_json(output_dir / "metrics.json", of_samples | others | facts)
    sheets = sample_sheets(model, data, output_dir, seed)
    title = f"Generator ({architecture})"
    write_sheets(output_dir, title, setting, results.report, sheets, "Figures")
    write_model_card(
        output_dir,
        title=f"Generator of images ({architecture})",
        base_model=None,
        task="unconditional-image-generation",
        description=f"Generates images of {model.config.height} x {model.config.width} pixels; "
        f"weights: {weight_counts(model)}.",
        data=data.describe(),
        metrics={k: of_samples[k] for k in ("test_frechet_distance", "test_coverage")},
        evaluation=setting,
        verdict=results.note,
        report=results.report,
        usage=generator_usage(output_dir),
        limits="The images resemble those of the training, and whatever is wrong with these.",
    )
