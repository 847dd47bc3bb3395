"""What a recipe's values must satisfy beyond their types."""

import itertools
import re
from typing import NamedTuple

from tenfold.recipe.schema import (
    AnnOptions,
    AugmentationOptions,
    CifarResnetOptions,
    CnnOptions,
    ConstantSchedule,
    DataOptions,
    EvaluationOptions,
    LenetOptions,
    ModelOptions,
    MuonOptions,
    OptimizerOptions,
    PretrainedOptions,
    PyramidOptions,
    Recipe,
    ResnetOptions,
    ScheduleOptions,
    SgdOptions,
    SpeedrunOptions,
    StageOptions,
    StepSchedule,
    TrainingOptions,
    TutorialCnnOptions,
)

STAGE_TRAINS = re.compile(r"head|all|last [1-9]\d* (block|layer)s?")


class Rule(NamedTuple):
    """A condition on the field at the dotted `path`, and what is expected there in words."""

    path: str
    holds: bool
    expected: str


def broken_rule(recipe: Recipe) -> Rule | None:
    """The first rule that `recipe` breaks, or None."""
    rules = [
        Rule("seed", recipe.seed >= 0, "0 or more"),
        Rule("name", _names_a_folder(recipe.name), "the name that a folder may have"),
        *_data_rules(recipe.data),
        *_model_rules(recipe.model),
        *_augmentation_rules(recipe.augmentation),
        *_optimizer_rules(recipe.optimizer),
        *_schedule_rules(recipe.schedule),
        *_training_rules(recipe.training),
        *_stage_rules(recipe),
        *_combination_rules(recipe),
        *_milestone_rules(recipe),
        *_evaluation_rules(recipe.evaluation),
    ]
    return next((rule for rule in rules if not rule.holds), None)


def _names_a_folder(name: str) -> bool:
    """Whether `runs/<name>` is a folder in `runs` on every platform."""
    return name.isprintable() and bool(name.strip(" .")) and not set(name) & set('/\\:*?"<>|')


def _data_rules(data: DataOptions) -> list[Rule]:
    return [
        Rule("data.name", bool(data.name), "the name or path of a data set"),
        Rule(
            "data.name",
            not re.search("[\0-\x1f]", data.name),
            "a name without control characters (in TOML, a Windows path goes into single quotes)",
        ),
        Rule("data.train_size", data.train_size >= 0, "0 or more"),
        Rule("data.validation_size", data.validation_size >= 0, "0 or more"),
        Rule("data.test_size", data.test_size > 0, "more than 0"),
        Rule("data.split_seed", data.split_seed >= 0, "0 or more"),
        Rule(
            "data.image_size",
            data.image_size == 0 or 8 <= data.image_size <= 1024,
            "0 or 8 to 1024",
        ),
        *_given_rules(data),
    ]


def _given_rules(data: DataOptions) -> list[Rule]:
    is_given = data.normalisation == "given"
    wanted = "{} where data.normalisation is 'given', and [] elsewhere"
    return [
        Rule(
            "data.mean",
            len(data.mean) == 3 * is_given and all(0 <= mean <= 1 for mean in data.mean),
            wanted.format("three numbers from 0 to 1"),
        ),
        Rule(
            "data.std",
            len(data.std) == 3 * is_given and all(std > 0 for std in data.std),
            wanted.format("three numbers above 0"),
        ),
    ]


def _model_rules(model: ModelOptions) -> list[Rule]:
    rules: list[Rule] = []
    for key in ("widths", "dense", "head"):
        if hasattr(model, key):
            positive = all(width > 0 for width in getattr(model, key))
            rules.append(Rule(f"model.{key}", positive, "a list of numbers above 0"))
    for key in ("first_width", "last_width"):
        if hasattr(model, key):
            rules.append(Rule(f"model.{key}", getattr(model, key) > 0, "more than 0"))
    if hasattr(model, "dropout"):
        rules.append(Rule("model.dropout", 0 <= model.dropout < 1, "from 0 to below 1"))
    if hasattr(model, "kernel_size"):
        odd = model.kernel_size % 2 == 1 and model.kernel_size > 0
        rules.append(Rule("model.kernel_size", odd, "odd"))
    if isinstance(model, CnnOptions):
        fits = 0 <= model.dropout_layers <= len(model.dense)
        rules.append(Rule("model.dropout_layers", fits, "from 0 to the length of model.dense"))
    if isinstance(model, CnnOptions | SpeedrunOptions):
        one = len(model.widths) > 0
        rules.append(Rule("model.widths", one, "a list with at least one number"))
    if isinstance(model, SpeedrunOptions):
        whitening = 1 <= model.whitening_size <= 8
        rules.append(Rule("model.whitening_size", whitening, "from 1 to 8"))
    return [*rules, *_depth_rules(model), *_pretrained_rules(model)]


