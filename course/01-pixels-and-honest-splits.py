# %% [markdown]
# # 1 · Pixels and honest splits
#
# 40 minutes to work through; its cells run in about ten seconds on two cores, without a network
# connection.
#
# **You will be able to**
#
# - turn an image file into an array and back, and look at what a data set holds;
# - write a nearest-neighbour classifier in five lines, and say why its training accuracy is
#   worthless;
# - split a data set so that its score is honest, and find the leaks of one that isn't.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np

from tenfold.course import check, load_images, reduced

# %% [markdown]
# ## Predict first
#
# A test image that is in the training data, too, is a *leak*. Write down:
#
# 1. If a classifier is right on 30 % of honest test images, and you copy a fifth of the test images
#    into its training data, which accuracy will it show?
# 2. And if the copies are mirrored and brightened, so that no pixel is the same?
# 3. What is the accuracy of a 1-nearest-neighbour classifier on its own training images?

# %% [markdown]
# ## By hand: an image is an array
#
# Height, width, three channels (red, green, blue), one byte each. Everything that follows is
# arithmetic on this array.

# %%
images = load_images()
train, test = images.train, images.test
frog = train.pixels[train.labels == 6][0]
print("shape", frog.shape, "dtype", frog.dtype, "from", frog.min(), "to", frog.max())
print("the pixel in row 16, column 16:", frog[16, 16])

figure, axes = plt.subplots(1, 5, figsize=(10, 2.2), layout="constrained")
views = {
    "the image": frog,
    "red channel": frog[..., 0],
    "mirrored": frog[:, ::-1],
    "a crop": frog[4:20, 8:24],
    "brighter": np.clip(frog.astype(int) + 60, 0, 255),
}
for axis, (title, view) in zip(axes, views.items(), strict=True):
    axis.imshow(view, cmap="gray", vmin=0, vmax=255)
    axis.set_title(title, fontsize=10)
    axis.axis("off")
plt.show()

# %% [markdown]
# Bytes wrap around: `np.uint8(250) + np.uint8(10)` is 4. Turn pixels into floats before you compute
# with them (above: `astype(int)`). It is the commonest bug in code on images, and it raises no
# error.
#
# Switch channels off, crop, and read the numbers of any five by five pixels in [this
# widget](widgets/channels-and-crops.html).
#
# Networks want inputs around 0 of about the same size. So one subtracts the mean of the training
# images and divides by their standard deviation, channel by channel. **Of the training images**:
# what is computed from test images has seen them.

# %%
mean = train.pixels.mean(axis=(0, 1, 2)) / 255
deviation = train.pixels.std(axis=(0, 1, 2)) / 255
print("mean of red, green, blue:", mean.round(3), "standard deviation:", deviation.round(3))


def prepared(pixels):
    """(N, 32, 32, 3) uint8 -> (N, 3072) normalised floats."""
    return ((pixels / 255 - mean) / deviation).reshape(len(pixels), 3072)


# %% [markdown]
# ### Nearest neighbours
#
# To label an image, find the training image that is least different, and take its label. There is
# nothing to train. The squared distances of all pairs come from one matrix product: $|a-b|^2 =
# |a|^2 - 2\,a \cdot b + |b|^2$.


# %%
def distances(first, second):
    """(N, D) and (M, D) -> (N, M) squared distances."""
    return (first**2).sum(1)[:, None] - 2 * first @ second.T + (second**2).sum(1)


def nearest_labels(known, labels, asked):
    """The label of the nearest row of `known` for each row of `asked`."""
    return labels[distances(asked, known).argmin(axis=1)]


def share_right(known, labels, asked, true):
    """The accuracy of the nearest neighbour."""
    return np.mean(nearest_labels(known, labels, asked) == true)


inputs, asked = prepared(train.pixels), prepared(test.pixels)
print(f"on the test images {share_right(inputs, train.labels, asked, test.labels):.1%}")
print(f"on the training images {share_right(inputs, train.labels, inputs, train.labels):.1%}")

nearest = distances(asked, inputs).argmin(axis=1)
figure, axes = plt.subplots(2, 8, figsize=(10, 2.8), layout="constrained")
for column, number in enumerate(range(0, 400, 50)):
    for row, picture in enumerate((test.pixels[number], train.pixels[nearest[number]])):
        axes[row, column].imshow(picture)
        axes[row, column].axis("off")
    name = train.class_names[train.labels[nearest[number]]]
    right = train.labels[nearest[number]] == test.labels[number]
    axes[1, column].set_title(name, fontsize=9, color="green" if right else "firebrick")
axes[0, 0].set_title("test image, and its nearest", fontsize=9, loc="left")
plt.show()

