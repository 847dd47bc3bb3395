# %% [markdown]
# # 6 · Activations, norms, initialisation
#
# 50 minutes to work through; its cells run in some forty seconds on two cores, without a network
# connection.
#
# **You will be able to**
#
# - say from the width of a layer alone how large its initial weights must be, and why;
# - compute batch norm forward and backward, and say what it does differently in evaluation;
# - count dead units, and tell a network that can't learn from one that learns slowly.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn

import tenfold
from tenfold.course import check, load_images, reduced

# %% [markdown]
# ## Predict first
#
# 1. Twenty layers, 256 units wide, ReLU, weights drawn with a standard deviation of 0.05. Is the
#    signal after the last layer larger or smaller than that at the first, and by what factor?
# 2. The same with 0.1.
# 3. You train with a learning rate that is too high. What share of the ReLU units ends up giving 0
#    for every image of the data set?

# %% [markdown]
# ## By hand: the size of a signal
#
# A unit adds up $n$ inputs, each times a random weight of standard deviation $s$. Variances add: if
# the inputs have the mean square $q$, the sum has the variance $n s^2 q$. A ReLU throws half of it
# away, so what goes on has the mean square $\frac{1}{2} n s^2 q$.
#
# So each layer multiplies by $n s^2 / 2$. It must be 1: $s = \sqrt{2 / n}$ (He and others, 2015).
# If it is 2, then after twenty layers it is a million. Without a ReLU the rule is $s = \sqrt{1 /
# n}$ (Glorot and Bengio, 2010; LeCun and others, 1998).

# %%
generator = np.random.default_rng(0)
width, depth = 256, 20
signal = generator.normal(size=(500, width))
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for deviation in (0.05, np.sqrt(2 / width), 0.1, 0.15):
    outputs, sizes = signal, [1.0]
    for _ in range(depth):
        outputs = np.maximum(outputs @ generator.normal(0, deviation, (width, width)), 0)
        sizes.append(np.sqrt((outputs**2).mean()))
    theory = (width * deviation**2 / 2) ** (np.arange(depth + 1) / 2)
    [line] = axis.plot(sizes, "o", ms=4, label=f"s = {deviation:.3f}")
    axis.plot(theory, color=line.get_color(), lw=1)
    print(f"s = {deviation:.3f}: after {depth} layers {sizes[-1]:9.3g}, theory {theory[-1]:9.3g}")
axis.set(yscale="log", xlabel="layer", ylabel="root mean square of the signal")
axis.set_xticks(range(0, depth + 1, 5))
axis.legend()
plt.show()

# %% [markdown]
# The gradient goes the same way back, through the same weights, and shrinks or grows alike. Between
# a signal that vanishes and one that explodes is a factor of two in the initial weights: few, for a
# network that is 20 layers deep.
#
# ### Batch norm: don't hope, normalise
#
# Batch norm (Ioffe and Szegedy, 2015) subtracts from each unit the mean over the batch, and divides
# by the standard deviation over the batch:
#
# $$\hat x = \frac{x - \mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad y = \gamma \hat x + \beta.$$
#
# Then the size of the signal no longer depends on the weights at all: twice the weights, the same
# output. $\gamma$ and $\beta$ are learned, and give back what the normalisation took.

# %%
outputs = signal
for _ in range(depth):
    outputs = outputs @ generator.normal(0, 0.15, (width, width))
    outputs = (outputs - outputs.mean(axis=0)) / np.sqrt(outputs.var(axis=0) + 1e-5)
    outputs = np.maximum(outputs, 0)
print(f"s = 0.15 with batch norm, after {depth} layers: {np.sqrt((outputs**2).mean()):.3f}")

# %% [markdown]
# **In training and in evaluation it is not the same function.** In training, an image's output
# depends on the others in its batch. In evaluation one wants an answer about one image, so means
# and variances are those that were averaged over training. Forgetting `model.eval()` is a classic:

# %%
torch.manual_seed(0)
norm = nn.BatchNorm1d(4)
batch = torch.randn(8, 4) * 3 + 5
for _ in range(100):
    norm(batch)
with torch.no_grad():
    in_training = norm(batch[:2])
    norm.eval()
    in_evaluation = norm(batch[:2])
print("two images, in training mode:  ", in_training[0].numpy().round(2))
print("the same, in evaluation mode:  ", in_evaluation[0].numpy().round(2))

# %% [markdown]
# With two images a batch norm in training mode can give only -1 and 1, whatever the images.

# %% [markdown]
# ## With tenfold
#
# `model.norm` and `model.activation` are fields of the recipe, so that a network with and without
# is one word. `tenfold doctor` looks into a finished run for what this chapter is about: dead
# units, gradients that vanish, steps that are too large for their weights.

# %%

