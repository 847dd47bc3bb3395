# %% [markdown]
# # 10 · Attention and vision transformers
#
# 60 minutes to work through; its cells run in two to three minutes on two cores, without a network
# connection.
#
# **You will be able to**
#
# - cut an image into patches, and write attention in five lines;
# - say what attention can do that a convolution can't, and what it must learn that a convolution
#   has built in;
# - decide by the number of images whether a transformer from scratch is worth a try.

# %% tags=["setup"]
import math

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
# 1. A transformer without positions gets an image whose patches are shuffled. Does its output
#    change?
# 2. Attention over 64 patches costs some number of operations. How many times as many over 256?
# 3. A small ViT and a convolutional network with as many parameters are trained on 1,500 images.
#    Which is ahead, by how many points?

# %% [markdown]
# ## By hand: patches, and who looks at whom
#
# A vision transformer (Dosovitskiy and others, 2021) cuts an image into patches, here of 4 x 4
# pixels, and maps each linearly to a vector of $D$ numbers, a *token*. From then on there is no
# image any more, but 64 tokens.


# %%
def patches_of(batch, size):
    """(N, C, H, W) -> (N, number of patches, C x size x size)."""
    n, c, h, w = batch.shape
    cut = batch.reshape(n, c, h // size, size, w // size, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(n, -1, c * size * size)


ship = inputs[labels == 8][3:4]
tokens = patches_of(ship, 4)
print("an image:", tuple(ship.shape), "-> patches:", tuple(tokens.shape))

figure, axes = plt.subplots(8, 8, figsize=(3.4, 3.4))
for patch, axis in zip(tokens[0], axes.flat, strict=True):
    axis.imshow((patch.reshape(3, 4, 4).permute(1, 2, 0).numpy() * deviation + mean).clip(0, 1))
    axis.axis("off")
plt.show()

# %% [markdown]
# **Attention.** Each token asks a question (its *query*), offers a heading (its *key*) and a
# content (its *value*), all three linear in the token. How well a query matches a key is their dot
# product; a softmax makes shares of it that add up to 1; each token gets the contents, in these
# shares:
#
# $$\mathrm{attention}(Q, K, V) = \mathrm{softmax}\!\left(\frac{Q K^\top}{\sqrt{d}}\right) V.$$
#
# Why the root? A dot product of $d$ random numbers of variance 1 has variance $d$. Without it the
# softmax would give nearly everything to one token, and its gradient would be near 0.

# %%
generator = torch.Generator().manual_seed(0)
for d in (4, 64, 1024):
    queries, keys = torch.randn(2, 64, d, generator=generator)
    products = queries @ keys.T
    raw, scaled = (x.softmax(dim=1).amax(dim=1).mean() for x in (products, products / d**0.5))
    print(f"d = {d:4}: largest share of 64 {raw:.2f} without the root, {scaled:.2f} with it")

# %% [markdown]
# **Order.** A softmax over keys doesn't know where a key came from. Shuffle the tokens, and the
# outputs are shuffled in the same way, no more: to attention an image is a bag of patches. So each
# token gets something that says where it is: its *position*, learned, or sines and cosines.


# %%
class Attention(nn.Module):
    """Several heads, each of which attends with its own part of the numbers."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.inputs, self.outputs = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        n, t, width = x.shape
        q, k, v = self.inputs(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        self.shares = (q @ k.transpose(2, 3) / math.sqrt(width // self.heads)).softmax(dim=3)
        return self.outputs((self.shares @ v).transpose(1, 2).reshape(n, t, width))


class Block(nn.Module):
    """Tokens look at each other, then each is thought about by itself; both are added."""

    def __init__(self, width, heads):
        super().__init__()
        self.attention = Attention(width, heads)
        self.dense = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])

    def forward(self, x):
        x = x + self.attention(self.norms[0](x))
        return x + self.dense(self.norms[1](x))


class ViT(nn.Module):
    """Patches, positions, blocks, and the mean of the tokens before a linear layer."""

    def __init__(self, width=48, depth=3, heads=3, positions=True):
        super().__init__()
        self.embed = nn.Linear(48, width)
        self.positions = nn.Parameter(0.02 * torch.randn(64, width) * positions, positions)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 10))

    def forward(self, batch):
        return self.head(self.blocks(self.embed(patches_of(batch, 4)) + self.positions).mean(dim=1))


def shuffled(batch):
    """Images whose 64 patches are in another order, the same for all of them."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    cut = patches_of(batch, 4)[:, order].reshape(len(batch), 8, 8, 3, 4, 4)
    return cut.permute(0, 3, 1, 4, 2, 5).reshape(batch.shape)


for positions in (False, True):
    torch.manual_seed(0)
    model = ViT(positions=positions)
    with torch.no_grad():
        change = (model(ship) - model(shuffled(ship))).abs().max().item()
    print(
        f"{'with' if positions else 'no'} positions: shuffling changes the output by {change:.1e}"
    )

# %% [markdown]
# **What is built in.** A convolution knows from the start that neighbours belong together, and that
# an edge is an edge at every place. Attention can look anywhere from its first layer on, and has to
# learn from the images that it mostly should look nearby. That freedom has a price in images.
#
# ## With tenfold
#
# `vit` is a network of the toolkit, sines and cosines for positions; patch, depth, width and heads
# are fields of the recipe, and it takes every augmentation and optimiser that the others take. Its
# recipe is made for 300 epochs on a GPU. Here it gets a minute's share of that:

# %%
run = tenfold.train(
    "vit",
    data=images,
    model__width=48,
    model__depth=3,
    epochs=1,
    training__min_steps=reduced(150, 5),
    training__batch_size=128,
    schedule__warmup_epochs=0,
    augmentation__mixup=0.0,
    augmentation__cutmix=0.0,
    data__validation_size=150,
    optimizer__lr=0.002,
    progress=False,
)
print(run)

# %% [markdown]
# ## The experiment: ViT against CNN, by number of images
#
# Two networks with about 65,000 parameters, the same optimiser, mirrored images for both, as many
# steps for all; 150 to 1,500 images, three seeds.


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


num_steps = reduced(300, 5)


def fit(make, number, seed):
    """A network that was trained on the first so many images of a shuffled order."""
    torch.manual_seed(seed)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))[:number]
    model = make()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, num_steps)
    for _ in range(num_steps):
        pick = order[torch.randint(number, (64,))]
        mirrored = torch.rand(64, 1, 1, 1) < 0.5
        batch = torch.where(mirrored, inputs[pick].flip(3), inputs[pick])
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(batch), labels[pick]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy_of(model):
    return (model(asked).argmax(dim=1) == true).float().mean().item()


