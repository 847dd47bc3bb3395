"""The schema of a recipe: every field, its meaning and the one home of its default."""

import dataclasses
from dataclasses import dataclass, field, fields
from typing import Any, Literal

Activation = Literal["relu", "leaky_relu", "prelu", "elu", "swish", "gelu", "sigmoid", "tanh"]
Norm = Literal["batch", "none"]
ConvolutionNorm = Literal["batch", "batch_after", "none"]
Stem = Literal["cifar", "imagenet"]
InitialWeights = Literal["pytorch", "keras"]
Normalisation = Literal["standardise", "unit", "symmetric", "given", "pretrained"]
Precision = Literal["float32", "bf16", "fp16", "auto"]
Views = Literal["one", "mirror", "six"]
NormStatistics = Literal["kept", "learnt"]


@dataclass(frozen=True)
class DataOptions:
    """Which pictures are trained on."""

    name: str = "cifar10"
    """A known data set (`cifar10`, `cifar100`, `digits`) or the path of a folder or file."""
    train_size: int = 0
    """Number of training pictures, drawn evenly over the classes; 0 takes all."""
    validation_size: float = 0.1
    """Share (below 1) or number of training pictures held out, where the data has no such split."""
    test_size: float = 0.2
    """Share (below 1) or number of pictures kept for the test, where the data has no such split."""
    split_seed: int = 0
    """Seed of the splits; the same for every seed of a run, so that seeds can be compared."""
    image_size: int = 0
    """Side of the square pictures in pixels; 0 chooses from the data."""
    normalisation: Normalisation = "standardise"
    """Pixels to mean 0 and deviation 1, to [0, 1] (`unit`), to [-1, 1] (`symmetric`), by a `given`
    mean and deviation, or as a `pretrained` network was given its own."""
    mean: tuple[float, ...] = ()
    """Of red, green and blue scaled to [0, 1], where normalisation is `given`."""
    std: tuple[float, ...] = ()
    """The deviations that go with `mean`."""


@dataclass(frozen=True)
class AnnOptions:
    """A dense network: every pixel is an input, and nothing knows which pixels are neighbours."""

    name: Literal["ann"] = "ann"
    widths: tuple[int, ...] = (512, 256)
    """Units of each hidden layer."""
    activation: Activation = "relu"
    """The non-linearity after each layer."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    norm: Norm = "batch"
    """Batch normalisation after each layer, or none."""


@dataclass(frozen=True)
class CnnOptions:
    """A convolutional network: (convolution, norm, activation, max pool) blocks, then dense."""

    name: Literal["cnn"] = "cnn"
    widths: tuple[int, ...] = (32, 64, 128)
    """Channels of each block; every block halves the resolution."""
    kernel_size: int = 3
    """Side of the convolutions in pixels; odd."""
    dense: tuple[int, ...] = (128,)
    """Units of each dense layer between the blocks and the output."""
    activation: Activation = "relu"
    """The non-linearity after each layer."""
    dropout: float = 0.2
    """Share of dense units dropped in training."""
    dropout_layers: int = 0
    """Dense layers that dropout follows, from the first on; 0 for all of them."""
    norm: ConvolutionNorm = "batch"
    """Batch normalisation before each activation, after it (`batch_after`), or none."""
    initial_weights: InitialWeights = "pytorch"
    """Whose defaults they are."""


@dataclass(frozen=True)
class LenetOptions:
    """LeNet-5 with max pools: two unpadded 5x5 convolutions and three dense layers."""

    name: Literal["lenet"] = "lenet"
    activation: Activation = "relu"
    """The non-linearity after each layer."""


@dataclass(frozen=True)
class TutorialCnnOptions:
    """The network of TensorFlow's tutorial: three unpadded 3x3 convolutions, two dense layers."""

    name: Literal["tutorial_cnn"] = "tutorial_cnn"
    activation: Activation = "relu"
    """The non-linearity after each layer."""


@dataclass(frozen=True)
class PyramidOptions:
    """Convolutions whose channels grow while pools lower the resolution, then a global mean."""

    name: Literal["pyramid"] = "pyramid"
    depth: int = 4
    """Number of convolutions."""
    first_width: int = 32
    """Channels of the first convolution; those between grow by equal ratios."""
    last_width: int = 256
    """Channels of the last convolution."""
    kernel_size: int = 3
    """Side of the convolutions in pixels; odd."""
    activation: Activation = "relu"
    """The non-linearity after each convolution."""
    dropout: float = 0.0
    """Share of the last convolution's outputs dropped in training."""
    norm: ConvolutionNorm = "batch"
    """Batch normalisation before each activation, after it (`batch_after`), or none."""


