# %% [markdown]
# # 8 · Better, or lucky?
#
# 60 minutes to work through; its cells run in about half a minute on two cores, without a network
# connection.
#
# **You will be able to**
#
# - put an interval on an accuracy, and say what it lets vary;
# - compare two networks on the same images, and two recipes over seeds;
# - find the luck in a result table: one seed, the best of ten, twenty comparisons.

# %% tags=["setup"]

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy import stats
from torch import nn

from tenfold.course import check, load_images, reduced

# %% [markdown]
# ## Predict first
#
# 1. A network is right on 400 of 500 test images. Between which two numbers would you bet 19 to 1
#    that its accuracy on a million images lies?
# 2. Two recipes that are *the same recipe*: you train one seed of each. How many points do they
#    differ by, typically?
# 3. You train ten seeds and report the best. By how many points is that too high?

# %% [markdown]
# ## By hand: four tools
#
# ### 1. An interval for a share: Wilson
#
# 400 of 500 is 80 %. The textbook interval, $p \pm 1.96 \sqrt{p (1-p) / n}$, takes the noise to be
# what it would be if 80 % were the truth. Wilson (1927) asks instead: **for which true accuracies
# would 400 of 500 not be surprising?** Solve $|p - \theta| = 1.96 \sqrt{\theta (1-\theta) / n}$ for
# $\theta$: a quadratic equation, with a centre that is drawn a little to one half.
#
# Which one keeps its promise? We know the truth in a simulation: draw many test splits, and count
# how often each interval covers it.


# %%
def textbook(right, total):
    share = right / total
    half = 1.96 * np.sqrt(share * (1 - share) / total)
    return share - half, share + half


def wilson_ends(right, total):
    share, z = right / total, 1.96
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    spread = np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    half = z / (1 + z**2 / total) * spread
    return centre - half, centre + half


generator = np.random.default_rng(0)
print("truth  images   textbook covers   Wilson covers")
for truth, total in [(0.8, 500), (0.94, 500), (0.94, 50), (0.99, 100)]:
    right = generator.binomial(total, truth, reduced(100_000, 1_000))
    covered = []
    for interval in (textbook, wilson_ends):
        low, high = interval(right, total)
        covered.append(np.mean((low <= truth) & (truth <= high)))
    print(f"{truth:5.0%} {total:7}   {covered[0]:15.1%}   {covered[1]:13.1%}")

low, high = wilson_ends(400, 500)
print(f"400 of 500: {low:.1%} to {high:.1%}")

# %% [markdown]
# What varies here are the **images**. The network is one network. The interval says nothing of what
# another seed would give.
#
# ### 2. An interval for anything: the bootstrap
#
# No formula for the noise of a median, an F1 score, an expected calibration error? Draw a sample of
# the same size *from the sample*, with replacement, compute the number again, and do that a
# thousand times. The middle 95 % of what comes out is an interval (Efron, 1979). It needs no
# formula. It does need a sample that is large and independent: the bootstrap of three seeds is
# worth nothing.

# %%
accuracies = generator.normal(70, 2, 30)
drawn = generator.choice(accuracies, (reduced(5_000, 200), 30)).std(axis=1, ddof=1)
print(f"standard deviation of these 30: {accuracies.std(ddof=1):.2f}, ", end="")
print(
    "bootstrap interval {:.2f} to {:.2f}; the truth is 2".format(
        *np.quantile(drawn, [0.025, 0.975])
    )
)

# %% [markdown]
# ### 3. Two networks on the same images: McNemar
#
# Both are right on most images, and wrong on the same hard ones. Those say nothing about which is
# better. What counts: $b$, images that only the first gets right, and $c$, that only the second
# does. If both were equally good, each of these would be a coin toss. So: how surprising are $b$
# heads in $b + c$ tosses (McNemar, 1947)?

