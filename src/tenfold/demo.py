"""The demonstration: a dense and a convolutional network on the same images, side by side."""

import time
from pathlib import Path

from tenfold.console.output import Output
from tenfold.console.summaries import show_comparison
from tenfold.data import load
from tenfold.data.sources import SourcesUnreachableError
from tenfold.formatting import duration
from tenfold.recipe import load_recipe
from tenfold.reporting.page import write_report
from tenfold.training.train import TrainOptions, train

RECIPES = ("ann", "cnn-quick")


def run_demo(runs: Path, *, seed: int, output: Output) -> Path:
    """Train and evaluate `ann` and `cnn-quick`, then write the page that compares them.

    Where CIFAR-10 can't be reached, scikit-learn's digits take its place, and both the terminal
    and the page say so.
    """
    notes = _fetch(output)
    # Few steps suffice for digits.
    data = (
        ["data.name=digits", "data.image_size=16", "training.min_steps=60"]
        if notes
        else ["data.name=cifar10"]
    )
    folders = []
    started = time.monotonic()
    for name in RECIPES:
        recipe = load_recipe(name, [f"seed={seed}", *data])
        with output.training() as reporter:
            options = TrainOptions(runs=runs, notes=notes)
            outcome = train(recipe, options=options, reporter=reporter, progress=reporter)
            folders.append(outcome.run.path)
    seconds = time.monotonic() - started
    page = write_report(folders, runs / "demo.html")
    show_comparison(output, folders)
    output.say(f"Training and evaluating both took {duration(seconds)}.")
    return page


def _fetch(output: Output) -> tuple[str, ...]:
    """Bring CIFAR-10 into the cache; if that fails, the note that says what is used instead."""
    try:
        with output.progress() as progress:
            dataset = load("cifar10", progress=progress)
        output.say(f"CIFAR-10 from {dataset.source}.")
        return ()
    except SourcesUnreachableError as error:
        output.shout(str(error))
        note = (
            "CIFAR-10 could not be reached, so this page is about scikit-learn's handwritten "
            "digits: a far easier task, whose accuracies say nothing about CIFAR-10."
        )
        output.shout(note)
        output.record("fallback", dataset="digits", reason=str(error))
        return (note,)
