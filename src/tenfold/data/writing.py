"""Data sets as files: numbered PNG files with CSV labels, parquet, and npz; whole or not at all."""

import contextlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tenfold.data.csv_tables import CLASSES_FILE, ORIGINAL_ID, table_text
from tenfold.data.encoding import png_bytes
from tenfold.data.images import Dataset, Images, numbered_ids
from tenfold.data.tables import GROUP_COLUMNS
from tenfold.data.workers import map_chunks
from tenfold.errors import TenfoldError
from tenfold.files import atomic_file, replacing, require_writable, write_text
from tenfold.progress import Progress

ROWS_A_GROUP = 1000
GROUP = GROUP_COLUMNS[0]


def write_folder(dataset: Dataset, path: Path, *, progress: Progress | None = None) -> None:
    """Write the data set into a new folder of numbered PNG files with CSV files of their labels.

    `train/1.png` is labelled in `trainLabels.csv`, and so on for the other splits; `classes.txt`
    keeps the order of the classes. Raises TenfoldError as `new_folder` does.
    """
    for name in dataset.class_names:
        if not name.strip() or "\n" in name or "\r" in name:
            raise TenfoldError(f"The class name {name!r} doesn't fit on a line; rename the class.")
    with new_folder(path) as folder:
        write_text(folder / CLASSES_FILE, "".join(f"{name}\n" for name in dataset.class_names))
        for split, images in dataset.splits().items():
            (folder / split).mkdir()
            for number, content in enumerate(_png_files(images, split, progress), start=1):
                (folder / split / f"{number}.png").write_bytes(content)
            names = [images.class_names[label] for label in images.labels]
            columns: dict[str, Sequence[Any]] = {"id": range(1, len(names) + 1), "label": names}
            if not np.array_equal(images.ids, numbered_ids(split, len(images))):
                columns[ORIGINAL_ID] = images.ids.tolist()
            if images.groups is not None:
                columns[GROUP] = images.groups.tolist()
            text = table_text(list(columns), zip(*columns.values(), strict=True))
            write_text(folder / f"{split}Labels.csv", text)


def write_parquet(dataset: Dataset, path: Path, *, progress: Progress | None = None) -> None:
    """Write the data set into a new folder of one parquet file a split, images as PNG. Raises
    TenfoldError as `new_folder` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    splits, text = dataset.splits(), {"dtype": "string", "_type": "Value"}
    features: dict[str, Any] = {
        "img": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": list(dataset.class_names)},
        "id": text,
    }
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("img", image), ("label", pa.int64()), ("id", pa.string())]
    has_groups = any(images.groups is not None for images in splits.values())
    if has_groups:
        features[GROUP] = text
        fields.append((GROUP, pa.string()))
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(fields, metadata=metadata)
    with new_folder(path) as folder:
        for split, images in splits.items():
            contents = _png_files(images, split, progress)
            own = images.groups
            groups = [""] * len(images) if own is None else own.tolist()
            file = folder / f"{split}-00000-of-00001.parquet"
            with pq.ParquetWriter(file, schema) as writer:
                for start in range(0, len(images), ROWS_A_GROUP):
                    rows = slice(start, start + ROWS_A_GROUP)
                    some = itertools.islice(contents, ROWS_A_GROUP)
                    columns = {
                        "img": pa.array([{"bytes": each, "path": None} for each in some], image),
                        "label": images.labels[rows],
                        "id": images.ids[rows].tolist(),
                        GROUP: groups[rows],
                    }
                    columns = {name: columns[name] for name in schema.names}
                    writer.write_table(pa.table(columns, schema=schema))


def write_npz(dataset: Dataset, path: Path, *, progress: Progress | None = None) -> None:
    """Write the data set as one npz file. Raises TenfoldError where something is at `path` already,
    and where the disk is full."""
    require_free(path)
    arrays: dict[str, NDArray[Any]] = {"class_names": np.array(dataset.class_names, dtype=np.str_)}
    for split, images in dataset.splits().items():
        arrays[f"{split}_images"] = images.pixels
        arrays[f"{split}_labels"] = images.labels
        arrays[f"{split}_ids"] = images.ids
        if images.original_sizes is not None:
            arrays[f"{split}_original_sizes"] = images.original_sizes
        if images.groups is not None:
            arrays[f"{split}_groups"] = images.groups
    with atomic_file(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
        if progress is not None:
            progress("Writing arrays", len(arrays), len(arrays))


def _png_files(images: Images, split: str, progress: Progress | None) -> Iterator[bytes]:
    chunks = map_chunks(_encode, images.pixels, f"Writing the {split} split", progress)
    with contextlib.closing(chunks):
        for _, contents in chunks:
            yield from contents


def _encode(pixels: NDArray[np.uint8]) -> list[bytes]:
    return [png_bytes(image) for image in pixels]


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it once the block is through. Raises
    TenfoldError where something is there already, and where the disk is full."""
    require_new(path)
    try:
        with replacing(path) as temporary:
            temporary.mkdir()
            yield temporary
            if path.is_dir():
                path.rmdir()  # Empty; somebody who filled it meanwhile gets an error, not a loss.
    except OSError as error:
        raise TenfoldError(
            f"{path} could not be written ({error.strerror or error}); free some space or choose "
            "another folder, and run the same command again."
        ) from error


def require_new(path: Path) -> None:
    """Raise TenfoldError where something is at `path` already, or nothing can be written there."""
    require_free(path)
    require_writable(path.parent)


def require_free(path: Path) -> None:
    """Raise TenfoldError where something is at `path` other than an empty folder."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists() or path.is_symlink():
        raise TenfoldError(f"{path} exists already; remove it or choose another place.")


WRITERS = {"folder": write_folder, "parquet": write_parquet, "npz": write_npz}
