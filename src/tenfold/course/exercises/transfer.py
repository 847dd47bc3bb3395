"""Exercises of chapter 11: features, fine-tuning and distillation."""

import numpy as np

from tenfold.course.exercises.comparing import Solution, assert_equal, random


def as_it_expects(function: Solution) -> None:
    """Chapter 11, exercise 1."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = np.stack([(pixels[..., c] / 255 - mean[c]) / deviation[c] for c in range(3)], axis=1)
    assert_equal(
        function(pixels, mean, deviation),
        expected,
        "as_it_expects of (2, 4, 5, 3)",
        "Divide by 255 first, then normalise each channel; then (0, 3, 1, 2).",
    )


def layer_rates(function: Solution) -> None:
    """Chapter 11, exercise 2."""
    for lr, decay, blocks in ((0.1, 0.5, 3), (0.01, 0.9, 6), (1.0, 1.0, 2)):
        assert_equal(
            function(lr, decay, blocks),
            [lr * decay ** (blocks - index) for index in range(blocks + 1)],
            f"layer_rates({lr}, {decay}, {blocks})",
            "The head has `lr`, and each block below it once more times `decay`: one rate more "
            "than there are blocks.",
        )


def distillation_loss(function: Solution) -> None:
    """Chapter 11, exercise 3."""
    import torch
    from torch.nn.functional import cross_entropy, kl_div, log_softmax

    student, teacher = 3 * random(6, 5), 3 * random(6, 5, seed=1)
    labels = np.array([0, 4, 2, 2, 1, 3])
    ours, theirs = torch.tensor(student), torch.tensor(teacher)
    for temperature, share in ((1.0, 1.0), (4.0, 0.9), (2.0, 0.0)):
        soft = kl_div(
            log_softmax(ours / temperature, dim=1),
            log_softmax(theirs / temperature, dim=1),
            log_target=True,
            reduction="batchmean",
        )
        hard = cross_entropy(ours, torch.tensor(labels))
        assert_equal(
            function(student, teacher, labels, temperature, share),
            share * temperature**2 * soft + (1 - share) * hard,
            f"distillation_loss at temperature {temperature:g} with a share of {share:g}",
            "Softened: both sets of logits divided by the temperature, sum over classes of "
            "p_teacher (log p_teacher - log p_student), mean over images, times the temperature "
            "squared. With labels: the student's logits as they are.",
        )
