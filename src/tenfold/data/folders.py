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
from typing import NamedTuple

from tenfold.data.tables import (
    PLAIN_NAMES,
    SPLITS,
    Row,
    Table,
    plain_name,
    printable,
    split_named,
)
from tenfold.errors import TenfoldError, counted

logger = logging.getLogger("tenfold")

# Kinds that can't be read are among them, so that such files are reported and not passed over.
PICTURE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".jxl"),
    *(".dcm", ".dicom"),
)
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found"})


class PictureFile(NamedTuple):
    """An image file below a root folder.

    path: relative to the root, with forward slashes; stamp: changes whenever the file does.
    """

    path: str
    stamp: str


def image_folder_table(path: Path) -> Table:
    """The images of a folder of class folders, with or without split folders above those.

    Class names are the folders' names, sorted over all splits: by value where all of them are
    whole numbers, otherwise by code point. Ids are paths relative to the folder. Raises
    TenfoldError for a folder without images or with fewer than two classes, for folders that
    may be splits or classes, and for two spellings of one split.
    """
    root = folder_within(path)
    layout = _Layout(root)
    said = f": {', '.join(layout.said)}" if layout.said else ""
    if said:
        logger.info("%s%s.", path, said)
    table = {
        split: [
            Row(
                os.path.join(root, file.path), file.path, name, printable(file.path), "", file.stamp
            )
            for file, name in zip(own.files, own.classes(), strict=True)
        ]
        for split, own in layout.splits.items()
    }
    return Table(
        table,
        place=path,
        source=f"{path} (image folder{said})",
        least_classes="at least two class folders are needed, as in train/cat/1.jpg and "
        "train/dog/1.jpg",
        root=root,
        notes=(*layout.notes, *_empty_folders(root, layout)),
    )


def folder_within(path: Path) -> Path:
    """The folder, or the only one in it if that holds folders itself, as unpacked archives do."""
    while True:
        with os.scandir(path) as entries:
            visible = [entry for entry in entries if not is_litter(entry.name)]
        if len(visible) != 1 or not visible[0].is_dir() or split_named(visible[0].name):
            return path
        inner = Path(visible[0].path)
        with os.scandir(inner) as entries:
            if not any(entry.is_dir() and not is_litter(entry.name) for entry in entries):
                return path
        path = inner


def picture_files(
    root: Path,
    folder: str = "",
    *,
    suffixes: tuple[str, ...] = PICTURE_SUFFIXES,
    ancestors: Sequence[tuple[int, int]] = (),
) -> Iterator[PictureFile]:
    """The image files in `folder` below `root` at any depth, by suffix, sorted by path.

    ancestors: the folders that it is in, by device and number.
    """
    place = root / folder
    status = place.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in ancestors and status.st_ino:  # a link that leads back up
        return
    with os.scandir(place) as entries:
        visible = sorted(
            (entry for entry in entries if not is_litter(entry.name)), key=lambda entry: entry.name
        )
    for entry in visible:
        path = f"{folder}/{entry.name}" if folder else entry.name
        if entry.name.lower().endswith(suffixes) and not entry.is_dir():
            # One that is replaced may have the size and the time of the one before.
            try:
                s = entry.stat()
                stamp = f"{s.st_size} {s.st_mtime_ns} {s.st_ctime_ns} {s.st_ino}"
            except OSError:  # A dangling link.
                stamp = "-"
            yield PictureFile(path, f"{path} {stamp}")
        elif entry.is_dir():
            above = (*ancestors, identity)
            yield from picture_files(root, path, suffixes=suffixes, ancestors=above)


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden or left by an operating system."""
    return name.startswith(".") or name.casefold() in _LITTER


class _Split(NamedTuple):
    """folder: that the class folders of the split are in, empty for the root."""

    folder: str
    files: list[PictureFile]

    def classes(self) -> list[str]:
        """Each file's class folder."""
        depth = self.folder.count("/") + 1 if self.folder else 0
        return [plain_name(printable(file.path.split("/")[depth])) for file in self.files]


