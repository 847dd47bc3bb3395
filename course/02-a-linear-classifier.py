# %% [markdown]
# # 2 · A linear classifier
#
# 50 minutes to work through; its cells run in about half a minute on two cores, without a network
# connection.
#
# **You will be able to**
#
# - turn scores into probabilities and probabilities into a loss, without overflow;
# - derive the gradient of that loss, and prove by a number that your derivation is right;
# - train a linear classifier by gradient descent, and see as images what it has learned.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np

import tenfold
from tenfold.course import check, load_images, reduced

# %%
images = load_images()
train, test = images.train, images.test
mean = train.pixels.mean(axis=(0, 1, 2)) / 255
deviation = train.pixels.std(axis=(0, 1, 2)) / 255


def prepared(pixels):
    """(N, 32, 32, 3) uint8 -> (N, 3072) normalised floats."""
    return ((pixels / 255 - mean) / deviation).reshape(len(pixels), -1)


# What is chosen is chosen on 300 validation images; the test images are for the end.
held_out = np.arange(len(train)) % 5 == 4
inputs, labels = prepared(train.pixels[~held_out]), train.labels[~held_out]
validation, validation_labels = prepared(train.pixels[held_out]), train.labels[held_out]

# %% [markdown]
# ## Predict first
#
# A linear classifier gives each class a score: a weighted sum of all 3,072 numbers of the image.
# The weights of a class have the shape of an image, and can be looked at as one. Write down, or
# draw:
#
# 1. What will the weights of *ship* look like? Of *frog*?
# 2. Will it be right more or less often than the nearest neighbour of chapter 1 (about 25 %)?
# 3. 30,720 weights, 1,200 images: how often will it be right on the images that it was trained on?

# %% [markdown]
# ## By hand: scores, probabilities, loss, gradient
#
# **Scores** (logits) of an image $x$: $z = x W + b$, one for each class.
#
# **Probabilities**: positive numbers that add up to one, larger for larger scores. The softmax:
# $p_i = e^{z_i} / \sum_j e^{z_j}$.
#
# **Loss**: how surprised we are at the label $y$, $L = -\log p_y$, the cross-entropy. A network
# that gives all ten classes the same probability has $-\log 0.1 = 2.303$. Remember this number: it
# is what the loss must be before the first step. If it isn't, something is wrong already.
#
# With two features and three classes all of it can be seen: drag the weights, or let the gradient
# do it, in [this widget](widgets/logits.html).
#
# **Gradient**: $\log p_y = z_y - \log \sum_j e^{z_j}$, and the derivative of $\log \sum_j e^{z_j}$
# by $z_i$ is $e^{z_i} / \sum_j e^{z_j} = p_i$. So
#
# $$\frac{\partial L}{\partial z_i} = p_i - [i = y],$$
#
# where $[i = y]$ is 1 for the class of the label and 0 for the others: the probability that the
# network gives, less the one that it should. The ten numbers $[i = y]$ of an image are its label as
# a *one-hot* vector. Everything else is the chain rule: $z$ is linear in $W$, so
# $\partial L / \partial W = x^T (p - \mathrm{onehot}(y))$, averaged over the images.


# %%
def loss_and_gradients(weights, bias, inputs, labels):
    """The mean cross-entropy of (N, D) inputs, and its gradients by weights and bias."""
    logits = inputs @ weights + bias
    exponentials = np.exp(logits)  # Good enough for small logits only; see exercise 1.
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    loss = -np.log(probabilities[rows, labels]).mean()
    by_logits = probabilities.copy()
    by_logits[rows, labels] -= 1
    by_logits /= len(labels)
    return loss, inputs.T @ by_logits, by_logits.sum(axis=0)


weights, bias = np.zeros((3072, 10)), np.zeros(10)
loss, by_weights, by_bias = loss_and_gradients(weights, bias, inputs, labels)
print(f"loss before the first step: {loss:.4f}; log 10 = {np.log(10):.4f}")

