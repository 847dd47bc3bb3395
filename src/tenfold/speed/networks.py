"""Pictures a second of each network, and how much of the machine's rate that is."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from tenfold.evaluation.trained import build_network
from tenfold.recipe import ModelOptions, Recipe, load_recipe, shipped_recipes
from tenfold.speed.rates import Rates, seconds_of_one
from tenfold.training.optimizers import build_optimizer, update_of
from tenfold.training.session import available_precision

SIDE, NUM_CLASSES = 32, 10

LARGEST_BATCH = 250
"""A step of the largest network then takes seconds, not minutes."""


class Throughput(NamedTuple):
    """The speed of a recipe's network and optimiser on random pictures of 32x32.

    operations: FLOP of a training step a picture, convolutions and matrix products alone.
    training_share: of the rate of a convolution in the same precision.
    """

    recipe: str
    precision: str
    batch_size: int
    forward_per_second: float
    training_per_second: float
    operations: float
    training_share: float


def distinct_networks() -> list[str]:
    """The shipped recipes without those whose network and precision another has too."""
    seen: dict[tuple[ModelOptions, str], str] = {}
    for name in shipped_recipes():
        recipe = load_recipe(name)
        seen.setdefault((recipe.model, recipe.training.precision), name)
    return list(seen.values())


def measure_networks(
    recipes: list[str], *, device: torch.device, rates: Rates, seconds: float = 1.0
) -> Iterator[Throughput]:
    """The throughput of each of `recipes`, in about twice `seconds` each."""
    for name in recipes:
        yield measure_network(load_recipe(name), device=device, rates=rates, seconds=seconds)


def measure_network(
    recipe: Recipe, *, device: torch.device, rates: Rates, seconds: float
) -> Throughput:
    """Forward passes in float32 as in evaluation, and training steps in the recipe's precision."""
    batch = min(recipe.training.batch_size, LARGEST_BATCH)
    precision = available_precision(recipe.training.precision, cpu=device.type == "cpu")
    torch.manual_seed(0)
    network = build_network(recipe, num_classes=NUM_CLASSES, image_size=(SIDE, SIDE)).to(device)
    take_step = update_of(build_optimizer(network, recipe.optimizer))
    inputs = torch.randn(batch, 3, SIDE, SIDE, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(NUM_CLASSES, (batch,), device=device)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)

    def backward() -> None:
        network.zero_grad()
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            logits = network(inputs)
        cross_entropy(logits.float(), labels).backward()  # type: ignore[no-untyped-call]

    def step() -> None:
        backward()
        take_step()

    def forward() -> None:
        with torch.inference_mode():
            network(inputs)

    with FlopCounterMode(display=False) as counter:
        backward()
    training = seconds_of_one(step, device, seconds=seconds)
    network.eval()
    evaluating = seconds_of_one(forward, device, seconds=seconds)
    limit = rates.convolution
    if precision != "float32" and rates.convolution_bf16 is not None:
        limit = rates.convolution_bf16
    operations = counter.get_total_flops() / batch
    return Throughput(
        recipe=recipe.name,
        precision=precision,
        batch_size=batch,
        forward_per_second=batch / evaluating,
        training_per_second=batch / training,
        operations=operations,
        training_share=operations * batch / training / limit,
    )
