"""Work on many images, shared among all cores.

Threads share a core where the images are small, because opening a file holds Python's lock
(measured: 60,000 PNG files of 32x32 take as long in two threads as in one). So many images go to
processes, by loky: no forks, which are unsafe once torch has started its threads, nor
multiprocessing's own, which import the caller's main module again.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from numpy.typing import NDArray

from tenfold.errors import TenfoldError
from tenfold.progress import Progress

Task = TypeVar("Task")
Result = TypeVar("Result")

# Processes cost a quarter of a second to start: below this many images threads win.
MIN_ITEMS_FOR_PROCESSES = 2000
CHUNK_ITEMS = 64
# Tasks for each core that are begun before their results are wanted: what bounds the memory.
_AHEAD = 4

_most_cores = sys.maxsize


def limit_cores(number: int) -> None:
    """Let this process work on images with no more cores than `number`."""
    global _most_cores
    _most_cores = number


def num_cores() -> int:
    """The cores that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, _most_cores)


def chunk_length(num_items: int) -> int:
    """How many items make a task that is small enough to keep every core busy."""
    return max(1, min(CHUNK_ITEMS, num_items // (8 * num_cores())))


def map_on_cores(
    function: Callable[[Task], Result], tasks: Iterable[Task], *, num_items: int
) -> Generator[Result, None, None]:
    """`function` of each task, in the order of the tasks, which hold `num_items` images in all.

    Few tasks are taken before the results of those before them are wanted. `function` is one of a
    module's own, and tasks and results can be pickled. Close the iterator if it isn't read to its
    end. Raises what `function` raises, and TenfoldError where a process dies.
    """
    cores = min(num_cores(), num_items)
    # Pillow warns of flaws that it reads over; they must not decide what counts as broken.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if cores < 2:
            yield from map(function, tasks)
            return
        pending: deque[Future[Result]] = deque()
        executor: Executor = ThreadPoolExecutor(cores)  # Which starts none until it is used.
        if num_items >= MIN_ITEMS_FOR_PROCESSES:
            from joblib.externals.loky import ProcessPoolExecutor

            executor = ProcessPoolExecutor(cores, initializer=_begin)
        try:
            for task in tasks:
                pending.append(executor.submit(function, task))
                if len(pending) >= _AHEAD * cores:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool as error:
            raise TenfoldError(
                "A process that works on images died; free some memory and run the same command "
                "again."
            ) from error
        finally:
            for future in pending:
                future.cancel()
            executor.shutdown()


def map_chunks(
    function: Callable[[Any], Result],
    items: Sequence[Any] | NDArray[Any],
    label: str,
    progress: Progress | None,
) -> Generator[tuple[int, Result], None, None]:
    """`function` of a few neighbouring items at a time, as `map_on_cores`, with the position of
    the first of them. label: what `progress` is told is being done."""
    number, length = len(items), chunk_length(len(items))
    tasks = (items[start : start + length] for start in range(0, number, length))
    with contextlib.closing(map_on_cores(function, tasks, num_items=number)) as results:
        for start, result in zip(range(0, number, length), results, strict=True):
            yield start, result
            if progress is not None:
                progress(label, min(start + length, number), number)


def _begin() -> None:
    """What a worker process does at first: leave Ctrl-C to its parent, print nothing, and end with
    its parent, which loky's would outlive if that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    os.dup2(2, 1)  # What a library prints must not get into what the command prints.
    parent = os.getppid()

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
