"""CATS in NumPy: the definition."""

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["calibrate", "ffn", "bytes_read"]


def calibrate(
    a: Float[np.ndarray, "*b"], *, sparsity: float, bins: int = 10_000, limit: float = 2.0
) -> Float[np.ndarray, ""]:
    """The left edge of the first bin of |a| whose cumulative share exceeds `sparsity`.

    `bins` bins of equal width cover 0..limit, one more reaches from there to infinity. At most the wanted
    share of the sample lies below the cut, and more than it below the cut's next edge. Raises ValueError
    for an empty sample, unless 0 <= sparsity < 1, and unless bins and limit are positive. Source: CATS,
    section 4.1; the released code lays 20 000 edges over -2..2, the lower half of them where |a| never is.
    """
    if not a.size:
        raise ValueError("a sample of 0 activations has no cut")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity} must lie in 0..1, below 1: the share of entries to drop")
    if not min(bins, limit) > 0:
        raise ValueError(f"bins={bins} and limit={limit} must be positive")
    edges = np.arange(bins + 1) * limit / bins
    which = np.searchsorted(edges, np.abs(a).ravel(), side="right") - 1
    share = np.bincount(which).cumsum() / a.size
    return np.asarray(edges[np.argmax(share > sparsity)])


def ffn(
    x: Float[np.ndarray, "t d"],
    gate: Float[np.ndarray, "m d"],
    up: Float[np.ndarray, "m d"],
    down: Float[np.ndarray, "d m"],
    cut: Float[np.ndarray, ""],
) -> Float[np.ndarray, "t d"]:
    """The gated layer down ((a where |a| > cut, else 0) * (up x)), a = SiLU(gate x) (CATS, section 4.2).

    The gate is read whole, `up` and `down` at the surviving neurons of each token only. Raises ValueError
    where the widths do not match.
    """
    if not (x.shape[1] == gate.shape[1] and gate.shape == up.shape == down.T.shape):
        raise ValueError(
            f"x {x.shape}, gate {gate.shape}, up {up.shape} and down {down.shape} "
            "must be (t, d), (m, d), (m, d) and (d, m)"
        )
    out = np.zeros(x.shape)
    for t, token in enumerate(x):
        z = gate @ token
        a = z / (1 + np.exp(-z))
        for neuron in np.flatnonzero(np.abs(a) > cut):
            out[t] += a[neuron] * (up[neuron] @ token) * down[:, neuron]
    return out


def bytes_read(kept: Bool[np.ndarray, "t m"], *, width: int, each: int = 2) -> Int[np.ndarray, " t"]:
    """Bytes of weights that each token makes `ffn` read: `each` bytes a weight, width d (m + 2 kept) of them.

    Of the 3 d m of a dense layer that is the share 1/3 + 2p/3, p the share of neurons kept: never below a
    third, so never more than 3 times as fast. Raises ValueError unless width and each are positive.
    """
    if min(width, each) < 1:
        raise ValueError(f"width={width} and each={each} must be at least 1")
    return each * width * (kept.shape[1] + 2 * kept.sum(axis=1))
