"""Sparsity in neural networks: a course and a package."""

__version__ = "0.1.0"
