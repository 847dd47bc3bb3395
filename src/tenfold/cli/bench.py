"""`tenfold bench`: how fast this machine and the networks on it are, and what accuracy costs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge

from tenfold.cli.commands import announce
from tenfold.cli.options import Machine, RunsOption
from tenfold.console.output import Output
from tenfold.errors import counted
from tenfold.formatting import duration, percent, power

if TYPE_CHECKING:
    import torch

    from tenfold.speed.accuracy import Reached
    from tenfold.speed.rates import Rates

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
        str | None,
        "Train to this accuracy: 75, 85, 91 or 94; on a GPU 94 to 96.",
        "PERCENT",
    ] = None,
    seeds: Annotated[int, "Runs of --to.", Ge(1)] = 5,
    runs: RunsOption = Path("runs"),
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


def _show_rates(output: Output, device: "torch.device") -> "Rates":
    """What the machine computes a second, which is said."""
    import torch

    from tenfold.speed.rates import measure_rates
    from tenfold.training.devices import available_precision, instruction_set

    has_bf16 = available_precision("auto", cpu=device.type == "cpu") == "bf16"
    rates, instructions = measure_rates(device, has_bf16=has_bf16), instruction_set()
    found = rates._asdict()
    output.record("rates", device=str(device), instructions=instructions, **found)
    rows = [[RATES[key], f"{rate / 1e9:.0f}"] for key, rate in found.items() if rate]
    where = f"{device}, {instructions}, {counted(torch.get_num_threads(), 'thread')}"
    output.table(f"Rates of this machine ({where})", ["work", "GFLOP/s"], rows)
    return rates


def _show_networks(output: Output, device: "torch.device", recipes: list[str] | None) -> None:
    from tenfold.recipe import load_recipe
    from tenfold.speed.networks import distinct_networks, measure_network

    rates = _show_rates(output, device)
    chosen, rows = recipes or distinct_networks(), []
    with output.progress() as progress:
        for number, name in enumerate(chosen, start=1):
            found = measure_network(load_recipe(name), device=device, rates=rates)
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
    output: Output, device: "torch.device", target: str, *, num_seeds: int, runs: Path
) -> None:
    from tenfold.speed.accuracy import reach, recipe_for
    from tenfold.training.process import seconds_since_start

    recipe, starting, found, rows = recipe_for(target, device), seconds_since_start(), [], []
    rates = _show_rates(output, device)
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
    facts = {"recipe": recipe.name, "target": float(target) / 100, "num_seeds": num_seeds}
    facts |= {"precision": found[0].precision, "starting_seconds": starting, **summary}
    announce(output, "summary", said, bold=True, **facts)


def _summary(found: "Sequence[Reached]") -> dict[str, float | None]:
    """Mean accuracy with its interval, and mean costs; None where one is not known."""
    from tenfold.studies.statistics import summarise

    accuracy = summarise([one.accuracy for one in found], num_pictures=10_000)
    means = {"flop": _mean([one.result.training.flop for one in found])}
    for name in ("seconds", "core_seconds", "matmul_equivalents", "utilisation"):
        means[name] = _mean([getattr(one.cost, name) for one in found])
    return {"mean": accuracy.mean, "low": accuracy.low, "high": accuracy.high, **means}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
