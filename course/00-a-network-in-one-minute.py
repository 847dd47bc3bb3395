# %% [markdown]
# # 0 · A network in one minute
#
# 30 minutes to work through; its cells run in some two minutes on two cores, without a network
# connection.
#
# **You will be able to**
#
# - train a fully connected and a convolutional network, and read what comes out;
# - say what an accuracy is measured on, and how far to trust its digits;
# - compute accuracy, a confusion matrix and a number of parameters yourself.
#
# The course comes with 2,000 images of CIFAR-10, 32 by 32 pixels, in ten classes: 1,500 to train
# on, 500 to test with. That is little. It is enough to see everything that matters, in seconds.
#
# **How to work through it.** Read a cell, say what it will show, and run it with Shift+Enter. Run
# all cells in order: each builds on those above. In the exercises you write code; a test tells
# whether it is right, and the solution is folded below it. `tenfold course` in a terminal, in the
# folder of this notebook, lists the chapters and what you have solved. Where the code says
# `reduced(3, 1)`, read 3: the second number is for a quick look at whether everything runs.

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np

import tenfold
from tenfold.course import check, load_images, reduced

# %%
images = load_images()
train, test = images.train, images.test
print(train.pixels.shape, train.pixels.dtype, "to train on;", len(test), "to test with")

figure, axes = plt.subplots(2, 5, figsize=(8, 3.6), layout="constrained")
for label, axis in enumerate(axes.flat):
    axis.imshow(train.pixels[train.labels == label][0])
    axis.set_title(train.class_names[label], fontsize=10)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Predict first
#
# Write three numbers down before you run on. Of 100 test images, how many get the right label from
#
# 1. somebody who guesses?
# 2. a fully connected network that was trained on 1,350 images?
# 3. a convolutional network that was trained on the same?
#
# A prediction that you wrote down teaches you something whether it was right or wrong. One that you
# only thought is right every time.

# %% [markdown]
# ## By hand: the least that a network must beat
#
# Average the training images of each class, and give a test image the label of the average that is
# nearest to it. No network, no training; a score that any network should be above.

# %%
flat = train.pixels.reshape(len(train), -1) / 255
means = np.stack([flat[train.labels == label].mean(axis=0) for label in range(10)])
distances = ((test.pixels.reshape(len(test), 1, -1) / 255 - means) ** 2).sum(axis=2)
nearest_mean = np.mean(distances.argmin(axis=1) == test.labels)
print(f"nearest average: {nearest_mean:.1%} of the test images; chance: 10 %")

figure, axes = plt.subplots(1, 10, figsize=(10, 1.4), layout="constrained")
for label, axis in enumerate(axes):
    axis.imshow(means[label].reshape(32, 32, 3))
    axis.set_title(train.class_names[label], fontsize=8)
    axis.axis("off")
plt.show()

# %% [markdown]
# The averages are blurs of sky, sea and grass. What they know is colour: a ship is blue below, a
# frog is on something brown. Keep that in mind when a network scores 40 %. Much of it may be this.

# %% [markdown]
# ## With tenfold: two networks
#
# `tenfold.train` takes a recipe (a network, an optimiser, a schedule) and data, trains, and scores
# the result once on the test images. `ann` is fully connected: every unit sees every pixel.
# `cnn-quick` is convolutional: a unit sees 3 by 3 pixels, and the same weights are used at every
# place.
#
# Of the 1,500 images, 150 are held out for validation: what you choose, you choose on those. The
# learning curve is drawn from them. The options below are fields of the recipe, with two
# underscores for the dot: `training__min_steps` is the least number of steps of the optimiser.
# While a network is trained, each epoch, which is once through all images, writes a line.

# %%
settings = {
    "data__validation_size": 150,
    "training__min_steps": reduced(200, 20),
}
ann = tenfold.train("ann", data=images, seed=0, **settings)
cnn = tenfold.train("cnn-quick", data=images, seed=0, **settings)

# %%
for run in (ann, cnn):
    found = run.metrics["test"]
    low, high = found.accuracy_interval
    print(f"{run.recipe.name}: {found.accuracy:.1%}, 95 % interval {low:.1%} to {high:.1%}")
curves = cnn.plot()
curves

# %% [markdown]
# **Read the interval before the number.** 500 images are a sample. Had the 500 been others, the
# accuracy would have been another; the interval (Wilson's, chapter 8) covers the accuracy on ever
# more such images for 95 of 100 samples. With 500 images it is some 9 points wide, so the decimal
# is noise.
#
# **Read the curve.** The loss on the training images goes on falling when that on the validation
# images no longer does: the network learns these 1,350 images by heart. That is overfitting.
#
# **Read the mistakes.** A confusion matrix says which classes are predicted as which.

# %%
found = cnn.metrics["test"]
matrix = np.array(found.confusion)
figure, axis = plt.subplots(figsize=(5, 4.4), layout="constrained")
axis.imshow(matrix, cmap="Blues")
for (row, column), count in np.ndenumerate(matrix):
    if count:
        colour = "white" if count > matrix.max() / 2 else "black"
        axis.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
axis.set_xticks(range(10), test.class_names, rotation=60, fontsize=8)
axis.set_yticks(range(10), test.class_names, fontsize=8)
axis.set(xlabel="predicted", ylabel="true", title="convolutional network, 500 test images")
for mistake in found.most_confused[:3]:
    print(f"{mistake.true} predicted as {mistake.predicted}: {mistake.count} of 50")
plt.show()

# %% [markdown]
# All of this and more is on one page, which is written beside the weights: make a cell that says
# `cnn`, and follow the link below its curve, or open the file in a browser. `make demo` writes the
# same kind of page about both networks, trained on all of CIFAR-10.

