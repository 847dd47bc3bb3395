"""Several views of a picture at test time, whose logits are averaged."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import pad

from tenfold.recipe import EvaluationOptions

Network = Callable[[Tensor], Tensor]


VIEWS = {"one": 1, "mirror": 2, "six": 6}
"""How many there are."""


SHARE_UNSURE = 0.8
"""Of `views_below`, a generous guess at the share of pictures that are seen again: a network that
is right on 77 % was unsure, below 0.4, of 29 % of them, and one on 87 %, below 0.5, of 26 %."""


def num_views(options: EvaluationOptions) -> float:
    """How often a picture is seen on average, at a guess."""
    again = 1.0 if options.views_below == 1 else SHARE_UNSURE * options.views_below
    return 1 + again * (VIEWS[options.views] - 1)


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
