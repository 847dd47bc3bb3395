"""Training in stages: the head on features, then more of the network, as one run."""

import copy
import itertools
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from tenfold.data import Images
from tenfold.errors import InterruptedRunError, TenfoldError
from tenfold.evaluation.predictions import predict_images
from tenfold.evaluation.trained import load_model, save_model
from tenfold.recipe import recipe_from_dict
from tenfold.training.reporters import Reporters
from tenfold.training.stages import why_stop
from tenfold.training.state import History
from tenfold.training.trainer import fit
from tiny_training import data, same, tiny

pytest.importorskip("timm")

STEPS = 6  # 192 pictures in batches of 32


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TENFOLD_CACHE", str(tmp_path / "cache"))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(*stages, **tables):
    values = {
        "data": {"normalisation": "pretrained"},
        "model": {
            "name": "pretrained",
            "backbone": "test_efficientnet",
            "weights": "none",
            "input_size": 32,
            "dropout": 0.2,
        },
        "augmentation": {"flip": True, "translate": 2, "zoom": 0.2},
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.01},
        "schedule": {"name": "linear"},
        "training": {"epochs": 2, "batch_size": 32},
        "stages": list(stages),
    }
    for name, table in tables.items():
        values[name] = {**values[name], **table}
    return recipe_from_dict(values)


HEAD = {"trains": "head", "lr": 0.02}
LAST = {"trains": "last 2 blocks", "epochs": 3, "layer_decay": 0.5}
ALL = {"trains": "all", "epochs": 1, "lr": 0.001}
ALL_AND_STATISTICS = {"trains": "all", "epochs": 1, "lr": 0.001, "norms": "learnt"}


def snapshots(*stages, **tables):
    """The weights at each checkpoint, and the learning rates."""
    seen, rates = [], []

    def save(state):
        seen.append({name: t.detach().clone() for name, t in state.model.state_dict().items()})
        rates.append([group["full_lr"] for group in state.optimizer.param_groups])

    fitted = fit(recipe(*stages, **tables), data(), save=save)
    return fitted, seen, rates


def changed(before, after) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_stage_changes_its_part_and_nothing_else():
    fitted, seen, _ = snapshots(HEAD, LAST, ALL)
    assert len(seen) == 2 + 3 + 1
    names = set(seen[0])
    head = {name for name in names if name.startswith("head.")}
    assert changed(seen[0], seen[1]) == head
    second = changed(seen[1], seen[4])
    assert head < second
    assert "backbone.conv_stem.weight" not in second
    assert "backbone.bn1.running_mean" not in second  # Norms of what is frozen are frozen too.
    assert "backbone.conv_head.weight" in second
    assert "backbone.conv_stem.weight" in changed(seen[4], seen[5])
    assert [m["epoch"] for m in fitted.history.metrics] == [1, 2, 3, 4, 5, 6]
    assert [m["step"] for m in fitted.history.metrics] == [STEPS * n for n in range(1, 7)]
    assert fitted.history.ended == "finished"
    assert fitted.history.weights == "random weights"


@pytest.mark.parametrize("stage", [ALL, ALL_AND_STATISTICS])
def test_statistics_of_norms_are_learnt_if_they_are_to_be(stage):
    _, seen, _ = snapshots(HEAD, stage)
    statistics = {name for name in changed(seen[1], seen[2]) if "running" in name}
    assert bool(statistics) == (stage is ALL_AND_STATISTICS)


def test_rates_are_those_of_the_stage_and_fall_with_depth():
    _, _, rates = snapshots(HEAD, LAST, ALL)
    assert set(rates[0]) == {0.02}
    assert set(rates[2]) == {0.01, 0.005, 0.0025}
    assert set(rates[5]) == {0.001}


def test_the_schedule_begins_anew_in_each_stage():
    fitted, _, _ = snapshots(HEAD, LAST)
    found = [m["learning_rate"] for m in fitted.history.metrics]
    # At the last step of each epoch, of 12 and of 18 steps.
    assert found == pytest.approx(
        [0.02 * 7 / 12, 0.02 * 1 / 12, 0.01 * 13 / 18, 0.01 * 7 / 18, 0.01 * 1 / 18]
    )


