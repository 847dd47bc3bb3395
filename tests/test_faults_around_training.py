"""What comes between commands and around training: signals, two at once, runs made in between."""

import json
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import commands
from tenfold.errors import TenfoldError
from tenfold.files import write_json
from tenfold.recipe import load_recipe
from tenfold.run import RunFolder
from tenfold.training.run_folders import choose_folder
from tenfold.training.train import TrainOptions
from test_faults_resuming import SlowSteps, num_checkpoints_made, outcome

TRAIN = ["train", "tiny.toml", "--data", "tiny.npz", "--threads", "1", "--no-report"]
RUN = Path("runs/tiny/1")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A folder with a tiny recipe, tiny data and a finished run."""
    folder = tmp_path_factory.mktemp("template") / "work"
    commands.write_tiny_recipe(folder)
    commands.write_tiny_data(folder / "tiny.npz")
    assert commands.run(TRAIN, folder=folder).wait() == 0
    return folder


@pytest.fixture
def reference(template):
    """What an uninterrupted run leaves."""
    return outcome(template)


@pytest.fixture
def folder(template, tmp_path):
    """A copy of the template without its run."""
    shutil.copytree(template, tmp_path / "work")
    shutil.rmtree(tmp_path / "work/runs")
    return tmp_path / "work"


@dataclass(frozen=True)
class SlowPredictions:
    """Leave a mark and take a while before each look at validation or test pictures."""

    module: str

    def __call__(self) -> None:
        """Wrap the predictions of `module`."""
        import importlib

        module = importlib.import_module(self.module)
        real = module.predict_images

        def slow(*arguments, **keywords):
            with open("looks", "a") as file:
                file.write("look\n")
            time.sleep(1.0)
            return real(*arguments, **keywords)

        module.predict_images = slow


def num_looks(folder: Path) -> int:
    path = folder / "looks"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGUSR1, 75, marks=pytest.mark.long),
        (signal.SIGINT, 130),
    ],
)
def test_row_05_a_signal_in_the_evaluation_and_only_that_is_done_again(
    folder, reference, number, status
):
    slow = SlowPredictions("tenfold.evaluation.evaluate")
    command = commands.start(TRAIN, folder=folder, before=slow)
    command.wait_for(lambda: num_looks(folder) == 1)
    command.signal(number)
    assert command.wait() == status, command.output
    assert "Traceback" not in command.output
    assert not (folder / RUN / "result.json").exists()
    again = commands.run(TRAIN, folder=folder)
    assert again.wait() == 0, again.output
    assert "epoch 1/4" not in again.output
    assert outcome(folder) == reference
    assert not (folder / "runs/tiny/2").exists()


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 75), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_row_04_a_signal_while_the_last_epoch_is_validated_is_heard(
    folder, reference, number, status
):
    slow = SlowPredictions("tenfold.training.validation")
    command = commands.start(TRAIN, folder=folder, before=slow)
    command.wait_for(lambda: num_looks(folder) == 4)
    command.signal(number)
    assert command.wait() == status, command.output
    assert "before the evaluation" in command.output
    assert not (folder / RUN / "result.json").exists()
    assert commands.run(TRAIN, folder=folder).wait() == 0
    assert outcome(folder) == reference


@dataclass(frozen=True)
class ChooseTogether:
    """Let another command choose its folder between this one's choice and its taking it."""

    def __call__(self) -> None:
        """Wrap the choice of the run folder."""
        from tenfold.training import run_folders

        real = run_folders.choose_folder

        def choose(*arguments):
            run = real(*arguments)
            with open("choices", "a") as file:
                file.write(f"{run.path}\n")
            deadline = time.monotonic() + 20
            while len(Path("choices").read_text().splitlines()) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            return run

        run_folders.choose_folder = choose


def test_row_15_two_commands_at_once_take_a_folder_each(folder):
    first = commands.start([*TRAIN, "--seed", "0"], folder=folder, before=ChooseTogether())
    first.wait_for((folder / "choices").exists)
    second = commands.start([*TRAIN, "--seed", "1"], folder=folder, before=ChooseTogether())
    together = first, second
    assert [command.wait() for command in together] == [0, 0], [c.output for c in together]
    seeds = {
        json.loads((folder / f"runs/tiny/{number}/recipe.json").read_text())["seed"]
        for number in (1, 2)
    }
    assert seeds == {0, 1}


def test_row_05_the_same_command_resumes_whatever_was_trained_since(folder, reference):
    command = commands.start(TRAIN, folder=folder, before=SlowSteps())
    command.wait_for(lambda: num_checkpoints_made(folder) >= 1)
    command.signal(signal.SIGTERM)
    assert command.wait() == 75
    assert commands.run([*TRAIN, "--seed", "1"], folder=folder).wait() == 0
    assert commands.run([*TRAIN, "--data", "nowhere"], folder=folder).wait() == 2
    assert commands.run(TRAIN, folder=folder).wait() == 0
    assert outcome(folder) == reference


