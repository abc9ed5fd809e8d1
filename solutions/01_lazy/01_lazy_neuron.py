"""Solutions of lesson 1.1, the lazy neuron phenomenon."""

import numpy as np
from jaxtyping import Bool, Float, Int

from sparselab.lazy.lazy_neuron.reference import Stats


def nonzero_stats(a: Float[np.ndarray, "t m"], real: Bool[np.ndarray, " t"]) -> Stats:
    """Everything follows from one boolean array."""
    if len(real) != len(a) or not real.any():
        raise ValueError(
            f"{int(real.sum())} real tokens in {len(real)} flags for {len(a)} tokens"
        )
    active = a[real] > 0
    return Stats(
        density=active.mean(),
        per_token=active.sum(axis=1),
        firing_rate=active.mean(axis=0),
        dead=(~active.any(axis=0)).sum(),
    )


def overall(
    density: Float[np.ndarray, " l"], width: Int[np.ndarray, " l"]
) -> Float[np.ndarray, ""]:
    """A mean weighted by the widths."""
    if len(density) != len(width) or not width.any():
        raise ValueError(
            f"{len(density)} densities, {len(width)} widths, {width.sum()} neurons"
        )
    return (density * width).sum() / width.sum()


def mean_active_gradient(
    z: Float[np.ndarray, "t m"], V: Float[np.ndarray, "c m"], y: Int[np.ndarray, " t"]
) -> Float[np.ndarray, ""]:
    """softmax minus one-hot, carried back through V to the active units."""
    if z.shape[1] != V.shape[1] or len(y) != len(z):
        raise ValueError(
            f"z {z.shape}, V {V.shape} and y {y.shape} must be (t, m), (c, m) and (t,)"
        )
    if not (z > 0).any() or y.min() < 0 or y.max() >= len(V):
        raise ValueError(
            f"no active pair among {z.size}, or a label outside 0..{len(V) - 1}"
        )
    logits = np.maximum(z, 0) @ V.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = p - np.eye(len(V))[y]
    return (error @ V)[z > 0].mean()


def topk_ffn(
    x: Float[np.ndarray, "t d"],
    K: Float[np.ndarray, "d m"],
    V: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, "t d"]:
    """All activations, all but the k largest of a token zeroed, then V."""
    if K.shape != V.shape or not 0 <= k <= K.shape[1]:
        raise ValueError(
            f"K {K.shape} and V {V.shape} must agree, and k={k} lie in 0..{K.shape[1]}"
        )
    a = np.maximum(x @ K, 0)
    order = np.argsort(-a, axis=1, kind="stable")
    for token, neurons in enumerate(order):
        a[token, neurons[k:]] = 0
    return a @ V.T
