"""`tenfold bench`: how fast this machine and the networks on it are, and what accuracy costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.options import JsonOption, Machine, RunsOption
from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import duration, percent

if TYPE_CHECKING:
    import torch


def bench(
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
    as_json: JsonOption = False,
) -> None:
    """Measure this machine, the networks on it, or with --to the time to an accuracy."""
    from tenfold.recipe import load_recipe

    output = Output(as_json=as_json)
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


def _show_networks(output: Output, device: "torch.device", recipes: list[str] | None) -> None:
    from tenfold.speed.networks import distinct_networks, measure_networks
    from tenfold.speed.rates import measure_rates
    from tenfold.training.devices import available_precision

    has_bf16 = available_precision("auto", cpu=device.type == "cpu") == "bf16"
    rates = measure_rates(device, has_bf16=has_bf16)
    output.record("rates", device=str(device), **rates._asdict())
    names = {
        "product": "matrix product, float32",
        "convolution": "convolution, float32",
        "convolution_bf16": "convolution, bf16",
    }
    measured = [(names[k], rate) for k, rate in rates._asdict().items() if rate is not None]
    output.table(
        f"Rates of this machine ({device})",
        ["work", "GFLOP/s"],
        [[name, f"{rate / 1e9:.0f}"] for name, rate in measured],
    )
    chosen, rows = recipes or distinct_networks(), []
    with output.progress() as progress:
        measurements = measure_networks(chosen, device=device, rates=rates)
        for number, found in enumerate(measurements, start=1):
            progress("timing", number, len(chosen))
            output.record("network", **found._asdict())
            rows.append(
                [
                    found.recipe,
                    found.precision,
                    f"{found.forward_per_second:,.0f}",
                    f"{found.training_per_second:,.0f}",
                    f"{found.operations / 1e6:,.1f}",
                    percent(found.training_share, 0),
                ]
            )
    output.table(
        "Networks on images of 32x32",
        [
            "recipe",
            "precision",
            "forward/s",
            "training/s",
            "MFLOP an image",
            "share of the rate",
        ],
        rows,
    )


def _show_accuracy(
    output: Output, device: "torch.device", target: str, *, num_seeds: int, runs: Path
) -> None:
    from tenfold.speed.accuracy import reach, recipe_for
    from tenfold.studies.statistics import summarise
    from tenfold.training.process import seconds_since_start

    recipe = recipe_for(target, device)
    starting = seconds_since_start()
    found, rows = [], []
    with output.training() as reporter:
        for one in reach(
            recipe,
            num_seeds=num_seeds,
            runs=runs,
            device=device,
            reporter=reporter,
        ):
            found.append(one)
            output.record(
                "reached",
                seed=one.seed,
                accuracy=one.accuracy,
                compile_seconds=one.compile_seconds,
                training_seconds=one.training_seconds,
                **one.cost._asdict(),
                run=str(one.folder),
            )
            rows.append(
                [
                    str(one.seed),
                    percent(one.accuracy, 2),
                    duration(one.cost.seconds),
                    f"{one.cost.product_rate / 1e9:.0f}",
                    f"{one.cost.operations:.2e}",
                ]
            )
    accuracy = summarise([one.accuracy for one in found], num_pictures=10_000)
    seconds = sum(one.cost.seconds for one in found) / len(found)
    operations = sum(one.cost.operations for one in found) / len(found)
    output.table(
        f"{recipe.name} on {device}, {counted(num_seeds, 'seed')}",
        ["seed", "test accuracy", "time", "GFLOP/s", "cost in FLOP"],
        rows,
    )
    output.record(
        "summary",
        recipe=recipe.name,
        target=float(target) / 100,
        num_seeds=num_seeds,
        starting_seconds=starting,
        mean=accuracy.mean,
        low=accuracy.low,
        high=accuracy.high,
        seconds=seconds,
        operations=operations,
    )
    apart = f"starting Python and importing, {duration(starting)}, not counted"
    if any(one.compile_seconds for one in found):
        longest = max(one.compile_seconds for one in found)
        apart = f"compiling, at most {duration(longest)}, and {apart}"
    output.say(
        f"Mean {percent(accuracy.mean, 2)} of test pictures right, in {duration(seconds)} and "
        f"{operations:.2e} FLOP of this machine's matrix product; {apart}.",
        bold=True,
    )