images = load_images()
settings = {
    "data__validation_size": 150,
    "training__min_steps": reduced(150, 10),
    "model__widths": (64, 64, 64),
    "model__dropout": 0.0,
    "progress": False,
}
for norm_name in ("batch", "none"):
    run = tenfold.train("ann", data=images, model__norm=norm_name, **settings)
    print(f"norm {norm_name}: validation {run.metrics['validation'].accuracy:.1%}")

# %% [markdown]
# ## The experiment: dead units
#
# A ReLU whose input is negative for every image gives 0 for every image. Then its gradient is 0,
# too, and so it stays: it is *dead*. Leaky ReLU leaves a slope of 0.01 below zero; Swish, $x
# \sigma(x)$, is smooth and dips below zero. Do units die, when, and does it cost accuracy?
#
# Three hidden layers of 64 units, SGD with momentum, three learning rates, three activations, with
# and without batch norm, three seeds each.

# %%
train, test = images.train, images.test
mean, deviation = train.pixels.mean() / 255, train.pixels.std() / 255


def prepared(pixels):
    """(N, 32, 32, 3) uint8 -> (N, 3072) normalised float32."""
    return torch.tensor((pixels / 255 - mean) / deviation).reshape(len(pixels), 3072).float()


inputs, labels = prepared(train.pixels), torch.tensor(train.labels)
asked, true = prepared(test.pixels), test.labels
ACTIVATIONS = {"ReLU": nn.ReLU, "Leaky ReLU": nn.LeakyReLU, "Swish": nn.SiLU}
num_epochs = reduced(10, 1)


def fit(activation, rate, seed, normed):
    """A network, trained, in evaluation mode."""
    torch.manual_seed(seed)
    layers, fan_in = [], 3072
    for _ in range(3):
        linear = nn.Linear(fan_in, 64)
        nn.init.kaiming_normal_(linear.weight)
        layers += [linear, *([nn.BatchNorm1d(64)] if normed else []), ACTIVATIONS[activation]()]
        fan_in = 64
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    for _ in range(num_epochs):
        for pick in torch.randperm(len(inputs)).split(125):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[pick]), labels[pick]).backward()
            optimizer.step()
    return model.eval()


@torch.no_grad()
def share_dead(model):
    """Hidden units that are above 0 for no training image, be it since they are not a number."""
    dead, outputs = [], inputs
    for layer in model:
        outputs = layer(outputs)
        if isinstance(layer, tuple(ACTIVATIONS.values())):
            dead.append(~(outputs > 0).any(dim=0))
    return torch.cat(dead).float().mean().item()


results = {}
for normed in (False, True):
    for activation in ACTIVATIONS:
        for rate in reduced((0.01, 0.1, 0.2), (0.1,)):
            found = []
            for seed in range(reduced(3, 1)):
                model = fit(activation, rate, seed, normed)
                with torch.no_grad():
                    rights = model(asked).argmax(dim=1).numpy() == true
                found.append((rights.mean(), share_dead(model)))
            results[normed, activation, rate] = np.array(found)

# %%
from tenfold.studies.statistics import summarise

print("norm   activation  rate    never above 0   test accuracy, 95 % interval over seeds")
for (normed, activation, rate), found in results.items():
    estimate = summarise(found[:, 0].tolist(), num_images=len(true))
    named = "batch" if normed else "none"
    print(f"{named:6} {activation:11} {rate:<6}  {found[:, 1].mean():12.1%}   {estimate.in_words}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained", sharey=True)
for axis, normed in zip(axes, (False, True), strict=True):
    for activation in ACTIVATIONS:
        rows = [(r, f) for (n, a, r), f in results.items() if (n, a) == (normed, activation)]
        rates, found = zip(*rows, strict=True)
        points = np.stack(found)[..., 0]
        axis.plot(rates, points.mean(axis=1), "o-", label=activation)
    axis.set(xscale="log", xlabel="learning rate", title="batch norm" if normed else "no norm")
axes[0].set_ylabel("test accuracy, mean of seeds")
axes[0].axhline(0.1, ls=":", color="grey")
axes[1].axhline(0.1, ls=":", color="grey")
axes[1].legend()
plt.show()

# %% [markdown]
# Read the table row by row. Without a norm the highest rate ends training: the network guesses.
# With ReLU units die, and layers behind dead ones learn nothing; or the loss diverges, the weights
# are no longer numbers, and no unit is above zero any more. With batch norm the same rate trains,
# since the size of a step no longer decides the size of the signal. Between the activations, at a
# rate that works, there is far less; where intervals overlap as here, a ranking of activations is a
# ranking of seeds. The study `activations` asked the question with a LeNet and 40,000 images. With
# three seeds each, after 100 epochs, ReLU ends at 58.4 % (54.3 to 62.4), Leaky ReLU at 58.9 % (57.5
# to 60.3) and Swish at 58.0 % (56.1 to 59.8); after 20 all three were four to five points better.
# `tenfold study activations --jobs 2` repeats it, in an hour and a half.

# %% [markdown]
# ## Exercises
#
# **1.** Batch norm as in training.


