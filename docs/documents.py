"""What the scripts share that write documents from measurements."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch

from tenfold.cli.recipes import GROUPS
from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import Run
from tenfold.formatting import count, duration, percent, power
from tenfold.models import count_parameters
from tenfold.recipe import load_recipe, shipped_recipes
from tenfold.results.measured import Accuracy, Measured, MeasuredFile
from tenfold.results.runs import Provenance
from tenfold.results.studies import Estimate, Machine
from tenfold.training.bench import NUM_CLASSES, SIDE

T = TypeVar("T")

MEASURED = "src/tenfold/measured.json"

QUOTING = ("docs/speed.md", "docs/tour.md", "docs/pretrained.md", "docs/recipes.md")
"""The documents that quote it."""


class Goal(NamedTuple):
    """Accuracy on test, and the most that it is to cost: float32 matmul-equivalents of a whole run
    in float32, or counted FLOP of the training of one in bf16."""

    accuracy: float
    float32: float
    bf16: float


GOALS = {
    "75": Goal(0.7509, float32=2.4e12, bf16=1.4e12),
    "85": Goal(0.85, float32=9e12, bf16=7e12),
    "91": Goal(0.91, float32=4.0e13, bf16=4.0e13),
    "94": Goal(0.94, float32=2.2e14, bf16=2.2e14),
}

QUICK = {
    "ann": "dense, 3072-512-256-10",
    "cnn-quick": "three convolutions, Muon, bf16",
    "cnn": "the same, plain SGD, float32",
}
"""The recipes of the demo, and what their networks are."""


def read(path: Path) -> str | None:
    """The text of a file, or None where there is none."""
    return path.read_text(encoding="utf-8") if path.exists() else None


def with_part(document: str, part: str, text: str, *, name: str) -> str:
    """`document` with `text` between the lines `<!-- part:begin -->` and `:end`.

    Raises TenfoldError, which calls the document `name`, where it has no such lines.
    """
    first, last = f"<!-- {part}:begin -->", f"<!-- {part}:end -->"
    begin, end = document.find(first), document.find(last)
    if begin < 0 or end < begin:
        raise TenfoldError(
            f"{name} has no table to replace: put the lines {first} and {last} where it belongs."
        )
    return f"{document[:begin]}{first}\n{text}\n{document[end:]}"


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()
) -> str:
    """A Markdown table; columns of `numbers` are flush right."""
    rules = ["---:" if column in numbers else "---" for column in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, rules, *rows))


# -- measured.json -------------------------------------------------------------------------------


def measured_in(root: Path) -> MeasuredFile:
    """The figures of the checkout at `root`; none where it has no such file yet."""
    return MeasuredFile.model_validate_json(read(root / MEASURED) or "{}")


def measured_text(measured: MeasuredFile) -> str:
    """The text of measured.json."""
    recipes = dict(sorted(measured.recipes.items()))
    values = measured.model_copy(update={"recipes": recipes}).model_dump(mode="json")
    return json.dumps(values, indent=1) + "\n"


def with_figures(measured: MeasuredFile, found: Iterable[tuple[str, Measured]]) -> MeasuredFile:
    """`measured` with what was `found` of recipes, those of a changed recipe behind its own."""
    recipes = dict(measured.recipes)
    for name, new in found:
        is_changed = "--set" in new.command
        kept = [
            old
            for old in recipes.get(name, ())
            if old.command != new.command and (is_changed or "--set" in old.command)
        ]
        recipes[name] = (*kept, new) if is_changed else (new, *kept)
    return measured.model_copy(update={"recipes": recipes})


def measured_by(runs: Sequence[Run], accuracy: Accuracy, *, command: str, **known: Any) -> Measured:
    """What `runs` of a recipe reached; None where they don't agree or don't say."""
    times = [run.training for run in runs if run.training]
    made = [run.provenance for run in runs]
    values: dict[str, Any] = {
        "seconds": mean([each.training_seconds for each in times]),
        "core_seconds": mean([each.process_seconds for each in times]),
        "flop": rounded(mean([each.flop for each in times])),
        "machine": shared([Machine.of(each) for each in made]) or Machine(),
        "precision": shared([each.arithmetic for each in made]),
        "torch": shared([each.libraries.get("torch") for each in made]),
        "commit": shared([commit_of(each) for each in made]),
        "date": max((one.started[:10] for each in made for one in each.sessions), default=None),
    }
    return Measured(command=command, accuracy=accuracy, **values | known)


def accuracy_of(found: Estimate) -> Accuracy:
    """An estimate over seeds, or over images where there is one, as measured.json has it."""
    mean, low, high = (round(share, 6) for share in (found.mean, found.low, found.high))
    over: Any = "images" if found.interval_over == "images" else "seeds"
    return Accuracy(mean=mean, low=low, high=high, n=found.n, interval=over)


def commit_of(made: Provenance) -> str | None:
    """The commit that a run was made with, marked as git does where files were changed."""
    if made.git is None or not made.git.commit:
        return None
    return made.git.commit[:7] + ("-dirty" if made.git.dirty else "")


def shared(values: Sequence[T]) -> T | None:
    """The value that all have, or None."""
    return values[0] if values and all(value == values[0] for value in values) else None


def mean(values: Sequence[float | None]) -> float | None:
    """The mean to a tenth; None where there are none, or one is not known."""
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), 1) if known and len(known) == len(values) else None


def rounded(value: float | None) -> float | None:
    """To four digits."""
    return None if value is None else float(f"{value:.4g}")


def count_parameters_of_recipes() -> dict[str, int]:
    """Of the shipped recipes' networks, for the ten classes and 32x32 pixels of CIFAR-10."""
    counts = {}
    for name in shipped_recipes():
        recipe = load_recipe(name)
        side = recipe.data.image_size or SIDE
        with torch.device("meta"):
            counts[name] = count_parameters(
                recipe.model(num_classes=NUM_CLASSES, image_size=(side, side))
            )
    return counts


