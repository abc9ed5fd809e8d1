"""TEAL's cases, facts, mistakes and hints."""

import numpy as np

from sparselab import judge
from sparselab.lazy.teal import reference


def cases(rng):
    x = rng.normal(size=(20, 60))
    yield "calibrate", "half of a Gaussian", dict(x=x, sparsity=0.5)
    yield "calibrate", "a law that is not centred", dict(x=x + 1, sparsity=0.5)
    yield "calibrate", "Laplace", dict(x=rng.laplace(size=900), sparsity=0.4)
    yield "calibrate", "in the tail's bin", dict(x=x, sparsity=0.985)
    yield "calibrate", "ten bins", dict(x=x, sparsity=0.7, bins=10)
    yield "calibrate", "three bins", dict(x=x, sparsity=0.7, bins=3)
    yield (
        "calibrate",
        "few distinct values",
        dict(x=rng.integers(0, 3, size=200) - 1.5, sparsity=0.01, bins=3),
    )
    yield "calibrate", "two activations", dict(x=np.array([0.5, -0.25]), sparsity=0.01, bins=4)
    yield "calibrate", "mostly zeros", dict(x=np.where(np.abs(x) > 1.5, x, 0), sparsity=0.9)
    yield "calibrate", "all equal", dict(x=np.full((2, 3), 1.5), sparsity=0.5)
    yield "calibrate", "one activation", dict(x=np.array([0.7]), sparsity=0.5)
    yield "calibrate", "nothing dropped", dict(x=x, sparsity=0.0)
    yield "calibrate", "everything dropped", dict(x=x, sparsity=1.0)
    yield "calibrate", "no sample", dict(x=x[:0], sparsity=0.5)
    yield "calibrate", "more than everything", dict(x=x, sparsity=1.01)
    yield "calibrate", "a negative share", dict(x=x, sparsity=-0.01)
    yield "calibrate", "two bins", dict(x=x, sparsity=0.5, bins=2)

    few = x[:3, :8]
    level = np.array([[0.5, -0.5, 0.25, -1.0, 0.0]])
    for op, extra in (("sparsify", {}), ("gemv", dict(w=rng.normal(size=(5, 8))))):
        token = few if op == "sparsify" else few[0]
        yield op, "half", dict(extra, x=token, cut=np.array(np.median(np.abs(token))))
        yield op, "no cut", dict(extra, x=token, cut=np.array(0.0))
        yield op, "nothing survives", dict(extra, x=token, cut=np.array(9.0))
    yield "sparsify", "an entry on the cut", dict(x=level, cut=np.array(0.5))
    yield "sparsify", "one token", dict(x=few[0], cut=np.array(0.6))
    yield "sparsify", "no tokens", dict(x=few[:0], cut=np.array(0.6))
    w = rng.normal(size=(3, 5))
    yield "gemv", "an entry on the cut", dict(w=w, x=level[0], cut=np.array(0.5))
    yield "gemv", "only zeros and no cut", dict(w=w, x=np.zeros(5), cut=np.array(0.0))
    yield "gemv", "a square weight", dict(w=rng.normal(size=(8, 8)), x=few[1], cut=np.array(0.4))
    yield "gemv", "one input", dict(w=w[:, :1], x=level[0, :1], cut=np.array(0.1))
    wide = dict(w=rng.normal(size=(70, 550)), x=rng.normal(size=550), cut=np.array(0.7))
    yield "gemv", "longer than a block", wide
    yield "gemv", "one input too many", dict(w=w[:, :4], x=level[0], cut=np.array(0.5))
    yield "gemv", "one input for five", dict(w=w[:, :1], x=level[0], cut=np.array(0.5))

    seven = np.array([1, 0.25, 0.25, 1, 3.5, 3.5, 3.5])
    cost = rng.uniform(0.5, 2, size=7)
    yield "greedy", "the projections of Llama-3-8B", dict(error=quadratic(cost), size=seven, sparsity=0.4)
    yield "greedy", "equal sizes", dict(error=quadratic(cost[:3]), size=np.ones(3), sparsity=0.4, step=0.1)
    yield "greedy", "two that hurt together", dict(error=together, size=np.array([1.0, 1, 2]), sparsity=0.5)
    yield "greedy", "all tied", dict(error=quadratic([1, 1, 1]), size=np.ones(3), sparsity=0.3, step=0.25)
    one_free = dict(error=quadratic([0, 1, 1]), size=np.ones(3), sparsity=0.6, step=0.3)
    yield "greedy", "one that costs nothing is raised to 1", one_free
    yield (
        "greedy",
        "everything dropped",
        dict(error=quadratic([1, 2]), size=np.ones(2), sparsity=1.0, step=0.3),
    )
    yield "greedy", "nothing dropped", dict(error=quadratic([1, 2]), size=np.ones(2), sparsity=0.0)
    yield "greedy", "one projection", dict(error=quadratic([1]), size=np.array([2.0]), sparsity=0.4)
    yield "greedy", "more than everything", dict(error=quadratic([1]), size=np.ones(1), sparsity=1.01)
    yield "greedy", "a negative share", dict(error=quadratic([1]), size=np.ones(1), sparsity=-0.01)
    yield "greedy", "no step", dict(error=quadratic([1]), size=np.ones(1), sparsity=0.5, step=0.0)
    yield "greedy", "an empty weight", dict(error=quadratic([1, 1]), size=np.array([1.0, 0]), sparsity=0.5)
    yield "greedy", "no projection", dict(error=quadratic([]), size=np.ones(0), sparsity=0.5)


