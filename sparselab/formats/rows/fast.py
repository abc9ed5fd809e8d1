"""Selected rows in torch; on a CPU, where no gradient is asked for, in compiled loops that torch counts."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from sparselab.loops import fit

from . import loops

__all__ = ["dot", "total"]


def dot(table: Float[Tensor, "m d"], idx: Int[Tensor, " k"], x: Float[Tensor, " d"]) -> Float[Tensor, " k"]:
    if len(x) != table.shape[1]:
        raise ValueError(f"x has {len(x)} entries, a row of the table {table.shape[1]}")
    if fit(table, x):
        return torch.ops.sparselab.rows_dot.default(table, idx, x)
    _check(table, idx)
    return table.index_select(0, idx) @ x


def total(
    table: Float[Tensor, "m d"], idx: Int[Tensor, " k"], weight: Float[Tensor, " k"]
) -> Float[Tensor, " d"]:
    if len(weight) != len(idx):
        raise ValueError(f"{len(weight)} weights for {len(idx)} rows")
    if fit(table, weight):
        return torch.ops.sparselab.rows_total.default(table, idx, weight)
    _check(table, idx)
    return F.embedding_bag(idx, table, idx.new_zeros(1), mode="sum", per_sample_weights=weight)[0]


def _dot(table, idx, x):
    out = x.new_empty(len(idx))
    if not loops.dot(len(idx), table, idx, x, out, work=len(idx) * len(x)):
        _check(table, idx)
    return out


def _total(table, idx, weight):
    out = weight.new_zeros(table.shape[1])
    if not loops.total(len(out), table, idx, weight, out, work=len(idx) * len(out)):
        _check(table, idx)
    return out


def _check(table: Tensor, idx: Tensor) -> None:
    if len(idx) and not 0 <= int(idx.min()) <= int(idx.max()) < len(table):
        raise ValueError(f"rows {idx.min()} to {idx.max()} are asked for, the table has {len(table)}")


# Operators of torch, so that it counts them as it counts its own (models/meter).
_operators = torch.library.Library("sparselab", "FRAGMENT")
_operators.define("rows_dot(Tensor table, Tensor idx, Tensor x) -> Tensor")
_operators.define("rows_total(Tensor table, Tensor idx, Tensor weight) -> Tensor")
_operators.impl("rows_dot", _dot, "CPU")
_operators.impl("rows_total", _total, "CPU")
