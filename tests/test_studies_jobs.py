"""Studies whose trials are trained in workers: rows 32, 33 and 34 hold for them too."""

import contextlib
import glob
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import commands
import study_driver
from study_driver import NAMES, callers_of, calls_of, drive, drive_jobs, records_of
from tenfold import engine
from tenfold.errors import InterruptedRunError, TenfoldError
from tenfold.files import read_json, write_json
from tenfold.run import RunFolder
from tenfold.studies.running import Record, RunOptions, begun_with

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and kills as POSIX does")


def pids_of(folder: Path) -> dict[str, int]:
    """The process that trained each trial last, by trial."""
    return {name: pids[-1] for name, pids in callers_of(folder).items()}


def writer_of(folder: Path) -> int | None:
    """The driver that holds the study."""
    with contextlib.suppress(OSError, ValueError):
        return int(json.loads((folder / "writer.json").read_text())["process"])
    return None


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        # Where nobody waits for them, the dead are still listed.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_until(condition: object, *, seconds: float = 30) -> None:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def start_driver(folder: Path, kind: str, **environment: str) -> commands.Command:
    before = study_driver.Instead(("jobs", str(folder), kind))
    return commands.start([], folder=folder.parent, environment=environment, before=before)


@contextlib.contextmanager
def driving(folder: Path, kind: str, **environment: str) -> Iterator[commands.Command]:
    """A driver whose two workers are at work: one trial is finished, and two are under way."""
    driver = start_driver(folder, kind, **environment)
    try:
        driver.wait_for(lambda: {*NAMES[1:3]} <= set(calls_of(folder)))
        yield driver
    finally:
        driver.kill()


def without_order(records: list[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.trial)


def test_each_trial_has_a_process_and_the_results_are_the_same(tmp_path: Path) -> None:
    outcome = drive_jobs(tmp_path / "jobs", "train at once")
    assert (outcome.num_finished, outcome.num_failed, outcome.num_run) == (4, 0, 4)
    pids = pids_of(tmp_path / "jobs")
    assert len({*pids.values(), os.getpid()}) == 5
    assert not any(map(is_alive, pids.values()))
    assert outcome.records == drive(tmp_path / "alone").records
    plans = [read_json(tmp_path / name / "study.json") for name in ("jobs", "alone")]
    assert plans[0] == plans[1]
    assert drive_jobs(tmp_path / "jobs", "train at once").num_run == 0


@pytest.mark.parametrize(
    ("visible", "number", "expected"),
    [
        (None, 3, ["0", "1", "2"]),
        ("4,GPU-7f,-1,5", 2, ["4", "GPU-7f"]),
        ("3", 1, []),
        (None, 1, []),
        ("", 0, []),
    ],
)
def test_the_gpus_that_can_be_shared_out(monkeypatch, visible, number, expected) -> None:
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/nvidia0", "/dev/nvidia1"])
    assert engine.visible_gpus() == expected


def test_workers_share_out_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "visible_gpus", lambda: ["4", "GPU-7f", "2"])
    assert drive_jobs(tmp_path, "note GPU").num_finished == 4
    # Two at once: the third is never needed.
    assert {path.read_text() for path in tmp_path.glob("runs/*/gpu")} == {"4", "GPU-7f"}


