# %% [markdown]
# # 5 · Convolution and pooling
#
# 60 minutes to work through; its cells run in one to two minutes on two cores, without a network
# connection.
#
# **You will be able to**
#
# - compute a convolution by loops, and again as one matrix product, which is how it is fast;
# - work out sizes, parameters and receptive fields without a computer;
# - show by an experiment that what helps is the neighbourhood of pixels, not the number of
#   parameters.

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
asked, true = prepared(test.pixels), test.labels

# %% [markdown]
# ## Predict first
#
# Three networks: a convolutional one with 11,000 parameters, a fully connected one with about as
# many, and a fully connected one with 35 times as many. Write down, for each,
#
# 1. its test accuracy after training on 1,500 images;
# 2. the same, when the pixels of all images are shuffled, always in the same way, so that a person
#    sees nothing but noise.

# %% [markdown]
# ## By hand: a window that slides
#
# Put a small array of weights, the *kernel*, on the top left corner of the image. Multiply what
# lies on one another, and add up: the first output. Move on by one pixel: the next. The same
# weights at every place.


# %%
def slide(image, kernel):
    """(H, W) and (K, K) -> (H - K + 1, W - K + 1), by loops."""
    size = len(kernel)
    height, width = image.shape[0] - size + 1, image.shape[1] - size + 1
    output = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            window = image[row : row + size, column : column + size]
            output[row, column] = (window * kernel).sum()
    return output


grey = train.pixels[train.labels == 8][3].mean(axis=2) / 255
kernels = {
    "the image": np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    "blur": np.full((3, 3), 1 / 9),
    "vertical edges": np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
    "horizontal edges": np.array([[-1, -2, -1], [0, 0, 0], [1, 2, 1]]),
    "sharper": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
}
figure, axes = plt.subplots(1, len(kernels), figsize=(10, 2.3), layout="constrained")
for axis, (name, kernel) in zip(axes, kernels.items(), strict=True):
    axis.imshow(slide(grey, kernel), cmap="gray")
    axis.set_title(name, fontsize=10)
    axis.axis("off")
plt.show()

# %% [markdown]
# These kernels were made by people. A convolutional network starts from random ones, and gradient
# descent makes them.
#
# A 3 x 3 window can't be centred on the outermost pixels, so that the output has one pixel less on
# each side. *Padding* puts zeros around the image so that the output keeps its size. A *stride* of
# 2 moves the window by two pixels at a time, and halves the sides of the output. Try all three in
# [this widget](widgets/kernel-stride-padding.html), with the arithmetic of every output, and of
# their number along a side, which exercise 1 asks for.
#
# **Channels.** A colour image has three, so that a kernel is 3 x K x K: it sums over channels, too.
# A layer has many kernels, and each makes a channel of the output, to which a bias is added. From
# C_in to C_out channels a layer has C_in x C_out x K x K weights, and C_out biases, whatever the
# size of the image.
#
# **Two properties, and their price.** *Locality*: an output sees K x K pixels. *Sharing*: the same
# weights everywhere, so that a shifted image gives a shifted output. A fully connected layer could
# learn both. A convolution can't do anything else.

# %%
moved = np.roll(grey, 4, axis=1)
edges = kernels["vertical edges"]
same = np.allclose(slide(moved, edges)[:, 4:], slide(grey, edges)[:, :-4])
print("the output of the moved image is the moved output:", same)

# %% [markdown]
# ### As one matrix product
#
# Loops in Python take a microsecond or more for each window. Hardware is fast at one thing, the
# matrix product. So write every window as a row, all rows below each other, and multiply once by
# the kernel as a column. The image is copied K x K times for it; the product is worth that.
# (`sliding_window_view` makes the windows without copying, `reshape` then copies.)


# %%
def slide_by_product(image, kernel):
    """As `slide`, by one matrix product."""
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    height, width = windows.shape[:2]
    return (windows.reshape(height * width, -1) @ kernel.reshape(-1)).reshape(height, width)


def seconds(function, *given):
    """The least of three times."""
    times = []
    for _ in range(3):
        started = time.perf_counter()
        function(*given)
        times.append(time.perf_counter() - started)
    return min(times)


