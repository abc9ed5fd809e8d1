"""Selected rows in torch: a few at a time through the cache for the products, in place for the sum."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["dot", "total"]

ROWS = 128  # copied at once: they are read again from the cache, not from memory


def dot(table: Float[Tensor, "m d"], idx: Int[Tensor, " k"], x: Float[Tensor, " d"]) -> Float[Tensor, " k"]:
    if len(x) != table.shape[1]:
        raise ValueError(f"x has {len(x)} entries, a row of the table {table.shape[1]}")
    _check(table, idx)
    return torch.cat([table.index_select(0, part) @ x for part in idx.split(ROWS)])


def total(
    table: Float[Tensor, "m d"], idx: Int[Tensor, " k"], weight: Float[Tensor, " k"]
) -> Float[Tensor, " d"]:
    """A contiguous table is cut into a strip of columns for each thread: one bag is one thread's work."""
    if len(weight) != len(idx):
        raise ValueError(f"{len(weight)} weights for {len(idx)} rows")
    _check(table, idx)
    parts = torch.get_num_threads() if table.is_contiguous() else 1
    parts = 1 if table.shape[1] % parts else parts
    strip = torch.arange(parts, device=idx.device)
    cut = table.view(-1, table.shape[1] // parts) if parts > 1 else table
    pieces = (parts * idx + strip[:, None]).flatten()
    return F.embedding_bag(
        pieces, cut, len(idx) * strip, mode="sum", per_sample_weights=weight.repeat(parts)
    ).flatten()


def _check(table: Tensor, idx: Tensor) -> None:
    if len(idx) and not 0 <= int(idx.min()) <= int(idx.max()) < len(table):
        raise ValueError(f"rows {idx.min()} to {idx.max()} are asked for, the table has {len(table)}")
