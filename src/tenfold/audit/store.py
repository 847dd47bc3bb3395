"""`audit`: answer the questions that are asked and not answered yet, and keep the answers in the
folder `audit/` of the run with the weights, data and options that they hold for."""

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from pydantic import ValidationError
from pydantic_core import PydanticCustomError

from tenfold.audit import (
    OLD_OPTIONS,
    OLD_PARTS,
    PARTS,
    SOURCES,
    AuditOptions,
    as_plain,
    require_parts,
)
from tenfold.audit.answer import Answer, Missing, Own, Unanswerable
from tenfold.audit.subject import Subject
from tenfold.errors import HeldError, TenfoldError, UnwritableError
from tenfold.files import DAMAGED, atomic_file, read_json, write_json, write_text
from tenfold.progress import Progress
from tenfold.registry import Part, find_part
from tenfold.run import RunFolder

FORMAT = 6
"""Of all answers; a change of what they compute or keep changes it."""


class Store:
    """The folder `audit/` of a run."""

    def __init__(self, run: RunFolder) -> None:
        self.folder = run.path / "audit"
        self._run = run

    @cached_property
    def content(self) -> str:
        """The checksum of the weights, and those of the data as the run wrote them down."""
        digest = hashlib.sha256(str(FORMAT).encode())
        digest.update(self._run.model.read_bytes())
        data = read_json(self._run.provenance).get("data", {}).get("checksums", {})
        digest.update(json.dumps(data, sort_keys=True).encode())
        return digest.hexdigest()

    def load(self, name: str, *, options: Mapping[str, Any] | None = None) -> Answer | None:
        """The answer that is kept to the question `name`; None where there is none, or where it is
        of other weights or data.

        options: what else it must have been computed with, where it depends on that.
        """
        try:
            kept_as = self._kept_as(name)
            kept = read_json(self.path(kept_as, "json"))
            if kept["content"] != self.content:
                return None
            # An older version may have known none of some options.
            part = find_part("question", name) if name in PARTS else None
            used = {OLD_OPTIONS.get(key, key): value for key, value in kept["options"].items()}
            computed_with = (_defaults(part) if part else {}) | used
            asked = computed_with | dict(options or {})
            if any(asked[key] != value for key, value in computed_with.items()):
                return None
            with np.load(self.path(kept_as, "npz"), allow_pickle=False) as file:
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
        kept = {"content": self.content, "options": options, "values": answer.to_dict()}
        write_json(self.path(name, "json"), kept)

    def _kept_as(self, name: str) -> str:
        """The name of a question as its files have it: an older one where there is only that."""
        old = next((old for old, new in OLD_PARTS.items() if new == name), name)
        is_old = old != name and not self.path(name, "json").exists()
        return old if is_old and self.path(old, "json").exists() else name

    def path(self, name: str, ending: str) -> Path:
        """The file of the question `name` with this ending."""
        stem = re.sub(r"[^-\w]+", "-", name)
        return self.folder / f"{stem}.{ending}"


def _defaults(part: Part) -> dict[str, Any]:
    fields = part.options.model_fields
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
    own = sorted({path.stem for path in store.folder.glob("*.json")} - {*PARTS, *OLD_PARTS})
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


def audit(
    run: RunFolder,
    wanted: Sequence[str] | None = None,
    *,
    options: AuditOptions | None = None,
    data: str | None = None,
    progress: Progress | None = None,
    starting: Callable[[str], None] = lambda name: None,
) -> dict[str, Answer]:
    """What is known of `run` after the questions `wanted` were answered, or found as kept.

    wanted: None for all that come with tenfold; `my.py:question` is one of one's own. A question
    for which something is missing says so; it is tried again when it is named, or when an option of
    it is given. data: where the run's images are now, if not where they were. starting: is called
    with the name of each question that has to be computed.

    Raises TenfoldError where the run is not finished, where its data has changed since, for an
    unknown question, and where a named one lacks something.
    """
    options = options or AuditOptions()
    if options.images is not None and options.images < 1:
        raise TenfoldError(f"An audit needs at least one image, not {options.images}.")
    require_parts(wanted or ())
    questions = {name: _question(name) for name in (PARTS if wanted is None else wanted)}
    subject = Subject(run, seed=options.seed or 0, progress=progress, data=data)
    store, kept = Store(run), kept_answers(run, wanted, options)
    answers: dict[str, Answer] = {}
    is_recorded = False
    for name in sorted(questions, key=[*PARTS, *questions].index):
        if name in kept:
            answers[name] = kept[name]
            continue
        starting(name)
        defaults = _defaults(questions[name])
        given = {key: value for key, value in options.given().items() if key in defaults}
        must = wanted is not None or not SOURCES.isdisjoint(given)
        with run.writer():
            answers[name] = _answered(questions[name], subject, given, must=must)
            if not isinstance(answers[name], Missing) and not is_recorded:
                subject.record_use("tenfold audit")
                is_recorded = True
            used = {"seed": subject.seed, **defaults, **as_plain(given)}
            store.save(name, answers[name], options=used)
    return answers


def _question(name: str) -> Part:
    try:
        part = find_part("question", name)
    except PydanticCustomError as error:
        raise TenfoldError(error.message()) from None
    if needed := [key for key, field in part.options.model_fields.items() if field.is_required()]:
        raise TenfoldError(f"{name} can't be used: its option {needed[0]} needs a default.")
    return part


def _answered(part: Part, subject: Subject, given: Mapping[str, Any], *, must: bool) -> Answer:
    """What `part` finds; must: whether it is an error that something is missing for it."""
    if part.images:
        _ = subject.measured  # Without any, every question would lack them.
    try:
        found = part.call(subject, **given)
        return found if isinstance(found, Answer) else _own(part, found)
    except Unanswerable as error:
        return Missing(missing=str(error), for_good=True)
    except (HeldError, UnwritableError):
        raise
    except TenfoldError as error:
        if must:
            raise
        # Where the run's own data is gone, that is to be said, and nothing to be kept.
        assert subject.dataset is not None
        return Missing(missing=str(error))


def _own(part: Part, found: Any) -> Own:
    """What a question of one's own gives, under the first line of its docstring: a dict or a list
    of dicts, and perhaps a Figure with it."""
    rows, figure = found if isinstance(found, tuple) else (found, None)
    if isinstance(rows, dict):
        rows = [{"": key, "value": value} for key, value in rows.items()]
    is_list = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    if not rows or not is_list:
        raise TenfoldError(f"{part.name} must give a dict or a list of dicts, not {rows!r:.80}.")
    title = (inspect.getdoc(part.call) or part.name).partition("\n")[0]
    plain = json.loads(json.dumps(rows, default=lambda v: getattr(v, "tolist", v.__str__)()))
    answer = Own(own=part.name, title=title, rows=tuple(plain))
    if figure is None:
        return answer
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return answer.having({"figure": np.asarray(canvas.buffer_rgba())[..., :3].copy()})
