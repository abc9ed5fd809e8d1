"""Wanda in NumPy: the definition."""

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["score", "mask", "row_mask"]


def score(w: Float[np.ndarray, "o i"], x: Float[np.ndarray, "t i"]) -> Float[np.ndarray, "o i"]:
    """Importance of each weight: |W[o, i]| ||x[:, i]||_2 (Wanda, equation 1).

    Raises ValueError where the columns of `w` and `x` do not match.
    """
    if w.shape[1] != x.shape[1]:
        raise ValueError(f"w has {w.shape[1]} inputs, x has {x.shape[1]}")
    return np.abs(w) * np.sqrt((x**2).sum(axis=0))


def mask(
    w: Float[np.ndarray, "o i"], x: Float[np.ndarray, "t i"], *, n: int, m: int
) -> Bool[np.ndarray, "o i"]:
    """True for the n best scores of every m consecutive inputs of a row; of equals the first is kept.

    Raises ValueError where m does not divide the inputs or n lies outside 0..m.
    """
    s, kept = score(w, x), np.zeros(w.shape, bool)
    if m < 1 or w.shape[1] % m:
        raise ValueError(f"groups of m={m} do not divide {w.shape[1]} inputs")
    if not 0 <= n <= m:
        raise ValueError(f"n={n} of m={m} cannot be kept; n must lie in 0..{m}")
    for o in range(w.shape[0]):
        for i in range(0, w.shape[1], m):
            kept[o, i + np.argsort(-s[o, i : i + m], kind="stable")[:n]] = True
    return kept


def row_mask(
    w: Float[np.ndarray, "o i"], x: Float[np.ndarray, "t i"], *, keep: int
) -> Bool[np.ndarray, "o i"]:
    """True for the `keep` best scores of each row; of equals the first is kept.

    Raises ValueError where keep lies outside 0..inputs.
    """
    s, kept = score(w, x), np.zeros(w.shape, bool)
    if not 0 <= keep <= w.shape[1]:
        raise ValueError(f"keep={keep} must lie in 0..{w.shape[1]}, the inputs of a row")
    for o in range(w.shape[0]):
        kept[o, np.argsort(-s[o], kind="stable")[:keep]] = True
    return kept