def quadratic(cost):
    """An error of independent projections, convex as real ones are."""

    def error(levels):
        return sum(float(c) * float(level) ** 2 for c, level in zip(cost, levels, strict=True))

    return error


def together(levels):
    q, k, v = map(float, levels)
    return q**2 + k**2 + 3 * q * k + 2 * v**2


def stretching_the_sample_stretches_the_cut(call, got, x, sparsity, bins=10_000):
    return judge.same(call(x=3 * x), 3 * got, atol=1e-9)


def a_symmetric_sample_loses_the_share(call, got, x, sparsity, bins=10_000):
    sample = np.random.default_rng(5).normal(size=3000)
    sample = np.concatenate([sample, -sample])
    share = (np.abs(sample) <= call(x=sample, sparsity=0.6, bins=10_000)).mean()
    return abs(share - 0.6) < 1e-3


def survivors_are_untouched(call, got, x, cut):
    return np.array_equal(got[got != 0], x[(np.abs(x) > cut) & (x != 0)])


def signs_do_not_matter(call, got, x, cut):
    return np.array_equal(call(x=-x), -got)


def the_error_follows_its_law(call, got, x, cut):
    """Drop half of a Gaussian, and of a Laplace sample: relative errors 0.267 and 0.183."""
    rng, log = np.random.default_rng(6), np.log(2)
    t = 0.6744897501960817
    gaussian = np.sqrt(0.5 - 2 * t * np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi))
    laplace = np.sqrt(1 - (1 + log + log**2 / 2) / 2)
    for sample, at, law in (
        (rng.normal(size=20_000), t, gaussian),
        (rng.laplace(size=20_000), log, laplace),
    ):
        rest = sample - call(x=sample, cut=np.array(at))
        if abs(np.linalg.norm(rest) / np.linalg.norm(sample) - law) > 0.01:
            return False
    return True


def skipped_columns_are_not_read(call, got, w, x, cut):
    return judge.same(call(w=np.where(np.abs(x) > cut, w, np.nan)), got)


def dense_below_every_input(call, got, w, x, cut):
    return judge.same(call(cut=np.array(-1.0)), w @ x)


def the_target_is_met_within_a_step(call, got, error, size, sparsity, step=0.05):
    over = size @ got.levels - sparsity * size.sum()
    return -1e-6 < over < step + 1e-6


def no_level_passes_one(call, got, error, size, sparsity, step=0.05):
    return (got.levels <= 1).all()


def the_last_error_is_that_of_the_answer(call, got, error, size, sparsity, step=0.05):
    return not len(got.error) or judge.same(np.array(error(got.levels)), np.array(got.error[-1]))