def test_the_head_learns_from_features_alone(monkeypatch):
    from tenfold.models import Pretrained

    calls = []
    real = Pretrained.features

    def counting(self, inputs, **options):
        calls.append((len(inputs), torch.is_grad_enabled()))
        return real(self, inputs, **options)

    monkeypatch.setattr(Pretrained, "features", counting)
    fitted = fit(recipe({**HEAD, "epochs": 25}), data())
    # 192 training and 60 validation pictures, each once.
    assert sum(number for number, _ in calls) == 252
    assert not any(grad for _, grad in calls)
    assert fitted.history.metrics[-1]["train_accuracy"] > 0.75
    # The second time, none.
    calls.clear()
    again = fit(recipe({**HEAD, "epochs": 25}), data())
    assert not calls
    assert same(fitted.model.module.state_dict(), again.model.module.state_dict())


def test_versions_of_a_picture_are_drawn_from():
    one, _, _ = snapshots(HEAD)
    three, _, _ = snapshots({**HEAD, "views": 3})
    assert not same(one.model.module.head.state_dict(), three.model.module.head.state_dict())


def test_a_model_of_stages_says_the_same_from_its_file(tmp_path):
    for stages in ([HEAD], [HEAD, LAST]):
        fitted = fit(recipe(*stages), data())
        save_model(tmp_path / "model.safetensors", fitted.model)
        images = data().validation
        found = predict_images(fitted.model, images)
        again = predict_images(load_model(tmp_path / "model.safetensors"), images)
        assert np.array_equal(found.logits, again.logits)
        right = (found.logits.argmax(1) == found.labels).mean()
        assert right == pytest.approx(fitted.history.metrics[-1]["validation_accuracy"])
        # Picture by picture, as `predict` has it, up to the rounding of batches of another size.
        assert np.allclose(fitted.model.logits(images.pixels), found.logits, atol=1e-3)


def test_early_stopping_ends_a_stage_with_its_best_weights():
    # The second stage hardly learns, so it ends with what it began with.
    still = {**ALL, "lr": 1e-30}
    training = {"early_stopping": 1, "epochs": 30}
    fitted, seen, _ = snapshots({**HEAD, "lr": 0.1}, still, training=training)
    number = fitted.history.stages[0]["epochs"]
    assert number < 30  # One epoch after the best.
    best, last = seen[number - 2], seen[number - 1]
    assert changed(best, last)
    assert all(torch.allclose(best[n], seen[-1][n], rtol=0, atol=1e-12) for n in best)
    reached = [m["validation_accuracy"] for m in fitted.history.metrics]
    assert max(reached[:number]) == reached[number - 2] == reached[-1]


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "step", [12, *(pytest.param(step, marks=pytest.mark.long) for step in (3, 14, 29, 31))]
)
def test_row_14_a_run_of_stages_ends_with_the_same_bits_after_an_interruption(step):
    wanted = recipe(HEAD, LAST, ALL, training={"ema_decay": 0.9})
    whole = fit(wanted, data())
    kept = {}

    class Stopping(Reporters):
        def stepped(self, **values):
            if (values["epoch"] - 1) * STEPS + values["step"] == step:
                raise Stop

    def keep(state):
        kept["tensors"] = {name: t.detach().clone() for name, t in state.tensors().items()}
        kept["history"] = state.history.to_dict()

    with pytest.raises(Stop):
        fit(wanted, data(), save=keep, reporter=Stopping([]))
    if not kept:  # Stopped in the first epoch, before any checkpoint.
        assert step < STEPS
        return

    def restore(state):
        state.load_tensors(kept["tensors"], source="a test")
        state.history = History.from_dict(kept["history"])

    first_stage = kept["history"]["stage"]
    resumed = fit(wanted, data(), restore=restore, first_stage=first_stage)
    assert same(whole.model.module.state_dict(), resumed.model.module.state_dict())
    assert whole.history.metrics == resumed.history.metrics


