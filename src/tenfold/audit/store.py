"""Where a run keeps what is known of it, and for which weights, data and options it holds."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tenfold.audit import PARTS
from tenfold.audit.options import AuditOptions, as_plain
from tenfold.errors import TenfoldError
from tenfold.files import DAMAGED, atomic_file, read_json, write_json, write_text
from tenfold.run import RunFolder

FORMAT = 5
"""Of all parts; a change of what they compute or keep changes it."""

Arrays = dict[str, NDArray[Any]]


class Finding(NamedTuple):
    """What a part found: plain JSON values, arrays of pictures and maps, and files of text by name.

    values has the key `missing`, a sentence, where the part had nothing to work on, and `for_good`
    where that can't change; `unavailable` holds sentences about what some of it lacked.
    """

    values: dict[str, Any]
    arrays: Arrays
    texts: Mapping[str, str] = MappingProxyType({})

    @property
    def may_be_there_now(self) -> bool:
        """Whether something was missing that somebody may have brought since."""
        is_missing = "missing" in self.values and not self.values.get("for_good")
        return is_missing or bool(self.values.get("unavailable"))

    @property
    def is_there_now(self) -> bool:
        """Whether what some of it lacked has been installed since."""
        return bool(self.values.get("unavailable")) and has_captum()


class Store:
    """The folder `audit/` of a run."""

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.path / "audit"
        self._run = run
        self._content: str | None = None

    def content(self) -> str:
        """The checksum of the weights, and those of the data as the run wrote them down."""
        if self._content is None:
            digest = hashlib.sha256(str(FORMAT).encode())
            digest.update(self._run.model.read_bytes())
            data = read_json(self._run.provenance).get("data", {}).get("checksums", {})
            digest.update(json.dumps(data, sort_keys=True).encode())
            self._content = digest.hexdigest()
        return self._content

    def load(self, part: str, *, options: Mapping[str, Any] | None = None) -> Finding | None:
        """What is kept of `part`; None where nothing is, or where it is of other weights or data.

        options: what else it must have been computed with, where it depends on that.
        """
        try:
            kept = read_json(self.path(part, "json"))
            if kept["content"] != self.content():
                return None
            asked = kept["options"] | dict(options or {})
            if any(asked[name] != value for name, value in kept["options"].items()):
                return None
            with np.load(self.path(part, "npz"), allow_pickle=False) as file:
                return Finding(kept["values"], {name: file[name] for name in file.files})
        except (TenfoldError, *DAMAGED):
            return None

    def save(self, part: str, finding: Finding, *, options: Mapping[str, Any]) -> None:
        """Keep `finding`; the JSON last, so that it never speaks of arrays that aren't there."""
        with atomic_file(self.path(part, "npz")) as file:
            np.savez_compressed(file, allow_pickle=False, **finding.arrays)
        for name, text in finding.texts.items():
            write_text(self.folder / name, text)
        kept = {"content": self.content(), "options": options, "values": finding.values}
        write_json(self.path(part, "json"), kept)

    def path(self, part: str, ending: str) -> Path:
        """The file of `part` with this ending."""
        stem = re.sub(r"[^-\w]+", "-", part)
        return self.folder / f"{stem}.{ending}"


def has_captum() -> bool:
    """Whether what explanations need is installed; to know that, nothing is imported."""
    return importlib.util.find_spec("captum") is not None


def known_findings(run: RunFolder) -> dict[str, Finding]:
    """What is kept of all parts for the run as it is now, by name, in the order of the page."""
    if not run.is_finished() or not (run.path / "audit").is_dir():
        return {}
    store = Store(run)
    own = sorted({path.stem for path in store.folder.glob("*.json")} - set(PARTS))
    found = ((part, store.load(part)) for part in (*PARTS, *own))
    return {part: each for part, each in found if each and (part in PARTS or "own" in each.values)}


def kept_findings(
    run: RunFolder, wanted: Sequence[str] | None, options: AuditOptions
) -> dict[str, Finding]:
    """The parts of `wanted`, None for all, that need not be computed, by name; one's own, whose
    code may have changed, always are.

    Where something was missing that may be there now, a part that is named is tried again.
    """
    store, found = Store(run), {}
    for part in PARTS if wanted is None else [part for part in PARTS if part in wanted]:
        kept = store.load(part, options=as_plain(options.given()))
        if kept is None or kept.is_there_now:
            continue
        if wanted is None or not kept.may_be_there_now:
            found[part] = kept
    return found
