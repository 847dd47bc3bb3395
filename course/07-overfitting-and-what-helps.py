# %% [markdown]
# # 7 · Overfitting and what helps
#
# 50 minutes to work through; its cells run in two to three minutes on two cores, without a network
# connection.
#
# **You will be able to**
#
# - recognise overfitting in a curve, and tell the gap from the harm;
# - write dropout, augmentation, label smoothing and weight decay in two or three lines each;
# - say which of them to try first, and what more images would do instead.

# %% tags=["setup"]
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
# A convolutional network of 27,000 parameters is trained on 1,500 images, forty times over.
#
# 1. What does it score on those 1,500 images at the end, and what on 500 others?
# 2. The labels are now replaced by random ones. What does it score on the images that it was
#    trained on?
# 3. Which helps more: twice as many images, or mirrored and shifted versions of those you have?

# %% [markdown]
# ## By hand: a network that memorises
#
# The same small network, with true labels and with random ones. Random labels can't be learned,
# only remembered (Zhang and others, 2017).


# %%
def network(dropout=0.0):
    layers, channels = [], 3
    for width in (8, 16, 32):
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = width
    return nn.Sequential(
        *layers,
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(512, 40),
        nn.ReLU(),
        nn.Linear(40, 10),
    )


@torch.no_grad()
def score(model, x, y):
    """Accuracy and mean cross-entropy, in evaluation mode."""
    model.eval()
    logits = model(x)
    model.train()
    loss = nn.functional.cross_entropy(logits, y).item()
    return (logits.argmax(dim=1) == y).float().mean().item(), loss


def fit(x, y, *, epochs, seed=0, dropout=0.0, decay=0.0, smoothing=0.0, augment=None):
    """A network, and a row an epoch: training accuracy and loss, test accuracy and loss."""
    torch.manual_seed(seed)
    model = network(dropout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=decay)
    num_steps = epochs * -(-len(x) // 100)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, num_steps)
    rows = []
    for _ in range(epochs):
        for pick in torch.randperm(len(x)).split(100):
            batch = x[pick] if augment is None else augment(x[pick])
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch), y[pick], label_smoothing=smoothing)
            loss.backward()
            optimizer.step()
            schedule.step()
        rows.append((*score(model, x, y), *score(model, asked, true)))
    return model, np.array(rows)


num_epochs = reduced(40, 2)
random_labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
_, curves = fit(inputs, labels, epochs=num_epochs)
_, memorised = fit(inputs, random_labels, epochs=num_epochs)
print(f"true labels:   {curves[-1, 0]:.1%} on its own images, {curves[-1, 2]:.1%} on others")
print(f"random labels: {memorised[-1, 0]:.1%} on its own images, {memorised[-1, 2]:.1%} on others")

figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
epochs = np.arange(1, num_epochs + 1)
for axis, column, name in zip(axes, (0, 1), ("accuracy", "loss"), strict=True):
    axis.plot(epochs, curves[:, column], label="training images")
    axis.plot(epochs, curves[:, column + 2], label="test images")
    axis.set(xlabel="epoch", ylabel=name)
axes[0].legend()
plt.show()

# %% [markdown]
# Two things happen here that are often mixed up. The **gap** between the curves grows from
# the first epoch on; a gap alone is no harm. The **test loss** has its lowest point early and then
# rises: the network becomes surer of its errors. The test accuracy is hurt less, or not at all,
# since it asks only which class is ahead.
#
# So capacity is there for remembering everything. What keeps a network from it? Four ways to make
# remembering harder, each in a few lines.
#
# **Dropout** (Srivastava and others, 2014): in training each unit is 0 with probability $p$, and
# the rest are divided by $1 - p$, so that the mean stays. No unit can rely on one other unit.
#
# **Augmentation**: the network never sees the same pixels twice. Mirrored and shifted images have
# the same label; that is knowledge of yours which the data lack.
#
# **Label smoothing** (Szegedy and others, 2016): the target is 0.9 for the class and 0.1 spread
# over all ten, so that no logit needs to grow without end.
#
# **Weight decay**: each step takes a share off all weights. Only those stay large that the gradient
# asks for again and again.


# %%
def drop(values, share):
    keep = (torch.rand_like(values) >= share).float()
    return values * keep / (1 - share)


def mirror_and_shift(batch, reach=3):
    """Half of the images mirrored; each shifted by up to `reach` pixels, the edge reflected."""
    flipped = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(3), batch)
    padded = nn.functional.pad(flipped, (reach,) * 4, mode="reflect")
    rows, columns = torch.randint(0, 2 * reach + 1, (2, len(batch), 1))
    at = torch.arange(32)
    each = torch.arange(len(batch))[:, None, None]
    picked = padded[each, :, (rows + at)[:, :, None], (columns + at)[:, None, :]]
    return picked.permute(0, 3, 1, 2)


values = torch.ones(100_000)
dropped = drop(values, 0.3)
print(f"dropout: {(dropped == 0).float().mean():.1%} are 0, the mean is {dropped.mean():.3f}")

