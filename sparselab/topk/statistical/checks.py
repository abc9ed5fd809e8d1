"""Statistical top-k's cases, facts, mistakes and hints."""

from statistics import NormalDist

import numpy as np

from sparselab.judge import same
from sparselab.topk.statistical import reference


def cases(rng):
    x = rng.normal(size=(3, 40)) * np.array([[1.0], [3.0], [0.2]]) + np.array([[0.0], [2.0], [-5.0]])
    causal = np.tril(np.ones((9, 9), bool))
    some = rng.random((3, 40)) < 0.7
    scores = np.where(some, x, -np.inf)
    rare = np.array([[1.0, 1.0, 1.0, 1.0, 0.0], [0.0, 9.0, 0.0, 0.0, 0.0]])
    constant = np.array([[0.7] * 3, [-1e9] * 3, [0.0] * 3])
    for op in reference.__all__:
        yield op, "8 of 40", dict(x=x, k=8)
        yield op, "more than half kept", dict(x=x, k=31)
        yield op, "one row", dict(x=x[1], k=3)
        yield op, "two batch axes", dict(x=rng.normal(size=(2, 3, 17)), k=2)
        yield op, "a long row", dict(x=rng.normal(size=(2, 1031)), k=80)
        yield op, "a mean that dwarfs the spread", dict(x=x + 1e4, k=8)
        yield op, "constant rows", dict(x=constant, k=1)
        yield op, "nothing may survive", dict(x=rare, k=1)
        yield op, "a mask", dict(x=x, k=8, mask=some)
        yield op, "masked scores of -inf", dict(x=scores, k=8, mask=some)
        yield op, "a row that sees nothing", dict(x=x[:2], k=3, mask=np.arange(2)[:, None] > np.zeros(40))
        yield op, "a causal mask", dict(x=rng.normal(size=(9, 9)) + 3, k=2, mask=causal)
        yield op, "an empty batch", dict(x=x[:0], k=3)
        yield op, "a mask of another shape", dict(x=x, k=8, mask=some[:, :39])
        yield op, "k = n", dict(x=x, k=40)
        yield op, "k = n of an empty batch", dict(x=x[:0], k=40)
        yield op, "k = 0", dict(x=x, k=0)
    for n, k in ((64, 8), (33, 4), (1000, 80)):
        yield "unfair_row", f"{k} of {n}", dict(n=n, k=k)
    yield "survivors", "the maximum of a row always", dict(x=rare, k=1, keep_max=True)
    yield "survivors", "the maximum, masked", dict(x=scores, k=8, mask=some, keep_max=True)
    yield "survivors", "the maximum of what a row sees", dict(x=x, k=3, mask=x > 9, keep_max=True)
    yield "survivors", "the maximum, causal", dict(x=np.zeros((9, 9)), k=2, mask=causal, keep_max=True)


def theta_moves_with_x(call, got, x, k, mask=None):
    return same(call(x=2 * x + 1), 2 * got + 1, rtol=1e-7)


def masked_entries_do_not_matter(call, got, x, k, mask=None, **keep):
    return mask is None or same(call(x=np.where(mask, x, 1e3)), got)


def a_shift_changes_nothing(call, got, x, k, mask=None):
    return same(call(x=x + 4), got, atol=1e-6)


def scaling_scales(call, got, x, k, mask=None):
    return same(call(x=2 * x), 2 * got)


def a_constant_row_gives_nothing(call, got, x, k, mask=None):
    return mask is not None or not got[(x == x[..., :1]).all(axis=-1)].any()


def survivors_are_the_largest(call, got, x, k, mask=None, keep_max=False):
    kept = np.where(got, x, np.inf).min(axis=-1, initial=np.inf)
    dropped = ~got if mask is None else ~got & mask
    return (kept >= np.where(dropped, x, -np.inf).max(axis=-1, initial=-np.inf)).all()


def every_row_keeps_one(call, got, x, k, mask=None, keep_max=False):
    sees = np.ones(x.shape, bool) if mask is None else mask
    return not keep_max or (got.any(axis=-1) == sees.any(axis=-1)).all()


def short_rows_keep_all(call, got, x, k, mask=None, keep_max=False):
    if mask is None:
        return True
    short = mask.sum(axis=-1) <= k
    return np.array_equal(got[short], mask[short])


