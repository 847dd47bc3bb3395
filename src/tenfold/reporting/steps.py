"""The loss of a short training by step, from `progress.jsonl`: by epochs one epoch is a dot."""

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from tenfold.reporting.figures import draw_curve, finish_curves, new_chart
from tenfold.reporting.svg import ACCENT, MUTED, styled
from tenfold.results.runs import Epoch

MOST_EPOCHS = 3
"""Of a run that is shown step by step."""


def losses_by_step(folder: Path, epochs: Sequence[Epoch]) -> list[tuple[int, float]]:
    """Steps of a run and the training loss at each; empty where it has many epochs, or its steps
    were not written down."""
    path = folder / "progress.jsonl"
    if not 0 < len(epochs) <= MOST_EPOCHS or not path.is_file():
        return []
    found: dict[int, float] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
            if event["event"] == "step":
                found[int(event["step"])] = float(event["loss"])
        except (ValueError, TypeError, KeyError):
            continue  # A line that was cut off, or is of another version.
    return sorted(found.items()) if len(found) > 1 else []


@styled
def loss_by_step(
    steps: Sequence[tuple[int, float]], epochs: Sequence[Epoch], *, measured: str = ""
) -> Figure:
    """Training loss by step, and that of validation at the end of each epoch, where there is any.

    measured: how training was, where not as validation.
    """
    figure, axes = new_chart()
    numbers, losses = zip(*steps, strict=True)
    draw_curve(axes, numbers, losses, label=f"training{measured}", colour=MUTED)
    known = [e for e in epochs if e.step is not None and e.validation_loss is not None]
    if known:
        ends = [e.step for e in known if e.step is not None]
        draw_curve(
            axes, ends, [e.validation_loss for e in known], label="validation", colour=ACCENT
        )
    axes.set_xlabel("step")
    finish_curves(axes, quantity="loss")
    figure.legend(loc="outside upper left", ncols=2)
    return figure
