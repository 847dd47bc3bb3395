"""How functions become commands, and the options that several of them share."""

import contextlib
import functools
import inspect
import json
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from tenfold.console.output import Bars, Lines, Output
from tenfold.errors import TenfoldError
from tenfold.files import require_place
from tenfold.run import finished_run

if TYPE_CHECKING:
    from tenfold.engine import Place
    from tenfold.recipe import Recipe


JsonOption = Annotated[bool, "Print JSON lines for machines.", "--json"]


class Commands(TyperGroup):
    """Commands in groups, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See TyperGroup."""
        groups: dict[str, list[tuple[str, str]]] = {}
        commands: dict[str, Any] = dict(self.commands)
        for name, command in commands.items():
            first = " ".join((command.help or "").partition("\n\n")[0].split())
            panel = command.rich_help_panel
            group = panel if isinstance(panel, str) else "Commands"
            groups.setdefault(group, []).append((name, first))
        for group, rows in groups.items():
            with formatter.section(group):
                formatter.write_dl(rows)


def new_app(**settings: Any) -> typer.Typer:
    """A Typer that helps by -h too, and quickly: without Rich, which takes long to import."""
    return typer.Typer(
        cls=Commands,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **settings,
    )


def add_commands(app: typer.Typer, *commands: Callable[..., None], panel: str | None) -> None:
    """Give `app` the functions `commands`, each as `by_fields` has it."""
    for command in commands:
        name = command.__name__.rpartition("_")[2]
        app.command(name=name, rich_help_panel=panel)(by_fields(command))


def by_fields(command: Callable[..., None]) -> Callable[..., None]:
    """`command` for Typer: positional parameters are arguments, others are options, and every field
    of one that is a dataclass is an option of its own; an Output is made for --json.

    Beside a type may stand its help, and then its flag, a word for its values, other settings that
    Typer has, and a function that raises TenfoldError for a wrong value, before the command runs
    and imports torch.
    """
    signature = inspect.signature(command, eval_str=True)
    kinds: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        kind = parameter.annotation
        if is_dataclass(kind):
            kinds[name] = kind
            hints = get_type_hints(kind, include_extras=True)
            flat += [_parameter(f.name, hints[f.name], f.default) for f in fields(kind)]
        elif kind is not Output:
            is_argument = parameter.kind is not inspect.Parameter.KEYWORD_ONLY
            flat.append(_parameter(name, kind, parameter.default, is_argument=is_argument))
    makes_output = "output" in signature.parameters
    if makes_output:
        flat.append(_parameter("as_json", JsonOption, False))

    @functools.wraps(command)
    def call(**values: Any) -> None:
        if makes_output:
            values["output"] = Output(as_json=values.pop("as_json"))
        for name, kind in kinds.items():
            values[name] = kind(**{f.name: values.pop(f.name) for f in fields(kind)})
        command(**values)

    call.__annotations__ = {p.name: p.annotation for p in flat}
    call.__signature__ = signature.replace(parameters=flat)  # type: ignore[attr-defined]
    return call


def _parameter(
    name: str, annotation: Any, default: Any, *, is_argument: bool = False
) -> inspect.Parameter:
    kind, *notes = get_args(annotation)
    if isinstance(notes[0], str):
        settings: dict[str, Any] = {"help": notes[0]}
        flags = [f"--{name.replace('_', '-')}"] if kind is bool else []  # It has no opposite.
        for note in notes[1:]:
            if isinstance(note, str) and note.startswith("--"):
                flags = [note]
            elif isinstance(note, str):
                settings["metavar"] = note
            elif isinstance(note, dict):
                settings |= note
            else:
                settings["callback"] = _checking(note)
        info = typer.Argument(**settings) if is_argument else typer.Option(*flags, **settings)
        annotation = Annotated[kind, info]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _checking(rule: Callable[[Any], object]) -> Callable[[typer.Context, Any], Any]:
    def check(context: typer.Context, value: Any) -> Any:
        if value is not None and not context.resilient_parsing:  # As completion does.
            rule(value)
        return value

    return check


def announce(
    output: Output, event: str, sentence: str, *, bold: bool = False, **values: Any
) -> None:
    """What a command has done: a sentence for people, and an object for machines."""
    output.record(event, **values)
    output.say(sentence, bold=bold)


