"""The stages of a training: each a recipe of its own on the same network, part of which learns.

A recipe without stages has one, in which everything learns.
"""

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

from tenfold.augment import shrunk_size
from tenfold.data.splits import TrainingData
from tenfold.errors import InterruptedRunError, StoppedByUserError
from tenfold.evaluation.metrics import wilson_interval
from tenfold.evaluation.trained import TrainedModel
from tenfold.formatting import percent
from tenfold.interruption import Interruption
from tenfold.models import Pretrained, blocks_of, count_trained
from tenfold.progress import Progress
from tenfold.recipe import Recipe, StageOptions
from tenfold.training.batches import (
    TrainingImages,
    TrainingInputs,
    batch_sizes,
    num_selected,
    unseen_losses,
)
from tenfold.training.devices import expected_bytes, on_first_process
from tenfold.training.distillation import Teacher
from tenfold.training.distributed import Agreement, synchronise
from tenfold.training.feature_batches import TrainingFeatures, shared_features
from tenfold.training.flop import flop_of_image
from tenfold.training.optimizers import build_optimizer
from tenfold.training.reporters import Plan, Reporter, Reporters
from tenfold.training.schedules import StepTimes
from tenfold.training.set_up import (
    MovingAverage,
    build_model,
    compile_network,
    normalisation_for,
    prepared,
    require_enough,
    weights_of_classes,
)
from tenfold.training.state import EpochSums, History, Sums, TrainingState
from tenfold.training.validation import Note

FEWEST, GOOD_ENOUGH = 100, 0.99
"""Validation images, and the share of them that the head must classify correctly, to stop at it."""

logger = logging.getLogger("tenfold")


def stages_of(recipe: Recipe) -> tuple[StageOptions, ...]:
    """The stages of `recipe`, at least one."""
    return recipe.stages or (StageOptions(),)


