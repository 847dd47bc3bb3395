# %% [markdown]
# # 12 · Would you trust it? Would you ship it?
#
# 60 minutes to work through; its cells run in one to two minutes on two cores, without a network
# connection. The audit and the export need what the extra `course` brings, or `audit` and `export`.
#
# **You will be able to**
#
# - say whether a confidence of 90 % is right in 90 of 100 cases, and mend it where it isn't;
# - see where a network looked, and know what such a map doesn't prove;
# - make a file that runs without PyTorch, in a quarter of its size, and check it before others rely
#   on it.

# %% tags=["setup"]
import subprocess
import sys
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import tenfold
from tenfold.course import check, load_images, reduced

# %%
images = load_images()
train, test = images.train, images.test
run = tenfold.train(
    "cnn-quick",
    data=images,
    data__validation_size=300,
    training__min_steps=reduced(400, 20),
    training__label_smoothing=0.0,
    progress=False,
)
model = run.model
print(run)

# %% [markdown]
# ## Predict first
#
# 1. The network says "cat, 95 %". Of 100 such cases, how many are cats?
# 2. You may change every pixel by at most 2 of 255, which nobody sees. What accuracy is left?
# 3. The weights are rounded from 32 bits to 8. How many of 500 predictions change?

# %% [markdown]
# ## By hand: three questions
#
# ### 1. Is a confidence what it says?
#
# The *confidence* of a prediction is the probability of the predicted class. Sort the test images
# by confidence into bins, and compare the mean confidence of each with the share that is right: the
# *reliability diagram*. The mean distance of the two, weighted by images, is the expected
# calibration error (ECE). Networks that have memorised their training images are too sure: training
# goes on rewarding larger logits when all training images are right already (Guo and others, 2017).
#
# One number mends most of it. Divide all logits by a *temperature* that is fitted on validation
# images. No prediction changes, since the order of the classes stays; only how sure it is.


