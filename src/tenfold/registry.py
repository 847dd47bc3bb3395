"""Parts of a training by name: a part is a callable, and its keyword arguments are its options.

A part is named by what it is shipped as (`resnet`), by a file (`my.py:net`) or by an installed
module (`package.module:net`). Types, defaults and ranges (`Annotated`) of its signature are the
schema of its options, and lines of its docstring such as `width: Channels of each layer.` describe
them, so that a new one is one function, and one word below where it is shipped.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, create_model, model_validator

from tenfold.own_parts import call_of, is_own
from tenfold.validation import expected, nearest, unusable

_PLACES = {
    "network": "models.classic: ann cnn lenet tutorial_cnn pyramid models.resnet: resnet "
    "cifar_resnet densenet models.classic: vgg models.resnet: wide_resnet mobilenet "
    "models.vit: vit models.speedrun: Speedrun models.pretrained: Pretrained",
    "optimizer": "training.optimizers: sgd adam adamw muon",
    "schedule": "training.schedules: constant step cosine linear one_cycle plateau",
    "loss": "training.losses: cross_entropy focal",
    "augmentation": "",
    "reader": "",
}
_QUESTIONS = "calibration explanation errors robustness new-images novelty agreement labels"


def _by_name(places: str) -> Iterator[tuple[str, str]]:
    module = ""
    for word in places.split():
        if word.endswith(":"):
            module = word
        else:
            yield word.lower(), f"tenfold.{module}{word}"


SHIPPED = {kind: dict(_by_name(places)) for kind, places in _PLACES.items()}
"""Where the parts are that come with tenfold, by kind and name."""
SHIPPED["question"] = {
    name: f"tenfold.audit.{name}:{name}".replace("-", "_") for name in _QUESTIONS.split()
}

_GIVEN = {
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


Condition = tuple[str, Any, str]
"""A key, which may be dotted; whether what it must satisfy holds; and what is expected else."""


def rule(key: str, expected: str, holds: Callable[[Any], bool]) -> Callable[[F], F]:
    """Decorator: one more condition on a part's options, beyond the ranges in its signature."""

    def added(call: F) -> F:
        call.__dict__.setdefault("rules", []).insert(0, (key, expected, holds))
        return call

    return added


def traits(**found: bool) -> Callable[[F], F]:
    """Decorator: what a `Part` of this callable has other than the default."""

    def marked(call: F) -> F:
        call.__dict__["traits"] = found
        return call

    return marked


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

    def _conditions(self) -> Iterator[Condition]:
        """What fields must satisfy, alone or together, beyond types and ranges."""
        yield from ()

    @model_validator(mode="after")
    def _satisfies_conditions(self) -> Self:
        for key, holds, words in self._conditions():
            if not holds:
                raise expected(words, key=key, found=reduce(getattr, key.split("."), self))
        return self

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

    def _conditions(self) -> Iterator[Condition]:
        for key, words, holds in self.part.rules:
            yield key, holds(self), words

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
    rules: Sequence[tuple[str, str, Callable[[Any], bool]]] = ()
    any_size: bool = True
    muon: bool = True
    images: bool = True
    code: Path | None = None

    @cached_property
    def options(self) -> type[PartOptions]:
        """The model of this part's table, made from its signature."""
        fields: dict[str, Any] = {"name": (Literal[self.name], self.name)}
        doc = inspect.getdoc(self.call) or ""
        said = dict(re.findall(r"^(\w+): ((?:.|\n(?!\w+: |\n))+)", doc, re.MULTILINE))
        for key, (kind, default) in _parameters(self.call, _GIVEN[self.kind]).items():
            words = " ".join(said.get(key, "").split())
            fields[key] = (kind, Field(default, description=words) if words else default)
        first, name = doc.partition("\n\n")[0], f"{self.name}_{self.kind}"
        made = create_model(name, __base__=PartOptions, __doc__=first, **fields)
        made.part = self
        return made


def _parameters(call: Callable[..., Any], given: Container[str]) -> dict[str, tuple[Any, Any]]:
    """Type and default of each option of `call`; `...` is the default of one that has none.

    An argument without a type has that of its default.
    """
    hints = get_type_hints(_function_of(call), include_extras=True)
    found = {}
    for key, each in inspect.signature(call).parameters.items():
        if key in given or each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if key == "name":
            raise unusable(call.__qualname__, "it has an option `name`; call that otherwise")
        default = ... if each.default is each.empty else frozen(each.default)
        kind = tuple if isinstance(default, tuple) else type(default)
        kind = Any if default in (..., None) else kind
        found[key] = (hints.get(key, kind), default)
    return found


def _function_of(call: Any) -> Any:
    return call.__init__ if inspect.isclass(call) else call


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
        raise expected(f"{ours}such as my.py:{kind}", key="name", found=name)
    return _made(kind, name, *call_of(name))


@cache
def _made(kind: str, name: str, call: Any, code: Path | None = None) -> Part:
    marks: dict[str, Any] = getattr(_function_of(call), "__dict__", {})
    rules = tuple(marks.get("rules", ()))
    return Part(kind, name, call, rules=rules, code=code, **marks.get("traits", {}))
