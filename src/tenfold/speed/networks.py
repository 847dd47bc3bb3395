"""How fast networks train and evaluate on this machine, and how much of its rate that is."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy

from tenfold.evaluation.trained import build_network, num_views
from tenfold.recipe import PartOptions, Recipe, load_recipe, shipped_recipes
from tenfold.speed.rates import Rates, seconds_of_one
from tenfold.training.clock import Phase, phases
from tenfold.training.devices import available_precision
from tenfold.training.flop import flop_of_image
from tenfold.training.optimizers import build_optimizer

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
    """A recipe's network and optimiser with random images to work on.

    side: of the images in pixels, if they are not to be of the network's own size.
    """

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
        self._optimizer = build_optimizer(self._network, recipe.optimizer)

    def flop(self, side: int) -> float | None:
        """Counted FLOP an image of a forward and a backward pass."""
        return flop_of_image(self._network.train(), (3, side, side))

    def training_seconds(self, side: int, *, seconds: float) -> float:
        """Of a step, an image, measured for about `seconds`."""
        inputs = self._inputs(side)
        self._network.train()

        def step() -> None:
            self._backward(inputs)
            self._optimizer.step()

        return seconds_of_one(step, self._device, seconds=seconds) / self._batch_size

    def evaluation_seconds(self, side: int, *, seconds: float) -> float:
        """Of a forward pass in float32, an image, measured for about `seconds`."""
        inputs = self._inputs(side)
        self._network.eval()

        def forward() -> None:
            with torch.inference_mode():
                self._network(inputs)

        return seconds_of_one(forward, self._device, seconds=seconds) / self._batch_size

    def _inputs(self, side: int) -> torch.Tensor:
        shape = (self._batch_size, 3, side, side)
        return torch.ones(shape, device=self._device).to(memory_format=torch.channels_last)

    def _backward(self, inputs: torch.Tensor) -> None:
        self._network.zero_grad()
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            logits = self._network(inputs)
        cross_entropy(logits.float(), self._labels).backward()  # type: ignore[no-untyped-call]


def distinct_networks() -> list[str]:
    """The shipped recipes without those whose network and precision another has too."""
    seen: dict[tuple[PartOptions, str], str] = {}
    for name in shipped_recipes():
        recipe = load_recipe(name)
        if recipe.model.name == "pretrained":
            continue  # Its images are larger, and its time is told by its features.
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