# %% [markdown]
# ## The experiment: is it the network, or the luck of a seed?
#
# A seed fixes the initial weights, the order of the images and the augmentation. Another seed is
# another run. So we train each network three times, and look at whether the three of one overlap
# with the three of the other.

# %%
runs = {"ann": [ann], "cnn-quick": [cnn]}
for name, several in runs.items():
    for seed in range(1, reduced(3, 1)):
        several.append(tenfold.train(name, data=images, seed=seed, progress=False, **settings))
accuracies = {
    name: [run.metrics["test"].accuracy for run in several] for name, several in runs.items()
}
figure, axis = plt.subplots(figsize=(6, 1.8), layout="constrained")
for row, (name, values) in enumerate(accuracies.items()):
    axis.plot(values, [row] * len(values), "o", ms=8)
    print(f"{name}: " + ", ".join(f"{value:.1%}" for value in values))
axis.axvline(0.1, color="grey", ls=":")
axis.axvline(nearest_mean, color="grey", ls="--")
axis.set_yticks([0, 1], list(accuracies))
axis.set(xlabel="test accuracy (dotted: chance; dashed: nearest average)", ylim=(-0.5, 1.5))
plt.show()

# %%
from tenfold.studies.statistics import summarise

for name, values in accuracies.items():
    estimate = summarise(values, num_images=len(test))
    print(f"{name}: mean {estimate.in_words}, 95 % interval over {estimate.n} seeds")

# %% [markdown]
# The three dots of one network lie close together, and the two networks lie far apart: the
# difference is not the luck of a seed. It is the convolution, which chapter 5 takes apart. How
# large it is, three seeds don't say well: look at the intervals of the means, which with three
# values are wide.

# %% [markdown]
# ## Exercises
#
# Replace the dots, run the cell, then its test.

# %% [markdown]
# **1.** The share of predictions that equal the labels.


# %% tags=["exercise"]
def accuracy(predicted, labels):
    """predicted, labels: (N,) integers. Returns a number from 0 to 1."""
    ...


# %% tags=["check", "raises-exception"]
check("accuracy", accuracy)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def accuracy(predicted, labels):
#     return np.mean(predicted == labels)
# ```
#
# </details>

# %% [markdown]
# **2.** The confusion matrix: cell (i, j) counts the images of class i that were predicted as j.


# %% tags=["exercise"]
def confusion_matrix(labels, predicted, num_classes):
    """labels, predicted: (N,) integers. Returns (num_classes, num_classes) counts."""
    ...


# %% tags=["check", "raises-exception"]
check("confusion_matrix", confusion_matrix)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def confusion_matrix(labels, predicted, num_classes):
#     matrix = np.zeros((num_classes, num_classes), dtype=int)
#     np.add.at(matrix, (labels, predicted), 1)  # matrix[labels, predicted] += 1 counts pairs once
#     return matrix
# ```
#
# </details>

# %% [markdown]
# **3.** The parameters of a fully connected network with these widths, inputs first and classes
# last.


# %% tags=["exercise"]
def count_parameters(widths):
    """widths: such as [3072, 512, 10]. Returns the number of weights and biases."""
    ...


# %% tags=["check", "raises-exception"]
check("count_parameters", count_parameters)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def count_parameters(widths):
#     pairs = zip(widths[:-1], widths[1:])
#     return sum(inputs * outputs + outputs for inputs, outputs in pairs)
# ```
#
# The first layer of `[3072, 512, 256, 10]` holds 92 % of all parameters: on raw pixels, a fully
# connected network is mostly its first layer.
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. Your network scores 44 % on 500 images, your colleague's 47 %. Who is ahead?
#
# <details><summary>Answer</summary>Nobody can say. Each interval is some 4.4 points to either side.
# On the same images the comparison is sharper (McNemar's test, chapter 8), but 3 points on 500
# images are seldom enough.</details>
#
# 2. Why are the test images scored once, at the end?
#
# <details><summary>Answer</summary>What you choose by looking at them (epochs, widths, which of ten
# runs) fits them a little. Then they no longer tell what happens on images that nobody looked at.
# Validation images are there to be looked at.</details>
#
# 3. Why is 10 % the score of chance here, and when would it be another?
#
# <details><summary>Answer</summary>Ten classes with equally many images. With 90 % cats, always
# saying "cat" scores 90 %: compare with the most frequent class, not with one in ten.</details>
#
# 4. Both networks saw the same images. What does the convolutional one know beforehand?
#
# <details><summary>Answer</summary>That near pixels belong together, and that what is worth
# detecting in one place is worth detecting in all. The fully connected one would learn the same if
# its pixels were shuffled: it can't tell.</details>
#
# 5. What does the confusion matrix show that accuracy hides?
#
# <details><summary>Answer</summary>Which mistakes. A cat taken for a dog and a truck taken for a
# bird cost the same accuracy, and mean different things about the network. And classes that are
# never predicted.</details>

# %% [markdown]
# ## What this doesn't show
#
# - What they reach here is not what such networks can reach: on all 45,000 training images `ann` is
#   at 55 % and `cnn-quick` at 81 %, as the tour's table has it (`make demo` repeats it).
# - The two differ in more than convolution: parameters, augmentation, optimiser. Chapter 5 makes
#   them equal but for the one thing.
# - Three seeds on the same 500 images share the luck of those images.
#
# ## Where to read on
#
# - Alex Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009: where the images
#   are from.
# - Stanford's CS231n, *Image classification* (cs231n.github.io): the same start, at more length.
# - Michael Nielsen, *Neural Networks and Deep Learning*, chapter 1
#   (neuralnetworksanddeeplearning.com).
# - Simon Prince, *Understanding Deep Learning*, chapters 1 and 2 (udlbook.github.io/udlbook), free.
