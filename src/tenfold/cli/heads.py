"""`tenfold heads`: several heads on the features of a pretrained network, side by side."""

from typing import Annotated

import typer

from tenfold.cli.options import (
    DataOption,
    Machine,
    SetOption,
    SkipBrokenOption,
    data_override,
    require_data,
)
from tenfold.console.output import Output
from tenfold.errors import TenfoldError
from tenfold.formatting import duration, percent


def heads(
    output: Output,
    recipe: Annotated[str, "A recipe with a pretrained network, such as transfer-lite0."],
    data: DataOption = None,
    overrides: SetOption = None,
    *,
    machine: Machine,
    skip_broken: SkipBrokenOption = False,
    test: Annotated[
        bool, typer.Option("--test/--no-test", help="Score the test split too, once a head.")
    ] = False,
) -> None:
    """Compare a linear head, an MLP, nearest neighbours and logistic regression on features."""
    from tenfold.recipe import load_recipe

    require_data(data)
    chosen = load_recipe(recipe, [*(overrides or []), *data_override(data)])
    require_data(chosen.data.name)

    from tenfold.data.splits import training_data
    from tenfold.evaluation.evaluate import split_of, splitting
    from tenfold.evaluation.loading import load_data
    from tenfold.training.devices import make_accelerator
    from tenfold.training.heads import compare_heads, require_pretrained
    from tenfold.training.process import prepare_process

    require_pretrained(chosen)
    prepare_process(machine.threads)
    rows = []
    with output.progress() as progress:
        dataset = load_data(chosen, skip_broken=skip_broken, progress=progress)
        images = None
        if test:
            try:
                images = split_of(dataset, "test", chosen.data)
            except TenfoldError as error:
                output.say(str(error))
        train = training_data(dataset, **splitting(chosen.data))
        accelerator = make_accelerator(chosen)
        for found in compare_heads(
            chosen, train, images, accelerator=accelerator, progress=progress
        ):
            output.record("head", **found._asdict())
            accuracies = percent(found.validation), percent(found.test)
            rows.append([found.head, found.chosen, *accuracies, duration(found.seconds)])
    columns = ["head", "chosen", "validation", "test", "time"]
    output.table(f"Heads on the features of {chosen.name}", columns, rows)
