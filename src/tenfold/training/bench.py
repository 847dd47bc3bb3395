"""How fast this machine and the networks on it are, in FLOP/s.

A multiplication and an addition are two operations.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch.nn.functional import conv2d, cross_entropy

from tenfold.evaluation.onnx_forward import WORTH_IT, quick_forward
from tenfold.evaluation.trained import build_network, num_views
from tenfold.models import Pretrained
from tenfold.recipe import PartOptions, Recipe, StageOptions, load_recipe, shipped_recipes
from tenfold.training.devices import available_precision
from tenfold.training.flop import flop_of_image
from tenfold.training.optimizers import build_optimizer
from tenfold.training.schedules import Phase, phases

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
    # Until everything that was asked of the device is done.
    is_cuda = device.type == "cuda"
    wait: Callable[[], object] = partial(torch.cuda.synchronize, device) if is_cuda else int
    work()  # The first call sets things up.
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        wait()
        started = time.perf_counter()
        work()
        wait()
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


SIDE, NUM_CLASSES = 32, 10

LARGEST_BATCH = 250
"""A step of the largest network then takes seconds, not minutes."""

FEW_IMAGES = 16
"""With which a network is measured where a step takes TOO_SLOW_STEP seconds even so."""

TOO_SLOW_STEP = 0.3

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Throughput(NamedTuple):
    """The speed of a recipe's network and optimiser on images of the sizes that it trains on.

    sizes: sides in pixels, from the first steps to the last. forward_per_second: of whole images.
    training_per_second: over all steps of a run. flop: counted, an image, of a training step, as a
    mean over the run; None where it can't be. utilisation: flop over what the time of a step has
    room for at the faster of the machine's rates in the same precision.
    """

    recipe: str
    precision: str
    sizes: tuple[int, ...]
    batch_size: int
    forward_per_second: float
    training_per_second: float
    flop: float | None
    utilisation: float | None


class Speed(NamedTuple):
    """Seconds that a run spends on an image: in training, sizes that grow taken into account, and
    in evaluation, with as many views as the recipe is likely to take."""

    training_seconds: float
    evaluation_seconds: float


class Workbench:
    """A recipe's network and optimiser, with images of `image_size` pixels to work on."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        batch_size: int,
        device: torch.device,
        image_size: int = SIDE,
        num_classes: int = NUM_CLASSES,
    ) -> None:
        self._device = device
        self._batch_size = batch_size
        self.precision = available_precision(recipe.training.precision, cpu=device.type == "cpu")
        self._dtype = DTYPES.get(self.precision)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._network = build_network(
                recipe, num_classes=num_classes, image_size=(image_size, image_size)
            ).to(device)
            self._labels = torch.randint(num_classes, (batch_size,), device=device)
            if isinstance(self._network, Pretrained):  # Its last stage learns the most.
                last = recipe.stages[-1] if recipe.stages else StageOptions()
                self._network.open(last.trains, norms=last.norms)
        self._optimizer = build_optimizer(self._network, recipe.optimizer)

    def flop(self, side: int) -> float | None:
        """Counted FLOP an image of a forward and a backward pass."""
        return flop_of_image(self._network.train(), (3, side, side))

    def training_seconds(self, side: int, *, seconds: float) -> float:
        """Of a step, an image, measured for about `seconds`."""
        inputs = self._inputs(side)
        self._network.train()

        def step() -> None:
            self._network.zero_grad()
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
                logits = self._network(inputs)
            cross_entropy(logits.float(), self._labels).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

        return seconds_of_one(step, self._device, seconds=seconds) / self._batch_size

    def evaluation_seconds(self, side: int, *, seconds: float) -> float:
        """Of a forward pass in float32, an image, measured for about `seconds`."""
        inputs = self._inputs(side)
        self._network.eval()
        network: Callable[[torch.Tensor], torch.Tensor] = self._network
        with torch.inference_mode():
            if isinstance(self._network, Pretrained):
                network = quick_forward(self._network, inputs, WORTH_IT)
            took = seconds_of_one(lambda: network(inputs), self._device, seconds=seconds)
        return took / self._batch_size

    def _inputs(self, side: int) -> torch.Tensor:
        shape = (self._batch_size, 3, side, side)
        return torch.ones(shape, device=self._device).to(memory_format=torch.channels_last)


