"""The average of the weights of a fine-tuned run and of the run that it started from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from training.errors import RunError
from training.fit.places import PLACES_FILE
from training.fit.runs import (
    HISTORY_FILE,
    MODEL_FILE,
    describe_making,
    load_model,
    read_config,
    write_config,
)


def average(run: Path, start: Path, folder: Path) -> None:
    """Write the run ``folder``: the mean of the weights of ``run`` and of ``start``.

    Both answer alike after little fine-tuning, and their mean keeps more of what the earlier run
    knew (Wortsman et al. 2022, "Robust fine-tuning"). The new run has the settings of ``run``.

    Raises:
        RunError: ``run`` did not start from ``start``, one of them has not ended, or ``folder``
            exists.
    """
    if folder.exists():
        raise RunError(f"{folder} exists already: choose another --name")
    config, earlier = read_config(run), read_config(start)
    if config.continued_from != earlier.name:
        raise RunError(
            f"{run} started from {config.continued_from}, not from {earlier.name}: pass the run "
            "that it started from with --with"
        )
    model, other = load_model(run), load_model(start)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    model.set_weights([(ours + theirs) / 2 for ours, theirs in pairs])
    averaged = replace(config, name=folder.name, is_averaged=True, made_by=describe_making())
    write_config(folder, averaged)
    for name in (HISTORY_FILE, PLACES_FILE):
        if (run / name).exists():
            shutil.copyfile(run / name, folder / name)
    model.save(folder / MODEL_FILE)
