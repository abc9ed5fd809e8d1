"""The lazy neuron phenomenon in torch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from sparselab.topk.exact import fast as exact

__all__ = ["nonzero_stats", "overall", "topk_relu", "topk_ffn", "gather_ffn", "mean_active_gradient"]


class Stats(NamedTuple):
    density: Float[Tensor, ""]
    per_token: Int[Tensor, " r"]
    firing_rate: Float[Tensor, " m"]
    dead: Int[Tensor, ""]


def nonzero_stats(a: Float[Tensor, "t m"], real: Bool[Tensor, " t"]) -> Stats:
    if len(real) != len(a):
        raise ValueError(f"{len(real)} padding flags for {len(a)} tokens")
    if not real.any():
        raise ValueError(f"all {len(real)} tokens are padding: nothing to measure")
    active = a[real] > 0
    per_token, per_neuron = active.sum(dim=1), active.sum(dim=0)
    return Stats(
        density=per_token.sum().to(a.dtype) / active.numel(),
        per_token=per_token,
        firing_rate=per_neuron.to(a.dtype) / len(active),
        dead=(per_neuron == 0).sum(),
    )


def overall(density: Float[Tensor, " l"], width: Int[Tensor, " l"]) -> Float[Tensor, ""]:
    if len(density) != len(width):
        raise ValueError(f"{len(density)} densities for {len(width)} widths")
    if not width.any():
        raise ValueError(f"all {len(width)} widths are 0: no neuron to average over")
    return density @ width.to(density.dtype) / width.sum()


def topk_relu(z: Float[Tensor, "*b m"], *, k: int) -> Float[Tensor, "*b m"]:
    if not 0 <= k <= z.shape[-1]:
        raise ValueError(f"k={k} must lie in 0..{z.shape[-1]}, the number of neurons")
    return exact.keep(F.relu(z), k=k)


def topk_ffn(
    x: Float[Tensor, "t d"], K: Float[Tensor, "d m"], V: Float[Tensor, "d m"], *, k: int
) -> Float[Tensor, "t d"]:
    _check_widths(x, K, V)
    return topk_relu(x @ K, k=k) @ V.T


def gather_ffn(
    x: Float[Tensor, "t d"], K: Float[Tensor, "d m"], V: Float[Tensor, "d m"]
) -> Float[Tensor, "t d"]:
    """The rows of V^T are summed without a copy; store V^T contiguous to make it fast."""
    _check_widths(x, K, V)
    a = F.relu(x @ K)
    token, neuron = a.detach().nonzero(as_tuple=True)
    starts = torch.searchsorted(token, torch.arange(len(a), device=a.device))
    return F.embedding_bag(neuron, V.T, starts, mode="sum", per_sample_weights=a[token, neuron])


def mean_active_gradient(
    z: Float[Tensor, "t m"], V: Float[Tensor, "c m"], y: Int[Tensor, " t"]
) -> Float[Tensor, ""]:
    if z.shape[1] != V.shape[1] or len(y) != len(z):
        raise ValueError(
            f"z {tuple(z.shape)}, V {tuple(V.shape)} and y {tuple(y.shape)} must be (t, m), (c, m) and (t,)"
        )
    active = z > 0
    if not active.any():
        raise ValueError(f"none of the {z.numel()} units is active: no mean to take")
    if not (y.min() >= 0 and y.max() < len(V)):
        raise ValueError(f"labels {y.min()}..{y.max()} must lie in 0..{len(V) - 1}")
    error = torch.softmax(F.relu(z) @ V.T, dim=1) - F.one_hot(y, len(V)).to(V.dtype)
    return (error @ V)[active].mean()


def _check_widths(x: Tensor, K: Tensor, V: Tensor) -> None:
    if x.shape[1] != len(K) or K.shape != V.shape:
        shapes = f"x {tuple(x.shape)}, K {tuple(K.shape)} and V {tuple(V.shape)}"
        raise ValueError(f"{shapes} must be (t, d), (d, m) and (d, m)")
