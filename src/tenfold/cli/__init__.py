"""The `tenfold` command: thin commands over the library, which each imports only when it runs."""

from tenfold.cli.app import main

__all__ = ["main"]
