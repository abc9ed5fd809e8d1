"""CoreMatching's cases, facts, mistakes and hints."""

import numpy as np

from sparselab import judge
from sparselab.lazy.core_matching import reference
from sparselab.lazy.core_matching.reference import Gated


def cases(rng):
    a = rng.normal(size=(9, 20)) + np.linspace(-0.5, 0.5, 20)
    yield "core_neurons", "the published shares", dict(a=a)
    yield "core_neurons", "half of half", dict(a=a, rho=0.5, beta=0.5)
    yield "core_neurons", "tokens that fire unequally", dict(a=a + np.linspace(-2, 2, 9)[:, None], rho=0.4)
    yield "core_neurons", "as released", dict(a=a + np.linspace(-2, 2, 9)[:, None], rho=0.4, common=True)
    yield "core_neurons", "fewer counted than wanted", dict(a=a[:2], rho=0.2, beta=0.8)
    yield "core_neurons", "all tied", dict(a=np.ones((3, 10)), rho=0.5, beta=0.3)
    yield "core_neurons", "silent tokens", dict(a=-np.abs(a), rho=0.5)
    yield "core_neurons", "one token", dict(a=a[:1], rho=0.5)
    yield "core_neurons", "one neuron", dict(a=np.abs(a[:, :1]), rho=1.0, beta=1.0)
    yield "core_neurons", "none wanted", dict(a=a, beta=0.0)
    yield "core_neurons", "all wanted", dict(a=a, rho=1.0, beta=1.0)
    yield "core_neurons", "none counted", dict(a=a, rho=0.0)
    yield "core_neurons", "exact zeros are silent", dict(a=np.round(a), rho=1.0, beta=1.0)
    yield "core_neurons", "exact zeros as released", dict(a=np.round(a), rho=0.5, common=True)
    yield "core_neurons", "no tokens", dict(a=a[:0])
    yield "core_neurons", "a share above 1", dict(a=a, rho=1.1)
    yield "core_neurons", "a negative share", dict(a=a, rho=-0.1)
    yield "core_neurons", "more than all kept", dict(a=a, beta=1.1)
    yield "core_neurons", "fewer than none kept", dict(a=a, beta=-0.1)

    core = rng.random(20) < 0.4
    yield "overlap", "forty per cent core", dict(a=a, core=core)
    yield "overlap", "the fifth token from the end", dict(a=a, core=a[-5] > 0)
    yield "overlap", "as many tokens as neurons", dict(a=rng.normal(size=(20, 20)), core=core)
    yield "overlap", "exact zeros are silent", dict(a=np.round(a), core=core)
    yield "overlap", "all core", dict(a=a, core=np.ones(20, bool))
    yield "overlap", "none core", dict(a=a, core=np.zeros(20, bool))
    yield "overlap", "one token", dict(a=a[:1], core=core)
    yield "overlap", "no tokens", dict(a=a[:0], core=core)
    yield "overlap", "one neuron", dict(a=a[:, :1], core=core[:1])
    yield "overlap", "a core of other neurons", dict(a=a, core=core[:19])
    yield "overlap", "one flag for all", dict(a=a, core=core[:1])

    convex = np.array([3, 100, 12, 50, 1, 25, 6, 2])
    bell = np.sort(np.round(100 + 10 * rng.normal(size=50)).astype(np.int64))
    curves = {
        "a convex curve": convex,
        "a concave curve": 100 - convex,
        "a bell": bell,
        "a bell, unsorted": rng.permutation(bell),
        "a straight line": np.arange(6),
        "two points nearly as far": np.array([16, 100, 0, 50]),
        "two points nearly as far above": np.array([84, 0, 100, 50]),
        "an exact tie of distances": np.array([12, 8, 8, 4, 4, 0]),
        "a tie that fractions miss": np.array([39, 25, 21, 19, 6, 3, 1]),
        "all equal": np.full(5, 7),
        "two tokens": np.array([4, 9]),
        "one token": np.array([3]),
        "no tokens": np.zeros(0, np.int64),
    }
    for label, g in curves.items():
        yield "elbow", label, dict(g=g)
        yield "elbow", f"{label}, either side", dict(g=g, signed=False)
        yield "core_tokens", label, dict(g=g)
    yield "core_tokens", "a bell, either side", dict(g=bell, signed=False)
    yield "core_tokens", "at least six", dict(g=convex, least=6)
    yield "core_tokens", "at most two", dict(g=convex, most=2)
    yield "core_tokens", "a tie at the floor", dict(g=np.array([5, 5, 5, 1, 9, 5]), least=3, most=3)
    yield "core_tokens", "all", dict(g=convex, least=8)
    yield "core_tokens", "none", dict(g=convex, least=0, most=0)
    yield "core_tokens", "no tokens and none wanted", dict(g=convex[:0], least=0)
    yield "core_tokens", "more than there are", dict(g=convex, least=9)
    yield "core_tokens", "a ceiling above all", dict(g=convex, most=9)
    yield "core_tokens", "a floor above the ceiling", dict(g=convex, least=3, most=2)
    yield "core_tokens", "a negative floor", dict(g=convex, least=-1)

    for t in (8, 9, 40, 576):
        yield "tipping_pair", f"{t} tokens", dict(t=t)

    x, kept = rng.normal(size=(7, 4)), np.array([True, False, True, True, False, False, True])
    yield "prune", "four of seven", dict(x=x, positions=np.arange(7), kept=kept)
    yield "prune", "positions with gaps already", dict(x=x, positions=np.arange(7) * 3 + 5, kept=kept)
    yield "prune", "all", dict(x=x, positions=np.arange(7), kept=np.ones(7, bool))
    yield "prune", "none", dict(x=x, positions=np.arange(7), kept=np.zeros(7, bool))
    yield "prune", "one token", dict(x=x[:1], positions=np.array([9]), kept=kept[:1])
    yield "prune", "flags for other tokens", dict(x=x, positions=np.arange(7), kept=kept[:6])
    yield "prune", "positions for other tokens", dict(x=x, positions=np.arange(6), kept=kept)
    yield "prune", "tokens for other flags", dict(x=x[:6], positions=np.arange(7), kept=kept)

    q, k, v = rng.normal(size=(3, 4)), rng.normal(size=(7, 4)), rng.normal(size=(7, 5))
    cache = dict(q=q, k=k, v=v, kept=kept)
    yield "attend", "four of seven", cache
    yield "attend", "zeros for three", dict(cache, zeroed=True)
    yield "attend", "large logits", dict(cache, q=3000 * q)
    yield "attend", "large logits and zeros", dict(cache, q=3000 * q, zeroed=True)
    yield "attend", "all kept", dict(cache, kept=np.ones(7, bool))
    yield "attend", "all kept and zeros", dict(cache, kept=np.ones(7, bool), zeroed=True)
    yield "attend", "one kept", dict(cache, kept=np.arange(7) == 4)
    yield "attend", "one query", dict(cache, q=q[:1])
    yield "attend", "as many queries as keys", dict(cache, q=rng.normal(size=(7, 4)), zeroed=True)
    yield "attend", "no queries", dict(cache, q=q[:0])
    yield "attend", "one key of width one", dict(q=q[:, :1], k=k[:1, :1], v=v[:1, :1], kept=kept[:1])
    yield "attend", "none kept", dict(cache, kept=np.zeros(7, bool))
    yield "attend", "flags for other keys", dict(cache, kept=kept[:6])
    yield "attend", "one flag for all", dict(cache, kept=kept[:1])
    yield "attend", "one key for all", dict(cache, k=k[:1])
    yield "attend", "one value for all", dict(cache, v=v[:1])
    yield "attend", "widths that differ", dict(cache, q=q[:, :3])

    layer = Gated(rng.normal(size=(10, 4)), rng.normal(size=(10, 4)), rng.normal(size=(4, 10)))
    core = np.arange(10) % 3 != 0
    yield "gather", "six of ten", dict(layer=layer, core=core)
    yield "gather", "all", dict(layer=layer, core=np.ones(10, bool))
    yield "gather", "none", dict(layer=layer, core=np.zeros(10, bool))
    yield "gather", "a core of other neurons", dict(layer=layer, core=core[:9])
    yield "gather", "matrices of other neurons", dict(layer=layer._replace(up=layer.up[:9]), core=core)
    yield "ffn", "ten neurons", dict(x=x, layer=layer)
    yield "ffn", "large values", dict(x=30 * x, layer=layer)
    yield "ffn", "one token", dict(x=x[:1], layer=layer)
    yield "ffn", "no tokens", dict(x=x[:0], layer=layer)
    yield "ffn", "no neurons", dict(x=x, layer=Gated(*(w[:0] for w in layer[:2]), layer.down[:, :0]))
    yield "ffn", "another width", dict(x=x[:, :3], layer=layer)
    yield "ffn", "matrices of other neurons", dict(x=x, layer=layer._replace(down=layer.down[:, :9]))