# %% [markdown]
# ### Never trust a gradient that you haven't checked
#
# A wrong gradient often trains, only worse, and no error tells you. So compare it with what it
# means: the slope of the loss when one weight is moved a little.

# %%
generator = np.random.default_rng(0)
somewhere = 0.01 * generator.normal(size=weights.shape)
_, by_weights, _ = loss_and_gradients(somewhere, bias, inputs, labels)
print("weight        numerical    derived")
for row, column in [(0, 0), (1500, 3), (3071, 9)]:
    step = np.zeros_like(somewhere)
    step[row, column] = 1e-5
    above, _, _ = loss_and_gradients(somewhere + step, bias, inputs, labels)
    below, _, _ = loss_and_gradients(somewhere - step, bias, inputs, labels)
    numerical = (above - below) / 2e-5
    print(f"{row:4d}, {column}    {numerical:12.8f} {by_weights[row, column]:12.8f}")

# %% [markdown]
# ### Gradient descent
#
# Step against the gradient, again and again. With *momentum* a step keeps 0.9 of the one before,
# which speeds up directions in which the slope stays the same (chapter 4). *Weight decay* $\lambda$
# adds $\frac{\lambda}{2} |W|^2$ to the loss, so that of two classifiers that fit alike the one with
# smaller weights is preferred.


# %%
def train_linear(decay, steps=200, rate=0.001):
    """Weights and bias after `steps` steps on all training images at once."""
    weights, bias = np.zeros((3072, 10)), np.zeros(10)
    velocity, bias_velocity = np.zeros_like(weights), np.zeros_like(bias)
    losses = []
    for _ in range(steps):
        loss, by_weights, by_bias = loss_and_gradients(weights, bias, inputs, labels)
        velocity = 0.9 * velocity - rate * (by_weights + decay * weights)
        bias_velocity = 0.9 * bias_velocity - rate * by_bias
        weights, bias = weights + velocity, bias + bias_velocity
        losses.append(loss)
    return weights, bias, losses


def share_right(weights, bias, inputs, labels):
    """The accuracy of a linear classifier."""
    return np.mean((inputs @ weights + bias).argmax(axis=1) == labels)


weights, bias, losses = train_linear(decay=0.0, steps=reduced(200, 20))
figure, axis = plt.subplots(figsize=(5, 2.6), layout="constrained")
axis.plot(losses)
axis.axhline(np.log(10), ls=":", color="grey")
axis.set(xlabel="step (dotted: log 10)", ylabel="loss on the training images")
print(f"training    {share_right(weights, bias, inputs, labels):.1%}")
print(f"validation  {share_right(weights, bias, validation, validation_labels):.1%}")

# %% [markdown]
# ## With tenfold
#
# A fully connected network without hidden layers is a linear classifier: the recipe `ann` with
# `widths=()`. It is trained on batches of 256 instead of on all images at once, which gets as far
# in fewer passes over the data: 400 steps are 80 passes here, and by hand there were 200. The
# weight decay is the same $\lambda$.

# %%
run = tenfold.train(
    "ann",
    data=images,
    model__widths=(),
    lr=0.001,
    optimizer__weight_decay=0.1,
    data__validation_size=300,
    training__min_steps=reduced(400, 20),
    progress=False,
)
run

# %% [markdown]
# ## The experiment: templates
#
# A score is a dot product, and a dot product is large where the image is like the weights. So the
# weights of a class are the template that it is compared with. Shown as images, for three strengths
# of weight decay; a weight of 0 is a middle grey, and each template has a scale of its own:

# %%
found = {}
for decay in (0.0, 3.0, 30.0):
    found[decay] = train_linear(decay, steps=reduced(200, 20))

figure, axes = plt.subplots(len(found), 10, figsize=(11, 1.25 * len(found)), layout="constrained")
for row, (decay, (weights, _, _)) in enumerate(found.items()):
    for label in range(10):
        template = weights[:, label].reshape(32, 32, 3)
        scale = 3 * template.std()
        axes[row, label].imshow(np.clip(0.5 + template / (2 * scale), 0, 1))
        axes[row, label].set(xticks=[], yticks=[])
        if row == 0:
            axes[row, label].set_title(train.class_names[label], fontsize=9)
    axes[row, 0].set_ylabel(f"decay {decay}", fontsize=9)
