# %% [markdown]
# # 9 · Depth and residual networks
#
# 50 minutes to work through; its cells run in two to three minutes on two cores, without a network
# connection.
#
# **You will be able to**
#
# - write a residual block, and build ResNet-20 of them;
# - measure what a shortcut does to the gradient of the first layer;
# - say what depth costs, and when it pays.

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
mean = train.pixels.mean(axis=(0, 1, 2)) / 255
deviation = train.pixels.std(axis=(0, 1, 2)) / 255


def prepared(pixels):
    """(N, 32, 32, 3) uint8 -> (N, 3, 32, 32) normalised float32, as PyTorch wants images."""
    return torch.tensor((pixels / 255 - mean) / deviation).permute(0, 3, 1, 2).float()


inputs, labels = prepared(train.pixels), torch.tensor(train.labels)
asked, true = prepared(test.pixels), torch.tensor(test.labels)

# %% [markdown]
# ## Predict first
#
# 1. A chain of 30 convolutions without norms and without shortcuts, with good initial weights. Does
#    it learn?
# 2. The same chain gets a shortcut around each pair of layers, and nothing else. By what factor
#    does the gradient of its first layer change?
# 3. A network of 20 layers reaches a training loss of 0.5. You add 10 layers, which could do
#    nothing at all and pass on what they get. Can the training loss become worse?

# %% [markdown]
# ## By hand: a residual block
#
# The third question should have the answer no, and in 2015 it was yes: deeper plain networks had a
# *higher training loss* (He and others). So it isn't overfitting. It is hard for gradient descent
# to find "pass it on" as weights of two convolutions.
#
# The remedy gives it away for nothing. Let the block compute what is to be *added*:
#
# $$y = \mathrm{ReLU}(x + F(x)).$$
#
# Now "pass it on" is $F = 0$. And the gradient has a way back on which nothing multiplies it:
# $\partial y / \partial x = 1 + F'(x)$.


# %%
class Block(nn.Module):
    """Two 3 x 3 convolutions; with `shortcut`, what came in is added to what they make."""

    def __init__(self, width_in, width, stride=1, shortcut=True, normed=True):
        super().__init__()
        norm = nn.BatchNorm2d if normed else lambda width: nn.Identity()
        self.body = nn.Sequential(
            nn.Conv2d(width_in, width, 3, stride, padding=1, bias=not normed),
            norm(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=not normed),
            norm(width),
        )
        self.stride, self.added, self.shortcut = stride, width - width_in, shortcut

    def forward(self, x):
        y = self.body(x)
        if self.shortcut:
            # Where the resolution halves, every second pixel; new channels start as zeros.
            passed = x[:, :, :: self.stride, :: self.stride]
            y = y + nn.functional.pad(passed, (0, 0, 0, 0, 0, self.added))
        return torch.relu(y)


def resnet(blocks, width=8, shortcut=True, normed=True):
    """6 x blocks + 2 layers, as in section 4.2 of the paper, where the width is 16."""
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    channels = width
    for group in range(3):
        for index in range(blocks):
            stride = 2 if group and not index else 1
            layers.append(Block(channels, width * 2**group, stride, shortcut, normed))
            channels = width * 2**group
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return model


twenty = resnet(3, width=16)
print("ResNet-20:", sum(p.numel() for p in twenty.parameters()), "parameters")
print("in the paper: 0.27 million")

# %% [markdown]
# ### The gradient on its way back
#
# Networks of 8 to 56 layers, one batch: the size of the gradient of the first convolution. Norms
# are left out, so that only the shortcut differs, and all weights are 0.7 of He's (chapter 6), as
# they might be after a while: weights don't stay where they began.

# %%
figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
depths = reduced((1, 3, 5, 9), (1, 3))
for shortcut in (False, True):
    sizes = []
    for blocks in depths:
        torch.manual_seed(0)
        model = resnet(blocks, shortcut=shortcut, normed=False)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.data *= 0.7
        nn.functional.cross_entropy(model(inputs[:64]), labels[:64]).backward()
        sizes.append(model[0].weight.grad.norm().item())
    axis.plot([6 * b + 2 for b in depths], sizes, "o-", label="shortcut" if shortcut else "plain")
    print("shortcut" if shortcut else "plain   ", " ".join(f"{size:9.2g}" for size in sizes))
