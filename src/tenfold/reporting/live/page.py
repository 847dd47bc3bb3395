"""The pieces of the live page, each drawn anew no oftener than its cost allows."""

import contextlib
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.reporting.live import curves
from tenfold.reporting.live.runs import STATES, LiveRun, describe, find_runs, name_of, pruned_runs
from tenfold.reporting.templating import block_of, environment, render_page

LOOK_SECONDS = 1.0
"""Between two looks at the folder, at least."""

CURVES_SECONDS = 4.0
"""Between two drawings of the curves, which cost most, at least."""

SHARE = 0.001
"""Of a core's time that looking, and each piece of the page, may take."""

STYLE_SHEETS = ("style.css", "report.css", "live.css")
MOST_ROWS = 200
PIECES = ("overview", "compared", "now", "curves", "predictions")


class LivePage:
    """The page about the runs in `folder`, for any number of browsers; nothing is done but when one
    asks.

    Raises TenfoldError where there is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.whole = folder, describe(folder)
        self._runs: dict[Path, LiveRun] = {}
        self._due: dict[tuple[str, ...], float] = {}
        self._kept: dict[tuple[str, ...], str] = {}
        self._lock = threading.Lock()

    def html(self) -> str:
        """The whole page, whose pieces are still to come."""
        with self._lock:
            self._look()
        return render_page("live.html", style_sheets=STYLE_SHEETS, whole=self.whole)

    def pieces(self, chosen: str, *, at_once: bool = False) -> dict[str, str]:
        """The parts that change, by the id of their element.

        chosen: the name of the run that is shown in full; the one that is at work if there is none
        of that name. at_once: as everything is now, whatever it costs.
        """
        with self._lock:
            for template in ("live_pieces.html", "parts.html"):
                environment().get_template(template)  # Compiled once, which no piece is to pay.
            self._look(at_once=at_once)
            values = self._values(chosen)
            shown = values["run"].name if values["run"] else ""
            for name in PIECES:
                draw = partial(self._draw, (name, shown), values)
                self._in_turn((name, shown), draw, at_once=at_once)
            return {name: self._kept[name, shown] for name in PIECES}

    def _draw(self, key: tuple[str, ...], values: dict[str, Any]) -> None:
        self._kept[key] = block_of("live_pieces.html", key[0], **values)

    def _in_turn(self, key: tuple[str, ...], work: Callable[[], None], *, at_once: bool) -> None:
        """Do `work` unless its last time was too short ago, by what it cost."""
        now = time.monotonic()
        if not at_once and now < self._due.get(key, 0.0):
            return
        started = time.thread_time()
        work()
        cost = time.thread_time() - started
        least = CURVES_SECONDS if key[0] in ("compared", "curves") else LOOK_SECONDS
        self._due[key] = now + max(least, cost / SHARE)

    def _look(self, *, at_once: bool = False) -> None:
        def look() -> None:
            with contextlib.suppress(TenfoldError):  # It may have been removed.
                self.whole = describe(self.folder)
            found, pruned = list(find_runs(self.folder)), pruned_runs(self.folder)
            for path in found:
                if path not in self._runs:
                    below = path.relative_to(self.folder).as_posix().removeprefix("runs/")
                    name = below if path != self.folder else name_of(path)
                    self._runs[path] = LiveRun(path, name)
                run = self._runs[path]
                run.refresh(at_once=at_once)
                if run.state == "stopped" and path in pruned:
                    run.state = "pruned"
            for path in self._runs.keys() - set(found):
                del self._runs[path]

        self._in_turn(("look",), look, at_once=at_once)

    def _values(self, chosen: str) -> dict[str, Any]:
        runs = sorted(self._runs.values(), key=lambda run: (STATES.index(run.state), -run.changed))
        newest = max(runs, key=lambda run: (run.state == "running", run.changed), default=None)
        run = next((each for each in runs if each.name == chosen), newest)
        states = {state: sum(each.state == state for each in runs) for state in STATES}
        known = {"whole": self.whole, "runs": runs, "run": run, "states": states}
        return {**known, "most_rows": MOST_ROWS, "charts": curves}
