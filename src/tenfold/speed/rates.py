"""What this machine computes a second, in FLOP/s: the measure for everything else.

A multiplication and an addition are two operations.
"""

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.nn.functional import conv2d

PRODUCT_SIDE = 2048
"""Side of the square matrices whose product is timed."""

CONVOLUTION = (256, 128, 128, 16)
"""Images, channels in, channels out and side in pixels of the 3x3 convolution that is timed."""


class Rates(NamedTuple):
    """Matrix products and convolutions of this machine in float32, in FLOP/s; and in bf16 where
    that is native."""

    product: float
    convolution: float
    product_bf16: float | None = None
    convolution_bf16: float | None = None

    def largest(self, precision: str) -> float:
        """The faster of both in `precision`, of which no training can make more."""
        in_bf16 = (self.product_bf16, self.convolution_bf16)
        if precision != "float32" and (known := [rate for rate in in_bf16 if rate]):
            return max(known)
        return max(self.product, self.convolution)


def seconds_of_one(work: Callable[[], object], device: torch.device, *, seconds: float) -> float:
    """The median time of `work`, repeated for about `seconds` and at least three times."""
    work()  # The first call sets things up.
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        _wait(device)
        started = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def product_rate(
    device: torch.device, *, dtype: torch.dtype = torch.float32, seconds: float = 0.3
) -> float:
    """FLOP/s of the product of two matrices of 2048 x 2048."""
    generator = torch.Generator().manual_seed(0)
    shape = (PRODUCT_SIDE, PRODUCT_SIDE)
    first, second = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
    out = torch.empty_like(first)
    took = seconds_of_one(lambda: torch.mm(first, second, out=out), device, seconds=seconds)
    return 2 * PRODUCT_SIDE**3 / took


def convolution_rate(
    device: torch.device, *, dtype: torch.dtype = torch.float32, seconds: float = 0.3
) -> float:
    """FLOP/s of a 3x3 convolution of 128 to 128 channels at 16 pixels, in channels_last memory."""
    number, channels, width, side = CONVOLUTION
    shapes = (number, channels, side, side), (width, channels, 3, 3)
    tensors = (torch.ones(shape, device=device, dtype=dtype) for shape in shapes)
    inputs, weight = (t.to(memory_format=torch.channels_last) for t in tensors)
    with torch.inference_mode():
        took = seconds_of_one(lambda: conv2d(inputs, weight, padding=1), device, seconds=seconds)
    return 2 * 9 * channels * width * side**2 * number / took


def measure_rates(device: torch.device, *, has_bf16: bool) -> Rates:
    """The rates of `device`. has_bf16: whether it computes in bf16."""
    kinds = (torch.float32, torch.bfloat16) if has_bf16 else (torch.float32,)
    works = (product_rate, convolution_rate)
    return Rates(*(work(device, dtype=dtype) for dtype in kinds for work in works))


def _wait(device: torch.device) -> None:
    """Until everything that was asked of `device` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
