"""Several trials at once, each in a worker process that ends when this one does."""

import contextlib
import glob
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from tenfold.errors import InterruptedRunError, StoppedByUserError
from tenfold.studies.running import Job, TrialReporter
from tenfold.training.interruption import Interruption
from tenfold.training.reporters import Plan

WORKER = (sys.executable, "-P", "-m", "tenfold.studies.worker")
"""The command of a worker; -P keeps modules in the user's folder from standing in for others."""

POLL_SECONDS = 0.1
"""Longest time until a signal or the end of a worker is noticed."""

LAST_WORDS_SECONDS = 5.0
"""How long what a dead worker wrote may take to arrive."""

logger = logging.getLogger("tenfold")


def train_in_workers(
    jobs: Iterable[Job],
    *,
    num_jobs: int,
    start: Callable[[Job], TrialReporter],
    end: Callable[[Job, str | None], None],
    command: Sequence[str] = WORKER,
) -> None:
    """Train `jobs`, up to `num_jobs` at once, each in a process that `command` starts.

    start: called before each, for who is told of its training. end: called after each, with the
    sentence of why it failed or None. Both are called in this thread.

    On SIGINT, SIGTERM and SIGUSR1 the workers save and end, and then StoppedByUserError or
    InterruptedRunError is raised; a second SIGINT kills them. InterruptedRunError is also raised,
    after the others have ended, where somebody else stopped a worker.
    """
    pool = _Pool(command)
    waiting = iter(jobs)
    with Interruption() as interruption, pool.open():
        interrupted = []
        while True:
            while interruption.signal is None and len(pool.workers) < num_jobs:
                if (job := next(waiting, None)) is None:
                    break
                pool.begin(job, start(job))
            if not pool.workers:
                break
            if interruption.signal is not None:
                pool.ask_to_stop()
            pool.pass_events_on()
            for worker in pool.take_ended():
                if worker.was_interrupted(asked=interruption.signal is not None):
                    interrupted.append(worker.job.trial.name)
                else:
                    end(worker.job, worker.failure())
        _raise_if_stopped(interruption.signal, interrupted)


def _raise_if_stopped(number: signal.Signals | None, interrupted: Sequence[str]) -> None:
    saved = "everything is saved, and the same command goes on from there."
    if number is not None:
        kind = StoppedByUserError if number == signal.SIGINT else InterruptedRunError
        under_way = f" with {len(interrupted)} under way" if interrupted else ""
        raise kind(f"Stopped by {number.name}{under_way}; {saved}")
    if interrupted:
        raise InterruptedRunError(f"Somebody stopped the process of {interrupted[0]}; {saved}")