class Stage:
    """A stage of a run, ready to be trained; `state` is all that changes from step to step.

    place: of the stage among the recipe's. previous: where the stage before it ended; without one
    the network is new. The others are as `trainer.fit` has them.

    recipe: of this stage, and whole the run's. follow: what learns in the stages after it. network:
    `learner`, the part of `state.model` that steps go through, wrapped for the processes and the
    precision. blocks: of the network, from its
    input on; the first num_frozen of them no longer learn. learning: the parameters that learn at
    first. size: side in pixels of the images of the present step.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        place: int = 0,
        *,
        accelerator: Accelerator,
        interruption: Interruption | None = None,
        save: Callable[[TrainingState], None] | None = None,
        milestone: Callable[[int, TrainedModel], None] | None = None,
        reporter: Reporter | None = None,
        predicted: Note | None = None,
        progress: Progress | None = None,
        previous: TrainingState | None = None,
    ) -> None:
        started = time.monotonic() - (previous.history.fit_seconds if previous else 0.0)
        self.whole, self.stage = recipe, stages_of(recipe)[place]
        self.follow = stages_of(recipe)[place + 1 :]
        self.recipe = recipe_of(recipe, self.stage)
        self.options, self.data = self.recipe.training, data
        self.accelerator, self.interruption = accelerator, interruption or Interruption()
        self._save, self._progress = save, progress
        self.milestone, self.predicted = milestone, predicted
        self.reporter = reporter if reporter and accelerator.is_main_process else Reporters()
        self.least = require_enough(self.recipe, data, accelerator.num_processes)
        self.num_images = num_selected(len(data.train), self.options.select)
        sizes = batch_sizes(self.num_images, self.options.batch_size, least=self.least)
        self.steps_per_epoch = len(sizes)
        # The stage's epochs, or as many more as its fewest steps take.
        self.num_epochs = max(self.options.epochs, -(-self.options.min_steps // len(sizes)))
        self.total_steps = self.steps_per_epoch * self.num_epochs
        self.normalisation = normalisation_for(self.recipe, data)
        self._build(previous)
        self.blocks, self.num_frozen, self.size = blocks_of(self.state.model), 0, 0
        self.learning = [p for p in self.state.model.parameters() if p.requires_grad]
        self._flop: dict[tuple[int, int], float | None] = {}
        balances, device = self.options.balance, accelerator.device
        self.class_weights = weights_of_classes(data, device) if balances else None
        self.teacher = None
        if self.recipe.distillation.teacher:
            self.teacher = Teacher(
                self.recipe.distillation,
                student=self.normalisation,
                class_names=data.train.class_names,
                device=device,
            )
        self.agreement = Agreement(
            accelerator, limit=self.options.time_limit_seconds, started=started
        )
        self.sums = EpochSums(self.state, self.recipe, accelerator)
        self.last_saved, self.last_checked = -math.inf, 0.0
        self.step_times = StepTimes()

    def _build(self, previous: TrainingState | None) -> None:
        """Network, inputs and optimiser, the same for a seed."""
        recipe, stage, accelerator = self.recipe, self.stage, self.accelerator
        images = TrainingImages(
            self.data.train,
            augmentation=recipe.augmentation,
            normalisation=self.normalisation,
            device=accelerator.device,
            seed=recipe.seed,
        )
        if previous is not None:
            model, history = previous.model, previous.history
        else:
            model, weights = build_model(recipe, self.data, images, accelerator.device)
            history = History(weights=weights, flop=0.0)
        learner: nn.Module = model
        self.inputs: TrainingInputs = images
        self.is_frozen = isinstance(model, Pretrained) and stage.trains == "head"
        if isinstance(model, Pretrained):
            model.open(stage.trains, norms=stage.norms)
            if self.is_frozen:
                learner, self.inputs = model.head, self._features(model, images)
        if self.options.sync_batch_norm and accelerator.num_processes > 1:
            synchronise(learner)
        optimizer = build_optimizer(model, recipe.optimizer, layer_decay=stage.layer_decay)
        decay = self.options.ema_decay
        average = MovingAverage(model, decay) if decay else None
        self.learner = learner
        self.network, optimizer = prepared(accelerator, learner, optimizer)
        self.state = TrainingState(model, optimizer, average, history=history)
        if self.options.select < 1:
            seen = previous.losses if previous is not None else None
            fresh = unseen_losses(len(self.data.train), device=accelerator.device)
            self.state.losses = fresh if seen is None else seen
        if self.options.compile and stage.trains != "head":
            self.network, seconds = compile_network(
                self.network,
                recipe,
                optimizer=getattr(optimizer, "optimizer", optimizer),  # Without Accelerate's.
                blocks=blocks_of(model),
                num_images=self.num_images,
                size=self.data.train.size,
                accelerator=accelerator,
            )
            history.compile_seconds += seconds

    def _features(self, model: Pretrained, images: TrainingImages) -> TrainingFeatures:
        """What the head sees of each image: of some versions, the first being the image itself."""
        data, accelerator, others = self.data, self.accelerator, range(self.stage.views - 1)
        features = partial(
            shared_features, model, normalisation=self.normalisation, accelerator=accelerator
        )

        def compute(progress: Progress) -> Tensor:
            found = [features(data.train.pixels, progress=progress)]
            found += [features(images.version(number), progress=progress) for number in others]
            if data.validation is not None:  # So that the first takes no longer than others.
                features(data.validation.pixels, progress=progress)
            return torch.stack(found)

        labels = torch.from_numpy(data.train.labels).to(accelerator.device)
        return TrainingFeatures(compute, labels, seed=self.recipe.seed)

    @property
    def history(self) -> History:
        """How far the run has come."""
        return self.state.history

    def trained(self) -> TrainedModel:
        """The model that the weights make which are validated."""
        train = self.data.train
        return TrainedModel(
            self.state.evaluated_model,
            self.whole,
            train.class_names,
            self.normalisation,
            train.size,
            window=self.data.window,
        )

    def restore(self, restore: Callable[[TrainingState], None]) -> None:
        """Bring the state to where a checkpoint has it."""
        compiled = self.history.compile_seconds
        restore(self.state)
        history = self.history
        if not self.options.early_stopping:  # It may have been switched off since.
            self.state.best, history.best_accuracy, history.best_epoch = None, -1.0, None
        history.compile_seconds += compiled
        self.agreement.started -= history.fit_seconds
        # Those of others too, where there were more processes when they were saved.
        if known := history.sums_by_process:
            first, step = self.accelerator.process_index, self.accelerator.num_processes
            history.sums = sum(known[first::step], Sums())

    def progress(self, label: str, done: int, total: int | None) -> None:
        """Of what takes minutes before a step, which a signal may end; one of several processes
        may be alone here."""
        if self.interruption.signal is not None:
            self.leave(save=self.agreement.is_alone)
        if self._progress is not None:
            self._progress(label, done, total)

    def count_features(self) -> None:
        """Add to the history's FLOP what the features of all images take, kept ones or not."""
        model = self.state.model
        if self.is_frozen and isinstance(model, Pretrained):
            side = model.preprocessing.side
            flop = flop_of_image(model.backbone, (3, side, side), learns=False)
            self._add_flop(flop, len(self.data.train) * self.stage.views)

    def count_step(self, num_images: int) -> None:
        """Add to the history's FLOP what a step with `num_images` of the present size takes."""
        key = (self.size, self.num_frozen)
        if key not in self._flop:
            shape: tuple[int, ...] = (3, *shrunk_size(self.data.train.size, self.size))
            if self.is_frozen and isinstance(self.state.model, Pretrained):
                shape = (self.state.model.num_features,)
            taught = self.teacher.flop if self.teacher is not None else 0.0
            flop = flop_of_image(self.learner, shape)
            self._flop[key] = None if flop is None or taught is None else flop + taught
        self._add_flop(self._flop[key], num_images)

    def _add_flop(self, flop: float | None, number: int) -> None:
        """So many for each of `number` images; where some are not known the sum isn't either."""
        known = self.history.flop
        self.history.flop = None if known is None or flop is None else known + number * flop

    def checkpoint(self) -> None:
        """Save the state; every process must call this at the same place."""
        self.sums.settle()
        self.last_saved = time.monotonic()
        history = self.history
        history.fit_seconds = time.monotonic() - self.agreement.started
        history.sums_by_process = gather_object([history.sums])
        if (save := self._save) is not None:
            on_first_process(self.accelerator, lambda: save(self.state))

    def leave_if_asked(self) -> None:
        """Leave if a signal came to one of the processes; all of them must ask."""
        if self.agreement.any(self.interruption.signal is not None):
            self.leave()

    def leave(self, *, save: bool = True) -> NoReturn:
        """Save, and say why training ends here."""
        if save:
            self.checkpoint()
        signal, history = self.interruption.signal, self.history
        place = "before the evaluation"
        if history.ended is None:
            place = f"in epoch {history.epoch + 1}, step {history.step}"
        rest = f"{place}; everything is saved, and the same command resumes it."
        if signal is not None and signal.name == "SIGINT":
            raise StoppedByUserError(f"Stopped {rest}")
        name = signal.name if signal is not None else "a signal to another process"
        raise InterruptedRunError(f"Interrupted by {name} {rest}")

    def finish(self) -> None:
        """Write down what the stage learned and how well; once, also where it is resumed."""
        for parameter in self.learning:  # Those that were frozen on the way have learned too.
            parameter.requires_grad_(True)
        history = self.history
        if len(history.stages) > history.stage:
            return
        reached = [m["validation_accuracy"] for m in history.metrics[history.first_epoch :]]
        best = history.best_epoch
        history.stages.append(
            {
                "trains": self.stage.trains,
                "epochs": history.stage_epoch,
                "num_trained": count_trained(self.state.model),
                "validation_accuracy": reached[-1] if best is None else history.best_accuracy,
            }
        )

    def is_last(self) -> bool:
        """Whether no stage follows, time is up, or more could show nothing, which is noted."""
        history = self.history
        if history.ended == "time limit" or not self.follow:
            return True
        if reason := why_stop(
            self.recipe,
            trains=self.stage.trains,
            accuracy=history.stages[-1]["validation_accuracy"],
            num_images=len(self.data.validation) if self.data.validation is not None else 0,
        ):
            if self.accelerator.is_main_process:
                logger.info("Training stops at the head: %s.", reason)
            nothing = {"epochs": 0, "num_trained": 0, "validation_accuracy": None}
            history.stages += [
                {"trains": stage.trains, **nothing, "skipped": reason} for stage in self.follow
            ]
        return bool(reason)

    def hand_over(self) -> None:
        """Give the network the weights that were best, and let the history go on."""
        self.take_best()
        if self.state.average is not None:
            self.state.model.load_state_dict(self.state.average.module.state_dict())
        self.history.begin_stage()
        self.accelerator.free_memory()

    def take_best(self) -> None:
        """The weights of the best epoch, where early stopping remembered them."""
        if self.state.best is not None:
            self.state.evaluated_model.load_state_dict(self.state.best)

    def plan(self) -> Plan:
        """What the reporter gets before the first step."""
        history, options, accelerator = self.history, self.options, self.accelerator
        model, memory = self.state.model, None
        if (
            isinstance(model, Pretrained)
            and not self.is_frozen
            and accelerator.device.type == "cpu"
        ):
            batch = min(options.batch_size, self.num_images)
            num_parts = accelerator.num_processes * options.accumulate
            memory = expected_bytes(model, num_images=-(-batch // num_parts))
        validation = self.data.validation
        return Plan(
            recipe=self.recipe.name,
            model=self.recipe.model.name,
            trains=self.stage.trains,
            num_parameters=count_trained(model),
            num_train=len(self.inputs),
            num_validation=len(validation) if validation is not None else 0,
            epochs=history.first_epoch + self.num_epochs,
            steps_per_epoch=self.steps_per_epoch,
            device=str(accelerator.device),
            threads=torch.get_num_threads(),
            processes=accelerator.num_processes,
            first_step=history.first_epoch * self.steps_per_epoch,
            is_last=not self.follow,
            resumed_step=history.epoch * self.steps_per_epoch + history.step,
            seconds_left=self.agreement.seconds_left,
            min_steps=options.min_steps if self.num_epochs > options.epochs else 0,
            memory_bytes=memory,
        )


def recipe_of(recipe: Recipe, stage: StageOptions) -> Recipe:
    """`recipe` with the epochs and the rate of `stage`."""
    training = recipe.training.but(epochs=stage.epochs or recipe.training.epochs)
    optimizer = recipe.optimizer.but(lr=stage.lr) if stage.lr else recipe.optimizer
    return recipe.but(training=training, optimizer=optimizer)


def why_stop(recipe: Recipe, *, trains: str, accuracy: float | None, num_images: int) -> str:
    """Why no stage need follow the one in which `trains` learned, or nothing where one should.

    accuracy: on `num_images` of validation. Where the interval of Wilson (1927) about a faultless
    network reaches down to it, no network can be shown to be better.
    """
    if not recipe.training.stop_at_head or trains != "head" or num_images < FEWEST:
        return ""
    least = max(GOOD_ENOUGH, wilson_interval(num_images, num_images).low)
    if accuracy is None or accuracy < least:
        return ""
    return (
        f"the head alone has an accuracy of {percent(accuracy, 2)} on {num_images:,} validation "
        "images, too many to show that more training helps (training.stop_at_head)"
    )
