"""CATS's cases, facts, mistakes and hints."""

import numpy as np

from sparselab import judge
from sparselab.lazy.cats import reference


def cases(rng):
    a = rng.normal(size=(30, 20)) * 0.4
    yield "calibrate", "half", dict(a=a, sparsity=0.5)
    yield "calibrate", "a law that is not centred", dict(a=a + 0.5, sparsity=0.7)
    yield "calibrate", "eight wide bins", dict(a=a, sparsity=0.5, bins=8, limit=1.0)
    yield "calibrate", "values on the edges", dict(a=np.arange(-8, 9) / 4.0, sparsity=0.5, bins=8)
    yield "calibrate", "the share met exactly", dict(a=np.arange(8) / 4.0, sparsity=0.25, bins=8)
    yield "calibrate", "most lies above the limit", dict(a=a + 3, sparsity=0.5)
    yield "calibrate", "one bin", dict(a=a, sparsity=0.9, bins=1, limit=0.3)
    yield "calibrate", "nothing dropped", dict(a=a, sparsity=0.0)
    yield "calibrate", "mostly zeros", dict(a=np.maximum(a - 0.5, 0), sparsity=0.5)
    yield "calibrate", "one activation", dict(a=np.array([-0.7]), sparsity=0.5)
    yield "calibrate", "no sample", dict(a=a[:0], sparsity=0.5)
    yield "calibrate", "everything dropped", dict(a=a, sparsity=1.0)
    yield "calibrate", "a negative share", dict(a=a, sparsity=-0.01)
    yield "calibrate", "no bins", dict(a=a, sparsity=0.5, bins=0)
    yield "calibrate", "no range", dict(a=a, sparsity=0.5, limit=0.0)

    x, gate, up = rng.normal(size=(6, 4)), rng.normal(size=(10, 4)), rng.normal(size=(10, 4))
    layer = dict(x=x, gate=gate, up=up, down=rng.normal(size=(4, 10)))
    yield "ffn", "about half survive", dict(layer, cut=np.array(0.25))
    yield "ffn", "no cut", dict(layer, cut=np.array(0.0))
    yield "ffn", "a cut below nothing is the dense layer", dict(layer, cut=np.array(-1.0))
    yield "ffn", "nothing survives", dict(layer, cut=np.array(99.0))
    yield "ffn", "one token", dict(layer, x=x[:1], cut=np.array(0.25))
    yield "ffn", "no tokens", dict(layer, x=x[:0], cut=np.array(0.25))
    yield "ffn", "a square layer", dict(x=x, gate=gate[:4], up=up[:4], down=up[4:8], cut=np.array(0.1))
    tied = np.array([[1.0, 0], [0, 1], [1, 0]])
    on_it = 1 / (1 + np.exp(-1.0))
    yield "ffn", "values on the cut", dict(x=tied[:2], gate=tied, up=tied, down=tied.T, cut=np.array(on_it))
    yield "ffn", "up of another size", dict(layer, up=up[:9], cut=np.array(0.25))
    yield "ffn", "down of another size", dict(layer, down=layer["down"][:, :9], cut=np.array(0.25))
    yield "ffn", "an input of another width", dict(layer, x=x[:, :3], cut=np.array(0.25))
    yield "ffn", "an input of width one", dict(layer, x=x[:, :1], cut=np.array(0.25))

    kept = rng.random((5, 12)) < 0.3
    yield "bytes_read", "a third of the neurons", dict(kept=kept, width=8)
    yield "bytes_read", "float32", dict(kept=kept, width=8, each=4)
    yield "bytes_read", "one byte a weight, width one", dict(kept=kept, width=1, each=1)
    yield "bytes_read", "all kept", dict(kept=np.ones((2, 12), bool), width=8)
    yield "bytes_read", "none kept", dict(kept=np.zeros((2, 12), bool), width=8)
    yield "bytes_read", "no tokens", dict(kept=kept[:0], width=8)
    yield "bytes_read", "no width", dict(kept=kept, width=0)
    yield "bytes_read", "weights of no size", dict(kept=kept, width=8, each=0)


def at_most_the_share_lies_below(call, got, a, sparsity, bins=10_000, limit=2.0):
    return (np.abs(a) < got).mean() <= sparsity