def a_larger_share_contains_a_smaller(call, got, a, rho=0.2, beta=0.4, common=False):
    return (got.kept <= call(beta=(1 + beta) / 2).kept).all()


def the_order_of_tokens_does_not_matter(call, got, a, **shares):
    return np.array_equal(call(a=a[::-1].copy()).count, got.count)


def neurons_may_be_renumbered(call, got, a, rho=0.2, beta=0.4, common=False):
    if (np.sort(a, axis=1)[:, 1:] == np.sort(a, axis=1)[:, :-1]).any():
        return True  # ties are settled by number
    order = np.random.default_rng(0).permutation(a.shape[1])
    return np.array_equal(call(a=a[:, order]).count, got.count[order])


def the_core_are_the_most_counted(call, got, a, rho=0.2, beta=0.4, common=False):
    wanted = min(int(beta * a.shape[1]), (got.count > 0).sum())
    lowest = got.count[got.kept].min(initial=len(a))
    return got.kept.sum() == wanted and lowest >= got.count[~got.kept].max(initial=0)


def each_token_counts_a_share_of_what_fires(call, got, a, rho=0.2, beta=0.4, common=False):
    fired = (a > 0).sum(axis=1)
    return common or got.count.sum() == sum(int(rho * n) for n in fired)


def loudness_of_a_token_does_not_matter(call, got, a, **shares):
    return np.array_equal(call(a=a * np.arange(1, len(a) + 1)[:, None]).count, got.count)


