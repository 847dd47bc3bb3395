"""Parquet as the Hugging Face hub lays it out: an image file and a label in every row.

One or several files a split, which their names tell: `train-00000-of-00001.parquet`. The image
column, `img`, `image` or what the hub's metadata call one, holds bytes or a struct of `bytes` and
`path`, which without bytes names a file beside the table; the label column, `label`, `fine_label`
or another of the metadata, holds numbers or names. Class names come from the hub's own metadata if
there; otherwise each number that occurs is a class.
tenfold adds a column `id`. A column `group` or `patient` says which images belong together, however
it is spelt (`Patient ID`).
"""

import contextlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tenfold.data.folders import image_files
from tenfold.data.images import Source
from tenfold.data.tables import (
    GROUP_COLUMNS,
    Row,
    Table,
    as_text,
    header_of,
    names_declared,
    split_named,
)
from tenfold.errors import TenfoldError, counted, first_line

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {"Image": ("img", "image"), "ClassLabel": ("label", "fine_label", "labels")}
"""What the columns are called, by what the hub's metadata say that they are."""


def parquet_table(path: Path) -> Table:
    """The images in a parquet file, or in a folder of them; one file without a split is train."""
    rows: dict[str, list[Row]] = defaultdict(list)
    declared: tuple[str, ...] | None = None
    for split, files in files_by_split(path).items():
        for file in files:
            with open_table(file, str(file)) as opened:
                schema = opened.schema_arrow
                image, label = (column_of(schema, file, kind) for kind in COLUMNS)
                spelt = dict(zip(header_of(schema.names), schema.names, strict=True))
                group = [spelt[name] for name in GROUP_COLUMNS if name in spelt][:1]
                own_id = ["id"] if "id" in schema.names else []
                table = opened.read(columns=[image, label, *own_id, *group])
            labels = table.column(label).to_pylist()
            sources = images_in(table.column(image), file, image)
            ids, groups = (texts_in(table, column, file) for column in (own_id, group))
            shown = str(file) if file == path else file.relative_to(path).as_posix()
            rows[split] += [
                Row(
                    source,
                    f"{shown} row {n + 1}",
                    labels[n],
                    ids[n],
                    group=(groups[n] or "").strip(),
                )
                for n, source in enumerate(sources)
            ]
            feature = features_of(schema).get(label)
            if isinstance(feature, dict):  # Lists of labels have the names of their items.
                feature = feature.get("feature", feature)
            found = feature.get("names") if isinstance(feature, dict) else None
            names = names_declared(found, file) if isinstance(found, list) and found else None
            if names and declared and names != declared:
                raise TenfoldError(
                    f"{file} names other classes than the files before it; give one data set."
                )
            declared = names or declared
    return Table(rows, place=path, source=f"{path} (parquet)", declared=declared)


def files_by_split(path: Path) -> dict[str, list[Path]]:
    """The parquet files of each split, in order; see `parquet_table`."""
    if not path.is_dir():
        return {"train": [path]}
    files = [path / file.path for file in image_files(path, suffixes=(".parquet",))]
    if len(files) == 1:
        return {"train": files}
    found: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        words = re.split(r"[^a-z]+", str(file.relative_to(path).with_suffix("")).casefold())
        split = next((split for word in reversed(words) if (split := split_named(word))), None)
        if split is None:
            raise TenfoldError(f"{file} names no split; put train, val or test into its name.")
        if found[split] and found[split][0].parent != file.parent:
            raise TenfoldError(
                f"{path} holds several data sets, in {found[split][0].parent} and {file.parent}; "
                "give the folder of the one that is meant."
            )
        found[split].append(file)
    if "train" not in found:
        raise TenfoldError(f"{path} holds no parquet file of training images; check the path.")
    return found


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


def column_of(schema: "pa.Schema", file: Path, kind: str) -> str:
    """The column that holds images or labels, the kinds of COLUMNS. Raises TenfoldError where
    there is none."""
    hinted = [name for name, each in features_of(schema).items() if each.get("_type") == kind]
    known = list(COLUMNS[kind])
    # A hub's data set may have further labels, and calls its image as it likes.
    names = [*known, *hinted] if kind == "ClassLabel" else [*hinted, *known]
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        raise TenfoldError(
            f"{file} has no {'label' if kind == 'ClassLabel' else 'image'} column: "
            f"{' or '.join(dict.fromkeys(names))} was expected, and there are "
            f"{', '.join(schema.names) or 'no columns'}."
        )
    return found


def features_of(schema: "pa.Schema") -> dict[str, Any]:
    """What the hub's metadata say of the columns; empty without them."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return features if isinstance(features, dict) else {}


def texts_in(table: "pa.Table", columns: list[str], file: Path) -> list[str | None]:
    """The first of the columns as texts; Nones where there is none."""
    if not columns:
        return [None] * len(table)
    values = table.column(columns[0]).to_pylist()
    return [None if value is None else as_text(value, file) for value in values]


def images_in(column: "pa.ChunkedArray", file: Path, name: str) -> list[Source]:
    """The contents of image files, and the paths of those that are not in the table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = {"bytes": column, "path": column}
    if pa.types.is_struct(column.type):
        parts = {field.name: pc.struct_field(column, field.name) for field in column.type}
    found = {
        part: parts[part].to_pylist()
        for part, kind in (("bytes", "binary"), ("path", "string"))
        if part in parts and str(parts[part].type).removeprefix("large_") == kind
    }
    if not found:
        raise TenfoldError(f"{file}: column {name} holds {column.type}, no images; convert it.")
    contents, paths = (found.get(part) or [None] * len(column) for part in ("bytes", "path"))
    pairs = list(zip(contents, paths, strict=True))
    places: dict[str, str] = {}
    for content, path in pairs:
        if content is None and path:  # As it says, or beside the table.
            named = file.parent / path.replace("\\", "/")
            places[path] = str(named if named.is_file() else file.parent / named.name)
    if places and not any(map(os.path.exists, places.values())):
        path, place = next(iter(places.items()))
        raise TenfoldError(
            f"{file}: column {name} holds no bytes but the paths of "
            f"{counted(len(places), 'image file')}, and neither {path} nor {place} "
            "is there; put the files or their bytes there."
        )
    # A row with neither is a broken image.
    return [content or places.get(path, b"") for content, path in pairs]