# %% [markdown]
# On its training images the classifier is right always: each is its own nearest neighbour. That is
# not learning, it is a lookup. **An accuracy on images that were trained on says nothing**,
# whatever the classifier; with a network it is only less obvious.
#
# The pairs show what this distance sees: the same background and the same brightness, seldom the
# same thing. Pixel by pixel, a frog moved by three pixels is a different image.

# %% [markdown]
# ## With tenfold: are the splits honest?
#
# The commonest way to a leak is a data set that holds an image twice: then a random split puts the
# copies on both sides. `find_overlaps` looks for equal images and for near ones: mirrored,
# compressed again, brightened or cut a little differently. So that there is something to find,
# plant ten test images in the training split, mirrored and brighter.

# %%
from dataclasses import replace

from tenfold.data.leaks import find_overlaps


def disguised(pixels):
    """Mirrored and brighter: hardly a pixel is the same."""
    return np.clip(pixels[:, :, ::-1].astype(int) + 12, 0, 255).astype(np.uint8)


planted = train.pixels.copy()
planted[:10] = disguised(test.pixels[::50])
for overlap in find_overlaps({"train": replace(train, pixels=planted), "test": test}):
    where = f"{overlap.first} and {overlap.second}" if overlap.is_across else overlap.first
    print(f"{where}: {overlap.exact} equal, {overlap.near} nearly equal")
    for pair in overlap.pairs[:2]:
        print("   ", pair.first, pair.second, f"similarity {pair.similarity}")

# %% [markdown]
# The same question about all of CIFAR-10 (`tenfold data eda cifar10`) finds that test images have
# near duplicates in the training split: Barz and Denzler found 3.3 % by eye. The benchmark that
# everybody quotes is not quite honest either. Where a data set has no test split, tenfold holds one
# out and keeps near duplicates on one side of it (`training_data`).

# %% [markdown]
# ## The experiment: leak on purpose
#
# Copy a share of the test images into the training data, as they are or in disguise, and score the
# nearest neighbour on the whole test split, as somebody would who doesn't know. The band is
# Wilson's 95 % interval for 500 images.

# %%
from tenfold.evaluation.metrics import wilson_interval

shares = np.array(reduced([0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0], [0, 0.2]))
generator = np.random.default_rng(0)
order = generator.permutation(len(test))
results = {}
for name, changed in {"copies": lambda p: p, "mirrored and brighter": disguised}.items():
    results[name] = []
    for share in shares:
        copied = order[: round(share * len(test))]
        more = np.concatenate([inputs, prepared(changed(test.pixels[copied]))])
        labels = np.concatenate([train.labels, test.labels[copied]])
        results[name].append(share_right(more, labels, asked, test.labels))

figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, values in results.items():
    ends = [wilson_interval(round(value * len(test)), len(test)) for value in values]
    axis.plot(shares, values, "o-", label=name)
    axis.fill_between(shares, [low for low, _ in ends], [high for _, high in ends], alpha=0.15)
    print(name, [f"{value:.1%}" for value in values])
axis.plot(shares, values[0] + shares * (1 - values[0]), ":", color="grey", label="honest + leak")
axis.set(xlabel="share of test images that leaked", ylabel="accuracy that is shown", ylim=(0, 1))
axis.legend()
plt.show()

# %% [markdown]
# Copies raise the score along a straight line: a leaked image is right for sure, any other as often
# as before, so that a share $s$ shows $a + s\,(1 - a)$. With a fifth leaked, nearly half of all the
# apparent accuracy is not knowledge. The disguise hides the leak from this distance, which knows
# nothing of mirrors. **A network that is trained with flips does**: for it a mirrored copy is a
# copy. Whether something is a leak depends on what the classifier can see through, which is why
# `find_overlaps` looks for more than equal bytes.
#
# ### A quieter leak: choosing on the test images
#
# How many neighbours should vote? Choose k by the test accuracy, and that accuracy is too high: it
# is the best of many. How much? Draw 1,000 halves of the test split, choose the best k on one half,
# and score that k on the other.

