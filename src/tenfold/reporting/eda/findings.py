"""What an exploration says, in sentences for somebody who has not met these numbers before."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tenfold.data.eda import ClassLook, Exploration, OriginalSizes, SplitCounts
from tenfold.data.images import LUMA
from tenfold.data.leaks import DuplicateReport, Overlap
from tenfold.data.quality import QualityFlag
from tenfold.errors import counted
from tenfold.formatting import count, listed, percent, times

_BALANCED = 1.1
_VERY_UNEVEN = 5.0
# Levels of 255 by which a class must be redder or bluer than grey to be called so.
_NOTABLE_TINT = 5.0
# Beyond this share near duplicates are hardly one photograph twice.
_TOO_MANY = 0.2


class Findings(NamedTuple):
    """One sentence or two a section of the page, for the top of the page too."""

    classes: str
    colours: str
    shapes: str
    quality: str
    duplicates: str
    sizes: str


def find(exploration: Exploration) -> Findings:
    """The sentences about `exploration`; none needs the page to be understood."""
    return Findings(
        classes=_classes(exploration),
        colours=_colours(exploration.classes),
        shapes=_shapes(exploration.classes),
        quality=_quality(exploration),
        duplicates=_duplicates(exploration.duplicates, _sizes_of_splits(exploration)),
        sizes=_sizes(exploration.original_sizes, exploration.image_size),
    )


def balance(split: SplitCounts) -> str:
    """How even the classes are, in a few words."""
    if split.imbalance == 1:
        return "balanced"
    if split.imbalance <= _BALANCED:
        return "nearly balanced"
    return f"largest {times(split.imbalance)} the smallest"


def luminance(look: ClassLook) -> float:
    """Mean brightness of a class in [0, 255]."""
    return float(np.asarray(look.mean_rgb) @ LUMA)


def flagged_share(flag: QualityFlag, exploration: Exploration) -> float:
    """Share of all pictures of all splits that carry `flag`."""
    total = sum(split.num_pictures for split in exploration.splits)
    return sum(flag.counts.values()) / max(1, total)


def _sizes_of_splits(exploration: Exploration) -> dict[str, int]:
    return {split.name: split.num_pictures for split in exploration.splits}


def _classes(exploration: Exploration) -> str:
    splits = [split for split in exploration.splits if any(split.class_counts)]
    sentences = []
    if splits and all(len(set(split.class_counts)) == 1 for split in splits):
        each = [
            f"{counted(split.class_counts[0], 'picture')} each in {split.name}" for split in splits
        ]
        sentences.append(f"Classes are balanced: {listed(each)}.")
    else:
        sentences += [_balance(split, exploration.class_names) for split in splits]
    sentences += [
        f"No picture of {split.name} is of {_some(split.missing)}."
        for split in exploration.splits
        if split.missing
    ]
    if any(split.imbalance >= _VERY_UNEVEN for split in exploration.splits):
        sentences.append("Judge a model by each class here, as accuracy mostly tells of the large.")
    return " ".join(sentences)


def _balance(split: SplitCounts, class_names: Sequence[str]) -> str:
    numbers = [number for number in split.class_counts if number]
    low, high = min(numbers), max(numbers)
    if low == high:
        return f"In {split.name}, classes are balanced: {counted(low, 'picture')} each."
    if split.imbalance <= _BALANCED:
        return (
            f"In {split.name}, classes are nearly balanced: {count(low)} to "
            f"{counted(high, 'picture')} each."
        )
    largest = class_names[split.class_counts.index(high)]
    smallest = class_names[split.class_counts.index(low)]
    ratio = f"{split.imbalance:.3g}" if split.imbalance < 100 else f"{split.imbalance:,.0f}"
    return (
        f"In {split.name}, classes are uneven: {largest} has {count(high)}, {smallest} "
        f"{counted(low, 'picture')}, {ratio} to 1."
    )


def _some(names: Sequence[str], most: int = 5) -> str:
    if len(names) <= most:
        return listed(names)
    return f"{', '.join(names[:most])} and {counted(len(names) - most, 'more class')}"


def _colours(looks: Sequence[ClassLook]) -> str:
    looks = [look for look in looks if look.num_pictures]
    if len(looks) < 2:
        return "There is one class only, so there are no colours to compare."
    ordered = sorted(looks, key=luminance)
    darkest, brightest = ordered[0], ordered[-1]
    text = (
        f"The brightest class on average is {brightest.name} ({luminance(brightest):.0f} of 255), "
        f"the darkest {darkest.name} ({luminance(darkest):.0f})."
    )
    if all(len(set(look.mean_rgb)) == 1 for look in looks):
        return f"All pictures are grey. {text}"
    cold = [look.mean_rgb[2] - look.mean_rgb[0] for look in looks]
    bluest, reddest = int(np.argmax(cold)), int(np.argmin(cold))
    if cold[bluest] > _NOTABLE_TINT and -cold[reddest] > _NOTABLE_TINT:
        text += (
            f" The bluest is {looks[bluest].name}, the reddest {looks[reddest].name}: colour alone "
            "already tells some classes apart."
        )
    return text


def _shapes(looks: Sequence[ClassLook]) -> str:
    looks = [look for look in looks if look.num_pictures > 1]
    if len(looks) < 2:
        return ""
    contrast = [float((look.mean_image @ LUMA).std()) for look in looks]
    clearest, vaguest = int(np.argmax(contrast)), int(np.argmin(contrast))
    return (
        "A mean image that still shows something means that a class is mostly seen from one side "
        f"or on one ground: {looks[clearest].name} shows most, {looks[vaguest].name} least."
    )


def _quality(exploration: Exploration) -> str:
    parts = [
        f"{count(sum(flag.counts.values()))} {_with_article(flag)}"
        for flag in exploration.quality
        if sum(flag.counts.values())
    ]
    if not parts:
        return "No picture is flagged as dark, bright, blurred or nearly empty."
    largest = max(flagged_share(flag, exploration) for flag in exploration.quality)
    worst = f"at most {percent(largest)} of all pictures" if len(parts) > 1 else percent(largest)
    pictures = "picture" if parts[-1].startswith("1 ") else "pictures"
    return (
        f"Worth a look: {listed(parts)} {pictures} ({worst}{' each' if len(parts) > 1 else ''}). "
        "They are unusual for this data, not necessarily wrong."
    )


def _with_article(flag: QualityFlag) -> str:
    return "nearly empty" if flag.name == "low information" else flag.name


def _duplicates(report: DuplicateReport, totals: dict[str, int]) -> str:
    sentences = [_overlap(overlap, totals) for overlap in report.across]
    if not any(overlap.exact or overlap.near for overlap in report.overlaps):
        kind = "copies" if _looked(report) else "exact copies"
        return f"No {kind} were found, within a split or across."
    within = [overlap for overlap in report.within if overlap.exact or overlap.near]
    if within:
        texts = [
            f"{count(overlap.exact + (overlap.near or 0))} in {overlap.first}" for overlap in within
        ]
        sentences.append(f"Within a split, {listed(texts)} have a copy or nearly one.")
    if any(not pair.same_class for overlap in report.overlaps for pair in overlap.pairs):
        sentences.append("Some copies carry different labels, of which one must be wrong.")
    return " ".join(sentences)


def _looked(report: DuplicateReport) -> bool:
    return all(overlap.near is not None for overlap in report.overlaps)


def _overlap(overlap: Overlap, totals: dict[str, int]) -> str:
    first, second = overlap.first, overlap.second
    near = overlap.near or 0
    if not overlap.exact and not near:
        return f"No copy of a {second} picture was found in {first}."
    total = max(1, totals[second])
    share = percent((overlap.exact + near) / total)
    meaning = _ALIKE if near / total > _TOO_MANY else _MEMORY
    if not overlap.exact:
        text = f"No {second} picture is in {first} pixel for pixel, but {count(near)} ({share})"
        return f"{text} nearly {_are(near)}{meaning}"
    text = f"{counted(overlap.exact, f'{second} picture')} {_are(overlap.exact)} in {first} too"
    if not near:
        return f"{text}, pixel for pixel ({share}){meaning}"
    return f"{text}, pixel for pixel, and {count(near)} more nearly ({share} in all){meaning}"


_MEMORY = ": on these, a score measures memory."
_ALIKE = ": so many that most may merely look alike, as drawings do."


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _sizes(sizes: OriginalSizes | None, image_size: tuple[int, int]) -> str:
    now = f"{image_size[1]}×{image_size[0]} pixels"
    if sizes is None:
        return f"Every picture has {now}, as it came."
    if sizes.num_distinct == 1:
        height, width = sizes.largest
        return f"Every picture came with {width}×{height} pixels and was brought to {now}."
    text = (
        f"Pictures came in {count(sizes.num_distinct)} sizes, from {_size(sizes.smallest)} to "
        f"{_size(sizes.largest)}, and were brought to {now}."
    )
    if sizes.num_enlarged:
        text += f" {counted(sizes.num_enlarged, 'picture')} had to be enlarged."
    return text


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"
