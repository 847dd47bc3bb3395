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
from typing import Any, NamedTuple

import numpy as np

from tenfold import __version__
from tenfold.data.arrays import NOTES, npz_keys, open_npz, read_npz
from tenfold.data.corrections import read_corrections, require_matching
from tenfold.data.csv_tables import (
    CLASSES_FILE,
    columns_of,
    csv_reader,
    delimiter_of,
    tables_at,
    text_of,
)
from tenfold.data.folders import with_name
from tenfold.data.formats import RELABELLED, TABLES, detect
from tenfold.data.images import Settings, distinct_ids
from tenfold.data.parquet import column_of, features_of, files_by_split, open_table
from tenfold.data.sources import is_known
from tenfold.data.tables import Row, Table, header_of, ids_of, number_table, plain_name, printable
from tenfold.data.writing import ROWS_A_GROUP, new_folder, require_free
from tenfold.errors import TenfoldError, counted
from tenfold.files import atomic_file, write_json


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
    """classes: before, of each image by split and id. changes: its new class by its id, or None
    where it is dropped. is_declared: whether labels that are numbers are indices into names."""

    data: Path
    table: Table | None
    classes: Mapping[str, Mapping[str, str]]
    changes: Mapping[str, str | None]
    names: Sequence[str]
    is_declared: bool

    def changes_of(self, split: str) -> list[str | None]:
        """Of each image of a split; empty where it stays."""
        return [self.changes.get(name, "") for name in self.classes[split]]

    def rows(self) -> Iterator[tuple[str, Row, str | None]]:
        """Of the table, each with its split and change; those without labels stay."""
        for split, rows in self.table.rows.items() if self.table else ():
            changes = self.changes_of(split) if split in self.classes else [""] * len(rows)
            for row, change in zip(rows, changes, strict=True):
                yield split, row, change

    def label(self, value: Any, change: str | None) -> Any:
        """A label as it was kept, or what it is corrected to in the same type."""
        if not change:
            return value
        if isinstance(value, list):
            return [self.label(value[0], change)]
        if isinstance(value, bytes | str):
            return change.encode() if isinstance(value, bytes) else change
        return self.names.index(change) if self.is_declared else int(change)


def relabel(data: Path, corrections: Path, out: Path) -> Relabelled:
    """Write the data set at `data`, mended by the file `corrections`, to `out`: a new folder, or an
    npz file for an npz file.

    Raises TenfoldError where something is at `out` already, for a data set of another format, and
    as `read_corrections` and `require_matching` do.
    """
    from tenfold.run import now

    found, data, out = read_corrections(corrections), with_name(data), out.absolute()
    kind = detect(data) if data.exists() or not is_known(str(data)) else "named"
    if kind not in (*TABLES, "npz"):
        raise TenfoldError(
            f"{data} is not kept in files whose labels can be mended: write it as some with "
            f"`tenfold data export {data} FOLDER` and mend those, or train with "
            "--set data.corrections=FILE."
        )
    require_free(out)
    if data.is_dir() and out.resolve().is_relative_to(data.resolve()):
        raise TenfoldError(f"{out} lies in {data} itself; choose a place outside of it.")
    if kind == "npz" and out.suffix != ".npz":
        raise TenfoldError(f"{out} must end in .npz, as {data.name} is an npz file; rename it.")
    plan = _planned(kind, data)
    before = {name: label for own in plan.classes.values() for name, label in own.items()}
    require_matching(found, ids=before, class_names=plan.names, place=data)
    dropped = [name for name in before if name in found and found[name].action == "drop"]
    wanted = {name: each.label for name, each in found.items() if each.action == "correct"}
    corrected = {n: (old, wanted[n]) for n, old in before.items() if wanted.get(n, old) != old}
    changes = {name: new for name, (_, new) in corrected.items()} | dict.fromkeys(dropped)
    plan = plan._replace(changes=changes)
    for split in plan.classes:
        if set(plan.changes_of(split)) == {None}:
            raise TenfoldError(f"Every image of the {split} split would be dropped; keep some.")
    actions = Counter(each.action for each in found.values())
    note = (
        f"Made from {data.name} by {corrections.name}: {counted(len(corrected), 'label')} "
        f"corrected, {counted(len(dropped), 'image')} dropped, {actions['keep']:,} kept after a "
        f"look, {actions['unsure']:,} unsure and left as they are."
    )
    places = {"from": str(data.absolute()), "corrections": str(corrections.absolute())}
    record: dict[str, Any] = {"note": note, **places, "tenfold": __version__, "time": now()}
    record |= {"corrected": {n: list(pair) for n, pair in corrected.items()}, "dropped": dropped}
    if kind == "npz":
        _write_npz(plan, out, record)
    else:
        with new_folder(out) as folder:
            _WRITERS[kind](plan, folder)
            write_json(folder / RELABELLED, record)
    path = out / data.name if kind == "csv" and data.is_file() else out
    return Relabelled(path, corrected, dropped, note)


def _planned(kind: str, data: Path) -> _Plan:
    """Without changes yet."""
    table = None
    if kind == "npz":
        splits = read_npz(data, Settings()).splits()
        names, is_declared = splits["train"].class_names, "class_names" in open_npz(data)
        ids = {split: own.ids.tolist() for split, own in splits.items()}
        labels = {split: own.labels for split, own in splits.items()}
    else:
        table = TABLES[kind](data)
        rows, (names, labels, _) = number_table(table)
        ids = {split: ids_of(split, own).tolist() for split, own in rows.items()}
        is_declared = bool(table.declared)
    classes = {
        split: dict(zip(own, (names[label] for label in labels[split]), strict=True))
        for split, own in distinct_ids(ids, data).items()
    }
    return _Plan(data, table, classes, {}, names, is_declared)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


