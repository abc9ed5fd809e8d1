"""Solutions of lesson 1.5, core neurons and core tokens."""

import numpy as np
from jaxtyping import Bool, Float, Int

from sparselab.lazy.core_matching.reference import Core


def core_neurons(
    a: Float[np.ndarray, "t m"],
    *,
    rho: float = 0.2,
    beta: float = 0.4,
    common: bool = False,
) -> Core:
    """Each token votes for its strongest; the most voted for are the core."""
    if not (len(a) and 0 <= rho <= 1 and 0 <= beta <= 1):
        raise ValueError(f"{len(a)} tokens, rho={rho}, beta={beta}: need 1, 0..1, 0..1")
    fires = (a > 0).sum(axis=1)
    votes = rho * fires.sum() / len(a) if common else rho * fires
    votes = np.broadcast_to(votes, len(a)).astype(int)
    count = np.zeros(a.shape[1], int)
    for t, row in enumerate(a):
        count[np.argsort(-row, kind="stable")[: votes[t]]] += 1
    kept = np.zeros(a.shape[1], bool)
    kept[np.argsort(-count, kind="stable")[: int(beta * a.shape[1])]] = True
    return Core(kept & (count > 0), count)


def elbow(g: Int[np.ndarray, " t"], *, signed: bool = True) -> Int[np.ndarray, ""]:
    """The vertical gap below the chord, times t - 1 so that it stays whole."""
    if not len(g):
        raise ValueError("0 tokens have no elbow")
    t, curve = len(g), np.sort(g)[::-1]
    chord = curve[0] * (t - 1) + np.arange(t) * (curve[-1] - curve[0])
    gap = chord - curve * (t - 1)
    return np.asarray(curve[np.argmax(gap if signed else np.abs(gap))])


def tipping_pair(t: int) -> Int[np.ndarray, "2 t"]:
    """A falling line, with a dent near its start as deep as a bump near its end."""
    g = 10 * np.arange(t)[::-1]
    g[1] -= 5
    g[-2] += 5
    one_more = g.copy()
    one_more[-2] += 1
    return np.stack([g, one_more])


def attend(
    q: Float[np.ndarray, "t d"],
    k: Float[np.ndarray, "s d"],
    v: Float[np.ndarray, "s e"],
    kept: Bool[np.ndarray, " s"],
    *,
    zeroed: bool = False,
) -> Float[np.ndarray, "t e"]:
    """One softmax; what differs is the logit of a token that is not kept."""
    if not (q.shape[1] == k.shape[1] and len(k) == len(v) == len(kept) and kept.any()):
        shapes = f"q {q.shape}, k {k.shape}, v {v.shape}"
        raise ValueError(f"{shapes} with {kept.sum()} of {len(kept)} flags set")
    logits = q @ k.T / np.sqrt(q.shape[1])
    logits[:, ~kept] = 0 if zeroed else -np.inf
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True) @ (v * kept[:, None])