# %%
for only_first, only_second in [(10, 10), (20, 10), (200, 190), (40, 15)]:
    found = stats.binomtest(only_first, only_first + only_second).pvalue
    print(f"{only_first:3d} to {only_second:3d}: p = {found:.3f}")

# %% [markdown]
# 200 to 190 is a lead of ten images, as is 20 to 10. Only the second is slightly surprising, and
# neither is enough.
#
# A **p** is how often chance alone gives a difference at least as large. It is *not* the
# probability that there is no difference, and a large one is no proof that there is none.
#
# ### 4. Many comparisons: Holm
#
# At a limit of 0.05 one in twenty comparisons of equal things is called real. Compare twenty
# variants with a baseline, and with 64 % probability ($1 - 0.95^{20}$) at least one is. Holm
# (1979): the smallest of $m$ p-values times $m$, the next times $m - 1$, and so on; stop calling
# things real at the first that is above 0.05. Then one false alarm *or more* happens in one of
# twenty studies at most.

# %% [markdown]
# ## The experiment: ten seeds of two equal recipes
#
# A fully connected network with one hidden layer, on 1,500 images. "Recipe A" and "recipe B" are
# the same line of code; only the seeds differ. All differences between them are luck, and so
# everything that a method calls real here is a false alarm.

# %%
images = load_images()
train, test = images.train, images.test
mean, deviation = train.pixels.mean() / 255, train.pixels.std() / 255


def prepared(pixels):
    """(N, 32, 32, 3) uint8 -> (N, 3072) normalised float32."""
    return torch.tensor((pixels / 255 - mean) / deviation).reshape(len(pixels), -1).float()


inputs, labels = prepared(train.pixels), torch.tensor(train.labels)
asked, true = prepared(test.pixels), test.labels


num_epochs = reduced(10, 1)


