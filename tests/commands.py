"""Real `tenfold` processes for the tests, without paying for the import of torch each time.

A fork server imports the library once, on one thread; each command is a fork of it with its own
arguments, folder and output, and can be signalled and killed like any process.
"""

import atexit
import contextlib
import functools
import gc
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import warm

PRELOADED = [
    "tenfold.cli",
    "tenfold.training.train",
    "tenfold.studies.search.running",
    # What these and other commands import on their way.
    "scipy.optimize",
    "scipy.stats",
    "tenfold.reporting.page",
    "matplotlib.backends.backend_svg",
    "sqlalchemy",
    "alembic.command",
    "captum.attr",
    "sklearn.metrics",
    "onnxscript",
    "torch.export._trace",
    "torch.onnx._internal.exporter._core",
    "onnxruntime",
    "jinja2",
    "tenfold.deployment.export",
    "tenfold.deployment.server",
]

TINY_RECIPE = """
description = "about 20,000 parameters, for tests"

[data]
validation_size = 64

[model]
name = "cnn"
widths = [16, 32]
dense = [32]

[augmentation]
flip = true
translate = 2

[optimizer]
name = "sgd"
lr = 0.05

[schedule]
name = "one_cycle"

[training]
epochs = 4
batch_size = 32
"""


@dataclass
class Command:
    """A command that is running or has ended."""

    process: Any
    log: Path

    @property
    def pid(self) -> int:
        """The process's id."""
        return int(self.process.pid)

    def wait(self, seconds: float = 120) -> int:
        """Its exit status; a test that waits longer fails."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"the command did not end:\n{self.output}")
        return int(self.process.exitcode)

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9, and wait for its end."""
        self.signal(signal.SIGKILL)
        self.process.join(30)

    def wait_for(self, condition: Callable[[], bool], *, seconds: float = 60) -> None:
        """Wait until `condition` holds, or fail with the command's output."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.process.exitcode is not None:
                raise AssertionError(f"the command ended or hung:\n{self.output}")
            time.sleep(0.005)

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return self.log.read_text() if self.log.exists() else ""


def start(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Command:
    """Start `tenfold ARGUMENTS` in `folder`; `before` runs in the new process, ahead of it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    folder.mkdir(parents=True, exist_ok=True)
    environment = {warm.SERVER: _warm_server(), **(environment or {})}
    log = folder / f"output-{time.monotonic_ns()}.log"
    process = context.Process(
        target=_run_command, args=(list(arguments), folder, log, environment, before)
    )
    process.start()
    return Command(process, log)


@functools.cache
def _warm_server() -> str:
    """Where the processes of studies and searches are had from; it ends with this process."""
    address = Path(tempfile.mkdtemp(prefix="tenfold-test-")) / "server"
    context = multiprocessing.get_context("forkserver")
    server = context.Process(target=warm.serve, args=(address,), daemon=True)
    server.start()
    atexit.register(shutil.rmtree, address.parent, ignore_errors=True)
    while not address.exists():
        time.sleep(0.01)
    return str(address)


def run(arguments: Sequence[str], *, folder: Path, **options: Any) -> Command:
    """Run `tenfold ARGUMENTS` to its end; the exit status is that of `.wait()`."""
    command = start(arguments, folder=folder, **options)
    command.wait()
    return command


def succeed(arguments: Sequence[str], folder: Path, **options: Any) -> str:
    """What `tenfold ARGUMENTS` prints; a test whose command fails, fails."""
    command = run(arguments, folder=folder, **options)
    assert command.wait() == 0, command.output
    return command.output


def events(arguments: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """The objects that `tenfold ARGUMENTS --json` prints."""
    return [json.loads(line) for line in succeed([*arguments, "--json"], folder).splitlines()]


def refuse(arguments: Sequence[str], folder: Path) -> str:
    """The one sentence with which `tenfold ARGUMENTS` ends, with status 2."""
    command = run(arguments, folder=folder)
    assert command.wait() == 2, command.output
    errors = [line for line in command.output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, command.output
    assert "Traceback" not in command.output
    return errors[0]


def start_ranks(
    arguments: Sequence[str],
    *,
    folder: Path,
    environment: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> list[Command]:
    """Start `tenfold ARGUMENTS` as two processes that train together, as torchrun starts them."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    together |= {"OMP_NUM_THREADS": "1", **(environment or {})}
    return [
        start(
            arguments,
            folder=folder,
            environment={**together, "RANK": rank, "LOCAL_RANK": rank},
            before=before,
        )
        for rank in "01"
    ]


def run_cold(
    arguments: Sequence[str], *, folder: Path, prefix: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `PREFIX python -m tenfold ARGUMENTS` as a new interpreter."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "tenfold", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _run_command(
    arguments: list[str],
    folder: Path,
    log: Path,
    environment: dict[str, str],
    before: Callable[[], None] | None,
) -> None:
    gc.freeze()  # What was imported before is not looked at again.
    os.chdir(folder)
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["tenfold", *arguments]
    # A shell that runs the tests in the background has them ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    import torch

    from tenfold import engine
    from tenfold.cli import main
    from tenfold.deployment import export

    torch.set_num_threads(1)  # As in conftest.
    export.TIMED_SECONDS = 0.05
    engine.Here.__init__.__defaults__ = ((sys.executable, "-S", warm.__file__),)
    main()


def write_tiny_data(path: Path, *, num_train: int = 512, num_test: int = 128) -> Path:
    """An npz data set of four classes of 16x16 pictures that a small network can tell apart."""
    from tenfold.data.images import Dataset, Images
    from tenfold.data.writing import write_npz

    generator = np.random.default_rng(0)
    names = ("red", "green", "blue", "grey")
    splits = {}
    for split, number in (("train", num_train), ("test", num_test)):
        labels = np.arange(number, dtype=np.int64) % len(names)
        pixels = generator.integers(0, 120, (number, 16, 16, 3), dtype=np.uint8)
        for index, label in enumerate(labels):
            tint = np.array([label == 0, label == 1, label == 2]) * 30
            pixels[index] += tint.astype(np.uint8)
        ids = np.array([f"{split}/{i + 1}" for i in range(number)])
        splits[split] = Images(pixels, labels, names, ids)
    dataset = Dataset("tiny", splits["train"], None, splits["test"], "made for a test")
    write_npz(dataset, path)
    return path


def write_tiny_recipe(folder: Path) -> Path:
    """`tiny.toml` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny.toml"
    path.write_text(TINY_RECIPE)
    return path


def write_class_folders(root: Path, *, num_images: int = 40) -> Path:
    """`train/<class>/<number>.png`, two classes that are easily told apart; no test pictures."""
    for label, colour in (("blue", (0, 0, 200)), ("red", (200, 0, 0))):
        folder = root / "train" / label
        folder.mkdir(parents=True)
        for number in range(num_images // 2):
            picture = Image.new("RGB", (8, 8), colour)
            picture.putpixel((0, 0), (number, 0, 0))  # No two are the same.
            picture.save(folder / f"{number}.png")
    return root
