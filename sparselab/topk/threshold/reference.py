"""Threshold selection in NumPy: the definition."""

import numpy as np
from jaxtyping import Float

__all__ = ["kth", "calibrate", "keep"]


def kth(x: Float[np.ndarray, "*b n"], *, k: int) -> Float[np.ndarray, "*b"]:
    """The k-th largest value of each row; NaN ranks above every number.

    Raises ValueError where k lies outside 1..n.
    """
    _check(x.shape, k)
    return np.sort(x, axis=-1)[..., x.shape[-1] - k]


def calibrate(x: Float[np.ndarray, "*b n"], *, k: int) -> Float[np.ndarray, ""]:
    """The cut that keeps k per row on average over this sample: the (k r)-th largest value of its r rows.

    What equals the cut is kept too, so ties at the cut keep more. Raises ValueError where k lies outside 1..n
    or the sample has no row. Source: TEAL, which reads the same quantile of |x| off a histogram.
    """
    _check(x.shape, k)
    if not x.size:
        raise ValueError("a sample of 0 rows has no cut")
    return kth(x.ravel(), k=k * (x.size // x.shape[-1]))


def keep(x: Float[np.ndarray, "*b n"], cut: Float[np.ndarray, "*c"]) -> Float[np.ndarray, "*b n"]:
    """x where x >= cut, else 0; `cut` is one number for all rows, or one per row.

    An entry equal to the cut is kept; NaN reaches no cut. Raises ValueError where the cut has neither shape.
    """
    if cut.shape not in ((), x.shape[:-1]):
        raise ValueError(f"cut has shape {cut.shape}; x {x.shape} takes one number or {x.shape[:-1]}")
    return np.where(x >= cut[..., None], x, 0)


def _check(shape: tuple[int, ...], k: int) -> None:
    if not 1 <= k <= shape[-1]:
        raise ValueError(f"k={k} must lie in 1..{shape[-1]}, the entries of a row")
