"""Finished runs of equal recipes, taken over from other folders instead of trained again."""

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tenfold.errors import TenfoldError
from tenfold.files import read_json, replacing, write_json
from tenfold.locks import LOCK_FILES
from tenfold.recipe import Recipe, recipe_from_dict
from tenfold.results.runs import read_provenance, read_result
from tenfold.run import RunFolder, describe_environment
from tenfold.studies.definition import Trial, without_words

logger = logging.getLogger("tenfold")

ORIGIN = "reused.json"
"""The file in a run folder that says where it was taken over from."""


def take_over(
    places: Sequence[Path], wanted: Sequence[Trial], *, runs: Path, skip_broken: bool = False
) -> int:
    """Copy finished runs that are in `places` and `wanted` to `runs/<trial>`; how many there were.

    places: folders of studies, or of runs. A run counts if its recipe is the same in all but name
    and description, and if its images are those that the recipe stands for now; equal recipes
    and seeds give equal results. Of another tenfold or torch than this one that need not be so,
    which a warning says. Files are linked where they can be. Raises TenfoldError for a place that
    holds no runs.
    """
    from tenfold.evaluation.loading import load_data, photo_size

    found, num_taken = _finished_runs(places), 0
    data: dict[tuple[str, int, int], tuple[dict[str, str], bool]] = {}
    for trial in wanted:
        recipe, target = trial.loaded, RunFolder(runs / trial.trial)
        run = found.get(without_words(recipe))
        # What a time limit allows depends on the machine.
        if run is None or recipe.training.time_limit_seconds or target.is_held():
            continue
        key = (recipe.data.name, recipe.data.image_size, photo_size(recipe))
        if key not in data:
            dataset = load_data(recipe, skip_broken=skip_broken)
            data[key] = dict(dataset.checksums), dataset.test is not None
        if _is_made_with(run, *data[key]):
            _warn_of_versions(run)
            _copy(run, target)
            num_taken += 1
    return num_taken


def origin_of(run: RunFolder) -> str | None:
    """Where `run` was taken over from; None where it was trained in its place."""
    path = run.path / ORIGIN
    return str(read_json(path)["from"]) if path.exists() else None


def remove_unfinished_copies(runs: Path) -> None:
    """Remove what a kill left of runs that were being taken over."""
    for path in runs.glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _finished_runs(places: Sequence[Path]) -> dict[Recipe, RunFolder]:
    """The finished runs in `places` by their recipes; of several equal ones the first."""
    found: dict[Recipe, RunFolder] = {}
    for place in places:
        if (place / "recipe.json").exists():
            candidates = [place]
        elif (place / "study.json").exists():
            candidates = sorted(path.parent for path in place.glob("runs/*/recipe.json"))
        else:
            raise TenfoldError(
                f"--reuse {place} is neither the folder of a study nor that of a run; give one "
                "such as studies/epochs or runs/cnn/1."
            )
        for run in map(RunFolder, candidates):
            with contextlib.suppress(TenfoldError):  # A damaged run is trained again.
                if run.is_finished():
                    recipe = recipe_from_dict(read_json(run.recipe))
                    found.setdefault(without_words(recipe), run)
    return found


def _is_made_with(run: RunFolder, known: dict[str, str], has_test: bool) -> bool:
    """Whether `run` saw the images of these checksums, and was evaluated on a test there is."""
    try:
        checksums = read_provenance(run.provenance).data.checksums
        splits = read_result(run.result).splits
    except TenfoldError:
        return False
    return checksums == known and ("test" in splits or not has_test)


def _warn_of_versions(run: RunFolder) -> None:
    """Say where `run` was made with other code than it would be made with now."""

    def versions(environment: Mapping[str, Any]) -> dict[str, str]:
        commit = (environment.get("git") or {}).get("commit") or ""
        version = f"{environment.get('tenfold')} {commit[:7]}".strip()
        return {"tenfold": version, "torch": str(environment.get("libraries", {}).get("torch"))}

    then, now = versions(read_json(run.provenance)), versions(describe_environment())
    changed = [f"{name} {then[name]}, now {now[name]}" for name in now if then[name] != now[name]]
    if changed:
        logger.warning(
            "%s was made with %s; its result may not be what it would be today.",
            run.path,
            " and ".join(changed),
        )


def _copy(run: RunFolder, target: RunFolder) -> None:
    """Put the run in its new place, whole or not at all."""

    def link_or_copy(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    target.path.parent.mkdir(parents=True, exist_ok=True)
    ignored = shutil.ignore_patterns(*LOCK_FILES, "*.tmp", ORIGIN)
    try:
        # Files of a run are never changed in place, so links are as good as copies.
        with replacing(target.path) as temporary:
            shutil.copytree(run.path, temporary, ignore=ignored, copy_function=link_or_copy)
            write_json(temporary / ORIGIN, {"from": str(run.path)})
            if target.path.exists():
                shutil.rmtree(target.path)  # An unfinished run of the same recipe.
    except OSError as error:
        raise TenfoldError(
            f"{run.path} can't be copied to {target.path} ({error}); leave out --reuse, or mend "
            "that."
        ) from error
