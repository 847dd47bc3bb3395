"""Parts of one's own: their signature is their schema, and code that came with a run is not run."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest
import torch
from pydantic import Field

from tenfold import own_parts, registry
from tenfold.errors import TenfoldError
from tenfold.evaluation.loading import load_data
from tenfold.evaluation.trained import load
from tenfold.recipe import load_recipe, recipe_from_dict
from tenfold.recipe.models import json_schema
from tenfold.training.plan import plan_run
from tenfold.training.train import TrainOptions, train

NETWORK = """
from torch import nn

def net(*, num_classes, image_size, width: int = 8, depth: int = 1):
    layers, channels = [], 3
    for _ in range(depth):
        layers += [nn.Conv2d(channels, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(4 * width, num_classes))
"""

BLACK = np.zeros((2, 8, 8, 3), np.uint8)
QUICK = ["data.name=digits", "data.image_size=8", "training.epochs=2", "data.train_size=200"]
QUICK += ["training.min_steps=0"]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder with a network of one's own, and a home where no code is trusted yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(own_parts.TRUST_CODE, raising=False)
    (tmp_path / "my_net.py").write_text(NETWORK)
    return tmp_path


def recipe(*overrides):
    return load_recipe("cnn", ["model.name=my_net.py:net", *QUICK, *overrides])


def trained(chosen):
    return train(chosen, options=TrainOptions(runs=Path("runs"))).run


def forget():
    """What another user's machine knows: none of this code."""
    own_parts._trust_file().unlink()


def test_a_signature_is_the_schema_of_its_options():
    def part(
        num_classes,
        image_size,
        width: Annotated[int, Field(ge=2, le=9, description="Channels.")] = 4,
        kind: Literal["a", "b"] = "a",
        sizes: tuple[int, ...] = (1, 2),
        rate=0.5,
        *rest,
        **more,
    ):
        """What it is.

        And more.

        kind: Which of them
            is meant.
        rate: How fast.
        """

    options = registry.Part("network", "mine", part).options
    assert set(options.model_fields) == {"name", "width", "kind", "sizes", "rate"}
    assert options.__doc__ == "What it is."
    assert options().options() == {"width": 4, "kind": "a", "sizes": (1, 2), "rate": 0.5}
    found = {key: options.model_fields[key].description for key in ("width", "kind", "rate")}
    assert found == {"width": "Channels.", "kind": "Which of them is meant.", "rate": "How fast."}
    assert options(rate=1).rate == 1.0


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.widht=3", "unknown key 'model.widht' (did you mean 'width'?)"),
        ("model.width=wide", "model.width must be a whole number, not 'wide'"),
        ("model.name=my_net.py:nett", "no function 'nett' (did you mean 'net'?)"),
        ("model.name=other.py:net", "there is no file other.py"),
        ("model.name=no.such.module:net", "can't be imported"),
        ("model.name=broken.py:net", "broken.py raises ZeroDivisionError: division by zero"),
        ("model.name=resnett", "(did you mean 'resnet'?)"),
    ],
)
def test_row_e_what_does_not_fit_is_one_sentence(workplace, override, said):
    (workplace / "broken.py").write_text("1 / 0")
    with pytest.raises(TenfoldError) as raised:
        recipe(override)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_a_class_and_an_installed_module_can_be_named(workplace, monkeypatch):
    (workplace / "installed.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self, num_classes, image_size, width: int = 4):\n"
        "        layers = nn.LazyLinear(width), nn.Linear(width, num_classes)\n"
        "        super().__init__(nn.Flatten(), *layers)\n"
    )
    monkeypatch.syspath_prepend(workplace)
    for name in ("installed.py:Net", "installed:Net", str(workplace / "installed.py:Net")):
        chosen = load_recipe("cnn", [f"model.name={name}", "model.width=5"]).model
        network = chosen(num_classes=3, image_size=(8, 8))
        assert network(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
        assert network[1].out_features == 5
    sys.modules.pop("installed", None)


def test_optimizers_schedules_and_losses_of_ones_own_train(workplace):
    (workplace / "parts.py").write_text(
        "import torch\n"
        "def signs(groups, *, lr: float = 0.01, momentum: float = 0.9):\n"
        "    return torch.optim.SGD(groups, lr=lr, momentum=momentum)\n"
        "def halved(done, *, total_steps, steps_per_epoch, by: float = 0.5):\n"
        "    return by\n"
        "def hinge(logits, labels, *, margin: float = 1.0):\n"
        "    own = logits.gather(1, labels[:, None])\n"
        "    return (logits - own + margin).clamp(min=0).sum(dim=1) - margin\n"
    )
    own = [f"{table}.name=parts.py:{name}" for table, name in [
        ("optimizer", "signs"), ("schedule", "halved"), ("loss", "hinge"),
    ]]  # fmt: skip
    few = ["schedule.by=0.25", "training.label_smoothing=0", "training.batch_size=10"]
    chosen = recipe(*own, *few)
    run = trained(chosen)
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert {path.name for path in (run.path / "code").iterdir()} == {"my_net.py", "parts.py"}


def test_an_optimizer_without_a_rate_is_refused(workplace):
    (workplace / "parts.py").write_text("def still(groups):\n    return None\n")
    with pytest.raises(TenfoldError, match="must be an optimiser with the option lr"):
        recipe("optimizer.name=parts.py:still")


@pytest.fixture
def elsewhere(workplace):
    """A recipe in another folder than the present one, with a network in a file beside it whose
    width must be given."""
    (workplace / "elsewhere").mkdir()
    network = NETWORK.replace("width: int = 8", "width: int")
    (workplace / "elsewhere/its_net.py").write_text(network)
    data = 'name = "digits"\nimage_size = 8\ntrain_size = 200\n'
    training = "epochs = 2\nmin_steps = 0\n"
    path = workplace / "elsewhere/own.toml"
    path.write_text(
        f'[model]\nname = "its_net.py:net"\nwidth = 8\n[data]\n{data}[training]\n{training}'
    )
    return path


def test_row_14_a_run_with_a_part_beside_its_recipe_is_resumed(elsewhere):
    with pytest.raises(KeyboardInterrupt):
        train(load_recipe(elsewhere), options=TrainOptions(), reporter=Stopping())
    run = train(load_recipe(elsewhere), options=TrainOptions()).run
    assert run.path == Path("runs/own/1")
    assert len(json.loads(run.provenance.read_text())["sessions"]) == 2


def test_a_part_beside_its_recipe_trains_in_a_given_time(elsewhere):
    recipe = load_recipe(elsewhere)
    planned = plan_run(
        recipe, load_data(recipe), seconds=30, device=torch.device("cpu"), may_set_threads=False
    )
    assert planned.recipe.model == recipe.model


SIZES = ["training.sizes=[8]", "training.sizes_until=[0.5]"]


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["model.name=parts.py:pair"], r"give logits of the shape \(\d+, 10\), .* not \(\d+, 2\)"),
        (["model.name=parts.py:both"], r"parts.py:both must give logits .* not tuple"),
        (["model.name=parts.py:pair", "data.image_size=12"], "pair can't take images of 12x12"),
        (
            ["model.name=parts.py:wide", "data.image_size=12", *SIZES],
            r"wide can't take images of 8x8 pixels \(.*\); leave training.sizes out",
        ),
        (["loss.name=parts.py:column"], r"a loss for each image, .* \(\d+,\), not \(\d+, 1\)"),
        (["loss.name=parts.py:mean", "training.balance=true"], r"parts.py:mean .* not \(\)"),
    ],
)
def test_what_gives_something_else_than_it_must_is_a_sentence(workplace, own, said):
    (workplace / "parts.py").write_text(
        "from torch import nn\n"
        "from torch.nn.functional import cross_entropy\n"
        "def pair(*, num_classes, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))\n"
        "def wide(*, num_classes, image_size):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, num_classes))\n"
        "class both(nn.Linear):\n"
        "    def __init__(self, *, num_classes, image_size):\n"
        "        super().__init__(192, num_classes)\n"
        "    def forward(self, inputs):\n"
        "        return super().forward(inputs.flatten(1)), inputs\n"
        "def column(logits, labels):\n"
        "    return cross_entropy(logits, labels, reduction='none')[:, None]\n"
        "def mean(logits, labels):\n"
        "    return cross_entropy(logits, labels)\n"
    )
    with pytest.raises(TenfoldError, match=said):
        trained(recipe(*own, "training.label_smoothing=0"))


