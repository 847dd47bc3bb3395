"""Write what `make bench` measured: measured.json and what quotes it, docs/deploy.md, a figure.

python docs/make_speed.py [--root ROOT] runs/bench
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from documents import (
    GOALS,
    MEASURED,
    measured_by,
    measured_in,
    measured_text,
    quoting,
    read,
    rounded,
    table,
    with_figures,
    with_part,
)
from matplotlib.figure import Figure

from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import read_run
from tenfold.files import write_text
from tenfold.recipe import shipped_recipes
from tenfold.reporting.figures import draw_curve, finish_curves, new_chart
from tenfold.reporting.study_figures import time_axis
from tenfold.reporting.svg import MUTED, SERIES, standalone_svg, styled
from tenfold.results.measured import Accuracy, Measured
from tenfold.results.runs import Epoch
from tenfold.results.studies import Machine
from tenfold.run import runs_of

CHART = "accuracy-against-time.svg"

SERVED = {
    "one_view": "`tenfold serve --one-view`",
    "tenfold": "`tenfold serve`, unsure images in six views",
    "int8": "`tenfold serve --one-view`, in eight bits",
    "unbatched": "FastAPI without batching, one view",
}


class Curve(NamedTuple):
    """A recipe's epochs, and whether it is one of the fast ones."""

    recipe: str
    epochs: Sequence[Epoch]
    is_fast: bool


def main(arguments: Sequence[str]) -> int:
    """Write both documents and the chart; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="what benchmarks/accuracy.py wrote")
    parser.add_argument("--root", type=Path, default=Path(__file__).parent.parent)
    options = parser.parse_args(arguments)
    try:
        reached = read_reached(options.folder)
        found = [(one["summary"]["recipe"], measured_of(one)) for one in reached]
        served = options.folder / "serving.json"
        if not found and not served.exists():
            raise TenfoldError(f"{options.folder} holds no measurements; `make bench` makes some.")
        if found:
            measured = with_figures(measured_in(options.root), found)
            documents = quoting(options.root, measured)
            documents[options.root / MEASURED] = measured_text(measured)
            for path, text in documents.items():
                write_text(path, text)
            names = " and ".join(path.name for path in documents)
            recipes = ", ".join(dict.fromkeys(name for name, _ in found))
            sys.stdout.write(f"{names} written, for {recipes}.\n")
        if served.exists():
            path = options.root / "docs/deploy.md"
            text = render_serving(json.loads(served.read_text(encoding="utf-8")))
            write_text(path, with_part(read(path) or "", "serving", text, name=path.name))
            sys.stdout.write("docs/deploy.md written.\n")
        curves = read_curves(options.folder / "curves")
        if curves:
            write_text(options.root / "docs" / CHART, standalone_svg(draw(curves)))
    except TenfoldError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def read_reached(folder: Path) -> list[dict[str, Any]]:
    """What was written for each goal, in their order; each also in float32."""
    paths = [folder / f"to-{target}{kind}.json" for target in GOALS for kind in ("", "-float32")]
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def measured_of(one: dict[str, Any]) -> Measured:
    """What `tenfold bench --to` reached, as benchmarks/accuracy.py wrote it."""
    summary, hardware = one["summary"], one["environment"]["hardware"]
    mean, low, high = (round(summary[key], 6) for key in ("mean", "low", "high"))
    accuracy = Accuracy(
        mean=mean,
        low=low,
        high=high,
        n=len(one["seeds"]),
        interval="images" if len(one["seeds"]) == 1 else "seeds",
    )
    runs = [read_run(Path(seed["run"])) for seed in one["seeds"] if Path(seed["run"]).is_dir()]
    known: dict[str, Any] = {
        "seconds": round(summary["seconds"], 1),
        "seconds_of": "run",
        "core_seconds": round(summary["core_seconds"], 1),
        "flop": rounded(summary["flop"]),
        "matmul_equivalents": rounded(summary["matmul_equivalents"]),
        "utilisation": rounded(summary["utilisation"]),
        "precision": summary["precision"],
    }
    if not runs:
        known["machine"] = Machine(cpu=hardware["cpu"], cores=hardware["cores"])
        known["torch"] = one["environment"]["libraries"]["torch"]
    changes = "".join(f" --set {change}" for change in summary.get("overrides", ()))
    command = f"tenfold bench --to {one['target']}{changes}"
    return measured_by(runs, accuracy, command=command, **known)


def render_serving(found: dict[str, Any]) -> str:
    """What serving costs, beside what the model alone can do."""
    alone = {key: found["onnxruntime_int8" if key == "int8" else "onnxruntime"] for key in SERVED}
    rows = [
        [
            name,
            f"{found[key]['rate']:,.0f}",
            f"{100 * found[key]['rate'] / alone[key]:.0f} %",
            f"{found[key]['median_ms']:.1f} ms",
            f"{found[key]['p99_ms']:.1f} ms",
        ]
        for key, name in SERVED.items()
    ]
    heads = ["", "requests a second, 64 clients", "of ONNX Runtime alone", "median, 8 clients"]
    hardware = found["environment"]["hardware"]
    return (
        f"{table([*heads, '99 of 100 within'], rows)}\n\n"
        "ONNX Runtime alone, in one process on batches of 32: "
        f"{found['onnxruntime']:,.0f} images a second of `{found['recipe']}` in floats, "
        f"{found['onnxruntime_int8']:,.0f} in eight bits. Measured on {hardware['cpu']}, "
        f"{hardware['cores']} cores, which clients and server share."
    )


def read_curves(folder: Path) -> list[Curve]:
    """The newest finished run of each recipe in `folder`, fast ones last."""
    curves = []
    for name in shipped_recipes():
        run = next((run for run in runs_of(folder, name) if run.is_finished()), None)
        if run is not None:
            curves.append(Curve(name, read_run(run.path).epochs, name.startswith("fast-")))
    return sorted(curves, key=lambda curve: (curve.is_fast, curve.recipe))


@styled
def draw(curves: Sequence[Curve]) -> Figure:
    """Validation accuracy against training time, each curve with its name at the end."""
    figure, axes = new_chart(width=760, height=360)
    for curve in curves:
        colour = SERIES[0] if curve.is_fast else MUTED
        x = [epoch.training_seconds or 0.0 for epoch in curve.epochs]
        y = [epoch.validation_accuracy for epoch in curve.epochs]
        draw_curve(axes, x, y, label=None, colour=colour)
        axes.plot(x[-1:], y[-1:], "o", color=colour, markersize=6)
        end = (x[-1], y[-1] or 0.0)
        axes.annotate(
            curve.recipe, end, xytext=(7, -3), textcoords="offset points", color=colour,
            fontweight="bold" if curve.is_fast else "normal", annotation_clip=False,
        )  # fmt: skip
    finish_curves(axes, quantity="accuracy")
    axes.set_xscale("log")
    axes.margins(x=0.08)
    time_axis(axes)
    axes.set_ylabel("accuracy on 5,000 held-out images")
    return figure


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
