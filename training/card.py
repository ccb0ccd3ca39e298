"""Own the text of ``MODEL_CARD.md``: rendered from a manifest, no figure typed by hand."""

from __future__ import annotations

from service.bundle import Manifest


def render_card(manifest: Manifest) -> str:
    """Render the model card of a bundle from the figures in its manifest."""
    training, test, validation = manifest.training, manifest.metrics["test"], manifest.metrics["validation"]
    parity = manifest.metrics["parity"]
    low, high = test["wilson_95"]
    height, width = manifest.input_size
    recipe = ", ".join(f"{key} {value}" for key, value in training["recipe"].items() if value not in (None, False))
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
Other images are brought into this form by the rule `{manifest.preprocessing}` of `service/imaging.py`.
The model knows one centred item on an even ground, seen as its training data shows it; it answers with one of its
classes whatever it is shown.

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

## Training

- Network `{training["architecture"]}`, {training["parameters"]:,} parameters, epochs: {training["epochs"]}, \
seed {training["seed"]}, {training["precision"]}, {training["seconds"] / 60:.1f} minutes on {training["machine"]}.
- Recipe `{training["recipe_name"]}`: {recipe}.
- Data: {training["data_source"]}; sha256 of the training tensors `{manifest.data_sha256}`.
- The last epoch is published; choices were made on the validation part, the test set was opened afterwards.
- Trained at commit `{training["git_commit"]}`, exported at `{manifest.git_commit}`, opset {manifest.opset}.
"""
