"""Own the text of ``MODEL_CARD.md``: rendered from a manifest, no figure typed by hand."""

from __future__ import annotations

from typing import Any

from service.bundle import Manifest


def render_card(manifest: Manifest) -> str:
    """Render the model card of a bundle from the figures in its manifest."""
    training, test, validation = (
        manifest.training,
        manifest.metrics["test"],
        manifest.metrics["validation"],
    )
    parity = manifest.metrics["parity"]
    low, high = test["wilson_95"]
    height, width = manifest.input_size
    recipe = ", ".join(f"{key} {value}" for key, value in _used(training["recipe"]).items())
    rows = "\n".join(
        f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} | {row['support']:.0f} |"
        for name, row in test["per_class"].items()
    )
    return f"""# {manifest.name}, version {manifest.version}

An image classifier of {len(manifest.class_names)} classes: {", ".join(manifest.class_names)}.
This card was written by `python -m training export` from what was measured.

## Use

Input `image`: uint8 `[batch, {height}, {width}]`, grey, a bright item on black.
Output `probabilities`: float32 `[batch, {len(manifest.class_names)}]`; scaling and softmax are in the graph.
{_distance(manifest)}\
Other images are brought into this form by the rule `{manifest.preprocessing}` of `service/imaging.py`.
The model knows one centred item on an even ground, seen as its training data shows it; {_limit(manifest)}

## Figures

| on | images | accuracy | 95 % Wilson interval | loss | expected calibration error |
|---|---|---|---|---|---|
| test | {test["count"]:,} | {test["accuracy"]:.2%} | {low:.2%} to {high:.2%} | {test["loss"]:.4f} \
| {test["expected_calibration_error"]:.4f} |
| validation | {validation["count"]:,} | {validation["accuracy"]:.2%} | | {validation["loss"]:.4f} | |

| class | precision | recall | F1 | test images |
|---|---|---|---|---|
{rows}

The graph was compared with Keras on {parity["images"]:,} test images at batch sizes \
{", ".join(map(str, parity["batch_sizes"]))}: largest difference of a probability \
{parity["largest_difference"]:.1e}, the same class for every image.

{"".join(_sections(manifest))}## Training

- Network `{training["architecture"]}`, {training["parameters"]:,} parameters, \
epochs: {training["epochs"]}{_earlier(training)}, \
seed {training["seed"]}, {training["precision"]}, {training["seconds"] / 60:.1f} minutes on {training["machine"]}.
- Recipe `{training["recipe_name"]}`: {recipe}.
- Data: {training["data_source"]}; sha256 of the training tensors `{manifest.data_sha256}`.{_origins(training)}
- The last epoch is published; choices were made on the validation part, the test set was opened afterwards.
- Trained at commit `{training["git_commit"]}`, exported at `{manifest.git_commit}`, opset {manifest.opset}.
"""


def _distance(manifest: Manifest) -> str:
    if manifest.distance_threshold is None:
        return ""
    return f"""Output `distance`: float32 `[batch]`, of the last features from the nearest class: the relative
Mahalanobis distance (Lee et al. 2018, Ren et al. 2021), less what 95 % of the images of that class stay below. Above
{manifest.distance_threshold:.3f} an image counts as none of the classes.
"""


def _limit(manifest: Manifest) -> str:
    if manifest.distance_threshold is None:
        return "it answers with one of its\nclasses whatever it is shown."
    return "what else it is\nshown it can tell by the distance."


def _sections(manifest: Manifest) -> list[str]:
    """Render what was not measured of every bundle: calibration, refusals, prediction sets, corruptions."""
    renderers = {
        "distance": _refusals,
        "prediction_sets": _prediction_sets,
        "corruptions": _corruptions,
    }
    sections = [render(manifest) for name, render in renderers.items() if name in manifest.metrics]
    return [_calibration(manifest), *sections] if "temperature" in manifest.training else sections


