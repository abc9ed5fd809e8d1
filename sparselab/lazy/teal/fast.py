"""TEAL in torch: calibration from one sort, a GEMV that reads each surviving column once."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sparselab.formats.rows import fast as rows

__all__ = ["calibrate", "sparsify", "gemv", "greedy"]


class Allocation(NamedTuple):
    levels: Float[Tensor, " p"]
    raised: Int[Tensor, " s"]
    error: Float[Tensor, " s"]


@torch.no_grad()
def calibrate(x: Float[Tensor, "*b"], *, sparsity: float, bins: int = 10_000) -> Float[Tensor, ""]:
    """In float64 whatever the dtype: an entry that rounding moves over an edge moves the cut by a bin."""
    if not x.numel():
        raise ValueError("a sample of 0 activations has no cut")
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} must lie in 0..1, the share of entries to drop")
    if bins < 3:
        raise ValueError(f"bins={bins} must be at least 3: one for each tail, one between them")
    if sparsity == 0:
        return x.new_zeros(())
    ranked = x.flatten().sort().values.double()
    low, high = (_quantile(ranked, q) for q in (0.01, 0.99))
    inner = torch.linspace(0, 1, bins - 1, dtype=torch.float64, device=x.device) * (high - low) + low
    edges = torch.cat((ranked[:1], inner, ranked[-1:]))
    centre = (edges[:-1] + edges[1:]) / 2
    below = torch.searchsorted(ranked, edges[1:]).double()
    below[-1] = len(ranked)
    wanted = (0.5 + sparsity / 2) * len(ranked)
    i = int(torch.searchsorted(below, wanted))
    within = (wanted - below[i - 1]) / (below[i] - below[i - 1])
    return (centre[i - 1] + within * (centre[i] - centre[i - 1])).to(x.dtype)


def sparsify(x: Float[Tensor, "*b i"], cut: Float[Tensor, ""]) -> Float[Tensor, "*b i"]:
    return torch.where(x.abs() > cut, x, 0)


def gemv(w: Float[Tensor, "o i"], x: Float[Tensor, " i"], cut: Float[Tensor, ""]) -> Float[Tensor, " o"]:
    """Columns are summed without a copy; store W column by column (`w.T` contiguous) to make it fast."""
    if w.shape[1] != len(x):
        raise ValueError(f"w has {w.shape[1]} inputs, x has {len(x)}")
    kept = (x.abs() > cut).nonzero().squeeze(1)
    return rows.total(w.T, kept, x.index_select(0, kept))


def greedy(
    error: Callable[[Float[Tensor, " p"]], float],
    size: Float[Tensor, " p"],
    *,
    sparsity: float,
    step: float = 0.05,
) -> Allocation:
    """Levels are float64 whatever the dtype of `size`, so that rounding decides no step."""
    if not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity={sparsity} must lie in 0..1, the mean share to drop")
    if not (len(size) and step > 0 and bool((size > 0).all())):
        raise ValueError(f"step={step} and the {len(size)} sizes must all be positive")
    units, raised, errors = size.double(), [], []
    levels = torch.zeros_like(units)
    while units @ levels < (sparsity - 1e-9) * units.sum():
        higher = (levels + step / units).clamp(max=1)
        tried = {}
        for p in (levels < 1).nonzero().squeeze(1).tolist():
            tried[p] = levels.clone()
            tried[p][p] = higher[p]
        left = {p: float(error(candidate)) for p, candidate in tried.items()}
        best = min(left, key=left.get)
        levels = tried[best]
        raised.append(best)
        errors.append(left[best])
    return Allocation(
        levels.to(size.dtype),
        torch.tensor(raised, dtype=torch.int64, device=size.device),
        torch.tensor(errors, dtype=size.dtype, device=size.device),
    )


def _quantile(ranked: Tensor, q: float) -> Tensor:
    """torch.quantile of sorted values, which refuses more than 2^24 of them."""
    place = q * (len(ranked) - 1)
    i = int(place)
    return ranked[i].lerp(ranked[min(i + 1, len(ranked) - 1)], place - i)
