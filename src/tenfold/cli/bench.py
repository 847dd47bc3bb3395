"""`tenfold bench`: how fast this machine and the networks on it are, and what accuracy costs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tenfold.cli.options import Machine, RunsOption
from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import duration, percent, power

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tenfold.speed.accuracy import Reached
    from tenfold.speed.rates import Rates


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
    """Measure this machine, the networks on it, or with --to the cost of an accuracy.

    With --to, runs that are finished are kept, so that the same command goes on after a kill.
    """
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
    "product_bf16": "matrix product, bf16",
    "convolution_bf16": "convolution, bf16",
}


def _measure_rates(output: Output, device: "torch.device") -> "Rates":
    """What the machine computes a second, which is said."""
    from tenfold.speed.rates import measure_rates
    from tenfold.training.devices import available_precision, instruction_set

    has_bf16 = available_precision("auto", cpu=device.type == "cpu") == "bf16"
    rates, instructions = measure_rates(device, has_bf16=has_bf16), instruction_set()
    output.record("rates", device=str(device), instructions=instructions, **rates._asdict())
    measured = [[NAMES[k], f"{rate / 1e9:.0f}"] for k, rate in rates._asdict().items() if rate]
    where = f"{device}, {instructions}, {counted(_threads(), 'thread')}"
    output.table(f"Rates of this machine ({where})", ["work", "GFLOP/s"], measured)
    return rates


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _show_networks(output: Output, device: "torch.device", recipes: list[str] | None) -> None:
    from tenfold.recipe import load_recipe
    from tenfold.speed.networks import distinct_networks, measure_network

    rates = _measure_rates(output, device)
    chosen, rows = recipes or distinct_networks(), []
    with output.progress() as progress:
        for number, name in enumerate(chosen, start=1):
            found = measure_network(load_recipe(name), device=device, rates=rates)
            progress("timing", number, len(chosen))
            output.record("network", **found._asdict())
            sizes = ", ".join(map(str, found.sizes))
            per_second = [f"{found.forward_per_second:,.0f}", f"{found.training_per_second:,.0f}"]
            work = ["–" if found.flop is None else f"{found.flop / 1e6:,.1f}"]
            work.append(percent(found.utilisation, 0))
            rows.append([found.recipe, sizes, found.precision, *per_second, *work])
    columns = ["recipe", "pixels", "precision", "forward/s", "training/s", "MFLOP an image"]
    output.table("Networks at the sizes that they train on", [*columns, "utilisation"], rows)
    output.say(
        "FLOP are counted, of a training step. Utilisation is their share of what the faster of "
        "the machine's rates in that precision has room for."
    )


def _show_accuracy(
    output: Output, device: "torch.device", target: str, *, num_seeds: int, runs: Path
) -> None:
    from tenfold.speed.accuracy import reach, recipe_for
    from tenfold.training.process import seconds_since_start

    recipe, starting, found = recipe_for(target, device), seconds_since_start(), []
    rates = _measure_rates(output, device)
    with output.training() as reporter:
        for one in reach(
            recipe, num_seeds=num_seeds, runs=runs, device=device, rates=rates, reporter=reporter
        ):
            training = one.result.training
            output.record(
                "reached", seed=one.seed, accuracy=one.accuracy, precision=one.precision,
                kept=one.is_kept, **one.cost.model_dump(), flop=training.flop,
                compile_seconds=training.compile_seconds,
                training_seconds=training.training_seconds, run=str(one.folder),
            )  # fmt: skip
            found.append(one)
    output.table(
        f"{recipe.name} on {device} in {found[0].precision}, {counted(num_seeds, 'seed')}",
        [
            "seed", "test accuracy", "time", "core-seconds", "counted FLOP", "utilisation",
            "GFLOP/s of float32 products", "matmul-equivalents",
        ],
        [
            [str(one.seed), percent(one.accuracy, 2), duration(one.cost.seconds),
             f"{one.cost.core_seconds:,.0f}", power(one.result.training.flop),
             percent(one.cost.utilisation, 0), f"{one.cost.product_rate / 1e9:.0f}",
             power(one.cost.matmul_equivalents)]
            for one in found
        ],
    )  # fmt: skip
    summary = _summary(found)
    output.record(
        "summary", recipe=recipe.name, target=float(target) / 100, num_seeds=num_seeds,
        precision=found[0].precision, starting_seconds=starting, **summary,
    )  # fmt: skip
    kept = sum(one.is_kept for one in found)
    apart = f"starting Python and importing, {duration(starting)}, not counted"
    if longest := max(one.result.training.compile_seconds for one in found):
        apart = f"compiling, at most {duration(longest)}, and {apart}"
    output.say(
        f"Mean {percent(summary['mean'], 2)} of test images right, in "
        f"{duration(summary['seconds'])}, {summary['core_seconds']:,.0f} core-seconds, "
        f"{power(summary['flop'])} counted FLOP of training in {found[0].precision}, and "
        f"{power(summary['matmul_equivalents'])} float32 matmul-equivalents; {apart}."
        + (f" {counted(kept, 'seed')} had been trained before." if kept else ""),
        bold=True,
    )


def _summary(found: "Sequence[Reached]") -> dict[str, float | None]:
    """Mean accuracy with its interval, and mean costs; None where one is not known."""
    from tenfold.studies.statistics import summarise

    def mean(values: "Sequence[float | None]") -> float | None:
        known = [value for value in values if value is not None]
        return sum(known) / len(values) if len(known) == len(values) else None

    accuracy = summarise([one.accuracy for one in found], num_pictures=10_000)
    costs = [one.cost for one in found]
    return {
        "mean": accuracy.mean,
        "low": accuracy.low,
        "high": accuracy.high,
        "flop": mean([one.result.training.flop for one in found]),
        **{
            name: mean([getattr(cost, name) for cost in costs])
            for name in ("seconds", "core_seconds", "matmul_equivalents", "utilisation")
        },
    }
