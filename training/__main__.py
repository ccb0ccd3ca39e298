"""The command line of training: ``python -m training COMMAND``."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

# TensorFlow prints log lines when it is imported. Level 3 hides all except fatal errors.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

try:
    import keras  # noqa: F401  first, because it loads the backend that the user has chosen
except (ImportError, ValueError) as error:
    sys.exit(
        f"error: Keras cannot load the backend {os.environ.get('KERAS_BACKEND') or ''}: {error}; "
        "install it, or set KERAS_BACKEND to tensorflow or jax"
    )

import numpy as np
import rich
import rich.table
import typer

from service.bundle import check_name, is_bundle, read_bundle
from service.errors import ServiceError
from service.imaging.letterbox import LETTERBOX
from training.architectures import ARCHITECTURES, find_architecture
from training.assess.calibration import calibrate as calibrate_run
from training.assess.evaluation import evaluate as evaluate_run
from training.assess.evaluation import evaluate_bundle
from training.assess.photo_report import Material, write_photos
from training.assess.photo_runs import calibrate_photo_run, evaluate_photo_run
from training.assess.projection import largest_count
from training.assess.projection import project as write_projection
from training.assess.results import read_runs, render_results
from training.data.photos.collection import PhotoFolders
from training.data.samples import Source
from training.data.sources import find_fashion_mnist, open_source
from training.data.sources.idx import CLASS_NAMES
from training.errors import DataError, RunError, TrainingError
from training.export.golden import write_golden
from training.export.photo_variants import make_and_compare_photos
from training.export.variants import make_and_compare, render_variants
from training.fit.augmentation import AUGMENTATIONS
from training.fit.averaging import average as average_runs
from training.fit.places import Places, find_places
from training.fit.recipe import Recipe
from training.fit.recipes import MODERN_RECIPES, RECIPES, find_recipe
from training.fit.runs import read_config, read_history
from training.fit.training import plan
from training.fit.training import resume as resume_run
from training.fit.training import train as train_run
from training.plots import plot_sheet

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def describe() -> None:
    """Train networks on images, measure them and export them as bundles for the service."""


Data = Annotated[
    Path | None,
    typer.Option(
        help="A folder of IDX, CSV or image files, or `keras`. "
        "Default: what the run learned from, or else Fashion-MNIST."
    ),
]
Size = Annotated[
    int, typer.Option(min=8, help="Height and width in pixels of images from a folder.")
]
Runs = Annotated[Path, typer.Option(help="The folder of run folders.")]

# The options of `train`.
Name = Annotated[str, typer.Option(help="The run's name. Default: ARCHITECTURE-RECIPE-sSEED.")]
RecipeName = Annotated[
    str, typer.Option(help="A recipe of the architecture. Default: its first one.")
]
Seed = Annotated[
    int, typer.Option(min=0, help="Seed of weights, shuffling, dropout and augmentation.")
]
Epochs = Annotated[int | None, typer.Option(min=1, help="Number of epochs. Default: the recipe's.")]
Augmentation = Annotated[
    str | None, typer.Option(help=f"{', '.join(AUGMENTATIONS)}. Default: the recipe's.")
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Measure the speed and train as many epochs as end in this time. "
        "Needs KERAS_BACKEND=jax.",
    ),
]
Precision = Annotated[
    Literal["float32", "mixed_bfloat16"],
    typer.Option(help="bfloat16 is faster on processors that support it."),
]
Weights = Annotated[
    Path | None, typer.Option(help="VGG19's ImageNet weights. Default: Keras downloads them.")
]
StartFrom = Annotated[Path | None, typer.Option("--from", help="The run to continue or fine-tune.")]
Teachers = Annotated[
    list[Path] | None,
    typer.Option(help="A run or bundle that gives the targets. Repeat it to average several."),
]
Photos = Annotated[
    Path | None, typer.Option(help="Photos with a labels.csv, for recipes that learn from photos.")
]
Worn = Annotated[
    Path | None, typer.Option(help="Photos of worn garments with masks and a labels.csv.")
]
Resume = Annotated[
    Path | None,
    typer.Option(help="An interrupted run to finish, with its own data."),
]


@app.command()
def train(
    context: typer.Context,
    architecture: Annotated[str, typer.Argument(help="A name from `list`.")] = "",
    recipe: RecipeName = "",
    name: Name = "",
    data: Data = None,
    size: Size = 28,
    seed: Seed = 1,
    epochs: Epochs = None,
    minutes: Minutes = None,
    augmentation: Augmentation = None,
    precision: Precision = "float32",
    weights: Weights = None,
    start_from: StartFrom = None,
    teacher: Teachers = None,
    photos: Photos = None,
    worn: Worn = None,
    resume: Resume = None,
    runs: Runs = Path("runs"),
) -> None:
    """Train a network and write a run folder with weights, history and curves."""
    if resume is not None:
        _check_resumed(context)
        resume_run(resume, *_open_run(resume, data, photos, worn))
        _report_training(resume)
        return
    folders = Places(photos=photos, worn=worn).join_photos()
    find_architecture(architecture)
    recipe = recipe or next(iter(RECIPES[architecture]))
    changed: dict[str, Any] = {"epochs": epochs, "augmentation": augmentation}
    chosen = dataclasses.replace(
        find_recipe(architecture, recipe),
        **{key: value for key, value in changed.items() if value is not None},
    )
    name = name or f"{architecture}-{recipe}-s{seed}"
    check_name(name)  # now, because `export` may take it for the bundle, hours later
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
        photos=folders,
    )
    train_run(
        config,
        source,
        runs / name,
        start_from=start_from,
        weights=weights,
        photos=folders,
        minutes=minutes,
    )
    _report_training(runs / name)


def _check_resumed(context: typer.Context) -> None:
    """Reject options that an interrupted run cannot change any more."""
    ignored = [
        parameter.opts[-1]
        for parameter in context.command.params
        if parameter.name not in ("resume", "data", "photos", "worn")
        and str(context.get_parameter_source(str(parameter.name))).endswith("COMMANDLINE")
    ]
    if ignored:
        names = ", ".join(ignored)
        raise RunError(f"--resume finishes a run as it was started: leave out {names}")


def _report_training(run: Path) -> None:
    accuracy = read_history(run)[-1]["val_accuracy"]
    guess = 1 / len(read_config(run).class_names)
    typer.echo(
        f"{run}: {accuracy:.2%} of the validation images are right; a guess gets {guess:.0%}. "
        f"Next: python -m training calibrate {run}"
    )


@app.command("list")
def list_architectures() -> None:
    """List networks from small to large, with recipes and published test accuracies."""
    table = rich.table.Table(box=None)
    table.add_column("network, recipes", no_wrap=True)
    table.add_column("published", justify="right")
    table.add_column("how")
    for name, found in sorted(ARCHITECTURES.items(), key=lambda item: item[1].parameters):
        _add_rows(table, name, f"{found.parameters:,} parameters", RECIPES[name])
    _add_rows(table, "any network", "", MODERN_RECIPES)
    rich.print(table)


def _add_rows(
    table: rich.table.Table, name: str, parameters: str, recipes: Mapping[str, Recipe]
) -> None:
    table.add_row(name, "", parameters, style="bold")
    for recipe_name, recipe in recipes.items():
        published = "" if recipe.published is None else f"{recipe.published:.2%}"
        table.add_row(f"  {recipe_name}", published, str(recipe))
    table.add_row()


@app.command()
def average(
    run: Annotated[
        Path, typer.Argument(help="The folder of a finished run that fine-tuned another.")
    ],
    start: Annotated[Path, typer.Option("--with", help="The run that it started from.")],
    name: Annotated[str, typer.Option(help="The new run's name.")],
    runs: Runs = Path("runs"),
) -> None:
    """Write a run with the mean of the weights of a fine-tuned run and of its start."""
    check_name(name)
    average_runs(run, start, runs / name)
    typer.echo(f"{runs / name}. Next: python -m training calibrate {runs / name}")


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run.")],
    data: Data = None,
    augmentation: Annotated[
        str, typer.Option(help="Images changed by this augmentation count as known.")
    ] = "none",
    photos: Photos = None,
    worn: Worn = None,
) -> None:
    """Fit temperature, distance and prediction sets of a run, before it is evaluated."""
    source, folders = _open_run(run, data, photos, worn)
    if folders is None:
        calibration = calibrate_run(run, source, augmentation)
    else:
        calibration = calibrate_photo_run(run, source, folders)
    typer.echo(
        f"{run}: temperature {calibration.temperature:.3f}, "
        f"distance threshold {calibration.threshold:.3f}"
    )


@app.command()
def evaluate(
    measured: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="The folder of a finished run or a bundle.")
    ],
    data: Data = None,
    output: Annotated[Path | None, typer.Option(help="The folder for a bundle's figures.")] = None,
    photos: Photos = None,
    worn: Worn = None,
) -> None:
    """Measure a run (only once) or a bundle on the test set; write metrics.json and plots."""
    if is_bundle(measured):
        manifest = read_bundle(measured).manifest
        output = output or Path("evaluations") / f"{manifest.name}-{manifest.version}"
        source = _open_data(data, manifest.input_size, manifest.class_names)
        metrics = evaluate_bundle(measured, source, output)
    else:
        source, folders = _open_run(measured, data, photos, worn)
        if folders is None:
            metrics = evaluate_run(measured, source)
        else:
            metrics = evaluate_photo_run(measured, source, folders)
    test = metrics["test"]
    low, high = test["wilson_95"]
    typer.echo(
        f"{test['accuracy']:.2%} of {test['count']:,} test images (95 %: {low:.2%} to {high:.2%})"
    )


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="The folder of an evaluated run.")],
    name: Annotated[str, typer.Option(help="The bundle's name. Default: the architecture's.")] = "",
    version: Annotated[str, typer.Option(help="The bundle's version.")] = "1",
    data: Data = None,
    models: Annotated[Path, typer.Option(help="The folder of bundles.")] = Path("models"),
) -> None:
    """Convert an evaluated run to ONNX, check it against Keras and publish a bundle."""
    # TensorFlow is loaded here, because no other command needs it.
    from training.export.bundle import export as export_run

    source = _open_source(run, data)
    bundle = export_run(run, source, models, name or read_config(run).architecture, version)
    difference = bundle.manifest.metrics["parity"]["largest_difference"]
    typer.echo(
        f"{bundle.folder}: {len(bundle.model):,} bytes, "
        f"largest difference from Keras {difference:.1e}"
    )


@app.command()
def golden(
    model: Annotated[
        Path, typer.Argument(metavar="RUN|BUNDLE", help="The run or the bundle that answers.")
    ],
    name: Annotated[str, typer.Option(help="The name of the bundle, for the file of answers.")],
    output: Annotated[Path, typer.Option(help="The folder that the tests read.")] = Path(
        "tests/data/fashion-mnist-sample"
    ),
    count: Annotated[int, typer.Option(help="Number of test images.")] = 300,
    png_count: Annotated[
        int, typer.Option(help="Number of images that are also written as PNG.")
    ] = 30,
    data: Data = None,
) -> None:
    """Write the golden set of the tests: test images and a model's probabilities."""
    write_golden(model, open_source(data), output, name, count, png_count)