large = np.random.default_rng(0).random((reduced(200, 50), 200))
assert np.allclose(slide(large[:40], edges), slide_by_product(large[:40], edges))
as_tensors = torch.tensor(large)[None, None], torch.tensor(edges)[None, None].double()
print(f"loops           {1000 * seconds(slide, large, edges):8.2f} ms")
print(f"matrix product  {1000 * seconds(slide_by_product, large, edges):8.2f} ms")
print(f"PyTorch         {1000 * seconds(nn.functional.conv2d, *as_tensors):8.2f} ms")

# %% [markdown]
# ### Pooling, and how far a unit sees
#
# Max pooling keeps the largest of each 2 x 2 outputs. It halves the sides, and says that something
# was there, not at which of four pixels. It has no parameters.
#
# The *receptive field* of a unit, which is one number of an output, is what it sees of the image,
# along one side. One 3 x 3 convolution: 3 pixels. A second one on top: 5. After a pool neighbouring
# units are two pixels apart, so that a third one adds 4 and not 2. The rule for a field of $r$
# pixels, and a distance $j$ between neighbouring units (the *jump*): start with $r = 1$ and
# $j = 1$; every layer adds $(K - 1)\,j$ to $r$, and multiplies $j$ by its stride. For the three
# blocks of the network below:

# %%
field, jump = 1, 1
for name, kernel, stride in [("conv", 3, 1), ("pool", 2, 2)] * 3:
    field, jump = field + (kernel - 1) * jump, jump * stride
    print(f"{name} {kernel}x{kernel}: a unit sees {field:2d} pixels, the next one is {jump} away")

# %% [markdown]
# ## With tenfold
#
# The network of the recipe `cnn-quick`, narrower: three blocks of convolution, batch norm (chapter
# 6), pool and ReLU, then one linear layer. Its first kernels as images, where a weight of 0 is a
# middle grey, and below each the channel that it makes of a ship:

# %%
run = tenfold.train(
    "cnn-quick",
    data=images,
    model__widths=(16, 32, 32),
    model__dense=(),
    data__validation_size=150,
    training__min_steps=reduced(200, 20),
    progress=False,
)
print(run)
first = run.model.module[0]
weights = first.weight.detach().permute(0, 2, 3, 1).numpy()
ship = test.pixels[test.labels == 8][:1]
with torch.no_grad():
    maps = first(run.model.inputs(ship))[0]

figure, axes = plt.subplots(2, 16, figsize=(12, 1.9), layout="constrained")
for column in range(16):
    kernel = weights[column] / (2 * np.abs(weights[column]).max()) + 0.5
    axes[0, column].imshow(kernel)
    axes[1, column].imshow(maps[column], cmap="gray")
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# Some kernels compare colours, some find edges of one direction. Nobody told them to.
#
# ## The experiment: what is it that helps?
#
# A convolutional network is better, chapter 0 said. Because of the convolution, or of something
# else that differs? Here the optimiser, the epochs, the images and the number of parameters are the
# same. Then the pixels of all images are permuted alike. To a fully connected network that is the
# same problem: its first layer has a weight for each pixel, and doesn't know where a pixel is. For
# a convolution the neighbourhood is gone.


# %%
def convolutional():
    """Three convolutions, each pooled: 11,162 parameters."""
    layers, channels = [], 3
    for width in (8, 16, 32):
        # The largest of the ReLUs is the ReLU of the largest, for a quarter of the work.
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(2), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4 * 4, 10))


def dense(width):
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, width), nn.ReLU(), nn.Linear(width, 10))


num_epochs = reduced(20, 1)


def fit(make, x, seed):
    """A trained network: Adam, batches of 64."""
    torch.manual_seed(seed)
    model = make().to(memory_format=torch.channels_last)  # As the pixels lie; faster on a CPU.
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(num_epochs):
        for pick in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[pick]), labels[pick]).backward()
            optimizer.step()
    return model


order = torch.randperm(32 * 32, generator=torch.Generator().manual_seed(0))


def shuffled(x):
    """The same pixels in another order, the same for all images."""
    mixed = x.flatten(2)[:, :, order].reshape(x.shape)
    return mixed.contiguous(memory_format=torch.channels_last)


