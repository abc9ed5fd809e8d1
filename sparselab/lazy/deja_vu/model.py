"""Deja Vu in the ReLU byte model: a predictor for each block says which neurons are computed."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from sparselab.lazy.deja_vu import fast as deja_vu
from sparselab.models import FFNWeights


def hidden(x: Tensor, w: FFNWeights, *, params: deja_vu.Params, keep: int) -> Tensor:
    """The ReLU layer with all neurons but the predicted at zero, for all positions of a batch."""
    chosen = deja_vu.select(params, x.flatten(0, -2), keep=keep)
    return F.relu(x @ w.up.mT) * chosen.unflatten(0, x.shape[:-1])


def decode_ffn(w: FFNWeights, *, params: deja_vu.Params, keep: int) -> Callable[[Tensor], Tensor]:
    """The layer for one token: the predictor whole, of up and down the rows of the predicted neurons."""
    K, V = w.up.T, w.down.T.contiguous().T
    return lambda x: deja_vu.ffn(params, x[None], K, V, keep=keep)[0]
