"""Predictions of an exported model with NumPy, Pillow and ONNX Runtime alone.

    predictor = Predictor("model.onnx")
    predictor.predict("photo.jpg").label

N images of H by W pixels, C classes.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.decoding import (
    MAX_PIXELS,
    AnyPicture,
    BrokenPictureError,
    Window,
    prepare_picture,
    require_pixels,
)
from tenfold.errors import TenfoldError, first_line, missing_extra
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.thresholds import confidence_for, set_of, set_threshold_for

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_KEY = "tenfold"
FORMAT = 1
"""Of what a file says of itself."""

FACTS = {
    "class_names", "image_size", "temperature", "thresholds", "views", "accuracy", "data",
}  # fmt: skip

MOST_DRIFT = 0.005
"""By which logits of made-up images may differ from those of the export, as a share of their
range: other kinds of processors round otherwise, by far less."""

EVEN = 0.5
"""The calibrated confidence below which a prediction is likelier wrong than right."""

BATCH_SIZE = 64


@dataclass(frozen=True)
class Prediction:
    """What the model says of an image.

    label: the likeliest class, empty where the image is broken. confidence: of that class,
    calibrated. probabilities: by class, the likeliest first. error: why an image is broken, else
    empty. is_unsure: whether the confidence is below the threshold asked for, so that it had
    better not be used. positive: of each class that `tenfold evaluate --sensitivity` chose a
    threshold for, whether its probability reaches that. conformal_set: the classes that hold
    the true one as often as asked for, the likeliest first; empty where nothing was asked for.
    """

    label: str
    confidence: float
    probabilities: dict[str, float]
    error: str = ""
    is_unsure: bool = False
    positive: dict[str, bool] = field(default_factory=dict)
    conformal_set: tuple[str, ...] = ()


class Predictor:
    """A model that `tenfold export` wrote.

    threads: of ONNX Runtime; 0 takes all cores. accuracy: 0.95 or 0.99 calls predictions unsure
    where fewer would be right; None calls none so. sets: 0.9, 0.95 or 0.99 gives each prediction
    the set of classes that holds the true one in so many of the cases, for images like those for
    validation. one_view: look at each image once, where the run looks at unsure ones several times.
    shares_cores: leave the cores to others while there is nothing to compute, which costs a little
    when there is. Raises TenfoldError where the file is no such model, or promises no such thing.
    """

    def __init__(
        self,
        path: "str | os.PathLike[str]",
        *,
        threads: int = 0,
        accuracy: float | None = None,
        sets: float | None = None,
        one_view: bool = False,
        shares_cores: bool = False,
    ) -> None:
        self.path = Path(path)
        opened = partial(open_session, self.path, threads=threads, spins=not shares_cores)
        self._session = opened()
        self.facts = facts = read_facts(self._session, self.path)
        if "check" in facts:
            _require_same_logits(self._session, facts, self.path)
        else:  # By a version whose sums of eight-bit products are too large for some processors.
            self._session = opened(exact=True)
        self.class_names: tuple[str, ...] = tuple(facts["class_names"])
        self.image_size: tuple[int, int] = tuple(facts["image_size"])
        # Older versions knew where white is alone.
        level = facts.get("white_level")
        self.window: Window = tuple(facts.get("window") or ((0, level) if level else ()))
        self._views: str = "one" if one_view else facts["views"]["kind"]
        self._views_below: float = facts["views"]["below"]
        self._temperature: float = facts["temperature"]
        self.threshold = 0.0
        if accuracy is not None:
            unfitted = facts.get("unfitted", "")
            self.threshold = confidence_for(facts["thresholds"], accuracy, unfitted=unfitted)
        # Which promise nothing for one view, where they were chosen on several.
        points = facts.get("operating_points", ()) if self._views == facts["views"]["kind"] else ()
        self.operating_points: dict[str, float] = {
            each["class_name"]: each["threshold"] for each in points
        }
        self.sets, self.set_threshold = sets, self._set_threshold(sets)
        self.has_map = any(output.name == "where" for output in self._session.get_outputs())

    def predict(self, image: AnyPicture) -> Prediction:
        """What it says of one image. A broken one has an error and no label."""
        return self.predict_many([image])[0]

    def predict_many(self, images: Sequence[AnyPicture]) -> list[Prediction]:
        """What it says of each of `images`, in order, broken ones among them."""
        starts = range(0, len(images), BATCH_SIZE)
        batches = (self._predict_batch(images[n : n + BATCH_SIZE]) for n in starts)
        return list(chain.from_iterable(batches))

    def pixels(self, image: AnyPicture, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
        """`image` as the model sees it: (H, W, 3) uint8 of its own size. An array holds uint8, or
        floats in [0, 1], which count as uint8 divided by 255.

        max_pixels: that may be decoded. Raises BrokenPictureError where it can't be read.
        """
        return prepare_picture(
            image, size=self.image_size, max_pixels=max_pixels, window=self.window
        )

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits (N, C) of pixels (N, H, W, 3) uint8, with as many views as the run has.

        Floats in [0, 1] count as uint8 divided by 255. Raises TenfoldError for other types.
        """
        try:
            pixels = require_pixels(pixels)
        except BrokenPictureError as error:
            raise TenfoldError(f"What the model is to look at {error}.") from error
        parts = [
            self._logits_of(pixels[start : start + BATCH_SIZE])
            for start in range(0, len(pixels), BATCH_SIZE)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.class_names)), np.float32)

    def probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated probabilities (N, C) of pixels (N, H, W, 3) uint8."""
        return self.softmax(self.logits(pixels))

    predict_proba = probabilities

    def softmax(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Calibrated probabilities of logits, both (N, C)."""
        return softmax(logits / np.float32(self._temperature))

    def where(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where it looked, (N, h, w) from 0 up. Raises TenfoldError where it can't say."""
        if not self.has_map:
            raise TenfoldError(f"{self.path} has no maps; export the run with --maps.")
        found: NDArray[np.float32] = self._session.run(["where"], {"pixels": pixels})[0]
        return found

    def prediction(self, probabilities: NDArray[np.float32]) -> Prediction:
        """The prediction that probabilities (C,) of one image amount to."""
        order = np.argsort(-probabilities, kind="stable")
        confidence = float(probabilities[order[0]])
        by_class = {self.class_names[index]: float(probabilities[index]) for index in order}
        points = self.operating_points.items()
        return Prediction(
            self.class_names[order[0]],
            confidence,
            by_class,
            is_unsure=confidence < self.threshold,
            positive={name: by_class[name] >= least for name, least in points},
            conformal_set=set_of(self.class_names, probabilities, self.set_threshold),
        )

    def _set_threshold(self, coverage: float | None) -> float | None:
        if coverage is None:
            return None
        if self._views != self.facts["views"]["kind"]:
            raise TenfoldError(
                "The sets were fitted on predictions from several views of an image, and promise "
                "nothing for one; leave out --one-view or --sets."
            )
        if "sets" not in self.facts:
            raise TenfoldError(
                f"{self.path} is of an older tenfold, which exported no sets; export the run again."
            )
        unfitted = self.facts.get("unfitted", "")
        return set_threshold_for(self.facts["sets"], coverage, unfitted=unfitted)

    def _predict_batch(self, images: Sequence[AnyPicture]) -> list[Prediction]:
        read: list[NDArray[np.uint8] | str] = []
        for image in images:
            try:
                read.append(self.pixels(image))
            except BrokenPictureError as error:
                read.append(str(error))
        sound = [pixels for pixels in read if not isinstance(pixels, str)]
        rows = iter(self.probabilities(np.stack(sound)) if sound else ())
        return [
            Prediction("", 0.0, {}, each) if isinstance(each, str) else self.prediction(next(rows))
            for each in read
        ]

    def _logits_of(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The mean of the views, for the images that one view leaves unsure."""
        logits = self._once(pixels)
        places = np.flatnonzero(softmax(logits).max(axis=1) < self._views_below)
        if self._views == "one" or not len(places):
            return logits
        seen = pixels[places]
        views = [seen[:, :, ::-1]]
        if self._views == "six":
            height, width = seen.shape[1:3]
            padded = np.pad(seen, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
            for corner in (0, 2):
                shifted = padded[:, corner : corner + height, corner : corner + width]
                views += [shifted, shifted[:, :, ::-1]]
        mirrored, *others = np.split(self._once(np.concatenate(views)), len(views))
        mean = (logits[places] + mirrored) / 2
        if others:
            mean = mean / 2 + sum(others) / 8
        logits = logits.copy()
        logits[places] = mean
        return logits

    def _once(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._session.run(
            ["logits"], {"pixels": np.ascontiguousarray(pixels)}
        )[0]
        return found


def made_up_images(height: int, width: int) -> NDArray[np.uint8]:
    """A few images (N, H, W, 3), the same on every machine, to try a file with: coarse noise and
    fine. They are nobody's, and need not be kept."""
    number = 4 if height * width <= 1 << 14 else 2
    n, y, x, channel = np.indices((number, height, width, 3), dtype=np.uint32)
    mixed = (y >> n) * 73856093 ^ (x >> n) * 19349663 ^ channel * 83492791 ^ n * 39916801
    mixed = (mixed ^ mixed >> 13) * np.uint32(1274126177)
    return np.asarray(mixed >> 24, dtype=np.uint8)


def _require_same_logits(session: "InferenceSession", facts: dict[str, Any], path: Path) -> None:
    """Raise TenfoldError where this machine computes something else than the one that exported."""
    expected = np.array(facts["check"], dtype=np.float32)
    found = session.run(["logits"], {"pixels": made_up_images(*facts["image_size"])})[0]
    drift = float(np.abs(found - expected).mean() / max(float(np.ptp(expected)), 1e-3))
    if not drift <= MOST_DRIFT:
        raise TenfoldError(
            f"{path} answers otherwise here than where it was exported (its logits by {drift:.0%} "
            "of their range), so this processor or ONNX Runtime computes it wrongly; export the "
            "run here, or in floats, without --int8."
        )


def open_session(
    path: Path, *, threads: int = 0, spins: bool = True, exact: bool = False
) -> "InferenceSession":
    """ONNX Runtime on the processor with the file at `path`.

    spins: whether its threads keep their cores busy for a moment when they are done. exact: add
    products of eight-bit numbers in enough bits on every processor, which takes longer on some.
    Raises TenfoldError where it can't be opened.
    """
    try:
        import onnxruntime
    except ImportError:
        raise missing_extra("Exported models need ONNX Runtime", "export") from None
    if not path.is_file():
        raise TenfoldError(f"There is no model {path}; `tenfold export` writes one.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spins)))
    options.add_session_config_entry("session.x64quantprecision", str(int(exact)))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # What a damaged file makes it raise has no common base.
        if "opset" in str(error):
            raise TenfoldError(
                f"{path} is newer than ONNX Runtime {onnxruntime.__version__} here can read "
                f"({first_line(error)}); update that, or export with a lower --opset."
            ) from error
        raise TenfoldError(
            f"{path} is no ONNX model that can be read ({first_line(error)}); export the run again."
        ) from error


def read_facts(session: "InferenceSession", path: Path) -> dict[str, Any]:
    """What `tenfold export` wrote about the model. Raises TenfoldError where there is nothing."""
    kept = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    if kept is None:
        raise TenfoldError(
            f"{path} was not written by `tenfold export`, so its classes are not known; export the "
            "run again."
        )
    try:
        facts: dict[str, Any] = json.loads(kept)
        is_known = facts["format"] == FORMAT and set(facts) >= FACTS
    except (ValueError, TypeError, KeyError) as error:
        raise TenfoldError(
            f"What {path} says of itself can't be read; export the run again."
        ) from error
    if not is_known:
        raise TenfoldError(
            f"{path} was written by another version of tenfold, {facts.get('tenfold', 'unknown')}; "
            "export the run again."
        )
    return facts