def the_next_edge_would_drop_more(call, got, a, sparsity, bins=10_000, limit=2.0):
    return got >= limit or (np.abs(a) < got + limit / bins * (1 + 1e-9)).mean() > sparsity


def signs_do_not_matter(call, got, a, sparsity, bins=10_000, limit=2.0):
    return judge.same(call(a=-a), got)


def rows_of_the_dropped_are_not_read(call, got, x, gate, up, down, cut):
    z = x @ gate.T
    used = (np.abs(z / (1 + np.exp(-z))) > cut).any(axis=0)
    return judge.same(call(up=np.where(used[:, None], up, np.nan), down=np.where(used, down, np.nan)), got)


def linear_in_down(call, got, x, gate, up, down, cut):
    return judge.same(call(down=2 * down), 2 * got)


def neurons_may_be_renumbered(call, got, x, gate, up, down, cut):
    order = np.random.default_rng(0).permutation(len(gate))
    return judge.same(call(gate=gate[order], up=up[order], down=down[:, order]), got, atol=1e-9)


def a_third_is_always_read(call, got, kept, width, each=2):
    dense = 3 * each * width * kept.shape[1]
    return (3 * got >= dense).all() and (got <= dense).all()


def the_share_is_a_third_and_two(call, got, kept, width, each=2):
    dense = 3 * each * width * kept.shape[1]
    return judge.same(1.0 * got, dense * (1 / 3 + 2 / 3 * kept.mean(axis=1)))


CHECKS = {
    "calibrate": [
        ("at most the wanted share of the sample lies below the cut", at_most_the_share_lies_below),
        ("a cut at the next edge would drop more", the_next_edge_would_drop_more),
        ("turning every sign changes nothing", signs_do_not_matter),
    ],
    "ffn": [
        ("a neuron that no token keeps is read in the gate only", rows_of_the_dropped_are_not_read),
        ("twice the down projection gives twice the output", linear_in_down),
        ("renumbering the neurons changes nothing", neurons_may_be_renumbered),
    ],
    "bytes_read": [
        ("never less than a third of the dense layer, never more than all of it", a_third_is_always_read),
        ("the share of the dense layer is 1/3 + 2p/3", the_share_is_a_third_and_two),
    ],
}


# ---------------------------------------------------------------- mistakes


def right_edge(a, *, sparsity, bins=10_000, limit=2.0):
    return np.asarray(reference.calibrate(a, sparsity=sparsity, bins=bins, limit=limit) + limit / bins)


def signed(a, *, sparsity, bins=10_000, limit=2.0):
    return reference.calibrate(np.maximum(a, 0), sparsity=sparsity, bins=bins, limit=limit)


def share_kept(a, *, sparsity, bins=10_000, limit=2.0):
    reference.calibrate(a, sparsity=sparsity, bins=bins, limit=limit)
    return reference.calibrate(a, sparsity=min(1 - sparsity, 1 - 1e-9), bins=bins, limit=limit)


def without_the_overflow(a, *, sparsity, bins=10_000, limit=2.0):
    reference.calibrate(a, sparsity=sparsity, bins=bins, limit=limit)
    inside = np.abs(a)[np.abs(a) < limit]
    return reference.calibrate(inside, sparsity=sparsity, bins=bins, limit=limit) if inside.size else a.max()


def plain_quantile(a, *, sparsity, bins=10_000, limit=2.0):
    reference.calibrate(a, sparsity=sparsity, bins=bins, limit=limit)
    return np.asarray(np.quantile(np.abs(a), sparsity))


def layer(keep, activation):
    def ffn(x, gate, up, down, cut):
        reference.ffn(x, gate, up, down, cut)
        z = x @ gate.T
        a = activation(z)
        return (np.where(keep(z, a, cut), a, 0) * (x @ up.T)) @ down.T

    return ffn


def silu(z):
    return z / (1 + np.exp(-z))


def cut_the_product(x, gate, up, down, cut):
    reference.ffn(x, gate, up, down, cut)
    h = silu(x @ gate.T) * (x @ up.T)
    return np.where(np.abs(h) > cut, h, 0) @ down.T


def activated_up(x, gate, up, down, cut):
    return reference.ffn(x, up, gate, down, cut)


def everything_by_density(kept, *, width, each=2):
    reference.bytes_read(kept, width=width, each=each)
    return 3 * each * width * kept.sum(axis=1)


