# %% [markdown]
# # 4 · Optimisers and learning rates
#
# 60 minutes to work through; its cells run in about a minute on two cores, without a network
# connection.
#
# **You will be able to**
#
# - write SGD, momentum, Adam and Muon in a few lines each, and say what each one corrects;
# - find a learning rate in a hundred steps instead of ten runs;
# - compare optimisers fairly: each with its own rate, chosen on validation images.

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
# 1. A valley that is 25 times as steep across as along. With which learning rate does gradient
#    descent start to jump out of it?
# 2. The same small network, five optimisers, each at its best rate: how many points lie between the
#    best and the worst on test images?
# 3. And what does Adam lose at ten times its best rate?

# %% [markdown]
# ## By hand: one valley, four ways down
#
# Near a minimum every smooth loss is a bowl, and most are long valleys: steep in some directions,
# flat in others. Take the simplest, $f(x, y) = \frac{1}{2} (x^2 + 25 y^2)$. Gradient descent
# multiplies $x$ by $1 - \eta$ and $y$ by $1 - 25 \eta$ in each step. So $\eta$ must be below $2 /
# 25$, or $y$ grows for ever; and at that rate $x$ shrinks by 8 % a step. **The steepest direction
# limits the rate, the flattest one pays for it.** Every optimiser below is an answer to this.

# %%
curvature = np.array([1.0, 25.0])


def descend(step, steps=40, start=(-4.0, 1.5)):
    """The path of an optimiser: step(gradient, memory) returns the change and its memory."""
    position, memory, path = np.array(start), None, [np.array(start)]
    for _ in range(steps):
        change, memory = step(curvature * position, memory)
        position = position + change
        path.append(position)
    return np.array(path)


def sgd(rate):
    return lambda gradient, memory: (-rate * gradient, None)


def momentum(rate, share=0.9):
    def step(gradient, velocity):
        velocity = share * (0.0 if velocity is None else velocity) + gradient
        return -rate * velocity, velocity

    return step


def scaled(rate, share=0.99):
    """RMSprop: each coordinate by the size that its own gradient has had."""

    def step(gradient, square):
        square = gradient**2 if square is None else share * square + (1 - share) * gradient**2
        return -rate * gradient / (np.sqrt(square) + 1e-8), square

    return step


paths = {
    "SGD, rate 0.03": descend(sgd(0.03)),
    "SGD, rate 0.078": descend(sgd(0.078)),
    "momentum 0.9, rate 0.01": descend(momentum(0.01)),
    "scaled by coordinate": descend(scaled(0.12)),
}
x, y = np.meshgrid(np.linspace(-5, 3, 80), np.linspace(-2, 2, 60))
figure, axes = plt.subplots(2, 2, figsize=(9, 4.6), layout="constrained", sharex=True, sharey=True)
for axis, (name, path) in zip(axes.flat, paths.items(), strict=True):
    axis.contour(x, y, (x**2 + 25 * y**2) / 2, levels=np.geomspace(0.1, 60, 9), colors="grey",
                 linewidths=0.5)  # fmt: skip
    axis.plot(*path.T, ".-", ms=4)
    axis.set_title(f"{name}: f = {(curvature * path[-1] ** 2).sum() / 2:.1e} after 40", fontsize=9)
plt.show()

# %% [markdown]
# - **Momentum** (Polyak, 1964) adds up gradients. Across the valley they change sign and cancel,
#   along it they add: up to $1 / (1 - 0.9) = 10$ times as far.
# - **Scaling** each weight's step by how large its gradients have been makes steep and flat
#   directions alike, as long as they are along the axes. **Adam** (Kingma and Ba, 2015) is both of
#   these, with the averages corrected for starting at zero (exercise 2). **AdamW** (Loshchilov and
#   Hutter, 2019) takes weight decay out of the scaled gradient.
# - **Muon** (Jordan, 2024) looks at a layer's weights as the matrix that they are. The momentum
#   matrix has a few large singular values and many small ones: valleys, along axes of its own. Muon
#   makes all of them about 1. An SVD would do it, and is slow. Five rounds of an odd polynomial
#   come near enough, with nothing but matrix products:


# %%
def orthogonalised(matrix, rounds=5):
    """Singular values near 1, the same singular vectors (Newton-Schulz; rows <= columns)."""
    current = matrix / (np.linalg.norm(matrix) + 1e-7)
    for _ in range(rounds):
        gram = current @ current.T
        current = 3.4445 * current + (-4.7750 * gram + 2.0315 * gram @ gram) @ current
    return current


