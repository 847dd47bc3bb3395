"""One image file to one array of pixels, by rules that hold wherever tenfold reads an image.

- The kind of file is told by its content, not its name. Those in `FILE_KINDS` are read.
- The first frame of an animation counts.
- The orientation that EXIF states is applied, or XMP where EXIF states none or is damaged.
- Transparent pixels, however they are stored, are laid on white.
- Sixteen bits a channel become eight by a window, the values that become black and white, since
  many files use fewer of them: those between are spread evenly and rounded; of CMYK and of TIFF
  files with premultiplied colours the upper eight are taken. Eight bits stay as they are. DICOM
  files have windows of their own, see `dicom`, unless one is named.
- Grey becomes three equal channels; CMYK and YCbCr become RGB. Embedded colour profiles are
  ignored. Floating-point images are refused, for they have no agreed range.
- To be brought to size, an image is scaled (bicubic, antialiased) until its shorter side fits, and
  the middle of the longer side is kept. One that has the size already is left as it is.
- An image that is cut off, damaged, or has more than `MAX_PIXELS` pixels is broken.

Needs numpy and Pillow alone, and pydicom for DICOM, so that whatever serves a model can follow the
same rules.
"""

import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

FILE_KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF")
# A phone's largest photographs have 108 million; Pillow itself refuses above 179 million.
MAX_PIXELS = 1 << 27
# A photograph has some dozens; each costs whoever looks for the next one time.
MOST_MARKERS = 4_000
# Searched through in one go, in which no other thread of Python gets its turn.
_SEARCHED_BYTES = 1 << 16
# Written into every key of the cache of decoded images: raise it when a rule above changes.
RULES_VERSION = 3
# What sixteen bits hold of the cameras and detectors that fill eight, ten, twelve ... of them.
WHITE_LEVELS = (255, 1023, 4095, 16383, 65535)

_ALL = (0, WHITE_LEVELS[-1])
_GROUP = "\0group"  # No file's own, for which a name ends at its 0.
_ORIENTATION_TAG, _PHOTOMETRIC_TAG = 0x0112, 0x0106
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# How Pillow calls colours and grey with opacity of sixteen bits.
_DEEP = re.compile("(RGB|RGBX|RGBA|LA);16")
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_JPEG_END, _JPEG_SCAN, _JPEG_BARE = 0xD9, 0xDA, (0x01, 0xD8)
# What makes images of these EXIF orientations upright.
_TURNS = dict(zip((2, 3, 4, 5, 6, 7, 8), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))

Window = tuple[float, ...]
"""The values that become black and white in files of more than eight bits; empty for none."""

AnyImage = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any]
"""A path, a file's content, a Pillow image, or pixels (H, W, 3): uint8, or floats in [0, 1]."""


class BrokenImageError(Exception):
    """An image that can't be read; the text says why."""


class TooLargeImageError(BrokenImageError):
    """One that would take too much memory, by the pixels or the text that it announces."""


@dataclass(frozen=True, eq=False)
class DecodedImage:
    """A decoded image: pixels `(H, W, 3)` uint8, RGB, C-contiguous; height and width before it was
    brought to size, upright; the greatest value of a file of sixteen bits, else 0; what tells the
    patient of a DICOM file from others, else empty."""

    pixels: NDArray[np.uint8]
    original_size: tuple[int, int]
    peak: int = 0
    group: str = ""


def decode_image(
    source: Path | str | bytes,
    *,
    image_size: int = 0,
    max_pixels: int = MAX_PIXELS,
    window: Window = (),
) -> DecodedImage:
    """The image in a file, or in a file's content, by the rules atop this file.

    image_size: height and width of the result; 0 leaves the image's own. max_pixels: that may be
    decoded; of a JPEG in one scan that is to become small, most need not be. window: of a file of
    more than eight bits; empty takes a DICOM file's own, and of others all sixteen. Raises
    BrokenImageError for an image that can't be read.
    """
    with _decoding(), _open(source, window, max_pixels=max_pixels) as image:
        # Of several scans libjpeg holds all coefficients, however small the image is to become.
        is_layered = isinstance(source, bytes) and count_scans(source, most=1) > 1
        if is_layered or "progressive" in image.info:
            _require_few(image.size, max_pixels)
        return _decode(image, image_size, window, max_pixels=max_pixels)


def measure_image(source: Path | str | bytes) -> tuple[int, int]:
    """An image's height and width as stored, from its header. Raises BrokenImageError."""
    with _decoding(), _open(source, is_measured=True) as image:
        _require_few(image.size, MAX_PIXELS)
        return image.height, image.width


