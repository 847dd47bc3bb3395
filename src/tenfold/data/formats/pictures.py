"""One picture file to one array of pixels, by rules that hold wherever tenfold reads a picture.

- The kind of file is told by its content, not its name. Those in `FILE_KINDS` are read.
- The first frame of an animation counts.
- An EXIF orientation is applied.
- Transparent pixels, however they are stored, are laid on white.
- Sixteen bits a channel become eight, rounded; grey becomes three equal channels; CMYK and YCbCr
  become RGB. Embedded colour profiles are ignored. Floating-point pictures are refused, for they
  have no agreed range.
- To be brought to size, a picture is scaled (bicubic, antialiased) until its shorter side fits, and
  the middle of the longer side is kept. One that has the size already is left as it is.
- A picture that is cut off, damaged, or has more than `MAX_PIXELS` pixels is broken.

Needs numpy and Pillow alone, so that whatever serves a model can follow the same rules.
"""

import contextlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image

FILE_KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
# A phone's largest photographs have 108 million; Pillow itself refuses above 179 million.
MAX_PIXELS = 1 << 27
# Written into every key of the cache of decoded pictures: raise it when a rule above changes.
RULES_VERSION = 1

_ORIENTATION_TAG = 0x0112
_JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
_JPEG_END, _JPEG_SCAN, _JPEG_BARE = 0xD9, 0xDA, (0x01, 0xD8)


class BrokenPictureError(Exception):
    """A picture that can't be read; the text says why."""


class TooLargePictureError(BrokenPictureError):
    """One that would take too much memory, by the pixels or the text that it announces."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    pixels: `(H, W, 3)` uint8, RGB, C-contiguous.
    original_size: height and width before it was brought to size, upright.
    """

    pixels: NDArray[np.uint8]
    original_size: tuple[int, int]


def decode_picture(
    source: Path | str | bytes, *, image_size: int = 0, max_pixels: int = MAX_PIXELS
) -> Picture:
    """The picture in a file, or in a file's content, by the rules atop this file.

    image_size: height and width of the result; 0 leaves the picture's own. max_pixels: that may be
    decoded; of a JPEG in one scan that is to become small, most need not be. Raises
    BrokenPictureError for a picture that can't be read.
    """
    with _decoding(), _open(source) as image:
        # Of several scans libjpeg holds all coefficients, however small the picture is to become.
        is_layered = isinstance(source, bytes) and count_scans(source) > 1
        if (is_layered or "progressive" in image.info) and _area(image) > max_pixels:
            raise _too_large(image.size, max_pixels)
        return _decode(image, image_size=image_size, max_pixels=max_pixels)


def count_scans(content: bytes) -> int:
    """How often a JPEG goes over its pixels until it is complete; 0 of what is no JPEG.

    Each scan takes a pass over all pixels. What follows the picture's end does not count, such as
    the film that phones append to some.
    """
    if not content.startswith(b"\xff\xd8"):
        return 0
    place, scans = 2, 0
    while match := _JPEG_MARKER.search(content, place):
        marker, place = match[1][0], match.end()
        if marker == _JPEG_END:
            break
        if marker not in _JPEG_BARE:
            scans += marker == _JPEG_SCAN
            place += int.from_bytes(content[place : place + 2])
    return scans


def convert_image(image: "Image.Image", *, image_size: int = 0) -> Picture:
    """The same of a picture that Pillow has opened, and that stays as it is."""
    with _decoding():
        return _decode(image.copy(), image_size=image_size)


def measure_picture(source: Path | str | bytes) -> tuple[int, int]:
    """A picture's height and width as stored, from its header. Raises BrokenPictureError."""
    with _decoding(), _open(source) as image:
        return image.height, image.width


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Make BrokenPictureError of all that decoders raise for damaged files, which has no bounds."""
    try:
        yield
    except BrokenPictureError:
        raise
    except Exception as error:
        kind = TooLargePictureError if _is_bomb(error) else BrokenPictureError
        raise kind(_reason(error)) from error


def resize_pixels(pixels: NDArray[np.uint8], *, image_size: int) -> NDArray[np.uint8]:
    """`(N, H, W, 3)` uint8 brought to `(N, image_size, image_size, 3)` by the same rule."""
    from PIL import Image

    if pixels.shape[1:3] == (image_size, image_size):
        return pixels
    resized = np.empty((len(pixels), image_size, image_size, 3), dtype=np.uint8)
    for target, picture in zip(resized, pixels, strict=True):
        target[...] = np.asarray(_fit(Image.fromarray(picture), image_size))
    return resized


def _open(source: Path | str | bytes) -> "Image.Image":
    from PIL import Image, UnidentifiedImageError

    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        image = Image.open(file, formats=FILE_KINDS)
    except UnidentifiedImageError:
        if not (source if isinstance(source, bytes) else Path(source).stat().st_size):
            raise BrokenPictureError("is empty (0 bytes)") from None
        raise
    if _area(image) > MAX_PIXELS:
        image.close()
        raise _too_large(image.size, MAX_PIXELS)
    return image


def _area(image: "Image.Image") -> int:
    return image.width * image.height


def _too_large(size: tuple[int, int], most: int) -> TooLargePictureError:
    return TooLargePictureError(f"has {size[0]}x{size[1]} pixels where at most {most} are allowed")


def _decode(image: "Image.Image", *, image_size: int, max_pixels: int = MAX_PIXELS) -> Picture:
    width, height = image.size
    if image_size:
        # JPEG can be decoded at a half, a quarter or an eighth; twice the wanted size is enough.
        image.draft(None, (2 * image_size, 2 * image_size))
    if _area(image) > max_pixels:
        raise _too_large(image.size, max_pixels)
    orientation = image.getexif().get(_ORIENTATION_TAG, 1) if "exif" in image.info else 1
    upright = _to_rgb(image)
    if image_size:
        upright = _fit(upright, image_size)
    transposition = _transpositions().get(orientation)
    if transposition is not None:
        upright = upright.transpose(transposition)
        if orientation >= 5:
            width, height = height, width
    return Picture(np.ascontiguousarray(upright, dtype=np.uint8), (height, width))


def _fit(image: "Image.Image", size: int) -> "Image.Image":
    from PIL import Image

    width, height = image.size
    if width == height == size:
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize(
        (size, size),
        Image.Resampling.BICUBIC,
        box=(left, top, left + side, top + side),
        reducing_gap=2.0,
    )


def _to_rgb(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    if image.mode.startswith("I"):
        image.load()
        return _from_sixteen_bits(image)
    if image.mode == "F":
        raise BrokenPictureError("holds floating-point numbers, which have no agreed range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        picture = image.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, picture).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


def _from_sixteen_bits(image: "Image.Image") -> "Image.Image":
    from PIL import Image

    values = np.clip(np.asarray(image), 0, 65535).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8)).convert("RGB")


def _transpositions() -> "dict[int, Image.Transpose]":
    from PIL import Image

    return {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }


def _is_bomb(error: Exception) -> bool:
    from PIL import Image

    # That is what Pillow says of compressed text within a PNG.
    return isinstance(error, Image.DecompressionBombError) or "too large" in str(error).lower()


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "is no picture of a kind that can be read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split())[:200] or type(error).__name__
