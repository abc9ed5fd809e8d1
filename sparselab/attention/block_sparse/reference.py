"""Block-sparse attention in NumPy: the definition, an online softmax over the listed blocks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

__all__ = ["attend", "merge", "cells"]


class Attention(NamedTuple):
    """Attention over a set of keys, with the log-sum-exp of its logits; no key seen: out 0, lse -inf."""

    out: Float[np.ndarray, "b h t e"]
    lse: Float[np.ndarray, "b h t"]


def attend(
    q: Float[np.ndarray, "b h t d"],
    k: Float[np.ndarray, "b g s d"],
    v: Float[np.ndarray, "b g s e"],
    blocks_idx: Integer[np.ndarray, "b l n k"],
    log_weights: Float[np.ndarray, "b g s"] | None = None,
    *,
    query_block: int,
    key_block: int,
    causal: bool = False,
    scale: float | None = None,
) -> Attention:
    """Softmax attention of each query over the keys of the blocks on its list (FlashAttention, algorithm 5).

        out[i] = sum_j e^(x_ij - lse[i]) v_j,  lse[i] = log sum_j e^x_ij
        x_ij = scale q_i.k_j + log_weights[j],  j over the listed blocks

    `blocks_idx[b, l, n]` lists, in any order and with -1 for an empty slot, the key blocks that queries
    `n query_block` up to `(n + 1) query_block` read. Block j holds keys `j key_block` up to
    `(j + 1) key_block`; the last block of either kind may be short. h/l consecutive heads share a list, h/g
    share a key head. `causal` hides later keys, the last query standing at the last key whatever t and s are.
    The log weight of a pooled key is the log of the number of keys it stands for; -inf removes a key.
    `scale` is 1/sqrt(d) unless given.

    Raises ValueError for shapes that do not fit, a block out of range, and a block twice on one list.
    """
    check(q, k, v, blocks_idx, log_weights, query_block, key_block)
    (b, h, t, d), (g, s, e), lists = q.shape, v.shape[1:], blocks_idx.shape[1]
    scale = d**-0.5 if scale is None else scale
    out, lse = np.zeros((b, h, t, e)), np.full((b, h, t), -np.inf)
    for batch, head, i in np.ndindex(b, h, t):
        keys, values = k[batch, head // (h // g)], v[batch, head // (h // g)]
        seen = max(i + s - t + 1, 0) if causal else s
        top, total, mixed = -np.inf, 0.0, np.zeros(e)
        listed = blocks_idx[batch, head // (h // lists), i // query_block]
        for block in listed[listed >= 0]:
            tile = slice(block * key_block, min((block + 1) * key_block, seen))
            x = scale * keys[tile] @ q[batch, head, i]
            if log_weights is not None:
                x = x + log_weights[batch, head // (h // g), tile]
            new_top = max(top, x.max(initial=-np.inf))
            if new_top == -np.inf:
                continue  # nothing to see so far, and -inf - -inf is no number
            p, rescale = np.exp(x - new_top), np.exp(top - new_top)
            total = rescale * total + p.sum()
            mixed = rescale * mixed + p @ values[tile]
            top = new_top
        if total > 0:
            out[batch, head, i], lse[batch, head, i] = mixed / total, top + np.log(total)
    return Attention(out, lse)


def merge(a: Attention, b: Attention) -> Attention:
    """Attention over the union of two disjoint key sets from the two results.

        lse = log(e^lse_a + e^lse_b),  out = e^(lse_a - lse) out_a + e^(lse_b - lse) out_b

    Keys in both sets count twice. Raises ValueError where the shapes differ.
    """
    if a.out.shape != b.out.shape:
        raise ValueError(f"results of shape {a.out.shape} and {b.out.shape} do not merge")
    out, lse = np.zeros_like(a.out), np.full_like(a.lse, -np.inf)
    for row in np.ndindex(*lse.shape):
        top = max(a.lse[row], b.lse[row])
        if top > -np.inf:
            lse[row] = top + np.log(np.exp(a.lse[row] - top) + np.exp(b.lse[row] - top))
            out[row] = sum(np.exp(part.lse[row] - lse[row]) * part.out[row] for part in (a, b))
    return Attention(out, lse)


def cells(
    blocks_idx: Integer[np.ndarray, "b l n k"],
    *,
    t: int,
    s: int,
    query_block: int,
    key_block: int,
    causal: bool = False,
) -> Integer[np.ndarray, "b l"]:
    """Query-key pairs that each list head shows: over `t s`, or the causal half of it, this is the density.

    A pair counts where `attend` lets the query see the key; hidden cells of a listed block do not.
    Raises ValueError as `attend` does.
    """
    check_lists(blocks_idx, t, s, query_block, key_block)
    shown = np.zeros(blocks_idx.shape[:2], int)
    for batch, head, i in np.ndindex(*blocks_idx.shape[:2], t):
        seen = i + s - t + 1 if causal else s
        listed = blocks_idx[batch, head, i // query_block]
        for block in listed[listed >= 0]:
            shown[batch, head] += max(min((block + 1) * key_block, seen, s) - block * key_block, 0)
    return shown


def check(q, k, v, blocks_idx, log_weights, query_block, key_block):
    """Raise ValueError where these are no arguments of `attend`."""
    if {q.ndim, k.ndim, v.ndim} != {4} or k.shape != (*v.shape[:3], q.shape[3]) or len(q) != len(k):
        raise ValueError(f"q {q.shape}, k {k.shape} and v {v.shape} are not b h t d, b g s d and b g s e")
    (b, h, t, _), (g, s) = q.shape, k.shape[1:3]
    check_lists(blocks_idx, t, s, query_block, key_block)
    lists, shape = blocks_idx.shape[1], blocks_idx.shape
    if len(blocks_idx) != b or min(g, lists) < 1 or lists % g or h % lists:
        raise ValueError(
            f"blocks_idx {shape} is not b l n k: b={b}, g={g} must divide l, and l must divide h={h}"
        )
    if log_weights is not None and log_weights.shape != k.shape[:3]:
        raise ValueError(f"log_weights {log_weights.shape} needs one entry for each key: {k.shape[:3]}")


def check_lists(blocks_idx, t, s, query_block, key_block):
    """Raise ValueError where these are no lists for t queries and s keys."""
    if query_block < 1 or key_block < 1:
        raise ValueError(f"query_block={query_block} and key_block={key_block} must be at least 1")
    queries, blocks = -(-t // query_block), -(-s // key_block)
    if blocks_idx.ndim != 4 or blocks_idx.shape[2] != queries:
        raise ValueError(
            f"blocks_idx {blocks_idx.shape} is not b l n k with n={queries}: {t} queries by {query_block}"
        )
    if not np.issubdtype(blocks_idx.dtype, np.integer):
        raise ValueError(f"blocks_idx {blocks_idx.shape} must hold integers")
    outside = blocks_idx[(blocks_idx < -1) | (blocks_idx >= blocks)]
    if outside.size:
        raise ValueError(f"block {outside[0]} is on a list, but {s} keys make {blocks} blocks of {key_block}")
    ordered = -np.sort(-blocks_idx, axis=-1)
    twice = ordered[..., 1:][(ordered[..., 1:] == ordered[..., :-1]) & (ordered[..., 1:] >= 0)]
    if twice.size:
        raise ValueError(f"block {twice[0]} is twice on one list, which would count its keys twice")