torch.manual_seed(3)
row = inputs[labels == 7][:1]
versions = torch.cat([row, mirror_and_shift(row.repeat(7, 1, 1, 1))])
figure, axes = plt.subplots(1, 8, figsize=(10, 1.5), layout="constrained")
for version, axis in zip(versions, axes, strict=True):
    axis.imshow((version.permute(1, 2, 0).numpy() * deviation + mean).clip(0, 1))
    axis.axis("off")
axes[0].set_title("as it is", fontsize=9)
plt.show()

# %% [markdown]
# Try every kind on one image, and see how far it can go before you yourself would no longer know
# the class, in [this widget](widgets/augmentation.html).
#
# ## With tenfold
#
# All four are fields of a recipe, beside many others (`tenfold recipes`, or the reference):
# `model.dropout`, `augmentation.flip`, `augmentation.translate`, `training.label_smoothing`,
# `optimizer.weight_decay`. Augmentation runs on whole batches on the device, and is keyed by seed,
# epoch and image, so that a run that was interrupted goes on with the same bits.

# %%
settings = {
    "model__widths": (16, 32, 64),
    "model__dense": (40,),
    "data__validation_size": 150,
    "training__min_steps": reduced(300, 20),
    "progress": False,
}
plain = {
    "augmentation__flip": False,
    "augmentation__alternate": False,
    "augmentation__translate": 0,
    "training__label_smoothing": 0.0,
    "model__dropout": 0.0,
}
for name, changes in {"augmented, smoothed, dropout": {}, "none of them": plain}.items():
    run = tenfold.train("cnn-quick", data=images, **settings, **changes)
    last = {column: values[-1] for column, values in run.curves.items() if values}
    print(
        f"{name}: training {last['train_accuracy']:.1%}, "
        f"validation {run.metrics['validation'].accuracy:.1%}"
    )

# %% [markdown]
# The training accuracy of the first is that on *augmented* images with dropout on: it isn't
# comparable with the second's, and the page of a run says so beside its curve.
#
# ## The experiment: what helps, and how much?
#
# Each remedy alone, then all, with three seeds; and the same network on 500 and 1,000 images, to
# price a remedy in images.

# %%
variants = {
    "nothing": {},
    "dropout 0.5": {"dropout": 0.5},
    "weight decay 0.3": {"decay": 0.3},
    "label smoothing 0.1": {"smoothing": 0.1},
    "mirror and shift": {"augment": mirror_and_shift},
    "all of them": {
        "dropout": 0.5,
        "decay": 0.3,
        "smoothing": 0.1,
        "augment": mirror_and_shift,
    },
}
num_seeds, num_epochs = reduced(3, 1), reduced(15, 2)
accuracy, gaps = {}, {}
for name, changes in variants.items():
    last = [
        fit(inputs, labels, epochs=num_epochs, seed=s, **changes)[1][-1] for s in range(num_seeds)
    ]
    accuracy[name] = [row[2] for row in last]
    gaps[name] = np.mean([row[0] - row[2] for row in last])
shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
for number in (500, 1000):
    part = shuffled[:number]
    longer = num_epochs * len(labels) // number  # As many steps for all.
    last = [fit(inputs[part], labels[part], epochs=longer, seed=s)[1][-1] for s in range(num_seeds)]
    accuracy[f"nothing, {number} images"] = [row[2] for row in last]
    gaps[f"nothing, {number} images"] = np.mean([row[0] - row[2] for row in last])

# %%
from tenfold.studies.statistics import summarise

print("                        gap    test accuracy, 95 % interval over seeds")
for name, found in accuracy.items():
    print(f"{name:22} {100 * gaps[name]:4.0f} p  {summarise(found, num_images=len(true)).in_words}")

figure, axis = plt.subplots(figsize=(7, 3), layout="constrained")
for row, found in enumerate(accuracy.values()):
    axis.plot(found, [row] * len(found), "o", alpha=0.7)
axis.set_yticks(range(len(accuracy)), list(accuracy))
axis.invert_yaxis()
axis.set(xlabel="test accuracy of each seed")
plt.show()

# %% [markdown]
# Read the gap and the accuracy side by side. Dropout and augmentation make the gap much smaller;
# that alone is easy, and a network that learns nothing has none. What you want is the right column,
# and there the intervals overlap: in fifteen epochs and three seeds no remedy is shown to help, and
# all of them together leave so small a network too little. What does help is in the last two rows:
# compare "nothing" with 500, 1,000 and 1,500 images. Longer trainings need remedies more, and
# larger networks profit more from them.
#
# The study `train-size` asked the last question with a larger network and more images, three seeds
# each: 55.8 % (53.4 to 58.1) from 5,000, 63.5 % (62.4 to 64.6) from 10,000, 69.6 % (68.4 to 70.9)
# from 20,000 and 74.7 % (73.9 to 75.5) from 45,000. `tenfold study augmentation` and
# `tenfold study dropout` ask the others at more length.

# %% [markdown]
# ## Exercises
#
# **1.** Dropout, in training and in evaluation.


