"""`tenfold bench`: how fast this machine and the networks on it are, and what accuracy costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.options import Machine, RunsOption
from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import duration, percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tenfold.speed.accuracy import Reached


def bench(
    output: Output,
    recipes: Annotated[
        list[str] | None,
        typer.Argument(help="Recipes whose networks to time; all networks if none is given."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="PERCENT",
            help="Train to this accuracy: 75, 85, 91 or 94; on a GPU 94 to 96.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of --to.")] = 5,
    runs: RunsOption = Path("runs"),
    *,
    machine: Machine,
) -> None:
    """Measure this machine, the networks on it, or with --to the time to an accuracy."""
    from tenfold.recipe import load_recipe

    for recipe in recipes or ():
        load_recipe(recipe)

    import torch

    from tenfold.training.process import prepare_process

    prepare_process(machine.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if to is None:
        _show_networks(output, device, recipes)
    else:
        _show_accuracy(output, device, to, num_seeds=seeds, runs=runs)


NAMES = {
    "product": "matrix product, float32",
    "convolution": "convolution, float32",
    "convolution_bf16": "convolution, bf16",
}


def _show_networks(output: Output, device: "torch.device", recipes: list[str] | None) -> None:
    from tenfold.recipe import load_recipe
    from tenfold.speed.networks import distinct_networks, measure_network
    from tenfold.speed.rates import measure_rates
    from tenfold.training.devices import available_precision

    has_bf16 = available_precision("auto", cpu=device.type == "cpu") == "bf16"
    rates = measure_rates(device, has_bf16=has_bf16)
    output.record("rates", device=str(device), **rates._asdict())
    measured = [[NAMES[k], f"{rate / 1e9:.0f}"] for k, rate in rates._asdict().items() if rate]
    output.table(f"Rates of this machine ({device})", ["work", "GFLOP/s"], measured)
    chosen, rows = recipes or distinct_networks(), []
    with output.progress() as progress:
        for number, name in enumerate(chosen, start=1):
            found = measure_network(load_recipe(name), device=device, rates=rates)
            progress("timing", number, len(chosen))
            output.record("network", **found._asdict())
            per_second = [f"{found.forward_per_second:,.0f}", f"{found.training_per_second:,.0f}"]
            work = [f"{found.operations / 1e6:,.1f}", percent(found.training_share, 0)]
            rows.append([found.recipe, found.precision, *per_second, *work])
    columns = ["recipe", "precision", "forward/s", "training/s", "MFLOP an image"]
    output.table("Networks on images of 32x32", [*columns, "share of the rate"], rows)


def _show_accuracy(
    output: Output, device: "torch.device", target: str, *, num_seeds: int, runs: Path
) -> None:
    from tenfold.speed.accuracy import reach, recipe_for
    from tenfold.training.process import seconds_since_start

    recipe, starting, found = recipe_for(target, device), seconds_since_start(), []
    with output.training() as reporter:
        for one in reach(recipe, num_seeds=num_seeds, runs=runs, device=device, reporter=reporter):
            values = one._asdict()
            cost, folder = values.pop("cost"), values.pop("folder")
            output.record("reached", **values, **cost._asdict(), run=str(folder))
            found.append(one)
    output.table(
        f"{recipe.name} on {device}, {counted(num_seeds, 'seed')}",
        ["seed", "test accuracy", "time", "GFLOP/s", "cost in FLOP"],
        [
            [str(one.seed), percent(one.accuracy, 2), duration(one.cost.seconds),
             f"{one.cost.product_rate / 1e9:.0f}", f"{one.cost.operations:.2e}"]
            for one in found
        ],
    )  # fmt: skip
    summary = _summary(found)
    target_share = float(target) / 100
    output.record(
        "summary", recipe=recipe.name, target=target_share, num_seeds=num_seeds,
        starting_seconds=starting, **summary,
    )  # fmt: skip
    apart = f"starting Python and importing, {duration(starting)}, not counted"
    if longest := max(one.compile_seconds for one in found):
        apart = f"compiling, at most {duration(longest)}, and {apart}"
    output.say(
        f"Mean {percent(summary['mean'], 2)} of test pictures right, in "
        f"{duration(summary['seconds'])} and {summary['operations']:.2e} FLOP of this machine's "
        f"matrix product; {apart}.",
        bold=True,
    )


def _summary(found: "Sequence[Reached]") -> dict[str, float]:
    """Mean accuracy with its interval, and mean cost."""
    from tenfold.studies.statistics import summarise

    accuracy = summarise([one.accuracy for one in found], num_pictures=10_000)
    return {
        "mean": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        "seconds": sum(one.cost.seconds for one in found) / len(found),
        "operations": sum(one.cost.operations for one in found) / len(found),
    }
