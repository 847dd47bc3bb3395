"""What a run's exported files say and how fast they are, as a section of its page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError, counted
from tenfold.files import read_json
from tenfold.formatting import percent
from tenfold.reporting.section import Section, Source, Table

NAMES = {"float": "in floats", "int8": "in eight bits"}


def exports_section(folder: Path) -> Section | None:
    """The section for the run in `folder`; None where nothing was exported, or its figures can't
    be read."""
    path = folder / "export" / "exports.json"
    if not path.exists():
        return None
    try:
        known = read_json(path)
        exports = {NAMES[kind]: known[kind] for kind in NAMES if kind in known}
        files = tuple(_file_row(name, export) for name, export in exports.items())
        speeds = tuple(
            _speed_row(name, timing)
            for name, export in exports.items()
            for timing in export["timings"]
        )
        gate = next(iter(exports.values()))["gate"]
        compared = counted(gate["num_images"], f"{gate['split']} picture")
    except (TenfoldError, KeyError, TypeError, StopIteration):
        return None
    return Section(
        name="exports",
        question="What does it take to use it?",
        answer=(
            "The model as one ONNX file runs wherever ONNX Runtime does, without PyTorch. Before "
            f"it was written, its answers were compared with the run's on {compared}, one view of "
            "each.",
        ),
        tables=(
            Table(
                "Files",
                ("", "size", "right", "the run", "same class", "logits within", "opset"),
                files,
            ),
            Table(
                "Speed on the machine that exported it",
                ("", "batch", "median", "99 of 100 within", "pictures a second", "PyTorch"),
                speeds,
            ),
        ),
        sources=(Source("ONNX Runtime", "https://onnxruntime.ai/docs/"),),
    )


def _file_row(name: str, export: Mapping[str, Any]) -> tuple[str, ...]:
    gate = export["gate"]
    return (
        name,
        f"{export['size'] / 1e6:.2f} MB",
        percent(gate["accuracy"], digits=2),
        percent(gate["accuracy_before"], digits=2),
        percent(gate["same_class"], digits=2),
        f"{gate['logit_error']:.1g}",
        str(export["opset"]),
    )


def _speed_row(name: str, timing: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        name,
        str(timing["batch_size"]),
        f"{1000 * timing['median']:.2f} ms",
        f"{1000 * timing['p99']:.2f} ms",
        f"{timing['images_per_second']:,.0f}",
        f"{timing['torch_images_per_second']:,.0f}",
    )
