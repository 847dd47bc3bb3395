"""An exploration of a data set as one HTML file that needs no network and no script."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data.encoding import png_data_uri
from tenfold.data.explore import ClassLook, Exploration
from tenfold.data.images import LUMA, Dataset
from tenfold.data.leaks import DuplicatePair, Overlap
from tenfold.files import write_text
from tenfold.reporting.templating import render_page
from tenfold.reporting.thumbnails import thumbnails

# What keeps the page near a megabyte, whatever the number of classes.
_MAX_SAMPLES = 240
_MAX_PAIRS = 18

_CHART_WIDTH, _CHART_HEIGHT = 192, 72


def write_exploration_page(exploration: Exploration, dataset: Dataset, path: Path) -> None:
    """Write the page about `exploration` to `path`, whole or not at all.

    dataset: the same that was explored; its images are shown. Raises TenfoldError where `path`
    can't be written.
    """
    write_text(path, render_exploration(exploration, dataset))


def render_exploration(exploration: Exploration, dataset: Dataset) -> str:
    """The page as HTML that refers to nothing outside itself."""
    splits, looks = dataset.splits(), exploration.classes
    positions = {
        split: {name: n for n, name in enumerate(images.ids.tolist())}
        for split, images in splits.items()
    }

    def uri(pixels: NDArray[np.uint8]) -> str:
        return png_data_uri(thumbnails(pixels[None])[0])

    seen = [look for look in looks if look.num_images]
    flagged = {flag.name: sum(flag.counts.values()) for flag in exploration.quality}
    overlaps = sorted(exploration.duplicates, key=lambda overlap: not overlap.is_across)
    return render_page(
        "eda.html",
        style_sheets=("style.css", "eda.css"),
        exploration=exploration,
        brightness=sorted((float(np.asarray(each.mean_rgb) @ LUMA), each.name) for each in seen),
        tints=sorted((each.mean_rgb[2] - each.mean_rgb[0], each.name) for each in seen),
        flagged={name: number for name, number in flagged.items() if number},
        copied=[each for each in exploration.duplicates if each.exact or each.near],
        curves=_curves(looks),
        pairs=[(each, _shown_pairs(each)) for each in overlaps],
        is_grey=_is_grey(looks),
        is_balanced=all(len(set(split.class_counts)) == 1 for split in exploration.splits),
        chart_size=(_CHART_WIDTH, _CHART_HEIGHT),
        num_samples=max(1, _MAX_SAMPLES // max(1, len(looks))),
        num_images=max(1, sum(split.num_images for split in exploration.splits)),
        uri=uri,
        place_of=lambda split, name: (split, positions[split][name]),
        uri_of=lambda split, index: uri(splits[split].pixels[index]),
        label_of=lambda split, index: dataset.class_names[splits[split].labels[index]],
    )


def _is_grey(looks: Sequence[ClassLook]) -> bool:
    """Whether every training image is grey; then one curve says what three would."""
    return all((look.histograms == look.histograms[0]).all() for look in looks)


def _curves(looks: Sequence[ClassLook]) -> dict[str, list[tuple[str, str]]]:
    """Of each class the channels, each with the SVG path of its histogram's outline, on one scale;
    black and white themselves may stick out and are cut."""
    inner = max((float(look.histograms[:, 1:-1].max()) for look in looks), default=0.0)
    names = ("grey",) if _is_grey(looks) else ("red", "green", "blue")
    curves = {}
    for look in looks:
        heights = _CHART_HEIGHT * (1 - np.minimum(look.histograms / (1.1 * inner or 1.0), 1))
        channels = zip(names, heights, strict=False)
        curves[look.name] = [(name, _outline(channel)) for name, channel in channels]
    return curves


def _outline(heights: NDArray[np.float64]) -> str:
    width = _CHART_WIDTH / len(heights)
    steps = "".join(f"V{y:.1f}H{(n + 1) * width:g}" for n, y in enumerate(heights))
    return f"M0 {heights[0]:.1f}{steps}"


def _shown_pairs(overlap: Overlap) -> list[DuplicatePair]:
    """Those with different labels first, then evenly from the most to the least alike.

    Of images that are all alike only the first pair is shown, or they would fill the page.
    """
    chosen = [pair for pair in overlap.pairs if not pair.same_class][:_MAX_PAIRS]
    seen: set[str] = set()
    same = []
    for pair in overlap.pairs:
        if pair.same_class and not {pair.first, pair.second} & seen:
            same.append(pair)
        seen |= {pair.first, pair.second}
    room = min(_MAX_PAIRS - len(chosen), len(same))
    return chosen + [same[round(n)] for n in np.linspace(0, len(same) - 1, room)]
