"""What a study asks: variants of recipes, seeds, and the published results to compare with.

A study is a TOML file with a table for each variant, or a recipe with a grid of values.
"""

import importlib.resources
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe, shipped_recipes
from tenfold.recipe.load import checked, parse_toml, read_text
from tenfold.registry import Options
from tenfold.studies.trials import Trial, combine, describe_grid, folder_name
from tenfold.validation import expected, nearest

logger = logging.getLogger("tenfold")


def _not_blank(text: str) -> str:
    if not text.strip():
        raise expected("text that says who reported it")
    return text


def _label(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise expected("printable text")
    return text


def _without_seed(overrides: tuple[str, ...]) -> tuple[str, ...]:
    if sets_seed(overrides):
        raise expected("without the seed (say how many there are with seeds)")
    return overrides


Overrides = Annotated[tuple[str, ...], AfterValidator(_without_seed)]


class Published(Options):
    """A result that somebody else reported for a variant."""

    accuracy: Annotated[float, Field(gt=0, le=1)]
    """Share of the test images that were right, from 0 to 1."""
    source: Annotated[str, AfterValidator(_not_blank)]
    """Who reported it, in a few words."""
    epoch: int = 0
    """Epochs after which it was reached: a milestone of the recipe; 0 is the end."""
    settings: Literal["source", "guessed"] = "guessed"
    """Whether the recipe has the `source`'s in everything; only then can it be said that a result
    was not reproduced."""
    training_mode: bool = False
    """Whether it was measured with the network in training mode, as `evaluation.training_mode`."""


def _once_an_epoch(published: tuple[Published, ...]) -> tuple[Published, ...]:
    for epoch, count in Counter(each.epoch for each in published).items():
        if count > 1:
            raise expected(
                f"results of different epochs (the epoch {epoch} is there {count} times)"
            )
    return published


class Variant(Options):
    """One of the things that a study compares."""

    label: Annotated[str, AfterValidator(_label)]
    """What tables and charts call it."""
    recipe: str
    """A shipped recipe, or the path of one, seen from the study's file."""
    overrides: Overrides = ()
    """Changes to the recipe, as `key=value`."""
    seeds: Annotated[int, Field(ge=0)] = 0
    """Runs of this variant; 0 is as many as the study has."""
    published: Annotated[tuple[Published, ...], AfterValidator(_once_an_epoch)] = ()


def _told_apart(variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
    if not variants:
        raise expected("at least one table")
    by_folder: dict[str, str] = {}
    for label in (variant.label for variant in variants):
        other = by_folder.setdefault(folder_name(label).casefold(), label)
        if sum(variant.label == label for variant in variants) > 1:
            raise expected(f"tables with different labels ({label!r} is there twice)")
        if other != label:
            raise expected(
                f"tables whose labels make different folders than {other!r} and {label!r}"
            )
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

    def trials(self) -> list[Trial]:
        """Every variant with each of its seeds."""
        return [
            Trial(v.label, v.recipe, (*self.overrides, *v.overrides), seed)
            for v in self.variants
            for seed in range(v.seeds or self.seeds)
        ]


_TELLING_KEYS = set(Study.model_fields) - set(Recipe.model_fields)


def shipped_studies() -> dict[str, str]:
    """The text of every study that comes with tenfold, by name."""
    folder = importlib.resources.files("tenfold") / "studies" / "shipped"
    if not folder.is_dir():
        return {}
    return {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".toml")
    }


def choose_study(name_or_path: str, grid: Sequence[str] = ()) -> Study:
    """A shipped study by name, one from a `.toml` file, or a recipe with a grid of values.

    A name that both a study and a recipe have is the study's, unless there is a grid. Raises
    TenfoldError for anything that doesn't fit.
    """
    shipped, path = shipped_studies(), Path(name_or_path)
    values: Mapping[str, Any] = {}
    if name_or_path in shipped:
        values = parse_toml(shipped[name_or_path], f"{name_or_path}.toml")
    elif path.suffix == ".toml" and path.is_file():
        values = parse_toml(read_text(path), str(path))
    if _TELLING_KEYS & set(values):
        if not grid:
            is_shipped = name_or_path in shipped
            source = f"{name_or_path}.toml" if is_shipped else str(path)
            return _build_study(values, source=source, folder=None if is_shipped else path.parent)
        if name_or_path not in shipped_recipes():
            raise TenfoldError(
                f"{name_or_path} is a study with variants of its own; leave out --grid, or give "
                "it a recipe."
            )
    _require_recipe(name_or_path, shipped)
    return grid_study(name_or_path, grid)


def grid_study(recipe: str, grid: Sequence[str] = ()) -> Study:
    """A recipe with every combination of the values in `grid`, such as `optimizer.lr=0.1,0.2`.

    The first combination is the baseline, if there are more. Raises TenfoldError for items in
    another form.
    """
    name = Path(recipe).stem
    variants = [
        {"label": label or name, "recipe": recipe, "overrides": overrides}
        for label, overrides in combine(grid)
    ]
    keys = " and ".join(item.partition("=")[0].strip() for item in grid)
    asked = f"How does the accuracy of {name} depend on {keys}?"
    values = {
        "title": f"{name} by {describe_grid(grid)}" if grid else name,
        "question": asked
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
    variants = tuple(_changed(v, study.overrides, overrides) for v in study.variants)
    dropped = [
        v.label
        for v, now in zip(study.variants, variants, strict=True)
        if v.published != now.published
    ]
    if dropped:
        logger.warning(
            "With other recipes than the published ones, the published results of %s are left out.",
            ", ".join(dropped),
        )
    return study.but(variants=variants)


def _changed(variant: Variant, shared: Sequence[str], overrides: Sequence[str]) -> Variant:
    own = (*variant.overrides, *overrides)
    before = load_recipe(variant.recipe, [*shared, *variant.overrides])
    is_same = load_recipe(variant.recipe, [*shared, *own]) == before
    return variant.but(overrides=own, published=variant.published if is_same else ())


def sets_seed(overrides: Sequence[str]) -> bool:
    """Whether one of `overrides` (KEY=VALUE) is the seed."""
    return any(override.partition("=")[0].strip() == "seed" for override in overrides)


def _require_recipe(name_or_path: str, shipped: Mapping[str, str]) -> None:
    """Raise TenfoldError where there is neither a study nor a recipe of that name."""
    path, recipes = Path(name_or_path), shipped_recipes()
    if name_or_path in recipes or (path.suffix in (".toml", ".json") and path.is_file()):
        return
    raise TenfoldError(
        f"There is no study or recipe {name_or_path!r}"
        f"{nearest(name_or_path, [*shipped, *recipes])}; give a path that ends in .toml, or one "
        "that `tenfold studies` or `tenfold recipes` lists."
    )


def _build_study(values: Mapping[str, Any], *, source: str, folder: Path | None) -> Study:
    """The study that a file holds; paths of recipes are seen from `folder`, if it has one."""
    study = checked(Study, {"name": Path(source).stem, **values}, source=source)
    variants = tuple(v.but(recipe=_find_recipe(v.recipe, folder)) for v in study.variants)
    return study.but(variants=variants)


def _find_recipe(name_or_path: str, folder: Path | None) -> str:
    if folder is None or name_or_path in shipped_recipes():
        return name_or_path
    return str(folder / name_or_path) if Path(name_or_path).suffix else name_or_path
