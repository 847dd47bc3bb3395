"""Selection of pictures by their loss."""

import torch

from tenfold.training.batches import hardest, num_selected, unseen_losses

CPU = torch.device("cpu")


def test_all_are_seen_before_any_is_chosen_by_its_loss():
    losses = unseen_losses(8, device=CPU)
    first = hardest(losses, 6, seed=0, epoch=0)
    losses[1, first] = torch.arange(6.0)
    # Within the epoch nothing changes, so that it can be gone on with.
    assert torch.equal(hardest(losses, 6, seed=0, epoch=0), first)
    losses[0] = losses[1]
    second = hardest(losses, 6, seed=0, epoch=1)
    unseen = set(range(8)) - set(first.tolist())
    assert set(second[:2].tolist()) == unseen
    assert set(second[2:].tolist()) == set(first[2:].tolist())


def test_the_highest_losses_come_first():
    losses = torch.tensor([[0.5, 3.0, 0.1, 2.0], [9.0, 9.0, 9.0, 9.0]])
    assert hardest(losses, 3, seed=0, epoch=2).tolist() == [1, 3, 0]


def test_among_equals_the_seed_decides():
    losses = unseen_losses(100, device=CPU)
    drawn = [hardest(losses, 50, seed=seed, epoch=0) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert len(set(drawn[0].tolist())) == 50


def test_how_many():
    assert num_selected(100, 0.75) == 75
    assert num_selected(10, 0.01) == 2
    assert num_selected(1, 0.5) == 1
