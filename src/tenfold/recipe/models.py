"""The schema of a recipe: every field, its meaning, its range and the one home of its default.

Tables that name a part (model, optimizer, schedule, loss) have the fields of the part's signature.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
)

from tenfold.own_parts import OWN
from tenfold.registry import SHIPPED, Condition, Options, PartOptions, find_part
from tenfold.validation import expected

Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=8, le=1024)]
DEFAULTS = {"model": "cnn", "optimizer": "sgd", "schedule": "cosine", "loss": "cross_entropy"}
"""The part that a table names where it says nothing."""
KINDS = {"model": "network", "optimizer": "optimizer", "schedule": "schedule", "loss": "loss"}


def _part_of(table: str, value: Any) -> PartOptions:
    """The options that a table of the recipe is: `value` as it is, or checked against the part it
    names."""
    if isinstance(value, PartOptions):
        return value
    if not isinstance(value, Mapping):
        raise expected("a table", found=value)
    kind, name = KINDS.get(table, table), value.get("name", DEFAULTS.get(table))
    if not isinstance(name, str):
        words = f"one of {', '.join(SHIPPED[kind])}" if SHIPPED[kind] else f"such as my.py:{kind}"
        raise expected(words, key="name", found=name)
    return find_part(kind, name).options.model_validate(value)


def _absolute(path: str) -> str:
    """So that a run can be resumed and evaluated anywhere."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def _rises(shares: tuple[float, ...]) -> bool:
    return list(shares) == sorted(shares) and all(0 <= share <= 1 for share in shares)


class DataOptions(Options):
    """Which images are trained on."""

    name: str = "cifar10"
    """A known data set (`cifar10`, `cifar100`, `digits`) or the path of a folder or file."""
    train_size: Count = 0
    """Number of training images, drawn evenly over the classes; 0 takes all."""
    validation_size: NotNegative = 0.1
    """Share (below 1) or number of training images held out, where the data has no such split."""
    test_size: Annotated[float, Field(gt=0)] = 0.2
    """Share (below 1) or number of images kept for the test, where the data has no such split."""
    split_seed: Count = 0
    """Seed of the splits; the same for every seed of a run, so that seeds can be compared."""
    corrections: Annotated[str, AfterValidator(_absolute)] = ""
    """A CSV file of corrected labels (`id,label,action`, as the error explorer of a page writes
    it), by which the training images alone are changed; empty for none."""
    image_size: int = 0
    """Side of the square images in pixels; 0 chooses from the data."""
    window: tuple[FiniteFloat, ...] = ()
    """`[low, high]`: the values that become black and white in files of more than eight bits; of
    DICOM, after its rescaling. [] finds one for the data set, and takes a DICOM file's own."""
    normalisation: Literal["standardise", "unit", "symmetric", "given", "pretrained"] = (
        "standardise"
    )
    """Pixels to mean 0 and deviation 1, to [0, 1] (`unit`), to [-1, 1] (`symmetric`), by a `given`
    mean and deviation, or as a `pretrained` network was given its own."""
    mean: tuple[float, ...] = ()
    """Of red, green and blue scaled to [0, 1], where normalisation is `given`."""
    std: tuple[float, ...] = ()
    """The deviations that go with `mean`."""

    def _conditions(self) -> Iterator[Condition]:
        yield "name", self.name, "the name or path of a data set"
        words = "a name without control characters (in TOML, a Windows path has single quotes)"
        yield "name", not re.search("[\0-\x1f]", self.name), words
        yield "image_size", not self.image_size or 8 <= self.image_size <= 1024, "0 or 8 to 1024"
        rises = len(self.window) == 2 and self.window[0] < self.window[1]
        yield "window", rises or not self.window, "two rising numbers such as [0, 4095], or []"
        number = 3 * (self.normalisation == "given")
        words = "{} where data.normalisation is 'given', and [] elsewhere"
        holds = len(self.mean) == number and all(0 <= mean <= 1 for mean in self.mean)
        yield "mean", holds, words.format("three numbers from 0 to 1")
        holds = len(self.std) == number and all(std > 0 for std in self.std)
        yield "std", holds, words.format("three numbers above 0")


_Augmentation = Annotated[
    PartOptions, BeforeValidator(lambda value: _part_of("augmentation", value))
]