def test_what_a_library_prints_spoils_nothing_and_notices_arrive(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert drive_jobs(tmp_path / "study", "chatter").num_finished == 4
    assert [r.getMessage() for r in caplog.records if "notice" in r.getMessage()].count(
        f"{NAMES[0]}: a notice from {NAMES[0]}"
    ) == 1


def test_row_34_failed_workers_are_recorded_and_the_others_finish(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "study"
    outcome = drive_jobs(folder, "fail somehow")
    assert (outcome.num_finished, outcome.num_failed, outcome.num_run) == (1, 3, 4)
    assert [record.error for record in records_of(folder)] == [
        "The loss is nan in epoch 1; lower optimizer.lr.",
        "ZeroDivisionError: division by zero",
        "Its process was killed, as happens when memory runs out; run fewer --jobs at once, or "
        "make training.batch_size smaller.",
        None,
    ]
    assert f"{NAMES[2]} failed: Its process was killed" in caplog.text
    assert "3 of 4 trials failed" in caplog.text
    assert drive_jobs(folder, "fail somehow").num_run == 0
    retried = drive_jobs(folder, "train at once", retry_failed=True)
    assert (retried.num_finished, retried.num_run) == (4, 3)


def test_row_34_a_worker_that_ends_without_a_word_is_a_failure(tmp_path: Path) -> None:
    outcome = drive_jobs(tmp_path / "study", "leave at once")
    assert {record.error for record in outcome.records} == {
        "Its process ended with status 7 and the library is of another version"
    }


@pytest.mark.slow
def test_row_32_workers_of_a_killed_driver_save_and_end_and_the_next_one_resumes(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "study"
    with driving(folder, "wait and save", SECONDS_TO_SAVE="8"):
        orphans = [pids_of(folder)[name] for name in NAMES[1:3]]
        assert all(map(is_alive, orphans))
    second = start_driver(folder, "train at once")
    # It is at work while the orphans still save and hold their folders.
    second.wait_for(lambda: writer_of(folder) == second.pid)
    assert all(map(is_alive, orphans))
    assert second.wait() == 0, second.output
    assert not any(map(is_alive, orphans))
    assert all((folder / "runs" / name / "saved").exists() for name in NAMES[1:3])
    assert calls_of(folder) == {NAMES[0]: 1, NAMES[1]: 2, NAMES[2]: 2, NAMES[3]: 1}
    assert without_order(records_of(folder)) == without_order(
        list(drive(tmp_path / "alone").records)
    )


@pytest.mark.parametrize(
    ("number", "status"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.long), (signal.SIGTERM, 75)],
)
def test_row_32_a_signal_to_the_driver_stops_the_workers_which_save(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    folder = tmp_path / "study"
    with driving(folder, "wait and save") as driver:
        driver.signal(number)
        assert driver.wait(30) == status
    assert driver.output == (
        f"Stopped by {number.name} with 2 under way; everything is saved, and the same command "
        "goes on from there. Finished so far: 1 of 4 runs."
    )
    assert not any(map(is_alive, pids_of(folder).values()))
    assert all((folder / "runs" / name / "saved").exists() for name in NAMES[1:3])
    assert [record.trial for record in records_of(folder)] == NAMES[:1]
    outcome = drive_jobs(folder, "train at once")
    assert (outcome.num_finished, outcome.num_run) == (4, 3)
    assert calls_of(folder)[NAMES[0]] == 1


def test_a_second_ctrl_c_ends_workers_that_do_not_heed_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    driver = start_driver(folder, "never end")
    try:
        driver.wait_for(lambda: len(calls_of(folder)) == 2)
        driver.signal(signal.SIGINT)
        time.sleep(0.5)
        assert driver.process.exitcode is None
        driver.signal(signal.SIGINT)
        assert driver.wait(20) == 130
    finally:
        driver.kill()
    assert not any(map(is_alive, pids_of(folder).values()))
    assert records_of(folder) == []


@pytest.mark.long
def test_a_worker_that_somebody_stops_is_no_failure(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with driving(folder, "wait and save") as driver:
        for name in NAMES[1:]:
            wait_until(lambda name=name: name in calls_of(folder))
            os.kill(pids_of(folder)[name], signal.SIGTERM)
        assert driver.wait(30) == InterruptedRunError.exit_status
    assert "Somebody stopped the process of" in driver.output
    assert [record.trial for record in records_of(folder)] == NAMES[:1]
    assert drive_jobs(folder, "train at once").num_finished == 4


def test_threads_are_shared_out_and_a_resumed_run_keeps_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8), raising=False)
    monkeypatch.setattr("psutil.cpu_count", lambda **_: 6)
    fresh, begun = RunFolder(tmp_path / "fresh"), RunFolder(tmp_path / "begun")
    write_json(begun.provenance, {"threads": 5})
    write_json(begun.checkpoints / "1.json", {})

    def threads(run: RunFolder, num_jobs: int, asked: int | None = None) -> int | None:
        options = RunOptions(num_jobs=num_jobs, threads=asked)
        item = options.item("one", run, threads=begun_with(run, asked))
        said = item.arguments[item.arguments.index("--no-report") + 1 :]
        return int(said[1]) if said else None

    assert threads(fresh, 1) is None
    assert threads(fresh, 2) == 3
    assert threads(fresh, 40) == 1
    assert threads(fresh, 2, asked=4) == 4
    assert threads(begun, 2) == 5
    assert threads(begun, 2, asked=5) == 5
    with pytest.raises(TenfoldError, match="begun was begun with --threads 5, on which its result"):
        threads(begun, 1, asked=4)
    assert RunOptions().item("one", fresh).threads == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads(fresh, 2) is None
    assert RunOptions().item("one", fresh).threads == 2


def test_other_threads_than_those_of_finished_runs_are_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(tmp_path)
    for run in (tmp_path / "runs").iterdir():
        write_json(run / "provenance.json", {"threads": 3})
    (tmp_path / "runs" / NAMES[0] / "result.json").unlink()
    drive(tmp_path, threads=3)
    assert "--threads" not in caplog.text
    (tmp_path / "runs" / NAMES[0] / "result.json").unlink()
    drive(tmp_path, threads=2)
    assert "repeat the command with --threads 3" in caplog.text
    caplog.clear()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    (tmp_path / "runs" / NAMES[0] / "result.json").unlink()
    drive(tmp_path)
    assert "--threads" not in caplog.text
