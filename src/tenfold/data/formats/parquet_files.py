"""Parquet as the Hugging Face hub lays it out: a picture file and a label in every row.

One or several files a split, which their names tell: `train-00000-of-00001.parquet`. The picture
column, `img` or `image`, holds bytes or a struct of `bytes` and `path`; the label column, `label`
or `fine_label`, holds numbers or names. Class names come from the hub's own metadata if there.
tenfold adds a column `id`.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.formats.encoding import encode_all
from tenfold.data.formats.listings import Listing, Settings, decode_listings, sorted_names
from tenfold.data.formats.output import new_folder
from tenfold.data.formats.split_names import SPLITS, split_within
from tenfold.data.images import PHOTO_SIZE, Dataset, Images, numbered_ids
from tenfold.errors import TenfoldError, first_line
from tenfold.progress import Progress

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")
_ROWS_A_GROUP = 1000


@dataclass
class _Rows:
    """The rows of one split; a label is a number or a name, as the file has it."""

    pictures: list[bytes]
    shown: list[str]
    labels: list[Any]
    ids: list[str]


def read_parquet(
    path: Path,
    *,
    image_size: int = 0,
    photo_size: int = PHOTO_SIZE,
    skip_broken: bool = False,
    white_level: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """The data set in a parquet file, or in a folder of them; one file without a split is train.

    Raises TenfoldError where a file is damaged or lacks a picture or label column, where a label
    is missing or out of range, and for broken pictures unless they are to be skipped.
    """
    files = _files_by_split(path)
    splits: dict[str, _Rows] = {}
    class_names: tuple[str, ...] | None = None
    notes = []
    for split in SPLITS:
        rows = _Rows([], [], [], [])
        for file in files.get(split, ()):
            names = _read_file(file, path, rows)
            if names and class_names and names != class_names:
                raise TenfoldError(f"{file} names other classes than the files before it.")
            class_names = names or class_names
        if rows.labels and all(label == -1 for label in rows.labels):
            notes.append(f"The {split} split of {path} has no labels and was left out.")
        elif rows.labels:
            splits[split] = rows
    class_names = class_names or _names_from_labels(splits)
    listings = {
        split: Listing(
            rows.pictures,
            rows.shown,
            _numbers(rows, class_names),
            rows.ids or numbered_ids(split, len(rows.labels)).tolist(),
        )
        for split, rows in splits.items()
    }
    return decode_listings(
        listings,
        place=path,
        class_names=class_names,
        source=f"{path} (parquet)",
        settings=Settings(image_size, skip_broken, progress, photo_size, white_level),
        notes=notes,
    )


def write_parquet(dataset: Dataset, path: Path, *, progress: Progress | None = None) -> None:
    """Write the data set into a new folder of one parquet file a split, pictures as PNG.

    The folder appears whole or not at all. Raises TenfoldError where it exists and isn't empty,
    and where the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {
        "img": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(dataset.class_names)},
        "id": {"dtype": "string", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("img", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("id", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    with new_folder(path) as folder:
        for split, images in dataset.splits().items():
            file = folder / f"{split}-00000-of-00001.parquet"
            with pq.ParquetWriter(file, schema) as writer:
                for table in _tables(images, schema, split=split, progress=progress):
                    writer.write_table(table)


def _tables(
    images: Images, schema: "pa.Schema", *, split: str, progress: Progress | None
) -> "Iterator[pa.Table]":
    import pyarrow as pa

    start = 0
    label = f"Writing the {split} split"
    pending: list[bytes] = []
    for encoded in encode_all(images.pixels, label=label, progress=progress):
        pending += encoded
        if len(pending) < _ROWS_A_GROUP and start + len(pending) < len(images):
            continue
        rows = slice(start, start + len(pending))
        columns = [
            pa.array([{"bytes": content, "path": None} for content in pending], schema[0].type),
            pa.array(images.labels[rows]),
            pa.array(images.ids[rows].tolist(), pa.string()),
        ]
        yield pa.Table.from_arrays(columns, schema=schema)
        start, pending = rows.stop, []


def _files_by_split(path: Path) -> dict[str, list[Path]]:
    if not path.is_dir():
        return {"train": [path]}
    files = [
        file
        for file in sorted(path.rglob("*.parquet"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]
    if len(files) == 1:
        return {"train": files}
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        split = split_within(file.relative_to(path).as_posix().removesuffix(".parquet"))
        if split is None:
            raise TenfoldError(
                f"{file} names no split: train, validation or test was expected in its name."
            )
        if found[split] and found[split][0].parent != file.parent:
            raise TenfoldError(
                f"{path} holds several data sets, in {found[split][0].parent} and {file.parent}; "
                "give the folder of the one that is meant."
            )
        found[split].append(file)
    if "train" not in found:
        raise TenfoldError(f"{path} holds no parquet file of training pictures; check the path.")
    return found


def _read_file(file: Path, root: Path, rows: _Rows) -> tuple[str, ...] | None:
    """Add the file's rows to `rows`, and return the class names if its metadata has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = str(file) if file == root else file.relative_to(root).as_posix()
    try:
        with pq.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            features = _features(schema)
            image = _column(schema, file, IMAGE_COLUMNS, what="picture")
            label = _column(schema, file, LABEL_COLUMNS, what="label")
            columns = [image, label, *(["id"] if "id" in schema.names else [])]
            table = opened.read(columns=columns)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TenfoldError(
            f"{file} can't be read as parquet ({first_line(error)}); it may be damaged: get it "
            "again."
        ) from error
    if table.column(label).null_count:
        row = table.column(label).is_null().to_pylist().index(True)
        raise TenfoldError(f"{file}: row {row + 1} has no {label}; add it or remove the row.")
    rows.pictures += _contents(table.column(image), file, image)
    rows.labels += table.column(label).to_pylist()
    rows.shown += [f"{name} row {row}" for row in range(1, len(table) + 1)]
    if "id" in columns:
        rows.ids += [str(value) for value in table.column("id").to_pylist()]
        if len(set(rows.ids)) != len(rows.labels):
            raise TenfoldError(f"{file}: column id names two pictures alike; make ids unique.")
    return _class_names(features, label)


def _column(schema: "pa.Schema", file: Path, names: Sequence[str], *, what: str) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        raise TenfoldError(
            f"{file} has no {what} column: {' or '.join(names)} was expected, and there are "
            f"{', '.join(schema.names) or 'no columns'}."
        )
    return found


def _features(schema: "pa.Schema") -> dict[str, Any]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(features: dict[str, Any], label: str) -> tuple[str, ...] | None:
    feature = features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(map(str, names)) if isinstance(names, list) and names else None


def _contents(column: "pa.ChunkedArray", file: Path, name: str) -> list[bytes]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_struct(kind) and any(field.name == "bytes" for field in kind):
        column = pc.struct_field(column, "bytes")
        kind = column.type
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise TenfoldError(
            f"{file}: column {name} holds {kind}, where the bytes of picture files were expected."
        )
    return [content or b"" for content in column.to_pylist()]  # none: a broken picture


def _names_from_labels(splits: dict[str, _Rows]) -> tuple[str, ...]:
    labels = {label for rows in splits.values() for label in rows.labels}
    if labels and all(isinstance(label, int) for label in labels):
        return tuple(str(number) for number in range(max(labels) + 1))
    return sorted_names(str(label) for label in labels)


def _numbers(rows: _Rows, class_names: tuple[str, ...]) -> NDArray[np.int64]:
    number_of: dict[Any, int] = {name: number for number, name in enumerate(class_names)}
    number_of |= {number: number for number in range(len(class_names))}
    for shown, label in zip(rows.shown, rows.labels, strict=True):
        if label not in number_of:
            is_number = isinstance(label, int)
            allowed = f"0 to {len(class_names) - 1}" if is_number else ", ".join(class_names[:20])
            raise TenfoldError(f"{shown}: the label is {label!r}, and {allowed} are allowed.")
    return np.array([number_of[label] for label in rows.labels], dtype=np.int64)
