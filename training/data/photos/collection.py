"""What a photo network learns from: labelled photos, worn garments, and images of the data set.

Every draw comes from a generator, so equal generators give equal pictures.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidRequestError
from service.imaging import read_picture
from training.data.photos.found import FoundItem
from training.data.photos.table import LABELS_FILE, Photo, find_group, is_validation, read_photos
from training.data.photos.uploads import make_upload
from training.data.photos.varied import crop_bare, crop_item, paste_item
from training.data.photos.worn import WornPhoto, read_unmasked, read_worn
from training.data.samples import Samples
from training.data.sources.folder import MAX_PIXELS
from training.errors import DataError

# Of the data set, shoes and bags are drawn more often: the photos hold few of them.
WEIGHTS_OF_SAMPLES = {5: 2.0, 7: 2.0, 8: 2.0, 9: 2.0}
SHARE_FOUND, SHARE_PASTED, SHARE_ON_PLAIN, SHARE_BARE = 0.4, 0.25, 0.6, 0.1
SHARE_AS_IT_IS = 0.1

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class PhotoFolders:
    """The folders that a photo network learns from: labelled photos, and worn garments."""

    photos: Path
    worn: Path

    def hash(self) -> str:
        """Hash the names and the contents of all files in both folders that are not hidden."""
        digest = hashlib.sha256()
        for folder in (self.photos, self.worn):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = path.relative_to(folder).as_posix()
                if not f"/{name}".count("/."):
                    digest.update(name.encode() + path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Labelled:
    """A picture and its possible classes, empty if it shows nothing of any class.

    ``sample`` is the image of the data set that the picture was made from, if any.
    """

    picture: Image.Image
    classes: tuple[int, ...]
    sample: NDArray[np.uint8] | None = None


class Photos:
    """Labelled photos to draw from."""

    def __init__(self, folder: Path, photos: Sequence[Photo]) -> None:
        self._folder, self._photos = folder, photos
        self._shares = _balance([photo.classes for photo in photos])

    def __iter__(self) -> Iterator[Labelled]:
        return map(self._open, self._photos)

    def draw(self, generator: np.random.Generator) -> Labelled:
        """Draw a photo."""
        return self._open(self._photos[int(generator.choice(len(self._photos), p=self._shares))])

    def _open(self, photo: Photo) -> Labelled:
        path = self._folder / photo.file
        try:
            upright = read_picture(path.read_bytes(), MAX_PIXELS).image
        except (OSError, InvalidRequestError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        return Labelled(upright.convert("RGB"), photo.classes)


class WornItems:
    """Worn garments to draw from: as crops, or cut out and pasted on another background.

    Garments that a network ``found`` have no mask, so they are only crops.
    """

    def __init__(self, photos: Sequence[WornPhoto]) -> None:
        self._photos = photos
        self._found: Sequence[FoundItem] = ()
        self._items = [item for photo in photos for item in photo.items]
        self._shares = _balance([item.classes for item in self._items])

    def __iter__(self) -> Iterator[Labelled]:
        for item in self._items:
            if not item.small:
                photo, _ = item.open()
                yield Labelled(photo.crop(item.box), item.classes)

    def add_found(self, found: Sequence[FoundItem]) -> None:
        """Draw from garments in photos without masks too."""
        self._found = found
        # By their groups: a rare set of possible classes says least, and must not be drawn most.
        self._shares_of_found = _balance([find_group(item.classes[0]) for item in found])

    def draw(self, generator: np.random.Generator) -> Labelled:
        """Draw an item, or a part of a photo without any item."""
        if self._found and generator.random() < SHARE_FOUND:
            one = self._found[int(generator.choice(len(self._found), p=self._shares_of_found))]
            return Labelled(crop_item(one, generator), one.classes)
        bare = self._draw_bare(generator)
        if bare is not None and generator.random() < SHARE_BARE:
            return Labelled(bare, ())
        item = self._items[int(generator.choice(len(self._items), p=self._shares))]
        if item.small or generator.random() < SHARE_PASTED:
            background = None if generator.random() < SHARE_ON_PLAIN else bare
            return Labelled(paste_item(item, background, generator), item.classes)
        return Labelled(crop_item(item, generator), item.classes)

    def _draw_bare(self, generator: np.random.Generator) -> Image.Image | None:
        return crop_bare(self._photos[int(generator.integers(len(self._photos)))], generator)


class Uploads:
    """Images of the data set to draw from, as they are or made into uploads."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        weights = [WEIGHTS_OF_SAMPLES.get(label, 1.0) for label in samples.labels.tolist()]
        self._shares = np.array(weights) / sum(weights)

    def draw(self, generator: np.random.Generator) -> Labelled:
        """Draw an image."""
        number = int(generator.choice(len(self._samples), p=self._shares))
        image, label = self._samples.images[number], int(self._samples.labels[number])
        if generator.random() < SHARE_AS_IT_IS:
            return Labelled(Image.fromarray(image).convert("RGB"), (label,), image)
        return Labelled(make_upload(image, generator), (label,), image)

    def draw_many(self, count: int) -> Iterator[Labelled]:
        """Draw ``count`` images, the same ones each time."""
        generator = np.random.default_rng(0)
        return (self.draw(generator) for _ in range(count))


