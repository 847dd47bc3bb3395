"""Batch norms of several processes that look at the whole batch and not at each one's share."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tenfold.errors import TenfoldError


def synchronise(network: nn.Module) -> None:
    """Make the batch norms of `network` share their statistics in training, on any device.

    Names and weights stay as they are. Raises TenfoldError for a kind of batch norm that does more
    than norm.
    """
    for module in network.modules():
        if type(module) in _SYNCED:
            module.__class__ = _SYNCED[type(module)]
        elif isinstance(module, _BatchNorm):
            raise TenfoldError(
                f"training.sync_batch_norm can't synchronise {type(module).__name__}, which this "
                "network has; leave it out with --set training.sync_batch_norm=false."
            )


class _Synced(_BatchNorm):
    """A batch norm over the shares of all processes; every process must call it alike."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or inputs.is_meta:  # Where FLOP are counted nobody else is.
            return super().forward(inputs)
        values = inputs.float()
        count = values.new_full((1,), values.numel() / values.shape[1])
        others = [0, *range(2, values.ndim)]
        sums = [values.sum(others), values.square().sum(others), count]
        total = _Summed.apply(torch.cat(sums))
        number = total[-1].detach()
        mean, square = (total[:-1] / number).view(2, -1)
        variance = (square - mean.square()).clamp(min=0)
        with torch.no_grad():
            self._note(mean, variance * number / (number - 1).clamp(min=1))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        offset = -mean * scale if self.bias is None else self.bias - mean * scale
        shape = (-1, *(1 for _ in others[1:]))
        outputs: Tensor = values * scale.view(shape) + offset.view(shape)
        return outputs.to(inputs.dtype)

    def _note(self, mean: Tensor, variance: Tensor) -> None:
        """Let the running statistics follow."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {
    kind: type(f"Synced{kind.__name__}", (_Synced, kind), {})
    for kind in (nn.BatchNorm1d, nn.BatchNorm2d)
}


class _Summed(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        [gradient] = gradients
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total
