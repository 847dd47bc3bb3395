"""Results of runs with no more in them than has to be, for tests."""

BARE_RESULT: dict[str, object] = {
    "model": {"name": "cnn", "num_parameters": 10},
    "training": {"epochs": 1, "steps": 1, "wall_seconds": 1.0},
    "splits": {},
    "test_uses": [],
}
"""The result of a run that was evaluated on nothing."""


def bare_metrics(accuracy: float) -> dict[str, object]:
    """Metrics of one class of a hundred images."""
    return {
        "num_images": 100,
        "accuracy": accuracy,
        "accuracy_interval": [0.0, 1.0],
        "loss": 1.0,
        "matthews_correlation": 0.0,
        "per_class": [],
        "confusion": [],
        "most_confused": [],
        "confidence": {"bin_edges": [], "right": [], "wrong": []},
    }
