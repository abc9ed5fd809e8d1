"""Threshold selection in torch: one exact top-k for the cut, one comparison for the entries."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparselab.topk.exact import fast as exact

__all__ = ["kth", "calibrate", "keep"]


def kth(x: Float[Tensor, "*b n"], *, k: int) -> Float[Tensor, "*b"]:
    _check(x.shape, k)
    return exact.topk(x, k=k).values[..., -1]


def calibrate(x: Float[Tensor, "*b n"], *, k: int) -> Float[Tensor, ""]:
    _check(x.shape, k)
    if not x.numel():
        raise ValueError("a sample of 0 rows has no cut")
    flat = x.flatten()
    return flat.kthvalue(len(flat) - k * (len(flat) // x.shape[-1]) + 1).values


def keep(x: Float[Tensor, "*b n"], cut: Float[Tensor, "*c"]) -> Float[Tensor, "*b n"]:
    if cut.shape not in ((), x.shape[:-1]):
        shapes = tuple(cut.shape), tuple(x.shape), tuple(x.shape[:-1])
        raise ValueError("cut has shape {}; x {} takes one number or {}".format(*shapes))
    return torch.where(x >= cut.unsqueeze(-1), x, 0)


def _check(shape: torch.Size, k: int) -> None:
    if not 1 <= k <= shape[-1]:
        raise ValueError(f"k={k} must lie in 1..{shape[-1]}, the entries of a row")
