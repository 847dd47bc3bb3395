"""Why a convolutional network beats a dense one, as far as the runs at hand show it."""

import math
from dataclasses import dataclass

from tenfold.errors import counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import count, duration, listed, percent, points, rate, signed_points
from tenfold.reporting.comparison import Comparison, Disagreement, Group, class_gains
from tenfold.results.runs import Epoch

_TABLES = {
    "data": "the data",
    "augmentation": "how pictures are altered while learning",
    "optimizer": "the optimiser",
    "schedule": "the course of the learning rate",
    "training": "how long and in what steps they learn",
}


@dataclass(frozen=True)
class Paragraph:
    """A heading and what is under it."""

    heading: str
    text: str


def title(comparison: Comparison) -> str:
    """The comparison's heading."""
    groups = _dense_and_convolutional(comparison)
    if groups is None:
        names = [group.label for group in comparison.groups]
        return listed(names) if len(names) <= 3 else f"{len(names)} recipes compared"
    pair = comparison.pair
    if pair is None or not pair.is_clear or not comparison.same_pictures:
        return "A convolutional network and a dense one, compared"
    if pair.first.model_name == "cnn":
        return "Why a convolutional network beats a dense one"
    return "Here the dense network beats the convolutional one"


def explain(comparison: Comparison) -> tuple[Paragraph, ...]:
    """For one dense and one convolutional recipe: what sets them apart, in their own figures."""
    groups = _dense_and_convolutional(comparison)
    pair = comparison.pair
    if groups is None or pair is None or not comparison.same_pictures:
        return ()
    dense, convolutional = (group.typical for group in groups)
    return (
        Paragraph("What each of them sees", _what_they_see(dense, convolutional)),
        *_weights(dense, convolutional),
        Paragraph("Learning and memorising", _gaps(dense, convolutional)),
        Paragraph("Where it makes a difference", _classes(pair)),
        Paragraph("Picture by picture", _pictures(pair)),
        Paragraph("What it costs", _cost(dense, convolutional)),
        Paragraph("What this does not show", _limits(comparison)),
    )


def _dense_and_convolutional(comparison: Comparison) -> tuple[Group, Group] | None:
    by_model = {group.runs[0].model_name: group for group in comparison.groups}
    if len(comparison.groups) != 2 or set(by_model) != {"ann", "cnn"}:
        return None
    if any(group.mean is None for group in comparison.groups):
        return None
    return by_model["ann"], by_model["cnn"]


def _what_they_see(dense: Run, convolutional: Run) -> str:
    size = dense.data.image_size
    numbers = f"one long list of {count(math.prod(size) * 3)} numbers" if size else "one long list"
    kernel = (convolutional.recipe.get("model") or {}).get("kernel_size")
    window = f"a window of {kernel} by {kernel} pixels" if kernel else "a small window"
    return (
        f"To {dense.label} a picture is {numbers}. Nothing tells it which of them are neighbours, "
        "and what it learns about a wheel in one corner it has to learn again for every other "
        f"place. {convolutional.label} moves {window} over the picture and uses the same weights "
        "everywhere: an edge or a wheel, once learned, is found wherever it is."
    )


def _weights(dense: Run, convolutional: Run) -> tuple[Paragraph, ...]:
    if not (dense.num_parameters and convolutional.num_parameters):
        return ()
    text = (
        f"{dense.label} has {count(dense.num_parameters)} parameters, {convolutional.label} "
        f"{count(convolutional.num_parameters)}."
    )
    size = dense.data.image_size
    dense_model = dense.recipe.get("model") or {}
    windows = convolutional.recipe.get("model") or {}
    widths, channels = dense_model.get("widths"), windows.get("widths")
    kernel = windows.get("kernel_size")
    if size and widths and channels and kernel:
        first = math.prod(size) * 3 * widths[0]
        text += (
            f" The first dense layer alone takes {count(first)} weights, each for one pixel in one "
            f"place. The first convolution takes {count(kernel * kernel * 3 * channels[0])} and "
            "uses them at every place of the picture."
        )
    if convolutional.num_parameters > dense.num_parameters:
        text += " Here the convolutional network is the larger one, which may be part of its lead."
    return (Paragraph("How many weights it takes", text),)


