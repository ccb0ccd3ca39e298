"""Make the files of this folder, one for each way in which an upload is unusual or broken.

Run ``python tests/data/faults/make.py FASHION_MNIST_FOLDER`` in the repository's root.
The picture in them is an ankle boot, test image 0 of Fashion-MNIST (MIT licence, Zalando SE 2017), as a photo on white.
"""

import gzip
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
EXIF_ORIENTATION = 0x0112


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
    exif[EXIF_ORIENTATION] = 6  # to be turned a quarter clockwise
    rgb.transpose(Image.Transpose.ROTATE_90).save(HERE / "exif-rotated.jpg", quality=95, exif=exif)
    Image.new("RGB", (1, 1), "red").save(HERE / "1x1.png")
    (HERE / "vector.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" width="28" height="28"/>\n'
    )


def _photo(pixels: bytes, index: int) -> Image.Image:
    item = np.frombuffer(pixels, np.uint8, 784, offset=index * 784).reshape(28, 28)
    return Image.fromarray(255 - item).resize((224, 224), Image.Resampling.BICUBIC)


def _transparent_palette(photo: Image.Image) -> Image.Image:
    """Give the photo a palette of greys whose white, of index 255, is green, to be seen only where not flattened."""
    palette = Image.frombytes("P", photo.size, photo.tobytes())
    palette.putpalette([value for grey in range(255) for value in (grey,) * 3] + [0, 255, 0])
    return palette


def _encode(image: Image.Image, file_format: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, quality=95)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
