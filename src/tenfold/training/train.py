"""From a recipe to a finished run folder: choose or resume it, fit, evaluate, write it down."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median_high
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator

from tenfold.data import Dataset, Images
from tenfold.data.images import class_gaps
from tenfold.data.leaks import check_leaks
from tenfold.data.sources import is_known
from tenfold.data.splits import TrainingData, training_data
from tenfold.errors import TenfoldError
from tenfold.evaluation import calibration
from tenfold.evaluation.evaluate import (
    keep_sums,
    score_images,
    score_milestones,
    split_of,
    splitting,
    use_of,
)
from tenfold.evaluation.loading import load_data
from tenfold.evaluation.predictions import load_predictions
from tenfold.evaluation.trained import save_model
from tenfold.files import write_bytes
from tenfold.interruption import leaving_at_once
from tenfold.models import count_parameters
from tenfold.progress import Progress
from tenfold.recipe import Recipe
from tenfold.recipe.own_code import write_recipe
from tenfold.results.runs import (
    DataFacts,
    Network,
    Provenance,
    Result,
    Session,
    Stage,
    Training,
    Unfitted,
    read_provenance,
)
from tenfold.results.runs import Fitted as Calibrated
from tenfold.run import (
    RunFolder,
    command_line,
    describe_environment,
    now,
    peak_memory_bytes,
)
from tenfold.training.checkpoint import Resumer, identity_of
from tenfold.training.devices import (
    instruction_set,
    make_accelerator,
    on_first_process,
    precision_of,
)
from tenfold.training.distillation import checksum_of, leaks_of
from tenfold.training.distributed import ending_together
from tenfold.training.process import prepare_process
from tenfold.training.progress_log import ProgressLog
from tenfold.training.reporters import Reporter, Reporters
from tenfold.training.run_folders import take_folder
from tenfold.training.state import History, TrainingState
from tenfold.training.trackers import TrackerReporter, require_trackers
from tenfold.training.trainer import Fitted, fit

logger = logging.getLogger("tenfold")


@dataclass(frozen=True)
class TrainOptions:
    """What is not in a recipe because it changes where and how, not what, is trained.

    runs: the folder of all runs. folder: train in this run folder, or resume it. resume: go on
    with the recipe's newest run even if something changed, or fail saying what. new: start afresh
    even if an unfinished run could be resumed. allow_changes: resume although recipe, threads or
    data changed. threads: for torch; None takes what the environment says. cpu: ignore GPUs.
    strict: fail where an image is in two splits. skip_broken: leave out images that can't be
    read. track: trackers that get the curves too. evaluate_test: open the test split at the end.
    notes: what a reader of the report must know besides what the data set says.

    >>> from tenfold import train
    >>> options = TrainOptions(folder=Path("mine"), evaluate_test=False)
    >>> quick = {"epochs": 1, "training__min_steps": 0, "progress": False}
    >>> list(train("ann", data="digits", options=options, **quick).metrics)
    ['validation']
    """

    runs: Path = Path("runs")
    folder: Path | None = None
    resume: bool = False
    new: bool = False
    allow_changes: bool = False
    threads: int | None = None
    cpu: bool = False
    strict: bool = False
    skip_broken: bool = False
    track: tuple[str, ...] = ()
    evaluate_test: bool = True
    notes: tuple[str, ...] = ()


class Trained(NamedTuple):
    """A finished run, and whether this process is the one that wrote it."""

    run: RunFolder
    writes: bool


def train(
    recipe: Recipe,
    *,
    options: TrainOptions | None = None,
    dataset: Dataset | None = None,
    reporter: Reporter | None = None,
    began: Callable[[RunFolder], None] | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Train `recipe` to the end in a run folder, evaluate it there, and return the folder.

    A run that was interrupted is resumed where it stopped, with the same bits as if nothing had
    happened. dataset: what `recipe.data` names, where it is loaded already. began: told of the run
    folder, on the process that writes, before anything is read. Under a launcher (torchrun,
    accelerate, srun) every process calls this.

    Raises TenfoldError and its kinds as `fit` does; whatever was saved before stays.
    """
    options = options or TrainOptions()
    require_trackers(options.track)
    started = time.monotonic(), time.process_time()
    prepare_process(options.threads)
    accelerator = make_accelerator(recipe, cpu=options.cpu)
    writes = accelerator.is_main_process
    progress = progress if writes else None
    with ending_together(accelerator), contextlib.ExitStack() as stack:
        stack.enter_context(leaving_at_once())
        run = _taken(recipe, options, accelerator, stack)
        if began and writes:
            began(run)
        if dataset is None:
            dataset = load_data(recipe, skip_broken=options.skip_broken, progress=progress)
        data = training_data(dataset, **splitting(recipe.data))
        test = _test_images(dataset, recipe) if writes else None
        identity, allow = identity_of(recipe, data, accelerator), options.allow_changes
        resumer = Resumer(run, identity, accelerator, allow_changes=allow, started=started)
        log, trackers = ProgressLog(run, data.validation), options.track if writes else ()
        reporters = [*filter(None, [reporter]), log, *_trackers(trackers, run, recipe, stack)]

        def restore(state: TrainingState) -> None:
            resumer.restore(state)
            write = partial(_describe_run, run, recipe, data, test, accelerator, options)
            on_first_process(accelerator, lambda: write(state.history))

        fitted = fit(
            recipe,
            data,
            accelerator=accelerator,
            restore=restore,
            save=resumer.save,
            milestone=lambda epoch, model: save_model(run.milestone(epoch), model),
            reporter=Reporters(reporters),
            predicted=log.predicted,
            progress=progress,
            first_stage=resumer.stage,
        )
        if writes:
            _finish(run, fitted, data, test if options.evaluate_test else None, progress=progress)
    accelerator.end_training()
    return Trained(run, writes)


