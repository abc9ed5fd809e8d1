"""Spark's decode beside the same layer computed dense, and beside other ways to leave neurons out."""

import numpy as np
import torch
from torch.nn import functional as F

from sparselab.bench import Case, Peer
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


WHOLE = 4 * 2 * D * M
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
        levels={"on par": 2.5, "excellent": 3.1, "beyond": 3.35},
        rtol=1e-3,
        atol=1e-2,
    )
]
