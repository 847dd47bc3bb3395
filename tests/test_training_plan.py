"""Plans for a given time: the rung that is chosen, the time that is left, what may be expected."""

import dataclasses
import json
import re
import time

import numpy as np
import pytest
import torch

import commands
from tenfold.cli.train import _in_time
from tenfold.console.output import Output
from tenfold.data import Dataset
from tenfold.data.images import Images
from tenfold.errors import TenfoldError
from tenfold.files import write_json
from tenfold.recipe import load_recipe, recipe_from_dict
from tenfold.run import create_run
from tenfold.training import plan
from tenfold.training.bench import Speed
from tenfold.training.choice import with_sizes_for
from tenfold.training.plan import (
    ENOUGH_EPOCHS,
    LADDER,
    affordable_rungs,
    expected_accuracy,
    plan_run,
    unfinished_plan,
)
from tenfold.training.train import TrainOptions

CPU = torch.device("cpu")


def dataset(number=200, side=16):
    generator = np.random.default_rng(0)
    splits = [
        Images(
            generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
            np.arange(count, dtype=np.int64) % 4,
            ("a", "b", "c", "d"),
            np.array([str(i) for i in range(count)]),
        )
        for count in (number, 50)
    ]
    return Dataset(name="noise", train=splits[0], validation=None, test=splits[1], source="a test")


# -- the ladder ----------------------------------------------------------------------------------


def test_the_ladder_rises_and_its_recipes_exist():
    assert list(LADDER) == sorted(LADDER, key=lambda rung: rung.cost)
    assert list(LADDER) == sorted(LADDER, key=lambda rung: rung.accuracy)
    for rung in LADDER:
        assert load_recipe(rung.recipe).data.validation_size == 0


@pytest.mark.parametrize("rung", LADDER, ids=lambda rung: rung.recipe)
def test_the_rungs_that_can_be_paid_for_are_tried_from_the_dearest(rung):
    assert affordable_rungs(rung.cost, 1.0) == list(LADDER[: LADDER.index(rung) + 1])[::-1]
    assert affordable_rungs(rung.cost * 0.99, 1.0)[0] != rung or rung == LADDER[0]
    assert affordable_rungs(rung.cost * 0.1, 0.1)[0] == rung
    assert affordable_rungs(rung.cost, 1e-9)[0] == LADDER[-1]


def test_expectations_go_through_the_ladder_and_end_with_it():
    for rung in LADDER:
        assert expected_accuracy(rung.cost) == pytest.approx(rung.accuracy)
    costs = np.geomspace(LADDER[0].cost / 100, LADDER[-1].cost * 10, 50)
    expected = [expected_accuracy(cost) for cost in costs]
    assert expected == sorted(expected)
    assert 0.09 < expected[0] < LADDER[0].accuracy
    assert expected[-1] == pytest.approx(LADDER[-1].accuracy)


@pytest.mark.parametrize(
    ("side", "sizes"), [(32, (20, 26)), (64, (40, 52)), (16, (12, 12)), (10, (10, 10))]
)
def test_sizes_follow_the_pictures(side, sizes):
    recipe = load_recipe("fast-91", ["training.sizes=[20,26]", "training.sizes_until=[0.4,0.7]"])
    assert with_sizes_for(recipe, side).training.sizes == sizes


# -- a plan --------------------------------------------------------------------------------------


@pytest.fixture
def slow_machine(monkeypatch):
    """One that needs 1 ms a training picture and 2 ms an evaluated one, and computes little."""
    monkeypatch.setattr(plan, "product_rate", lambda device, seconds: 147e9)
    monkeypatch.setattr(plan, "_page_seconds", lambda device: 4.0)
    monkeypatch.setattr(plan, "step_seconds", lambda recipe: 1.0 / torch.get_num_threads())
    monkeypatch.setattr(plan, "speed_of_run", lambda recipe, **others: Speed(0.001, 0.002))


