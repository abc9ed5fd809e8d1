"""TEAL in the gated byte model: each linear map of a block reads the columns whose input survives."""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.lazy.teal import fast as teal
from sparselab.models import Decoder, FFNWeights, TinyLM, activations


class Cuts(NamedTuple):
    """Up to which magnitude a block drops what each of its linear maps reads; gate and up read the same."""

    qkv: Tensor
    project: Tensor
    up: Tensor
    down: Tensor


POINTS = Cuts(qkv="attention.x", project="attention.mixed", up="ffn.x", down="ffn.hidden")


@torch.no_grad()
def calibrate(model: TinyLM, tokens: Tensor, *, sparsity: float) -> list[Cuts]:
    """Of each block, the cuts that drop this share of every input on a calibration text."""
    seen = activations(model, tokens, [f"blocks.*.{point}" for point in POINTS])
    return [
        Cuts(*(teal.calibrate(seen[f"blocks.{i}.{point}"], sparsity=sparsity) for point in POINTS))
        for i in range(len(model.blocks))
    ]


def masks(cuts: Sequence[Cuts]) -> dict[str, Callable[[Tensor], Tensor]]:
    """The same for all positions of a batch, where nothing is skipped: for `reaching`."""
    return {
        f"blocks.{i}.{point}": partial(teal.sparsify, cut=cut)
        for i, of_block in enumerate(cuts)
        for point, cut in zip(POINTS, of_block, strict=True)
    }


def decoder(model: TinyLM, cuts: Sequence[Cuts]) -> Decoder:
    """The model one byte at a time, where all linear maps of its blocks skip columns; it stays as it is."""
    skipping = copy.deepcopy(model)
    for block, of_block in zip(skipping.blocks, cuts, strict=True):
        attention = block.attention
        attention.qkv = Skipping(attention.qkv.weight, of_block.qkv)
        attention.project = Skipping(attention.project.weight, of_block.project)
    return Decoder(skipping, ffn=[partial(decode_ffn, cuts=of_block) for of_block in cuts])


def decode_ffn(w: FFNWeights, *, cuts: Cuts) -> Callable[[Tensor], Tensor]:
    """The gated layer for one token; gate and up of one input lie side by side, so that both are one run."""
    gate_up, down = Skipping(torch.cat((w.gate, w.up)), cuts.up), Skipping(w.down, cuts.down)

    def ffn(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2)
        return down(F.gelu(gate) * up)

    return ffn


class Skipping(nn.Module):
    """`W x` for one token, with the columns of W stored as rows."""

    def __init__(self, weight: Tensor, cut: Tensor):
        super().__init__()
        self.columns, self.cut = weight.detach().T.contiguous(), cut

    def forward(self, x: Tensor) -> Tensor:
        return teal.gemv(self.columns.T, x, self.cut)
