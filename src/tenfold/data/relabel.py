"""A data set with mended labels, written as a new one, in the format of the old.

Image files are copied as they are, and bytes in tables stay the same bytes; nothing is decoded.
"""

import csv
import io
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tenfold import __version__
from tenfold.data.arrays import NOTES, npz_keys, open_npz, read_npz
from tenfold.data.corrections import Correction, read_corrections, require_matching
from tenfold.data.csv_tables import (
    CLASSES_FILE,
    columns_of,
    delimiter_of,
    header_of,
    tables_at,
    text_of,
)
from tenfold.data.formats import RELABELLED, TABLES, detect
from tenfold.data.images import Settings, distinct_ids
from tenfold.data.parquet import features_of, files_by_split, label_column, open_table
from tenfold.data.sources import is_known
from tenfold.data.tables import Table, ids_of, number_table, plain_name, printable
from tenfold.data.writing import new_folder, require_free
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


_AS_IT_IS, _DROPPED = "", None
_Outcomes = dict[str, list[str | None]]
"""By split, what becomes of each image: _AS_IT_IS, _DROPPED, or the class that it has now."""


class _Plan(NamedTuple):
    outcomes: _Outcomes
    corrected: dict[str, tuple[str, str]]
    dropped: list[str]


def relabel(data: Path, corrections: Path, out: Path) -> Relabelled:
    """Write the data set at `data`, mended by the file `corrections`, to `out`: a new folder, or an
    npz file for an npz file.

    Raises TenfoldError where something is at `out` already, for a data set of another format, and
    as `read_corrections` and `require_matching` do.
    """
    found = read_corrections(corrections)
    is_place = data.exists() or not is_known(str(data))
    kind, out = detect(data) if is_place else "named", out.absolute()
    if kind not in (*TABLES, "npz"):
        raise TenfoldError(
            f"{data} is not kept in files whose labels can be mended: write it as some with "
            f"`tenfold data export {data} FOLDER` and mend those, or train with "
            "--set data.corrections=FILE."
        )
    require_free(out)
    if data.is_dir() and out.is_relative_to(data.absolute()):
        raise TenfoldError(f"{out} lies in {data} itself; choose a place outside of it.")
    if kind == "npz":
        return _relabel_npz(data, corrections, found, out)
    table = TABLES[kind](data)
    rows, numbered = number_table(table)
    names = numbered.class_names
    ids = distinct_ids({split: ids_of(split, own).tolist() for split, own in rows.items()}, data)
    labels = {split: [names[label] for label in own] for split, own in numbered.labels.items()}
    plan = _plan(ids, labels, found, names, data)
    record = _record(plan, data, corrections, found)
    with new_folder(out) as folder:
        if kind == "parquet":
            for split, files in files_by_split(data).items():
                _write_parquet(data, files, plan, ids.get(split, []), names, table, split, folder)
        elif kind == "csv":
            _write_csv(data, table, plan, folder)
        else:
            _write_images(table, plan, folder)
        write_json(folder / RELABELLED, record)
    path = out / data.name if kind == "csv" and data.is_file() else out
    return Relabelled(path, plan.corrected, plan.dropped, record["note"])


def _plan(
    ids: Mapping[str, Sequence[str]],
    labels: Mapping[str, Sequence[str]],
    corrections: Mapping[str, Correction],
    class_names: Sequence[str],
    place: Path,
) -> _Plan:
    every = [name for own in ids.values() for name in own]
    require_matching(corrections, ids=every, class_names=class_names, place=place)
    plan = _Plan({}, {}, [])
    for split, own in ids.items():
        outcomes = plan.outcomes[split] = list[str | None]()
        for name, label in zip(own, labels[split], strict=True):
            found = corrections.get(name)
            if found and found.action == "drop":
                plan.dropped.append(name)
                outcomes.append(_DROPPED)
            elif found and found.action == "correct" and found.label != label:
                plan.corrected[name] = (label, found.label)
                outcomes.append(found.label)
            else:
                outcomes.append(_AS_IT_IS)
        if all(outcome is _DROPPED for outcome in outcomes):
            raise TenfoldError(f"Every image of the {split} split would be dropped; keep some.")
    return plan


