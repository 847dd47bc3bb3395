"""A Ray cluster as a place for the engine's items: each is a task on a node that has room.

The files of an item go through the folder that it is in where the nodes share that, and otherwise
with the task: the driver's to the node, and the node's back at the end.
"""

import contextlib
import functools
import io
import os
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tenfold.engine import POLL_SECONDS, Child, Ended, Item, Post, Running
from tenfold.errors import InterruptedRunError, TenfoldError, first_line, require_packages
from tenfold.locks import LOCK_FILES, wait_until_free
from tenfold.processes import quick_spawn

MAX_RETRIES = 5  # Nodes that an item may lose under it.
MARKER = ".driver.tmp"  # In an item's folder, for the nodes that see the driver's files.
POST_SECONDS = 0.2  # Between two messages of a node to the driver.
SAVE_SECONDS = 60.0  # How long an item may take to save after its driver has gone.
HANDED_ON = ("TENFOLD_DEVICE", "TENFOLD_DATA", "TENFOLD_NO_CACHE", "TENFOLD_TRUST_CODE")
"""Variables that a command of ours sets, or reads, and that nodes need not have."""


def connect(address: str) -> Any:
    """The module `ray`, connected to the cluster at `address`.

    Raises TenfoldError where Ray is not installed, or no cluster answers.
    """
    require_packages("ray", what="`--cluster` needs Ray", extra="cluster")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        ray.init(address, ignore_reinit_error=True, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise TenfoldError(
            f"There is no Ray cluster at --cluster {address} ({first_line(error)}); start one "
            "with `ray start --head`, or give the address of its head."
        ) from None
    return ray


def handed_on() -> dict[str, str]:
    """The variables of this process that nodes are to have."""
    return {name: os.environ[name] for name in HANDED_ON if name in os.environ}


def num_gpus(ray: Any) -> int:
    """1 where the cluster has GPUs, of which each job gets one."""
    wanted = os.environ.get("TENFOLD_DEVICE", "cuda") == "cuda"
    return int(wanted and ray.cluster_resources().get("GPU", 0) >= 1)


def most_jobs(ray: Any, threads: int) -> int:
    """How many jobs of so many threads the cluster has room for at once."""
    found = ray.cluster_resources()
    room = [found.get("CPU", 1) // threads, *([found["GPU"]] if num_gpus(ray) else [])]
    return max(int(min(room)), 1)


class Cluster:
    """The Ray cluster at `address`: `auto` for the one that this machine is part of.

    shared: whether its nodes see the files of this machine; None finds out. Raises TenfoldError
    where Ray is not installed, or no cluster answers.
    """

    def __init__(self, address: str, *, shared: bool | None = None) -> None:
        self.ray: Any = connect(address)
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._shared = shared
        here: Any = NodeAffinitySchedulingStrategy(
            self.ray.get_runtime_context().get_node_id(), soft=False
        )
        mailbox: Any = self.ray.remote(num_cpus=0)(Mailbox)
        # Where the driver is, since other nodes may be lost.
        self.mailbox: Any = mailbox.options(scheduling_strategy=here).remote()
        self.posts: dict[str, Post] = {}
        self.begun: set[str] = set()

    def most_jobs(self, threads: int) -> int:
        """How many items of so many threads the cluster has room for at once."""
        return most_jobs(self.ray, threads)

    def start(self, item: Item, post: Post) -> Running:
        """See engine.Place."""
        item.folder.mkdir(parents=True, exist_ok=True)
        item = replace(item, environment={**handed_on(), **item.environment})
        packed = pack(item.folder)
        if self._shared is not False:
            (item.folder / MARKER).touch()
        self.posts[item.name] = post
        work = self.ray.remote(_work).options(
            num_cpus=item.threads, num_gpus=num_gpus(self.ray), max_retries=MAX_RETRIES
        )
        return _Remote(self, item, work.remote(item, packed, Path.cwd(), self.mailbox))

    def pump(self) -> None:
        """Hand on what the nodes have said. Raises TenfoldError where the cluster has gone."""
        try:
            said = self.ray.get(self.mailbox.take.remote())
        except self.ray.exceptions.RayError as error:
            raise TenfoldError(
                f"The Ray cluster does not answer any more ({first_line(error)}); when it does, "
                "the same command goes on."
            ) from None
        for name, event in said:
            if event["event"] == "begun":
                self.begun.add(name)
            elif name in self.posts:
                self.posts[name](event)


class _Remote:
    """An item on the cluster; see engine.Running."""

    def __init__(self, cluster: Cluster, item: Item, reference: Any) -> None:
        self._cluster, self._item, self._reference = cluster, item, reference
        self._ended: Ended | None = None
        self._is_stopped = False

    def poll(self) -> Ended | None:
        if self._ended is None:
            ready, _ = self._cluster.ray.wait([self._reference], timeout=0)
            self._cluster.pump()
            if ready:
                del self._cluster.posts[self._item.name]
                self._ended = self._take()
        return self._ended

    def stop(self) -> None:
        """Let it save and end; one that waits for room is over at once."""
        if not self._is_stopped:
            self._is_stopped = True
            self._cluster.mailbox.stop.remote(self._item.name)
            if self._item.name not in self._cluster.begun:
                self.kill()

    def kill(self) -> None:
        with contextlib.suppress(Exception):  # Whatever is wrong with the cluster, we leave it.
            self._cluster.ray.cancel(self._reference, force=True)

    def _take(self) -> Ended:
        """How it ended, with its files in its folder."""
        ray, folder = self._cluster.ray, self._item.folder
        try:
            ended, packed = ray.get(self._reference)
        except ray.exceptions.TaskCancelledError:
            return Ended(InterruptedRunError.exit_status)
        except ray.exceptions.RayError as error:
            return Ended(1, f"Its task on the cluster failed: {first_line(error)}.")
        finally:
            (folder / MARKER).unlink(missing_ok=True)
        if packed is not None:
            unpack(packed, folder)
        return Ended(*ended)


class Mailbox:
    """An actor between the nodes and the driver."""

    def __init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._stopped: set[str] = set()

    def post(self, name: str, events: list[dict[str, Any]]) -> bool:
        """Leave what an item has printed; whether it is to stop."""
        self._events += [(name, event) for event in events]
        return name in self._stopped

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """What was left since the last call."""
        events, self._events = self._events, []
        return events

    def stop(self, name: str) -> None:
        """Tell an item, when it next posts, to save and end."""
        self._stopped.add(name)


def _work(
    item: Item, packed: bytes, working_folder: Path, mailbox: Any
) -> tuple[tuple[int, str | None, str], bytes | None]:
    """Run an item on this node, with the files of its folder `packed` for where the driver's are
    not seen; how it ended, and its files there."""
    if working_folder.is_dir():
        os.chdir(working_folder)
    with contextlib.ExitStack() as stack:
        is_shared = (item.folder / MARKER).exists()
        if is_shared:
            wait_until_free([item.folder])  # An earlier attempt may still be saving.
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tenfold-")))
            unpack(packed, folder)
            arguments = [a.replace(str(item.folder), str(folder)) for a in item.arguments]
            item = replace(item, arguments=tuple(arguments), folder=folder)
        ended = _watched(item, mailbox)
        return (ended.status, ended.error, ended.kind), None if is_shared else pack(item.folder)


_spawn_here = functools.cache(quick_spawn)  # A process of Ray's has several items, one by one.


def _watched(item: Item, mailbox: Any) -> Ended:
    """Run an item, and tell the driver; it saves and ends when that, or this process, has gone."""
    import ray

    events: list[dict[str, Any]] = [{"event": "begun"}]
    child = Child(item, events.append, spawn=_spawn_here())
    try:
        while True:
            ended, said = child.poll(), len(events)
            if ray.get(mailbox.post.remote(item.name, events[:said])):
                child.stop()
            del events[:said]
            if ended is not None:
                return ended
            time.sleep(POST_SECONDS)
    except BaseException:
        child.stop()
        deadline = time.monotonic() + SAVE_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        raise
    finally:
        child.kill()


def pack(folder: Path) -> bytes:
    """The files of a folder, but for locks and what is temporary, as a tar archive."""

    def kept(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        name = Path(member.name).name
        return None if name in LOCK_FILES or name.endswith(".tmp") else member

    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.add(folder, arcname=".", filter=kept)
    return stream.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Put packed files into `folder`; the result of a run, which says that it is whole, last."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = sorted(archive.getmembers(), key=lambda member: member.name == "./result.json")
        archive.extractall(folder, members, filter="data")