def test_a_run_that_failed_early_is_no_hindrance(folder):
    (folder / "runs/tiny/3/tensorboard").mkdir(parents=True)
    (folder / "runs/tiny/7").write_text("a file that has a number for a name")
    assert commands.run(TRAIN, folder=folder).wait() == 0
    assert (folder / "runs/tiny/8/result.json").exists()


def test_an_unfinished_run_is_not_evaluated_into_a_finished_one(folder):
    assert commands.run(TRAIN, folder=folder).wait() == 0
    (folder / RUN / "result.json").unlink()
    command = commands.run(["evaluate", str(RUN)], folder=folder)
    assert command.wait() == 2
    assert "not finished" in command.output
    assert not (folder / RUN / "result.json").exists()
    assert commands.run(TRAIN, folder=folder).wait() == 0
    assert "training" in json.loads((folder / RUN / "result.json").read_text())


def write_data(path: Path, *, size: tuple[int, int], seed: int = 0) -> None:
    """128 pictures to train on and 64 to test on."""
    from tenfold.data.images import Dataset, Images
    from tenfold.data.writing import write_npz

    generator = np.random.default_rng(seed)

    def images(number: int, split: str) -> Images:
        pixels = generator.integers(0, 256, (number, *size, 3), dtype=np.uint8)
        ids = np.array([f"{split}/{i}" for i in range(number)])
        return Images(pixels, np.arange(number, dtype=np.int64) % 2, ("a", "b"), ids)

    write_npz(Dataset("other", images(128, "train"), None, images(64, "test"), "a test"), path)


def test_pictures_that_are_not_square_are_evaluated_as_they_were_trained(folder):
    write_data(folder / "wide.npz", size=(16, 24))
    arguments = [*TRAIN, "--data", "wide.npz", "--set", "training.epochs=1"]
    assert commands.run(arguments, folder=folder).wait() == 0
    before = json.loads((folder / RUN / "result.json").read_text())["splits"]["test"]
    command = commands.run(["evaluate", str(RUN)], folder=folder)
    assert command.wait() == 0, command.output
    after = json.loads((folder / RUN / "result.json").read_text())["splits"]["test"]
    assert after["confusion"] == before["confusion"]


def test_data_that_changed_since_is_not_taken_for_what_was_trained_on(folder):
    write_data(folder / "mine.npz", size=(16, 16))
    arguments = [*TRAIN, "--data", "mine.npz", "--set", "training.epochs=1"]
    assert commands.run(arguments, folder=folder).wait() == 0
    (folder / "mine.npz").unlink()
    write_data(folder / "mine.npz", size=(16, 16), seed=1)
    command = commands.run(["evaluate", str(RUN)], folder=folder)
    assert command.wait() == 2
    assert "has changed since" in command.output
    assert commands.run(["evaluate", str(RUN), "--data", "mine.npz"], folder=folder).wait() == 0


def test_row_17_a_path_with_characters_beyond_the_basic_plane(template, folder):
    (folder / "data-😀").mkdir()
    shutil.copy(template / "tiny.npz", folder / "data-😀")
    arguments = [*TRAIN, "--data", "data-😀/tiny.npz", "--set", "training.epochs=1"]
    command = commands.run(arguments, folder=folder)
    assert command.wait() == 0, command.output


def test_names_that_the_output_can_not_write_are_escaped(folder):
    done = commands.run_cold(["data", "info", "猫"], folder=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "\\u732b" in done.stderr
    assert "Traceback" not in done.stderr
    (folder / "猫.toml").write_text("[model]\nname='ann'\n", encoding="utf-8-sig")
    arguments = ["train", "猫.toml", "--data", "tiny.npz", "--no-report", "--epochs", "1"]
    done = commands.run_cold(arguments, folder=folder, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "\\u732b" in done.stdout


@pytest.mark.parametrize(
    ("begun", "asked", "said"),
    [
        (False, {"resume": True}, "There is no run in .* to go on with"),
        (True, {"new": True}, "There is something in .* already"),
        (True, {"new": True, "resume": True}, "leave out one of them"),
    ],
)
def test_what_a_folder_and_the_other_options_say_must_agree(tmp_path, begun, asked, said):
    recipe, folder = load_recipe("ann"), tmp_path / "mine"
    if begun:
        write_json(RunFolder(folder).recipe, recipe.to_dict())
    with pytest.raises(TenfoldError, match=said):
        choose_folder(recipe, TrainOptions(folder=folder, **asked))
    other = {"resume": begun, "new": not begun}
    assert choose_folder(recipe, TrainOptions(folder=folder, **other)).path == folder
