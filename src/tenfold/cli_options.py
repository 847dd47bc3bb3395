"""Arguments and options that several commands share, so that they read the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

RecipeArgument = Annotated[
    str, typer.Argument(help="A shipped recipe (see `tenfold recipes`) or a path to a .toml file.")
]
RunArgument = Annotated[Path, typer.Argument(help="A run folder, such as runs/cnn/1.")]
DatasetArgument = Annotated[
    str, typer.Argument(help="cifar10, cifar100, digits, or the path of a folder or file.")
]
DataOption = Annotated[
    str | None, typer.Option("--data", help="Another data set, by name or path.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a field of the recipe; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON lines for machines.")]
RunsOption = Annotated[
    Path, typer.Option("--runs", envvar="TENFOLD_RUNS", help="The folder of all runs.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads to compute with; results depend on it.")
]
SkipBrokenOption = Annotated[
    bool, typer.Option("--skip-broken", help="Leave out pictures that can't be read.")
]
SizeOption = Annotated[
    int, typer.Option("--size", min=0, help="Side in pixels to bring pictures to; 0 chooses.")
]
