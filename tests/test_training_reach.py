"""What an accuracy costs: hand-made clocks, and small runs that are paid for and kept."""

import json

import pytest
import torch

import commands
from fabricated_runs import make_run
from tenfold.errors import TenfoldError
from tenfold.files import read_json
from tenfold.recipe import load_recipe
from tenfold.results.runs import Cost
from tenfold.training import reach
from tenfold.training.bench import Rates
from tenfold.training.devices import instruction_set
from tenfold.training.reach import RECIPES, Meter, recipe_for

CPU = torch.device("cpu")


class Clock:
    """A clock that stands still unless told to move on."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return 2 * self.now  # Two cores that are never idle.


def test_a_cost_is_time_times_rate_without_the_probes(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(reach, "time", clock)
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
    assert found.matmul_equivalents == pytest.approx(4 * 15e9 + 6 * 30e9)
    assert found.core_seconds == pytest.approx(20)
    assert found.product_rate == pytest.approx(24e9)


@pytest.mark.parametrize(("kind", "target"), [(k, t) for k, ts in RECIPES.items() for t in ts])
def test_every_target_has_a_recipe(kind, target):
    assert recipe_for(target, torch.device(kind)).name == RECIPES[kind][target]


def test_a_target_is_reached_for_with_changes():
    recipe = recipe_for("75", CPU, ["training.precision=float32"])
    assert (recipe.name, recipe.training.precision) == ("fast-75", "float32")


def test_a_target_without_a_recipe_is_refused():
    with pytest.raises(TenfoldError, match=r"--to '99'.*75, 85, 91, 94"):
        recipe_for("99", CPU)


def test_each_seed_is_trained_evaluated_paid_for_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reach, "product_rate", lambda device: 1e11)
    commands.write_tiny_recipe(tmp_path)
    data = commands.write_tiny_data(tmp_path / "tiny.npz")
    recipe = load_recipe(tmp_path / "tiny.toml", [f"data.name={data}", "training.epochs=2"])
    rates = Rates(1e11, 2e11)
    asked = {"runs": tmp_path / "runs", "device": CPU, "rates": rates}
    found = list(reach.reach(recipe, num_seeds=2, **asked))
    assert [one.seed for one in found] == [0, 1]
    for one in found:
        result, cost = read_json(one.folder / "result.json"), one.cost
        training = result["training"]
        assert one.accuracy == result["splits"]["test"]["accuracy"]
        assert training["compile_seconds"] == 0
        # What a user waits for is more than the steps, and its price is time times rate.
        assert cost.seconds > training["training_seconds"]
        assert cost.matmul_equivalents == pytest.approx(cost.seconds * 1e11)
        assert cost.core_seconds > 0
        used = training["flop"] / training["training_seconds"] / 2e11
        assert cost.utilisation == pytest.approx(used)
        assert 0 < used < 1
        assert Cost.model_validate(result["cost"]) == cost
    assert len({read_json(one.folder / "recipe.json")["seed"] for one in found}) == 2
    # As after a kill in the second: the first is kept, the second trained anew.
    (found[1].folder / "result.json").unlink()
    again = list(reach.reach(recipe, num_seeds=2, **asked))
    assert [one.is_kept for one in again] == [True, False]
    assert again[0].folder == found[0].folder
    assert again[0].cost == found[0].cost
    assert again[1].folder != found[1].folder


def test_a_seed_that_was_trained_otherwise_is_not_kept(tmp_path):
    run = make_run(tmp_path / "runs/cnn/1")
    values = read_json(run / "result.json")
    cost = Cost(seconds=1.0, core_seconds=1.0, product_rate=1.0, matmul_equivalents=1.0)
    (run / "result.json").write_text(json.dumps({**values, "cost": cost.to_dict()}))
    made = {"arithmetic": "float32", "instructions": instruction_set(), "device": "cpu"}
    made["threads"] = torch.get_num_threads()
    recipe = load_recipe(run / "recipe.json")

    def kept(**changes):
        (run / "provenance.json").write_text(json.dumps(made | changes))
        return reach._finished(recipe, tmp_path / "runs", "float32", CPU) is not None

    assert kept()
    assert not kept(threads=torch.get_num_threads() + 1)
    assert not kept(instructions="another")
    assert not kept(arithmetic="bf16")


def test_compiling_is_no_part_of_the_cost():
    whole = Cost(seconds=10.0, core_seconds=20.0, product_rate=2e11, matmul_equivalents=2e12)
    rest = whole.without(4.0)
    assert (rest.seconds, rest.matmul_equivalents) == (6.0, 1.2e12)