axis.set(yscale="log", xlabel="layers", ylabel="gradient of the first layer")
axis.legend()
plt.show()

# %% [markdown]
# Each plain layer multiplies the gradient by 0.7, and after 56 nothing is left. With shortcuts the
# same weights cost nothing: the gradient goes around them. Cut shortcuts one by one, and watch
# signal and gradient, in [this widget](widgets/shortcuts.html).
#
# ## With tenfold
#
# `resnet20`, `resnet56` and `resnet110` are the networks of the paper, `resnet18` to `resnet50` its
# larger ones for small images; the depth is a field of the recipe.

# %%
for depth in reduced((20, 32), (20,)):
    run = tenfold.train(
        "resnet20",
        data=images,
        model__depth=depth,
        epochs=1,
        training__min_steps=reduced(60, 5),
        training__batch_size=64,
        data__validation_size=150,
        progress=False,
    )
    parameters = sum(p.numel() for p in run.model.module.parameters())
    print(f"{depth} layers, {parameters:,} parameters: {run}")

# %% [markdown]
# Sixty steps are too few for networks that the paper trains for 64,000. With all of CIFAR-10,
# `tenfold study depth` compares depths at full length; what it found stands in the documentation's
# results.
#
# ## The experiment: depth with and without shortcuts
#
# The paper's question in miniature: plain and residual networks of 8, 20 and 32 layers, with batch
# norm in both, some epochs on 1,500 images, three seeds. We look at the **training loss**, since
# the claim is about what gradient descent can find.


# %%
num_epochs = reduced(4, 1)


def fit(blocks, shortcut, seed):
    """Training loss and test accuracy at the end, in evaluation mode, and the seconds it took."""
    torch.manual_seed(seed)
    model = resnet(blocks, shortcut=shortcut)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    started = time.perf_counter()
    for _ in range(num_epochs):
        for pick in torch.randperm(len(inputs)).split(50):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[pick]), labels[pick]).backward()
            optimizer.step()
    seconds = time.perf_counter() - started
    model.eval()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(model(inputs), labels).item()
        accuracy = (model(asked).argmax(dim=1) == true).float().mean().item()
    return loss, accuracy, seconds


found = {}
for shortcut in (False, True):
    for blocks in reduced((1, 3, 5), (1,)):
        several = [fit(blocks, shortcut, seed) for seed in range(reduced(3, 1))]
        found[shortcut, 6 * blocks + 2] = np.array(several)

# %%
from tenfold.studies.statistics import summarise

print("            layers   training loss   seconds   test accuracy, 95 % interval over seeds")
for (shortcut, depth), rows in found.items():
    named = "shortcuts" if shortcut else "plain"
    loss, _, seconds = rows.mean(axis=0)
    estimate = summarise(rows[:, 1].tolist(), num_images=len(true))
    print(f"{named:10} {depth:7}   {loss:13.2f}   {seconds:7.1f}   {estimate.in_words}")

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for shortcut in (False, True):
    rows = [(depth, values[:, 0]) for (s, depth), values in found.items() if s == shortcut]
    depths, losses = zip(*rows, strict=True)
    axis.plot(
        depths, [each.mean() for each in losses], "o-", label="shortcuts" if shortcut else "plain"
    )
axis.set(xlabel="layers", ylabel="training loss, mean of seeds")
axis.legend()
plt.show()

# %% [markdown]
# Does the plain network's training loss rise with depth? And the residual one's? Compare the pairs
# of equal depth: they have the same parameters and cost nearly the same seconds. Where intervals of
# the test accuracy overlap, this miniature hasn't decided; in the paper, with 64,000 steps, the
# plain network of 56 layers ends at a higher training error than that of 20, and the residual one
# at a lower.

# %% [markdown]
# ## Exercises
#
# **1.** The forward pass of a block, given its two convolutions as functions.


