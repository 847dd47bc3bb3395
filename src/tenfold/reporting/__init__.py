"""What a person sees of runs: figures and one self-contained HTML page."""
