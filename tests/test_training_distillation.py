"""A student that learns from another run: its loss by hand, its resume, its cost, its teachers."""

from pathlib import Path

import pytest
import torch

import commands
from tenfold.data.normalisation import Normalisation
from tenfold.errors import TenfoldError
from tenfold.evaluation.trained import TrainedModel, save_model
from tenfold.files import read_json
from tenfold.models import count_parameters
from tenfold.recipe import DistillationOptions, load_recipe, without_places
from tenfold.training.distillation import Teacher
from tenfold.training.flop import flop_of_image
from tenfold.training.state import History
from tenfold.training.trainer import fit
from tiny_training import data, same, tiny, weights

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> tuple[TrainedModel, Path]:
    """A network whose images are normalised otherwise than the students' are."""
    model = fit(tiny("training.epochs=2", "data.normalisation=unit"), data()).model
    path = tmp_path_factory.mktemp("teacher") / "model.safetensors"
    save_model(path, model)
    return model, path


def student(path, *overrides):
    return tiny(f"distillation.teacher={path}", *overrides)


def test_the_loss_is_the_softened_divergence_from_what_the_teacher_says(teacher):
    model, path = teacher
    options = DistillationOptions(teacher=str(path), temperature=3.0)
    normalisation = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    names = model.class_names[::-1]
    told = Teacher(options, student=normalisation, class_names=names, device=CPU)
    pixels = data().train.pixels[:6]
    mean, std = (torch.tensor(values) for values in normalisation)
    inputs = ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    said = torch.from_numpy(model.logits(pixels)).flip(1)
    p, q = (said / 3).softmax(1), (logits / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1)
    torch.testing.assert_close(told.losses(inputs, logits), expected, atol=1e-4, rtol=1e-4)
    small = torch.nn.functional.avg_pool2d(inputs, 2)  # As while images grow.
    assert told.losses(small, logits).shape == (6,)


def test_share_and_temperature_change_what_is_learnt(teacher):
    plain = weights(fit(tiny(), data()))
    found = [
        weights(fit(student(teacher[1], *changes), data()))
        for changes in ([], ["distillation.share=0.5"], ["distillation.temperature=1.5"])
    ]
    for index, one in enumerate(found):
        assert not any(same(one, other) for other in [plain, *found[:index]])


def test_a_student_alone_with_its_teacher_comes_close_to_it(teacher):
    model, path = teacher
    found = fit(student(path, "distillation.share=1", "training.epochs=8"), data()).model
    pixels = data().validation.pixels
    agreed = (found.logits(pixels).argmax(1) == model.logits(pixels).argmax(1)).mean()
    plain = fit(tiny("training.epochs=1", "optimizer.lr=0.0001"), data()).model
    assert agreed > 0.9 > (plain.logits(pixels).argmax(1) == model.logits(pixels).argmax(1)).mean()


def test_a_resumed_student_ends_with_the_same_bits(teacher):
    recipe, states = student(teacher[1], "training.epochs=4"), []

    def save(state):
        states.append(({k: v.clone() for k, v in state.tensors().items()}, state.history.to_dict()))

    whole = fit(recipe, data(), save=save)

    def restore(state):
        tensors, history = states[1]
        state.load_tensors(tensors, source="x")
        state.history = History.from_dict(history)

    again = fit(recipe, data(), restore=restore)
    assert same(weights(again), weights(whole))
    assert again.history.flop == whole.history.flop


def test_what_the_teacher_computes_counts_too(teacher):
    plain, taught = fit(tiny(), data()), fit(student(teacher[1]), data())
    forward = flop_of_image(teacher[0].module, (3, 16, 16), learns=False)
    assert taught.history.flop == plain.history.flop + 3 * 192 * forward


def test_a_teacher_of_other_classes_is_refused(teacher):
    options = DistillationOptions(teacher=str(teacher[1]))
    with pytest.raises(TenfoldError, match=r"doesn't know the class 'violet'; its classes are red"):
        Teacher(options, student=teacher[0].normalisation, class_names=("violet",), device=CPU)


def test_stages_have_no_teacher():
    with pytest.raises(TenfoldError, match=r"distillation\.teacher must be empty where"):
        load_recipe("transfer-lite0", ["distillation.teacher=runs/cnn/1"])


def test_the_command_trains_a_student_and_says_what_its_teacher_had_seen(tmp_path):
    commands.write_tiny_recipe(tmp_path)
    images = commands.write_tiny_data(tmp_path / "tiny.npz")
    known = ["train", "tiny.toml", "--data", str(images), "--epochs", "1", "--no-report"]
    more = ["--set", "data.split_seed=1"]
    missing = commands.run([*known, "--teacher", "runs/tiny/9"], folder=tmp_path)
    assert missing.wait() == 2
    assert "There is no run folder runs/tiny/9" in missing.output
    assert commands.run(known, folder=tmp_path).wait() == 0
    done = commands.run([*known, *more, "--teacher", "runs/tiny/1"], folder=tmp_path)
    assert done.wait() == 0, done.output
    assert "The teacher was trained on" in done.output.replace("\n", " ")
    recipe = read_json(tmp_path / "runs/tiny/2/recipe.json")
    assert recipe["distillation"]["teacher"] == "runs/tiny/1"
    shared = without_places(load_recipe(tmp_path / "runs/tiny/2/recipe.json"))
    assert shared.distillation.teacher == "1"  # And no folder of this machine.


def test_the_student_for_the_edge_is_small():
    network = load_recipe("student").model(num_classes=10, image_size=(32, 32))
    assert count_parameters(network) < 300_000
