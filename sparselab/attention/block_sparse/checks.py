"""Cases, facts, mistakes and hints of block-sparse attention."""

from functools import reduce

import numpy as np

from sparselab import judge
from sparselab.attention.block_sparse import reference
from sparselab.attention.block_sparse.reference import Attention


def cases(rng):
    def arrays(b=1, h=2, g=2, t=12, s=20, d=5, e=3):
        return dict(
            q=rng.normal(size=(b, h, t, d)) * 2,
            k=rng.normal(size=(b, g, s, d)),
            v=rng.normal(size=(b, g, s, e)),
        )

    def lists(b, heads, n, k, blocks, empty=0.0):
        idx = np.array([rng.permutation(blocks)[:k] for _ in range(b * heads * n)]).reshape(b, heads, n, k)
        return np.where(rng.random(idx.shape) < empty, -1, idx)

    some = dict(**arrays(), blocks_idx=lists(1, 2, 3, 3, 5), query_block=4, key_block=4)
    yield "attend", "3 of 5 blocks", some
    yield "attend", "every block", {**some, "blocks_idx": lists(1, 2, 3, 5, 5)}
    yield "attend", "one block", {**some, "blocks_idx": lists(1, 2, 3, 1, 5)}
    yield "attend", "no slots", {**some, "blocks_idx": np.zeros((1, 2, 3, 0), int)}
    empty = lists(1, 2, 3, 4, 5, empty=0.5)
    empty[0, 1, 2] = -1
    yield "attend", "empty slots and an empty list", {**some, "blocks_idx": empty}
    yield "attend", "a scale of its own", {**some, "scale": 0.9}
    yield "attend", "large logits", {**some, "q": some["q"] * 10}
    lengths, blocks, idx = dict(t=10, s=14), dict(query_block=4, key_block=4), lists(1, 2, 3, 3, 4)
    yield "attend", "ragged last blocks", dict(**arrays(**lengths), blocks_idx=idx, **blocks)
    yield (
        "attend",
        "ragged last blocks, causal",
        dict(**arrays(**lengths), blocks_idx=idx, **blocks, causal=True),
    )
    yield "cells", "ragged", dict(blocks_idx=idx, **lengths, **blocks)
    yield "cells", "ragged, causal", dict(blocks_idx=idx, **lengths, **blocks, causal=True)
    lengths, blocks = dict(t=9, s=6), dict(query_block=3, key_block=2, causal=True)
    idx = lists(1, 2, 3, 2, 3)
    yield "attend", "more queries than keys, causal", dict(**arrays(**lengths), blocks_idx=idx, **blocks)
    yield "cells", "more queries than keys, causal", dict(blocks_idx=idx, **lengths, **blocks)
    grouped = dict(**arrays(b=2, h=4, g=2, t=5, s=9), query_block=2, key_block=3)
    own = lists(2, 4, 3, 2, 3, empty=0.2)
    yield "attend", "4 heads on 2 key heads, a list each", dict(**grouped, blocks_idx=own)
    shared = lists(2, 2, 3, 2, 3)
    yield "attend", "4 heads on 2 key heads, lists shared", dict(**grouped, blocks_idx=shared, causal=True)
    decode = dict(**arrays(h=4, g=1, t=1, s=7), query_block=1, key_block=1, causal=True)
    yield "attend", "decoding: one query, blocks of one key", dict(**decode, blocks_idx=lists(1, 4, 1, 3, 7))
    yield "attend", "one list for all heads", dict(**decode, blocks_idx=lists(1, 1, 1, 3, 7))
    pooled = np.log(rng.integers(1, 9, size=(1, 2, 20)))
    yield "attend", "pooled keys with log weights", {**some, "log_weights": pooled}
    removed = np.where(rng.random(pooled.shape) < 0.3, -np.inf, pooled)
    removed[:, :, some["blocks_idx"][0, :, 1, :, None] * 4 + np.arange(4)] = -np.inf
    yield "attend", "log weights of -inf", {**some, "log_weights": removed, "causal": True}
    tied = {name: np.ones_like(some[name]) for name in ("q", "k")}
    yield "attend", "equal logits", {**some, **tied}
    yield "attend", "no batch", {**some, **arrays(b=0), "blocks_idx": np.zeros((0, 2, 3, 2), int)}
    for label, change in {
        "arrays without a head axis": {name: some[name][:, 0] for name in ("q", "k", "v")},
        "keys and values of other lengths": dict(v=some["v"][:, :, :-1]),
        "queries and keys of other widths": dict(q=some["q"][..., :-1]),
        "keys of another batch": dict(q=some["q"].repeat(2, axis=0), blocks_idx=lists(2, 2, 3, 2, 5)),
        "lists of another batch": dict(blocks_idx=lists(2, 2, 3, 2, 5)),
        "no key heads": arrays(g=0),
        "no lists": dict(blocks_idx=lists(1, 0, 3, 2, 5)),
        "fewer lists than key heads": dict(blocks_idx=lists(1, 1, 3, 2, 5)),
        "more lists than heads": dict(blocks_idx=lists(1, 4, 3, 2, 5)),
        "log weights of another length": dict(log_weights=np.zeros((1, 2, 25))),
    }.items():
        yield "attend", label, {**some, **change}
    for label, change in bad_lists(some["blocks_idx"]).items():
        yield "attend", label, {**some, **change}

    def result(empty=0.0):
        out, lse = rng.normal(size=(2, 2, 5, 3)), rng.normal(size=(2, 2, 5)) * 3
        none = rng.random(lse.shape) < empty
        return Attention(np.where(none[..., None], 0, out), np.where(none, -np.inf, lse))

    both = dict(a=result(), b=result())
    yield "merge", "two results", both
    yield "merge", "rows that saw nothing", dict(a=result(0.5), b=result(0.5))
    yield "merge", "one side saw nothing", dict(a=result(), b=result(1.0))
    yield "merge", "neither side saw anything", dict(a=result(1.0), b=result(1.0))
    shift = {name: Attention(x.out, x.lse + 2000) for name, x in both.items()}
    yield "merge", "large log-sum-exps", shift
    narrow = Attention(both["b"].out[..., :1], both["b"].lse)
    yield "merge", "values of other widths", dict(a=both["a"], b=narrow)

    sizes = dict(t=12, s=20, query_block=4, key_block=4)
    yield "cells", "3 of 5 blocks", dict(blocks_idx=some["blocks_idx"], **sizes)
    yield "cells", "empty slots", dict(blocks_idx=empty, **sizes)
    yield "cells", "every block, causal", dict(blocks_idx=lists(1, 2, 3, 5, 5), **sizes, causal=True)
    one = dict(t=1, s=7, query_block=1, key_block=1, causal=True)
    yield "cells", "one query", dict(blocks_idx=lists(1, 4, 1, 3, 7), **one)
    yield "cells", "no slots", dict(blocks_idx=np.zeros((1, 2, 3, 0), int), **sizes)
    for label, change in bad_lists(some["blocks_idx"]).items():
        yield "cells", label, {"blocks_idx": some["blocks_idx"], **sizes, **change}