@dataclass(frozen=True)
class ResnetOptions:
    """A residual network of ImageNet's kind: four stages of 64 to 512 channels."""

    name: Literal["resnet"] = "resnet"
    depth: int = 18
    """Number of layers: 18, 34 or 50."""
    stem: Stem = "cifar"
    """A 3x3 convolution (`cifar`), or a 7x7 one of stride 2 and a max pool (`imagenet`)."""
    activation: Activation = "relu"
    """The non-linearity after each convolution."""


@dataclass(frozen=True)
class CifarResnetOptions:
    """The residual network of CIFAR's kind: three stages of 16, 32 and 64 channels."""

    name: Literal["cifar_resnet"] = "cifar_resnet"
    depth: int = 20
    """Number of layers, 6 n + 2: 20, 32, 44, 56 or 110."""
    activation: Activation = "relu"
    """The non-linearity after each convolution."""


@dataclass(frozen=True)
class SpeedrunOptions:
    """The network of the fast recipes: whitening, groups of convolutions, a global max pool."""

    name: Literal["speedrun"] = "speedrun"
    widths: tuple[int, ...] = (64, 256, 256)
    """Channels of each group; every group halves the resolution."""
    depth: int = 2
    """Convolutions of each group; from 3 on, a shortcut leads around all but the first."""
    pool_first: bool = False
    """Pool ahead of the first convolution of a group, not after it; not in the first group."""
    whitening_size: int = 2
    """Side in pixels of the patches that the first layer decorrelates."""
    activation: Activation = "gelu"
    """The non-linearity after each convolution."""


@dataclass(frozen=True)
class PretrainedOptions:
    """A network of timm that was trained on other pictures, with a head for these."""

    name: Literal["pretrained"] = "pretrained"
    backbone: str = "tf_efficientnet_lite0"
    """Its name in timm, such as `resnet50`, `vit_small_patch16_224` or `convnext_tiny`."""
    weights: str = "auto"
    """`auto` takes those of an installed package or timm's own from the Hugging Face hub; `none`
    leaves them random; or the path of a safetensors file or a PyTorch state dict."""
    input_size: int = 0
    """Side in pixels to which pictures are brought for the network; 0 is what it was trained at."""
    head: tuple[int, ...] = ()
    """Units of each dense layer between features and output."""
    activation: Activation = "relu"
    """The non-linearity after each layer of the head."""
    dropout: float = 0.0
    """Share of the units before the output that are dropped in training."""


ModelOptions = (
    AnnOptions
    | CnnOptions
    | LenetOptions
    | TutorialCnnOptions
    | PyramidOptions
    | ResnetOptions
    | CifarResnetOptions
    | SpeedrunOptions
    | PretrainedOptions
)


@dataclass(frozen=True)
class AugmentationOptions:
    """Random changes to training pictures; 0 or false switches one off."""

    flip: bool = False
    """Mirror half of the pictures."""
    alternate: bool = False
    """Mirror a picture in every second epoch, half of them in the first (Jordan 2024)."""
    translate: int = 0
    """Shift by up to this many pixels each way, the edge filled by reflection."""
    cutout: int = 0
    """Side in pixels of a square that becomes 0, the mean colour of standardised pictures."""
    brightness: float = 0.0
    """Factor drawn from 1 - b to 1 + b."""
    contrast: float = 0.0
    """Factor drawn from 1 - c to 1 + c."""
    saturation: float = 0.0
    """Factor drawn from 1 - s to 1 + s."""
    hue: float = 0.0
    """Rotation of the hue by up to this share of the colour circle (0.5 is half way round)."""
    zoom: float = 0.0
    """Enlarge a square part, whose side is from 1 - z to 1 of the picture's, to the whole."""
    randaugment_ops: int = 0
    """Operations for each image of RandAugment (Cubuk et al. 2020)."""
    randaugment_magnitude: int = 9
    """Their strength, from 0 to 30."""
    trivialaugment: bool = False
    """One operation of random strength for each image (Müller and Hutter 2021)."""
    random_erasing: float = 0.0
    """Probability that a rectangle of an image becomes 0 (Zhong et al. 2020)."""
    mixup: float = 0.0
    """Beta parameter of mixup (Zhang et al. 2018)."""
    cutmix: float = 0.0
    """Beta parameter of CutMix (Yun et al. 2019); with mixup too, each batch takes one of them."""


