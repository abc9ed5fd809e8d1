"""TEAL in NumPy: the definition."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

__all__ = ["calibrate", "sparsify", "gemv", "greedy"]


class Allocation(NamedTuple):
    """Sparsities of a block's projections, and the steps that led to them."""

    levels: Float[np.ndarray, " p"]
    """Sparsity of each projection."""
    raised: Int[np.ndarray, " s"]
    """The projection that each step raised."""
    error: Float[np.ndarray, " s"]
    """The block's error after each step."""


def calibrate(x: Float[np.ndarray, "*b"], *, sparsity: float, bins: int = 10_000) -> Float[np.ndarray, ""]:
    """The cut F^-1(0.5 + sparsity/2) that drops this share of a law symmetric about 0; no sparsity, no cut.

    F is read off a histogram of the sample: one bin from the minimum to its 1 % quantile, `bins - 2` of equal
    width to the 99 % quantile, one to the maximum. A cumulative count belongs to the centre of its bin, is
    linear in between and held at both ends, so a sparsity of 1 cuts at the last centre. Raises ValueError for
    an empty sample, a sparsity outside 0..1 and fewer than 3 bins. Source: the released utils.py.
    """
    if not x.size:
        raise ValueError("a sample of 0 activations has no cut")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} must lie in 0..1, the share of entries to drop")
    if bins < 3:
        raise ValueError(f"bins={bins} must be at least 3: one for each tail, one between them")
    if sparsity == 0:
        return np.asarray(0.0)
    tails = np.quantile(x, [0.01, 0.99])
    edges = np.concatenate([[x.min()], np.linspace(*tails, bins - 1), [x.max()]])
    centre = (edges[:-1] + edges[1:]) / 2
    below = np.histogram(x, edges)[0].cumsum()
    wanted = (0.5 + sparsity / 2) * x.size
    i = np.argmax(below >= wanted)  # never 0: the first bin holds at most half of any sample
    within = (wanted - below[i - 1]) / (below[i] - below[i - 1])
    return np.asarray(centre[i - 1] + within * (centre[i] - centre[i - 1]))


def sparsify(x: Float[np.ndarray, "*b i"], cut: Float[np.ndarray, ""]) -> Float[np.ndarray, "*b i"]:
    """x where |x| > cut, else 0 (TEAL, equation 1)."""
    return np.where(np.abs(x) > cut, x, 0)


def gemv(
    w: Float[np.ndarray, "o i"], x: Float[np.ndarray, " i"], cut: Float[np.ndarray, ""]
) -> Float[np.ndarray, " o"]:
    """W sparsify(x), reading only the columns of W whose input survives.

    Raises ValueError where the columns of `w` and the entries of `x` differ in number.
    """
    if w.shape[1] != len(x):
        raise ValueError(f"w has {w.shape[1]} inputs, x has {len(x)}")
    out = np.zeros(len(w))
    for i in np.flatnonzero(np.abs(x) > cut):
        out += w[:, i] * x[i]
    return out


def greedy(
    error: Callable[[Float[np.ndarray, " p"]], float],
    size: Float[np.ndarray, " p"],
    *,
    sparsity: float,
    step: float = 0.05,
) -> Allocation:
    """Raise one projection of a block at a time until its size-weighted mean sparsity reaches the target.

    `error(levels)` is the block's output error with projection p at sparsity levels[p], `size` the number of
    weights of each, in any unit. Every step drops the same number of weights, `step` units: it raises one
    level by step / size, at most to 1, and takes the projection whose raise leaves the least error; of equals
    the first. Raises ValueError unless 0 <= sparsity <= 1 and step and all sizes are positive. Source: TEAL,
    algorithm 1; the released code lets the last raise pass 1.
    """
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} must lie in 0..1, the mean share to drop")
    if not (len(size) and min(step, *size) > 0):
        raise ValueError(f"step={step} and the {len(size)} sizes must all be positive")
    levels, raised, errors = np.zeros(len(size)), [], []
    # Eight steps of 0.05 sum to a little less than 0.4.
    while size @ levels < (sparsity - 1e-9) * size.sum():
        best = None
        for p in np.flatnonzero(levels < 1):
            higher = levels.copy()
            higher[p] = min(levels[p] + step / size[p], 1.0)
            left = float(error(higher))
            if best is None or left < best[0]:
                best = left, p, higher
        left, p, levels = best
        raised.append(p)
        errors.append(left)
    return Allocation(levels, np.array(raised, dtype=np.int64), np.array(errors, dtype=np.float64))