@dataclass(frozen=True)
class Collection:
    """The three kinds of pictures."""

    photos: Photos
    worn: WornItems
    uploads: Uploads

    def draw(
        self, photos: int, worn: int, uploads: int, generator: np.random.Generator
    ) -> list[Labelled]:
        """Draw so many pictures of each kind, in this order."""
        wanted = ((photos, self.photos), (worn, self.worn), (uploads, self.uploads))
        return [source.draw(generator) for count, source in wanted for _ in range(count)]


def open_collection(
    folders: PhotoFolders, samples: Samples, *, validation: bool = False
) -> Collection:
    """Open the photos for training, or those for validation, beside ``samples``.

    Raises:
        DataError: A table or a mask cannot be read, a class is not one of the samples' classes, or
            a folder has no photo for this part.
    """
    chosen = [
        photo for photo in read_photos(folders.photos) if is_validation(photo.file) == validation
    ]
    worn = read_worn(folders.worn, validation=validation)
    items = [item for photo in worn for item in photo.items]
    for folder, part in ((folders.photos, chosen), (folders.worn, items)):
        _check_part(folder, len(part), validation)
    _check_classes(folders.photos, chosen, set(samples.labels.tolist()))
    files = [folders.photos / photo.file for photo in chosen]
    files += [path for photo in worn for path in (photo.file, photo.mask_file)]
    unmasked = [] if validation else read_unmasked(folders.worn)
    _check_files([*files, *(photo.file for photo in unmasked)])
    return Collection(Photos(folders.photos, chosen), WornItems(worn), Uploads(samples))


def _check_part(folder: Path, count: int, validation: bool) -> None:
    if not count:
        raise DataError(
            f"{folder} has no photo for {'validation' if validation else 'training'}: add photos; "
            "a tenth of them, chosen by the file's name, is for validation"
        )


def _check_files(files: Sequence[Path]) -> None:
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} files of the photos' tables are missing, the first of them "
            f"{missing[0]}: add them, or remove their rows"
        )


def _check_classes(folder: Path, photos: Sequence[Photo], known: set[int]) -> None:
    for photo in photos:
        unknown = set(photo.classes) - known
        if unknown:
            raise DataError(
                f"{folder / LABELS_FILE}: class_id {min(unknown)} of {photo.file} is unknown; the "
                f"data set has the classes {', '.join(map(str, sorted(known)))}"
            )


def _balance(classes: Sequence[Hashable]) -> Shares:
    """Return the picture's shares: a class with four times the pictures is drawn twice as often."""
    counts = Counter(classes)
    weights = np.sqrt([1 / counts[each] for each in classes])
    shares: Shares = weights / weights.sum()
    return shares
