"""Many commands of ours, each of which can be run again at no harm: `run`.

Each is a process that prints its events with `--json`, ends by itself when whoever started it is
gone, and leaves all that it found in a folder. It runs on this machine (`Here`) or on a node of a
Ray cluster (`tenfold.cluster`); what they share is in this file.
"""

import contextlib
import glob
import json
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tenfold.errors import InterruptedRunError, StoppedByUserError
from tenfold.interruption import DRIVEN, Interruption
from tenfold.processes import Spawn, quick_spawn, spawn

logger = logging.getLogger("tenfold")

POLL_SECONDS = 0.1
"""Longest time until a signal or the end of a process is noticed."""

LAST_WORDS_SECONDS = 5.0
"""How long what a dead process wrote may take to arrive."""

INTERRUPTED = (
    InterruptedRunError.exit_status,
    StoppedByUserError.exit_status,
    # One that is still importing has no handler yet, and nothing to save.
    -signal.SIGTERM,
)


@dataclass(frozen=True)
class Item:
    """A command: `tenfold` with `arguments`, which leaves its files in `folder`.

    threads: that it computes with. environment: what it has beside this process's.
    """

    name: str
    arguments: tuple[str, ...]
    folder: Path
    threads: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How an item ended: its exit status, why it failed in a sentence, and that error's class."""

    status: int
    error: str | None = None
    kind: str = ""

    @property
    def was_interrupted(self) -> bool:
        """Whether it was stopped with all saved, so that the same command goes on."""
        return self.status in INTERRUPTED


Post = Callable[[dict[str, Any]], None]
"""Told of an event of an item."""


class Running(Protocol):
    """An item under way: `poll` says how it ended, once it has and all its events are posted;
    `stop` lets it save and end; `kill` ends it at once."""

    def poll(self) -> Ended | None: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


class Place(Protocol):
    """Where items run: `start` begins with one."""

    def start(self, item: Item, post: Post) -> Running: ...


class Watch(Protocol):
    """Hears, in the thread that calls `run`, that an item is about to run, what it prints, and that
    it is over: finished, failed, or stopped because `received` returned True, which stops it as a
    signal does."""

    def started(self, item: Item) -> None: ...
    def received(self, item: Item, event: dict[str, Any]) -> bool | None: ...
    def ended(self, item: Item, ended: Ended) -> None: ...


def run(items: Iterable[Item], *, jobs: int, watch: Watch, place: Place | None = None) -> None:
    """Run `items`, up to `jobs` at once, and tell `watch` how each ended.

    An item is taken from `items` when there is room for it. One that fails leaves the others alone.
    On SIGINT, SIGTERM and SIGUSR1 all save and end, and then StoppedByUserError or
    InterruptedRunError is raised; a second SIGINT kills them. InterruptedRunError is also raised,
    after the others have ended, where somebody else stopped one.
    """
    with Interruption() as interruption:
        session = _Session(watch, place or Here())
        try:
            session.run(iter(items), jobs, interruption)
        except Exception:
            session.stop()
            session.wait()
            raise
        finally:
            session.kill()
    session.raise_if_stopped(interruption.signal)


class _Session:
    """What is under way in one call of `run`."""

    def __init__(self, watch: Watch, place: Place) -> None:
        self._watch, self._place = watch, place
        self._running: dict[str, tuple[Item, Running]] = {}
        self._events: queue.Queue[tuple[Item, dict[str, Any]]] = queue.Queue()
        self._asked: set[str] = set()
        self._said: set[str] = set()
        self._interrupted: list[str] = []

    def run(self, items: Any, jobs: int, interruption: Interruption) -> None:
        """Until none is left, or all have left because of a signal."""
        while True:
            while interruption.signal is None and len(self._running) < jobs:
                if (item := next(items, None)) is None:
                    break
                self._start(item)
            if not self._running:
                return
            if interruption.signal is not None:
                self.stop()
            self._pass_on()
            self._take_ended()

    def stop(self) -> None:
        """Let all save and end."""
        for _, running in self._running.values():
            running.stop()

    def wait(self) -> None:
        """Until all have ended, whatever they say meanwhile."""
        while any(running.poll() is None for _, running in self._running.values()):
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """End what is still under way at once."""
        for _, running in self._running.values():
            running.kill()
        self._running.clear()

    def raise_if_stopped(self, number: signal.Signals | None) -> None:
        """Raise InterruptedRunError or its kind where a signal ended it, or ended an item."""
        saved = "everything is saved, and the same command goes on from there."
        if number is not None:
            kind = StoppedByUserError if number == signal.SIGINT else InterruptedRunError
            num = len(self._interrupted)
            under_way = f" with {num} under way" if num else ""
            raise kind(f"Stopped by {number.name}{under_way}; {saved}")
        if self._interrupted:
            raise InterruptedRunError(
                f"Somebody stopped the process of {self._interrupted[0]}; {saved}"
            )

    def _start(self, item: Item) -> None:
        self._watch.started(item)
        post = self._events.put
        running = self._place.start(item, lambda event: post((item, event)))
        self._running[item.name] = item, running

    def _pass_on(self) -> None:
        """Hand over what the items have said; wait a little where they are silent."""
        with contextlib.suppress(queue.Empty):
            pair = self._events.get(timeout=POLL_SECONDS)
            while True:
                self._tell(*pair)
                pair = self._events.get_nowait()

    def _tell(self, item: Item, event: dict[str, Any]) -> None:
        level = {"info": logging.INFO, "warning": logging.WARNING}.get(event["event"])
        if level is not None and (message := str(event.get("message"))) not in self._said:
            self._said.add(message)  # What one says, others would say too.
            logger.log(level, "%s: %s", item.name, message)
        if self._watch.received(item, event) and item.name in self._running:
            self._asked.add(item.name)
            self._running[item.name][1].stop()

    def _take_ended(self) -> None:
        polled = [(item, running.poll()) for item, running in self._running.values()]
        over = [(item, ended) for item, ended in polled if ended is not None]
        if not over:
            return
        self._pass_on()
        for item, ended in over:
            del self._running[item.name]
            if ended.was_interrupted and item.name not in self._asked:
                self._interrupted.append(item.name)
            else:
                self._watch.ended(item, ended)


