"""Searches that several processes share, and that are stopped and killed."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

import commands
import postgresql
from commands import Command
from searches import LONG, LONG_EPOCHS, LR, arguments, prepare, start, states, summary, tune
from tenfold.studies.search import store
from tenfold.studies.search.store import Store, open_storage


@dataclass(frozen=True)
class TakeTogether:
    """Let no driver take a trial before another is there too, however slowly one starts."""

    def __call__(self) -> None:
        """Wrap what a driver does once it has opened its storage."""
        from tenfold.studies.search import running

        real = running._Driver.run

        def run(*arguments: Any) -> None:
            Path(f"driver-{os.getpid()}").touch()
            deadline = time.monotonic() + 60
            while len(list(Path().glob("driver-*"))) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            real(*arguments)

        running._Driver.run = run  # type: ignore[method-assign]


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
    ("number", "status"),
    [
        (signal.SIGTERM, 75),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),
        pytest.param(signal.SIGKILL, -9, marks=pytest.mark.long),
    ],
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


@pytest.mark.long
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


def open_study(path: Path) -> Store:
    study = optuna.create_study(
        storage=open_storage(str(path)), study_name="one", load_if_exists=True
    )
    return Store(study, seed=0, sampler="tpe")


def test_a_driver_that_gives_no_sign_of_life_loses_its_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "GRACE_SECONDS", 1)
    monkeypatch.setattr(store, "BEAT_SECONDS", 1)
    here, there = (open_study(tmp_path / "trials.db") for _ in range(2))
    here.study.enqueue_trial({"x": 1.0}, user_attrs={"baseline": True})
    lost = there.take(3)  # Its heart has not begun to beat.
    assert lost is not None
    lost.suggest_float("x", 0, 2)
    with here:
        second = here.take(3)
        assert second is not None
        assert (lost.number, second.number) == (0, 1)
        time.sleep(2.5)
        again = here.take(3)
        assert again is not None
        assert store.resumes(here.study.trials[again.number]) == 0
        assert again.user_attrs["baseline"] is True
        assert again.suggest_float("x", 0, 2) == 1.0
        here.tell(again, 1.0)
        assert not there.tell(lost, 1.0)
        third = here.take(3)
        assert third is not None
        assert here.take(3) is None
    # What it had not told is put back at the end.
    states = [trial.state for trial in here.study.trials]
    assert states.count(TrialState.FAIL) == 3
    assert states.count(TrialState.WAITING) == 2


@pytest.mark.parametrize(
    "sampler",
    ["tpe", "random", pytest.param("gp", marks=pytest.mark.long)],  # It imports much.
)
def test_every_sampler_draws_the_same_from_the_same_trials(sampler: str) -> None:
    drawn = []
    for _ in range(2):
        study = optuna.create_study(storage=open_storage("sqlite://"))
        found = Store(study, seed=1, sampler=sampler)
        values = []
        for _ in range(5):
            trial = found.take(9)
            assert trial is not None
            values.append(trial.suggest_float("x", 0, 1))
            found.tell(trial, values[-1] ** 2)
        drawn.append(values)
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 5


@pytest.mark.parametrize("pruner", store.PRUNERS)
def test_every_pruner_but_none_stops_a_trial_that_falls_behind(pruner: str) -> None:
    study = optuna.create_study(direction="maximize", pruner=store.PRUNERS[pruner](8))
    was_pruned = []
    for number in range(12):
        trial = study.ask()
        for epoch in range(1, 9):
            trial.report(0.9 - 0.05 * number, step=epoch)
        was_pruned.append(trial.should_prune())
        study.tell(trial, 0.9 - 0.05 * number)
    assert any(was_pruned) == (pruner != "none")
    assert not was_pruned[0]


def test_two_folders_share_a_data_base_as_two_machines_do(tmp_path: Path) -> None:
    folder = prepare(tmp_path)
    url = f"sqlite:///{tmp_path / 'trials.db'}"
    both = [
        commands.start(
            arguments("--storage", url, "--folder", name, "--json", trials=4),
            folder=folder,
            before=TakeTogether(),
        )
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


def _is_training(search: Path) -> bool:
    """Whether a trial of this folder is under way, with epochs left."""
    lines = [log.read_text().count("\n") for log in search.glob("runs/*/metrics.jsonl")]
    return any(2 <= number < LONG_EPOCHS - 10 for number in lines)


@pytest.mark.long
@pytest.mark.skipif(postgresql.PROGRAMS is None, reason="needs Debian's package postgresql")
def test_three_drivers_share_a_postgresql_server_and_one_is_killed(tmp_path: Path) -> None:
    folder = prepare(tmp_path, LR)
    names = ("one", "two", "three")
    with postgresql.server() as url:
        drivers = [
            start(folder, *LONG, "--storage", url, "--folder", name, "--json", trials=9)
            for name in names
        ]
        drivers[0].wait_for(lambda: _is_training(folder / "one"))
        drivers[0].kill()
        assert [driver.wait() for driver in drivers[1:]] == [0, 0], drivers[1].output
        # The last to end has them all.
        trials = max((summary(folder, name)["trials"] for name in names[1:]), key=len)
        finished = [trial for trial in trials if trial["state"] in ("complete", "pruned")]
        assert len(finished) == 9
        assert [trial["number"] for trial in trials] == list(range(len(trials)))
        trained = [number for driver in drivers for number in _trained_by(driver)]
        assert sorted(trained) == [trial["number"] for trial in finished]
        assert all(map(_trained_by, drivers[1:]))
        again = [trial for trial in trials if trial["resumes"] is not None]
        assert again
        assert {trials[trial["resumes"]]["state"] for trial in again} == {"interrupted"}
