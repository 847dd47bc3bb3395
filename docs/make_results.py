"""Write docs/results.md, measured.json and what quotes it, and the README's table, from studies.

    python docs/make_results.py [--check] [studies/*]

The summaries of the studies are kept in docs/studies, so that those named later come to the others;
a section that has no kept summary stays as it is. The same summaries give the same bytes, in
whatever order their folders are named.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from documents import (
    MEASURED,
    accuracy_of,
    measured_by,
    measured_in,
    measured_text,
    quoting,
    read,
    table,
    with_figures,
    with_part,
)

from tenfold.errors import TenfoldError, counted
from tenfold.files import write_text
from tenfold.formatting import count, listed
from tenfold.recipe import Recipe, load_recipe, recipe_from_dict, shipped_recipes
from tenfold.reporting import story
from tenfold.reporting.story import exact_percent, ours_of
from tenfold.results.facts import read_fact
from tenfold.results.measured import Measured
from tenfold.results.studies import BELOW, Estimate, Point, StudySummary, VariantSummary, read_study
from tenfold.studies.finished import read_study_runs
from tenfold.studies.statistics import summarise

ORDER = (
    "published", "tuned", "ann-vs-cnn", "epochs", "activations", "dropout", "depth", "augmentation",
    "schedules", "optimizers", "normalisation", "train-size", "transfer-size",
    "resnet50-scratch",
)  # fmt: skip
"""Shipped studies come in this order, others after them by name."""

README_STUDY = "published"

KEPT = Path("docs", "studies")
"""Where summaries are kept, seen from the project's root."""

LINE = re.compile(r"^(?=.*\]\(#([^)]+)\) \|)(\| .*)$", re.MULTILINE)
"""A line of the contents, and the study that it is of."""

INTRODUCTION = """\
# Results

Written by `make results` from the summaries of the studies; run a study again to change it.

Accuracies are shares of the test images that are right, at the end of training and as the mean \
over seeds, with 95 % intervals in brackets. An interval is over seeds where there are several: in \
95 of 100 such studies it holds the mean of very many trainings. Where one seed was run it is over \
images, and says nothing about the luck of the training. Training is the time of one run on \
the clock, which grows where several run at once; core-minutes are its processor time, which does \
not. Several runs at once (`--jobs 2`) have a thread each, and results depend on that in their \
last digits: the line below each table says how it was.

Beside a published number, *beaten* means that our whole interval lies above it, *met* that our \
mean reaches it, *within the interval* that only the upper part of the interval reaches it, and \
**not reproduced** that the whole interval lies below it although all settings are those of the \
source. Where some of them are assumed, such a number is only *above ours*. A number that was \
published in training mode, with dropout and on the statistics of each batch, is compared with \
ours in that mode."""


def main(arguments: Sequence[str]) -> int:
    """Write or check all documents; the exit status."""
    options = parse(arguments)
    try:
        new = read_studies(options.folders)
        new = {name: StudySummary.model_validate_json(kept(study)) for name, study in new.items()}
        studies = sorted((read_kept(options.root) | new).values(), key=place)
        if not studies:
            raise TenfoldError(
                "None of the folders holds a study with its summary; `tenfold study` makes one."
            )
        found = figures(options.folders, new.values())
        documents = render(studies, found, root=options.root)
        documents |= {options.root / KEPT / f"{name}.json": kept(new[name]) for name in new}
    except TenfoldError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    changed = [path for path, text in documents.items() if read(path) != text]
    names = [path.relative_to(options.root).as_posix() for path in changed]
    if options.check:
        for name in names:
            sys.stderr.write(f"{name} would change; run `make results` and commit it.\n")
        return 1 if names else 0
    for path in changed:
        write_text(path, documents[path])
    said = f"{' and '.join(names)} written" if names else "Nothing has changed"
    sys.stdout.write(f"{said}; studies: {', '.join(study.name for study in studies)}.\n")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, help="study folders with a summary.json")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it would change")
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parent.parent, help="where README.md is"
    )
    return parser.parse_args(arguments)


