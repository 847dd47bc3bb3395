"""What the shipped recipes reached: `measured.json`, which documents and lists quote."""

import importlib.resources
from typing import Literal

from pydantic import Field

from tenfold.formatting import hundredths, percent
from tenfold.results.facts import Fact
from tenfold.results.studies import Machine


class Accuracy(Fact):
    """The share of CIFAR-10's test images that `n` runs, one a seed, predict rightly.

    mean or median: of the runs. interval: what `low` and `high` are, the 95 % interval over
    `seeds`, or for one run over `images`; or the `range` of the runs.
    """

    mean: float | None = None
    median: float | None = None
    low: float
    high: float
    n: int
    interval: Literal["seeds", "images", "range"]

    @property
    def center(self) -> float:
        """The mean, or the median where that is what was recorded."""
        found = self.mean if self.mean is not None else self.median
        assert found is not None
        return found

    def with_interval(self, digits: int = 1) -> str:
        """`58.1 % (57.7 to 58.5)`."""
        low, high = hundredths(self.low, digits), hundredths(self.high, digits)
        return f"{percent(self.center, digits)} ({low} to {high})"

    def in_short(self) -> str:
        """`58.1 % ± 0.4 (3)`, or with a range `81.5 %, 81.5–81.8 (3)`."""
        if self.interval == "range":
            spread = f", {hundredths(self.low)}–{hundredths(self.high)}"
        else:
            spread = f" ± {hundredths(max(self.high - self.center, self.center - self.low))}"
        return f"{percent(self.center)}{spread} ({self.n})"


class Measured(Fact):
    """What one command reached with a recipe; None where something wasn't recorded.

    seconds: of `training`, or of the whole `run` from reading the data to the written result.
    core_seconds: processor time of the same. flop: counted, of the training's forward and backward
    passes. matmul_equivalents: seconds times the rate of the machine's float32 matrix products
    meanwhile, which is no count of what was computed. utilisation: see `Cost`. machine: its threads
    are those of one run. precision: that the network computed in. commit: that the runs were made
    with, or for figures older than this file that first stated them.
    """

    command: str
    accuracy: Accuracy
    seconds: float | None = None
    seconds_range: tuple[float, float] | None = None
    seconds_of: Literal["training", "run"] = "training"
    core_seconds: float | None = None
    flop: float | None = None
    matmul_equivalents: float | None = None
    utilisation: float | None = None
    machine: Machine = Machine()
    precision: str | None = None
    torch: str | None = None
    commit: str | None = None
    date: str | None = None


class MeasuredFile(Fact):
    """The file: parameters of all networks for CIFAR-10, and figures of the recipes that have any,
    where a recipe's first are those that lists show."""

    num_parameters: dict[str, int] = Field(default_factory=dict)
    recipes: dict[str, tuple[Measured, ...]] = Field(default_factory=dict)

    def first(self, recipe: str) -> Measured | None:
        """The figures of `recipe` that lists show."""
        return next(iter(self.recipes.get(recipe, ())), None)


def read_measured() -> MeasuredFile:
    """The figures that come with tenfold."""
    path = importlib.resources.files("tenfold") / "measured.json"
    return MeasuredFile.model_validate_json(path.read_text(encoding="utf-8"))
