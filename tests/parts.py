"""Parts of recipes for the tests: options by a short name, and networks built from them."""

from functools import partial

from tenfold.registry import find_part


def part(kind, name, **options):
    """The options of a part, checked as a recipe's are."""
    return find_part(kind, name).options(**options)


def build(name, *, num_classes, image_size, **options):
    """A network with fresh weights."""
    options = part("network", name, **options)
    return options(num_classes=num_classes, image_size=image_size)


ann, cnn, lenet, tutorial_cnn, pyramid, resnet, cifar_resnet, speedrun, pretrained = (
    partial(part, "network", name)
    for name in (
        "ann", "cnn", "lenet", "tutorial_cnn", "pyramid", "resnet", "cifar_resnet", "speedrun",
        "pretrained",
    )
)  # fmt: skip
sgd, adam, adamw, muon = (
    partial(part, "optimizer", name) for name in ("sgd", "adam", "adamw", "muon")
)
constant, step_schedule, cosine, linear, one_cycle, plateau = (
    partial(part, "schedule", name)
    for name in ("constant", "step", "cosine", "linear", "one_cycle", "plateau")
)
