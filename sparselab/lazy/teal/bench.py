"""TEAL's GEMV beside the dense one, and beside the gather that everybody writes first."""

import numpy as np
import torch
from torch.nn import functional as F

from sparselab.bench import Case, Peer

N = 4096


def product(sparsity):
    """A square matrix stored by columns, and a token of which the share `sparsity` falls below the cut."""

    def draw(rng):
        x = rng.standard_normal(N, dtype=np.float32)
        cut = np.quantile(abs(x), sparsity)
        return dict(w=rng.standard_normal((N, N), dtype=np.float32).T, x=x, cut=np.float32(cut).reshape(()))

    return draw


def dense(w, x, cut):
    """Every column, those below the cut times zero."""
    return torch.mv(w, torch.where(x.abs() > cut, x, 0))


def active(w, x, cut):
    """Share of the entries above the cut."""
    return [float((x.abs() > cut).float().mean())]


def row_major(given):
    return given | {"w": given["w"].contiguous()}


def copied(w, x, cut):
    """The columns that are kept, copied out and multiplied."""
    kept = (x.abs() > cut).nonzero().squeeze(1)
    return torch.mv(w.T[kept].T, x[kept])


def one_by_one(w, x, cut):
    """The columns that are kept, summed where they lie, one after the other."""
    kept = (x.abs() > cut).nonzero().squeeze(1)
    return F.embedding_bag(kept[None], w.T, mode="sum", per_sample_weights=x[kept][None])[0]


def case(percent, **levels):
    kept = N * (100 - percent) // 100
    return Case(
        id=f"D2 {percent} %",
        text=f"one token times {N} x {N}, {percent} % of its entries below the cut",
        op="gemv",
        inputs={"gaussian": product(percent / 100)},
        peers={
            "torch.mv": Peer(dense, read=4 * N * N, prepare=row_major),
            "torch.mv, by columns": Peer(dense, read=4 * N * N),
            "embedding_bag": Peer(one_by_one),
            "index_select": Peer(copied),
        },
        read=4 * N * kept,
        sets=8,
        active=active,
        levels=levels,
        rtol=1e-3,
        atol=1e-2,
    )


CASES = [
    case(50, **{"on par": 1.5, "excellent": 1.75, "beyond": 1.9}),
    case(70, **{"on par": 2.7, "excellent": 3.0, "beyond": 3.2}),
    case(90, **{"on par": 7.0, "excellent": 8.5, "beyond": 9.5}),
]
