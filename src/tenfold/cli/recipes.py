"""`tenfold recipes` and `models`: what is shipped, and what each recipe reached."""

import contextlib
import json
import re
import string
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.console.output import Output
from tenfold.errors import TenfoldError
from tenfold.formatting import count, duration, power

if TYPE_CHECKING:
    from tenfold.results.measured import MeasuredFile

GROUPS = {
    "start here": r"ann|cnn|cnn-quick",
    "fast": r"fast-.*",
    "edge": r"student",
    "published": r"(?!transfer-|gpu-).*",
    "transfer": r"transfer-.*",
    "GPU": r"gpu-.*",
}
"""Patterns of the names; a recipe is in the first group that it matches."""

WHOSE_TIME = {"training": "of training", "run": "from reading the data to the result"}

NOTE = """
± is half of the 95 % interval: over seeds, or for one seed over the test images. A dash is between
the ends of a range of seeds, beside their mean or median. Times are of training; of the fast and
transfer recipes, of the whole run. On:"""


def recipes(
    output: Output,
    name: Annotated[str | None, "A recipe to show."] = None,
    *,
    schema: Annotated[bool, "Print the JSON Schema by which editors complete recipes."] = False,
) -> None:
    """List the shipped recipes with what was measured of each, or show one."""
    if schema:
        from tenfold.recipe.json_schema import json_schema

        typer.echo(json.dumps(json_schema(), indent=1))
        return

    from tenfold.recipe.load import parse_toml, shipped_recipes
    from tenfold.results.measured import read_measured
    from tenfold.validation import nearest

    shipped, measured = shipped_recipes(), read_measured()
    if name is not None and name not in shipped:
        hint = nearest(name, shipped)
        raise TenfoldError(f"There is no recipe {name!r}{hint}; `tenfold recipes` lists them.")
    for each in shipped if name is None else [name]:
        output.record(
            "recipe",
            **{"name": each, **parse_toml(shipped[each], each)},
            group=_group_of(each),
            num_parameters=measured.num_parameters.get(each),
            measured=[one.model_dump(mode="json") for one in measured.recipes.get(each, ())],
            text=shipped[each],
        )
    if output.style == "json":
        return
    if name is None:
        _list(output, shipped, measured)
    else:
        # As comments, so that all of it is a recipe to start from.
        typer.echo(shipped[name].removeprefix("#:schema ./recipe.schema.json\n"))
        for label, fact in _facts(name, measured):
            typer.echo(f"#   {label:<14} {fact}")


def _group_of(name: str) -> str:
    return next(group for group, pattern in GROUPS.items() if re.fullmatch(pattern, name))


def _parameters(measured: "MeasuredFile", name: str) -> str:
    number = measured.num_parameters.get(name)
    return "–" if number is None else count(number)


def _list(output: Output, names: Iterable[str], measured: "MeasuredFile") -> None:
    rows: list[list[str]] = []
    marks: dict[str, str] = {}
    for group in GROUPS:
        rows.append([group])
        for name in (name for name in names if _group_of(name) == group):
            row, one = [name, _parameters(measured, name)], measured.first(name)
            if one is None:
                rows.append([*row, "–", "–", ""])
                continue
            changed = f",\n     with `{one.command}`" if "--set" in one.command else ""
            how = one.machine.in_words + changed
            mark = marks.setdefault(how, string.ascii_uppercase[len(marks)])
            rows.append([*row, one.accuracy.in_short(), duration(one.seconds), mark])
    columns = ["recipe", "parameters", "test accuracy (seeds)", "time", "on"]
    output.table("Recipes for CIFAR-10", columns, rows)
    output.say(NOTE)
    for how, mark in marks.items():
        output.say(f"  {mark}  {how}")
    output.say("\n`tenfold recipes NAME` shows a recipe, and `tenfold train NAME` trains it.")


def _facts(name: str, measured: "MeasuredFile") -> Iterator[tuple[str, str]]:
    yield "parameters", _parameters(measured, name)
    for one in measured.recipes.get(name, ()):
        accuracy = one.accuracy
        kinds = {
            "seeds": f"95 % interval over {accuracy.n} seeds",
            "images": "one seed, 95 % interval over the test images",
            "range": f"{'mean' if accuracy.mean else 'median'} and range of {accuracy.n} seeds",
        }
        machine = (
            one.machine.in_words,
            one.precision and f"in {one.precision}",
            one.torch and f"PyTorch {one.torch}",
        )
        yield "measured by", one.command
        yield "test accuracy", f"{accuracy.with_interval()}, {kinds[accuracy.interval]}"
        yield "time", f"{duration(one.seconds)} {WHOSE_TIME[one.seconds_of]}"
        if one.core_seconds is not None:
            yield "core-seconds", f"{one.core_seconds:,.0f}"
        if one.flop is not None:
            yield "counted FLOP", f"{power(one.flop)} of training"
        if (cost := one.matmul_equivalents) is not None:
            yield "equivalents", f"{power(cost)} float32 matmul-equivalents of the whole run"
        yield "machine", ", ".join(filter(None, machine))
        if one.commit or one.date:
            yield "commit", " of ".join(filter(None, (one.commit, one.date)))


def models(output: Output) -> None:
    """List the networks, with their parameters for ten classes of 32x32 images."""
    from tenfold.models import count_parameters
    from tenfold.registry import SHIPPED, find_part

    rows = []
    for name in sorted(SHIPPED["network"]):
        options, number = find_part("network", name).options, None
        with contextlib.suppress(TenfoldError):  # What it needs may not be installed.
            number = count_parameters(options()(num_classes=10, image_size=(32, 32)))
        names = ", ".join(key for key in options.model_fields if key != "name")
        purpose = (options.__doc__ or "").partition("\n")[0]
        output.record("model", name=name, num_parameters=number, options=names)
        rows.append([name, "–" if number is None else count(number), purpose, names])
    output.table("Models", ["model", "parameters", "what it is", "options"], rows)