def read_studies(folders: Iterable[Path]) -> dict[str, StudySummary]:
    """The studies of all folders that have a summary, by name."""
    studies: dict[str, StudySummary] = {}
    for folder in folders:
        if not (folder / "summary.json").exists():
            sys.stderr.write(f"{folder} has no summary.json and is left out.\n")
            continue
        study = read_study(folder)
        if study.name in studies:
            raise TenfoldError(f"Two folders hold the study {study.name}; name one of them.")
        studies[study.name] = study
    return studies


def read_kept(root: Path) -> dict[str, StudySummary]:
    """The summaries that are kept from earlier calls, by name."""
    remedy = "restore it from the repository"
    files = sorted((root / KEPT).glob("*.json"))
    return {path.stem: read_fact(path, StudySummary, remedy=remedy) for path in files}


def kept(study: StudySummary) -> str:
    """A summary as it is kept, numbers to six digits."""

    def rounded(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: rounded(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(each) for each in value]
        return float(f"{value:.6g}") if isinstance(value, float) else value

    return json.dumps(rounded(study.to_dict()), separators=(",", ":")) + "\n"


def place(study: StudySummary | str) -> tuple[int, str]:
    """Where a study stands in the document."""
    name = study if isinstance(study, str) else study.name
    return (ORDER.index(name) if name in ORDER else len(ORDER)), name


def figures(folders: Iterable[Path], studies: Iterable[StudySummary]) -> dict[str, Measured]:
    """What the runs in `folders` reached with recipes as they are shipped now, by recipe."""
    commands = {study.name: study.command for study in studies}
    found: dict[str, Measured] = {}
    for folder in folders:
        if not all((folder / name).exists() for name in ("summary.json", "study.json")):
            continue
        study = read_study_runs(folder)
        for variant in study.variants:
            name = str(variant.recipe.get("name"))
            shares = list(variant.accuracies("test").values())
            if not shares or name not in shipped_recipes():
                continue
            recipe = load_recipe(name)
            if not is_same(variant.recipe, recipe):
                continue
            new = measured_by(
                list(variant.runs.values()),
                accuracy_of(summarise(shares, num_images=variant.num_images("test"))),
                command=commands.get(study.plan.name) or f"tenfold study {study.plan.name}",
            )
            if name not in found or found[name].accuracy.n < new.accuracy.n:
                found[name] = new
    return found


def is_same(planned: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether a study's recipe, of whatever version, trains as `recipe` does but for its seed."""
    try:
        found = recipe_from_dict(planned)
    except TenfoldError:
        return False
    mine, its = (
        each.but(seed=0, description="", training=each.training.but(milestones=()))
        for each in (recipe, found)
    )
    return mine == its


def render(
    studies: Sequence[StudySummary], found: Mapping[str, Measured], *, root: Path
) -> dict[Path, str]:
    """All documents by path; raises TenfoldError where the README has no place for its table."""
    results = root / "docs" / "results.md"
    documents = {results: render_results(studies, read(results) or "")}
    if found:
        measured = with_figures(measured_in(root), found.items())
        documents |= quoting(root, measured) | {root / MEASURED: measured_text(measured)}
    readme = root / "README.md"
    chosen = [study for study in studies if study.name == README_STUDY]
    text = documents.get(readme, read(readme)) or ""
    published = with_part(
        text, "results", render_published(chosen[0]) if chosen else "", name=readme.name
    )
    if chosen:
        documents[readme] = published
    else:
        sys.stderr.write(
            f"The study {README_STUDY} is not among the folders; its table stays as it is.\n"
        )
    return documents


def render_results(studies: Sequence[StudySummary], before: str) -> str:
    """docs/results.md. before: its text, of which sections of other studies stay."""
    first, *others = before.rstrip("\n").split("\n\n## ")
    sections = {part.partition("\n")[0]: f"## {part}" for part in others}
    rows = {name: row for name, row in LINE.findall(first) if name in sections}
    rows |= {study.name: line(study) for study in studies}
    sections |= {study.name: section(study) for study in studies}
    names = sorted(rows, key=place)
    head = table(["study", "question", "runs finished", "published results reached"], [])
    contents = "\n".join([head, *(rows[name] for name in names)])
    if missing := [f"`{name}`" for name in ORDER if name not in rows]:
        contents += (
            f"\n\nNot measured yet, since each takes one to many hours of two cores: "
            f"{listed(missing)}. `tenfold study NAME --jobs 2` runs one, and goes on where it was "
            "interrupted; `make results` then adds it here."
        )
    return "\n\n".join([INTRODUCTION, contents, *(sections[name] for name in names)]) + "\n"


def line(study: StudySummary) -> str:
    """A study in the contents, with a link to its section."""
    claims = study.published
    reached = sum(claim.point.is_reached for claim in claims)
    cells = [
        f"[{escape(study.title)}](#{study.name})",
        escape(study.question),
        f"{study.finished} of {study.planned}",
        f"{reached} of {len(claims)}" if claims else "–",
    ]
    return f"| {' | '.join(cells)} |"


def section(study: StudySummary) -> str:
    """Everything about one study."""
    stop = "" if study.title.endswith("?") else "."
    parts = [f"## {study.name}", f"**{escape(study.title)}{stop}** {escape(study.question)}"]
    if study.command:
        parts.append(f"```\n{study.command}\n```")
    if study.was_cut_short:
        gaps = story.missing_parts(study) + story.failures(study)
        parts += [f"**{story.cut_short(study)}**", bullets(gaps)]
    parts += ["What it found:", bullets(study.findings), variants_table(study)]
    if miss := story.not_reproduced(study):
        parts.append(escape(miss))
    if study.followed:
        parts += ["After each number of epochs:", milestones_table(study)]
    if study.comparisons:
        parts += [f"Against {escape(study.comparisons[0].baseline)}:", differences_table(study)]
    if study.limits:
        parts += ["What it leaves open:", bullets(study.limits)]
    time = f"{story.total_time(study)} of training in all."
    parts.append(escape(f"{story.machine(study)} {story.seeds(study)} {time}"))
    return "\n\n".join(part for part in parts if part)


def variants_table(study: StudySummary) -> str:
    """A line for each variant: ours beside what was published."""
    epochs = story.ends_with(study)
    when = f" after {counted(epochs, 'epoch')}" if epochs else ""
    heads = [
        "variant", f"{study.split} accuracy{when}", "seeds", "parameters", "training",
        "core-minutes",
    ]  # fmt: skip
    if study.published:
        heads += ["published", "verdict"]
    rows = []
    for variant in study.variants:
        number = variant.num_parameters
        row = [
            escape(variant.label),
            ours(variant.end) + ("" if epochs else after(variant)),
            seeds(variant),
            "–" if number is None else count(number),
            minutes(variant.training_seconds),
            story.core_minutes(variant.process_seconds),
        ]
        if study.published:
            points = [point for point in variant.points if point.published is not None]
            row.append("<br>".join(published(variant, point) for point in points))
            row.append("<br>".join(verdict(point, with_ours=not point.is_end) for point in points))
        rows.append(row)
    return table(heads, rows, numbers=(2, 3, 4, 5))


def milestones_table(study: StudySummary) -> str:
    """Epochs by variants."""
    rows = []
    for epoch in study.milestones:
        row = [str(epoch)]
        for variant in study.followed:
            point = next((point for point in variant.points if point.epoch == epoch), None)
            cell = ours(point) if point else "–"
            if point and point.published is not None:
                share = exact_percent(point.published.accuracy)
                cell += f"<br>published {share}: {verdict(point, with_ours=False)}"
            row.append(cell)
        rows.append(row)
    labels = [escape(variant.label) for variant in study.followed]
    return table(["epochs", *labels], rows, numbers=(0,))


def differences_table(study: StudySummary) -> str:
    """The comparisons at the end of training."""
    rows = [
        [
            escape(one.sentence),
            story.probability(one.p_holm),
            story.probability(one.mcnemar_p),
        ]
        for one in study.comparisons
    ]
    return table(["comparison", "p (Holm)", "McNemar's p, uncorrected"], rows, numbers=(1, 2))


def render_published(study: StudySummary) -> str:
    """The README's table: a line for each published result, and what it rests on."""
    rows = []
    for variant, point, claim in study.published:
        when = f", {counted(point.epoch, 'epoch')}" if study.followed else ""
        time = minutes(variant.training_seconds)
        if variant.training_seconds and variant.end and point.epoch != variant.end.epoch:
            time += f" for all {counted(variant.end.epoch, 'epoch')}"
        if variant.process_seconds:
            time += f" ({story.core_minutes(variant.process_seconds)} core-minutes)"
        rows.append(
            [
                escape(claim.source) or "–",
                escape(variant.label) + when,
                exact_percent(claim.accuracy),
                ours(point),
                "the source's" if claim.settings == "source" else "partly assumed",
                seeds(variant),
                time,
                verdict(point, with_ours=False),
            ]
        )
    heads = [
        "source", "network", "published", "ours (95 % interval)", "settings", "seeds", "training",
        "",
    ]  # fmt: skip
    notes = [story.machine(study), story.cut_short(study)]
    said = " ".join(escape(note) for note in notes if note)
    return (
        f"{table(heads, rows)}\n\n{said} What the words mean, and the other studies that "
        "were run: "
        f"[docs/results.md](docs/results.md)."
    )


def ours(point: Point | None) -> str:
    """A share with its interval, in both modes where both were measured."""
    return "not run" if point is None else ours_of(point)


def after(variant: VariantSummary) -> str:
    """After how many epochs, where variants differ in that."""
    if variant.end is None or variant.end.ours is None:
        return ""
    return f", {counted(variant.end.epoch, 'epoch')}"


def seeds(variant: VariantSummary) -> str:
    """The number of seeds, of how many if some are missing."""
    number = len(variant.seeds)
    text = str(number)
    if number < variant.planned_seeds:
        text += f" of {variant.planned_seeds}"
    is_over_images = variant.result and variant.result.interval_over == "images"
    return f"{text} (interval over images)" if is_over_images else text


def minutes(seconds: Estimate | None) -> str:
    """The time of one run."""
    return "–" if seconds is None else f"{story.minutes_of(seconds.mean)} min"


def published(variant: VariantSummary, point: Point) -> str:
    """A published number with its source, and its epochs where there are several."""
    claim = point.published
    assert claim is not None
    when = f" at {counted(point.epoch, 'epoch')}" if len(variant.points) > 1 else ""
    source = f" ({escape(claim.source)})" if claim.source else ""
    return f"{exact_percent(claim.accuracy)}{when}{source}"


def verdict(point: Point, *, with_ours: bool) -> str:
    """The verdict, a miss in bold, with our number where it stands nowhere else in the line."""
    words = story.verdict_words(point.verdict)
    words = f"**{words}**" if point.verdict == BELOW else words
    return f"{words}, {ours(point)}" if with_ours and point.ours else words


def bullets(texts: Sequence[str]) -> str:
    """A list."""
    return "\n".join(f"- {escape(text)}" for text in texts)


def escape(text: str) -> str:
    """Text as Markdown that shows it as it is, on one line, without paths of a machine."""
    text = " ".join(text.split())
    text = re.sub(r"""(?<![\w:/.<])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'"]+[/\\])*""", "…/", text)
    pieces = text.split("`")
    if len(pieces) % 2 == 0:
        pieces = [text.replace("`", "'")]
    for number in range(0, len(pieces), 2):
        piece = re.sub(r"([\\*\[\]<])", r"\\\1", pieces[number])
        pieces[number] = re.sub(r"(?<!\w)_|_(?!\w)", r"\_", piece)
    return "`".join(pieces).replace("|", r"\|")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
