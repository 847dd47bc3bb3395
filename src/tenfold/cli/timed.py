"""`tenfold train --time`: a recipe that is done in time on this machine."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tenfold.cli.options import seconds_of
from tenfold.console.output import Output, duration, percent

if TYPE_CHECKING:
    from tenfold.recipe import Recipe


def recipe_within(
    time: str,
    name: str | None,
    changes: Sequence[str],
    *,
    output: Output,
    unfinished_in: Path | None,
    skip_broken: bool,
    threads: int | None,
    cpu: bool,
) -> "Recipe":
    """The recipe `name`, or the best of the fast ones, so that its run ends within `time`.

    unfinished_in: the folder of runs; one there that the same command began keeps its plan.
    """
    from dataclasses import replace

    import torch

    from tenfold.evaluation.loading import load_data
    from tenfold.recipe import load_recipe
    from tenfold.speed.planning import plan_run, unfinished_plan
    from tenfold.training.process import prepare_process, seconds_since_start

    seconds = seconds_of(time)
    asked = load_recipe(name, changes) if name is not None else None
    named = f"{asked.name if asked is not None else 'fast'}-in-{time}"
    wanted = asked or load_recipe("fast-91", changes)
    if unfinished_in is not None:
        begun = unfinished_plan(unfinished_in, named, wanted, own_network=asked is None)
        if begun is not None:
            return begun
    prepare_process(threads)
    with output.progress() as progress:
        dataset = load_data(wanted, skip_broken=skip_broken, progress=progress)
    planned = plan_run(
        asked,
        dataset,
        seconds=seconds - seconds_since_start(),
        overrides=changes,
        device=torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu"),
    )
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
    output.say(
        f"Within {time}: {recipe.name}, {duration(limit)} of training and "
        f"{duration(planned.closing_seconds)} for evaluation and page.{expected}"
    )
    return replace(recipe, name=named)