def _slope(call, got, x, direction):
    """Derivative of <weights, answer> along `direction`, and whether the same entries survive on the way."""
    step, weights = 1e-6, np.cos(np.arange(got.size)).reshape(got.shape)
    ahead, behind = call(x=x + step * direction), call(x=x - step * direction)
    steady = ((ahead > 0) == (got > 0)).all() and ((behind > 0) == (got > 0)).all()
    return float((weights * (ahead - behind)).sum() / (2 * step)), weights, bool(steady)


def gradients_sum_to_zero(call, got, x, k, mask=None):
    if not np.isfinite(x).all():
        return True
    slope, _, steady = _slope(call, got, x, np.ones(x.shape))
    return not steady or abs(slope) <= 1e-4


def euler(call, got, x, k, mask=None):
    if not np.isfinite(x).all() or np.abs(x).max(initial=0) > 1e3:
        return True
    slope, weights, steady = _slope(call, got, x, x)
    return not steady or abs(slope - (weights * got).sum()) <= 1e-5 * (1 + np.abs(weights * got).sum())


def n_finite_numbers(call, got, n, k):
    return got.shape == (n,) and np.isfinite(got).all()


def no_tie_at_the_border(call, got, n, k):
    values = np.sort(got)
    return values[n - k] > values[n - k - 1]


def off_by_two(call, got, n, k):
    survive = reference.survivors(got, k=k).sum()
    return survive < k / 2 or survive > 2 * k


CHECKS = {
    "unfair_row": [
        ("the answer is n finite numbers", n_finite_numbers),
        ("the k-th value exceeds the next one", no_tie_at_the_border),
        ("fewer than k/2 or more than 2 k survive", off_by_two),
    ],
    "threshold": [
        ("theta(2 x + 1) = 2 theta(x) + 1", theta_moves_with_x),
        ("what the mask hides does not matter", masked_entries_do_not_matter),
    ],
    "soft": [
        ("adding a number to x changes nothing", a_shift_changes_nothing),
        ("doubling x doubles the result", scaling_scales),
        ("a constant row gives zeros", a_constant_row_gives_nothing),
        ("what the mask hides does not matter", masked_entries_do_not_matter),
        ("the gradients of a row sum to zero", gradients_sum_to_zero),
        ("Euler: sum of x times gradient = sum of y times its cotangent", euler),
    ],
    "survivors": [
        ("no dropped entry beats a survivor", survivors_are_the_largest),
        ("with keep_max, every row that sees anything keeps something", every_row_keeps_one),
        ("a row with at most k visible entries keeps them all", short_rows_keep_all),
        ("what the mask hides does not matter", masked_entries_do_not_matter),
    ],
}


def theta(x, k, mask, *, tail=lambda p: 1 - p, ddof=0, magnitude=False, fill=None):
    """The threshold with one thing changed; `fill` puts a number where the mask hides an entry."""
    reference.threshold(x, k=k, mask=mask)
    out = np.full(x.shape[:-1], -np.inf)
    for row in np.ndindex(out.shape):
        visible = np.ones(x.shape[-1], bool) if mask is None or fill is not None else mask[row]
        seen = x[row] if fill is None or mask is None else np.where(mask[row], x[row], fill)
        seen = np.abs(seen[visible]) if magnitude else seen[visible]
        if len(seen) > k:
            apart = seen - seen[0]
            spread = np.sqrt(((apart - apart.mean()) ** 2).sum() / (len(seen) - ddof))
            out[row] = seen[0] + apart.mean() + spread * NormalDist().inv_cdf(tail(k / len(seen)))
    return out


def lower_tail(x, *, k, mask=None):
    return theta(x, k, mask, tail=lambda p: p)


def sample_std(x, *, k, mask=None):
    return theta(x, k, mask, ddof=1)


def of_magnitudes(x, *, k, mask=None):
    return theta(x, k, mask, magnitude=True)


def filled_with_zero(x, *, k, mask=None):
    return theta(x, k, mask, fill=0.0)


def filled_with_minus_1e9(x, *, k, mask=None):
    return theta(x, k, mask, fill=-1e9)


def statistics_of_the_array(x, *, k, mask=None):
    reference.threshold(x, k=k, mask=mask)
    if not x.size:
        return np.zeros(x.shape[:-1])
    flat = x[np.ones(x.shape, bool) if mask is None else mask]
    z = NormalDist().inv_cdf(1 - k / x.shape[-1])
    return np.full(x.shape[:-1], flat.mean() + flat.std() * z)


