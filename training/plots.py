"""The PNG plots of runs and data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import ConfusionMatrixDisplay

Images = NDArray[np.uint8]


def plot_history(path: Path, history: Sequence[dict[str, float]], title: str) -> None:
    """Draw the training and validation curves of a run's history."""
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[quantity] for row in history], label="training")
        axes.plot(epochs, [row[f"val_{quantity}"] for row in history], label="validation")
        axes.set(xlabel="epoch", ylabel=quantity, title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    save(figure, path)


def plot_confusion(path: Path, matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> None:
    """Draw a confusion matrix twice: as counts, and as shares of each true class."""
    counts = np.asarray(matrix)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(1)
    side = 1.5 + 0.5 * len(class_names)
    figure = Figure(figsize=(2 * side, side), layout="constrained")
    style = {"cmap": "Blues", "colorbar": False, "xticks_rotation": "vertical"}
    left, right = figure.subplots(1, 2)
    for axes, values, form in ((left, counts, "d"), (right, shares, ".2f")):
        display = ConfusionMatrixDisplay(values, display_labels=class_names)
        display.plot(ax=axes, values_format=form, **style)
    save(figure, path)


def plot_reliability(path: Path, reliability: dict[str, list[float]], error: float) -> None:
    """Draw accuracy against confidence, and the number of images at each confidence."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot((0, 1), (0, 1), color="grey", linestyle="--")
    upper.plot(reliability["confidences"], reliability["accuracies"], marker="o")
    upper.set(ylabel="accuracy", title=f"expected calibration error {error:.4f}")
    lower.bar(reliability["confidences"], reliability["counts"], width=0.04)
    lower.set(xlabel="confidence", ylabel="images", yscale="log")
    save(figure, path)


def plot_sheet(path: Path, images: Images, captions: Sequence[str], columns: int = 10) -> None:
    """Draw images ``[N, H, W]``, each with a caption above it."""
    rows = max(1, -(-len(images) // columns))
    figure = Figure(figsize=(1.3 * columns, 1.5 * rows), layout="constrained")
    grid = _empty_grid(figure, rows, columns)
    for axes, image, caption in zip(grid, images, captions, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=7)
    save(figure, path)


def plot_pairs(path: Path, pairs: Sequence[tuple[Any, Images, str]], columns: int = 10) -> None:
    """Draw pairs of a photo in RGB and the model's input uint8 ``[H, W]``, each with a caption."""
    rows = max(1, -(-len(pairs) // columns))
    figure = Figure(figsize=(2 * columns, 1.5 * rows), layout="constrained")
    grid = _empty_grid(figure, rows, 2 * columns)
    for number, (photo, image, caption) in enumerate(pairs):
        left, right = grid[2 * number : 2 * number + 2]
        left.imshow(photo)
        left.set_title(caption, fontsize=7, loc="left")
        right.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    save(figure, path)


def plot_points(
    path: Path, points: NDArray[Any], labels: NDArray[np.int64], class_names: Sequence[str]
) -> None:
    """Draw points ``[N, 2]`` with a colour for each class."""
    figure = Figure(figsize=(8, 6), layout="constrained")
    axes = figure.subplots()
    colours = "tab10" if len(class_names) <= 10 else "turbo"
    drawn = axes.scatter(points[:, 0], points[:, 1], c=labels, s=4, cmap=colours)
    handles, _ = drawn.legend_elements(num=list(range(len(class_names))))
    axes.legend(handles, class_names, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xticks=[], yticks=[], title=path.stem)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Save a figure as PNG without metadata, so that equal plots are equal files."""
    figure.savefig(path, dpi=80, metadata={"Software": None})


def _empty_grid(figure: Figure, rows: int, columns: int) -> list[Axes]:
    grid = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in grid:
        axes.axis("off")
    return grid
