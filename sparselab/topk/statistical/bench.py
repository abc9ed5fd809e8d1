"""Statistical top-k beside the selection it replaces and the way it is usually written."""

from statistics import NormalDist

import numpy as np
import torch

from sparselab.bench import Case, Peer

ROWS, N = 256, 18432
K = N * 8 // 100


def topk_and_scatter(x, k):
    """The hard selection that the threshold replaces."""
    values, top = x.topk(k, dim=-1)
    return torch.zeros_like(x).scatter_(-1, top, values)


def mean_and_std(x, k):
    """As the operator is written in released code."""
    z = NormalDist().inv_cdf(1 - k / x.shape[-1])
    cut = x.mean(-1, keepdim=True) + z * x.std(-1, keepdim=True, unbiased=False)
    return torch.relu(x - cut)


def two_moments(x, k):
    """The same with the standard deviation from a sum of squares: fast, and wrong where the mean is large."""
    z = NormalDist().inv_cdf(1 - k / x.shape[-1])
    mean = x.mean(-1, keepdim=True)
    std = (x.square().mean(-1, keepdim=True) - mean.square()).clamp_min(0).sqrt()
    return torch.relu(x - (mean + z * std))


CASES = [
    Case(
        id="T2",
        text=f"soft threshold at {K} (8 %) of {N} in {ROWS} rows",
        op="soft",
        inputs={
            "gaussian": lambda rng: dict(x=rng.standard_normal((ROWS, N)), k=K),
            "heavy tail": lambda rng: dict(x=rng.standard_t(3, (ROWS, N)), k=K),
            "ties: rounded": lambda rng: dict(x=np.round(rng.standard_normal((ROWS, N))), k=K),
        },
        peers={
            "torch.topk + scatter": Peer(topk_and_scatter, same=False),
            "mean and torch.std": Peer(mean_and_std),
            "two moments": Peer(two_moments),
        },
        read=4 * ROWS * N,
        written=4 * ROWS * N,
        levels={"on par": 8.0, "excellent": 13.0, "beyond": 20.0},
    )
]
