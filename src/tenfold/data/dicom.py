"""DICOM files, by pydicom: one frame, as a viewer shows it at first.

- Stored values become those that they stand for by the modality's table, or slope and intercept.
- The window that is asked for decides what is black and white, in such values. Otherwise it is the
  file's own table of interest, or its first window; else all values that its bits can hold.
- Where low values are white (MONOCHROME1), they become so. Palettes and YBR become RGB.
- Several frames are refused, and so is what has been deflated, which may be of any size.

Overlays, shutters and the shape of pixels are passed over. Needs numpy and pydicom alone, so that a
bundle can follow the same rules.
"""

import hashlib
import io
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import config, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_windowing
from pydicom.pixels.utils import pixel_array

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_ROOM = 1 << 16
"""Bytes that a file may have beyond its pixels, where these are compressed."""

config.settings.reading_validation_mode = config.IGNORE  # What is odd elsewhere in a file.


class Stored(NamedTuple):
    """values: (H, W), or (H, W, 3) of colour. window: the values that are black and white, or the
    other way round where it is_inverted."""

    values: NDArray[Any]
    window: tuple[float, float]
    is_inverted: bool = False


def parse(content: bytes) -> Any:
    """What is in a file. Raises what pydicom does, and ValueError for what is deflated."""
    if _DEFLATED in content:
        raise ValueError("is a deflated DICOM file; save it without that")
    return dcmread(io.BytesIO(content))


def size_of(dataset: Any) -> tuple[int, int]:
    """Width and height."""
    return int(dataset.Columns), int(dataset.Rows)


def group_of(dataset: Any) -> str:
    """What tells the file's patient from others, without the name; empty where it has none."""
    patient = str(dataset.get("PatientID") or "").strip()
    known = f"{dataset.get('IssuerOfPatientID') or ''}\n{patient}"
    return hashlib.blake2b(known.encode(), digest_size=8).hexdigest() if patient else ""


def stored_in(dataset: Any, window: tuple[float, ...]) -> Stored:
    """The values of its pixels, by the rules atop this file. Raises what pydicom does, and
    ValueError for what is not one frame."""
    if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
        raise ValueError(f"holds {frames} frames where one is expected; save each as a file")
    _require_own_size(dataset)
    pixels, kind = pixel_array(dataset), str(dataset.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
        return Stored(pixels, (0, np.iinfo(pixels.dtype).max))
    if not kind.startswith("MONOCHROME"):
        return Stored(pixels, (0, 2 ** int(dataset.BitsStored) - 1))
    values, is_inverted = apply_modality_lut(pixels, dataset), kind == "MONOCHROME1"
    if window:
        low, high = window
    elif tables := dataset.get("VOILUTSequence"):
        values, (low, high) = _looked_up(values, tables[0])
    else:
        low, high = _range(dataset)
        if dataset.get("WindowCenter") is not None and dataset.get("WindowWidth") is not None:
            values = apply_windowing(values, dataset)
            if high < low:  # By a negative slope: what pydicom gives falls where values rise.
                values = low + high - values
        low, high = sorted((low, high))
        if low == high:
            raise ValueError(f"states a slope by which all its values are {low:g}")
    return Stored(values, (low, high), is_inverted)


def _looked_up(values: NDArray[Any], table: Any) -> tuple[NDArray[Any], tuple[float, float]]:
    """What a table of interest has for the values, and the range of that. Not by pydicom, which
    cuts values to eight bits before it looks them up in a table of eight."""
    number, first, bits = (int(each) for each in table.LUTDescriptor)
    data, number = table.LUTData, number or 1 << 16  # Which sixteen bits can't state.
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if len(data) >= 2 * number else "u1")
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, number - 1)
    return np.asarray(data)[places], (0, 2**bits - 1)


def _range(dataset: Any) -> tuple[float, float]:
    """What the least and the greatest value that can be stored become by the modality's table,
    which is also what pydicom brings a window to."""
    if table := dataset.get("ModalityLUTSequence"):
        return 0, 2 ** int(table[0].LUTDescriptor[2]) - 1
    bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
    slope = float(dataset.get("RescaleSlope", 1))
    intercept = float(dataset.get("RescaleIntercept", 0))
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    low, high = (end * slope + intercept for end in ends)
    return low, high


def _require_own_size(dataset: Any) -> None:
    """Raise ValueError where a compressed frame would become something larger than is stated."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    width, height = size_of(dataset)
    samples = int(dataset.SamplesPerPixel) * -(-int(dataset.BitsAllocated) // 8)
    if len(dataset.PixelData) > 2 * width * height * samples + _ROOM:
        raise ValueError("holds more bytes than its pixels can need")
    if "JPEG" in syntax.name:
        with Image.open(io.BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=1))) as frame:
            if frame.size != (width, height):
                raise ValueError("holds a frame of another size than it states")
