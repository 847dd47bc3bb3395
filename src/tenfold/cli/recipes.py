"""`tenfold recipes`, `models` and `bench`: what is shipped, what it reached, and how fast it is."""

import contextlib
import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli import options as cli
from tenfold.console.output import Output
from tenfold.errors import TenfoldError, counted
from tenfold.formatting import count, duration, percent, power

if TYPE_CHECKING:
    import torch

    from tenfold.results.measured import MeasuredFile
    from tenfold.training.bench import Rates
    from tenfold.training.reach import Reached


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
        from tenfold.recipe.models import json_schema

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


RATES = {
    "product": "matrix product, float32",
    "convolution": "convolution, float32",
    "product_bf16": "matrix product, bf16",
    "convolution_bf16": "convolution, bf16",
}


def bench(
    output: Output,
    recipes: Annotated[
        list[str] | None, "Recipes whose networks to time; all networks if none is given."
    ] = None,
    *,
    to: Annotated[
        str | None, "Train to this accuracy: 75, 85, 91 or 94; on a GPU 94 to 96.", "PERCENT"
    ] = None,
    seeds: Annotated[int, "Runs of --to.", cli.POSITIVE] = 5,
    overrides: cli.SetOption = None,
    runs: cli.RunsOption = Path("runs"),
    machine: cli.Machine,
) -> None:
    """Measure this machine, the networks on it, or with --to the cost of an accuracy.

    With --to, runs that are finished are kept, so that the same command goes on after a kill.
    """
    from tenfold.recipe import load_recipe

    changes = overrides or []
    for recipe in recipes or ():
        load_recipe(recipe, changes)

    import torch

    from tenfold.training.process import prepare_process

    prepare_process(machine.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if to is None:
        _show_networks(output, device, recipes, changes)
    else:
        _show_accuracy(output, device, to, changes, num_seeds=seeds, runs=runs)


def _show_rates(output: Output, device: "torch.device") -> "Rates":
    """What the machine computes a second, which is said."""
    import torch

    from tenfold.training.bench import measure_rates
    from tenfold.training.devices import available_precision, instruction_set

    has_bf16 = available_precision("auto", cpu=device.type == "cpu") == "bf16"
    rates, instructions = measure_rates(device, has_bf16=has_bf16), instruction_set()
    found = rates._asdict()
    output.record("rates", device=str(device), instructions=instructions, **found)
    rows = [[RATES[key], f"{rate / 1e9:.0f}"] for key, rate in found.items() if rate]
    where = f"{device}, {instructions}, {counted(torch.get_num_threads(), 'thread')}"
    output.table(f"Rates of this machine ({where})", ["work", "GFLOP/s"], rows)
    return rates


def _show_networks(
    output: Output, device: "torch.device", recipes: list[str] | None, overrides: "Sequence[str]"
) -> None:
    from tenfold.recipe import load_recipe
    from tenfold.training.bench import distinct_networks, measure_network

    rates = _show_rates(output, device)
    chosen, rows = recipes or distinct_networks(), []
    with output.progress() as progress:
        for number, name in enumerate(chosen, start=1):
            found = measure_network(load_recipe(name, overrides), device=device, rates=rates)
            progress("timing", number, len(chosen))
            output.record("network", **found._asdict())
            sizes = ", ".join(map(str, found.sizes))
            speeds = [f"{found.forward_per_second:,.0f}", f"{found.training_per_second:,.0f}"]
            flop = "–" if found.flop is None else f"{found.flop / 1e6:,.1f}"
            used = percent(found.utilisation, 0)
            rows.append([found.recipe, sizes, found.precision, *speeds, flop, used])
    columns = ["recipe", "pixels", "precision", "forward/s", "training/s", "MFLOP an image"]
    output.table("Networks at the sizes that they train on", [*columns, "utilisation"], rows)
    output.say(
        "FLOP are counted, of a training step. Utilisation is their share of what the faster of "
        "the machine's rates in that precision has room for."
    )


def _show_accuracy(
    output: Output,
    device: "torch.device",
    target: str,
    overrides: "Sequence[str]",
    *,
    num_seeds: int,
    runs: Path,
) -> None:
    from tenfold.training.process import seconds_since_start
    from tenfold.training.reach import reach, recipe_for

    recipe, starting = recipe_for(target, device, overrides), seconds_since_start()
    found: list[Reached] = []
    rows, rates = [], _show_rates(output, device)
    with output.training() as reporter:
        for one in reach(
            recipe, num_seeds=num_seeds, runs=runs, device=device, rates=rates, reporter=reporter
        ):
            training, cost = one.result.training, one.cost
            facts = {"seed": one.seed, "accuracy": one.accuracy, "precision": one.precision}
            facts |= {"kept": one.is_kept, "run": str(one.folder), **cost.model_dump()}
            kept = ("flop", "compile_seconds", "training_seconds")
            facts |= {name: getattr(training, name) for name in kept}
            output.record("reached", **facts)
            row = [str(one.seed), percent(one.accuracy, 2), duration(cost.seconds)]
            row += [f"{cost.core_seconds:,.0f}", power(training.flop)]
            row += [percent(cost.utilisation, 0), power(cost.matmul_equivalents)]
            rows.append([*row, "yes" if one.is_kept else ""])
            found.append(one)
    columns = ["seed", "test accuracy", "time", "core-seconds", "counted FLOP", "utilisation"]
    columns += ["float32 matmul-equivalents", "trained before"]
    title = f"{recipe.name} on {device} in {found[0].precision}, {counted(num_seeds, 'seed')}"
    output.table(title, columns, rows)
    summary = _summary(found)
    said = (
        f"Mean test accuracy {percent(summary['mean'], 2)} in {duration(summary['seconds'])}, "
        f"{summary['core_seconds']:,.0f} core-seconds, {power(summary['flop'])} counted FLOP of "
        f"training and {power(summary['matmul_equivalents'])} float32 matmul-equivalents; "
        f"compiling and starting Python, {duration(starting)}, are not counted."
    )
    asked = {"recipe": recipe.name, "target": float(target) / 100, "overrides": list(overrides)}
    facts = {"num_seeds": num_seeds, "precision": found[0].precision, "starting_seconds": starting}
    cli.announce(output, "summary", said, bold=True, **asked, **facts, **summary)


def _summary(found: "Sequence[Reached]") -> dict[str, float | None]:
    """Mean accuracy with its interval, and mean costs; None where one is not known."""
    from tenfold.studies.statistics import summarise

    accuracy = summarise([one.accuracy for one in found], num_images=10_000)
    means = {"flop": _mean([one.result.training.flop for one in found])}
    for name in ("seconds", "core_seconds", "matmul_equivalents", "utilisation"):
        means[name] = _mean([getattr(one.cost, name) for one in found])
    return {"mean": accuracy.mean, "low": accuracy.low, "high": accuracy.high, **means}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
