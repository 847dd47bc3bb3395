"""The recipe, the provenance and the training of a run as rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tenfold.errors import TenfoldError, counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import count, duration, memory, moment, percent, rate
from tenfold.recipe.dotted import as_texts
from tenfold.results.runs import DataFacts, Git, Hardware, Stage


@dataclass(frozen=True)
class Row:
    """One line of a two-column table."""

    name: str
    value: str


def training_rows(run: Run) -> tuple[Row, ...]:
    """How the training went, in plain words."""
    rows = []
    if run.num_parameters is not None:
        rows.append(Row("Parameters", count(run.num_parameters)))
    training = run.training
    if training is None:
        return tuple(rows)
    steps = f"{counted(training.epochs, 'epoch')}, {counted(training.steps, 'step')}"
    rows += [
        Row("Length", steps),
        Row("Training time", duration(training.wall_seconds)),
        Row("Pictures a second in training", rate(training.images_per_second)),
    ]
    if run.shown_scores and run.shown_scores.images_per_second:
        rows.append(
            Row("Pictures a second in evaluation", rate(run.shown_scores.images_per_second))
        )
    rows += _stage_rows(run, training.stages)
    rows.append(Row("Most memory used", memory(training.peak_memory_bytes)))
    rows.append(Row("How it ended", _ending(training.ended)))
    if training.best_epoch is not None:
        rows.append(Row("Best epoch in validation", str(training.best_epoch)))
    return tuple(rows)


def _stage_rows(run: Run, stages: Sequence[Stage]) -> list[Row]:
    """Where a pretrained network began, and what each stage added."""
    weights = run.result.model.weights if run.result else None
    rows = [Row("Weights at the start", weights)] if weights else []
    if len(stages) == 1 and stages[0].trains == "all":
        return rows
    for number, stage in enumerate(stages, start=1):
        learned = f"{counted(stage.epochs, 'epoch')}, {count(stage.num_trained)} parameters learned"
        if stage.validation_accuracy is not None:
            learned += f", {percent(stage.validation_accuracy)} of validation right"
        said = f"left out, since {stage.skipped}" if stage.skipped else learned
        rows.append(Row(f"Stage {number}: {stage.trains}", said))
    return rows


def score_rows(run: Run) -> tuple[Row, ...]:
    """What was measured besides the accuracy, on every split that was evaluated."""
    rows = []
    for split, scores in run.scores.items():
        name = split.capitalize()
        low, high = scores.accuracy_interval
        rows.append(
            Row(
                f"{name}: right answers",
                f"{percent(scores.accuracy, digits=2)} ({100 * low:.2f} to "
                f"{percent(high, digits=2)}) of {counted(scores.num_images, 'picture')}",
            )
        )
        if scores.top5_accuracy is not None:
            rows.append(
                Row(f"{name}: among the best five", percent(scores.top5_accuracy, digits=2))
            )
        rows.append(Row(f"{name}: loss", f"{scores.loss:.4f}"))
        rows.append(Row(f"{name}: Matthews correlation", f"{scores.matthews_correlation:.4f}"))
    return tuple(rows)


def use_rows(run: Run) -> tuple[Row, ...]:
    """Every use of the test split: when, and what for."""
    return tuple(
        Row(
            moment(use.time),
            use.purpose
            if use.accuracy is None
            else f"{use.purpose}: {percent(use.accuracy)} right",
        )
        for use in run.test_uses
    )


def recipe_rows(run: Run) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """What the recipe sets, and what stands at its default."""
    resolved = as_texts(run.recipe)
    defaults = _defaults(run.recipe)
    tags = {f"{table}.name" for table in run.recipe} | {"name", "description", "seed"}
    ours = tuple(
        Row(key, value)
        for key, value in resolved.items()
        if value and (key in tags or defaults.get(key) != value)
    )
    rest = tuple(
        Row(key, value)
        for key, value in resolved.items()
        if value and key not in tags and defaults.get(key) == value
    )
    return ours, rest


def provenance_rows(run: Run) -> tuple[Row, ...]:
    """Where the run comes from: software, machine, data, and the commands that made it."""
    known = run.provenance
    hardware = known.hardware
    rows = [
        Row("Run folder", str(run.folder)),
        Row("tenfold", " ".join(filter(None, [known.tenfold, _git(known.git)]))),
        Row("Python", known.python or ""),
        Row("Libraries", ", ".join(f"{k} {v}" for k, v in known.libraries.items())),
        Row("System", known.platform or ""),
        Row("Processor", hardware.cpu or ""),
        Row("Cores and memory", _machine(hardware)),
        Row("Device", known.device or hardware.device or ""),
        Row("Processes", _text(known.processes)),
        Row("Threads", _text(known.threads)),
        Row("Seed", _text(run.seed)),
        *_data_rows(run.data),
    ]
    for session in known.sessions:
        step = session.resumed_at_step
        resumed = f" (resumed at step {count(step)})" if step else ""
        rows.append(Row(f"Started {moment(session.started)}", f"{session.command}{resumed}"))
    return tuple(row for row in rows if row.value)


def _data_rows(data: DataFacts) -> list[Row]:
    sizes = ", ".join(f"{count(number)} {split}" for split, number in data.splits.items() if number)
    size = data.image_size
    rows = [
        Row("Data set", data.name or ""),
        Row("Data from", data.source or ""),
        Row("Pictures", sizes),
        Row("Picture size", f"{size[0]} × {size[1]} pixels" if size else ""),
    ]
    return rows + [Row(f"SHA-256 of {name}", sum_) for name, sum_ in data.checksums.items()]


def _defaults(recipe: Mapping[str, Any]) -> dict[str, str]:
    """The defaults of the variants that the recipe names."""
    from tenfold.recipe import recipe_from_dict

    tags = {
        table: {"name": values["name"]}
        for table, values in recipe.items()
        if isinstance(values, Mapping) and "name" in values and table != "data"
    }
    try:
        return as_texts(recipe_from_dict(tags).to_dict())
    except TenfoldError:
        return {}  # a recipe of another version of tenfold: everything is shown as set


def _ending(ended: str) -> str:
    return {
        "finished": "all epochs done",
        "early stopping": "early, because validation had stopped getting better",
        "time limit": "at the time limit",
    }.get(ended, ended)


def _git(git: Git | None) -> str:
    if git is None:
        return ""
    changes = ", with uncommitted changes" if git.dirty else ""
    return f"(commit {git.commit[:12]}{changes})"


def _machine(hardware: Hardware) -> str:
    cores, size = hardware.cores, hardware.memory_bytes
    parts = [counted(cores, "core") if cores else "", memory(size) if size else ""]
    return ", ".join(filter(None, parts))


def _text(value: Any) -> str:
    return "" if value is None else str(value)
