"""Several processes end together: what fails on one is said by all, whatever they wait for."""

import contextlib
import gc
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from accelerate import Accelerator
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from tenfold.errors import (
    DivergedError,
    InterruptedRunError,
    StoppedByUserError,
    TenfoldError,
    sentence_of,
)

POLL_SECONDS = 0.5
"""Until a failure of another process is noticed."""

LEAVING_SECONDS = 5.0
"""For a process to leave by itself after that, and for the others to hear of a failure."""

LOST = (
    "Another process of this training ended without a word; the same command goes on from what was "
    "saved."
)

_trainings = itertools.count()


@contextlib.contextmanager
def ending_together(accelerator: Accelerator) -> Iterator[None]:
    """A context that an error on one process ends on all of them, with its sentence.

    A process that waits for another one in the middle of a sum can't be woken: where it is still
    there some seconds later, it says the sentence and ends at once. Everything that training
    writes is written whole or not at all. One process alone has nobody to tell.
    """
    if accelerator.num_processes == 1:
        yield
        return
    failures = _Failures(accelerator.num_processes)
    try:
        yield
    except BaseException as error:
        # What another one's end brought about here: a lost connection, a signal of the launcher.
        if isinstance(error, RuntimeError | InterruptedRunError):
            lost = isinstance(error, RuntimeError) and _tells_of_a_lost_process(error)
            heard = failures.heard(wait=lost) or (
                Failure(LOST, TenfoldError.exit_status) if lost else None
            )
            if heard is not None:
                raise heard.error() from error
        failures.tell(error)
        raise
    finally:
        failures.leave()
    # Threads of the process group end with its last reference, and must before the process.
    accelerator.free_memory()
    gc.collect()


class Failure(NamedTuple):
    """What a process said before it ended, and its exit status."""

    message: str
    status: int

    def error(self) -> TenfoldError:
        """It as an error of this process."""
        kinds = (DivergedError, InterruptedRunError, StoppedByUserError)
        found = {kind.exit_status: kind for kind in kinds}.get(self.status, TenfoldError)
        return found(self.message)


class _Failures:
    """The first failure of all processes, told through the store by which they found each other."""

    def __init__(self, num_processes: int) -> None:
        self._store = PrefixStore(f"tenfold/{next(_trainings)}", _get_default_store())
        self._num_processes = num_processes
        self._has_left = threading.Event()
        self._heard: Failure | None = None
        self._knows = False
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def heard(self, *, wait: bool = False) -> Failure | None:
        """What another process said, if it did. wait: for a moment, since one must have failed."""
        deadline = time.monotonic() + LEAVING_SECONDS * wait
        while self._heard is None:
            try:
                if self._store.check(["failure"]):
                    self._heard = Failure(*json.loads(self._store.get("failure")))
            except RuntimeError:  # The process that kept the store is gone.
                self._heard = Failure(LOST, TenfoldError.exit_status)
            if time.monotonic() >= deadline:
                break
            time.sleep(POLL_SECONDS / 5)
        return self._heard

    def tell(self, error: BaseException) -> None:
        """Let the others know, and stay until they do: the store may go with this process."""
        self._has_left.set()
        failure = Failure("Another process was stopped.", StoppedByUserError.exit_status)
        if isinstance(error, Exception):
            failure = Failure(sentence_of(error), getattr(error, "exit_status", 2))
        with contextlib.suppress(RuntimeError):
            self._store.compare_set("failure", "", json.dumps(failure))
            self._note_that_it_knows()
            deadline = time.monotonic() + LEAVING_SECONDS
            while self._store.add("knowing", 0) < self._num_processes:
                if time.monotonic() > deadline:
                    break
                time.sleep(POLL_SECONDS / 5)

    def leave(self) -> None:
        """This process needs to be told no more."""
        self._has_left.set()
        self._thread.join()
        self._note_that_it_knows()

    def _note_that_it_knows(self) -> None:
        if not self._knows:
            self._knows = True
            with contextlib.suppress(RuntimeError):
                self._store.add("knowing", 1)

    def _watch(self) -> None:
        while not self._has_left.wait(POLL_SECONDS):
            if (failure := self.heard()) is not None:
                break
        else:
            return
        self._note_that_it_knows()
        if not self._has_left.wait(LEAVING_SECONDS):
            sys.stderr.write(f"error: {failure.message}\n")
            sys.stderr.flush()
            os._exit(failure.status)


def _tells_of_a_lost_process(error: RuntimeError) -> bool:
    """Whether it is what gloo, NCCL or the store say where another process is gone."""
    words = ("gloo", "nccl", "closed by peer", "connection", "store", "recv", "send")
    return any(word in str(error).lower() for word in words)
