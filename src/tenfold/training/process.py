"""What one process needs to know before it trains: memory, threads, ranks."""

import ctypes
import os
import sys
import time

import psutil
import torch

from tenfold.errors import TenfoldError

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
    _adopt_ranks()
    if threads is not None and threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return torch.get_num_threads()


def seconds_since_start() -> float:
    """How long this process has lived: what importing took, which a user waits for too."""
    return time.time() - float(psutil.Process().create_time())


def num_launched() -> int:
    """The processes that a launcher started together, this one among them; 1 without a launcher."""
    _adopt_ranks()
    return int(os.environ.get("WORLD_SIZE", "1"))


LAUNCHERS = (
    *(
        (f"{prefix}_SIZE", f"{prefix}_RANK", f"{prefix}_LOCAL_RANK", f"{prefix}_LOCAL_SIZE")
        for prefix in ("OMPI_COMM_WORLD", "MV2_COMM_WORLD")
    ),
    ("PMI_SIZE", "PMI_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", ""),
)
"""Where those that torch doesn't know put the number of processes and this one's rank, among all
and on its machine: Open MPI, MVAPICH, MPICH and Intel MPI, Slurm."""


def _adopt_ranks() -> None:
    """Translate what `mpirun` and `srun` set into what torch.distributed reads.

    Raises TenfoldError where the processes are on several machines that must know of the first.
    """
    several = (n for n in LAUNCHERS if int(os.environ.get(n[0], "1")) > 1 and n[1] in os.environ)
    names = next(several, None)
    if names is None or "RANK" in os.environ:
        return
    size, rank, local_rank, local_size = names
    is_elsewhere = os.environ.get(local_size, os.environ[size]) != os.environ[size]
    if is_elsewhere and not {"MASTER_ADDR", "SLURM_LAUNCH_NODE_IPADDR"} & set(os.environ):
        raise TenfoldError(
            "The processes are on several machines, and must find each other: set MASTER_ADDR to "
            "the address of the first, and MASTER_PORT to a free port there."
        )
    os.environ["RANK"] = os.environ[rank]
    os.environ["WORLD_SIZE"] = os.environ[size]
    os.environ["LOCAL_RANK"] = os.environ.get(local_rank, "0")
    address = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_ADDR", address)
    # Jobs on one machine must not meet; the job's number or the launcher's tells them apart.
    port = 20000 + int(os.environ.get("SLURM_JOB_ID", os.getppid())) % 20000
    os.environ.setdefault("MASTER_PORT", str(port))
