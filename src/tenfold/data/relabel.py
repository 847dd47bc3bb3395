"""A data set with mended labels, written as a new one, in the format of the old.

Image files are copied as they are, and bytes in tables stay the same bytes; nothing is decoded.
"""

import csv
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold import __version__
from tenfold.data.arrays import NOTES, npz_keys, open_npz, read_npz
from tenfold.data.corrections import Correction, read_corrections, require_matching
from tenfold.data.csv_tables import (
    CLASSES_FILE,
    columns_of,
    csv_reader,
    delimiter_of,
    header_of,
    tables_at,
    text_of,
)
from tenfold.data.formats import RELABELLED, TABLES, detect
from tenfold.data.images import Settings, distinct_ids
from tenfold.data.parquet import column_of, features_of, files_by_split, open_table
from tenfold.data.sources import is_known
from tenfold.data.tables import Row, Table, ids_of, number_table, plain_name, printable
from tenfold.data.writing import ROWS_A_GROUP, new_folder, require_free
from tenfold.errors import TenfoldError, counted
from tenfold.files import atomic_file, write_json

if TYPE_CHECKING:
    import pyarrow as pa


class Relabelled(NamedTuple):
    """A data set that was written. path: what `load` takes.

    corrected: old and new class of each image whose label was another, by id. dropped: ids. note:
    what was done, as a sentence.
    """

    path: Path
    corrected: dict[str, tuple[str, str]]
    dropped: list[str]
    note: str


class _Plan(NamedTuple):
    """What becomes of the images of a data set: by split, the id of each and its new class, empty
    where it stays and None where the image is dropped. is_declared: whether labels that are
    numbers are indices into class_names."""

    ids: Mapping[str, Sequence[str]]
    outcomes: Mapping[str, Sequence[str | None]]
    class_names: Sequence[str]
    is_declared: bool

    def is_kept(self, split: str) -> NDArray[np.bool_]:
        """Of each image of a split."""
        return np.array([outcome is not None for outcome in self.outcomes[split]])

    def changes(self, table: Table) -> Iterator[tuple[str, Row, str | None]]:
        """Each row that stays or not, with its split and outcome; those without labels stay."""
        for split, rows in table.rows.items():
            for row, outcome in zip(rows, self.outcomes.get(split, [""] * len(rows)), strict=True):
                yield split, row, outcome

    def labels(self, values: Sequence[Any], outcomes: Sequence[str | None]) -> list[Any]:
        """Some labels as they were kept, those that are corrected in the type of the others."""

        def like(value: Any, name: str) -> Any:
            if isinstance(value, list):
                return [like(value[0], name)]
            if isinstance(value, bytes | str):
                return name.encode() if isinstance(value, bytes) else name
            return self.class_names.index(name) if self.is_declared else int(name)

        pairs = zip(values, outcomes, strict=True)
        return [like(value, name) if name else value for value, name in pairs]