def overlaps_are_a_product_of_sets(call, got, a, core):
    return np.array_equal(got, (a > 0).astype(int) @ core.astype(int))


def overlaps_exceed_neither_set(call, got, a, core):
    return (got <= np.minimum((a > 0).sum(axis=1), core.sum())).all()


def overlap_ignores_numbering(call, got, a, core):
    order = np.random.default_rng(0).permutation(len(core))
    return np.array_equal(call(a=a[:, order], core=core[order]), got)


def silence_may_be_deeper(call, got, a, core):
    return np.array_equal(call(a=np.where(a > 0, a, a - 5)), got)


def stretching_and_lifting_move_it_along(call, got, g, signed=True):
    return call(g=3 * g) == 3 * got and call(g=g + 5) == got + 5


def order_is_irrelevant(call, got, g, **sizes):
    shuffled = np.random.default_rng(0).permutation(len(g))
    return np.array_equal(call(g=g[shuffled]), got)


def a_geometric_curve_bends_inside(call, got, g, signed=True):
    """2^10, 2^9, ..., 1: the chord falls 102.3 a step, less than the curve's until 2^6."""
    return call(g=2 ** np.arange(11)) == 128


def a_bell_keeps_a_minority(call, got, g, signed=True):
    """Six draws of 576 overlaps; unsigned, some keep nearly all."""
    shares = []
    for seed in range(6):
        bell = np.round(1000 * np.random.default_rng(seed).normal(size=576)).astype(np.int64)
        shares.append((bell >= call(g=bell, signed=True)).mean())
    return min(shares) > 0 and max(shares) < 0.25


def the_kept_are_the_largest(call, got, g, least=1, most=None, signed=True):
    return g[got].min(initial=g.max()) >= g[~got].max(initial=g.min())


def floor_and_ceiling_hold(call, got, g, least=1, most=None, signed=True):
    return least <= got.sum() <= (len(g) if most is None else most)


def two_rows_of_counts(call, got, t):
    return got.shape == (2, t) and got.dtype.kind in "iu" and got.min() >= 0


def one_token_gains_one(call, got, t):
    return np.array_equal(np.sort(got[1] - got[0]), np.arange(t) == t - 1)


def few_then_many_are_kept(call, got, t):
    few, many = (reference.core_tokens(g, signed=False).sum() for g in got)
    return 4 * few <= t and 4 * many >= 3 * t


def later_layers_see_what_masking_shows(call, got, x, positions, kept):
    if not kept.any():
        return True
    masked = layers(x, positions, kept)[kept]
    return judge.same(layers(got.x, got.positions, np.ones(len(got.x), bool)), masked)


def positions_are_the_old_ones(call, got, x, positions, kept):
    return np.isin(got.positions, positions[kept]).all() and (np.diff(got.positions) > 0).all()