networks = {
    "convolutional": convolutional,
    "dense, about as many": lambda: dense(4),
    "dense, 35 times as many": lambda: dense(128),
}
arrangements = {"as they are": lambda x: x, "shuffled": shuffled}
rights = {}
for name, make in networks.items():
    count = sum(weights.numel() for weights in make().parameters())
    print(f"{name}: {count:,} parameters")
    for arranged, arrange in arrangements.items():
        x, z = arrange(inputs), arrange(asked)
        found = []
        for seed in range(reduced(3, 1)):
            model = fit(make, x, seed)
            with torch.no_grad():
                found.append(model(z).argmax(dim=1).numpy() == true)
        rights[name, arranged] = np.stack(found)

# %%
from tenfold.studies.statistics import describe_difference, holm, summarise, welch_difference

figure, axis = plt.subplots(figsize=(7, 2.6), layout="constrained")
for row, found in enumerate(reversed(rights.values())):
    estimate = summarise(found.mean(axis=1).tolist(), num_images=len(true))
    axis.plot(estimate.values, [row] * estimate.n, "o", alpha=0.7, color=f"C{row % 2}")
axis.set_yticks(range(6), [f"{name}: {how}" for name, how in reversed(rights)], fontsize=9)
axis.axvline(0.1, color="grey", ls=":")
axis.set_xlabel("test accuracy of each seed (dotted: chance)")

for (name, how), found in rights.items():
    estimate = summarise(found.mean(axis=1).tolist(), num_images=len(true))
    print(f"{name:28} {how:12} {estimate.in_words}, {estimate.n} seeds")
plt.show()

# %% [markdown]
# Three comparisons over seeds and images, corrected for being three (chapter 8 takes both apart).
# `p` is how often a difference at least as large would come by luck, if there were none:

# %%
base = ("convolutional", "as they are")
pairs = [
    (base, ("dense, about as many", "as they are")),
    (base, ("convolutional", "shuffled")),
    (("dense, 35 times as many", "as they are"), ("dense, 35 times as many", "shuffled")),
]
differences = [welch_difference(rights[one], rights[other]) for one, other in pairs]
corrected = holm([found.p for found in differences])
for (one, other), found, p in zip(pairs, differences, corrected, strict=True):
    named = (f'"{name}" ({how})' for name, how in (one, other))
    print(
        describe_difference(
            found, variant=next(named), baseline=next(named), p_holm=p, num_comparisons=3
        )
    )

# %% [markdown]
# With about the same number of parameters the convolutional network is far ahead; shuffled, it
# loses most of its lead. With the fully connected one no difference is shown, nor was any to be
# expected: to it both are the same problem. So it isn't the number of parameters: it is that near
# pixels belong together, and that the network was built to assume it. This is an *inductive bias*,
# and it is worth most where data are few. With many images, networks that assume less, such as
# transformers, catch up.

# %% [markdown]
# ## Exercises
#
# **1.** How large is the output, without a loop? Where the stride doesn't divide, the last pixels
# are left over.


# %% tags=["exercise"]
def output_size(size, kernel, stride, padding):
    """All in pixels, along one side. Returns the side of the output."""
    ...


# %% tags=["check", "raises-exception"]
check("output_size", output_size)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def output_size(size, kernel, stride, padding):
#     return (size + 2 * padding - kernel) // stride + 1
# ```
#
# </details>

# %% [markdown]
# **2.** The whole operation, with batches, channels, bias, stride and padding, against PyTorch's.
# Loops over the places of the output are fine; one `einsum` or `tensordot` for each does the rest.


# %% tags=["exercise"]
def conv2d(images, kernels, bias, stride, padding):
    """images: (N, C, H, W). kernels: (D, C, K, K). bias: (D,). Returns (N, D, H', W')."""
    ...


# %% tags=["check", "raises-exception"]
check("conv2d", conv2d)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def conv2d(images, kernels, bias, stride, padding):
#     padded = np.pad(images, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
#     size = kernels.shape[2]
#     height, width = ((side - size) // stride + 1 for side in padded.shape[2:])
#     output = np.zeros((len(images), len(kernels), height, width))
#     for row in range(height):
#         for column in range(width):
#             top, left = row * stride, column * stride
#             window = padded[:, :, top : top + size, left : left + size]
#             output[:, :, row, column] = np.einsum("nckl,dckl->nd", window, kernels) + bias
#     return output
# ```
#
# </details>

