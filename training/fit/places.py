"""Where the images of a run lie on this machine: ``places.json`` in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.photos.collection import PhotoFolders
from training.data.samples import Source
from training.errors import RunError

PLACES_FILE = "places.json"


@dataclass(frozen=True)
class Places:
    """The folders of --data, --photos and --worn. None: unknown, or not used."""

    data: Path | None = None
    photos: Path | None = None
    worn: Path | None = None

    def join_photos(self) -> PhotoFolders | None:
        """Return both folders of photos, or None if neither is known.

        Raises:
            RunError: Only one of the two is known.
        """
        if self.photos is None and self.worn is None:
            return None
        if self.photos is None or self.worn is None:
            raise RunError("--photos and --worn are needed together: a run learns from both")
        return PhotoFolders(self.photos, self.worn)


def write_places(run: Path, source: Source, photos: PhotoFolders | None) -> None:
    """Write where a run's images lie, as absolute paths. git ignores the file."""
    folders = {"data": source.folder}
    if photos is not None:
        folders |= {"photos": photos.photos, "worn": photos.worn}
    places = {option: str(folder.resolve()) for option, folder in folders.items()}
    run.mkdir(parents=True, exist_ok=True)
    (run / PLACES_FILE).write_text(json.dumps(places, indent=2) + "\n", encoding="utf-8")


def find_places(
    run: Path, given: Places, options: Sequence[str] = ("data", "photos", "worn")
) -> Places:
    """Complete the folders ``given`` on the command line by those that the run learned from.

    Only the folders of ``options`` are looked for.

    Raises:
        RunError: A folder that is not given does not exist any more, or the file is damaged.
    """
    path = run / PLACES_FILE
    if not path.exists():  # the run was copied from another machine
        return given
    try:
        read = json.loads(path.read_bytes())
        places = {option: Path(read[option]) for option in options if option in read}
    except (ValueError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({error}): delete it, and pass the folders that the run learned "
            "from with --data, --photos and --worn"
        ) from error
    places |= {option: folder for option, folder in vars(given).items() if folder is not None}
    for option, folder in places.items():
        if folder != getattr(given, option) and not folder.exists():
            raise RunError(
                f"{run} learned from {folder}, which does not exist any more: pass its new place "
                f"with --{option}"
            )
    return Places(**places)
