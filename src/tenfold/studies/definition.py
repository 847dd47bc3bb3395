"""What a study asks: variants of recipes, seeds, and the published results to compare with.

A study is a TOML file with a table for each variant, or a recipe with a grid of values.
"""

import contextlib
import hashlib
import importlib.resources
import itertools
import logging
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe, shipped_recipes
from tenfold.recipe.load import checked, parse_toml, read_text
from tenfold.registry import Options
from tenfold.results.studies import PlannedTrial
from tenfold.validation import expected, nearest

logger = logging.getLogger("tenfold")

LONGEST_NAME = 100
"""Characters of a trial's name; file systems allow 255 bytes, and paths have other parts too."""


class Trial(PlannedTrial):
    """A run of a study that can be trained: `loaded` is its recipe."""

    loaded: Recipe = Field(exclude=True)


def trial_of(variant: str, overrides: Sequence[str], seed: int, recipe: Recipe) -> Trial:
    """The run of a variant with a seed; its name, such as `Leaky-ReLU,seed=2`, is its folder's."""
    return Trial(
        trial=f"{folder_name(variant)},seed={seed}",
        variant=variant,
        overrides=tuple(overrides),
        seed=seed,
        recipe=recipe.to_dict(),
        loaded=recipe,
    )


def without_words(recipe: Recipe) -> Recipe:
    """What of a recipe changes the result."""
    return recipe.but(name="", description="")


def folder_name(label: str) -> str:
    """`label` as a folder's name on every platform: `Leaky ReLU` as `Leaky-ReLU`.

    Where more than spaces had to be replaced or cut off, a digest keeps it unique.
    """
    text = re.sub(r",? ", "-", label)
    safe = re.sub(r"[^A-Za-z0-9.,=_+\[\]-]+", "-", text)
    room = LONGEST_NAME - len(",seed=10000")
    if safe != text or len(safe) > room:
        digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = f"{safe[: room - 9]}-{digest}"
    return safe


def _require(holds: Callable[[Any], bool], words: str) -> AfterValidator:
    """Refuses the values for which `holds` does not hold; words: what they must be."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise expected(words)
        return value

    return AfterValidator(check)


def sets_seed(overrides: Sequence[str]) -> bool:
    """Whether one of `overrides` (KEY=VALUE) is the seed."""
    return any(override.partition("=")[0].strip() == "seed" for override in overrides)


Overrides = Annotated[
    tuple[str, ...],
    _require(
        lambda overrides: not sets_seed(overrides),
        "without the seed (say how many there are with seeds)",
    ),
]


class Published(Options):
    """A result that somebody else reported for a variant."""

    accuracy: Annotated[float, Field(gt=0, le=1)]
    """Share of the test images that were right, from 0 to 1."""
    source: Annotated[str, _require(str.strip, "text that says who reported it")]
    """Who reported it, in a few words."""
    epoch: int = 0
    """Epochs after which it was reached: a milestone of the recipe; 0 is the end."""
    settings: Literal["source", "guessed"] = "guessed"
    """Whether the recipe has the `source`'s in everything; only then can it be said that a result
    was not reproduced."""
    training_mode: bool = False
    """Whether it was measured with the network in training mode, as `evaluation.training_mode`."""


class Variant(Options):
    """One of the things that a study compares."""

    label: Annotated[
        str, _require(lambda text: text.strip() and text.isprintable(), "printable text")
    ]
    """What tables and charts call it."""
    recipe: str
    """A shipped recipe, or the path of one, seen from the study's file."""
    overrides: Overrides = ()
    """Changes to the recipe, as `key=value`."""
    seeds: Annotated[int, Field(ge=0)] = 0
    """Runs of this variant; 0 is as many as the study has."""
    published: Annotated[
        tuple[Published, ...],
        _require(
            lambda published: len({each.epoch for each in published}) == len(published),
            "results of different epochs",
        ),
    ] = ()


