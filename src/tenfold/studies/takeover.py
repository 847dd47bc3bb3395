"""Finished runs of equal recipes, taken over from other folders instead of trained again."""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tenfold.errors import TenfoldError
from tenfold.files import read_json, replacing, write_json
from tenfold.locks import LOCK_FILES
from tenfold.own_parts import sum_of
from tenfold.recipe import Recipe, load_recipe
from tenfold.recipe.own_code import own_code
from tenfold.results.runs import read_provenance, read_result
from tenfold.run import RunFolder
from tenfold.studies.definition import Trial, without_words

ORIGIN = "reused.json"
"""The file in a run folder that says where it was taken over from."""


def take_over(
    places: Sequence[Path], wanted: Sequence[Trial], *, runs: Path, skip_broken: bool = False
) -> int:
    """Copy finished runs that are in `places` and `wanted` to `runs/<trial>`; how many there were.

    places: folders of studies, or of runs. A run counts if its recipe is the same in all but name
    and description, and if its images, corrections of labels, teacher and code of one's own are
    those that the recipe stands for now; equal recipes and seeds give equal results. Files are
    linked where they can be. Raises TenfoldError for a place that holds no runs.
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
        if _is_made_with(run, recipe, *data[key]):
            _copy(run, target)
            num_taken += 1
    return num_taken


def origin_of(run: RunFolder) -> str | None:
    """Where `run` was taken over from; None where it was trained in its place."""
    path = run.path / ORIGIN
    return str(read_json(path)["from"]) if path.exists() else None


def _finished_runs(places: Sequence[Path]) -> dict[Recipe, RunFolder]:
    """The finished runs in `places` by their recipes; of several equal ones the first."""
    found: dict[Recipe, RunFolder] = {}
    for place in places:
        is_study = (place / "study.json").exists()
        files = sorted(place.glob("runs/*/recipe.json" if is_study else "recipe.json"))
        if not files and not is_study:
            raise TenfoldError(
                f"--reuse {place} is neither the folder of a study nor that of a run; give one "
                "such as studies/epochs or runs/cnn/1."
            )
        for run in (RunFolder(path.parent) for path in files):
            with contextlib.suppress(TenfoldError):  # A damaged run is trained again.
                if run.is_finished():
                    found.setdefault(without_words(load_recipe(run.recipe)), run)
    return found


def _is_made_with(
    run: RunFolder, recipe: Recipe, checksums: dict[str, str], has_test: bool
) -> bool:
    """Whether `run` was made with what `recipe` stands for now, images of these checksums among
    it, and was evaluated on a test there is."""
    from tenfold.training.distillation import checksum_of

    corrections = recipe.data.corrections
    with contextlib.suppress(TenfoldError, OSError):  # What is missing is said in training.
        made = read_provenance(run.provenance)
        before = (made.data.checksums, made.data.corrections, made.teacher, made.code)
        code = {name: sum_of(path) for name, path in own_code(recipe).items()}
        corrected = sum_of(Path(corrections)) if corrections else None
        is_same = before == (checksums, corrected, checksum_of(recipe.distillation), code)
        return is_same and ("test" in read_result(run.result).splits or not has_test)
    return False


def _copy(run: RunFolder, target: RunFolder) -> None:
    """Put the run in its new place, whole or not at all."""

    def link_or_copy(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    ignored = shutil.ignore_patterns(*LOCK_FILES, "*.tmp", ORIGIN)
    try:
        target.path.parent.mkdir(parents=True, exist_ok=True)
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