# %% tags=["exercise"]
def dropout(values, share, uniform, training):
    """values, uniform: (N, D), the latter drawn evenly from [0, 1). Returns (N, D).

    A unit is dropped where `uniform` is below `share`.
    """
    ...


# %% tags=["check", "raises-exception"]
check("dropout", dropout)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def dropout(values, share, uniform, training):
#     if not training:
#         return values
#     return values * (uniform >= share) / (1 - share)
# ```
#
# </details>

# %% [markdown]
# **2.** The smoothed target of a label, and the cross-entropy with it.


# %% tags=["exercise"]
def smoothed_loss(logits, labels, smoothing):
    """logits: (N, K). labels: (N,) integers. Returns the mean loss in nats."""
    ...


# %% tags=["check", "raises-exception"]
check("smoothed_loss", smoothed_loss)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def smoothed_loss(logits, labels, smoothing):
#     shifted = logits - logits.max(axis=1, keepdims=True)
#     log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
#     classes = logits.shape[1]
#     target = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
#     return -(target * log_p).sum(axis=1).mean()
# ```
#
# </details>

# %% [markdown]
# **3.** A shift by reflection: `rows` down and `columns` to the right, what is missing mirrored at
# the edge, without repeating the edge itself.


# %% tags=["exercise"]
def shift(image, rows, columns):
    """image: (H, W, C). rows, columns: of either sign, less than H and W. Returns (H, W, C)."""
    ...


# %% tags=["check", "raises-exception"]
check("shift", shift)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def shift(image, rows, columns):
#     height, width = image.shape[:2]
#     down, right = abs(rows), abs(columns)
#     padded = np.pad(image, [(down, down), (right, right), (0, 0)], mode="reflect")
#     top, left = down - rows, right - columns
#     return padded[top : top + height, left : left + width]
# ```
#
# </details>

# %% [markdown]
# **4.** When to stop: the epoch with the best validation loss, once `patience` epochs in a row have
# brought no better one; the best of all where that never happens.


# %% tags=["exercise"]
def stopping_epoch(losses, patience):
    """losses: one an epoch. Returns the number of an epoch, from 0."""
    ...


# %% tags=["check", "raises-exception"]
check("stopping_epoch", stopping_epoch)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def stopping_epoch(losses, patience):
#     best = 0
#     for epoch, loss in enumerate(losses):
#         if loss < losses[best]:
#             best = epoch
#         elif epoch - best >= patience:
#             break
#     return best
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. Training accuracy 99 %, test accuracy 90 %. Is the network overfitted?
#
# <details><summary>Answer</summary>There is a gap; whether it does harm, the two numbers don't say.
# Most good networks have one. Ask whether the test loss rises with more epochs, and whether a
# remedy raises the test accuracy.</details>
#
# 2. Why is dropout switched off in evaluation, and nothing else changed?
#
# <details><summary>Answer</summary>Training divided by $1 - p$, so that each unit has the mean that
# it has without dropout. Then evaluation needs no factor.</details>
#
# 3. You mirror images of handwritten digits. What happens?
#
# <details><summary>Answer</summary>A mirrored 3 is no 3, and 2 and 5 come to look alike.
# Augmentation states which changes keep the label: true of mirrored cats, false of digits, and of
# traffic signs with arrows.</details>
#
# 4. With augmentation the training accuracy falls and the test accuracy rises. Why no
#    contradiction?
#
# <details><summary>Answer</summary>The training accuracy is then measured on altered, harder
# images, and the network can no longer remember single ones. Only the test accuracy is what you
# want to know.</details>
#
# 5. You stop at the epoch with the best *test* accuracy. What is the number worth?
#
# <details><summary>Answer</summary>It is the best of as many draws as there are epochs, and too
# high (chapter 8). The epoch is chosen on validation images; the test images are scored
# once.</details>

# %% [markdown]
# ## What this doesn't show
#
# - One network and 1,500 images. With fifty thousand the order of remedies is often another, and a
#   network that is too small profits from none of them.
# - Strengths were not tuned. Each remedy might do better with another number.
# - Very large networks can overfit less than middling ones (Belkin and others, 2019); nothing here
#   is large enough for that.
#
# ## Where to read on
#
# - Chiyuan Zhang and others, *Understanding Deep Learning Requires Rethinking Generalization*, 2017
#   (arXiv 1611.03530): random labels.
# - Nitish Srivastava and others, *Dropout*, 2014 (JMLR 15); Christian Szegedy and others,
#   *Rethinking the Inception Architecture*, 2016 (arXiv 1512.00567), section 7.
# - Ilya Loshchilov and Frank Hutter, *Decoupled Weight Decay Regularization*, 2019 (arXiv
#   1711.05101).
# - Mikhail Belkin and others, *Reconciling Modern Machine-Learning Practice and the Classical
#   Bias-Variance Trade-Off*, 2019 (arXiv 1812.11118).
# - Simon Prince, *Understanding Deep Learning*, chapters 8 and 9, free at udlbook.github.io.
