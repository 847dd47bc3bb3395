"""Commands in forks of a process with its imports done are as new processes are."""

import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest

import commands
from tenfold.processes import Fork, ForkServer, spawn

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux alone")
SPAWNED = {"TENFOLD_DRIVEN": "1"}


class Started:
    """A command, with what it says."""

    def __init__(self, start, *arguments, **environment):
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115, it is closed at the end
        environment = {**os.environ, **SPAWNED, **environment}
        self.process = start(arguments, stderr=self.errors, environment=environment)

    def end(self):
        """Its exit status, and its output and errors as lines."""
        with self.process.stdout as output:
            lines = output.read().decode().splitlines()
        status = self.process.wait()
        self.process.stdin.close()
        with self.errors as errors:
            errors.seek(0)
            return status, lines, errors.read().decode().splitlines()


@pytest.fixture(scope="module")
def server():
    return ForkServer()


@pytest.fixture
def endless(tmp_path, monkeypatch):
    """The arguments of a training that doesn't end by itself."""
    monkeypatch.chdir(tmp_path)
    data = commands.write_tiny_data(tmp_path / "tiny.npz")
    changes = [f"data.name={data}", "training.epochs=100000", "model.widths=[8]"]
    sets = [word for change in changes for word in ("--set", change)]
    return ["train", "ann", *sets, "--json", "--threads", "1", "--folder", "run"]


def begin(server, endless):
    """Such a training in a fork, once it has trained an epoch."""
    started = Started(server.spawn, *endless)
    assert isinstance(started.process, Fork)
    for line in started.process.stdout:
        if json.loads(line)["event"] == "epoch":
            assert started.process.poll() is None
            return started
    raise AssertionError(started.end())


@pytest.mark.parametrize(
    ("arguments", "status"), [(["recipes", "--json"], 0), (["train", "nonsense", "--json"], 2)]
)
def test_a_fork_says_and_ends_as_a_new_process_does(server, arguments, status):
    fork = Started(server.spawn, *arguments)
    assert isinstance(fork.process, Fork)
    found = fork.end()
    assert found[0] == status
    assert found == Started(spawn, *arguments).end()


def test_a_fork_has_the_folder_and_environment_of_whoever_asked(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TENFOLD_DATA", str(tmp_path / "nowhere"))
    commands.write_tiny_recipe(tmp_path)
    for start in (server.spawn, spawn):
        status, lines, _ = Started(start, "train", "tiny.toml", "--json").end()
        assert status == 2
        assert "nowhere" in lines[-1]


def test_a_fork_saves_when_its_input_ends_and_dies_when_it_is_killed(server, endless):
    started = begin(server, endless)
    # As Slurm does at the end of a job's time.
    for pid in (parent_of(started.process.pid), started.process.pid):
        os.kill(pid, signal.SIGTERM)
    assert started.end()[0] == 75
    started = begin(server, endless)
    started.process.stdin.close()
    assert started.end()[0] == 75
    assert any(Path("run/checkpoint").glob("*.json"))
    started = begin(server, endless)
    started.process.kill()
    assert started.end()[0] == -signal.SIGKILL


def test_without_the_server_its_forks_are_ended_and_commands_start_anew(endless):
    server = ForkServer()
    started = begin(server, endless)
    parent = parent_of(started.process.pid)
    os.kill(parent, signal.SIGKILL)
    assert started.process.wait() == -signal.SIGKILL
    assert started.end()[0] == -signal.SIGKILL
    later = Started(server.spawn, "recipes", "--json")
    assert not isinstance(later.process, Fork)
    assert later.end()[0] == 0


def test_the_server_ends_with_its_owner_and_its_forks_go_on(endless):
    server = ForkServer()
    started = begin(server, endless)
    parent = parent_of(started.process.pid)
    process = started.process
    process._server = None
    del server
    assert not Path(f"/proc/{parent}").exists()
    assert Path(f"/proc/{process.pid}").exists()
    process.stdin.close()  # As at the end of the driver.
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process.pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert any(Path("run/checkpoint").glob("*.json"))
    process.stdout.close()
    started.errors.close()


def parent_of(pid):
    """The number of the process that forked it."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("PPid:"))