class AugmentationOptions(Options):
    """Random changes to training images; 0 or false switches one off."""

    flip: bool = False
    """Mirror half of the images."""
    alternate: bool = False
    """Mirror an image in every second epoch, half of them in the first (Jordan 2024)."""
    translate: Count = 0
    """Shift by up to this many pixels each way, the edge filled by reflection."""
    cutout: Count = 0
    """Side in pixels of a square that becomes 0, the mean colour of standardised images."""
    brightness: Share = 0.0
    """Factor drawn from 1 - b to 1 + b."""
    contrast: Share = 0.0
    """Factor drawn from 1 - c to 1 + c."""
    saturation: Share = 0.0
    """Factor drawn from 1 - s to 1 + s."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Rotation of the hue by up to this share of the colour circle (0.5 is half way round)."""
    zoom: ShareBelowOne = 0.0
    """Enlarge a square part, whose side is from 1 - z to 1 of the image's, to the whole."""
    randaugment_ops: Annotated[int, Field(ge=0, le=10)] = 0
    """Operations for each image of RandAugment (Cubuk et al. 2020)."""
    randaugment_magnitude: Annotated[int, Field(ge=0, le=30)] = 9
    """Their strength, from 0 to 30."""
    trivialaugment: bool = False
    """One operation of random strength for each image (Müller and Hutter 2021)."""
    random_erasing: Share = 0.0
    """Probability that a rectangle of an image becomes 0 (Zhong et al. 2020)."""
    mixup: NotNegative = 0.0
    """Beta parameter of mixup (Zhang et al. 2018)."""
    cutmix: NotNegative = 0.0
    """Beta parameter of CutMix (Yun et al. 2019); with mixup too, each batch takes one of them."""
    also: tuple[_Augmentation, ...] = ()
    """Augmentations of one's own, one after the other, such as `{name = "my.py:invert"}`: after
    those above, and before mixup and CutMix."""

    def _conditions(self) -> Iterator[Condition]:
        yield "alternate", self.flip or not self.alternate, "false where flip is false"
        both = self.trivialaugment and self.randaugment_ops
        yield "trivialaugment", not both, "false where randaugment_ops is above 0"


class TrainingOptions(Options):
    """How long and in what steps."""

    epochs: Annotated[int, Field(ge=1)] = 10
    """Times that every training image is seen."""
    min_steps: Count = 0
    """Fewest steps of a run: with few images, epochs are added until there are as many."""
    batch_size: Annotated[int, Field(ge=2, le=10**6)] = 256
    """Images a step, over all processes and accumulated parts together."""
    accumulate: int = 1
    """Parts in which a batch is computed, one after the other, to save memory."""
    sizes: tuple[Side, ...] = ()
    """Sides in pixels to which images are shrunk at first, one after the other."""
    sizes_until: tuple[float, ...] = ()
    """Shares of the steps at which each of `sizes` ends; after the last, images are whole."""
    select: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the images that an epoch trains on: once each was seen, those that had the highest
    loss; 1 for all."""
    freeze_from: tuple[float, ...] = ()
    """Shares of the steps from which the first block of the network, the first two and so on stay
    as they are."""
    clip_norm: NotNegative = 0.0
    """Longest gradient that a step may use; 0 does not clip."""
    label_smoothing: ShareBelowOne = 0.0
    """Share of the target that is spread evenly over all classes; 0 for none."""
    balance: bool = False
    """Weigh images by the rarity of their class, so that all classes count alike."""
    ema_decay: ShareBelowOne = 0.0
    """Decay a step of the moving average of the weights that is evaluated and saved; 0 for none.
    After n steps it is at most (1 + n) / (10 + n), so that few steps are not spent in vain."""
    early_stopping: Count = 0
    """Epochs without a better validation accuracy before the run ends and returns to its best
    weights; 0 never stops early."""
    stop_at_head: bool = True
    """Leave out the stages after the head's where validation couldn't show that they help: at
    least 100 images, 99 % of them right, and no more errors than a network without any may make."""
    time_limit_seconds: NotNegative = 0.0
    """Training ends within this time, and where that comes before the last step, rates and sizes
    follow the clock; 0 for no limit."""
    milestones: tuple[int, ...] = ()
    """Epochs after which the weights are evaluated as if training ended there, which a constant
    rate makes the same as separate runs."""
    precision: Literal["float32", "bf16", "fp16", "auto"] = "float32"
    """Arithmetic of the network: float32, or bf16 or fp16 with float32 weights; `auto` takes bf16
    where the processor computes in it, and float32 elsewhere."""
    compile: bool = False
    """Compile the network's forward and backward pass before the first step, for half a minute or
    more: for GPUs, and long trainings."""
    sync_batch_norm: bool = False
    """Let batch norms of several processes look at the whole batch, not at each one's share."""
    deterministic: bool = True
    """Whether a compiled training on a GPU keeps to algorithms that give the same bits each time;
    false takes those that were the fastest when tried."""

    def _conditions(self) -> Iterator[Condition]:
        words = "1 or more, and at most half the batch size"
        yield "accumulate", 1 <= self.accumulate <= self.batch_size // 2, words
        yield "sizes_until", _rises(self.sizes_until), "rising numbers from 0 to 1"
        yield "freeze_from", _rises(self.freeze_from), "rising numbers from 0 to 1"
        words = f"as many numbers as training.sizes, which has {len(self.sizes)}"
        yield "sizes_until", len(self.sizes_until) == len(self.sizes), words


