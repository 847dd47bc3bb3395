"""Trials, each trained in a run folder of its own, resumable: `run_study`."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenfold.errors import InterruptedRunError, TenfoldError
from tenfold.files import read_json
from tenfold.locks import hold
from tenfold.recipe import Recipe
from tenfold.run import RunFolder
from tenfold.studies.plan import agree_on_plan, load_recipes, read_plan, require_study_folder
from tenfold.studies.results import Record, append_record, drop_torn_line, read_log
from tenfold.studies.trials import Trial, expand

__all__ = ["Record", "StudyOutcome", "Trial", "expand", "load_study", "run_study"]

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class StudyOutcome:
    """What is known of a study's trials, in their order.

    num_run: the trials that this call trained; the others were done before.
    """

    records: tuple[Record, ...]
    num_finished: int
    num_failed: int
    num_run: int


def run_study(
    recipe: str,
    trials: Sequence[Trial],
    *,
    folder: Path,
    train_trial: Callable[[Recipe, Path], RunFolder],
    overrides: Sequence[str] = (),
    on_trial: Callable[[Trial, int, int], None] | None = None,
    retry_failed: bool = False,
) -> StudyOutcome:
    """Train every trial of `recipe` that `folder` has no result of, one after the other.

    recipe: a name or path, as `load_recipe` takes it, and overrides that all trials share.
    train_trial: trains a recipe to its end in
    a run folder, or goes on with what is there, and returns the run. on_trial: called before each
    training with the trial, its number from 1, and the number of all. retry_failed: train those
    again that failed in an earlier call.

    A trial that raises is recorded as failed, and the others go on. InterruptedRunError and
    KeyboardInterrupt end the study, which the same call resumes. Raises TenfoldError before
    anything is written where a trial's values don't fit the recipe, and where the folder holds
    something else, another study, or a driver that is at work.
    """
    recipes = load_recipes(recipe, trials, overrides=overrides)
    require_study_folder(folder)
    with hold(folder):
        agree_on_plan(folder, recipe, recipes)
        records = _open_results(folder, recipes)
        num_run = 0
        for number, (trial, resolved) in enumerate(recipes.items(), start=1):
            status = records[trial.name]["status"] if trial.name in records else None
            # A driver that died between a run's end and its record left a finished run.
            must_train = not _run_of(folder, trial).is_finished()
            if status == "finished" or (status == "failed" and must_train and not retry_failed):
                continue
            if must_train:
                num_run += 1
                if on_trial is not None:
                    on_trial(trial, number, len(recipes))
            record = _finish_trial(trial, resolved, folder=folder, train_trial=train_trial)
            append_record(_results(folder), record)
            records[trial.name] = record
    ordered = tuple(records[trial.name] for trial in recipes)
    num_failed = sum(record["status"] == "failed" for record in ordered)
    if num_failed:
        logger.warning(
            "%d of %d trials failed; the same command with --retry-failed trains them again.",
            num_failed,
            len(ordered),
        )
    return StudyOutcome(ordered, len(ordered) - num_failed, num_failed, num_run)


def load_study(folder: Path) -> list[Record]:
    """The records of the study in `folder`, in the order of its trials; the latest of each.

    Raises TenfoldError where there is no study.
    """
    names = list(read_plan(folder))
    latest = {record["trial"]: record for record in read_log(_results(folder)).records}
    return [latest[name] for name in names if name in latest]


def _results(folder: Path) -> Path:
    return folder / "results.jsonl"


def _run_of(folder: Path, trial: Trial) -> RunFolder:
    return RunFolder(folder / "runs" / trial.name)


def _open_results(folder: Path, recipes: Mapping[Trial, Recipe]) -> dict[str, Record]:
    """The latest record of each trial, after the removal of a last line that a crash tore."""
    path = _results(folder)
    log = read_log(path)
    records = {record["trial"]: record for record in log.records}
    if log.num_torn_bytes:
        logger.warning(
            "The last line of %s is torn; it is dropped, and its trial is run again.", path
        )
        # A run without its result is trained again from its last checkpoint. This comes before
        # the line is dropped, so that a crash between the two loses nothing.
        for trial in recipes:
            if trial.name not in records:
                _run_of(folder, trial).result.unlink(missing_ok=True)
        drop_torn_line(path, log)
    return records


def _finish_trial(
    trial: Trial,
    recipe: Recipe,
    *,
    folder: Path,
    train_trial: Callable[[Recipe, Path], RunFolder],
) -> Record:
    """Train a trial, unless its run is finished, and describe how it went."""
    run = _run_of(folder, trial)
    record = Record(
        trial=trial.name,
        overrides=list(trial.overrides),
        seed=trial.seed,
        run=f"runs/{trial.name}",
        status="failed",
        error=None,
        splits={},
        training_seconds=None,
    )
    try:
        if not run.is_finished():
            _remove_unbegun(run)
            run = train_trial(recipe, run.path)
        result = read_json(run.result)
        splits = {name: {"accuracy": m["accuracy"]} for name, m in result["splits"].items()}
        seconds = result["training"]["training_seconds"]
    except InterruptedRunError:
        raise
    except Exception as error:
        # Whatever went wrong in this one, the others are worth having.
        sentence = str(error) if isinstance(error, TenfoldError) else _describe_bug(error)
        logger.warning("%s failed: %s", trial.name, sentence)
        logger.debug("%s failed", trial.name, exc_info=True)
        return {**record, "error": sentence}
    return {**record, "status": "finished", "splits": splits, "training_seconds": seconds}


def _remove_unbegun(run: RunFolder) -> None:
    """Remove what a kill left before the run had its recipe: temporary files and a lock."""
    if run.path.is_dir() and not run.recipe.exists() and not run.is_held():
        shutil.rmtree(run.path)


def _describe_bug(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
