"""Own what is fitted to a trained network on validation: temperature, distance to the classes, prediction sets.

All of it is in a run's ``calibration.npz`` (not in git). Must never see the test set or change the network's weights.
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
from training.fit.runs import METRICS_FILE, load_model, read_config

CALIBRATION_FILE = "calibration.npz"
ACCEPTED_SHARE = 0.95  # of validation, which the threshold of the distance accepts
COVERAGES = tuple(round(0.80 + 0.01 * step, 2) for step in range(20))
SHRINKAGE = 1e-3  # of the covariance towards a multiple of the identity: dead features would make it singular


@dataclass(frozen=True)
class Space:
    """The constants of the distance, from D features to K classes.

    Features ``[N, D]`` less ``centre`` ``[D]``, times ``projection`` ``[D, D]``, are white by the covariance that the
    classes share, and ``means`` ``[K, D]`` are the classes' in that space; times ``background`` ``[D, D]`` they are
    white by the covariance of all images. ``offsets`` ``[K]`` are what ``ACCEPTED_SHARE`` of each class stays below.
    """

    centre: NDArray[np.float32]
    projection: NDArray[np.float32]
    means: NDArray[np.float32]
    background: NDArray[np.float32]
    offsets: NDArray[np.float32]

    def measure(self, features: Any) -> Any:
        """Compute the relative Mahalanobis distance (Ren et al. 2021) ``[N, K]`` to each class, less its offset.

        It is the squared distance to the class (Lee et al. 2018) less that to all images: what all images vary in says
        nothing. Works on arrays and in a Keras graph.
        """
        ops = keras.ops
        centred = features - self.centre
        whitened = ops.matmul(centred, self.projection)
        # |w - m|^2 without a tensor of [N, K, D]
        to_classes = (
            _square(whitened) - 2 * ops.matmul(whitened, self.means.T) + (self.means**2).sum(axis=1)
        )
        return to_classes - _square(ops.matmul(centred, self.background)) - self.offsets


@dataclass(frozen=True)
class Calibration:
    """The constants that calibration adds to a network of K classes.

    An image whose distance to the nearest class is above ``threshold`` counts as none of them; ``augmentation`` names
    what was done to the images that the distance was fitted to. One of class k is in its
    prediction set of coverage ``COVERAGES[i]`` if its probability is at least ``minimum_probabilities[i, k]``.
    """

    temperature: float
    space: Space
    threshold: float
    augmentation: str
    minimum_probabilities: NDArray[np.float64]

    @property
    def prediction_sets(self) -> PredictionSets:
        """What the manifest says of prediction sets."""
        return PredictionSets(
            coverages=COVERAGES, minimum_probabilities=self.minimum_probabilities.tolist()
        )

    def apply(self, model: Any) -> Any:
        """Extend a Keras model of logits: pixels ``[N, H, W, 1]`` -> logits at temperature 1 and distance ``[N]``."""
        logits = keras.layers.Rescaling(1 / self.temperature, name="temperature")(model.output)
        distances = self.space.measure(_features(model))
        return keras.Model(
            model.input, {"logits": logits, "distance": keras.ops.min(distances, axis=1)}
        )


def calibrate(
    run: Path, source: Source, augmentation: str = "none", photos: Path | None = None
) -> Calibration:
    """Fit the calibration of a finished run on its parts for training and validation, and write it into its folder.

    The distance is fitted to images changed by ``augmentation``, so that what the network was taught to know counts as
    known; if it learnt from ``photos``, to as many views of those as there are images. Temperature, prediction sets and
    the threshold are fitted to images of validation.

    Raises:
        RunError: The run has not ended, was made with other data or photos, or was evaluated already.
        DataError: The photos cannot be read.
    """
    if (run / METRICS_FILE).exists():
        raise RunError(
            f"{run} was evaluated already: what is fitted afterwards would not be what was measured"
        )
    config = read_config(run)
    config.check_photos(photos)
    model = load_model(run)
    training, validation = config.split(source.training())
    both = keras.Model(model.input, {"logits": model.output, "features": _features(model)})
    held_out = _predict(both, validation.images)
    seen, shown = (
        _predict(both, augment(part, augmentation))["features"] for part in (training, validation)
    )
    known = training.labels
    if photos is not None:
        views = make_views(
            photos, config.recipe.photos_from, training, len(config.class_names), config.seed
        )
        answers = _predict(both, views.images)
        labels = np.where(views.targets > 0, answers["logits"], -np.inf).argmax(axis=1)
        times = max(1, round(len(training) / len(labels)))
        seen = np.concatenate([seen, *[answers["features"]] * times])
        known = np.concatenate([known, *[labels] * times])
    temperature = fit_temperature(held_out["logits"], validation.labels)
    space = fit_offsets(fit_space(seen, known), shown, validation.labels)
    distances = keras.ops.convert_to_numpy(space.measure(shown)).min(axis=1)
    calibration = Calibration(
        temperature=temperature,
        space=space,
        threshold=float(np.quantile(distances, ACCEPTED_SHARE)),
        augmentation=augmentation,
        minimum_probabilities=fit_prediction_sets(
            softmax(held_out["logits"] / temperature, axis=1), validation.labels
        ),
    )
    values = dataclasses.asdict(calibration)
    np.savez(run / CALIBRATION_FILE, **values.pop("space"), **values)
    return calibration


def load_calibration(run: Path) -> Calibration | None:
    """Load the calibration of a run; None if it has none.

    Raises:
        RunError: The file is not what ``calibrate`` writes.
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
            f"{path} is damaged: run `python -m training calibrate {run}` again ({error})"
        ) from error