def _depth_rules(model: ModelOptions) -> list[Rule]:
    if isinstance(model, PyramidOptions):
        return [Rule("model.depth", 1 <= model.depth <= 100, "from 1 to 100")]
    if isinstance(model, SpeedrunOptions):
        return [Rule("model.depth", 1 <= model.depth <= 20, "from 1 to 20")]
    if isinstance(model, ResnetOptions):
        return [Rule("model.depth", model.depth in (18, 34, 50), "18, 34 or 50")]
    if isinstance(model, CifarResnetOptions):
        fits = 8 <= model.depth <= 2000 and model.depth % 6 == 2
        return [Rule("model.depth", fits, "6 n + 2, such as 20, 32, 44, 56 or 110")]
    return []


def _pretrained_rules(model: ModelOptions) -> list[Rule]:
    if not isinstance(model, PretrainedOptions):
        return []
    fits = model.input_size == 0 or 16 <= model.input_size <= 1024
    return [
        Rule("model.backbone", bool(model.backbone), "the name of a network in timm"),
        Rule("model.weights", bool(model.weights), "'auto', 'none' or a path"),
        Rule("model.input_size", fits, "0 or 16 to 1024"),
    ]


def _augmentation_rules(a: AugmentationOptions) -> list[Rule]:
    strengths = ("brightness", "contrast", "saturation")
    return [
        Rule("augmentation.alternate", a.flip or not a.alternate, "false where flip is false"),
        Rule("augmentation.translate", a.translate >= 0, "0 or more"),
        Rule("augmentation.cutout", a.cutout >= 0, "0 or more"),
        Rule("augmentation.zoom", 0 <= a.zoom < 1, "from 0 to below 1"),
        *[Rule(f"augmentation.{s}", 0 <= getattr(a, s) <= 1, "from 0 to 1") for s in strengths],
        Rule("augmentation.hue", 0 <= a.hue <= 0.5, "from 0 to 0.5"),
        Rule("augmentation.randaugment_ops", 0 <= a.randaugment_ops <= 10, "from 0 to 10"),
        Rule(
            "augmentation.randaugment_magnitude", 0 <= a.randaugment_magnitude <= 30, "from 0 to 30"
        ),
        Rule(
            "augmentation.trivialaugment",
            not (a.trivialaugment and a.randaugment_ops),
            "false where randaugment_ops is above 0",
        ),
        Rule("augmentation.random_erasing", 0 <= a.random_erasing <= 1, "from 0 to 1"),
        Rule("augmentation.mixup", a.mixup >= 0, "0 or more"),
        Rule("augmentation.cutmix", a.cutmix >= 0, "0 or more"),
    ]


def _optimizer_rules(optimizer: OptimizerOptions) -> list[Rule]:
    rules: list[Rule] = [
        Rule("optimizer.lr", optimizer.lr > 0, "more than 0"),
        Rule("optimizer.weight_decay", optimizer.weight_decay >= 0, "0 or more"),
    ]
    if isinstance(optimizer, MuonOptions):
        return [*rules, *_muon_rules(optimizer)]
    if isinstance(optimizer, SgdOptions):
        rules.append(Rule("optimizer.momentum", 0 <= optimizer.momentum < 1, "from 0 to below 1"))
        nesterov = not optimizer.nesterov or optimizer.momentum > 0
        rules.append(Rule("optimizer.nesterov", nesterov, "false where momentum is 0"))
    else:
        betas = len(optimizer.betas) == 2 and all(0 <= b < 1 for b in optimizer.betas)
        rules.append(Rule("optimizer.betas", betas, "two numbers from 0 to below 1"))
    return rules