def test_a_head_that_follows_learns_from_the_network_as_it_is_then():
    wanted = recipe(ALL, HEAD)
    whole = fit(wanted, data())
    kept = []

    def keep(state):
        kept.append(
            (
                {name: t.detach().clone() for name, t in state.tensors().items()},
                state.history.to_dict(),
            )
        )

    fit(wanted, data(), save=keep)
    tensors, history = kept[1]  # After the first epoch of the head.
    assert history["stage"] == 1

    def restore(state):
        state.load_tensors(tensors, source="a test")
        state.history = History.from_dict(history)

    resumed = fit(wanted, data(), restore=restore, first_stage=1)
    assert same(whole.model.module.state_dict(), resumed.model.module.state_dict())


def test_a_signal_ends_the_computing_of_features(monkeypatch):
    from tenfold.evaluation import features
    from tenfold.models import Pretrained

    monkeypatch.setattr(features, "KEPT_TOGETHER", 50)
    real, calls, saved = Pretrained.features, [], []

    def signalled(self, inputs, **options):
        calls.append(len(inputs))
        if len(calls) == 2 and not saved:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, inputs, **options)

    monkeypatch.setattr(Pretrained, "features", signalled)
    with pytest.raises(InterruptedRunError, match="everything is saved"):
        fit(recipe(HEAD), data(), save=saved.append)
    assert calls == [50, 50]
    assert len(saved) == 1
    calls.clear()
    fit(recipe(HEAD), data())
    assert calls[:3] == [50, 50, 42]  # What was not yet kept, and then validation.


def test_frozen_blocks_keep_their_norms_after_an_interruption_too():
    wanted = recipe(ALL, training={"freeze_from": [0.3], "epochs": 3})
    wanted = recipe_from_dict({**wanted.to_dict(), "stages": []})
    whole = fit(wanted, data())
    kept = []

    def keep(state):
        kept.append(
            (
                {name: t.detach().clone() for name, t in state.tensors().items()},
                state.history.to_dict(),
            )
        )

    fit(wanted, data(), save=keep)
    tensors, history = kept[0]

    def restore(state):
        state.load_tensors(tensors, source="a test")
        state.history = History.from_dict(history)

    resumed = fit(wanted, data(), restore=restore)
    assert same(whole.model.module.state_dict(), resumed.model.module.state_dict())


def test_rare_classes_count_as_much_when_balanced():
    from tenfold.training.set_up import weights_of_classes

    some = data()
    keep = np.flatnonzero((some.train.labels != 0) | (np.arange(192) < 24))
    rare = type(some)(
        train=some.train.take(keep), validation=None, dataset_name="rare", source="a test"
    )
    weights = weights_of_classes(rare, torch.device("cpu"))
    counts = np.bincount(rare.train.labels)
    assert counts[0] < counts[1] / 5
    assert torch.allclose(weights * torch.from_numpy(counts), torch.tensor(len(keep) / 3.0))
    plain = fit(tiny(), rare).model.module.state_dict()
    balanced = fit(tiny("training.balance=true"), rare).model.module.state_dict()
    assert not same(plain, balanced)


@pytest.mark.parametrize(
    ("stages", "tables", "said"),
    [
        ([{"trains": "feet"}], {}, r"stages\[0\]\.trains must be 'head', 'all'"),
        ([HEAD, {**LAST, "layer_decay": 0.0}], {}, r"stages\[1\]\.layer_decay must be above 0"),
        ([{**HEAD, "layer_decay": 0.5}], {}, r"layer_decay must be .* 1 where the head"),
        ([{**LAST, "views": 2}], {}, r"stages\[0\]\.views must be 1, or more where"),
        ([{**HEAD, "epochs": -1}], {}, r"stages\[0\]\.epochs must be 0 or more, not -1"),
        ([HEAD], {"training": {"milestones": [1]}}, r"training\.milestones must be empty where"),
        ([HEAD], {"model": {"input_size": 3}}, "model.input_size must be 0 or 16 to 1024"),
    ],
)
def test_what_can_not_be_is_said(stages, tables, said):
    with pytest.raises(TenfoldError, match=said):
        recipe(*stages, **tables)


