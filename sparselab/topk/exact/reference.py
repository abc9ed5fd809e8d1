"""Exact top-k in NumPy: the definition."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["topk", "mask", "keep"]


class TopK(NamedTuple):
    """The k largest values of each row, falling, and where they stand."""

    values: Float[np.ndarray, "*b k"]
    top_idx: Int[np.ndarray, "*b k"]


def topk(x: Float[np.ndarray, "*b n"], *, k: int) -> TopK:
    """The k largest of each row by falling value; of equals the lowest index, NaN before every number.

    Raises ValueError where k lies outside 0..n. Source: Hoare, "Algorithm 65: Find", 1961.
    """
    _check(x.shape, k)
    top_idx = np.empty((*x.shape[:-1], k), np.int64)
    for row in np.ndindex(x.shape[:-1]):
        top_idx[row] = np.lexsort((-x[row], ~np.isnan(x[row])))[:k]
    return TopK(np.take_along_axis(x, top_idx, axis=-1), top_idx)


def mask(x: Float[np.ndarray, "*b n"], *, k: int) -> Bool[np.ndarray, "*b n"]:
    """True for the k entries of each row that `topk` names; ValueError as there."""
    kept = np.zeros(x.shape, bool)
    np.put_along_axis(kept, topk(x, k=k).top_idx, True, axis=-1)
    return kept


def keep(x: Float[np.ndarray, "*b n"], *, k: int) -> Float[np.ndarray, "*b n"]:
    """x with all but the k largest values of each row set to zero; ValueError as in `topk`."""
    return np.where(mask(x, k=k), x, 0)


def _check(shape: tuple[int, ...], k: int) -> None:
    if not 0 <= k <= shape[-1]:
        raise ValueError(f"k={k} must lie in 0..{shape[-1]}, the entries of a row")
