"""Optimisers that never meet torch's compiler."""

import inspect
from typing import TypeVar, cast

import torch
from torch import optim

Kind = TypeVar("Kind", bound=optim.Optimizer)

METHODS = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
"""What torch wraps, so that the compiler leaves it alone."""


def eager(kind: type[Kind]) -> type[Kind]:
    """An optimiser without what makes it import `torch._dynamo` with its first step.

    That takes 1.6 s, and no step of an optimiser is compiled here.
    """
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in METHODS}
    step = torch.no_grad()(inspect.unwrap(kind.step))
    namespace = {**methods, "step": step, "__module__": kind.__module__, "__doc__": kind.__doc__}
    return cast(type[Kind], type(kind.__name__, (kind,), namespace))
