"""Parquet as the Hugging Face hub lays it out: an image file and a label in every row.

One or several files a split, which their names tell: `train-00000-of-00001.parquet`. The image
column, `img`, `image` or what the hub's metadata call one, holds bytes or a struct of `bytes` and
`path`, which without bytes names a file beside the table; the label column, `label`, `fine_label`
or another of the metadata, holds numbers or names. Class names come from the hub's own metadata if
there; otherwise each number that occurs is a class.
tenfold adds a column `id`. A column `group` or `patient` says which images belong together.
"""

import contextlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tenfold.data.folders import picture_files
from tenfold.data.images import Source
from tenfold.data.tables import (
    GROUP_COLUMNS,
    Label,
    Row,
    Table,
    as_text,
    names_declared,
    split_within,
)
from tenfold.errors import TenfoldError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "fine_label", "labels")


def parquet_table(path: Path) -> Table:
    """The data set in a parquet file, or in a folder of them; one file without a split is train.

    Raises TenfoldError where a file is damaged or lacks an image or label column, where a label
    is missing or out of range, and for broken images unless they are to be skipped.
    """
    table: dict[str, list[Row]] = defaultdict(list)
    declared: tuple[str, ...] | None = None
    for split, files in files_by_split(path).items():
        for file in files:
            rows, names = _read_file(file, path)
            if names and declared and names != declared:
                raise TenfoldError(f"{file} names other classes than the files before it.")
            declared = names or declared
            table[split] += rows
    return Table(table, place=path, source=f"{path} (parquet)", declared=declared)


def files_by_split(path: Path) -> dict[str, list[Path]]:
    """The parquet files of each split, in order; see `parquet_table`."""
    if not path.is_dir():
        return {"train": [path]}
    files = [path / file.path for file in picture_files(path, suffixes=(".parquet",))]
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
        raise TenfoldError(f"{path} holds no parquet file of training images; check the path.")
    return found


def _read_file(file: Path, root: Path) -> tuple[list[Row], tuple[str, ...] | None]:
    """The file's rows, and the class names if its metadata has them."""
    name = str(file) if file == root else file.relative_to(root).as_posix()
    with open_table(file, str(file)) as opened:
        schema = opened.schema_arrow
        image, label = image_column(schema, file), label_column(schema, file)
        group = next((name for name in GROUP_COLUMNS if name in schema.names), None)
        more = [name for name in ("id", group) if name in schema.names]
        table = opened.read(columns=[image, label, *more])
    labels = _labels(table.column(label), file, label)
    sources, ids = pictures_in(table.column(image), file, image), ids_in(table)
    groups = table.column(group).to_pylist() if group else [None] * len(table)
    rows = [
        Row(
            source,
            f"{name} row {row}",
            one,
            None if own is None else as_text(own, file),
            group="" if together is None else as_text(together, file),
        )
        for row, (source, one, own, together) in enumerate(
            zip(sources, labels, ids, groups, strict=True), start=1
        )
    ]
    return rows, _class_names(features_of(schema), label, file)


@contextlib.contextmanager
def open_table(file: "Path | IO[bytes]", name: str) -> Iterator[Any]:
    """The parquet file. Raises TenfoldError, also of what is read in the block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Buffered, a group of rows is not in memory whole.
        with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as opened:
            yield opened
    except (pa.ArrowException, OSError, ValueError) as error:
        raise TenfoldError(
            f"{name} can't be read as parquet ({first_line(error)}); it may be damaged: get it "
            "again."
        ) from error


def ids_in(table: "pa.Table") -> list[Any]:
    """The column `id`, or Nones."""
    has_ids = "id" in table.schema.names
    return list(table.column("id").to_pylist()) if has_ids else [None] * len(table)


def image_column(schema: "pa.Schema", file: Path) -> str:
    """The column that holds the images. Raises TenfoldError where there is none."""
    images = _of_kind(features_of(schema), "Image")
    return _column(schema, file, [*images, *IMAGE_COLUMNS], "image")


def label_column(schema: "pa.Schema", file: Path) -> str:
    """The column that holds the labels. Raises TenfoldError where there is none."""
    known = [name for name in LABEL_COLUMNS if name in schema.names]
    others = _of_kind(features_of(schema), "ClassLabel")
    return _column(schema, file, [*known, *others, *LABEL_COLUMNS], "label")


def _of_kind(features: dict[str, Any], kind: str) -> list[str]:
    """The columns that the hub's metadata say are images, or labels."""
    return [name for name, each in features.items() if each.get("_type") == kind]


