"""The Spark Transformer in NumPy: the definition."""

import math

import numpy as np
from jaxtyping import Bool, Float

from sparselab.topk.statistical import reference as statistical

__all__ = ["hidden", "ffn", "decode", "gate_ffn", "flops", "rotary_halves", "select", "attend", "attend_one"]


def hidden(
    q: Float[np.ndarray, "*b d"], K1: Float[np.ndarray, "r m"], K2: Float[np.ndarray, "e m"], *, k: int
) -> Float[np.ndarray, "*b m"]:
    """gelu(soft(K1^T q[:r])) * (K2^T q[r:]), soft being statistical top-k; about k of m entries are not zero.

    Raises ValueError unless d = r + e and 0 < k < m. Source: Spark Transformer, section 3.1.
    """
    _check_keys(q, K1, K2)
    r = len(K1)
    return gelu(statistical.soft(q[..., :r] @ K1, k=k)) * (q[..., r:] @ K2)


def ffn(
    q: Float[np.ndarray, "*b d"],
    K1: Float[np.ndarray, "r m"],
    K2: Float[np.ndarray, "e m"],
    V: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, "*b d"]:
    """V hidden(q): the layer as it is trained, all products dense.

    Raises ValueError as `hidden` and unless V is (d, m). Source: Spark Transformer, section 3.1.
    """
    _check_keys(q, K1, K2)
    _check_values(q, K1, V)
    return hidden(q, K1, K2, k=k) @ V.T


def decode(
    q: Float[np.ndarray, " d"],
    K1: Float[np.ndarray, "r m"],
    K2: Float[np.ndarray, "e m"],
    V: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, " d"]:
    """`ffn` of one token, with K2 and V read at the active neurons only; ValueError as there."""
    _check_keys(q, K1, K2)
    _check_values(q, K1, V)
    r, out = len(K1), np.zeros(len(V))
    active = gelu(statistical.soft(q[:r] @ K1, k=k))
    for neuron in np.flatnonzero(active):
        out += active[neuron] * (q[r:] @ K2[:, neuron]) * V[:, neuron]
    return out


def gate_ffn(
    x: Float[np.ndarray, "*b d"],
    gate: Float[np.ndarray, "m d"],
    up: Float[np.ndarray, "m d"],
    down: Float[np.ndarray, "d m"],
    *,
    k: int,
) -> Float[np.ndarray, "*b d"]:
    """The gated layer down (gelu_tanh(soft(gate x)) * (up x)), without a predictor; dense where k = m.

    Raises ValueError where the widths do not match or unless 0 < k <= m. Source: the first ten layers of
    Gemma 3n, released code; its sparsity of 0.95 is k = m / 20.
    """
    if not (x.shape[-1] == gate.shape[1] and gate.shape == up.shape == down.T.shape):
        raise ValueError(
            f"x {x.shape}, gate {gate.shape}, up {up.shape} and down {down.shape} "
            "must be (.., d), (m, d), (m, d) and (d, m)"
        )
    z = x @ gate.T
    active = z if k == len(gate) else statistical.soft(z, k=k)
    return (gelu_tanh(active) * (x @ up.T)) @ down.T


def flops(*, width: int, entries: int, r: int, k: int) -> int:
    """FLOPs of one token: 2 r n for the predictor, 2 (d - r) k and 2 d k for the k entries it picks of n.

    d is the width and n the entries: the neurons of the feed-forward layer, or the visible keys of a head,
    of which min(k, n) are picked. Statistical top-k adds about 2 n. A gated layer of m neurons takes 6 d m,
    a head of dense attention 4 d n. Raises ValueError unless 0 <= r <= d and n and k are positive.
    """
    if not (0 <= r <= width and min(entries, k) > 0):
        raise ValueError(f"r={r} must lie in 0..{width}; entries={entries} and k={k} must be at least 1")
    picked = min(k, entries)
    return 2 * (r * entries + (width - r) * picked + width * picked)


def rotary_halves(
    x: Float[np.ndarray, "*b t d"], *, r: int, start: int = 0, base: float = 10_000.0
) -> Float[np.ndarray, "*b t d"]:
    """Rotary positions for x[..., :r] and for x[..., r:], each turned as if it stood alone.

    Of a part of width w, the dimensions i and i + w/2 turn by the angle t base^(-2i/w), t counted from
    `start` (arXiv:2104.09864). Raises ValueError unless both parts are even, 0 <= r <= d.
    """
    d = x.shape[-1]
    if not (0 <= r <= d and r % 2 == 0 and d % 2 == 0):
        raise ValueError(f"r={r} and d - r={d - r} must both be even and not negative")
    return np.concatenate([_rotary(part, start, base) for part in (x[..., :r], x[..., r:])], axis=-1)


