"""The recipes by name: those of each network, and those that work with any network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from training.architectures import find_architecture
from training.errors import TrainingError
from training.fit.recipe import PhotoRecipe, Recipe


def _series(plain: float, augmented: float) -> dict[str, Recipe]:
    """Make the recipes of the tutorial series: 10 plain epochs, then 50 more with augmentation.

    There is one augmented recipe for each unit of ``shear_range``, see ``augmentation.py``.
    """
    first = Recipe(batch_size=256, validation_fraction=0.2, epochs=10, published=plain)
    second = replace(first, epochs=50, continues=True, published=augmented)
    return {
        "plain": first,
        "augmented-degrees": replace(second, augmentation="tutorial-degrees"),
        "augmented-radians": replace(second, augmentation="tutorial-radians"),
    }


_MODERN = Recipe(
    epochs=30,
    label_smoothing=0.1,
    augmentation="modern-cutout",
    ema_momentum=0.999,
    validation_fraction=1 / 12,
)

# Recipes for any network. --augmentation chooses mixup or cutmix instead of cutout.
MODERN_RECIPES: Mapping[str, Recipe] = {
    "modern": replace(
        _MODERN, optimizer="adamw", learning_rate=2e-3, weight_decay=0.05, schedule="onecycle"
    ),
    "modern-sgd": replace(
        _MODERN,
        optimizer="sgd",
        learning_rate=0.05,
        momentum=0.9,
        weight_decay=5e-4,
        schedule="cosine",
    ),
}

_SGD = Recipe("sgd", batch_size=400, steps_per_epoch=100, epochs=20)
_WIDE = Recipe(batch_size=128, validation_fraction=0.1, augmentation="tutorial-degrees")
_VGG19 = Recipe(batch_size=256, epochs=10)
# Keras applies the decay outside the momentum. So with momentum 0.9, 5e-3 here equals 5e-4 in
# recipes that add the decay to the gradient.
_RESNET = Recipe(
    "sgd",
    0.2,
    "onecycle",
    momentum=0.9,
    weight_decay=5e-3,
    batch_size=256,
    epochs=50,
    label_smoothing=0.1,
    augmentation="modern-cutout",
    ema_momentum=0.995,
)
_ROBUST = replace(
    _RESNET, learning_rate=0.04, epochs=10, augmentation="deployment", fine_tunes=True
)
_PHOTOGRAPHIC = replace(_ROBUST, epochs=8, augmentation="photographic")
# A small network underfits, so cutout is left out. The teacher's answers replace label smoothing.
_DISTILLED = replace(
    _RESNET, epochs=24, augmentation="flip-shift", label_smoothing=0.0, distillation_temperature=1.0
)
# Born again (Furlanello et al. 2018): a network learns from an earlier run of the same network.
_BORN_AGAIN = replace(
    _RESNET, label_smoothing=0.0, distillation_temperature=1.0, teachers_see_mirrored=True
)
# The settings of FMix (Harris et al. 2020) for Fashion-MNIST: flips, crops, mixed images, no
# smoothing, and 200 epochs of batch 128 at a rate of 0.1 with a decay of 1e-4. The last three are
# 256, 0.2 and 1e-3 here.
_TEACHER = replace(_RESNET, weight_decay=1e-3, epochs=200, label_smoothing=0.0, augmentation="fmix")
_TEACHERS = {"fmix": _TEACHER, "mixup": replace(_TEACHER, augmentation="mixup")}
# "A good teacher is patient and consistent" (Beyer et al. 2022): student and teacher see the same
# mixed views for many epochs.
_MIXED_VIEWS = replace(_TEACHER, distillation_temperature=1.0, epochs=300)
_GARMENTS_PHOTO = PhotoRecipe(
    steps_per_epoch=200,
    photos_per_batch=22,
    worn_per_batch=12,
    uploads_per_batch=14,
    input_pixels=128,
    first_trained_block=5,
)
_GARMENTS = Recipe(
    "adamw",
    5e-4,
    "onecycle",
    weight_decay=0.02,
    batch_size=48,
    epochs=15,
    label_smoothing=0.1,
    ema_momentum=0.995,
    photo=_GARMENTS_PHOTO,
)
_MORE_WORN = replace(
    _GARMENTS,
    learning_rate=4e-4,
    epochs=16,
    ema_momentum=0.998,
    fine_tunes=True,
    photo=replace(_GARMENTS_PHOTO, photos_per_batch=18, worn_per_batch=16),
)

_DISTILLED_UPLOADS = replace(
    _MORE_WORN,
    learning_rate=3e-4,
    epochs=10,
    distillation_temperature=1.0,
    photo=replace(_GARMENTS_PHOTO, photos_per_batch=12, worn_per_batch=14, uploads_per_batch=22),
)
_FOUND_WORN = replace(
    _DISTILLED_UPLOADS,
    epochs=8,
    photo=PhotoRecipe(
        steps_per_epoch=200,
        photos_per_batch=18,
        worn_per_batch=18,
        uploads_per_batch=12,
        input_pixels=160,
        first_trained_block=3,
    ),
)

RECIPES: Mapping[str, Mapping[str, Recipe]] = {
    "mlp-64-64": {"adam": Recipe(batch_size=32, epochs=5, published=0.8725)},
    "convnet-tf1": {
        "adam": Recipe(batch_size=128, epochs=10),
        "adam-flip-shift": Recipe(
            batch_size=128, epochs=20, schedule="cosine", augmentation="flip-shift"
        ),
        "sgd-2000-steps": replace(_SGD, published=0.7077),
        "sgd-4000-steps": replace(_SGD, continues=True, published=0.762),
        # The source only says that the training was long. 100,000 steps in all is our guess.
        "sgd-long": replace(_SGD, epochs=960, continues=True, published=0.916),
    },
    "cnn-1conv": _series(0.9104, 0.9229),
    "cnn-3conv": _series(0.9079, 0.9117),
    "cnn-4conv": _series(0.9052, 0.9352),
    "vgg19-transfer": {"adam": _VGG19},
    "vgg19-double-preprocessing": {"adam": replace(_VGG19, published=0.7664)},
    "vgg19-random": {"adam": _VGG19},
    "vgg-like": {
        "adam": Recipe(batch_size=256, epochs=50, early_stopping_patience=5, published=0.9304)
    },
    "cnn-2x128": {
        "augmented-10": replace(_WIDE, epochs=10, published=0.9021),
        "augmented-50": replace(_WIDE, epochs=50, continues=True, published=0.9159),
    },
    "resnet-8": {
        "cutout": _RESNET,
        "cutout-100": replace(_RESNET, epochs=100),
        "born-again": _BORN_AGAIN,
        "mixed-views": _MIXED_VIEWS,
        "robust": _ROBUST,
        "photographic": _PHOTOGRAPHIC,
    },
    "resnet-8-tiny": {
        "cutout": _RESNET,
        "distilled": _DISTILLED,
        "distilled-40": replace(_DISTILLED, epochs=40),
        "mixed-views": _MIXED_VIEWS,
    },
    "efficientnet-lite0": {
        "garments": _GARMENTS,
        "more-worn": _MORE_WORN,
        "distilled-uploads": _DISTILLED_UPLOADS,
        "found-worn": _FOUND_WORN,
    },
    "lite0-transfer": {"adam": Recipe(batch_size=256, epochs=5)},
    "resnet-18": _TEACHERS,
    "wide-resnet-16-8": _TEACHERS,
}


def find_recipe(architecture: str, name: str) -> Recipe:
    """Look up a recipe of an architecture, or one for any architecture.

    Raises:
        TrainingError: There is no such architecture or recipe.
    """
    find_architecture(architecture)
    found = {**MODERN_RECIPES, **RECIPES[architecture]}
    try:
        return found[name]
    except KeyError:
        raise TrainingError(
            f"there is no recipe {name!r} for {architecture}; choose one of {', '.join(found)}"
        ) from None