# %% [markdown]
# **3.** All windows as columns: what `torch.nn.functional.unfold` does. With it, a convolution is
# `kernels.reshape(D, -1) @ im2col(...)`.


# %% tags=["exercise"]
def im2col(images, size, stride, padding):
    """images: (N, C, H, W). Returns (N, C * size * size, number of windows)."""
    ...


# %% tags=["check", "raises-exception"]
check("im2col", im2col)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def im2col(images, size, stride, padding):
#     padded = np.pad(images, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
#     windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(2, 3))
#     windows = windows[:, :, ::stride, ::stride]  # (N, C, H', W', size, size)
#     columns = windows.transpose(0, 1, 4, 5, 2, 3)
#     return columns.reshape(len(images), images.shape[1] * size * size, -1)
# ```
#
# </details>

# %% [markdown]
# **4.** Max pooling, 2 x 2, without a loop. A last row or column without a partner is dropped.


# %% tags=["exercise"]
def max_pool2d(images):
    """(N, C, H, W) -> (N, C, H // 2, W // 2)."""
    ...


# %% tags=["check", "raises-exception"]
check("max_pool2d", max_pool2d)

# %% [markdown] tags=["solution"]
# <details><summary>Solution</summary>
#
# ```python
# def max_pool2d(images):
#     number, channels, height, width = images.shape
#     even = images[:, :, : height // 2 * 2, : width // 2 * 2]
#     return even.reshape(number, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))
# ```
#
# </details>

# %% [markdown]
# ## Questions
#
# 1. How many parameters has a 3 x 3 convolution from 64 to 128 channels, and how many for images of
#    twice the side?
#
# <details><summary>Answer</summary>64 x 128 x 9 + 128 = 73,856, and for larger images as many: the
# size of the image is not in it. The multiplications are four times as many.</details>
#
# 2. Why two 3 x 3 convolutions and not one 5 x 5?
#
# <details><summary>Answer</summary>Both see 5 pixels. With C channels, two have 18 C² weights, the
# one has 25 C², and between the two there is another ReLU.</details>
#
# 3. What is a 1 x 1 convolution good for?
#
# <details><summary>Answer</summary>It is a fully connected layer over channels, at every place by
# itself: to mix channels, and to make them fewer before something expensive.</details>
#
# 4. Convolution is equivariant to shifts. Is the whole network invariant?
#
# <details><summary>Answer</summary>No. A stride or a pool of 2 is equivariant only to shifts by 2,
# the edges have padding, and the last linear layer has a weight for each place. `tenfold audit`
# measures how many predictions a shift by one pixel changes.</details>
#
# 5. On which data would you expect a fully connected network to do no worse?
#
# <details><summary>Answer</summary>Where neighbouring inputs have nothing in common: the columns of
# a table. It is the experiment above, shuffled.</details>

# %% [markdown]
# ## What this doesn't show
#
# - One learning rate and 20 epochs, tuned for none of them. The gaps are far larger than what
#   tuning gives; the exact numbers aren't.
# - 1,500 images. With more the fully connected network gains, too: trained on 45,000, the recipes
#   `ann` and `cnn` are right on 55 % and 81 % (the table in the documentation's tour).
# - The interval of three seeds is wide, and all seeds are scored on the same 500 images.
#
# ## Where to read on
#
# - Yann LeCun and others, *Gradient-Based Learning Applied to Document Recognition*, 1998: LeNet.
# - Vincent Dumoulin and Francesco Visin, *A Guide to Convolution Arithmetic for Deep Learning*,
#   2016 (arXiv 1603.07285): every case of stride and padding, drawn.
# - CS231n, *Convolutional Networks*; Simon Prince, *Understanding Deep Learning*, chapter 10.
# - Richard Zhang, *Making Convolutional Networks Shift-Invariant Again*, 2019 (arXiv 1904.11486).
