"""Block-sparse attention beside dense attention and the two ways torch has to leave blocks out."""

from functools import cache
from shutil import which

import numpy as np
import torch
from torch.nn import functional as F

from sparselab.bench import Case, Peer

HEADS, T, D, BLOCK, KEPT = 8, 4096, 64, 64, 6
CACHED, TOP = 32768, 51


def dense(q, k, v, blocks_idx, *, causal=False, **_):
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def masked(q, k, v, blocks_idx, **sizes):
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask(blocks_idx, k.shape[2], **sizes))


def flex(q, k, v, blocks_idx, **sizes):
    return compiled_flex()(q, k, v, block_mask=flex_mask(blocks_idx, k.shape[2], **sizes))


@cache
def mask(blocks_idx, s, *, query_block, key_block, causal=False):
    """The dense mask that the lists mean, made once: only attention is timed."""
    listed = table(blocks_idx, s // key_block)
    full = listed.repeat_interleave(query_block, 2).repeat_interleave(key_block, 3)
    return full.tril() if causal else full


@cache
def flex_mask(blocks_idx, s, *, query_block, key_block, causal=False):
    from torch.nn.attention.flex_attention import create_block_mask

    listed = table(blocks_idx, s // key_block)

    def shown(b, h, i, j):
        return listed[b, h, i // query_block, j // key_block] & ((i >= j) | (not causal))

    lengths = (*blocks_idx.shape[:2], blocks_idx.shape[2] * query_block, s)
    return create_block_mask(shown, *lengths, device=blocks_idx.device, BLOCK_SIZE=(query_block, key_block))


@cache
def compiled_flex():
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


def table(blocks_idx, blocks):
    """True where a list names a block; empty slots name the column that is cut off."""
    named = blocks_idx.where(blocks_idx >= 0, blocks)
    listed = torch.zeros(*named.shape[:3], blocks + 1, dtype=torch.bool, device=named.device)
    return listed.scatter(-1, named, True)[..., :blocks]


def prefill(rng, lists, **more):
    q, k, v = rng.standard_normal((3, 1, HEADS, T, D))
    return dict(q=q, k=k, v=v, blocks_idx=lists(rng), query_block=BLOCK, key_block=BLOCK, **more)


def scattered(rng):
    return rng.random((1, HEADS, T // BLOCK, T // BLOCK)).argsort(axis=-1)[..., :KEPT]


def band(rng):
    """Six neighbours, the own block among them."""
    n = T // BLOCK
    first = np.clip(np.arange(n) - KEPT // 2, 0, n - KEPT)
    return np.broadcast_to(first[:, None] + np.arange(KEPT), (1, HEADS, n, KEPT)).copy()


def earlier(rng):
    """The own block and five random earlier ones, as far as there are."""
    n = T // BLOCK
    score = rng.random((1, HEADS, n, n)) + np.eye(n)
    order = np.where(np.tri(n, dtype=bool), -score, np.inf).argsort(axis=-1)[..., :KEPT]
    return np.where(order <= np.arange(n)[:, None], order, -1)


def decode(rng):
    k, v = rng.standard_normal((2, 1, HEADS, CACHED, D))
    lists = rng.random((1, HEADS, 1, CACHED // BLOCK)).argsort(axis=-1)[..., :TOP]
    q = rng.standard_normal((1, HEADS, 1, D))
    return dict(q=q, k=k, v=v, blocks_idx=lists, query_block=1, key_block=BLOCK)


# None of the peers gives the log-sum-exp, so none gives the same answer; tests compare what they do give.
PEERS = {"SDPA, dense": Peer(dense, same=False), "SDPA with a mask": Peer(masked, same=False)}
COMPILED = {"flex_attention, compiled": Peer(flex, same=False)} if which("g++") else {}

CASES = [
    Case(
        id="A1",
        text=f"{KEPT} of {T // BLOCK} blocks of {BLOCK} keys, {HEADS} heads of {D}, {T} queries",
        op="attend",
        inputs={
            "random blocks": lambda rng: prefill(rng, scattered),
            "a band": lambda rng: prefill(rng, band),
        },
        peers=PEERS | COMPILED,
        read=3 * 4 * HEADS * T * D,
        written=4 * HEADS * T * (D + 1),
        flops=4 * HEADS * T * KEPT * BLOCK * D,
        levels={"on par": 4.4, "excellent": 5.5, "beyond": 7.5},
    ),
    Case(
        id="A1 causal",
        text=f"own block and 5 earlier of {BLOCK} keys, {HEADS} heads of {D}, {T} queries",
        op="attend",
        inputs={"random earlier blocks": lambda rng: prefill(rng, earlier, causal=True)},
        peers=PEERS | COMPILED,
        read=3 * 4 * HEADS * T * D,
        written=4 * HEADS * T * (D + 1),
        flops=4 * HEADS * T * KEPT * BLOCK * D,
    ),
    Case(
        id="A3",
        text=f"one query, {TOP} of {CACHED // BLOCK} blocks of {BLOCK} keys, {HEADS} heads of {D}",
        op="attend",
        inputs={"random blocks": decode},
        peers={"SDPA, dense": Peer(dense, same=False, read=2 * 4 * HEADS * CACHED * D)},
        read=2 * 4 * HEADS * TOP * BLOCK * D,
        levels={"on par": 5.0, "excellent": 7.5, "beyond": 9.0},
    ),
]