def rights_of(seed, width=32):
    """(N,) bool: which test images a network is right on that was trained with this seed."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3072, width), nn.ReLU(), nn.Linear(width, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(num_epochs):
        for pick in torch.randperm(len(inputs)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[pick]), labels[pick]).backward()
            optimizer.step()
    with torch.no_grad():
        return model(asked).argmax(dim=1).numpy() == true


num_seeds = reduced(10, 3)
a = np.stack([rights_of(seed) for seed in range(num_seeds)])
b = np.stack([rights_of(100 + seed) for seed in range(num_seeds)])

figure, axis = plt.subplots(figsize=(6, 1.8), layout="constrained")
for row, (name, found) in enumerate({"recipe A": a, "recipe B": b}.items()):
    values = 100 * found.mean(axis=1)
    axis.plot(values, [row] * num_seeds, "o", alpha=0.6)
    axis.plot(values.mean(), row, "k|", ms=24)
    print(
        f"{name}: mean {values.mean():.1f} %, from {values.min():.1f} to {values.max():.1f}, "
        f"standard deviation over seeds {values.std(ddof=1):.1f} points"
    )
axis.set_yticks([0, 1], ["recipe A", "recipe B"])
axis.set(xlabel="test accuracy of each seed in %", ylim=(-0.5, 1.5))
plt.show()

# %% [markdown]
# **One seed of each.** All pairs of a seed of A and a seed of B, as a paper that trains each once
# would have met them:

# %%
pairs = 100 * (a.mean(axis=1)[:, None] - b.mean(axis=1)[None])
print(f"typical difference (median, either sign): {np.median(np.abs(pairs)):.1f} points")
print(f"one of the two at least 1 point ahead: in {np.mean(np.abs(pairs) >= 1):.0%} of pairs")

# %% [markdown]
# **The best of n.** Report the best seed, and you report luck:

# %%
values = 100 * np.concatenate([a, b]).mean(axis=1)
for number in (1, 3, 5, 10):
    best = generator.choice(values, (reduced(10_000, 500), number)).max(axis=1).mean()
    print(f"best of {number:2d}: {best - values.mean():+.1f} points above the mean")

# %% [markdown]
# **Twenty variants.** Now every seed of B is "a variant", and each is compared with the first seed
# of A by McNemar's test. All of them are the same recipe:

# %%
from tenfold.studies.statistics import holm, mcnemar_p

p_values = [mcnemar_p(found, a[0]) for found in (*b, *a[1:])]
print(f"{len(p_values)} comparisons of equal recipes")
print("smallest p", f"{min(p_values):.3f}, below 0.05: {sum(p < 0.05 for p in p_values)}")
print(
    "after Holm", f"{min(holm(p_values)):.3f}, below 0.05: {sum(p < 0.05 for p in holm(p_values))}"
)

# %% [markdown]
# A small p here would not even be wrong. McNemar's question is whether *this network* is better
# than *that one* on such images, and two seeds of one recipe are two different networks. Whether
# the **recipe** is better takes seeds of both.
#
# ## With tenfold: seeds and images at once
#
# `welch_difference` takes which images each seed of each recipe was right on, and gives the
# difference of the means with an interval that lets both vary, seeds and images. It is what
# `tenfold study` puts on its page.

# %%
from tenfold.studies.statistics import describe_difference, welch_difference

found = welch_difference(a, b)
print(describe_difference(found, variant="A", baseline="B", p_holm=found.p, num_comparisons=1))

# %% [markdown]
# And a recipe that really is another: a hidden layer of 8 units. How many seeds does it take?

# %%
narrow = np.stack([rights_of(200 + seed, width=8) for seed in range(num_seeds)])
for number in (1, 3, num_seeds):
    found = welch_difference(a[:number], narrow[:number])
    print(f"{number} seed(s) each:")
    print(
        "  ",
        describe_difference(
            found, variant="A", baseline="eight units", p_holm=found.p, num_comparisons=1
        ),
    )

# %% [markdown]
# How often does each way of comparing raise a false alarm? A simulation with what you have just
# measured: seeds that scatter as yours do, two equal recipes, a claim whenever the rule says so.

# %%
deviation_of_seeds = values.std(ddof=1)
rounds = reduced(20_000, 500)
print(f"seeds scatter by {deviation_of_seeds:.1f} points; claims that are false:")
for number in (1, 3, 5, 10):
    first, second = generator.normal(0, deviation_of_seeds, (2, rounds, number))
    ahead = np.mean(np.abs(first.mean(axis=1) - second.mean(axis=1)) >= 1)
    line = f"{number:2d} seeds, mean is 1 point ahead: {ahead:4.0%}"
    if number > 1:
        welch = stats.ttest_ind(first, second, axis=1, equal_var=False).pvalue
        line += f";  Welch's p < 0.05: {np.mean(welch < 0.05):4.1%}"
    print(line)

# %% [markdown]
# The test keeps its promise, at most one false alarm in twenty, with any number of seeds. What more
# seeds buy is the power to see a difference that is there. Draw seeds yourself, and move the true
# difference, in [this widget](widgets/significance.html).

# %% [markdown]
# ## Exercises
#
# **1.** Wilson's interval, also for none and all.


# %% tags=["exercise"]
def wilson(right, total):
    """Returns the lower and the upper end of the 95 % interval of right / total."""
    ...


# %% tags=["check", "raises-exception"]
check("wilson", wilson)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def wilson(right, total):
#     share, z = right / total, 1.96
#     centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
#     spread = math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
#     half = z / (1 + z**2 / total) * spread
#     return centre - half, centre + half
# ```
#
# With 0 of 20 the textbook's interval has no width. Wilson's reaches to 16 %.
#
# </details>

# %% [markdown]
# **2.** The bootstrap interval of a mean.


# %% tags=["exercise"]
def bootstrap_interval(values, generator, number):
    """values: (N,). number: of draws. Returns the ends of the 95 % interval of the mean."""
    ...


# %% tags=["check", "raises-exception"]
check("bootstrap_interval", bootstrap_interval)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def bootstrap_interval(values, generator, number):
#     means = generator.choice(values, (number, len(values))).mean(axis=1)
#     return tuple(np.quantile(means, [0.025, 0.975]))
# ```
#
# </details>

# %% [markdown]
# **3.** McNemar's exact p, from which images each is right on.


# %% tags=["exercise"]
def mcnemar(first, second):
    """first, second: (N,) bool. Returns the two-sided p; 1 where they never differ."""
    ...


# %% tags=["check", "raises-exception"]
check("mcnemar", mcnemar)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def mcnemar(first, second):
#     only_first, only_second = (first & ~second).sum(), (second & ~first).sum()
#     differing = int(only_first + only_second)
#     return stats.binomtest(int(only_first), differing).pvalue if differing else 1.0
# ```
#
# </details>

# %% [markdown]
# **4.** Holm's correction.


# %% tags=["exercise"]
def holm_corrected(p_values):
    """Returns the corrected p-values, in the order of those given."""
    ...


# %% tags=["check", "raises-exception"]
check("holm", holm_corrected)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def holm_corrected(p_values):
#     p_values = np.asarray(p_values)
#     order = p_values.argsort()
#     multiplied = np.minimum(p_values[order] * np.arange(len(order), 0, -1), 1)
#     corrected = np.empty(len(order))
#     corrected[order] = np.maximum.accumulate(multiplied)
#     return corrected
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. A paper reports 94.1 % ± 0.2. What must you ask?
#
# <details><summary>Answer</summary>± what: a standard deviation, a standard error, or half an
# interval; and over what: seeds, folds or images. With five seeds a standard deviation of 0.2 makes
# an interval of the mean of ± 0.25, and 10,000 test images alone give ± 0.46.</details>
#
# 2. p = 0.3. Are the recipes equally good?
#
# <details><summary>Answer</summary>It is not shown that they differ. Look at the interval: from
# -0.2 to +0.5 points says that any difference is small; from -4 to +9 says that you haven't
# measured.</details>
#
# 3. More test images or more seeds?
#
# <details><summary>Answer</summary>Whichever varies more. On 500 images the images: the standard
# error of a share of 0.4 is 2.2 points. On 10,000 it is 0.5, and the seeds of small networks often
# scatter as much. Images don't help against seeds, nor seeds against images.</details>
#
# 4. You stop adding seeds as soon as p is below 0.05. What is wrong?
#
# <details><summary>Answer</summary>Every look is another chance of a false alarm: looked at often
# enough, p falls below 0.05 for equal recipes, too. Fix the number of seeds first.</details>
#
# 5. Variant 7 of 20 is best on validation. Its validation accuracy is 71.3 %. And in truth?
#
# <details><summary>Answer</summary>Lower, probably: the best of twenty was also lucky. Train it
# with new seeds, and score those, or score it once on the test images.</details>

# %% [markdown]
# ## What this doesn't show
#
# - Seeds of one small network. How much they scatter depends on network, data and epochs: measure
#   yours.
# - All intervals hold for images *like these*. Another camera is no matter of sample size.
# - Ten seeds estimate their own scatter to within a quarter or so.
#
# ## Where to read on
#
# - Edwin Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, 1927.
# - Thomas Dietterich, *Approximate Statistical Tests for Comparing Supervised Classification
#   Learning Algorithms*, 1998: why McNemar.
# - David Picard, *torch.manual_seed(3407) is all you need*, 2021 (arXiv 2109.08203): 10,000 seeds.
# - Xavier Bouthillier and others, *Accounting for Variance in Machine Learning Benchmarks*, 2021
#   (arXiv 2103.03098).
# - Larry Wasserman, *All of Statistics*, chapters 8 to 10; Russell Poldrack, *Statistical Thinking*
#   (statsthinking21.org), free.
