"""Own the command line of training; the work is done by the modules it calls."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

# TensorFlow writes banners to standard error when it loads; they say nothing about a run.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import rich
import rich.table
import typer

from service.bundle import MANIFEST_FILE, read_bundle
from service.errors import ServiceError
from training.architectures import ARCHITECTURES, find_architecture
from training.assess.calibration import calibrate as calibrate_run
from training.assess.evaluation import evaluate as evaluate_run
from training.assess.evaluation import evaluate_bundle
from training.assess.photos_page import write_photos
from training.assess.projection import largest_count
from training.assess.projection import project as write_projection
from training.assess.results import read_runs, render_results
from training.data.sources import open_source
from training.errors import TrainingError
from training.export.golden import write_golden
from training.export.variants import make_and_compare, render_variants
from training.fit.augmentation import AUGMENTATIONS
from training.fit.recipes import MODERN_RECIPES, RECIPES, find_recipe
from training.fit.runs import read_config
from training.fit.training import plan
from training.fit.training import resume as resume_run
from training.fit.training import train as train_run
from training.plots import plot_sheet

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


@app.callback()
def group() -> None:
    """Train networks on images, measure them and export them as bundles for the service."""


Data = Annotated[
    Path | None,
    typer.Option(
        help="A folder of IDX, CSV or image files, or `keras`; without it Fashion-MNIST is looked for."
    ),
]
Size = Annotated[
    int, typer.Option(min=8, help="Height and width that images of a folder are brought to.")
]


@app.command()
def train(
    architecture: Annotated[str, typer.Argument(help="A name that `list` shows.")] = "",
    recipe: Annotated[
        str, typer.Option(help="A recipe of the architecture; without it, its first.")
    ] = "",
    name: Annotated[
        str, typer.Option(help="The run's name; without it, ARCHITECTURE-RECIPE-sSEED.")
    ] = "",
    data: Data = None,
    size: Size = 28,
    seed: Annotated[int, typer.Option(help="Of weights, shuffling, dropout and augmentation.")] = 1,
    epochs: Annotated[
        int | None, typer.Option(help="Instead of the recipe's number of epochs.")
    ] = None,
    augmentation: Annotated[
        str | None, typer.Option(help=f"Instead of the recipe's: {', '.join(AUGMENTATIONS)}.")
    ] = None,
    precision: Annotated[
        Literal["float32", "mixed_bfloat16"],
        typer.Option(help="bfloat16 is faster where the processor has it."),
    ] = "float32",
    weights: Annotated[
        Path | None, typer.Option(help="VGG19's ImageNet weights; without it Keras downloads.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option("--from", help="The run that this one continues.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="A run or bundle to be distilled from; several are averaged."),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(help="Photos with a labels.csv, for recipes that learn from them."),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Finish this interrupted run, with its --data and --photos.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="The folder of run folders.")] = Path("runs"),
) -> None:
    """Train a network and leave a run folder with its weights, history and curves."""
    if resume is not None:
        resume_run(resume, open_source(data, read_config(resume).input_size), photos)
        return
    find_architecture(architecture)
    recipe = recipe or next(iter(RECIPES[architecture]))
    changed: dict[str, Any] = {"epochs": epochs, "augmentation": augmentation}
    chosen = dataclasses.replace(
        find_recipe(architecture, recipe),
        **{key: value for key, value in changed.items() if value is not None},
    )
    name = name or f"{architecture}-{recipe}-s{seed}"
    source = open_source(data, (size, size))
    config = plan(
        architecture,
        recipe,
        chosen,
        source,
        name=name,
        seed=seed,
        precision=precision,
        start_from=start_from,
        teachers=teacher or (),
        photos=photos,
    )
    train_run(config, source, runs / name, start_from=start_from, weights=weights, photos=photos)


@app.command("list")
def list_architectures() -> None:
    """Name every network with its parameters, recipes and published test accuracies."""
    table = rich.table.Table("architecture", "parameters", "recipe", "published", "how")
    for name, found in ARCHITECTURES.items():
        for recipe_name, recipe in RECIPES[name].items():
            published = "" if recipe.published is None else f"{recipe.published:.2%}"
            table.add_row(name, f"{found.parameters:,}", recipe_name, published, str(recipe))
    for recipe_name, recipe in MODERN_RECIPES.items():
        table.add_row("any", "", recipe_name, "", str(recipe))
    rich.print(table)


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    data: Data = None,
    augmentation: Annotated[
        str, typer.Option(help="What counts as known: images changed like this.")
    ] = "none",
    photos: Annotated[
        Path | None, typer.Option(help="The photos that the run learnt from.")
    ] = None,
) -> None:
    """Fit temperature, distance to the classes and prediction sets on validation, before the run is evaluated."""
    calibration = calibrate_run(
        run, open_source(data, read_config(run).input_size), augmentation, photos
    )
    typer.echo(
        f"{run}: temperature {calibration.temperature:.3f}, known up to a distance of {calibration.threshold:.3f}"
    )


@app.command()
def evaluate(
    measured: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="The folder of a finished run or a bundle.")
    ],
    data: Data = None,
    output: Annotated[Path | None, typer.Option(help="Where the figures of a bundle go.")] = None,
    photos: Annotated[
        Path | None, typer.Option(help="A folder of photos, some of other things, and labels.csv.")
    ] = None,
) -> None:
    """Measure a run or a bundle on the test set and write metrics.json and pictures; a run is measured once."""
    if (measured / MANIFEST_FILE).exists():
        manifest = read_bundle(measured).manifest
        output = output or Path("evaluations") / f"{manifest.name}-{manifest.version}"
        test = evaluate_bundle(measured, open_source(data, manifest.input_size), output, photos)[
            "test"
        ]
    else:
        test = evaluate_run(measured, open_source(data, read_config(measured).input_size), photos)[
            "test"
        ]
    low, high = test["wilson_95"]
    typer.echo(
        f"{test['accuracy']:.2%} of {test['count']:,} test images (95 %: {low:.2%} to {high:.2%})"
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of an evaluated run.")],
    name: Annotated[
        str, typer.Option(help="The bundle's name; without it, the architecture's.")
    ] = "",
    version: Annotated[str, typer.Option(help="The bundle's version.")] = "1",
    data: Data = None,
    models: Annotated[Path, typer.Option(help="The folder of bundles.")] = Path("models"),
) -> None:
    """Convert an evaluated run to ONNX, check the graph against Keras and publish it as a bundle."""
    from training.export.bundle import (
        export as export_run,
    )  # loads TensorFlow, which the other commands do without

    config = read_config(run)
    bundle = export_run(
        run, open_source(data, config.input_size), models, name or config.architecture, version
    )
    difference = bundle.manifest.metrics["parity"]["largest_difference"]
    typer.echo(
        f"{bundle.folder}: {len(bundle.model):,} bytes, largest difference from Keras {difference:.1e}"
    )


@app.command()
def golden(
    run: Annotated[Path, typer.Argument(help="The run that the shipped bundle was exported from.")],
    output: Annotated[Path, typer.Option(help="Where the tests look.")] = Path(
        "tests/data/fashion-mnist-sample"
    ),
    count: Annotated[int, typer.Option(help="Number of test images.")] = 300,
    png_count: Annotated[int, typer.Option(help="How many of them are written as PNG too.")] = 30,
    data: Data = None,
) -> None:
    """Write the golden set of the tests: test images and the probabilities that Keras gives them."""
    write_golden(run, open_source(data), output, count, png_count)


@app.command()
def show(
    output: Annotated[Path, typer.Option(help="The picture to write.")] = Path("samples.png"),
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 5,
    data: Data = None,
    size: Size = 28,
) -> None:
    """Draw a labelled sheet of images of the training set as PNG."""
    source = open_source(data, (size, size))
    samples = source.training()
    names = source.class_names
    chosen = np.concatenate(
        [np.flatnonzero(samples.labels == label)[:per_class] for label in range(len(names))]
    )
    plot_sheet(output, samples.images[chosen], [names[label] for label in samples.labels[chosen]])
    typer.echo(output)


@app.command()
def project(
    output: Annotated[Path, typer.Option(help="The folder for `tensorboard --logdir`.")] = Path(
        "projection"
    ),
    run: Annotated[
        Path | None, typer.Option(help="Project this run's features; without it, raw pixels.")
    ] = None,
    count: Annotated[
        int, typer.Option(min=20, help="Number of images, drawn from the training set.")
    ] = 2_000,
    data: Data = None,
    size: Size = 28,
) -> None:
    """Write a log of TensorBoard's embedding projector, and PNGs of PCA and t-SNE."""
    source = open_source(data, (size, size) if run is None else read_config(run).input_size)
    samples = source.training()
    count = min(count, len(samples) // 2, largest_count(samples.input_size))
    _, chosen = samples.split(count / len(samples), seed=1)
    write_projection(chosen, source.class_names, output, run)
    typer.echo(output)


@app.command()
def photos(
    folder: Annotated[
        Path, typer.Argument(help="Photos with a labels.csv: file, class_id, tier, source.")
    ],
    model: Annotated[Path, typer.Option(help="The bundle that is measured.")] = Path(
        "models/resnet-8-photos/1"
    ),
    data: Data = None,
    sheet: Annotated[
        Path, typer.Option(help="Picture to draw: photos, what the model saw, its answers.")
    ] = Path("evaluations/photos.png"),
    output: Annotated[
        Path, typer.Option(help="The page to write; its figures go beside it.")
    ] = Path("docs/photos.md"),
) -> None:
    """Measure a bundle on photos, and on photos made of Fashion-MNIST, and render the page of all so measured."""
    bundle = read_bundle(model)
    typer.echo(
        write_photos(bundle, folder, open_source(data, bundle.manifest.input_size), sheet, output)
    )


@app.command()
def report(
    runs: Annotated[Path, typer.Option(help="The folder of run folders.")] = Path("runs"),
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
) -> None:
    """Render the page of results from all evaluated runs."""
    output.write_text(render_results(read_runs(runs)), encoding="utf-8")
    typer.echo(output)


@app.command()
def variants(
    bundles: Annotated[list[Path], typer.Argument(help="The folders of bundles.")],
    data: Data = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/variants.md"),
) -> None:
    """Make int8 and float16 variants of bundles and measure them beside float32, on validation."""
    read = [read_bundle(folder) for folder in bundles]
    training = open_source(data, read[0].manifest.input_size).training()
    measured = {
        f"{b.manifest.name}-{b.manifest.version}": make_and_compare(b, training) for b in read
    }
    output.write_text(render_variants(measured), encoding="utf-8")
    typer.echo(output)


def main() -> None:
    """Run the command line; an error raised on purpose is one line and exit code 1."""
    try:
        app()
    except (TrainingError, ServiceError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
