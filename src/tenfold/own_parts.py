"""The code of somebody's own parts: a file or a module by name, and whether it may be imported.

Code that this user has named in a recipe is imported, and that which came with a run only if it is
the same, or `--trust-code` says so.
"""

import contextlib
import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from platformdirs import user_state_path

from tenfold.validation import nearest, unusable

OWN = r".*\.py:\w+|\w+(\.\w+)*:\w+"
"""The form of a name of somebody's own part."""

TRUST_CODE = "TENFOLD_TRUST_CODE"
"""The variable of the environment that `--trust-code` sets."""

_RUN_FOLDER: ContextVar[Path | None] = ContextVar("run_folder", default=None)
"""Of the run whose recipe is being read."""
_RECIPE_FOLDER: ContextVar[Path | None] = ContextVar("recipe_folder", default=None)


def is_own(name: str) -> bool:
    """Whether `name` has the form of somebody's own part, `my.py:net` or `package.module:net`."""
    return re.fullmatch(OWN, name) is not None


def call_of(name: str) -> tuple[Callable[..., Any], Path | None]:
    """What `name` means, and the file that it is in, if that is named.

    Raises PydanticCustomError where there is nothing of that name, and where code would have to be
    imported that isn't trusted.
    """
    place, _, function = name.rpartition(":")
    run, folder, path = _RUN_FOLDER.get(), _RECIPE_FOLDER.get(), None
    if place.endswith(".py"):
        path = Path(place)
        if folder is not None and not path.is_file():
            path = folder / path
        if run is not None and (kept := run / "code" / path.name).is_file():
            path = kept
        if not path.is_file():
            raise unusable(name, f"there is no file {path}")
    key = place if path is None else sum_of(path)
    if run is not None and not os.environ.get(TRUST_CODE) and key not in _trusted():
        raise unusable(
            name,
            f"its code came with {run} and would be run; read it first, and then give --trust-code",
        )
    module = _module(place) if path is None else _loaded(path.resolve(), key)
    call = getattr(module, function, None)
    if not callable(call):
        callables = [key for key, each in vars(module).items() if callable(each)]
        raise unusable(name, f"{place} has no function {function!r}{nearest(function, callables)}")
    if run is None:
        _trust(key)
    return call, path


@cache
def _loaded(path: Path, _: str) -> ModuleType:
    """The module that the file at `path` is, imported anew when it has changed."""
    name = f"tenfold_part_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # So that its classes can be pickled.
    try:
        with _beside(path.parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise unusable(path.name, f"{path} raises {type(error).__name__}: {error}") from error
    return module


def _module(place: str) -> ModuleType:
    try:
        with _beside(Path.cwd()):
            return importlib.import_module(place)
    except ImportError as error:
        said = f"{place} can't be imported ({error}); install it, or check its name"
        raise unusable(place, said) from error


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[None]:
    """With modules that lie in `folder` importable."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def _set(variable: ContextVar[Path | None], folder: Path) -> Iterator[None]:
    token = variable.set(folder)
    try:
        yield
    finally:
        variable.reset(token)


def recipe_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Within this, files of parts may be named as seen from `folder`."""
    return _set(_RECIPE_FOLDER, folder)


def code_of_run(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Within this, files of parts are those that the run in `folder` keeps, and only code that
    this user has named in a recipe before is imported."""
    return _set(_RUN_FOLDER, folder)


def sum_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _trusted() -> set[str]:
    try:
        return set(_trust_file().read_text(encoding="utf-8").split())
    except OSError:
        return set()


def _trust(key: str) -> None:
    """Remember that this user named a part with this code: a file's sum or a module's name."""
    if key in _trusted():
        return
    with contextlib.suppress(OSError):  # A home that can't be written: --trust-code will do.
        _trust_file().parent.mkdir(parents=True, exist_ok=True)
        with _trust_file().open("a", encoding="utf-8") as file:
            file.write(f"{key}\n")


def _trust_file() -> Path:
    return user_state_path("tenfold") / "trusted-code"
