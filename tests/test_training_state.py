"""The state of a run: after a detour over the disk it goes on with the same bits."""

import json
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import build_network
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.training.checkpoint import newest_good_checkpoint, save_checkpoint
from tenfold.training.optimizers import build_optimizer
from tenfold.training.schedules import Plateau
from tenfold.training.state import History, Sums, TrainingState

MODELS = {
    "ann": {"name": "ann", "widths": [12], "activation": "prelu", "dropout": 0.0},
    "cnn": {"name": "cnn", "widths": [6, 8], "dense": [10], "dropout": 0.0},
}
OPTIMIZERS = {
    "sgd": {"name": "sgd", "momentum": 0.0},
    "momentum": {"name": "sgd"},
    "nesterov": {"name": "sgd", "nesterov": True, "weight_decay": 0.01},
    "adam": {"name": "adam", "betas": [0.8, 0.99]},
    "adamw": {"name": "adamw"},
}


def make_recipe(model="cnn", optimizer="momentum", **changes):
    return recipe_from_dict({"model": MODELS[model], "optimizer": OPTIMIZERS[optimizer], **changes})


def make_state(recipe: Recipe, *, average=True, seed=0):
    torch.manual_seed(seed)
    model = build_network(recipe, num_classes=3, image_size=(8, 8))
    averaged = None
    if average:
        rule = get_ema_multi_avg_fn(0.9)
        averaged = AveragedModel(model, multi_avg_fn=rule, use_buffers=True)
    return TrainingState(model, build_optimizer(model, recipe.optimizer), averaged)


def train(state, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(8, 3, 8, 8, generator=generator)
        state.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(state.model.train()(inputs), torch.arange(8) % 3)
        loss.backward()
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)


def bits(state):
    return {name: tensor.detach().clone() for name, tensor in state.tensors().items()}


def assert_same_bits(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def through_the_disk(state, folder):
    save_checkpoint(folder, state.tensors(), {"history": state.history.to_dict()})
    return newest_good_checkpoint(folder)


@pytest.mark.parametrize("average", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_row_14_a_resumed_state_goes_on_with_the_same_bits(tmp_path, model, optimizer, average):
    recipe = make_recipe(model, optimizer)
    state = make_state(recipe, average=average)
    train(state, range(3))
    checkpoint = through_the_disk(state, tmp_path)
    resumed = make_state(recipe, average=average, seed=99)
    resumed.load_tensors(checkpoint.tensors, source="x")
    assert_same_bits(bits(resumed), bits(state))
    train(state, range(3, 6))
    train(resumed, range(3, 6))
    assert_same_bits(bits(resumed), bits(state))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_before_its_first_step_survives(tmp_path, optimizer):
    recipe = make_recipe(optimizer=optimizer)
    state = make_state(recipe)
    resumed = make_state(recipe, seed=99)
    train(resumed, range(2))  # whatever was there before is gone
    resumed.load_tensors(through_the_disk(state, tmp_path).tensors, source="x")
    train(state, range(3))
    train(resumed, range(3))
    assert_same_bits(bits(resumed), bits(state))


def test_tensors_keep_their_place_in_memory(tmp_path):
    recipe = make_recipe()
    state = make_state(recipe)
    train(state, range(1))
    resumed = make_state(recipe, seed=99)
    resumed.load_tensors(through_the_disk(state, tmp_path).tensors, source="x")
    train(resumed, range(1, 2))
    train(state, range(1, 2))
    for name, tensor in state.tensors().items():
        assert resumed.tensors()[name].stride() == tensor.stride(), name


def test_loading_copies(tmp_path):
    state = make_state(make_recipe())
    train(state, range(1))
    tensors = {name: tensor.clone() for name, tensor in state.tensors().items()}
    resumed = make_state(make_recipe(), seed=99)
    resumed.load_tensors(tensors, source="x")
    for tensor in tensors.values():
        tensor.zero_()
    assert_same_bits(
        {k: t for k, t in bits(resumed).items() if not k.startswith("optimizer.")},
        {k: t for k, t in bits(state).items() if not k.startswith("optimizer.")},
    )


def test_names_say_what_a_tensor_belongs_to():
    state = make_state(make_recipe(optimizer="adam"))
    train(state, range(1))
    state.best = {name: t.clone() for name, t in state.model.state_dict().items()}
    names = state.tensors()
    kinds = {name.partition(".")[0] for name in names}
    assert kinds == {"model", "average", "best", "optimizer"}
    assert "optimizer.0.exp_avg" in names
    num_parameters = len(list(state.model.parameters()))
    assert sum(name.endswith(".exp_avg_sq") for name in names) == num_parameters


def test_the_best_weights_come_along(tmp_path):
    state = make_state(make_recipe())
    state.best = {name: t.clone() + 1 for name, t in state.model.state_dict().items()}
    resumed = make_state(make_recipe(), seed=99)
    resumed.load_tensors(through_the_disk(state, tmp_path).tensors, source="x")
    assert_same_bits(resumed.best, state.best)
    state.best = None
    resumed.load_tensors(through_the_disk(state, tmp_path).tensors, source="x")
    assert resumed.best is None


def test_the_averaged_weights_are_the_evaluated_ones():
    with_average, without = make_state(make_recipe()), make_state(make_recipe(), average=False)
    assert with_average.evaluated_model is with_average.average.module
    assert without.evaluated_model is without.model


def test_the_average_is_exponential():
    state = make_state(make_recipe("ann", "sgd"))
    weights = []
    for step in range(4):
        train(state, [step])
        weights.append(state.model[1].weight.detach().clone())
    expected = weights[0]  # the first average is the first weights
    for weight in weights[1:]:
        expected = 0.9 * expected + 0.1 * weight
    torch.testing.assert_close(state.average.module[1].weight.detach(), expected)


# -- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (
            {**MODELS["cnn"], "widths": [6, 9]},
            "4.weight it has (8, 6, 3, 3), and the network needs (9, 6,",
        ),
        ({"name": "cnn", "widths": [6], "dense": [10]}, "the network needs"),
        ({"name": "ann", "widths": [12]}, "the network needs"),
    ],
)
def test_row_10_another_network_is_refused_with_the_difference(model, named):
    state = make_state(make_recipe())
    train(state, range(1))
    other = make_state(recipe_from_dict({"model": model}))
    before = bits(other)
    with pytest.raises(TenfoldError, match=r"^runs/cnn/1 does not fit") as raised:
        other.load_tensors(state.tensors(), source="runs/cnn/1")
    assert named in str(raised.value)
    assert_same_bits(bits(other), before)


