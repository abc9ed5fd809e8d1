"""BatchTopK in torch: the exact tournament over the flattened batch."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sparselab.topk.exact import fast as exact

__all__ = ["keep", "above", "update"]


def keep(
    x: Float[Tensor, "*b n"], *, k: int, mask: Bool[Tensor, "*b"] | None = None
) -> Float[Tensor, "*b n"]:
    _check(x, k, mask)
    tokens = x[..., 0].numel() if mask is None else int(mask.sum())
    seen = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
    return exact.keep(seen.relu().flatten(), k=k * tokens).reshape(x.shape)


def above(x: Float[Tensor, "*b n"], cut: Float[Tensor, ""]) -> Float[Tensor, "*b n"]:
    positive = x.relu()
    return torch.where(positive > cut, positive, 0)


def update(
    cut: Float[Tensor, ""],
    x: Float[Tensor, "*b n"],
    *,
    k: int,
    rate: float,
    mask: Bool[Tensor, "*b"] | None = None,
) -> Float[Tensor, ""]:
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate} must be more than 0 and at most 1")
    kept = keep(x, k=k, mask=mask)
    positive = kept[kept > 0]
    if not len(positive):
        return cut.clone()
    smallest = positive.min()
    return torch.where(cut.isnan(), smallest, cut + rate * (smallest - cut))


def _check(x: Tensor, k: int, mask: Tensor | None) -> None:
    if not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} must lie in 0..{x.shape[-1]}, the entries of a token")
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, the tokens of x {tuple(x.shape[:-1])}")
