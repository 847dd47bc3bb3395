"""How functions become commands, and what all commands do."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer
from annotated_types import Ge, Interval
from typer.core import TyperGroup

from tenfold.console.output import Bars, Lines, Output

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

    Beside a type may stand its help, and then its flag, a word for its values, their range, and a
    function that raises TenfoldError for a wrong one, before the command runs and imports torch.
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
            elif isinstance(note, Ge | Interval):
                settings |= {"min": note.ge, "max": getattr(note, "le", None)}
            else:
                settings["callback"] = _checking(note)
        info = typer.Argument(**settings) if is_argument else typer.Option(*flags, **settings)
        annotation = Annotated[kind, info]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _checking(rule: Callable[[Any], object]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value is not None:
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
    """What shows how far work is, in a process that has been told how many threads it has."""
    from tenfold.training.process import prepare_process

    prepare_process(threads)
    with output.progress() as progress:
        yield progress