def test_evaluation_page_and_margin_are_taken_out_of_the_time(slow_machine):
    planned = plan_run(load_recipe("cnn"), dataset(), seconds=100, device=CPU)
    # 20 validation pictures, after the last epoch and for the result, and 50 test pictures.
    assert planned.closing_seconds == pytest.approx(0.18 + 4)
    limit = planned.recipe.training.time_limit_seconds
    assert limit == pytest.approx(100 * 0.95 - 4.18, abs=1)
    # An epoch of 180 pictures takes 0.18 s; more are planned than fit, so that the clock decides.
    assert planned.recipe.training.epochs > limit / 0.18
    assert planned.recipe.model == load_recipe("cnn").model
    assert planned.expected is None


def test_what_is_not_done_takes_no_time(slow_machine):
    planned = plan_run(
        load_recipe("cnn"),
        dataset(),
        seconds=100,
        device=CPU,
        evaluates_test=False,
        writes_page=False,
    )
    assert planned.closing_seconds == pytest.approx(0.08)


def test_the_clock_is_the_only_end(slow_machine):
    asked = load_recipe("cnn-dropout")
    assert asked.training.milestones
    early = asked.training.but(early_stopping=3)
    planned = plan_run(asked.but(training=early), dataset(side=32), seconds=100, device=CPU)
    assert planned.recipe.training.milestones == ()
    assert planned.recipe.training.early_stopping == 0
    assert planned.recipe.training.min_steps == 0
    # It can be read back, as the run's folder will have it.
    assert recipe_from_dict(planned.recipe.to_dict()) == planned.recipe


def test_what_a_schedule_tells_in_epochs_lasts_as_many_of_those_that_fit(slow_machine):
    # An epoch of 180 pictures takes 0.18 s.
    asked = load_recipe(
        "cnn", ["schedule.name=step", "schedule.every_epochs=100", "schedule.warmup_epochs=20"]
    )
    planned = plan_run(asked, dataset(), seconds=100, device=CPU).recipe
    fitting = planned.training.time_limit_seconds / 0.18
    share = fitting / planned.training.epochs
    assert planned.schedule.every_epochs * share == pytest.approx(100, rel=0.01)
    assert planned.schedule.warmup_epochs * share == pytest.approx(20, rel=0.01)
    cut = load_recipe("cnn", ["schedule.name=step", "schedule.cuts=[50, 80]"])
    schedule = plan_run(cut, dataset(), seconds=100, device=CPU).recipe.schedule
    assert [cut * share for cut in schedule.cuts] == pytest.approx([50, 80], rel=0.01)


def test_without_a_recipe_the_time_decides(slow_machine):
    small = plan_run(None, dataset(), seconds=30, device=CPU)
    assert small.recipe.name == LADDER[-1].recipe  # 200 pictures are few.
    large = dataclasses.replace(dataset(40_000, side=32), name="cifar10")
    planned = plan_run(None, large, seconds=80, device=CPU, overrides=["seed=3"])
    assert planned.recipe.name == "fast-85"
    assert planned.recipe.seed == 3
    assert planned.recipe.evaluation.views == "six"
    assert planned.recipe.data.image_size == 0
    # An epoch takes 40 s: not two epochs, but more than ENOUGH_EPOCHS of them.
    share = planned.recipe.training.time_limit_seconds / 40 / 2
    assert ENOUGH_EPOCHS < share < 1
    rung = next(rung for rung in LADDER if rung.recipe == "fast-85")
    assert planned.expected == pytest.approx(expected_accuracy(rung.cost * share), abs=1e-6)