class DistillationOptions(Options):
    """Learning from the predictions of another network, the teacher (Hinton et al. 2015)."""

    teacher: str = ""
    """A finished run, or its model.safetensors, which says what it sees in the images of each step;
    none if empty."""
    temperature: Annotated[float, Field(gt=0)] = 4.0
    """What the logits of both are divided by, so that unlikely classes count too."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Of the loss that is the distance from the teacher; the rest is that of the labels."""


class StageOptions(Options):
    """A part of the training of a pretrained network, in which some of it stays as it is."""

    trains: str = "all"
    """`head` alone, on features that are computed once; the head and `last 3 blocks` or `last 30
    layers` of the network, whose other norms keep their statistics; or `all`."""
    epochs: Count = 0
    """Times that every training image is seen; 0 for training.epochs."""
    lr: NotNegative = 0.0
    """Learning rate of the head; 0 for optimizer.lr."""
    layer_decay: float = 1.0
    """What the rate is multiplied by from each block of the network to the one before it."""
    norms: Literal["kept", "learnt"] = "kept"
    """Whether batch norms that learn keep the means and deviations that the network came with, on
    which all its weights rely, or learn those of these images too."""
    views: Annotated[int, Field(ge=1)] = 1
    """Versions of each image that features are computed of where the head trains alone: one is
    the image as it is, and each further one is mirrored, shifted, coloured and enlarged."""

    def _conditions(self) -> Iterator[Condition]:
        words = "'head', 'all', or such as 'last 3 blocks' and 'last 30 layers'"
        known = re.fullmatch(r"head|all|last [1-9]\d* (block|layer)s?", self.trains)
        yield "trains", known, words
        decays = self.trains != "head" and 0 < self.layer_decay < 1
        words = "above 0 and at most 1, and 1 where the head trains alone"
        yield "layer_decay", self.layer_decay == 1 or decays, words
        one = self.views == 1 or self.trains == "head"
        yield "views", one, "1, or more where trains is 'head'"


