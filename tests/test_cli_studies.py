"""The commands about studies, as people and machines meet them."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import commands
from tenfold.files import read_json

STUDY = """
title = "How wide?"
question = "Is a wider network better on digits?"
baseline = "Narrow"
seeds = 2
overrides = ["training.epochs=4", "training.milestones=[2]", "schedule.name=constant"]
limits = ["Digits are easy."]

[[variants]]
label = "Narrow"
recipe = "digits.toml"

[[variants.published]]
accuracy = 0.1
epoch = 2
source = "a guess"

[[variants]]
label = "Wide"
recipe = "digits.toml"
overrides = ["model.widths=[64]"]
seeds = 1
"""
RECIPE = """
[data]
name = "digits"

[model]
name = "ann"
widths = [16]

[optimizer]
lr = 0.02
"""
WIDTHS = ["study", "widths.toml", "--threads", "1"]


def write_study(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "widths.toml").write_text(STUDY)
    (folder / "digits.toml").write_text(RECIPE)
    return folder


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that was carried out, and its output."""
    folder = write_study(tmp_path_factory.mktemp("template") / "work")
    (folder / "first.log").write_text(commands.succeed(WIDTHS, folder))
    return folder


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A copy of the template."""
    shutil.copytree(template, tmp_path / "work")
    return tmp_path / "work"


def test_a_study_in_a_pipe_prints_plain_lines(template: Path) -> None:
    output = (template / "first.log").read_text()
    assert "\x1b" not in output
    lines = output.splitlines()
    assert lines[:2] == ["3 runs", "Run 1 of 3: Narrow, seed 0"]
    assert re.fullmatch(
        r"Run 1 of 3: Narrow, seed 0: .*\d+\.\d\d % .*in [\d.]+ s  [\d.]+ s left", lines[2]
    )
    assert lines[7] == "How wide?"
    rows = [re.split(r"  +", line) for line in lines[8:12]]
    assert rows[0][:4] == ["variant", "epochs", "runs", "test accuracy"]
    assert [row[:3] for row in rows[1:]] == [
        ["Narrow", "2", "2 of 2"],
        ["Narrow", "4", "2 of 2"],
        ["Wide", "4", "1 of 1"],
    ]
    assert rows[1][6] == "10.00 %"
    assert rows[1][7] in ("beaten", "met")
    assert lines[-1] == f"The page is {(template / 'studies/widths/report.html').resolve()}"


def test_what_a_study_leaves(template: Path) -> None:
    study = template / "studies" / "widths"
    summary = read_json(study / "summary.json")
    assert (summary["planned"], summary["finished"], summary["failed"]) == (3, 3, 0)
    assert summary["question"] in (study / "report.html").read_text()
    provenance = read_json(study / "runs/Narrow,seed=0/provenance.json")
    assert provenance["threads"] == 1
    command = provenance["sessions"][0]["command"]
    assert command.endswith("Narrow,seed=0 --json --no-report --threads 1")


def test_more_seeds_extend_it_and_machines_read_how(folder: Path) -> None:
    events = commands.events([*WIDTHS, "--seeds", "2", "--no-report"], folder)
    assert [event["event"] for event in events] == [
        *("study", "training", "started", *["epoch"] * 4, "ended", "trial_ended"),
        *["trial"] * 4,
        "summary",
    ]
    begun = {"event": "study", "total": 4, "to_train": ["Wide,seed=1"], "total_epochs": 16}
    assert events[0] == begun
    ended = events[8]
    said = (ended["trial"], ended["status"], ended["done_epochs"])
    assert said == ("Wide,seed=1", "finished", 16)
    assert ended["seconds_left"] == 0
    assert ended["splits"]["test"]["accuracy"] > 0.3
    assert events[-1]["finished"] == 4


def test_runs_of_another_study_are_taken_over(folder: Path) -> None:
    arguments = ["study", "digits.toml", "--reuse", "studies/widths", "--no-report"]
    changes = ["training.epochs=4", "training.milestones=[2]", "schedule.name=constant"]
    sets = [part for change in changes for part in ("--set", change)]
    events = commands.events([*arguments, *sets], folder)
    assert not [event for event in events if event["event"] == "training"]
    [trial] = [event for event in events if event["event"] == "trial"]
    assert trial["reused"] == "studies/widths/runs/Narrow,seed=0"
    findings = read_json(folder / "studies/digits/summary.json")["findings"]
    assert findings[-1].startswith("1 of 1 run was taken over from elsewhere")


def test_a_study_with_a_failure_says_so_and_ends_with_status_1(folder: Path) -> None:
    (folder / "widths.toml").write_text(
        f'{STUDY}\n[[variants]]\nlabel = "Hopeless"\nrecipe = "digits.toml"\nseeds = 1\n'
        'overrides = ["optimizer.lr=1e30"]\n'
    )
    command = commands.start(WIDTHS, folder=folder)
    assert command.wait() == 1, command.output
    assert "How wide? (cut short: 3 of 4 runs finished, 1 failed)" in command.output
    assert "Run 4 of 4: Hopeless, seed 0: failed after" in command.output
    assert "Hopeless,seed=0 failed: " in command.output
    assert "Hopeless" in (folder / "studies/widths/report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["activation"], "did you mean 'activations'?"),
        (["widths.toml", "--grid", "optimizer.lr=1,2"], "leave out --grid"),
        (["widths.toml", "--seeds", "1"], "which was not asked for now"),
        (["digits.toml", "--reuse", "nowhere"], "--reuse nowhere"),
    ],
)
def test_wrong_input_gets_one_sentence(folder: Path, arguments: list[str], named: str) -> None:
    assert named in commands.refuse(["study", *arguments], folder)


def test_the_studies_are_listed(tmp_path: Path) -> None:
    studies = {study["name"]: study for study in commands.events(["studies"], tmp_path)}
    assert {"activations", "published", "train-size"} <= set(studies)
    assert studies["ann-vs-cnn"]["question"].endswith("?")
    assert studies["epochs"]["num_runs"] >= 1


def test_what_a_library_prints_is_no_line_of_json() -> None:
    code = (
        "import sys; from tenfold.cli import main; from tenfold.console.output import Output; "
        "Output.table = lambda *_: print('a notice'); "
        "sys.argv = ['tenfold', 'studies', '--json']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {json.loads(line)["event"] for line in done.stdout.splitlines()} == {"study"}
    assert done.stderr == "a notice\n"


@dataclass(frozen=True)
class OnTerminal:
    """Let a command have the terminal at `path`."""

    path: str

    def __call__(self) -> None:
        """Put the terminal in the place of the log."""
        terminal = os.open(self.path, os.O_RDWR | os.O_NOCTTY)
        for number in range(3):
            os.dup2(terminal, number)
        sys.stdout, sys.stderr = (
            os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2)
        )


def test_live_bars_on_a_terminal_and_ctrl_c(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "work")
    leader, follower = pty.openpty()
    command = commands.start(
        [*WIDTHS, "--jobs", "2", "--no-report", "--set", "training.epochs=3000"],
        folder=folder,
        environment={"TERM": "xterm-256color", "COLUMNS": "120"},
        before=OnTerminal(os.ttyname(follower)),
    )
    shown, deadline = b"", time.monotonic() + 90
    words = ("study", "/9,000 epochs", "/3,000 epochs", "left, 0 of 3")
    # Both with an epoch behind them, so that they have something to save.
    bars = [rf"Narrow, seed {seed}[^\n]*validation[^\n]*images/s" for seed in (0, 1)]
    stopped = False
    while time.monotonic() < deadline and command.process.exitcode is None:
        if select.select([leader], [], [], 0.2)[0]:
            shown += os.read(leader, 65536)
        text = shown.decode(errors="replace")
        are_there = all(word in text for word in words)
        if not stopped and are_there and all(re.search(bar, text) for bar in bars):
            command.signal(signal.SIGINT)
            stopped = True
    assert command.wait(30) == 130, shown.decode(errors="replace")[-2000:]
    os.close(leader)
    os.close(follower)
    assert stopped, shown.decode(errors="replace")[-2000:]
    sentence = " ".join(shown.decode(errors="replace").split())
    assert "Stopped by SIGINT with 2 under way; everything is saved" in sentence
    assert "error:" not in sentence
    assert "Finished so far: 0 of 3 runs." in sentence
    runs = folder / "studies/widths/runs"
    assert sorted(p.name for p in runs.iterdir() if any((p / "checkpoint").glob("*.json"))) == [
        "Narrow,seed=0",
        "Narrow,seed=1",
    ]


def test_pictures_that_cannot_be_read_are_left_out_if_asked(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "work")
    photos = commands.write_class_folders(folder / "photos")
    (photos / "train/red/broken.png").write_bytes(b"")
    arguments = ["study", "digits.toml", "--seeds", "2", "--data", "photos", "--jobs", "2"]
    refused = commands.run([*arguments, "--folder", "refused"], folder=folder)
    assert refused.wait() == 1
    assert "--skip-broken" in refused.output
    command = commands.run([*arguments, "--skip-broken"], folder=folder)
    assert command.wait() == 0, command.output
    provenance = read_json(folder / "studies/digits/runs/digits,seed=1/provenance.json")
    assert sum(provenance["data"]["splits"].values()) == 40
