"""An exploration of a data set as one HTML file that needs no network and no script."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.data.eda import ClassLook, Exploration
from tenfold.data.encoding import png_data_uri
from tenfold.data.images import Dataset, Images
from tenfold.data.leaks import DuplicatePair, DuplicateReport, Overlap
from tenfold.data.quality import QualityFlag
from tenfold.files import write_text
from tenfold.reporting.eda import findings
from tenfold.reporting.pictures import Sprite, sprite, thumbnails
from tenfold.reporting.templating import render_page

_STYLE_SHEETS = ("style.css", "eda.css")

# What keeps the page near a megabyte, whatever the number of classes.
_MAX_SAMPLES = 240
_MAX_PAIRS_ACROSS = 18
_MAX_PAIRS_WITHIN = 12

_CHART_WIDTH, _CHART_HEIGHT = 192, 72


@dataclass(frozen=True)
class Tile:
    """One picture of a sprite and the words under it. `style` shows it; `alt` says what it is."""

    style: str
    alt: str
    title: str
    caption: str


class Curve(NamedTuple):
    """A histogram as the SVG paths of its outline and of the area below."""

    channel: str
    outline: str
    area: str


@dataclass(frozen=True)
class ClassView:
    """A class as its row and its card on the page."""

    look: ClassLook
    sprite: str
    tiles: tuple[Tile, ...]
    mean_uri: str
    luminance: float
    curves: tuple[Curve, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class FlagView:
    """A quality flag with its example pictures."""

    flag: QualityFlag
    heading: str
    share: float
    sprite: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True)
class PairView:
    """Two pictures side by side."""

    pair: DuplicatePair
    first: Tile
    second: Tile


@dataclass(frozen=True)
class PairsView:
    """The pairs of one overlap that are shown."""

    heading: str
    sprite: str
    pairs: tuple[PairView, ...]
    num_pairs: int


def write_exploration_page(exploration: Exploration, dataset: Dataset, path: Path) -> None:
    """Write the page about `exploration` to `path`, whole or not at all.

    dataset: the same that was explored; its pictures are shown. Raises TenfoldError where `path`
    can't be written.
    """
    write_text(path, render_exploration(exploration, dataset))


def render_exploration(exploration: Exploration, dataset: Dataset) -> str:
    """The page as HTML that refers to nothing outside itself."""
    sheet = _SpriteSheet()
    classes = _class_views(exploration, dataset.train, sheet)
    flags = [_flag_view(flag, exploration, dataset, sheet) for flag in exploration.quality]
    pairs = list(_pairs_views(exploration.duplicates, dataset, sheet))
    return render_page(
        "eda.html",
        style_sheets=_STYLE_SHEETS,
        more_styles=sheet.rules(),
        exploration=exploration,
        balance=findings.balance(exploration.splits[0]),
        findings=findings.find(exploration),
        classes=classes,
        flags=flags,
        pairs=pairs,
        is_grey=_is_grey(exploration),
        chart=(_CHART_WIDTH, _CHART_HEIGHT),
    )


class _SpriteSheet:
    """The sprites of a page, each under a class name of its own."""

    def __init__(self) -> None:
        self._rules: list[str] = []

    def add(self, pixels: NDArray[np.uint8]) -> tuple[str, Sprite | None]:
        """The class name of a sprite of `pixels`, and the sprite; None without pictures."""
        if not len(pixels):
            return "", None
        name = f"sprite-{len(self._rules) + 1}"
        made = sprite(thumbnails(pixels))
        self._rules.append(made.rule(f".{name}"))
        return name, made

    def rules(self) -> str:
        return "\n".join(["", *self._rules, ""])


def _class_views(exploration: Exploration, train: Images, sheet: _SpriteSheet) -> list[ClassView]:
    looks = exploration.classes
    num_samples = max(1, _MAX_SAMPLES // max(1, len(looks)))
    highest = _highest(looks)
    largest = [max(1, *split.class_counts) for split in exploration.splits]
    grey = _is_grey(exploration)
    views = []
    for label, look in enumerate(looks):
        indices = np.array(look.sample_indices[:num_samples], dtype=np.int64)
        name, made = sheet.add(train.pixels[indices])
        tiles = tuple(
            _tile(made, position, f"{look.name}, {picture}", "")
            for position, picture in enumerate(look.sample_ids[:num_samples])
        )
        views.append(
            ClassView(
                look=look,
                sprite=name,
                tiles=tiles,
                mean_uri=png_data_uri(thumbnails(look.mean_image[None])[0]),
                luminance=findings.luminance(look),
                curves=_curves(look, highest, is_grey=grey),
                shares=tuple(
                    split.class_counts[label] / most
                    for split, most in zip(exploration.splits, largest, strict=True)
                ),
            )
        )
    return views


def _is_grey(exploration: Exploration) -> bool:
    """Whether every training picture is grey; then one curve says what three would."""
    return all(
        np.array_equal(look.histograms[0], look.histograms[1])
        and np.array_equal(look.histograms[0], look.histograms[2])
        for look in exploration.classes
    )


def _highest(looks: Sequence[ClassLook]) -> float:
    """The share at the top of every chart; black and white themselves may stick out and are cut."""
    inner = max((float(look.histograms[:, 1:-1].max()) for look in looks), default=0.0)
    return 1.1 * inner or 1.0


def _curves(look: ClassLook, highest: float, *, is_grey: bool) -> tuple[Curve, ...]:
    names = ("grey",) if is_grey else ("red", "green", "blue")
    return tuple(
        _curve(name, histogram, highest)
        for name, histogram in zip(names, look.histograms, strict=False)
    )


def _curve(channel: str, histogram: NDArray[np.float64], highest: float) -> Curve:
    width = _CHART_WIDTH / len(histogram)
    heights = [_CHART_HEIGHT * (1 - min(float(share) / highest, 1)) for share in histogram]
    steps = "".join(f"V{y:.1f}H{(n + 1) * width:g}" for n, y in enumerate(heights))
    return Curve(
        channel,
        outline=f"M0 {heights[0]:.1f}{steps}",
        area=f"M0 {_CHART_HEIGHT}{steps}V{_CHART_HEIGHT}Z",
    )


def _tile(made: Sprite | None, position: int, title: str, caption: str) -> Tile:
    return Tile(made.style(position) if made else "", title, title, caption)


def _flag_view(
    flag: QualityFlag, exploration: Exploration, dataset: Dataset, sheet: _SpriteSheet
) -> FlagView:
    splits = dataset.splits()
    pictures = [splits[example.split].pixels[example.index] for example in flag.examples]
    name, made = sheet.add(np.stack(pictures) if pictures else np.empty((0, 1, 1, 3), np.uint8))
    tiles = []
    for position, example in enumerate(flag.examples):
        label = dataset.class_names[splits[example.split].labels[example.index]]
        title = f"{label}, {example.id}: {example.value:.3g}"
        tiles.append(_tile(made, position, title, label))
    return FlagView(
        flag=flag,
        heading=flag.name[0].upper() + flag.name[1:],
        share=findings.flagged_share(flag, exploration),
        sprite=name,
        tiles=tuple(tiles),
    )


def _pairs_views(
    report: DuplicateReport, dataset: Dataset, sheet: _SpriteSheet
) -> Iterator[PairsView]:
    for overlap in (*report.across, *report.within):
        most = _MAX_PAIRS_ACROSS if overlap.is_across else _MAX_PAIRS_WITHIN
        chosen = _chosen(overlap.pairs, most)
        if not chosen:
            continue
        ours, theirs = dataset.splits()[overlap.first], dataset.splits()[overlap.second]
        first = [_index_of(ours, pair.first) for pair in chosen]
        second = [_index_of(theirs, pair.second) for pair in chosen]
        name, made = sheet.add(np.concatenate([ours.pixels[first], theirs.pixels[second]]))
        yield PairsView(
            heading=_heading(overlap),
            sprite=name,
            pairs=tuple(
                PairView(
                    pair,
                    _pair_tile(made, number, ours, first[number]),
                    _pair_tile(made, number + len(chosen), theirs, second[number]),
                )
                for number, pair in enumerate(chosen)
            ),
            num_pairs=overlap.num_pairs,
        )


def _heading(overlap: Overlap) -> str:
    if overlap.is_across:
        return f"In {overlap.first} and in {overlap.second}"
    return f"Twice in {overlap.first}"


def _chosen(pairs: Sequence[DuplicatePair], most: int) -> list[DuplicatePair]:
    """Those with different labels first, then evenly from the most to the least alike.

    Of pictures that are all alike only the first pair is shown, or they would fill the page.
    """
    different = [pair for pair in pairs if not pair.same_class][:most]
    same = _one_of_each_group([pair for pair in pairs if pair.same_class])
    room = min(most - len(different), len(same))
    if room <= 0:
        return different
    return different + [same[round(n)] for n in np.linspace(0, len(same) - 1, room)]


def _one_of_each_group(pairs: Sequence[DuplicatePair]) -> list[DuplicatePair]:
    group_of: dict[str, set[str]] = {}
    chosen = []
    for pair in pairs:
        first = group_of.get(pair.first, {pair.first})
        second = group_of.get(pair.second, {pair.second})
        if pair.first not in group_of and pair.second not in group_of:
            chosen.append(pair)
        joined = first | second
        group_of |= dict.fromkeys(joined, joined)
    return chosen


def _pair_tile(made: Sprite | None, position: int, images: Images, index: int) -> Tile:
    label = images.class_names[images.labels[index]]
    return _tile(made, position, f"{label}, {images.ids[index]}", label)


def _index_of(images: Images, name: str) -> int:
    return int(np.flatnonzero(images.ids == name)[0])
