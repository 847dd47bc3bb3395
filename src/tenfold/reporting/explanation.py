"""Why a convolutional network beats a dense one, as far as the runs at hand show it."""

import math

from markupsafe import Markup

from tenfold.evaluation.runs import Run
from tenfold.formatting import listed
from tenfold.reporting.comparison import Comparison, Group, class_gains
from tenfold.reporting.templating import environment
from tenfold.results.runs import Epoch

_TABLES = {
    "data": "the data",
    "augmentation": "how pictures are altered while learning",
    "optimizer": "the optimiser",
    "schedule": "the course of the learning rate",
    "training": "how long and in what steps they learn",
}


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


def explain(comparison: Comparison) -> Markup:
    """For one dense and one convolutional recipe, paragraphs on what sets them apart, in their own
    figures; empty for others."""
    groups, pair = _dense_and_convolutional(comparison), comparison.pair
    if groups is None or pair is None or not comparison.same_pictures:
        return Markup()
    dense, convolutional = (group.typical for group in groups)
    deciding = ((run, _deciding_epoch(run)) for run in (dense, convolutional))
    tables = dict.fromkeys(setting.key.partition(".")[0] for setting in comparison.settings)
    text = (
        environment()
        .get_template("versus.html")
        .render(
            dense=dense,
            convolutional=convolutional,
            num_inputs=math.prod(dense.data.image_size or ()) * 3,
            gaps=[
                (run, epoch, epoch.train_accuracy - epoch.validation_accuracy)
                for run, epoch in deciding
                if epoch is not None and epoch.validation_accuracy is not None
            ],
            gains=class_gains(pair.first, pair.second),
            pair=pair,
            differences=[_TABLES.get(table, table) for table in tables if table != "model"],
            is_of_one_seed=all(group.deviation is None for group in comparison.groups),
        )
    )
    return Markup(text)  # The template escapes what it shows.


def _dense_and_convolutional(comparison: Comparison) -> tuple[Group, Group] | None:
    by_model = {group.runs[0].model_name: group for group in comparison.groups}
    if len(comparison.groups) != 2 or set(by_model) != {"ann", "cnn"}:
        return None
    if any(group.mean is None for group in comparison.groups):
        return None
    return by_model["ann"], by_model["cnn"]


def _deciding_epoch(run: Run) -> Epoch | None:
    best = run.training.best_epoch if run.training else None
    return next(
        (epoch for epoch in run.epochs if epoch.number == best),
        run.epochs[-1] if run.epochs else None,
    )