def test_a_mean_loss_will_do_where_images_have_no_weights(workplace):
    (workplace / "parts.py").write_text(
        "from torch.nn.functional import cross_entropy\n"
        "def mean(logits, labels):\n"
        "    return cross_entropy(logits, labels)\n"
    )
    own, plain = (
        trained(recipe(loss, "training.label_smoothing=0"))
        for loss in ("loss.name=parts.py:mean", "loss.name=cross_entropy")
    )
    assert own.metrics.read_bytes() == plain.metrics.read_bytes()


def test_focal_loss_is_cross_entropy_where_gamma_is_0_and_less_for_the_easy():
    from tenfold.training.losses import cross_entropy, focal

    logits, labels = torch.randn(20, 5), torch.arange(20) % 5
    plain = cross_entropy(logits, labels)
    torch.testing.assert_close(focal(logits, labels, gamma=0.0), plain)
    probabilities = torch.exp(-plain)
    torch.testing.assert_close(focal(logits, labels, gamma=2.0), (1 - probabilities) ** 2 * plain)


@pytest.fixture
def run(workplace):
    return trained(recipe())


def test_a_run_keeps_the_code_and_says_its_sum(run, workplace):
    kept = run.path / "code/my_net.py"
    assert kept.read_text() == NETWORK
    known = json.loads(run.provenance.read_text())
    assert known["code"] == {"my_net.py": own_parts.sum_of(kept)}


