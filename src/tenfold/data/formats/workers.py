"""Work on many pictures, shared among all cores.

Threads share a core where the pictures are small, because opening a file holds Python's lock
(measured: 60,000 PNG files of 32x32 take as long in two threads as in one). So many pictures go to
processes: fresh interpreters that are spoken to through pipes, not forks, which are unsafe once
torch has started its threads, nor multiprocessing's, which import the caller's main module again.
"""

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tenfold.errors import TenfoldError

Task = TypeVar("Task")
Result = TypeVar("Result")

# Processes cost a quarter of a second to start: below this many pictures threads win.
MIN_ITEMS_FOR_PROCESSES = 2000
CHUNK_ITEMS = 64
# Tasks for each core that are begun before their results are wanted: what bounds the memory.
_AHEAD = 4

logger = logging.getLogger("tenfold")


def num_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def chunk_length(num_items: int) -> int:
    """How many of `num_items` make a task that is small enough to keep every core busy."""
    return max(1, min(CHUNK_ITEMS, num_items // (8 * num_cores())))


def chunks_of(num_items: int) -> list[slice]:
    """Slices that cover `num_items`, small enough to keep every core busy to the end."""
    length = chunk_length(num_items)
    return [slice(start, start + length) for start in range(0, num_items, length)]


def map_on_cores(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, num_items: int
) -> Generator[Result, None, None]:
    """`function` of each task, in the order of the tasks, which hold `num_items` pictures in all.

    Few tasks are taken before the results of those before them are wanted. `function` is one of a
    module's own, and tasks and results can be pickled. Close the iterator
    if it isn't read to its end. Raises what `function` raises, and TenfoldError where a process
    dies.
    """
    cores = min(num_cores(), num_items)
    if cores < 2:
        with _without_warnings():
            yield from map(function, tasks)
        return
    workers = _Workers(function, in_processes=num_items >= MIN_ITEMS_FOR_PROCESSES)
    executor = ThreadPoolExecutor(cores, thread_name_prefix="tenfold-pictures")
    try:
        with _without_warnings():
            pending: deque[Future[Result]] = deque()
            for task in tasks:
                pending.append(executor.submit(workers.run, task))
                if len(pending) >= _AHEAD * cores:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
        workers.close()


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Pillow warns of flaws that it reads over; they must not decide what counts as broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Workers:
    """A worker process for each thread that calls `run`, started when it first does."""

    def __init__(self, function: Callable[[Any], Any], *, in_processes: bool) -> None:
        self._function = function
        self._in_processes = in_processes
        self._own = threading.local()
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, task: Any) -> Any:
        if not self._in_processes:
            return self._function(task)
        if not hasattr(self._own, "process"):
            self._own.process = self._start()
        process = self._own.process
        if process is None:
            return self._function(task)
        return self._ask(process, task)

    def _start(self) -> subprocess.Popen[bytes] | None:
        paths = [str(entry) for entry in sys.path]
        code = (
            "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
            f"sys.path[:] = {paths!r}; from {__name__} import serve; serve()"
        )
        try:
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            logger.info("Pictures are worked on by threads, as no process starts (%s).", error)
            return None
        self._processes.append(process)
        return process

    def _ask(self, process: subprocess.Popen[bytes], task: Any) -> Any:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump((self._function, task), process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            succeeded, value = pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise TenfoldError(
                f"A process that works on pictures died (status {process.poll()}); free some "
                "memory and run the same command again."
            ) from error
        if not succeeded:
            raise value
        return value

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.wait()


def serve() -> None:
    """What a worker process runs: answer the tasks that come by standard input, until it ends."""
    warnings.simplefilter("ignore")
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not get among the answers
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    while True:
        try:
            function, task = pickle.load(source)
        except EOFError:
            return
        try:
            answer = True, function(task)
        except Exception as error:  # given to the caller, who raises it
            answer = False, error
        pickle.dump(answer, answers, protocol=pickle.HIGHEST_PROTOCOL)
        answers.flush()
