"""Searches that several processes share, and that are stopped and killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

import commands
import search_driver
from commands import Command
from searches import LONG, LONG_EPOCHS, LR, arguments, prepare, start, states, summary, tune
from tenfold.studies.search import queue
from tenfold.studies.search.queue import Queue, working_in
from tenfold.studies.search.storage import open_storage


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    """What is held until the test ends."""
    with contextlib.ExitStack() as held:
        yield held


def test_two_processes_share_the_trials_of_one_journal(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    both = [start(folder, "--json", trials=5) for _ in range(2)]
    assert [command.wait() for command in both] == [0, 0], both[0].output + both[1].output
    trials = summary(folder)["trials"]
    assert len(trials) == 5
    assert sum(trial["is_baseline"] for trial in trials) == 1
    trained = [_trained_by(command) for command in both]
    assert sorted(trained[0] + trained[1]) == list(range(5))
    assert trained[0]
    assert trained[1]
    assert not list((folder / "tunes/tiny/workers").iterdir())


def _trained_by(command: Command) -> list[int]:
    lines = [json.loads(line) for line in command.output.splitlines()]
    return [line["number"] for line in lines if line["event"] == "trial"]


def test_a_killed_process_loses_nothing_while_another_goes_on(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR.replace("1e-6", "1e-2"))
    victim = start(folder, *LONG, "--json", trials=2)
    log = folder / "tunes/tiny/runs/trial-0/metrics.jsonl"
    victim.wait_for(lambda: log.exists() and log.read_text().count("\n") > 1)
    other = start(folder, *LONG, "--json", trials=2)
    other.wait_for(lambda: "trial_started" in other.output)
    victim.kill()
    assert other.wait() == 0, other.output
    trials = summary(folder)["trials"]
    killed = [trial for trial in trials if trial["state"] == "interrupted"]
    assert [trial["number"] for trial in killed] == [0]
    again = next(t for t in trials if t["number"] == killed[0]["resumed_as"])
    assert (again["resumes"], again["is_baseline"]) == (0, True)
    assert (again["state"], again["params"]) == ("complete", killed[0]["params"])
    assert again["run"] == killed[0]["run"]
    assert len(again["values"]) == LONG_EPOCHS
    assert again["values"][: len(killed[0]["values"])] == killed[0]["values"]
    provenance = json.loads((folder / "tunes/tiny/runs/trial-0/provenance.json").read_text())
    assert len(provenance["sessions"]) == 2
    assert provenance["sessions"][1]["resumed_at_step"] > 0
    assert sum(t["state"] in ("complete", "pruned") for t in trials) == 2


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGKILL, -9)]
)
def test_a_stopped_search_goes_on_where_it_was(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = prepare(tmp_path, LR)
    first = start(folder, *LONG, trials=1)
    metrics = folder / "tunes/tiny/runs/trial-0/metrics.jsonl"
    first.wait_for(lambda: metrics.exists() and metrics.read_text().count("\n") > 2)
    first.signal(number)
    assert first.wait() == status
    assert "Traceback" not in first.output
    if number != signal.SIGKILL:
        assert states(folder) == {"interrupted": 1, "waiting": 1}
    num_epochs = metrics.read_text().count("\n")
    second = tune(folder, *LONG, trials=1)
    assert second.wait() == 0, second.output
    assert "goes on with trial 0" in second.output
    trials = summary(folder)["trials"]
    assert [t["state"] for t in trials] == ["interrupted", "complete"]
    sessions = json.loads((metrics.parent / "provenance.json").read_text())["sessions"]
    assert sessions[1]["resumed_at_step"] >= 6 * num_epochs
    assert len(trials[1]["values"]) == LONG_EPOCHS


def _die_when_a_trial_is_told() -> None:
    optuna.Study.tell = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore


def test_a_run_that_ended_just_before_a_kill_is_not_trained_again(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    first = commands.run(arguments(trials=1), folder=folder, before=_die_when_a_trial_is_told)
    assert first.wait() == -signal.SIGKILL
    run = folder / "tunes/tiny/runs/trial-0"
    result = (run / "result.json").read_bytes()
    assert tune(folder, trials=1).wait() == 0
    assert (run / "result.json").read_bytes() == result
    assert len(json.loads((run / "provenance.json").read_text())["sessions"]) == 1
    assert [t["state"] for t in summary(folder)["trials"]] == ["interrupted", "complete"]
    assert len(summary(folder)["trials"][1]["values"]) == 4


def test_row_32_a_kill_ahead_of_any_write_loses_no_trial_and_adds_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, search_driver.__file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    findings = json.loads(done.stdout)
    assert len(findings) > 20
    assert [found["killed"] for found in findings].count(False) == 1
    for found in findings:
        assert found["resumed"] == 0
        assert found["num_counted"] == found["num_complete"] == found["num_values"] == 3
        assert found["baselines"] == [{"x": 0.5}]


def test_a_machine_that_gives_no_sign_of_life_loses_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: contextlib.ExitStack
) -> None:
    queues = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        worker = stack.enter_context(working_in(tmp_path / name))
        storage = open_storage(str(tmp_path / "shared.journal"))
        study = optuna.create_study(storage=storage, study_name="one", load_if_exists=True)
        queues.append(Queue(study, tmp_path / name, identity=name, worker=worker, seed=0))
    here, there = queues
    there.begin({"x": 1.0})
    here.begin({"x": 1.0})
    lost = there.take(3)
    assert lost is not None
    lost.suggest_float("x", 0, 2)
    second = here.take(3)
    assert second is not None
    assert (lost.number, second.number) == (0, 1)
    monkeypatch.setattr(queue, "SILENCE_SECONDS", 0.2)
    time.sleep(0.3)
    lost.set_user_attr("beat", 1)
    third = here.take(3)  # It has just been heard of, so it lives.
    assert third is not None
    assert third.number == 2
    time.sleep(0.3)
    again = here.take(3)
    assert again is not None
    assert again.user_attrs["resumes"] == 0
    assert again.user_attrs["baseline"] is True
    assert again.suggest_float("x", 0, 2) == 1.0
    assert here.take(3) is None
    assert [t.state for t in here.study.get_trials()].count(TrialState.FAIL) == 1


def test_two_folders_share_a_data_base_as_two_machines_do(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    both = [
        start(folder, "--storage", url, "--folder", name, "--json", trials=4)
        for name in ("one", "two")
    ]
    assert [command.wait() for command in both] == [0, 0], both[0].output + both[1].output
    trained = [_trained_by(command) for command in both]
    counted = summary(folder, "one")["trials"]
    assert len(counted) == 4
    assert sum(trial["is_baseline"] for trial in counted) == 1
    assert len(trained[0] + trained[1]) == len(set(trained[0] + trained[1])) == 4
    assert trained[0]
    assert trained[1]
    for name, numbers in zip(("one", "two"), trained, strict=True):
        runs = {path.name for path in (folder / name / "runs").iterdir()}
        assert runs == {f"trial-{number}" for number in numbers}
    other = tune(folder, "--storage", url, "--folder", "three", "--seed", "1", trials=6)
    assert other.wait() == 2
    assert "seed was 0 and is 1 now; give another --storage" in other.output
