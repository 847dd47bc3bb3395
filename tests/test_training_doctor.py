"""The doctor finds what is wrong on purpose, and nothing where nothing is."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import commands
import served
from parts import sgd
from tenfold.data.images import Images
from tenfold.recipe import StageOptions
from tenfold.run import RunFolder
from tenfold.training import doctor
from tenfold.training.doctor import examine
from tenfold.training.trainer import fit
from tiny_training import data, pictures, tiny


def dense(*, depth, activation=nn.ReLU, width=32, bias=None):
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for place in range(depth):
        layers += [nn.Linear(48 if place == 0 else width, width), activation()]
    network = nn.Sequential(*layers, nn.Linear(width, 4))
    if bias is not None:
        nn.init.constant_(network[3].bias, bias)
    return network


def examined(network, *, lr=0.05):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(128, 3, 4, 4, generator=generator)
    labels = torch.arange(128) % 4
    return examine(network, inputs, labels, optimizer=sgd(lr=lr))


def kinds(found):
    return [finding.kind for finding in found.findings]


def test_a_healthy_network_has_no_finding():
    network = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), dense(depth=1, width=64)
    )
    network[-1][1] = nn.Linear(64, 64)
    before = {name: t.clone() for name, t in network.state_dict().items()}
    found = examined(network)
    assert kinds(found) == []
    assert [a.name for a in found.activations] == ["2 ReLU", "3.2 ReLU"]
    assert [layer.name for layer in found.layers] == ["0 Conv2d", "3.1 Linear", "3.3 Linear"]
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_a_layer_of_dead_units_is_found():
    found = examined(dense(depth=2, bias=-100.0))
    assert "dead units" in kinds(found)
    assert found.activations[1].dead == 1.0
    assert found.activations[0].dead < 0.3
    (sentence,) = [f.sentence for f in found.findings if f.kind == "dead units"]
    assert "100% of the 32 units of 4 ReLU" in sentence


def test_functions_count_as_modules_do():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(48, 8), nn.Linear(8, 4)
            nn.init.constant_(self.first.bias, -100.0)

        def forward(self, x):
            return self.second(torch.relu_(self.first(nn.functional.gelu(x.flatten(1)))))

    found = examined(Functional())
    assert [(a.name, a.num_units) for a in found.activations] == [
        ("Functional", 48),
        ("Functional", 8),
    ]
    assert found.activations[1].dead == 1.0


def test_a_very_deep_sigmoid_network_has_vanishing_gradients():
    found = examined(dense(depth=20, activation=nn.Sigmoid))
    assert "vanishing gradients" in kinds(found)
    assert found.layers[0].gradient < 1e-4 * found.layers[-1].gradient


def test_exploding_gradients_and_large_updates_are_found():
    network = dense(depth=3)
    with torch.no_grad():
        for module in network[:-1]:
            if isinstance(module, nn.Linear):
                module.weight *= 30
    assert kinds(examined(network, lr=1.0)) == ["exploding gradients", "large updates"]


@pytest.fixture(scope="module")
def learned():
    return fit(tiny(), data()).model


def diagnosed(monkeypatch, model, images):
    monkeypatch.setattr(doctor, "open_split", lambda *_, **options: (model, "train", images))
    return doctor.diagnose(RunFolder(Path("run")))


def test_row_24_classes_of_other_data_are_matched_by_name(monkeypatch, learned):
    images = pictures(64)
    names = images.class_names[::-1]
    turned = Images(images.pixels, 2 - images.labels, names, images.ids)
    expected = diagnosed(monkeypatch, learned, images)
    assert diagnosed(monkeypatch, learned, turned) == expected


def test_a_step_is_one_of_the_last_stage(monkeypatch, learned):
    staged = replace(learned, recipe=learned.recipe.but(stages=(StageOptions(lr=1.0),)))
    first, second = (diagnosed(monkeypatch, model, pictures(64)) for model in (learned, staged))
    faster = 1.0 / learned.recipe.optimizer.lr
    for before, after in zip(first.layers, second.layers, strict=True):
        assert after.update == pytest.approx(faster * before.update, rel=1e-3)


@pytest.mark.slow
def test_the_command_shows_a_table_and_draws_a_figure(made_once):
    place = made_once(served.make_run)
    command = commands.run(["doctor", served.RUN, "--json"], folder=place)
    assert command.wait() == 0, command.output
    events = [json.loads(line) for line in command.output.splitlines()]
    assert {"activation", "layer", "figure"} <= {event["event"] for event in events}
    assert (place / served.RUN / "figures/doctor.svg").read_text().startswith("<?xml")
    command = commands.run(["doctor", served.RUN], folder=place)
    assert "update over weight" in command.output
