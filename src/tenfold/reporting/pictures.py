"""Pictures inside a page: thumbnails as data URIs, and many small ones joined into one sprite.

Shape letters: N pictures of H by W pixels, RGB.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tenfold.data.encoding import png_data_uri

MAX_SIDE = 96
"""Pixels; a page of large photographs would otherwise grow by megabytes."""


@dataclass(frozen=True)
class Sprite:
    """Pictures of one size in one PNG, each shown by an element of its own.

    A page holds the rule once and any number of elements:

        <style>{{ sprite.rule(".birds") }}</style>
        <div class="sprite birds" role="img" aria-label="bird" style="{{ sprite.style(3) }}">
    """

    uri: str
    num_pictures: int
    columns: int
    rows: int
    height: int
    width: int

    def rule(self, selector: str) -> str:
        """The CSS rule that gives `selector` this sprite, scaled so that one picture fills it."""
        across = 100 * self.columns * (self.width + 2) / self.width
        down = 100 * self.rows * (self.height + 2) / self.height
        return (
            f"{selector} {{ aspect-ratio: {self.width} / {self.height}; "
            f"background-image: url({self.uri}); background-size: {across:.4f}% {down:.4f}%; }}"
        )

    def style(self, index: int) -> str:
        """The declaration that shows picture `index`, for an element's `style` attribute."""
        if not 0 <= index < self.num_pictures:
            raise IndexError(f"there are {self.num_pictures} pictures, so no picture {index}")
        row, column = divmod(index, self.columns)
        across = _position(column, self.columns, self.width)
        down = _position(row, self.rows, self.height)
        return f"background-position: {across:.4f}% {down:.4f}%"


def sprite(pixels: NDArray[np.uint8], *, columns: int | None = None) -> Sprite:
    """`(N, H, W, 3)` uint8 pictures, N at least 1, as one sprite in reading order.

    Each picture gets a border one pixel wide that repeats its edge, so that a browser which rounds
    a position by a fraction of a pixel never shows a neighbour.
    """
    num_pictures, height, width = pixels.shape[:3]
    if num_pictures == 0:
        raise ValueError("a sprite needs at least one picture")
    columns = min(columns or math.ceil(math.sqrt(num_pictures)), num_pictures)
    rows = math.ceil(num_pictures / columns)
    sheet = np.zeros((rows * columns, height + 2, width + 2, 3), dtype=np.uint8)
    sheet[:num_pictures] = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    tiled = sheet.reshape(rows, columns, height + 2, width + 2, 3).swapaxes(1, 2)
    joined = tiled.reshape(rows * (height + 2), columns * (width + 2), 3)
    return Sprite(png_data_uri(joined), num_pictures, columns, rows, height, width)


def thumbnails(pixels: NDArray[np.uint8], *, max_side: int = 64) -> NDArray[np.uint8]:
    """`(N, H, W, 3)` uint8 pictures no larger than `max_side`; small ones stay as they are."""
    from PIL import Image

    if max(pixels.shape[1:3]) <= max_side or len(pixels) == 0:
        return pixels
    pictures = [Image.fromarray(np.ascontiguousarray(each)) for each in pixels]
    for picture in pictures:
        picture.thumbnail((max_side, max_side))
    return np.stack([np.asarray(picture) for picture in pictures])


def picture_uri(pixels: NDArray[np.uint8]) -> str:
    """A picture as it stands in a page, a large one brought to MAX_SIDE pixels."""
    return png_data_uri(thumbnails(pixels[None], max_side=MAX_SIDE)[0])


def _position(cell: int, num_cells: int, side: int) -> float:
    """Where a background is put, in CSS's per cent of what sticks out of the box."""
    return 100 * (cell * (side + 2) + 1) / (num_cells * (side + 2) - side)