def relabel(data: Path, corrections: Path, out: Path) -> Relabelled:
    """Write the data set at `data`, mended by the file `corrections`, to `out`: a new folder, or an
    npz file for an npz file.

    Raises TenfoldError where something is at `out` already, for a data set of another format, and
    as `read_corrections` and `require_matching` do.
    """
    found, out = read_corrections(corrections), out.absolute()
    kind = detect(data) if data.exists() or not is_known(str(data)) else "named"
    if kind not in (*TABLES, "npz"):
        raise TenfoldError(
            f"{data} is not kept in files whose labels can be mended: write it as some with "
            f"`tenfold data export {data} FOLDER` and mend those, or train with "
            "--set data.corrections=FILE."
        )
    require_free(out)
    if data.is_dir() and out.is_relative_to(data.absolute()):
        raise TenfoldError(f"{out} lies in {data} itself; choose a place outside of it.")
    if kind == "npz" and out.suffix != ".npz":
        raise TenfoldError(f"{out} must end in .npz, as {data.name} is an npz file; rename it.")
    if kind == "npz":
        splits = read_npz(data, Settings()).splits()
        ids = {split: own.ids.tolist() for split, own in splits.items()}
        names, labels = splits["train"].class_names, {s: own.labels for s, own in splits.items()}
        is_declared = "class_names" in open_npz(data)
    else:
        table = TABLES[kind](data)
        rows, (names, labels, _) = number_table(table)
        ids = {split: ids_of(split, own).tolist() for split, own in rows.items()}
        is_declared = table.declared is not None
    ids = dict(distinct_ids(ids, data))
    every = [name for own in ids.values() for name in own]
    require_matching(found, ids=every, class_names=names, place=data)
    done = Relabelled(out / data.name if kind == "csv" and data.is_file() else out, {}, [], "")
    outcomes = {}
    for split, own in ids.items():
        outcomes[split] = [
            _outcome(found.get(name), name, names[label], done)
            for name, label in zip(own, labels[split], strict=True)
        ]
        if all(outcome is None for outcome in outcomes[split]):
            raise TenfoldError(f"Every image of the {split} split would be dropped; keep some.")
    plan, record = _Plan(ids, outcomes, names, is_declared), _record(done, data, corrections, found)
    if kind == "npz":
        _write_npz(data, plan, out, record)
    else:
        with new_folder(out) as folder:
            _WRITERS[kind](data, table, plan, folder)
            write_json(folder / RELABELLED, record)
    return done._replace(note=record["note"])


def _outcome(correction: Correction | None, name: str, label: str, done: Relabelled) -> str | None:
    """Of the image `name`, which is written down in `done`."""
    if correction and correction.action == "drop":
        done.dropped.append(name)
        return None
    if correction and correction.action == "correct" and correction.label != label:
        done.corrected[name] = (label, correction.label)
        return correction.label
    return ""


def _record(
    done: Relabelled, data: Path, corrections: Path, found: Mapping[str, Correction]
) -> dict[str, Any]:
    """What is written beside the images of where they are from and what was done."""
    from tenfold.run import now

    actions = Counter(each.action for each in found.values())
    return {
        "note": f"Made from {data.name} by {corrections.name}: "
        f"{counted(len(done.corrected), 'label')} corrected, "
        f"{counted(len(done.dropped), 'image')} dropped, {actions['keep']:,} kept after a look, "
        f"{actions['unsure']:,} unsure and left as they are.",
        "from": str(data.absolute()),
        "corrections": str(corrections.absolute()),
        "tenfold": __version__,
        "time": now(),
        "corrected": {name: list(pair) for name, pair in done.corrected.items()},
        "dropped": done.dropped,
    }


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _write_images(data: Path, table: Table, plan: _Plan, folder: Path) -> None:
    """Copies in the folders of their classes; a name that is taken there gets a number."""
    assert table.root is not None
    assert table.folders is not None
    root = table.root
    changes = [
        (len(Path(table.folders[split]).parts), Path(os.path.relpath(str(row.source), root)), name)
        for split, row, name in plan.changes(table)
    ]
    spelt = {
        plain_name(printable(path.parts[depth])): path.parts[depth] for depth, path, _ in changes
    }
    taken = {path for _, path, _ in changes}
    for depth, path, name in changes:
        target, number = path, 1
        if name:
            moved = Path(*path.parts[:depth], spelt.get(name, name), *path.parts[depth + 1 :])
            target = moved
            while target in taken:
                number += 1
                target = moved.with_stem(f"{path.stem}-{number}")
            taken.add(target)
        if name is not None:
            _copy(root / path, folder / target)