def _write_images(plan: _Plan, folder: Path) -> None:
    """Copies in the folders of their classes; a name that is taken there gets a number."""
    assert plan.table is not None
    assert plan.table.root is not None
    root, above = plan.table.root, plan.table.folders or {}
    paths = [
        (len(Path(above[split]).parts), Path(os.path.relpath(str(row.source), root)), change)
        for split, row, change in plan.rows()
    ]
    spelt = {
        plain_name(printable(path.parts[depth])): path.parts[depth] for depth, path, _ in paths
    }
    taken = {path for _, path, _ in paths}
    for depth, path, change in paths:
        target, number = path, 1
        if change:
            target = Path(*path.parts[:depth], spelt.get(change, change), *path.parts[depth + 1 :])
            while target in taken:
                number += 1
                target = target.with_stem(f"{path.stem}-{number}")
            taken.add(target)
        if change is not None:
            _copy(root / path, folder / target)


def _write_csv(plan: _Plan, folder: Path) -> None:
    """Copies, and the tables with other labels and fewer lines; other columns stay."""
    root, tables = tables_at(plan.data)
    for _, row, change in plan.rows():
        if change is not None:
            _copy(Path(str(row.source)), folder / os.path.relpath(str(row.source), root))
    changes = {row.place: change for _, row, change in plan.rows()}
    for file in set(tables.values()):
        text, mended = text_of(file), io.StringIO(newline="")
        reader, end = csv_reader(text), "\r\n" if "\r\n" in text else "\n"
        writer = csv.writer(mended, delimiter=delimiter_of(text), lineterminator=end)
        first = next(reader)
        label = header_of(first).index(columns_of(header_of(first), file)[1])
        writer.writerow(first)
        for values in filter(any, reader):
            change = changes[f"{file} line {reader.line_num}"]
            if change is not None:
                values[label] = change or values[label]
                writer.writerow(values)
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mended.getvalue(), encoding="utf-8", newline="")
    if (root / CLASSES_FILE).is_file():
        _copy(root / CLASSES_FILE, folder / CLASSES_FILE)


def _write_parquet(plan: _Plan, folder: Path) -> None:
    """The files with other labels and fewer rows; where images are dropped and had no ids but
    their numbers, they get these as ids, so that an image keeps its own. Images that the table only
    names are copied too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    above = plan.data if plan.data.is_dir() else plan.data.parent
    for split, files in files_by_split(plan.data).items():
        done = 0
        for file in files:
            target = folder / file.relative_to(above)
            target.parent.mkdir(parents=True, exist_ok=True)
            if split not in plan.classes:
                _copy(file, target)
                continue
            with open_table(file, str(file)) as opened:
                part = opened.read()
            rows = slice(done, done + len(part))
            done, changes = rows.stop, plan.changes_of(split)
            place = part.schema.get_field_index(column_of(part.schema, file, "ClassLabel"))
            field, before = part.schema.field(place), part.column(place).to_pylist()
            mended = [plan.label(*pair) for pair in zip(before, changes[rows], strict=True)]
            part = part.set_column(place, field, pa.array(mended, field.type))
            if None in changes and "id" not in part.schema.names:
                ids, metadata = list(plan.classes[split])[rows], dict(part.schema.metadata or {})
                if features := features_of(part.schema):
                    features["id"] = {"dtype": "string", "_type": "Value"}
                    info = json.loads(metadata[b"huggingface"])
                    info["info"]["features"] = features
                    metadata[b"huggingface"] = json.dumps(info).encode()
                part = part.append_column("id", pa.array(ids, pa.string()))
                part = part.replace_schema_metadata(metadata)
            part = part.filter(pa.array([change is not None for change in changes[rows]]))
            pq.write_table(part, target, row_group_size=ROWS_A_GROUP)
    for _, row, change in plan.rows():
        if isinstance(row.source, str) and change is not None:
            path = Path(row.source)
            if path.is_relative_to(above) and path.is_file():
                _copy(path, folder / path.relative_to(above))


def _write_npz(plan: _Plan, out: Path, record: Mapping[str, Any]) -> None:
    """The arrays with other labels and fewer images; images without ids get their numbers as ids
    where some are dropped."""
    arrays = open_npz(plan.data)
    for split, (images, key) in npz_keys(arrays).items():
        if split not in plan.classes:
            continue
        before, changes = arrays[key], plan.changes_of(split)
        mended = [plan.label(*pair) for pair in zip(before.tolist(), changes, strict=True)]
        arrays[key] = np.array(mended, before.dtype if before.dtype.kind in "iu" else None)
        if None in changes:
            keep = [place for place, change in enumerate(changes) if change is not None]
            arrays.setdefault(f"{split}_ids", np.array(list(plan.classes[split])))
            own = (f"{split}_{kind}" for kind in ("ids", "groups", "original_sizes"))
            for name in {images, key, *own} & set(arrays):
                arrays[name] = arrays[name][keep]
    said = arrays.get(NOTES, np.array([], dtype=np.str_)).tolist()
    arrays[NOTES] = np.array([*said, record["note"]])
    arrays["relabelled"] = np.array(json.dumps(record))
    with atomic_file(out) as file:
        np.savez(file, allow_pickle=False, **arrays)


_WRITERS = {"images": _write_images, "csv": _write_csv, "parquet": _write_parquet}
