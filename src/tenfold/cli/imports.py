"""Large libraries, imported in less time."""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Look for no garbage until the block ends, and never among what is there by then.

    Importing PyTorch and timm makes some hundred thousand objects that stay until the process ends,
    and Python looks through them again and again for some that don't: a fifth of four seconds. For
    a process of our own; somebody else's may have garbage to lose.
    """
    was_enabled = gc.isenabled()
    # Extension modules that are never freed complain of leaks when the process ends.
    atexit.register(gc.unfreeze)
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
