# %% [markdown]
# # 3 · Fully connected networks and backpropagation
#
# 60 minutes to work through; its cells run in about a minute on two cores, without a network
# connection.
#
# **You will be able to**
#
# - compute the gradient of a network by hand, layer by layer, backwards;
# - build automatic differentiation in 45 lines, and get the numbers of PyTorch;
# - say what width and depth buy on little data, and what a network can learn by heart.

# %% tags=["setup"]
import itertools

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
    """(N, 32, 32, 3) uint8 -> (N, 3072) normalised float32."""
    return ((pixels / 255 - mean) / deviation).reshape(len(pixels), -1).astype(np.float32)


inputs, labels = prepared(train.pixels), train.labels
asked, true = prepared(test.pixels), test.labels

# %% [markdown]
# ## Predict first
#
# 1. A hidden layer of 256 units instead of none: how many points does it gain on test images?
# 2. Four hidden layers of 64 units instead of one: better, worse, or the same?
# 3. Shuffle the labels of the training images, so that nothing connects image and label. What
#    training accuracy does the network reach, and what test accuracy?

# %% [markdown]
# ## By hand: the chain rule, backwards
#
# Two layers: $h = \max(0, x W_1 + b_1)$, $z = h W_2 + b_2$, and the cross-entropy of chapter 2.
# Call $\bar v$ the gradient of the loss by $v$; it has the shape of $v$. Chapter 2 gave $\bar z =
# (p - \mathrm{onehot}(y)) / N$. Three rules take it back to every weight:
#
# | forward | backward |
# | --- | --- |
# | $z = h W + b$ | $\bar h = \bar z W^T$, $\bar W = h^T \bar z$, $\bar b = \sum_n \bar z_n$ |
# | $h = \max(0, a)$ | $\bar a = \bar h$ where $a > 0$, else 0 |
# | $v$ is used twice | the gradients of both uses are added |
#
# The shapes alone nearly force them: of $h$ and $\bar z$, only $h^T \bar z$ has the shape of $W$.
#
# Forward needs the values, and backward needs them again. That is why training takes several times
# the memory of prediction, and why going backward costs about twice as much as forward: two matrix
# products for each one.
#
# ### Automatic differentiation in 45 lines
#
# Each operation computes its result, and leaves on a *tape* how to hand a gradient back. The
# gradients of everything: walk the tape from its end.

# %%
tape = []


class Value:
    """An array, and the gradient of the loss by it."""

    def __init__(self, data):
        self.data = data
        self.gradient = np.zeros_like(data)


def operation(result, hand_back):
    """A new value; on the tape goes how its gradient is handed back to what it was made of."""
    value = Value(result)
    tape.append((value, hand_back))
    return value


def linear(x, weights, bias):
    def hand_back(gradient):
        x.gradient += gradient @ weights.data.T
        weights.gradient += x.data.T @ gradient
        bias.gradient += gradient.sum(axis=0)

    return operation(x.data @ weights.data + bias.data, hand_back)


def relu(x):
    def hand_back(gradient):
        x.gradient += gradient * (x.data > 0)

    return operation(np.maximum(x.data, 0), hand_back)


def cross_entropy(logits, labels):
    shifted = np.exp(logits.data - logits.data.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))

    def hand_back(gradient):
        onehot = np.eye(logits.data.shape[1])[labels]
        logits.gradient += gradient * (probabilities - onehot) / len(labels)

    return operation(-np.log(probabilities[rows, labels]).mean(), hand_back)


def backward(loss):
    loss.gradient = np.ones(())
    for value, hand_back in reversed(tape):
        hand_back(value.gradient)
    tape.clear()


# %% [markdown]
# `+=`, not `=`: a value that is used twice gets two gradients. Forgetting it is the classic
# mistake, and it shows only in networks that share or branch, such as residual networks.
#
# The same network in PyTorch, with the same weights:

