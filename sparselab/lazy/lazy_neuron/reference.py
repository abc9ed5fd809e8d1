"""The lazy neuron phenomenon in NumPy: how it is measured, and the Top-k layer."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["nonzero_stats", "overall", "topk_relu", "topk_ffn", "gather_ffn", "mean_active_gradient"]


class Stats(NamedTuple):
    """How lazy one layer is on a sample of tokens."""

    density: Float[np.ndarray, ""]
    """Share of active (token, neuron) pairs."""
    per_token: Int[np.ndarray, " r"]
    """Active neurons of each real token."""
    firing_rate: Float[np.ndarray, " m"]
    """Share of real tokens on which each neuron is active."""
    dead: Int[np.ndarray, ""]
    """Neurons that are never active on this sample."""


def nonzero_stats(a: Float[np.ndarray, "t m"], real: Bool[np.ndarray, " t"]) -> Stats:
    """Count a > 0 over the tokens that are not padding (section 2.1 of the paper).

    Raises ValueError where the masks' length is not t or no token is real.
    """
    if len(real) != len(a):
        raise ValueError(f"{len(real)} padding flags for {len(a)} tokens")
    if not real.any():
        raise ValueError(f"all {len(real)} tokens are padding: nothing to measure")
    active = a[real] > 0
    return Stats(
        density=np.asarray(active.mean()),
        per_token=active.sum(axis=1),
        firing_rate=active.mean(axis=0),
        dead=np.asarray((~active.any(axis=0)).sum()),
    )


def overall(density: Float[np.ndarray, " l"], width: Int[np.ndarray, " l"]) -> Float[np.ndarray, ""]:
    """Active share of a whole model: the layers' shares, each weighted by its number of neurons.

    Raises ValueError where the two lists differ in length or no layer has a neuron.
    """
    if len(density) != len(width):
        raise ValueError(f"{len(density)} densities for {len(width)} widths")
    if not width.any():
        raise ValueError(f"all {len(width)} widths are 0: no neuron to average over")
    return np.asarray((density * width).sum() / width.sum())


def topk_relu(z: Float[np.ndarray, "*b m"], *, k: int) -> Float[np.ndarray, "*b m"]:
    """Top_k(relu(z)): the k largest positive entries of each row, all else 0; of equals the first stays.

    A row with fewer than k positive entries keeps fewer. Raises ValueError where k lies outside 0..m.
    """
    if not 0 <= k <= z.shape[-1]:
        raise ValueError(f"k={k} must lie in 0..{z.shape[-1]}, the number of neurons")
    a = np.maximum(z, 0)
    kept = np.argsort(-a, axis=-1, kind="stable")[..., :k]
    out = np.zeros_like(a)
    np.put_along_axis(out, kept, np.take_along_axis(a, kept, axis=-1), axis=-1)
    return out


def topk_ffn(
    x: Float[np.ndarray, "t d"], K: Float[np.ndarray, "d m"], V: Float[np.ndarray, "d m"], *, k: int
) -> Float[np.ndarray, "t d"]:
    """f(x) = V Top_k(relu(K^T x)), token by token (section 4 of the paper).

    Raises ValueError where the widths do not match or k lies outside 0..m.
    """
    _check_widths(x, K, V)
    return topk_relu(x @ K, k=k) @ V.T


def gather_ffn(
    x: Float[np.ndarray, "t d"], K: Float[np.ndarray, "d m"], V: Float[np.ndarray, "d m"]
) -> Float[np.ndarray, "t d"]:
    """The dense layer V relu(K^T x) with V read at the active neurons only: the zero terms are left out.

    Raises ValueError where the widths do not match.
    """
    _check_widths(x, K, V)
    a, out = np.maximum(x @ K, 0), np.zeros(x.shape)
    for t, row in enumerate(a):
        for neuron in np.flatnonzero(row):
            out[t] += row[neuron] * V[:, neuron]
    return out


def mean_active_gradient(
    z: Float[np.ndarray, "t m"], V: Float[np.ndarray, "c m"], y: Int[np.ndarray, " t"]
) -> Float[np.ndarray, ""]:
    """Mean of dL/dz over the active (token, neuron) pairs, L the cross-entropy of the logits V relu(z).

    dL/dz_i = <v_i, softmax(V relu(z)) - onehot(y)> where z_i > 0: positive on average for random V, so
    descent lowers active units (section 3 of the paper). Raises ValueError where nothing is active,
    shapes differ or a label is not a class.
    """
    if z.shape[1] != V.shape[1] or len(y) != len(z):
        raise ValueError(f"z {z.shape}, V {V.shape} and y {y.shape} must be (t, m), (c, m) and (t,)")
    active = z > 0
    if not active.any():
        raise ValueError(f"none of the {z.size} units is active: no mean to take")
    if not (y.min() >= 0 and y.max() < len(V)):
        raise ValueError(f"labels {y.min()}..{y.max()} must lie in 0..{len(V) - 1}")
    logits = np.maximum(z, 0) @ V.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    error = p - np.eye(len(V))[y]
    return np.asarray((error @ V)[active].mean())


def _check_widths(x: np.ndarray, K: np.ndarray, V: np.ndarray) -> None:
    if x.shape[1] != len(K) or K.shape != V.shape:
        raise ValueError(f"x {x.shape}, K {K.shape} and V {V.shape} must be (t, d), (d, m) and (d, m)")
