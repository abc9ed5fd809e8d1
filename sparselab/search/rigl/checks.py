"""RigL: cases, facts, mistakes and hints."""

from math import cos, floor, pi, prod

import numpy as np

from sparselab.search.rigl import reference
from sparselab.search.rigl.reference import Connectivity, State

MLP = ((300, 64), (100, 300), (10, 100))
CONVS = ((16, 3, 3, 3), (64, 16, 3, 3), (64, 64, 3, 3), (10, 64))


def cases(rng):
    yield "erk", "a small MLP at 80 % sparsity", dict(shapes=MLP, density=0.2)
    yield "erk", "a small MLP at 95 % sparsity", dict(shapes=MLP, density=0.05)
    yield "erk", "convolutions", dict(shapes=CONVS, density=0.3)
    yield "erk", "one dense layer after another", dict(shapes=CONVS, density=0.9)
    yield "erk", "everything dense", dict(shapes=MLP, density=1.0)
    yield "erk", "nothing", dict(shapes=MLP, density=0.0)
    yield "erk", "equal layers", dict(shapes=((8, 8),) * 3, density=0.25)
    yield "erk", "one layer", dict(shapes=((5, 7),), density=0.5)
    yield "erk", "a layer of one weight", dict(shapes=((1, 1), (8, 8)), density=0.5)
    yield "erk", "density above 1", dict(shapes=MLP, density=1.2)
    yield "erk", "no layer", dict(shapes=(), density=0.2)
    yield "erk", "a layer without weights", dict(shapes=((5, 0), (5, 5)), density=0.2)

    for t, label in (
        (0, "the start"),
        (125, "a sixth"),
        (375, "halfway"),
        (749, "the last"),
        (750, "the end"),
    ):
        yield "drop_fraction", label, dict(t=t, end=750, alpha=0.3)
    yield "drop_fraction", "after the end", dict(t=1000, end=750, alpha=0.3)
    yield "drop_fraction", "an end after one step", dict(t=0, end=1, alpha=0.3)
    yield "drop_fraction", "an end before the first step", dict(t=0, end=0, alpha=0.3)
    yield "drop_fraction", "a negative step", dict(t=-1, end=750, alpha=0.3)
    yield "drop_fraction", "alpha above 1", dict(t=0, end=750, alpha=1.3)

    mask = rng.random((6, 8)) < 0.5
    w, grad = rng.normal(size=(6, 8)) * mask, rng.normal(size=(6, 8))
    n = int(mask.sum())
    layer = dict(w=w, mask=mask, grad=grad)
    some_zero = np.where(rng.random(w.shape) < 0.6, 0.0, w)
    yield "drop_and_grow", "a third exchanged", dict(**layer, keep=n - n // 3)
    yield "drop_and_grow", "one exchanged", dict(**layer, keep=n - 1)
    yield "drop_and_grow", "all kept", dict(**layer, keep=n)
    yield "drop_and_grow", "none kept", dict(**layer, keep=0)
    yield "drop_and_grow", "active weights at exactly 0", dict(layer, w=some_zero, keep=n - n // 3)
    yield (
        "drop_and_grow",
        "the dropped have the largest gradient",
        dict(layer, grad=1 / (0.01 + abs(w)), keep=n // 2),
    )
    yield "drop_and_grow", "all tied", dict(w=1.0 * mask, mask=mask, grad=np.ones_like(w), keep=n // 2)
    yield "drop_and_grow", "dense", dict(w=grad, mask=np.ones_like(mask), grad=w, keep=30)
    yield "drop_and_grow", "nothing active", dict(w=0 * w, mask=np.zeros_like(mask), grad=grad, keep=0)
    yield (
        "drop_and_grow",
        "one row",
        dict(w=w[:1], mask=mask[:1], grad=grad[:1], keep=int(mask[0].sum()) // 2),
    )
    yield (
        "drop_and_grow",
        "a convolution",
        dict(**{name: a.reshape(4, 3, 2, 2) for name, a in layer.items()}, keep=n // 2),
    )
    yield "drop_and_grow", "no gradient", dict(layer, grad=0 * grad, keep=n // 2)
    yield "drop_and_grow", "more than the active", dict(**layer, keep=n + 1)
    yield "drop_and_grow", "shapes that differ", dict(layer, grad=grad[:1], keep=3)

    velocity = rng.normal(size=w.shape) * mask
    settings = dict(lr=0.1, every=100, end=750)

    def at(t):
        return dict(state=State(w, mask, velocity, t), grad=grad)

    yield "step", "step 0 learns", dict(**at(0), **settings)
    yield "step", "between exchanges", dict(**at(101), **settings)
    yield "step", "an early exchange", dict(**at(100), **settings)
    yield "step", "a late exchange", dict(**at(600), **settings)
    yield "step", "half exchanged", dict(**at(100), **settings, alpha=0.6)
    yield "step", "an exchange of nothing", dict(**at(700), **settings, alpha=0.01)
    yield "step", "after the end", dict(**at(800), **settings)
    yield "step", "at the end", dict(**at(300), lr=0.1, every=100, end=300)
    yield "step", "without momentum", dict(**at(7), **settings, momentum=0.0)
    yield "step", "an exchange at every step", dict(**at(7), lr=0.1, every=1, end=750)
    yield "step", "an end after one step", dict(**at(7), lr=0.1, every=1, end=1)
    yield "step", "every = 0", dict(**at(7), lr=0.1, every=0, end=750)
    yield "step", "end = 0", dict(**at(7), lr=0.1, every=100, end=0)
    yield "step", "a negative step", dict(**at(-1), **settings)
    yield "step", "alpha above 1", dict(**at(7), **settings, alpha=1.3)
    for t, label in ((7, "learning"), (100, "an exchange")):
        yield "step", f"{label} with a gradient of another shape", dict(at(t), grad=grad[:1], **settings)


# ---------------------------------------------------------------- facts


def budget_is_spent(call, got, shapes, density):
    kept = sum(d * prod(shape) for d, shape in zip(got, shapes, strict=True))
    return abs(kept - density * sum(map(prod, shapes))) < 1e-6


def one_eps_below_one(call, got, shapes, density):
    eps = [d * prod(s) / sum(s) for d, s in zip(got, shapes, strict=True) if d < 1]
    return max(got) <= 1 and (not eps or np.ptp(eps) < 1e-9 * max(eps) + 1e-15)


def order_of_layers_is_irrelevant(call, got, shapes, density):
    return np.abs(np.subtract(call(shapes=shapes[::-1])[::-1], got)).max() < 1e-12


def falls_from_alpha_to_zero(call, got, t, end, alpha):
    values = [float(call(t=s)) for s in range(0, end + 50, 25)]
    return values[0] == alpha and values[-1] == 0 and values == sorted(values, reverse=True)


def as_many_as_before(call, got, w, mask, grad, keep):
    return got.mask.sum() == mask.sum()


def old_weights_stay_and_new_are_zero(call, got, w, mask, grad, keep):
    return np.array_equal(got.w, np.where(got.mask & mask, w, 0))


def the_grown_were_inactive(call, got, w, mask, grad, keep):
    return np.array_equal(got.grown, got.mask & ~mask)


def size_and_sign_of_the_gradient_are_irrelevant(call, got, w, mask, grad, keep):
    return np.array_equal(call(grad=-4 * grad).mask, got.mask)


def a_smaller_weight_never_outlives_a_larger(call, got, w, mask, grad, keep):
    """Without gradient at active weights none returns while others can grow."""
    lost = mask & ~got.mask
    stayed = mask & got.mask & (np.abs(grad) < np.abs(grad[got.grown]).min(initial=0))
    return np.abs(w[lost]).max(initial=0) <= np.abs(w[stayed]).min(initial=np.inf)


def only_active_weights_are_not_zero(call, got, state, grad, **settings):
    return not got.w[~got.mask].any() and not got.velocity[~got.mask].any()


def counts(call, got, state, grad, **settings):
    return got.t == state.t + 1 and got.mask.sum() == state.mask.sum()


def learns_or_exchanges(call, got, state, grad, **settings):
    """One or the other: where the mask moved, the weights that stayed did not."""
    stayed = got.mask & state.mask
    return np.array_equal(got.mask, state.mask) or np.array_equal(got.w[stayed], state.w[stayed])


CHECKS = {
    "erk": [
        ("the whole has the density asked for", budget_is_spent),
        ("no layer above 1, and one eps for all below", one_eps_below_one),
        ("the order of the layers does not matter", order_of_layers_is_irrelevant),
    ],
    "drop_fraction": [("it falls from alpha at 0 to 0 at the end", falls_from_alpha_to_zero)],
    "drop_and_grow": [
        ("as many are active as before", as_many_as_before),
        ("what was active keeps its value, what was not starts at 0", old_weights_stay_and_new_are_zero),
        ("grown means active now and not before", the_grown_were_inactive),
        ("sign and scale of the gradient do not matter", size_and_sign_of_the_gradient_are_irrelevant),
        ("no dropped weight is larger than one that was kept", a_smaller_weight_never_outlives_a_larger),
    ],
    "step": [
        ("weights and velocity are 0 where inactive", only_active_weights_are_not_zero),
        ("one more step, as many active weights", counts),
        ("a step exchanges or learns, never both", learns_or_exchanges),
    ],
}


# ---------------------------------------------------------------- mistakes


def clipped(shapes, *, density):
    reference.erk(shapes, density=density)
    eps = density * sum(map(prod, shapes)) / sum(map(sum, shapes))
    return tuple(min(1.0, eps * sum(s) / prod(s)) for s in shapes)


def uniform(shapes, *, density):
    reference.erk(shapes, density=density)
    return (density,) * len(shapes)


def equal_counts(shapes, *, density):
    """eps / prod(shape): every layer gets as many weights."""
    reference.erk(shapes, density=density)
    return tuple(min(1.0, density * sum(map(prod, shapes)) / len(shapes) / prod(s)) for s in shapes)


def without_the_kernel(shapes, *, density):
    """Erdos-Renyi on the first two sides only."""
    reference.erk(shapes, density=density)
    flat = [sum(s[:2]) / prod(s[:2]) for s in shapes]
    sizes, dense = [prod(s) for s in shapes], set()
    while True:
        rest = [i for i in range(len(shapes)) if i not in dense]
        if not rest:
            return (1.0,) * len(shapes)
        budget = density * sum(sizes) - sum(sizes[i] for i in dense)
        eps = budget / sum(sizes[i] * flat[i] for i in rest)
        worst = max(rest, key=lambda i: flat[i])
        if eps * flat[worst] <= 1:
            return tuple(1.0 if i in dense else eps * flat[i] for i in range(len(shapes)))
        dense.add(worst)


def sparsity_for_density(shapes, *, density):
    return reference.erk(shapes, density=1 - density)


def scheduled(shape_of):
    def wrong(t, *, end, alpha):
        reference.drop_fraction(t, end=end, alpha=alpha)
        return shape_of(t, end, alpha)

    return wrong


def growing(kept_by=None, grown_by=None, value=None, keeping=lambda keep, active: keep, candidates=None):
    """A wrong exchange: the reference's, with one of its choices replaced."""

    def wrong(w, mask, grad, *, keep):
        reference.drop_and_grow(w, mask, grad, keep=keep)
        active = int(mask.sum())
        keep = keeping(keep, active)
        kept = kept_by(w, mask, keep) if kept_by else reference._largest(np.abs(w), mask, keep)
        allowed = candidates(mask, kept) if candidates else ~kept
        score = grown_by(grad) if grown_by else np.abs(grad)
        grown = reference._largest(score, allowed, min(active - keep, int(allowed.sum())))
        new = kept | grown
        old = w if value is None else value(w, mask, grad, kept)
        return Connectivity(np.where(new & mask, w, 0) if value is None else new * old, new, new & ~mask)

    return wrong


def rank_everything(w, mask, keep):
    return reference._largest(np.abs(w), np.ones_like(mask), keep)


def rank_signed(w, mask, keep):
    return reference._largest(w, mask, keep)


def keep_smallest(w, mask, keep):
    return reference._largest(-np.abs(w), mask, keep)


def stepping(due=None, learn=None, rounded=floor, also_learn=False, forget=True, fixed=None):
    """A wrong step: the reference's, with one of its rules replaced."""
    due = due or (lambda t, every, end: t > 0 and t % every == 0 and t < end)
    learn = learn or (lambda state, grad, momentum: np.where(state.mask, momentum * state.velocity + grad, 0))

    def wrong(state, grad, *, lr, every, end, alpha=0.3, momentum=0.9):
        reference.step(state, grad, lr=lr, every=every, end=end, alpha=alpha, momentum=momentum)
        fraction = alpha / 2 * (1 + cos(pi * state.t / end)) if fixed is None else fixed(alpha)
        velocity = learn(state, grad, momentum)
        moved = State(state.w - lr * velocity, state.mask, velocity, state.t + 1)
        if not due(state.t, every, end):
            return moved
        before = moved if also_learn else state
        active = int(state.mask.sum())
        new = reference.drop_and_grow(before.w, before.mask, grad, keep=active - rounded(fraction * active))
        kept = np.where(new.mask, before.velocity, 0) if forget else before.velocity
        return State(new.w, new.mask, kept, state.t + 1)

    return wrong


WRONG = {
    "erk": [
        ("clipping at 1 loses budget: a layer that is full hands the rest on, solve eps again", clipped),
        ("the density of a layer is eps sum(shape) / prod(shape), not the same for all", uniform),
        (
            "the sum of the sides stands over their product: larger layers still get more weights",
            equal_counts,
        ),
        ("all sides of a convolution count, its kernel too", without_the_kernel),
        ("density counts what is kept", sparsity_for_density),
    ],
    "drop_fraction": [
        (
            "half of alpha times 1 + cos, so that it starts at alpha",
            scheduled(lambda t, e, a: a * (1 + cos(pi * t / e)) * (t < e)),
        ),
        ("a cosine, not a straight line", scheduled(lambda t, e, a: a * max(0.0, 1 - t / e))),
        (
            "the cosine goes through half a turn (pi), not a quarter",
            scheduled(lambda t, e, a: a * cos(pi / 2 * min(t, e) / e) if t < e else 0.0),
        ),
        (
            "after the end it stays 0; the cosine would rise again",
            scheduled(lambda t, e, a: a / 2 * (1 + cos(pi * t / e))),
        ),
        (
            "it falls: 1 + cos, not 1 - cos",
            scheduled(lambda t, e, a: a / 2 * (1 - cos(pi * t / e)) if t < e else 0.0),
        ),
    ],
    "drop_and_grow": [
        (
            "a weight just dropped may grow again: only the kept are out",
            growing(candidates=lambda mask, kept: ~mask),
        ),
        (
            "rank the active weights alone: an active 0 is not beaten by an inactive one",
            growing(kept_by=rank_everything),
        ),
        ("a large negative weight is large: rank |w|", growing(kept_by=rank_signed)),
        ("drop the smallest and keep the largest", growing(kept_by=keep_smallest)),
        ("grow where |gradient| is large, whatever its sign", growing(grown_by=lambda grad: grad)),
        ("grow where the gradient is large, not small", growing(grown_by=lambda grad: -np.abs(grad))),
        ("`keep` counts the weights kept, not dropped", growing(keeping=lambda keep, active: active - keep)),
        (
            "a new weight starts at 0, not at a gradient step",
            growing(value=lambda w, mask, grad, kept: np.where(mask, w, -0.1 * grad)),
        ),
        (
            "a weight dropped and grown again keeps its value",
            growing(value=lambda w, mask, grad, kept: np.where(kept, w, 0)),
        ),
        (
            "grow among those not kept, so that the count stays",
            growing(candidates=lambda mask, kept: mask | ~mask),
        ),
    ],
    "step": [
        (
            "the exchange takes the place of the gradient update: not both in one step",
            stepping(also_learn=True),
        ),
        ("no exchange at step 0", stepping(due=lambda t, every, end: t % every == 0 and t < end)),
        ("no exchange from `end` on", stepping(due=lambda t, every, end: t > 0 and t % every == 0)),
        (
            "inactive weights do not learn",
            stepping(learn=lambda state, grad, momentum: momentum * state.velocity + grad),
        ),
        (
            "the share to exchange follows the cosine, it is not alpha throughout",
            stepping(fixed=lambda alpha: alpha),
        ),
        ("a dropped weight forgets its velocity", stepping(forget=False)),
        (
            "velocity adds up the gradients",
            stepping(learn=lambda state, grad, momentum: np.where(state.mask, grad, 0)),
        ),
    ],
}


# ---------------------------------------------------------------- right, written otherwise


def by_bisection(shapes, *, density):
    """eps from sum(min(size, eps sum(shape))) = budget, which is what solving again amounts to."""
    if not 0 <= density <= 1 or not shapes or not all(map(prod, shapes)):
        raise ValueError(f"density={density}, shapes={shapes}")
    sizes, sums = np.array([prod(s) for s in shapes]), np.array([sum(s) for s in shapes])
    low, high = 0.0, float((sizes / sums).max())
    for _ in range(200):
        eps = (low + high) / 2
        spent = np.minimum(sizes, eps * sums).sum()
        low, high = (eps, high) if spent < density * sizes.sum() else (low, eps)
    return [float(d) for d in np.minimum(1, high * sums / sizes)]


def half_angle(t, *, end, alpha):
    if t < 0 or end < 1 or not 0 <= alpha <= 1:
        raise ValueError(f"t={t}")
    return alpha * np.cos(np.pi * min(t, end) / (2 * end)) ** 2 * (t < end)


def one_weight_at_a_time(w, mask, grad, *, keep):
    if not w.shape == mask.shape == grad.shape or not 0 <= keep <= mask.sum():
        raise ValueError(f"keep={keep}")
    active = [int(i) for i in np.flatnonzero(mask)]
    kept = sorted(active, key=lambda i: (-abs(w.flat[i]), i))[:keep]
    others = [i for i in range(w.size) if i not in kept]
    grown = sorted(others, key=lambda i: (-abs(grad.flat[i]), i))[: len(active) - keep]
    new_w, new, fresh = np.zeros(w.shape), np.zeros(w.shape, bool), np.zeros(w.shape, bool)
    for i in kept + grown:
        new.flat[i], fresh.flat[i] = True, i not in active
        new_w.flat[i] = w.flat[i] if i in active else 0
    return new_w, new, fresh


RIGHT = {
    "erk": [by_bisection],
    "drop_fraction": [half_angle],
    "drop_and_grow": [one_weight_at_a_time],
    "step": [stepping()],
}

# What `step` cannot see of `drop_and_grow`: it asks for what is possible, and drops `grown`.
_KEEP = "(if not 0 <= keep <= active:)"
_OUT = "(return Connectivity(np.where(new & mask, w, 0), new, new & ~mask))"
EQUIVALENT = {
    "step": {
        "not w.shape == mask.shape == grad.shape => False "
        "(if not w.shape == mask.shape == grad.shape:)": "`step` compares the shapes before",
        f"not 0 <= keep <= active => False {_KEEP}": "0 <= floor(f n) <= n for every f in 0..1",
        f"0 => 1 {_KEEP}": "f < 1 at every exchange, so that one weight at least is kept",
        f"new & ~mask => new | ~mask {_OUT}": "`grown` is for other optimisers",
        f"~mask => mask {_OUT}": "`grown` is for other optimisers",
    }
}

HINTS = {
    "erk": [
        "First pretend that no layer is full: eps times the sum of all sum(shape) is the budget.",
        "A layer above 1 is made dense. Its surplus belongs to the others: take it out of both budget and "
        "sum, and solve for eps again; begin with the largest sum(shape) / prod(shape).",
        "Loop: budget = density * all weights - weights of dense layers; eps = budget / the rest's sum of "
        "sum(shape); stop when no eps * sum(shape) / prod(shape) exceeds 1.",
    ],
    "drop_fraction": [
        "What are cos(0), cos(pi / 2) and cos(pi)? The curve should pass through alpha, alpha / 2 and 0.",
        "1 + cos runs from 2 to 0; scale it by alpha / 2.",
        "alpha / 2 * (1 + cos(pi * t / end)) while t < end, else 0.0",
    ],
    "drop_and_grow": [
        "Two rankings, one after the other: |w| among the active, then |grad| among all that were not kept.",
        "Give everything outside a ranking the worst possible score, sort stably, take the first n.",
        "new = kept | grown; the weights are np.where(new & mask, w, 0), and grown is new & ~mask.",
    ],
    "step": [
        "Decide first whether this step exchanges or learns; it never does both.",
        "It exchanges where t > 0, t is a multiple of `every` and t < end; keep = n - floor(fraction * n).",
        "Learning: velocity = np.where(mask, momentum * velocity + grad, 0), then w - lr * velocity. After "
        "an exchange velocity is 0 outside the new mask.",
    ],
}
