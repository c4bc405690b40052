"""Machine unlearning as a pipeline."""

__version__ = "0.1.0"
