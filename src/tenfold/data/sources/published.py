"""Files that somebody published: fetched once by pooch, and nothing but what was published."""

import os
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tenfold.data.cache_folder import cache_folder
from tenfold.errors import TenfoldError, first_line
from tenfold.files import atomic_file
from tenfold.progress import Progress

_ATTEMPTS = 3
"""How many connections in a row may break off without bringing a file forward."""


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
        return retrieve(file.address, f"sha256:{file.sha256}", folder, progress=progress)
    except (OSError, ValueError) as error:
        raise TenfoldError(
            f"{given or file.name} can't be used ({first_line(error)}); fetch {file.address}, and "
            "check the network or the path."
        ) from error


def retrieve(
    url: str, checksum: str | None, folder: Path, *, progress: Progress | None = None
) -> Path:
    """The file at `url`, in `folder`; one that is there already is not fetched again.

    checksum: such as `md5:...`. Raises OSError, and ValueError for another checksum.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    name = url.rsplit("/", 1)[-1]
    downloader = partial(_download, progress=progress)
    return Path(pooch.retrieve(url, checksum, fname=name, path=folder, downloader=downloader))


def _download(url: str, to: str, _: Any, *, progress: Progress | None) -> None:
    """As pooch's own downloader, but an interrupted download goes on where it ended."""
    import requests
    from urllib3.exceptions import HTTPError

    name = url.rsplit("/", 1)[-1]
    part = Path(to).with_name(f"{name}.part")
    failures = 0
    while True:
        before = done = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={done}-"} if done else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=(10, 30)) as reply:
                if reply.status_code == 416:
                    break  # Complete, unless the checksum says otherwise.
                reply.raise_for_status()
                if reply.status_code != 206:
                    done = 0
                total = done + int(reply.headers.get("Content-Length", 0))
                with open(part, "ab" if done else "wb") as file:
                    for chunk in reply.raw.stream(1 << 20, decode_content=False):
                        file.write(chunk)
                        done += len(chunk)
                        if progress:
                            progress(f"Downloading {name}", done, max(done, total))
                break
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            has_come = part.stat().st_size if part.exists() else 0
            failures = failures + 1 if has_come <= before else 1
            if failures >= _ATTEMPTS or not has_come:
                raise OSError(f"broke off: {first_line(error)}") from error
            time.sleep(failures - 1)
    os.replace(part, to)
