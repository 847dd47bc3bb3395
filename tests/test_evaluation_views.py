"""Views of a picture at test time, against the definition."""

import numpy as np
import pytest
import torch

from tenfold.evaluation.trained import logits_of_views, num_views
from tenfold.recipe import EvaluationOptions

WEIGHTS = torch.randn(3 * 8 * 8, 4, generator=torch.Generator().manual_seed(0))
INPUTS = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Counting:
    """A linear network that is not symmetric in any way, and how much it was asked."""

    def __init__(self, scale=0.05):
        self.scale = scale
        self.num_seen = 0

    def __call__(self, inputs):
        self.num_seen += len(inputs)
        return inputs.flatten(1) @ WEIGHTS * self.scale


def views_by_hand(picture):
    """The six views of one (3, 8, 8) picture with their weights."""
    padded = np.pad(picture.numpy(), ((0, 0), (1, 1), (1, 1)), mode="reflect")
    shifted = [padded[:, :8, :8], padded[:, 2:, 2:]]
    views = [(picture.numpy(), 0.25), *((view, 0.125) for view in shifted)]
    return [(torch.from_numpy(v[:, :, ::s].copy()), w) for v, w in views for s in (1, -1)]


def test_one_view_is_the_network_itself():
    network = Counting()
    found = logits_of_views(network, INPUTS, EvaluationOptions())
    assert torch.equal(found, Counting()(INPUTS))
    assert network.num_seen == 20


def test_mirrored_pictures_are_averaged():
    found = logits_of_views(Counting(), INPUTS, EvaluationOptions(views="mirror"))
    expected = (Counting()(INPUTS) + Counting()(INPUTS.flip(3))) / 2
    torch.testing.assert_close(found, expected)


def test_six_views_have_the_published_weights():
    found = logits_of_views(Counting(), INPUTS, EvaluationOptions(views="six"))
    for picture, logits in zip(INPUTS, found, strict=True):
        views = views_by_hand(picture)
        assert sum(weight for _, weight in views) == 1
        expected = sum(weight * Counting()(view[None])[0] for view, weight in views)
        torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(("views", "more"), [("mirror", 1), ("six", 5)])
def test_only_unsure_pictures_are_seen_again(views, more):
    network = Counting()
    plain = Counting()(INPUTS)
    sureness = plain.softmax(dim=1).amax(dim=1)
    below = float(sureness.median())
    unsure = sureness < below
    assert 0 < unsure.sum() < 20
    found = logits_of_views(network, INPUTS, EvaluationOptions(views=views, views_below=below))
    assert network.num_seen == 20 + more * int(unsure.sum())
    assert torch.equal(found[~unsure], plain[~unsure])
    whole = logits_of_views(Counting(), INPUTS, EvaluationOptions(views=views))
    torch.testing.assert_close(found[unsure], whole[unsure])


def test_where_all_are_sure_nothing_is_seen_again():
    network = Counting(scale=1000)
    logits_of_views(network, INPUTS, EvaluationOptions(views="six", views_below=0.5))
    assert network.num_seen == 20


def test_the_number_of_views_is_guessed_from_what_counts_as_unsure():
    assert num_views(EvaluationOptions()) == 1
    assert num_views(EvaluationOptions(views="mirror")) == 2
    assert num_views(EvaluationOptions(views="six")) == 6
    assert 2 < num_views(EvaluationOptions(views="six", views_below=0.5)) < 4
