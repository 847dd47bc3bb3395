"""Compute threads that wait as suits the cores: spinning while these are free, asleep while not.

A thread of OpenMP that has done its share of an operation spins for some milliseconds before it
sleeps. On idle cores that is fastest; beside other programs it burns the time in which the thread
that it waits for could run, and steps take up to ten times as long. libgomp, which PyTorch uses on
Linux, spins for a thousandth of that as long as it manages more threads than there are cores. So
threads that do nothing are kept beside those that compute while the latter lack cores. It works at
any moment, changes neither the environment nor the number of threads that compute, and no bit of
any result.
"""

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from pathlib import Path

LOOK_SECONDS = 0.5  # Between two looks at the cores.
CALM_LOOKS = 4  # In a row with enough cores before threads spin again.
LACKING, ENOUGH = 0.15, 0.05
"""Shares of the time that threads want in which they had no core: from the first on they wait
asleep, below the second they spin again. Waking up costs some, too."""

_TASKS = Path("/proc/self/task")
_entered = threading.Lock()


@contextlib.contextmanager
def sharing_cores() -> Iterator[None]:
    """A context in which the threads of OpenMP wait as suits what else the cores do.

    Elsewhere than on Linux, within itself, and where the environment says how to wait, it does
    nothing.
    """
    if not _entered.acquire(blocking=False):
        yield
        return
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(over,), daemon=True, name="tenfold-cores")
    is_decided = any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"))
    watches = not is_decided and (_TASKS / f"{os.getpid()}/schedstat").exists()
    try:
        if watches:
            thread.start()
        yield
    finally:
        over.set()
        if watches:
            thread.join()
        _entered.release()


@contextlib.contextmanager
def waiting_asleep() -> Iterator[None]:
    """A context in which threads of OpenMP that wait fall asleep almost at once."""
    over, ready = threading.Event(), threading.Event()

    def hold() -> None:
        nothing = ctypes.cast(ctypes.CDLL(None).free, ctypes.c_void_p)  # Of NULL, that is.
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
        for path in {n.split(maxsplit=5)[5] for n in maps.splitlines() if "libgomp" in n}:
            with contextlib.suppress(OSError, AttributeError):
                parallel = ctypes.CDLL(path).GOMP_parallel
                parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
                parallel.restype = None
                parallel(nothing, None, (os.cpu_count() or 1) + 1, 0)
        ready.set()
        over.wait()

    # Threads that are asked for belong to the asking one, and end with it.
    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    ready.wait()
    try:
        yield
    finally:
        over.set()
        thread.join()


class Balance:
    """Decides how to wait, from what threads got and wanted; `is_sleepy` is the decision."""

    def __init__(self) -> None:
        self.is_sleepy = False
        self._calm_looks = 0

    def look(self, *, computed: float, waited: float) -> None:
        """Seconds that all threads have computed, and waited for a core, since the last look."""
        wanted = computed + waited
        lacking = waited / wanted if wanted > LOOK_SECONDS / 10 else 0.0
        self._calm_looks = self._calm_looks + 1 if lacking < ENOUGH else 0
        if lacking > LACKING:
            self.is_sleepy = True
        elif self._calm_looks >= CALM_LOOKS:
            self.is_sleepy = False


def _watch(over: threading.Event) -> None:
    """Look at the cores twice a second."""
    balance, before = Balance(), _schedules()
    with contextlib.ExitStack() as stack:
        while not over.wait(LOOK_SECONDS):
            now, was_sleepy = _schedules(), balance.is_sleepy
            changes = [(t, before.get(name, (0, 0))) for name, t in now.items()]
            computed, waited = (sum(t[i] - b[i] for t, b in changes) / 1e9 for i in (0, 1))
            balance.look(computed=computed, waited=waited)
            before = now
            if balance.is_sleepy and not was_sleepy:
                stack.enter_context(waiting_asleep())
            elif was_sleepy and not balance.is_sleepy:
                stack.close()


def _schedules() -> dict[str, tuple[int, int]]:
    """Nanoseconds that each thread of this process has run, and has waited for a core."""
    found = {}
    for task in os.listdir(_TASKS):
        with contextlib.suppress(OSError, ValueError):  # It may just have ended.
            ran, waited, _ = (_TASKS / task / "schedstat").read_text().split()
            found[task] = (int(ran), int(waited))
    return found