for name, make in {"CNN": cnn, "ViT": ViT}.items():
    print(name, "has", sum(p.numel() for p in make().parameters()), "parameters")
numbers = reduced((150, 500, 1500), (150,))
found, models = {}, {}
for name, make in {"CNN": cnn, "ViT": ViT}.items():
    for number in numbers:
        trained = [fit(make, number, seed) for seed in range(reduced(3, 1))]
        found[name, number] = [accuracy_of(model) for model in trained]
        models[name] = trained[0]

# %%
from tenfold.studies.statistics import summarise

print("     images   test accuracy, 95 % interval over seeds")
for (name, number), values in found.items():
    print(f"{name}  {number:6}   {summarise(values, num_images=len(true)).in_words}")

figure, axis = plt.subplots(figsize=(6, 3), layout="constrained")
for name in ("CNN", "ViT"):
    axis.plot(numbers, [np.mean(found[name, number]) for number in numbers], "o-", label=name)
axis.set(xscale="log", xlabel="training images", ylabel="test accuracy, mean of seeds")
axis.legend()
plt.show()

# %% [markdown]
# The convolutional network is ahead at every size. Whether the lead shrinks with more images, three
# sizes up to 1,500 can't say. In the literature a ViT that is trained from scratch on CIFAR-10's
# 50,000 stays behind a ResNet unless augmentation is strong and training long, and with hundreds of
# millions of images it overtakes (Dosovitskiy and others, figure 3).
#
# Who looks at whom? The shares of a trained network, for the patch at the cross, averaged over the
# heads of each block:

# %%
model = models["ViT"]
with torch.no_grad():
    model(ship)
figure, axes = plt.subplots(1, 4, figsize=(8, 2.2), layout="constrained")
axes[0].imshow((ship[0].permute(1, 2, 0).numpy() * deviation + mean).clip(0, 1))
axes[0].plot(4 * 4 + 2, 4 * 4 + 2, "x", color="red", ms=8)
axes[0].set_title("image", fontsize=9)
for index, (block, axis) in enumerate(zip(model.blocks, axes[1:], strict=True)):
    shares = block.attention.shares[0, :, 4 * 8 + 4].mean(dim=0).reshape(8, 8)
    axis.imshow(shares.numpy(), cmap="viridis")
    axis.set_title(f"block {index + 1}, largest {shares.max():.0%}", fontsize=9)
for axis in axes:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Exercises
#
# **1.** Patches, as NumPy.