plt.show()

# %%
print("decay   training  validation")
for decay, (weights, bias, _) in found.items():
    fitted = share_right(weights, bias, inputs, labels)
    kept = share_right(weights, bias, validation, validation_labels)
    print(f"{decay:5}   {fitted:8.1%}  {kept:10.1%}")

# %% [markdown]
# Without decay the templates are noise with a hint of colour: 30,720 weights begin to fit 1,200
# images pixel by pixel. After 200 steps two of three training images are right, after 3,000 steps
# more than 98 %, and no more validation images. With strong decay what is left is what many images
# share: the blue of *ship* and *airplane*, the green around a *bird*, the olive and brown of
# *frog*, a car seen from the front, the dark back of a *horse* above grass.
#
# Now the table. A decay of 3 gives up many training images and no validation images: what it gave
# up was learned by heart, which is called overfitting. A decay of 30 gives up both: it can no
# longer fit what is there to be fitted, which is called underfitting.
#
# One template a class is the limit of the model: a horse that looks left and one that looks right
# average to a horse with two heads. Nothing linear can say "either". A hidden layer can.
#
# ### How sure is that?
#
# There is no seed here. The loss is convex, all weights start at zero, and every run ends alike:
# the only luck is in the images. So the interval is over images, and two classifiers are compared
# on the same ones: what counts is on which of them only one is right (McNemar's test, chapter 8).

# %%
from tenfold.evaluation.metrics import wilson_interval
from tenfold.studies.statistics import mcnemar_p

asked, rights = prepared(test.pixels), {}
for decay, (weights, bias, _) in found.items():
    rights[decay] = (asked @ weights + bias).argmax(axis=1) == test.labels
    low, high = wilson_interval(int(rights[decay].sum()), len(test))
    print(f"decay {decay}: test {rights[decay].mean():.1%}, 95 % interval {low:.1%} to {high:.1%}")
for decay in (3.0, 30.0):
    other, none = rights[decay], rights[0.0]
    print(
        f"only decay {decay} right: {(other & ~none).sum()}, only none: {(none & ~other).sum()}; "
        f"McNemar's p = {mcnemar_p(other, none):.3f}"
    )

# %% [markdown]
# Without decay it is right more often than the nearest neighbour of chapter 1, whose 25 % is below
# the interval. Whether a decay of 3 is better or worse than none, 500 images don't tell: where only
# one of the two is right, it is about as often the one as the other. The 3 points by which it was
# ahead on 300 validation images can be luck. A decay of 30 is behind, and its p remains below 5 %
# when it is doubled, since two comparisons were made (Holm's correction, chapter 8).

# %% [markdown]
# ## Exercises
#
# **1.** A softmax that does not overflow. $e^{1000}$ is infinite in floating point, and infinite by
# infinite is not a number. What can be subtracted from all scores without changing the
# probabilities?


# %% tags=["exercise"]
def softmax(logits):
    """logits: (N, C). Returns (N, C) probabilities."""
    ...


# %% tags=["check", "raises-exception"]
check("softmax", softmax)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def softmax(logits):
#     exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
#     return exponentials / exponentials.sum(axis=1, keepdims=True)
# ```
#
# </details>

# %% [markdown]
# **2.** The mean cross-entropy, finite even for a confident mistake.


# %% tags=["exercise"]
def cross_entropy(logits, labels):
    """logits: (N, C). labels: (N,) integers. Returns a number."""
    ...


# %% tags=["check", "raises-exception"]
check("cross_entropy", cross_entropy)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def cross_entropy(logits, labels):
#     shifted = logits - logits.max(axis=1, keepdims=True)
#     log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
#     return -log_probabilities[np.arange(len(labels)), labels].mean()
# ```
#
# This is why PyTorch's `cross_entropy` takes logits: after a softmax it is too late.
#
# </details>