@dataclass
class _Worker:
    """A process that trains a job, what it has said, and what it wrote on standard error.

    gpu: the one that it has, by the name that CUDA knows.
    """

    job: Job
    reporter: TrialReporter
    process: "subprocess.Popen[bytes]"
    errors: IO[bytes]
    gpu: str | None = None
    events: "queue.Queue[dict[str, Any]]" = field(default_factory=queue.Queue)
    listener: threading.Thread | None = None
    ending: dict[str, Any] | None = None

    def listen(self) -> None:
        """Put what the worker says in the queue until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.events.put(json.loads(line))

    def handle(self, event: dict[str, Any]) -> None:
        """Pass an event on to whom it is for."""
        match event.pop("event"):
            case "end":
                self.ending = event
            case "log":
                logger.log(event["level"], "%s: %s", self.job.trial.name, event["message"])
            case "started":
                self.reporter.started(Plan(**event["plan"]))
            case "stepped":
                self.reporter.stepped(**event)
            case "epoch_ended":
                self.reporter.epoch_ended(**event)
            case "ended":
                self.reporter.ended(event["reason"])
            case "progress":
                self.reporter(**event)

    def was_interrupted(self, *, asked: bool) -> bool:
        """Whether the run can go on later. asked: whether it was asked to stop."""
        if self.ending is not None:
            return bool(self.ending["status"] == "interrupted")
        # A worker that is still importing has no handler yet, and nothing to save.
        return asked or self.process.returncode == -signal.SIGTERM

    def failure(self) -> str | None:
        """Why the trial failed, in a sentence; None where it finished."""
        if self.ending is not None:
            message: str | None = self.ending["message"]
            return message
        status = self.process.returncode
        if status == -getattr(signal, "SIGKILL", 9):
            return (
                "Its process was killed, as happens when memory runs out; run fewer --jobs at "
                "once, or make training.batch_size smaller."
            )
        if status < 0:
            return f"Its process ended by {signal.Signals(-status).name}."
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "no word of why")
        return f"Its process ended with status {status} and {last}"

    def close(self) -> None:
        """Free what belongs to a process that is over, or about to be."""
        self.process.wait()
        if self.listener is not None:
            # A process of its own that it left behind may keep the pipe open.
            self.listener.join(LAST_WORDS_SECONDS)
            if self.process.stdout is not None and not self.listener.is_alive():
                self.process.stdout.close()
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()


class _Pool:
    """The workers that run now."""

    def __init__(self, command: Sequence[str]) -> None:
        self.workers: list[_Worker] = []
        self._command = command
        self._gpus = _visible_gpus()

    @contextlib.contextmanager
    def open(self) -> Iterator[None]:
        """Whatever ends the block, no worker outlives it; all may save unless that was Ctrl-C."""
        try:
            yield
        except Exception:
            self.ask_to_stop()
            for worker in self.workers:
                worker.process.wait()
            raise
        finally:
            for worker in self.workers:
                worker.process.kill()
                worker.close()
                worker.errors.close()

    def begin(self, job: Job, reporter: TrialReporter) -> None:
        """Start a worker."""
        errors = tempfile.TemporaryFile()  # noqa: SIM115, it is closed with the worker
        taken = Counter(worker.gpu for worker in self.workers)
        gpu = min(self._gpus, key=taken.__getitem__, default=None)
        process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu} if gpu is not None else None,
            # Ctrl-C reaches all processes of a terminal; this one tells the workers itself.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        worker = _Worker(job, reporter, process, errors, gpu)
        self.workers.append(worker)
        worker.listener = threading.Thread(target=worker.listen, daemon=True)
        worker.listener.start()
        request = {
            "recipe": job.recipe.to_dict(),
            "folder": str(job.run.path),
            "threads": job.threads,
            "skip_broken": job.skip_broken,
            "command": sys.argv,
        }
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # It is dead already, which will be noticed.
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()

    def ask_to_stop(self) -> None:
        """Let every worker save and end."""
        for worker in self.workers:
            if worker.process.stdin is not None and not worker.process.stdin.closed:
                with contextlib.suppress(OSError):
                    worker.process.stdin.close()

    def pass_events_on(self) -> None:
        """Hand over what the workers have said, and wait a little where they are silent."""
        silent = True
        for worker in self.workers:
            while not worker.events.empty():
                worker.handle(worker.events.get())
                silent = False
        if silent:
            time.sleep(POLL_SECONDS)

    def take_ended(self) -> Iterator[_Worker]:
        """The workers whose processes are over, with all that they said handed over."""
        for worker in [w for w in self.workers if w.process.poll() is not None]:
            worker.close()
            while not worker.events.empty():
                worker.handle(worker.events.get())
            self.workers.remove(worker)
            with worker.errors:
                yield worker


def _visible_gpus() -> list[str]:
    """The GPUs that workers share out among them; none where there is one for all, or none."""
    if sys.platform == "linux" and len(glob.glob("/dev/nvidia[0-9]*")) < 2:
        return []  # Without the seconds that importing torch takes.
    import torch

    number = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number))))
    return named.split(",")[:number] if number > 1 else []