def layers(x, positions, seen, depth=2):
    """Causal attention with rotary positions, residual, a few times over; only the `seen` keys are read."""
    half = x.shape[1] // 2
    angle = positions[:, None] * 0.3 ** np.arange(half)
    for _ in range(depth):
        a, b = x[:, :half], x[:, half:]
        turned = np.concatenate(
            [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], axis=1
        )
        logits = turned @ turned.T
        allowed = (positions[:, None] >= positions) & (seen | np.eye(len(x), dtype=bool))
        p = np.where(allowed, np.exp(logits - logits.max(axis=1, keepdims=True)), 0)
        x = x + np.tanh(p / p.sum(axis=1, keepdims=True) @ x)
    return x


def masked_tokens_may_be_anything(call, got, q, k, v, kept, zeroed=False):
    loud = np.where(kept, 0, 1e3)[:, None]
    return judge.same(call(k=k + loud, v=v - loud), got)


def zeros_keep_their_share(call, got, q, k, v, kept, zeroed=False):
    """With zeroed keys the output is the masked one times Z / (Z + dropped)."""
    logits = q @ k[kept].T / np.sqrt(q.shape[1])
    top = np.maximum(logits.max(axis=1, keepdims=True), 0)
    total = np.exp(logits - top).sum(axis=1, keepdims=True)
    share = total / (total + (~kept).sum() * np.exp(-top))
    return judge.same(call(zeroed=True), call(zeroed=False) * share)


def dropping_is_masking(call, got, q, k, v, kept, zeroed=False):
    alone = call(k=k[kept], v=v[kept], kept=kept[kept], zeroed=False)
    return judge.same(call(zeroed=False), alone)


def the_core_alone_is_the_layer_without_the_others(call, got, layer, core):
    x = np.random.default_rng(1).normal(size=(3, 4))
    silent = layer._replace(down=layer.down * core)
    return judge.same(reference.ffn(x, got), reference.ffn(x, silent))


def neurons_that_write_nothing_may_go(call, got, x, layer):
    writes = np.arange(len(layer.gate)) % 2 == 0
    silent = layer._replace(down=layer.down * writes)
    return judge.same(call(layer=reference.gather(layer, writes)), call(layer=silent))


CHECKS = {
    "core_neurons": [
        ("a larger beta only adds neurons", a_larger_share_contains_a_smaller),
        ("the order of the tokens does not matter", the_order_of_tokens_does_not_matter),
        ("renumbering the neurons renumbers the counts", neurons_may_be_renumbered),
        (
            "the core are the floor(beta m) most counted, or all that are counted",
            the_core_are_the_most_counted,
        ),
        ("a token counts floor(rho p) neurons, p those it fires", each_token_counts_a_share_of_what_fires),
        ("how loud a token is does not matter", loudness_of_a_token_does_not_matter),
    ],
    "overlap": [
        ("g is the product of two 0/1 matrices", overlaps_are_a_product_of_sets),
        ("g exceeds neither the fired set nor the core", overlaps_exceed_neither_set),
        ("renumbering the neurons changes nothing", overlap_ignores_numbering),
        ("pushing silent neurons further down changes nothing", silence_may_be_deeper),
    ],
    "elbow": [
        (
            "three times the curve, or five more, moves the elbow along",
            stretching_and_lifting_move_it_along,
        ),
        ("the order of the tokens does not matter", order_is_irrelevant),
        ("the elbow of 2^10 .. 1 is 2^7", a_geometric_curve_bends_inside),
        ("signed, a bell keeps less than a quarter in each of six draws", a_bell_keeps_a_minority),
    ],
    "core_tokens": [
        ("no dropped overlap beats a kept one", the_kept_are_the_largest),
        ("floor and ceiling hold", floor_and_ceiling_hold),
    ],
    "tipping_pair": [
        ("the answer is two rows of t overlaps, whole numbers from 0 up", two_rows_of_counts),
        ("in the second row one token has one more, all others the same", one_token_gains_one),
        (
            "unsigned, at most a quarter of the first row is kept and at least three quarters of the second",
            few_then_many_are_kept,
        ),
    ],
    "prune": [
        (
            "two more layers give what masking the dropped keys gives",
            later_layers_see_what_masking_shows,
        ),
        ("positions are old ones, in order", positions_are_the_old_ones),
    ],
    "attend": [
        ("what stands in dropped keys and values does not matter", masked_tokens_may_be_anything),
        ("masking is the same as leaving out", dropping_is_masking),
        (
            "a zeroed key keeps exp(0): the output shrinks by Z / (Z + dropped)",
            zeros_keep_their_share,
        ),
    ],
    "gather": [
        (
            "the core alone gives what the layer gives without the others",
            the_core_alone_is_the_layer_without_the_others,
        )
    ],
    "ffn": [("neurons that write nothing may be left out", neurons_that_write_nothing_may_go)],
}


