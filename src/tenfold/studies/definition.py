"""What a study asks: variants of recipes, seeds, and the published results to compare with.

A study is a TOML file with a table for each variant, or a recipe with a grid of values.
"""

import contextlib
import hashlib
import importlib.resources
import itertools
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, model_validator

from tenfold.errors import TenfoldError
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict, shipped_recipes
from tenfold.recipe.load import checked, parse_toml, read_text
from tenfold.registry import Options
from tenfold.results.studies import PlannedTrial, Settings, read_plan
from tenfold.validation import expected, nearest

logger = logging.getLogger("tenfold")

LONGEST_NAME = 87
"""Characters of a folder's name ahead of its seed; file systems allow 255 bytes."""


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
    if safe != text or len(safe) > LONGEST_NAME:
        digest = hashlib.sha256(label.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = f"{safe[: LONGEST_NAME - 9]}-{digest}"
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
    settings: Settings = "assumed"
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
    labels: dict[str, str] = {}
    for variant in variants:
        other = labels.setdefault(folder_name(variant.label).casefold(), variant.label)
        if other is not variant.label:
            same = f"{variant.label!r} has the same folder as {other!r}"
            raise expected(f"tables with different labels ({same})")
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
    is_shipped, is_file = name_or_path in shipped, path.is_file()
    values: dict[str, Any] = {}
    if is_shipped:
        values = parse_toml(shipped[name_or_path], f"{name_or_path}.toml")
    elif is_file and path.suffix == ".toml":
        values = parse_toml(read_text(path), str(path))
    is_study = bool((Study.model_fields.keys() - Recipe.model_fields.keys()) & values.keys())
    if is_study and not grid:
        source = f"{name_or_path}.toml" if is_shipped else str(path)
        study = checked(Study, {"name": path.stem, **values}, source=source)

        def placed(recipe: str) -> str:
            is_name = is_shipped or recipe in recipes or not Path(recipe).suffix
            return recipe if is_name else str(path.parent / recipe)

        return study.but(variants=tuple(v.but(recipe=placed(v.recipe)) for v in study.variants))
    is_recipe = is_file and not is_study and path.suffix in (".toml", ".json")
    if name_or_path in recipes or is_recipe:
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
    title, question = name, f"How accurate is {name}, and how much does the seed change it?"
    if grid:
        words = " and ".join(_words_for(keys))
        title, question = (
            f"{name} by {words}",
            f"How does the accuracy of {name} depend on its {words}?",
        )
    baseline = variants[0]["label"] if len(variants) > 1 else ""
    values = {"title": title, "question": question, "variants": variants, "name": name}
    return checked(Study, {**values, "baseline": baseline}, source="--grid")


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
    if repeated := [key for key, count in Counter(keys).items() if count > 1]:
        raise TenfoldError(f"--grid has {repeated[0]} twice; give all its values in one item.")
    words, found = _words_for(keys), {}
    for overrides in itertools.product(*choices):
        values = [override.partition("=")[2].strip("\"'") for override in overrides]
        values = [{"true": "on", "false": "off"}.get(value, value) for value in values]
        found[overrides] = ", ".join(map(" ".join, zip(words, values, strict=True)))
    return found


def _words_for(keys: Sequence[str]) -> list[str]:
    """A word or two for each key: its last part, unless another key has the same."""

    def shorten(key: str) -> str:
        section, _, last = key.rpartition(".")
        return (section if last == "name" and section else last).replace("_", " ")

    short = Counter(map(shorten, keys))
    return [shorten(key) if short[shorten(key)] == 1 else re.sub(r"[._]", " ", key) for key in keys]


STRING = r"""(?:"[^"]*"|'[^']*')"""
LIST = rf"\[(?:[^][\"']|{STRING})*\]"
NESTED = rf"\[(?:[^][\"']|{STRING}|{LIST})*\]"
VALUE = rf" *(?:{STRING}|{NESTED}|\{{[^{{}}]*\}}|[^][{{}}\"', ][^][{{}},]*)"
"""A value of a grid: commas are only in brackets and quotes."""


def _parse_item(item: str) -> list[str]:
    """The overrides that a grid item such as `key=a,b` stands for."""
    key, _, text = (part.strip() for part in item.partition("="))
    values = [value.strip() for value in re.findall(VALUE, text)]
    has_form = re.fullmatch(f"{VALUE} *(,{VALUE} *)*", text) is not None
    if not has_form or not all(key.split(".")):
        raise TenfoldError(
            f"--grid {item!r} must have the form key=value,value, such as optimizer.lr=0.1,0.2; "
            "put values that hold commas into brackets or quotes."
        )
    if key == "seed":
        raise TenfoldError(f"--grid {item!r} sets the seed; say how many with --seeds instead.")
    if repeated := [value for value, count in Counter(values).items() if count > 1]:
        raise TenfoldError(f"--grid {item!r} has {repeated[0]} twice; once will do.")
    return [f"{key}={value}" for value in values]


def load_trials(study: Study) -> list[Trial]:
    """Every variant with each of its seeds, and their recipes.

    Raises TenfoldError where a value doesn't fit, where two trials are the same, which would be one
    result counted twice, and where a published result is of an epoch that no run comes to.
    """
    found: dict[Recipe, Trial] = {}
    for variant in study.variants:
        overrides = (*study.overrides, *variant.overrides)
        for seed in range(variant.seeds or study.seeds):
            try:
                recipe = load_recipe(variant.recipe, [*overrides, f"seed={seed}"])
            except TenfoldError as error:
                raise TenfoldError(f"{variant.label}: {error}") from error
            trial = trial_of(variant.label, overrides, seed, recipe)
            if (same := found.setdefault(recipe, trial)) is not trial:
                raise TenfoldError(
                    f"The trials {same.trial} and {trial.trial} are the same; leave out one."
                )
        _require_evaluated(variant, recipe)
    return [*found.values()]


def _require_evaluated(variant: Variant, recipe: Recipe) -> None:
    """Raise TenfoldError where a published result is of an epoch or mode that isn't evaluated."""
    epochs = (0, recipe.training.epochs, *recipe.training.milestones)
    for published in variant.published:
        missing = ""
        if published.epoch not in epochs:
            missing = f"epoch {published.epoch}; add it to training.milestones"
        elif published.training_mode and not recipe.evaluation.training_mode:
            missing = "training mode; set evaluation.training_mode = true"
        if missing:
            raise TenfoldError(
                f"{variant.label}: a published result is of what this recipe does not measure, "
                f"{missing}."
            )


def command_of(folder: Path) -> str | None:
    """The command that repeats the study in `folder`, where that is a shipped one unchanged."""
    plan = read_plan(folder)
    if plan.name not in shipped_studies():
        return None
    most = 1 + max((trial.seed for trial in plan.trials), default=0)
    shipped = choose_study(plan.name)
    with contextlib.suppress(TenfoldError):  # Of a version whose recipes were others.
        planned = {t.trial: without_words(recipe_from_dict(t.recipe)) for t in plan.trials}
        for flags, study in (("", shipped), (f" --seeds {most}", adjust(shipped, seeds=most))):
            if planned == {t.trial: without_words(t.loaded) for t in load_trials(study)}:
                return f"tenfold study {plan.name}{flags}"
    return None
