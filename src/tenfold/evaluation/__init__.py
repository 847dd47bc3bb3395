"""What a trained model does on pictures that it has not seen. Knows nothing of the training."""

from tenfold.evaluation.metrics import compute_metrics, wilson_interval
from tenfold.evaluation.predictions import (
    Predictions,
    load_predictions,
    predict_images,
    save_predictions,
)
from tenfold.evaluation.trained import TrainedModel, load_model, save_model

__all__ = [
    "Predictions",
    "TrainedModel",
    "compute_metrics",
    "load_model",
    "load_predictions",
    "predict_images",
    "save_model",
    "save_predictions",
    "wilson_interval",
]
