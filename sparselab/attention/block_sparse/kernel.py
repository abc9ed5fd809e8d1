"""Block-sparse attention in Triton: one program walks one list, forward and backward.

A list is read as one run of keys, slot after slot, in tiles that need not match its blocks, so blocks of 1
and of 2048 keys cost the same per key. The rows of a list are the queries of its block under all heads that
share it. For the keys' gradients the lists are transposed: a key block walks the rows of all lists that name
it. Each number is written by one program: no atomics, the same bits every time.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparselab.kernels import require

from .fast import Attention, cells, check, merge

triton, tl = require(__name__)

__all__ = ["attend", "merge", "cells"]  # merge and cells are a few elementwise steps: torch's own kernels do

LOG2E = tl.constexpr(1.4426950408889634)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    blocks_idx: Tensor,
    log_weights: Tensor | None = None,
    *,
    query_block: int,
    key_block: int,
    causal: bool = False,
    scale: float | None = None,
) -> Attention:
    """The reference's `attend` for float32, float16 and bfloat16; sums and `lse` are float32."""
    lists = check(q, k, v, blocks_idx, log_weights, query_block, key_block)
    if q.dtype not in DTYPES:
        raise ValueError(f"the kernel takes float32, float16 or bfloat16, not {q.dtype} {tuple(q.shape)}")
    if triton.knobs.runtime.interpret and q.dtype == torch.bfloat16:  # it would multiply the bits as integers
        raise ValueError(
            f"Triton's interpreter cannot multiply bfloat16 (q {tuple(q.shape)}): use float32 in it"
        )
    if not (q.is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(f"the kernel needs q {tuple(q.shape)} on a GPU, not on {q.device}: use fast there")
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    if causal:  # blocks that lie after a list's last query are as good as empty
        last = (torch.arange(lists.shape[2], device=q.device) + 1) * query_block - 1 + k.shape[2] - q.shape[2]
        lists = lists.where(lists * key_block <= last.view(-1, 1), -1)
        lists = lists.sort(dim=-1, descending=True).values
    lists = lists.to(torch.int32)
    return Attention(*_Attend.apply(q, k, v, lists, log_weights, query_block, key_block, causal, scale))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, lists, log_weights, query_block, key_block, causal, scale):
        q, k, v, lists = (a.contiguous() for a in (q, k, v, lists))
        weights = None if log_weights is None else log_weights.float().contiguous()
        out = q.new_empty(*q.shape[:3], v.shape[3])
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        used = (lists >= 0).sum(dim=-1, dtype=torch.int32)
        sizes, grid, walk = _sizes(q, k, v, lists, query_block, key_block, causal)
        if q.numel():
            _forward[grid](q, k, v, weights, lists, used, out, lse, scale, **sizes, **walk)
        ctx.save_for_backward(q, k, v, weights, lists, used, out, lse)
        ctx.launch, ctx.scale = (sizes, grid, walk), scale
        return out, lse

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out, grad_lse):
        q, k, v, weights, lists, used, out, lse = ctx.saved_tensors
        grad_out, (sizes, grid, walk) = grad_out.contiguous(), ctx.launch
        mean = (grad_out.float() * out.float()).sum(dim=-1) - grad_lse
        grad_q, grad_k, grad_v = (torch.empty_like(a) for a in (q, k, v))
        grad_weights = None if weights is None else torch.empty_like(weights)
        shared = (q, k, v, weights, lse, grad_out, mean)
        if q.numel():
            _backward_queries[grid](*shared, lists, used, grad_q, ctx.scale, **sizes, **walk)
        if k.numel():
            ends, names = _transpose(lists, k.shape[1], -(-k.shape[2] // sizes["KB"]))
            tile = dict(BM=_tile(q, v), BN=_tile(q, v, sizes["KB"]))
            grid = (len(ends) - 1, triton.cdiv(sizes["KB"], tile["BN"]))
            gradients = (grad_k, grad_v, grad_weights)
            _backward_keys[grid](*shared, ends, names, *gradients, ctx.scale, **sizes, **tile)
        return grad_q, grad_k, grad_v, None, grad_weights, None, None, None, None


def _sizes(q, k, v, lists, query_block, key_block, causal) -> tuple[dict, tuple[int, int], dict]:
    """Sizes that all kernels share; grid, and further sizes, of the two that walk a list for its rows."""
    (_, h, t, d), (_, g, s, e), (heads, _, slots) = q.shape, v.shape, lists.shape[1:]
    rows = h // heads * query_block
    sizes = dict(
        t=t, s=s, D=d, E=e, QB=query_block, KB=key_block, ROWS=rows, SHARED=h // heads, CAUSAL=causal
    )
    sizes |= dict(BD=max(16, triton.next_power_of_2(d)), BE=max(16, triton.next_power_of_2(e)))
    tile = dict(BM=_tile(q, v, rows), BN=_tile(q, v, slots * key_block))
    grid = (lists.shape[:3].numel(), triton.cdiv(rows, tile["BM"]))
    return sizes, grid, dict(slots=slots, LISTS=heads // g, **tile)


def _tile(q: Tensor, v: Tensor, length: int = 64) -> int:
    """Rows of a tile over so many rows: a power of two from 16, which the tensor cores need, to 16 KiB."""
    most = 64 if max(q.shape[3], v.shape[3]) * q.element_size() <= 256 else 32
    return min(most, max(16, triton.next_power_of_2(length)))


def _transpose(lists: Tensor, g: int, blocks: int) -> tuple[Tensor, Tensor]:
    """(ends, names): block i of all key heads' blocks is on the lists `names[ends[i]:ends[i + 1]]`."""
    b, heads, _, slots = lists.shape
    key_head = torch.arange(b * heads, device=lists.device).view(b, heads, 1, 1) // (heads // g)
    named = (key_head * blocks + lists).where(lists >= 0, b * g * blocks).flatten()
    named, order = named.sort(stable=True)
    ends = torch.searchsorted(named, torch.arange(b * g * blocks + 1, device=lists.device))
    return ends, (order // max(slots, 1)).to(torch.int32)


@triton.jit
def _place(o_r, i_list, n, t, QB, SHARED):
    """Query position of row o_r of a list, and its place among all "b h t" rows."""
    o_t = i_list % n * QB + o_r % QB
    return o_t, ((i_list // n).to(tl.int64) * SHARED + o_r // QB) * t + o_t


@triton.jit
def _listed(p_list, o_c, count, i_head, s, KB):
    """Key positions of places o_c of a list's run of keys, their rows among all "b g s" keys, which exist."""
    b_block = tl.load(p_list + o_c // KB, mask=o_c < count * KB, other=-1)
    o_s = b_block * KB + o_c % KB
    m_s = (b_block >= 0) & (o_s < s)
    return o_s, i_head.to(tl.int64) * s + o_s, m_s


@triton.jit
def _load(p_x, o_x, m_x, D, BD: tl.constexpr):
    """Rows o_x of a matrix of width D, zeros where masked or beyond it."""
    o_d = tl.arange(0, BD)
    return tl.load(p_x + o_x[:, None] * D + o_d[None, :], mask=m_x[:, None] & (o_d < D)[None, :], other=0.0)


@triton.jit
def _store(p_x, o_x, m_x, b_x, D, BD: tl.constexpr):
    o_d = tl.arange(0, BD)
    p_x += o_x[:, None] * D + o_d[None, :]
    tl.store(p_x, b_x.to(p_x.dtype.element_ty), mask=m_x[:, None] & (o_d < D)[None, :])


@triton.jit
def _logits(b_q, b_k, p_w, o_k, o_t, o_s, m_t, m_s, scale, t, s, CAUSAL: tl.constexpr):
    """Logits in base 2, -inf where a query does not see a key: [BM, BN]."""
    b_x = tl.dot(b_q, tl.trans(b_k), input_precision="ieee") * (scale * LOG2E)
    if p_w is not None:
        b_x += (tl.load(p_w + o_k, mask=m_s, other=0.0) * LOG2E)[None, :]
    m_x = m_t[:, None] & m_s[None, :]
    if CAUSAL:
        m_x &= o_s[None, :] <= (o_t + s - t)[:, None]
    return tl.where(m_x, b_x, -float("inf"))


@triton.jit
def _forward(
    p_q, p_k, p_v, p_w, p_lists, p_used, p_out, p_lse, scale, t, s, slots,
    D: tl.constexpr, E: tl.constexpr, QB: tl.constexpr, KB: tl.constexpr, ROWS: tl.constexpr,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    LISTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    i_list, n = tl.program_id(0), tl.cdiv(t, QB)
    i_head = i_list // n // LISTS
    o_r = tl.program_id(1) * BM + tl.arange(0, BM)
    o_t, o_q = _place(o_r, i_list, n, t, QB, SHARED)
    m_t = (o_r < ROWS) & (o_t < t)
    b_q = _load(p_q, o_q, m_t, D, BD)  # [BM, BD]
    b_top = tl.full([BM], -float("inf"), tl.float32)
    b_sum = tl.zeros([BM], tl.float32)
    b_out = tl.zeros([BM, BE], tl.float32)
    count = tl.load(p_used + i_list)
    p_list = p_lists + i_list.to(tl.int64) * slots
    for i_c in range(0, count * KB, BN):
        o_s, o_k, m_s = _listed(p_list, i_c + tl.arange(0, BN), count, i_head, s, KB)
        b_k, b_v = _load(p_k, o_k, m_s, D, BD), _load(p_v, o_k, m_s, E, BE)  # [BN, BD], [BN, BE]
        b_x = _logits(b_q, b_k, p_w, o_k, o_t, o_s, m_t, m_s, scale, t, s, CAUSAL)  # [BM, BN]
        b_new = tl.maximum(b_top, tl.max(b_x, 1))
        b_from = tl.where(b_new == -float("inf"), 0.0, b_new)  # -inf - -inf is no number
        b_p, b_rescale = tl.exp2(b_x - b_from[:, None]), tl.exp2(b_top - b_from)
        b_sum = b_sum * b_rescale + tl.sum(b_p, 1)
        b_out = b_out * b_rescale[:, None] + tl.dot(b_p.to(b_v.dtype), b_v, input_precision="ieee")
        b_top = b_new
    b_sum = tl.where(b_sum > 0, b_sum, 1.0)
    _store(p_out, o_q, m_t, b_out / b_sum[:, None], E, BE)
    tl.store(p_lse + o_q, (b_top + tl.log2(b_sum)) / LOG2E, mask=m_t)


@triton.jit
def _slopes(b_x, b_lse, b_g, b_v, b_mean):
    """Weights and gradient of the logits, [BM, BN] each: p = 2^(x - lse), p (g v^T - mean)."""
    b_p = tl.exp2(b_x - (tl.where(b_lse == -float("inf"), 0.0, b_lse) * LOG2E)[:, None])
    return b_p, b_p * (tl.dot(b_g, tl.trans(b_v), input_precision="ieee") - b_mean[:, None])


@triton.jit
def _backward_queries(
    p_q, p_k, p_v, p_w, p_lse, p_g, p_mean, p_lists, p_used, p_dq, scale, t, s, slots,
    D: tl.constexpr, E: tl.constexpr, QB: tl.constexpr, KB: tl.constexpr, ROWS: tl.constexpr,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    LISTS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    i_list, n = tl.program_id(0), tl.cdiv(t, QB)
    i_head = i_list // n // LISTS
    o_r = tl.program_id(1) * BM + tl.arange(0, BM)
    o_t, o_q = _place(o_r, i_list, n, t, QB, SHARED)
    m_t = (o_r < ROWS) & (o_t < t)
    b_q, b_g = _load(p_q, o_q, m_t, D, BD), _load(p_g, o_q, m_t, E, BE)  # [BM, BD], [BM, BE]
    b_lse, b_mean = tl.load(p_lse + o_q, mask=m_t, other=0.0), tl.load(p_mean + o_q, mask=m_t, other=0.0)
    b_dq = tl.zeros([BM, BD], tl.float32)
    count = tl.load(p_used + i_list)
    p_list = p_lists + i_list.to(tl.int64) * slots
    for i_c in range(0, count * KB, BN):
        o_s, o_k, m_s = _listed(p_list, i_c + tl.arange(0, BN), count, i_head, s, KB)
        b_k, b_v = _load(p_k, o_k, m_s, D, BD), _load(p_v, o_k, m_s, E, BE)  # [BN, BD], [BN, BE]
        b_x = _logits(b_q, b_k, p_w, o_k, o_t, o_s, m_t, m_s, scale, t, s, CAUSAL)  # [BM, BN]
        b_p, b_slope = _slopes(b_x, b_lse, b_g, b_v, b_mean)
        b_dq += tl.dot(b_slope.to(b_k.dtype), b_k, input_precision="ieee")
    _store(p_dq, o_q, m_t, b_dq * scale, D, BD)


@triton.jit
def _backward_keys(
    p_q, p_k, p_v, p_w, p_lse, p_g, p_mean, p_ends, p_names, p_dk, p_dv, p_dw, scale, t, s,
    D: tl.constexpr, E: tl.constexpr, QB: tl.constexpr, KB: tl.constexpr, ROWS: tl.constexpr,
    SHARED: tl.constexpr, CAUSAL: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    i_block, n, blocks = tl.program_id(0), tl.cdiv(t, QB), tl.cdiv(s, KB)
    o_c = tl.program_id(1) * BN + tl.arange(0, BN)
    o_s = i_block % blocks * KB + o_c
    o_k = (i_block // blocks).to(tl.int64) * s + o_s
    m_s = (o_c < KB) & (o_s < s)
    b_k, b_v = _load(p_k, o_k, m_s, D, BD), _load(p_v, o_k, m_s, E, BE)  # [BN, BD], [BN, BE]
    b_dk = tl.zeros([BN, BD], tl.float32)
    b_dv = tl.zeros([BN, BE], tl.float32)
    b_dw = tl.zeros([BN], tl.float32)
    i_end = tl.load(p_ends + i_block)
    rows = (tl.load(p_ends + i_block + 1) - i_end) * ROWS
    for i_v in range(0, rows, BM):
        o_v = i_v + tl.arange(0, BM)  # rows of all lists that name this block, one list after the other
        b_list = tl.load(p_names + i_end + o_v // ROWS, mask=o_v < rows, other=0)
        o_t, o_q = _place((o_v % ROWS).to(tl.int32), b_list, n, t, QB, SHARED)
        m_t = (o_v < rows) & (o_t < t)
        b_q, b_g = _load(p_q, o_q, m_t, D, BD), _load(p_g, o_q, m_t, E, BE)  # [BM, BD], [BM, BE]
        b_lse, b_mean = tl.load(p_lse + o_q, mask=m_t, other=0.0), tl.load(p_mean + o_q, mask=m_t, other=0.0)
        b_x = _logits(b_q, b_k, p_w, o_k, o_t, o_s, m_t, m_s, scale, t, s, CAUSAL)  # [BM, BN]
        b_p, b_slope = _slopes(b_x, b_lse, b_g, b_v, b_mean)
        b_dv += tl.dot(tl.trans(b_p.to(b_g.dtype)), b_g, input_precision="ieee")
        b_dk += tl.dot(tl.trans(b_slope.to(b_q.dtype)), b_q, input_precision="ieee")
        b_dw += tl.sum(b_slope, 0)
    _store(p_dk, o_k, m_s, b_dk * scale, D, BD)
    _store(p_dv, o_k, m_s, b_dv, E, BE)
    if p_dw is not None:
        tl.store(p_dw + o_k, b_dw, mask=m_s)