# %% tags=["exercise"]
def batch_norm(x, gamma, beta, epsilon=1e-5):
    """x: (N, D). gamma, beta: (D,). Returns (N, D)."""
    ...


# %% tags=["check", "raises-exception"]
check("batch_norm", batch_norm)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def batch_norm(x, gamma, beta, epsilon=1e-5):
#     normalised = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon)
#     return gamma * normalised + beta
# ```
#
# </details>

# %% [markdown]
# **2.** Its gradient by x. Mean and deviation depend on x, too. With $g = \gamma \bar y$, two
# corrections do it: $\bar x = \frac{1}{\sigma} \left( g - \mathrm{mean}(g) - \hat x\,
# \mathrm{mean}(g \hat x) \right)$, means over the batch. What it can't change by a shift or a
# stretch of the batch, it has no gradient for.


# %% tags=["exercise"]
def batch_norm_backward(gradient, x, gamma, epsilon=1e-5):
    """gradient: (N, D), of the loss by the output. Returns that by x, (N, D)."""
    ...


# %% tags=["check", "raises-exception"]
check("batch_norm_backward", batch_norm_backward)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def batch_norm_backward(gradient, x, gamma, epsilon=1e-5):
#     deviation = np.sqrt(x.var(axis=0) + epsilon)
#     normalised = (x - x.mean(axis=0)) / deviation
#     g = gradient * gamma
#     return (g - g.mean(axis=0) - normalised * (g * normalised).mean(axis=0)) / deviation
# ```
#
# </details>

# %% [markdown]
# **3.** The standard deviation of initial weights, such that a signal keeps its mean square through
# a layer with Leaky ReLU, whose slope below zero is `slope` (0: ReLU; 1: no activation at all).


# %% tags=["exercise"]
def initial_deviation(fan_in, slope):
    """fan_in: inputs of a unit. Returns a number."""
    ...


# %% tags=["check", "raises-exception"]
check("initial_deviation", initial_deviation)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def initial_deviation(fan_in, slope):
#     return np.sqrt(2 / (fan_in * (1 + slope**2)))
# ```
#
# Half of the inputs are above zero and keep their square, the other half is multiplied by slope².
#
# </details>

# %% [markdown]
# **4.** The share of dead units: those that are 0 or less for all images.


# %% tags=["exercise"]
def dead_share(activations):
    """activations: (N images, D units). Returns a number from 0 to 1."""
    ...


# %% tags=["check", "raises-exception"]
check("dead_share", dead_share)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def dead_share(activations):
#     return (activations <= 0).all(axis=0).mean()
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. Why does a layer before a batch norm need no bias?
#
# <details><summary>Answer</summary>The mean over the batch is subtracted, and the bias with it.
# $\beta$ takes its place.</details>
#
# 2. Your model is right on 90 % in training, and on one image at a time in production on 60 %.
#    First suspicion?
#
# <details><summary>Answer</summary>It runs in training mode: batch norm takes its statistics from a
# batch of one, and dropout is on. `model.eval()`. Second suspicion: pixels are normalised
# differently.</details>
#
# 3. Doubling all weights before a batch norm changes nothing. What does it change in training?
#
# <details><summary>Answer</summary>The gradient is halved, and a step is half as long against
# weights of twice the size: a quarter of the effective learning rate. Weight decay before a norm
# acts through this, on the rate, not on the function.</details>
#
# 4. Why did sigmoids give way to ReLU in deep networks?
#
# <details><summary>Answer</summary>The slope of a sigmoid is at most 1/4, and near 0 where it
# saturates: over twenty layers the gradient vanishes. Above zero a ReLU has the slope 1.</details>
#
# 5. A third of the units of a ReLU network are dead, and its accuracy is as good as before. Is that
#    a problem?
#
# <details><summary>Answer</summary>Of waste, mostly: they cost time, and the network is smaller
# than you think. It is a sign that the rate was once too high. If accuracy suffers: warm-up, a
# lower rate, a norm.</details>

# %% [markdown]
# ## What this doesn't show
#
# - Three fully connected layers. In networks of fifty, initialisation and norms decide whether
#   anything trains at all.
# - "Never above 0" means dead for ReLU alone. Leaky ReLU and Swish have a gradient there.
# - One momentum, one batch size, ten epochs; each activation might do better with its own rate.
#
# ## Where to read on
#
# - Kaiming He and others, *Delving Deep into Rectifiers*, 2015 (arXiv 1502.01852): the factor of
#   two.
# - Sergey Ioffe and Christian Szegedy, *Batch Normalization*, 2015 (arXiv 1502.03167); Shibani
#   Santurkar and others, *How Does Batch Normalization Help Optimization?*, 2018 (arXiv
#   1805.11604), which disagrees with its reason.
# - Prajit Ramachandran and others, *Searching for Activation Functions*, 2017 (arXiv 1710.05941):
#   Swish.
# - Simon Prince, *Understanding Deep Learning*, chapter 7; CS231n, *Setting up the data and the
#   model*.
