"""What a study asks: variants of recipes, seeds, and the published results to compare with.

A study is a TOML file with a table for each variant, or a recipe with a grid of values.
"""

import importlib.resources
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe, shipped_recipes
from tenfold.recipe.loading import build, parse_toml, read_text
from tenfold.studies.trials import Trial, combine, describe_grid, folder_name
from tenfold.validation import nearest

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class Published:
    """A result that somebody else reported for a variant."""

    accuracy: float
    """Share of the test pictures that were right, from 0 to 1."""
    source: str
    """Who reported it, in a few words."""
    epoch: int = 0
    """Epochs after which it was reached: a milestone of the recipe; 0 is the end."""
    settings: Literal["source", "guessed"] = "guessed"
    """Whether the recipe has the `source`'s in everything; only then can it be said that a result
    was not reproduced."""
    training_mode: bool = False
    """Whether it was measured with the network in training mode, as `evaluation.training_mode`."""


@dataclass(frozen=True)
class Variant:
    """One of the things that a study compares."""

    label: str
    """What tables and charts call it."""
    recipe: str
    """A shipped recipe, or the path of one, seen from the study's file."""
    overrides: tuple[str, ...] = ()
    """Changes to the recipe, as `key=value`."""
    seeds: int = 0
    """Runs of this variant; 0 is as many as the study has."""
    published: tuple[Published, ...] = ()


@dataclass(frozen=True)
class Study:
    """Variants that are each trained with several seeds, and the question that they answer."""

    title: str
    """A heading."""
    question: str
    """What the study is to find out, in a sentence."""
    variants: tuple[Variant, ...]
    name: str = ""
    """Name of the folder that its runs lie in; that of the file unless given."""
    seeds: int = 1
    """Runs of each variant, with the seeds 0, 1 and so on."""
    baseline: str = ""
    """The label of the variant that the others are compared with; none if empty."""
    overrides: tuple[str, ...] = ()
    """Changes to the recipes of all variants, ahead of their own."""
    limits: tuple[str, ...] = ()
    """What the study does not show, a sentence each."""

    def trials(self) -> list[Trial]:
        """Every variant with each of its seeds."""
        return [
            Trial(v.label, v.recipe, (*self.overrides, *v.overrides), seed)
            for v in self.variants
            for seed in range(v.seeds or self.seeds)
        ]


_TELLING_KEYS = {f.name for f in fields(Study)} - {f.name for f in fields(Recipe)}


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
    variants = tuple(
        Variant(label or name, recipe, overrides) for label, overrides in combine(grid)
    )
    keys = " and ".join(item.partition("=")[0].strip() for item in grid)
    study = Study(
        title=f"{name} by {describe_grid(grid)}" if grid else name,
        question=f"How does the accuracy of {name} depend on {keys}?"
        if grid
        else f"How accurate is {name}, and how much does the seed change it?",
        variants=variants,
        name=name,
        baseline=variants[0].label if len(variants) > 1 else "",
    )
    _require_sound(study, source="--grid")
    return study


def adjust(study: Study, *, seeds: int | None = None, overrides: Sequence[str] = ()) -> Study:
    """The study with another number of seeds, and with changes to the recipes of all variants.

    A published result is dropped where its variant's recipe is no longer the same, since the two
    could not be compared. Raises TenfoldError where a recipe can't be loaded.
    """
    if seeds is not None:
        variants = tuple(replace(v, seeds=0) for v in study.variants)
        study = replace(study, seeds=seeds, variants=variants)
    if not overrides:
        return study
    if _sets_seed(overrides):
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
    return replace(study, variants=variants)


def _changed(variant: Variant, shared: Sequence[str], overrides: Sequence[str]) -> Variant:
    own = (*variant.overrides, *overrides)
    before = load_recipe(variant.recipe, [*shared, *variant.overrides])
    is_same = load_recipe(variant.recipe, [*shared, *own]) == before
    return replace(variant, overrides=own, published=variant.published if is_same else ())


def _sets_seed(overrides: Sequence[str]) -> bool:
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
    study: Study = build(Study, {"name": Path(source).stem, **values}, source=source)
    variants = tuple(replace(v, recipe=_find_recipe(v.recipe, folder)) for v in study.variants)
    study = replace(study, variants=variants)
    _require_sound(study, source=source)
    return study


def _find_recipe(name_or_path: str, folder: Path | None) -> str:
    if folder is None or name_or_path in shipped_recipes():
        return name_or_path
    return str(folder / name_or_path) if Path(name_or_path).suffix else name_or_path


def _require_sound(study: Study, *, source: str) -> None:
    """Raise TenfoldError for the first thing about `study` that makes no sense."""
    for complaint in _complaints(study):
        raise TenfoldError(f"{source}: {complaint}")


def _complaints(study: Study) -> Iterator[str]:
    labels = [variant.label for variant in study.variants]
    if not labels:
        yield "variants must have at least one table."
    if study.seeds < 1:
        yield f"seeds must be 1 or more, not {study.seeds}."
    if study.baseline and study.baseline not in labels:
        yield (
            f"baseline must be the label of a variant{nearest(study.baseline, labels)}, not "
            f"{study.baseline!r}."
        )
    if _sets_seed([*study.overrides, *(o for v in study.variants for o in v.overrides)]):
        yield "overrides can't choose the seed; say how many there are with seeds."
    by_folder: dict[str, str] = {}
    for label in labels:
        other = by_folder.setdefault(folder_name(label).casefold(), label)
        if labels.count(label) > 1:
            yield f"the label {label!r} is there {labels.count(label)} times; once will do."
        elif other != label:
            yield f"the labels {other!r} and {label!r} are too alike for folders; change one."
    for place, variant in enumerate(study.variants):
        yield from (f"variants[{place}].{text}" for text in _variant_complaints(variant))


def _variant_complaints(variant: Variant) -> Iterator[str]:
    if not variant.label.strip() or not variant.label.isprintable():
        yield f"label must be printable text, not {variant.label!r}."
    if variant.seeds < 0:
        yield f"seeds must be 1 or more, not {variant.seeds}."
    for published in variant.published:
        if not 0 < published.accuracy <= 1:
            yield f"published.accuracy must be a share from 0 to 1, not {published.accuracy!r}."
        if not published.source.strip():
            yield "published.source must say who reported it."
    for epoch, count in Counter(p.epoch for p in variant.published).items():
        if count > 1:
            yield f"published has the epoch {epoch} {count} times; once will do."
