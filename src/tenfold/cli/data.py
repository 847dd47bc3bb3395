"""The `tenfold data` commands, and `tenfold demo`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tenfold.cli import options as cli
from tenfold.cli.pages import show_page
from tenfold.console.output import Output
from tenfold.console.summaries import show_comparison, show_dataset
from tenfold.formatting import duration

if TYPE_CHECKING:
    from tenfold.data import Dataset

data_app = cli.new_app(help="Fetch, describe, explore, convert and mend data sets.")


@dataclass(frozen=True)
class Reading(cli.Reading):
    """How image files are read, with what a recipe says where there is one."""

    size: cli.SizeOption = 0
    window: cli.WindowOption = None


def _load(output: Output, dataset: str, reading: Reading) -> "Dataset":
    from tenfold.data import load

    with output.progress() as progress:
        return load(
            dataset,
            image_size=reading.size,
            skip_broken=reading.skip_broken,
            window=reading.window or (),
            progress=progress,
        )


def data_get(
    output: Output,
    name: Annotated[str, "cifar10, cifar100 or digits."],
    *,
    source: Annotated[Path | None, "A folder or archive that holds a copy.", "--from"] = None,
) -> None:
    """Fetch a data set, verify it against its published checksums and keep it in the cache."""
    from tenfold.data import sources

    with output.progress() as progress:
        dataset = sources.get(name, location=source, progress=progress)
    show_dataset(output, dataset)


def data_info(output: Output, dataset: cli.DatasetArgument, *, reading: Reading) -> None:
    """Describe a data set: splits, classes, image sizes, where it came from, checksums."""
    from tenfold.data.sources import verify_cached
    from tenfold.data.sources.origins import FETCHABLE

    show_dataset(output, _load(output, dataset, reading))
    if dataset in FETCHABLE:
        verify_cached(dataset)
        output.say("Every byte of the copy in the cache was checked again just now.")


def data_eda(
    output: Output,
    dataset: cli.DatasetArgument,
    *,
    out: Annotated[Path, "Folder for eda.json and eda.html."] = Path("eda"),
    reading: Reading,
    strict: cli.StrictOption = False,
) -> None:
    """Explore a data set: classes, colours, quality, duplicates; as JSON and as a page."""
    from tenfold.data.explore import explore
    from tenfold.data.leaks import check_leaks
    from tenfold.files import write_json
    from tenfold.reporting.eda import write_exploration_page

    loaded, numbers, page = _load(output, dataset, reading), out / "eda.json", out / "eda.html"
    with output.progress() as progress:
        if strict:
            check_leaks(loaded.splits(), strict=True)
        exploration = explore(loaded, progress=progress)
    write_json(numbers, exploration.to_json())
    write_exploration_page(exploration, loaded, page)
    output.say(f"The numbers are in {numbers}.")
    said = f"The page is {page.resolve()}"
    cli.announce(output, "written", said, bold=True, json=str(numbers), page=str(page))


def data_export(
    output: Output,
    dataset: cli.DatasetArgument,
    out: Annotated[Path, "A new folder, or an .npz file."],
    *,
    layout: Annotated[
        str | None, "folder, parquet or npz; folder unless the path ends in .npz.", "--format"
    ] = None,
    reading: Reading,
) -> None:
    """Write a data set as numbered PNG files with CSV labels, as parquet or as npz."""
    from tenfold.data import export

    layout = layout or ("npz" if out.suffix == ".npz" else "folder")
    loaded = _load(output, dataset, reading)
    with output.progress() as progress:
        export(loaded, out, layout, progress=progress)
    said = f"{loaded.name} is in {out}."
    cli.announce(output, "written", said, path=str(out), format=layout)


def data_relabel(
    output: Output,
    dataset: Annotated[Path, "A folder of images, a CSV table, parquet or an npz file."],
    corrections: Annotated[
        Path, "A CSV file id,label,action, as the error explorer of a run's page writes it."
    ],
    *,
    out: Annotated[Path, "The new data set: a folder, or an .npz file for one."],
) -> None:
    """Write a data set anew with corrected labels; the old one and its images stay as they are."""
    from tenfold.data.relabel import relabel

    done = relabel(dataset.expanduser(), corrections, out)
    corrected = {name: list(pair) for name, pair in done.corrected.items()}
    output.record("relabelled", path=str(done.path), corrected=corrected, dropped=done.dropped)
    output.say(done.note)
    output.say(f"The data set is {done.path}.", bold=True)


cli.add_commands(data_app, data_get, data_info, data_eda, data_export, data_relabel, panel=None)


def demo(
    output: Output,
    *,
    seed: Annotated[int, "Seed of both runs.", cli.NOT_NEGATIVE] = 0,
    runs: cli.RunsOption = Path("runs"),
) -> None:
    """Train a dense and a convolutional network on CIFAR-10 and write a page about both."""
    output.say("A dense and a convolutional network on CIFAR-10: some two minutes on two cores.")

    from tenfold.recipe import load_recipe
    from tenfold.reporting.page import write_report
    from tenfold.training.train import TrainOptions, train

    notes = _notes_of_cifar10(output)
    # Few steps suffice for digits.
    digits = ["data.name=digits", "data.image_size=16", "training.min_steps=60"]
    changes = [f"seed={seed}", *(digits if notes else ["data.name=cifar10"])]
    folders, started = [], time.monotonic()
    for name in ("ann", "cnn-quick"):
        options = TrainOptions(runs=runs, notes=notes)
        recipe = load_recipe(name, changes)
        with output.training() as reporter:
            done = train(recipe, options=options, reporter=reporter, progress=reporter)
        folders.append(done.run.path)
    seconds = time.monotonic() - started
    page = write_report(folders, runs / "demo.html")
    show_comparison(output, folders)
    output.say(f"Training and evaluating both took {duration(seconds)}.")
    show_page(output, page)


def _notes_of_cifar10(output: Output) -> tuple[str, ...]:
    """Bring CIFAR-10 into the cache; if that fails, the note that says what is used instead."""
    from tenfold.data import load
    from tenfold.data.sources import SourcesUnreachableError

    try:
        with output.progress() as progress:
            dataset = load("cifar10", progress=progress)
    except SourcesUnreachableError as error:
        note = (
            "CIFAR-10 could not be reached, so this page is about scikit-learn's handwritten "
            "digits: a far easier task, whose accuracies say nothing about CIFAR-10."
        )
        output.shout(str(error))
        output.shout(note)
        output.record("fallback", dataset="digits", reason=str(error))
        return (note,)
    output.say(f"CIFAR-10 from {dataset.source}.")
    return ()
