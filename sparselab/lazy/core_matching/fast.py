"""CoreMatching in torch: one sort of the activations, then small dense products."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["core_neurons", "overlap", "elbow", "core_tokens", "prune", "attend", "gather", "ffn"]


class Core(NamedTuple):
    kept: Bool[Tensor, " m"]
    count: Int[Tensor, " m"]


class Tokens(NamedTuple):
    x: Float[Tensor, "t d"]
    positions: Int[Tensor, " t"]


class Gated(NamedTuple):
    gate: Float[Tensor, "m d"]
    up: Float[Tensor, "m d"]
    down: Float[Tensor, "d m"]


def core_neurons(
    a: Float[Tensor, "t m"], *, rho: float = 0.2, beta: float = 0.4, common: bool = False
) -> Core:
    if not len(a):
        raise ValueError(f"0 tokens of {a.shape[1]} neurons have no core")
    if not (0 <= rho <= 1 and 0 <= beta <= 1):
        raise ValueError(f"rho={rho} and beta={beta} must both lie in 0..1")
    positive = (a > 0).sum(dim=1).double()
    strongest = rho * positive.sum() / len(a) if common else rho * positive
    strongest = strongest.long().expand(len(a))
    order = a.sort(dim=1, descending=True, stable=True).indices[:, : int(strongest.max())]
    counted = torch.arange(order.shape[1], device=a.device) < strongest[:, None]
    count = torch.bincount(order[counted], minlength=a.shape[1])
    most = count.sort(descending=True, stable=True).indices[: int(beta * a.shape[1])]
    kept = torch.zeros_like(count, dtype=torch.bool)
    kept[most] = True
    return Core(kept & (count > 0), count)


def overlap(a: Float[Tensor, "t m"], core: Bool[Tensor, " m"]) -> Int[Tensor, " t"]:
    if a.shape[1] != len(core):
        raise ValueError(f"a has {a.shape[1]} neurons, the core {len(core)}")
    return (a[:, core] > 0).sum(dim=1)


def elbow(g: Int[Tensor, " t"], *, signed: bool = True) -> Int[Tensor, ""]:
    if not len(g):
        raise ValueError("0 tokens have no elbow")
    curve = g.sort(descending=True).values
    steps = torch.arange(len(g), device=g.device)
    below = steps * (curve[-1] - curve[0]) - (curve - curve[0]) * (len(g) - 1)
    distance = below if signed else below.abs()
    return curve[(distance == distance.max()).nonzero()[0, 0]]


def core_tokens(
    g: Int[Tensor, " t"], *, least: int = 1, most: int | None = None, signed: bool = True
) -> Bool[Tensor, " t"]:
    most = len(g) if most is None else most
    if not 0 <= least <= most <= len(g):
        raise ValueError(f"least={least} and most={most} must be in order within 0..{len(g)}, the tokens")
    keep = min(max(int((g >= elbow(g, signed=signed)).sum()), least), most)
    order = g.sort(descending=True, stable=True).indices
    return torch.zeros_like(g, dtype=torch.bool).scatter(0, order[:keep], True)


def prune(x: Float[Tensor, "t d"], positions: Int[Tensor, " t"], kept: Bool[Tensor, " t"]) -> Tokens:
    if not len(x) == len(positions) == len(kept):
        raise ValueError(
            f"{len(x)} tokens, {len(positions)} positions and {len(kept)} flags must be equally many"
        )
    return Tokens(x[kept], positions[kept])


def attend(
    q: Float[Tensor, "t d"],
    k: Float[Tensor, "s d"],
    v: Float[Tensor, "s e"],
    kept: Bool[Tensor, " s"],
    *,
    zeroed: bool = False,
) -> Float[Tensor, "t e"]:
    if not (q.shape[1] == k.shape[1] and len(k) == len(v) == len(kept)):
        shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
        raise ValueError(f"{shapes} and {len(kept)} flags do not fit")
    if not kept.any():
        raise ValueError(f"none of the {len(kept)} tokens is kept")
    if zeroed:
        k, v = k * kept[:, None], v * kept[:, None]
    else:
        k, v = k[kept], v[kept]
    return F.scaled_dot_product_attention(q[None], k[None], v[None])[0]


def gather(layer: Gated, core: Bool[Tensor, " m"]) -> Gated:
    _check(layer)
    if len(core) != len(layer.gate):
        raise ValueError(f"the layer has {len(layer.gate)} neurons, the core {len(core)}")
    return Gated(layer.gate[core], layer.up[core], layer.down[:, core])


def ffn(x: Float[Tensor, "t d"], layer: Gated) -> Float[Tensor, "t d"]:
    _check(layer)
    if x.shape[1] != layer.gate.shape[1]:
        raise ValueError(f"x has width {x.shape[1]}, the layer {layer.gate.shape[1]}")
    return F.linear(F.silu(x @ layer.gate.T) * (x @ layer.up.T), layer.down)


def _check(layer: Gated) -> None:
    if not layer.gate.shape == layer.up.shape == layer.down.shape[::-1]:
        gate, up, down = (tuple(w.shape) for w in layer)
        raise ValueError(f"gate {gate}, up {up} and down {down} must be (m, d), (m, d) and (d, m)")
