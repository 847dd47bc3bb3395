"""`audit`: compute the parts that are wanted and not known yet, and keep them."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import PydanticCustomError

from tenfold.audit import PARTS, require_parts
from tenfold.audit.options import SOURCES, AuditOptions, as_plain
from tenfold.audit.store import Arrays, Finding, Store, kept_findings
from tenfold.audit.subject import Subject
from tenfold.errors import HeldError, TenfoldError, UnwritableError
from tenfold.progress import Progress
from tenfold.registry import Part, find_part
from tenfold.run import RunFolder


def audit(
    run: RunFolder,
    wanted: Sequence[str] | None = None,
    *,
    options: AuditOptions | None = None,
    data: str | None = None,
    progress: Progress | None = None,
    told: Callable[[str], None] = lambda part: None,
) -> dict[str, Finding]:
    """What is known of `run` after the parts `wanted` were computed, or found as they were kept.

    wanted: None for all that come with tenfold; `my.py:question` is one of one's own. A part for
    which something is missing says so in its values; it is tried again when it is named, or when an
    option of it is given. data: where the run's images are now, if not where they were. told: is
    called with the name of each part that has to be computed.

    Raises TenfoldError where the run is not finished, where its data has changed since, for an
    unknown part, and where a named part lacks something.
    """
    options = options or AuditOptions()
    if options.pictures is not None and options.pictures < 1:
        raise TenfoldError(f"An audit needs at least one picture, not {options.pictures}.")
    require_parts(wanted or ())
    questions = {name: _question(name) for name in (PARTS if wanted is None else wanted)}
    subject = Subject(run, seed=options.seed or 0, progress=progress, data=data)
    store, kept = Store(run), kept_findings(run, wanted, options)
    findings: dict[str, Finding] = {}
    is_recorded = False
    for name in sorted(questions, key=[*PARTS, *questions].index):
        if name in kept:
            findings[name] = kept[name]
            continue
        told(name)
        part = questions[name]
        fields = part.options.model_fields
        given = {key: value for key, value in options.given().items() if key in fields}
        with run.writer():
            must = wanted is not None or not SOURCES.isdisjoint(given)
            findings[name] = _compute(part, subject, given, must=must)
            if "missing" not in findings[name].values and not is_recorded:
                subject.record_use("tenfold audit")
                is_recorded = True
            defaults = {key: field.default for key, field in fields.items() if key != "name"}
            used = as_plain({"seed": subject.seed, **defaults, **given})
            store.save(name, findings[name], options=used)
    return findings


def _question(name: str) -> Part:
    try:
        part = find_part("question", name)
    except PydanticCustomError as error:
        raise TenfoldError(error.message()) from None
    if needed := [key for key, field in part.options.model_fields.items() if field.is_required()]:
        raise TenfoldError(f"{name} can't be used: its option {needed[0]} needs a default.")
    return part


def _compute(part: Part, subject: Subject, given: Mapping[str, Any], *, must: bool) -> Finding:
    """What `part` finds; must: whether it is an error that something is missing for it."""
    if part.images:
        subject.require_pictures()  # Without any, every part would lack them.
    try:
        found = part.call(subject, **given)
        return found if isinstance(found, Finding) else _shown(part, found)
    except (HeldError, UnwritableError):
        raise
    except TenfoldError as error:
        if must:
            raise
        # Where the run's own data is gone, that is to be said, and nothing to be kept.
        assert subject.dataset is not None
        return Finding({"missing": str(error)}, {})


def _shown(part: Part, found: Any) -> Finding:
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
    arrays: Arrays = {}
    if figure is not None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        arrays["figure"] = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    return Finding({"own": part.name, "title": title, "rows": plain}, arrays)