def count_scans(content: bytes, *, most: int) -> int:
    """How often a JPEG goes over all its pixels until it is complete; 0 of what is no JPEG.

    What follows the image's end does not count, such as the film that phones append to some. Above
    `most` the count ends. Raises TooLargeImageError for more than `MOST_MARKERS`.
    """
    if not content.startswith(b"\xff\xd8"):
        return 0
    place, scans, markers = 2, 0, 0
    while scans <= most and place < len(content):
        match = _JPEG_MARKER.search(content, place, place + _SEARCHED_BYTES)
        if match is None:
            place += _SEARCHED_BYTES - 1  # Its last byte may begin a marker.
            continue
        marker, place, markers = match[1][0], match.end(), markers + 1
        if marker == _JPEG_END:
            break
        if markers > MOST_MARKERS:
            raise TooLargeImageError(f"has more than {MOST_MARKERS:,} markers")
        if marker not in _JPEG_BARE:
            scans += marker == _JPEG_SCAN
            place += int.from_bytes(content[place : place + 2])
    return scans


def prepare_image(
    image: AnyImage,
    *,
    size: tuple[int, int],
    max_pixels: int = MAX_PIXELS,
    window: Window = (),
) -> NDArray[np.uint8]:
    """An image as a model of height and width `size` sees it: (H, W, 3) uint8.

    One that has another size is brought to it, by the rules atop this file, where `size` is a
    square. Raises BrokenImageError where that can't be, and as `decode_image`.
    """
    side = size[0] if size[0] == size[1] else 0
    if isinstance(image, str | bytes | os.PathLike):
        source = image if isinstance(image, bytes) else Path(image)
        options: dict[str, Any] = {"max_pixels": max_pixels, "window": window}
        pixels = decode_image(source, image_size=side, **options).pixels
    elif isinstance(image, Image.Image):
        with _decoding():
            pixels = _decode(image.copy(), side, window).pixels
    else:
        pixels = require_pixels(image)
        if pixels.ndim != 3:
            raise BrokenImageError(f"has the shape {pixels.shape} where (H, W, 3) is expected")
    if side:
        [resized] = resize_pixels(pixels[None], image_size=side)
        return np.asarray(resized)
    if pixels.shape[:2] != size:
        (height, width), found = size, f"{pixels.shape[1]}x{pixels.shape[0]}"
        raise BrokenImageError(f"has {found} pixels where this model takes {width}x{height}")
    return pixels


