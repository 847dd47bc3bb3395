"""The sections about pictures: where it looked, and what its mistakes have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.audit.store import Finding
from tenfold.data.encoding import png_data_uri
from tenfold.data.images import LUMA
from tenfold.errors import counted
from tenfold.formatting import listed, percent
from tenfold.reporting.audit.section import Section, Shown, Source, Strip
from tenfold.reporting.charts import Charts
from tenfold.reporting.pictures import picture_uri

HEAT_STRENGTH = 0.75
"""Of the colour over the picture where it mattered the most."""


_METHODS = {
    "grad-cam": "Grad-CAM",
    "integrated-gradients": "integrated gradients",
    "occlusion": "occlusion",
}


def explanation(finding: Finding, charts: Charts) -> Section:
    """Maps of where it looked, its filters and what its layers see."""
    values, arrays = finding.values, finding.arrays
    methods = [name for name in _METHODS if name in arrays]
    checks = values["checks"]
    answer = [
        "Red is what spoke for its answer. The pictures at the end of each row are those from "
        "training that look most alike to it."
    ]
    if checks:
        answer.append(
            "Would the maps look the same if it had learnt nothing? With shuffled weights they "
            "agree with these by "
            + ", ".join(f"{value:.2f} ({_METHODS[name]})" for name, value in checks.items())
            + "; 1 would mean that they show the picture and not the network, 0 that they have "
            "nothing in common."
        )
    if "grad-cam" not in arrays:
        answer.append(
            "This network has no layer with a sense of place, so there is no map from within it."
        )
    answer += values.get("unavailable", {}).values()
    columns = ("the picture", *(_METHODS[name] for name in methods), "its nearest in training")
    strips = [
        Strip("Where it looked", f"In each row: {listed(columns)}.", _looked_at(finding, methods)),
    ]
    if "filters" in arrays:
        strips.append(
            Strip(
                "Its first filters",
                "What the first layer looks for in every corner of a picture: edges and colours."
                if "grad-cam" in arrays
                else "What the first layer looks for, each in the picture as a whole.",
                (Shown((png_data_uri(_sheet(arrays["filters"])),), ("first filters",), ()),),
            )
        )
    if values["layers"]:
        layers = [
            Shown(
                tuple(picture_uri(_grey(maps)) for maps in arrays[f"layer{number}"]),
                tuple(f"{name}, map {i + 1}" for i in range(len(arrays[f"layer{number}"]))),
                (name,),
            )
            for number, name in enumerate(values["layers"])
        ]
        strips.append(
            Strip(
                "What its layers see in the first of these pictures",
                "Bright is a strong answer. The deeper the layer, the more it is about things and "
                "the less about edges. Of each layer the maps that vary the most are shown.",
                tuple(layers),
            )
        )
    return Section(
        tuple(answer),
        strips=tuple(strips),
        sources=(
            Source("Selvaraju et al. 2017, Grad-CAM", "https://arxiv.org/abs/1610.02391"),
            Source("Sundararajan et al. 2017, integrated gradients", "https://arxiv.org/abs/1703.01365"),
            Source("Zeiler and Fergus 2014, occlusion", "https://arxiv.org/abs/1311.2901"),
            Source("Adebayo et al. 2018, the check", "https://arxiv.org/abs/1810.03292"),
        ),
    )  # fmt: skip


def _looked_at(finding: Finding, methods: Sequence[str]) -> tuple[Shown, ...]:
    """A row for each picture: itself, a map by each of `methods`, and what is most like it."""
    values, arrays = finding.values, finding.arrays
    rows = []
    for index, picture in enumerate(values["pictures"]):
        pixels = arrays["pixels"][index]
        maps = [heated(pixels, arrays[name][index]) for name in methods]
        alike = list(zip(arrays["neighbours"][index], picture["neighbours"], strict=True))[:3]
        rows.append(
            Shown(
                tuple(
                    picture_uri(each) for each in (pixels, *maps, *(other for other, _ in alike))
                ),
                (
                    "picture",
                    *(_METHODS[name] for name in methods),
                    *(f"alike: {label}" for _, label in alike),
                ),
                (_said_of(picture), f"{picture['id']}; most like {listed(picture['neighbours'])}"),
            )
        )
    return tuple(rows)


def _said_of(picture: Mapping[str, Any]) -> str:
    truth = f"is {picture['true']}, " if picture["true"] else ""
    sure = percent(picture["confidence"], digits=0)
    return f"{picture['kind']}: {truth}called {picture['guess']} ({sure})"


def heated(pixels: NDArray[np.uint8], values: NDArray[Any]) -> NDArray[np.uint8]:
    """The picture, greyed, with red where a map `(H, W)` spoke for the answer.

    What spoke against it has no colour.
    """
    strength = np.maximum(values.astype(np.float32), 0)
    # A coarse map is high almost everywhere, and then only differences say something.
    low, high = (float(np.percentile(strength, share)) for share in (10, 99))
    share = np.clip((strength - low) / max(high - low, 1e-12), 0, 1)[..., None]
    grey = (pixels @ LUMA)[..., None]
    grey = np.repeat(0.75 * grey + 40, 3, axis=2)
    red = np.array([235, 40, 30], dtype=np.float32)
    mixed = grey * (1 - HEAT_STRENGTH * share) + red * HEAT_STRENGTH * share
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def _grey(maps: NDArray[Any]) -> NDArray[np.uint8]:
    values = maps.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) * 255 if high > low else values * 0
    return np.repeat(scaled.astype(np.uint8)[..., None], 3, axis=2)


def _sheet(filters: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Filters side by side, with lines of background between them, at most 16 in a row."""
    number, height, width = filters.shape[:3]
    across = min(number, 16)
    rows = -(-number // across)
    sheet = np.full((rows * (height + 1) + 1, across * (width + 1) + 1, 3), 128, dtype=np.uint8)
    for index, picture in enumerate(filters):
        row, column = divmod(index, across)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        sheet[top : top + height, left : left + width] = picture
    return sheet


# -- errors --------------------------------------------------------------------------------------


def errors(finding: Finding, charts: Charts) -> Section:
    """Groups of mistakes that look alike to the network."""
    values, arrays = finding.values, finding.arrays
    if not values["groups"]:
        answer = ("It made next to no mistakes, so there is nothing to group.",)
        return Section(answer)
    items = []
    for number, group in enumerate(values["groups"]):
        pairs = "; ".join(f"{true} called {guess} ({n})" for true, guess, n in group["pairs"])
        items.append(
            Shown(
                tuple(picture_uri(picture) for picture in arrays[f"group{number}"]),
                tuple(f"{each['true']}, called {each['guess']}" for each in group["pictures"]),
                (f"{counted(group['num_images'], 'mistake')}, mostly {pairs}",),
            )
        )
    return Section(
        (
            f"Its {counted(values['num_wrong'], 'mistake')} on the {values['split']} pictures, "
            "sorted into groups of pictures that look alike to the network. A group with one "
            "cause, such as a pose or a background, is where more pictures would help the most.",
        ),
        strips=(Strip("Groups of mistakes", "The most typical of each group.", tuple(items)),),
        sources=(
            Source("k-means on features, scikit-learn",
                   "https://scikit-learn.org/stable/modules/clustering.html#k-means"),
        ),
    )  # fmt: skip
