"""TEAL's product in Triton: a tile of W is loaded where its inputs survive, and the inputs are split in runs.

A program owns some outputs and one run of inputs. Rows of a tile whose input is dropped are masked out of the
load, so that their bytes are not moved; each program writes its own sum and torch adds the runs: no atomics,
the same bits every time.
"""

import torch
from torch import Tensor

from sparselab.kernels import require

triton, tl = require(__name__)

__all__ = ["gemv"]

BO, BI, RUN = 64, 32, 512  # outputs of a program, inputs of a tile, inputs of a run
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def gemv(w: Tensor, x: Tensor, cut: Tensor) -> Tensor:
    """Store W column by column (`w.T` contiguous): what is not loaded is then whole memory transactions."""
    if w.shape[1] != len(x):
        raise ValueError(f"w has {w.shape[1]} inputs, x has {len(x)}")
    if x.dtype not in DTYPES:
        raise ValueError(f"the kernel takes float32, float16 or bfloat16, not {x.dtype} {tuple(x.shape)}")
    if not (x.is_cuda or triton.knobs.runtime.interpret):
        raise ValueError(f"the kernel needs x {tuple(x.shape)} on a GPU, not on {x.device}: use fast there")
    (o, i), runs = w.shape, triton.cdiv(len(x), RUN)
    part = w.new_empty(runs, o, dtype=torch.float32)
    if part.numel():
        grid = triton.cdiv(o, BO), runs
        _gemv[grid](w, x.contiguous(), cut, part, o, i, *w.stride(), BO=BO, BI=BI, RUN=RUN)
    return part.sum(0).to(x.dtype)


@triton.jit
def _gemv(
    p_w, p_x, p_cut, p_part, o, i, stride_o, stride_i, BO: tl.constexpr, BI: tl.constexpr, RUN: tl.constexpr
):  # fmt: skip
    i_run = tl.program_id(1)
    o_o = tl.program_id(0) * BO + tl.arange(0, BO)
    cut = tl.load(p_cut)
    b_y = tl.zeros([BO], tl.float32)
    for i_i in range(0, RUN, BI):
        o_i = i_run * RUN + i_i + tl.arange(0, BI)
        b_x = tl.load(p_x + o_i, mask=o_i < i, other=0.0)
        m_x = (tl.abs(b_x) > cut) & (o_i < i)
        p_tile = p_w + o_i.to(tl.int64)[:, None] * stride_i + o_o[None, :] * stride_o
        b_w = tl.load(p_tile, mask=m_x[:, None] & (o_o < o)[None, :], other=0.0)  # [BI, BO]
        b_y += tl.sum(b_w.to(tl.float32) * tl.where(m_x, b_x, 0.0).to(tl.float32)[:, None], 0)
    tl.store(p_part + i_run * o + o_o, b_y, mask=o_o < o)