# %% tags=["exercise"]
def patches(images, size):
    """images: (N, H, W, C), H and W multiples of size. Returns (N, patches, size x size x C).

    Patches row by row; each patch's pixels row by row, channels last.
    """
    ...


# %% tags=["check", "raises-exception"]
check("patches", patches)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def patches(images, size):
#     n, h, w, c = images.shape
#     cut = images.reshape(n, h // size, size, w // size, size, c)
#     return cut.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, size * size * c)
# ```
#
# </details>

# %% [markdown]
# **2.** Attention with one head.


# %% tags=["exercise"]
def attention(q, k, v):
    """q: (T, D). k: (S, D). v: (S, E). Returns (T, E)."""
    ...


# %% tags=["check", "raises-exception"]
check("attention", attention)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def attention(q, k, v):
#     scores = q @ k.T / np.sqrt(q.shape[1])
#     shares = np.exp(scores - scores.max(axis=1, keepdims=True))
#     return shares / shares.sum(axis=1, keepdims=True) @ v
# ```
#
# </details>

# %% [markdown]
# **3.** Layer norm, over the features of each token.


# %% tags=["exercise"]
def layer_norm(x, gamma, beta, epsilon=1e-5):
    """x: (N, T, D). gamma, beta: (D,). Returns (N, T, D)."""
    ...


# %% tags=["check", "raises-exception"]
check("layer_norm", layer_norm)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def layer_norm(x, gamma, beta, epsilon=1e-5):
#     mean = x.mean(axis=-1, keepdims=True)
#     variance = x.var(axis=-1, keepdims=True)
#     return gamma * (x - mean) / np.sqrt(variance + epsilon) + beta
# ```
#
# The same in training and in evaluation: no other image is looked at.
#
# </details>

# %% [markdown]
# **4.** Multiplications of one attention layer with $T$ tokens of width $D$: the four linear maps,
# and the two products of the attention itself, biases and softmax not counted.


# %% tags=["exercise"]
def attention_cost(tokens, width):
    """Returns a number of multiplications; the number of heads doesn't matter."""
    ...


# %% tags=["check", "raises-exception"]
check("attention_cost", attention_cost)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def attention_cost(tokens, width):
#     return 4 * tokens * width**2 + 2 * tokens**2 * width
# ```
#
# At 64 tokens of width 192 the linear maps cost six times as much as the attention. At 1,024 tokens
# it is the other way round.
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. What does a convolution of 8 x 8 patches have in common with the first layer of a ViT?
#
# <details><summary>Answer</summary>The first layer of a ViT *is* a convolution, with a kernel and a
# stride of one patch.</details>
#
# 2. Why several heads, and not one with all the numbers?
#
# <details><summary>Answer</summary>A softmax gives one set of shares. Several heads let a token
# look at several places for several reasons, at the same cost.</details>
#
# 3. Layer norm rather than batch norm: what does it change for a service that gets single images?
#
# <details><summary>Answer</summary>Nothing depends on other images, in training either, so that
# there is no difference between modes to forget.</details>
#
# 4. Your ViT is at 55 % after 10 epochs where the CNN is at 75. Is it broken?
#
# <details><summary>Answer</summary>Probably not. From scratch on small data it needs strong
# augmentation and ten times the epochs; or weights from elsewhere (chapter 11), which is how ViTs
# are used.</details>
#
# 5. An attention map lights up on the ship. Does the network use the ship?
#
# <details><summary>Answer</summary>It says where values were taken from, not what they were used
# for. Cover the ship and see whether the prediction changes (chapter 12).</details>

# %% [markdown]
# ## What this doesn't show
#
# - A ViT of 65,000 parameters. Those that win have a thousand times as many, and as much more data.
# - Strong augmentation, hundreds of epochs, distillation (Touvron and others, 2021), which carry a
#   ViT on CIFAR-10 to where ResNets are.
# - Networks that are both: convolutions first, attention above.
#
# ## Where to read on
#
# - Ashish Vaswani and others, *Attention Is All You Need*, 2017 (arXiv 1706.03762).
# - Alexey Dosovitskiy and others, *An Image is Worth 16x16 Words*, 2021 (arXiv 2010.11929).
# - Hugo Touvron and others, *Training Data-Efficient Image Transformers*, 2021 (arXiv 2012.12877);
#   Lucas Beyer and others, *Better Plain ViT Baselines for ImageNet-1k*, 2022 (arXiv 2205.01580).
# - Simon Prince, *Understanding Deep Learning*, chapter 12; Andrej Karpathy, *Let's build GPT*,
#   free on video.
