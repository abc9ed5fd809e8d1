"""Lazy neurons in the byte model: how `lm_relu` decodes, and `lm_topk`, made as sparse as `lm_spark`."""

from collections.abc import Callable

from torch import Tensor

from sparselab.formats.rows import fast as rows
from sparselab.lazy.lazy_neuron import fast
from sparselab.models import FFNWeights
from sparselab.train import idle_down_block, lm

NEURONS, K = 512, 41  # 8 %


def hidden(x: Tensor, w: FFNWeights) -> Tensor:
    """The K largest of relu(up x)."""
    return fast.topk_relu(x @ w.up.T, k=K)


def decode_ffn(w: FFNWeights) -> Callable[[Tensor], Tensor]:
    """A ReLU layer for one token at a time: of `down` only the active neurons are read, each a row."""
    V = w.down.T.contiguous()
    return lambda x: fast.gather_ffn(x[None], w.up.T, V.T)[0]


def decode_topk_ffn(w: FFNWeights) -> Callable[[Tensor], Tensor]:
    """The same for `hidden`: of `down` only the K largest are read."""
    V = w.down.T.contiguous()

    def ffn(x: Tensor) -> Tensor:
        a = hidden(x, w)
        neuron = a.nonzero().squeeze(1)
        return rows.total(V, neuron, a[neuron])

    return ffn


RECIPES = {"lm_topk": lm("Top-k ReLU", ffn=hidden, neurons=NEURONS, flops=idle_down_block)}