def _told_apart(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    if not variants:
        raise expected("at least one table")
    by_folder: dict[str, str] = {}
    for label in (variant.label for variant in variants):
        folder = folder_name(label).casefold()
        if (other := by_folder.get(folder)) is not None:
            raise expected(
                f"tables with different labels ({label!r} has the same folder as {other!r})"
            )
        by_folder[folder] = label
    return variants


class Study(Options):
    """Variants that are each trained with several seeds, and the question that they answer."""

    title: str
    """A heading."""
    question: str
    """What the study is to find out, in a sentence."""
    variants: Annotated[tuple[Variant, ...], AfterValidator(_told_apart)]
    name: str = ""
    """Name of the folder that its runs lie in; that of the file unless given."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Runs of each variant, with the seeds 0, 1 and so on."""
    baseline: str = ""
    """The label of the variant that the others are compared with; none if empty."""
    overrides: Overrides = ()
    """Changes to the recipes of all variants, ahead of their own."""
    limits: tuple[str, ...] = ()
    """What the study does not show, a sentence each."""

    @model_validator(mode="after")
    def _has_its_baseline(self) -> Self:
        labels = [variant.label for variant in self.variants]
        if self.baseline and self.baseline not in labels:
            words = f"the label of a variant{nearest(self.baseline, labels)}"
            raise expected(words, key="baseline", found=self.baseline)
        return self


_TELLING_KEYS = set(Study.model_fields) - set(Recipe.model_fields)


def shipped_studies() -> dict[str, str]:
    """The text of every study that comes with tenfold, by name."""
    folder = importlib.resources.files("tenfold.studies") / "shipped"
    files = [entry for entry in folder.iterdir() if entry.name.endswith(".toml")]
    texts = {e.name.removesuffix(".toml"): e.read_text(encoding="utf-8") for e in files}
    return dict(sorted(texts.items()))


def choose_study(name_or_path: str, grid: Sequence[str] = ()) -> Study:
    """A shipped study by name, one from a `.toml` file, or a recipe with a grid of values.

    A name that both a study and a recipe have is the study's, unless there is a grid. Raises
    TenfoldError for anything that doesn't fit.
    """
    shipped, recipes, path = shipped_studies(), shipped_recipes(), Path(name_or_path)
    is_file = path.suffix in (".toml", ".json") and path.is_file()
    values: Mapping[str, Any] = {}
    source = f"{name_or_path}.toml" if name_or_path in shipped else str(path)
    if name_or_path in shipped:
        values = parse_toml(shipped[name_or_path], source)
    elif is_file and path.suffix == ".toml":
        values = parse_toml(read_text(path), source)
    is_study = bool(_TELLING_KEYS & set(values))
    if is_study and not grid:
        study = checked(Study, {"name": path.stem, **values}, source=source)
        if name_or_path in shipped:
            return study
        places = [
            v.recipe if v.recipe in recipes or not Path(v.recipe).suffix else path.parent / v.recipe
            for v in study.variants
        ]
        beside = zip(study.variants, places, strict=True)
        return study.but(variants=tuple(v.but(recipe=str(place)) for v, place in beside))
    if name_or_path in recipes or (is_file and not is_study):
        return grid_study(name_or_path, grid)
    if is_study:
        raise TenfoldError(
            f"{name_or_path} is a study with variants of its own; leave out --grid, or give "
            "it a recipe."
        )
    raise TenfoldError(
        f"There is no study or recipe {name_or_path!r}"
        f"{nearest(name_or_path, [*shipped, *recipes])}; give a path that ends in .toml, or "
        "one that `tenfold studies` or `tenfold recipes` lists."
    )


def grid_study(recipe: str, grid: Sequence[str] = ()) -> Study:
    """A recipe with every combination of the values in `grid`, such as `optimizer.lr=0.1,0.2`.

    The first combination is the baseline, if there are more. Raises TenfoldError for items in
    another form.
    """
    name, keys = Path(recipe).stem, [item.partition("=")[0].strip() for item in grid]
    variants = [
        {"label": label or name, "recipe": recipe, "overrides": overrides}
        for overrides, label in combine(grid).items()
    ]
    values = {
        "title": f"{name} by {' and '.join(_words_for(keys))}" if grid else name,
        "question": f"How does the accuracy of {name} depend on {' and '.join(keys)}?"
        if grid
        else f"How accurate is {name}, and how much does the seed change it?",
        "variants": variants,
        "name": name,
        "baseline": variants[0]["label"] if len(variants) > 1 else "",
    }
    return checked(Study, values, source="--grid")


def adjust(study: Study, *, seeds: int | None = None, overrides: Sequence[str] = ()) -> Study:
    """The study with another number of seeds, and with changes to the recipes of all variants.

    A published result is dropped where its variant's recipe is no longer the same, since the two
    could not be compared. Raises TenfoldError where a recipe can't be loaded.
    """
    if seeds is not None:
        variants = tuple(v.but(seeds=0) for v in study.variants)
        study = study.but(seeds=seeds, variants=variants)
    if not overrides:
        return study
    if sets_seed(overrides):
        raise TenfoldError("--set can't choose the seed of a study; say how many with --seeds.")
    changes, dropped = [], []
    for variant in study.variants:
        changed = variant.but(overrides=(*variant.overrides, *overrides))
        if variant.published:
            before, now = (
                load_recipe(each.recipe, [*study.overrides, *each.overrides])
                for each in (variant, changed)
            )
            if now != before:
                changed = changed.but(published=())
                dropped.append(variant.label)
        changes.append(changed)
    if dropped:
        logger.warning(
            "With other recipes than the published ones, the published results of %s are left out.",
            ", ".join(dropped),
        )
    return study.but(variants=tuple(changes))


def combine(grid: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Every combination of the values in `grid` as overrides, and its label, empty for no grid.

    grid: items such as `optimizer.lr=0.1,0.2`. Commas in brackets or quotes don't separate values:
    `model.widths=[32,64],[64,128]` has two. Raises TenfoldError for items in another form.
    """
    choices = [_parse_item(item) for item in grid]
    keys = [values[0].partition("=")[0] for values in choices]
    for key, count in Counter(keys).items():
        if count > 1:
            raise TenfoldError(f"--grid has {key} {count} times; give all its values in one item.")
    words, found = _words_for(keys), {}
    for overrides in itertools.product(*choices):
        values = [_readable(override.partition("=")[2]) for override in overrides]
        found[overrides] = ", ".join(map(" ".join, zip(words, values, strict=True)))
    return found


def _words_for(keys: Sequence[str]) -> list[str]:
    """A word or two for each key: its last part, unless another key has the same."""

    def shorten(key: str) -> str:
        section, _, last = key.rpartition(".")
        return (section if last == "name" and section else last).replace("_", " ")

    short = Counter(map(shorten, keys))
    return [shorten(key) if short[shorten(key)] == 1 else re.sub(r"[._]", " ", key) for key in keys]


def _readable(value: str) -> str:
    """A value as TOML writes it, for people."""
    if value[:1] in "\"'" and value[-1:] == value[:1]:
        value = value[1:-1]
    return {"true": "on", "false": "off"}.get(value, value)


def _parse_item(item: str) -> list[str]:
    """The overrides that a grid item such as `key=a,b` stands for."""
    key, equals, text = (part.strip() for part in item.partition("="))
    values = _split_values(text)
    if not equals or not all(key.split(".")) or values is None:
        raise TenfoldError(
            f"--grid {item!r} must have the form key=value,value, such as optimizer.lr=0.1,0.2; "
            "put values that hold commas into brackets or quotes."
        )
    if key == "seed":
        raise TenfoldError(f"--grid {item!r} sets the seed; say how many with --seeds instead.")
    for value, count in Counter(values).items():
        if count > 1:
            raise TenfoldError(f"--grid {item!r} has {value} {count} times; once will do.")
    return [f"{key}={value}" for value in values]


def _split_values(text: str) -> list[str] | None:
    """`text` at the commas that are in no TOML value; None where brackets or quotes stay open."""
    values, value = [], ""
    for piece in text.split(","):
        value = f"{value},{piece}" if value else piece.lstrip()
        whole = re.fullmatch(r"[^][{}\"', ][^][{},]*", value) is not None
        with contextlib.suppress(tomllib.TOMLDecodeError):
            whole = whole or bool(tomllib.loads(f"value = {value}"))
        if whole:
            values.append(value.strip())
            value = ""
        elif not value:
            return None
    return None if value else values
