"""Counted FLOP of a run: by hand, for every size, for what is frozen, and after a resume."""

import pytest
import torch
from torch import nn

from tenfold.recipe import load_recipe
from tenfold.training.flop import flop_of_image
from tenfold.training.state import History
from tenfold.training.trainer import fit
from tiny_training import data, tiny


def convolution(channels, width, pixels, *, to_image=False):
    """Forward, the weight's gradient and that of the input, which an image needs none of."""
    return 2 * 9 * channels * width * pixels * (2 if to_image else 3)


def test_a_step_is_counted_forward_and_backward():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, padding=1), nn.Flatten(),
        nn.Linear(5 * 36, 7),
    )  # fmt: skip
    head = 3 * 2 * 180 * 7
    expected = convolution(3, 4, 36, to_image=True) + convolution(4, 5, 36) + head
    assert flop_of_image(network, (3, 6, 6)) == expected
    forward = 2 * 9 * (3 * 4 + 4 * 5) * 36 + 2 * 180 * 7
    assert flop_of_image(network, (3, 6, 6), learns=False) == forward
    network[0].requires_grad_(False)  # The backward pass ends above it.
    frozen = flop_of_image(network, (3, 6, 6))
    assert frozen == forward + convolution(4, 5, 36, to_image=True) - 2 * 9 * 20 * 36 + 2 * head / 3


def test_counting_changes_nothing():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    assert flop_of_image(network.train(), (3, 6, 6)) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in network.parameters())


def test_attention_counts():
    recipe = load_recipe("vit", ["model.depth=1"])
    network = recipe.model(num_classes=10, image_size=(32, 32))
    more = load_recipe("vit", ["model.depth=2"]).model(num_classes=10, image_size=(32, 32))
    block = flop_of_image(more, (3, 32, 32)) - flop_of_image(network, (3, 32, 32))
    weights = sum(p.numel() for p in more.parameters() if p.ndim == 2)
    weights -= sum(p.numel() for p in network.parameters() if p.ndim == 2)
    assert block > 3 * 2 * weights * 64  # At 64 patches; what is more is attention.


def test_a_network_that_cannot_be_counted_leaves_a_blank(caplog):
    class Asking(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1) if inputs.sum().item() else inputs

    assert flop_of_image(Asking(), (3, 6, 6)) is None


def test_a_run_adds_up_its_steps_by_size():
    sizes = ["training.sizes=[8]", "training.sizes_until=[0.5]", "training.epochs=2"]
    recipe = load_recipe(
        "fast-75",
        ["model.widths=[4,4]", "training.batch_size=32", "data.image_size=16",
         "training.precision=float32", "training.freeze_from=[]", *sizes],
    )  # fmt: skip
    found = fit(recipe, data())
    network = found.model.module.train()
    small, whole = (flop_of_image(network, (3, side, side)) for side in (8, 16))
    assert found.history.flop == 192 * small + 192 * whole


@pytest.mark.parametrize("at", [1, 3])
def test_a_resumed_run_counts_what_it_would_have(at):
    whole = fit(tiny("training.epochs=4"), data())
    states = []

    def save(state):
        states.append(({k: v.clone() for k, v in state.tensors().items()}, state.history.to_dict()))

    fit(tiny("training.epochs=4"), data(), save=save)

    def restore(state):
        tensors, history = states[at]
        state.load_tensors(tensors, source="x")
        state.history = History.from_dict(history)

    assert fit(tiny("training.epochs=4"), data(), restore=restore).history.flop == (
        whole.history.flop
    )


def test_a_checkpoint_of_a_version_that_did_not_count_stays_without():
    def restore(state):
        values = state.history.to_dict()
        del values["flop"]
        state.history = History.from_dict(values)

    assert fit(tiny(), data(), restore=restore).history.flop is None