def _calibration(manifest: Manifest) -> str:
    test = manifest.metrics["test"]
    return f"""## Calibration

A temperature of {manifest.training["temperature"]:.3f}, fitted on validation, is in the graph. On the test set:
expected calibration error {test["expected_calibration_error"]:.4f} in 15 bins,
negative log-likelihood {test["loss"]:.4f}, Brier score {test["brier"]:.4f}.

"""


def _refusals(manifest: Manifest) -> str:
    measured, augmentation = manifest.metrics["distance"], manifest.training["known_augmentation"]
    shown = "" if augmentation == "none" else f" as the augmentation `{augmentation}` shows it"
    outliers = "\n".join(
        f"| {kind} | {row['count']:,} | {row['auroc']:.4f} | {row['refused']:.1%} |"
        for kind, row in measured["outliers"].items()
    )
    accepted = ", ".join(
        f"{name} {share:.1%}" for name, share in measured["accepted_per_class"].items()
    )
    return f"""## Knowing what it does not know

The threshold accepts 95 % of validation{shown}. Of the test images it accepts {measured["accepted"]:.1%}: {accepted}.

| against | images | AUROC | refused |
|---|---|---|---|
{outliers}
{_photos(measured, manifest)}
"""


def _used(recipe: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a recipe does not use: labels are not smoothed where teachers give the targets."""
    unused = () if recipe.get("distillation_temperature") is None else ("label_smoothing",)
    return {
        name: value
        for name, value in recipe.items()
        if value not in (None, False) and name not in unused
    }


def _earlier(training: dict[str, Any]) -> str:
    earlier = training.get("continued_from")
    return "" if earlier is None else f" after {training['earlier_epochs']} of the run `{earlier}`"


def _origins(training: dict[str, Any]) -> str:
    """Say what else the network learnt from."""
    teachers, photos = training.get("teachers"), training.get("photos_sha256")
    taught = (
        f"\n- Taught by {' and '.join(f'`{teacher}`' for teacher in teachers)}." if teachers else ""
    )
    part = training["recipe"].get("photos_from")
    shown = (
        ""
        if photos is None
        else f"\n- Learnt from {part} of the labelled photos of a class too, sha256 `{photos}`, and from uploads made "
        "of training images; `docs/photos.md` has what it makes of photos."
    )
    return taught + shown


def _photos(measured: dict[str, Any], manifest: Manifest) -> str:
    if "photos" not in measured:
        return ""
    learnt_from = manifest.training["recipe"].get("photos_from", "none")
    learnt = (
        ""
        if learnt_from == "none"
        else f" It learnt from {learnt_from} of them, so this is no test."
    )
    return f"""
Of {measured["photos"]["count"]:,} photos of its own classes, which it should know, it accepts
{measured["photos"]["accepted"]:.1%}.{learnt}
"""


def _prediction_sets(manifest: Manifest) -> str:
    measured = manifest.metrics["prediction_sets"]
    rows = "\n".join(
        f"| {float(coverage):.0%} | {row['coverage']:.2%} | {min(row['per_class'].values()):.2%} "
        f"({min(row['per_class'], key=row['per_class'].__getitem__)}) | {row['mean_size']:.3f} | {row['empty']:.2%} |"
        for coverage, row in measured.items()
    )
    return f"""## Prediction sets

Split conformal prediction with a threshold for each class, fitted on validation, measured on the test set.

| asked | held the truth | in the worst class | mean size | empty |
|---|---|---|---|---|
{rows}

"""


def _corruptions(manifest: Manifest) -> str:
    measured = manifest.metrics["corruptions"]
    rows = "\n".join(f"| {name} | {accuracy:.2%} |" for name, accuracy in measured.items())
    return f"""## Robustness

Accuracy on the test set after each corruption of `training/corruptions.py`.

| corruption | accuracy |
|---|---|
{rows}
| mean | {sum(measured.values()) / len(measured):.2%} |

"""
