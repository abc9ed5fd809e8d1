"""Exact top-k in torch: a tournament of group maxima, on a CPU in compiled loops."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparselab.loops import fit

from . import loops

__all__ = ["topk", "mask", "keep"]

GROUP = 8  # of the tournament
CHUNK = 32  # entries that the loops look at together


class TopK(NamedTuple):
    values: Float[Tensor, "*b k"]
    top_idx: Int[Tensor, "*b k"]


def topk(x: Float[Tensor, "*b n"], *, k: int) -> TopK:
    _check(x.shape, k)
    rows = torch.atleast_2d(x.detach()).flatten(0, -2)
    top_idx = _select(rows, k).reshape(*x.shape[:-1], k)
    return TopK(x.gather(-1, top_idx), top_idx)


def mask(x: Float[Tensor, "*b n"], *, k: int) -> Bool[Tensor, "*b n"]:
    return torch.zeros_like(x, dtype=torch.bool).scatter_(-1, topk(x, k=k).top_idx, True)


def keep(x: Float[Tensor, "*b n"], *, k: int) -> Float[Tensor, "*b n"]:
    values, top_idx = topk(x, k=k)
    return torch.zeros_like(x).scatter(-1, top_idx, values)


def _check(shape: torch.Size, k: int) -> None:
    if not 0 <= k <= shape[-1]:
        raise ValueError(f"k={k} must lie in 0..{shape[-1]}, the entries of a row")


def _select(rows: Tensor, k: int) -> Tensor:
    n = rows.shape[1]
    if k in (0, n):
        return rows.sort(dim=-1, descending=True, stable=True).indices[:, :k]
    if 8 * k <= n and fit(rows, rows):
        return _by_loops(rows, k)
    return _by_tournament(rows, k)


def _by_loops(rows: Tensor, k: int) -> Tensor:
    """Rows that are too hard for the loops go to the tournament."""
    n = rows.shape[1]
    integer = torch.int32 if rows.dtype == torch.float32 else torch.int64
    idx = torch.zeros(len(rows), k, dtype=torch.int64)
    hard = torch.zeros(len(rows), dtype=torch.bool)
    bits, magnitude = rows.view(integer), torch.iinfo(integer).max
    groups = min(n, -(-4 * k // 16) * 16)  # whole registers
    loops.largest(len(rows), rows, bits, magnitude, k, groups, CHUNK, idx, hard, work=rows.numel())
    ranks = rows.gather(1, idx).sort(dim=-1, descending=True, stable=True).indices
    idx = idx.gather(1, ranks)
    if hard.any():
        idx[hard] = _by_tournament(rows[hard], k)
    return idx


def _by_tournament(rows: Tensor, k: int) -> Tensor:
    """One more than asked for: where it equals the last one kept, the lowest indices win the tie."""
    values, idx = _tournament(rows, k + 1)
    values, runner_up, idx = values[:, :k], values[:, k], idx[:, :k]
    tied = (runner_up < values[:, -1]).logical_not_().nonzero().squeeze(1)
    if len(tied):
        settled = _first_of_equals(*(a.index_select(0, tied) for a in (rows, values, idx)))
        idx = idx.index_copy(0, tied, settled)
    return idx


def _tournament(rows: Tensor, k: int, *, ranked: bool = True) -> tuple[Tensor, Tensor]:
    """torch.topk, where the groups with the k best maxima are the only ones worth a look."""
    n = rows.shape[1]
    groups = n // GROUP
    if groups < 2 * k:
        return rows.topk(k, sorted=ranked)
    # Group j holds the columns j, j + groups, j + 2 groups, ...: its maximum reads whole vectors.
    maxima = rows[:, : GROUP * groups].unflatten(1, (GROUP, groups)).amax(1)
    members = groups * torch.arange(GROUP, device=rows.device).unsqueeze(1)
    candidates = (_tournament(maxima, k, ranked=False)[1].unsqueeze(1) + members).flatten(1)
    if n > GROUP * groups:
        rest = torch.arange(GROUP * groups, n, device=rows.device).expand(len(rows), -1)
        candidates = torch.cat((candidates, rest), dim=1)
    values, winners = rows.gather(1, candidates).topk(k, sorted=ranked)
    return values, candidates.gather(1, winners)


def _first_of_equals(rows: Tensor, values: Tensor, idx: Tensor) -> Tensor:
    """`idx` with the places of the smallest value kept replaced by the first of that value in the row."""
    last, (n, k) = values[:, -1:], (rows.shape[1], values.shape[1])
    if last.isnan().any():  # here NaN equals NaN
        rows, values, last = (torch.where(last.isnan(), a.isnan().to(a), a) for a in (rows, values, last))
    ties = (values == last).sum(-1, keepdim=True)
    # Floats count a row exactly up to 2^24, and torch compares into floats far faster than into booleans.
    number = torch.float32 if n < 2**24 else torch.float64
    for width in (min(n, 16 * k), n):  # many ties, as among zeros, begin early in the row
        head = rows[:, :width]
        equal = torch.eq(head, last, out=torch.empty_like(head, dtype=number))
        if (equal.sum(-1, keepdim=True) >= ties).all():
            break
    first = _tournament(equal.mul_(torch.arange(width, 0, -1, dtype=number, device=rows.device)), k)[1]
    slot = torch.arange(k, device=rows.device) - (k - ties)
    return torch.where(slot < 0, idx, first.gather(1, slot.clamp_min(0)))