def shrunk(cut):
    """The soft threshold of a wrong cut."""

    def answer(x, *, k, mask=None):
        reference.soft(x, k=k, mask=mask)
        visible = np.ones(x.shape, bool) if mask is None else mask
        return np.where(
            visible, np.maximum(np.where(visible, x, 0) - cut(x, k=k, mask=mask)[..., None], 0), 0
        )

    answer.__name__ = f"soft_{cut.__name__}"
    return answer


def hard(x, *, k, mask=None):
    reference.soft(x, k=k, mask=mask)
    return np.where(reference.survivors(x, k=k, mask=mask), x, 0)


def two_sided(x, *, k, mask=None):
    reference.soft(x, k=k, mask=mask)
    visible = np.ones(x.shape, bool) if mask is None else mask
    apart = np.abs(np.where(visible, x, 0)) - reference.threshold(x, k=k, mask=mask)[..., None]
    return np.where(visible, np.sign(np.where(visible, x, 0)) * np.maximum(apart, 0), 0)


def above(cut, x, k, mask, keep_max):
    visible = np.ones(x.shape, bool) if mask is None else mask
    kept = visible & (x > cut(x, k=k, mask=mask)[..., None])
    if keep_max:
        best = np.where(visible, x, -np.inf).argmax(axis=-1)[..., None]
        np.put_along_axis(kept, best, visible.any(axis=-1, keepdims=True), axis=-1)
    return kept


def survivors_with_zeros(x, *, k, mask=None, keep_max=False):
    return above(filled_with_zero, x, k, mask, keep_max)


def survivors_with_minus_1e9(x, *, k, mask=None, keep_max=False):
    return above(filled_with_minus_1e9, x, k, mask, keep_max)


def survivors_of_the_lower_tail(x, *, k, mask=None, keep_max=False):
    return above(lower_tail, x, k, mask, keep_max)


def may_be_empty(x, *, k, mask=None, keep_max=False):
    return reference.survivors(x, k=k, mask=mask)


def exactly_k(x, *, k, mask=None, keep_max=False):
    reference.survivors(x, k=k, mask=mask)
    visible = np.ones(x.shape, bool) if mask is None else mask
    ranks = np.argsort(np.argsort(-np.where(visible, x, -np.inf), axis=-1, kind="stable"), axis=-1)
    return visible & (ranks < k)


def normal_row(n, k):
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])


def even_row(n, k):
    return np.linspace(0, 1, n)


def constant_row(n, k):
    return np.ones(n)


def infinite_row(n, k):
    return np.append(np.linspace(0, 1, n - 1), np.inf)


WRONG = {
    "unfair_row": [
        ("normal rows are the ones the threshold is made for", normal_row),
        ("an even row is off by less than a half: something must inflate the spread", even_row),
        ("in a constant row everything ties: nothing tells the k largest", constant_row),
        ("an infinity has no mean: take a large finite number", infinite_row),
    ],
    "threshold": [
        ("the kept share is the upper tail: Q(1 - k/n), not Q(k/n)", lower_tail),
        ("the standard deviation divides by n, not n - 1", sample_std),
        ("values, not magnitudes: no |x| before the statistics", of_magnitudes),
        ("statistics over visible entries only: a masked zero is an entry too", filled_with_zero),
        ("statistics over visible entries only: -1e9 ruins the mean and the spread", filled_with_minus_1e9),
        ("each row has its own mean and spread, not the array as a whole", statistics_of_the_array),
    ],
    "soft": [
        ("the kept share is the upper tail: Q(1 - k/n), not Q(k/n)", shrunk(lower_tail)),
        ("the standard deviation divides by n, not n - 1", shrunk(sample_std)),
        ("statistics over visible entries only: a masked zero is an entry too", shrunk(filled_with_zero)),
        ("survivors lose theta: max(x - theta, 0), not x where x > theta", hard),
        ("only the upper side survives: this is not shrinkage of |x|", two_sided),
    ],
    "survivors": [
        ("the kept share is the upper tail: Q(1 - k/n), not Q(k/n)", survivors_of_the_lower_tail),
        ("statistics over visible entries only: a masked zero is an entry too", survivors_with_zeros),
        ("statistics over visible entries only: -1e9 ruins mean and spread", survivors_with_minus_1e9),
        ("with keep_max a row in which nothing exceeds theta keeps its maximum", may_be_empty),
        ("a threshold keeps about k, not exactly k", exactly_k),
    ],
}