def _gaps(dense: Run, convolutional: Run) -> str:
    sentences = []
    gaps = {}
    for run in (dense, convolutional):
        epoch = _deciding_epoch(run)
        if epoch is None or epoch.validation_accuracy is None:
            continue
        gap = gaps[run.label] = epoch.train_accuracy - epoch.validation_accuracy
        sentences.append(
            f"In epoch {epoch.number} {run.label} was right on {percent(epoch.train_accuracy)} of "
            f"the pictures it was learning from and on {percent(epoch.validation_accuracy)} of "
            f"those held back, {points(gap)} {'fewer' if gap >= 0 else 'more'}."
        )
    if len(gaps) < 2:
        return "Without validation pictures there is no telling how much was learned by heart."
    sentences += _gap_meaning(gaps[dense.label], gaps[convolutional.label])
    sentences += _reach(dense, convolutional)
    sentences.append(
        "(The training share is counted while the weights still change, with dropout and on "
        "altered pictures where the recipe has them, so it reads a little low.)"
    )
    return " ".join(sentences)


def _gap_meaning(dense: float, convolutional: float) -> list[str]:
    found = []
    if max(dense, convolutional) > 0.02 and abs(dense - convolutional) > 0.01:
        which = "dense" if dense > convolutional else "convolutional"
        found.append(
            f"A share right in training alone was learned by heart; more so in the {which} network."
        )
    elif max(dense, convolutional) <= 0.02:
        found.append("Neither learned much by heart: what sets them apart is not overfitting.")
    else:
        found.append("Both learned about as much by heart.")
    return found


def _reach(dense: Run, convolutional: Run) -> list[str]:
    """Whether the dense network falls short even of what it has seen."""
    low, high = _deciding_epoch(dense), _deciding_epoch(convolutional)
    if not (low and high and high.validation_accuracy):
        return []
    if low.train_accuracy >= high.validation_accuracy:
        return []
    return [
        f"{dense.label} has fewer right of the very pictures that it learned from than "
        f"{convolutional.label} of new ones: it does not get as far at all."
    ]


def _deciding_epoch(run: Run) -> Epoch | None:
    best = run.training.best_epoch if run.training else None
    return next(
        (epoch for epoch in run.epochs if epoch.number == best),
        run.epochs[-1] if run.epochs else None,
    )


def _classes(pair: Disagreement) -> str:
    gains = class_gains(pair.first, pair.second)
    if not gains:
        return "The two runs have no classes in common."
    most = [
        f"{gain.name} ({signed_points(gain.gain)} points)" for gain in gains[:3] if gain.gain > 0
    ]
    text = f"{pair.first.label} gains most on {listed(most)}" if most else "No class gains"
    last = gains[-1]
    text += f", and least on {last.name} ({signed_points(last.gain)})." if len(gains) > 3 else "."
    losses = [gain.name for gain in gains if gain.gain < 0]
    if losses:
        text += f" On {listed(losses[-4:])} {pair.second.label} is the better one."
    return text


def _pictures(pair: Disagreement) -> str:
    return (
        f"Of {counted(pair.num_images, 'picture')} both are right on {count(pair.both_right)} and "
        f"both wrong on {count(pair.both_wrong)}. {pair.first.label} alone is right on "
        f"{count(len(pair.only_first))}, {pair.second.label} alone on "
        f"{count(len(pair.only_second))}"
        + (": the better network isn't better at everything." if len(pair.only_second) else ".")
    )


def _cost(dense: Run, convolutional: Run) -> str:
    if not (dense.training and convolutional.training):
        return "One of the runs is not finished, so the times can't be compared."
    text = (
        f"{convolutional.label} trained for {duration(convolutional.training.wall_seconds)}, "
        f"{dense.label} for {duration(dense.training.wall_seconds)}"
    )
    speeds = convolutional.training.images_per_second, dense.training.images_per_second
    if all(speeds):
        text += f", at {rate(speeds[0])} and {rate(speeds[1])} pictures a second"
    return f"{text}. Using a weight at every place saves weights, but costs arithmetic."


def _limits(comparison: Comparison) -> str:
    tables = dict.fromkeys(setting.key.partition(".")[0] for setting in comparison.settings)
    others = [_TABLES.get(table, table) for table in tables if table != "model"]
    text = "These are two networks on one data set, not all networks on all data."
    if others:
        text += (
            f" The recipes differ not only in the network but also in {listed(others)}; the table "
            "of settings below has the values."
        )
    if all(group.deviation is None for group in comparison.groups):
        text += " Each recipe was trained once; another seed gives slightly other figures."
    return text