def a_further_target_goes_on_from_here(call, got, error, size, sparsity, step=0.05):
    further = call(sparsity=min(1.0, sparsity + 0.2))
    return np.array_equal(further.raised[: len(got.raised)], got.raised)


CHECKS = {
    "calibrate": [
        ("three times the activations need three times the cut", stretching_the_sample_stretches_the_cut),
        ("of a symmetric sample the wanted share lies within the cut", a_symmetric_sample_loses_the_share),
    ],
    "sparsify": [
        ("what survives keeps its value", survivors_are_untouched),
        ("turning every sign turns the answer's signs", signs_do_not_matter),
        (
            "half of a Gaussian costs 0.27 of its norm, half of a Laplace sample 0.18",
            the_error_follows_its_law,
        ),
    ],
    "gemv": [
        ("a column whose input is dropped is never read", skipped_columns_are_not_read),
        ("with a cut below every input this is W x", dense_below_every_input),
    ],
    "greedy": [
        ("the weighted mean ends within a step above the target", the_target_is_met_within_a_step),
        ("no level passes 1", no_level_passes_one),
        ("the last error is that of the levels returned", the_last_error_is_that_of_the_answer),
        ("a higher target begins with the same steps", a_further_target_goes_on_from_here),
    ],
}


# ---------------------------------------------------------------- mistakes


def one_sided(x, *, sparsity, bins=10_000):
    return reference.calibrate(x, sparsity=max(0.0, 2 * sparsity - 1), bins=bins)


def quantile_of_magnitudes(x, *, sparsity, bins=10_000):
    reference.calibrate(x, sparsity=sparsity, bins=bins)
    return np.asarray(np.quantile(np.abs(x), sparsity))


def share_kept(x, *, sparsity, bins=10_000):
    return reference.calibrate(x, sparsity=1 - sparsity, bins=bins)


def quantile_of_values(x, *, sparsity, bins=10_000):
    reference.calibrate(x, sparsity=sparsity, bins=bins)
    return np.asarray(np.quantile(x, 0.5 + sparsity / 2) if sparsity else 0.0)


def reading(between):
    """A wrong cut read off the right histogram: `between(wanted, below, centre, edges)`."""

    def answer(x, *, sparsity, bins=10_000):
        reference.calibrate(x, sparsity=sparsity, bins=bins)
        if sparsity == 0:
            return np.asarray(0.0)
        edges = np.concatenate([[x.min()], np.linspace(*np.quantile(x, [0.01, 0.99]), bins - 1), [x.max()]])
        below, centre = np.histogram(x, edges)[0].cumsum(), (edges[:-1] + edges[1:]) / 2
        return np.asarray(between((0.5 + sparsity / 2) * x.size, below, centre, edges))

    return answer


def at_right_edges(wanted, below, centre, edges):
    return np.interp(wanted, below, edges[1:])


def over_empty_bins(wanted, below, centre, edges):
    return np.interp(wanted, below, centre)


def without_a_line(wanted, below, centre, edges):
    return centre[np.argmax(below >= wanted)]


def values_not_magnitudes(x, cut):
    return np.where(x > cut, x, 0)


def shrunk(x, cut):
    return np.sign(x) * np.maximum(np.abs(x) - cut, 0)


def on_the_cut_survives(x, cut):
    return np.where(np.abs(x) >= cut, x, 0)


def keeps_the_small(x, cut):
    return np.where(np.abs(x) > cut, 0, x)


def gemv_with(select):
    def gemv(w, x, cut):
        reference.gemv(w, x, cut)
        return w @ select(x, cut)

    return gemv


def without_the_input(w, x, cut):
    reference.gemv(w, x, cut)
    return w[:, np.abs(x) > cut].sum(axis=1)


