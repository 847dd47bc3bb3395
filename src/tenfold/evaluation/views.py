"""Several views of a picture at test time, whose logits are averaged."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from tenfold.recipe import EvaluationOptions

Network = Callable[[Tensor], Tensor]


VIEWS = {"one": 1, "mirror": 2, "six": 6}
"""How many there are."""


def num_views(options: EvaluationOptions) -> int:
    """How often a picture is seen at most."""
    return VIEWS[options.views]


def logits_of_views(network: Network, inputs: Tensor, options: EvaluationOptions) -> Tensor:
    """Logits (B, C) of pictures (B, 3, H, W), each seen as often as `options` has it.

    `mirror` is the mean of a picture and its mirror image. `six` gives half the weight to these two
    and half to the two of them shifted by a pixel up and left, and down and right, as Jordan (2024,
    arXiv 2404.00498) has them. Only pictures of which the plain view is unsure are seen again.
    """
    logits = network(inputs)
    if options.views == "one":
        return logits
    unsure = logits.softmax(dim=1).amax(dim=1) < options.views_below
    places = unsure.nonzero()[:, 0]
    if len(places) == 0:
        return logits
    seen = inputs[places]
    mean = (logits[places] + network(seen.flip(3))) / 2
    if options.views == "six":
        height, width = seen.shape[2:]
        padded = pad(seen, (1, 1, 1, 1), mode="reflect")
        total = torch.zeros_like(mean)
        for corner in (0, 2):
            shifted = padded[:, :, corner : corner + height, corner : corner + width]
            total += network(shifted) + network(shifted.flip(3))
        mean = mean / 2 + total / 8
    return logits.index_copy(0, places, mean)