def _taken(
    recipe: Recipe, options: TrainOptions, accelerator: Accelerator, stack: contextlib.ExitStack
) -> RunFolder:
    """The run folder, held until `stack` ends, with as many threads as it is trained with."""
    run = RunFolder(on_first_process(accelerator, lambda: take_folder(recipe, options, stack).path))
    prepare_process(_threads(run, options))
    return run


def _trackers(
    names: tuple[str, ...], run: RunFolder, recipe: Recipe, stack: contextlib.ExitStack
) -> Iterator[TrackerReporter]:
    """Trackers of those names, which end with `stack`."""
    for name in names:
        tracker = TrackerReporter(name, run.path, recipe)
        stack.callback(tracker.close)
        yield tracker


def _threads(run: RunFolder, options: TrainOptions) -> int | None:
    """The threads asked for; else, when resuming and the environment is silent, those of before."""
    if options.threads is not None or "OMP_NUM_THREADS" in os.environ:
        return options.threads
    with contextlib.suppress(TenfoldError):
        return read_provenance(run.provenance).threads
    return None


def _test_images(dataset: Dataset, recipe: Recipe) -> Images | None:
    try:
        return split_of(dataset, "test", recipe.data)
    except TenfoldError as error:
        logger.warning("%s", error)
        return None


def _describe_run(
    run: RunFolder,
    recipe: Recipe,
    data: TrainingData,
    test: Images | None,
    accelerator: Accelerator,
    options: TrainOptions,
    history: History,
) -> None:
    """Write recipe and provenance; the latter lists every session that worked on the run."""
    resumed_at_step = history.step + (history.metrics[-1]["step"] if history.metrics else 0)
    sessions = read_provenance(run.provenance).sessions
    parts = {"train": data.train, "validation": data.validation, "test": test}
    splits = {name: images for name, images in parts.items() if images is not None}
    leaks = check_leaks(splits, strict=options.strict)
    gaps = [note for split, note in class_gaps(splits).items() if split != "validation"]
    gaps += leaks_of(recipe.distillation, splits)
    for note in dict.fromkeys([*data.notes, *gaps]):
        logger.log(logging.WARNING if note in gaps else logging.INFO, "%s", note)
    session = Session(started=now(), command=command_line(), resumed_at_step=resumed_at_step)
    keep_sums(run, data.train, goes_on=resumed_at_step > 0)
    if recipe.data.corrections:
        write_bytes(run.corrections, Path(recipe.data.corrections).read_bytes())
    location = None if is_known(recipe.data.name) else Path(recipe.data.name)
    code = write_recipe(recipe, run.recipe)
    Provenance(
        **describe_environment(),
        code=code,
        teacher=checksum_of(recipe.distillation),
        device=str(accelerator.device),
        arithmetic=precision_of(accelerator),
        matmul_precision=torch.get_float32_matmul_precision(),
        instructions=instruction_set(),
        processes=accelerator.num_processes,
        threads=torch.get_num_threads(),
        seed=recipe.seed,
        data=DataFacts(
            name=data.dataset_name,
            location=str(location.resolve()) if location else None,
            source=data.source,
            checksums=dict(data.checksums),
            corrections=data.corrections or None,
            notes=tuple(dict.fromkeys([*options.notes, *data.notes, *gaps, *leaks])),
            class_names=data.train.class_names,
            image_size=data.train.size,
            splits={name: len(images) for name, images in splits.items()},
            class_counts={
                name: tuple(np.bincount(images.labels, minlength=images.num_classes).tolist())
                for name, images in splits.items()
            },
        ),
        sessions=(*sessions, session),
    ).write(run.provenance)


def _finish(
    run: RunFolder,
    fitted: Fitted,
    data: TrainingData,
    test: Images | None,
    *,
    progress: Progress | None,
) -> None:
    """Save the weights, evaluate them, and write the result, whose presence ends the run."""
    history = fitted.history
    save_model(run.model, fitted.model)
    result = Result(
        model=Network(
            name=fitted.model.recipe.model.name,
            num_parameters=count_parameters(fitted.model.module),
            weights=history.weights,
        ),
        training=Training(
            epochs=history.epoch,
            steps=history.metrics[-1]["step"],
            flop=history.flop,
            training_seconds=history.training_seconds,
            compile_seconds=history.compile_seconds,
            wall_seconds=history.wall_seconds,
            process_seconds=history.process_seconds,
            images_per_second=median_high(
                t["images_per_second"] for t in history.timings[history.first_epoch :]
            ),
            peak_memory_bytes=peak_memory_bytes(),
            ended=history.ended or "finished",
            best_epoch=history.best_epoch,
            stages=tuple(Stage(**stage) for stage in history.stages),
        ),
        splits={},
        test_uses=(),
    )
    for split, images in (("validation", data.validation), ("test", test)):
        if images is not None and len(images):
            metrics = score_images(run, fitted.model, images, split=split, progress=progress)
            use = use_of(split, metrics.accuracy, purpose="after training")
            result = result.with_metrics(metrics, use)
    if "validation" in result.splits:
        validation = load_predictions(run.predictions("validation"))
        found: Calibrated | Unfitted
        try:
            found = calibration.fit(validation)
        except TenfoldError as error:  # As with few images, or with all of them right.
            found = Unfitted(unfitted=str(error))
        result = result.model_copy(update={"calibration": found})
    milestones = fitted.model.recipe.training.milestones
    parts = {"validation": data.validation, "test": test}
    reached = [epoch for epoch in milestones if epoch <= history.epoch]
    score_milestones(run, result, parts, epochs=reached, progress=progress).write(run.result)
