"""`fit`: what its options do to the weights, checked against references and hand-made cases."""

import functools
import inspect
import itertools
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn.functional import cross_entropy

from tenfold.data.images import Images
from tenfold.data.splits import TrainingData, training_data
from tenfold.errors import DivergedError, TenfoldError
from tenfold.evaluation.evaluate import splitting
from tenfold.evaluation.loading import load_data
from tenfold.evaluation.trained import load_model, save_model
from tenfold.models import Speedrun, count_parameters
from tenfold.recipe import load_recipe, recipe_from_dict, shipped_recipes
from tenfold.training import batches, trainer
from tenfold.training.batches import epoch_batches
from tenfold.training.flop import IMAGES
from tenfold.training.reporters import Reporters
from tenfold.training.state import History, Sums
from tenfold.training.trainer import fit
from tiny_training import data, pictures, same, tiny, weights


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The same bits whatever else runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_fit_can_not_see_a_test_set():
    assert "test" not in inspect.signature(fit).parameters
    assert "test" not in TrainingData.__dataclass_fields__


def test_it_learns():
    fitted = fit(tiny("training.epochs=6", "optimizer.lr=0.05"), data())
    assert fitted.history.metrics[-1]["validation_accuracy"] > 0.9
    assert fitted.history.ended == "finished"
    assert len(fitted.history.metrics) == 6


def test_same_seed_same_bits_other_seed_other_bits():
    first, second = fit(tiny(), data()), fit(tiny(), data())
    assert same(weights(first), weights(second))
    assert first.history.metrics == second.history.metrics
    assert not same(weights(first), weights(fit(tiny("seed=1"), data())))


