"""How long work tells somebody how far it has come, without knowing who looks."""

from typing import Protocol


class Progress(Protocol):
    """Called with what is being done, how much of it is done, and how much there is in all."""

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """`total` is None where it is not known; `done` equals it at the end."""
