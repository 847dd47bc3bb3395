"""Predictions of any number of images as a folder: a table for each part, and a manifest.

A part's file is whole or not there, so that a process that was killed, or one of several that share
the parts, goes on with those that are missing.
"""

import csv
import hashlib
import io
import itertools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from tenfold.data.csv_tables import table_text
from tenfold.data.image_sources import Part
from tenfold.errors import TenfoldError, first_line
from tenfold.evaluation.image_predictions import (
    ImagePrediction,
    Model,
    predict_parts,
    table_of,
)
from tenfold.files import write_bytes, write_json
from tenfold.progress import Progress

MANIFEST = "manifest.json"


class Settings(BaseModel, extra="forbid", frozen=True, protected_namespaces=()):
    """What all parts of a folder have in common.

    model_sha256: of the model's file; temperature: by which a run's logits are divided; threshold:
    the confidence below which an image is unsure, where asked for; set_threshold: the probability
    from which on a class belongs to an image's set, where asked for; operating_points: by class,
    that from which on an image counts as one of it; images_sha256: of the names of all images, or
    of the tables and shards and their sizes, in order.
    """

    model_sha256: str
    temperature: float
    threshold: float | None
    set_threshold: float | None = None
    operating_points: dict[str, float] = Field(default_factory=dict)
    class_names: tuple[str, ...]
    top: int
    file_format: Literal["csv", "parquet"]
    images_sha256: str
    num_parts: int


class Counts(BaseModel, extra="forbid", frozen=True):
    """How far it has come: finished parts, and the images and broken images in them."""

    num_parts: int = 0
    num_images: int = 0
    num_broken: int = 0


class Manifest(BaseModel, extra="forbid", frozen=True):
    """What `manifest.json` holds; model and images as they were named at first."""

    format: Literal[1] = 1
    model: str
    images: tuple[str, ...]
    settings: Settings
    finished: Counts = Counts()

    @property
    def is_complete(self) -> bool:
        """Whether no part is missing."""
        return self.finished.num_parts == self.settings.num_parts


def checksum_of(file: Path) -> str:
    """SHA-256 of a file. Raises TenfoldError where it can't be read."""
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise TenfoldError(f"{file} can't be read ({error.strerror}); check the path.") from error


def images_checksum(parts: Sequence[Part]) -> str:
    """SHA-256 of what tells these parts from others."""
    digest = hashlib.sha256()
    for name in itertools.chain.from_iterable(part.names() for part in parts):
        digest.update(name.encode(errors="surrogateescape") + b"\n")
    return digest.hexdigest()


class Table(NamedTuple):
    """A part predicted: the content of its file, its images and the broken ones of them."""

    content: bytes
    num_images: int
    num_broken: int


Predict = Callable[[Sequence[Part]], Generator[tuple[int, Table], None, None]]
"""Predicts parts: the position of each among them, and its table, in any order."""


def predict_here(model: Model, settings: Settings, *, progress: Progress | None = None) -> Predict:
    """Predict parts in this process, one after the other; it raises as `predict_parts`."""

    def predict(parts: Sequence[Part]) -> Generator[tuple[int, Table], None, None]:
        found = predict_parts(
            model,
            parts,
            top=settings.top,
            threshold=settings.threshold or 0.0,
            set_threshold=settings.set_threshold,
            progress=progress,
        )
        with closing(found):
            for position, batches in itertools.groupby(found, key=lambda batch: batch[0]):
                predictions = [prediction for _, some in batches for prediction in some]
                num_broken = sum(prediction.error is not None for prediction in predictions)
                content = _content(predictions, settings)
                yield position, Table(content, len(predictions), num_broken)

    return predict


def predict_to_folder(
    predict: Predict,
    parts: Sequence[Part],
    folder: Path,
    *,
    manifest: Manifest,
    share: tuple[int, int] = (1, 1),
    on_part: Callable[[Path, Table], None] | None = None,
) -> Manifest:
    """Predict the parts that `folder` lacks, and return its manifest afterwards.

    share: which of how many processes this is, from 1; it takes the parts at its turn. on_part:
    called with each file that is written and what is in it. Raises TenfoldError where the folder
    holds anything else or predictions of other settings, and as `predict`.
    """
    manifest = _begin(folder, manifest)
    settings, (number, of) = manifest.settings, share
    files = _files(folder, settings)
    missing = [n for n in range(number - 1, len(parts), of) if not files[n].exists()]
    with closing(predict([parts[n] for n in missing])) as found:
        for position, table in found:
            file = files[missing[position]]
            write_bytes(file, table.content)
            if on_part is not None:
                on_part(file, table)
    return _count(folder, manifest)


