"""Where what was fetched or decoded is kept."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """TENFOLD_CACHE, or the folder where this system keeps what can be fetched again."""
    named = os.environ.get("TENFOLD_CACHE")
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("tenfold", appauthor=False))
