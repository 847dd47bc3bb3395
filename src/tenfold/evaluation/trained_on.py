"""Which images a run was trained on: kept as sums of their pixels, and found in other splits."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tenfold.data import Images
from tenfold.files import DAMAGED, atomic_file
from tenfold.run import RunFolder

_Sums = NDArray[np.uint64]


def keep_sums(run: RunFolder, images: Images, *, goes_on: bool) -> None:
    """Write down that `run` is trained on `images` from now on.

    goes_on: from weights that learnt from the images of its earlier sessions, which then count
    among those it was trained on, whatever split they are in now.
    """
    now = sums_of(images)
    before = _kept(run.trained_on, "sums") if goes_on else None
    before = now if before is None else before
    with atomic_file(run.trained_on) as file:
        np.savez(file, sums=np.union1d(before, now), earlier=np.setdiff1d(before, now))


def count_trained_on(run: RunFolder, images: Images, *, own: bool) -> int:
    """How many of `images` the run was trained on; 0 where it kept nothing.

    own: of a split of the run's own data, those that an earlier session was trained on and the
    last was not; of what else is in two splits the data set's notes speak.
    """
    kept = _kept(run.trained_on, "earlier" if own else "sums")
    return 0 if kept is None or not len(kept) else int(np.isin(sums_of(images), kept).sum())


def sums_of(images: Images) -> _Sums:
    """`(N,)` uint64, equal for images of equal pixels; the same on every machine."""
    pixels = np.ascontiguousarray(images.pixels)
    sums = [hashlib.blake2b(image.data, digest_size=8).digest() for image in pixels]
    return np.frombuffer(b"".join(sums), dtype="<u8")


def _kept(path: Path, name: str) -> _Sums | None:
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            kept: _Sums = file[name].astype(np.uint64)
            return kept
    except DAMAGED:  # An earlier version kept none; or it is damaged, and no result needs it.
        return None
