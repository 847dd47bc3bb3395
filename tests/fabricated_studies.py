"""Summaries of studies that were never run, for what is made from them."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from tenfold.files import write_json

MACHINE = {"cpu": "AMD EPYC 7B13", "cores": 2, "device": "cpu", "threads": 1}
Z = 1.959963984540054
T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % of Student's t at n - 1 degrees of freedom


def wilson(share: float, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of `number` pictures."""
    centre = (share + Z**2 / (2 * number)) / (1 + Z**2 / number)
    inner = share * (1 - share) / number + Z**2 / (4 * number**2)
    half = Z * math.sqrt(inner) / (1 + Z**2 / number)
    return centre - half, centre + half


def estimate(values: list[float]) -> dict[str, Any]:
    """A SUMMARY of one value a seed."""
    mean = float(np.mean(values))
    if len(values) == 1:
        low, high = wilson(mean, 10_000) if mean <= 1 else (mean, mean)
        sd, over = None, "pictures"
    else:
        sd, over = float(np.std(values, ddof=1)), "seeds"
        half = T[len(values)] * sd / math.sqrt(len(values))
        low, high = mean - half, mean + half
    return {
        "mean": mean, "sd": sd, "low": low, "high": high, "n": len(values), "values": values,
        "interval_over": over,
    }  # fmt: skip


def verdict(test: dict[str, Any], published: float) -> str:
    """The contract's verdict."""
    if test["low"] > published:
        return "beaten"
    if test["mean"] >= published:
        return "met"
    return "within the interval" if test["high"] >= published else "below"


def make_band(curves: np.ndarray) -> dict[str, list[float]]:
    """`(seeds, epochs)` as a BAND."""
    return {
        side: [round(float(one), 5) for one in getattr(np, name)(curves, axis=0)]
        for side, name in (("mean", "mean"), ("low", "min"), ("high", "max"))
    }


def make_curves(*, top: float, peak: int, epochs: int, seeds: int, seed: int) -> dict[str, Any]:
    """Curves that rise to `top` on validation at `peak`, then fall while training goes on."""
    generator = np.random.default_rng(seed)
    x = np.arange(1, epochs + 1)
    rise = top - (top - 0.25) * np.exp(-4 * x / peak)
    fall = 0.0009 * np.maximum(x - peak, 0)
    noise = generator.normal(0, 0.006, (seeds, epochs))
    validation = rise - fall + noise
    train = 0.25 + (0.98 - 0.25) * (1 - np.exp(-1.9 * x / (1.9 * peak))) + noise / 4
    return {
        "epoch": x.tolist(),
        "train_accuracy": make_band(np.minimum(train, 1)),
        "validation_accuracy": make_band(validation),
        "train_loss": make_band(-np.log(np.clip(train, 0.02, 0.999))),
        "validation_loss": make_band(-1.3 * np.log(validation) + 0.012 * np.maximum(x - peak, 0)),
    }


def make_variant(
    label: str,
    *,
    top: float,
    epochs: int = 20,
    peak: int | None = None,
    milestones: tuple[int, ...] = (),
    seeds: tuple[int, ...] = (0, 1, 2),
    published: dict[int, tuple[float, str]] | None = None,
    seconds: float = 300.0,
    num_parameters: int = 62_006,
    model: str = "lenet",
    planned_seeds: int | None = None,
) -> dict[str, Any]:
    """A variant whose test accuracies follow its curves; without seeds, one that never ran."""
    generator = np.random.default_rng(sum(map(ord, label)))
    shown = published or {}
    curves = None
    if seeds:
        curves = make_curves(
            top=top,
            peak=peak or epochs,
            epochs=epochs,
            seeds=len(seeds),
            seed=sum(map(ord, label)),
        )
    points = []
    for epoch in sorted({*milestones, epochs}):
        test = None
        if curves:
            centre = curves["validation_accuracy"]["mean"][epoch - 1]
            values = [round(centre + float(generator.normal(0, 0.003)), 4) for _ in seeds]
            test = estimate(values)
        accuracy, source = shown.get(epoch, (None, ""))
        points.append(
            {
                "epoch": epoch,
                "is_end": epoch == epochs,
                "test": test,
                "validation": test,
                "training_mode": None,
                "published": accuracy
                and {
                    "accuracy": accuracy,
                    "source": source,
                    "settings": "source",
                    "training_mode": False,
                },
                "verdict": verdict(test, accuracy) if test and accuracy else None,
            }
        )
    times = [seconds * (1 + 0.01 * n) for n in range(len(seeds))]
    return {
        "label": label,
        "recipe": model,
        "model": model,
        "num_parameters": num_parameters if seeds else None,
        "planned_seeds": planned_seeds or max(len(seeds), 3),
        "seeds": list(seeds),
        "training_seconds": estimate(times) if seeds else None,
        "process_seconds": estimate([1.02 * time for time in times]) if seeds else None,
        "points": points,
        "curves": curves,
    }