# %%
from tenfold.evaluation.metrics import wilson_interval


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def reliability(probabilities, labels, bins=10):
    """Mean confidence, accuracy and number of images of each bin that has any, and the ECE."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = [
        (confidence[place == b].mean(), right[place == b].mean(), (place == b).sum())
        for b in range(bins)
        if (place == b).any()
    ]
    return rows, sum(n * abs(c - r) for c, r, n in rows) / len(labels)


# Half of the test images stand in for validation images, and the other half is looked at.
half = np.arange(len(test)) % 2 == 0
logits = model.logits(test.pixels)
fitted, shown = logits[half], logits[~half]
temperatures = np.geomspace(0.3, 6, 200)
losses = [
    -np.log(softmax(fitted / t)[np.arange(half.sum()), test.labels[half]] + 1e-12).mean()
    for t in temperatures
]
temperature = temperatures[np.argmin(losses)]
print(f"the temperature with the least loss: {temperature:.2f}")

figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained", sharey=True)
for axis, t in zip(axes, (1.0, temperature), strict=True):
    rows, ece = reliability(softmax(shown / t), test.labels[~half])
    confidence, accuracy, number = np.array(rows).T
    ends = [wilson_interval(round(a * n), int(n)) for a, n in zip(accuracy, number, strict=True)]
    bars = np.abs(np.transpose(ends) - accuracy)
    axis.plot([0, 1], [0, 1], ":", color="grey")
    axis.errorbar(confidence, accuracy, bars, fmt="o-")
    axis.set(xlabel="confidence", title=f"temperature {t:.2f}: ECE {ece:.1%}", ylim=(-0.03, 1.03))
axes[0].set_ylabel("accuracy")
plt.show()

# %% [markdown]
# A point below the dotted line is a bin that is too sure. Look up your first prediction in the last
# bin. The others need not agree with it: here most of those below 90 % are too sure.
#
# The bars are 95 % intervals (Wilson's, chapter 8), and wide: 250 images in ten bins. An ECE is
# biased upward by that noise, and that of a perfect network isn't 0 on so few. Draw your own bins
# in [this widget](widgets/reliability.html).
#
# ### 2. Where did it look?
#
# Grad-CAM (Selvaraju and others, 2017): take the last layer that still has a map; ask by how much
# each of its channels would raise the logit of a class (the mean of the gradient); add up the
# channels with these as weights, and keep what is positive. Below six ships that were predicted
# right, bright where most spoke for *ship*. A map may be dark all over: then no place had a
# positive sum, and Grad-CAM has no answer.


# %%
def grad_cam(module, inputs, label):
    """(1, 3, H, W) -> (h, w): where the last layer with maps found what speaks for `label`."""
    kept = []
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hook = convolutions[-1].register_forward_hook(lambda layer, given, maps: kept.append(maps))
    logit = module(inputs.requires_grad_(True))[0, label]
    hook.remove()
    [gradient] = torch.autograd.grad(logit, kept)
    shares = gradient.mean(dim=(2, 3), keepdim=True)
    return (shares * kept[0]).sum(dim=1)[0].relu().detach().numpy()


module = model.module.eval()
predicted = logits.argmax(axis=1)
ships = np.flatnonzero((test.labels == 8) & (predicted == 8))[:6]
figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), layout="constrained")
for column, index in enumerate(ships):
    inputs = model.inputs(test.pixels[index : index + 1])
    axes[0, column].imshow(test.pixels[index])
    axes[1, column].imshow(test.pixels[index])
    axes[1, column].imshow(
        grad_cam(module, inputs, 8), extent=(-0.5, 31.5, 31.5, -0.5), alpha=0.6, cmap="inferno"
    )
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# Is it the ship, or the water? A map of where evidence came from is a reason to ask, not an answer.
# The answer is an experiment: cover a part, and see whether the prediction changes. And a map that
# looks the same for a network with *random* weights says nothing of what was learned (Adebayo and
# others, 2018); `tenfold audit` makes that check.
#
# ### 3. How little changes its mind?
#
# The gradient by the pixels says in which direction each must go to raise the loss. One step that
# way, as large as allowed in every pixel, is the fast gradient sign method (Goodfellow and others,
# 2015).


# %%
def fgsm(pixels, labels, reach):
    """Accuracy where each pixel moves by `reach` of 255 in the direction of the gradient."""
    moved = torch.tensor(pixels).float().requires_grad_(True)
    slopes = torch.autograd.grad(
        nn.functional.cross_entropy(module(normalised(moved)), torch.tensor(labels)), moved
    )[0]
    attacked = (moved + reach * slopes.sign()).clamp(0, 255).detach()
    with torch.no_grad():
        return np.mean(module(normalised(attacked)).argmax(dim=1).numpy() == labels)


# What the model does to pixels, as a formula: a factor and a shift a channel.
black, white = (model.inputs(np.full((1, 32, 32, 3), v, np.uint8))[0, :, 0, 0] for v in (0, 255))


def normalised(pixels):
    scaled = pixels.permute(0, 3, 1, 2) / 255
    return black[:, None, None] + scaled * (white - black)[:, None, None]


reaches = (0, 1, 2, 4, 8)
for reach in reaches:
    print(f"each pixel by {reach} of 255: {fgsm(test.pixels, test.labels, reach):.1%}")

# %% [markdown]
# Below ten per cent means worse than guessing. One step is the weakest of such attacks; several
# small ones (PGD) leave less. Perhaps nobody attacks your model. But the same network is also
# brittle to what nobody intends: blur, noise, another camera.
#
# ## With tenfold
#
# `tenfold audit` asks all this and more about a finished run: calibration, thresholds, sets of
# classes, maps with their check, corruptions, shifts, attacks, label errors; and writes it on the
# page of the run.


# %%
def command(*words):
    """Run tenfold as in a terminal, and show how it ends."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tenfold", *map(str, words)], capture_output=True, text=True
    )
    lines = (done.stdout + done.stderr).replace(f"{Path.cwd()}/", "").strip().splitlines()
    print(f"$ tenfold {' '.join(map(str, words))}   ({time.perf_counter() - started:.0f} s)")
    print("\n".join(lines[-25:]))
    assert done.returncode == 0, "this command has failed"


# The images of this course are no file; as a folder, every command can read them.
for split, part in images.splits().items():
    for index, (pixels, label) in enumerate(zip(part.pixels, part.labels, strict=True)):
        folder = Path("images", split, part.class_names[label])
        folder.mkdir(parents=True, exist_ok=True)
        plt.imsave(folder / f"{index}.png", pixels)
steps = f"training.min_steps={reduced(400, 20)}"
# In a folder of runs of its own, since every chapter that is worked through here fills `runs`.
command("train", "cnn-quick", "--data", "images", "--set", steps, "--runs", "shipped")
command("audit", "shipped/cnn-quick/1", *reduced([], ["calibration"]))

