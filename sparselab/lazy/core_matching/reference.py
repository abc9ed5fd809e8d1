"""CoreMatching in NumPy: the definition."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["core_neurons", "overlap", "elbow", "core_tokens", "prune", "attend", "gather", "ffn"]


class Core(NamedTuple):
    """The core neurons of a prompt, and how many tokens count each neuron among their strongest."""

    kept: Bool[np.ndarray, " m"]
    count: Int[np.ndarray, " m"]


class Tokens(NamedTuple):
    """Hidden states with their positions in the prompt."""

    x: Float[np.ndarray, "t d"]
    positions: Int[np.ndarray, " t"]


class Gated(NamedTuple):
    """A gated feed-forward layer: row i of `gate` and `up` and column i of `down` are neuron i."""

    gate: Float[np.ndarray, "m d"]
    up: Float[np.ndarray, "m d"]
    down: Float[np.ndarray, "d m"]


def core_neurons(
    a: Float[np.ndarray, "t m"], *, rho: float = 0.2, beta: float = 0.4, common: bool = False
) -> Core:
    """The floor(beta m) neurons that most tokens count among their strongest.

    Token t counts its floor(rho p_t) largest entries, p_t the number of its positive ones; with `common`, as
    in the released code, every token counts floor(rho sum(p) / t), silent neurons included where it fires
    fewer. Of equals the lower index; a neuron that nobody counts is never core, so fewer may be kept. Raises
    ValueError where there is no token or rho or beta lies outside 0..1. Source: CoreInfer.
    """
    if not len(a):
        raise ValueError(f"0 tokens of {a.shape[1]} neurons have no core")
    if not (0 <= rho <= 1 and 0 <= beta <= 1):
        raise ValueError(f"rho={rho} and beta={beta} must both lie in 0..1")
    positive, count = (a > 0).sum(axis=1), np.zeros(a.shape[1], dtype=np.int64)
    for t, row in enumerate(a):
        strongest = int(rho * positive.sum() / len(a) if common else rho * positive[t])
        count[np.argsort(-row, kind="stable")[:strongest]] += 1
    kept = np.zeros(a.shape[1], bool)
    kept[np.argsort(-count, kind="stable")[: int(beta * a.shape[1])]] = True
    return Core(kept & (count > 0), count)


def overlap(a: Float[np.ndarray, "t m"], core: Bool[np.ndarray, " m"]) -> Int[np.ndarray, " t"]:
    """Core neurons that each token fires: g[t] = |{n: a[t, n] > 0 and core[n]}|.

    With `core = a[-5] > 0` these are the released code's overlaps. Raises ValueError where the sizes differ.
    """
    if a.shape[1] != len(core):
        raise ValueError(f"a has {a.shape[1]} neurons, the core {len(core)}")
    return ((a > 0) & core).sum(axis=1)


def elbow(g: Int[np.ndarray, " t"], *, signed: bool = True) -> Int[np.ndarray, ""]:
    """The overlap at which the sorted curve lies furthest below the chord from its first to its last point.

        g_(0) >= g_(1) >= ...,   argmax_j of j (g_(last) - g_(0)) - (g_(j) - g_(0)) (t - 1)

    in integers, so that ties are exact: of equals the first. Without `signed`, as published, a curve may lie
    on either side of the chord: on a bell of overlaps, which does both, one more token can turn a tenth kept
    into nine. Raises ValueError where there is no token.
    """
    if not len(g):
        raise ValueError("0 tokens have no elbow")
    curve = -np.sort(-g)
    below = np.arange(len(g)) * (curve[-1] - curve[0]) - (curve - curve[0]) * (len(g) - 1)
    return np.asarray(curve[np.argmax(below if signed else np.abs(below))])


def core_tokens(
    g: Int[np.ndarray, " t"], *, least: int = 1, most: int | None = None, signed: bool = True
) -> Bool[np.ndarray, " t"]:
    """True for the tokens at or above the elbow, but for `least` and `most` of the largest at the ends.

    Of equals the first. The released code keeps those strictly above: none where all are equal. Raises
    ValueError where there is no token and unless 0 <= least <= most <= t.
    """
    most = len(g) if most is None else most
    if not 0 <= least <= most <= len(g):
        raise ValueError(f"least={least} and most={most} must be in order within 0..{len(g)}, the tokens")
    keep = np.clip((g >= elbow(g, signed=signed)).sum(), least, most)
    kept = np.zeros(len(g), bool)
    kept[np.argsort(-g, kind="stable")[:keep]] = True
    return kept


def prune(
    x: Float[np.ndarray, "t d"], positions: Int[np.ndarray, " t"], kept: Bool[np.ndarray, " t"]
) -> Tokens:
    """The tokens that deeper layers see: in their order, at their old positions.

    All that follows is then what masking the others with -inf would give. Raises ValueError where the sizes
    differ.
    """
    if not len(x) == len(positions) == len(kept):
        raise ValueError(
            f"{len(x)} tokens, {len(positions)} positions and {len(kept)} flags must be equally many"
        )
    return Tokens(x[kept], positions[kept])


def attend(
    q: Float[np.ndarray, "t d"],
    k: Float[np.ndarray, "s d"],
    v: Float[np.ndarray, "s e"],
    kept: Bool[np.ndarray, " s"],
    *,
    zeroed: bool = False,
) -> Float[np.ndarray, "t e"]:
    """What queries after the prompt read from its cache: softmax(q k^T / sqrt(d)) v over the kept tokens.

    With `zeroed`, as in the released code, the others' keys and values are set to 0 instead: each keeps
    exp(0) of the softmax's sum, which shrinks the output by Z / (Z + dropped), Z the sum over the kept.
    Raises ValueError where no token is kept or the sizes differ.
    """
    if not (q.shape[1] == k.shape[1] and len(k) == len(v) == len(kept)):
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape} and {len(kept)} flags do not fit")
    if not kept.any():
        raise ValueError(f"none of the {len(kept)} tokens is kept")
    logits = np.where(kept, q @ k.T / np.sqrt(q.shape[1]), 0 if zeroed else -np.inf)
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True) @ np.where(kept[:, None], v, 0)


def gather(layer: Gated, core: Bool[np.ndarray, " m"]) -> Gated:
    """The layer of the core neurons alone, copied once for a prompt; the share beta of its bytes.

    Raises ValueError where the sizes differ.
    """
    _check(layer)
    if len(core) != len(layer.gate):
        raise ValueError(f"the layer has {len(layer.gate)} neurons, the core {len(core)}")
    return Gated(layer.gate[core], layer.up[core], layer.down[:, core])


def ffn(x: Float[np.ndarray, "t d"], layer: Gated) -> Float[np.ndarray, "t d"]:
    """down (SiLU(gate x) * (up x)), SiLU(z) = z / (1 + exp(-z)); ValueError where the widths differ."""
    _check(layer)
    if x.shape[1] != layer.gate.shape[1]:
        raise ValueError(f"x has width {x.shape[1]}, the layer {layer.gate.shape[1]}")
    z = x @ layer.gate.T
    return z / (1 + np.exp(-z)) * (x @ layer.up.T) @ layer.down.T


def _check(layer: Gated) -> None:
    if not layer.gate.shape == layer.up.shape == layer.down.shape[::-1]:
        shapes = f"gate {layer.gate.shape}, up {layer.up.shape} and down {layer.down.shape}"
        raise ValueError(f"{shapes} must be (m, d), (m, d) and (d, m)")
