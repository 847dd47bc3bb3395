"""Losses: functions of logits `(B, C)` and labels `(B,)`, one value for each image."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from tenfold.errors import TenfoldError
from tenfold.registry import PartOptions


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "none",
) -> Tensor:
    """Minus the logarithm of the label's probability; see `training.label_smoothing`."""
    return functional.cross_entropy(
        logits, labels, weight=weight, label_smoothing=label_smoothing, reduction=reduction
    )


def focal(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: Annotated[
        float, Field(ge=0, description="How little images count that are classified well.")
    ] = 2.0,
) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the label's probability (Lin et al. 2017)."""
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (1 - torch.exp(-losses)) ** gamma * losses


def loss_of(
    chosen: PartOptions,
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None,
    label_smoothing: float,
    mean: bool,
) -> Tensor:
    """The recipe's loss, of each image `(B,)` or its mean; weight: `(C,)`, of each class.

    Raises TenfoldError where one's own gives something else; it may give its mean unless images
    have weights.
    """
    if chosen.name == "cross_entropy":  # Whose mean is one kernel.
        given = {"weight": weight, "label_smoothing": label_smoothing}
        found: Tensor = chosen(logits, labels, **given, reduction="mean" if mean else "none")
        return found
    losses: Tensor = chosen(logits, labels)
    if losses.shape != labels.shape and (losses.ndim or weight is not None):
        raise TenfoldError(
            f"{chosen.name} must give a loss for each image, of the shape {tuple(labels.shape)}, "
            f"not {tuple(losses.shape)}."
        )
    losses = losses if weight is None else losses * weight[labels]
    return losses.mean() if mean else losses.expand(len(labels))
