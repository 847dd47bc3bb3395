"""tenfold: train, compare, explain, tune and ship classifiers of small images."""

__version__ = "0.1.0"
