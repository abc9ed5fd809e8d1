"""What a block costs when it is left out: lost attention mass bounds the error, and predicts it."""

import numpy as np

from sparselab.attention.block_sparse import fast


def measure(seed: int) -> dict[str, float]:
    """Random lists of 2 to 7 of 8 blocks against all 8: 2 heads, 128 queries, clustered keys and values."""
    import torch

    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(2, 1, 8, 32))
    k, v = (torch.from_numpy(rng.normal(size=(1, 2, 128, 32)) + topic.repeat(16, axis=1)) for topic in topics)
    q = torch.from_numpy(2 * rng.normal(size=(1, 2, 128, 32)))
    lists = rng.permuted(np.tile(np.arange(8), (1, 2, 16, 1)), axis=-1)
    kept = rng.integers(2, 8, size=(1, 2, 16, 1))
    some = torch.from_numpy(np.where(np.arange(8) < kept, lists, -1))
    sizes = dict(query_block=8, key_block=16)
    whole, part = (fast.attend(q, k, v, idx, **sizes) for idx in (torch.from_numpy(lists), some))
    error = (whole.out - part.out).norm(dim=-1).flatten()
    lost = (1 - (part.lse - whole.lse).exp()).flatten()
    diameter = torch.cdist(v, v).amax(dim=(2, 3)).repeat_interleave(128, dim=1).flatten()
    return {
        "largest_error_over_bound": float((error / (lost * diameter)).max()),
        "rank_correlation": float(torch.corrcoef(torch.stack((error, lost)).argsort().argsort())[0, 1]),
        "mean_lost_mass": float(lost.mean()),
        "density": float(fast.cells(some, t=128, s=128, **sizes).sum() / (2 * 128 * 128)),
    }
