"""Reading the Python batches of CIFAR, which are pickles, without running what they ask for."""

import io
import pickle
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from tenfold.errors import TenfoldError


class _Latin1Encode:
    """Stands in for codecs.encode, by which Python 3 writes bytes into old pickles."""

    __slots__ = ()  # a pickle can't set anything on it

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"it asks for the text encoding {encoding!r}")
        return text.encode("latin1")


class _EmptyArray:
    """Stands in for numpy's array factory; the pickle's own state fills the array."""

    __slots__ = ()

    def __call__(self, kind: object, shape: object, typecode: object) -> NDArray[Any]:
        if kind is not np.ndarray:
            raise pickle.UnpicklingError("it asks for an unusual kind of array")
        return np.ndarray.__new__(np.ndarray, (0,), "b")


class _ArrayFromBuffer:
    """Stands in for the factory that pickle protocol 5 uses."""

    __slots__ = ()

    def __call__(self, buffer: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
        array: NDArray[Any] = np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)
        return array


_ADMITTED: dict[tuple[str, str], Any] = {("_codecs", "encode"): _Latin1Encode()}
for _package in ("numpy.core", "numpy._core"):
    _ADMITTED[f"{_package}.multiarray", "_reconstruct"] = _EmptyArray()
    _ADMITTED[f"{_package}.numeric", "_frombuffer"] = _ArrayFromBuffer()
_ADMITTED["numpy", "ndarray"] = np.ndarray
_ADMITTED["numpy", "dtype"] = np.dtype


class _BatchUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None

    def persistent_load(self, pid: Any) -> NoReturn:
        raise pickle.UnpicklingError("it asks for something outside itself")


def unpickle_batch(content: bytes, where: str) -> dict[str, Any]:
    """The dictionary in a batch, its keys as text. Raises TenfoldError for any other content."""
    file = io.BytesIO(content)
    try:
        value = _BatchUnpickler(file, encoding="bytes").load()
    except MemoryError as error:
        raise TenfoldError(f"{where} claims more data than fits into memory.") from error
    except Exception as error:  # what a damaged pickle raises has no bounds
        raise TenfoldError(
            f"{where} can't be read as a CIFAR batch ({error}, at byte {file.tell():,} of "
            f"{len(content):,}); nothing in it was run: get it from the official archive."
        ) from error
    if not isinstance(value, dict):
        raise TenfoldError(f"{where} holds a {type(value).__name__}, not a CIFAR batch.")
    return {as_text(key): item for key, item in value.items()}


def as_text(value: object) -> str:
    """Text that Python 2 wrote as bytes, or a value's own text."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else str(value)
