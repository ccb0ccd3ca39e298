"""The command line: commands work on a folder of images, and mistakes give one line of error."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from service.bundle import newest_version, read_bundle
from tests.training.fashion_mnist import ROOT, fashion_mnist, sample
from training.__main__ import main
from training.architectures import ARCHITECTURES, find_architecture
from training.data.sources.idx import CLASS_NAMES, TEST_FILES, TRAINING_FILES
from training.fit.recipes import RECIPES


class Command:
    """``python -m training`` in an empty folder.

    It runs in the process of the tests, because Keras takes seconds to load.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> str:
        """Run the command and return its last line. A failing command raises SystemExit."""
        self._monkeypatch.setattr(sys, "argv", ["training", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = self._capsys.readouterr()
        if ended.value.code:
            raise SystemExit(f"{ended.value.code} {output.err}")
        return output.out.splitlines()[-1]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Return the command line, set to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two classes of the sample with 30 images each."""
    folder = tmp_path_factory.mktemp("images")
    for number, (image, label) in enumerate(zip(sample().images, sample().labels, strict=True)):
        if label in (8, 9):
            (folder / CLASS_NAMES[label]).mkdir(exist_ok=True)
            keras.utils.save_img(
                folder / CLASS_NAMES[label] / f"{number}.png", image[..., None], scale=False
            )
    return folder


def test_own_images_are_trained_evaluated_and_exported(
    command: Command, images: Path, tmp_path: Path
) -> None:
    """The commands after `train` find the folder of images that the run learned from."""
    trained = command(
        "train", "cnn-1conv", "--data", images, "--size", "24", "--epochs", "2", "--name", "own"
    )
    assert re.search(r"runs/own: \d+\.\d\d% of the validation images .* a guess gets 50%", trained)
    assert "temperature" in command("calibrate", "runs/own")
    evaluated = command("evaluate", "runs/own")
    assert "of 10 test images" in evaluated
    assert "largest difference from Keras" in command("export", "runs/own", "--name", "own")
    manifest = read_bundle(tmp_path / "models" / "own" / "1").manifest
    assert manifest.class_names == ("Ankle boot", "Bag")
    assert manifest.input_size == (24, 24)
    assert (
        command("evaluate", "models/own/1", "--data", images, "--output", "measured") == evaluated
    )
    with pytest.raises(SystemExit, match="Ankle boot, Bag are not those of Fashion-MNIST: pass"):
        command("evaluate", "models/own/1")


def test_moved_images_are_named(command: Command, images: Path, tmp_path: Path) -> None:
    """A run whose images have moved names their old place, and takes their new one."""
    data = tmp_path / "data"
    shutil.copytree(images, data)
    command("train", "mlp-64-64", "--data", data, "--epochs", "1", "--name", "own")
    data.rename(tmp_path / "moved")
    with pytest.raises(SystemExit, match=f"from {data}, which does not exist any more: .* --data"):
        command("evaluate", "runs/own")
    (tmp_path / "runs/own/places.json").unlink()
    with pytest.raises(SystemExit, match="not those of Fashion-MNIST: pass the folder"):
        command("evaluate", "runs/own")
    assert "of 10 test images" in command("evaluate", "runs/own", "--data", "moved")


def test_test_folder_that_lacks_a_class_is_measured(
    command: Command, images: Path, tmp_path: Path
) -> None:
    """A class without test images has no figures of its own; the run is evaluated and exported."""
    data = tmp_path / "data"
    shutil.copytree(images, data / "train")
    shutil.copytree(images / "Bag", data / "test" / "Bag")
    command("train", "cnn-1conv", "--data", data, "--epochs", "1", "--name", "own")
    command("calibrate", "runs/own", "--data", data)
    assert "of 30 test images" in command("evaluate", "runs/own", "--data", data)
    assert "NaN" not in (tmp_path / "runs/own/metrics.json").read_text()
    for name, version in (("Own", "1"), ("own", "1/2"), ("own", "v_1")):
        with pytest.raises(SystemExit, match="is not allowed"):
            command("export", "runs/own", "--data", data, "--name", name, "--version", version)
    command("export", "runs/own", "--data", data, "--name", "own")
    card = (tmp_path / "models/own/1/MODEL_CARD.md").read_text()
    assert "(Bag)" in card
    assert "nan" not in card


@pytest.mark.parametrize("backend", ["torch", "nonsense"])
def test_backend_that_is_not_installed_is_named(backend: str) -> None:
    """A backend of Keras that is not installed gives one line that says what to set."""
    environment = {**os.environ, "KERAS_BACKEND": backend}
    words = [sys.executable, "-m", "training", "list"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert backend in done.stderr
    assert "set KERAS_BACKEND to tensorflow or jax" in done.stderr


def test_plots_are_drawn_without_a_run(command: Command, images: Path, tmp_path: Path) -> None:
    """The commands show and project need no run."""
    assert command("show", "--data", images) == "samples.png"
    assert (tmp_path / "samples.png").read_bytes().startswith(b"\x89PNG")
    assert command("project", "--data", images, "--count", "20") == "projection"
    assert (tmp_path / "projection" / "tsne.png").exists()


def test_list_fits_into_80_columns() -> None:
    """The command list shows each network with parameters, recipes and published accuracy."""
    words = [sys.executable, "-m", "training", "list"]
    environment = {**os.environ, "COLUMNS": "80", "KERAS_BACKEND": "numpy"}
    listed = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert max(map(len, listed.splitlines())) <= 80
    names = {*ARCHITECTURES, *(recipe for recipes in RECIPES.values() for recipe in recipes)}
    assert names <= set(listed.split())
    assert "24,224,330 parameters" in listed
    assert "93.52%" in listed


def test_download_of_keras_is_a_source(tmp_path: Path) -> None:
    """``--data keras`` reads and verifies the files in Keras' cache."""
    whole = fashion_mnist().folder
    cache = tmp_path / "datasets" / "fashion-mnist"
    cache.mkdir(parents=True)
    for name in TRAINING_FILES + TEST_FILES:
        (cache / name).symlink_to(whole / name)
    words = [
        sys.executable,
        "-m",
        "training",
        "show",
        "--data",
        "keras",
        "--output",
        str(tmp_path / "sheet.png"),
    ]
    subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, "KERAS_HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "resnet"), "error: there is no architecture 'resnet'; choose one of mlp-64-64"),
        (("train", "mlp-64-64", "--recipe", "x"), "error: there is no recipe 'x' for mlp-64-64"),
        (("train", "mlp-64-64", "--precision", "half"), "'half'"),
        (
            ("train", "mlp-64-64", "--augmentation", "x"),
            "error: there is no augmentation 'x'; choose one of none",
        ),
        (("train", "cnn-1conv", "--recipe", "augmented-degrees"), "pass its folder with --from"),
        (("train", "mlp-64-64", "--name", "My_run"), "error: the name 'My_run' is not allowed"),
        (("train", "mlp-64-64", "--name", "../run"), "error: the name '../run' is not allowed"),
        (("train", "mlp-64-64", "--epochs", "0"), "--epochs"),
        (
            ("train", "efficientnet-lite0", "--recipe", "modern"),
            "error: efficientnet-lite0 learns from photos, and recipe modern from images of the",
        ),
        (
            ("train", "efficientnet-lite0", "--photos", "nowhere", "--worn", "nowhere"),
            "error: recipe garments knows the classes of Fashion-MNIST only",
        ),
        (
            ("train", "mlp-64-64", "--resume", "nowhere", "--epochs", "9", "--from", "nowhere"),
            "as it was started: leave out architecture, --epochs, --from",
        ),
        (("evaluate", "nowhere"), "error: nowhere is not a run"),
        (("export", "nowhere"), "error: nowhere is not a run"),
    ],
)
def test_mistakes_are_answered_with_one_line(
    command: Command, images: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    """A mistake gives one line that says what is allowed, and creates no run."""
    with pytest.raises(SystemExit, match=re.escape(message)):
        command(*words, "--data", images)
    assert not (tmp_path / "runs").exists()


def test_report_of_no_runs_keeps_the_page(command: Command, tmp_path: Path) -> None:
    """A wrong folder of runs does not replace the page by an empty one."""
    (tmp_path / "page.md").write_text("figures")
    with pytest.raises(SystemExit, match="error: rnus has no evaluated run"):
        command("report", "--runs", "rnus", "--output", "page.md")
    assert (tmp_path / "page.md").read_text() == "figures"


def test_bundle_for_photos_is_measured_by_another_command(command: Command, images: Path) -> None:
    """The test images of the data set are not opened for a bundle whose input is a photo."""
    bundle = newest_version(ROOT / "models/garments")
    with pytest.raises(SystemExit, match="is for photos: measure it with"):
        command("evaluate", bundle, "--data", images)


def test_vgg19_trains_from_a_file_of_weights(
    command: Command, images: Path, tmp_path: Path
) -> None:
    """VGG19 loads its weights from a file, keeps them, and trains only its head."""
    few = tmp_path / "few"
    for folder in images.iterdir():
        (few / folder.name).mkdir(parents=True)
        for picture in sorted(folder.iterdir())[:15]:
            shutil.copy(picture, few / folder.name)
    vgg19 = keras.applications.VGG19(include_top=False, weights=None, input_shape=(150, 150, 3))
    vgg19.save_weights(tmp_path / "small.weights.h5")
    weights = tmp_path / "small.weights.h5"
    command(
        "train",
        "vgg19-transfer",
        "--data",
        few,
        "--epochs",
        "1",
        "--name",
        "vgg",
        "--weights",
        weights,
    )
    model = find_architecture("vgg19-transfer").build((28, 28), 2)
    model.load_weights(tmp_path / "runs" / "vgg" / "model.keras")
    kept = model.get_layer("vgg19").get_weights()
    assert all((a == b).all() for a, b in zip(kept, vgg19.get_weights(), strict=True))


def test_tensorflow_is_imported_by_export_alone() -> None:
    """Only export/graph.py imports TensorFlow: the rest runs on any Keras backend."""
    users = set()
    for path in (ROOT / "training").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            if {name.split(".")[0] for name in names} & {"tensorflow", "tf2onnx"}:
                users.add(path.name)
    assert users == {"graph.py"}