@contextlib.contextmanager
def computing(output: Output, threads: int | None) -> Iterator[Bars | Lines]:
    """What shows the progress of work, in a process that is ready to compute."""
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    with output.progress() as progress:
        yield progress


POSITIVE, NOT_NEGATIVE, A_PORT = {"min": 1}, {"min": 0}, {"min": 0, "max": 65535}
EXISTS = {"exists": True}
Split = Literal["test", "validation", "train"]


def require_data(name_or_path: str | None) -> None:
    """Raise TenfoldError where there is no such data set, before torch is imported for it."""
    from tenfold.data.formats import unknown_name
    from tenfold.data.sources import NAMES, is_known

    if name_or_path is None or is_known(name_or_path) or Path(name_or_path).expanduser().exists():
        return
    raise unknown_name(name_or_path, NAMES)


def _skip_cache(value: bool) -> None:
    if value:
        os.environ["TENFOLD_NO_CACHE"] = "1"  # For the processes that it starts, too.


def _choose_device(name: str | bool | None) -> None:
    """Let every part, and the processes that it starts, see the device asked for and no other."""
    if name is None or name is False:
        return
    found = re.fullmatch(r"(cpu|mps|cuda)(?::(\d+))?", "cpu" if name is True else str(name))
    if found is None or (found[2] and found[1] != "cuda"):
        raise TenfoldError(f"--device {name!r} must be cpu, cuda, cuda:1 or mps.")
    os.environ["TENFOLD_DEVICE"] = found[1]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if found[1] != "cuda":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif found[2]:
        numbers = dict(enumerate(visible)) if visible != [""] else {int(found[2]): found[2]}
        os.environ["CUDA_VISIBLE_DEVICES"] = numbers.get(int(found[2]), "")


def chosen_part(text: str | None) -> tuple[int, int] | None:
    """`--part` as a number from 1 and of how many: `2/5`, or what a scheduler says.

    `auto` asks Slurm which task of an array this is; `auto/5` takes the index of a Kubernetes job
    of 5. Raises TenfoldError for anything else.
    """
    if text is None:
        return None
    known = os.environ
    with contextlib.suppress(KeyError, ValueError, ZeroDivisionError):
        if text == "auto":
            first, step = int(known["SLURM_ARRAY_TASK_MIN"]), known.get("SLURM_ARRAY_TASK_STEP", 1)
            number = (int(known["SLURM_ARRAY_TASK_ID"]) - first) // int(step) + 1
            text = f"{number}/{known['SLURM_ARRAY_TASK_COUNT']}"
        elif text.startswith("auto/"):
            text = f"{int(known['JOB_COMPLETION_INDEX']) + 1}/{text.removeprefix('auto/')}"
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found and 1 <= int(found[1]) <= int(found[2]):
        return int(found[1]), int(found[2])
    raise TenfoldError(
        f"--part {text!r} must be a part such as 2/5, from 1; auto in a Slurm array, or auto/5 in "
        "an indexed Kubernetes job of 5."
    )


def seconds_of(text: str) -> float:
    """`--time` in seconds: `90s`, `5m`, `2h`, or a bare number. Raises TenfoldError for others."""
    found = re.fullmatch(r"([\d.]+)([smh]?)", text)
    with contextlib.suppress(ValueError):
        if found and 0 < (number := float(found[1])) < math.inf:
            return number * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]
    raise TenfoldError(f"--time {text!r} must be a time such as 90s, 5m or 2h.")


RecipeArgument = Annotated[
    str, "A shipped recipe (see `tenfold recipes`) or a path to a .toml file."
]
RunArgument = Annotated[Path, "A run folder, such as runs/cnn/1.", finished_run]
DatasetArgument = Annotated[str, "cifar10, cifar100, digits, or the path of a folder or file."]
DataOption = Annotated[str | None, "Another data set, by name or path.", require_data]
PlaceOption = Annotated[str | None, "Where the run's images are now, if not where they were."]
PageOption = Annotated[Path | None, "The HTML file to write.", require_place]
SetOption = Annotated[
    list[str] | None, "Change a field of the recipe; repeatable.", "--set", "KEY=VALUE"
]
RunsOption = Annotated[Path, "The folder of all runs.", "--runs", {"envvar": "TENFOLD_RUNS"}]
ThreadsOption = Annotated[int | None, "Threads to compute with; results depend on it.", POSITIVE]
SkipBrokenOption = Annotated[bool, "Leave out images that can't be read."]
PartOption = Annotated[
    str | None,
    "Do part I of N, from 1, such as 2/5; auto in a Slurm array, auto/5 in an indexed Kubernetes "
    "job of 5.",
    "I/N",
    chosen_part,
]
WindowOption = Annotated[
    tuple[float, float] | None,
    "The values that become black and white in files of more than eight bits; found if not given.",
    "LOW HIGH",
]
SizeOption = Annotated[int, "Side in pixels to bring images to; 0 chooses.", NOT_NEGATIVE]
StrictOption = Annotated[bool, "Fail if an image is in two splits."]
ReportOption = Annotated[bool, "Write report.html at the end.", "--report/--no-report"]


