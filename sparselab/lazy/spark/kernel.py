"""Decoding one token in Triton: predict, select, gather.

The predictor reads K1 and leaves, of each block of neurons, its scores and their two moments; one program
merges the moments, cuts and lists the survivors in order; the last kernel reads K2 and V at those alone. No
atomics: the same bits every time. Backward runs `fast`, since nobody trains token by token.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparselab.kernels import require
from sparselab.topk.statistical.fast import counts

from . import fast
from .fast import check_keys, check_values

triton, tl = require(__name__)

__all__ = ["decode"]

PROGRAMS = 256  # of the gather: each adds up its share of the active neurons, then the shares are summed
BM = 16  # neurons of a block
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def decode(q: Tensor, K1: Tensor, K2: Tensor, V: Tensor, *, k: int) -> Tensor:
    """Store all three column by column (`K1.T` contiguous, and so on): a neuron is then a row of each."""
    check_keys(q, K1, K2)
    check_values(q, K1, V)
    _, lift = counts(K1.new_empty(K1.shape[1]), k, None)
    if q.dtype not in DTYPES:
        raise ValueError(f"the kernel takes float32, float16 or bfloat16, not {q.dtype} {tuple(q.shape)}")
    if not (q.is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(f"the kernel needs q {tuple(q.shape)} on a GPU, not on {q.device}: use fast there")
    return _Decode.apply(q, K1, K2, V, lift, k)


class _Decode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, K1, K2, V, lift, k):
        ctx.save_for_backward(q, K1, K2, V)
        ctx.k = k
        (r, m), e, d = K1.shape, len(K2), len(V)
        score, active = q.new_empty(2, m, dtype=torch.float32)
        blocks, programs = triton.cdiv(m, BM), min(PROGRAMS, m)
        mean, spread = q.new_empty(2, blocks, dtype=torch.float32)
        neurons, count = q.new_empty(m, dtype=torch.int32), q.new_empty(1, dtype=torch.int32)
        part, q = q.new_empty(programs, d, dtype=torch.float32), q.contiguous()
        _predict[(blocks,)](q, K1, score, mean, spread, m, r, *K1.stride(), BM=BM, BR=_block(r, 256))
        chosen = neurons, active, count
        sizes = dict(BM=BM, BB=_block(blocks), BN=_block(m, 4096))
        _select[(1,)](score, mean, spread, lift, *chosen, m, blocks, **sizes)
        sizes = dict(BE=_block(e), BD=_block(d))
        strides = *K2.stride(), *V.stride()
        _gather[(programs,)](q, K2, V, *chosen, part, r, e, d, programs, *strides, **sizes)
        return part.sum(0).to(q.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        with torch.enable_grad():
            inputs = [a.detach().requires_grad_() for a in ctx.saved_tensors]
            out = fast.decode(*inputs, k=ctx.k)
        return *torch.autograd.grad(out, inputs, grad), None, None


def _block(n: int, most: int = 2**20) -> int:
    """The power of two that covers n."""
    return min(most, triton.next_power_of_2(max(n, 1)))


@triton.jit
def _predict(
    p_q, p_k, p_u, p_mean, p_spread, m, r, stride_r, stride_m, BM: tl.constexpr, BR: tl.constexpr
):  # fmt: skip
    """Scores of a block of neurons, their mean and the sum of squares about it."""
    i_m = tl.program_id(0)
    o_m = i_m * BM + tl.arange(0, BM)
    m_m = o_m < m
    b_u = tl.zeros([BM], tl.float32)
    for i_r in range(0, r, BR):
        o_r = i_r + tl.arange(0, BR)
        b_q = tl.load(p_q + o_r, mask=o_r < r, other=0.0).to(tl.float32)
        p_tile = p_k + o_m.to(tl.int64)[:, None] * stride_m + o_r[None, :] * stride_r
        b_k = tl.load(p_tile, mask=m_m[:, None] & (o_r < r)[None, :], other=0.0)  # [BM, BR]
        b_u += tl.sum(b_k.to(tl.float32) * b_q[None, :], 1)
    tl.store(p_u + o_m, b_u, mask=m_m)
    # Differences from one score: a constant row then has spread 0 exactly.
    b_n = tl.sum(m_m.to(tl.float32), 0)
    b_first = tl.sum(tl.where(tl.arange(0, BM) == 0, b_u, 0.0), 0)
    b_lift = tl.sum(tl.where(m_m, b_u - b_first, 0.0), 0) / b_n
    b_centred = tl.where(m_m, b_u - b_first - b_lift, 0.0)
    tl.store(p_mean + i_m, b_first + b_lift)
    tl.store(p_spread + i_m, tl.sum(b_centred * b_centred, 0))


@triton.jit
def _select(
    p_u, p_mean, p_spread, p_lift, p_neurons, p_active, p_count, m, blocks,
    BM: tl.constexpr, BB: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """theta from the blocks' moments; then the survivors, in order, with gelu(score - theta)."""
    o_b = tl.arange(0, BB)
    m_b = o_b < blocks
    b_n = tl.where(m_b, tl.minimum(BM, m - o_b * BM), 0).to(tl.float32)
    b_first = tl.load(p_mean)
    b_mean = tl.load(p_mean + o_b, mask=m_b, other=0.0)
    mean = b_first + tl.sum(tl.where(m_b, b_n * (b_mean - b_first), 0.0), 0) / m
    b_apart = tl.where(m_b, b_mean - mean, 0.0)
    b_spread = tl.load(p_spread + o_b, mask=m_b, other=0.0)
    theta = mean + tl.sqrt(tl.sum(b_spread + b_n * b_apart * b_apart, 0)) * tl.load(p_lift)
    count = 0
    for i_n in range(0, m, BN):
        o_n = i_n + tl.arange(0, BN)
        b_z = tl.where(o_n < m, tl.load(p_u + o_n, mask=o_n < m, other=0.0) - theta, 0.0)
        m_z = b_z > 0
        o_z = count + tl.cumsum(m_z.to(tl.int32), 0) - 1
        tl.store(p_neurons + o_z, o_n, mask=m_z)
        tl.store(p_active + o_z, 0.5 * b_z * (1 + tl.erf(b_z * 0.7071067811865476)), mask=m_z)
        count += tl.sum(m_z.to(tl.int32), 0)
    tl.store(p_count, count)


@triton.jit
def _gather(
    p_q, p_k, p_v, p_neurons, p_active, p_count, p_part, r, e, d, programs,
    stride_ke, stride_km, stride_vd, stride_vm, BE: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Every `programs`-th survivor: active * <K2 row, q[r:]> times its row of V, added up."""
    i_p = tl.program_id(0)
    o_e, o_d = tl.arange(0, BE), tl.arange(0, BD)
    b_q = tl.load(p_q + r + o_e, mask=o_e < e, other=0.0).to(tl.float32)
    b_y = tl.zeros([BD], tl.float32)
    for i_z in range(i_p, tl.load(p_count), programs):
        i_m = tl.load(p_neurons + i_z).to(tl.int64)
        b_k = tl.load(p_k + i_m * stride_km + o_e * stride_ke, mask=o_e < e, other=0.0).to(tl.float32)
        b_v = tl.load(p_v + i_m * stride_vm + o_d * stride_vd, mask=o_d < d, other=0.0).to(tl.float32)
        b_y += tl.load(p_active + i_z) * tl.sum(b_k * b_q, 0) * b_v
    tl.store(p_part + i_p * d + o_d, b_y, mask=o_d < d)
