"""Arrays of pixels to PNG files, and to data URIs."""

import base64
import io

import numpy as np
from numpy.typing import NDArray


def png_data_uri(pixels: NDArray[np.uint8]) -> str:
    """One `(H, W, 3)` uint8 image as a `data:image/png;base64,` URI, without loss."""
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be (H, W, 3) uint8, not {pixels.shape} {pixels.dtype}")
    content = png_bytes(np.ascontiguousarray(pixels), optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def png_bytes(pixels: NDArray[np.uint8], *, optimize: bool = False) -> bytes:
    """The PNG file of a contiguous `(H, W, 3)` uint8 image."""
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG", optimize=optimize)
    return content.getvalue()
