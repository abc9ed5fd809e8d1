"""Solutions of lesson 1.2, choose with the first half."""

import numpy as np
from jaxtyping import Bool, Float

from sparselab.lazy.spark.reference import gelu
from sparselab.lazy.spark.reference import select as selected
from sparselab.topk.statistical import reference as statistical


def ffn(
    q: Float[np.ndarray, "*b d"],
    K1: Float[np.ndarray, "r m"],
    K2: Float[np.ndarray, "e m"],
    V: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, "*b d"]:
    """The first part of q chooses, the other says what the chosen are worth."""
    r, m = K1.shape
    d = q.shape[-1]
    if K2.shape != (d - r, m) or V.shape != (d, m):
        raise ValueError(
            f"K1 {K1.shape}, K2 {K2.shape}, V {V.shape} do not fit q {q.shape}"
        )
    u = q[..., :r] @ K1
    active = gelu(statistical.soft(u, k=k))
    return (active * (q[..., r:] @ K2)) @ V.T


def flops(*, width: int, entries: int, r: int, k: int) -> int:
    """The predictor meets all entries, the rest meets those picked."""
    if not 0 <= r <= width or min(entries, k) < 1:
        raise ValueError(f"r={r} of {width}, k={k} of {entries}")
    picked = min(k, entries)
    return 2 * r * entries + 2 * (width - r) * picked + 2 * width * picked


def select(
    scores: Float[np.ndarray, "*b t s"], *, keep: int
) -> Bool[np.ndarray, "*b t s"]:
    """What exceeds the threshold of its row, and the maximum in any case."""
    t, s = scores.shape[-2:]
    if t > s or keep < 1:
        raise ValueError(f"{t} queries for {s} keys, keep={keep}")
    visible = np.broadcast_to(np.tri(t, s, s - t, dtype=bool), scores.shape)
    if keep >= s:
        return visible.copy()
    theta = statistical.threshold(scores, k=keep, mask=visible)
    kept = visible & (scores > theta[..., None])
    best = np.where(visible, scores, -np.inf).argmax(axis=-1)
    np.put_along_axis(kept, best[..., None], True, axis=-1)
    return kept


def attend(
    q: Float[np.ndarray, "b h t d"],
    k: Float[np.ndarray, "b g s d"],
    v: Float[np.ndarray, "b g s e"],
    *,
    keep: int,
    r: int,
    scale: float | None = None,
    value_scale: float | None = None,
) -> Float[np.ndarray, "b h t e"]:
    """Softmax over the selected keys, each weight times softplus of its other part."""
    (b, h, _, d), (_, g, s, _) = q.shape, k.shape
    if k.shape != (b, g, s, d) or v.shape[:3] != (b, g, s) or not 0 < r < d:
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} and r={r} do not fit")
    if not g or h % g:
        raise ValueError(f"{h} query heads cannot share {g} key heads evenly")
    k, v = np.repeat(k, h // g, axis=1), np.repeat(v, h // g, axis=1)
    scale = r**-0.5 if scale is None else scale
    value_scale = (d - r) ** -0.5 if value_scale is None else value_scale
    u = scale * q[..., :r] @ k[..., :r].mT
    w = value_scale * q[..., r:] @ k[..., r:].mT
    u = np.where(selected(u, keep=keep), u, -np.inf)
    p = np.exp(u - u.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return (p * np.logaddexp(0, w)) @ v