def test_one_step_of_plain_sgd_is_what_the_formula_says():
    recipe = tiny(
        "model.norm=none",
        "model.dropout=0.0",
        "training.epochs=1",
        "training.batch_size=192",
        "optimizer.momentum=0.0",
        "optimizer.nesterov=false",
        "optimizer.lr=0.1",
        "optimizer.weight_decay=0.01",
        "schedule.name=constant",
    )
    start = {}

    def restore(state):
        start.update({n: p.detach().clone() for n, p in state.model.named_parameters()})

    fitted = fit(recipe, data(), restore=restore)
    model = fitted.model.module
    after = {name: p.detach().clone() for name, p in model.named_parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(start[name])
    images = pictures(192)
    mean, std = (torch.tensor(values) for values in fitted.model.normalisation)
    inputs = ((torch.from_numpy(images.pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    model.train()
    model.zero_grad()
    cross_entropy(model(inputs), torch.from_numpy(images.labels)).backward()
    for name, parameter in model.named_parameters():
        decay = 0.01 if parameter.ndim >= 2 else 0.0
        expected = start[name] - 0.1 * (parameter.grad + decay * start[name])
        torch.testing.assert_close(after[name], expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("parts", [2, 3])
def test_accumulated_parts_are_the_whole_batch(parts):
    plain = ["model.norm=none", "model.dropout=0.0", "data.train_size=0"]
    whole = fit(tiny(*plain), data(190))
    in_parts = fit(tiny(*plain, f"training.accumulate={parts}"), data(190))
    for name, tensor in weights(whole).items():
        torch.testing.assert_close(weights(in_parts)[name], tensor, atol=1e-5, rtol=1e-3)


def test_few_pictures_get_more_epochs():
    class Plans(Reporters):
        def started(self, plan):
            plans.append(plan)

    plans = []
    fitted = fit(tiny("training.epochs=2", "training.min_steps=20"), data(), reporter=Plans([]))
    assert [plan.min_steps for plan in plans] == [20]
    assert [line["step"] for line in fitted.history.metrics] == [6, 12, 18, 24]
    assert fitted.history.metrics[-1]["learning_rate"] < 0.02


FAST = [
    "model.name=speedrun",
    "model.widths=[8,16]",
    "optimizer.name=muon",
    "optimizer.lr=0.1",
    "augmentation.flip=true",
    "augmentation.alternate=true",
    "training.batch_size=48",
    "training.epochs=4",
    "training.min_steps=0",
    "schedule.name=linear",
    "schedule.warmup_epochs=0",
]


def fast(*overrides: str):
    return load_recipe("cnn", [*FAST, *overrides])


@pytest.mark.parametrize(
    "option", ["model.pool_first=true", "model.whitening_size=3", "model.depth=3"]
)
def test_options_of_the_fast_network_change_the_weights_and_still_train(option):
    plain, changed = (weights(fit(fast(*more), data())) for more in ([], [option]))
    assert all(torch.isfinite(t).all() for t in changed.values())
    assert {n: t.shape for n, t in plain.items()} != {n: t.shape for n, t in changed.items()} or (
        any(not torch.equal(plain[name], changed[name]) for name in plain)
    )


def test_pictures_grow_as_the_recipe_says(monkeypatch):
    sides = []
    real = Speedrun.forward

    def forward(self, inputs):
        if self.training and len(inputs) > IMAGES:  # So few are for the counting of FLOP.
            sides.append(inputs.shape[2])
        return real(self, inputs)

    monkeypatch.setattr(Speedrun, "forward", forward)
    fit(fast("training.sizes=[9,12]", "training.sizes_until=[0.25,0.6]"), data())
    assert sides == [9] * 4 + [12] * 6 + [16] * 6


def test_the_rate_falls_for_every_group_of_muon():
    rates = []

    def save(state):
        rates.append([group["lr"] for group in state.optimizer.param_groups])

    fit(fast("optimizer.head_lr=7.0", "optimizer.bias_lr=3.0"), data(), save=save)
    last_of_epochs = [(16 - step) / 16 for step in (3, 7, 11, 15)]
    for found, share in zip(rates, last_of_epochs, strict=True):
        assert found == pytest.approx([0.1 * share, 7 * share, 3 * share])


def test_blocks_stay_as_they_are_from_their_share_of_the_steps_on():
    seen = []

    def save(state):
        seen.append({n: p.detach().clone() for n, p in state.model.named_parameters()})

    fit(fast("training.freeze_from=[0.0,0.5]"), data(), save=save)
    names = ["whitening.bias", "groups.0.first.0.weight", "groups.0.first.2.bias"]
    after = [
        [name for name in earlier if torch.equal(earlier[name], later[name])]
        for earlier, later in itertools.pairwise(seen)
    ]
    assert names[0] in after[0]
    assert not {*names[1:]} & {*after[0]}
    assert {*names} <= {*after[1]}
    assert {*names} <= {*after[2]}
    assert "groups.1.first.0.weight" not in after[2]


def test_what_was_frozen_on_the_way_counts_among_what_was_learned():
    learned = []
    for freeze_from in ("[]", "[0.0,0.5]"):
        fitted = fit(fast(f"training.freeze_from={freeze_from}"), data())
        learned.append(fitted.history.stages[0]["num_trained"])
        assert count_parameters(fitted.model.module) == learned[0]
    assert learned[0] == learned[1]


@pytest.mark.parametrize("select", [1.0, 0.5])
@pytest.mark.parametrize(
    "step", [5, *(pytest.param(n, marks=pytest.mark.long) for n in (3, 9, 13))]
)
def test_row_14_a_fast_run_ends_with_the_same_bits_after_an_interruption(step, select):
    recipe = fast(
        "training.sizes=[9,12]",
        "training.sizes_until=[0.25,0.6]",
        "training.freeze_from=[0.3,0.7]",
        "training.ema_decay=0.8",
        "training.precision=bf16",
        f"training.select={select}",
        f"training.batch_size={round(48 * select)}",
    )
    whole = weights(fit(recipe, data()))
    kept = {}

    class Stop(Exception):
        pass

    class Stopping(Reporters):
        def stepped(self, **values):
            if (values["epoch"] - 1) * 4 + values["step"] == step:
                raise Stop

    def restore_nothing(state):
        kept["state"] = state

    with pytest.raises(Stop):
        fit(recipe, data(), restore=restore_nothing, reporter=Stopping([]))
    state = kept["state"]
    state.history.sums_by_process = [state.history.sums]
    tensors = {name: t.detach().clone() for name, t in state.tensors().items()}
    history = state.history.to_dict()

    def restore(state):
        state.load_tensors(tensors, source="a test")
        state.history = History.from_dict(history)

    resumed = weights(fit(recipe, data(), restore=restore))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_sums_of_more_processes_than_now_are_added_up(monkeypatch):
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1.0)
    kept = {}

    def save(state):
        tensors = {name: t.detach().clone() for name, t in state.tensors().items()}
        kept.setdefault(state.history.step, (tensors, state.history.to_dict()))

    whole = fit(tiny(), data(), save=save).history.metrics
    tensors, history = kept[3][0], History.from_dict(kept[3][1])
    history.sums_by_process, history.sums = [Sums(), history.sums], Sums()

    def restore(state):
        state.load_tensors(tensors, source="a test")
        state.history = History.from_dict(history.to_dict())

    assert fit(tiny(), data(), restore=restore).history.metrics == whole


def test_an_epoch_sees_the_pictures_that_were_hardest(monkeypatch):
    seen, losses = [], []
    real = batches.TrainingImages.part

    def part(self, indices, **options):
        seen.append(indices)
        return real(self, indices, **options)

    def save(state):
        losses.append(state.losses[0].clone())

    monkeypatch.setattr(batches.TrainingImages, "part", part)
    fitted = fit(
        tiny("training.select=0.5", "training.epochs=6", "training.batch_size=48"),
        data(),
        save=save,
    )
    epochs = [torch.cat(seen[start : start + 2]) for start in range(0, 12, 2)]
    assert all(len(set(epoch.tolist())) == 96 for epoch in epochs)
    # All of them in the first two, and then those of the highest losses.
    assert set(torch.cat(epochs[:2]).tolist()) == set(range(192))
    for known, epoch in zip(losses[1:], epochs[2:], strict=False):
        assert set(epoch.tolist()) == set(known.topk(96).indices.tolist())
    assert fitted.history.metrics[-1]["validation_accuracy"] > 0.8


def test_clipping_bounds_the_step():
    options = [
        "optimizer.momentum=0.0",
        "optimizer.nesterov=false",
        "optimizer.lr=1.0",
        "schedule.name=constant",
        "training.epochs=1",
        "training.batch_size=192",
        "training.clip_norm=0.001",
    ]
    start = {}

    def restore(state):
        start.update({n: p.detach().clone() for n, p in state.model.named_parameters()})

    fitted = fit(tiny(*options), data(), restore=restore)
    parameters = fitted.model.module.named_parameters()
    moved = [(p.detach() - start[name]).pow(2).sum() for name, p in parameters]
    assert float(torch.stack(moved).sum().sqrt()) == pytest.approx(0.001, rel=0.01)


def test_moving_average_is_the_recursion():
    decay = 0.3  # More than it may be for the first three steps.
    seen = []

    def save(state):
        seen.append({n: p.detach().clone() for n, p in state.model.named_parameters()})

    options = ["training.batch_size=192", "training.epochs=5", f"training.ema_decay={decay}"]
    fitted = fit(tiny(*options), data(), save=save)
    expected = seen[0]
    for number, step in enumerate(seen[1:], start=1):
        kept = min(decay, (1 + number) / (10 + number))
        expected = {n: kept * expected[n] + (1 - kept) * step[n] for n in expected}
    for name, parameter in fitted.model.module.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        ["training.ema_decay=0.999"],
        ["training.ema_decay=0.9999", "schedule.name=plateau", "schedule.patience=0"],
        ["training.ema_decay=0.99", "schedule.name=one_cycle"],
        ["schedule.name=plateau", "schedule.patience=0"],
        ["schedule.name=one_cycle"],
    ],
    ids=lambda changes: " ".join(change.split(".")[-1] for change in changes),
)
def test_row_57_few_steps_are_enough_for_averages_and_schedules(few_steps, changes):
    assert few_steps(*changes) > few_steps() - 0.02


@pytest.fixture(scope="module")
def few_steps():
    """A function that says how many of 300 new pictures are told right after twelve steps."""
    some = TrainingData(pictures(192), pictures(300, seed=1), "tinted noise", "made for a test")

    @functools.cache
    def reached(*changes):
        fitted = fit(tiny("optimizer.lr=0.1", "training.epochs=2", *changes), some)
        return fitted.history.metrics[-1]["validation_accuracy"]

    return reached


def test_the_documented_average_learns_in_few_steps():
    """Without its warm-up it keeps 96 % of the weights that were drawn at first: 21 % are right."""
    page = (Path(__file__).parent.parent / "docs/recipes.md").read_text()
    blocks = re.findall("```toml\n(.*?)```", page, re.DOTALL)
    (values,) = [tomllib.loads(block) for block in blocks if "ema_decay" in block]
    assert values["training"]["ema_decay"] == 0.999
    values["data"] = {"name": "digits", "image_size": 16, "train_size": 400}
    values["training"] |= {"epochs": 6, "batch_size": 64}
    recipe = recipe_from_dict(values)
    found = fit(recipe, training_data(load_data(recipe), **splitting(recipe.data)))
    assert found.history.metrics[-1]["step"] < 60
    assert found.history.metrics[-1]["validation_accuracy"] > 0.6


def test_a_step_that_the_scaler_leaves_out_is_not_averaged(monkeypatch):
    skipped = iter([False, True, True, False, True] + 100 * [True])
    monkeypatch.setattr(
        Accelerator, "optimizer_step_was_skipped", property(lambda self: next(skipped))
    )
    kept = []
    fit(
        tiny("training.batch_size=192", "training.epochs=5", "training.ema_decay=0.5"),
        data(),
        save=lambda state: kept.append(int(state.average.n_averaged)),
    )
    assert kept == [1, 1, 1, 2, 2]


def test_early_stopping_returns_to_the_best_weights():
    kept = {}

    def save(state):
        kept[state.history.epoch] = {
            n: t.detach().clone() for n, t in state.model.state_dict().items()
        }

    options = ["training.epochs=60", "training.early_stopping=3", "optimizer.lr=0.2"]
    fitted = fit(tiny(*options), data(), save=save)
    history = fitted.history
    accuracies = [line["validation_accuracy"] for line in history.metrics]
    assert history.ended == "early stopping"
    assert history.best_epoch == accuracies.index(max(accuracies)) + 1
    assert len(accuracies) == history.best_epoch + 3
    assert same(weights(fitted), kept[history.best_epoch])


def test_without_early_stopping_a_resumed_run_ends_with_its_last_weights():
    kept = {}

    def save(state):
        tensors = {name: t.detach().clone() for name, t in state.tensors().items()}
        kept[state.history.epoch] = tensors, state.history.to_dict()

    def restore(state):
        tensors, history = kept[2]
        state.load_tensors(tensors, source="a test")
        state.history = History.from_dict(history)

    options = ["training.epochs=4", "optimizer.lr=1e-30"]  # No epoch is better than the first.
    fit(tiny(*options, "training.early_stopping=3"), data(), save=save)
    assert kept[2][1]["best_epoch"] == 1
    fitted = fit(tiny(*options[:1], "optimizer.lr=0.1"), data(), restore=restore, save=save)
    assert fitted.history.best_epoch is None
    last = {name.removeprefix("model."): t for name, t in kept[4][0].items()}
    assert same(weights(fitted), last)


def test_plateau_cuts_the_rate_when_the_validation_loss_stalls():
    options = ["schedule.name=plateau", "schedule.patience=1", "schedule.factor=0.5"]
    fitted = fit(tiny(*options, "training.epochs=20", "optimizer.lr=0.2"), data())
    rates = [line["learning_rate"] for line in fitted.history.metrics]
    losses = [line["validation_loss"] for line in fitted.history.metrics]
    expected, factor, best, since = [], 1.0, float("inf"), 0
    for loss in losses:
        expected.append(0.2 * factor)
        since = 0 if loss < best else since + 1
        best = min(best, loss)
        if since > 1:
            factor, since = factor * 0.5, 0
    assert rates == pytest.approx(expected)
    assert min(rates) < 0.2


@pytest.mark.parametrize(
    "options",
    [
        ["training.precision=bf16"],
        ["augmentation.mixup=0.4"],
        ["augmentation.cutmix=1.0"],
        ["augmentation.mixup=0.4", "augmentation.cutmix=1.0", "training.label_smoothing=0.1"],
        ["augmentation.cutout=4", "augmentation.flip=true", "augmentation.translate=2"],
        [
            "augmentation.brightness=0.2",
            "augmentation.contrast=0.2",
            "augmentation.saturation=0.2",
            "augmentation.hue=0.1",
        ],
        ["augmentation.trivialaugment=true"],
        ["augmentation.randaugment_ops=2", "augmentation.randaugment_magnitude=5"],
        ["augmentation.random_erasing=0.5"],
        ["optimizer.name=adam"],
        ["optimizer.name=adamw", "optimizer.betas=[0.8,0.99]"],
        ["schedule.name=step", "schedule.every_epochs=1", "schedule.factor=0.5"],
        ["schedule.name=linear", "schedule.warmup_epochs=1", "schedule.final=0.1"],
        ["schedule.peak=0.5", "schedule.initial=0.2", "schedule.final=0.01"],
        ["data.normalisation=unit"],
        ["data.normalisation=symmetric"],
        ["data.normalisation=given", "data.mean=[0.4, 0.5, 0.6]", "data.std=[0.1, 0.2, 0.3]"],
        ["model.dropout=0.5", "model.dropout_layers=1"],
        ["model.kernel_size=5"],
    ],
)
def test_every_option_changes_the_weights_and_still_trains(options):
    plain = weights(fit(tiny("training.epochs=1"), data()))
    fitted = fit(tiny("training.epochs=1", *options), data())
    assert all(torch.isfinite(t).all() for t in weights(fitted).values())
    changed = weights(fitted)
    assert plain.keys() == changed.keys()
    assert any(
        plain[n].shape != changed[n].shape or not torch.equal(plain[n], changed[n]) for n in plain
    )


def test_a_given_normalisation_is_kept_with_the_model(tmp_path):
    given = ["data.normalisation=given", "data.mean=[0.4, 0.5, 0.6]", "data.std=[0.1, 0.2, 0.3]"]
    fitted = fit(tiny("training.epochs=1", *given), data())
    save_model(tmp_path / "model.safetensors", fitted.model)
    loaded = load_model(tmp_path / "model.safetensors")
    assert loaded.normalisation == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert loaded.recipe == fitted.model.recipe


def test_mixing_compares_with_both_labels():
    # With one class only, mixing must not change what is learnt about it.
    images = pictures(64)
    labels = np.zeros(64, dtype=np.int64)
    one_class = Images(images.pixels, labels, images.class_names, images.ids)
    only = TrainingData(train=one_class, validation=None, dataset_name="one", source="a test")
    fitted = fit(tiny("augmentation.mixup=1.0", "optimizer.lr=0.05"), only)
    assert fitted.history.metrics[-1]["train_accuracy"] > 0.9


def test_batches_cover_an_epoch_and_leave_no_lonely_picture():
    batches = epoch_batches(65, 32, seed=0, epoch=0)
    assert [len(batch) for batch in batches] == [32, 33]
    assert sorted(torch.cat(batches).tolist()) == list(range(65))
    again = epoch_batches(65, 32, seed=0, epoch=0)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    assert not torch.equal(batches[0], epoch_batches(65, 32, seed=0, epoch=1)[0])


def test_what_a_recipe_needs_of_the_data_is_said():
    with pytest.raises(TenfoldError, match=r"data\.validation_size"):
        fit(tiny("training.early_stopping=2"), data(validation=0))
    with pytest.raises(TenfoldError, match=r"training\.batch_size"):
        fit(tiny("training.accumulate=16"), data(20))
    with pytest.raises(TenfoldError, match="at least 2 images"):
        fit(tiny(), data(1))


ONE_OF_EACH = {
    *("ann", "cnn", "cnn-quick", "densenet", "fast-75", "gpu-95", "lenet", "mobilenet"),
    *("pyramid", "resnet20", "transfer-lite0", "transfer-vit", "tutorial-cnn", "vgg", "vit"),
}
"""Kinds of recipes; the others have the same networks, larger or otherwise trained."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ONE_OF_EACH else [pytest.mark.long])
        for name in sorted(shipped_recipes())
    ],
)
def test_every_shipped_recipe_trains_for_two_steps(name, monkeypatch, tmp_path):
    changes = ["training.epochs=1", "training.min_steps=0", "training.milestones=[]"]
    changes.append("training.compile=false")  # Half a minute each, and tested elsewhere.
    changes.append("training.batch_size=10")
    if load_recipe(name).stages:
        changes += ["model.weights=none", "model.input_size=28", "data.train_size=0"]
    recipe = load_recipe(name, changes)
    stages = tuple(stage.but(epochs=1) for stage in recipe.stages)
    recipe = recipe.but(stages=stages)
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path))
    generator = np.random.default_rng(0)
    number = recipe.training.batch_size * 2
    labels = np.arange(number, dtype=np.int64) % 10
    images = Images(
        generator.integers(0, 256, (number, 32, 32, 3), dtype=np.uint8),
        labels,
        tuple("abcdefghij"),
        np.array([str(i) for i in range(number)]),
    )
    small = images.take(np.arange(20))
    fitted = fit(recipe, TrainingData(images, small, dataset_name="noise", source="a test"))
    assert fitted.history.metrics[0]["step"] == 2
    assert len(fitted.history.metrics) == max(len(stages), 1)
    assert np.isfinite(fitted.history.metrics[0]["train_loss"])
    assert recipe_from_dict(recipe.to_dict()) == recipe


@pytest.mark.parametrize(
    ("values", "layer", "number"),
    [
        (
            {"model": {"name": "pyramid", "depth": 3, "last_width": 16, "activation": "elu"}},
            nn.ELU,
            3,
        ),
        ({"model": {"name": "tutorial_cnn", "activation": "tanh"}}, nn.Tanh, 4),
        ({"model": {"name": "resnet", "stem": "imagenet", "activation": "gelu"}}, nn.GELU, 17),
        ({"model": {"name": "cifar_resnet", "depth": 8, "activation": "prelu"}}, nn.PReLU, 7),
    ],
)
def test_the_options_of_a_model_reach_it(values, layer, number):
    values = {**values, "training": {"epochs": 1, "batch_size": 16}}
    images = Images(
        np.random.default_rng(0).integers(0, 255, (32, 20, 20, 3), dtype=np.uint8),
        np.arange(32, dtype=np.int64) % 2,
        ("a", "b"),
        np.array([str(i) for i in range(32)]),
    )
    training = TrainingData(images, images, dataset_name="noise", source="a test")
    module = fit(recipe_from_dict(values), training).model.module
    assert sum(isinstance(m, layer) for m in module.modules()) == number


@pytest.mark.parametrize("scale", [1e25, 1.0])
def test_averages_of_the_optimiser_that_overflow_end_the_run(monkeypatch, scale):
    # Finite gradients of 1e24 and more, whose squares are not: Adam would stand still for good.
    real = trainer.loss_of
    monkeypatch.setattr(trainer, "loss_of", lambda *a, **k: real(*a, **k) * scale)
    recipe = tiny("optimizer.name=adam", "training.epochs=1")
    if scale == 1.0:
        assert fit(recipe, data()).history.ended == "finished"
        return
    saved = []
    with pytest.raises(DivergedError, match="no longer finite"):
        fit(recipe, data(), save=saved.append)
    assert not saved


def test_a_model_says_the_same_from_memory_and_from_its_file(tmp_path):
    # Whatever precision it was trained in, it is evaluated in float32.
    fitted = fit(tiny("training.precision=bf16", "training.epochs=1"), data())
    pixels = pictures(40, seed=3).pixels
    save_model(tmp_path / "model.safetensors", fitted.model)
    again = load_model(tmp_path / "model.safetensors")
    assert np.array_equal(fitted.model.logits(pixels), again.logits(pixels))
    plain = fit(tiny("training.epochs=1"), data())
    assert not np.array_equal(plain.model.logits(pixels), again.logits(pixels))
