"""What a run writes after each epoch."""

from __future__ import annotations

import time
from pathlib import Path

import keras
import numpy as np

from training.fit.batches import Batches
from training.fit.photo_batches import PhotoBatches
from training.fit.runs import Config, read_history, save_checkpoint, write_history


class Recorder(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Write history and checkpoint after each epoch, and stop early if the recipe says so."""

    def __init__(self, folder: Path, batches: Batches | PhotoBatches, config: Config) -> None:
        super().__init__()
        self._folder = folder
        self._batches = batches
        self._seed = config.seed
        self._earlier_epochs = config.earlier_epochs
        self._patience = config.recipe.early_stopping_patience
        self._history = read_history(folder)
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Seed batches and dropout from the number of the epoch, and start the epoch's clock."""
        del logs
        self._batches.epoch = self._earlier_epochs + epoch
        # Keras does not save the state of dropout: a seed and a count of calls. An epoch has fewer
        # than 2**20 calls, so epochs never share a state.
        calls = self._batches.epoch << 20
        for number, layer in enumerate(self.model.layers):
            if isinstance(layer, keras.layers.Dropout):
                layer.seed_generator.state.assign((1000 * self._seed + number, calls))
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the history before the checkpoint, so that a checkpoint marks a finished epoch."""
        row = {"epoch": self._earlier_epochs + epoch + 1, **(logs or {})}
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        row["seconds"] = round(time.monotonic() - self._started, 1)
        self._history = [*self._history[:epoch], row]
        write_history(self._folder, self._history)
        save_checkpoint(self._folder, self.model, epoch + 1)
        losses = [earlier["val_loss"] for earlier in self._history]
        epochs_since_best = len(losses) - 1 - int(np.argmin(losses))
        if self._patience is not None and epochs_since_best >= self._patience:
            self.model.stop_training = True
