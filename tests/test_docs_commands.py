"""What the guides tell a reader to type: every command is understood, and the new guides' ones work
in a reduced form, in order, as they stand."""

import contextlib
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from PIL import Image

import commands
from tenfold.cli.app import app
from tenfold.cli.train import with_port
from tenfold.errors import TenfoldError

ROOT = Path(__file__).parent.parent
DOCUMENTS = {path.stem: path for path in [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]}

GUIDES = (
    "auditing", "data", "evaluating", "fast-training", "recipes", "reproducing", "studies", "tour",
    "training",
)  # fmt: skip

NOT_RUN = {
    r"demo|serve |live |train .*--live|bench": "takes minutes, or until it is stopped",
    r".*\bs3://": "needs a bucket",
    r"data get": "needs a network",
    r"train --data photos/|train .*--time|tune |study activations|report studies/": "tested alone",
    r".*--track mlflow": "needs another package",
    r"audit .*labels --folds|report .*--full": "takes minutes",
    r"data relabel|score |.*corrections=": "needs files of the reader",
}
"""Patterns of commands that the reduced guides leave out."""


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Language and text of each fence."""
    yield from re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands_in(text: str) -> list[str]:
    """The commands of tenfold in the blocks of a document, without what a shell does beside."""
    found = []
    for language, block in blocks(text):
        if language in ("", "sh", "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                match = re.search(r"(?:^|-m |&& )\s*tenfold (.*)", line)
                if match and not line.strip().startswith("Usage"):
                    found.append(re.split(r"\s[&|;]|;", match[1])[0].strip())
    return found


@pytest.fixture
def kept_environment(monkeypatch):
    """Options such as --device are left in the environment for processes that follow."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_is_understood(kept_environment, name):
    for line in commands_in(DOCUMENTS[name].read_text()):
        words = [word for word in shlex.split(line, comments=True) if word != "..."]
        if ">" in words:
            words = words[: words.index(">")]
        command = typer.main.get_command(app)
        if words[0].startswith("-"):
            continue
        while hasattr(command, "commands"):
            assert words[0] in command.commands, f"tenfold {line}"
            command = command.commands[words.pop(0)]
        # Whether runs and images exist is asked once all words are understood.
        with contextlib.suppress(TenfoldError):
            command.make_context("tenfold", with_port([w.replace("$i", "1") for w in words]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on tiny data."""
    folder = tmp_path_factory.mktemp("guide")
    commands.write_tiny_data(folder / "tiny.npz")
    commands.write_tiny_recipe(folder)
    commands.succeed(
        ["train", "tiny.toml", "--data", "tiny.npz", "--epochs", "1", "--lr", "0.005"], folder
    )
    return folder


def prepare(folder: Path, trained: Path, text: str) -> None:
    """Have what a guide takes for granted: data, images, runs, and the files that it shows."""
    for name in ("tiny.npz", "tiny.toml"):
        shutil.copy(trained / name, folder / name)
    shutil.copy(trained / "tiny.toml", folder / "my.toml")
    commands.write_class_folders(folder / "photos")
    for path in (folder / "cat.png", folder / "photos/cat.png"):
        Image.new("RGB", (16, 16), (200, 0, 0)).save(path)
    for recipe, number in set(re.findall(r"runs/([\w-]+)/(\d)", text)):
        shutil.copytree(trained / "runs/tiny/1", folder / "runs" / recipe / number)
    for _, block in blocks(text):
        if named := re.match(r"# ([\w-]+\.(?:toml|py))\n", block):
            (folder / named[1]).write_text(block.replace("epoch = 100", "epoch = 1"))


def reduced(words: list[str]) -> list[str]:
    """The same command on less."""
    words = [word.replace("cifar10", "tiny.npz") for word in words if word != "--open"]
    if words[0] == "evaluate" and "--data" in words:
        words[words.index("--data") + 1] = "tiny.npz"
    if words[0] in ("train", "study"):
        words += ["--set", "training.epochs=1", "--set", "training.min_steps=0"]
        words += [] if "--data" in words else ["--data", "tiny.npz"]
        words += ["--set", "data.validation_size=64"]
    if words[0] == "study":
        words += ["--seeds", "1"]
        words += ["--set", "data.image_size=32"]
        words += ["--set", "training.milestones=[1]"] if words[1].endswith(".toml") else []
    return words


@pytest.mark.slow
@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_works_as_it_stands(name, trained, tmp_path):
    text = DOCUMENTS[name].read_text()
    prepare(tmp_path, trained, text)
    ran = 0
    for line in commands_in(text):
        if any(re.match(pattern, line) for pattern in NOT_RUN):
            continue
        words = shlex.split(line, comments=True)
        out = None
        if ">" in words:
            out, words = tmp_path / words[-1], words[: words.index(">")]
        said = commands.succeed(reduced(words), tmp_path)
        if out is not None:
            out.write_text(said)
        ran += 1
    assert ran >= 2
