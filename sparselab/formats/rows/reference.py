"""Selected rows in NumPy: the definition."""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["dot", "total"]


def dot(
    table: Float[np.ndarray, "m d"], idx: Int[np.ndarray, " k"], x: Float[np.ndarray, " d"]
) -> Float[np.ndarray, " k"]:
    """table[idx] x: the product of each selected row with x.

    Raises ValueError where x has another width than the table and for a row that is not there.
    """
    if len(x) != table.shape[1]:
        raise ValueError(f"x has {len(x)} entries, a row of the table {table.shape[1]}")
    _check(table, idx)
    return np.array([table[row] @ x for row in idx], dtype=table.dtype)


def total(
    table: Float[np.ndarray, "m d"], idx: Int[np.ndarray, " k"], weight: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " d"]:
    """weight^T table[idx]: the selected rows, each times its weight, added up.

    A row may be selected twice and counts twice then; nothing selected gives zeros. Raises ValueError where
    there are not as many weights as rows and for a row that is not there.
    """
    if len(weight) != len(idx):
        raise ValueError(f"{len(weight)} weights for {len(idx)} rows")
    _check(table, idx)
    out = np.zeros(table.shape[1])
    for i, row in enumerate(idx):
        out += weight[i] * table[row]
    return out


def _check(table: np.ndarray, idx: np.ndarray) -> None:
    if len(idx) and not 0 <= idx.min() <= idx.max() < len(table):
        raise ValueError(f"rows {idx.min()} to {idx.max()} are asked for, the table has {len(table)}")
