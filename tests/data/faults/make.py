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
import zlib
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageChops

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
    make_kinds(rgb.resize((64, 48)))
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


def make_kinds(photo: Image.Image) -> None:
    """Write files that browsers show whole into ``whole``, and others into ``broken``.

    ``tests/service/imaging/test_browser.py`` compares what Chromium shows with what is read.
    """
    whole, broken = HERE / "whole", HERE / "broken"
    for folder in (whole, broken):
        folder.mkdir(exist_ok=True)
    exif = b"II*\0" + struct.pack(
        "<IHHHIHHI", 8, 1, EXIF_ORIENTATION, 3, 1, QUARTER_CLOCKWISE, 0, 0
    )
    kinds = _jpeg_kinds(photo, exif) | _png_kinds(photo, exif) | _other_kinds(photo)
    kinds |= {f"{name}.bmp": data for name, data in _bmp_kinds(photo.resize((31, 24))).items()}
    for name, data in kinds.items():
        (whole / name).write_bytes(data)
    for file_format in ("JPEG", "PNG", "WEBP", "AVIF", "BMP"):
        data = _encode(photo, file_format)
        (broken / f"cut.{file_format.lower()}").write_bytes(data[: len(data) // 2])
    png = _encode(photo, "PNG")
    (broken / "header-checksum.png").write_bytes(png[:29] + bytes(4) + png[33:])
    jpeg = _encode(photo, "JPEG")
    (broken / "lossless.jpg").write_bytes(jpeg.replace(b"\xff\xc0", b"\xff\xc3"))
    (broken / "12-bit.jpg").write_bytes(jpeg.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"))


def _jpeg_kinds(photo: Image.Image, exif: bytes) -> dict[str, bytes]:
    jpeg = _encode(photo, "JPEG")

    def with_segments(*segments: tuple[int, bytes]) -> bytes:
        written = (struct.pack(">BBH", 0xFF, kind, 2 + len(c)) + c for kind, c in segments)
        return jpeg[:2] + b"".join(written) + jpeg[2:]

    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta tiff:Orientation='6'/>"
    scan = jpeg.index(b"\xff\xda")
    return {
        "plain.jpg": jpeg,
        "progressive.jpg": _encode(photo, "JPEG", progressive=True),
        "cmyk.jpg": _encode(photo.convert("CMYK"), "JPEG"),
        "rgb.jpg": _encode(photo, "JPEG", keep_rgb=True),
        "zeros-for-end.jpg": jpeg[:-2] + bytes(100),
        "text-after-end.jpg": jpeg + b"text" * 100,
        "later-picture-of-many-scans.jpg": jpeg + jpeg[:scan] + jpeg[scan : scan + 20] * 200,
        "preview-of-many-scans.jpg": with_segments((0xE1, jpeg[:scan] + jpeg[scan:][:20] * 200)),
        "exif.jpg": with_segments((0xE1, b"Exif\0\0" + exif)),
        "exif-twice.jpg": with_segments((0xE1, b"Exif\0\0" + exif), (0xE1, b"Exif\0\0" + exif)),
        "exif-damaged.jpg": with_segments((0xE1, b"Exif\0\0damaged")),
        "xmp-orientation.jpg": with_segments((0xE1, xmp)),
        "profile-short.jpg": with_segments((0xE2, b"ICC_PROFILE\0")),
        "jfif-short.jpg": with_segments((0xE0, b"JFIF\0")),
        "adobe-short.jpg": with_segments((0xEE, b"Adobe")),
        "photoshop-damaged.jpg": with_segments((0xED, b"Photoshop 3.0\0008BIM\x04\x04\x20")),
        "pictures-damaged.jpg": with_segments((0xE2, b"MPF\0damaged")),
        "comments.jpg": with_segments((0xFE, b"x")) + with_segments((0xFE, b"x")),
    }


def _png_kinds(photo: Image.Image, exif: bytes) -> dict[str, bytes]:
    png = _encode(photo, "PNG")
    bomb = zlib.compress(bytes(2_000_000))
    raw_profile = b"Raw profile type exif\0\0" + zlib.compress(
        b"\nexif\n      32\n" + (b"Exif\0\0" + exif).hex().encode()
    )
    chunks = {
        "exif": (b"eXIf", exif),
        "raw-profile": (b"zTXt", raw_profile),
        "text-bomb": (b"zTXt", b"workflow\0\0" + bomb),
        "international-text-bomb": (b"iTXt", b"workflow\0\1\0\0\0" + bomb),
        "profile-bomb": (b"iCCP", b"x\0\0" + bomb),
    }
    kinds = {f"{name}.png": png[:33] + _chunk(*chunk) + png[33:] for name, chunk in chunks.items()}
    for kind in (b"tEXt", b"iCCP", b"tIME", b"pHYs", b"gAMA", b"cHRM", b"eXIf", b"bKGD", b"prVt"):
        damaged = png[:33] + _chunk(kind, b"x\0\0damaged", is_sound=False) + png[33:]
        kinds[f"checksum-of-{kind.decode()}.png"] = damaged
    packed = png.index(b"IDAT") + 4 + int.from_bytes(png[png.index(b"IDAT") - 4 :][:4])
    return kinds | {
        "plain.png": png,
        "palette.png": _encode(photo.quantize(16), "PNG"),
        "without-end.png": png[:-12],
        "text-after-end.png": png + b"text" * 100,
        "checksum-of-pixels.png": png[:packed] + bytes(4) + png[packed + 4 :],
    }


def _chunk(kind: bytes, content: bytes, *, is_sound: bool = True) -> bytes:
    checksum = zlib.crc32(kind + content) ^ (not is_sound)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def _other_kinds(photo: Image.Image) -> dict[str, bytes]:
    gif, webp, avif, bmp = (_encode(photo, kind) for kind in ("GIF", "WEBP", "AVIF", "BMP"))
    first = 13 + (6 << (gif[10] & 7))
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = QUARTER_CLOCKWISE
    return {
        "plain.gif": gif,
        "without-end.gif": gif[:-1],
        "application-empty.gif": gif[:first] + b"!\xff\0" + gif[first:],
        "comments.gif": gif[:first] + b"!\xfe" + b"\1x" * 1000 + b"\0" + gif[first:],
        "plain.webp": webp,
        "text-after-end.webp": webp + b"text" * 100,
        "exif-damaged.webp": _encode(photo, "WEBP", exif=b"damaged"),
        "profile-damaged.webp": _encode(photo, "WEBP", icc_profile=b"damaged"),
        "xmp-large.webp": _encode(photo, "WEBP", xmp=b"x" * 10_000),
        "plain.avif": avif,
        "text-after-end.avif": avif + b"text" * 100,
        "exif.avif": _encode(photo, "AVIF", exif=exif.tobytes()),
        "xmp-large.avif": _encode(photo, "AVIF", xmp=b"x" * 10_000),
        "plain.bmp": bmp,
        "text-after-end.bmp": bmp + b"text" * 100,
        "size-missing.bmp": bmp[:2] + bytes(4) + bmp[6:],
    }


def _bmp_kinds(photo: Image.Image) -> dict[str, bytes]:
    """Write a picture in colour, made of ``photo``, as most kinds of Jason Summers' bmpsuite."""
    grey = photo.convert("L")
    mirrored = grey.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    photo = Image.merge("RGB", (grey, ImageChops.invert(grey), mirrored))
    red, green, blue = np.moveaxis(np.asarray(photo, np.uint32), -1, 0)
    rgb = red << 16 | green << 8 | blue
    rgb_555 = red >> 3 << 10 | green >> 3 << 5 | blue >> 3
    rgb_565 = red >> 3 << 11 | green >> 2 << 5 | blue >> 3
    rgb_444 = red >> 4 << 8 | green >> 4 << 4 | blue >> 4
    rgb_10 = red << 22 | green << 12 | blue << 2
    bgr = blue << 16 | green << 8 | red
    alpha = np.uint32(0xFF000000)
    kinds = {
        "rgb16": _bmp(rgb_555, 16),
        "rgb16-565": _bmp(rgb_565, 16, masks=(0xF800, 0x7E0, 0x1F)),
        "rgb16-555": _bmp(rgb_555, 16, masks=(0x7C00, 0x3E0, 0x1F)),
        "rgb16-444": _bmp(rgb_444, 16, masks=(0xF00, 0xF0, 0xF)),
        "rgb16-4444": _bmp(rgb_444 | 0xF000, 16, masks=(0xF00, 0xF0, 0xF, 0xF000)),
        "rgb32": _bmp(rgb, 32),
        "rgb32-other-byte": _bmp(rgb | 0x80000000, 32),
        "rgb32-top-down": _bmp(rgb, 32, is_upside_down=True),
        "rgb32-masks": _bmp(rgb, 32, masks=(0xFF0000, 0xFF00, 0xFF)),
        "rgb32-bgr": _bmp(bgr, 32, masks=(0xFF, 0xFF00, 0xFF0000)),
        "rgb32-10-bits": _bmp(rgb_10, 32, masks=(0xFFC00000, 0x3FF000, 0xFFC)),
        "rgb32-10-bits-top-down": _bmp(
            rgb_10, 32, masks=(0xFFC00000, 0x3FF000, 0xFFC), is_upside_down=True
        ),
        "rgb32-alpha": _bmp(rgb | alpha, 32, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        "rgb32-alpha-bgr": _bmp(bgr | alpha, 32, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        "rgb32-alpha-masks": _bmp(
            rgb | alpha, 32, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), header_bytes=40
        ),
    }
    for bits in (1, 2, 4, 8):
        reduced = photo.quantize(2**bits)
        numbers, palette = np.asarray(reduced, np.uint32), _bmp_palette(reduced)
        kinds[f"palette{bits}"] = _bmp(numbers, bits, palette)
        kinds[f"palette{bits}-top-down"] = _bmp(numbers, bits, palette, is_upside_down=True)
        if bits != 2:
            kinds[f"palette{bits}-v5"] = _bmp(numbers, bits, palette, header_bytes=124)
            kinds[f"palette{bits}-os2"] = _bmp(numbers, bits, palette, header_bytes=64)
            kinds[f"palette{bits}-os2-short"] = _bmp(numbers, bits, palette, header_bytes=16)
        if bits >= 4:
            kinds[f"runs{bits}"] = _bmp(numbers, bits, palette, is_in_runs=True)
            kinds[f"palette{bits}-extra"] = _bmp(numbers, bits, palette + bytes(200))
    return kinds


def _bmp(
    pixels: NDArray[np.uint32],
    bits: int,
    palette: bytes = b"",
    *,
    masks: tuple[int, ...] = (),
    header_bytes: int | None = None,
    is_upside_down: bool = False,
    is_in_runs: bool = False,
) -> bytes:
    """Write a BMP of ``pixels`` ``[height, width]``, whose last row comes first by default."""
    height, width = pixels.shape
    rows = pixels if is_upside_down else pixels[::-1]
    packed = _bmp_runs(rows, bits) if is_in_runs else _bmp_rows(rows, bits)
    compression = {0: 0, 3: 3, 4: 6 if header_bytes == 40 else 3}[len(masks)]
    if is_in_runs:
        compression = 1 if bits == 8 else 2
    header_bytes = header_bytes or (124 if len(masks) == 4 else 40)
    stored_height = -height if is_upside_down else height
    fields = (width, stored_height, 1, bits, compression, len(packed), 2835, 2835)
    header = struct.pack("<IiiHHIIiiII", header_bytes, *fields, len(palette) // 4, 0)[:header_bytes]
    header += struct.pack(f"<{len(masks)}I", *masks)
    header = header.ljust(header_bytes, b"\0")
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIII", b"BM", start + len(packed), 0, start) + header + palette + packed


def _bmp_palette(image: Image.Image) -> bytes:
    colours = np.array(image.getpalette()).reshape(-1, 3)
    return np.pad(colours[:, ::-1], ((0, 0), (0, 1))).astype(np.uint8).tobytes()


def _bmp_rows(rows: NDArray[np.uint32], bits: int) -> bytes:
    """Pack pixels, and fill each row to a multiple of four bytes."""
    if bits >= 8:
        packed = [row.astype(f"<u{bits // 8}").tobytes() for row in rows]
    else:
        binary = (rows[..., None] >> np.arange(bits)[::-1] & 1).reshape(len(rows), -1)
        packed = [row.tobytes() for row in np.packbits(binary.astype(np.uint8), axis=1)]
    return b"".join(row + bytes(-len(row) % 4) for row in packed)


def _bmp_runs(rows: NDArray[np.uint32], bits: int) -> bytes:
    """Write the first half of each row as single pixels, and the rest as runs."""
    written = bytearray()
    for row in rows.tolist():
        half = row[: len(row) // 2]
        single = bytes(half) if bits == 8 else bytes.fromhex("".join(f"{n:x}" for n in half) + "0")
        single = single[: (len(half) * bits + 7) // 8]
        written += bytes([0, len(half)]) + single + bytes(len(single) % 2)
        for number, run in groupby(row[len(half) :]):
            written += bytes([len(list(run)), number if bits == 8 else 17 * number])
        written += b"\0\0"
    return bytes(written) + b"\0\1"


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


def _encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, quality=95, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