def test_a_rung_of_which_too_little_fits_makes_way_for_the_one_below(monkeypatch, slow_machine):
    pictures = dataclasses.replace(dataset(40_000, side=32), name="cifar10")
    tried = []

    def speed_of_run(recipe, **others):
        tried.append(recipe.name)
        return Speed(0.0001 if recipe.name == "fast-75" else 0.001, 0.002)

    monkeypatch.setattr(plan, "speed_of_run", speed_of_run)
    planned = plan_run(None, pictures, seconds=40, device=CPU)
    assert tried == ["fast-85", "fast-75"]
    assert planned.recipe.name == "fast-75"
    assert planned.expected == pytest.approx(LADDER[0].accuracy)  # All its epochs fit.
    assert planned.recipe.data.image_size == 0  # The rung's own is 24.


@pytest.fixture
def transfer_speeds(monkeypatch, slow_machine):
    """A pretrained network that sees an image of 160 pixels in 0.4 s and learns from it in 1.6."""

    def speed(recipe, *, trains=True, **others):
        share = (recipe.model.input_size / 160) ** 2
        return Speed(1.6 * share if trains else 0.0, 0.4 * share)

    monkeypatch.setattr(plan, "speed_of_transfer", speed)


@pytest.mark.parametrize(
    ("seconds", "name", "trains", "views", "side"),
    [
        (2000, "transfer-lite0", ["head", "all"], 1, 160),
        (750, "transfer-lite0", ["head"], 2, 160),
        (400, "transfer-lite0", ["head"], 1, 160),
        (220, "transfer-lite0", ["head"], 1, 96),
    ],
)
def test_photographs_get_as_much_of_a_pretrained_network_as_fits(
    transfer_speeds, seconds, name, trains, views, side
):
    """500 images, a tenth held out: all features take 200 s, or 380 of two views."""
    asked = []

    def load(recipe):
        asked.append(recipe)
        return dataset(500, side=recipe.model.input_size)

    planned = plan_run(None, dataset(500, side=160), seconds=seconds, device=CPU, load=load)
    recipe = planned.recipe
    assert recipe.name == name
    assert [stage.trains for stage in recipe.stages] == trains
    assert (recipe.stages[0].views, recipe.model.input_size) == (views, side)
    assert planned.dataset.train.size == (side, side)
    assert recipe.training.time_limit_seconds < 0.95 * seconds
    assert [stage.epochs for stage in recipe.stages][:1] == [10]
    assert len(asked) == (side < 160)
    assert planned.recipe == recipe_from_dict(recipe.to_dict())


def test_without_time_for_features_a_network_of_their_own_learns(transfer_speeds):
    small = dataset(500, side=64)
    planned = plan_run(
        None, dataset(500, side=160), seconds=60, device=CPU, load=lambda recipe: small
    )
    assert planned.recipe.name.startswith("fast-")
    assert planned.dataset is small
    asked = []
    many = dataclasses.replace(dataset(40_000, side=32), name="cifar10")
    planned = plan_run(None, many, seconds=300, device=CPU, load=asked.append)
    assert asked == []
    assert planned.recipe.name.startswith("fast-")


def test_the_last_stage_of_a_recipe_is_ended_by_the_clock(transfer_speeds):
    asked = load_recipe("transfer-lite0")
    planned = plan_run(asked, dataset(500, side=160), seconds=2000, device=CPU).recipe
    head, last = planned.stages
    assert head == asked.stages[0]
    # An epoch takes 720 s and the validation 20; ten times as many are planned as fit.
    fitting = (planned.training.time_limit_seconds - 200) / 740
    assert last.epochs == pytest.approx(10 * fitting, rel=0.1)
    head_alone = asked.but(stages=asked.stages[:1])
    with pytest.raises(TenfoldError, match="the least run takes about") as refused:
        plan_run(head_alone, dataset(500, side=160), seconds=150, device=CPU)
    least = int(re.search(r"give --time (\d+)s", str(refused.value))[1])
    plan_run(head_alone, dataset(500, side=160), seconds=least + 1, device=CPU)