def _files(folder: Path, settings: Settings) -> list[Path]:
    return [
        folder / f"part-{number:05}.{settings.file_format}" for number in range(settings.num_parts)
    ]


def _begin(folder: Path, manifest: Manifest) -> Manifest:
    """The folder's own manifest, where it has one, or else this one, which is written."""
    file = folder / MANIFEST
    try:
        known = Manifest.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = {each.name for each in folder.iterdir()} if folder.is_dir() else set[str]()
        if MANIFEST in names:  # By another process meanwhile.
            return _begin(folder, manifest)
        if any(not name.startswith(".") for name in names):
            raise TenfoldError(
                f"{folder} holds something else, for it has no {MANIFEST}; give another folder."
            ) from None
        write_json(file, manifest.model_dump(mode="json"))
        return manifest
    except (OSError, ValidationError, UnicodeDecodeError) as error:
        raise TenfoldError(
            f"{file} can't be read as a manifest of predictions ({first_line(error)}); give "
            "another folder."
        ) from error
    others = {
        "model_sha256": f"of another model ({known.model})",
        "images_sha256": f"of other images ({', '.join(known.images[:3])})",
    }
    new = dict(manifest.settings)
    old = {key: value for key, value in known.settings if value != new[key]}
    if what := next((words for key, words in others.items() if key in old), None):
        raise TenfoldError(f"{folder} holds predictions {what}; give another folder.")
    for key, value in old.items():
        raise TenfoldError(
            f"{folder} holds predictions with {key.replace('_', ' ')} {value}, where now it is "
            f"{new[key]}; give another folder, or the same options."
        )
    return known


def _content(predictions: list[ImagePrediction], settings: Settings) -> bytes:
    asked = {
        "has_unsure": settings.threshold is not None,
        "has_sets": settings.set_threshold is not None,
        "has_points": bool(settings.operating_points),
    }
    columns, rows = table_of(predictions, top=settings.top, **asked)
    if settings.file_format == "csv":
        return table_text(columns, rows).encode(errors="backslashreplace")
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = {}
    for number, name in enumerate(columns):
        cells = [row[number] or None for row in rows]
        if name.startswith("probability"):
            arrays[name] = pa.array([float(cell) if cell else None for cell in cells], pa.float64())
        elif name == "unsure":
            arrays[name] = pa.array([cell is not None for cell in cells], pa.bool_())
        elif name == "set":
            sets = [list(prediction.conformal_set) or None for prediction in predictions]
            arrays[name] = pa.array(sets, pa.list_(pa.string()))
        elif name == "positive":
            found = [list(prediction.positive) for prediction in predictions]
            arrays[name] = pa.array(found, pa.list_(pa.string()))
        else:
            arrays[name] = pa.array(cells, pa.string())
    stream = io.BytesIO()
    pq.write_table(pa.table(arrays), stream)
    return stream.getvalue()


def _count(folder: Path, manifest: Manifest) -> Manifest:
    """Write down what is finished; again where another process finished more meanwhile."""
    files, counted = _files(folder, manifest.settings), None
    while (finished := [file for file in files if file.exists()]) != counted:
        counted = finished
        errors = [_errors_in(file) for file in counted]
        counts = Counts(
            num_parts=len(counted),
            num_images=sum(map(len, errors)),
            num_broken=sum(1 for some in errors for error in some if error),
        )
        manifest = manifest.model_copy(update={"finished": counts})
        write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def _errors_in(file: Path) -> list[str | None]:
    """The column `error` of a part."""
    if file.suffix == ".csv":
        with open(file, encoding="utf-8", newline="") as opened:
            return [row["error"] for row in csv.DictReader(opened)]
    import pyarrow.parquet as pq

    return list(pq.read_table(file, columns=["error"]).column("error").to_pylist())