def make_comparison(variant: dict[str, Any], baseline: dict[str, Any], p: float) -> dict[str, Any]:
    """A variant against the baseline at the end of training."""
    one, other = variant["points"][-1]["test"], baseline["points"][-1]["test"]
    difference = one["mean"] - other["mean"]
    half = 0.009
    more = "better" if difference > 0 else "worse"
    holm = min(1.0, 3 * p)
    end = "not a coincidence" if holm < 0.05 else "which may be chance"
    return {
        "variant": variant["label"], "baseline": baseline["label"],
        "epoch": variant["points"][-1]["epoch"], "difference": difference,
        "low": difference - half, "high": difference + half, "p": p, "p_holm": holm,
        "mcnemar_p": p / 2, "n": [one["n"], other["n"]],
        "sentence": f"{variant['label']} is {more} than {baseline['label']} by "
        f"{100 * abs(difference):.1f} points, {end}.",
    }  # fmt: skip


def make_summary(name: str, variants: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """The summary of a study of `variants`, in which everything was run, with `changes`."""
    number = sum(len(variant["seeds"]) for variant in variants)
    return {
        "name": name, "title": f"The study {name}", "question": "What helps?", "limits": [],
        "command": f"tenfold study {name}",
        "baseline": None, "planned": number, "finished": number, "failed": 0, "failures": [],
        "machine": MACHINE, "variants": variants, "comparisons": [], "findings": [], **changes,
    }  # fmt: skip


def make_activations() -> dict[str, Any]:
    """LeNet with five activations, three seeds, measured at 10, 20, ... 100 epochs."""
    thesis = "PyTorch thesis on activation functions"
    milestones = tuple(range(10, 101, 10))
    variants = [
        make_variant("ReLU", top=0.655, peak=30, epochs=100, milestones=milestones, seconds=610,
                     published={100: (0.5797, thesis), 30: (0.6612, thesis)}),
        make_variant("Leaky ReLU", top=0.66, peak=28, epochs=100, milestones=milestones,
                     seconds=640, published={10: (0.61, thesis)}),
        make_variant("Swish", top=0.668, peak=38, epochs=100, milestones=milestones, seconds=702),
        make_variant("Tanh", top=0.64, peak=36, epochs=100, milestones=milestones, seconds=598),
        make_variant("Sigmoid", top=0.52, peak=70, epochs=100, milestones=milestones, seconds=604,
                     published={100: (0.55, thesis)}),
    ]  # fmt: skip
    others = [
        make_comparison(v, variants[0], p)
        for v, p in zip(variants[1:], (0.21, 0.0004, 0.03, 1e-9), strict=True)
    ]
    return make_summary(
        "activations",
        variants,
        title="Activations in LeNet",
        question="Which activation function does LeNet learn best with, and for how many epochs?",
        baseline="ReLU",
        limits=[
            "One network, one learning rate (0.001) and one batch size (32): with others the order "
            "may differ.",
            "Nothing was tuned for any of the activations.",
        ],
        comparisons=others,
        findings=[
            "Swish ends best, with 61.3 % after 100 epochs; it was best of all after 40, with "
            "66.5 %.",
            "All but Sigmoid fall after 30 to 40 epochs while training goes on rising: they learn "
            "by heart.",
            "Leaky ReLU is within chance of ReLU at every epoch.",
        ],
    )


def make_ann_vs_cnn() -> dict[str, Any]:
    """Two variants without milestones."""
    source = "beginners' project “from ANN to CNN”"
    ann = make_variant("ANN", top=0.553, epochs=6, seconds=21, num_parameters=1_708_042,
                       model="ann", published={6: (0.50, source)})  # fmt: skip
    cnn = make_variant("CNN", top=0.809, epochs=6, seconds=92, num_parameters=357_162,
                       model="cnn", published={6: (0.80, source)})  # fmt: skip
    return make_summary(
        "ann-vs-cnn",
        [ann, cnn],
        title="A dense network against a convolutional one",
        question="How much does convolution bring over dense layers on the same pictures?",
        baseline="ANN",
        comparisons=[make_comparison(cnn, ann, 1e-12)],
        findings=["CNN is better than ANN by 25.6 points, with a fifth of its parameters."],
    )


def make_cut_short() -> dict[str, Any]:
    """Two of six trials failed, and a variant without a run."""
    variants = [
        make_variant("without dropout", top=0.74, epochs=30, peak=18, seeds=(0, 1, 2)),
        make_variant("dropout 0.5", top=0.77, epochs=30, seeds=(0,), planned_seeds=2,
                     published={30: (0.7509, "PyTorch thesis")}),
        make_variant("dropout 0.9", top=0.6, epochs=30, seeds=(), planned_seeds=1,
                     published={30: (0.6, "PyTorch thesis")}),
    ]  # fmt: skip
    return make_summary(
        "dropout",
        variants,
        title="Dropout",
        question="Does dropout keep the network from learning by heart?",
        planned=6,
        finished=4,
        failed=2,
        failures=[
            {"trial": "dropout 0.5-1",
             "error": "The loss is not finite at step 1,204; lower optimizer.lr."},
            {"trial": "dropout 0.9-0",
             "error": "/home/someone/studies/dropout/runs/x can't be written (Read-only file "
             "system); choose another folder."},
        ],
    )  # fmt: skip


def make_twelve() -> dict[str, Any]:
    """Twelve variants with long labels."""
    labels = [
        "nothing at all, the pictures as they are",
        "flip",
        "flip and crop",
        "flip, crop and colour jitter of brightness, contrast and saturation",
        "flip, crop and cutout of 8 pixels",
        "flip, crop and cutout of 16 pixels",
        "mixup with alpha 0.2",
        "CutMix with alpha 1.0 after flips and crops of 4 pixels with reflected edges",
        "translation by up to 2 pixels",
        "translation by up to 4 pixels with reflected edges",
        "RandAugment_with_an_unbroken_name_that_goes_on_and_on_and_on",
        "everything together",
    ]
    variants = [
        make_variant(label, top=0.78 + 0.012 * (n % 7), epochs=40, peak=20 + 2 * n, seconds=900)
        for n, label in enumerate(labels)
    ]
    return make_summary(
        "augmentation",
        variants,
        title="Augmentation",
        question="Which alterations of the training pictures help?",
        baseline=labels[0],
        comparisons=[
            make_comparison(v, variants[0], 0.001 * n**2) for n, v in enumerate(variants[1:], 1)
        ],
        findings=["Everything together is best."],
    )


def make_one_seed() -> dict[str, Any]:
    """One seed of two variants."""
    variants = [
        make_variant("ResNet-18", top=0.92, epochs=10, seeds=(0,), planned_seeds=1, seconds=2400,
                     published={10: (0.7088, "PyTorch thesis")}),
        make_variant("ResNet-34", top=0.925, epochs=10, seeds=(0,), planned_seeds=1, seconds=4400),
    ]  # fmt: skip
    return make_summary(
        "depth", variants, title="Depth", question="Is deeper better?", machine=None
    )


def make_published() -> dict[str, Any]:
    """The study of the README's table."""
    variants = [
        make_variant("ANN", top=0.553, epochs=6, seconds=21, num_parameters=1_708_042,
                     model="ann", published={6: (0.50, "beginners' project")}),
        make_variant("LeNet, Leaky ReLU", top=0.655, epochs=10, seconds=64, milestones=(5,),
                     published={5: (0.6, "PyTorch thesis"), 10: (0.7, "PyTorch thesis")}),
        make_variant("ResNet-18", top=0.8, epochs=10, seeds=(),
                     published={10: (0.7088, "PyTorch thesis")}),
    ]  # fmt: skip
    return make_summary("published", variants, title="Published results", planned=9, finished=6)


ALL = {
    "activations": make_activations,
    "ann-vs-cnn": make_ann_vs_cnn,
    "cut-short": make_cut_short,
    "twelve": make_twelve,
    "one-seed": make_one_seed,
}


def write_study(folder: Path, summary: dict[str, Any]) -> Path:
    """A study folder that holds its summary alone."""
    write_json(folder / "summary.json", summary)
    return folder