def _muon_rules(optimizer: MuonOptions) -> list[Rule]:
    return [
        Rule("optimizer.momentum", 0 <= optimizer.momentum < 1, "from 0 to below 1"),
        Rule("optimizer.sgd_momentum", 0 <= optimizer.sgd_momentum < 1, "from 0 to below 1"),
        Rule("optimizer.head_lr", optimizer.head_lr > 0, "more than 0"),
        Rule("optimizer.bias_lr", optimizer.bias_lr > 0, "more than 0"),
        Rule("optimizer.iterations", 1 <= optimizer.iterations <= 20, "from 1 to 20"),
    ]


def _schedule_rules(schedule: ScheduleOptions) -> list[Rule]:
    bounds = {
        "warmup_epochs": (0.0, float("inf")),
        "factor": (0.0, 1.0),
        "final": (0.0, 1.0),
        "initial": (0.0, 1.0),
        "peak": (0.0, 1.0),
        "patience": (0.0, float("inf")),
    }
    rules: list[Rule] = []
    for key, (low, high) in bounds.items():
        if hasattr(schedule, key):
            within = low <= getattr(schedule, key) <= high
            expected = "0 or more" if high == float("inf") else "from 0 to 1"
            rules.append(Rule(f"schedule.{key}", within, expected))
    if isinstance(schedule, StepSchedule):
        rules.append(Rule("schedule.every_epochs", schedule.every_epochs > 0, "more than 0"))
        rising = all(a < b for a, b in itertools.pairwise((0, *schedule.cuts)))
        rules.append(Rule("schedule.cuts", rising, "rising numbers above 0"))
    return rules


def _training_rules(training: TrainingOptions) -> list[Rule]:
    return [
        Rule("training.epochs", training.epochs >= 1, "1 or more"),
        Rule("training.min_steps", training.min_steps >= 0, "0 or more"),
        Rule("training.batch_size", 2 <= training.batch_size <= 10**6, "from 2 to 1,000,000"),
        Rule(
            "training.accumulate",
            1 <= training.accumulate <= training.batch_size // 2,
            "1 or more, and at most half the batch size",
        ),
        *_size_rules(training),
        Rule("training.select", 0 < training.select <= 1, "above 0 and at most 1"),
        *_share_rules("training.freeze_from", training.freeze_from),
        Rule("training.clip_norm", training.clip_norm >= 0, "0 or more"),
        Rule("training.label_smoothing", 0 <= training.label_smoothing < 1, "from 0 to below 1"),
        Rule("training.ema_decay", 0 <= training.ema_decay < 1, "from 0 to below 1"),
        Rule("training.early_stopping", training.early_stopping >= 0, "0 or more"),
        Rule("training.time_limit_seconds", training.time_limit_seconds >= 0, "0 or more"),
    ]


def _evaluation_rules(evaluation: EvaluationOptions) -> list[Rule]:
    within = 0 < evaluation.views_below <= 1
    plain = evaluation.views == "one" or not evaluation.training_mode
    return [
        Rule("evaluation.views_below", within, "above 0 and at most 1"),
        Rule("evaluation.training_mode", plain, "false unless evaluation.views is 'one'"),
    ]


def _size_rules(training: TrainingOptions) -> list[Rule]:
    sizes, until = training.sizes, training.sizes_until
    fits = all(8 <= size <= 1024 for size in sizes)
    return [
        Rule("training.sizes", fits, "a list of numbers from 8 to 1024"),
        Rule(
            "training.sizes_until",
            len(until) == len(sizes),
            f"as many numbers as training.sizes, which has {len(sizes)}",
        ),
        *_share_rules("training.sizes_until", until),
    ]


def _share_rules(path: str, shares: tuple[float, ...]) -> list[Rule]:
    ordered = list(shares) == sorted(shares) and all(0 <= share <= 1 for share in shares)
    return [Rule(path, ordered, "rising numbers from 0 to 1")]


