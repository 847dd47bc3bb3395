"""Put a trained network into the widget of chapter 7, in eight bits.

The one that it has was made by

    tenfold train cnn-quick --set model.widths=[16,32,48] --set model.dense=[] \
        --set model.dropout=0 --set training.epochs=16 --set training.label_smoothing=0.05 \
        --set training.precision=float32
    python scripts/course_network.py runs/cnn-quick/1

with 26,746 parameters and 79.0 % of CIFAR-10's test images (seed 0).
"""

import argparse
import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import tenfold

WIDGET = Path(__file__).parents[1] / "course" / "widgets" / "augmentation.html"


def packed(layer: nn.Conv2d | nn.Linear) -> dict[str, Any]:
    """Weights as integers of eight bits with a scale for each output, and biases."""
    weight = layer.weight.detach().flatten(1)
    scale = weight.abs().amax(dim=1) / 127
    integers = (weight / scale[:, None]).round().to(torch.int8).numpy()
    bias = layer.bias.detach() if layer.bias is not None else torch.zeros(len(weight))
    return {
        "shape": list(layer.weight.shape),
        "weight": base64.b64encode(integers.tobytes()).decode(),
        "scale": [float(f"{value:.5g}") for value in scale],
        "bias": [float(f"{value:.5g}") for value in bias],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path)
    run = tenfold.open_run(parser.parse_args().run)
    model = run.model
    layers = list(model.module.eval())
    network = []
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, nn.Conv2d):
            assert isinstance(following, nn.BatchNorm2d)
            network.append(packed(fuse_conv_bn_eval(layer, following)))
        elif isinstance(layer, nn.Linear):
            network.append(packed(layer))
    found = {
        "classes": list(model.class_names),
        "mean": np.round(model.normalisation.mean, 6).tolist(),
        "std": np.round(model.normalisation.std, 6).tolist(),
        "accuracy": round(100 * run.metrics["test"].accuracy, 1),
        "layers": network,
    }
    page = WIDGET.read_text(encoding="utf-8")
    line = f"const NETWORK = {json.dumps(found, separators=(',', ':'))};"
    page, count = re.subn(r"^const NETWORK = .*;$", lambda _: line, page, flags=re.MULTILINE)
    assert count == 1, f"{WIDGET} has no line of the network"
    WIDGET.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
