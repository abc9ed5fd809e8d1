"""Block-sparse attention in torch: the listed blocks gathered chunk by chunk, two batched products each.

No t x s logits are ever formed: a chunk is a few lists whose keys, values and logits stay in cache. Where a
list has few rows, as in decoding, nothing is gathered: compiled loops read the blocks where they lie. The
backward pass recomputes the logits from `lse` and adds into the keys by the same lists.
"""

from collections.abc import Iterator
from itertools import repeat
from math import log
from typing import NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sparselab.loops import fit

from . import loops

__all__ = ["attend", "merge", "cells"]

LN2 = log(2)  # powers of two: with MKL, torch's exp is far slower on -inf than on a number; its exp2 is not
CHUNK = 3 << 16  # numbers in flight: what the cache of one core holds
FEW = 8  # rows of a list for which a gather costs more than it saves in the products


class Attention(NamedTuple):
    out: Float[Tensor, "b h t e"]
    lse: Float[Tensor, "b h t"]


def attend(
    q: Float[Tensor, "b h t d"],
    k: Float[Tensor, "b g s d"],
    v: Float[Tensor, "b g s e"],
    blocks_idx: Integer[Tensor, "b l n k"],
    log_weights: Float[Tensor, "b g s"] | None = None,
    *,
    query_block: int,
    key_block: int,
    causal: bool = False,
    scale: float | None = None,
) -> Attention:
    """The reference's `attend`; half precision is computed in float32, in which `lse` stays."""
    listed = check(q, k, v, blocks_idx, log_weights, query_block, key_block)
    (b, h, t, d), (g, s, e), (lists, n, slots) = q.shape, v.shape[1:], listed.shape[1:]
    scale, shared = d**-0.5 if scale is None else scale, h // lists
    wide = torch.promote_types(q.dtype, torch.float32)
    if not slots or not s:
        return Attention(q.new_zeros(b, h, t, e), q.new_full((b, h, t), -torch.inf, dtype=wide))

    rows = _pad(q.to(wide), n * query_block - t).view(b, lists, shared, n, query_block, d)
    rows = rows.transpose(2, 3).reshape(b * lists * n, shared * query_block, d)
    # What is fetched at once: a block, or one key where blocks do not fill each head.
    unit = 1 if s % key_block else key_block
    keys, values = (a.to(wide).contiguous().view(b * g * s // unit, unit, a.shape[3]) for a in (k, v))
    weights = None if log_weights is None else log_weights.to(wide).reshape(b * g * s // unit, unit)

    empty = listed < 0
    start = listed.where(~empty, listed[..., :1].clamp(min=0)) * key_block  # an empty slot repeats the first
    head = (torch.arange(b * lists, device=q.device) // (lists // g) * s).view(b, lists, 1, 1)
    walk = _Walk(((head + start) // unit).view(-1, slots), key_block)
    if unit < key_block:
        walk = walk._replace(last=(head + s - 1).expand(b, lists, n, 1).reshape(-1, 1))
    if causal or unit < key_block or empty.any():
        seen = _seen(n, t, s, query_block, causal, q.device).repeat(b * lists, shared)
        walk = walk._replace(start=start.where(~empty, s).view(-1, slots), seen=seen)

    def by_head(x: Tensor) -> Tensor:
        x = x.view(b, lists, n, shared, query_block, *x.shape[2:]).transpose(2, 3)
        return x.flatten(3, 4).flatten(1, 2)[:, :, :t]

    out, lse = _Listed.apply(rows, keys, values, weights, walk, scale)
    return Attention(by_head(out).to(q.dtype), by_head(lse))


def merge(a: Attention, b: Attention) -> Attention:
    if a.out.shape != b.out.shape:
        raise ValueError(f"results of shape {tuple(a.out.shape)} and {tuple(b.out.shape)} do not merge")
    top = torch.maximum(a.lse, b.lse).detach().clamp(min=torch.finfo(a.lse.dtype).min)
    share_a, share_b = (a.lse - top).exp(), (b.lse - top).exp()
    total = share_a + share_b
    seen = total > 0
    total = total.where(seen, 1)
    out = (share_a / total).unsqueeze(-1) * a.out + (share_b / total).unsqueeze(-1) * b.out
    return Attention(out.to(a.out.dtype), (top + total.log()).where(seen, -torch.inf))


def cells(
    blocks_idx: Integer[Tensor, "b l n k"],
    *,
    t: int,
    s: int,
    query_block: int,
    key_block: int,
    causal: bool = False,
) -> Integer[Tensor, "b l"]:
    check_lists(blocks_idx, t, s, query_block, key_block)
    seen = _seen(blocks_idx.shape[2], t, s, query_block, causal, blocks_idx.device).unsqueeze(1)
    start = blocks_idx.unsqueeze(-1) * key_block
    shown = (torch.minimum(seen, start + key_block) - start).clamp(min=0)
    return shown.where(start >= 0, 0).sum(dim=(2, 3, 4))


class _Walk(NamedTuple):
    """Which keys each list walks, and which of them its rows do not see; None where nothing is to be told."""

    first: Tensor  # first unit of each block among those of all key heads, "lists slots"
    key_block: int
    last: Tensor | None = None  # last unit of the list's key head where a unit is one key, "lists 1"
    start: Tensor | None = None  # position of each block's first key; s for an empty slot, "lists slots"
    seen: Tensor | None = None  # how many keys of its head each row sees, "lists r"

    def split(self, step: int) -> Iterator["_Walk"]:
        parts = (repeat(a) if a is None or isinstance(a, int) else a.split(step) for a in self)
        return map(_Walk._make, zip(*parts, strict=False))

    def units(self) -> Tensor:
        """The units in the order of the walk; at the last one of a head it stands still."""
        if self.last is None:
            return self.first.flatten()
        units = self.first.unsqueeze(2) + torch.arange(self.key_block, device=self.first.device)
        return torch.minimum(units, self.last.unsqueeze(2)).flatten()

    def hide(self, logits: Tensor) -> None:
        """Put -inf where a row does not see a key; most blocks are seen whole, and are left alone."""
        if self.seen is None:
            return
        one, slot = (self.start + self.key_block > self.seen[:, :1]).nonzero(as_tuple=True)
        places = self.start[one, slot].unsqueeze(1) + torch.arange(self.key_block, device=logits.device)
        hidden = places.unsqueeze(1) >= self.seen[one].unsqueeze(2)
        blocks = logits.unflatten(2, self.first.shape[1:] + (self.key_block,))
        blocks[one, :, slot] = blocks[one, :, slot].masked_fill(hidden, -torch.inf)


class _Listed(torch.autograd.Function):
    """Attention of `rows` "lists r d" over the walks of their lists through `keys` and `values`."""

    @staticmethod
    def forward(ctx, rows, keys, values, weights, walk, scale):
        (lists, r, d), e, width = rows.shape, values.shape[2], walk.first.shape[1] * walk.key_block
        out, top, total = (rows.new_empty(lists, r, size) for size in (e, 1, 1))
        few = r <= FEW and fit(rows, keys) and fit(rows, values)
        gathered = 0 if few else width * max(d, e)
        step = _step(rows, gathered + width * r)
        tile, logits = rows.new_empty(step * gathered), rows.new_empty(step, r, width)
        pieces = zip(*(a.split(step) for a in (rows, walk, out, top, total)), strict=True)
        for q, part, o, most, sums in pieces:
            units, x = part.units(), logits[: q.shape[0]]
            if few:
                _logits_in_place(q, keys, weights, units, part, scale, x)
            else:
                _logits(q, _take(keys, units, tile, width), weights, units, part, scale, x)
            torch.amax(x, dim=-1, keepdim=True, out=most)
            torch.sum(x.sub_(most).exp2_(), dim=-1, keepdim=True, out=sums)
            if few:
                loops.total(len(x), x, values, _by_list(units, x, values), o, work=x.numel() * e)
            else:  # the keys are spent: the values take their place, so that the chunk stays in cache
                torch.bmm(x, _take(values, units, tile, width), out=o)
            o.div_(sums)
        blind = top == -torch.inf  # such a row is 0 / 0 so far
        lse = top.add_(total.log2_()).mul_(LN2)
        if blind.any():
            out.masked_fill_(blind, 0)
            lse.masked_fill_(blind, -torch.inf)
        lse = lse.squeeze(-1)
        ctx.save_for_backward(rows, keys, values, weights, out, lse)
        ctx.walk, ctx.scale = walk, scale
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out, grad_lse):
        (rows, keys, values, weights, out, lse), walk = ctx.saved_tensors, ctx.walk
        (_, r, d), e, width = rows.shape, values.shape[2], walk.first.shape[1] * walk.key_block
        grad_out = grad_out.contiguous()
        mean = ((grad_out * out).sum(dim=-1) - grad_lse).unsqueeze(-1)
        lse = (lse.where(lse > -torch.inf, 0) / LN2).unsqueeze(-1)
        grad_rows, grad_keys, grad_values = torch.empty_like(rows), *map(torch.zeros_like, (keys, values))
        grad_weights = None if weights is None else torch.zeros_like(weights)
        step = _step(rows, width * (d + e + 2 * r))
        some_keys, some_values = rows.new_empty(step * width * d), rows.new_empty(step * width * e)
        logits, slopes = rows.new_empty(2, step, r, width)
        pieces = zip(*(a.split(step) for a in (rows, walk, grad_out, lse, mean, grad_rows)), strict=True)
        for q, part, g, norm, centre, grad_q in pieces:
            units, p = part.units(), logits[: q.shape[0]]
            k, v = _take(keys, units, some_keys, width), _take(values, units, some_values, width)
            _logits(q, k, weights, units, part, ctx.scale, p).sub_(norm).exp2_()
            slope = torch.bmm(g, v.mT, out=slopes[: q.shape[0]]).sub_(centre).mul_(p)
            torch.bmm(slope, k, out=grad_q)
            # Keys and values are spent: what flows back into them takes their place.
            _add(grad_keys, units, torch.bmm(slope.mT, q, out=k))
            _add(grad_values, units, torch.bmm(p.mT, g, out=v))
            if weights is not None:
                _add(grad_weights, units, slope.sum(dim=1))
        return grad_rows.mul_(ctx.scale), grad_keys.mul_(ctx.scale), grad_values, grad_weights, None, None


def _logits(q, keys, weights, units, walk, scale, out) -> Tensor:
    """Logits in base 2 of some lists against their gathered keys, "lists r width", written to `out`."""
    torch.baddbmm(out.new_empty(()), q, keys.mT, beta=0, alpha=scale / LN2, out=out)
    return _weigh(out, weights, units, walk)


def _logits_in_place(q, keys, weights, units, walk, scale, out) -> Tensor:
    """The same from the keys where they lie."""
    loops.logits(len(q), q, keys, _by_list(units, out, keys), scale / LN2, out, work=out.numel() * q.shape[2])
    return _weigh(out, weights, units, walk)


def _by_list(units: Tensor, logits: Tensor, keys: Tensor) -> Tensor:
    return units.view(logits.shape[0], logits.shape[2] // keys.shape[1])


def _weigh(logits: Tensor, weights: Tensor | None, units: Tensor, walk: _Walk) -> Tensor:
    """Add the keys' own weights, and hide what a row does not see, in place."""
    if weights is not None:
        logits.add_(weights[units].view(logits.shape[0], 1, logits.shape[2]), alpha=1 / LN2)
    walk.hide(logits)
    return logits


def _step(rows: Tensor, numbers: int) -> int:
    """How many lists to take at once where each has so many numbers in flight."""
    room = CHUNK if rows.device.type == "cpu" else 256 * CHUNK  # a GPU wants more to do at once
    return max(min(room // numbers, rows.shape[0]), 1)


def _take(x: Tensor, units: Tensor, buffer: Tensor, width: int) -> Tensor:
    """The rows of the listed units, "lists width d", written to `buffer`."""
    taken = buffer[: units.shape[0] * x.shape[1] * x.shape[2]].view(units.shape[0], *x.shape[1:])
    torch.index_select(x, 0, units, out=taken)
    return taken.view(units.shape[0] * x.shape[1] // width, width, x.shape[2])


def _add(x: Tensor, units: Tensor, rows: Tensor) -> None:
    """Add to the listed units, in place."""
    x.index_add_(0, units, rows.view(units.shape[0], *x.shape[1:]))


def _pad(x: Tensor, rows: int) -> Tensor:
    return F.pad(x, (0, 0, 0, rows)) if rows else x


def _seen(n: int, t: int, s: int, query_block: int, causal: bool, device: torch.device) -> Tensor:
    """How many keys each query's position shows it, "n query_block"; rows that fill up a block see none."""
    i = torch.arange(n * query_block, device=device).view(n, query_block)
    seen = (i + s - t + 1).clamp(0, s) if causal else torch.full_like(i, s)
    return seen.where(i < t, 0)


def check(q, k, v, blocks_idx, log_weights, query_block, key_block) -> Tensor:
    """The lists as `check_lists` gives them; ValueError where these are no arguments of `attend`."""
    shapes = tuple(tuple(a.shape) for a in (q, k, v))
    if {q.ndim, k.ndim, v.ndim} != {4} or k.shape != (*v.shape[:3], q.shape[3]) or len(q) != len(k):
        raise ValueError("q {}, k {} and v {} are not b h t d, b g s d and b g s e".format(*shapes))
    (b, h, t, _), (g, s) = q.shape, k.shape[1:3]
    listed = check_lists(blocks_idx, t, s, query_block, key_block)
    lists, shape = blocks_idx.shape[1], tuple(blocks_idx.shape)
    if len(blocks_idx) != b or min(g, lists) < 1 or lists % g or h % lists:
        raise ValueError(
            f"blocks_idx {shape} is not b l n k: b={b}, g={g} must divide l, and l must divide h={h}"
        )
    if log_weights is not None and log_weights.shape != k.shape[:3]:
        shapes = tuple(log_weights.shape), tuple(k.shape[:3])
        raise ValueError("log_weights {} needs one entry for each key: {}".format(*shapes))
    return listed


def check_lists(blocks_idx, t, s, query_block, key_block) -> Tensor:
    """The lists from the last block down, empty slots at the end; ValueError where they are none."""
    if query_block < 1 or key_block < 1:
        raise ValueError(f"query_block={query_block} and key_block={key_block} must be at least 1")
    queries, blocks, shape = -(-t // query_block), -(-s // key_block), tuple(blocks_idx.shape)
    if blocks_idx.ndim != 4 or blocks_idx.shape[2] != queries:
        raise ValueError(f"blocks_idx {shape} is not b l n k with n={queries}: {t} queries by {query_block}")
    if blocks_idx.is_floating_point() or blocks_idx.dtype == torch.bool:
        raise ValueError(f"blocks_idx {shape} must hold integers")
    outside = (blocks_idx < -1) | (blocks_idx >= blocks)
    ordered = blocks_idx.contiguous().sort(dim=-1, descending=True).values
    twice = (ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)
    if not (outside.any() | twice.any()):
        return ordered
    if outside.any():
        block = blocks_idx[outside][0]
        raise ValueError(f"block {block} is on a list, but {s} keys make {blocks} blocks of {key_block}")
    block = ordered[..., 1:][twice][0]
    raise ValueError(f"block {block} is twice on one list, which would count its keys twice")