def test_muon_is_not_for_networks_whose_norms_are_their_own():
    values = {**recipe(HEAD).to_dict(), "optimizer": {"name": "muon"}}
    with pytest.raises(TenfoldError, match=r"optimizer\.name must be another than muon"):
        recipe_from_dict(values)


def test_stages_are_for_pretrained_networks():
    with pytest.raises(TenfoldError, match=r"stages must be \[\] .*unless model.name"):
        recipe_from_dict({"model": {"name": "cnn"}, "stages": [HEAD]})
    with pytest.raises(TenfoldError, match=r"data\.normalisation must be another"):
        recipe_from_dict({"data": {"normalisation": "pretrained"}})


def test_every_pair_of_stages_can_follow():
    for first, second in itertools.permutations([HEAD, LAST, ALL], 2):
        fitted = fit(recipe({**first, "epochs": 1}, {**second, "epochs": 1}), data())
        assert len(fitted.history.metrics) == 2


def separable(number, *, seed):
    """Images of one colour a class: a head on any features has them all right."""
    labels = np.arange(number, dtype=np.int64) % 3
    pixels = np.zeros((number, 16, 16, 3), dtype=np.uint8)
    pixels[np.arange(number), ..., labels] = 255
    ids = np.array([f"{seed}/{index}" for index in range(number)])
    return Images(pixels, labels, ("red", "green", "blue"), ids)


def trivial(validation=120):
    return replace(data(), train=separable(90, seed=0), validation=separable(validation, seed=1))


@pytest.mark.parametrize("killed", [False, True])
def test_training_stops_where_the_head_alone_is_as_good(killed, caplog):
    wanted = recipe({**HEAD, "epochs": 25}, LAST, ALL)
    saved = []
    if killed:  # Before it was decided, and so it is decided again.
        fit(wanted, trivial(), save=lambda state: saved.append(copy.deepcopy(state)))
    with caplog.at_level("INFO"):
        fitted = fit(wanted, trivial(), restore=lambda state: taken(state, saved))
    assert "120 validation images, too many to show that more training helps" in caplog.text
    head, *others = fitted.history.stages
    assert (head["trains"], head["epochs"], head["validation_accuracy"]) == ("head", 25, 1.0)
    assert [stage["trains"] for stage in others] == ["last 2 blocks", "all"]
    assert all(stage["epochs"] == 0 and stage["skipped"] for stage in others)
    alone = fit(recipe({**HEAD, "epochs": 25}), trivial())
    assert same(fitted.model.module.state_dict(), alone.model.module.state_dict())


def taken(state, saved):
    if saved:
        state.load_tensors(saved[-1].tensors(), source="the one before")
        state.history = saved[-1].history


@pytest.mark.parametrize(
    ("stop", "validation"), [(False, 120), (True, 99)], ids=["not wanted", "too few to tell"]
)
def test_training_goes_on_after_the_head_otherwise(stop, validation):
    wanted = recipe({**HEAD, "epochs": 25}, ALL, training={"stop_at_head": stop})
    fitted = fit(wanted, trivial(validation))
    assert [stage["epochs"] for stage in fitted.history.stages] == [25, 1]


@pytest.mark.parametrize(
    ("accuracy", "number", "stops"),
    [
        (0.9925, 400, True),
        (0.99, 400, False),
        (1.0, 100, True),
        (0.9, 10_000, False),
        (None, 0, False),
    ],
)
def test_the_head_is_good_enough_where_a_faultless_network_could_not_be_told_from_it(
    accuracy, number, stops
):
    found = why_stop(recipe(HEAD), trains="head", accuracy=accuracy, num_images=number)
    assert bool(found) == stops