# %% [markdown]
# **3.** The slope of any function in every direction, by central differences. It is how you check
# the gradients of the chapters that follow.


# %% tags=["exercise"]
def numerical_gradient(function, at, step=1e-5):
    """function: of an array, returns a number. at: an array. Returns an array of its shape."""
    ...


# %% tags=["check", "raises-exception"]
check("numerical_gradient", numerical_gradient)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def numerical_gradient(function, at, step=1e-5):
#     gradient = np.zeros_like(at)
#     for place in np.ndindex(at.shape):
#         moved = at.copy()
#         moved[place] += step
#         above = function(moved)
#         moved[place] -= 2 * step
#         gradient[place] = (above - function(moved)) / (2 * step)
#     return gradient
# ```
#
# Two evaluations for each weight: fine for a check, hopeless for training. Backpropagation (chapter
# 3) gets all of them for the price of about two.
#
# </details>

# %% [markdown]
# **4.** The gradient of the mean cross-entropy plus $\frac{\lambda}{2} |W|^2$ by the weights, for a
# classifier without a bias: its logits are `inputs @ weights`.


# %% tags=["exercise"]
def softmax_gradient(inputs, labels, weights, decay):
    """inputs: (N, D). labels: (N,). weights: (D, C). decay: lambda. Returns (D, C)."""
    ...


# %% tags=["check", "raises-exception"]
check("softmax_gradient", softmax_gradient)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def softmax_gradient(inputs, labels, weights, decay):
#     logits = inputs @ weights
#     exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
#     by_logits = exponentials / exponentials.sum(axis=1, keepdims=True)
#     by_logits[np.arange(len(labels)), labels] -= 1
#     return inputs.T @ by_logits / len(labels) + decay * weights
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. Your network starts with a loss of 9.2 on ten classes. What do you conclude?
#
# <details><summary>Answer</summary>It is confidently wrong before it has learned anything: initial
# weights or inputs are too large. 2.303 is the loss of knowing nothing.</details>
#
# 2. Adding 5 to all scores changes what?
#
# <details><summary>Answer</summary>No probability, and so neither loss nor prediction: numerator
# and denominator are multiplied by the same $e^5$. Hence the softmax that does not overflow. It
# also follows that one of the ten biases could be left out.</details>
#
# 3. The loss falls, and the accuracy stays the same. How can that be?
#
# <details><summary>Answer</summary>Accuracy asks only which score is the largest. The loss also
# falls when right predictions become more certain, or wrong ones less. The reverse happens, too:
# late in training the validation loss often rises while the accuracy stays.</details>
#
# 4. Why is the cross-entropy what gradient descent lowers, and not the share of errors itself?
#
# <details><summary>Answer</summary>The share of errors is a staircase: its slope is zero almost
# everywhere, and says nothing of where to go. The cross-entropy is smooth, and its minimum has the
# probabilities of the data.</details>
#
# 5. Two linear layers in a row: what do they gain?
#
# <details><summary>Answer</summary>Nothing: $x W_1 W_2$ is linear with the matrix $W_1 W_2$.
# Between them something must bend.</details>

# %% [markdown]
# ## What this doesn't show
#
# - Three strengths of decay, one split: a hint, no optimum. On all of CIFAR-10 the templates are
#   less noisy without any decay, since 50,000 images leave less to learn by heart.
# - Batches, schedules and better optimisers change how fast this minimum is reached, not where it
#   is: the loss is convex. From the next chapter on that is over.
#
# ## Where to read on
#
# - CS231n, *Linear classification* and *Optimization* (cs231n.github.io), where the templates are
#   from.
# - Christopher Bishop, *Pattern Recognition and Machine Learning*, chapter 4, free as PDF.
# - Simon Prince, *Understanding Deep Learning*, chapters 5 and 7 (udlbook.github.io/udlbook).
# - Andrej Karpathy, *A Recipe for Training Neural Networks*: "verify loss at init", and twenty
#   more.
