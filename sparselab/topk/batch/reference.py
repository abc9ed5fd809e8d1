"""BatchTopK in NumPy: the definition."""

import numpy as np
from jaxtyping import Bool, Float

from sparselab.topk.exact import reference as exact

__all__ = ["keep", "above", "update"]


def keep(
    x: Float[np.ndarray, "*b n"], *, k: int, mask: Bool[np.ndarray, "*b"] | None = None
) -> Float[np.ndarray, "*b n"]:
    """ReLU(x) at the k B largest positive values of the batch, 0 elsewhere (BatchTopK).

    B counts the tokens that the mask shows; hidden ones do not compete. Of equal values the first in the
    batch wins; fewer than k B positive values are all kept. Raises ValueError where k lies outside 0..n.
    """
    visible = _visible(x, k, mask)
    values = np.where(visible[..., None], np.maximum(x, 0), 0).ravel()
    top_idx = exact.topk(values, k=k * int(visible.sum())).top_idx
    out = np.zeros(values.shape)
    out[top_idx] = values[top_idx]
    return out.reshape(x.shape)


def above(x: Float[np.ndarray, "*b n"], cut: Float[np.ndarray, ""]) -> Float[np.ndarray, "*b n"]:
    """ReLU(x) where it is greater than the cut, else 0: the choice at inference, token by token.

    A cut of NaN, before the first update, keeps nothing.
    """
    positive = np.maximum(x, 0)
    return np.where(positive > cut, positive, 0)


def update(
    cut: Float[np.ndarray, ""],
    x: Float[np.ndarray, "*b n"],
    *,
    k: int,
    rate: float,
    mask: Bool[np.ndarray, "*b"] | None = None,
) -> Float[np.ndarray, ""]:
    """The cut after one more batch: cut + rate (smallest value kept - cut), a running mean.

    The first value replaces a cut of NaN; a batch without a positive value leaves the cut as it is. Raises
    ValueError as `keep`, and where rate lies outside 0 < rate <= 1.
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate} must be more than 0 and at most 1")
    kept = keep(x, k=k, mask=mask)
    if not (kept > 0).any():
        return cut.copy()
    smallest = kept[kept > 0].min()
    return np.array(smallest if np.isnan(cut) else cut + rate * (smallest - cut))


def _visible(x: np.ndarray, k: int, mask: np.ndarray | None) -> np.ndarray:
    if not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} must lie in 0..{x.shape[-1]}, the entries of a token")
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(f"mask has shape {mask.shape}, the tokens of x {x.shape[:-1]}")
    return np.ones(x.shape[:-1], bool) if mask is None else mask
