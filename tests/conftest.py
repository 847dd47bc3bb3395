"""What several test files share: made-up pictures, fresh interpreters, private file systems."""

import gc
import os
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from filelock import FileLock

import hub_stand_in
from tenfold.data.images import Images

TIMEOUT_SECONDS = 60


def pytest_addoption(parser):
    """Options of our own."""
    parser.addoption(
        "--soak-seconds", type=float, default=60, help="how long a long test loads the service"
    )


def pytest_collection_modifyitems(items):
    """Files with slow tests come first, so that no worker is left with one at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish():
    """What is imported by now stays, and need not be looked at by each collection of garbage."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish():
    """Some libraries complain of what is left at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread_for_each_worker():
    """Two workers that compute with two threads each would mostly wait for each other."""
    if "PYTEST_XDIST_WORKER" in os.environ and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """A function that gives a folder as `make(folder)` fills it, a copy for each who asks; of
    several, each goes on from where the one before it ended.

    It is made by the first of all workers that asks; the others wait and copy. Absolute paths in
    it are those of the original, which nobody may change.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def copy_of(*makes):
        *before, make = makes
        original = shared / f"once-{make.__name__}"
        with FileLock(f"{original}.lock"):
            if not (original / f"{make.__name__} is done").exists():
                shutil.rmtree(original, ignore_errors=True)
                if before:
                    shutil.copytree(copy_of(*before), original)
                else:
                    original.mkdir()
                make(original)
                (original / f"{make.__name__} is done").touch()
        place = tmp_path_factory.mktemp(make.__name__)
        return shutil.copytree(original, place, dirs_exist_ok=True)

    return copy_of


@pytest.fixture
def make_images():
    """A function that makes random labelled pictures; the same ones for the same arguments."""

    def make(number=8, *, size=(16, 12), class_names=("ant", "bee", "cat"), seed=0):
        generator = np.random.default_rng(seed)
        return Images(
            generator.integers(0, 256, (number, *size, 3), dtype=np.uint8),
            np.arange(number, dtype=np.int64) % len(class_names),
            tuple(class_names),
            np.array([f"train/{i + 1}" for i in range(number)]),
        )

    return make


@pytest.fixture
def run_python():
    """A function that runs code in a fresh interpreter; it returns what `subprocess.run` does."""

    def run(code, *arguments):
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    return run


@pytest.fixture
def run_with_mounts():
    """A function that runs a shell script in which `mount` works and nobody else sees it.

    In the script, "$PYTHON" is the interpreter and "$1", "$2" ... are the arguments.
    """
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rm", "true"], check=False).returncode:
        pytest.skip("needs unshare with user namespaces")

    def run(script, *arguments):
        return subprocess.run(
            [unshare, "-rm", "bash", "-euc", script, "bash", *map(str, arguments)],
            env={**os.environ, "PYTHON": sys.executable},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def browser():
    """Chromium, if there is one."""
    sync_api = pytest.importorskip("playwright.sync_api")
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if executable is None:
        pytest.skip("chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub on loopback, and an environment in which it is the hub."""
    with hub_stand_in.hub() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.address)
        monkeypatch.setenv("HF_TOKEN", hub_stand_in.TOKEN)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield found