# ---------------------------------------------------------------- mistakes


def by_magnitude(a, *, rho=0.2, beta=0.4, common=False):
    reference.core_neurons(a, rho=rho, beta=beta)
    return counted(a, np.abs(a), rho * (a > 0).sum(axis=1), beta, common, rho)


def share_of_all_neurons(a, *, rho=0.2, beta=0.4, common=False):
    reference.core_neurons(a, rho=rho, beta=beta)
    return counted(a, a, np.full(len(a), rho * a.shape[1]), beta, False, rho)


def beta_is_dropped(a, *, rho=0.2, beta=0.4, common=False):
    return reference.core_neurons(a, rho=rho, beta=1 - beta, common=common)


def common_is_swapped(a, *, rho=0.2, beta=0.4, common=False):
    return reference.core_neurons(a, rho=rho, beta=beta, common=not common)


def unseen_fill_up(a, *, rho=0.2, beta=0.4, common=False):
    right = reference.core_neurons(a, rho=rho, beta=beta, common=common)
    kept = np.zeros(a.shape[1], bool)
    kept[np.argsort(-right.count, kind="stable")[: int(beta * a.shape[1])]] = True
    return right._replace(kept=kept)


def by_total_activation(a, *, rho=0.2, beta=0.4, common=False):
    right = reference.core_neurons(a, rho=rho, beta=beta, common=common)
    kept = np.zeros(a.shape[1], bool)
    kept[np.argsort(-np.maximum(a, 0).sum(axis=0), kind="stable")[: right.kept.sum()]] = True
    return right._replace(kept=kept)


def shares_swapped(a, *, rho=0.2, beta=0.4, common=False):
    return reference.core_neurons(a, rho=beta, beta=rho, common=common)


def last_of_equals(a, *, rho=0.2, beta=0.4, common=False):
    right = reference.core_neurons(a[:, ::-1], rho=rho, beta=beta, common=common)
    return reference.Core(right.kept[::-1], right.count[::-1])


def rounded(a, *, rho=0.2, beta=0.4, common=False):
    reference.core_neurons(a, rho=rho, beta=beta)
    return counted(a, a, np.round(rho * (a > 0).sum(axis=1)), beta, common, rho)


def rounded_up(a, *, rho=0.2, beta=0.4, common=False):
    reference.core_neurons(a, rho=rho, beta=beta)
    return counted(a, a, np.ceil(rho * (a > 0).sum(axis=1)), beta, common, rho)


def counted(a, rank_by, strongest, beta, common, rho):
    count = np.zeros(a.shape[1], dtype=np.int64)
    for t, row in enumerate(rank_by):
        n = int(rho * (a > 0).sum() / len(a)) if common else int(strongest[t])
        count[np.argsort(-row, kind="stable")[:n]] += 1
    kept = np.zeros(a.shape[1], bool)
    kept[np.argsort(-count, kind="stable")[: int(beta * a.shape[1])]] = True
    return reference.Core(kept & (count > 0), count)


def any_value_fires(a, core):
    reference.overlap(a, core)
    return ((a != 0) & core).sum(axis=1)


def zero_fires(a, core):
    reference.overlap(a, core)
    return ((a >= 0) & core).sum(axis=1)


def union(a, core):
    reference.overlap(a, core)
    return ((a > 0) | core).sum(axis=1)


def of_each_neuron(a, core):
    reference.overlap(a, core)
    return ((a > 0) & core).sum(axis=0)


def sum_of_values(a, core):
    reference.overlap(a, core)
    return (np.maximum(a, 0) * core).sum(axis=1)


def other_side_of(g, *, signed=True):
    return reference.elbow(g, signed=not signed)


def unsorted(g, *, signed=True):
    reference.elbow(g, signed=signed)
    below = np.arange(len(g)) * (g[-1] - g[0]) - (g - g[0]) * (len(g) - 1)
    return np.asarray(g[np.argmax(below if signed else np.abs(below))])


