import base64
import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from tenfold.data.encoding import png_data_uri
from tenfold.reporting.templating import TEMPLATES
from tenfold.reporting.thumbnails import thumbnails

STYLE = (TEMPLATES / "style.css").read_text()


def decoded(uri):
    head, data = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_a_data_uri_holds_the_very_pixels():
    pixels = noise(32, 20, 3)
    assert np.array_equal(decoded(png_data_uri(pixels)), pixels)


def test_a_data_uri_of_something_else_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        png_data_uri(noise(32, 32, 3).astype(np.float32))


def test_thumbnails_keep_small_pictures_and_shrink_large_ones():
    small = noise(3, 32, 32, 3)
    assert thumbnails(small) is small
    assert thumbnails(noise(2, 100, 200, 3)).shape == (2, 32, 64, 3)


# The matrices for full colour blindness are those of Machado, Oliveira and Fernandes (2009).
SIGHT = {
    "usual": np.eye(3),
    "no green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def linear(colour):
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(first, second):
    lights = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (first, second))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def oklab(light):
    cones = np.cbrt(
        np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
        @ np.clip(light, 0, 1)
    )
    return (
        np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
        @ cones
    )


def palettes():
    found = []
    for block in re.findall(r":root \{(.*?)\}", STYLE, flags=re.DOTALL):
        found.append(dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6})", block)))
    return dict(zip(("light", "dark", "print"), found, strict=True))


@pytest.mark.parametrize("mode", ["light", "dark", "print"])
def test_text_and_series_can_be_read_on_both_grounds(mode):
    colours = palettes()[mode]
    for ground in ("page", "surface"):
        for text in ("ink", "muted", "accent", "good", "bad"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
        for number in range(1, 9):
            assert contrast(colours[f"s{number}"], colours[ground]) >= 3, (number, ground)


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("mode", ["light", "dark"])
def test_series_stay_apart_for_colour_blind_readers(mode, sight):
    colours = palettes()[mode]
    seen = [oklab(np.array(SIGHT[sight]) @ linear(colours[f"s{n}"])) for n in range(1, 9)]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)]
    assert min(distances) > 0.06


def test_the_stylesheet_asks_for_nothing_from_outside():
    assert "url(" not in STYLE
    assert "@import" not in STYLE
