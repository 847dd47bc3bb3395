"""`tenfold live`: a page that grows while runs go on; and the one of `tenfold train --live`."""

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Interval

from tenfold.cli.commands import announce
from tenfold.console.output import Output
from tenfold.run import RunFolder

if TYPE_CHECKING:
    from tenfold.engine import Child

PORT = 8001

END_SECONDS = 5.0
"""For the page's process to say how it ended, and to go."""

logger = logging.getLogger("tenfold")


def _require_port(port: int) -> None:
    from tenfold.reporting.live.server import require_port

    require_port(port)


LiveOption = Annotated[
    int | None,
    "Serve a page that grows meanwhile to this machine, on 8001 if no port is named.",
    "[PORT]",
    Interval(ge=0, le=65535),
    _require_port,
]


def live(
    output: Output,
    folder: Annotated[Path, "A run, a study, a search, or the folder of all runs."],
    *,
    port: Annotated[int, "0 takes any free one.", Interval(ge=0, le=65535)] = PORT,
) -> None:
    """Serve a page that shows runs while they go on, to this machine alone."""
    from tenfold.reporting.live.server import serve

    def ready(address: str) -> None:
        said = f"The live page is at {address}; Ctrl-C ends it."
        announce(output, "serving", said, address=address)

    serve(folder, port, ready=ready)
    output.record("ended", cpu_seconds=time.process_time())


@contextlib.contextmanager
def live_page(output: Output, port: int | None) -> Iterator[Callable[[RunFolder], None] | None]:
    """What begins to serve the page about a run until the block ends; None where `port` is.

    It is served by a process of its own, which does nothing while no browser asks. Raises
    TenfoldError where the port is taken.
    """
    if port is None:
        yield None
        return
    from tenfold.engine import Child, Item
    from tenfold.reporting.live.server import require_port

    free = require_port(port)
    with contextlib.ExitStack() as stack:

        def told(event: dict[str, Any]) -> None:
            if event["event"] == "serving":
                address = event["address"]
                said = f"The live page is at {address}"
                announce(output, "live", said, bold=True, address=address)

        def begin(run: RunFolder) -> None:
            arguments = ("live", str(run.path.resolve()), "--port", str(free), "--json")
            # It has no compute threads that would have to be looked after.
            item = Item("live", arguments, run.path, environment={"OMP_WAIT_POLICY": "PASSIVE"})
            stack.callback(_end, Child(item, told))

        yield begin


def _end(child: "Child") -> None:
    """Let the page's process end; say so if it did before, for a reason of its own."""
    if (ended := child.poll()) is None:
        child.stop()
        deadline = time.monotonic() + END_SECONDS
        while (ended := child.poll()) is None and time.monotonic() < deadline:
            time.sleep(0.02)
    if ended is None:
        child.kill()
    elif ended.error is not None:
        logger.warning("The live page could not be served: %s", ended.error)


def with_port(arguments: Sequence[str]) -> list[str]:
    """`--live` without a port as `--live 8001`, since no option may go without its value."""
    found: list[str] = []
    for each, after in itertools.pairwise([*arguments, ""]):
        found += ["--live", str(PORT)] if each == "--live" and not after.isdigit() else [each]
    return found
