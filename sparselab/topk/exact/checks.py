"""Exact top-k's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.judge import same
from sparselab.topk.exact import reference


def cases(rng):
    x = rng.normal(size=(3, 10))
    some_positive = np.where(x > 0.8, x, 0.0)
    extreme = np.array([[2.0, np.nan, -np.inf, np.inf, np.nan, 1.0], [np.nan] * 6, [-np.inf] * 5 + [0.0]])
    for op in reference.__all__:
        yield op, "3 of 10", dict(x=x, k=3)
        yield op, "one row", dict(x=x[0], k=4)
        yield op, "two batch axes", dict(x=rng.normal(size=(2, 3, 7)), k=2)
        yield op, "three batch axes", dict(x=rng.normal(size=(2, 1, 2, 5)), k=4)
        yield op, "a long row", dict(x=rng.normal(size=(2, 331)), k=9)
        yield op, "all tied", dict(x=np.ones((2, 6)), k=4)
        yield op, "few distinct values in a long row", dict(x=rng.integers(0, 3, (2, 203)) * 1.0, k=6)
        yield op, "fewer than k positive", dict(x=some_positive, k=7)
        yield op, "NaN and infinities", dict(x=extreme, k=3)
        yield op, "everything kept", dict(x=x, k=10)
        yield op, "nothing kept", dict(x=x, k=0)
        yield op, "an empty batch", dict(x=x[:0], k=3)
        yield op, "more than the row", dict(x=x, k=11)
        yield op, "more than the row of an empty batch", dict(x=x[:0], k=11)
        yield op, "a negative k", dict(x=x, k=-1)


def values_stand_at_their_places(call, got, x, k):
    return same(got.values, np.take_along_axis(x, got.top_idx, axis=-1))


def values_fall(call, got, x, k):
    ranked = np.where(np.isnan(got.values), np.inf, got.values)
    return (ranked[..., :-1] >= ranked[..., 1:]).all()


def doubling_keeps_the_places(call, got, x, k):
    return np.array_equal(call(x=2 * x).top_idx, got.top_idx)


def k_per_row(call, got, x, k):
    return (got.sum(axis=-1) == k).all()


def dropped_below_kept(call, got, x, k):
    ranked = np.where(np.isnan(x), np.inf, x)
    kept = np.where(got, ranked, np.inf).min(axis=-1, initial=np.inf)
    return (kept >= np.where(got, -np.inf, ranked).max(axis=-1, initial=-np.inf)).all()


def survivors_are_untouched(call, got, x, k):
    return same(got, np.where(reference.mask(x, k=k), x, 0))


CHECKS = {
    "topk": [
        ("values[j] is the entry of x at top_idx[j]", values_stand_at_their_places),
        ("the values of a row fall", values_fall),
        ("doubling x moves no index", doubling_keeps_the_places),
    ],
    "mask": [
        ("every row keeps exactly k", k_per_row),
        ("no dropped value beats a kept one", dropped_below_kept),
    ],
    "keep": [("survivors keep their value", survivors_are_untouched)],
}
SCORES = {"topk": lambda x, k: x}


def by_magnitude(x, *, k):
    top_idx = reference.topk(np.abs(x), k=k).top_idx
    return reference.TopK(np.take_along_axis(x, top_idx, axis=-1), top_idx)


def smallest(x, *, k):
    values, top_idx = reference.topk(-x, k=k)
    return reference.TopK(-values, top_idx)


def all_but_k(x, *, k):
    return reference.topk(x, k=x.shape[-1] - k)


def first_axis(x, *, k):
    values, top_idx = reference.topk(np.moveaxis(x, 0, -1), k=k)
    return reference.TopK(np.moveaxis(values, -1, 0), np.moveaxis(top_idx, -1, 0))


def whole_array(x, *, k):
    top_idx = reference.topk(x.ravel(), k=k * (x.size // x.shape[-1])).top_idx
    return reference.TopK(x.ravel()[top_idx].reshape(*x.shape[:-1], k), top_idx.reshape(*x.shape[:-1], k))


def mask_by_magnitude(x, *, k):
    return reference.mask(np.abs(x), k=k)


def threshold_keeps_ties(x, *, k):
    return x >= reference.topk(x, k=k).values[..., -1:]


def strictly_above_the_kth(x, *, k):
    return x > reference.topk(x, k=k).values[..., -1:]


def drop_k(x, *, k):
    return ~reference.mask(x, k=k)


def mask_whole_array(x, *, k):
    return reference.mask(x.ravel(), k=k * (x.size // x.shape[-1])).reshape(x.shape)


WRONG = {
    "topk": [
        ("the largest values, not the largest magnitudes: no |x|", by_magnitude),
        ("these are the k smallest; turn the order round", smallest),
        ("k counts what is kept, not what is dropped", all_but_k),
        ("select along the last axis, not the first", first_axis),
        ("each row selects for itself, not the array as a whole", whole_array),
    ],
    "mask": [
        ("the largest values, not the largest magnitudes: no |x|", mask_by_magnitude),
        ("a threshold keeps all ties: keep exactly k, of equals the first", threshold_keeps_ties),
        ("the k-th value itself is kept too", strictly_above_the_kth),
        ("True marks what is kept, not what is dropped", drop_k),
        ("each row selects for itself, not the array as a whole", mask_whole_array),
    ],
}


def one_at_a_time(x, *, k):
    """Selection by repeated maxima; argmax takes the first of equals and NaN before all."""
    if not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} of {x.shape[-1]}")
    left, top_idx = np.ones(x.shape, bool), np.empty((*x.shape[:-1], k), np.int64)
    for row in np.ndindex(x.shape[:-1]):
        for j in range(k):
            places = np.flatnonzero(left[row])
            top_idx[(*row, j)] = places[np.argmax(x[row][places])]
            left[(*row, top_idx[(*row, j)])] = False
    return reference.TopK(np.take_along_axis(x, top_idx, axis=-1), top_idx)


def by_rank(x, *, k):
    if not 0 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} of {x.shape[-1]}")
    order = np.lexsort((-x, ~np.isnan(x)), axis=-1)
    return np.argsort(order, axis=-1) < k


RIGHT = {"topk": [one_at_a_time], "mask": [by_rank]}

HINTS = {
    "topk": [
        "Sort the places, not the values: np.argsort returns where each value stands.",
        "argsort rises; sorting -x falls. kind='stable' lets the lowest index win among equals.",
        "top_idx = np.argsort(-x, axis=-1, kind='stable')[..., :k]; np.take_along_axis fetches the values. "
        "NaN needs a key before -x: np.lexsort((-x, ~np.isnan(x)), axis=-1).",
    ],
    "mask": [
        "Start from all False and mark the places that top-k names.",
        "A comparison with the k-th value keeps every tie; indices keep exactly k.",
        "kept = np.zeros(x.shape, bool); np.put_along_axis(kept, topk(x, k=k).top_idx, True, axis=-1).",
    ],
}