# %%
ranks = distances(asked, inputs).argsort(axis=1)
voters = train.labels[ranks[:, :64]]
neighbours = list(range(1, 64, 2))
right = np.stack(
    [np.eye(10)[voters[:, :k]].sum(axis=1).argmax(axis=1) == test.labels for k in neighbours]
)
gaps, shown = [], []
for _ in range(reduced(1000, 50)):
    half = generator.permutation(len(test))
    chosen_on, scored_on = half[: len(half) // 2], half[len(half) // 2 :]
    best = right[:, chosen_on].mean(axis=1).argmax()
    shown.append(right[best, chosen_on].mean())
    gaps.append(right[best, chosen_on].mean() - right[best, scored_on].mean())
print(f"accuracy on the half that k was chosen on: {np.mean(shown):.1%} on average")
print(f"on the other half: {np.mean(shown) - np.mean(gaps):.1%}")
print(f"too high by {np.mean(gaps) * 100:.1f} points on average, over {len(gaps)} draws")

# %% [markdown]
# That was one number chosen among 32, on 250 images. Choose among a hundred architectures, on the
# same test split, for years, and the sum grows. This is why `tenfold.train` opens the test split
# once, when all is chosen and trained, and why every further time, by `tenfold evaluate`, is
# written down.

# %% [markdown]
# ## Exercises
#
# **1.** k nearest neighbours, by majority. Of labels that are equally frequent, either will do.


# %% tags=["exercise"]
def nearest_neighbours(train, labels, test, k):
    """train: (N, D). labels: (N,) integers. test: (M, D). Returns (M,) predicted labels."""
    ...


# %% tags=["check", "raises-exception"]
check("nearest_neighbours", nearest_neighbours)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def nearest_neighbours(train, labels, test, k):
#     squared = (test**2).sum(1)[:, None] - 2 * test @ train.T + (train**2).sum(1)
#     nearest = squared.argsort(axis=1)[:, :k]
#     votes = np.eye(labels.max() + 1)[labels[nearest]].sum(axis=1)  # (M, classes)
#     return votes.argmax(axis=1)
# ```
#
# </details>

# %% [markdown]
# **2.** Hold out a share of the images of each class, drawn by a generator.


# %% tags=["exercise"]
def stratified_split(labels, share, generator):
    """labels: (N,). generator: as of np.random.default_rng. Returns two arrays of indices:
    to train on, and held out."""
    ...


# %% tags=["check", "raises-exception"]
check("stratified_split", stratified_split)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def stratified_split(labels, share, generator):
#     held_out = []
#     for label in np.unique(labels):
#         members = generator.permutation(np.flatnonzero(labels == label))
#         held_out.extend(members[: round(share * len(members))])
#     held_out = np.sort(held_out)
#     return np.setdiff1d(np.arange(len(labels)), held_out), held_out
# ```
#
# </details>

# %% [markdown]
# **3.** How many test images have an equal image in the training data? Not pair by pair: a set of
# `image.tobytes()` finds it in one pass over each.


# %% tags=["exercise"]
def leaked(train, test):
    """train: (N, H, W, 3) uint8. test: (M, H, W, 3) uint8. Returns a number of test images."""
    ...


# %% tags=["check", "raises-exception"]
check("leaked", leaked)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def leaked(train, test):
#     known = {image.tobytes() for image in train}
#     return sum(image.tobytes() in known for image in test)
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. You normalise with the mean of all images, test images included. Is that a leak?
#
# <details><summary>Answer</summary>Yes, a small one: the test images have a say in how they are
# prepared. Six numbers over thousands of images hardly matter here. A PCA or a feature selection
# that was fitted on everything can matter a lot, and the habit costs nothing.</details>
#
# 2. Your data are frames of forty videos. How do you split?
#
# <details><summary>Answer</summary>By video, never by frame: neighbouring frames are near
# duplicates. The same for patients, for photographers, for days. Ask what will be new when it is
# used, and let that be new in the test.</details>
#
# 3. A 1-nearest-neighbour classifier is right on 100 % of its training images. Has it overfitted?
#
# <details><summary>Answer</summary>Its training accuracy says nothing: it would be 100 % for random
# labels, too. Whether it generalises, only images that it has not seen can tell.</details>
#
# 4. Why is the leak of mirrored copies harmless for this classifier and not for a network?
#
# <details><summary>Answer</summary>The distance compares pixels place by place. A network that is
# trained with random flips sees each image from both sides, so that the mirrored copy is a training
# image.</details>
#
# 5. You chose the best of 32 settings on the validation images. Which accuracy do you report?
#
# <details><summary>Answer</summary>That of the chosen one on test images, which had no part in the
# choice. The validation accuracy of a winner is too high, the more so the more there were to choose
# from and the fewer the images.</details>

# %% [markdown]
# ## What this doesn't show
#
# - The leak is into a classifier that memorises perfectly. A network memorises less, and a leak
#   raises its score by less; `tenfold evaluate` counts images that a run was trained on, by their
#   pixels.
# - The choice of k had few images to choose on. With 10,000 the excess is far smaller, not zero.
#
# ## Where to read on
#
# - Björn Barz and Joachim Denzler, *Do We Train on Test Data? Purging CIFAR of Near-Duplicates*,
#   2020 (arXiv 1902.00423).
# - Benjamin Recht and others, *Do CIFAR-10 Classifiers Generalize to CIFAR-10?*, 2018 (arXiv
#   1806.00451): years of choosing on one test split, examined.
# - Sayash Kapoor and Arvind Narayanan, *Leakage and the Reproducibility Crisis in
#   Machine-Learning-Based Science*, 2023: eight kinds of leak, in seventeen fields.
# - CS231n, *Image classification* (cs231n.github.io): nearest neighbours, validation, the same
#   data.
