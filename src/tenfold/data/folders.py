"""Folders of image files, one folder a class.

`train/cat/tom.jpg`, beside `val`, `valid` or `validation`, and `test`; or `cat/tom.jpg` without
splits, which is all training data but for a `test/cat/tim.jpg` beside it. `tables` has more
spellings. Folders and files whose names begin with a dot, and the litter of operating systems, are
passed over. A class folder may hold folders of its own.
"""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from tenfold.data.tables import SPLITS, Row, Table, plain_name, printable, split_named
from tenfold.errors import TenfoldError, counted

logger = logging.getLogger("tenfold")

# Kinds that can't be read are among them, so that such files are reported and not passed over.
IMAGE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".jxl"),
    *(".dcm", ".dicom"),
)
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found"})
_PLAIN_NAMES = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
"""Names of splits that can be taken without a word."""


class ImageFile(NamedTuple):
    """An image file. path: from a root folder on, with forward slashes; stamp: changes whenever
    the file does."""

    path: str
    stamp: str


def image_files(
    root: Path,
    folder: str = "",
    *,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
    ancestors: Sequence[tuple[int, int]] = (),
) -> Iterator[ImageFile]:
    """The image files in `folder` below `root` at any depth, by suffix, sorted by path. ancestors:
    the folders that it is in, by device and number."""
    status = (root / folder).stat()
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors and status.st_ino:  # a link that leads back up
        return
    for entry in _visible(root / folder):
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.is_dir():
            above = (*ancestors, identity)
            yield from image_files(root, path, suffixes=suffixes, ancestors=above)
        elif entry.name.lower().endswith(suffixes):
            # One that is replaced may have the size and the time of the one before.
            try:
                s = entry.stat()
                stamp = f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
            except OSError:  # A dangling link.
                stamp = "-"
            yield ImageFile(path, f"{path} {stamp}")


def with_name(path: Path) -> Path:
    """The path, in full where its last part is no name, as in `.` and `..`."""
    return path if path.name.strip(".") else path.resolve()


def folder_within(path: Path) -> Path:
    """The folder, or the only one in it if that holds folders itself, as unpacked archives do."""
    visible = _visible(path)
    if len(visible) != 1 or not visible[0].is_dir() or split_named(visible[0].name):
        return path
    inner = Path(visible[0].path)
    return folder_within(inner) if subfolders(inner) else path


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without litter."""
    return [entry.name for entry in _visible(path) if entry.is_dir()]


def class_folders(root: Path) -> set[str]:
    """Names of what may be class folders: in `root`, and in folders there that mean splits."""
    folders = subfolders(root)
    inner = {name for each in folders if split_named(each) for name in subfolders(root / each)}
    return inner | {name for name in folders if not split_named(name)}


def _visible(path: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted, but what is hidden or left by an operating system."""
    with os.scandir(path) as entries:
        seen = [e for e in entries if e.name[0] != "." and e.name.casefold() not in _LITTER]
    return sorted(seen, key=lambda entry: entry.name)


def image_folder_table(path: Path) -> Table:
    """The images of a folder of class folders, with or without split folders above those. Ids are
    paths relative to the folder. Raises TenfoldError for folders that may be splits or classes, and
    for two spellings of one split."""
    root = folder_within(path)
    splits, notes, said = _arrange(root)
    what = f": {', '.join(said)}" if said else ""
    if said:
        logger.info("%s%s.", path, what)
    above = os.path.join(root, "")
    rows = {
        split: [
            Row(above + file.path, file.path, own, printable(file.path), "", file.stamp)
            for file, own in zip(each.files, each.classes(), strict=True)
        ]
        for split, each in splits.items()
    }
    filled = {row.label for own in rows.values() for row in own}
    tops = {each.folder.partition("/")[0] for each in splits.values()}
    empty = {
        name
        for each in splits.values()
        for name in map(printable, subfolders(root / each.folder))
        if plain_name(name) not in filled and (each.folder or name not in tops)
    }
    if empty:
        notes.append(f"Class folders without images were left out: {_listed(sorted(empty))}.")
    folders = {split: each.folder for split, each in splits.items()}
    return Table(rows, path, f"{path} (image folder{what})", None, root, notes, folders)


class _Split(NamedTuple):
    """folder: that class folders are in, empty for the root. files: the images in these."""

    folder: str
    files: list[ImageFile]

    def classes(self) -> list[str]:
        """Of each file."""
        start = len(self.folder) + 1 if self.folder else 0
        return [plain_name(printable(file.path[start:].partition("/")[0])) for file in self.files]