def load_calibrated(run: Path) -> Any:
    """Load the network of a finished run with its calibration, if it has one.

    Raises:
        RunError: The run has not ended, or its weights are not on this machine.
    """
    model, calibration = load_model(run), load_calibration(run)
    return model if calibration is None else calibration.apply(model)


def fit_temperature(logits: NDArray[np.float32], labels: Labels) -> float:
    """Find the temperature of the smallest negative log-likelihood (Guo et al. 2017) of logits ``[N, K]``."""

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / np.exp(log_temperature), axis=1)
        return -float(scaled[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def fit_space(features: NDArray[np.float32], labels: Labels) -> Space:
    """Fit centre, projections and class means to the features ``[N, D]`` of what was learnt from; offsets are zero."""
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
    """Set the offset of each class so that its share of validation stays below zero.

    Without it a class of many shapes is refused more often than one of few.
    """
    distances = keras.ops.convert_to_numpy(space.measure(features))
    own = distances[np.arange(len(labels)), labels]
    quantiles = [
        np.quantile(own[labels == label], ACCEPTED_SHARE) for label in range(distances.shape[1])
    ]
    return dataclasses.replace(space, offsets=np.array(quantiles, np.float32))


def fit_prediction_sets(probabilities: NDArray[np.float32], labels: Labels) -> NDArray[np.float64]:
    """Find the least probability with which each class joins a prediction set: ``[coverages, K]``.

    Split conformal prediction for each class apart (Vovk 2012; Sadinle, Lei and Wasserman 2019): the probability of
    the true class of a new image is as likely to rank anywhere among those of the n validation images of its class, so
    with at least ``coverage`` it is not below that of rank floor((n + 1)(1 - coverage)) from below.
    """
    minima = np.zeros((len(COVERAGES), probabilities.shape[1]))
    for label in range(probabilities.shape[1]):
        own = np.sort(probabilities[labels == label, label].astype(np.float64))
        for row, coverage in enumerate(COVERAGES):
            rank = int(
                (len(own) + 1) * (1 - coverage) + 1e-9
            )  # 1 - 0.95 is a little less than 0.05
            minima[row, label] = own[rank - 1] if rank else 0.0
    return minima


def _whiten(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Find the projection ``[D, D]`` that turns the Mahalanobis distance into the Euclidean one."""
    covariance = residuals.T @ residuals / len(residuals)
    covariance += SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    return np.linalg.cholesky(np.linalg.inv(covariance))


def _square(vectors: Any) -> Any:
    return keras.ops.sum(keras.ops.square(vectors), axis=1, keepdims=True)


def _features(model: Any) -> Any:
    """Find what the last dense layer of a model takes, beside it the pooled features of an earlier layer so named."""
    last = next(
        layer for layer in reversed(model.layers) if isinstance(layer, keras.layers.Dense)
    ).input
    earlier = [layer.output for layer in model.layers if layer.name == EARLIER_FEATURES]
    pooled = [keras.layers.GlobalAveragePooling2D()(output) for output in earlier]
    return keras.layers.Concatenate()([*pooled, last]) if pooled else last


def augment(samples: Samples, name: str) -> NDArray[np.float32]:
    """Change the images of samples by an augmentation that leaves labels alone: float32 ``[N, H, W]``, always alike."""
    images, targets = (
        samples.images.astype(np.float32),
        np.eye(samples.labels.max() + 1, dtype=np.float32),
    )
    generator = np.random.default_rng(1)
    for step in find_augmentation(name):
        images, _ = step(images, targets[samples.labels], generator)
    return images


def _predict(model: Any, images: Images | NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    outputs: dict[str, NDArray[np.float32]] = model.predict(
        images[..., None].astype(np.float32), batch_size=500, verbose=0
    )
    return outputs