def bad_lists(idx):
    """What no list may be, for 12 queries and 20 keys in blocks of 4."""
    return {
        "a block that is not there": dict(blocks_idx=np.where(idx == idx.max(), 5, idx)),
        "a block below -1": dict(blocks_idx=np.where(idx == idx.min(), -2, idx)),
        "a block twice": dict(blocks_idx=np.zeros_like(idx) + [0, 3, 0]),
        "lists for fewer queries": dict(blocks_idx=idx[:, :, :2]),
        "lists without slots": dict(blocks_idx=idx[..., 0]),
        "lists of numbers that are no integers": dict(blocks_idx=idx + 0.0),
        "blocks of no queries": dict(query_block=0),
        "blocks of no keys": dict(key_block=0),
    }


def dense_logits(q, k, log_weights=None, *, causal=False, scale=None, **_):
    """Logits of all queries and all keys, "b h t s", -inf where a query does not see a key."""
    shared, (t, d), s = q.shape[1] // k.shape[1], q.shape[2:], k.shape[2]
    x = np.einsum("bhtd,bhsd->bhts", q, k.repeat(shared, axis=1)) * (d**-0.5 if scale is None else scale)
    if log_weights is not None:
        x = x + log_weights.repeat(shared, axis=1)[:, :, None]
    return np.where(np.tri(t, s, s - t, dtype=bool), x, -np.inf) if causal else x


