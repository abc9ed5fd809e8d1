"""Statistical top-k in NumPy: the definition."""

from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["threshold", "soft", "survivors"]


def threshold(
    x: Float[np.ndarray, "*b n"], *, k: int, mask: Bool[np.ndarray, "*b n"] | None = None
) -> Float[np.ndarray, "*b"]:
    """theta = mean + std Q(1 - k/n) over the n visible entries of each row (Spark Transformer).

    A row with at most k visible entries has theta = -inf: all of them survive. NaN or an infinity that is
    visible makes theta NaN. Raises ValueError unless 0 < k < the entries of a row.
    """
    visible, theta = _visible(x, k, mask), np.full(x.shape[:-1], -np.inf)
    for row in np.ndindex(x.shape[:-1]):
        seen = x[row][visible[row]]
        if len(seen) > k:
            theta[row] = _threshold(seen, k)
    return theta


def soft(
    x: Float[np.ndarray, "*b n"], *, k: int, mask: Bool[np.ndarray, "*b n"] | None = None
) -> Float[np.ndarray, "*b n"]:
    """max(x - theta, 0) on visible entries, 0 elsewhere (Spark Transformer).

    Raises ValueError unless 0 < k < the visible entries of every row; a row that sees nothing gives zeros.
    """
    visible, out = _visible(x, k, mask), np.zeros(x.shape)
    for row in np.ndindex(x.shape[:-1]):
        seen = x[row][visible[row]]
        if 0 < len(seen) <= k:
            raise ValueError(f"k={k} needs more visible entries than that in a row; one has {len(seen)}")
        if len(seen):
            out[row][visible[row]] = np.maximum(seen - _threshold(seen, k), 0)
    return out


def survivors(
    x: Float[np.ndarray, "*b n"],
    *,
    k: int,
    mask: Bool[np.ndarray, "*b n"] | None = None,
    keep_max: bool = False,
) -> Bool[np.ndarray, "*b n"]:
    """True where a visible entry exceeds theta.

    `keep_max` keeps the (first) maximum of a row even where nothing exceeds theta, as attention needs.
    ValueError as in `threshold`.
    """
    visible, theta = _visible(x, k, mask), threshold(x, k=k, mask=mask)
    kept = visible & (x > theta[..., None])
    for row in np.ndindex(x.shape[:-1]):
        if keep_max and visible[row].any():
            kept[row][np.where(visible[row], x[row], -np.inf).argmax()] = True
    return kept


def _threshold(seen: np.ndarray, k: int) -> float:
    """Moments of the differences from one entry: a constant row has std 0 exactly, its theta is its value."""
    with np.errstate(invalid="ignore"):
        apart = seen - seen[0]
        return seen[0] + apart.mean() + apart.std() * NormalDist().inv_cdf(1 - k / len(seen))


def _visible(x: np.ndarray, k: int, mask: np.ndarray | None) -> np.ndarray:
    if not 0 < k < x.shape[-1]:
        raise ValueError(f"k={k} must lie strictly between 0 and {x.shape[-1]}, the entries of a row")
    if mask is not None and mask.shape != x.shape:
        raise ValueError(f"mask has shape {mask.shape}, x has {x.shape}")
    return np.ones(x.shape, bool) if mask is None else mask
