"""Threshold selection's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.judge import same
from sparselab.topk.threshold import reference


def cases(rng):
    x = rng.normal(size=(4, 10)) * np.array([[1.0], [3.0], [0.2], [1.0]])
    some_positive = np.where(x > 0.8, x, 0.0)
    extreme = np.array([[2.0, np.nan, -np.inf, np.inf, np.nan, 1.0], [3.0, 0.0, 1.0, 2.0, -1.0, -np.inf]])
    for op in ("kth", "calibrate"):
        yield op, "3 of 10", dict(x=x, k=3)
        yield op, "one row", dict(x=x[1], k=4)
        yield op, "two batch axes", dict(x=rng.normal(size=(2, 3, 7)), k=2)
        yield op, "a long row", dict(x=rng.normal(size=(2, 331)), k=9)
        yield op, "all tied", dict(x=np.ones((2, 6)), k=4)
        yield op, "fewer than k positive", dict(x=some_positive, k=7)
        yield op, "NaN and infinities", dict(x=extreme, k=3)
        yield op, "the maximum", dict(x=x, k=1)
        yield op, "everything kept", dict(x=x, k=10)
        yield op, "an empty batch", dict(x=x[:0], k=3)
        yield op, "k of nothing", dict(x=x, k=0)
        yield op, "more than the row", dict(x=x, k=11)
    yield "keep", "one cut for all", dict(x=x, cut=np.array(0.4))
    yield "keep", "a negative cut", dict(x=x, cut=np.array(-0.3))
    yield "keep", "one cut per row", dict(x=x, cut=reference.kth(x, k=3))
    yield "keep", "one row", dict(x=x[0], cut=np.array(0.1))
    yield "keep", "all tied at the cut", dict(x=np.ones((2, 6)), cut=np.array(1.0))
    yield "keep", "NaN and infinities", dict(x=extreme, cut=np.array([1.5, np.inf]))
    yield "keep", "an empty batch", dict(x=x[:0], cut=np.array(0.1))
    yield "keep", "two batch axes", dict(x=rng.normal(size=(2, 3, 7)), cut=rng.normal(size=(2, 3)))
    yield "keep", "a cut per column", dict(x=x, cut=x[0])
    yield "keep", "a cut of one row too few", dict(x=x, cut=np.array([0.1]))


def as_many_reach_it(call, got, x, k):
    ranked = np.where(np.isnan(x), np.inf, x)
    cut = np.where(np.isnan(got), np.inf, got)[..., None]
    return ((ranked >= cut).sum(axis=-1) >= k).all() and ((ranked > cut).sum(axis=-1) < k).all()


def k_per_row_on_average(call, got, x, k):
    ranked, cut, rows = np.where(np.isnan(x), np.inf, x), np.nan_to_num(got, nan=np.inf), x[..., 0].size
    return (ranked >= cut).sum() >= k * rows > (ranked > cut).sum()


def order_of_entries_is_irrelevant(call, got, x, k):
    return same(call(x=x[..., ::-1].copy()), got)


def keeps_a_value_or_nothing(call, got, x, cut):
    reached = x >= cut[..., None]
    return same(got[reached], x[reached]) and not got[~reached].any()


CHECKS = {
    "kth": [
        ("at least k of a row reach its cut, fewer than k exceed it", as_many_reach_it),
        ("the order of the entries does not matter", order_of_entries_is_irrelevant),
    ],
    "calibrate": [
        ("k per row on average reach the cut, fewer exceed it", k_per_row_on_average),
        ("the order of the entries does not matter", order_of_entries_is_irrelevant),
    ],
    "keep": [("what reaches the cut is untouched, the rest is zero", keeps_a_value_or_nothing)],
}


def kth_of_all_rows(x, *, k):
    return np.full(x.shape[:-1], reference.calibrate(x, k=k))


def kth_smallest(x, *, k):
    return -reference.kth(-x, k=k)


def one_further(x, *, k):
    return reference.kth(x, k=min(k + 1, x.shape[-1]))


def kth_magnitude(x, *, k):
    return reference.kth(np.abs(x), k=k)


def mean_of_row_cuts(x, *, k):
    return np.array(np.mean(reference.kth(x, k=k)))


def k_of_the_sample(x, *, k):
    return reference.kth(x.ravel(), k=k)


def share_below(x, *, k):
    return reference.calibrate(x, k=x.shape[-1] - k)


def interpolated(x, *, k):
    return np.array(np.quantile(x, 1 - k / x.shape[-1]))


def strictly_above(x, cut):
    return np.where(x > cut[..., None], x, 0)


def magnitude_reaches(x, cut):
    return np.where(np.abs(x) >= cut[..., None], x, 0)


def soft(x, cut):
    return np.maximum(x - cut[..., None], 0)


WRONG = {
    "kth": [
        ("each row has its own k-th value, not one for all rows", kth_of_all_rows),
        ("the k-th largest: count from the top", kth_smallest),
        ("the k-th largest is number k - 1 when counting from zero", one_further),
        ("the largest values, not the largest magnitudes: no |x|", kth_magnitude),
    ],
    "calibrate": [
        ("the quantile of all values together is not the mean of the rows' cuts", mean_of_row_cuts),
        ("k counts per row: a sample of r rows keeps k r", k_of_the_sample),
        ("k counts what is kept: k / n is the share above the cut", share_below),
        ("a quantile between two values keeps no exact number: take a value of the sample", interpolated),
    ],
    "keep": [
        ("what equals the cut reaches it: >=, not >", strictly_above),
        ("the cut is for values; give magnitudes yourself where they are meant", magnitude_reaches),
        ("survivors keep their value: nothing is subtracted", soft),
    ],
}


def by_selection(x, *, k):
    if not 1 <= k <= x.shape[-1]:
        raise ValueError(f"k={k} of {x.shape[-1]}")
    return np.partition(x, x.shape[-1] - k, axis=-1)[..., x.shape[-1] - k]


def from_the_top(x, *, k):
    if not (x.size and 1 <= k <= x.shape[-1]):
        raise ValueError(f"k={k} of {x.shape}")
    return np.array(np.sort(x, axis=None)[::-1][k * x[..., 0].size - 1])


def by_zeroing(x, cut):
    if cut.ndim and cut.shape != x.shape[:-1]:
        raise ValueError(f"cut {cut.shape} for {x.shape}")
    out = x.copy()
    out[~(x >= np.expand_dims(cut, -1))] = 0
    return out


RIGHT = {"kth": [by_selection], "calibrate": [from_the_top], "keep": [by_zeroing]}

HINTS = {
    "kth": [
        "Sort each row; the k-th largest then stands at a fixed place.",
        "np.sort rises, so the largest is last: count k places from the end.",
        "np.sort(x, axis=-1)[..., x.shape[-1] - k].",
    ],
    "calibrate": [
        "One cut for all rows: forget which row a value came from.",
        "r rows that keep k each keep k r values together. Which value is the last of them?",
        "The (k r)-th largest of x.ravel(), with r = x.size // x.shape[-1].",
    ],
    "keep": [
        "Compare, then choose between x and 0.",
        "A cut per row needs one more axis to stand beside x: cut[..., None]; a single cut allows it too.",
        "np.where(x >= cut[..., None], x, 0).",
    ],
}
