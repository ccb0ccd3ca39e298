"""Calibration: temperature, distance to the classes, and prediction sets, fitted on validation.

The result is a run's ``calibration.npz`` (not in git). Calibration never reads the test set and
never changes the network's weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from service.bundle import PredictionSets
from training.architectures.resnet import EARLIER_FEATURES
from training.data.photos.views import make_views
from training.data.samples import Images, Labels, Samples, Source
from training.errors import RunError
from training.fit.augmentation import find_augmentation
from training.fit.runs import METRICS_FILE, Config, load_model, read_config

CALIBRATION_FILE = "calibration.npz"
ACCEPTED_SHARE = 0.95  # the share of validation images within the distance threshold
COVERAGES = tuple(round(0.80 + 0.01 * step, 2) for step in range(20))

# The covariance shrinks by this share towards a multiple of the identity. Without shrinkage, dead
# features would make it singular.
SHRINKAGE = 1e-3


@dataclass(frozen=True)
class Space:
    """The constants of the distance from D features to K classes.

    Features ``[N, D]`` minus ``centre`` ``[D]``, times ``projection`` ``[D, D]``, are white under
    the covariance within classes. ``means`` ``[K, D]`` are the class means in that space. The
    centred features times ``background`` ``[D, D]`` are white under the covariance of all images.
    ``offsets`` ``[K]`` are the distances that ``ACCEPTED_SHARE`` of each class stays below.
    """

    centre: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    background: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def measure(self, features: Any) -> Any:
        """Compute the relative Mahalanobis distance to each class, minus its offset: ``[N, K]``.

        It is the squared distance to the class (Lee et al. 2018) minus the squared distance to all
        images (Ren et al. 2021): directions in which all images vary carry no information. This
        works on arrays and in a Keras graph.
        """
        ops = keras.ops
        centred = features - self.centre
        whitened = ops.matmul(centred, self.projection)
        # |w - m|^2 without a tensor of [N, K, D]
        products = ops.matmul(whitened, self.means.T)
        to_classes = _square(whitened) - 2 * products + (self.means**2).sum(axis=1)
        return to_classes - _square(ops.matmul(centred, self.background)) - self.offsets


@dataclass(frozen=True)
class Calibration:
    """The constants that calibration adds to a network of K classes.

    An image whose distance to the nearest class is above ``threshold`` counts as no class.
    ``augmentation`` changed the images that the distance was fitted to. Class k is in the
    prediction set of coverage ``COVERAGES[i]`` if its probability is at least
    ``minimum_probabilities[i, k]``.
    """

    temperature: float
    space: Space
    threshold: float
    augmentation: str
    minimum_probabilities: NDArray[np.float64]

    @property
    def prediction_sets(self) -> PredictionSets:
        """The prediction sets in the form of a manifest."""
        minima = self.minimum_probabilities.tolist()
        return PredictionSets(coverages=COVERAGES, minimum_probabilities=minima)

    def apply(self, model: Any) -> Any:
        """Extend a Keras model of logits.

        The result maps pixels ``[N, H, W, 1]`` to logits divided by the temperature and to the
        distance ``[N]`` to the nearest class.
        """
        logits = keras.layers.Rescaling(1 / self.temperature, name="temperature")(model.output)
        distances = self.space.measure(_features(model))
        outputs = {"logits": logits, "distance": keras.ops.min(distances, axis=1)}
        return keras.Model(model.input, outputs)


def calibrate(
    run: Path, source: Source, augmentation: str = "none", photos: Path | None = None
) -> Calibration:
    """Fit the calibration of a finished run and write it into the run's folder.

    The distance is fitted to training images changed by ``augmentation``, so that everything the
    network learned counts as known. If the network learned from ``photos``, the distance is fitted
    to about as many views of photos as well. Validation images fit the temperature, the prediction
    sets, the offsets and the threshold.

    Raises:
        RunError: The run has not ended, was made with other data or photos, or was evaluated.
        DataError: The photos cannot be read.
    """
    if (run / METRICS_FILE).exists():
        raise RunError(
            f"{run} was evaluated already: calibrate before evaluate, or its figures would be false"
        )
    config = read_config(run)
    config.check_photos(photos)
    model = load_model(run)
    training, validation = config.split(source.training())
    both = keras.Model(model.input, {"logits": model.output, "features": _features(model)})
    logits = _predict(both, validation.images)["logits"]
    temperature = fit_temperature(logits, validation.labels)
    probabilities = softmax(logits / temperature, axis=1)
    learned, validated = (
        _predict(both, augment(part, augmentation))["features"] for part in (training, validation)
    )
    labels = training.labels
    if photos is not None:
        features, of_photos = _learn_from_photos(both, photos, training, config)
        learned, labels = np.concatenate([learned, features]), np.concatenate([labels, of_photos])
    space = fit_offsets(fit_space(learned, labels), validated, validation.labels)
    distances = keras.ops.convert_to_numpy(space.measure(validated)).min(axis=1)
    calibration = Calibration(
        temperature=temperature,
        space=space,
        threshold=float(np.quantile(distances, ACCEPTED_SHARE)),
        augmentation=augmentation,
        minimum_probabilities=fit_prediction_sets(probabilities, validation.labels),
    )
    _write(run / CALIBRATION_FILE, calibration)
    return calibration


def _learn_from_photos(
    both: Any, photos: Path, training: Samples, config: Config
) -> tuple[NDArray[np.float32], Labels]:
    """Compute features and labels of views of photos, repeated to about as many as the samples.

    A view with several possible classes gets the most likely one.
    """
    part, class_count = config.recipe.photos_from, len(config.class_names)
    views = make_views(photos, part, training, class_count, config.seed)
    outputs = _predict(both, views.images)
    labels = np.where(views.targets > 0, outputs["logits"], -np.inf).argmax(axis=1)
    times = max(1, round(len(training) / len(labels)))
    return np.tile(outputs["features"], (times, 1)), np.tile(labels, times)


def _write(path: Path, calibration: Calibration) -> None:
    values = dataclasses.asdict(calibration)
    np.savez(path, **values.pop("space"), **values)


def load_calibration(run: Path) -> Calibration | None:
    """Load the calibration of a run, or return None if the run has none.

    Raises:
        RunError: ``calibrate`` did not write this file.
    """
    path = run / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        with np.load(path) as values:
            found: dict[str, Any] = dict(values)
        space = Space(**{field.name: found.pop(field.name) for field in dataclasses.fields(Space)})
        scalars = {name: value.item() for name, value in found.items() if value.ndim == 0}
        return Calibration(space=space, **(found | scalars))
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(
            f"{path} is damaged ({error}): run `python -m training calibrate {run}` again"
        ) from error


def load_calibrated(run: Path) -> Any:
    """Load the network of a finished run, with its calibration if it has one.

    Raises:
        RunError: The run has not ended, or its weights are not on this machine.
    """
    model, calibration = load_model(run), load_calibration(run)
    return model if calibration is None else calibration.apply(model)


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """Find the temperature with the smallest negative log-likelihood of logits ``[N, K]``.

    The method is by Guo et al. 2017.
    """

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def fit_space(features: NDArray[np.float32], labels: Labels) -> Space:
    """Fit centre, projections and class means to features ``[N, D]``. The offsets are zero."""
    exact = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    means = np.stack([exact[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    projection = _whiten(exact - means[labels])
    return Space(
        centre=features.mean(axis=0, dtype=np.float64).astype(np.float32),
        projection=projection.astype(np.float32),
        means=(means @ projection).astype(np.float32),
        background=_whiten(exact).astype(np.float32),
        offsets=np.zeros(len(means), np.float32),
    )


def fit_offsets(space: Space, features: NDArray[np.float32], labels: Labels) -> Space:
    """Set the offset of each class so that ``ACCEPTED_SHARE`` of validation is below zero.

    Without offsets, classes with many shapes are rejected more often than classes with few shapes.
    """
    distances = keras.ops.convert_to_numpy(space.measure(features))
    own = distances[np.arange(len(labels)), labels]
    quantiles = [
        np.quantile(own[labels == label], ACCEPTED_SHARE) for label in range(distances.shape[1])
    ]
    return dataclasses.replace(space, offsets=np.array(quantiles, np.float32))


def fit_prediction_sets(probabilities: NDArray[np.float32], labels: Labels) -> NDArray[np.float64]:
    """Find the minimum probability of each class for each coverage: ``[coverages, K]``.

    This is split conformal prediction for each class separately (Vovk 2012; Sadinle, Lei and
    Wasserman 2019). The probability of a new image's true class is equally likely to have any rank
    among the n validation images of that class. So with at least ``coverage`` it is not below the
    value of rank floor((n + 1)(1 - coverage)), counted from the smallest.
    """
    minima = np.zeros((len(COVERAGES), probabilities.shape[1]))
    for label in range(probabilities.shape[1]):
        own = np.sort(probabilities[labels == label, label].astype(np.float64))
        for row, coverage in enumerate(COVERAGES):
            # 1e-9 because 1 - 0.95 is a little less than 0.05
            rank = int((len(own) + 1) * (1 - coverage) + 1e-9)
            minima[row, label] = own[rank - 1] if rank else 0.0
    return minima


def _whiten(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the projection ``[D, D]`` that turns Mahalanobis into Euclidean distances."""
    covariance = residuals.T @ residuals / len(residuals)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.linalg.cholesky(np.linalg.inv(covariance))


def _square(vectors: Any) -> Any:
    return keras.ops.sum(keras.ops.square(vectors), axis=1, keepdims=True)


def _features(model: Any) -> Any:
    """Find the input of the last dense layer, joined with pooled earlier features if they exist."""
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    earlier = [layer.output for layer in model.layers if layer.name == EARLIER_FEATURES]
    pooled = [keras.layers.GlobalAveragePooling2D()(output) for output in earlier]
    last = dense[-1].input
    return keras.layers.Concatenate()([*pooled, last]) if pooled else last


def augment(samples: Samples, name: str) -> NDArray[np.float32]:
    """Augment the images of samples with a fixed seed: float32 ``[N, H, W]``.

    The augmentation must not change labels.
    """
    images = samples.images.astype(np.float32)
    targets = np.eye(samples.labels.max() + 1, dtype=np.float32)[samples.labels]
    generator = np.random.default_rng(1)
    for step in find_augmentation(name):
        images, _ = step(images, targets, generator)
    return images


def _predict(model: Any, images: Images | NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    pixels = images[..., None].astype(np.float32)
    outputs: dict[str, NDArray[np.float32]] = model.predict(pixels, batch_size=500, verbose=0)
    return outputs
