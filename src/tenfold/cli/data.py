"""The `tenfold data` commands: fetch, describe, explore, convert and mend data sets."""

from pathlib import Path
from typing import Annotated

import typer

from tenfold.cli.commands import add_commands, new_app
from tenfold.cli.options import DatasetArgument, Reading, SizeOption, StrictOption
from tenfold.console.output import Output
from tenfold.console.summaries import show_dataset

data_app = new_app(help="Fetch, describe, explore, convert and mend data sets.")


def data_get(
    output: Output,
    name: Annotated[str, "cifar10, cifar100 or digits."],
    source: Annotated[
        Path | None, typer.Option("--from", help="A folder or archive that holds a copy.")
    ] = None,
) -> None:
    """Fetch a data set, verify it against its published checksums and keep it in the cache."""
    from tenfold.data import sources

    with output.progress() as progress:
        dataset = sources.get(name, location=source, progress=progress)
    show_dataset(output, dataset)


def data_info(
    output: Output,
    dataset: DatasetArgument,
    size: SizeOption = 0,
    *,
    reading: Reading,
) -> None:
    """Describe a data set: splits, classes, image sizes, where it came from, checksums."""
    from tenfold.data import load, sources

    with output.progress() as progress:
        loaded = load(dataset, image_size=size, skip_broken=reading.skip_broken, progress=progress)
    show_dataset(output, loaded)
    if dataset in sources.NAMES:
        sources.verify_cached(dataset)
        output.say("Every byte of the copy in the cache was checked again just now.")


def data_eda(
    output: Output,
    dataset: DatasetArgument,
    out: Annotated[Path, "Folder for eda.json and eda.html."] = Path("eda"),
    size: SizeOption = 0,
    *,
    reading: Reading,
    strict: StrictOption = False,
) -> None:
    """Explore a data set: classes, colours, quality, duplicates; as JSON and as a page."""
    from tenfold.data import load
    from tenfold.data.explore import explore
    from tenfold.data.leaks import check_leaks
    from tenfold.files import write_json
    from tenfold.reporting.eda import write_exploration_page

    with output.progress() as progress:
        loaded = load(dataset, image_size=size, skip_broken=reading.skip_broken, progress=progress)
        if strict:
            check_leaks(loaded.splits(), strict=True)
        exploration = explore(loaded, progress=progress)
    write_json(out / "eda.json", exploration.to_json())
    write_exploration_page(exploration, loaded, out / "eda.html")
    output.record("written", json=str(out / "eda.json"), page=str(out / "eda.html"))
    output.say(f"The numbers are in {out / 'eda.json'}.")
    output.say(f"The page is {(out / 'eda.html').resolve()}", bold=True)


def data_export(
    output: Output,
    dataset: DatasetArgument,
    out: Annotated[Path, "A new folder, or an .npz file."],
    layout: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="folder (PNG and CSV), parquet or npz; folder unless the path ends in .npz.",
        ),
    ] = None,
    size: SizeOption = 0,
    *,
    reading: Reading,
) -> None:
    """Write a data set as numbered PNG files with CSV labels, as parquet or as npz."""
    from tenfold.data import export, load

    layout = layout or ("npz" if out.suffix == ".npz" else "folder")
    with output.progress() as progress:
        loaded = load(dataset, image_size=size, skip_broken=reading.skip_broken, progress=progress)
        export(loaded, out, layout, progress=progress)
    output.record("written", path=str(out), format=layout)
    output.say(f"{loaded.name} is in {out}.")


def data_relabel(
    output: Output,
    dataset: Annotated[Path, "A folder of images, a CSV table, parquet or an npz file."],
    corrections: Annotated[
        Path, "A CSV file id,label,action, as the error explorer of a run's page writes it."
    ],
    out: Annotated[Path, typer.Option(help="The new data set: a folder, or an .npz file for one.")],
) -> None:
    """Write a data set anew with corrected labels; the old one and its images stay as they are."""
    from tenfold.data.relabel import relabel

    done = relabel(dataset.expanduser(), corrections, out)
    output.record(
        "relabelled",
        path=str(done.path),
        corrected={name: list(pair) for name, pair in done.corrected.items()},
        dropped=done.dropped,
    )
    output.say(done.note)
    output.say(f"The data set is {done.path}.", bold=True)


add_commands(data_app, data_get, data_info, data_eda, data_export, data_relabel, panel=None)
