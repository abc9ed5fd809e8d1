"""Solutions of lesson 1.0, selecting k of n."""

from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float


def mask(x: Float[np.ndarray, "*b n"], *, k: int) -> Bool[np.ndarray, "*b n"]:
    """True for the k largest values of each row."""
    if not x.shape or not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} must lie in 0..n for x of shape {x.shape}")
    kept = np.zeros(x.shape, bool)
    order = np.lexsort((-x, ~np.isnan(x)), axis=-1)  # NaN first, then by falling value
    np.put_along_axis(kept, order[..., :k], True, axis=-1)
    return kept


def calibrate(x: Float[np.ndarray, "*b n"], *, k: int) -> Float[np.ndarray, ""]:
    """The (k r)-th largest value of a sample of r rows."""
    if not x.shape or not 1 <= k <= x.shape[-1] or not x.size:
        raise ValueError(f"k={k} must lie in 1..n for a sample of shape {x.shape}")
    rows = x.size // x.shape[-1]
    return np.sort(x, axis=None)[x.size - k * rows]


def threshold(
    x: Float[np.ndarray, "*b n"],
    *,
    k: int,
    mask: Bool[np.ndarray, "*b n"] | None = None,
) -> Float[np.ndarray, "*b"]:
    """theta = mean + std Q(1 - k/n) over the visible entries of each row."""
    visible = np.ones(x.shape, bool) if mask is None else mask
    if not x.shape or not 0 < k < x.shape[-1] or visible.shape != x.shape:
        raise ValueError(f"0 < k={k} < n for x {x.shape} and a mask {visible.shape}")
    theta = np.full(x.shape[:-1], -np.inf)
    for row in np.ndindex(theta.shape):
        seen = x[row][visible[row]]
        if len(seen) > k:
            z = NormalDist().inv_cdf(1 - k / len(seen))
            theta[row] = seen.mean() + seen.std() * z
    return theta


def unfair_row(n: int, k: int) -> Float[np.ndarray, " n"]:
    """One outlier inflates the spread: nothing else reaches the threshold."""
    row = np.linspace(0, 1, n)
    row[0] = 1000 * n
    return row
