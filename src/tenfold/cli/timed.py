"""`tenfold train --time`: a recipe that is done in time on this machine."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from tenfold.cli.options import seconds_of
from tenfold.console.output import Output
from tenfold.errors import TenfoldError
from tenfold.formatting import duration, percent

if TYPE_CHECKING:
    from tenfold.data import Dataset
    from tenfold.recipe import Recipe
    from tenfold.speed.planning import Planned
    from tenfold.training.train import TrainOptions


class Timed(NamedTuple):
    """What to train and how, with the data set where a plan was made."""

    recipe: "Recipe"
    options: "TrainOptions"
    dataset: "Dataset | None" = None


def recipe_within(
    time: str,
    asked: "Recipe | None",
    changes: Sequence[str],
    *,
    output: Output,
    options: "TrainOptions",
    page: bool,
) -> Timed:
    """The recipe `asked`, or the best of the fast ones, so that its run ends within `time`.

    An unfinished run where `options` say that the same command began keeps
    its plan, unless `options` ask for a new one. Raises TenfoldError under a launcher.
    """

    import torch

    from tenfold.evaluation.loading import load_data
    from tenfold.recipe import load_recipe
    from tenfold.run import RunFolder, runs_of
    from tenfold.speed.planning import plan_run, unfinished_plan
    from tenfold.training.process import num_launched, prepare_process, seconds_since_start

    if num_launched() > 1:
        raise TenfoldError(
            "--time plans for one process, and the launcher started several; start tenfold without "
            "it, or give epochs."
        )
    seconds = seconds_of(time)
    if asked is not None and asked.stages:
        raise TenfoldError(
            f"--time can't divide its time over the stages of {asked.name}; leave it out, and give "
            "fewer epochs to save time."
        )
    named = f"{asked.name if asked is not None else 'fast'}-in-{time}"
    wanted = asked or load_recipe("fast-91", changes)
    if not options.new:
        folder = options.folder
        earlier = [RunFolder(folder)] if folder is not None else runs_of(options.runs, named)
        begun = unfinished_plan(earlier, wanted, changes, own_network=asked is None)
        if begun is not None:
            return Timed(begun, replace(options, threads=None))  # Those of before.
    prepare_process(options.threads)
    with output.progress() as progress:
        dataset = load_data(wanted, skip_broken=options.skip_broken, progress=progress)
    has_gpu = torch.cuda.is_available() and not options.cpu
    planned = plan_run(
        asked,
        dataset,
        seconds=seconds,
        spent=seconds_since_start(),
        overrides=changes,
        device=torch.device("cuda" if has_gpu else "cpu"),
        evaluates_test=options.evaluate_test,
        writes_page=page,
        may_set_threads=options.threads is None and "OMP_NUM_THREADS" not in os.environ,
    )
    _tell(planned, output, time=time, writes_page=page)
    options = replace(options, threads=options.threads or torch.get_num_threads())
    return Timed(planned.recipe.but(name=named), options, dataset)


def _tell(planned: "Planned", output: Output, *, time: str, writes_page: bool) -> None:
    """Say what is trained, for how long, and what may be expected of it."""
    recipe = planned.recipe
    limit = recipe.training.time_limit_seconds
    output.record(
        "plan",
        recipe=recipe.to_dict(),
        expected=planned.expected,
        training_seconds=limit,
        closing_seconds=planned.closing_seconds,
    )
    expected = ""
    if planned.expected is not None:
        expected = f" About {percent(planned.expected, 0)} of test pictures right may be expected."
    closing = "evaluation and page" if writes_page else "evaluation"
    output.say(
        f"Within {time}: {recipe.name}, {duration(limit)} of training and "
        f"{duration(planned.closing_seconds)} for {closing}.{expected}"
    )
