"""What all results have in common: how they are written, read and refused."""

import math
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError

from tenfold.errors import TenfoldError
from tenfold.files import read_json, write_json
from tenfold.validation import sentence_of

Model = TypeVar("Model", bound="Fact")


class Fact(BaseModel):
    """A model of a file, or of a part of one.

    Unknown fields are kept, so that a newer version's file can be read and written again; fields
    that came after version 0.1.0 have defaults. Accuracies are shares, times seconds.
    """

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, without the fields that nobody set."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)

    def write(self, path: Path) -> None:
        """Write it to `path`, atomically."""
        write_json(path, self.to_dict())


def finite(value: Any) -> Any:
    """`value`, or None where it is infinite or not a number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _nan_for_none(value: Any) -> Any:
    return math.nan if value is None else value


Gap = Annotated[float, BeforeValidator(_nan_for_none), PlainSerializer(finite)]
"""A number of a curve; NaN, null in JSON, where there is none."""


def read_fact(path: Path, kind: type[Model], *, remedy: str) -> Model:
    """The model in the JSON file at `path`.

    Raises TenfoldError, naming the field and the `remedy`, where it is missing or of another form.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise TenfoldError(sentence_of(error, path, kind=kind, remedy=remedy)) from error
