"""Pruning: weights that are removed, N of every M or wherever they matter least."""