@app.command()
def show(
    output: Annotated[Path, typer.Option(help="The PNG file to write.")] = Path("samples.png"),
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 5,
    data: Data = None,
    size: Size = 28,
) -> None:
    """Draw labelled images of the training set."""
    source = open_source(data, (size, size))
    samples = source.training()
    names = source.class_names
    labels = range(len(names))
    chosen = np.concatenate([np.flatnonzero(samples.labels == n)[:per_class] for n in labels])
    plot_sheet(output, samples.images[chosen], [names[label] for label in samples.labels[chosen]])
    typer.echo(output)


@app.command()
def project(
    output: Annotated[Path, typer.Option(help="The folder for `tensorboard --logdir`.")] = Path(
        "projection"
    ),
    run: Annotated[
        Path | None,
        typer.Option(help="The run whose features are projected. Default: raw pixels."),
    ] = None,
    count: Annotated[int, typer.Option(min=20, help="Number of training images.")] = 2_000,
    data: Data = None,
    size: Size = 28,
) -> None:
    """Write a log for TensorBoard's embedding projector, and plots of PCA and t-SNE."""
    source = open_source(data, (size, size)) if run is None else _open_source(run, data)
    samples = source.training()
    count = min(count, len(samples) // 2, largest_count(samples.input_size))
    _, chosen = samples.split(count / len(samples), seed=1)
    write_projection(chosen, source.class_names, output, run)
    typer.echo(output)


@app.command()
def photos(
    folder: Annotated[
        Path, typer.Argument(help="Photos with a labels.csv (file, class_id, tier, source).")
    ],
    model: Annotated[Path, typer.Option(help="The bundle to measure.")] = Path("models/garments/3"),
    reference: Annotated[
        Path,
        typer.Option(help="Pictures are made only from images that this bundle gets right."),
    ] = Path("models/resnet-8/3"),
    worn: Worn = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Fashion-MNIST, of which pictures are made. "
            "Default: find it on this machine, or leave these rows out."
        ),
    ] = None,
    sheet: Annotated[
        Path, typer.Option(help="The PNG file to write: photos, heat maps, answers.")
    ] = Path("evaluations/photos.png"),
    output: Annotated[
        Path, typer.Option(help="The page to write. Its figures are written beside it.")
    ] = Path("evaluations/photos.md"),
) -> None:
    """Measure a bundle on validation photos; render the page of all bundles measured so far."""
    judge = read_bundle(reference)
    size = judge.manifest.input_size
    source = find_fashion_mnist() if data is None else open_source(data, size)
    material = Material(folder, worn, source, judge)
    typer.echo(write_photos(read_bundle(model), material, sheet, output))