# %% [markdown]
# The page is `shipped/cnn-quick/1/report.html`; open it in the list of files on the left. Its
# temperature is another than ours above: a command trains as the recipe says, with a label
# smoothing of 0.1, which teaches a network to be less sure (chapter 7), and we trained without.
# Below 1 a temperature mends a network that isn't sure enough.
#
# ### Would you ship it?
#
# An ONNX file holds the network without PyTorch, takes the pixels as they are, and gives
# probabilities. In int8 it is a quarter of the size. `tenfold export` compares the file's
# predictions with the network's before it keeps it: that gate is why one can rely on the file. A
# file in floating point must give every image the same class, one in int8 may lose a point of
# accuracy.

# %%
command("export", "shipped/cnn-quick/1")
command("export", "shipped/cnn-quick/1", "--int8")
for path in sorted(Path("shipped/cnn-quick/1").rglob("*.onnx")):
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")

# %% [markdown]
# `tenfold predict FILE.onnx IMAGES` uses it, `tenfold serve` puts it behind a page and an
# interface, and `tenfold export --web FOLDER` makes a page that computes in the browser. The
# [widget of chapter 7](widgets/augmentation.html) holds such a network in eight bits, 27 kB of
# weights, and runs it on what you draw or photograph.
#
# ## The experiment: rounding to eight bits
#
# Each weight matrix gets one scale: the largest weight becomes 127, all are rounded to integers.
# What remains at 8, 6, 5, 4, 3 and 2 bits, with one scale for a layer, and with one for each of its
# output channels?


# %%
def rounded(weight, bits, by_channel):
    """The weight as integers of so many bits would give it back."""
    most = 2 ** (bits - 1) - 1
    flat = weight.flatten(1) if by_channel else weight.reshape(1, -1)
    scale = flat.abs().amax(dim=1).clamp(min=1e-8) / most
    return ((flat / scale[:, None]).round() * scale[:, None]).reshape(weight.shape)


import copy

whole = model.logits(test.pixels).argmax(axis=1)
print("bits   one scale a layer        one a channel")
for bits in (8, 6, 5, 4, 3, 2):
    line = f"{bits:4}"
    for by_channel in (False, True):
        small = copy.deepcopy(module)
        for layer in small.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                layer.weight.data = rounded(layer.weight.data, bits, by_channel)
        with torch.no_grad():
            found = small(model.inputs(test.pixels)).argmax(dim=1).numpy()
        same = np.mean(found == whole)
        line += f"   {np.mean(found == test.labels):.1%} ({same:.1%} the same)"
    print(line)

# %% [markdown]
# With one scale a channel more predictions stay the same: a channel of small weights isn't rounded
# by the scale of a large one. At 8 bits a few of 500 change, which is your third prediction. The
# file in int8 above changes more, since it rounds activations, too.
#
# Note two numbers and not one: the accuracy may stay where many predictions change, since as many
# errors are mended as made. Who compares files compares predictions.
#
# ### The capstone: a speedrun
#
# You have all parts: convolutions, norms, augmentation, a schedule, an optimiser, and honest seeds.
# How few seconds does 75 % on all of CIFAR-10 take on your machine? `tenfold train fast-75` is our
# answer, `tenfold bench --to 75 --seeds 5` measures it. Start from `tenfold recipes fast-75`,
# take parts away, and see which of them carry the speed. A change counts if five seeds show it.

# %% [markdown]
# ## Exercises
#
# **1.** The expected calibration error. A confidence of 1 belongs to the last bin; a bin may be
# empty.


# %% tags=["exercise"]
def calibration_error(confidences, right, bins):
    """confidences: (N,), from 0 to 1. right: (N,) bool. bins: of equal width. Returns a number."""
    ...


# %% tags=["check", "raises-exception"]
check("calibration_error", calibration_error)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def calibration_error(confidences, right, bins):
#     place = np.minimum((confidences * bins).astype(int), bins - 1)
#     error = 0.0
#     for b in np.unique(place):
#         here = place == b
#         error += here.mean() * abs(confidences[here].mean() - right[here].mean())
#     return error
# ```
#
# </details>