# %%
generator = np.random.default_rng(0)


def initial(fan_in, fan_out):
    """Weights, of twice the variance since a ReLU halves it (He and others, 2015), and bias."""
    weights = generator.normal(size=(fan_in, fan_out)) * np.sqrt(2 / fan_in)
    return Value(weights), Value(np.zeros(fan_out))


first, second = initial(3072, 64), initial(64, 10)
batch = slice(0, 100)
pick = generator.permutation(len(inputs))[batch]
loss = cross_entropy(
    linear(relu(linear(Value(inputs[pick].astype(float)), *first)), *second), labels[pick]
)
backward(loss)

ours = [first[0], first[1], second[0], second[1]]
theirs = [torch.tensor(value.data, requires_grad=True) for value in ours]
hidden = torch.relu(torch.tensor(inputs[pick].astype(float)) @ theirs[0] + theirs[1])
reference = nn.functional.cross_entropy(hidden @ theirs[2] + theirs[3], torch.tensor(labels[pick]))
reference.backward()
print(f"loss: ours {float(loss.data):.6f}, PyTorch's {reference.item():.6f}")
for name, own, other in zip(("W1", "b1", "W2", "b2"), ours, theirs, strict=True):
    print(f"{name}: gradients differ by {np.abs(own.gradient - other.grad.numpy()).max():.1e}")

# %% [markdown]
# Equal to the last bits. PyTorch's autograd is this, with a few hundred operations, a graph in
# place of the tape, and kernels that are fast. And it trains:

# %%
for step in range(reduced(150, 5)):
    pick = generator.permutation(len(inputs))[:128]
    scores = linear(relu(linear(Value(inputs[pick]), *first)), *second)
    loss = cross_entropy(scores, labels[pick])
    for value in ours:
        value.gradient = np.zeros_like(value.data)
    backward(loss)
    for value in ours:
        value.data = value.data - 0.02 * value.gradient
    if step % 50 == 0:
        print(f"step {step:3d}: loss {float(loss.data):.3f}")
scores = linear(relu(linear(Value(asked), *first)), *second).data
tape.clear()
print(f"test accuracy {np.mean(scores.argmax(axis=1) == true):.1%}")

# %% [markdown]
# ## With tenfold
#
# The recipe `ann` with a hidden layer of your choice, with batch norm (chapter 6) and dropout
# already in it. `tenfold doctor` looks at the gradients of a finished run layer by layer, the way
# that you just did.

# %%
run = tenfold.train(
    "ann",
    data=images,
    model__widths=(64,),
    data__validation_size=150,
    training__min_steps=reduced(200, 20),
    progress=False,
)
print(run)
for name, weights in run.model.module.named_parameters():
    print(f"{name:10} {tuple(weights.shape)!s:12} {weights.numel():7,} parameters")

# %% [markdown]
# ## The experiment: width, depth, and parameters
#
# Networks of 1 to 4 hidden layers, 4 to 256 units wide; the same 30 epochs of Adam, three seeds
# each.


# %%
def network(widths):
    """Fully connected, ReLU between layers."""
    sizes = [3072, *widths]
    layers = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 10))


num_epochs = reduced(30, 2)


