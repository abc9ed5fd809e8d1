"""Deja Vu's neuron predictor in torch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from sparselab.topk.exact import fast as exact

__all__ = ["logits", "loss", "gradients", "select", "ffn", "agreement", "weights_read"]


class Params(NamedTuple):
    down: Float[Tensor, "d r"]
    up: Float[Tensor, "r m"]


class Agreement(NamedTuple):
    recall: Float[Tensor, ""]
    precision: Float[Tensor, ""]
    weighted_recall: Float[Tensor, ""]


def logits(params: Params, x: Float[Tensor, "t d"]) -> Float[Tensor, "t m"]:
    if (x.shape[1], params.down.shape[1]) != (len(params.down), len(params.up)):
        shapes = (tuple(p.shape) for p in (x, *params))
        raise ValueError("x {}, down {} and up {} do not chain".format(*shapes))
    return x @ params.down @ params.up


def loss(params: Params, x: Float[Tensor, "t d"], a: Float[Tensor, "t m"]) -> Float[Tensor, ""]:
    z, y, weight = _labelled(params, x, a)
    return F.binary_cross_entropy_with_logits(z, y, weight)


def gradients(params: Params, x: Float[Tensor, "t d"], a: Float[Tensor, "t m"]) -> Params:
    z, y, weight = _labelled(params, x, a)
    error = weight * (z.sigmoid() - y) / z.numel()
    return Params(down=x.T @ (error @ params.up.T), up=(x @ params.down).T @ error)


def select(params: Params, x: Float[Tensor, "t d"], *, keep: int) -> Bool[Tensor, "t m"]:
    return exact.mask(logits(params, x), k=keep)


def ffn(
    params: Params, x: Float[Tensor, "t d"], K: Float[Tensor, "d m"], V: Float[Tensor, "d m"], *, keep: int
) -> Float[Tensor, "t d"]:
    """K^T's rows are gathered, V^T's summed without a copy; store both contiguous to make it fast."""
    if not (x.shape[1], params.up.shape[1]) == tuple(K.shape) == tuple(V.shape):
        raise ValueError(
            f"K {tuple(K.shape)} and V {tuple(V.shape)} must be {(x.shape[1], params.up.shape[1])}"
        )
    chosen = exact.topk(logits(params, x), k=keep).top_idx
    a = F.relu((K.T[chosen] @ x[:, :, None]).squeeze(2))
    starts = keep * torch.arange(len(x), device=x.device)
    return F.embedding_bag(chosen.flatten(), V.T, starts, mode="sum", per_sample_weights=a.flatten())


def agreement(selected: Bool[Tensor, "t m"], a: Float[Tensor, "t m"]) -> Agreement:
    if selected.shape != a.shape:
        raise ValueError(f"selected {tuple(selected.shape)} and a {tuple(a.shape)} must both be (t, m)")
    active = a > 0
    if not (active.any() and selected.any()):
        raise ValueError(f"{active.sum()} active and {selected.sum()} selected neurons: nothing to compare")
    hits = (active & selected).sum().to(a.dtype)
    return Agreement(
        recall=hits / active.sum(),
        precision=hits / selected.sum(),
        weighted_recall=(a.abs() * selected).sum() / a.abs().sum(),
    )


def weights_read(params: Params, *, keep: int) -> Float[Tensor, ""]:
    (d, r), m = params.down.shape, params.up.shape[1]
    if not 0 <= keep <= m:
        raise ValueError(f"keep={keep} must lie in 0..{m}, the neurons")
    return params.up.new_tensor((r * (d + m) + 2 * d * keep) / (2 * d * m))


def _labelled(params: Params, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z = logits(params, x)
    if z.shape != a.shape:
        raise ValueError(f"a {tuple(a.shape)} must have the shape {tuple(z.shape)} of the predictions")
    y = (a > 0).to(z.dtype)
    return z, y, y + (1 - y) * (y.mean() + 0.005)