def _arrange(root: Path) -> tuple[dict[str, _Split], list[str], list[str]]:
    """The splits; what is left out; and which folders are taken for what, where their names alone
    don't say it. A folder that is called as a split is one if it holds class folders itself.
    Raises TenfoldError where it may be either."""
    files = {name: list(image_files(root, name)) for name in subfolders(root)}
    splits, notes, said, tops = dict[str, _Split](), list[str](), list[str](), dict[str, str]()
    for top in filter(split_named, files):
        split, found = str(split_named(top)), _split_in(root, top, files[top])
        if found.files and split in splits:
            raise TenfoldError(
                f"{root} holds {splits[split].folder} and {found.folder}, which both mean the "
                f"{split} split; rename or remove one of them."
            )
        if found.files:
            splits[split], tops[split] = found, top
    filled = {name: own for name, own in files.items() if own and name not in tops.values()}
    classes = [name for name in filled if not split_named(name)]
    if "train" not in splits:
        names = _classes_beside(root, filled, splits, all(map(split_named, files)))
        said += [f"{own.folder} is the {split} split" for split, own in splits.items()]
        if splits:
            said.append("the class folders beside it are the train split")
        else:
            said += [f"{name} is a class" for name in names if split_named(name)]
        splits["train"] = _Split("", [file for name in names for file in files[name]])
        return splits, notes, said
    flat = [name for name in classes if any(file.path.count("/") == 1 for file in files[name])]
    if len(splits) == 1 and len(flat) > 1:
        _refuse_unclear(root, [splits["train"].folder], flat)
    loose = {name: len(own) for name, own in filled.items() if split_named(name)}
    for split in filter(splits.get, SPLITS):
        folder = splits[split].folder
        loose[folder] = len(files[tops[split]]) - len(splits[split].files)
        if folder.casefold() not in _PLAIN_NAMES:
            said.append(f"{folder} is the {split} split")
    notes += [
        f"Left out: {counted(number, 'image')} directly in {folder}, in no class folder."
        for folder, number in loose.items()
        if number
    ]
    if classes:
        notes.append(f"Folders beside the splits were left out: {', '.join(classes)}.")
    return splits, notes, said


def _split_in(root: Path, top: str, files: Sequence[ImageFile]) -> _Split:
    """The images in class folders of a split folder, or of one of its meaning alone in it."""
    folder, split = top, split_named(top)
    while len(inner := subfolders(root / folder)) == 1 and split_named(inner[0]) == split:
        folder = f"{folder}/{inner[0]}"
    start = f"{folder}/"
    within = [f for f in files if f.path.startswith(start) and "/" in f.path[len(start) :]]
    return _Split(folder, within)


def _classes_beside(
    root: Path,
    files: Mapping[str, Sequence[ImageFile]],
    splits: Mapping[str, _Split],
    only_splits: bool,
) -> list[str]:
    """The class folders for training, where no folder of theirs is called so; one of them may be
    called as a split is. only_splits: whether all folders are called so."""
    named = [name for name in files if split_named(name)]
    classes = [name for name in files if not split_named(name)]
    inner = {name for own in splits.values() for name in own.classes()}
    unclear = [name for name in named if name not in inner] if splits else []
    if splits:
        classes = sorted({*classes, *named}.difference(unclear))
        if inner.isdisjoint(map(plain_name, classes)):
            unclear = unclear or [own.folder for own in splits.values()]
    elif classes and (len(named) > 1 or "test" in map(split_named, named)):
        unclear = named
    if not classes and (splits or (only_splits and "train" not in map(split_named, named))):
        folders = ", ".join([own.folder for own in splits.values()] or named)
        raise TenfoldError(f"{root} holds {folders} and no train folder; add one.")
    if unclear:
        _refuse_unclear(root, unclear, classes)
    if classes and not splits:
        classes = sorted([*classes, *named])
        _refuse_unknown_splits(root, {name: files[name] for name in classes})
    return classes


def _refuse_unclear(root: Path, folders: Sequence[str], beside: Sequence[str]) -> NoReturn:
    raise TenfoldError(
        f"{_listed(folders)} in {root} may be a split or a class as {_listed(beside)} beside it: "
        "put training classes into a folder train, as in train/cat/1.jpg, and move away a split "
        "without class folders; or rename it if it is a class."
    )


def _refuse_unknown_splits(root: Path, files: Mapping[str, Sequence[ImageFile]]) -> None:
    """Raise TenfoldError where each folder holds the same folders, or folders of splits alone."""
    inner = [
        {path[1] if len(path := file.path.split("/")) > 2 else "" for file in own}
        for own in files.values()
    ]
    if len(inner) < 2 or not all(len(names) > 1 and "" not in names for names in inner):
        return
    if all(names == inner[0] for names in inner) or all(map(split_named, set().union(*inner))):
        raise TenfoldError(
            f"{_listed(list(files))} in {root} each hold {_listed(sorted(inner[0]))}: if they are "
            "splits, name them train, validation and test; if they are classes, move their images "
            "up into them, or put the split first, as in train/cat/1.jpg."
        )


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:5], *([f"{len(names) - 5} more"] if len(names) > 5 else [])]
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
