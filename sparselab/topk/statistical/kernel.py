"""Statistical top-k in Triton: one program per row, forward and backward.

The forward pass reads a row once for both moments and again, from the cache, for the result: nothing else of
the row's length is written. Statistics are float32 whatever the dtype of x.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparselab.kernels import require
from sparselab.topk.statistical.fast import as_rows, counts, first_visible, refuse_short_rows

triton, tl = require(__name__)

__all__ = ["soft"]


def soft(x: Tensor, *, k: int, mask: Tensor | None = None) -> Tensor:
    count, lift = counts(x, k, mask)
    if mask is not None:
        refuse_short_rows(count, k)
    return _Soft.apply(*map(as_rows, (x, mask, count, lift))).reshape(x.shape)


class _Soft(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mask, count, lift):
        out = torch.empty_like(x)
        first = first_visible(x, mask).float()
        mean, norm = torch.empty_like(first), torch.empty_like(first)
        seen = None if mask is None else mask.view(torch.uint8)
        row = (x, seen, first, count.float(), lift.float(), mean, norm)
        if len(x):
            _forward[(len(x),)](*row, out, x.shape[1], **_shape(x.shape[1]))
        ctx.save_for_backward(*row, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        *row, out = ctx.saved_tensors
        dx, n = torch.empty_like(out), out.shape[1]
        if len(out):
            _backward[(len(out),)](*row, out, grad.contiguous(), dx, n, **_shape(n))
        return dx, None, None, None


def _shape(n: int) -> dict[str, int]:
    """One block holds a row of up to 16 Ki entries, 32 for each thread; a longer row takes several."""
    block = min(triton.next_power_of_2(n), 2**14)
    return {"BN": block, "num_warps": max(1, block // 1024)}


@triton.jit
def _load(p_x, p_mask, first, i_r, o_n, n):
    """Entries of row i_r less its first one (0 where not visible), and which are visible."""  # [BN]
    m_n = o_n < n
    b_x = tl.load(p_x + i_r * n + o_n, mask=m_n, other=0.0).to(tl.float32)
    if p_mask is not None:
        m_n = m_n & (tl.load(p_mask + i_r * n + o_n, mask=m_n, other=0) != 0)
    return tl.where(m_n, b_x - first, 0.0), m_n


@triton.jit
def _forward(p_x, p_mask, p_first, p_count, p_lift, p_mean, p_norm, p_out, n, BN: tl.constexpr):
    i_r = tl.program_id(0).to(tl.int64)
    first = tl.load(p_first + i_r)
    seen, mean, square = 0.0, 0.0, 0.0
    for i_n in range(0, n, BN):
        b_x, m_n = _load(p_x, p_mask, first, i_r, i_n + tl.arange(0, BN), n)
        here = tl.sum(m_n.to(tl.float32))
        b_mean = tl.sum(b_x) / tl.maximum(here, 1.0)
        b_x = tl.where(m_n, b_x - b_mean, 0.0)
        # Two samples become one (Chan, Golub and LeVeque 1983): no large squares are subtracted.
        share = here / tl.maximum(seen + here, 1.0)
        square += tl.sum(b_x * b_x) + (b_mean - mean) * (b_mean - mean) * seen * share
        mean += (b_mean - mean) * share
        seen += here
    norm = tl.sqrt(square)
    tl.store(p_mean + i_r, mean)
    tl.store(p_norm + i_r, norm)
    theta = norm * tl.load(p_lift + i_r)
    for i_n in range(0, n, BN):
        o_n = i_n + tl.arange(0, BN)
        b_x, m_n = _load(p_x, p_mask, first, i_r, o_n, n)
        b_out = b_x - mean - theta
        b_out = tl.where(m_n, tl.where(b_out <= 0, 0.0, b_out), 0.0)  # NaN is not <= 0 and stays
        tl.store(p_out + i_r * n + o_n, b_out.to(p_out.dtype.element_ty), mask=o_n < n)


@triton.jit
def _backward(
    p_x, p_mask, p_first, p_count, p_lift, p_mean, p_norm, p_out, p_grad, p_dx, n, BN: tl.constexpr
):  # fmt: skip
    i_r = tl.program_id(0).to(tl.int64)
    total = 0.0
    for i_n in range(0, n, BN):
        total += tl.sum(_alive(p_grad, p_out, i_r, i_n + tl.arange(0, BN), n))
    first, mean, norm = tl.load(p_first + i_r), tl.load(p_mean + i_r), tl.load(p_norm + i_r)
    level = total / tl.maximum(tl.load(p_count + i_r), 1.0)
    slope = total * tl.load(p_lift + i_r) / tl.where(norm > 0, norm, 1.0)  # norm 0 multiplies zeros
    for i_n in range(0, n, BN):
        o_n = i_n + tl.arange(0, BN)
        b_x, m_n = _load(p_x, p_mask, first, i_r, o_n, n)
        b_dx = _alive(p_grad, p_out, i_r, o_n, n) - level - (b_x - mean) * slope
        b_dx = tl.where(m_n, b_dx, 0.0)
        tl.store(p_dx + i_r * n + o_n, b_dx.to(p_dx.dtype.element_ty), mask=o_n < n)


@triton.jit
def _alive(p_grad, p_out, i_r, o_n, n):
    """The incoming gradient at survivors, 0 elsewhere."""  # [BN]
    b_out = tl.load(p_out + i_r * n + o_n, mask=o_n < n, other=0.0)
    b_grad = tl.load(p_grad + i_r * n + o_n, mask=o_n < n, other=0.0).to(tl.float32)
    return tl.where(b_out > 0, b_grad, 0.0)