@dataclass(frozen=True)
class SgdOptions:
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    lr: float = 0.1
    """Learning rate that the schedule multiplies."""
    momentum: float = 0.9
    """Share of the last step that goes into the next one."""
    nesterov: bool = False
    """Look ahead along the momentum (Nesterov 1983)."""
    weight_decay: float = 0.0
    """Not applied to norms, biases, and the positions and tokens of transformers."""


@dataclass(frozen=True)
class AdamOptions:
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: float = 0.001
    """Learning rate that the schedule multiplies."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    weight_decay: float = 0.0
    """Not applied to norms, biases, and the positions and tokens of transformers."""


@dataclass(frozen=True)
class AdamWOptions:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    name: Literal["adamw"] = "adamw"
    lr: float = 0.001
    """Learning rate that the schedule multiplies."""
    betas: tuple[float, ...] = (0.9, 0.999)
    """Decay of the averages of the gradient and of its square."""
    weight_decay: float = 0.01
    """Not applied to norms, biases, and the positions and tokens of transformers."""


@dataclass(frozen=True)
class MuonOptions:
    """Muon (Jordan 2024) for convolutions, Nesterov SGD for everything else."""

    name: Literal["muon"] = "muon"
    lr: float = 0.24
    """Learning rate of convolutions, that the schedule multiplies."""
    momentum: float = 0.6
    """Share of the last steps that goes into the next one, for convolutions."""
    head_lr: float = 300.0
    """Learning rate of linear layers, that the schedule multiplies."""
    bias_lr: float = 25.0
    """Learning rate of norms and biases, that the schedule multiplies."""
    sgd_momentum: float = 0.85
    """Share of the last step that goes into the next one, for what isn't a convolution."""
    weight_decay: float = 0.0
    """Share of what isn't a convolution that a step at the full rate takes away."""
    iterations: int = 3
    """Newton-Schulz iterations that make a step orthogonal."""


OptimizerOptions = SgdOptions | AdamOptions | AdamWOptions | MuonOptions


@dataclass(frozen=True)
class ConstantSchedule:
    """The same rate throughout, after the warm-up."""

    name: Literal["constant"] = "constant"
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises to its full value in a straight line."""


@dataclass(frozen=True)
class StepSchedule:
    """The rate is multiplied by `factor` every `every_epochs` epochs, or at `cuts`."""

    name: Literal["step"] = "step"
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises to its full value in a straight line."""
    every_epochs: float = 10.0
    """Epochs between two cuts."""
    cuts: tuple[float, ...] = ()
    """Epochs after which the rate is cut, in place of `every_epochs`."""
    factor: float = 0.1
    """What a cut multiplies the rate by."""


@dataclass(frozen=True)
class CosineSchedule:
    """Half a cosine from the full rate to `final` times it."""

    name: Literal["cosine"] = "cosine"
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises to its full value in a straight line."""
    final: float = 0.0
    """Rate at the end, as a share of the full rate."""


@dataclass(frozen=True)
class LinearSchedule:
    """A straight line from the full rate to `final` times it."""

    name: Literal["linear"] = "linear"
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises to its full value in a straight line."""
    final: float = 0.0
    """Rate at the end, as a share of the full rate."""


@dataclass(frozen=True)
class OneCycleSchedule:
    """Up from `initial` to the full rate by `peak`, then down to `final` (Smith 2018)."""

    name: Literal["one_cycle"] = "one_cycle"
    peak: float = 0.25
    """Share of the training at which the rate is highest."""
    initial: float = 0.1
    """Rate at the start, as a share of the full rate."""
    final: float = 0.0
    """Rate at the end, as a share of the full rate."""


@dataclass(frozen=True)
class PlateauSchedule:
    """The rate is multiplied by `factor` when the validation loss has stopped falling."""

    name: Literal["plateau"] = "plateau"
    warmup_epochs: float = 0.0
    """Epochs in which the rate rises to its full value in a straight line."""
    factor: float = 0.1
    """What a cut multiplies the rate by."""
    patience: int = 5
    """Epochs without a better validation loss before the rate falls."""


ScheduleOptions = (
    ConstantSchedule
    | StepSchedule
    | CosineSchedule
    | LinearSchedule
    | OneCycleSchedule
    | PlateauSchedule
)