def test_a_step_that_takes_long_needs_time_for_some_of_it(monkeypatch, slow_machine):
    monkeypatch.setattr(plan, "speed_of_run", lambda recipe, **others: Speed(0.05, 0.002))
    # Four steps of 128 pictures take 25.6 s.
    with pytest.raises(TenfoldError, match="training for some steps"):
        plan_run(load_recipe("cnn"), dataset(), seconds=28.0, device=CPU)
    plan_run(load_recipe("cnn"), dataset(), seconds=34.0, device=CPU)


def test_too_little_time_is_refused_with_what_is_missing(slow_machine):
    with pytest.raises(TenfoldError, match=r"too short by 3 s .* evaluating cnn here"):
        plan_run(load_recipe("cnn"), dataset(), seconds=3.0, device=CPU)


@pytest.mark.parametrize(
    ("recipe", "seconds"), [(None, 1.0), (None, 5.0), ("cnn", 1.0), ("cnn", 5.0), ("cnn", 20.0)]
)
def test_the_least_run_that_is_told_can_be_planned(slow_machine, seconds, recipe):
    # 10,000 test pictures: evaluation alone takes 20 s, or less where views may be dropped.
    large = dataclasses.replace(dataset(side=32), name="cifar10")
    large = dataclasses.replace(large, test=repeated(large.test, 200))
    asked = load_recipe(recipe) if recipe else None
    with pytest.raises(TenfoldError, match=r"the least run takes about \d+ s, so") as refused:
        plan_run(asked, large, seconds=seconds, spent=0.5, device=CPU)
    least = int(re.search(r"give --time (\d+)s", str(refused.value))[1])
    planned = plan_run(asked, large, seconds=least + 1, spent=0.5, device=CPU)
    assert planned.recipe.training.time_limit_seconds >= 1
    if recipe is not None:
        with pytest.raises(TenfoldError, match="too short"):
            plan_run(asked, large, seconds=least - 2, spent=0.5, device=CPU)


def repeated(images, times):
    """As many pictures, each `times` over, under names of their own."""
    number = len(images) * times
    return Images(
        np.repeat(images.pixels, times, axis=0),
        np.repeat(images.labels, times),
        images.class_names,
        np.array([str(i) for i in range(number)]),
    )


# -- going on ------------------------------------------------------------------------------------


def test_an_unfinished_plan_is_gone_on_with(tmp_path):
    wanted = load_recipe("cnn", ["seed=2"])
    training = wanted.training.but(epochs=77, min_steps=0, time_limit_seconds=41.5)
    begun = wanted.but(name="cnn-in-1m", training=training)
    run = create_run(tmp_path, "cnn-in-1m")
    write_json(run.recipe, begun.to_dict())

    def found(recipe, *, changes=("seed=2",), own_network=False):
        return unfinished_plan([run], recipe, changes, own_network=own_network)

    assert found(wanted) == begun
    assert found(load_recipe("cnn", ["seed=3"])) is None
    other = ["seed=2", "optimizer.lr=0.5"]
    assert found(load_recipe("cnn", other)) is None
    # A plan that chose the network agrees with whatever the command does not say.
    assert found(load_recipe("fast-91", ["seed=2"]), own_network=True) == begun
    assert found(load_recipe("fast-91", other), changes=other, own_network=True) is None
    assert found(load_recipe("fast-91"), changes=(), own_network=True) is None
    assert unfinished_plan([], wanted, (), own_network=False) is None
    with run.writer():
        assert found(wanted) is None
    damaged = create_run(tmp_path, "cnn-in-1m")
    damaged.recipe.write_text("{")
    assert unfinished_plan([damaged, run], wanted, (), own_network=False) == begun
    write_json(run.result, {})
    assert found(wanted) is None


def test_a_plan_is_gone_on_with_by_as_many_threads_as_are_asked_for(tmp_path):
    wanted = load_recipe("cnn")
    training = wanted.training.but(min_steps=0, time_limit_seconds=41.5)
    begun = wanted.but(name="cnn-in-1m", training=training)
    write_json(create_run(tmp_path, "cnn-in-1m").recipe, begun.to_dict())
    asked = TrainOptions(runs=tmp_path, threads=1)
    output = Output(as_json=True)
    assert _in_time(output, "1m", wanted, [], asked, page=False) == (begun, asked, None)


