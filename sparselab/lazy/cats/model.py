"""CATS in the gated byte model, whose gate is a GELU where the paper's is a SiLU."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.formats.rows import fast as rows
from sparselab.lazy.cats import fast as cats
from sparselab.models import FFNWeights, TinyLM, activations


@torch.no_grad()
def calibrate(model: TinyLM, tokens: Tensor, *, sparsity: float) -> list[Tensor]:
    """Of each block, the cut that drops this share of the gates on a calibration text."""
    inputs = activations(model, tokens, "blocks.*.ffn.x").values()
    return [
        cats.calibrate(F.gelu(x @ block.ffn.gate.T), sparsity=sparsity)
        for block, x in zip(model.blocks, inputs, strict=True)
    ]


def hidden(x: Tensor, w: FFNWeights, *, cut: Tensor) -> Tensor:
    """The gated layer with the weak gates at zero, for all positions of a batch."""
    gate = F.gelu(x @ w.gate.mT)
    return torch.where(gate.abs() > cut, gate * (x @ w.up.mT), 0)


def decode_ffn(w: FFNWeights, *, cut: Tensor) -> Callable[[Tensor], Tensor]:
    """The layer for one token: the gate whole, of up and down the rows of the neurons that survive."""
    down = w.down.T.contiguous()

    def ffn(x: Tensor) -> Tensor:
        gate = F.gelu(w.gate @ x)
        kept = (gate.abs() > cut).nonzero().squeeze(1)
        return rows.total(down, kept, gate[kept] * rows.dot(w.up, kept, x))

    return ffn
