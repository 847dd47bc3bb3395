"""What an epoch's weights are worth, on images that nothing was learned from."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from tenfold.data import Images
from tenfold.evaluation.metrics import cross_entropy
from tenfold.evaluation.predictions import Predictions, predict_images
from tenfold.evaluation.trained import TrainedModel
from tenfold.training.devices import on_first_process

Note = Callable[[Predictions], None]
"""Told of the predictions of the validation images."""

Values = dict[str, float | None]
"""Of an epoch's log; None where there are no images to validate on."""


def validate(
    model: TrainedModel,
    images: Images | None,
    accelerator: Accelerator,
    *,
    is_frozen: bool,
    note: Note | None = None,
) -> Values:
    """Loss and accuracy of `model`, of which each process computes its share.

    is_frozen: whether its head alone has changed since the features were computed. note: on the
    first process alone.
    """
    note = note if accelerator.is_main_process else None
    if images is None:
        return {"validation_loss": None, "validation_accuracy": None}
    if is_frozen:
        frozen = model.recipe.evaluation.views == "one"
        return on_first_process(
            accelerator, lambda: _values(predict_images(model, images, frozen=frozen), note)
        )
    if accelerator.num_processes == 1:
        return _values(predict_images(model, images), note)
    # The running statistics of batch norms differ between processes; the first one's count.
    for buffer in model.module.buffers():
        torch.distributed.broadcast(buffer, 0)
    bounds = np.linspace(0, len(images), accelerator.num_processes + 1).astype(np.int64)
    first, end = bounds[accelerator.process_index :][:2]
    parts: list[Any] = [None] * accelerator.num_processes
    own = predict_images(model, images.take(np.arange(first, end))) if end > first else None
    torch.distributed.all_gather_object(parts, own)
    found = [part for part in parts if part is not None]
    logits, labels, ids = (np.concatenate([part[k] for part in found]) for k in range(3))
    return _values(Predictions(logits, labels, ids, model.class_names), note)


def _values(predictions: Predictions, note: Note | None) -> Values:
    if note is not None:
        note(predictions)
    return {
        "validation_loss": cross_entropy(predictions),
        "validation_accuracy": float(predictions.right.mean()),
    }
