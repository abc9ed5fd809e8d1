"""Exact top-k beside torch.topk and NumPy's partial sort."""

import numpy as np

from sparselab.bench import Case, Peer
from sparselab.topk.exact.fast import TopK


def torch_topk(x, k):
    """What everybody calls."""
    return TopK(*x.topk(k))


def numpy_argpartition(x, k):
    """Partial sort of the places, then a sort of the k."""
    rows, n = x.cpu().numpy(), x.shape[-1]
    top = np.argpartition(rows, n - k, axis=-1)[:, n - k :]
    values = np.take_along_axis(rows, top, axis=-1)
    order = np.argsort(-values, axis=-1)
    return TopK(np.take_along_axis(values, order, axis=-1), np.take_along_axis(top, order, axis=-1))


def numpy_partition(x, k):
    """Partial sort of the values alone: less than was asked for."""
    n = x.shape[-1]
    return np.sort(np.partition(x.cpu().numpy(), n - k, axis=-1)[:, n - k :], axis=-1)[:, ::-1]


def laws(rows, n, k):
    """Four laws: what decides the time is how many entries come near the k-th."""
    return {
        "gaussian": lambda rng: dict(x=rng.standard_normal((rows, n)), k=k),
        "heavy tail": lambda rng: dict(x=rng.standard_t(2, (rows, n)), k=k),
        "sorted": lambda rng: dict(x=np.sort(rng.standard_normal((rows, n))), k=k),
        "ties: few positive": lambda rng: dict(x=np.maximum(rng.standard_normal((rows, n)) - 3.5, 0), k=k),
    }


def case(label, rows, n, k, **levels):
    """One size on all laws."""
    return Case(
        id=label,
        text=f"the {k} largest of {n} in {rows} rows, values and indices",
        op="topk",
        inputs=laws(rows, n, k),
        peers={
            "torch.topk": Peer(torch_topk),
            "np.argpartition": Peer(numpy_argpartition),
            "np.partition (values)": Peer(numpy_partition, same=False),
        },
        read=4 * rows * n,
        levels=levels,
    )


CASES = [
    case("T1a", 256, 16384, 64, **{"on par": 1.0, "excellent": 1.5, "beyond": 4.0}),
    case("T1b", 64, 65536, 64, **{"on par": 1.0, "excellent": 2.3, "beyond": 4.0}),
]
