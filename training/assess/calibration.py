"""Calibration: the temperature, the distance to the classes, and the prediction sets.

The result is a run's ``calibration.npz`` (not in git). Calibration never reads the test set and
never changes the network's weights.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from service.bundle import PredictionSets
from training.architectures.efficientnet_lite import split_outputs
from training.architectures.resnet import EARLIER_FEATURES
from training.data.samples import Images, Labels, Samples, Source
from training.errors import RunError
from training.fit.augmentation import find_augmentation
from training.fit.runs import METRICS_FILE, Config, load_model, read_config

CALIBRATION_FILE = "calibration.npz"
ACCEPTED_SHARE = 0.95  # the share of validation images that the distance threshold accepts
COVERAGES = tuple(round(0.80 + 0.01 * step, 2) for step in range(20))

# This share of the mean variance is added to each feature's variance. Otherwise a feature that is
# always zero would make the covariance singular.
SHRINKAGE = 1e-3


@dataclass(frozen=True)
class Space:
    """The constants of the distance from D features to K classes.

    ``centre`` ``[D]`` is the mean of all features. ``projection`` ``[D, D]`` whitens centred
    features by the covariance within classes, and ``means`` ``[K, D]`` are the class means after
    this projection. ``background`` ``[D, D]`` whitens centred features by the covariance of all
    images. ``offsets`` ``[K]`` are quantiles: ``ACCEPTED_SHARE`` of a class's validation images
    have a smaller distance to the class.
    """

    centre: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    background: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def measure(self, features: Any) -> Any:
        """Compute the relative Mahalanobis distance to each class, minus its offset: ``[N, K]``.

        The relative distance is the squared distance to the class (Lee et al. 2018) minus the
        squared distance to the mean of all images (Ren et al. 2021). The subtraction cancels the
        directions in which all images vary. ``features`` are an array or a tensor of a Keras graph.
        """
        ops = keras.ops
        centred = features - self.centre
        whitened = ops.matmul(centred, self.projection)
        # |w - m|^2 = |w|^2 - 2wm + |m|^2 needs no tensor of shape [N, K, D].
        products = ops.matmul(whitened, self.means.T)
        to_classes = _square(whitened) - 2 * products + (self.means**2).sum(axis=1)
        return to_classes - _square(ops.matmul(centred, self.background)) - self.offsets


@dataclass(frozen=True)
class Calibration:
    """The constants that calibration adds to a network of K classes.

    An image whose distance to the nearest class is above ``threshold`` counts as no class.
    The distance was fitted to images changed by ``augmentation``. A network for photos has an
    output of its own for pictures of no class: its ``space`` is None. Class k is in the
    prediction set of coverage ``COVERAGES[i]`` if its probability is at least
    ``minimum_probabilities[i, k]``.
    """

    temperature: float
    space: Space | None
    threshold: float
    augmentation: str
    minimum_probabilities: NDArray[np.float64]

    @property
    def prediction_sets(self) -> PredictionSets:
        """The prediction sets in the form that a manifest stores."""
        minima = self.minimum_probabilities.tolist()
        return PredictionSets(coverages=COVERAGES, minimum_probabilities=minima)

    def apply(self, model: Any) -> Any:
        """Extend a Keras model of logits.

        The result maps pixels ``[N, H, W, 1]`` to logits divided by the temperature and to the
        distance ``[N]`` to the nearest class. For photos, see ``split_outputs``.
        """
        if self.space is None:
            return split_outputs(model, self.temperature)
        logits = keras.layers.Rescaling(1 / self.temperature, name="temperature")(model.output)
        distances = self.space.measure(_features(model))
        outputs = {"logits": logits, "distance": keras.ops.min(distances, axis=1)}
        return keras.Model(model.input, outputs)


def calibrate(run: Path, source: Source, augmentation: str = "none") -> Calibration:
    """Fit the calibration of a finished run and write it into the run's folder.

    The distance is fitted to training images changed by ``augmentation``, so that images like those
    that the network learned from count as known. The temperature, the prediction sets, the offsets
    and the threshold are fitted to validation images.

    Raises:
        RunError: The run has not ended, was made with other data, learned from photos, or was
            evaluated already.
    """
    config = check_uncalibrated(run)
    config.check_photos(None)
    model = load_model(run)
    training, validation = config.split(source.training())
    both = keras.Model(model.input, {"logits": model.output, "features": _features(model)})
    logits = _predict(both, validation.images)["logits"]
    temperature = fit_temperature(logits, validation.labels)
    probabilities = softmax(logits / temperature, axis=1)
    learned, validated = (
        _predict(both, augment(part, augmentation))["features"] for part in (training, validation)
    )
    space = fit_offsets(fit_space(learned, training.labels), validated, validation.labels)
    distances = keras.ops.convert_to_numpy(space.measure(validated)).min(axis=1)
    calibration = Calibration(
        temperature=temperature,
        space=space,
        threshold=float(np.quantile(distances, ACCEPTED_SHARE)),
        augmentation=augmentation,
        minimum_probabilities=fit_prediction_sets(probabilities, validation.labels),
    )
    write_calibration(run, calibration)
    return calibration


def check_uncalibrated(run: Path) -> Config:
    """Read a run's configuration, and check that the run was not evaluated.

    Raises:
        RunError: The run was evaluated already.
    """
    if (run / METRICS_FILE).exists():
        raise RunError(
            f"{run} was evaluated already, and calibration would make its figures false: "
            "run calibrate before evaluate"
        )
    return read_config(run)


def write_calibration(run: Path, calibration: Calibration) -> None:
    """Write the calibration into the folder of its run."""
    values = dataclasses.asdict(calibration)
    np.savez(run / CALIBRATION_FILE, **(values.pop("space") or {}), **values)


def load_calibration(run: Path) -> Calibration | None:
    """Load the calibration of a run, or return None if the run has none.

    Raises:
        RunError: The file is damaged.
    """
    path = run / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file) as values:
            found: dict[str, Any] = dict(values)
        names = [field.name for field in dataclasses.fields(Space)]
        space = Space(**{name: found.pop(name) for name in names}) if names[0] in found else None
        scalars = {name: value.item() for name, value in found.items() if value.ndim == 0}
        return Calibration(space=space, **(found | scalars))
    except (ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
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
    """Find the temperature that minimizes the negative log-likelihood of logits ``[N, K]``.

    The method is from Guo et al. 2017.
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

    Without offsets, classes with varied items are rejected more often than uniform classes.
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
    Wasserman 2019). Sort the probabilities that the n validation images of a class have for this
    class. The probability of a new image of the class has each of the n + 1 ranks equally often. So
    in at least ``coverage`` of the cases, the new image's probability is not below the value of
    rank floor((n + 1)(1 - coverage)), counted from the smallest.
    """
    minima = np.zeros((len(COVERAGES), probabilities.shape[1]))
    for label in range(probabilities.shape[1]):
        own = np.sort(probabilities[labels == label, label].astype(np.float64))
        for row, coverage in enumerate(COVERAGES):
            # 1e-9 because 1 - 0.9 is a little less than 0.1
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
    """Find the input of the last dense layer, and join pooled earlier features if there are any."""
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