def _column(schema: "pa.Schema", file: Path, names: Sequence[str], what: str) -> str:
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        raise TenfoldError(
            f"{file} has no {what} column: {' or '.join(dict.fromkeys(names))} was expected, and "
            f"there are {', '.join(schema.names) or 'no columns'}."
        )
    return found


def features_of(schema: "pa.Schema") -> dict[str, Any]:
    """What the hub's metadata say of the columns; empty without them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(features: dict[str, Any], label: str, file: Path) -> tuple[str, ...] | None:
    feature = features.get(label)
    if isinstance(feature, dict):  # a list of labels has its items' names
        feature = feature.get("feature", feature)
    names = feature.get("names") if isinstance(feature, dict) else None
    return names_declared(names, file) if isinstance(names, list) and names else None


def pictures_in(column: "pa.ChunkedArray", file: Path, name: str) -> list[Source]:
    """The contents of image files, and the paths of those that are not in the table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = {"bytes": column, "path": column}
    if pa.types.is_struct(column.type):
        parts = {field.name: pc.struct_field(column, field.name) for field in column.type}
    types = pa.types
    contents = _of_type(parts.get("bytes"), types.is_binary, types.is_large_binary)
    paths = _of_type(parts.get("path"), types.is_string, types.is_large_string)
    if contents is None and paths is None:
        raise TenfoldError(
            f"{file}: column {name} holds {column.type}, where the bytes of image files were "
            "expected."
        )
    nothing = [None] * len(column)
    pairs = list(zip(contents or nothing, paths or nothing, strict=True))
    places = {path: _beside(file, path) for content, path in pairs if content is None and path}
    if places and not any(os.path.exists(place) for place in places.values()):
        path, place = next(iter(places.items()))
        raise TenfoldError(
            f"{file}: column {name} holds no bytes but the paths of {len(places):,} image files, "
            f"such as {path}, and neither that nor {place} is there; put the files there, or their "
            "bytes into the table."
        )
    # A row with neither is a broken image.
    return [content or places.get(path, b"") for content, path in pairs]


def _of_type(
    column: "pa.ChunkedArray | None", *kinds: "Callable[[pa.DataType], bool]"
) -> list[Any] | None:
    """The values of a column of one of these kinds, None for another column."""
    if column is None or not any(is_kind(column.type) for is_kind in kinds):
        return None
    return list(column.to_pylist())


def _beside(file: Path, path: str) -> str:
    """Where the image file is that a table names: as it says, or beside the table."""
    named = file.parent / path.replace("\\", "/")
    return str(named if named.is_file() else file.parent / named.name)


def _labels(column: "pa.ChunkedArray", file: Path, name: str) -> list[Label]:
    labels: list[Label] = []
    for row, value in enumerate(column.to_pylist(), start=1):
        one = value[0] if isinstance(value, list) and len(value) == 1 else value
        if one is None or one != one:  # not a number
            raise TenfoldError(f"{file}: row {row} has no {name}; add it or remove the row.")
        if isinstance(one, bytes):
            one = as_text(one, file)
        if isinstance(one, int) or (isinstance(one, float) and one.is_integer()):
            one = int(one)
        if not isinstance(one, int | str):
            raise TenfoldError(
                f"{file}: column {name} holds {column.type}, such as {value!r} in row {row}, where "
                "a whole number or a name was expected for each image; convert it."
            )
        labels.append(one)
    return labels