generator = np.random.default_rng(0)
gradient = generator.normal(size=(16, 72)) * np.geomspace(1, 0.02, 72)
figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
for rounds in (0, 2, 5):
    values = np.linalg.svd(orthogonalised(gradient, rounds), compute_uv=False)
    axis.plot(values, ".-", label=f"{rounds} rounds")
axis.set(xlabel="singular value, by rank", ylabel="size", ylim=(0, 1.3))
axis.legend()
plt.show()

# %% [markdown]
# ### A learning rate in a hundred steps
#
# Too low wastes time, too high diverges, and the right one differs a hundredfold between
# optimisers. The range test (Smith, 2017): let the rate grow exponentially from step to step on a
# network that you throw away, and watch the loss. It falls, then it explodes; a tenth of the rate
# at the lowest point is a good start.

# %%
images = load_images()
train, test = images.train, images.test
mean = train.pixels.mean(axis=(0, 1, 2)) / 255
deviation = train.pixels.std(axis=(0, 1, 2)) / 255


def prepared(pixels):
    """(N, 32, 32, 3) uint8 -> (N, 3, 32, 32) normalised float32."""
    return torch.tensor((pixels / 255 - mean) / deviation).permute(0, 3, 1, 2).float().contiguous()


# Rates are chosen on 300 images that are held out of training.
held_out = np.arange(len(train)) % 5 == 4
inputs, labels = prepared(train.pixels[~held_out]), torch.tensor(train.labels[~held_out])
validation, validation_labels = prepared(train.pixels[held_out]), train.labels[held_out]
asked, true = prepared(test.pixels), test.labels