def require_pixels(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Images (..., H, W, 3) as uint8: floats in [0, 1] times 255 and rounded, uint8 as it is.

    Raises BrokenImageError for anything else, whose range can't be known.
    """
    if not isinstance(pixels, np.ndarray) or pixels.ndim < 3 or pixels.shape[-1] != 3:
        found = getattr(pixels, "dtype", type(pixels).__name__)
        shape = f" of shape {pixels.shape}" if hasattr(pixels, "shape") else ""
        raise BrokenImageError(
            f"is {found}{shape} where a path, a Pillow image or an array (H, W, 3) is expected"
        )
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f" and (not pixels.size or (pixels.min() >= 0 and pixels.max() <= 1)):
        return np.asarray(np.rint(pixels * 255), dtype=np.uint8)
    found = f" from {pixels.min()} to {pixels.max()}" if pixels.dtype.kind in "fiu" else ""
    raise BrokenImageError(
        f"is an array of {pixels.dtype}{found} where uint8, or floats in [0, 1], are expected"
    )


def resize_pixels(pixels: NDArray[np.uint8], *, image_size: int) -> NDArray[np.uint8]:
    """`(N, H, W, 3)` uint8 brought to `(N, image_size, image_size, 3)` by the same rule."""
    if pixels.shape[1:3] == (image_size, image_size):
        return pixels
    resized = np.empty((len(pixels), image_size, image_size, 3), dtype=np.uint8)
    for target, image in zip(resized, pixels, strict=True):
        target[...] = np.asarray(_fit(Image.fromarray(image), image_size))
    return resized


def white_level_for(peak: int) -> int:
    """The least of WHITE_LEVELS that holds `peak`, the greatest value of many images; 0 for 0."""
    return next(level for level in (0, *WHITE_LEVELS) if peak <= level)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Make BrokenImageError of all that decoders raise for damaged files, which has no bounds."""
    try:
        yield
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImageError("is no image of a kind that can be read") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if isinstance(error, OSError) and error.strerror:
            reason = error.strerror.lower()
        # "Too large" is what Pillow says of compressed text within a PNG.
        is_bomb = isinstance(error, Image.DecompressionBombError) or "too large" in reason.lower()
        kind = TooLargeImageError if is_bomb else BrokenImageError
        raise kind(reason or type(error).__name__) from error


def _require_few(size: tuple[int, int], most: int) -> None:
    width, height = size
    if width * height > most:
        raise TooLargeImageError(f"has {width}x{height} pixels where at most {most} are allowed")


def _open(
    source: Path | str | bytes,
    window: Window = (),
    *,
    max_pixels: int = MAX_PIXELS,
    is_measured: bool = False,
) -> Image.Image:
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        return Image.open(file, formats=FILE_KINDS)
    except UnidentifiedImageError:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not content:
            raise BrokenImageError("is empty (0 bytes)") from None
        if content[128:132] != b"DICM":
            raise
    try:  # The file beside this one, in a bundle too.
        dicom = importlib.import_module(f"{__package__}.dicom" if __package__ else "dicom")
    except ImportError:
        raise BrokenImageError(
            "is a DICOM file, which takes pydicom to read; pip install pydicom"
        ) from None
    dataset = dicom.parse(content)
    size = dicom.size_of(dataset)
    _require_few(size, min(max_pixels, MAX_PIXELS))
    if is_measured:
        return Image.new("L", size)
    stored = dicom.stored_in(dataset, window)
    pixels = _windowed(stored.values, stored.window)
    image = Image.fromarray(255 - pixels if stored.is_inverted else pixels)
    image.info[_GROUP] = dicom.group_of(dataset)
    return image


def _decode(
    image: Image.Image, image_size: int, window: Window, *, max_pixels: int = MAX_PIXELS
) -> DecodedImage:
    width, height = image.size
    _require_few(image.size, MAX_PIXELS)
    if image_size:
        # JPEG can be decoded at a half, a quarter or an eighth; twice the wanted size is enough.
        image.draft(None, (2 * image_size, 2 * image_size))
    _require_few(image.size, max_pixels)
    stored, peak = image.size, 0
    is_deep = any(_DEEP.search(str(tile[3])) for tile in getattr(image, "tile", ()))
    if is_deep or image.mode.startswith("I"):
        upright, peak = _from_sixteen_bits(image, window or _ALL)
    else:
        upright = _to_rgb(image)
    if image.size != stored:  # TIFF turns itself upright when it is loaded.
        width, height = height, width
    orientation = _orientation(image)
    if image_size:
        upright = _fit(upright, image_size)
    if orientation in _TURNS:
        upright = upright.transpose(_TURNS[orientation])
        if orientation >= 5:
            width, height = height, width
    pixels = np.ascontiguousarray(upright, dtype=np.uint8)
    return DecodedImage(pixels, (height, width), peak, image.info.get(_GROUP, ""))


def _orientation(image: Image.Image) -> Any:
    with contextlib.suppress(Exception):  # What damaged EXIF makes Pillow raise has no bounds.
        if (stated := image.getexif().get(_ORIENTATION_TAG)) is not None:
            return stated
    # Which older Pillow does not look at.
    xmp = image.info.get("XML:com.adobe.xmp") or image.info.get("xmp") or b""
    match = _XMP_ORIENTATION.search(xmp.encode() if isinstance(xmp, str) else xmp)
    return int(match[1]) if match else 1


def _fit(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if width == height == size:
        return image
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BrokenImageError("holds floating-point numbers, which have no agreed range")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _from_sixteen_bits(image: Image.Image, window: Window) -> tuple[Image.Image, int]:
    """In eight bits, and the greatest value; of colour's, which Pillow cuts to eight, at most."""
    clear, is_grey = image.info.get("transparency"), image.mode.startswith("I")
    # A TIFF file whose low values are white, which Pillow turns round in eight bits alone.
    is_inverted = is_grey and getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == 0
    if not is_grey and window == _ALL and clear is None:
        image.load()
        return _to_rgb(image), int(np.asarray(image)[..., :3].max()) * 256 + 255
    values = np.asarray(image)[..., None] if is_grey else _deep_values(image)
    opacity = None
    if image.mode == "RGBA":
        values, opacity = values[..., :-1], values[..., -1] >> 8
    elif clear is not None:  # The one value that is, of grey or of colours.
        opacity = np.where((values == clear).all(axis=-1), 0, 255)
    peak = min(max(int(values.max()), 0), WHITE_LEVELS[-1])
    pixels = _windowed(values, window)
    if is_inverted:
        pixels = 255 - pixels
    pixels = np.broadcast_to(pixels, (*values.shape[:2], 3))
    upright = Image.fromarray(np.ascontiguousarray(pixels))
    if opacity is not None:
        upright.putalpha(Image.fromarray(opacity.astype(np.uint8)))
        upright = _on_white(upright)
    return upright, peak


def _windowed(values: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """In eight bits: all up to the window's first value black, all from its second on white."""
    low, high = window
    shares = (np.clip(values.astype(np.float64), low, high) - low) * 255 / (high - low)
    return np.floor(shares + 0.5).astype(np.uint8)


def _deep_values(image: Any) -> NDArray[np.uint16]:
    """All sixteen bits of each value, of which Pillow gives the upper eight: for the lower it is
    told the other order, and of grey with opacity, for which it has none, that bytes are values."""
    is_pair = "LA;16" in str(image.tile[0][3])

    def other(args: Any) -> Any:
        mode = args if isinstance(args, str) else args[0]
        mode = "RGBA" if is_pair else mode[:-1] + ("L" if mode.endswith("B") else "B")
        return mode if isinstance(args, str) else (mode, *args[1:])

    image.fp.seek(0)
    low: Any = Image.open(image.fp, formats=FILE_KINDS)
    make = getattr(type(low.tile[0]), "_make", tuple)  # Of a name in newer Pillow.
    low.tile = [make((*tile[:3], other(tile[3]))) for tile in low.tile]
    low.load()
    image.load()
    pixels = np.asarray(low)
    return pixels.view(">u2") if is_pair else np.asarray(image).astype(np.uint16) * 256 + pixels