def select(scores: Float[np.ndarray, "*b t s"], *, keep: int) -> Bool[np.ndarray, "*b t s"]:
    """True for the keys that each query attends to: those whose score exceeds its row's threshold.

    Query i of t sees the keys up to i + s - t, n of them. A row with n <= keep keeps them all; otherwise its
    threshold is mean + std Q(1 - keep/n) over those n scores alone, and where nothing exceeds it the (first)
    maximum stays. Raises ValueError where a query sees no key or keep is below 1.
    """
    t, s = scores.shape[-2:]
    if t > s:
        raise ValueError(f"{t} queries for {s} keys: the first {t - s} would see none")
    if keep < 1:
        raise ValueError(f"keep={keep} must be at least 1")
    visible = np.broadcast_to(np.tri(t, s, s - t, dtype=bool), scores.shape)
    if keep >= s:
        return visible.copy()
    return statistical.survivors(scores, k=keep, mask=visible, keep_max=True)


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
    """Causal Spark attention: softmax over the selected keys, each weight times softplus of its other half.

        u_j = scale <q[:r], k_j[:r]>                        p = softmax of u over select(u)
        o   = sum_j p_j softplus(value_scale <q[r:], k_j[r:]>) v_j

    The weights do not sum to 1. Give queries and keys with their positions in (`rotary_halves`). Heads of q
    share a head of k and v in runs of h/g, and each selects for itself. Scales are r^-0.5 and (d - r)^-0.5
    unless given. Raises ValueError where shapes do not match and as `select`. Source: Spark Transformer,
    section 3.2; scales, row statistics and grouping are reconstructed.
    """
    (b, h, _, d), (_, g, s, _) = q.shape, k.shape
    if k.shape != (b, g, s, d) or v.shape[:3] != k.shape[:3] or g < 1 or h % g:
        raise ValueError(
            f"q {q.shape}, k {k.shape} and v {v.shape} must be (b, h, t, d), (b, g, s, d) and (b, g, s, e), "
            "h a multiple of g"
        )
    if not 0 < r < d:
        raise ValueError(f"r={r} must lie strictly between 0 and {d}, the width of a head")
    k, v = (np.repeat(a, h // g, axis=1) for a in (k, v))
    u = (r**-0.5 if scale is None else scale) * q[..., :r] @ k[..., :r].mT
    w = ((d - r) ** -0.5 if value_scale is None else value_scale) * q[..., r:] @ k[..., r:].mT
    u = np.where(select(u, keep=keep), u, -np.inf)
    p = np.exp(u - u.max(axis=-1, keepdims=True))
    p /= p.sum(axis=-1, keepdims=True)
    return (p * np.logaddexp(0, w)) @ v


def attend_one(
    q: Float[np.ndarray, "h d"],
    k: Float[np.ndarray, "g s d"],
    v: Float[np.ndarray, "g s e"],
    *,
    keep: int,
    r: int,
    scale: float | None = None,
    value_scale: float | None = None,
) -> Float[np.ndarray, "h e"]:
    """`attend` of the newest token, reading k[..., r:] and v at the selected keys only; ValueError as there.

    q is its query in each head, k and v are the cache of all tokens so far, its own included.
    """
    (h, d), (g, s, e) = q.shape, v.shape
    if k.shape != (g, s, d) or g < 1 or h % g:
        raise ValueError(
            f"q {q.shape}, k {k.shape} and v {v.shape} must be (h, d), (g, s, d) and (g, s, e), "
            "h a multiple of g"
        )
    if not 0 < r < d:
        raise ValueError(f"r={r} must lie strictly between 0 and {d}, the width of a head")
    out = np.zeros((h, e))
    for head in range(h):
        group = head // (h // g)
        u = (r**-0.5 if scale is None else scale) * k[group, :, :r] @ q[head, :r]
        keys = np.flatnonzero(select(u[None], keep=keep)[0])
        p = np.exp(u[keys] - u[keys].max())
        w = ((d - r) ** -0.5 if value_scale is None else value_scale) * k[group, keys, r:] @ q[head, r:]
        out[head] = (p / p.sum() * np.logaddexp(0, w)) @ v[group, keys]
    return out


def gelu(x: np.ndarray) -> np.ndarray:
    """x Phi(x), Phi the distribution function of N(0, 1)."""
    return x / 2 * (1 + np.vectorize(math.erf, otypes=[float])(x / 2**0.5))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    """The approximation of `gelu` that Gemma uses."""
    return x / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))


def _rotary(x: np.ndarray, start: int, base: float) -> np.ndarray:
    t, d = x.shape[-2:]
    angle = np.outer(start + np.arange(t), base ** (-np.arange(0, d, 2) / d))
    first, second = x[..., : d // 2], x[..., d // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _check_keys(q: np.ndarray, K1: np.ndarray, K2: np.ndarray) -> None:
    if q.shape[-1] != len(K1) + len(K2) or K1.shape[1] != K2.shape[1]:
        raise ValueError(f"q {q.shape}, K1 {K1.shape} and K2 {K2.shape} must be (.., d), (r, m), (d - r, m)")


def _check_values(q: np.ndarray, K1: np.ndarray, V: np.ndarray) -> None:
    if V.shape != (q.shape[-1], K1.shape[1]):
        raise ValueError(f"V {V.shape} must be {(q.shape[-1], K1.shape[1])}, the widths of q and K1")