@dataclass(frozen=True)
class TrainingOptions:
    """How long and in what steps."""

    epochs: int = 10
    """Times that every training picture is seen."""
    min_steps: int = 0
    """Fewest steps of a run: with few pictures, epochs are added until there are as many."""
    batch_size: int = 256
    """Pictures a step, over all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts in which a batch is computed, one after the other, to save memory."""
    sizes: tuple[int, ...] = ()
    """Sides in pixels to which pictures are shrunk at first, one after the other."""
    sizes_until: tuple[float, ...] = ()
    """Shares of the steps at which each of `sizes` ends; after the last, pictures are whole."""
    select: float = 1.0
    """Share of the pictures that an epoch trains on: once each was seen, those that had the highest
    loss; 1 for all."""
    freeze_from: tuple[float, ...] = ()
    """Shares of the steps from which the first block of the network, the first two and so on stay
    as they are."""
    clip_norm: float = 0.0
    """Longest gradient that a step may use; 0 does not clip."""
    label_smoothing: float = 0.0
    """Share of the target that is spread evenly over all classes; 0 for none."""
    balance: bool = False
    """Weigh pictures by the rarity of their class, so that all classes count alike."""
    ema_decay: float = 0.0
    """Decay a step of the moving average of the weights that is evaluated and saved; 0 for none.
    After n steps it is at most (1 + n) / (10 + n), so that few steps are not spent in vain."""
    early_stopping: int = 0
    """Epochs without a better validation accuracy before the run ends and returns to its best
    weights; 0 never stops early."""
    time_limit_seconds: float = 0.0
    """Training ends within this time, and where that comes before the last step, rates and sizes
    follow the clock; 0 for no limit."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the weights are evaluated as if training ended there, which a constant
    rate makes the same as separate runs."""
    precision: Precision = "float32"
    """Arithmetic of the network: float32, or bf16 or fp16 with float32 weights; `auto` takes bf16
    where the processor computes in it, and float32 elsewhere."""
    compile: bool = False
    """Compile the network's forward and backward pass before the first step, for half a minute or
    more: for GPUs, and long trainings."""


@dataclass(frozen=True)
class StageOptions:
    """A part of the training of a pretrained network, in which some of it stays as it is."""

    trains: str = "all"
    """`head` alone, on features that are computed once; the head and `last 3 blocks` or `last 30
    layers` of the network, whose other norms keep their statistics; or `all`."""
    epochs: int = 0
    """Times that every training picture is seen; 0 for training.epochs."""
    lr: float = 0.0
    """Learning rate of the head; 0 for optimizer.lr."""
    layer_decay: float = 1.0
    """What the rate is multiplied by from each block of the network to the one before it."""
    norms: NormStatistics = "kept"
    """Whether batch norms that learn keep the means and deviations that the network came with, on
    which all its weights rely, or learn those of these pictures too."""
    views: int = 1
    """Versions of each picture that features are computed of where the head trains alone: one is
    the picture as it is, and each further one is mirrored, shifted, coloured and enlarged."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How a trained network looks at a picture."""

    views: Views = "one"
    """As it is; or with its mirror image; or both of them also shifted by a pixel each way."""
    views_below: float = 1.0
    """Pictures of which one view is surer than this are not looked at again."""
    training_mode: bool = False
    """Say beside the accuracy what it is as in training: with dropout, and batch norm on the
    statistics of each batch. Some published results were measured so."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a run does. Equal recipes and seeds give equal weights."""

    name: str = "custom"
    """Name of the folder that its runs lie in; that of the file unless given."""
    description: str = ""
    """What it is, in a few words."""
    seed: int = 0
    """Seed of the weights, the order, the augmentation and everything else that is random."""
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=CnnOptions)
    augmentation: AugmentationOptions = field(default_factory=AugmentationOptions)
    optimizer: OptimizerOptions = field(default_factory=SgdOptions)
    schedule: ScheduleOptions = field(default_factory=CosineSchedule)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    stages: tuple[StageOptions, ...] = ()
    """Parts of the training of a pretrained network, one after the other; none trains all of it."""
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values; `recipe_from_dict` reads them back."""
        return dataclasses.asdict(self)


def options_of(value: Any) -> dict[str, Any]:
    """The fields of an options dataclass without its tag, for use as keyword arguments."""
    return {f.name: getattr(value, f.name) for f in fields(value) if f.name != "name"}
