"""An exploration of a data set as one HTML file that needs no network and no script."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.encoding import png_data_uri
from tenfold.data.explore import ClassLook, Exploration, SplitCounts
from tenfold.data.images import LUMA, Dataset
from tenfold.data.leaks import DuplicatePair, Overlap
from tenfold.errors import counted
from tenfold.files import write_text
from tenfold.formatting import count, listed, percent
from tenfold.reporting.templating import render_page
from tenfold.reporting.thumbnails import thumbnails

# What keeps the page near a megabyte, whatever the number of classes.
_MAX_SAMPLES = 240
_MAX_PAIRS = 18

_CHART_WIDTH, _CHART_HEIGHT = 192, 72
_BALANCED, _VERY_UNEVEN = 1.1, 5.0
# Levels of 255 by which a class must be redder or bluer than grey to be called so.
_NOTABLE_TINT = 5.0
# Beyond this share near duplicates are hardly one photograph twice.
_TOO_MANY = 0.2


class Pair(NamedTuple):
    """Two images that are alike, and where they are: split and index."""

    pair: DuplicatePair
    first: tuple[str, int]
    second: tuple[str, int]


def write_exploration_page(exploration: Exploration, dataset: Dataset, path: Path) -> None:
    """Write the page about `exploration` to `path`, whole or not at all.

    dataset: the same that was explored; its images are shown. Raises TenfoldError where `path`
    can't be written.
    """
    write_text(path, render_exploration(exploration, dataset))


def render_exploration(exploration: Exploration, dataset: Dataset) -> str:
    """The page as HTML that refers to nothing outside itself."""
    splits, looks = dataset.splits(), exploration.classes

    def uri(pixels: NDArray[np.uint8]) -> str:
        return png_data_uri(thumbnails(pixels[None])[0])

    overlaps = sorted(exploration.duplicates, key=lambda overlap: not overlap.is_across)
    return render_page(
        "eda.html",
        style_sheets=("style.css", "eda.css"),
        exploration=exploration,
        balance=_balance(exploration.splits[0]),
        findings=findings(exploration),
        curves=_curves(looks),
        pairs=[(each, _shown_pairs(each, dataset)) for each in overlaps],
        is_grey=_is_grey(looks),
        chart_size=(_CHART_WIDTH, _CHART_HEIGHT),
        num_samples=max(1, _MAX_SAMPLES // max(1, len(looks))),
        num_images=max(1, sum(split.num_pictures for split in exploration.splits)),
        uri=uri,
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


def _shown_pairs(overlap: Overlap, dataset: Dataset) -> list[Pair]:
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
    chosen += [same[round(n)] for n in np.linspace(0, len(same) - 1, room)] if room else []
    ids = {split: images.ids for split, images in dataset.splits().items()}
    return [
        Pair(
            pair,
            (overlap.first, int(np.flatnonzero(ids[overlap.first] == pair.first)[0])),
            (overlap.second, int(np.flatnonzero(ids[overlap.second] == pair.second)[0])),
        )
        for pair in chosen
    ]


def findings(exploration: Exploration) -> dict[str, str]:
    """What stands out in each section, in sentences that need nothing else to be understood."""
    totals = {split.name: split.num_pictures for split in exploration.splits}
    found = {
        "classes": _classes(exploration),
        "colours": _colours([look for look in exploration.classes if look.num_pictures]),
        "quality": _quality(exploration, sum(totals.values())),
        "duplicates": _duplicates(exploration.duplicates, totals),
        "sizes": _sizes(exploration),
    }
    return {section: text for section, text in found.items() if text}


def _balance(split: SplitCounts) -> str:
    if split.imbalance <= _BALANCED:
        return "balanced" if split.imbalance == 1 else "nearly balanced"
    return f"largest {_ratio(split)} times the smallest"


def _ratio(split: SplitCounts) -> str:
    return f"{split.imbalance:.3g}" if split.imbalance < 100 else f"{split.imbalance:,.0f}"


def _classes(exploration: Exploration) -> str:
    splits = [split for split in exploration.splits if any(split.class_counts)]
    if splits and all(len(set(split.class_counts)) == 1 for split in splits):
        each = [
            f"{counted(part.class_counts[0], 'picture')} each in {part.name}" for part in splits
        ]
        sentences = [f"Classes are balanced: {listed(each)}."]
    else:
        sentences = [_evenness(split, exploration.class_names) for split in splits]
    for split in exploration.splits:
        if missing := split.missing:
            more = f" and {counted(len(missing) - 5, 'more class')}" if len(missing) > 5 else ""
            names = ", ".join(missing[:5]) if more else listed(missing)
            sentences.append(f"No picture of {split.name} is of {names}{more}.")
    if any(split.imbalance >= _VERY_UNEVEN for split in splits):
        sentences.append("Judge a model by each class here, as accuracy mostly tells of the large.")
    return " ".join(sentences)


def _evenness(split: SplitCounts, class_names: Sequence[str]) -> str:
    numbers = [number for number in split.class_counts if number]
    low, high = min(numbers), max(numbers)
    if split.imbalance <= _BALANCED:
        number = counted(high, "picture")
        number = number if low == high else f"{count(low)} to {number}"
        return f"In {split.name}, classes are {_balance(split)}: {number} each."
    largest, smallest = (class_names[split.class_counts.index(number)] for number in (high, low))
    return (
        f"In {split.name}, classes are uneven: {largest} has {count(high)}, {smallest} "
        f"{counted(low, 'picture')}, {_ratio(split)} to 1."
    )


def _colours(looks: Sequence[ClassLook]) -> str:
    if len(looks) < 2:
        return "There is one class only, so there are no colours to compare."
    (low, darkest), *_, (high, brightest) = sorted(
        (float(np.asarray(look.mean_rgb) @ LUMA), look.name) for look in looks
    )
    text = (
        f"The brightest class on average is {brightest} ({high:.0f} of 255), the darkest {darkest} "
        f"({low:.0f})."
    )
    if all(len(set(look.mean_rgb)) == 1 for look in looks):
        return f"All pictures are grey. {text}"
    (red, reddest), *_, (blue, bluest) = sorted(
        (look.mean_rgb[2] - look.mean_rgb[0], look.name) for look in looks
    )
    if blue > _NOTABLE_TINT and -red > _NOTABLE_TINT:
        text += (
            f" The bluest is {bluest}, the reddest {reddest}: colour alone already tells some "
            "classes apart."
        )
    return text


def _quality(exploration: Exploration, num_images: int) -> str:
    totals = {flag.name: sum(flag.counts.values()) for flag in exploration.quality}
    parts = [f"{name} {count(number)}" for name, number in totals.items() if number]
    if not parts:
        return "No picture is flagged as dark, bright, blurred or nearly empty."
    share = percent(max(totals.values()) / max(1, num_images))
    return (
        f"Worth a look: {listed(parts)} (at most {share} of all pictures each). They are unusual "
        "for this data, not necessarily wrong."
    )


def _duplicates(overlaps: Sequence[Overlap], totals: dict[str, int]) -> str:
    found = [overlap for overlap in overlaps if overlap.exact or overlap.near]
    if not found:
        kind = "exact copies" if any(overlap.near is None for overlap in overlaps) else "copies"
        return f"No {kind} were found, within a split or across."
    sentences = [_overlap(each, totals[each.second]) for each in overlaps if each.is_across]
    within = [
        f"{count(overlap.exact + (overlap.near or 0))} in {overlap.first}"
        for overlap in found
        if not overlap.is_across
    ]
    if within:
        sentences.append(f"Within a split, {listed(within)} have a copy or nearly one.")
    if any(not pair.same_class for overlap in found for pair in overlap.pairs):
        sentences.append("Some copies carry different labels, of which one must be wrong.")
    return " ".join(sentences)


def _overlap(overlap: Overlap, total: int) -> str:
    first, second, exact, near = overlap.first, overlap.second, overlap.exact, overlap.near or 0
    if not exact and not near:
        return f"No copy of a {second} picture was found in {first}."
    share = percent((exact + near) / max(1, total))
    meaning = "on these, a score measures memory"
    if near > _TOO_MANY * total:
        meaning = "so many that most may merely look alike, as drawings do"
    verb = "is" if exact == 1 else "are"
    text = f"{counted(exact, f'{second} picture')} {verb} in {first} too, pixel for pixel"
    text += f", and {count(near)} more nearly ({share} in all)" if near else f" ({share})"
    return f"{text}: {meaning}."


def _sizes(exploration: Exploration) -> str:
    height, width = exploration.image_size
    now, sizes = f"{width}×{height} pixels", exploration.original_sizes
    if sizes is None:
        return f"Every picture has {now}, as it came."
    smallest, largest = (f"{w}×{h}" for h, w in (sizes.smallest, sizes.largest))
    if sizes.num_distinct == 1:
        return f"Every picture came with {largest} pixels and was brought to {now}."
    text = (
        f"Pictures came in {count(sizes.num_distinct)} sizes, from {smallest} to {largest}, and "
        f"were brought to {now}."
    )
    if sizes.num_enlarged:
        text += f" {counted(sizes.num_enlarged, 'picture')} had to be enlarged."
    return text
