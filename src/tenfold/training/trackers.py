"""Curves for TensorBoard, Weights & Biases, MLflow and Trackio, by way of Accelerate's trackers.

None of them leaves the machine unless the user's environment says so, and none ends a training.
"""

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker

from tenfold.errors import TenfoldError, first_line, missing_extra
from tenfold.files import write_text
from tenfold.recipe import Recipe
from tenfold.recipe.dotted import flatten
from tenfold.training.reporters import Plan, Reporters
from tenfold.validation import nearest

TRACKERS = ("tensorboard", "wandb", "mlflow", "trackio")
"""By the names of their packages, which are Accelerate's names too."""

logger = logging.getLogger("tenfold")

_NONE = GeneralTracker(_blank=True)
"""Does nothing, as one that has failed does from then on."""


def require_trackers(names: tuple[str, ...]) -> None:
    """Raise TenfoldError for a tracker of another name, or one that is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise TenfoldError(
                f"There is no tracker {name!r}{nearest(name, TRACKERS)}; there are: "
                f"{', '.join(TRACKERS)}."
            )
        try:
            importlib.import_module(name)
        except ImportError:
            if name == "tensorboard":
                raise missing_extra("--track tensorboard needs TensorBoard", "track") from None
            raise TenfoldError(
                f"--track {name} needs the package {name}; pip install {name} brings it."
            ) from None


class TrackerReporter(Reporters):
    """Hands each epoch to a tracker, from one session of a run to the next."""

    def __init__(self, name: str, folder: Path, recipe: Recipe) -> None:
        super().__init__()
        self._name, self._folder, self._recipe = name, folder, recipe
        self._tracker: Any = _NONE
        self._is_begun = False

    def started(self, plan: Plan) -> None:
        """See Reporter."""
        if not self._is_begun:  # Else another stage begins.
            self._is_begun = True
            with self._going_on():
                self._tracker = self._start()
                values = flatten(self._recipe.to_dict())
                plain = {k: v if isinstance(v, int | float) else str(v) for k, v in values.items()}
                self._tracker.store_init_configuration(plain)

    def epoch_ended(self, metrics: dict[str, Any], timings: dict[str, Any]) -> None:
        """See Reporter."""
        named = {
            "/".join(name.split("_", 1)): value
            for name, value in {**metrics, **timings}.items()
            if name not in ("epoch", "step") and value is not None
        }
        with self._going_on():
            self._tracker.log(named, step=metrics["step"])

    def close(self) -> None:
        """End the tracker's run."""
        with self._going_on():
            if self._name == "trackio" and self._tracker is not _NONE:
                # Which forgets the run, or it would be ended again, aloud, when Python ends.
                importlib.import_module("trackio").finish()
            else:
                self._tracker.finish()

    @contextlib.contextmanager
    def _going_on(self) -> Iterator[None]:
        """Say what fails once, and do without the tracker from there on."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Ours may be read by a machine.
                yield
        except Exception as error:
            self._tracker = _NONE
            logger.warning(
                "%s failed, and training goes on without it: %s", self._name, first_line(error)
            )

    def _start(self) -> Any:
        """The tracker, which goes on with what an earlier session of the run began."""
        folder, kept = self._folder.resolve(), self._folder / f"{self._name}-run-id"
        options: dict[str, Any] = {
            "run_name": self._recipe.name,  # As Accelerate calls the project.
            "name": "/".join(folder.parts[-2:]),
            "resume": "allow",
        }
        if self._name == "tensorboard":
            options = {"run_name": "tensorboard", "logging_dir": self._folder}
        elif self._name == "wandb":
            os.environ.setdefault("WANDB_MODE", "offline")
            options |= {"dir": folder} | ({"id": kept.read_text()} if kept.exists() else {})
        elif self._name == "mlflow":
            options = {"experiment_name": self._recipe.name, "run_name": options["name"]}
            if "MLFLOW_TRACKING_URI" not in os.environ:
                importlib.import_module("mlflow").set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
                options["logging_dir"] = (folder / "mlflow").as_uri()
            options["run_id"] = kept.read_text() if kept.exists() else None
        tracker = LOGGER_TYPE_TO_CLASS[self._name](**options)
        tracker.start()
        if self._name == "wandb":
            write_text(kept, tracker.tracker.id)
        elif self._name == "mlflow":
            write_text(kept, tracker.tracker.info.run_id)
        return tracker