def fit(widths, seed, labels=labels, epochs=num_epochs):
    """A trained network; Adam, batches of 128."""
    torch.manual_seed(seed)
    model, x, y = network(widths), torch.tensor(inputs), torch.tensor(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for pick in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
            optimizer.step()
    return model


@torch.no_grad()
def rights(model, x, y):
    """(N,) bool: which images are labelled rightly."""
    return model(torch.tensor(x)).argmax(dim=1).numpy() == y


seeds = range(reduced(3, 1))
shapes = [(), (4,), (16,), (64,), (256,), (64, 64), (64, 64, 64, 64)]
on_test, on_training = {}, {}
for widths in reduced(shapes, shapes[-2:]):
    models = [fit(widths, seed) for seed in seeds]
    on_test[widths] = np.stack([rights(model, asked, true) for model in models])
    on_training[widths] = np.mean([rights(model, inputs, labels).mean() for model in models])

# %%
from tenfold.studies.statistics import summarise

print("hidden layers         parameters   training   test, 95 % interval over seeds")
for widths, found in on_test.items():
    count = sum(weights.numel() for weights in network(widths).parameters())
    estimate = summarise(found.mean(axis=1).tolist(), num_images=len(true))
    print(f"{widths!s:20} {count:11,}   {on_training[widths]:8.1%}   {estimate.in_words}")

# %%
figure, axis = plt.subplots(figsize=(6, 3.4), layout="constrained")
for widths, found in on_test.items():
    count = sum(weights.numel() for weights in network(widths).parameters())
    values = found.mean(axis=1)
    axis.plot([count] * len(values), values, "o", alpha=0.7, color=f"C{len(widths)}")
    axis.annotate(str(widths), (count, values.max()), fontsize=8, xytext=(0, 5),
                  textcoords="offset points", ha="center")  # fmt: skip
axis.set(xscale="log", xlabel="parameters", ylabel="test accuracy of each seed", ylim=(0.1, 0.5))
plt.show()

# %% [markdown]
# Four units are worse than none: what ten classes need does not fit through them. From 16 on, more
# width gains two or three points on test images, while the training images are soon fitted
# completely. Depth does not help here, and nearly all parameters are in the first layer, whatever
# comes after it. What a fully connected network lacks is not size. It is a reason to look at
# neighbouring pixels together (chapter 5).
#
# Are 256 hidden units better than none? Over seeds and images at once:

# %%
from tenfold.studies.statistics import describe_difference, welch_difference

names = list(on_test)
wide, narrow = names[-3] if len(names) > 2 else names[-1], names[0]
difference = welch_difference(on_test[wide], on_test[narrow])
print(
    describe_difference(
        difference, variant=str(wide), baseline=str(narrow), p_holm=difference.p, num_comparisons=1
    )
)

# %% [markdown]
# ### By heart
#
# Now the labels are shuffled. There is nothing to learn but the images themselves.

# %%
shuffled = np.random.default_rng(0).permutation(labels)
for epochs in reduced((10, 30), (2,)):
    model = fit((256,), seed=0, labels=shuffled, epochs=epochs)
    print(
        f"{epochs} epochs: {rights(model, inputs, shuffled).mean():.1%} of the shuffled training "
        f"labels, {rights(model, asked, true).mean():.1%} of the test labels"
    )

# %% [markdown]
# The network learns noise by heart (Zhang and others, 2017). So a high training accuracy shows only
# that the network is large enough. That the same network, on true labels, does better than guessing
# on new images is not explained by its size: it must prefer what is common to many images, where
# there is something in common.

# %% [markdown]
# ## Exercises
#
# **1.** The gradients of the two-layer network, without a tape: forward, then the three rules.


# %% tags=["exercise"]
def two_layer_gradients(inputs, labels, w1, b1, w2, b2):
    """Loss: the mean cross-entropy of relu(inputs @ w1 + b1) @ w2 + b2.
    Returns its gradients by w1, b1, w2 and b2."""
    ...


# %% tags=["check", "raises-exception"]
check("two_layer_gradients", two_layer_gradients)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def two_layer_gradients(inputs, labels, w1, b1, w2, b2):
#     hidden = np.maximum(inputs @ w1 + b1, 0)
#     logits = hidden @ w2 + b2
#     exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
#     by_logits = exponentials / exponentials.sum(axis=1, keepdims=True)
#     by_logits[np.arange(len(labels)), labels] -= 1
#     by_logits /= len(labels)
#     by_hidden = by_logits @ w2.T * (hidden > 0)
#     return (
#         inputs.T @ by_hidden, by_hidden.sum(axis=0), hidden.T @ by_logits, by_logits.sum(axis=0)
#     )
# ```
#
# </details>

# %% [markdown]
# **2.** NumPy repeats a `(3,)` array over the rows of a `(4, 3)` one. Backward, the `(4, 3)`
# gradient must become a `(3,)` one again. For any shape that broadcasts:


# %% tags=["exercise"]
def unbroadcast(gradient, shape):
    """gradient: of the broadcast result. Returns the gradient of an array of `shape`."""
    ...


# %% tags=["check", "raises-exception"]
check("unbroadcast", unbroadcast)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def unbroadcast(gradient, shape):
#     gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
#     ones = tuple(axis for axis, size in enumerate(shape) if size == 1)
#     return gradient.sum(axis=ones, keepdims=True)
# ```
#
# </details>

# %% [markdown]
# **3.** With a graph in place of the tape, backward needs an order: each value before what it was
# made of. A depth-first search gives it.


# %% tags=["exercise"]
def topological_order(end, parents_of):
    """parents_of(node): the nodes that it was made of. Returns a list of all nodes that `end`
    depends on, itself first, each before its parents."""
    ...


# %% tags=["check", "raises-exception"]
check("topological_order", topological_order)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def topological_order(end, parents_of):
#     order, visited = [], set()
#
#     def visit(node):
#         if node in visited:
#             return
#         visited.add(node)
#         for parent in parents_of(node):
#             visit(parent)
#         order.append(node)  # after all that it depends on
#
#     visit(end)
#     return order[::-1]
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. Why can't all weights start at zero here, when that was right in chapter 2?
#
# <details><summary>Answer</summary>All hidden units would compute the same, get the same gradient,
# and stay the same for ever; with zeros throughout even the gradient is zero. Random weights break
# the symmetry. A single layer has none to break.</details>
#
# 2. What does the backward pass cost in time, against the forward pass?
#
# <details><summary>Answer</summary>About twice: for each matrix product forward there are two
# backward, one for the inputs and one for the weights. Only the first layer is spared one: nobody
# needs the gradient by the pixels.</details>
#
# 3. You forget to set the gradients to zero between steps. What happens?
#
# <details><summary>Answer</summary>They add up over all batches so far: a momentum that never
# forgets. Training may still work for a while, which makes it hard to find.</details>
#
# 4. 92 % of the parameters of 3072-512-256-10 are in one layer. Which, and what does that mean?
#
# <details><summary>Answer</summary>The first, one weight for each pixel, channel and unit. Images
# of twice the side have four times as many: a fully connected network on raw pixels does not
# scale.</details>
#
# 5. A network reaches 100 % on its training images. Should it be smaller?
#
# <details><summary>Answer</summary>Not for that reason. Look at validation: networks that can learn
# noise by heart often generalise best all the same. What helps is more data, augmentation, weight
# decay, a fitting architecture.</details>

# %% [markdown]
# ## What this doesn't show
#
# - One learning rate and 30 epochs for all shapes. Each might do better with its own, deep ones
#   above all; without normalisation and shortcuts depth is hard to train (chapter 6).
# - Of 1,500 images nothing follows for 45,000, where width pays more.
#
# ## Where to read on
#
# - David Rumelhart, Geoffrey Hinton and Ronald Williams, *Learning Representations by
#   Back-propagating Errors*, Nature 1986: four pages.
# - Chiyuan Zhang and others, *Understanding Deep Learning Requires Rethinking Generalization*, 2017
#   (arXiv 1611.03530).
# - Andrej Karpathy, *micrograd* and the lecture *The spelled-out intro to neural networks and
#   backpropagation*: the same on single numbers, in two and a half hours.
# - CS231n, *Backpropagation, intuitions*; Atılım Güneş Baydin and others, *Automatic
#   Differentiation in Machine Learning: a Survey*, 2018 (arXiv 1502.05767).