def network(seed):
    """Two convolutions of stride 2, and a linear layer."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 8 * 8, 10)),
    )


def range_test(lowest=1e-4, highest=10.0, steps=reduced(100, 20)):  # noqa: B008
    """Rates and losses of SGD with momentum."""
    model, rates, losses, average = network(0), [], [], 0.0
    optimizer = torch.optim.SGD(model.parameters(), lr=lowest, momentum=0.9)
    for step in range(steps):
        rate = lowest * (highest / lowest) ** (step / (steps - 1))
        optimizer.param_groups[0]["lr"] = rate
        pick = torch.randint(len(inputs), (64,))
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs[pick]), labels[pick])
        loss.backward()
        optimizer.step()
        average = 0.9 * average + 0.1 * loss.item()
        rates.append(rate)
        losses.append(average / (1 - 0.9 ** (step + 1)))
        if losses[-1] > 3 * min(losses):
            break
    return np.array(rates), np.array(losses)


rates, losses = range_test()
best = rates[losses.argmin()]
figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
axis.plot(rates, losses)
axis.axvline(best / 10, ls="--", color="grey")
axis.set(xscale="log", xlabel="learning rate", ylabel="loss, smoothed", ylim=(0, 6))
print(f"lowest loss at a rate of {best:.2g}; a tenth of that is {best / 10:.2g}")

# %% [markdown]
# ## With tenfold
#
# `tenfold.find_lr` does the same for any recipe (`tenfold train my.toml --find-lr` in a terminal),
# and the optimiser is a field of it: `optimizer.name` is sgd, adam, adamw or muon.

# %%
recipe = tenfold.load_recipe("ann", {"data.validation_size": 150, "model.widths": (64,)})
found = tenfold.find_lr(recipe, images)
print(f"lowest loss at {found.lowest:.2g}; to use: {found.lr:.2g}; the recipe has", end=" ")
print(recipe.optimizer.lr)

# %% [markdown]
# ## The experiment: the same network, five optimisers
#
# First every optimiser with four rates, one seed each, scored on validation images: that is the
# choice. Then the chosen rate with three new seeds, scored on test images: that is the result.
# Whoever skips the first part compares rates and calls it optimisers.


# %%
class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for weights of two or more dimensions; SGD for biases."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weights in group["params"]:
                buffer = self.state[weights].setdefault("buffer", torch.zeros_like(weights))
                buffer.mul_(0.9).add_(weights.grad)
                change = buffer
                if weights.ndim > 1:
                    matrix = orthogonalised(buffer.flatten(1).numpy())
                    change = torch.tensor(matrix).view_as(weights)
                weights.sub_(group["lr"] * change)


OPTIMIZERS = {
    "SGD": lambda weights, lr: torch.optim.SGD(weights, lr=lr),
    "momentum": lambda weights, lr: torch.optim.SGD(weights, lr=lr, momentum=0.9),
    "Adam": lambda weights, lr: torch.optim.Adam(weights, lr=lr),
    "AdamW": lambda weights, lr: torch.optim.AdamW(weights, lr=lr, weight_decay=0.05),
    "Muon": lambda weights, lr: Muon(weights, lr=lr),
}
RATES = {
    "SGD": (0.01, 0.03, 0.1, 0.3),
    "momentum": (0.001, 0.003, 0.01, 0.03),
    "Adam": (0.0003, 0.001, 0.003, 0.01),
    "AdamW": (0.0003, 0.001, 0.003, 0.01),
    "Muon": (0.003, 0.01, 0.03, 0.1),
}
num_epochs = reduced(8, 1)


def fit(name, rate, seed):
    """A trained network, and the mean loss of each epoch."""
    model, losses = network(seed), []
    optimizer = OPTIMIZERS[name](model.parameters(), rate)
    for _ in range(num_epochs):
        sums = 0.0
        for pick in torch.randperm(len(inputs)).split(60):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs[pick]), labels[pick])
            loss.backward()
            optimizer.step()
            sums += loss.item() * len(pick)
        losses.append(sums / len(inputs))
    return model, losses


@torch.no_grad()
def rights(model, x, y):
    """(N,) bool: which images are labelled rightly."""
    return model(x).argmax(dim=1).numpy() == y


chosen, figure = {}, plt.figure(figsize=(6, 3.2), layout="constrained")
axis = figure.subplots()
for name, candidates in RATES.items():
    scores = [
        rights(fit(name, rate, seed=0)[0], validation, validation_labels).mean()
        for rate in reduced(candidates, candidates[1:3])
    ]
    chosen[name] = candidates[int(np.argmax(scores))]
    axis.plot(candidates[: len(scores)], scores, "o-", label=name)
    print(f"{name:9} {dict(zip(candidates, [f'{score:.1%}' for score in scores], strict=False))}")
axis.set(xscale="log", xlabel="learning rate", ylabel="validation accuracy, one seed")
axis.legend(fontsize=8)
plt.show()

# %% [markdown]
# The curves lie at different rates, and what is best for one is off the end of the range of
# another; within a factor of ten a good optimiser becomes a bad one. Now with the chosen rates:

# %%
from tenfold.studies.statistics import describe_difference, holm, summarise, welch_difference

on_test, curves = {}, {}
for name, rate in chosen.items():
    models = [fit(name, rate, seed) for seed in range(1, reduced(3, 1) + 1)]
    on_test[name] = np.stack([rights(model, asked, true) for model, _ in models])
    curves[name] = np.mean([losses for _, losses in models], axis=0)

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name, losses in curves.items():
    axis.plot(range(1, len(losses) + 1), losses, "o-", label=f"{name}, {chosen[name]:g}")
    estimate = summarise(on_test[name].mean(axis=1).tolist(), num_images=len(true))
    print(f"{name:9} rate {chosen[name]:<6g} training loss {losses[-1]:.2f}, "
          f"test {estimate.in_words}")  # fmt: skip
axis.set(xlabel="epoch", ylabel="training loss, mean of seeds")
axis.legend(fontsize=8)
plt.show()

# %%
others = [name for name in on_test if name != "momentum"]
differences = [welch_difference(on_test[name], on_test["momentum"]) for name in others]
for name, found, p in zip(others, differences, holm([d.p for d in differences]), strict=True):
    print(
        describe_difference(
            found, variant=name, baseline="momentum", p_holm=p, num_comparisons=len(others)
        )
    )

# %% [markdown]
# Look at two things apart. **Speed**: how far the training loss is down after eight epochs; there
# the optimisers differ, and it shows in every seed. **Result**: test accuracy, where on so few
# images most differences are within the noise. An optimiser that is faster is worth its name where
# time is short (`fast-75`, tenfold's recipe for 75 % in seconds, uses Muon), not because it
# generalises better as such.

# %% [markdown]
# ## Exercises
#
# **1.** A step of SGD with momentum as PyTorch has it: the velocity is 0.9 of itself plus the
# gradient, and the weights go against it.


# %% tags=["exercise"]
def momentum_step(weights, gradient, velocity, rate, share=0.9):
    """All arrays of one shape. Returns the new weights and the new velocity."""
    ...


# %% tags=["check", "raises-exception"]
check("momentum_step", momentum_step)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def momentum_step(weights, gradient, velocity, rate, share=0.9):
#     velocity = share * velocity + gradient
#     return weights - rate * velocity, velocity
# ```
#
# </details>

# %% [markdown]
# **2.** A step of Adam. $m$ and $v$ are averages of the gradient and of its square; both start at
# 0, so that after $t$ steps they are too small by $1 - \beta^t$. Divide by that, then step by $\hat
# m / (\sqrt{\hat v} + \epsilon)$.


# %% tags=["exercise"]
def adam_step(weights, gradient, m, v, t, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
    """t: 1 in the first step. Returns the new weights, m and v."""
    ...


# %% tags=["check", "raises-exception"]
check("adam_step", adam_step)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def adam_step(weights, gradient, m, v, t, rate, beta1=0.9, beta2=0.999, epsilon=1e-8):
#     m = beta1 * m + (1 - beta1) * gradient
#     v = beta2 * v + (1 - beta2) * gradient**2
#     step = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + epsilon)
#     return weights - rate * step, m, v
# ```
#
# In the first step this is the sign of the gradient times the rate, however large the gradient is.
#
# </details>

# %% [markdown]
# **3.** A schedule: from 0 in a straight line to 1 over the first `warmup` steps, then down to 0
# along half a cosine. The factor for step `step`, from 0 to `total`.


# %% tags=["exercise"]
def cosine_with_warmup(step, total, warmup):
    """Returns a factor from 0 to 1 for the learning rate."""
    ...


# %% tags=["check", "raises-exception"]
check("cosine_with_warmup", cosine_with_warmup)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def cosine_with_warmup(step, total, warmup):
#     if step < warmup:
#         return step / warmup
#     return (1 + np.cos(np.pi * (step - warmup) / (total - warmup))) / 2
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. Adam with a rate of 0.1 diverges, SGD with 0.1 trains well. Is Adam unstable?
#
# <details><summary>Answer</summary>Their rates are of different things. Adam's is about how far
# each weight moves in a step; SGD's is multiplied by a gradient, which is often a
# hundredth.</details>
#
# 2. Why is the batch a part of the choice of a rate?
#
# <details><summary>Answer</summary>The mean over more images is a gradient with less noise, which
# bears a larger step. Up to a point, twice the batch takes about twice the rate of SGD, or the
# square root of two times that of Adam.</details>
#
# 3. What does a warm-up do?
#
# <details><summary>Answer</summary>At the start the loss is at its steepest, and Adam's averages
# rest on few gradients. Small first steps get past that; then a rate is stable that would have
# diverged.</details>
#
# 4. Why does the rate go to zero at the end?
#
# <details><summary>Answer</summary>With a fixed rate the noise of the batches keeps the weights
# moving around the minimum, at a distance that is proportional to the rate. Lowering it lets them
# settle.</details>
#
# 5. A paper compares a new optimiser, tuned, with Adam at 0.001. What do you think?
#
# <details><summary>Answer</summary>That it compares effort. Both must get the same search: the same
# number of rates, the same budget, chosen on validation.</details>

# %% [markdown]
# ## What this doesn't show
#
# - Four rates, a factor of three apart, one seed for the choice. A finer grid moves each of them a
#   little.
# - Eight epochs without a schedule. With one, and trained to the end, the differences shrink.
# - Momentum, betas and weight decay are at their defaults. `tenfold tune` searches them together.
#
# ## Where to read on
#
# - Gabriel Goh, *Why Momentum Really Works*, Distill 2017 (distill.pub/2017/momentum): play with
#   it.
# - Diederik Kingma and Jimmy Ba, *Adam*, 2015 (arXiv 1412.6980); Ilya Loshchilov and Frank Hutter,
#   *Decoupled Weight Decay Regularization*, 2019 (arXiv 1711.05101).
# - Keller Jordan, *Muon: an Optimizer for Hidden Layers in Neural Networks*, 2024
#   (kellerjordan.github.io/posts/muon).
# - Leslie Smith, *Cyclical Learning Rates for Training Neural Networks*, 2017 (arXiv 1506.01186).
# - Dami Choi and others, *On Empirical Comparisons of Optimizers for Deep Learning*, 2019 (arXiv
#   1910.05446): what the tuning decides. CS231n, *Learning and evaluation*.
