"""Where images come from: sources, formats, splits and a look at them."""

import os
from dataclasses import replace
from pathlib import Path

from tenfold.data.images import PHOTO_SIZE, Dataset, Images, Settings
from tenfold.errors import TenfoldError
from tenfold.progress import Progress

__all__ = ["Dataset", "Images", "export", "load"]


def load(
    name_or_path: str | os.PathLike[str],
    *,
    image_size: int = 0,
    photo_size: int = PHOTO_SIZE,
    skip_broken: bool = False,
    window: tuple[float, ...] = (),
    progress: Progress | None = None,
) -> Dataset:
    """A data set by name, or whatever is at a path.

    Names are `cifar10`, `cifar100` and `digits`; `hf:OWNER/NAME`, any data set of images on the
    Hugging Face hub; `mnist`, `fashion-mnist`, `svhn`, `stl10` and `eurosat`, by torchvision; and
    `my.py:function`, which returns a `Dataset`, or arrays by split.

    image_size: height and width to bring the images to; 0 keeps them, and where they differ
    chooses 32, or `photo_size` for photographs. skip_broken: leave broken images out, counted in
    the notes, where an error is the rule. window: the values that become black and white in files
    of more than eight bits; empty takes 0 and the least of 255, 1,023, 4,095, 16,383 and 65,535
    that holds all of them, and of DICOM files each one's own. The result has checksums of its
    arrays, and no two images of one id. Raises TenfoldError where neither a data set of that name
    nor a path is there, and whatever `sources.get` and `formats.read` raise.

    >>> load("digits").train.pixels.shape[1:]
    (32, 32, 3)
    """
    from tenfold.data import sources
    from tenfold.data.images import checked, with_checksums
    from tenfold.data.sources.named import find

    name = os.fspath(name_or_path)
    settings = Settings(image_size, skip_broken, progress, photo_size, window)
    found: Dataset | Path = Path(name).expanduser()
    if name in sources.NAMES:
        found = sources.get(name, progress=progress)
    elif sources.is_known(name):
        found = find(name)
        found = checked(found, Path(name)) if isinstance(found, Dataset) else found
    if isinstance(found, Path):
        from tenfold.data import formats

        if not found.exists():
            raise formats.unknown_name(name, sources.NAMES)
        found = formats.read(found, **vars(settings))
    elif image_size or len({images.size for images in found.splits().values()}) > 1:
        from tenfold.data.decoded import resize_dataset

        found = resize_dataset(found, settings)
    return with_checksums(replace(found, window=window or found.window))


def export(
    dataset: Dataset,
    path: str | os.PathLike[str],
    format: str,
    *,
    progress: Progress | None = None,
) -> None:
    """Write a data set as `folder` (PNG and CSV), `parquet` or `npz`; `load` gets it back.

    Raises TenfoldError for another format, where something is at `path` already, and where the
    disk is full; nothing is left behind then.
    """
    from tenfold.data.writing import WRITERS

    if format not in WRITERS:
        raise TenfoldError(f"The format {format!r} can't be written; choose {', '.join(WRITERS)}.")
    WRITERS[format](dataset, Path(path).expanduser().absolute(), progress=progress)
