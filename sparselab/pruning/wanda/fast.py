"""Wanda in torch: one stable sort per group, or per row."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["score", "mask", "row_mask"]


def score(w: Float[Tensor, "o i"], x: Float[Tensor, "t i"]) -> Float[Tensor, "o i"]:
    if w.shape[1] != x.shape[1]:
        raise ValueError(f"w has {w.shape[1]} inputs, x has {x.shape[1]}")
    return w.abs() * torch.linalg.vector_norm(x, dim=0)


def mask(w: Float[Tensor, "o i"], x: Float[Tensor, "t i"], *, n: int, m: int) -> Bool[Tensor, "o i"]:
    s = score(w, x)
    if m < 1 or w.shape[1] % m:
        raise ValueError(f"groups of m={m} do not divide {w.shape[1]} inputs")
    if not 0 <= n <= m:
        raise ValueError(f"n={n} of m={m} cannot be kept; n must lie in 0..{m}")
    return _best(s.unflatten(1, (-1, m)), n).flatten(1)


def row_mask(w: Float[Tensor, "o i"], x: Float[Tensor, "t i"], *, keep: int) -> Bool[Tensor, "o i"]:
    s = score(w, x)
    if not 0 <= keep <= w.shape[1]:
        raise ValueError(f"keep={keep} must lie in 0..{w.shape[1]}, the inputs of a row")
    return _best(s, keep)


def _best(scores: Tensor, keep: int) -> Tensor:
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :keep]
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, True)
