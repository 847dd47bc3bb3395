"""The course's other half: its images, the tests of its exercises, and its reduced form."""

import os
import textwrap
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from tenfold.data import Dataset

T = TypeVar("T")

__all__ = ["check", "load_images", "reduced"]

CLASS_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
IMAGES = "cifar10-2000.webp"
NUM_TRAIN, NUM_TEST, COLUMNS = 150, 50, 50
"""Images of each class in each split; images in a row of the mosaic."""


class WrongSolutionError(AssertionError):
    """What is wrong with a solution; a notebook shows no more of it than that.

    The trace would lead through the test, which gives the solution away.
    """

    def _render_traceback_(self) -> list[str]:
        return textwrap.wrap(str(self), 80)  # A notebook breaks longer lines within words.


def check(exercise: str, function: Callable[..., Any]) -> str:
    """Test your solution of an exercise; the sentence that it is right.

    Raises AssertionError, which says what is wrong and often why, what the function raises, and
    TenfoldError for an exercise that doesn't exist. Where `tenfold course` keeps the progress, it
    is written down.

    >>> import numpy as np
    >>> check("accuracy", lambda predicted, labels: np.mean(predicted == labels))
    'accuracy: right.'
    """
    from tenfold.course.exercises import find_exercise
    from tenfold.course.notebooks import note_solved

    test = find_exercise(exercise)
    try:
        test(function)
    except AssertionError as error:
        raise WrongSolutionError(*error.args) from None
    except Exception as error:  # Of code that a learner is writing: any.
        error.__traceback__ = _from_the_solution(error.__traceback__)
        raise
    note_solved(exercise)
    return f"{exercise}: right."


def _from_the_solution(trace: TracebackType | None) -> TracebackType | None:
    """A trace without the test that it leads through; all of it, where it ends in the test."""
    rest = trace
    while rest and rest.tb_frame.f_globals.get("__name__", "").startswith("tenfold.course"):
        rest = rest.tb_next
    return rest or trace


def load_images() -> "Dataset":
    """The 2,000 images of CIFAR-10 that come with the course: 1,500 to train on and 500 to test.

    Of each class the first 150 of CIFAR-10's training split and the first 50 of its test split, in
    its order, without loss (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images",
    2009). In the reduced form of the course 500 to train on. Raises TenfoldError where the course's
    folder is missing.

    >>> {split: len(images) for split, images in load_images().splits().items()}
    {'train': 1500, 'test': 500}
    """
    import numpy as np
    from PIL import Image

    from tenfold.course.notebooks import course_folder
    from tenfold.data.images import Dataset, Images, numbered_ids

    with Image.open(course_folder() / IMAGES) as mosaic:
        table = np.asarray(mosaic.convert("RGB"))
    tiles = table.reshape(-1, 32, COLUMNS, 32, 3).swapaxes(1, 2)
    by_class = tiles.reshape(len(CLASS_NAMES), NUM_TRAIN + NUM_TEST, 32, 32, 3)
    splits = {}
    num_train = reduced(NUM_TRAIN, NUM_TRAIN // 3)
    for split, chosen in (("train", slice(0, num_train)), ("test", slice(NUM_TRAIN, None))):
        pixels = np.ascontiguousarray(by_class[:, chosen]).reshape(-1, 32, 32, 3)
        labels = np.repeat(np.arange(len(CLASS_NAMES)), len(pixels) // len(CLASS_NAMES))
        splits[split] = Images(pixels, labels, CLASS_NAMES, numbered_ids(split, len(pixels)))
    return Dataset.of("cifar10-2000", splits, "the course")


def reduced(whole: T, part: T) -> T:
    """`whole`; or `part`, where TENFOLD_COURSE=reduced asks for a quick look at whether all runs.

    >>> reduced(10, 2)
    10
    """
    return part if os.environ.get("TENFOLD_COURSE") == "reduced" else whole