def ascending(g, *, signed=True):
    return -reference.elbow(-g, signed=signed)


def place_not_value(g, *, signed=True):
    return np.asarray(np.flatnonzero(-np.sort(-g) == reference.elbow(g, signed=signed))[0])


def largest_drop(g, *, signed=True):
    if len(g) < 2:
        return reference.elbow(g, signed=signed)
    curve = -np.sort(-g)
    return np.asarray(curve[np.argmax(curve[:-1] - curve[1:])])


def above_the_chord(g, *, signed=True):
    reference.elbow(g, signed=signed)
    curve = -np.sort(-g)
    above = (curve - curve[0]) * (len(g) - 1) - np.arange(len(g)) * (curve[-1] - curve[0])
    return np.asarray(curve[np.argmax(above if signed else np.abs(above))])


def in_fractions(g, *, signed=True):
    reference.elbow(g, signed=signed)
    curve = -np.sort(-g)
    below = np.linspace(curve[0], curve[-1], len(g)) - curve
    return np.asarray(curve[np.argmax(below if signed else np.abs(below))])


def last_of_ties(g, *, signed=True):
    reference.elbow(g, signed=signed)
    curve = -np.sort(-g)
    below = np.arange(len(g)) * (curve[-1] - curve[0]) - (curve - curve[0]) * (len(g) - 1)
    below = below if signed else np.abs(below)
    return np.asarray(curve[np.flatnonzero(below == below.max())[-1]])


def one_hump(t):
    g = 2 ** np.minimum(np.arange(t)[::-1], 40)
    return np.stack([g, g + (np.arange(t) == t - 2)])


def unequal_humps(t):
    g = line_with_humps(t)
    g[1] -= 2
    return np.stack([g, g + (np.arange(t) == t - 2)])


def all_gain_one(t):
    g = line_with_humps(t)
    return np.stack([g, g + 1])


def many_then_few(t):
    g = line_with_humps(t)
    return np.stack([g + (np.arange(t) == t - 2), g])


def fractions(t):
    g = line_with_humps(t)
    return np.stack([g, g + (np.arange(t) == t - 2)]) / 10


def line_with_humps(t):
    """Ten a step, with a dent of five after the first token and a bump of five before the last."""
    g = 10 * np.arange(t)[::-1]
    g[1], g[-2] = g[1] - 5, g[-2] + 5
    return g


def numbered_anew(x, positions, kept):
    right = reference.prune(x, positions, kept)
    return right._replace(positions=np.arange(len(right.positions)))


def zeroed_in_place(x, positions, kept):
    reference.prune(x, positions, kept)
    return reference.Tokens(x * kept[:, None], positions)


def the_dropped_ones(x, positions, kept):
    return reference.prune(x, positions, ~kept)


def places_not_positions(x, positions, kept):
    right = reference.prune(x, positions, kept)
    return right._replace(positions=np.flatnonzero(kept))


def largest_first(x, positions, kept):
    right = reference.prune(x, positions, kept)
    return reference.Tokens(right.x[::-1], right.positions[::-1])


def always_zeroed(q, k, v, kept, *, zeroed=False):
    return reference.attend(q, k, v, kept, zeroed=True)


def never_zeroed(q, k, v, kept, *, zeroed=False):
    return reference.attend(q, k, v, kept)


def values_alone_zeroed(q, k, v, kept, *, zeroed=False):
    right = reference.attend(q, k, v, kept, zeroed=zeroed)
    return reference.attend(q, k, v * kept[:, None], np.ones(len(k), bool)) if zeroed else right


def keys_alone_zeroed(q, k, v, kept, *, zeroed=False):
    right = reference.attend(q, k, v, kept, zeroed=zeroed)
    return reference.attend(q, k * kept[:, None], v, np.ones(len(k), bool)) if zeroed else right


def masked_after_the_softmax(q, k, v, kept, *, zeroed=False):
    right = reference.attend(q, k, v, kept, zeroed=zeroed)
    return right if zeroed else reference.attend(q, k, v * kept[:, None], np.ones(len(k), bool))


def unscaled(q, k, v, kept, *, zeroed=False):
    return reference.attend(q * np.sqrt(q.shape[1]), k, v, kept, zeroed=zeroed)


def masks_the_kept(q, k, v, kept, *, zeroed=False):
    reference.attend(q, k, v, kept)
    return reference.attend(q, k, v, ~kept, zeroed=zeroed) if not kept.all() else 0 * q @ k.T @ v


