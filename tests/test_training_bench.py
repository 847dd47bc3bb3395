"""Rates and throughput: what is measured, of small networks."""

import json
import re
import time

import pytest
import torch

import commands
from tenfold.recipe import load_recipe
from tenfold.training.bench import (
    Rates,
    Workbench,
    convolution_rate,
    distinct_networks,
    measure_network,
    product_rate,
    seconds_of_one,
)

CPU = torch.device("cpu")


def test_the_median_is_of_whole_calls():
    calls = []

    def work():
        calls.append(time.sleep(0.01 if len(calls) != 2 else 0.1))

    assert 0.009 < seconds_of_one(work, CPU, seconds=0.01) < 0.05
    assert len(calls) == 4  # The first sets up, three are timed.


def test_rates_are_those_of_a_computer():
    for rate in (product_rate(CPU, seconds=0.01), convolution_rate(CPU, seconds=0.01)):
        assert 1e8 < rate < 1e15


def test_flop_of_a_step_are_those_of_the_formula():
    recipe = load_recipe("ann", ["model.widths=[64]"])
    found = measure_network(recipe, device=CPU, rates=Rates(1e9, 2e9), seconds=0.01)
    # Two FLOP a weight forward, two for its gradient, and two for that of the layer's input.
    assert found.flop == 2 * 2 * 3072 * 64 + 3 * 2 * 64 * 10
    assert found.utilisation == pytest.approx(found.flop * found.training_per_second / 2e9)
    assert found.forward_per_second > 0


def test_a_network_is_timed_at_the_sizes_that_its_recipe_trains_on(monkeypatch):
    def seconds_of(bench, side, *, seconds):
        return side * 1e-6

    monkeypatch.setattr(Workbench, "training_seconds", seconds_of)
    monkeypatch.setattr(Workbench, "evaluation_seconds", seconds_of)
    found = measure_network(load_recipe("fast-75"), device=CPU, rates=Rates(1e9, 1e9))
    assert found.sizes == (16, 24)
    assert found.training_per_second == pytest.approx(1e6 / (0.7 * 16 + 0.3 * 24))
    assert found.forward_per_second == pytest.approx(1e6 / 24)


@pytest.mark.parametrize(("precision", "largest"), [("float32", 2.0), ("bf16", 7.0), ("fp16", 7.0)])
def test_utilisation_is_of_the_faster_rate_in_the_same_precision(precision, largest):
    assert Rates(1.0, 2.0, 7.0, 5.0).largest(precision) == largest
    assert Rates(1.0, 2.0).largest(precision) == 2.0  # All that is known.


def test_each_network_is_timed_once():
    names = distinct_networks()
    assert {"ann", "cnn", "resnet18"} <= {*names}
    networks = [(load_recipe(n).model, load_recipe(n).training.precision) for n in names]
    assert len(set(networks)) == len(networks)


def test_the_command_shows_rates_and_networks(tmp_path):
    done = commands.run(["bench", "ann", "tutorial-cnn"], folder=tmp_path)
    assert done.wait() == 0
    assert re.search(r"matrix product, float32 +\d+", done.output)
    assert re.search(r"convolution, float32 +\d+", done.output)
    assert re.search(r"tutorial-cnn +32 +float32 +[\d,]+ +[\d,]+ +[\d.]+ +\d+ %", done.output)


@pytest.mark.long
def test_the_command_has_lines_for_machines(tmp_path):
    done = commands.run(["bench", "ann", "--json"], folder=tmp_path)
    lines = [json.loads(line) for line in done.output.splitlines()]
    lines = [line for line in lines if line["event"] != "progress"]  # Of a busy machine.
    assert [line["event"] for line in lines] == ["rates", "network"]
    assert lines[1]["recipe"] == "ann"
