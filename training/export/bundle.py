"""The export of an evaluated run as a published bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from service.bundle import (
    CARD_FILE,
    MODEL_FILE,
    Bundle,
    Manifest,
    check_name,
    self_test_image,
    write_bundle,
)
from training.assess.calibration import Calibration, load_calibrated, load_calibration
from training.assess.card import render_card
from training.data.photos.inputs import to_inputs
from training.data.samples import Source
from training.export.gate import check, compare_stored
from training.export.graph import OPSET, add_metadata, convert, store_in_half
from training.fit.answers import predict
from training.fit.runs import (
    Config,
    git_commit,
    log_opening,
    read_config,
    read_history,
    read_metrics,
)

# Figures of the run's metrics.json that are left out of the manifest.
DETAILS = ("confusion_matrix", "reliability")


def export(run: Path, source: Source, models: Path, name: str, version: str) -> Bundle:
    """Convert an evaluated run to ONNX, check the graph and publish it as ``models/NAME/VERSION``.

    Raises:
        RunError: The run has not ended or was not evaluated.
        ExportError: The graph failed a check. Nothing is written then.
        BundleError: The name or version is not allowed, or this version exists already.
    """
    for part in (name, version):
        check_name(part)
    config, metrics, model = read_config(run), read_metrics(run), load_calibrated(run)
    manifest = describe(run, config, metrics, model, name, version)
    graph = convert(model, config.input_spec.shape)
    add_metadata(graph, manifest)
    log_opening(run, f"comparison of {name} version {version} with Keras")
    test = source.test()
    inputs = to_inputs(test.images, config.input_spec)
    parity = check(graph, model, inputs, test.labels, metrics["test"]["accuracy"])
    if config.recipe.photo is not None:
        stored = store_in_half(graph)
        parity["stored"] = compare_stored(stored, graph, inputs, test.labels)
        graph = stored
    manifest = manifest.model_copy(update={"metrics": {**manifest.metrics, "parity": parity}})
    contents = {MODEL_FILE: graph.SerializeToString(), CARD_FILE: render_card(manifest).encode()}
    return write_bundle(models / name / version, manifest, contents)


def describe(
    run: Path, config: Config, metrics: dict[str, Any], model: Any, name: str, version: str
) -> Manifest:
    """Compose the manifest of a run's bundle. ``write_bundle`` adds the hashes of the files."""
    history, calibration = read_history(run), load_calibration(run)
    return Manifest(
        name=name,
        version=version,
        files={MODEL_FILE: "0" * 64},
        input_size=config.input_size,
        preprocessing=config.input_spec.preprocessing,
        class_names=config.class_names,
        opset=OPSET,
        self_test=tuple(predict(model, self_test_image(config.input_spec.shape)[None])[0].tolist()),
        distance_threshold=None if calibration is None else calibration.threshold,
        prediction_sets=None if calibration is None else calibration.prediction_sets,
        training={
            "run": config.name,
            "architecture": config.architecture,
            "parameters": config.parameters,
            "recipe_name": config.recipe_name,
            "recipe": dataclasses.asdict(config.recipe),
            "epochs": len(history),
            "earlier_epochs": config.earlier_epochs,
            "continued_from": config.continued_from,
            "is_averaged": config.is_averaged,
            "teachers": list(config.teachers),
            "photos_sha256": config.photos_sha256,
            "seed": config.seed,
            "precision": config.precision,
            "data_source": config.data_source,
            "seconds": round(sum(row["seconds"] for row in history), 1),
            **_describe_calibration(calibration),
            **config.made_by,
        },
        metrics={
            part: {k: v for k, v in values.items() if k not in DETAILS}
            for part, values in metrics.items()
        },
        data_sha256=config.data_sha256,
        git_commit=git_commit(),
    )


def _describe_calibration(calibration: Calibration | None) -> dict[str, Any]:
    if calibration is None:
        return {}
    return {"temperature": calibration.temperature, "known_augmentation": calibration.augmentation}
