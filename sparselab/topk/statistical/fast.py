"""Statistical top-k in torch: two moments and one threshold, while a few rows stay in the cache.

Without a mask, on a CPU, the whole row is one compiled loop.
"""

from itertools import repeat
from statistics import NormalDist

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparselab.loops import fit

from . import loops

__all__ = ["threshold", "soft", "survivors"]

CHUNK = 2**17  # entries that one thread works on at once: half a megabyte of float32


def threshold(
    x: Float[Tensor, "*b n"], *, k: int, mask: Bool[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b"]:
    count, lift = counts(x, k, mask)
    wide = _wide(x)
    first = first_visible(wide.detach(), mask)
    apart = wide - first if mask is None else torch.where(mask, wide - first, 0)
    mean = apart.sum(-1, keepdim=True) / count.clamp_min(1)
    centred = apart - mean if mask is None else torch.where(mask, apart - mean, 0)
    theta = first + mean + lift * torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    return torch.where(count > k, theta, -torch.inf).squeeze(-1).to(x.dtype)


def soft(
    x: Float[Tensor, "*b n"], *, k: int, mask: Bool[Tensor, "*b n"] | None = None
) -> Float[Tensor, "*b n"]:
    if mask is None and fit(x, x):
        return _unmasked(x, k)
    count, lift = counts(x, k, mask)
    if mask is not None:
        refuse_short_rows(count, k)
    rows = (as_rows(a) for a in (_wide(x), mask, count, lift))
    return _Soft.apply(*rows, k).reshape(x.shape).to(x.dtype)


@torch.no_grad()
def survivors(
    x: Float[Tensor, "*b n"],
    *,
    k: int,
    mask: Bool[Tensor, "*b n"] | None = None,
    keep_max: bool = False,
) -> Bool[Tensor, "*b n"]:
    count, lift = counts(x, k, mask)
    mask, count, lift = _once(mask), _once(count), _once(lift)
    wide = _wide(x)
    centred = torch.empty_like(wide)
    norm = _centre(wide, mask, count, out=centred)
    kept = (centred > norm * lift).logical_or_(count <= k)
    if mask is not None:
        kept.logical_and_(mask)
    if keep_max and (none := ~kept.any(-1)).any():
        seen = torch.ones_like(kept) if mask is None else mask.expand_as(kept)
        best = wide[none].masked_fill_(~seen[none], -torch.inf).argmax(-1, keepdim=True)
        kept[none] = torch.zeros_like(seen[none]).scatter_(-1, best, True) & seen[none]
    return kept


class _Soft(torch.autograd.Function):
    """max(x - theta, 0) and its closed-form gradient; the forward pass keeps nothing but x and the result."""

    @staticmethod
    def forward(ctx, x, mask, count, lift, k):
        if mask is None and fit(x, x):
            out = _unmasked(x, k)
        else:
            out = torch.empty_like(x)
            for x_, out_, mask_, count_, lift_ in _chunks(x, out, mask, count, lift):
                norm = _centre(x_, mask_, count_, out=out_)
                out_.sub_(norm.mul_(lift_)).clamp_min_(0)
                if mask_ is not None:
                    out_.masked_fill_(~mask_, 0)
        ctx.save_for_backward(x, out, mask, count, lift)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, out, mask, count, lift = ctx.saved_tensors
        dx = torch.empty_like(x)
        for x_, grad_, out_, dx_, mask_, count_, lift_ in _chunks(x, grad, out, dx, mask, count, lift):
            norm = _centre(x_, mask_, count_, out=dx_)
            alive = torch.ops.aten.threshold_backward(grad_, out_, 0)
            total = alive.sum(-1, keepdim=True)
            slope = torch.where(norm > 0, total * lift_ / norm, 0)
            torch.sub(alive, dx_.mul_(slope).add_(total / count_.clamp_min(1)), out=dx_)
            if mask_ is not None:
                dx_.masked_fill_(~mask_, 0)
        return dx, None, None, None, None


def _unmasked(x: Tensor, k: int) -> Tensor:
    lift, out = _lift(k, n := x.shape[-1]), torch.empty_like(x)
    loops.soft(x.numel() // n, x.view(-1, n), lift, out.view(-1, n), work=x.numel())
    return out


def _centre(x: Tensor, mask: Tensor | None, count: Tensor, *, out: Tensor) -> Tensor:
    """`out` = visible x minus their mean, 0 elsewhere; returns its norm, std sqrt(n).

    The mean is that of the differences from one entry, and the norm is taken after centring: right in float32
    where the mean dwarfs the spread, and exactly 0 on a constant row.
    """
    torch.sub(x, first_visible(x, mask), out=out)
    if mask is not None:
        out.masked_fill_(~mask, 0)
    out.sub_(out.sum(-1, keepdim=True).div_(count.clamp_min(1)))
    if mask is not None:
        out.masked_fill_(~mask, 0)
    return torch.linalg.vector_norm(out, dim=-1, keepdim=True)


def first_visible(x: Tensor, mask: Tensor | None) -> Tensor:
    """The first visible entry of each row."""
    if mask is None:
        return x[..., :1]
    return x.gather(-1, mask.to(torch.uint8).argmax(-1, keepdim=True).expand(*x.shape[:-1], 1))


def counts(x: Tensor, k: int, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Visible entries n of each row, and Q(1 - k/n)/sqrt(n): theta - mean in norms of the centred row."""
    n = x.shape[-1]
    same = _lift(k, n)
    if mask is None:
        count = torch.full_like(x[..., :1], n, dtype=torch.float64)
        lift = torch.full_like(count, same)
    elif mask.shape != x.shape:
        raise ValueError(f"mask has shape {tuple(mask.shape)}, x has {tuple(x.shape)}")
    else:
        count = _once(mask).sum(-1, keepdim=True).double().expand(*mask.shape[:-1], 1)
        enough = count.clamp_min(k + 1)
        lift = torch.special.ndtri(1 - k / enough) / enough.sqrt()
    wide = torch.promote_types(x.dtype, torch.float32)
    return count.to(wide), lift.to(wide)


def _lift(k: int, n: int) -> float:
    if not 0 < k < n:
        raise ValueError(f"k={k} must lie strictly between 0 and {n}, the entries of a row")
    return NormalDist().inv_cdf(1 - k / n) / n**0.5


def _once(a: Tensor | None) -> Tensor | None:
    """What an expanded tensor repeats, once: a causal mask is one square, however many heads share it."""
    if a is None:
        return None
    repeats = (size and not stride for size, stride in zip(a.shape, a.stride(), strict=True))
    return a[tuple(slice(1) if repeated else slice(None) for repeated in repeats)]


def refuse_short_rows(count: Tensor, k: int) -> None:
    """ValueError where a row sees some entries but at most k: its threshold is -inf."""
    short = count[(count > 0) & (count <= k)]
    if len(short):
        raise ValueError(f"k={k} needs more visible entries than that in a row; one has {int(short[0])}")


def _wide(x: Tensor) -> Tensor:
    """Statistics want float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_rows(a: Tensor | None) -> Tensor | None:
    return None if a is None else torch.atleast_2d(a).flatten(0, -2).contiguous()


def _chunks(x: Tensor, *others: Tensor | None):
    """Groups of rows that fit the cache, from every tensor at once; all rows where x is not on a CPU."""
    size = max(1, CHUNK // x.shape[1]) * torch.get_num_threads() if x.is_cpu else max(1, len(x))
    return zip(x.split(size), *(repeat(None) if a is None else a.split(size) for a in others), strict=False)
