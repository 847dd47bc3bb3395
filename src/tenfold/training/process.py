"""What one process must be told before it trains: memory, threads, ranks."""

import ctypes
import os
import sys
import time

import psutil
import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_memory() -> None:
    """Let glibc keep freed memory instead of handing it back to the system.

    Activations of some tens of megabytes are otherwise mapped, zeroed page by page and unmapped in
    every step: on two cores a step of the `cnn` recipe took 1.7 times as long. Elsewhere than on
    Linux with glibc this does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, 64 << 20)


def prepare_process(threads: int | None = None) -> int:
    """Set memory, ranks and threads; returns the number of threads that torch computes with.

    threads: None keeps what the environment says. The bits of a result depend on it.
    """
    keep_memory()
    _adopt_slurm_ranks()
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.get_num_threads()


def seconds_since_start() -> float:
    """How long this process has lived: what importing took, which a user waits for too."""
    return time.time() - float(psutil.Process().create_time())


def _adopt_slurm_ranks() -> None:
    """Translate what `srun` sets into what torch.distributed reads."""
    if int(os.environ.get("SLURM_NTASKS", "1")) < 2 or "RANK" in os.environ:
        return
    if "SLURM_PROCID" not in os.environ:
        return
    os.environ["RANK"] = os.environ["SLURM_PROCID"]
    os.environ["WORLD_SIZE"] = os.environ["SLURM_NTASKS"]
    os.environ["LOCAL_RANK"] = os.environ.get("SLURM_LOCALID", "0")
    os.environ.setdefault("MASTER_ADDR", os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"))
    # Jobs on one machine must not meet; the job's number tells them apart.
    port = 20000 + int(os.environ.get("SLURM_JOB_ID", "0")) % 20000
    os.environ.setdefault("MASTER_PORT", str(port))