def test_a_run_is_evaluated_by_the_code_that_it_was_trained_with(run, workplace):
    before = load(run.path).predict_proba(BLACK)
    (workplace / "my_net.py").write_text(NETWORK.replace("nn.ReLU()", "nn.Tanh()"))
    np.testing.assert_array_equal(load(run.path).predict_proba(BLACK), before)
    (workplace / "my_net.py").unlink()
    assert load(run.path).predict(np.zeros((8, 8, 3), np.uint8))


def test_row_61_code_that_came_with_a_run_is_not_imported_unless_trusted(
    run, workplace, monkeypatch
):
    copied = workplace / "elsewhere"
    shutil.copytree(run.path, copied)
    (copied / "code/my_net.py").write_text(f"{NETWORK}\nopen('was-run', 'w').close()\n")
    for _ in range(2):
        with pytest.raises(TenfoldError, match="--trust-code") as raised:
            load(copied)
        assert "my_net.py" in str(raised.value)
        assert not (workplace / "was-run").exists()
    with pytest.raises(TenfoldError, match="--trust-code"):
        load_recipe(copied / "recipe.json")
    monkeypatch.setenv(own_parts.TRUST_CODE, "1")
    assert load(copied).predict(np.zeros((8, 8, 3), np.uint8))
    assert (workplace / "was-run").exists()


def test_row_61_the_same_run_on_another_machine_is_not_imported(run, workplace):
    assert load(run.path)
    forget()
    with pytest.raises(TenfoldError, match="read it first, and then give --trust-code"):
        load(run.path)
    assert recipe()  # Whoever names the file means it.
    assert load(run.path)


