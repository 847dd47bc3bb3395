"""Rates, throughput and cost: what is measured, by hand-made clocks and small networks."""

import json
import re
import time

import pytest
import torch

import commands
from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.recipe import load_recipe
from tenfold.speed import accuracy
from tenfold.speed.accuracy import RECIPES, Cost, Meter, recipe_for
from tenfold.speed.networks import distinct_networks, measure_network
from tenfold.speed.rates import Rates, convolution_rate, product_rate, seconds_of_one

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still unless told to move on."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


def test_a_cost_is_time_times_rate_without_the_probes(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(accuracy, "time", clock)
    rates = iter([10e9, 20e9, 40e9])

    def probe():
        clock.now += 7
        return next(rates)

    meter = Meter(probe)
    clock.now += 4
    meter.epoch_ended({}, {})
    clock.now += 6
    meter.mark()
    found = meter.cost
    assert found.seconds == pytest.approx(10)
    assert found.operations == pytest.approx(4 * 15e9 + 6 * 30e9)
    assert found.product_rate == pytest.approx(24e9)


def test_the_median_is_of_whole_calls():
    calls = []

    def work():
        calls.append(time.sleep(0.01 if len(calls) != 2 else 0.1))

    assert 0.009 < seconds_of_one(work, CPU, seconds=0.01) < 0.05
    assert len(calls) == 4  # The first sets up, three are timed.


def test_rates_are_those_of_a_computer():
    for rate in (product_rate(CPU, seconds=0.01), convolution_rate(CPU, seconds=0.01)):
        assert 1e8 < rate < 1e15


def test_operations_of_a_step_are_those_of_the_formula():
    recipe = load_recipe("ann", ["model.widths=[64]"])
    rates = Rates(product=1e9, convolution=1e9, convolution_bf16=None)
    found = measure_network(recipe, device=CPU, rates=rates, seconds=0.01)
    # Two operations a weight forward, two for its gradient, and two for that of the layer's input.
    assert found.operations == 2 * 2 * 3072 * 64 + 3 * 2 * 64 * 10
    share = found.operations * found.training_per_second / 1e9
    assert found.training_share == pytest.approx(share)
    assert found.forward_per_second > 0


def test_each_network_is_timed_once():
    names = distinct_networks()
    assert {"ann", "cnn", "resnet18"} <= {*names}
    networks = [(load_recipe(n).model, load_recipe(n).training.precision) for n in names]
    assert len(set(networks)) == len(networks)


@pytest.mark.parametrize(("kind", "target"), [(k, t) for k, ts in RECIPES.items() for t in ts])
def test_every_target_has_a_recipe(kind, target):
    assert recipe_for(target, torch.device(kind)).name == RECIPES[kind][target]


def test_a_target_without_a_recipe_is_refused():
    with pytest.raises(TenfoldError, match=r"--to '99'.*75, 85, 91, 94"):
        recipe_for("99", CPU)


def test_the_command_shows_rates_and_networks(tmp_path):
    done = commands.run(["bench", "ann", "tutorial-cnn"], folder=tmp_path)
    assert done.wait() == 0
    assert re.search(r"matrix product, float32 +\d+", done.output)
    assert re.search(r"convolution, float32 +\d+", done.output)
    assert re.search(r"tutorial-cnn +float32 +[\d,]+ +[\d,]+ +[\d.]+ +\d+ %", done.output)


@pytest.mark.long
def test_the_command_has_lines_for_machines(tmp_path):
    done = commands.run(["bench", "ann", "--json"], folder=tmp_path)
    lines = [json.loads(line) for line in done.output.splitlines()]
    lines = [line for line in lines if line["event"] != "progress"]  # Of a busy machine.
    assert [line["event"] for line in lines] == ["rates", "network"]
    assert lines[1]["recipe"] == "ann"


def test_each_seed_is_trained_evaluated_and_paid_for(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "product_rate", lambda device: 1e11)
    commands.write_tiny_recipe(tmp_path)
    data = commands.write_tiny_data(tmp_path / "tiny.npz")
    recipe = load_recipe(tmp_path / "tiny.toml", [f"data.name={data}", "training.epochs=2"])
    found = list(accuracy.reach(recipe, num_seeds=2, runs=tmp_path / "runs", device=CPU))
    assert [one.seed for one in found] == [0, 1]
    for one in found:
        result = read_json(one.folder / "result.json")
        assert one.accuracy == result["splits"]["test"]["accuracy"]
        assert one.training_seconds == result["training"]["training_seconds"]
        assert one.compile_seconds == 0
        # What a user waits for is more than the steps, and its price is time times rate.
        assert one.cost.seconds > one.training_seconds
        assert one.cost.operations == pytest.approx(one.cost.seconds * 1e11)
    assert len({read_json(one.folder / "recipe.json")["seed"] for one in found}) == 2


def test_compiling_is_no_part_of_the_cost():
    rest = Cost(10.0, 2e11, 2e12).without(4.0)
    assert rest == Cost(6.0, 2e11, 1.2e12)
