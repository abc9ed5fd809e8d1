"""Spark's decode beside dense decode: one layer, and a whole model at several densities."""

import os
from functools import cache, partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from sparselab.bench import Case, Peer
from sparselab.lazy.spark import fast as spark
from sparselab.models import Decoder, TinyLM
from sparselab.topk.statistical import fast as statistical

D, M, R = 2304, 13824, 1024  # the feed-forward layer of a model of two billion weights
K = M * 8 // 100


def layer(rng):
    """A token and a layer, stored so that a neuron is a row of each matrix."""
    K1, K2, V = (rng.standard_normal((M, e), dtype=np.float32).T for e in (R, D - R, D))
    return dict(q=rng.standard_normal(D, dtype=np.float32), K1=K1, K2=K2, V=V, k=K)


def dense(q, K1, K2, V, k):
    """All products, as the layer is trained."""
    active = F.gelu(statistical.soft(torch.mv(K1.T, q[:R]), k=k))
    return torch.mv(V, active * torch.mv(K2.T, q[R:]))


def active(q, K1, K2, V, k):
    """Share of the neurons that pass the threshold; k is what it aims at."""
    return [float(statistical.soft(torch.mv(K1.T, q[:R]), k=k).count_nonzero()) / M]


def row_major(given):
    """V as a model stores it: an output is a row."""
    return given | {"V": given["V"].contiguous()}


def hard(q, K1, K2, V, k):
    """The k largest by `torch.topk`; the survivors are not shifted."""
    active, neuron = torch.mv(K1.T, q[:R]).topk(k)
    h = F.gelu(active) * torch.mv(K2.T[neuron], q[R:])
    return F.embedding_bag(neuron[None], V.T, mode="sum", per_sample_weights=h[None])[0]


def copied(q, K1, K2, V, k):
    """Both gathers as copies."""
    active = statistical.soft(torch.mv(K1.T, q[:R]), k=k)
    neuron = active.nonzero().squeeze(1)
    h = F.gelu(active[neuron]) * torch.mv(K2.T[neuron], q[R:])
    return torch.mv(V.T[neuron].T, h)


@cache
def large() -> TinyLM:
    """Random weights in the shape of a model of two billion.

    A column of `down` lies in one piece: a neuron is a row of all three matrices, for dense and sparse alike.
    """
    with torch.device("meta"):
        model = TinyLM(width=D, heads=9, neurons=M, layers=LAYERS)
    model.to_empty(device="cpu")
    with torch.no_grad():
        for block in model.blocks:
            block.ffn.down = nn.Parameter(torch.empty(M, D).T)
        for weight in model.parameters():
            weight.normal_(std=weight.shape[-1] ** -0.5) if weight.ndim > 1 else weight.fill_(1)
    return model.requires_grad_(False)


def layers() -> int:
    """Its 26 layers, or as many as two fifths of the memory hold."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", ()):
        return 8
    return max(1, min(26, int(0.4 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / LAYER)))


class Writer:
    """A decoder that is given one more byte with each call."""

    def __init__(self, ffn):
        self.decoder, self.text = Decoder(large(), ffn=ffn), [0]

    def __call__(self):
        self.text = [*self.text, len(self.text)] if len(self.text) < self.decoder.context else [0]
        return self.decoder(self.text)


def skipping(w, k):
    return lambda q: spark.decode(q, w.up[:, :R].T, w.up[:, R:].T, w.down, k=k)


def computed(w, k):
    return lambda q: dense(q, w.up[:, :R].T, w.up[:, R:].T, w.down, k)


def active_by_layer(k):
    """Shares of the neurons that pass each layer's threshold for the second byte."""
    found = []

    def counting(w):
        def ffn(q):
            keys = w.up[:, :R].T, w.up[:, R:].T
            found.extend(active(q, *keys, w.down, k))
            return dense(q, *keys, w.down, k)

        return ffn

    writer = Writer(counting)
    writer()
    found.clear()
    writer()
    return found


def model_case(percent):
    """A byte through the whole model, with `percent` of the neurons active."""
    k = M * percent // 100
    return Case(
        id=f"E1 {percent:02d} %",
        text=f"one byte through {LAYERS} layers {D} wide, {k} of {M} neurons in each, attention dense",
        op="decode",
        ours=lambda sparse, whole: sparse(),
        inputs={
            "random weights": lambda rng: dict(
                sparse=Writer(partial(skipping, k=k)), whole=Writer(partial(computed, k=k))
            )
        },
        peers={"dense": Peer(lambda sparse, whole: whole(), read=LAYERS * LAYER)},
        active=lambda sparse, whole: active_by_layer(k),
        read=LAYERS * (LAYER - WHOLE + 4 * (R * M + (2 * D - R) * k)),
        cpu_only=True,
        levels={"faster": 1.0},
        rtol=1e-2,
        atol=1e-2,
    )


WHOLE = 4 * 2 * D * M
LAYER = WHOLE + 4 * 4 * D * D
LAYERS = layers()
CASES = [
    Case(
        id="D1",
        text=f"feed-forward layer of one token, {D} wide, {K} of {M} neurons, predictor of {R} coordinates",
        op="decode",
        inputs={"gaussian": layer},
        peers={
            "dense": Peer(dense, read=WHOLE),
            "dense, V by outputs": Peer(dense, read=WHOLE, prepare=row_major),
            "hard top-k": Peer(hard, same=False),
            "gathers by copy": Peer(copied),
        },
        read=4 * (R * M + (2 * D - R) * K),
        sets=4,
        active=active,
        levels={"on par": 2.5, "excellent": 3.1, "beyond": 3.35},
        rtol=1e-3,
        atol=1e-2,
    ),
    *map(model_case, (1, 2, 4, 8, 16, 32, 50, 75)),
]