class EvaluationOptions(Options):
    """How a trained network looks at an image."""

    views: Literal["one", "mirror", "six"] = "one"
    """As it is; or with its mirror image; or both of them also shifted by a pixel each way."""
    views_below: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Images of which one view is surer than this are not looked at again."""
    training_mode: bool = False
    """Say beside the accuracy what it is as in training: with dropout, and batch norm on the
    statistics of each batch. Some published results were measured so."""

    def _conditions(self) -> Iterator[Condition]:
        one = self.views == "one" or not self.training_mode
        yield "training_mode", one, "false unless evaluation.views is 'one'"


class Recipe(Options):
    """Everything that decides what a run does. Equal recipes and seeds give equal weights.

    >>> Recipe(seed=3, training=TrainingOptions(epochs=2))
    Recipe(seed=3, training=TrainingOptions(epochs=2))
    """

    name: str = "custom"
    """Name of the folder that its runs lie in; that of the file unless given."""
    description: str = ""
    """What it is, in a few words."""
    seed: Count = 0
    """Seed of the weights, the order, the augmentation and everything else that is random."""
    data: DataOptions = DataOptions()
    model: PartOptions = Field(default_factory=lambda: _part_of("model", {}))
    augmentation: AugmentationOptions = AugmentationOptions()
    optimizer: PartOptions = Field(default_factory=lambda: _part_of("optimizer", {}))
    schedule: PartOptions = Field(default_factory=lambda: _part_of("schedule", {}))
    loss: PartOptions = Field(default_factory=lambda: _part_of("loss", {}))
    training: TrainingOptions = TrainingOptions()
    distillation: DistillationOptions = DistillationOptions()
    stages: tuple[StageOptions, ...] = ()
    """Parts of the training of a pretrained network, one after the other; none trains all of it."""
    evaluation: EvaluationOptions = EvaluationOptions()

    @property
    def parts(self) -> tuple[PartOptions, ...]:
        """Every part that it names."""
        return (*(getattr(self, table) for table in KINDS), *self.augmentation.also)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values; `recipe_from_dict` reads them back."""
        return self.model_dump(mode="json", serialize_as_any=True)

    @field_validator(*KINDS, mode="before")
    @classmethod
    def _names_a_part(cls, value: Any, info: ValidationInfo) -> PartOptions:
        return _part_of(str(info.field_name), value)

    def _conditions(self) -> Iterator[Condition]:
        """Which fields of different tables go together."""
        # `runs/<name>` must be a folder on every platform.
        is_folder = self.name.isprintable() and self.name.strip(" .")
        free = not set(self.name) & set('/\\:*?"<>|')
        yield "name", is_folder and free, "the name that a folder may have"
        model, training, stages = self.model, self.training, self.stages
        is_pretrained = model.name == "pretrained"
        words = "another than 'pretrained' unless model.name is 'pretrained'"
        yield "data.normalisation", is_pretrained or self.data.normalisation != "pretrained", words
        words = "[] (--set stages=[]) unless model.name is 'pretrained'"
        yield "stages", is_pretrained or not stages, words
        if stages:
            words = "empty where there are stages"
            yield "training.milestones", not training.milestones, words
            yield "distillation.teacher", not self.distillation.teacher, words
        if stages and all(stage.trains == "head" for stage in stages):
            words = "off where the head trains alone, on features that are computed before"
            for name in ("cutout", "random_erasing", "mixup", "cutmix", "also"):
                yield f"augmentation.{name}", not getattr(self.augmentation, name), words
        has_rate = "lr" in type(self.optimizer).model_fields
        yield "optimizer.name", has_rate, "an optimiser with the option lr, its learning rate"
        has_norms = model.part.muon and getattr(model, "norm", "batch") != "none"
        words = "another than muon, which is for convolutions that a norm follows"
        yield "optimizer.name", has_norms or self.optimizer.name != "muon", words
        if model.name == "speedrun":
            seen = (size - model.whitening_size + 1 for size in training.sizes)
            words = "sizes that the model can halve as often as it has widths"
            yield "training.sizes", all(size >> len(model.widths) for size in seen), words
        words = f"empty with the model {model.name}, which takes images of one size"
        yield "training.sizes", model.part.any_size or not training.sizes, words
        no_smoothing = self.loss.name == "cross_entropy" or not training.label_smoothing
        yield "training.label_smoothing", no_smoothing, "0 unless loss.name is 'cross_entropy'"
        if training.milestones:
            yield from self._conditions_of_milestones()

    def _conditions_of_milestones(self) -> Iterator[Condition]:
        training, first = self.training, self.training.milestones[0]
        within = (0, *training.milestones, training.epochs + 1)
        words = f"rising numbers from 1 to training.epochs, which is {training.epochs}"
        yield "training.milestones", all(a < b for a, b in itertools.pairwise(within)), words
        holds = self.schedule.name == "constant" and self.schedule.warmup_epochs <= first
        words = (
            "empty unless schedule.name is 'constant', with no warm-up after the first milestone, "
            "and early_stopping and the time limit are 0, since only then is a milestone the same "
            "as a run of its own"
        )
        none = training.early_stopping == training.time_limit_seconds == 0
        yield "training.milestones", holds and none, words


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe's TOML file, by which editors complete and check."""
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema |= Recipe.model_json_schema()
    own = {"properties": {"name": {"type": "string", "pattern": f"^({OWN})$"}}}
    schema["$defs"]["PartOptions"] = {"type": "object", **own, "required": ["name"]}
    for table, kind in KINDS.items():
        parts = []
        for name in SHIPPED[kind]:
            part = find_part(kind, name).options.model_json_schema()
            schema["$defs"] |= part.pop("$defs", {})
            if name != DEFAULTS[table]:
                part["required"] = ["name"]
            parts.append(part)
        schema["properties"][table] = {"anyOf": [*parts, {"$ref": "#/$defs/PartOptions"}]}
    return schema
