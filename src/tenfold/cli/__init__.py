"""The `tenfold` command: thin commands over the library, which each imports only when it runs."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; errors become a sentence and an exit status."""
    try:
        from tenfold.cli.app import main as run
    except KeyboardInterrupt:  # So early that nothing was begun.
        sys.exit(130)
    run()