def equal_steps(error, size, *, sparsity, step=0.05):
    """Every raise is `step`, whatever the projection's size."""
    reference.greedy(error, size, sparsity=sparsity, step=step)
    levels, raised, errors = np.zeros(len(size)), [], []
    while size @ levels < (sparsity - 1e-9) * size.sum():
        tries = {
            p: np.minimum(levels + step * (np.arange(len(size)) == p), 1) for p in np.flatnonzero(levels < 1)
        }
        p = min(tries, key=lambda p: error(tries[p]))
        levels, raised, errors = tries[p], [*raised, p], [*errors, error(tries[p])]
    return reference.Allocation(levels, np.array(raised, np.int64), np.array(errors, float))


def plain_mean(error, size, *, sparsity, step=0.05):
    """Stops at the mean of the levels, whatever the sizes."""
    right = reference.greedy(error, size, sparsity=1.0 if sparsity else 0.0, step=step)
    reference.greedy(error, size, sparsity=sparsity, step=step)
    levels, n = np.zeros(len(size)), 0
    while levels.mean() < sparsity - 1e-9 and n < len(right.raised):
        p = right.raised[n]
        levels[p], n = min(levels[p] + step / size[p], 1), n + 1
    return reference.Allocation(levels, right.raised[:n], right.error[:n])


def worst_first(error, size, *, sparsity, step=0.05):
    wrong = reference.greedy(lambda levels: -error(levels), size, sparsity=sparsity, step=step)
    return wrong._replace(error=-wrong.error)


def each_alone(error, size, *, sparsity, step=0.05):
    """Judges a raise with the other projections dense."""
    reference.greedy(error, size, sparsity=sparsity, step=step)
    levels, raised, errors = np.zeros(len(size)), [], []
    while size @ levels < (sparsity - 1e-9) * size.sum():
        higher = np.minimum(levels + step / size, 1)
        p = min(
            np.flatnonzero(levels < 1), key=lambda p: error(np.where(np.arange(len(size)) == p, higher, 0))
        )
        levels[p] = higher[p]
        raised, errors = [*raised, p], [*errors, error(levels)]
    return reference.Allocation(levels, np.array(raised, np.int64), np.array(errors, float))


WRONG = {
    "calibrate": [
        ("both tails survive: the cut is the quantile 0.5 + sparsity/2, not sparsity", one_sided),
        ("TEAL reads F^-1(0.5 + s/2) of x; a quantile of |x| is another number", quantile_of_magnitudes),
        ("sparsity is the share dropped, not kept", share_kept),
        ("F comes from the histogram; np.quantile of the sample is another number", quantile_of_values),
        ("a bin's cumulative count belongs to its centre", reading(at_right_edges)),
        (
            "empty bins repeat a count: the cut lies at the first centre that reaches it, not at the last",
            reading(over_empty_bins),
        ),
        ("go from centre to centre along a line, not in steps", reading(without_a_line)),
    ],
    "sparsify": [
        ("a large negative entry matters as much as a positive one: compare |x|", values_not_magnitudes),
        ("what survives keeps its value: nothing is subtracted", shrunk),
        ("an entry on the cut is dropped: |x| > cut, not >=", on_the_cut_survives),
        ("the large entries stay, not the small", keeps_the_small),
    ],
    "gemv": [
        (
            "a large negative input matters as much as a positive one: compare |x|",
            gemv_with(values_not_magnitudes),
        ),
        ("what survives keeps its value: nothing is subtracted", gemv_with(shrunk)),
        ("an input on the cut is dropped: |x| > cut, not >=", gemv_with(on_the_cut_survives)),
        ("the columns of the large inputs are read, not of the small", gemv_with(keeps_the_small)),
        ("each column is multiplied by its input", without_the_input),
        ("multiplying by zero reads the column all the same: leave it out", gemv_with(reference.sparsify)),
    ],
    "greedy": [
        ("every step drops equally many weights: raise a level by step / size", equal_steps),
        ("the mean weighs each level by its projection's size", plain_mean),
        ("raise the projection that leaves the LEAST error", worst_first),
        ("judge a raise with the other projections where they are now, not dense", each_alone),
    ],
}


