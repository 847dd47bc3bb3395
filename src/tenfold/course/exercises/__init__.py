"""Tests of the exercises: assertions against PyTorch, SciPy and tenfold, whose sentences teach.

Each is a function of the learner's function, and named like the exercise.
"""

from collections.abc import Callable

from tenfold.course.exercises import (
    architectures,
    classifiers,
    evidence,
    networks,
    regularisation,
    transfer,
    trust,
)
from tenfold.course.exercises.comparing import Solution
from tenfold.errors import TenfoldError
from tenfold.validation import nearest

EXERCISES: dict[str, Callable[[Solution], None]] = {
    name: test
    for module in (classifiers, networks, regularisation, evidence, architectures, transfer, trust)
    for name, test in vars(module).items()
    if getattr(test, "__module__", "") == module.__name__ and not name.startswith("_")
}


def find_exercise(name: str) -> Callable[[Solution], None]:
    """The test of an exercise. Raises TenfoldError where there is none of that name."""
    if name not in EXERCISES:
        raise TenfoldError(f"There is no exercise {name!r}{nearest(name, EXERCISES)}.")
    return EXERCISES[name]