def test_a_state_without_averages_is_refused_where_they_are_needed():
    state = make_state(make_recipe(), average=False)
    with pytest.raises(TenfoldError, match="no averaged weights"):
        make_state(make_recipe()).load_tensors(state.tensors(), source="x")


def test_averages_that_are_not_needed_are_left():
    state = make_state(make_recipe())
    other = make_state(make_recipe(), average=False, seed=99)
    other.load_tensors(state.tensors(), source="x")
    assert other.average is None
    assert_same_bits(dict(other.model.state_dict()), dict(state.model.state_dict()))


@pytest.mark.parametrize("after", OPTIMIZERS)
@pytest.mark.parametrize("before", OPTIMIZERS)
def test_row_13_the_state_of_another_optimiser_is_left(before, after):
    """As with `--allow-changes --set optimizer.name=...`: training, and no traceback."""
    state = make_state(make_recipe(optimizer=before))
    train(state, range(2))
    other = make_state(make_recipe(optimizer=after), seed=99)
    is_same = OPTIMIZERS[before]["name"] == OPTIMIZERS[after]["name"]
    other.load_tensors(state.tensors(), source="x", with_optimizer=is_same)
    train(other, range(2, 4))
    assert all(tensor.isfinite().all() for tensor in bits(other).values())


class Counting(torch.optim.Adagrad):
    """Counts its steps in numbers, and makes the step smaller by them."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                known = self.state[parameter]
                known["count"] = known.get("count", 0) + 1
                known["shrunk"] = known.get("shrunk", 1.0) * 0.9
                parameter.grad.mul_(known["shrunk"] ** known["count"])
        return super().step(closure)


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.9),
        lambda parameters: torch.optim.AdamW(parameters, lr=0.01, amsgrad=True),
        lambda parameters: torch.optim.NAdam(parameters, lr=0.01),
        lambda parameters: Counting(parameters, lr=0.01),
    ],
)
def test_row_14_an_optimiser_of_ones_own_goes_on_with_the_same_bits(tmp_path, make):
    states = [make_state(make_recipe(), seed=seed) for seed in (0, 99)]
    for state in states:
        state.optimizer = make([*state.model.parameters()])
    state, resumed = states
    train(state, range(3))
    resumed.load_tensors(through_the_disk(state, tmp_path).tensors, source="x")
    assert_same_bits(bits(resumed), bits(state))
    train(state, range(3, 6))
    train(resumed, range(3, 6))
    assert_same_bits(bits(resumed), bits(state))


def test_what_no_checkpoint_can_hold_of_an_optimiser_is_named():
    state = make_state(make_recipe())
    state.optimizer.state[next(state.model.parameters())]["seen"] = {}
    with pytest.raises(TenfoldError, match="keeps 'seen' of the type dict"):
        state.tensors()


# -- history -------------------------------------------------------------------------------------


def test_a_history_survives_json_exactly():
    history = History(
        epoch=3,
        step=7,
        sums=Sums(0.1 + 0.2, 12.0, 13),
        sums_by_process=[Sums(0.1, 1.0, 2), Sums(1 / 3, 2.0, 3)],
        training_seconds=1e-9,
        wall_seconds=1e9 + 0.1,
        process_seconds=2 / 3,
        metrics=[{"epoch": 1, "train_loss": 1 / 3, "validation_loss": None}],
        timings=[{"epoch": 1, "images_per_second": 123.456}],
        plateau=Plateau(0.01, 1 / 7, 4),
        best_accuracy=0.7000000000000001,
        best_epoch=2,
        ended="time limit",
    )
    for value in (history, History()):
        assert History.from_dict(json.loads(json.dumps(value.to_dict()))) == value
    again = History.from_dict(json.loads(json.dumps(History().to_dict())))
    assert again.plateau.best_loss == math.inf


def test_histories_share_nothing():
    first, second = History(), History()
    first.metrics.append({})
    first.sums.loss = 1.0
    first.plateau.factor = 0.1
    assert second == History()
    values = first.to_dict()
    values["sums"]["loss"] = 5.0
    assert first.sums.loss == 1.0


def test_a_history_comes_through_a_checkpoint(tmp_path):
    state = make_state(make_recipe())
    state.history = History(epoch=2, sums=Sums(0.1 + 0.2, 3.0, 4), plateau=Plateau(best_loss=1 / 3))
    checkpoint = through_the_disk(state, tmp_path)
    assert History.from_dict(checkpoint.state["history"]) == state.history
