"""The lazy neuron's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.lazy.lazy_neuron import reference


def cases(rng):
    a = np.maximum(rng.normal(size=(7, 10)) - 0.5, 0)
    a[:, 3] = 0
    real = np.array([True, True, False, True, True, False, True])
    a[2, 3] = 1.0
    yield "nonzero_stats", "two padding tokens", dict(a=a, real=real)
    yield "nonzero_stats", "no padding", dict(a=a, real=np.ones(7, bool))
    yield "nonzero_stats", "one token", dict(a=a[:1], real=real[:1])
    yield "nonzero_stats", "GELU values below zero are not active", dict(a=a - 0.1, real=real)
    yield "nonzero_stats", "a silent layer", dict(a=np.zeros((3, 4)), real=np.ones(3, bool))
    yield "nonzero_stats", "only padding", dict(a=a, real=np.zeros(7, bool))
    yield "nonzero_stats", "flags for other tokens", dict(a=a, real=real[:5])

    yield "overall", "unequal layers", dict(density=np.array([0.5, 0.1, 0.2]), width=np.array([64, 256, 512]))
    yield "overall", "equal layers", dict(density=np.array([0.3, 0.1]), width=np.array([8, 8]))
    yield "overall", "one layer", dict(density=np.array([0.3]), width=np.array([8]))
    yield "overall", "an empty layer", dict(density=np.array([0.3, 0.9]), width=np.array([8, 0]))
    yield "overall", "one width for two layers", dict(density=np.array([0.3, 0.1]), width=np.array([8]))
    yield "overall", "no neurons", dict(density=np.array([0.3]), width=np.array([0]))
    yield "overall", "three widths for two layers", dict(density=np.array([0.3, 0.1]), width=np.full(3, 8))

    z = rng.normal(size=(5, 12))
    tied = np.array([[1.0, 1, 1, 1], [0, 2, 2, -1]])
    yield "topk_relu", "3 of 12", dict(z=z, k=3)
    yield "topk_relu", "a batch of sequences", dict(z=rng.normal(size=(2, 3, 9)), k=2)
    yield "topk_relu", "fewer positive than k", dict(z=z - 1, k=8)
    yield "topk_relu", "all kept", dict(z=z, k=12)
    yield "topk_relu", "none kept", dict(z=z, k=0)
    yield "topk_relu", "tied", dict(z=tied, k=2)
    yield "topk_relu", "all negative", dict(z=-np.abs(z), k=3)
    yield "topk_relu", "one row", dict(z=z[0], k=3)
    yield "topk_relu", "an empty batch", dict(z=z[:0], k=3)
    yield "topk_relu", "more than the neurons", dict(z=z, k=13)

    x, K, V = rng.normal(size=(6, 4)), rng.normal(size=(4, 10)), rng.normal(size=(4, 10))
    yield "topk_ffn", "3 of 10", dict(x=x, K=K, V=V, k=3)
    yield "topk_ffn", "1 of 10", dict(x=x, K=K, V=V, k=1)
    yield (
        "topk_ffn",
        "fewer positive than k",
        dict(x=np.abs(x), K=np.abs(K) * np.where(np.arange(10) < 2, 1, -1), V=V, k=5),
    )
    yield "topk_ffn", "none kept", dict(x=x, K=K, V=V, k=0)
    yield "topk_ffn", "all kept is the dense layer", dict(x=x, K=K, V=V, k=10)
    yield "topk_ffn", "one token", dict(x=x[:1], K=K, V=V, k=3)
    yield "topk_ffn", "as many tokens as neurons", dict(x=rng.normal(size=(10, 4)), K=K, V=V, k=4)
    yield "topk_ffn", "more than the neurons", dict(x=x, K=K, V=V, k=11)
    yield "topk_ffn", "widths that differ", dict(x=x, K=K, V=V[:, :9], k=3)

    yield "gather_ffn", "half active", dict(x=x, K=K, V=V)
    yield "gather_ffn", "none active", dict(x=-np.abs(x), K=np.abs(K), V=V)
    yield "gather_ffn", "all active", dict(x=np.abs(x), K=np.abs(K), V=V)
    yield "gather_ffn", "one token", dict(x=x[:1], K=K, V=V)
    yield "gather_ffn", "no tokens", dict(x=x[:0], K=K, V=V)
    yield "gather_ffn", "widths that differ", dict(x=x, K=K, V=V[:, :9])

    z, V = rng.normal(size=(64, 16)), rng.normal(size=(10, 16))
    y = rng.integers(0, 10, size=64)
    yield "mean_active_gradient", "random layer", dict(z=z, V=V, y=y)
    yield "mean_active_gradient", "most are silent", dict(z=z - 1.5, V=V, y=y)
    yield "mean_active_gradient", "all are active", dict(z=np.abs(z) + 0.1, V=V, y=y)
    yield "mean_active_gradient", "large logits", dict(z=30 * z, V=30 * V, y=y)
    yield "mean_active_gradient", "a unit at exactly zero is silent", dict(z=np.round(z), V=V, y=y)
    yield "mean_active_gradient", "faint activations", dict(z=0.01 * z, V=V, y=y)
    yield "mean_active_gradient", "all exactly zero", dict(z=np.zeros_like(z), V=V, y=y)
    yield "mean_active_gradient", "one token", dict(z=z[:1], V=V, y=y[:1])
    yield "mean_active_gradient", "nothing active", dict(z=-np.abs(z), V=V, y=y)
    yield "mean_active_gradient", "a label one too high", dict(z=z, V=V, y=np.where(y == 9, 10, y))
    yield "mean_active_gradient", "a negative label", dict(z=z, V=V, y=y - 1)
    yield "mean_active_gradient", "labels for other tokens", dict(z=z, V=V, y=y[:9])
    yield "mean_active_gradient", "one label for all", dict(z=z, V=V, y=y[:1])
    yield "mean_active_gradient", "units that differ", dict(z=z, V=V[:, :9], y=y)


def padding_is_irrelevant(call, got, a, real):
    loud = np.where(real[:, None], a, 1.0)
    return all(np.array_equal(now, before) for now, before in zip(call(a=loud), got, strict=True))


def the_two_means_agree(call, got, a, real):
    by_neuron, by_token = got.firing_rate.mean(), got.per_token.mean() / a.shape[1]
    return abs(by_neuron - by_token) < 1e-12 and abs(by_neuron - got.density) < 1e-12


def dead_neurons_never_fire(call, got, a, real):
    return got.dead == (got.firing_rate == 0).sum()


def splitting_a_layer_changes_nothing(call, got, density, width):
    return abs(call(density=np.repeat(density, 2), width=np.repeat(width, 2)) - got) < 1e-12


def at_most_k_survive(call, got, z, k):
    return ((got > 0).sum(axis=-1) == np.minimum((z > 0).sum(axis=-1), k)).all()


def survivors_keep_their_value(call, got, z, k):
    return ((got == 0) | (got == z)).all()


def all_kept_is_relu(call, got, z, k):
    return np.array_equal(call(k=z.shape[-1]), np.maximum(z, 0))


def dense_at_k_equal_m(call, got, x, K, V, k):
    return np.abs(call(k=K.shape[1]) - np.maximum(x @ K, 0) @ V.T).max(initial=0) < 1e-9


def neurons_may_be_renumbered(call, got, x, K, V, k):
    order = np.random.default_rng(0).permutation(K.shape[1])
    return np.abs(call(K=K[:, order], V=V[:, order]) - got).max() < 1e-9


def silent_neurons_may_be_removed(call, got, x, K, V):
    used = (x @ K > 0).any(axis=0)
    return np.abs(np.maximum(x @ K[:, used], 0) @ V[:, used].T - got).max(initial=0) < 1e-9


def silent_units_do_not_count(call, got, z, V, y):
    return abs(call(z=np.where(z > 0, z, z - 1)) - got) < 1e-12


def a_random_layer_is_pushed_down(call, got, z, V, y):
    rng = np.random.default_rng(1)
    z, V, y = rng.normal(size=(400, 64)), rng.normal(size=(10, 64)), rng.integers(0, 10, size=400)
    return call(z=z, V=V, y=y) > 0


CHECKS = {
    "nonzero_stats": [
        ("what stands on padding tokens does not matter", padding_is_irrelevant),
        ("mean firing rate, mean count over width and density are one number", the_two_means_agree),
        ("a dead neuron is one with firing rate 0", dead_neurons_never_fire),
    ],
    "overall": [("counting each layer as two halves changes nothing", splitting_a_layer_changes_nothing)],
    "topk_relu": [
        ("a row keeps k entries, or all its positive ones where those are fewer", at_most_k_survive),
        ("survivors keep their value", survivors_keep_their_value),
        ("with k = m this is the ReLU", all_kept_is_relu),
    ],
    "topk_ffn": [
        ("with k = m this is the dense layer", dense_at_k_equal_m),
        ("renumbering the neurons changes nothing", neurons_may_be_renumbered),
    ],
    "gather_ffn": [("neurons that no token activates may be removed", silent_neurons_may_be_removed)],
    "mean_active_gradient": [
        ("pushing silent units further down changes nothing", silent_units_do_not_count),
        ("for a random layer the mean is positive", a_random_layer_is_pushed_down),
    ],
}


# ---------------------------------------------------------------- mistakes


def counts_padding(a, real):
    return reference.nonzero_stats(a, np.ones_like(real))


def counts_negative(a, real):
    return reference.nonzero_stats(np.abs(a), real)


def rate_over_all_tokens(a, real):
    right = reference.nonzero_stats(a, real)
    return right._replace(firing_rate=right.firing_rate * real.sum() / len(real))


def rates_of_tokens(a, real):
    right = reference.nonzero_stats(a, real)
    return right._replace(firing_rate=right.per_token / a.shape[1])


def sleepy_is_dead(a, real):
    right = reference.nonzero_stats(a, real)
    return right._replace(dead=np.asarray((right.firing_rate < 0.25).sum()))


def plain_mean(density, width):
    reference.overall(density, width)
    return np.asarray(density.mean())


def product_sum(density, width):
    reference.overall(density, width)
    return np.asarray((density * width).sum())


def weighted_by_share(density, width):
    return np.asarray((density * width).sum() / (density * width > 0).sum() / width.max())


def topk_over_batch(z, *, k):
    reference.topk_relu(z, k=k)
    rows = int(np.prod(z.shape[:-1]))
    return reference.topk_relu(z.reshape(-1), k=min(k * rows, z.size)).reshape(z.shape)


def topk_over_tokens(z, *, k):
    a = np.maximum(z, 0)
    return np.where(a >= np.sort(a, axis=0)[-k:][:1], a, 0)


def by_magnitude(z, *, k):
    reference.topk_relu(z, k=k)
    kept = np.argsort(-np.abs(z), axis=-1, kind="stable")[..., :k]
    out = np.zeros_like(z)
    np.put_along_axis(out, kept, np.take_along_axis(z, kept, axis=-1), axis=-1)
    return np.maximum(out, 0)


def no_relu(z, *, k):
    reference.topk_relu(z, k=k)
    kept = np.argsort(-z, axis=-1, kind="stable")[..., :k]
    out = np.zeros_like(z)
    np.put_along_axis(out, kept, np.take_along_axis(z, kept, axis=-1), axis=-1)
    return out


def keeps_ties(z, *, k):
    reference.topk_relu(z, k=k)
    a = np.maximum(z, 0)
    cut = np.sort(a, axis=-1)[..., z.shape[-1] - k :][..., :1] if k else np.inf
    return np.where(a >= cut, a, 0)


def soft(z, *, k):
    kept = reference.topk_relu(z, k=k)
    lowest = np.where(kept > 0, kept, np.inf).min(axis=-1, keepdims=True, initial=np.inf)
    return np.maximum(kept - np.where(np.isfinite(lowest), lowest, 0), 0)


def ffn_with(select):
    def ffn(x, K, V, *, k):
        reference.topk_ffn(x, K, V, k=k)
        return select(x @ K, k=k) @ V.T

    return ffn


def drops_k(x, K, V, *, k):
    reference.topk_ffn(x, K, V, k=k)
    return reference.topk_ffn(x, K, V, k=K.shape[1] - k)


def topk_of_outputs(x, K, V, *, k):
    reference.topk_ffn(x, K, V, k=k)
    return reference.topk_relu(np.maximum(x @ K, 0) @ V.T, k=min(k, len(V)))


def over_all_units(z, V, y):
    return reference.mean_active_gradient(z, V, y) * (z > 0).mean()


def of_silent_units_too(z, V, y):
    reference.mean_active_gradient(z, V, y)
    return np.asarray((_error(z, V, y) @ V).mean())


def towards_the_label(z, V, y):
    return -reference.mean_active_gradient(z, V, y)


def without_the_label(z, V, y):
    reference.mean_active_gradient(z, V, y)
    return np.asarray(((_error(z, V, y) + np.eye(len(V))[y]) @ V)[z > 0].mean())


def divided_by_tokens(z, V, y):
    return reference.mean_active_gradient(z, V, y) / len(z)


def _error(z, V, y):
    logits = np.maximum(z, 0) @ V.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True) - np.eye(len(V))[y]


WRONG = {
    "nonzero_stats": [
        ("padding tokens are counted; look at a[real] only", counts_padding),
        ("a negative value is not an active neuron: count a > 0, not a != 0", counts_negative),
        ("the firing rate divides by the real tokens, not by all", rate_over_all_tokens),
        ("a firing rate belongs to a neuron (mean over tokens), not to a token", rates_of_tokens),
        ("dead means never active on the sample, not seldom", sleepy_is_dead),
    ],
    "overall": [
        ("a wide layer has more neurons: weight each share by its width", plain_mean),
        ("divide by the number of neurons in all", product_sum),
        ("weights are the widths over their sum, not over the widest layer", weighted_by_share),
    ],
    "topk_ffn": [
        ("k counts neurons of each token, not of the whole batch", ffn_with(topk_over_batch)),
        ("rank the neurons of one token, not the tokens of one neuron", ffn_with(topk_over_tokens)),
        ("Top-k takes the largest values after the ReLU, not the largest magnitudes", ffn_with(by_magnitude)),
        ("the ReLU is missing: with few positive entries, negative ones survive", ffn_with(no_relu)),
        ("k counts what is kept, not what is dropped", drops_k),
        ("survivors keep their value; nothing is subtracted", ffn_with(soft)),
        ("select among the m neurons, before V, not among the d outputs", topk_of_outputs),
    ],
    "mean_active_gradient": [
        ("average over the active units only: a silent unit passes no gradient", over_all_units),
        ("the gradient stops at the ReLU: leave the silent units out", of_silent_units_too),
        ("dL/dlogits is softmax minus one-hot, not the reverse", towards_the_label),
        ("the one-hot label is missing from dL/dlogits", without_the_label),
        ("L is the loss of one token: do not divide by their number again", divided_by_tokens),
    ],
}


def nonzero_by_loop(a, real):
    if len(real) != len(a) or not real.any():
        raise ValueError(f"{int(real.sum())} real tokens of {len(a)}")
    rows = [row for row, is_real in zip(a, real, strict=True) if is_real]
    counts = np.array([sum(v > 0 for v in row) for row in rows])
    rate = np.array([sum(row[i] > 0 for row in rows) / len(rows) for i in range(a.shape[1])])
    return counts.sum() / (len(rows) * a.shape[1]), counts, rate, int((rate == 0).sum())


def overall_by_counts(density, width):
    if len(density) != len(width) or not width.any():
        raise ValueError(f"{len(density)} densities, {len(width)} widths, {width.sum()} neurons")
    return np.average(density, weights=width)


def ffn_by_loop(x, K, V, *, k):
    if K.shape != V.shape or not 0 <= k <= K.shape[1]:
        raise ValueError(f"K {K.shape}, V {V.shape}, k={k}")
    out = np.zeros((len(x), len(V)))
    for t in range(len(x)):
        z = K.T @ x[t]
        for i in sorted(range(len(z)), key=lambda i: -z[i])[:k]:
            out[t] += max(z[i], 0) * V[:, i]
    return out


def gradient_by_differences(z, V, y):
    reference.mean_active_gradient(z, V, y)
    total = 0.0
    for t in range(len(z)):
        for i in np.flatnonzero(z[t] > 0):
            v = V[:, i]
            total += v @ _error(z[t : t + 1], V, y[t : t + 1])[0]
    return total / (z > 0).sum()


RIGHT = {
    "nonzero_stats": [nonzero_by_loop],
    "overall": [overall_by_counts],
    "topk_ffn": [ffn_by_loop],
    "mean_active_gradient": [gradient_by_differences],
}

EQUIVALENT = {
    "topk_ffn": {
        "K.shape != V.shape or not 0 <= k <= K.shape[1] => not 0 <= k <= K.shape[1] "
        "(if K.shape != V.shape or not 0 <= k <= K.shape[1]:)": "the product with V refuses the shapes, too",
    },
}

HINTS = {
    "nonzero_stats": [
        "Throw the padding away before you count anything.",
        "One boolean array, a[real] > 0, holds all four answers: its mean, its sums and what never fires.",
        "density: mean; per_token: sum over axis 1; firing_rate: mean over axis 0; dead: no True.",
    ],
    "overall": [
        "How many (token, neuron) pairs does each layer contribute to the count?",
        "A layer twice as wide counts twice: a weighted mean.",
        "Sum density times width, divided by the sum of the widths.",
    ],
    "topk_ffn": [
        "Three steps: all activations, the selection, then V. Each token selects among its own neurons.",
        "np.argsort of the NEGATIVE activations along the last axis lists the neurons from strong to weak.",
        "a = np.maximum(x @ K, 0); zero everything but the first k of that order; multiply by V.T.",
    ],
    "mean_active_gradient": [
        "Chain rule in two steps: from the loss to the logits, from the logits to one unit.",
        "dL/dlogits of a token is softmax(logits) minus the one-hot label; unit i gets its product with v_i.",
        "(error @ V) has the gradient of each unit; take those where z > 0 and average them.",
    ],
}
