"""Transfer to a folder of photographs: tenfold beside fastai, a plain timm loop and scikit-learn.

    python benchmarks/against_peers.py --peer PYTHON [--images FOLDER]

PYTHON is the interpreter of an environment of its own: `python3 -m venv peers && peers/bin/pip
install fastai timm scikit-learn`, then --peer peers/bin/python. All take the same images, without
--images 4,000 and 1,000 of CIFAR-10 enlarged to 160 pixels, and the same weights, and run one after
the other on all cores. Seconds are those of the whole command, imports, decoding and caches of its
own included. Beside them stands the limit: one forward pass of each view of each image, decoded
already, by the fastest engine.

Prints a line a run and a table; with --out writes both as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from tenfold import load_data
from tenfold.evaluation.onnx_forward import through_onnx
from tenfold.evaluation.trained import build_network
from tenfold.files import write_json
from tenfold.models.pretrained import load_weights
from tenfold.recipe import load_recipe

SIDE, NUMBERS = 160, {"train": 400, "test": 100}
"""Pixels, and images of each class."""

RUNS: dict[str, list[str]] = {
    "tenfold, head": ["transfer-lite0-head", "--set", f"model.input_size={SIDE}"],
    "tenfold, fine-tuned": ["transfer-lite0", "--epochs", "1"],
    "fastai, head": ["fastai"],
    "fastai, fine-tuned": ["fastai", "--epochs", "1"],
    "timm, head": ["timm"],
    "timm, fine-tuned": ["timm", "--epochs", "1"],
    "scikit-learn": ["scikit-learn"],
}


def make_folder(folder: Path) -> None:
    """Images of CIFAR-10, enlarged, a folder for each split and class."""
    dataset = load_data("cifar10")
    assert dataset.test is not None
    for split, images in (("train", dataset.train), ("test", dataset.test)):
        for label, name in enumerate(images.class_names):
            place = folder / split / name
            place.mkdir(parents=True)
            chosen = np.flatnonzero(images.labels == label)[: NUMBERS[split]]
            for number, index in enumerate(chosen):
                image = Image.fromarray(images.pixels[index])
                image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                image.save(place / f"{number}.jpg", quality=95)


def limit(number: int) -> dict[str, float]:
    """Seconds of a forward pass of `number` images by each engine, from 320 of them."""
    recipe = load_recipe("transfer-lite0-head", {"model.input_size": SIDE})
    network = build_network(recipe, num_classes=10, image_size=(SIDE, SIDE)).eval()
    inputs = torch.randn(320, 3, SIDE, SIDE)
    last = inputs.contiguous(memory_format=torch.channels_last)
    found = {}
    with torch.inference_mode():
        onnx = through_onnx(network.backbone, inputs[:8])
        assert onnx is not None
        traced = torch.jit.freeze(torch.jit.trace(network.backbone, last[:40]))
        engines = {
            "ONNX Runtime": lambda: onnx(inputs),
            "torch, traced": lambda: [traced(part) for part in last.split(40)],
            "torch": lambda: [network.backbone(part) for part in last.split(40)],
        }
        for name, run in engines.items():
            run()
            started = time.perf_counter()
            run()
            found[name] = (time.perf_counter() - started) / len(inputs) * number
    return found


def weights_file(path: Path) -> Path:
    """The backbone's weights under timm's names."""
    recipe = load_recipe("transfer-lite0")
    network: Any = build_network(recipe, num_classes=10, image_size=(SIDE, SIDE))
    load_weights(network, "auto")
    state = network.backbone.state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


def timed(command: list[str], **environment: str) -> dict[str, Any]:
    """Its last line of output, seconds and GB at the peak."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | environment,
        text=True,
    )
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{command} failed"
    seconds = time.perf_counter() - started
    return {"last": lines[-1], "seconds": seconds, "gigabytes": usage.ru_maxrss / 1e6}


def run(name: str, images: Path, folder: Path, peer: Path, weights: Path) -> dict[str, Any]:
    """One of RUNS."""
    words = RUNS[name]
    if not name.startswith("tenfold"):
        script = Path(__file__).with_name("peers.py")
        command = [str(peer), str(script), words[0], str(images), str(weights), *words[1:]]
        found = timed(command)
        return found | {"accuracy": json.loads(found.pop("last"))["accuracy"]}
    place = folder / name
    command = [sys.executable, "-m", "tenfold", "train", *words, "--data", str(images)]
    command += ["--folder", str(place), "--no-report", "--json"]
    found = timed(command, TENFOLD_CACHE=str(folder / f"{name} cache"))
    result = json.loads((place / "result.json").read_text())
    found.pop("last")
    return found | {"accuracy": result["splits"]["test"]["accuracy"]}


def main() -> None:
    """Measure all, one after the other."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer", type=Path, required=True, help="a Python that has the peers")
    parser.add_argument("--images", type=Path, help="a folder with train and test")
    parser.add_argument("--only", action="append", choices=RUNS, help="not all; repeatable")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = options.images or folder / "images"
        if options.images is None:
            make_folder(images)
        numbers = {split: len([*(images / split).rglob("*.*")]) for split in NUMBERS}
        # The recipe holds a tenth out and sees the others in two views; the limit sees as much.
        limits = limit(round(1.9 * numbers["train"]) + numbers["test"])
        for name, seconds in limits.items():
            print(f"limit by {name}: {seconds:.0f} s", flush=True)
        weights, found = weights_file(folder / "weights.safetensors"), {}
        for name in options.only or RUNS:
            found[name] = one = run(name, images, folder, options.peer, weights)
            print(
                f"{name:22}{one['seconds']:>8.0f} s{one['accuracy']:>9.1%}"
                f"{one['gigabytes']:>7.1f} GB",
                flush=True,
            )
    if options.out is not None:
        write_json(options.out, {"limit": limits, "runs": found})


if __name__ == "__main__":
    main()
