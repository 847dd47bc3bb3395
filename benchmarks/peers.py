"""What a user would pick instead for a folder of photographs: one side of `against_peers.py`.

Runs in an environment of its own (`pip install fastai timm scikit-learn`) on a folder with `train`
and `test`, each with a folder a class, and on weights of EfficientNet-Lite0 under timm's names.
Prints one JSON object: accuracy on test, and seconds without imports.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.functional import cross_entropy

BACKBONE, SIDE, BATCH = "tf_efficientnet_lite0", 160, 64


def backbone(weights: Path, num_classes: int = 0) -> nn.Module:
    """The network with its weights from ImageNet, and a classifier where there are classes."""
    from safetensors.torch import load_file

    network = timm.create_model(BACKBONE, num_classes=num_classes)
    network.load_state_dict(load_file(weights), strict=False)
    return network


def with_fastai(folder: Path, weights: Path, *, epochs: int) -> float:
    """`vision_learner` as in its documentation: the head for an epoch, then all for `epochs`."""
    from fastai.vision.all import (
        ImageDataLoaders,
        Normalize,
        Resize,
        accuracy,
        aug_transforms,
        vision_learner,
    )

    config = timm.get_pretrained_cfg(BACKBONE)
    loaders = ImageDataLoaders.from_folder(
        folder,
        train="train",
        valid="test",
        item_tfms=Resize(SIDE),
        batch_tfms=[*aug_transforms(size=SIDE), Normalize.from_stats(config.mean, config.std)],
        bs=BATCH,
        num_workers=0,
    )
    learner = vision_learner(loaders, BACKBONE, pretrained=False, metrics=accuracy)
    learner.model[0].model.load_state_dict(backbone(weights).state_dict(), strict=False)
    learner.freeze()
    with learner.no_bar(), learner.no_logging():
        if epochs:
            learner.fine_tune(epochs)
        else:
            learner.fit_one_cycle(1)
        return float(learner.validate()[1])


def loader(folder: Path, split: str, *, train: bool) -> Any:
    """timm's usual loader of a split."""
    from timm.data import create_dataset, create_loader, resolve_data_config

    config = resolve_data_config({"input_size": (3, SIDE, SIDE)}, model=timm.create_model(BACKBONE))
    return create_loader(
        create_dataset("", root=str(folder / split)),
        input_size=config["input_size"],
        batch_size=BATCH,
        is_training=train,
        mean=config["mean"],
        std=config["std"],
        interpolation=config["interpolation"],
        crop_pct=1.0,
        num_workers=0,
        use_prefetcher=False,
    )


def with_timm(folder: Path, weights: Path, *, epochs: int) -> float:
    """A plain loop: AdamW, cosine, label smoothing; the head alone for two epochs if 0."""
    train, test = loader(folder, "train", train=True), loader(folder, "test", train=False)
    num_classes = len(train.dataset.reader.class_to_idx)
    network = backbone(weights, num_classes)
    if not epochs:
        network.requires_grad_(False)
        network.get_classifier().requires_grad_(True)
    learned = [p for p in network.parameters() if p.requires_grad]
    number = epochs or 2
    optimizer = torch.optim.AdamW(learned, lr=3e-4 if epochs else 1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, number * len(train))
    for _ in range(number):
        network.train() if epochs else network.eval()
        for images, labels in train:
            optimizer.zero_grad()
            cross_entropy(network(images), labels, label_smoothing=0.1).backward()
            optimizer.step()
            schedule.step()
    network.eval()
    right = total = 0
    with torch.inference_mode():
        for images, labels in test:
            right += int((network(images).argmax(1) == labels).sum())
            total += len(labels)
    return right / total


def with_scikit(folder: Path, weights: Path, *, epochs: int) -> float:
    """Logistic regression on timm's features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    del epochs
    network = backbone(weights).eval()

    def features(split: str) -> tuple[Any, Any]:
        found = []
        with torch.inference_mode():
            for images, labels in loader(folder, split, train=False):
                found.append((network(images), labels))
        return tuple(torch.cat(part).numpy() for part in zip(*found, strict=True))

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    classifier.fit(*features("train"))
    return float(classifier.score(*features("test")))


PEERS: dict[str, Callable[..., float]] = {
    "fastai": with_fastai,
    "timm": with_timm,
    "scikit-learn": with_scikit,
}


def main() -> None:
    """One run of a peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--epochs", type=int, default=0, help="of fine-tuning; 0 for the head")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    started = time.perf_counter()
    reached = PEERS[options.peer](options.folder, options.weights, epochs=options.epochs)
    print(json.dumps({"seconds": time.perf_counter() - started, "accuracy": reached}))


if __name__ == "__main__":
    main()