# -- what quotes it ------------------------------------------------------------------------------


def quoting(root: Path, measured: MeasuredFile) -> dict[Path, str]:
    """The documents that quote `measured`, with their new text."""
    parts = {"speed": speed, "demo": demo, "transfer": transfer, "recipes": recipes}
    documents = {}
    for name in QUOTING:
        if (text := read(root / name)) is None:
            continue
        for part, render in parts.items():
            if f"<!-- {part}:begin -->" in text and (rendered := render(measured)):
                text = with_part(text, part, rendered, name=name)
        documents[root / name] = text
    return documents


def speed(measured: MeasuredFile) -> str:
    """A line for each goal: accuracy and cost beside what they were to be."""
    rows, found = [], []
    reached = [(goal, one) for goal in GOALS for one in measured.recipes.get(f"fast-{goal}", ())]
    for target, one in reached:
        goal = GOALS[target]
        found.append(one)
        spread = ", range" if one.accuracy.interval == "range" else ""
        in_float32 = one.precision == "float32"
        rows.append(
            [
                f"`fast-{target}`",
                f"{100 * goal.accuracy:g} %",
                one.accuracy.with_interval(2) + spread,
                str(one.accuracy.n),
                one.precision or "",
                duration(one.seconds),
                "" if one.core_seconds is None else f"{one.core_seconds:,.0f}",
                f"{power(one.flop)} ({'–' if in_float32 else power(goal.bf16)})",
                f"{power(one.matmul_equivalents)} ({power(goal.float32) if in_float32 else '–'})",
                "" if one.utilisation is None else percent(one.utilisation, 0),
            ]
        )
    if not found:
        return ""
    rates = [
        e.matmul_equivalents / e.seconds / 1e9 for e in found if e.matmul_equivalents and e.seconds
    ]
    versions = sorted({f"PyTorch {one.torch}" for one in found if one.torch})
    machines = dict.fromkeys(one.machine.in_words for one in found)
    told = f"; float32 matrix products ran at {min(rates):.0f} to {max(rates):.0f} GFLOP/s "
    heads = [
        "recipe", "to reach", "test accuracy (95 % interval)", "seeds", "precision", "time",
        "core-seconds", "counted FLOP (goal)", "float32 matmul-equivalents (goal)", "utilisation",
    ]  # fmt: skip
    return (
        f"{table(heads, rows)}\n\n"
        f"Measured on {'; '.join([*machines, *versions])}"
        f"{told + 'meanwhile, as means over the runs of a recipe' if rates else ''}."
    )


def demo(measured: MeasuredFile) -> str:
    """The recipes of the demo."""
    rows = []
    for name, network in QUICK.items():
        if (one := measured.first(name)) is None:
            continue
        spread = ", range" if one.accuracy.interval == "range" else ""
        low, high = one.seconds_range or (None, None)
        seconds = "" if low is None else f" ({low:.0f} to {high:.0f})"
        time = f"{one.seconds:.0f} s{seconds}" if one.seconds else "–"
        row = [f"`{name}`", network, count(measured.num_parameters[name])]
        row += [str(load_recipe(name).training.epochs), one.accuracy.with_interval() + spread]
        rows.append([*row, str(one.accuracy.n), time])
    heads = ["recipe", "network", "parameters", "epochs", "test accuracy", "seeds", "training"]
    return table(heads, rows) if rows else ""


def transfer(measured: MeasuredFile) -> str:
    """A line for each command that was measured of the recipes for pretrained networks."""
    rows = [
        [f"`{one.command}`", duration(one.seconds), one.accuracy.with_interval()]
        for name, found in sorted(measured.recipes.items(), reverse=True)
        if name.startswith("transfer-")
        for one in found
    ]
    rows.sort(key=lambda row: "--set" not in row[0])
    return table(["command", "time", "test accuracy (95 % interval)"], rows) if rows else ""


def recipes(measured: MeasuredFile) -> str:
    """A table of the shipped recipes for each group of `tenfold recipes`."""
    rows: dict[str, list[list[str]]] = {group: [] for group in GROUPS}
    for name in shipped_recipes():
        one, number = measured.first(name), measured.num_parameters.get(name)
        group = next(group for group, names in GROUPS.items() if re.fullmatch(names, name))
        row = [f"`{name}`", load_recipe(name).description, "" if number is None else count(number)]
        if one is not None:
            spread = ", range" if one.accuracy.interval == "range" else ""
            row += [one.accuracy.with_interval() + spread, str(one.accuracy.n)]
            row += [duration(one.seconds) if one.seconds else "", f"`{one.command}`"]
        rows[group].append(row + [""] * (7 - len(row)))
    heads = [
        "recipe", "what it is", "parameters", "test accuracy (95 % interval)", "seeds", "time",
        "measured by",
    ]  # fmt: skip
    return "\n\n".join(
        f"### {group[0].upper()}{group[1:]}\n\n{table(heads, rows[group], numbers=(2, 4))}"
        for group in GROUPS
    )