# %% tags=["exercise"]
def residual(x, first, second):
    """x: an array. first, second: functions of arrays. ReLU after `first` and after the sum."""
    ...


# %% tags=["check", "raises-exception"]
check("residual", residual)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def residual(x, first, second):
#     return np.maximum(x + second(np.maximum(first(x), 0)), 0)
# ```
#
# </details>

# %% [markdown]
# **2.** The shortcut where the resolution halves and channels are added: every second row and
# column, new channels zero, behind the old ones.


# %% tags=["exercise"]
def halved_shortcut(x, width):
    """x: (N, C, H, W), H and W even. width: at least C. Returns (N, width, H / 2, W / 2)."""
    ...


# %% tags=["check", "raises-exception"]
check("halved_shortcut", halved_shortcut)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def halved_shortcut(x, width):
#     passed = x[:, :, ::2, ::2]
#     missing = width - passed.shape[1]
#     return np.pad(passed, [(0, 0), (0, missing), (0, 0), (0, 0)])
# ```
#
# </details>

# %% [markdown]
# **3.** Layers of a ResNet for CIFAR-10 with $n$ blocks in each of its three groups (what is
# counted are the convolutions and the linear layer), and weights of its convolutions at the widths
# 16, 32, 64, biases and norms not counted.


# %% tags=["exercise"]
def resnet_size(n):
    """Returns the number of layers, and the number of weights of convolutions."""
    ...


# %% tags=["check", "raises-exception"]
check("resnet_size", resnet_size)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def resnet_size(n):
#     weights, channels = 3 * 16 * 9, 16
#     for width in (16, 32, 64):
#         weights += channels * width * 9 + (2 * n - 1) * width * width * 9
#         channels = width
#     return 6 * n + 2, weights
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. A deeper plain network has a higher test error. What must you look at before you say
#    overfitting?
#
# <details><summary>Answer</summary>The training loss. If it is higher, too, the network fits its
# own images worse: that is no overfitting, but optimisation that fails.</details>
#
# 2. Why do the new channels of a shortcut start as zeros, and not from a 1 x 1 convolution?
#
# <details><summary>Answer</summary>Either works. Zeros have no parameters, so that plain and
# residual network can be compared as equals. Larger ResNets use the convolution.</details>
#
# 3. What does a residual network of 50 blocks compute if most $F$ are small?
#
# <details><summary>Answer</summary>Something near a sum of many short networks: leave a block out
# of a trained one, and it loses little (Veit and others, 2016). A plain network without a layer is
# broken.</details>
#
# 4. Does a shortcut make the network faster?
#
# <details><summary>Answer</summary>No, an addition slower. It reaches a given loss in fewer steps,
# or at a depth at which the plain one does not train.</details>
#
# 5. 30 layers on images of 32 pixels. Is the receptive field a reason for so many?
#
# <details><summary>Answer</summary>Hardly: after two halvings, a few convolutions see the whole
# image (chapter 5). Depth buys functions of functions, not sight.</details>

# %% [markdown]
# ## What this doesn't show
#
# - A narrow network, few steps, one learning rate for all depths. The paper's statement needs long
#   trainings; yours is the direction.
# - Batch norm repairs much of what the first experiment showed: with norms a plain network of 20
#   layers trains.
# - Whether depth pays for you. Fast recipes for CIFAR-10 (`fast-94`) are wide, of ten layers.
#
# ## Where to read on
#
# - Kaiming He and others, *Deep Residual Learning for Image Recognition*, 2016 (arXiv 1512.03385),
#   section 4.2; *Identity Mappings in Deep Residual Networks*, 2016 (arXiv 1603.05027).
# - Andreas Veit and others, *Residual Networks Behave Like Ensembles of Relatively Shallow
#   Networks*, 2016 (arXiv 1605.06431).
# - Hao Li and others, *Visualizing the Loss Landscape of Neural Nets*, 2018 (arXiv 1712.09913).
# - Simon Prince, *Understanding Deep Learning*, chapter 11; *Dive into Deep Learning*, chapter 8.
