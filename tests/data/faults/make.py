"""Make the files of this folder, one for each way in which an upload is unusual or broken.

Run ``python tests/data/faults/make.py FASHION_MNIST_FOLDER`` in the root of the repository, with
the extra ``heic`` and Debian's package ``libavif-bin``. The picture in the files is an ankle boot,
test image 0 of Fashion-MNIST (MIT licence, Zalando SE 2017), as a photo on white.
"""

import gzip
import struct
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

HERE = Path(__file__).parent
EXIF_ORIENTATION, QUARTER_CLOCKWISE = 0x0112, 6


def main(folder: Path) -> None:
    """Write every file."""
    pixels = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    boot, pullover = (_photo(pixels, index) for index in (0, 1))
    rgb = boot.convert("RGB")
    boot.save(HERE / "photo.png")
    (HERE / "empty.png").write_bytes(b"")
    (HERE / "text.png").write_text("This is no image.\n")
    (HERE / "truncated.jpg").write_bytes(_encode(rgb, "JPEG")[:2000])
    Image.new("1", (30_000, 30_000)).save(HERE / "bomb-30000x30000.png", optimize=True)
    Image.fromarray(np.asarray(boot, dtype=np.uint16) * 257).save(HERE / "grey-16-bit.png")
    rgb.convert("CMYK").save(HERE / "cmyk.jpg", quality=95)
    _transparent_palette(boot).save(HERE / "palette-transparent.png", transparency=255)
    boot.save(HERE / "animated.gif", save_all=True, append_images=[pullover])
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = QUARTER_CLOCKWISE
    rotated = rgb.transpose(Image.Transpose.ROTATE_90)
    rotated.save(HERE / "exif-rotated.jpg", quality=95, exif=exif)
    boot.save(HERE / "photo.tiff", compression="tiff_adobe_deflate")
    _make_avif(boot, pullover, rotated, exif.tobytes())
    _make_heic(rgb, rotated, exif.tobytes())
    Image.new("RGB", (1, 1), "red").save(HERE / "1x1.png")
    (HERE / "vector.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>\n'
    )


def _make_avif(boot: Image.Image, pullover: Image.Image, rotated: Image.Image, exif: bytes) -> None:
    boot.save(HERE / "photo.avif", quality=90)
    boot.save(
        HERE / "animated.avif", quality=90, save_all=True, append_images=[pullover], duration=100
    )
    # Pillow writes the orientation as a property of the picture (irot), and not into the EXIF.
    rotated.save(HERE / "rotated.avif", quality=90, exif=exif)
    _transparent(boot).save(HERE / "transparent.avif", quality=100, subsampling="4:4:4")
    large = BytesIO()
    Image.new("RGB", (8000, 8000), "red").save(large, "AVIF", speed=10)
    declared = b"ispe" + bytes(4)
    bomb = large.getvalue().replace(
        declared + struct.pack(">II", 8000, 8000), declared + struct.pack(">II", 28, 28)
    )
    (HERE / "bomb-8000x8000.avif").write_bytes(bomb)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "flat.png"
        Image.new("RGBA", (2000, 2000), (90, 120, 30, 200)).save(source)
        options = ["-d", "12", "-y", "444", "-s", "9", "-j", "1", "-a", "film-grain-test=1"]
        subprocess.run(["avifenc", *options, source, HERE / "12-bit-2000x2000.avif"], check=True)


def _make_heic(photo: Image.Image, rotated: Image.Image, exif: bytes) -> None:
    pillow_heif.register_heif_opener()
    photo.save(HERE / "photo.heic", quality=90)
    rotated.save(HERE / "rotated.heic", quality=90, exif=exif)
    photo.save(HERE / "tiles.heic", quality=90, tile_size=64)


def _transparent(photo: Image.Image) -> Image.Image:
    """Make the white of a photo transparent, and green where it is not flattened."""
    grey = np.asarray(photo)
    colours = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
    colours[grey > 250] = (0, 255, 0, 0)
    return Image.fromarray(colours)


def _photo(pixels: bytes, index: int) -> Image.Image:
    item = np.frombuffer(pixels, np.uint8, 784, offset=index * 784).reshape(28, 28)
    return Image.fromarray(255 - item).resize((224, 224), Image.Resampling.BICUBIC)


def _transparent_palette(photo: Image.Image) -> Image.Image:
    """Give the photo a palette of greys; its white, index 255, is green where not flattened."""
    palette = Image.frombytes("P", photo.size, photo.tobytes())
    palette.putpalette([value for grey in range(255) for value in (grey,) * 3] + [0, 255, 0])
    return palette


def _encode(image: Image.Image, file_format: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, quality=95)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
