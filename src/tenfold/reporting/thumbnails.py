"""Images inside a page: thumbnails as data URIs.

Shape letters: N images of H by W pixels, RGB.
"""

import numpy as np
from numpy.typing import NDArray

from tenfold.data.encoding import png_data_uri

MAX_SIDE = 96
"""Pixels; a page of large photographs would otherwise grow by megabytes."""


def thumbnails(pixels: NDArray[np.uint8], *, max_side: int = 64) -> NDArray[np.uint8]:
    """`(N, H, W, 3)` uint8 images no larger than `max_side`; small ones stay as they are."""
    from PIL import Image

    if max(pixels.shape[1:3]) <= max_side or len(pixels) == 0:
        return pixels
    images = [Image.fromarray(np.ascontiguousarray(each)) for each in pixels]
    for image in images:
        image.thumbnail((max_side, max_side))
    return np.stack([np.asarray(image) for image in images])


def thumbnail_uri(pixels: NDArray[np.uint8]) -> str:
    """An image as it stands in a page, a large one brought to MAX_SIDE pixels."""
    return png_data_uri(thumbnails(pixels[None], max_side=MAX_SIDE)[0])
