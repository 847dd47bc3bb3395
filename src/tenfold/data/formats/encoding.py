"""Arrays of pixels to PNG files, on all cores."""

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
    from PIL import Image

    contents = []
    for picture in pixels:
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        contents.append(content.getvalue())
    return contents