WRONG = {
    "core_neurons": [
        ("the strongest are the largest values, not the largest magnitudes", by_magnitude),
        ("rho is a share of the neurons that fire, not of all", share_of_all_neurons),
        ("beta is the share kept, not dropped", beta_is_dropped),
        ("each token has its own count; one for all, the mean's, is `common`", common_is_swapped),
        ("a neuron that no token counts is never core", unseen_fill_up),
        ("count tokens; do not add up activations", by_total_activation),
        ("round rho p down", rounded_up),
        ("round rho p down, not to the nearest", rounded),
        ("rho is the share of a token's firing neurons, beta the share of all neurons", shares_swapped),
        ("of equals the lower index: argsort(-x, kind='stable'), not argsort(x)[::-1]", last_of_equals),
    ],
    "overlap": [
        ("a negative activation is silence: a > 0, not a != 0", any_value_fires),
        ("a neuron at exactly zero is silent", zero_fires),
        ("neurons that fire AND are core", union),
        ("one number for each token: sum over the neurons", of_each_neuron),
        ("count neurons; do not add up activations", sum_of_values),
    ],
    "elbow": [
        ("signed takes the curve below the chord only; unsigned takes either side", other_side_of),
        ("sort the overlaps first, the largest at the front", unsorted),
        ("the largest overlap comes first, not last", ascending),
        ("return the overlap at the elbow, not its place", place_not_value),
        ("the elbow is furthest from the chord, not where the largest drop is", largest_drop),
        ("below the chord is where chord minus curve is positive", above_the_chord),
        ("of equal distances take the first", last_of_ties),
        ("rounding decides this tie: multiply by t - 1 and stay with whole numbers", in_fractions),
    ],
    "tipping_pair": [
        ("this curve has a hump below the chord only: give it one above, too", one_hump),
        ("one unit must decide: make the hump above as high as the one below", unequal_humps),
        ("one more for all lifts chord and curve alike: change one token", all_gain_one),
        ("few in the first row, many in the second", many_then_few),
        ("overlaps count neurons: whole numbers", fractions),
    ],
    "prune": [
        ("tokens keep their old positions: do not number them anew", numbered_anew),
        ("a zeroed token is still there: take it out", zeroed_in_place),
        ("kept marks the tokens that stay", the_dropped_ones),
        ("positions are given: index them, their places are something else", places_not_positions),
        ("keep the order of the prompt", largest_first),
    ],
    "attend": [
        ("a zero key is not a masked one: its logit is 0, not -inf", always_zeroed),
        ("zeroed=True wants zeros in keys and values, not a mask", never_zeroed),
        ("zero the keys too, not only the values", values_alone_zeroed),
        ("zero the values too, not only the keys", keys_alone_zeroed),
        ("mask before the softmax: afterwards the sum still holds the dropped", masked_after_the_softmax),
        ("divide the logits by the root of the width", unscaled),
        ("kept marks the keys that stay", masks_the_kept),
    ],
}


def by_rank(a, *, rho=0.2, beta=0.4, common=False):
    if not (len(a) and 0 <= rho <= 1 and 0 <= beta <= 1):
        raise ValueError(f"{len(a)} tokens, rho={rho}, beta={beta}")
    fired = (a > 0).sum(axis=1)
    quota = (
        np.full(len(a), int(rho * fired.sum() / len(a)))
        if common
        else np.array([int(rho * n) for n in fired])
    )
    earlier = np.arange(a.shape[1])[None, :] < np.arange(a.shape[1])[:, None]
    better = (a[:, None, :] > a[:, :, None]) | ((a[:, None, :] == a[:, :, None]) & earlier)
    count = (better.sum(axis=2) < quota[:, None]).sum(axis=0)
    ahead = (count[None, :] > count[:, None]) | ((count[None, :] == count[:, None]) & earlier)
    return (ahead.sum(axis=1) < int(beta * len(count))) & (count > 0), count


def as_a_product(a, core):
    return np.where(a > 0, 1, 0) @ core.astype(np.int64)


def token_by_token(g, *, signed=True):
    if not len(g):
        raise ValueError("0 tokens")
    curve, best = sorted(map(int, g), reverse=True), None
    for j, value in enumerate(curve):
        gap = (curve[0] - value) * (len(curve) - 1) - j * (curve[0] - curve[-1])
        gap = gap if signed else abs(gap)
        if best is None or gap > best[0]:
            best = gap, value
    return np.asarray(best[1])


