"""What pydantic refuses is said in one sentence."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tenfold.validation import sentence_of


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Dense(Strict):
    name: Literal["dense"] = "dense"
    widths: tuple[int, ...] = Field((8,), strict=False)


class Convolutional(Strict):
    name: Literal["convolutional"] = "convolutional"
    kernel: Annotated[int, Field(ge=1, le=7)] = 3


class Whole(Strict):
    seed: int
    rate: float = Field(0.1, gt=0, allow_inf_nan=False)
    flip: bool = False
    network: Annotated[Dense | Convolutional, Field(discriminator="name")] = Dense()
    curves: dict[str, list[float]] = {}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "seed is missing; say what it is."),
        ({"seed": "1"}, "seed must be a whole number, not '1'."),
        ({"seed": 1, "rate": -1}, "rate must be more than 0, not -1."),
        ({"seed": 1, "rate": float("inf")}, "rate must be a finite number, not inf."),
        ({"seed": 1, "flip": 1}, "flip must be true or false, not 1."),
        ({"seed": 1, "network": 3}, "network must be a table, not 3."),
        (
            {"seed": 1, "network": {"name": "dens"}},
            "network.name must be one of dense, convolutional (did you mean 'dense'?), not 'dens'.",
        ),
        (
            {"seed": 1, "network": {"name": "convolutional", "kernel": 9}},
            "network.kernel must be from 1 to 7, not 9.",
        ),
        (
            {"seed": 1, "network": {"name": "dense", "widths": [1, "2x"]}},
            "network.widths[1] must be a whole number, not '2x'.",
        ),
        (
            {"seed": 1, "network": {"name": "dense", "width": 1}},
            "unknown key 'network.width' (did you mean 'widths'?); the keys here are name, widths.",
        ),
        ({"seed": 1, "curves": {"x": [1, "a"]}}, "curves.x[1] must be a number, not 'a'."),
        ("text", "the whole must be a table, not 'text'."),
    ],
)
def test_the_file_the_field_and_what_it_must_be_are_named(values: Any, said: str) -> None:
    with pytest.raises(ValidationError) as raised:
        Whole.model_validate(values)
    assert sentence_of(raised.value, "mine.toml", kind=Whole) == f"mine.toml: {said}"
