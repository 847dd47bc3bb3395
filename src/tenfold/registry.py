"""Parts of a training by name: a part is a callable, and its keyword arguments are its options.

A part is named by what it is shipped as (`resnet`), by a file (`my.py:net`) or by an installed
module (`package.module:net`). Types, defaults and ranges (`Annotated`) of its signature are the
schema of its options, so that a new one is one function, and one line below where it is shipped.
"""

import importlib
import inspect
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    get_type_hints,
)  # fmt: skip

from pydantic import BaseModel, ConfigDict, create_model, model_validator

from tenfold.own_parts import call_of, is_own
from tenfold.validation import expected, nearest, unusable

_OWN_FILES = "densenet vgg wide_resnet mobilenet vit Speedrun Pretrained"
_FUNCTIONS: dict[str, dict[str, str]] = {
    "network": {
        "models.dense": "ann",
        "models.classic": "cnn lenet tutorial_cnn pyramid",
        "models.resnet": "resnet cifar_resnet",
        **{f"models.{name.lower()}": name for name in _OWN_FILES.split()},
    },
    "optimizer": {"training.optimizers": "sgd adam adamw muon"},
    "schedule": {"training.schedules": "constant step cosine linear one_cycle plateau"},
    "loss": {"training.losses": "cross_entropy focal"},
    "augmentation": {},
    "reader": {},
}
_QUESTIONS = "calibration explanation errors robustness new-pictures novelty agreement labels"

SHIPPED = {
    kind: {
        function.lower(): f"tenfold.{module}:{function}"
        for module, functions in modules.items()
        for function in functions.split()
    }
    for kind, modules in _FUNCTIONS.items()
}
"""Where the parts are that come with tenfold, by kind and name."""
SHIPPED["question"] = {
    name: f"tenfold.audit.{name}:{name}".replace("-", "_") for name in _QUESTIONS.split()
}

GIVEN = {
    "network": {"num_classes", "image_size"},
    "optimizer": {"groups"},
    "schedule": {"done", "total_steps", "steps_per_epoch"},
    "loss": {"logits", "labels", "weight", "label_smoothing", "reduction"},
    "augmentation": {"images", "generator"},
    "reader": set[str](),
    "question": {"subject"},
}
"""Arguments that are no options: tenfold gives them."""


F = TypeVar("F", bound=Callable[..., Any])


class Rule(NamedTuple):
    """What options must satisfy together: `holds(options)`, and else what is expected of `key`."""

    key: str
    expected: str
    holds: Callable[[Any], bool]


def rule(key: str, expected: str, holds: Callable[[Any], bool]) -> Callable[[F], F]:
    """Decorator: one more condition on a part's options, beyond the ranges in its signature."""

    def added(call: F) -> F:
        call.__dict__.setdefault("rules", []).insert(0, Rule(key, expected, holds))
        return call

    return added


class Options(BaseModel):
    """A table of a recipe: strict, unchangeable, and without keys of its own invention."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    def but(self, **changes: Any) -> Self:
        """A copy with other values, which are not checked."""
        return self.model_copy(update=changes)

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        for key, own in self:
            if own != type(self).model_fields[key].get_default(call_default_factory=True):
                yield key, own


class PartOptions(Options):
    """A table that names a part, with the part's options."""

    names_a_part: ClassVar[bool] = True
    part: ClassVar["Part"]
    name: str = ""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    @model_validator(mode="after")
    def _satisfies_rules(self) -> "PartOptions":
        for each in self.part.rules:
            if not each.holds(self):
                raise expected(each.expected, key=each.key, found=getattr(self, each.key))
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PartOptions) and dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __reduce__(self) -> Any:
        return _unpickled, (self.part.kind, dict(self))

    def options(self) -> dict[str, Any]:
        """The part's keyword arguments."""
        return {key: value for key, value in self if key != "name"}

    def __call__(self, *args: Any, **given: Any) -> Any:
        """What the part makes of its options and of what tenfold gives it."""
        return self.part.call(*args, **given, **self.options())


def _unpickled(kind: str, values: Mapping[str, Any]) -> PartOptions:
    return find_part(kind, values["name"]).options.model_validate(values)


@dataclass(frozen=True)
class Part:
    """A callable that a recipe can name.

    options: the model of the table that names it. any_size, muon: of a network, whether it takes
    images of other sizes than it was built for, and whether each convolution has a norm behind it.
    images: of a question, whether it looks at the images or at predictions alone.
    code: the file of one's own that it is from.
    """

    kind: str
    name: str
    call: Callable[..., Any]
    rules: Sequence[Rule] = ()
    any_size: bool = True
    muon: bool = True
    images: bool = True
    code: Path | None = None

    @cached_property
    def options(self) -> type[PartOptions]:
        """The model of this part's table, made from its signature."""
        fields: dict[str, Any] = {"name": (Literal[self.name], self.name)}
        for key, (kind, default) in parameters(self.call, GIVEN[self.kind]).items():
            fields[key] = (kind, default)
        doc = (inspect.getdoc(self.call) or "").partition("\n\n")[0]
        made = create_model(f"{self.name}_{self.kind}", __base__=PartOptions, __doc__=doc, **fields)
        made.part = self
        return made


def traits(**found: bool) -> Callable[[F], F]:
    """Decorator: what a `Part` of this callable has other than the default."""

    def marked(call: F) -> F:
        call.__dict__["traits"] = found
        return call

    return marked


def parameters(call: Callable[..., Any], given: Container[str]) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option of `call`; `...` is the default of one that has none.

    An argument without a type has that of its default.
    """
    function = call.__init__ if inspect.isclass(call) else call
    hints = get_type_hints(function, include_extras=True)
    found = {}
    for key, each in inspect.signature(call).parameters.items():
        if key in given or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if key == "name":
            raise unusable(call.__qualname__, "it has an option `name`; call that otherwise")
        missing = each.default is each.empty
        default = frozen(... if missing else each.default)
        found[key] = (hints.get(key, Any if missing else _type_of(default)), default)
    return found


def _type_of(default: Any) -> Any:
    return tuple if isinstance(default, tuple) else Any if default is None else type(default)


def frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    if isinstance(value, Mapping):
        return {key: frozen(inner) for key, inner in value.items()}
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def find_part(kind: str, name: str) -> Part:
    """The part of `kind` that `name` means: a shipped one, or somebody's own.

    Raises PydanticCustomError, which recipes make a sentence of, where there is none and where
    code would have to be imported that isn't trusted (see `code_of_run`).
    """
    shipped = SHIPPED[kind]
    if name in shipped:
        module, _, function = shipped[name].partition(":")
        return _made(kind, name, getattr(importlib.import_module(module), function))
    if not is_own(name):
        ours = f"one of {', '.join(shipped)}{nearest(name, shipped)}, or " if shipped else ""
        words = f"{ours}such as my.py:{kind}"
        raise expected(words, key="name", found=name)
    call, code = call_of(name)
    return _made(kind, name, call, code=code)


@cache
def _made(kind: str, name: str, call: Any, *, code: Path | None = None) -> Part:
    function = call.__init__ if inspect.isclass(call) else call
    found: dict[str, Any] = getattr(function, "__dict__", {})
    marked: dict[str, bool] = found.get("traits", {})
    return Part(kind, name, call, rules=tuple(found.get("rules", ())), code=code, **marked)