def test_under_a_launcher_there_is_no_plan(tmp_path):
    command = commands.run(
        ["train", "cnn", "--time", "1m"],
        folder=tmp_path,
        environment={"WORLD_SIZE": "2", "RANK": "0"},
    )
    assert command.wait() == 2
    assert "--time plans for one process" in command.output


def run_within(folder, time, recipe, before=None):
    """What `--time` leaves of a run on tiny data: the lines it said, its result and its rates."""
    commands.write_tiny_recipe(folder)
    data = commands.write_tiny_data(folder / "tiny.npz", num_train=200, num_test=40)
    arguments = ["train", *recipe, "--data", str(data), "--time", time, "--json"]
    command = commands.run(arguments, folder=folder, before=before)
    assert command.wait() == 0, command.output
    run = folder / f"runs/{'tiny' if recipe else 'best'}-in-{time}/1"
    rates = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = {line["event"]: line for line in map(json.loads, command.output.splitlines())}
    return lines, json.loads((run / "result.json").read_text()), rates


@dataclasses.dataclass(frozen=True)
class TrainingSeconds:
    """A plan of plenty of time leaves so much of it for training."""

    limit: float

    def __call__(self):
        """Wrap the making of the plan's recipe."""
        real = plan._timed
        plan._timed = lambda recipe, epochs, limit: real(recipe, epochs, self.limit)


@pytest.mark.parametrize(
    "recipe",
    [["tiny.toml"], pytest.param([], marks=pytest.mark.long)],
    ids=["a recipe", "the best"],
)
def test_the_clock_ends_a_run_and_lowers_its_rate(tmp_path, recipe):
    lines, result, rates = run_within(tmp_path, "5m", recipe, before=TrainingSeconds(3.0))
    assert lines["ended"]["reason"] == "time limit"
    assert "test" in result["splits"]
    # Falling to 0 over the time, in as many steps as the machine takes meanwhile.
    assert len(rates) < 3 or rates[-1]["learning_rate"] < 0.5 * rates[0]["learning_rate"]


@pytest.mark.long
@pytest.mark.parametrize("recipe", [["tiny.toml"], []], ids=["a recipe", "the best"])
def test_a_run_is_done_within_its_time(tmp_path, recipe):
    commands.run(["--version"], folder=tmp_path)  # Starting the fork server is no part of it.
    started = time.monotonic()
    lines, _, _ = run_within(tmp_path, "40s", recipe)
    took = time.monotonic() - started
    # The promise is 36 to 40 s; on a machine that has nothing else to do.
    assert 30 < took < 42
    assert lines["ended"]["reason"] == "time limit"


@pytest.mark.parametrize(("one", "best"), [(0.5, 1), (0.95, 2), (2.0, 2)])
def test_one_thread_is_used_where_it_is_faster(monkeypatch, one, best):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        monkeypatch.setattr(
            plan, "step_seconds", lambda recipe: one if torch.get_num_threads() == 1 else 1.0
        )
        assert plan.use_best_threads(load_recipe("fast-75")) == best
        assert torch.get_num_threads() == best
    finally:
        torch.set_num_threads(before)


def test_views_that_would_take_too_much_of_the_time_are_left_out(monkeypatch, slow_machine):
    pictures = dataclasses.replace(dataset(40_000, side=32), name="cifar10")
    # 50 test pictures at 0.1 s: 5 s of 60.
    monkeypatch.setattr(plan, "speed_of_run", lambda recipe, **others: Speed(0.001, 0.1))
    planned = plan_run(None, pictures, seconds=60, device=CPU)
    assert planned.recipe.evaluation.views == "one"
    assert planned.closing_seconds < 4 + 5 / 2
    assert plan_run(None, pictures, seconds=200, device=CPU).recipe.evaluation.views == "six"
