"""The device, the precision and the processes that a run has."""

import os
import platform
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

from tenfold.errors import TenfoldError, sentence_of
from tenfold.recipe import Recipe
from tenfold.training.process import num_launched

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""For processes that wait while the first one computes features or validates; whether it still
lives is watched otherwise."""


def make_accelerator(recipe: Recipe, *, cpu: bool = False) -> Accelerator:
    """The device, the precision and the processes that this run has.

    cpu: stay on the processor even where there is a GPU. Raises TenfoldError where the precision
    isn't to be had on the device, or the processes of the launcher don't find each other.
    """
    launched = num_launched()
    # Without a GPU Accelerate takes each of several processes for one that is alone, unless it is
    # told to compute on the processor.
    wanted = os.environ.get("TENFOLD_DEVICE", "")
    cpu = cpu or wanted == "cpu" or (launched > 1 and not torch.cuda.is_available())
    precision = available_precision(recipe.training.precision, cpu=cpu)
    if precision == "fp16" and (cpu or not torch.cuda.is_available()):
        raise TenfoldError(
            "training.precision = 'fp16' needs a CUDA GPU, and there is none; use 'bf16' or "
            "'float32'."
        )
    # Accelerate keeps its first answer for the process; a second run may want another precision.
    alone = not torch.distributed.is_available() or not torch.distributed.is_initialized()
    AcceleratorState._reset_state(reset_partial_state=alone)
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision="no" if precision == "float32" else precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )
    # On a GPU products of float32 are as exact as its convolutions, that is in TF32. Processors
    # have no such thing, and their bits stay the same whatever a program asked for before.
    torch.set_float32_matmul_precision("high" if accelerator.device.type == "cuda" else "highest")
    if wanted and accelerator.device.type != wanted:
        raise TenfoldError(
            f"There is no {wanted} device that PyTorch can use here, or not the one asked for; "
            "choose another with --device, or leave it out."
        )
    if accelerator.num_processes != launched:
        raise TenfoldError(
            f"The launcher started {launched} processes, and {accelerator.num_processes} train "
            "together; start them by torchrun, accelerate launch, srun or mpirun, or one alone."
        )
    return accelerator


def precision_of(accelerator: Accelerator) -> str:
    """The precision that `accelerator` computes with, as recipes name it."""
    precision: str = accelerator.mixed_precision
    return "float32" if precision == "no" else precision


def instruction_set() -> str:
    """What the processor computes with, such as `AVX2`, or `AVX512 with bf16`."""
    found = torch.backends.cpu.get_cpu_capability()
    found = platform.machine() if found == "DEFAULT" else found
    return found + (" with bf16" if available_precision("auto", cpu=True) == "bf16" else "")


def available_precision(asked: str, *, cpu: bool = False) -> str:
    """What `auto` is on this machine; anything else is what was asked for."""
    if asked != "auto":
        return asked
    if not cpu and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Where bf16 is emulated, it takes longer than float32: on an older processor, and where
        # oneDNN is held to the instructions of one.
        held = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "ALL"))
        native = bool(torch.cpu.get_capabilities().get("avx512_bf16")) and (
            re.search("ALL|DEFAULT|BF16|FP16|AMX|AVX10", held, re.IGNORECASE) is not None
        )
    return "bf16" if native else "float32"


def on_first_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` returns on every process, or a TenfoldError on all where it fails.

    `work` is done on the first process alone. The others, left without an answer, would wait for
    it in vain, and end with a traceback or not at all.
    """
    if accelerator.num_processes == 1:
        return work()
    outcome: list[Any] = [None, None]
    failure: Exception | None = None
    if accelerator.is_main_process:
        try:
            outcome[0] = work()
        except Exception as error:
            failure = error
            outcome[1] = error if isinstance(error, TenfoldError) else sentence_of(error)
    broadcast_object_list(outcome)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise outcome[1] if isinstance(outcome[1], TenfoldError) else TenfoldError(outcome[1])
    answer: T = outcome[0]
    return answer


def can_defer(recipe: Recipe, accelerator: Accelerator) -> bool:
    """Whether a step can be taken without knowing its loss: nothing but a report depends on it.

    Several processes must agree before each step, a scaler or a limit of the norm must know the
    gradient, and a limit of the time how long a step took. On a processor there is nobody to run
    ahead of.
    """
    alone = accelerator.num_processes == 1 and accelerator.scaler is None
    needed = recipe.training.clip_norm > 0 or recipe.training.time_limit_seconds > 0
    return accelerator.device.type != "cpu" and alone and not needed