_OF_FEATURES = "0 where the head trains alone, on features that are computed before"


def _stage_rules(recipe: Recipe) -> list[Rule]:
    stages, training = recipe.stages, recipe.training
    is_pretrained = isinstance(recipe.model, PretrainedOptions)
    rules = [
        Rule(
            "data.normalisation",
            is_pretrained or recipe.data.normalisation != "pretrained",
            "another than 'pretrained' unless model.name is 'pretrained'",
        ),
        Rule(
            "stages",
            is_pretrained or not stages,
            "[] (--set stages=[]) unless model.name is 'pretrained'",
        ),
        Rule(
            "training.milestones",
            not (stages and training.milestones),
            "empty where there are stages",
        ),
        Rule(
            "training.time_limit_seconds",
            not (stages and training.time_limit_seconds),
            "0 where there are stages",
        ),
    ]
    if stages and all(stage.trains == "head" for stage in stages):
        rules += [
            Rule(f"augmentation.{name}", not getattr(recipe.augmentation, name), _OF_FEATURES)
            for name in ("cutout", "random_erasing", "mixup", "cutmix")
        ]
    for number, stage in enumerate(stages):
        rules += _rules_of_stage(stage, f"stages[{number}]")
    return rules


def _rules_of_stage(stage: StageOptions, path: str) -> list[Rule]:
    known = STAGE_TRAINS.fullmatch(stage.trains) is not None
    parts = "'head', 'all', or such as 'last 3 blocks' and 'last 30 layers'"
    head = stage.trains == "head"
    decay = stage.layer_decay == 1 or (0 < stage.layer_decay < 1 and not head)
    views = stage.views == 1 or (stage.views > 1 and head)
    return [
        Rule(f"{path}.trains", known, parts),
        Rule(f"{path}.epochs", stage.epochs >= 0, "0 or more"),
        Rule(f"{path}.lr", stage.lr >= 0, "0 or more"),
        Rule(
            f"{path}.layer_decay", decay, "above 0 and at most 1, and 1 where the head trains alone"
        ),
        Rule(f"{path}.views", views, "1, or more where trains is 'head'"),
    ]


def _combination_rules(recipe: Recipe) -> list[Rule]:
    """What one section asks of another."""
    model, optimizer, sizes = recipe.model, recipe.optimizer, recipe.training.sizes
    has_norms = getattr(model, "norm", "batch") != "none"
    scale_free = has_norms and not isinstance(
        model, AnnOptions | LenetOptions | TutorialCnnOptions | PretrainedOptions
    )
    any_size = not isinstance(
        model, AnnOptions | CnnOptions | LenetOptions | TutorialCnnOptions | PretrainedOptions
    )
    return [
        Rule(
            "optimizer.name",
            scale_free or not isinstance(optimizer, MuonOptions),
            "another than muon, which is for convolutions that a norm follows",
        ),
        Rule(
            "training.sizes",
            not isinstance(model, SpeedrunOptions)
            or all((size - model.whitening_size + 1) >> len(model.widths) for size in sizes),
            "sizes that the model can halve as often as it has widths",
        ),
        Rule(
            "training.sizes",
            any_size or not sizes,
            f"empty with the model {model.name}, which takes pictures of one size",
        ),
    ]


def _milestone_rules(recipe: Recipe) -> list[Rule]:
    milestones, training = recipe.training.milestones, recipe.training
    if not milestones:
        return []
    ordered = list(milestones) == sorted(set(milestones))
    within = milestones[0] >= 1 and milestones[-1] <= training.epochs
    schedule = recipe.schedule
    constant = isinstance(schedule, ConstantSchedule) and schedule.warmup_epochs <= milestones[0]
    whole = training.early_stopping == 0 and training.time_limit_seconds == 0
    return [
        Rule(
            "training.milestones",
            ordered and within,
            f"rising numbers from 1 to training.epochs, which is {training.epochs}",
        ),
        Rule(
            "training.milestones",
            constant and whole,
            "empty unless schedule.name is 'constant', with no warm-up after the first milestone, "
            "and early_stopping and the time limit are 0, since only then is a milestone the same "
            "as a run of its own",
        ),
    ]