def _record(
    plan: _Plan, data: Path, corrections: Path, found: Mapping[str, Correction]
) -> dict[str, Any]:
    """What is written beside the images of where they are from and what was done."""
    from tenfold.run import now

    counts = {
        action: sum(each.action == action for each in found.values())
        for action in ("keep", "unsure")
    }
    note = (
        f"Made from {data.name} by {corrections.name}: "
        f"{counted(len(plan.corrected), 'label')} corrected, "
        f"{counted(len(plan.dropped), 'image')} dropped, {counts['keep']:,} kept after a look, "
        f"{counts['unsure']:,} unsure and left as they are."
    )
    return {
        "note": note,
        "from": str(data.absolute()),
        "corrections": str(corrections.absolute()),
        "tenfold": __version__,
        "time": now(),
        "corrected": {name: list(pair) for name, pair in plan.corrected.items()},
        "dropped": plan.dropped,
    }


# -- folders of image files, with or without a table ----------------------------------------------


def _write_images(table: Table, plan: _Plan, folder: Path) -> None:
    """Copies in the folders of their classes; a name that is taken there gets a number."""
    assert table.root is not None
    paths = {split: _paths(table, split) for split in table.rows}
    depths = {split: _depth(table, split, own) for split, own in paths.items()}
    folders = {
        split: {plain_name(printable(path.parts[depths[split]])): path.parts[depths[split]]
                for path in own}
        for split, own in paths.items()
    }  # fmt: skip
    every = {name: own for names in folders.values() for name, own in names.items()}
    taken = {path for own in paths.values() for path in own}
    for split, own in paths.items():
        for path, outcome in zip(own, plan.outcomes[split], strict=True):
            target = path
            if outcome:
                parts, name = list(path.parts), folders[split].get(outcome)
                parts[depths[split]] = name or every.get(outcome, outcome)
                target, number = Path(*parts), 1
                while target in taken:
                    number += 1
                    target = Path(*parts).with_stem(f"{path.stem}-{number}")
                taken.add(target)
            if outcome is not _DROPPED:
                _copy(table.root / path, folder / target)


def _paths(table: Table, split: str) -> list[Path]:
    """Of the files of a split, from the root of the data set on."""
    return [Path(os.path.relpath(str(row.source), table.root)) for row in table.rows[split]]


def _depth(table: Table, split: str, paths: Sequence[Path]) -> int:
    """How many folders there are above the class folders of a split."""
    labels = [str(row.label) for row in table.rows[split]]
    return next(
        depth
        for depth in range(min(len(path.parts) for path in paths))
        if all(
            plain_name(printable(path.parts[depth])) == label
            for path, label in zip(paths, labels, strict=True)
        )
    )


def _write_csv(data: Path, table: Table, plan: _Plan, folder: Path) -> None:
    """Copies, and the tables with other labels and fewer lines; other columns stay."""
    root, tables = tables_at(data)
    outcomes = dict[str, str | None]()
    for split, rows in table.rows.items():
        # A split without labels has no outcomes, and stays.
        own = plan.outcomes.get(split, [_AS_IT_IS] * len(rows))
        for row, path, outcome in zip(rows, _paths(table, split), own, strict=True):
            outcomes[row.place] = outcome
            if outcome is not _DROPPED:
                _copy(root / path, folder / path)
    for file in set(tables.values()):
        target = folder / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_table_text(file, outcomes), encoding="utf-8", newline="")
    if (root / CLASSES_FILE).is_file():
        _copy(root / CLASSES_FILE, folder / CLASSES_FILE)


def _table_text(file: Path, outcomes: Mapping[str, str | None]) -> str:
    text = text_of(file)
    delimiter, mended = delimiter_of(text), io.StringIO(newline="")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    end = "\r\n" if "\r\n" in text else "\n"
    writer = csv.writer(mended, delimiter=delimiter, lineterminator=end)
    first = next(reader)
    header = header_of(first)
    label = header.index(columns_of(header, file)[1])
    writer.writerow(first)
    for values in reader:
        outcome = outcomes.get(f"{file} line {reader.line_num}", _AS_IT_IS)
        if outcome is _DROPPED or not any(values):
            continue
        writer.writerow([*values[:label], outcome or values[label], *values[label + 1 :]])
    return mended.getvalue()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


# -- parquet --------------------------------------------------------------------------------------