# %% [markdown]
# **2.** The threshold of conformal sets. Instead of one class a set is predicted: all classes whose
# probability is at least a threshold. The set is to hold the true class in at least the share
# `coverage` of new cases. For that, let the network give its probability of the true class for $n$
# validation images. The threshold is the $k$-th smallest of these, with
# $k = \lfloor (n + 1)(1 - \mathrm{coverage}) \rfloor$, and 0 where $k = 0$. (In floating point
# 10 (1 - 0.9) is a little less than 1: add $10^{-9}$ before rounding down.)


# %% tags=["exercise"]
def set_threshold(true_probabilities, coverage):
    """true_probabilities: (N,). Returns the least probability of a class in the set."""
    ...


# %% tags=["check", "raises-exception"]
check("set_threshold", set_threshold)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def set_threshold(true_probabilities, coverage):
#     rank = int(np.floor((len(true_probabilities) + 1) * (1 - coverage) + 1e-9))
#     return np.sort(true_probabilities)[rank - 1] if rank else 0.0
# ```
#
# With 8 images and 90 % there is no such image: the sets hold everything, and that is honest.
#
# </details>

# %% [markdown]
# **3.** Symmetric integers of 8 bits, one scale for each output channel, which is a row here:
# integer times scale gives the weight back, nearly, and a row's largest becomes 127 or -127. A row
# of zeros stays zeros.


# %% tags=["exercise"]
def quantise(weight):
    """weight: (O, I). Returns integers from -127 to 127, (O, I) int8, and scales, (O,)."""
    ...


# %% tags=["check", "raises-exception"]
check("quantise", quantise)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def quantise(weight):
#     scale = np.abs(weight).max(axis=1) / 127
#     scale = np.where(scale == 0, 1.0, scale)
#     return np.rint(weight / scale[:, None]).astype(np.int8), scale
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. The temperature changes no prediction. Why fit one?
#
# <details><summary>Answer</summary>Because somebody decides by the confidence: what goes to a
# person, what is shown as unsure, how several models are combined.</details>
#
# 2. On which images must a temperature be fitted?
#
# <details><summary>Answer</summary>On such as the network was neither trained nor chosen on. On its
# training images nearly everything is right, and the temperature comes out too low.</details>
#
# 3. A Grad-CAM map lies on the snow, not on the wolf. What now?
#
# <details><summary>Answer</summary>A suspicion: it tells snow. Test it: wolves without snow,
# huskies with it. If the predictions follow the snow, you need other images, not another
# network.</details>
#
# 4. Sets promise 95 % and hold it on average. What may be wrong for a class that is rare?
#
# <details><summary>Answer</summary>The promise is over all images. The sets may hold the true class
# in 60 % of the images of a rare class, and in 97 % of those of the common ones. Look at each class
# by itself.</details>
#
# 5. int8 costs 0.2 points on your machine. May you ship it to phones?
#
# <details><summary>Answer</summary>Not yet. Other processors round and saturate otherwise. Ship
# some images with their expected probabilities, and have the file checked where it runs.</details>

# %% [markdown]
# ## What this doesn't show
#
# - That a network is fair, safe or allowed. These questions begin with who is affected, not with a
#   number.
# - Other data than CIFAR-10's kind. Robustness to listed corruptions says little about those that
#   are not on the list.
# - Rounding *activations*: the file does that too, and it is the harder part.
#
# ## Where to read on
#
# - Chuan Guo and others, *On Calibration of Modern Neural Networks*, 2017 (arXiv 1706.04599).
# - Anastasios Angelopoulos and Stephen Bates, *A Gentle Introduction to Conformal Prediction*, 2021
#   (arXiv 2107.07511).
# - Ramprasaath Selvaraju and others, *Grad-CAM*, 2017 (arXiv 1610.02391); Julius Adebayo and
#   others, *Sanity Checks for Saliency Maps*, 2018 (arXiv 1810.03292).
# - Ian Goodfellow and others, *Explaining and Harnessing Adversarial Examples*, 2015 (arXiv
#   1412.6572); Dan Hendrycks and Thomas Dietterich, *Benchmarking Neural Network Robustness*, 2019
#   (arXiv 1903.12261).
# - Benoit Jacob and others, *Quantization and Training of Neural Networks*, 2018 (arXiv
#   1712.05877).
# - Keller Jordan, *94% on CIFAR-10 in 3.29 Seconds on a Single GPU*, 2024 (arXiv 2404.00498).
