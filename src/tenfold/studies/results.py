"""The log of a study: one line a trial, on the disk before the next trial starts."""

import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

from tenfold.errors import TenfoldError
from tenfold.files import write_bytes


class Record(TypedDict):
    """How a trial ended.

    run: its run folder, seen from the study's folder. error: why it failed. splits: the accuracy on
    each split that was evaluated, as `{"test": {"accuracy": 0.75}}`; empty where it failed. reused:
    the run folder that it was taken over from, None where it was trained here.
    """

    trial: str
    overrides: list[str]
    seed: int
    run: str
    status: Literal["finished", "failed"]
    error: str | None
    splits: dict[str, dict[str, float]]
    training_seconds: float | None
    reused: NotRequired[str | None]


class Log(NamedTuple):
    """The records of a log in their order, and the number of bytes of a torn line after them."""

    records: list[Record]
    num_torn_bytes: int


def append_record(path: Path, record: Record) -> None:
    """Add a line to the log at `path`, and return when it is on the disk.

    Raises TenfoldError where that can't be done, such as on a full disk.
    """
    try:
        with open(path, "ab") as file:
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise TenfoldError(
            f"{path} can't be written ({error.strerror}); mend that and run the same command "
            "again, which goes on from here."
        ) from error


def read_log(path: Path) -> Log:
    """The log at `path`, empty where there is none.

    A last line without its end, or that is no record, counts as torn. Raises TenfoldError where
    another line is no record, which no crash can bring about.
    """
    lines = []
    if path.exists():
        with open(path, "rb") as file:
            lines = file.readlines()
    records: list[Record] = []
    for number, line in enumerate(lines, start=1):
        record = _parse(line)
        if record is not None:
            records.append(record)
        elif number == len(lines):
            return Log(records, len(line))
        else:
            raise TenfoldError(
                f"{path}, line {number}, is not the record of a trial; remove that line and run "
                "the same command again."
            )
    return Log(records, 0)


def drop_torn_line(path: Path, log: Log) -> None:
    """Cut a torn line off the log at `path`, atomically."""
    content = path.read_bytes()
    write_bytes(path, content[: len(content) - log.num_torn_bytes])


def _parse(line: bytes) -> Record | None:
    try:
        value: Any = json.loads(line)
    except ValueError:
        return None
    is_whole = line.endswith(b"\n") and isinstance(value, dict)
    if not is_whole or not set(value) >= Record.__required_keys__:
        return None
    record: Record = {"reused": None, **value}  # type: ignore[typeddict-item]
    return record
