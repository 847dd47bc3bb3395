"""The trust card: what a model is good for, where it fails, and how sure it may be."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tenfold import __version__
from tenfold.audit.answer import Answer
from tenfold.audit.calibration import Calibration
from tenfold.audit.robustness import Robustness
from tenfold.errors import counted
from tenfold.evaluation.runs import Run
from tenfold.formatting import interval, percent, plain
from tenfold.results.runs import ClassScore, Metrics

HUB_NAMES = {"cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100"}
"""Data sets as the Hugging Face hub calls them."""

WEAK_RECALL_GAP = 0.05
"""How far below the accuracy a class must lie to be named as a weak one."""


class ModelCard(NamedTuple):
    """Sentences under three headings."""

    good_for: tuple[str, ...]
    fails_at: tuple[str, ...]
    sure: tuple[str, ...]


def model_card(run: Run, answers: Mapping[str, Answer]) -> ModelCard | None:
    """What can be said of `run` from its scores and what an audit found; None without scores."""
    scores = run.shown_scores
    if scores is None:
        return None
    seen = sorted((s for s in scores.per_class if s.num_images), key=lambda s: s.recall or 0)
    return ModelCard(
        _good_for(run, scores, seen),
        _fails_at(scores, seen, answers.get("robustness")),
        _sure(answers.get("calibration")),
    )


def _good_for(run: Run, scores: Metrics, seen: Sequence[ClassScore]) -> tuple[str, ...]:
    names = ", ".join(score.name for score in scores.per_class[:12])
    more = " and others" if len(scores.per_class) > 12 else ""
    best = sorted(seen, key=lambda score: -(score.recall or 0))[:3]
    return (
        f"Pictures like those of {run.data_name} that show one of {len(scores.per_class)} things: "
        f"{names}{more}. It is right on {percent(scores.accuracy)} of "
        f"{counted(scores.num_images, 'picture')}{scores.unseen} (95 % interval "
        f"{interval(*scores.accuracy_interval)}).",
        f"It finds best: {', '.join(f'{s.name} ({percent(s.recall, digits=0)})' for s in best)}.",
    )


def _fails_at(
    scores: Metrics, seen: Sequence[ClassScore], robust: Answer | None
) -> tuple[str, ...]:
    found = []
    weak = [s for s in seen if (s.recall or 0) < scores.accuracy - WEAK_RECALL_GAP][:3]
    if weak:
        named = ", ".join(f"{s.name} (finds {percent(s.recall, digits=0)})" for s in weak)
        found.append(f"It misses most often: {named}.")
    if scores.most_confused:
        worst = scores.most_confused[0]
        found.append(
            f"Its commonest mistake is to call {worst.true} {worst.predicted}: "
            f"{percent(worst.share)} of them."
        )
    if isinstance(robust, Robustness):
        hardest = min(robust.corruptions, key=lambda each: each.mean)
        found.append(
            f"Damaged pictures: {percent(robust.mean)} right on average over fifteen kinds of "
            f"damage, {percent(hardest.mean)} under {plain(hardest.corruption)}."
        )
    found.append("Anything else than its classes: it gives such a picture one of their names.")
    return tuple(found)


def _sure(trust: Answer | None) -> tuple[str, ...]:
    if not isinstance(trust, Calibration):
        return ("How far its confidence can be trusted has not been measured.",)
    off_by = f"confidence is off by {percent(trust.best.error_width)} on average"
    if trust.after is None:
        return (f"Its {off_by}.", trust.unfitted)
    return (
        f"Once its logits are divided by {trust.temperature:.2f}, its {off_by}, on pictures that "
        "this was not fitted on.",
        *trust.promises(),
    )


def _escaped(text: str) -> str:
    """`text` as Markdown that shows it as it is, with no markup of a class's or a folder's name."""
    return re.sub(r"([\\`*_\[\]<>#|&])", r"\\\1", text)


def markdown(run: Run, card: ModelCard) -> str:
    """The card as Markdown, with the metadata that the Hugging Face hub reads at its head."""
    scores = run.shown_scores
    assert scores is not None
    quoted = json.dumps
    head = [
        "---",
        "library_name: tenfold",
        "pipeline_tag: image-classification",
        "tags: [image-classification, tenfold]",
        *([f"datasets: [{HUB_NAMES[run.data_name]}]"] if run.data_name in HUB_NAMES else []),
        "metrics: [accuracy]",
        "model-index:",
        f"- name: {quoted(run.label)}",
        "  results:",
        "  - task: {type: image-classification}",
        f"    dataset: {{name: {quoted(run.data_name)}, type: {quoted(run.data_name)}, "
        f"split: {run.shown_split}}}",
        f"    metrics: [{{type: accuracy, value: {scores.accuracy:.4f}}}]",
        "---",
    ]
    body = [f"# {_escaped(f'{run.label} on {run.data_name}')}", ""]
    for heading, sentences in (
        ("What it is good for", card.good_for),
        ("Where it fails", card.fails_at),
        ("How sure it may be", card.sure),
    ):
        body += [f"## {heading}", "", *(f"- {_escaped(sentence)}" for sentence in sentences), ""]
    body += [
        "## How it was made",
        "",
        f"With tenfold {__version__}, recipe {_escaped(run.label)}"
        + (f", seed {run.seed}." if run.seed is not None else "."),
        "",
    ]
    return "\n".join([*head, "", *body])
