"""Folders of picture files, one folder a class.

`train/cat/tom.jpg`, beside `val`, `valid` or `validation`, and `test`; or `cat/tom.jpg` without
splits, which is all training data. Folders and files whose names begin with a dot, and the litter
of operating systems, are passed over. A class folder may hold folders of its own.
"""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.data.formats.decoded_cache import entry_of
from tenfold.data.formats.listings import (
    MAX_SHOWN,
    Listing,
    Settings,
    decode_listings,
    label_numbers,
    sorted_names,
)
from tenfold.data.formats.split_names import SPLITS, split_named
from tenfold.data.images import PHOTO_SIZE, Dataset
from tenfold.errors import TenfoldError
from tenfold.progress import Progress

# Kinds that can't be read are among them, so that such files are reported and not passed over.
PICTURE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".gif", ".bmp", ".dib", ".webp"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".heic", ".heif", ".jp2", ".jxl"),
)
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "lost+found"})


@dataclass(frozen=True)
class PictureFile:
    """A picture file below a root folder.

    path: relative to the root, with forward slashes; stamp: changes whenever the file does.
    """

    path: str
    stamp: str


def read_image_folder(
    path: Path,
    *,
    image_size: int = 0,
    photo_size: int = PHOTO_SIZE,
    skip_broken: bool = False,
    white_level: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """The pictures of a folder of class folders, with or without split folders above those.

    Class names are the folders' names, sorted over all splits: by value where all of them are
    whole numbers, otherwise by code point. Ids are paths relative to the folder. Raises
    TenfoldError for a folder without pictures or with fewer than two classes, for two spellings of
    one split, and for broken pictures unless they are to be skipped.
    """
    root = folder_within(path)
    files, notes = _files_by_split(root)
    classes = {
        split: [_class_of(file, has_split=split is not None) for file in own]
        for split, own in files.items()
    }
    class_names = sorted_names(name for names in classes.values() for name in names)
    if len(class_names) < 2:
        found = f"only the class folder {class_names[0]}" if class_names else "no class folders"
        raise TenfoldError(
            f"{path} holds {found} with pictures; at least two class folders are needed, as in "
            "train/cat/1.jpg and train/dog/1.jpg."
        )
    notes += _missing_classes(class_names, classes)
    listings = {
        split or "train": Listing(
            [os.path.join(root, file.path) for file in own],
            [file.path for file in own],
            label_numbers(classes[split], class_names),
            [printable(file.path) for file in own],
        )
        for split, own in files.items()
    }
    stamps = [file.stamp for own in files.values() for file in own]
    return decode_listings(
        listings,
        place=path,
        class_names=class_names,
        source=f"{path} (image folder)",
        settings=Settings(image_size, skip_broken, progress, photo_size, white_level),
        entry=entry_of(root, stamps, image_size=image_size, photo_size=photo_size),
        notes=notes,
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


def picture_files(root: Path, folder: str = "") -> Iterator[PictureFile]:
    """The picture files in `folder` below `root` at any depth, by suffix, sorted by path."""
    return _walk(root, folder, ancestors=())


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden or left by an operating system."""
    return name.startswith(".") or name.casefold() in _LITTER


def printable(path: str) -> str:
    """The path as text that every format can hold, also where its bytes are no UTF-8."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _walk(
    root: Path, folder: str, *, ancestors: Sequence[tuple[int, int]]
) -> Iterator[PictureFile]:
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
        if entry.name.lower().endswith(PICTURE_SUFFIXES) and not entry.is_dir():
            yield PictureFile(path, stamp_of(path, entry))
        elif entry.is_dir():
            yield from _walk(root, path, ancestors=(*ancestors, identity))


def stamp_of(path: str, entry: "os.DirEntry[str]") -> str:
    """The path with its file's size, times and number; a dangling link has none.

    A file that is replaced may have the size and the time of the one before.
    """
    try:
        status = entry.stat()
    except OSError:
        return f"{path} -"
    return f"{path} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _files_by_split(root: Path) -> tuple[dict[str | None, list[PictureFile]], list[str]]:
    """The files in class folders by split, or under None where there are no split folders."""
    with os.scandir(root) as entries:
        folders = sorted(e.name for e in entries if e.is_dir() and not is_litter(e.name))
    named: dict[str, str] = {}
    for folder in folders:
        split = split_named(folder)
        if split in named:
            raise TenfoldError(
                f"{root} holds {named[split]} and {folder}, which both mean the {split} split; "
                "rename or remove one of them."
            )
        if split is not None:
            named[split] = folder
    if "train" not in named and named and len(named) == len(folders):
        raise TenfoldError(f"{root} holds {', '.join(folders)} and no train folder; add one.")
    if "train" not in named:
        return {None: [file for file in picture_files(root) if "/" in file.path]}, []
    files: dict[str | None, list[PictureFile]] = {}
    notes = []
    for split in (split for split in SPLITS if split in named):
        found = list(picture_files(root, named[split]))
        files[split] = [file for file in found if file.path.count("/") >= 2]
        if loose := len(found) - len(files[split]):
            notes.append(
                f"{loose} pictures directly in {named[split]} are in no class folder and were left "
                "out."
            )
    others = [folder for folder in folders if folder not in named.values()]
    if others:
        notes.append(f"Folders beside the splits were left out: {', '.join(others)}.")
    return files, notes


def _class_of(file: PictureFile, *, has_split: bool) -> str:
    """The class folder's name; composed, because macOS takes letters and their accents apart."""
    return unicodedata.normalize("NFC", printable(file.path.split("/")[1 if has_split else 0]))


def _missing_classes(
    class_names: tuple[str, ...], classes: dict[str | None, list[str]]
) -> list[str]:
    notes = []
    for split, names in classes.items():
        missing = [name for name in class_names if name not in set(names)]
        if missing and names:
            listed = ", ".join(missing[:MAX_SHOWN]) + (", ..." if len(missing) > MAX_SHOWN else "")
            notes.append(f"The {split} split has no pictures of: {listed}.")
    return notes