def distinct_networks() -> list[str]:
    """The shipped recipes without those whose network and precision another has too."""
    seen: dict[tuple[PartOptions, str], str] = {}
    for name in shipped_recipes():
        recipe = load_recipe(name)
        if recipe.model.name == "pretrained":
            continue  # Its images are larger, and features take its time.
        seen.setdefault((recipe.model, recipe.training.precision), name)
    return list(seen.values())


def measure_network(
    recipe: Recipe, *, device: torch.device, rates: Rates, seconds: float = 1.0
) -> Throughput:
    """Forward passes in float32 as in evaluation, and training steps in the recipe's precision.

    seconds: about, for each size.
    """
    batch_size, side = _batch_size(recipe, LARGEST_BATCH, device), recipe.data.image_size or SIDE
    bench = Workbench(recipe, batch_size=batch_size, device=device, image_size=side)
    parts = _phases(recipe, side)
    counted = [bench.flop(part.side) for part in parts]
    known = [flop for flop in counted if flop is not None]
    flop = _mean(parts, known) if len(known) == len(parts) else None
    training = _mean(parts, [bench.training_seconds(p.side, seconds=seconds) for p in parts])
    return Throughput(
        recipe=recipe.name,
        precision=bench.precision,
        sizes=tuple(part.side for part in parts),
        batch_size=batch_size,
        forward_per_second=1 / bench.evaluation_seconds(side, seconds=seconds),
        training_per_second=1 / training,
        flop=flop,
        utilisation=None if flop is None else flop / training / rates.largest(bench.precision),
    )


def _phases(recipe: Recipe, side: int) -> list[Phase]:
    """The sizes that `recipe` has steps of."""
    training = recipe.training
    found = phases(training.sizes, training.sizes_until, side=side)
    return [phase for phase in found if phase.share > 0]


def _mean(parts: Sequence[Phase], values: Sequence[float]) -> float:
    """Of the steps of a run, values being those of its parts."""
    return sum(part.share * value for part, value in zip(parts, values, strict=True))


def _batch_size(recipe: Recipe, most: int, device: torch.device) -> int:
    """The recipe's, but `most` on a processor, whose speed a larger one hardly changes."""
    size = recipe.training.batch_size
    return min(size, most) if device.type == "cpu" else size


def step_seconds(recipe: Recipe, *, seconds: float = 0.2) -> float:
    """Of a training step on a few images of the usual size, on the processor."""
    bench = Workbench(recipe, batch_size=FEW_IMAGES, device=torch.device("cpu"))
    return bench.training_seconds(SIDE, seconds=seconds) * FEW_IMAGES


def speed_of_run(
    recipe: Recipe,
    *,
    image_size: int,
    num_classes: int,
    device: torch.device,
    batch_size: int = 100,
    seconds: float = 0.3,
) -> Speed:
    """What a run of `recipe` spends on an image of `image_size` pixels.

    batch_size: images to measure with; fewer on a machine that is too slow or busy for so many.
    """
    bench, few = (
        Workbench(
            recipe,
            batch_size=_batch_size(recipe, size, device),
            device=device,
            image_size=image_size,
            num_classes=num_classes,
        )
        for size in (batch_size, FEW_IMAGES)
    )
    if few.training_seconds(image_size, seconds=0.0) * FEW_IMAGES > TOO_SLOW_STEP:
        bench = few
    parts = _phases(recipe, image_size)
    training = _mean(parts, [bench.training_seconds(p.side, seconds=seconds) for p in parts])
    evaluation = bench.evaluation_seconds(image_size, seconds=seconds)
    return Speed(training, evaluation * num_views(recipe.evaluation))


def speed_of_transfer(
    recipe: Recipe,
    *,
    image_size: int,
    num_classes: int,
    device: torch.device,
    trains: bool = True,
    seconds: float = 0.3,
) -> Speed:
    """As `speed_of_run`, of a pretrained network and what learns in its last stage; one view.

    trains: whether to measure training too, which is 0 otherwise.
    """
    bench = Workbench(
        recipe,
        batch_size=FEW_IMAGES,
        device=device,
        image_size=image_size,
        num_classes=num_classes,
    )
    evaluation = bench.evaluation_seconds(image_size, seconds=seconds)
    training = bench.training_seconds(image_size, seconds=seconds) if trains else 0.0
    return Speed(training, evaluation)