@app.command()
def report(
    runs: Runs = Path("runs"),
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("docs/results.md"),
) -> None:
    """Render the page of results from all evaluated runs."""
    evaluated = read_runs(runs)
    if not evaluated:
        raise RunError(f"{runs} has no evaluated run on Fashion-MNIST: check --runs")
    page = render_results(evaluated)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")
    typer.echo(output)


@app.command()
def variants(
    bundles: Annotated[list[Path], typer.Argument(help="The folders of bundles.")],
    data: Data = None,
    photos: Photos = None,
    worn: Worn = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path(
        "evaluations/variants.md"
    ),
) -> None:
    """Make int8, float16 and resized variants of bundles and compare them with float32."""
    read = [read_bundle(folder) for folder in bundles]
    folders = Places(photos=photos, worn=worn).join_photos()
    training = open_source(data, read[0].manifest.input_size).training()
    measured = {}
    for bundle in read:
        name = f"{bundle.manifest.name}-{bundle.manifest.version}"
        if bundle.manifest.preprocessing != LETTERBOX:
            measured[name] = make_and_compare(bundle, training)
        elif folders is None:
            raise RunError(f"{bundle.folder} is for photos: pass folders with --photos and --worn")
        else:
            measured[name] = make_and_compare_photos(bundle, training, folders)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render_variants(measured), encoding="utf-8")
    typer.echo(output)


def _open_run(
    run: Path, data: Path | None, photos: Path | None = None, worn: Path | None = None
) -> tuple[Source, PhotoFolders | None]:
    """Open what a run learned from. Options of the command line come before the run's places."""
    config, places = read_config(run), find_places(run, Places(data, photos, worn))
    source = _open_data(places.data, config.input_size, config.class_names)
    return source, places.join_photos()


def _open_source(run: Path, data: Path | None) -> Source:
    """Open the data set of a run; its photos may be elsewhere."""
    config, places = read_config(run), find_places(run, Places(data), ["data"])
    return _open_data(places.data, config.input_size, config.class_names)


def _open_data(
    data: Path | None, input_size: tuple[int, int], class_names: tuple[str, ...]
) -> Source:
    if data is None and class_names != CLASS_NAMES:
        raise DataError(
            f"the classes {', '.join(class_names)} are not those of Fashion-MNIST: pass the folder "
            "of their images with --data"
        )
    return open_source(data, input_size)


def main() -> None:
    """Run the command line. An expected error gives one line and exit code 1."""
    try:
        app()
    except (TrainingError, ServiceError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
