"""`audit`: answer the questions that are asked and not answered yet, and keep the answers."""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic_core import PydanticCustomError

from tenfold.audit import PARTS, SOURCES, AuditOptions, as_plain, require_parts
from tenfold.audit.answer import Answer, Missing, Own, Unanswerable
from tenfold.audit.store import Store, kept_answers
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
    told: Callable[[str], None] = lambda name: None,
) -> dict[str, Answer]:
    """What is known of `run` after the questions `wanted` were answered, or found as kept.

    wanted: None for all that come with tenfold; `my.py:question` is one of one's own. A question
    for which something is missing says so; it is tried again when it is named, or when an option of
    it is given. data: where the run's images are now, if not where they were. told: is called with
    the name of each question that has to be computed.

    Raises TenfoldError where the run is not finished, where its data has changed since, for an
    unknown question, and where a named one lacks something.
    """
    options = options or AuditOptions()
    if options.pictures is not None and options.pictures < 1:
        raise TenfoldError(f"An audit needs at least one image, not {options.pictures}.")
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
        told(name)
        fields = questions[name].options.model_fields
        given = {key: value for key, value in options.given().items() if key in fields}
        must = wanted is not None or not SOURCES.isdisjoint(given)
        with run.writer():
            answers[name] = _answered(questions[name], subject, given, must=must)
            if not isinstance(answers[name], Missing) and not is_recorded:
                subject.record_use("tenfold audit")
                is_recorded = True
            defaults = {key: field.default for key, field in fields.items() if key != "name"}
            used = as_plain({"seed": subject.seed, **defaults, **given})
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
        subject.require_pictures()  # Without any, every question would lack them.
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
