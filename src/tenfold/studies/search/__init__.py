"""Search for a better recipe: `run_search`."""
