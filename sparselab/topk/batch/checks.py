"""BatchTopK's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.judge import same
from sparselab.topk.batch import reference
from sparselab.topk.exact import reference as exact


def cases(rng):
    # tokens of very different strength: a choice per token differs from one over the batch
    x = rng.normal(size=(5, 8)) * np.array([[0.3], [1.0], [4.0], [1.0], [0.1]])
    some = np.array([True, False, True, True, False])
    few = np.where(x > 1.2, x, -0.1)
    batches = [
        ("2 of 8", dict(x=x, k=2)),
        ("one token", dict(x=x[1:2], k=3)),
        ("a single row", dict(x=x[1], k=3)),
        ("two batch axes", dict(x=rng.normal(size=(2, 3, 7)), k=2)),
        ("a long batch", dict(x=rng.normal(size=(7, 61)), k=5)),
        ("all tied", dict(x=np.ones((3, 4)), k=2)),
        ("few distinct values", dict(x=rng.integers(-1, 3, (6, 9)) * 1.0, k=2)),
        ("fewer than k positive", dict(x=few, k=5)),
        ("nothing positive", dict(x=-np.abs(x), k=2)),
        ("a mask", dict(x=x, k=2, mask=some)),
        ("NaN where hidden", dict(x=np.where(some[:, None], x, np.nan), k=3, mask=some)),
        ("everything hidden", dict(x=x, k=2, mask=some & False)),
        ("two batch axes, a mask", dict(x=rng.normal(size=(2, 3, 7)), k=2, mask=rng.random((2, 3)) < 0.6)),
        ("everything kept", dict(x=x, k=8)),
        ("nothing kept", dict(x=x, k=0)),
        ("an empty batch", dict(x=x[:0], k=3)),
        ("more than a token has", dict(x=x, k=9)),
        ("more than a hidden token has", dict(x=x, k=9, mask=some & False)),
    ]
    for label, batch in batches:
        yield "keep", label, batch
        yield "update", label, dict(cut=np.array(0.5), **batch, rate=0.25)
    yield "keep", "a mask of another shape", dict(x=x, k=2, mask=some[:4])
    yield "keep", "a mask of one token", dict(x=x, k=2, mask=some[:1])
    yield "update", "the first batch", dict(cut=np.array(np.nan), x=x, k=2, rate=0.25)
    yield "update", "the first batch has nothing", dict(cut=np.array(np.nan), x=-np.abs(x), k=2, rate=0.25)
    yield "update", "no memory", dict(cut=np.array(0.5), x=x, k=2, rate=1.0)
    yield "update", "a rate of 0", dict(cut=np.array(0.5), x=x, k=2, rate=0.0)
    yield "update", "a rate above 1", dict(cut=np.array(0.5), x=x, k=2, rate=1.5)
    yield "above", "a cut inside", dict(x=x, cut=np.array(0.4))
    yield "above", "one row", dict(x=x[2], cut=np.array(1.0))
    yield "above", "all tied at the cut", dict(x=np.ones((2, 4)), cut=np.array(1.0))
    yield "above", "a cut of 0", dict(x=x, cut=np.array(0.0))
    yield "above", "a negative cut", dict(x=x, cut=np.array(-1.0))
    yield "above", "before the first update", dict(x=x, cut=np.array(np.nan))
    yield "above", "an empty batch", dict(x=x[:0], cut=np.array(0.4))


def mean_l0(call, got, x, k, mask=None):
    return (got != 0).sum() <= k * (x[..., 0].size if mask is None else mask.sum())


def values_are_those_of_relu(call, got, x, k, mask=None):
    return same(got[got != 0], x[got != 0]) and (got >= 0).all()


def hidden_tokens_do_not_compete(call, got, x, k, mask=None):
    return mask is None or same(call(x=np.where(mask[..., None], x, 1e3)), got)


def one_token_is_exact_topk(call, got, x, k, mask=None):
    return x[..., 0].size != 1 or mask is not None or same(got, exact.keep(np.maximum(x, 0), k=k))


def between_old_and_new(call, got, cut, x, k, rate, mask=None):
    newest = call(rate=1.0)
    return np.isnan(cut) or min(cut, newest) - 1e-12 <= got <= max(cut, newest) + 1e-12


def without_memory_the_smallest(call, got, cut, x, k, rate, mask=None):
    kept = reference.keep(x, k=k, mask=mask)
    return not (kept > 0).any() or same(call(rate=1.0), kept[kept > 0].min())


def kept_or_nothing(call, got, x, cut):
    return same(got[got != 0], x[got != 0]) and not (got[got != 0] <= cut).any()


CHECKS = {
    "keep": [
        ("on average at most k of a visible token survive", mean_l0),
        ("survivors are positive and keep their value", values_are_those_of_relu),
        ("hidden tokens do not compete", hidden_tokens_do_not_compete),
        ("one token alone is exact top-k of its positive values", one_token_is_exact_topk),
    ],
    "update": [
        ("the new cut lies between the old one and the smallest value kept", between_old_and_new),
        ("with rate 1 the cut is the smallest value kept", without_memory_the_smallest),
    ],
    "above": [("survivors exceed the cut and keep their value", kept_or_nothing)],
}


def per_token(x, *, k, mask=None):
    reference.keep(x, k=k, mask=mask)
    seen = x if mask is None else np.where(mask[..., None], x, 0)
    return exact.keep(np.maximum(seen, 0), k=k)


def k_for_the_batch(x, *, k, mask=None):
    reference.keep(x, k=k, mask=mask)
    seen = np.where(True if mask is None else mask[..., None], np.maximum(x, 0), 0)
    return exact.keep(seen.ravel(), k=min(k, seen.size)).reshape(x.shape)


def without_relu(x, *, k, mask=None):
    visible = np.ones(x.shape[:-1], bool) if mask is None else mask
    reference.keep(x, k=k, mask=mask)
    seen = np.where(visible[..., None], x, 0)
    return exact.keep(seen.ravel(), k=k * int(visible.sum())).reshape(x.shape)


def by_magnitude(x, *, k, mask=None):
    visible = np.ones(x.shape[:-1], bool) if mask is None else mask
    reference.keep(x, k=k, mask=mask)
    seen = np.where(visible[..., None], x, 0)
    return np.where(exact.mask(np.abs(seen).ravel(), k=k * int(visible.sum())).reshape(x.shape), seen, 0)


def hidden_tokens_count(x, *, k, mask=None):
    reference.keep(x, k=k, mask=mask)
    seen = np.where(True if mask is None else mask[..., None], x, 0)
    return reference.keep(seen, k=k)


def mean_of_kept(cut, x, *, k, rate, mask=None):
    kept = reference.keep(x, k=k, mask=mask)
    if reference.update(cut, x, k=k, rate=rate, mask=mask) == cut or not kept.any():
        return cut.copy()
    mean = kept[kept > 0].mean()
    return np.array(mean if np.isnan(cut) else cut + rate * (mean - cut))


def rate_of_the_old(cut, x, *, k, rate, mask=None):
    newest = reference.update(cut, x, k=k, rate=1.0, mask=mask)
    reference.update(cut, x, k=k, rate=rate, mask=mask)
    return newest if np.isnan(cut) else np.array(rate * cut + (1 - rate) * newest)


def starts_at_zero(cut, x, *, k, rate, mask=None):
    start = np.zeros(()) if np.isnan(cut) else cut
    return reference.update(start, x, k=k, rate=rate, mask=mask)


def nothing_pulls_to_zero(cut, x, *, k, rate, mask=None):
    new = reference.update(cut, x, k=k, rate=rate, mask=mask)
    return new if reference.keep(x, k=k, mask=mask).any() else np.array((1 - rate) * cut)


def reaches(x, cut):
    positive = np.maximum(x, 0)
    return np.where(positive >= cut, positive, 0)


def soft(x, cut):
    return np.maximum(np.maximum(x, 0) - cut, 0)


def magnitude_exceeds(x, cut):
    return np.where(np.abs(x) > cut, x, 0)


WRONG = {
    "keep": [
        ("the choice is over the whole batch, not k in each token", per_token),
        ("k counts per token: B tokens share k B", k_for_the_batch),
        ("ReLU first: a negative value is never kept", without_relu),
        ("positive values, not magnitudes", by_magnitude),
        ("a hidden token brings no k with it: B counts the visible ones", hidden_tokens_count),
    ],
    "update": [
        ("the cut follows the smallest value kept, not their mean", mean_of_kept),
        ("rate is the weight of the new value, 1 - rate that of the old", rate_of_the_old),
        ("the first value is the cut: do not average it with zero", starts_at_zero),
        ("a batch without a positive value says nothing: leave the cut", nothing_pulls_to_zero),
    ],
    "above": [
        ("strictly above the cut: >, not >=", reaches),
        ("survivors keep their value: nothing is subtracted", soft),
        ("positive values, not magnitudes", magnitude_exceeds),
    ],
}


def by_threshold(x, *, k, mask=None):
    """The (k B)-th value as a cut, with as many of its equals as there is room for."""
    visible = np.ones(x.shape[:-1], bool) if mask is None else mask
    if not 0 <= k <= x.shape[-1] or visible.shape != x.shape[:-1]:
        raise ValueError(f"k={k} of {x.shape}")
    flat = np.where(visible[..., None], np.maximum(x, 0), 0).ravel()
    room = k * int(visible.sum())
    if not room:
        return np.zeros(x.shape)
    cut = np.sort(flat)[flat.size - room]
    equal = flat == cut
    first = equal & (np.cumsum(equal) <= room - (flat > cut).sum())
    return np.where((flat > cut) | first, flat, 0).reshape(x.shape)


def weighted_mean(cut, x, *, k, rate, mask=None):
    if not 0 < rate <= 1:
        raise ValueError(f"rate={rate}")
    kept = by_threshold(x, k=k, mask=mask)
    smallest = np.where(kept > 0, kept, np.inf).min(initial=np.inf)
    if np.isinf(smallest):
        return cut
    return np.array(smallest if np.isnan(cut) else (1 - rate) * cut + rate * smallest)


def by_product(x, cut):
    return np.maximum(x, 0) * (np.maximum(x, 0) > cut)


RIGHT = {"keep": [by_threshold], "update": [weighted_mean], "above": [by_product]}

HINTS = {
    "keep": [
        "Forget which token a value came from: the batch is one long row.",
        "ReLU first, then exact top-k of the flattened batch with k times the number of visible tokens.",
        "exact.keep(np.maximum(x, 0).ravel(), k=k * B).reshape(x.shape), hidden tokens set to 0 before.",
    ],
    "update": [
        "Two special batches come before the formula: the first one, and one with nothing to keep.",
        "The value to follow is the smallest positive entry of keep(x, k=k, mask=mask).",
        "smallest if np.isnan(cut) else cut + rate * (smallest - cut), as an array.",
    ],
    "above": [
        "No neighbours, no k: each value is compared with the cut.",
        "ReLU first; then keep what is strictly greater.",
        "positive = np.maximum(x, 0); np.where(positive > cut, positive, 0).",
    ],
}