def class_folders(root: Path) -> set[str]:
    """Names of what may be class folders: in `root`, and in folders there that mean splits."""
    folders = subfolders(root)
    inner = {name for each in folders if split_named(each) for name in subfolders(root / each)}
    return inner | {name for name in folders if not split_named(name)}


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without litter."""
    with os.scandir(path) as entries:
        return sorted(e.name for e in entries if not is_litter(e.name) and e.is_dir())


class _Layout:
    """Which folders are splits and which are classes; one named as a split is one if it holds class
    folders itself. Raises TenfoldError where it may be either.

    said: which folders are taken for what, where their names alone don't say it.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.splits = root, dict[str, _Split]()
        self.notes, self.said = list[str](), list[str]()
        self._files = {name: list(picture_files(root, name)) for name in subfolders(root)}
        for folder, files in self._files.items():
            own = _split_in(root, folder, files) if (split := split_named(folder)) else None
            if split and own and own.files and self.splits.setdefault(split, own) is not own:
                raise TenfoldError(
                    f"{root} holds {self.splits[split].folder} and {own.folder}, which both mean "
                    f"the {split} split; rename or remove one of them."
                )
        tops = {split.folder.partition("/")[0] for split in self.splits.values()}
        filled = [name for name, files in self._files.items() if files and name not in tops]
        named = [name for name in filled if split_named(name)]
        classes = [name for name in filled if name not in named]
        if "train" in self.splits:
            self._leave_out(named, classes)
        elif self.splits:
            self._train_beside(named, classes)
        else:
            self._without_splits(named, classes)

    def _leave_out(self, named: list[str], classes: list[str]) -> None:
        """Folders of splits, train among them."""
        flat = [c for c in classes if any(file.path.count("/") == 1 for file in self._files[c])]
        train = self.splits["train"].folder
        if len(self.splits) == 1 and len(flat) > 1:
            raise TenfoldError(
                f"{train} in {self.root} may be the train split or a class as {_listed(flat)} "
                f"beside it; move those away, or rename {train}."
            )
        loose = {name: len(self._files[name]) for name in named}
        for split in sorted(self.splits, key=SPLITS.index):
            folder, files = self.splits[split]
            loose[folder] = len(self._files[folder.partition("/")[0]]) - len(files)
            if folder.casefold() not in PLAIN_NAMES:
                self.said.append(f"{folder} is the {split} split")
        self.notes += [
            f"Left out: {counted(number, 'image')} directly in {folder}, in no class folder."
            for folder, number in loose.items()
            if number
        ]
        if classes:
            self.notes.append(f"Folders beside the splits were left out: {', '.join(classes)}.")

    def _train_beside(self, named: list[str], classes: list[str]) -> None:
        """Folders of splits but none of train, which the class folders beside them are, if any."""
        folders = [split.folder for split in self.splits.values()]
        inner = {name for split in self.splits.values() for name in split.classes()}
        unclear = [name for name in named if name not in inner]
        classes = sorted([*classes, *(name for name in named if name in inner)])
        if not classes:
            self._refuse_without_train(folders)
        if unclear or not inner & set(map(plain_name, classes)):
            raise TenfoldError(
                f"{_listed(unclear or folders)} in {self.root} may be a split or a class as "
                f"{_listed(classes)} beside it: put the training classes into a folder train, or "
                "rename it if it is a class."
            )
        self.said += [f"{own.folder} is the {split} split" for split, own in self.splits.items()]
        self.said.append("the class folders beside it are the train split")
        self._train_on(classes)

    def _without_splits(self, named: list[str], classes: list[str]) -> None:
        """Class folders alone, one of which may be called as a split is."""
        splits = [split_named(name) for name in self._files]
        if splits and all(splits) and "train" not in splits:
            self._refuse_without_train(list(self._files))
        if named and not classes:
            self.splits["train"] = _Split(named[0], [])
            return
        if len(named) > 1 or "test" in map(split_named, named):
            raise TenfoldError(
                f"{_listed(named)} in {self.root} may be a split or a class as {_listed(classes)} "
                "beside it: move it away if it is a split without class folders, or rename it if "
                "it is a class."
            )
        names = sorted([*named, *classes])
        _refuse_unknown_splits(self.root, {name: self._files[name] for name in names})
        self.said += [f"{name} is a class" for name in named]
        self._train_on(names)

    def _train_on(self, classes: list[str]) -> None:
        self.splits["train"] = _Split("", [file for name in classes for file in self._files[name]])

    def _refuse_without_train(self, folders: list[str]) -> None:
        raise TenfoldError(f"{self.root} holds {', '.join(folders)} and no train folder; add one.")


def _split_in(root: Path, folder: str, files: Sequence[PictureFile]) -> _Split:
    """The images in class folders of a split folder, or of one of its meaning alone in it."""
    own, split = folder, split_named(folder)
    while len(inner := subfolders(root / own)) == 1 and split_named(inner[0]) == split:
        own = f"{own}/{inner[0]}"
    start = f"{own}/"
    return _Split(
        own, [f for f in files if f.path.startswith(start) and "/" in f.path[len(start) :]]
    )


def _refuse_unknown_splits(root: Path, files: Mapping[str, Sequence[PictureFile]]) -> None:
    """Raise TenfoldError where each folder holds the same folders, or folders of splits alone."""
    inner = [
        {path[1] if len(path := file.path.split("/")) > 2 else "" for file in own}
        for own in files.values()
    ]
    if len(inner) < 2 or not all(len(names) > 1 and "" not in names for names in inner):
        return
    if all(split_named(name) for names in inner for name in names):
        raise TenfoldError(
            f"Each of {_listed(list(files))} in {root} holds folders of splits "
            f"({', '.join(sorted(inner[0]))}); put the split first, as in train/cat/1.jpg."
        )
    if all(names == inner[0] for names in inner):
        raise TenfoldError(
            f"{_listed(list(files))} in {root} each hold {_listed(sorted(inner[0]))}: if they are "
            "splits, name them train, validation and test; if they are the classes, move their "
            "images up into them."
        )


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:5]) + ([f"{len(names) - 5} more"] if len(names) > 5 else [])
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _empty_folders(root: Path, layout: _Layout) -> list[str]:
    """A sentence about class folders that hold no image in any split."""
    filled = {name for own in layout.splits.values() for name in own.classes()}
    tops = {own.folder.partition("/")[0] for own in layout.splits.values()}
    empty = {
        name
        for own in layout.splits.values()
        for name in map(printable, subfolders(root / own.folder))
        if plain_name(name) not in filled and (own.folder or name not in tops)
    }
    if not empty:
        return []
    return [f"Class folders without images were left out: {_listed(sorted(empty))}."]
