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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.decoding import (
    MAX_PIXELS,
    AnyImage,
    BrokenImageError,
    Window,
    prepare_image,
    require_pixels,
)
from tenfold.errors import TenfoldError, first_line, missing_extra
from tenfold.evaluation.probabilities import softmax
from tenfold.evaluation.thresholds import confidence_for, set_of, set_threshold_for

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

METADATA_KEY, FORMAT = "tenfold", 1
FACTS = {"class_names", "image_size", "temperature", "thresholds", "views", "accuracy", "data"}
EVEN = 0.5  # The calibrated confidence below which a prediction is likelier wrong than right.
BATCH_SIZE = 64
# By which logits of made-up images may differ from those of the export, as a share of their
# range: other kinds of processors round otherwise, by far less.
MOST_DRIFT = 0.005

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What the model says of an image.

    label: the likeliest class, empty where the image is broken. confidence: of that class,
    calibrated. probabilities: by class, the likeliest first. error: why an image is broken, else
    empty. is_unsure: whether the confidence is below the threshold asked for. positive: of each
    class that `tenfold evaluate --sensitivity` chose a threshold for, whether its probability
    reaches that. conformal_set: the classes that hold the true one as often as asked for, the
    likeliest first; empty where nothing was asked for.
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
    validation. one_view: look at each image once, where the run looks at unsure ones several times,
    on which accuracy, sets and operating points are fitted.
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
        self.path, self.sets = Path(path), sets
        opened = partial(open_session, self.path, threads=threads, spins=not shares_cores)
        self._session = opened()
        self.facts = facts = read_facts(self._session, self.path)
        if "check" in facts:
            _require_same_logits(self._session, facts, self.path)
        else:  # By a version whose sums of eight-bit products are too large for some processors.
            self._session = opened(exact=True)
        self.class_names: tuple[str, ...] = tuple(facts["class_names"])
        self.image_size: tuple[int, int] = tuple(facts["image_size"])
        self.window: Window = tuple(facts.get("window", ()))
        self.has_map = any(output.name == "where" for output in self._session.get_outputs())
        # What was fitted on several views promises nothing for one.
        self._is_as_fitted = not one_view or facts["views"]["kind"] == "one"
        self._views: str = facts["views"]["kind"] if self._is_as_fitted else "one"
        fitted = facts if self._is_as_fitted else {}
        points = fitted.get("operating_points", ())
        self.operating_points = {str(p["class_name"]): float(p["threshold"]) for p in points}
        unfitted, self.threshold, self.set_threshold = facts.get("unfitted", ""), 0.0, None
        if not self._is_as_fitted:
            unfitted = "they were fitted on several views of an image; leave out --one-view."
        if accuracy is not None:
            known = fitted.get("thresholds", ())
            self.threshold = confidence_for(known, accuracy, unfitted=unfitted)
        if sets is not None:
            if self._is_as_fitted and "sets" not in facts:
                unfitted = f"{path} is of an older tenfold; export the run again."
            known = fitted.get("sets", ())
            self.set_threshold = set_threshold_for(known, sets, unfitted=unfitted)

    def predict(self, image: AnyImage) -> Prediction:
        """What it says of one image. A broken one has an error and no label."""
        return self.predict_many([image])[0]

    def predict_many(self, images: Sequence[AnyImage]) -> list[Prediction]:
        """What it says of each of `images`, in order, broken ones among them."""
        found: list[Prediction] = []
        for start in range(0, len(images), BATCH_SIZE):
            read: list[Pixels | str] = []
            for image in images[start : start + BATCH_SIZE]:
                try:
                    read.append(self.pixels(image))
                except BrokenImageError as error:
                    read.append(str(error))
            sound = [each for each in read if not isinstance(each, str)]
            rows = iter(self.probabilities(np.stack(sound)) if sound else ())
            found += [
                Prediction("", 0.0, {}, each)
                if isinstance(each, str)
                else self.prediction(next(rows))
                for each in read
            ]
        return found

    def pixels(self, image: AnyImage, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """`image` as the model sees it: (H, W, 3) uint8 of its own size. An array holds uint8, or
        floats in [0, 1], which count as uint8 divided by 255.

        max_pixels: that may be decoded. Raises BrokenImageError where it can't be read.
        """
        return prepare_image(image, size=self.image_size, max_pixels=max_pixels, window=self.window)

    def logits(self, pixels: Pixels) -> Floats:
        """Logits (N, C) of pixels (N, H, W, 3) uint8, with as many views as the run has.

        Floats in [0, 1] count as uint8 divided by 255. Raises TenfoldError for other types.
        """
        try:
            pixels = require_pixels(pixels)
        except BrokenImageError as error:
            raise TenfoldError(f"What the model is to look at {error}.") from error
        none = np.empty((0, len(self.class_names)), np.float32)
        starts = range(0, len(pixels), BATCH_SIZE)
        return np.concatenate([none, *(self._by_views(pixels[n : n + BATCH_SIZE]) for n in starts)])

    def probabilities(self, pixels: Pixels) -> Floats:
        """Calibrated probabilities (N, C) of pixels (N, H, W, 3) uint8."""
        return self.softmax(self.logits(pixels))

    predict_proba = probabilities

    def softmax(self, logits: Floats) -> Floats:
        """Calibrated probabilities of logits, both (N, C)."""
        return softmax(logits / np.float32(self.facts["temperature"]))

    def where(self, pixels: Pixels) -> Floats:
        """Where it looked, (N, h, w) from 0 up. Raises TenfoldError where it can't say."""
        if not self.has_map:
            raise TenfoldError(f"{self.path} has no maps; export the run with --maps.")
        found: Floats = self._session.run(["where"], {"pixels": pixels})[0]
        return found

    def prediction(self, probabilities: Floats) -> Prediction:
        """The prediction that probabilities (C,) of one image amount to."""
        order = np.argsort(-probabilities, kind="stable")
        by_class = {self.class_names[index]: float(probabilities[index]) for index in order}
        label, confidence = next(iter(by_class.items()))
        positive = {name: by_class[name] >= least for name, least in self.operating_points.items()}
        held = set_of(self.class_names, probabilities, self.set_threshold)
        unsure = confidence < self.threshold
        return Prediction(label, confidence, by_class, "", unsure, positive, held)

    def known_to_page(self, name: str) -> dict[str, Any]:
        """What a page in a browser needs to know of this model, which is called `name`."""
        own = ("class_names", "image_size", "window", "threshold", "sets", "has_map")
        stated = ("accuracy", "data", "temperature", "samples", "scores")
        facts = {"samples": [], "scores": {}, "operating_points": [], **self.facts}
        measured_views = facts["views"]["kind"]
        if not self._is_as_fitted and (measured := facts.get("one_view")):
            split, measured_views = measured["split"], "one"
            facts |= {"accuracy": {split: measured["accuracy"]}, "scores": {split: measured}}
        points = [p for p in facts["operating_points"] if p["class_name"] in self.operating_points]
        known = {**{k: getattr(self, k) for k in own}, **{k: facts[k] for k in stated}}
        views = {**facts["views"], "kind": self._views}
        known |= {"views": views, "measured_views": measured_views, "operating_points": points}
        return {"name": name, **known}

    def _by_views(self, pixels: Pixels) -> Floats:
        """As `evaluation.trained.logits_of_views` has them: the mean of several views of those
        images that one view leaves unsure."""
        logits = self._once(pixels)
        places = np.flatnonzero(softmax(logits).max(axis=1) < self.facts["views"]["below"])
        if self._views == "one" or not len(places):
            return logits
        seen = pixels[places]
        views, share = [seen[:, :, ::-1]], 1 / 2
        if self._views == "six":
            height, width = seen.shape[1:3]
            padded = np.pad(seen, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
            for corner in (0, 2):
                shifted = padded[:, corner : corner + height, corner : corner + width]
                views += [shifted, shifted[:, :, ::-1]]
            share = 1 / 4
        mirrored, *others = np.split(self._once(np.concatenate(views)), len(views))
        logits[places] = share * (logits[places] + mirrored) + sum(others) / 8
        return logits

    def _once(self, pixels: Pixels) -> Floats:
        found: Floats = self._session.run(["logits"], {"pixels": np.ascontiguousarray(pixels)})[0]
        return found


def made_up_images(height: int, width: int) -> Pixels:
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
            "of their range); export the run here, or in floats, without --int8."
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
        raise TenfoldError(
            f"{path} is no ONNX model that ONNX Runtime {onnxruntime.__version__} can read "
            f"({first_line(error)}); export the run again, with a lower --opset if it is too new."
        ) from error


def read_facts(session: "InferenceSession", path: Path) -> dict[str, Any]:
    """What `tenfold export` wrote about the model. Raises TenfoldError where that is not there."""
    try:
        known = session.get_modelmeta().custom_metadata_map
        facts: dict[str, Any] = json.loads(known[METADATA_KEY])
        if facts["format"] == FORMAT and set(facts) >= FACTS:
            return facts
        wrote = f"was written by another version of tenfold, {facts.get('tenfold', 'unknown')}"
    except (ValueError, TypeError, KeyError):
        wrote = "does not say what `tenfold export` writes of its classes"
    raise TenfoldError(f"{path} {wrote}; export the run again.")
