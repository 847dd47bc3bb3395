"""Where a run keeps what is known of it, and for which weights, data and options it holds."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from pydantic import ValidationError

from tenfold.audit import PARTS, AuditOptions, as_plain
from tenfold.audit.answer import Answer, Missing, Own
from tenfold.errors import TenfoldError
from tenfold.files import DAMAGED, atomic_file, read_json, write_json, write_text
from tenfold.registry import find_part
from tenfold.run import RunFolder

FORMAT = 6
"""Of all answers; a change of what they compute or keep changes it."""


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

    def load(self, name: str, *, options: Mapping[str, Any] | None = None) -> Answer | None:
        """The answer that is kept to the question `name`; None where there is none, or where it is
        of other weights or data.

        options: what else it must have been computed with, where it depends on that.
        """
        try:
            kept = read_json(self.path(name, "json"))
            if kept["content"] != self.content():
                return None
            computed_with = _defaults(name) | kept["options"]
            asked = computed_with | dict(options or {})
            if any(asked[key] != value for key, value in computed_with.items()):
                return None
            with np.load(self.path(name, "npz"), allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            kind = Missing if "missing" in kept["values"] else answer_type(name)
            return kind.model_validate(kept["values"]).having(arrays)
        except (TenfoldError, ValidationError, *DAMAGED):
            return None

    def save(self, name: str, answer: Answer, *, options: Mapping[str, Any]) -> None:
        """Keep `answer`; the JSON last, so that it never speaks of arrays that aren't there."""
        with atomic_file(self.path(name, "npz")) as file:
            np.savez_compressed(file, allow_pickle=False, **answer.arrays)
        for file_name, text in answer.texts.items():
            write_text(self.folder / file_name, text)
        kept = {"content": self.content(), "options": options, "values": answer.to_dict()}
        write_json(self.path(name, "json"), kept)

    def path(self, name: str, ending: str) -> Path:
        """The file of the question `name` with this ending."""
        stem = re.sub(r"[^-\w]+", "-", name)
        return self.folder / f"{stem}.{ending}"


def _defaults(name: str) -> dict[str, Any]:
    """What the options of a question of tenfold's are where an older version knew none."""
    fields = find_part("question", name).options.model_fields if name in PARTS else {}
    return as_plain({key: field.default for key, field in fields.items() if key != "name"})


def answer_type(name: str) -> type[Answer]:
    """What the function that answers the question `name` says that it gives."""
    if name not in PARTS:
        return Own
    found: type[Answer] = get_type_hints(find_part("question", name).call)["return"]
    return found


def sections(answers: Mapping[str, Answer]) -> list[tuple[str, str, Answer]]:
    """Name, heading and answer of each of a page's sections; not of a question that is none for
    the run at all."""
    return [
        (name, answer.heading or answer_type(name).question or name, answer)
        for name, answer in answers.items()
        if not (isinstance(answer, Missing) and answer.for_good)
    ]


def known_answers(run: RunFolder) -> dict[str, Answer]:
    """What is kept for the run as it is now, by question, in the order of the page."""
    if not run.is_finished() or not (run.path / "audit").is_dir():
        return {}
    store = Store(run)
    own = sorted({path.stem for path in store.folder.glob("*.json")} - set(PARTS))
    found = ((name, store.load(name)) for name in (*PARTS, *own))
    return {name: answer for name, answer in found if answer}


def kept_answers(
    run: RunFolder, wanted: Sequence[str] | None, options: AuditOptions
) -> dict[str, Answer]:
    """The answers to the questions `wanted`, None for all, that need not be computed; one's own,
    whose code may have changed, always are.

    Where something was missing that may be there now, a question that is named is tried again.
    """
    store, found = Store(run), {}
    for name in PARTS if wanted is None else [name for name in PARTS if name in wanted]:
        kept = store.load(name, options=as_plain(options.given()))
        if kept and not kept.is_worth_another_try(named=wanted is not None):
            found[name] = kept
    return found
