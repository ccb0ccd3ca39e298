"""Own the PNG pictures of runs and data. Must never measure anything."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from training.runs import read_history


def plot_history(folder: Path) -> None:
    """Draw training and validation curves from ``history.csv`` as ``curves.png``."""
    history = read_history(folder)
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [row[quantity] for row in history], label="training")
        axes.plot(epochs, [row[f"val_{quantity}"] for row in history], label="validation")
        axes.set(xlabel="epoch", ylabel=quantity, title=folder.name)
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, folder / "curves.png")


def _save(figure: Figure, path: Path) -> None:
    # Without metadata, the same picture is the same file.
    figure.savefig(path, dpi=100, metadata={"Software": None})
