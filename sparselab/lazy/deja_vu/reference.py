"""Deja Vu's neuron predictor in NumPy: the definition."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sparselab.topk.exact import reference as exact

__all__ = ["logits", "loss", "gradients", "select", "ffn", "agreement", "weights_read"]


class Params(NamedTuple):
    """One layer's predictor: two linear maps through rank r, no bias, nothing between them."""

    down: Float[np.ndarray, "d r"]
    up: Float[np.ndarray, "r m"]


class Agreement(NamedTuple):
    """How well a selection meets the neurons that are active, counted over all tokens together."""

    recall: Float[np.ndarray, ""]
    """Share of the active neurons that were selected."""
    precision: Float[np.ndarray, ""]
    """Share of the selected neurons that are active."""
    weighted_recall: Float[np.ndarray, ""]
    """Share of the sum of |a| that was selected."""


def logits(params: Params, x: Float[np.ndarray, "t d"]) -> Float[np.ndarray, "t m"]:
    """x down up; sigmoid(logits) is the predicted chance that neuron i is active on the token.

    Raises ValueError where the widths do not match.
    """
    if (x.shape[1], params.down.shape[1]) != (len(params.down), len(params.up)):
        raise ValueError(f"x {x.shape}, down {params.down.shape} and up {params.up.shape} do not chain")
    return x @ params.down @ params.up


def loss(params: Params, x: Float[np.ndarray, "t d"], a: Float[np.ndarray, "t m"]) -> Float[np.ndarray, ""]:
    """Mean binary cross-entropy against the labels a > 0, a zero weighted by the active share + 0.005.

        w [y = 0] softplus(z) + [y = 1] softplus(-z),   w = mean(y) + 0.005

    so that the few ones are not drowned. Raises ValueError where shapes do not match.
    """
    z, y, weight = _labelled(params, x, a)
    return np.asarray((weight * (np.logaddexp(0, z) - y * z)).mean())


def gradients(params: Params, x: Float[np.ndarray, "t d"], a: Float[np.ndarray, "t m"]) -> Params:
    """d loss / d params: the error weight (sigmoid(z) - y) / (t m), back through the two maps.

    Raises ValueError as `loss` does.
    """
    z, y, weight = _labelled(params, x, a)
    error = weight * (np.exp(-np.logaddexp(0, -z)) - y) / z.size
    return Params(down=x.T @ error @ params.up.T, up=(x @ params.down).T @ error)


def select(params: Params, x: Float[np.ndarray, "t d"], *, keep: int) -> Bool[np.ndarray, "t m"]:
    """True for the `keep` neurons of largest logit of each token; of equals the lowest index.

    The number is fixed, whatever the chances: memory and time per token are known in advance. Raises
    ValueError as `logits` does, and where keep lies outside 0..m.
    """
    return exact.mask(logits(params, x), k=keep)


def ffn(
    params: Params,
    x: Float[np.ndarray, "t d"],
    K: Float[np.ndarray, "d m"],
    V: Float[np.ndarray, "d m"],
    *,
    keep: int,
) -> Float[np.ndarray, "t d"]:
    """V relu(K^T x) over the selected neurons only: neither K nor V is read at the others.

    Raises ValueError as `select` does, and where the layer's widths do not match.
    """
    if not (x.shape[1], params.up.shape[1]) == K.shape == V.shape:
        raise ValueError(f"K {K.shape} and V {V.shape} must be {(x.shape[1], params.up.shape[1])}")
    chosen = select(params, x, keep=keep)
    return np.stack([V[:, s] @ np.maximum(K[:, s].T @ row, 0) for row, s in zip(x, chosen, strict=True)])


def agreement(selected: Bool[np.ndarray, "t m"], a: Float[np.ndarray, "t m"]) -> Agreement:
    """Recall, precision and activation-weighted recall of a selection of neurons.

    Raises ValueError where shapes differ, nothing is active or nothing selected.
    """
    if selected.shape != a.shape:
        raise ValueError(f"selected {selected.shape} and a {a.shape} must both be (t, m)")
    active = a > 0
    if not (active.any() and selected.any()):
        raise ValueError(f"{active.sum()} active and {selected.sum()} selected neurons: nothing to compare")
    hits = (active & selected).sum()
    return Agreement(
        recall=np.asarray(hits / active.sum()),
        precision=np.asarray(hits / selected.sum()),
        weighted_recall=np.asarray(np.abs(a[selected]).sum() / np.abs(a).sum()),
    )


def weights_read(params: Params, *, keep: int) -> Float[np.ndarray, ""]:
    """Weights read per token, predictor included, as a share of those of the dense layer (K and V).

        (r (d + m) + 2 d keep) / (2 d m)

    The bound on the layer's speed-up is 1 over this share. Raises ValueError where keep lies outside 0..m.
    """
    (d, r), m = params.down.shape, params.up.shape[1]
    if not 0 <= keep <= m:
        raise ValueError(f"keep={keep} must lie in 0..{m}, the neurons")
    return np.asarray((r * (d + m) + 2 * d * keep) / (2 * d * m))


def _labelled(params, x, a):
    """Logits, labels, and the weight of each entry."""
    z = logits(params, x)
    if z.shape != a.shape:
        raise ValueError(f"a {a.shape} must have the shape {z.shape} of the predictions")
    y = a > 0
    return z, y, np.where(y, 1, y.mean() + 0.005)
