"""Batch norms in the weights before them: the same predictions, and no network changed."""

import pytest
import torch
from torch import nn

from tenfold.evaluation.folding import faster, folded
from tenfold.recipe import load_recipe

INPUTS = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def used(network: nn.Module) -> nn.Module:
    """As after training: with statistics, scales and offsets of its own."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.3, 3)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_()
    return network.eval()


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) for module in network.modules())


@pytest.mark.parametrize("name", ["fast-75", "cnn", "resnet20", "ann"])
@torch.inference_mode()
def test_networks_with_folded_norms_say_the_same(name):
    recipe = load_recipe(name, ["model.norm=batch"] if name in ("ann", "cnn") else [])
    network = used(recipe.model(num_classes=10, image_size=(16, 16)))
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    found = faster(network, INPUTS)
    assert norms_in(found) == 0 < norms_in(network)
    said, expected = found(INPUTS).softmax(1), network(INPUTS).softmax(1)
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)
    assert all(torch.equal(before[key], t) for key, t in network.state_dict().items())


@torch.inference_mode()
def test_a_norm_that_turns_channels_over_stays_behind_its_pool():
    network = used(nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4)))
    assert norms_in(folded(network)) == 0
    network[2].weight[1] = -1
    assert folded(network) is network


@torch.inference_mode()
def test_a_network_that_uses_layers_one_by_one_stays_as_it_is():
    class Peeking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))

        def forward(self, inputs):
            return self.layers[0](inputs).mean((2, 3))

    network = used(Peeking())
    assert faster(network, INPUTS) is network