def listed(q, k, blocks_idx, *, query_block, key_block, **_):
    """True where a query's list holds the key's block, "b h t s"."""
    (b, h, t, _), s = q.shape, k.shape[2]
    shown = np.zeros((b, h, t, s), bool)
    for batch, head, i in np.ndindex(b, h, t):
        for block in blocks_idx[batch, head // (h // blocks_idx.shape[1]), i // query_block]:
            shown[batch, head, i, block * key_block : (block + 1) * key_block if block >= 0 else 0] = True
    return shown


def softmax(x, v):
    """Attention by logits "b h t s", all at once."""
    top = np.maximum(x.max(axis=-1, keepdims=True, initial=-np.inf), -1e300)
    p = np.exp(x - top)
    total = p.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (top + np.log(total))[..., 0]
    v = v.repeat(x.shape[1] // v.shape[1], axis=1)
    return Attention(np.einsum("bhts,bhse->bhte", p / np.where(total > 0, total, 1), v), lse)


def order_of_the_slots(call, got, blocks_idx, **rest):
    return judge.same(call(blocks_idx=blocks_idx[..., ::-1].copy()), got)


def all_blocks_are_dense(call, got, q, k, v, blocks_idx, log_weights=None, **rest):
    blocks = -(-k.shape[2] // rest["key_block"])
    every = np.broadcast_to(np.arange(blocks), (*blocks_idx.shape[:3], blocks)).copy()
    return judge.same(call(blocks_idx=every), softmax(dense_logits(q, k, log_weights, **rest), v))


def split_and_merged(call, got, blocks_idx, **rest):
    parts = [Attention(*call(blocks_idx=part.copy())) for part in (blocks_idx[..., :1], blocks_idx[..., 1:])]
    return judge.same(reference.merge(*parts), got)


def unlisted_keys_are_not_read(call, got, q, k, v, blocks_idx, **rest):
    shown = listed(q, k, blocks_idx, **rest).any(axis=2)
    shown = shown.reshape(*k.shape[:2], q.shape[1] // k.shape[1], k.shape[2]).any(axis=2)[..., None]
    return judge.same(call(k=np.where(shown, k, np.nan), v=np.where(shown, v, np.nan)), got)


def ones_stay_ones(call, got, v, **rest):
    ones = call(v=np.ones_like(v))
    return judge.same(ones[0], np.isfinite(ones[1])[..., None] * np.ones_like(got[0]))


def common_log_weight(call, got, k, log_weights=None, **rest):
    weights = np.zeros(k.shape[:3]) if log_weights is None else log_weights
    return judge.same(call(log_weights=weights + 800), Attention(got[0], got[1] + 800))


def either_order(call, got, a, b):
    return judge.same(call(a=b, b=a), got)


def any_grouping(call, got, a, b):
    c = Attention(2 * b.out[::-1], b.lse[::-1])
    return judge.same(call(a=Attention(*got), b=c), call(b=Attention(*call(a=b, b=c))))


def nothing_adds_nothing(call, got, a, b):
    return judge.same(call(b=Attention(np.zeros_like(a.out), np.full_like(a.lse, -np.inf))), a)


def counts_what_is_seen(call, got, blocks_idx, t, s, query_block, key_block, causal=False):
    b, heads = blocks_idx.shape[:2]
    q, k = np.zeros((b, heads, t, 1)), np.zeros((b, 1, s, 1))
    seen = dense_logits(q, k, causal=causal) > -np.inf
    shown = listed(q, k, blocks_idx, query_block=query_block, key_block=key_block)
    return np.array_equal((seen & shown).sum(axis=(2, 3)), got)


CHECKS = {
    "attend": [
        ("the order of the slots changes nothing", order_of_the_slots),
        ("with every block listed it is dense attention", all_blocks_are_dense),
        ("a block taken off the list and merged back by lse changes nothing", split_and_merged),
        ("keys on no list are not read", unlisted_keys_are_not_read),
        ("values of 1 give 1 where a query sees a key, and 0 elsewhere", ones_stay_ones),
        ("the same number added to every log weight moves lse by it and out not at all", common_log_weight),
    ],
    "merge": [
        ("a with b is b with a", either_order),
        ("three results merge to the same in any grouping", any_grouping),
        ("a side that saw nothing adds nothing", nothing_adds_nothing),
    ],
    "cells": [("a cell counts where it is listed and not hidden", counts_what_is_seen)],
}


def online(q, k, v, blocks_idx, log_weights=None, *, query_block, key_block, step, **rest):
    """Attention by `step(top, total, mixed, x, values) -> top, total, mixed` on each block with a key."""
    x = dense_logits(q, k, log_weights, **rest)
    out, lse = np.zeros((*q.shape[:3], v.shape[3])), np.full(q.shape[:3], -np.inf)
    for batch, head, i in np.ndindex(*q.shape[:3]):
        top, total, mixed = -np.inf, 0.0, np.zeros(v.shape[3])
        for block in blocks_idx[batch, head * blocks_idx.shape[1] // q.shape[1], i // query_block]:
            tile = slice(block * key_block, (block + 1) * key_block if block >= 0 else 0)
            if x[batch, head, i, tile].max(initial=-np.inf) > -np.inf:
                values = v[batch, head * v.shape[1] // q.shape[1], tile]
                top, total, mixed = step(top, total, mixed, x[batch, head, i, tile], values)
        if total > 0:
            out[batch, head, i], lse[batch, head, i] = mixed / total, top + np.log(total)
    return Attention(out, lse)


def no_rescaling(*args, **kwargs):
    def step(top, total, mixed, x, values):
        new = max(top, x.max())
        p = np.exp(x - new)
        return new, total + p.sum(), mixed + p @ values

    return online(*args, **kwargs, step=step)


def softmax_in_each_block(*args, **kwargs):
    def step(top, total, mixed, x, values):
        p = np.exp(x - x.max())
        lse = x.max() + np.log(p.sum())
        return np.logaddexp(top, lse), 1.0, mixed + p @ values / p.sum()

    return online(*args, **kwargs, step=step)


def no_maximum(*args, **kwargs):
    def step(top, total, mixed, x, values):
        with np.errstate(over="ignore"):
            p = np.exp(x)
        return 0.0, total + p.sum(), mixed + p @ values

    with np.errstate(invalid="ignore"):
        return online(*args, **kwargs, step=step)


def no_scale(*args, scale=None, **kwargs):
    return reference.attend(*args, **kwargs, scale=1.0)


def masked(q, k, v, blocks_idx, log_weights=None, *, hide=-np.inf, **rest):
    x = dense_logits(q, k, log_weights, **rest)
    return softmax(np.where(listed(q, k, blocks_idx, **rest), x, hide), v)


def zeros_for_hidden(*args, **kwargs):
    return masked(*args, **kwargs, hide=0.0)


def empty_is_the_last_block(q, k, v, blocks_idx, log_weights=None, **rest):
    return masked(
        q,
        k,
        v,
        np.where(blocks_idx < 0, -(-k.shape[2] // rest["key_block"]) - 1, blocks_idx),
        log_weights,
        **rest,
    )


def weight_after_softmax(q, k, v, blocks_idx, log_weights=None, **rest):
    out = reference.attend(q, k, v, blocks_idx, **rest)
    if log_weights is None:
        return out
    with np.errstate(over="ignore", invalid="ignore"):
        heavier = v * np.exp(log_weights)[..., None]
        out = Attention(reference.attend(q, k, heavier, blocks_idx, **rest).out, out.lse)
    return out


def aligned_to_the_first_key(q, k, v, blocks_idx, log_weights=None, *, causal=False, **rest):
    x = dense_logits(q, k, log_weights, **rest)
    seen = np.tri(q.shape[2], k.shape[2], dtype=bool) if causal else True
    return softmax(np.where(listed(q, k, blocks_idx, **rest) & seen, x, -np.inf), v)


def own_key_hidden(q, k, v, blocks_idx, log_weights=None, *, causal=False, **rest):
    x = dense_logits(q, k, log_weights, **rest)
    seen = np.tri(q.shape[2], k.shape[2], k.shape[2] - q.shape[2] - 1, dtype=bool) if causal else True
    return softmax(np.where(listed(q, k, blocks_idx, **rest) & seen, x, -np.inf), v)


def causal_by_block(q, k, v, blocks_idx, log_weights=None, *, causal=False, **rest):
    """Whole blocks up to the query's own, with nothing hidden inside it."""
    x = dense_logits(q, k, log_weights, **rest)
    block = max(rest["key_block"], 1)
    last = (np.arange(q.shape[2]) + k.shape[2] - q.shape[2]) // block
    seen = np.arange(k.shape[2]) // block <= last[:, None] if causal else True
    return softmax(np.where(listed(q, k, blocks_idx, **rest) & seen, x, -np.inf), v)


def heads_interleaved(q, k, v, blocks_idx, log_weights=None, **rest):
    shared, lists = q.shape[1] // k.shape[1], q.shape[1] // max(blocks_idx.shape[1], 1)
    k, v = (np.tile(a, (1, shared, 1, 1)) for a in (k, v))
    weights = None if log_weights is None else np.tile(log_weights, (1, shared, 1))
    return reference.attend(q, k, v, blocks_idx.repeat(lists, axis=1), weights, **rest)


def average(a, b):
    return Attention((a.out + b.out) / 2, np.logaddexp(a.lse, b.lse))


def weighted_by_lse(a, b):
    with np.errstate(invalid="ignore"):
        share = (a.lse / (a.lse + b.lse))[..., None]
        return Attention(share * a.out + (1 - share) * b.out, np.logaddexp(a.lse, b.lse))


def lse_added(a, b):
    return Attention(reference.merge(a, b).out, a.lse + b.lse)


def nothing_minus_nothing(a, b):
    lse = np.logaddexp(a.lse, b.lse)
    with np.errstate(invalid="ignore"):
        share_a, share_b = np.exp(a.lse - lse)[..., None], np.exp(b.lse - lse)[..., None]
        return Attention(share_a * a.out + share_b * b.out, lse)


def merged_without_maximum(a, b):
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        share_a, share_b = np.exp(a.lse), np.exp(b.lse)
        total = share_a + share_b
        out = share_a[..., None] * a.out + share_b[..., None] * b.out
        return Attention(out / np.where(total > 0, total, 1)[..., None], np.log(total))


def nominal(blocks_idx, *, t, s, query_block, key_block, causal=False):
    return (blocks_idx >= 0).sum(axis=(2, 3)) * query_block * key_block


def hidden_counted(blocks_idx, *, causal=False, **sizes):
    return reference.cells(blocks_idx, **sizes)


def slots_counted(blocks_idx, *, query_block, key_block, **sizes):
    empty = (blocks_idx < 0).sum(axis=(2, 3)) * query_block * key_block
    return reference.cells(blocks_idx, query_block=query_block, key_block=key_block, **sizes) + empty


WRONG = {
    "attend": [
        ("when the running maximum rises, what was summed before must shrink by e^(old - new)", no_rescaling),
        (
            "divide once at the end: a softmax inside each block forgets how the blocks compare",
            softmax_in_each_block,
        ),
        ("subtract the running maximum before the exponential, or large logits overflow", no_maximum),
        ("the logits need their scale, 1/sqrt(d) unless one is given", no_scale),
        ("a hidden key has the logit -inf; a logit of 0 still gives it weight", zeros_for_hidden),
        ("-1 is an empty slot: as an index it is the last block", empty_is_the_last_block),
        ("a log weight is added to the logit, so that the softmax sums it too", weight_after_softmax),
        (
            "the last query stands at the last key: query i sees keys up to i + s - t",
            aligned_to_the_first_key,
        ),
        ("a query sees its own key: hide what comes after it, not the key itself", own_key_hidden),
        ("inside the query's own block the keys after it are hidden one by one", causal_by_block),
        ("h/g consecutive heads share a key head: head i reads key head i // (h/g)", heads_interleaved),
    ],
    "merge": [
        ("weigh each side by its share e^(lse_side - lse), not by a half", average),
        ("the shares are exponentials of the log-sum-exps, not the log-sum-exps", weighted_by_lse),
        ("sums add, their logarithms do not: lse = log(e^lse_a + e^lse_b)", lse_added),
        ("-inf - -inf is no number: a row that saw nothing stays 0", nothing_minus_nothing),
        ("take the larger lse out before the exponential, or it overflows", merged_without_maximum),
    ],
    "cells": [
        ("a short last block has fewer keys, and hidden cells are not computed for nothing", nominal),
        ("under the causal rule the cells after the query are hidden", hidden_counted),
        ("an empty slot shows nothing", slots_counted),
    ],
}


def gathered(q, k, v, blocks_idx, log_weights=None, **rest):
    """One softmax for each query over its listed keys side by side."""
    reference.check(q, k, v, blocks_idx, log_weights, rest["query_block"], rest["key_block"])
    x, shown = dense_logits(q, k, log_weights, **rest), listed(q, k, blocks_idx, **rest)
    out, lse = np.zeros((*q.shape[:3], v.shape[3])), np.full(q.shape[:3], -np.inf)
    for place in np.ndindex(*q.shape[:3]):
        keys = np.flatnonzero(shown[place])
        values = v[place[0], place[1] // (q.shape[1] // k.shape[1]), keys]
        part = softmax(x[place][keys][None, None, None], values[None, None])
        out[place], lse[place] = part.out[0, 0, 0], part.lse[0, 0, 0]
    return Attention(out, lse)


def block_by_block(q, k, v, blocks_idx, log_weights=None, **rest):
    """A softmax for each slot, merged."""
    parts = [
        reference.attend(q, k, v, blocks_idx[..., i : i + 1], log_weights, **rest)
        for i in range(max(blocks_idx.shape[-1], 1))
    ]
    reference.check(q, k, v, blocks_idx, log_weights, rest["query_block"], rest["key_block"])
    return reduce(reference.merge, parts)


def by_shares(a, b):
    if a.out.shape != b.out.shape:
        raise ValueError(f"{a.out.shape} and {b.out.shape} differ")
    gap = np.where(a.lse == b.lse, 0, a.lse - np.where(a.lse == b.lse, 0, b.lse))
    share = (1 / (1 + np.exp(-np.clip(gap, -700, 700))))[..., None]
    return Attention(share * a.out + (1 - share) * b.out, np.logaddexp(a.lse, b.lse))


def key_by_key(blocks_idx, *, t, s, query_block, key_block, causal=False):
    reference.check_lists(blocks_idx, t, s, query_block, key_block)
    shown = np.zeros(blocks_idx.shape[:2], int)
    for *place, n, slot in np.argwhere(blocks_idx >= 0):
        for i in range(n * query_block, min((n + 1) * query_block, t)):
            first = blocks_idx[*place, n, slot] * key_block
            shown[*place] += sum(
                j < s and (not causal or j - s <= i - t) for j in range(first, first + key_block)
            )
    return shown


RIGHT = {"attend": [gathered, block_by_block], "merge": [by_shares], "cells": [key_by_key]}

START = "top, total, mixed = (-np.inf, 0.0, np.zeros(e))"
FORGOTTEN = "what the sums start from is multiplied by e^(-inf - top) = 0 at the first block"
EQUIVALENT = {
    "attend": {f"0.0 => 1.0 ({START})": FORGOTTEN, f"np.zeros => np.ones ({START})": FORGOTTEN},
}

HINTS = {
    "attend": [
        "Take one query and walk its list. Carry three things from block to block: the largest logit so far, "
        "the sum of exponentials, and the sum of exponentials times values.",
        "A new block may hold a larger logit. Then both sums were made with the wrong maximum: multiply them "
        "by e^(old maximum - new maximum) before the block is added.",
        "Skip slots of -1, cut the block at the last key that the query sees, and skip it where no logit is "
        "above -inf: -inf - -inf is no number.",
        "new = max(top, x.max()); p = exp(x - new); total = exp(top - new) * total + p.sum(); the same for "
        "the mixed values with p @ values. At the end out = mixed / total and lse = top + log(total).",
    ],
    "merge": [
        "e^lse is the sum below the fraction of each side. What is the sum over both key sets?",
        "Each output is a mean of values; the merged mean weighs each side by its share of the sum.",
        "Take the larger lse out before any exponential, and leave rows alone where it is -inf.",
        "top = max(lse_a, lse_b); lse = top + log(e^(lse_a - top) + e^(lse_b - top)); "
        "out = e^(lse_a - lse) out_a + e^(lse_b - lse) out_b.",
    ],
    "cells": [
        "Count pairs of a query and a key that it sees, not blocks.",
        "The last block of keys and the last block of queries may be short, and -1 is no block.",
        "Query i sees the keys before min(s, i + s - t + 1) if causal, before s otherwise; block j starts at "
        "j key_block. Add up max(0, end - start).",
    ],
}