def a_fifth_power(t):
    """-x^5 for x from 1 - t to t - 1 in steps of 2: point-symmetric, so both humps are equally high."""
    x = np.arange(1 - t, t, 2)
    g = (t - 1) ** 5 - x**5
    chord = np.linspace(g[0], g[-1], t)
    return np.stack([g, g + (np.arange(t) == np.argmax(g - chord))])


def a_straight_line(t):
    """No hump at all keeps one token; one unit is the first hump, and it lies above."""
    g = np.arange(t)[::-1]
    return np.stack([g, g + (np.arange(t) == t - 2)])


def by_index(x, positions, kept):
    if not len(x) == len(positions) == len(kept):
        raise ValueError(f"{len(x)}, {len(positions)}, {len(kept)}")
    places = np.flatnonzero(kept)
    return np.take(x, places, axis=0), np.take(positions, places)


def key_by_key(q, k, v, kept, *, zeroed=False):
    if q.shape[1] != k.shape[1] or not len(k) == len(v) == len(kept) or not kept.any():
        raise ValueError(f"q {q.shape}, k {k.shape}, v {v.shape}, {kept.sum()} kept")
    out = np.zeros((len(q), v.shape[1]))
    for t, query in enumerate(q):
        logit = k @ query / q.shape[1] ** 0.5
        logit = np.where(kept, logit, 0.0 if zeroed else -np.inf)
        weight = np.exp(logit - logit.max())
        out[t] = (weight[kept] @ v[kept]) / weight.sum()
    return out


RIGHT = {
    "core_neurons": [by_rank],
    "overlap": [as_a_product],
    "elbow": [token_by_token],
    "tipping_pair": [a_fifth_power, a_straight_line],
    "prune": [by_index],
    "attend": [key_by_key],
}

HINTS = {
    "core_neurons": [
        "Two selections: for each token its strongest neurons, then the neurons that most tokens selected.",
        "A token with p positive activations selects its int(rho * p) largest; count how often each is.",
        "np.argsort(-row, kind='stable')[:n] are a token's strongest; add 1 to their counts.",
        "The core: the int(beta * m) largest counts, stably sorted, without those of count 0.",
    ],
    "overlap": [
        "For each token ask of every neuron: does it fire, and is it core?",
        "Firing is a > 0. Combine it with the flags of the core by &.",
        "Sum the flags over the neurons, axis 1.",
    ],
    "elbow": [
        "Draw the overlaps from the largest to the smallest and lay a ruler from first to last.",
        "Distance from a straight line is the vertical gap times a constant: the gap is enough.",
        "gap[j] = j * (last - first) - (curve[j] - first) * (t - 1), positive below the chord, in integers.",
        "np.argmax takes the first of equals; without `signed` look at np.abs(gap). Return the curve there.",
    ],
    "tipping_pair": [
        "The unsigned rule takes the largest distance on either side. Draw a curve with a hump below the "
        "chord near its start and one above it near its end.",
        "Make both humps equally high: of equals the first wins, so few are kept. Then one unit decides.",
        "Start from a line that falls 10 a step; take 5 from the second token, give 5 to the last but one.",
        "Copy it as the second row, with one more for the last but one; np.stack makes two rows.",
    ],
    "prune": [
        "Two arrays lose the same rows.",
        "A token's position says where it stood in the prompt; that does not change.",
        "Index both arrays with the flags.",
    ],
    "attend": [
        "Softmax attention of a few queries over a cache, with two ways to treat dropped tokens.",
        "Masked: the logit of a dropped key is -inf, its weight 0.",
        "Zeroed: key and value are 0, so the logit is 0 and the weight exp(0) over the sum.",
    ],
}

ANOTHER = "another pair that tips"
EQUIVALENT = {
    "attend": {
        "q.shape[1] == k.shape[1] and len(k) == len(v) == len(kept) and kept.any() => "
        "len(k) == len(v) == len(kept) and kept.any() "
        "(if not (q.shape[1] == k.shape[1] and len(k) == len(v) == len(kept) and kept.any()):)": "the "
        "product then raises a ValueError of its own"
    },
    "tipping_pair": {
        "10 => 11 (g = 10 * np.arange(t)[::-1])": ANOTHER,
        "10 => 9 (g = 10 * np.arange(t)[::-1])": ANOTHER,
    },
}
