"""Arrays of pixels to PNG files, on all cores, and to data URIs."""

import base64
import io
from collections.abc import Generator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.workers import chunks_of, map_on_cores
from tenfold.progress import Progress


def encode_all(
    pixels: NDArray[np.uint8], *, label: str, progress: Progress | None = None
) -> Generator[list[bytes], None, None]:
    """The contents of PNG files of `(N, H, W, 3)` uint8 pictures, some at a time, in order.

    Close the iterator if it isn't read to its end.
    """
    chunks = chunks_of(len(pixels))
    tasks = [pixels[chunk] for chunk in chunks]
    with closing(map_on_cores(_encode_some, tasks, num_items=len(pixels))) as results:
        for chunk, result in zip(chunks, results, strict=True):
            yield result
            if progress is not None:
                progress(label, min(chunk.stop, len(pixels)), len(pixels))


def _encode_some(pixels: NDArray[np.uint8]) -> list[bytes]:
    return [_png(picture) for picture in pixels]


def png_data_uri(pixels: NDArray[np.uint8]) -> str:
    """One `(H, W, 3)` uint8 picture as a `data:image/png;base64,` URI, without loss."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    content = _png(np.ascontiguousarray(pixels), optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _png(pixels: NDArray[np.uint8], *, optimize: bool = False) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=optimize)
    return content.getvalue()
