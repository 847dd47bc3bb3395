"""What a process is told before it trains: ranks from Slurm, threads, memory that is kept."""

import os
import platform

import pytest
import torch

from tenfold.errors import TenfoldError
from tenfold.training.process import keep_memory, num_launched, prepare_process

RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
SLURM = {
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7",
    "SLURM_JOB_ID": "123456",
}


@pytest.fixture
def environment(monkeypatch):
    """The environment without ranks, restored afterwards with whatever was set in it."""
    for name in (*RANKS, *SLURM, *OPEN_MPI, *MPICH, *MVAPICH, "OMPI_COMM_WORLD_LOCAL_SIZE"):
        # Set before it is deleted, so that pytest restores what the code under test sets.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    threads = torch.get_num_threads()
    yield os.environ
    torch.set_num_threads(threads)


def ranks(environment):
    return {name: environment[name] for name in RANKS if name in environment}


def test_srun_becomes_ranks(environment):
    environment.update(SLURM)
    prepare_process()
    found = ranks(environment)
    assert found["RANK"] == "3"
    assert found["WORLD_SIZE"] == "4"
    assert found["LOCAL_RANK"] == "1"
    assert found["MASTER_ADDR"] == "10.0.0.7"
    assert 1024 < int(found["MASTER_PORT"]) < 65536


OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
MPICH = {"PMI_SIZE": "4", "PMI_RANK": "2", "MPI_LOCALRANKID": "1"}
MVAPICH = {
    "MV2_COMM_WORLD_SIZE": "4",
    "MV2_COMM_WORLD_RANK": "2",
    "MV2_COMM_WORLD_LOCAL_RANK": "1",
}


@pytest.mark.parametrize("launcher", [OPEN_MPI, MPICH, MVAPICH, {**OPEN_MPI, **SLURM}])
def test_mpirun_becomes_ranks_within_a_job_of_slurm_too(environment, launcher):
    environment.update(launcher)
    assert num_launched() == 4
    found = ranks(environment)
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("2", "4", "1")
    assert found["MASTER_ADDR"] == launcher.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1")
    assert 1024 < int(found["MASTER_PORT"]) < 65536


def test_several_machines_must_be_told_where_the_first_is(environment):
    environment.update({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
    with pytest.raises(TenfoldError, match="set MASTER_ADDR"):
        num_launched()
    environment["MASTER_ADDR"] = "10.0.0.7"
    assert num_launched() == 4


def test_two_jobs_on_one_machine_meet_at_different_ports(environment):
    ports = set()
    for job in ("123456", "123457"):
        for name in RANKS:
            environment.pop(name, None)
        environment.update({**SLURM, "SLURM_JOB_ID": job})
        prepare_process()
        ports.add(environment["MASTER_PORT"])
    assert len(ports) == 2


@pytest.mark.parametrize(
    "without",
    [
        {"SLURM_NTASKS": "1"},  # sbatch without srun
        {"SLURM_PROCID": None},  # salloc: tasks are there, but this is none of them
        {"RANK": "0"},  # torchrun within a job
    ],
)
def test_other_jobs_are_left_alone(environment, without):
    environment.update(SLURM)
    for name, value in without.items():
        if value is None:
            del environment[name]
        else:
            environment[name] = value
    before = ranks(environment)
    prepare_process()
    assert ranks(environment) == before


def test_without_slurm_nothing_is_set(environment):
    prepare_process()
    assert ranks(environment) == {}


def test_an_address_that_is_set_is_kept(environment):
    environment.update({**SLURM, "MASTER_ADDR": "head", "MASTER_PORT": "4567"})
    prepare_process()
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("head", "4567")


def test_threads_are_those_asked_for(environment):
    before = torch.get_num_threads()
    assert prepare_process() == before
    assert prepare_process(threads=1) == 1 == torch.get_num_threads()
    assert prepare_process() == 1


KEPT = """
import os, sys
import psutil, torch
from tenfold.errors import TenfoldError
from tenfold.training.process import keep_memory

for keep in (True, False):
    if os.fork() == 0:
        if keep:
            keep_memory()
        block = torch.ones(25_000_000)
        del block
        print(psutil.Process().memory_info().rss, flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept(run_python):
    kept, released = map(int, run_python(KEPT).stdout.split())
    assert kept - released > 80e6
    keep_memory()  # again is fine