@dataclass(frozen=True)
class Reading:
    """How image files are read."""

    skip_broken: SkipBrokenOption = False
    no_cache: Annotated[
        bool, "Read every image file anew, whatever the cache of decoded images holds.", _skip_cache
    ] = False


@dataclass(frozen=True)
class Machine:
    """What a training computes with."""

    threads: ThreadsOption = None
    device: Annotated[
        str | None, "cpu, cuda, cuda:1 or mps; the best otherwise.", _choose_device
    ] = None
    cpu: Annotated[bool, "Short for --device cpu.", {"hidden": True}, _choose_device] = False


@dataclass(frozen=True)
class Changes:
    """What the command line changes in a recipe."""

    data: DataOption = None
    epochs: Annotated[int | None, "Short for --set training.epochs=.", POSITIVE] = None
    lr: Annotated[float | None, "Short for --set optimizer.lr=."] = None
    batch_size: Annotated[int | None, "Short for --set training.batch_size=.", POSITIVE] = None
    overrides: SetOption = None

    def listed(self, seed: int | None = None) -> list[str]:
        """All of them as `key=value`."""
        changes = list(self.overrides or [])
        if self.data is not None:
            from tenfold.data.sources import full_name

            # TOML knows no surrogates, as which JSON would escape some characters.
            changes.append(f"data.name={json.dumps(full_name(self.data), ensure_ascii=False)}")
        short = {"training.epochs": self.epochs, "optimizer.lr": self.lr}
        short |= {"training.batch_size": self.batch_size, "seed": seed}
        return changes + [f"{key}={value}" for key, value in short.items() if value is not None]

    @property
    def names_network(self) -> bool:
        """Whether a network is named that a recipe's defaults can train."""
        keys = [each.partition("=") for each in self.overrides or []]
        return any(k.strip() == "model.name" and "pretrained" not in v for k, _, v in keys)

    def applied_to(self, recipe: str | None, changes: list[str]) -> "Recipe":
        """The recipe with `changes`, in which `listed` are. Raises TenfoldError for what is wrong
        with it, for changes without effect, and for data that aren't there; without torch."""
        from tenfold.recipe import load_recipe, require_effect

        changed = load_recipe(recipe, changes)
        require_effect(changed, epochs=self.epochs, lr=self.lr)
        require_data(changed.data.name)
        return changed


@dataclass(frozen=True)
class Jobs:
    """How many runs go on at once, and where."""

    jobs: Annotated[
        int | None,
        "Runs at once, each with its share of the cores; 1 if not given, and on a cluster as many "
        "as have room.",
        POSITIVE,
    ] = None
    cluster: Annotated[
        str | None,
        "Run on the nodes of this Ray cluster, with one thread each unless --threads says more.",
        "ADDRESS|auto",
        {"envvar": "RAY_ADDRESS"},
    ] = None

    def placed(self, threads: int | None) -> "tuple[Place, dict[str, Any]]":
        """The cluster or machine to run on, and how many runs at once with how many threads each,
        as RunOptions has it. Raises TenfoldError where there is no such cluster."""
        if self.cluster is None:
            from tenfold.engine import Here

            # Its forks' imports are done while this process looks at what there is to do.
            return Here(), {"num_jobs": self.jobs or 1, "threads": threads}
        from tenfold.cluster import Cluster

        place, threads = Cluster(self.cluster), threads or 1
        return place, {"num_jobs": self.jobs or place.most_jobs(threads), "threads": threads}