def _write_csv(data: Path, table: Table, plan: _Plan, folder: Path) -> None:
    """Copies, and the tables with other labels and fewer lines; other columns stay."""
    root, tables = tables_at(data)
    outcomes = {row.place: outcome for _, row, outcome in plan.changes(table)}
    for _, row, outcome in plan.changes(table):
        if outcome is not None:
            _copy(Path(str(row.source)), folder / os.path.relpath(str(row.source), root))
    for file in set(tables.values()):
        text, mended = text_of(file), io.StringIO(newline="")
        reader, end = csv_reader(text), "\r\n" if "\r\n" in text else "\n"
        writer = csv.writer(mended, delimiter=delimiter_of(text), lineterminator=end)
        first = next(reader)
        header = header_of(first)
        label = header.index(columns_of(header, file)[1])
        writer.writerow(first)
        for values in filter(any, reader):
            outcome = outcomes[f"{file} line {reader.line_num}"]
            if outcome is not None:
                writer.writerow([*values[:label], outcome or values[label], *values[label + 1 :]])
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mended.getvalue(), encoding="utf-8", newline="")
    if (root / CLASSES_FILE).is_file():
        _copy(root / CLASSES_FILE, folder / CLASSES_FILE)


def _write_parquet(data: Path, table: Table, plan: _Plan, folder: Path) -> None:
    """The files with other labels and fewer rows; where images are dropped and had no ids but
    their numbers, they get these as ids, so that an image keeps its own. Images that the table only
    names are copied too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    above = data if data.is_dir() else data.parent
    for split, files in files_by_split(data).items():
        done = 0
        for file in files:
            target = folder / file.relative_to(above)
            target.parent.mkdir(parents=True, exist_ok=True)
            if split not in plan.outcomes:
                _copy(file, target)
                continue
            with open_table(file, str(file)) as opened:
                part = opened.read()
            rows = slice(done, done + len(part))
            done, label = rows.stop, column_of(part.schema, file, "ClassLabel")
            place = part.schema.get_field_index(label)
            mended = plan.labels(part.column(label).to_pylist(), plan.outcomes[split][rows])
            field = part.schema.field(place)
            part = part.set_column(place, field, pa.array(mended, field.type))
            if not plan.is_kept(split).all() and "id" not in part.schema.names:
                metadata = _with_ids(part.schema)
                part = part.append_column("id", pa.array(plan.ids[split][rows], pa.string()))
                part = part.replace_schema_metadata(metadata)
            part = part.filter(pa.array(plan.is_kept(split)[rows]))
            pq.write_table(part, target, row_group_size=ROWS_A_GROUP)
    for _, row, outcome in plan.changes(table):
        if isinstance(row.source, str) and outcome is not None:
            path = Path(row.source)
            if path.is_relative_to(above) and path.is_file():
                _copy(path, folder / path.relative_to(above))


def _with_ids(schema: "pa.Schema") -> dict[bytes, bytes]:
    """The schema's metadata, with what the hub says of a column of ids."""
    metadata = dict(schema.metadata or {})
    if features := features_of(schema):
        info = json.loads(metadata[b"huggingface"])
        info["info"]["features"] = {**features, "id": {"dtype": "string", "_type": "Value"}}
        metadata[b"huggingface"] = json.dumps(info).encode()
    return metadata


def _write_npz(data: Path, plan: _Plan, out: Path, record: dict[str, Any]) -> None:
    """The arrays with other labels and fewer images; images without ids get their numbers as ids
    where some are dropped."""
    arrays = open_npz(data)
    for split, (images, key) in npz_keys(arrays).items():
        if split not in plan.outcomes:
            continue
        before, keep = arrays[key], plan.is_kept(split)
        values = plan.labels(before.tolist(), plan.outcomes[split])
        arrays[key] = np.array(values, before.dtype if before.dtype.kind in "iu" else None)
        if not keep.all():
            arrays.setdefault(f"{split}_ids", np.array(plan.ids[split]))
            beside = (f"{split}_ids", f"{split}_original_sizes")
            for name in {images, key, *beside} & set(arrays):
                arrays[name] = arrays[name][keep]
    said = arrays.get(NOTES, np.array([], dtype=np.str_)).tolist()
    arrays[NOTES] = np.array([*said, record["note"]])
    arrays["relabelled"] = np.array(json.dumps(record))
    with atomic_file(out) as file:
        np.savez(file, allow_pickle=False, **arrays)


_WRITERS = {"images": _write_images, "csv": _write_csv, "parquet": _write_parquet}
