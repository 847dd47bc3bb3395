"""How functions become commands: dataclasses of options field by field, help in groups."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperGroup

from tenfold.cli.options import JsonOption
from tenfold.console.output import Output


class Commands(TyperGroup):
    """Commands in groups, each with its whole first sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """See TyperGroup."""
        groups: dict[str, list[tuple[str, str]]] = {}
        commands: dict[str, Any] = dict(self.commands)
        for name, command in commands.items():
            first = " ".join((command.help or "").partition("\n\n")[0].split())
            panel = command.rich_help_panel
            groups.setdefault(panel if isinstance(panel, str) else "Commands", []).append(
                (name, first)
            )
        for panel, rows in groups.items():
            with formatter.section(panel):
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
    """`command` for Typer: of a parameter that is a dataclass, every field is an option of its own,
    and an Output is made for --json. A bare string beside a type is the help of an option, or of an
    argument where there is no default; what is true or false has no opposite then."""
    signature = inspect.signature(command, eval_str=True)
    kinds: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        kind = parameter.annotation
        if kind is Output:
            continue
        if not is_dataclass(kind):
            flat.append(_parameter(name, kind, parameter.default))
            continue
        kinds[name] = kind
        hints = get_type_hints(kind, include_extras=True)
        flat += [_parameter(f.name, hints[f.name], f.default) for f in fields(kind)]
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


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    kind, *notes = get_args(annotation)
    if isinstance(notes[0], str):
        flag = [f"--{name.replace('_', '-')}"] if kind is bool else []
        is_argument = default is inspect.Parameter.empty
        info = typer.Argument if is_argument else functools.partial(typer.Option, *flag)
        annotation = Annotated[kind, info(help=notes[0])]
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