class Here:
    """This machine: a process for each item, and where there are several GPUs one of them each.

    command: what takes an item's arguments, if not a fork of a process with its imports done.
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._spawn = partial(spawn, command=command) if command else quick_spawn()
        self._gpus = visible_gpus()
        self._children: list[Child] = []

    def start(self, item: Item, post: Post) -> Running:
        """See Place."""
        self._children = [child for child in self._children if child.process.poll() is None]
        taken = Counter(child.gpu for child in self._children)
        gpu = min(self._gpus, key=taken.__getitem__, default=None)
        child = Child(item, post, spawn=self._spawn, gpu=gpu)
        self._children.append(child)
        return child


class Child:
    """A process of this machine that runs an item.

    spawn: what starts it. gpu: the one that it has, as CUDA names it.
    """

    def __init__(
        self, item: Item, post: Post, *, spawn: Spawn = spawn, gpu: str | None = None
    ) -> None:
        self.gpu = gpu
        self._said: dict[str, Any] = {}
        self._dead_since: float | None = None
        self._ended: Ended | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, it is closed at the end
        own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        environment = {**os.environ, DRIVEN: "1", **own, **item.environment}
        self.process = spawn(item.arguments, stderr=self._errors, environment=environment)
        self._listener = threading.Thread(target=self._listen, args=(post,), daemon=True)
        self._listener.start()

    def poll(self) -> Ended | None:
        """See Running."""
        status = self.process.poll()
        if self._ended is not None or status is None:
            return self._ended
        self._dead_since = self._dead_since or time.monotonic()
        # A process of its own that it left behind may keep the pipe open.
        late = time.monotonic() - self._dead_since > LAST_WORDS_SECONDS
        if self._listener.is_alive() and not late:
            return None
        with self._errors:
            self._ended = self._describe_end(status)
        return self._ended

    def stop(self) -> None:
        """See Running: the end of its input is the end of whoever wants its result."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with contextlib.suppress(OSError):
                self.process.stdin.close()

    def kill(self) -> None:
        """See Running."""
        self.process.kill()
        self.process.wait()
        self._errors.close()
        self.stop()

    def _listen(self, post: Post) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # Libraries print, too.
                    event = json.loads(line)
                    if isinstance(event, dict) and "event" in event:
                        if event["event"] in ("error", "interrupted"):
                            self._said = event
                        else:
                            post(event)

    def _describe_end(self, status: int) -> Ended:
        self.stop()
        if status == 0 or status in INTERRUPTED:
            return Ended(status)
        if self._said:
            return Ended(status, self._said.get("message"), self._said.get("kind", ""))
        if status == -getattr(signal, "SIGKILL", 9):
            return Ended(
                status,
                "Its process was killed, as happens when memory runs out; run fewer --jobs at "
                "once, or make training.batch_size smaller.",
            )
        if status < 0:
            return Ended(status, f"Its process ended by {signal.Signals(-status).name}.")
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no word of why")
        return Ended(
            status, last if status == 1 else f"Its process ended with status {status} and {last}"
        )


def visible_gpus() -> list[str]:
    """The GPUs that processes share out among them; none where there is one for all, or none."""
    if sys.platform == "linux" and len(glob.glob("/dev/nvidia[0-9]*")) < 2:
        return []  # Without the seconds that importing torch takes.
    import torch

    number = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number))))
    return named.split(",")[:number] if number > 1 else []


def num_cores() -> int:
    """The physical cores that this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(psutil.cpu_count(logical=False) or sys.maxsize, usable or 1)


def usual_threads() -> int:
    """What a process computes with that isn't told how many: what OMP_NUM_THREADS says, or as many
    as there are cores."""
    said = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(said) if said.isdecimal() and int(said) else num_cores()
