"""CATS in torch: the rows of `up` that some token needs are gathered, those of `down` summed in place."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["calibrate", "ffn", "bytes_read"]


@torch.no_grad()
def calibrate(
    a: Float[Tensor, "*b"], *, sparsity: float, bins: int = 10_000, limit: float = 2.0
) -> Float[Tensor, ""]:
    if not a.numel():
        raise ValueError("a sample of 0 activations has no cut")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity={sparsity} must lie in 0..1, below 1: the share of entries to drop")
    if not min(bins, limit) > 0:
        raise ValueError(f"bins={bins} and limit={limit} must be positive")
    edges = torch.arange(bins + 1, dtype=torch.float64, device=a.device) * limit / bins
    which = torch.bucketize(a.abs().flatten().double(), edges, right=True) - 1
    share = torch.bincount(which).cumsum(0).double() / a.numel()
    return edges[(share > sparsity).to(torch.uint8).argmax()].to(a.dtype)


def ffn(
    x: Float[Tensor, "t d"],
    gate: Float[Tensor, "m d"],
    up: Float[Tensor, "m d"],
    down: Float[Tensor, "d m"],
    cut: Float[Tensor, ""],
) -> Float[Tensor, "t d"]:
    """Store `down` column by column (`down.T` contiguous): a neuron is then one row of each matrix."""
    if not (x.shape[1] == gate.shape[1] and gate.shape == up.shape == down.T.shape):
        x, gate, up, down = (tuple(a.shape) for a in (x, gate, up, down))
        raise ValueError(
            f"x {x}, gate {gate}, up {up} and down {down} must be (t, d), (m, d), (m, d) and (d, m)"
        )
    a = F.silu(x @ gate.T)
    kept = a.abs() > cut
    used = kept.any(dim=0).nonzero().squeeze(1)
    h = a[:, used] * (x @ up[used].T)
    token, slot = kept[:, used].nonzero(as_tuple=True)
    starts = torch.searchsorted(token, torch.arange(len(x), device=x.device))
    return F.embedding_bag(used[slot], down.T, starts, mode="sum", per_sample_weights=h[token, slot])


def bytes_read(kept: Bool[Tensor, "t m"], *, width: int, each: int = 2) -> Int[Tensor, " t"]:
    if min(width, each) < 1:
        raise ValueError(f"width={width} and each={each} must be at least 1")
    return each * width * (kept.shape[1] + 2 * kept.sum(dim=1))