def _write_parquet(
    data: Path,
    files: Sequence[Path],
    plan: _Plan,
    ids: Sequence[str],
    names: Sequence[str],
    table: Table,
    split: str,
    folder: Path,
) -> None:
    """The files of a split, row group by row group; where images are dropped and had no ids but
    their numbers, they get these as ids, so that an image keeps its own."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = 0
    for file in files:
        target = folder / (file.name if file == data else file.relative_to(data))
        target.parent.mkdir(parents=True, exist_ok=True)
        if split not in plan.outcomes:
            _copy(file, target)
            continue
        with open_table(file, str(file)) as opened:
            schema, label = opened.schema_arrow, label_column(opened.schema_arrow, file)
            adds_ids = bool(plan.dropped) and "id" not in schema.names
            with pq.ParquetWriter(target, _with_ids(schema) if adds_ids else schema) as writer:
                for group in range(opened.num_row_groups):
                    part = opened.read_row_group(group)
                    rows = slice(done, done + len(part))
                    outcomes, done = plan.outcomes[split][rows], rows.stop
                    column = _mended(part.column(label), outcomes, names, table.declared)
                    place = part.schema.get_field_index(label)
                    part = part.set_column(place, part.schema.field(place), column)
                    if adds_ids:
                        part = part.append_column("id", pa.array(ids[rows], pa.string()))
                    keep = pa.array([outcome is not _DROPPED for outcome in outcomes])
                    writer.write_table(part.filter(keep))
        _copy_images(table, plan, split, file, target)


def _mended(
    column: "pa.ChunkedArray",
    outcomes: Sequence[str | None],
    names: Sequence[str],
    declared: Sequence[str] | None,
) -> "pa.Array":
    """The labels of some rows, those that are corrected in the type of the others."""
    import pyarrow as pa

    kinds = pa.types
    is_list = kinds.is_list(column.type) or kinds.is_large_list(column.type)
    own = column.type.value_type if is_list else column.type
    values = column.to_pylist()
    for place, outcome in enumerate(outcomes):
        if outcome:
            value: Any = outcome
            if kinds.is_integer(own) or kinds.is_floating(own):
                value = names.index(outcome) if declared else int(outcome)
            elif kinds.is_binary(own) or kinds.is_large_binary(own):
                value = outcome.encode()
            values[place] = [value] if is_list else value
    return pa.array(values, column.type)


def _with_ids(schema: "pa.Schema") -> "pa.Schema":
    import pyarrow as pa

    metadata = dict(schema.metadata or {})
    if features := features_of(schema):
        info = json.loads(metadata[b"huggingface"])
        info["info"]["features"] = {**features, "id": {"dtype": "string", "_type": "Value"}}
        metadata[b"huggingface"] = json.dumps(info).encode()
    return schema.append(pa.field("id", pa.string())).with_metadata(metadata)


def _copy_images(table: Table, plan: _Plan, split: str, file: Path, target: Path) -> None:
    """Of images that the table only names, those beside it."""
    for row, outcome in zip(table.rows[split], plan.outcomes[split], strict=True):
        if isinstance(row.source, str) and outcome is not _DROPPED:
            path = Path(row.source)
            if path.is_relative_to(file.parent) and path.is_file():
                _copy(path, target.parent / path.relative_to(file.parent))


# -- npz ------------------------------------------------------------------------------------------


def _relabel_npz(
    data: Path, corrections: Path, found: Mapping[str, Correction], out: Path
) -> Relabelled:
    """The arrays with other labels and fewer images; images without ids get their numbers as ids
    where some are dropped."""
    if out.suffix != ".npz":
        raise TenfoldError(f"{out} must end in .npz, as {data.name} is an npz file; rename it.")
    arrays, dataset = open_npz(data), read_npz(data, Settings())
    splits, names = dataset.splits(), dataset.class_names
    ids = distinct_ids({split: own.ids.tolist() for split, own in splits.items()}, data)
    labels = {split: [names[label] for label in own.labels] for split, own in splits.items()}
    plan = _plan(ids, labels, found, names, data)
    record = _record(plan, data, corrections, found)
    for split, (images, key) in npz_keys(arrays).items():
        if split not in plan.outcomes:
            continue
        outcomes = plan.outcomes[split]
        is_number = arrays[key].dtype.kind in "iu"
        values = arrays[key].tolist()
        for place, outcome in enumerate(outcomes):
            if outcome:
                number = names.index(outcome) if "class_names" in arrays else outcome
                value = int(number) if is_number else outcome
                values[place] = [value] if arrays[key].ndim == 2 else value
        arrays[key] = np.array(values, arrays[key].dtype if is_number else None)
        keep = np.array([outcome is not _DROPPED for outcome in outcomes])
        if not keep.all():
            arrays[f"{split}_ids"] = np.array(splits[split].ids)
            beside = (f"{split}_ids", f"{split}_original_sizes")
            for name in {images, key, *beside} & set(arrays):
                arrays[name] = arrays[name][keep]
    before = arrays.get(NOTES, np.array([], dtype=np.str_)).tolist()
    arrays[NOTES] = np.array([*before, record["note"]])
    arrays["relabelled"] = np.array(json.dumps(record))
    with atomic_file(out) as file:
        np.savez(file, allow_pickle=False, **arrays)
    return Relabelled(out, plan.corrected, plan.dropped, record["note"])
