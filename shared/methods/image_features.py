"""Features of images, to compare generated with real ones: of a classifier, or of the pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shared.cli.errors import UserError
from shared.images.sources import fit_image
from shared.models.images import read_preprocessor
from shared.models.own_models import load_own_model

if TYPE_CHECKING:
    from shared.models.image_networks import ImageTrunkForClassification

_BATCH = 256


def load_feature_network(name: str) -> tuple[ImageTrunkForClassification, dict[str, Any]]:
    """Return a classifier of images of this project, and what is known of its inputs.

    Parameters
    ----------
    name : str
        A folder, or a hub id.

    Returns
    -------
    model, preprocessor
        The second as of `shared.models.read_preprocessor`.

    Raises
    ------
    UserError
        If it is another model, has a second input, or is damaged.
    """
    from shared.models.image_networks import ImageTrunkForClassification

    model = load_own_model(
        name, ImageTrunkForClassification, "classifier of images", "images", flag="features"
    )
    preprocessor = read_preprocessor(name)
    if missing := {"image_mean", "image_std", "size"}.difference(preprocessor):
        raise UserError(
            f"--features {name}: its preprocessor_config.json does not say {min(missing)}"
        )
    if model.config.num_contexts:
        raise UserError(f"--features {name}: has a second input; train one without")
    return model, preprocessor


class ImageFeatures:
    """Features of images: principal components of what a network, or the pixels, say of them.

    Parameters
    ----------
    train : uint8 array of shape (rows, height, width, 3)
        The components are those of these images.
    size : int
        Features of an image; fewer if the network, or the pixels, have fewer, or if there are not
        more images, which a Frechet distance needs.
    model : ImageTrunkForClassification, optional
        The features are the mean over the pixels of its last level. None: the pixels.
    preprocessor : dict, optional
        Of the model.

    Attributes
    ----------
    n_features : int
    class_names : list of str
        The classes of the network, whatever those of `train` are; empty without a network.
    """

    def __init__(
        self,
        train: np.ndarray,
        size: int,
        model: ImageTrunkForClassification | None = None,
        preprocessor: dict[str, Any] | None = None,
    ):
        from sklearn.decomposition import PCA

        self._model, self._preprocessor = model, preprocessor
        names = {} if model is None else model.config.id2label
        self.class_names = [names[number] for number in sorted(names)]
        values = self._activations(train)
        self.n_features = min(size, len(values) - 1, values.shape[1])
        self._components = PCA(self.n_features, random_state=0).fit(values)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the features of images, uint8 (rows, height, width, 3): float64 (rows, size)."""
        return self._components.transform(self._activations(images)).astype(np.float64)

    def classes(self, images: np.ndarray) -> np.ndarray | None:
        """Return the class that the network gives each image, int (rows,); None without one."""
        if self._model is None:
            return None
        return np.concatenate([logits.argmax(1) for _, logits in self._outputs(images)])

    def _activations(self, images: np.ndarray) -> np.ndarray:
        if self._model is None:
            return images.reshape(len(images), -1).astype(np.float32) / 255
        return np.concatenate([values for values, _ in self._outputs(images)])

    def _outputs(self, images: np.ndarray) -> Any:
        """Yield the features and the logits of batches of images."""
        import torch

        assert self._model is not None
        assert self._preprocessor is not None
        size = tuple(self._preprocessor["size"])
        mean, std = (
            np.array(self._preprocessor[name], np.float32) for name in ("image_mean", "image_std")
        )
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            if batch.shape[1:3] != size:
                batch = np.stack([fit_image(image, size, keep_shape=False) for image in batch])
            pixels = torch.from_numpy((batch.astype(np.float32) / 255 - mean) / std)
            with torch.no_grad():
                pixels = pixels.permute(0, 3, 1, 2).to(self._model.device)
                values = self._model.trunk(pixels)[-1].mean(dim=(2, 3))
                yield values.cpu().numpy(), self._model.classifier(values).cpu().numpy()


def check_sample_sizes(features: ImageFeatures, *, n_samples: int, n_valid: int) -> None:
    """Check that there are enough images for a Frechet distance on some features.

    Parameters
    ----------
    features : ImageFeatures
    n_samples, n_valid : int
        Generated images, and validation images; 0: no validation set.

    Raises
    ------
    UserError
        If one of them is not above the number of features.
    """
    n = features.n_features
    if n_samples <= n:
        raise UserError(
            f"--n_samples {n_samples}: a Frechet distance on {n} features needs more; raise it, or "
            "lower --feature_size"
        )
    if 0 < n_valid <= n:
        raise UserError(
            f"--valid_size: {n_valid} validation images are too few for {n} features; raise it, "
            "set it to 0, or lower --feature_size"
        )