def test_changed_code_is_said_before_a_run_goes_on(run, workplace):
    run.result.unlink()  # As if it had been killed after its last checkpoint.
    (workplace / "my_net.py").write_text(NETWORK.replace("nn.ReLU()", "nn.GELU()"))
    with pytest.raises(TenfoldError, match=r"code of my_net.py was .* and is now"):
        trained(recipe())


def test_the_json_schema_knows_every_table_and_part():
    schema = json_schema()
    parts = schema["properties"]["model"]["anyOf"]
    names = [each["properties"]["name"].get("const") for each in parts[:-1]]
    assert {"cnn", "resnet", "speedrun"} <= set(names)
    cnn = parts[names.index("cnn")]
    assert cnn["properties"]["kernel_size"]["description"].startswith("Side of the convolutions")
    training = schema["$defs"]["TrainingOptions"]["properties"]
    assert training["batch_size"]["maximum"] == 10**6
    assert recipe_from_dict({}).to_dict().keys() == schema["properties"].keys()


AUGMENTATION = """
import torch

def invert(images, *, generator, share: float = 0.5):
    chosen = torch.rand(len(images), generator=generator, device=images.device) < share
    return torch.where(chosen[:, None, None, None], -images, images)

def smaller(images, *, generator):
    return images[:, :, 1:]

def exact(images, *, generator):
    return images.double()
"""
INVERTED = ['augmentation.also=[{name="aug.py:invert", share=0.4}]']


class Stopping:
    """A reporter that ends the process, as far as a test can, in the second epoch."""

    def __getattr__(self, name):
        return lambda *args, **more: None

    def stepped(self, *, epoch, **more):
        if epoch == 2:
            raise KeyboardInterrupt


def test_augmentations_of_ones_own_change_training_alone_and_resume_bit_for_bit(workplace):
    (workplace / "aug.py").write_text(AUGMENTATION)
    # Of the network of one's own, none of whose weights have changed yet.
    still = ["optimizer.lr=1e-30", "training.epochs=1", *INVERTED]
    plain, inverted = trained(recipe(*still[:2])), trained(recipe(*still))
    first, second = (
        json.loads(run.metrics.read_text().splitlines()[0]) for run in (plain, inverted)
    )
    assert first["train_loss"] != second["train_loss"]
    whole = trained(recipe(*INVERTED, "seed=3"))
    assert (whole.path / "code/aug.py").read_text() == AUGMENTATION
    stopped = TrainOptions(folder=Path("stopped"))
    with pytest.raises(KeyboardInterrupt):
        train(recipe(*INVERTED, "seed=3"), options=stopped, reporter=Stopping())
    again = train(recipe(*INVERTED, "seed=3"), options=stopped).run
    assert len(json.loads(again.provenance.read_text())["sessions"]) == 2
    assert again.model.read_bytes() == whole.model.read_bytes()
    assert again.metrics.read_bytes() == whole.metrics.read_bytes()


@pytest.mark.parametrize(
    ("also", "said"),
    [
        (
            '{name="aug.py:invert", shar=0.4}',
            r"unknown key 'augmentation.also\[0\].shar' .*'share'",
        ),
        ('{name="invert"}', r"also\[0\].name must be such as my.py:augmentation, not 'invert'"),
        ("{}", r"also\[0\].name must be such as my.py:augmentation, not None"),
        (
            '{name="aug.py:smaller"}',
            r"as it gets them, torch.float32 of the shape \(\d+, 3, 8, 8\), not torch.float32 of",
        ),
        (
            '{name="aug.py:exact"}',
            r"aug.py:exact must give images as it gets them, .* not torch.float64 of the shape",
        ),
    ],
)
def test_an_augmentation_that_does_not_fit_is_a_sentence(workplace, also, said):
    (workplace / "aug.py").write_text(AUGMENTATION)
    with pytest.raises(TenfoldError, match=said):
        trained(recipe(f"augmentation.also=[{also}]"))