def by_interpolation(x, *, sparsity, bins=10_000):
    """The same curve through np.interp, which wants rising counts: of equal ones the first centre counts."""
    if not (x.size and 0 <= sparsity <= 1 and bins >= 3):
        raise ValueError(f"{x.size} activations, sparsity={sparsity}, bins={bins}")
    if sparsity == 0:
        return np.asarray(0.0)
    edges = np.r_[x.min(), np.linspace(*np.quantile(x, [0.01, 0.99]), bins - 1), x.max()]
    below, first = np.unique(np.histogram(x, edges)[0].cumsum(), return_index=True)
    left, right = np.r_[0, below[:-1]], below
    i = np.searchsorted(right, (0.5 + sparsity / 2) * x.size)
    to = (edges[first[i]] + edges[first[i] + 1]) / 2
    since = (edges[first[i] - 1] + edges[first[i]]) / 2
    return np.asarray(since + ((0.5 + sparsity / 2) * x.size - left[i]) / (right[i] - left[i]) * (to - since))


def by_zeroing(x, cut):
    out = x.copy()
    out[(x <= cut) & (x >= -cut)] = 0
    return out


def by_gathering(w, x, cut):
    if w.shape[1] != x.size:
        raise ValueError(f"w has {w.shape[1]} inputs, x has {x.size}")
    kept = [i for i, value in enumerate(x) if value > cut or value < -cut]
    return w[:, kept] @ x[kept]


def greedy_by_argmin(error, size, *, sparsity, step=0.05):
    if not (0 <= sparsity <= 1 and step > 0 and len(size) and (size > 0).all()):
        raise ValueError(f"sparsity={sparsity}, step={step}, {len(size)} sizes")
    levels, raised, errors, budget = np.zeros(len(size)), [], [], sparsity * size.sum()
    while budget - (size * levels).sum() > 1e-9 * size.sum():
        higher = levels + np.diag(np.minimum(step / size, 1 - levels))
        left = [error(h) if level < 1 else np.inf for h, level in zip(higher, levels, strict=True)]
        levels = higher[np.argmin(left)]
        raised, errors = [*raised, np.argmin(left)], [*errors, np.min(left)]
    return levels, np.array(raised, np.int64), np.array(errors, float)


LOOP = "while size @ levels < (sparsity - 1e-09) * size.sum():"
EQUIVALENT = {
    "greedy": {
        "size @ levels < (sparsity - 1e-09) * size.sum() => "
        f"size @ levels <= (sparsity - 1e-09) * size.sum() ({LOOP})": "no steps end 1e-9 below a target",
        f"1e-09 => 1.5000000000000002e-09 ({LOOP})": "any slack between rounding and a step will do",
    }
}

RIGHT = {
    "calibrate": [by_interpolation],
    "sparsify": [by_zeroing],
    "gemv": [by_gathering],
    "greedy": [greedy_by_argmin],
}

HINTS = {
    "calibrate": [
        "If the law is symmetric, dropping the share s leaves (1 - s)/2 above the cut. Which quantile is it?",
        "With the edges x.min(), bins - 1 points from the 1 % to the 99 % quantile, x.max(): cumulate the "
        "counts of np.histogram. You look for the place where they reach (0.5 + s/2) x.size.",
        "Find the first bin i that reaches it. The cut lies between centre[i - 1] and centre[i], the part "
        "(wanted - below[i - 1]) / (below[i] - below[i - 1]) of the way.",
    ],
    "sparsify": [
        "Compare, then choose between x and 0.",
        "It is the magnitude that is compared; an entry on the cut is dropped.",
        "np.where(np.abs(x) > cut, x, 0).",
    ],
    "gemv": [
        "W x is a sum of columns of W, each times its entry of x. Which of them may be left out?",
        "np.flatnonzero(np.abs(x) > cut) lists the columns to read.",
        "For each such i add w[:, i] * x[i] to the result; do not touch the others.",
    ],
    "greedy": [
        "One loop until the target is met; inside it, one trial for each projection.",
        "A trial copies the levels, raises one by step / size (to 1 at most) and asks for the error.",
        "Take the trial of least error, note p and the error, go on while size @ levels falls short of "
        "sparsity * size.sum() by more than rounding, 1e-9 of the sum.",
    ],
}
