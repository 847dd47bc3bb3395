"""What can go wrong, as exceptions that carry their exit status.

Every message is one sentence that names the file or value and says what to do. The command line
prints it without a traceback; Python users catch `TenfoldError`.
"""

import importlib


class TenfoldError(Exception):
    """Something that the user can mend: wrong input, a missing file, a full disk."""

    exit_status = 2


def first_line(error: BaseException) -> str:
    """What an error says, without the trace of a library that some add, for a sentence of ours."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def sentence_of(error: BaseException) -> str:
    """What a command says of any error: in a sentence where it is one of files or of ours."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the disk."
    if isinstance(error, TenfoldError):
        return str(error)
    return f"{type(error).__name__}: {error}".removesuffix(": ")


def counted(number: int, noun: str) -> str:
    """A number with its noun, for sentences: `1 image`, `2,000 images`, `2 classes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def missing_extra(what: str, extra: str) -> TenfoldError:
    """The error where a package is not installed that the extra `extra` of tenfold brings.

    what: the beginning of the sentence, such as "Serving needs FastAPI and uvicorn".
    """
    return TenfoldError(f"{what}; in a clone of tenfold, {install_command(extra)} brings it.")


def require_packages(*names: str, what: str, extra: str) -> None:
    """Import the packages `names`. Raises `missing_extra` unless all of them can be."""
    try:
        for name in names:
            importlib.import_module(name)
    except ImportError:
        raise missing_extra(what, extra) from None


def install_command(extra: str) -> str:
    """The command that installs tenfold with what `extra` has."""
    return f"pip install '.[{extra}]'"


class HeldError(TenfoldError):
    """Another process writes in the folder."""


class UnwritableError(TenfoldError):
    """A file can't be written, such as on a full disk."""


class OutOfMemoryError(TenfoldError):
    """Memory ran out in training."""


class DivergedError(TenfoldError):
    """A loss or gradient that is not finite; the last good state is kept."""

    exit_status = 3


class InterruptedRunError(TenfoldError):
    """A signal ended the run after its state was saved; running the command again resumes it."""

    exit_status = 75


class StoppedByUserError(InterruptedRunError):
    """Ctrl-C, after the state was saved."""

    exit_status = 130
