"""Run folders -> one self-contained HTML file; and a run's figures as files of their own."""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from markupsafe import Markup
from matplotlib.figure import Figure

from tenfold.audit.store import known_answers, sections
from tenfold.errors import TenfoldError
from tenfold.evaluation.runs import Run, read_run, read_runs
from tenfold.files import read_json, without_folders, write_text
from tenfold.recipe import recipe_from_dict
from tenfold.recipe.dotted import as_texts
from tenfold.reporting import figures
from tenfold.reporting.comparison import view_runs
from tenfold.reporting.explorer import explore_run
from tenfold.reporting.galleries import Loader, SplitImages, galleries, load_dataset
from tenfold.reporting.roc import points_of, two_classes
from tenfold.reporting.svg import standalone_svg
from tenfold.reporting.templating import environment, render_markdown, render_page
from tenfold.run import RunFolder

_STYLE_SHEETS = ("style.css", "report.css", "explorer.css")
HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
"""Data sets as the Hugging Face hub calls them."""

_EXPORTS = {"float": "in floats", "int8": "in eight bits"}


def write_report(
    run_folders: Sequence[Path], path: str | Path | None = None, *, loader: Loader = load_dataset
) -> Path:
    """Write a page about one run, or one that compares several, and return where it is.

    path: the HTML file; for a single run `report.html` in its folder where None.
    loader: gives a run's data set back, for its images; where it fails, the page says so in
        their place.

    Raises TenfoldError where a folder holds no run or a damaged one, where the same run is named
    twice, where `path` is missing for several runs, and where the file can't be written.

    >>> from tenfold import train
    >>> run = train("ann", data="digits", epochs=1, training__min_steps=0, progress=False)
    >>> write_report([run.path]).as_posix()
    'runs/ann/1/report.html'
    """
    folders = [Path(folder) for folder in run_folders]
    if not folders:
        raise TenfoldError("A report needs at least one run folder, such as runs/cnn/1.")
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < len(places):
        twice = next(folder for folder in folders if places.count(folder.resolve()) > 1)
        raise TenfoldError(f"The run {twice} is named twice; name each run once.")
    if path is None and len(folders) > 1:
        raise TenfoldError(
            f"A comparison of {len(folders)} runs needs a file to be written to; name one, such as "
            "comparison.html."
        )
    path = folders[0] / "report.html" if path is None else Path(path)
    runs = read_runs(folders)
    write_text(path, render_runs(runs, loader=loader))
    if len(runs) == 1 and runs[0].shown_scores and known_answers(RunFolder(runs[0].folder)):
        write_text(runs[0].folder / "card.md", card_text(runs[0].folder))
    return path


def card_text(run_folder: Path) -> str:
    """A model card of a run in Markdown: what its scores say of it, and what an audit found.

    Raises TenfoldError where the folder holds no run, or one without scores.
    """
    run = read_run(Path(run_folder))
    if run.shown_scores is None:
        raise TenfoldError(f"{run_folder} has no scores; run `tenfold evaluate` on it first.")
    answers = known_answers(RunFolder(run.folder))
    return without_folders(render_markdown("card.md", run=run, answers=answers, hub=HUB_NAMES))


def write_figures(run_folder: Path) -> list[Path]:
    """Write a run's charts as SVG files into `figures/` in its folder, and return them.

    Raises TenfoldError as `write_report` does. What the run has no numbers for is left out.
    """
    run = read_run(Path(run_folder))
    drawn: dict[str, Figure] = {}
    for quantity, measured in _measured(run.recipe).items() if run.epochs else ():
        drawn[quantity] = figures.learning_curves(
            run.epochs, quantity=quantity, stage_ends=run.stage_ends, measured=measured
        )
    for split, scores in run.scores.items():
        names = [score.name for score in scores.per_class]
        drawn[f"confusion-{split}"] = figures.confusion_matrix(scores.matrix, names)
        drawn[f"classes-{split}"] = figures.per_class_bars(scores.per_class)
        drawn[f"confidence-{split}"] = figures.confidence_histogram(scores)
    paths = {run.folder / "figures" / f"{name}.svg": figure for name, figure in drawn.items()}
    for path, figure in paths.items():
        write_text(path, standalone_svg(figure))
    return [*paths]


def render_runs(runs: tuple[Run, ...], *, loader: Loader = load_dataset) -> str:
    """The page about `runs` as HTML that refers to nothing outside itself."""
    tools: dict[str, Any] = {"figures": figures, "measured": _measured, "settings_of": _settings}
    if len(runs) > 1:
        sheets, values = (*_STYLE_SHEETS, "study.css"), view_runs(runs, loader=loader)
        return render_page("comparison.html", style_sheets=sheets, **tools, **values)
    (run,) = runs
    images, answers = SplitImages(run, loader), known_answers(RunFolder(run.folder))
    return render_page(
        "single.html",
        style_sheets=_STYLE_SHEETS,
        run=run,
        images=images,
        explorer=explore_run(run, images, answers),
        galleries=galleries(run, images),
        answers=answers,
        sections=sections(answers),
        exports=_exports(run.folder),
        two_classes=two_classes,
        points_of=points_of,
        **tools,
    )


def _exports(folder: Path) -> Markup:
    """What the exported files say and how fast they are; empty where nothing was exported, or its
    figures can't be read."""
    path = folder / "export" / "exports.json"
    try:
        known = read_json(path) if path.exists() else {}
        exports = {words: known[kind] for kind, words in _EXPORTS.items() if kind in known}
        body = environment().get_template("exports.html").render(exports=exports)
    except (TenfoldError, TypeError, UndefinedError):
        return Markup("")
    return Markup(body if exports else "")  # The template escapes what it shows.


def _measured(recipe: Mapping[str, Any]) -> dict[str, str]:
    """What tells training accuracy and loss apart from those of validation, for their labels."""
    augmentation, training = recipe.get("augmentation") or {}, recipe.get("training") or {}
    mixed = [name for name in ("mixup", "cutmix") if augmentation.get(name)]
    others = augmentation.keys() - {*mixed, "alternate", "randaugment_magnitude"}
    changed = [*(["augmented"] if any(augmentation[name] for name in others) else []), *mixed]
    smoothed = ["smoothed labels"] if training.get("label_smoothing") else []
    reasons = {"accuracy": changed, "loss": changed + smoothed}
    return {name: "".join(f", {each}" for each in why) for name, why in reasons.items()}


def _settings(recipe: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What a recipe sets, and what stands at its default."""
    tags = {
        table: {"name": values["name"]}
        for table, values in recipe.items()
        if isinstance(values, Mapping) and "name" in values and table != "data"
    }
    defaults = {}  # Of a recipe of another version of tenfold everything is shown as set.
    with contextlib.suppress(TenfoldError):
        defaults = as_texts(recipe_from_dict(tags).to_dict())
    named = {f"{table}.name" for table in recipe} | {"name", "description", "seed"}
    known = {key: value for key, value in as_texts(recipe).items() if value}
    own = {key: v for key, v in known.items() if key in named or defaults.get(key) != v}
    return own, {key: value for key, value in known.items() if key not in own}