def forgets_down(kept, *, width, each=2):
    reference.bytes_read(kept, width=width, each=each)
    return each * width * (kept.shape[1] + kept.sum(axis=1))


def of_neurons(kept, *, width, each=2):
    reference.bytes_read(kept, width=width, each=each)
    per_neuron = np.resize(kept.sum(axis=0), len(kept))
    return each * width * (kept.shape[1] + 2 * per_neuron)


def counts_weights(kept, *, width, each=2):
    return reference.bytes_read(kept, width=width, each=each) // each


WRONG = {
    "calibrate": [
        ("take the LEFT edge of the bin, so that at most the share is dropped", right_edge),
        ("count magnitudes: a negative activation is not a small one", signed),
        ("sparsity is the share dropped, not kept", share_kept),
        ("what lies above the limit is part of the sample too", without_the_overflow),
        ("the cut is an edge of the histogram, not a quantile of the sample", plain_quantile),
    ],
    "ffn": [
        ("compare |a|: SiLU reaches below zero and -0.2 matters", layer(lambda z, a, c: a > c, silu)),
        ("compare the gate after its SiLU, not before", layer(lambda z, a, c: np.abs(z) > c, silu)),
        (
            "an activation on the cut is dropped: |a| > cut, not >=",
            layer(lambda z, a, c: np.abs(a) >= c, silu),
        ),
        ("the gate alone decides, before `up` is read, not the product of both", cut_the_product),
        ("the SiLU belongs to the gate, not to `up`", activated_up),
        (
            "SiLU is z sigmoid(z), not the ReLU",
            layer(lambda z, a, c: np.abs(a) > c, lambda z: np.maximum(z, 0)),
        ),
    ],
    "bytes_read": [
        ("the gate is read whole; only `up` and `down` shrink", everything_by_density),
        ("two of the three matrices are read in part: `up` and `down`", forgets_down),
        ("count the neurons of each token, not the tokens of each neuron", of_neurons),
        ("bytes, not weights: multiply by `each`", counts_weights),
    ],
}


def by_sorting(a, *, sparsity, bins=10_000, limit=2.0):
    """The bin of the first value whose rank exceeds the share."""
    if not (a.size and 0 <= sparsity < 1 and bins > 0 and limit > 0):
        raise ValueError(f"{a.size} activations, sparsity={sparsity}, bins={bins}, limit={limit}")
    ranked = np.sort(np.abs(a), axis=None)
    value = ranked[np.argmax((np.arange(a.size) + 1) / a.size > sparsity)]
    edges = np.arange(bins + 1) * limit / bins
    return np.asarray(edges[edges <= value].max())


def by_masking(x, gate, up, down, cut):
    if not (gate.shape == up.shape == down.T.shape and x.shape[1] == up.shape[1]):
        raise ValueError(f"{x.shape}, {gate.shape}, {up.shape}, {down.shape}")
    a = silu(x @ gate.T)
    used = (np.abs(a) > cut).any(axis=0)
    h = (a * (np.abs(a) > cut))[:, used] * (x @ up[used].T)
    return h @ down[:, used].T


def three_matrices(kept, *, width, each=2):
    if width < 1 or each < 1:
        raise ValueError(f"width={width}, each={each}")
    return sum(each * width * rows.sum(axis=1) for rows in (np.ones_like(kept), kept, kept))


RIGHT = {"calibrate": [by_sorting], "ffn": [by_masking], "bytes_read": [three_matrices]}

HINTS = {
    "calibrate": [
        "Magnitudes into bins, counts summed from the left: where does the sum pass the wanted share?",
        "np.searchsorted(edges, values, side='right') - 1 is each value's bin; the last one has no end.",
        "Cumulate np.bincount of them, divide by a.size and return the edge at the first "
        "place where it exceeds sparsity.",
    ],
    "ffn": [
        "Three steps: the gate of all neurons, the choice, then `up` and `down` for the chosen ones.",
        "a = SiLU(gate @ token); the neurons to read are np.flatnonzero(np.abs(a) > cut).",
        "For each of them add a[neuron] * (up[neuron] @ token) * down[:, neuron] to the token's output.",
    ],
    "bytes_read": [
        "Which of the three matrices does a token read whole, which in part?",
        "The gate has m rows of `width` weights; of `up` and of `down` it reads one row per neuron kept.",
        "each * width * (m + 2 * kept), with kept the number of True of each token.",
    ],
}