def vectorised(x, *, k, mask=None):
    if not 0 < k < x.shape[-1] or (mask is not None and mask.shape != x.shape):
        raise ValueError(f"k={k} of {x.shape}")
    visible = np.ones(x.shape, bool) if mask is None else mask
    n = visible.sum(axis=-1, keepdims=True)
    first = np.take_along_axis(x, visible.argmax(axis=-1)[..., None], axis=-1)
    with np.errstate(invalid="ignore"):
        apart = np.where(visible, x - first, 0)
        mean = apart.sum(axis=-1, keepdims=True) / np.maximum(n, 1)
        std = np.sqrt(
            (np.where(visible, apart - mean, 0) ** 2).sum(axis=-1, keepdims=True) / np.maximum(n, 1)
        )
        z = np.vectorize(NormalDist().inv_cdf, otypes=[float])(1 - k / np.maximum(n, k + 1))
        return np.where(n > k, first + mean + std * z, -np.inf)[..., 0]


def least_squares(x, *, k, mask=None):
    """The minimiser of theta |z|_1 + |x - z|^2 / 2 over z >= 0, entry by entry."""
    visible = np.ones(x.shape, bool) if mask is None else mask
    cut = vectorised(x, k=k, mask=mask)[..., None]
    if (visible.any(axis=-1) & (visible.sum(axis=-1) <= k)).any():
        raise ValueError(f"k={k} keeps a whole row")
    with np.errstate(invalid="ignore"):
        z = x - cut
        return np.where(visible, np.where(z <= 0, 0.0, z), 0.0)


def from_soft(x, *, k, mask=None, keep_max=False):
    return above(vectorised, x, k, mask, keep_max)


def one_outlier(n, k):
    return np.append(np.linspace(0, 1, n - 1), 1e6)


def two_heaps(n, k):
    """Two heaps far apart: theta lies above both."""
    return np.where(np.arange(n) < n // 4, -100.0, 100.0) + np.linspace(0, 1, n)


RIGHT = {
    "unfair_row": [one_outlier],
    "threshold": [vectorised],
    "soft": [least_squares],
    "survivors": [from_soft],
}

ANOTHER = "another row that is as unfair"
EQUIVALENT = {
    "unfair_row": {
        "1 => 2 (row = np.linspace(0, 1, n))": ANOTHER,
        "0 => 1 (row[0] = 1000 * n)": ANOTHER,
        "1000 * n => 1000 (row[0] = 1000 * n)": ANOTHER,
        "1000 * n => n (row[0] = 1000 * n)": ANOTHER,
        "1000 => 1001 (row[0] = 1000 * n)": ANOTHER,
        "1000 => 999 (row[0] = 1000 * n)": ANOTHER,
    },
    "soft": {
        "0 < len(seen) <= k => False (if 0 < len(seen) <= k:)": "the quantile of 1 - k/n <= 0 raises too",
        "0 => 1 (if 0 < len(seen) <= k:)": "the quantile of 1 - k <= 0 raises too",
    },
}

HINTS = {
    "unfair_row": [
        "theta is mean + std Q. Which single number can you change to move the standard deviation a lot?",
        "One huge value raises mean and spread for all; the others stay where they were, below theta.",
        "np.linspace(0, 1, n) has no ties; then set one entry to a number like 1000 n.",
    ],
    "threshold": [
        "Three numbers per row: the mean, the standard deviation and a constant that depends on k/n alone.",
        "Which z does a standard normal exceed with probability k/n? That is Q(1 - k/n).",
        "seen.mean() + seen.std() * NormalDist().inv_cdf(1 - k / len(seen)), with seen = x[row][mask[row]].",
    ],
    "soft": [
        "Take theta from every entry of its row; what falls below zero becomes zero.",
        "theta has one number per row: it needs a last axis to stand beside x.",
        "np.maximum(x - threshold(x, k=k)[..., None], 0), and 0 where the mask hides the entry.",
    ],
    "survivors": [
        "Compare with theta; a masked entry never survives.",
        "A row with at most k visible entries has theta = -inf, so everything visible is above it.",
        "kept = mask & (x > theta[..., None]); for keep_max add the argmax of each row that keeps nothing.",
    ],
}
