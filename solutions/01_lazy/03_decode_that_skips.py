"""Solutions of lesson 1.3, decode that skips."""

import numpy as np
from jaxtyping import Bool, Float, Int

from sparselab.lazy.deja_vu.reference import Params


def bytes_read(
    kept: Bool[np.ndarray, "t m"], *, width: int, each: int = 2
) -> Int[np.ndarray, " t"]:
    """One matrix whole, two by the neurons that are kept."""
    if min(width, each) < 1:
        raise ValueError(f"width={width} and each={each} must be at least 1")
    neurons = kept.shape[1] + 2 * kept.sum(axis=1)
    return each * width * neurons


def gemv(
    w: Float[np.ndarray, "o i"],
    x: Float[np.ndarray, " i"],
    cut: Float[np.ndarray, ""],
) -> Float[np.ndarray, " o"]:
    """Choose first, read afterwards."""
    if w.shape[1] != len(x):
        raise ValueError(f"w has {w.shape[1]} inputs, x has {len(x)}")
    survives = np.abs(x) > cut
    return w[:, survives] @ x[survives]


def calibrate(
    x: Float[np.ndarray, "*b"], *, sparsity: float, bins: int = 10_000
) -> Float[np.ndarray, ""]:
    """F read off backwards, between two centres."""
    if not x.size or not 0 <= sparsity <= 1 or bins < 3:
        raise ValueError(f"{x.size} activations, sparsity={sparsity}, bins={bins}")
    if sparsity == 0:
        return np.asarray(0.0)
    tails = np.quantile(x, [0.01, 0.99])
    edges = np.concatenate([[x.min()], np.linspace(*tails, bins - 1), [x.max()]])
    centre = (edges[:-1] + edges[1:]) / 2
    below = np.histogram(x, edges)[0].cumsum()
    wanted = (0.5 + sparsity / 2) * x.size
    i = np.searchsorted(below, wanted)
    part = (wanted - below[i - 1]) / (below[i] - below[i - 1])
    return np.asarray(centre[i - 1] + part * (centre[i] - centre[i - 1]))


def weights_read(params: Params, *, keep: int) -> Float[np.ndarray, ""]:
    """The predictor whole, two columns for each predicted neuron."""
    (d, r), m = params.down.shape, params.up.shape[1]
    if not 0 <= keep <= m:
        raise ValueError(f"keep={keep} must lie in 0..{m}, the neurons")
    read = r * (d + m) + 2 * d * keep
    return np.asarray(read / (2 * d * m))
