"""tenfold in a notebook or a script: train a recipe, and look at what came of it."""

import contextlib
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tenfold.console.output import NotebookOutput, Output
from tenfold.data import Dataset
from tenfold.data.decoded import resize_dataset
from tenfold.data.images import Settings, with_checksums
from tenfold.data.sources import full_name
from tenfold.evaluation.evaluate import evaluate_run
from tenfold.evaluation.trained import TrainedModel, load
from tenfold.formatting import interval, percent
from tenfold.recipe import Recipe, from_keywords, load_recipe, require_effect
from tenfold.reporting.galleries import load_dataset
from tenfold.reporting.page import write_report
from tenfold.results.runs import Epoch, Metrics, read_epochs, read_result
from tenfold.run import RunFolder
from tenfold.run import open_run as open_folder
from tenfold.training.train import TrainOptions
from tenfold.training.train import train as train_in_folder


@dataclass(frozen=True, repr=False)
class Run:
    """A training run in its folder, which is read anew at each question.

    path: the folder, such as `runs/cnn/1`. dataset: what it was trained on, where `train` was given
    that as a `Dataset`. `train` and `open_run` make these. Raises TenfoldError where a file in it
    is damaged.

    >>> run = train("ann", data="digits", epochs=1, training__min_steps=0, progress=False)
    >>> run.path.as_posix(), sorted(run.metrics), run.model.image_size
    ('runs/ann/1', ['test', 'validation'], (32, 32))
    """

    path: Path
    dataset: Dataset | None = field(default=None, compare=False)

    @property
    def recipe(self) -> Recipe:
        """What it trained, or trains."""
        return load_recipe(self._folder.recipe)

    @property
    def metrics(self) -> Mapping[str, Metrics]:
        """Metrics by split, `test` and `validation`; empty until the run is finished."""
        return read_result(self._folder.result).splits if self._folder.is_finished() else {}

    @property
    def curves(self) -> dict[str, list[Any]]:
        """A list of one value an epoch for each column, for `pandas.DataFrame(run.curves)`.

        Losses are in nats, accuracies in [0, 1], times in seconds; None where nothing was measured.
        """
        epochs = read_epochs(self._folder.metrics, self._folder.timings)
        return {
            field.alias or name: [getattr(epoch, name) for epoch in epochs]
            for name, field in Epoch.model_fields.items()
        }

    @property
    def model(self) -> TrainedModel:
        """The trained model. Raises TenfoldError until there is one."""
        return load(self.path)

    def plot(self) -> "Curves":
        """Loss and accuracy by epoch, of training and validation."""
        figure, curves = Curves(figsize=(8, 3), layout="constrained"), self.curves
        for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for split in ("train", "validation"):
                values = curves[f"{split}_{quantity}"]
                if any(value is not None for value in values):
                    axes.plot(curves["epoch"], values, marker=".", label=split)
                    axes.legend()
            axes.set(xlabel="epoch", ylabel=quantity)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure

    def report(self, path: str | Path | None = None) -> Path:
        """Write the page about this run, `report.html` in its folder unless a file is named, and
        return where it is."""
        known = self.dataset
        loader = load_dataset if known is None else lambda run: known
        return write_report([self.path], None if path is None else Path(path), loader=loader)

    def evaluate(self, split: str = "test", *, data: str | Path | None = None) -> Metrics:
        """Score the model on a split of its data, or of `data`; a use of test is written down.

        Raises TenfoldError where the run is not finished, and for data that doesn't fit.
        """
        name = None if data is None else str(data)
        return evaluate_run(self._folder, split=split, data=name, purpose="Run.evaluate")

    @property
    def _folder(self) -> RunFolder:
        return RunFolder(self.path)

    def __repr__(self) -> str:
        found = [f"{percent(m.accuracy)} on {split}" for split, m in self.metrics.items()]
        state = f"unfinished after {len(self.curves['epoch'])} epochs"
        name = "/".join(self.path.resolve().parts[-2:])
        return f"Run({name}: {', '.join(reversed(found)) or state})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(split)}</td><td>{percent(m.accuracy, 2)}</td>"
            f"<td>{interval(*m.accuracy_interval)}</td><td>{m.loss:.4f}</td>"
            f"<td>{m.num_images:,}</td></tr>"
            for split, m in self.metrics.items()
        )
        heads = "".join(
            f"<th>{name}</th>" for name in ("split", "accuracy", "95 % interval", "loss", "images")
        )
        table = f"<table><tr>{heads}</tr>{rows}</table>" if rows else ""
        page = self._folder.report
        # Jupyter opens a path that is seen from the notebook's folder.
        link = f'<a href="{quote(page.as_posix())}">{escape(page.as_posix())}</a>'
        below = f"<p>Its page: {link}</p>" if page.exists() else ""
        return f"<p>{escape(repr(self))}</p>{table}{self.plot()._repr_svg_()}{below}"


class Curves(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_svg_(self) -> str:
        content = io.StringIO()
        self.savefig(content, format="svg")
        return content.getvalue()[content.getvalue().index("<svg") :]


def train(
    recipe: str | Path | Recipe,
    data: str | Path | Dataset | None = None,
    *,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    options: TrainOptions | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Run:
    """Train a recipe to the end, evaluate it, and return its run.

    recipe: a shipped one's name, the path of a `.toml` file, or a `Recipe`. data: a name, a path
    or a `Dataset`; what the recipe names, if not given. epochs, lr, batch_size and seed are short
    for `training__epochs` and so on; overrides are any fields of the recipe, with two underscores
    for the dot. options: where and how it is trained. progress: show how far it is; a notebook
    shows it in the cell's output, and there the page is written, too, to which the run links.

    A run that was interrupted is resumed where it stopped, with the same bits as if nothing had
    happened. Under a launcher (torchrun, accelerate, srun) every process calls this.

    Raises TenfoldError for wrong input, DivergedError for a loss that is not finite, and
    InterruptedRunError after saving where a signal asks for it.

    >>> run = train("ann", data="digits", epochs=2, model__widths=(32,), progress=False)
    >>> run.metrics["test"].accuracy > 0.5, len(run.curves["train_loss"]) >= 2
    (True, True)
    """
    short = {"training.epochs": epochs, "optimizer.lr": lr}
    short |= {"training.batch_size": batch_size, "seed": seed}
    given = {key: value for key, value in short.items() if value is not None}
    changes = from_keywords({**given, **overrides})
    if data is not None:
        changes["data.name"] = data.name if isinstance(data, Dataset) else full_name(data)
    wanted = load_recipe(recipe, changes)
    require_effect(wanted, epochs=epochs, lr=lr)
    dataset = None
    if isinstance(data, Dataset):
        dataset = with_checksums(resize_dataset(data, Settings(wanted.data.image_size)))
    in_notebook = progress and "ipykernel" in sys.modules
    output = NotebookOutput() if in_notebook else Output(logs=False)
    with output.training() if progress else contextlib.nullcontext() as reporter:
        done = train_in_folder(
            wanted, options=options, dataset=dataset, reporter=reporter, progress=reporter
        )
    run = Run(done.run.path, dataset)
    if in_notebook and done.writes:
        run.report()
    return run


def open_run(path: str | Path) -> Run:
    """The run in a folder, finished or not. Raises TenfoldError where there is none.

    >>> run = train("ann", data="digits", epochs=1, training__min_steps=0, progress=False)
    >>> open_run("runs/ann/1") == run
    True
    """
    return Run(open_folder(Path(path)).path)
