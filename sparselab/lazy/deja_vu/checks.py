"""Deja Vu's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.judge import same
from sparselab.lazy.deja_vu import reference
from sparselab.lazy.deja_vu.reference import Params


def cases(rng):
    x, params = rng.normal(size=(7, 5)), Params(rng.normal(size=(5, 3)), rng.normal(size=(3, 8)))
    K, V = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    a = np.maximum(x @ K - 1, 0)
    one = Params(params.down[:, :1], params.up[:1])
    square = Params(rng.normal(size=(5, 5)), rng.normal(size=(5, 5)))
    torn = Params(params.down, params.up[:2])
    steep = Params(30 * params.down, params.up)

    yield "logits", "rank 3", dict(params=params, x=x)
    yield "logits", "rank 1", dict(params=one, x=x)
    yield "logits", "full rank, square", dict(params=square, x=x)
    yield "logits", "one token", dict(params=params, x=x[:1])
    yield "logits", "widths that differ", dict(params=params, x=x[:, :4])
    yield "logits", "ranks that differ", dict(params=torn, x=x)

    for op in ("loss", "gradients"):
        yield op, "some active", dict(params=params, x=x, a=a)
        yield op, "GELU values below zero are not active", dict(params=params, x=x, a=a - 0.1)
        yield op, "none active", dict(params=params, x=x, a=-np.abs(a))
        yield op, "all active", dict(params=params, x=x, a=a + 0.1)
        yield op, "rank 1", dict(params=one, x=x, a=a)
        yield op, "as many tokens as neurons", dict(params=square, x=x[:5], a=a[:5, :5])
        yield op, "logits in the hundreds", dict(params=steep, x=30 * x, a=a)
        yield op, "one token", dict(params=params, x=x[:1], a=a[:1])
        yield op, "labels of other tokens", dict(params=params, x=x, a=a[:6])
        yield op, "one label for all", dict(params=params, x=x, a=a[:, :1])
        yield op, "widths that differ", dict(params=params, x=x[:, :4], a=a)

    tied = Params(params.down, np.repeat(params.up[:, :2], 4, axis=1))
    yield "select", "3 of 8", dict(params=params, x=x, keep=3)
    yield "select", "pairs of equals", dict(params=tied, x=x, keep=6)
    yield "select", "chances that round to 1", dict(params=steep, x=np.abs(30 * x), keep=2)
    yield "select", "all tied", dict(params=params, x=0 * x, keep=3)
    yield "select", "fewer than keep are positive", dict(params=one, x=x, keep=7)
    yield "select", "square", dict(params=square, x=x[:5], keep=2)
    yield "select", "everything", dict(params=params, x=x, keep=8)
    yield "select", "nothing", dict(params=params, x=x, keep=0)
    yield "select", "one token", dict(params=params, x=x[:1], keep=4)
    yield "select", "more than the neurons", dict(params=params, x=x, keep=9)
    yield "select", "less than nothing", dict(params=params, x=x, keep=-1)

    oracle = Params(np.eye(5), K)
    yield "ffn", "3 of 8", dict(params=params, x=x, K=K, V=V, keep=3)
    yield "ffn", "the layer predicts itself", dict(params=oracle, x=x, K=K, V=V, keep=3)
    yield "ffn", "everything is the dense layer", dict(params=params, x=x, K=K, V=V, keep=8)
    yield "ffn", "nothing", dict(params=params, x=x, K=K, V=V, keep=0)
    yield "ffn", "tied predictions", dict(params=tied, x=x, K=K, V=V, keep=2)
    yield "ffn", "one token", dict(params=params, x=x[:1], K=K, V=V, keep=2)
    yield "ffn", "square", dict(params=square, x=x[:5], K=K[:, :5], V=V[:, :5], keep=2)
    yield "ffn", "more than the neurons", dict(params=params, x=x, K=K, V=V, keep=9)
    yield "ffn", "a layer with other neurons", dict(params=params, x=x, K=K[:, :7], V=V[:, :7], keep=2)
    yield "ffn", "K and V that differ", dict(params=params, x=x, K=K, V=V[:, :7], keep=2)
    yield "ffn", "a K with neurons to spare", dict(params=params, x=x, K=np.hstack([K, K]), V=V, keep=2)
    yield "ffn", "a wider V", dict(params=params, x=x, K=K, V=np.hstack([V, V]), keep=2)

    selected = rng.random(a.shape) < 0.4
    a[0], selected[0] = np.arange(8) - 3.0, np.arange(8) % 2 == 0
    a[1], selected[2] = 0, False
    yield "agreement", "a random selection", dict(selected=selected, a=np.maximum(a, 0))
    yield "agreement", "negative values are not active", dict(selected=selected, a=a)
    yield "agreement", "no exact zeros", dict(selected=selected, a=rng.normal(size=a.shape))
    yield "agreement", "the active ones", dict(selected=a > 0, a=np.maximum(a, 0))
    yield "agreement", "everything", dict(selected=np.ones(a.shape, bool), a=np.maximum(a, 0))
    yield "agreement", "none of the active ones", dict(selected=a <= 0, a=np.maximum(a, 0))
    yield "agreement", "one token", dict(selected=selected[:1], a=np.maximum(a[:1], 0))
    yield "agreement", "a column of tokens", dict(selected=selected[:, 4:5], a=np.maximum(a[:, 4:5], 0))
    yield "agreement", "nothing active", dict(selected=selected, a=-np.abs(a))
    yield "agreement", "nothing selected", dict(selected=np.zeros(a.shape, bool), a=a)
    yield "agreement", "other tokens", dict(selected=selected[:6], a=a)
    yield "agreement", "one column for all", dict(selected=selected[:, :1], a=a)

    yield "weights_read", "3 of 8 by rank 3", dict(params=params, keep=3)
    yield "weights_read", "everything", dict(params=params, keep=8)
    yield "weights_read", "the predictor alone", dict(params=params, keep=0)
    yield "weights_read", "rank 1", dict(params=one, keep=2)
    yield "weights_read", "more than the neurons", dict(params=params, keep=9)
    yield "weights_read", "less than nothing", dict(params=params, keep=-1)


def no_bias_and_nothing_between(call, got, params, x):
    return same(call(x=-2 * x), -2 * got)


def rank_is_bounded(call, got, params, x):
    return np.linalg.matrix_rank(got) <= params.up.shape[0]


def even_chances(call, got, params, x, a):
    share = (a > 0).mean()
    expected = np.log(2) * (share + (1 - share) * (share + 0.005))
    return same(call(params=Params(0 * params.down, params.up)), np.array(expected))


def only_the_sign_of_a_matters(call, got, params, x, a):
    return same(call(a=np.sign(a)), got)


def slopes_of_the_loss(call, got, params, x, a):
    if np.abs(reference.logits(params, x)).max() > 50:
        return True  # too steep for differences
    rng, step = np.random.default_rng(0), 1e-6
    move = Params(*(rng.normal(size=p.shape) for p in params))
    ahead, behind = (
        reference.loss(Params(*(p + s * m for p, m in zip(params, move, strict=True))), x, a)
        for s in (step, -step)
    )
    slope = sum((g * m).sum() for g, m in zip(got, move, strict=True))
    return same(np.array(slope), np.array((ahead - behind) / (2 * step)), rtol=1e-5, atol=1e-7)


def maps_balance(call, got, params, x, a):
    """The product down up stays where down grows and up shrinks alike: <g_down, down> = <g_up, up>."""
    down, up = ((g * p).sum() for g, p in zip(got, params, strict=True))
    return same(np.array(down), np.array(up))


def exactly_keep_per_token(call, got, params, x, keep):
    return (got.sum(axis=1) == keep).all()


def no_dropped_logit_beats_a_kept_one(call, got, params, x, keep):
    z = reference.logits(params, x)
    kept, dropped = np.where(got, z, np.inf), np.where(got, -np.inf, z)
    return (kept.min(axis=1) >= dropped.max(axis=1)).all()


def more_is_a_superset(call, got, params, x, keep):
    return keep == got.shape[1] or (got <= call(keep=keep + 1)).all()


def masked_dense(call, got, params, x, K, V, keep):
    kept = reference.select(params, x, keep=keep)
    return same(got, (np.maximum(x @ K, 0) * kept) @ V.T)


def dense_at_keep_equal_m(call, got, params, x, K, V, keep):
    return same(call(keep=K.shape[1]), np.maximum(x @ K, 0) @ V.T)


def perfect_is_one(call, got, selected, a):
    return same(np.array(call(selected=a > 0, a=np.maximum(a, 0))), np.ones(3))


def everything_recalls_all(call, got, selected, a):
    whole = call(selected=np.ones(a.shape, bool))
    return same(np.array(whole), np.array([1, (a > 0).mean(), 1]))


def tokens_may_be_reordered(call, got, selected, a):
    return same(np.array(call(selected=selected[::-1].copy(), a=a[::-1].copy())), np.array(got))


def one_more_neuron_costs_its_share(call, got, params, keep):
    m = params.up.shape[1]
    return keep == m or same(call(keep=keep + 1), got + 1 / m)


CHECKS = {
    "logits": [
        ("no bias, nothing between the two maps: logits scale with x", no_bias_and_nothing_between),
        ("the logits have at most the rank of the predictor", rank_is_bounded),
    ],
    "loss": [
        ("with even chances it is log 2 (p + (1 - p)(p + 0.005)), p the active share", even_chances),
        ("labels are a > 0: only the sign of a matters", only_the_sign_of_a_matters),
    ],
    "gradients": [
        ("they are the slopes of the loss", slopes_of_the_loss),
        ("<g_down, down> = <g_up, up>", maps_balance),
    ],
    "select": [
        ("each token gets exactly `keep` neurons", exactly_keep_per_token),
        ("no dropped logit beats a kept one", no_dropped_logit_beats_a_kept_one),
        ("keeping one more keeps all the others", more_is_a_superset),
    ],
    "ffn": [
        ("it is the dense layer with the other neurons masked", masked_dense),
        ("with keep = m it is the dense layer", dense_at_keep_equal_m),
    ],
    "agreement": [
        ("selecting just the active neurons gives 1, 1, 1", perfect_is_one),
        ("selecting everything recalls all, with the active share as precision", everything_recalls_all),
        ("the order of the tokens does not matter", tokens_may_be_reordered),
    ],
    "weights_read": [("one more neuron costs 1/m", one_more_neuron_costs_its_share)],
}


# ---------------------------------------------------------------- mistakes


def nonlinearity_between(params, x):
    reference.logits(params, x)
    return np.maximum(x @ params.down, 0) @ params.up


def chances(params, x):
    return np.exp(-np.logaddexp(0, -reference.logits(params, x)))


def first_map_only(params, x):
    reference.logits(params, x)
    return x @ params.down


def weighing(weight, labels=lambda a: a > 0):
    """A wrong loss: the reference's with another weight (of the labels, by their mean) or other labels."""

    def answer(params, x, a):
        reference.loss(params, x, a)
        z, y = reference.logits(params, x), labels(a)
        return np.asarray((weight(y, (a > 0).mean()) * (np.logaddexp(0, z) - y * z)).mean())

    return answer


def card_weight(y, density):
    return np.where(y, 1, density + 0.005)


def unweighted_loss(y, density):
    return 1.0


def on_the_ones(y, density):
    return np.where(y, density + 0.005, 1)


def silent_share(y, density):
    return np.where(y, 1, 1 - density + 0.005)


def without_floor(y, density):
    return np.where(y, 1, density)


def nonzero(a):
    return a != 0


def summed(params, x, a):
    return reference.loss(params, x, a) * a.size


def divided_by_weights(params, x, a):
    return reference.loss(params, x, a) / card_weight(a > 0, (a > 0).mean()).mean()


def turned(params, x, a):
    return Params(*(-g for g in reference.gradients(params, x, a)))


def not_averaged(params, x, a):
    return Params(*(g * a.size for g in reference.gradients(params, x, a)))


def averaged_over_tokens(params, x, a):
    return Params(*(g * a.shape[1] for g in reference.gradients(params, x, a)))


def unweighted(params, x, a):
    reference.gradients(params, x, a)
    error = (chances(params, x) - (a > 0)) / a.size
    return Params(x.T @ error @ params.up.T, (x @ params.down).T @ error)


def with_sigmoid_slope(params, x, a):
    reference.gradients(params, x, a)
    p, y = chances(params, x), a > 0
    error = card_weight(y, y.mean()) * (p - y) * p * (1 - p) / a.size
    return Params(x.T @ error @ params.up.T, (x @ params.down).T @ error)


def by_chance(params, x, *, keep):
    reference.select(params, x, keep=keep)
    return _largest(np.round(chances(params, x), 12), keep)


def by_magnitude(params, x, *, keep):
    reference.select(params, x, keep=keep)
    return _largest(np.abs(reference.logits(params, x)), keep)


def likely_ones(params, x, *, keep):
    reference.select(params, x, keep=keep)
    return reference.logits(params, x) >= 0


def drops_keep(params, x, *, keep):
    reference.select(params, x, keep=keep)
    return reference.select(params, x, keep=params.up.shape[1] - keep)


def over_the_batch(params, x, *, keep):
    reference.select(params, x, keep=keep)
    z = reference.logits(params, x)
    return _largest(z.reshape(1, -1), keep * len(x)).reshape(z.shape)


def keeps_ties(params, x, *, keep):
    reference.select(params, x, keep=keep)
    z = reference.logits(params, x)
    return z >= (-np.sort(-z, axis=1)[:, keep - 1 : keep] if keep else np.inf)


def _largest(z, keep):
    kept = np.zeros(z.shape, bool)
    np.put_along_axis(kept, np.argsort(-z, axis=1, kind="stable")[:, :keep], True, axis=1)
    return kept


def masking(activate):
    """A wrong layer: `activate` gives the activations from x K, the selection and the logits."""

    def answer(params, x, K, V, *, keep):
        reference.ffn(params, x, K, V, keep=keep)
        z = reference.logits(params, x)
        return activate(x @ K, reference.select(params, x, keep=keep), z) @ V.T

    return answer


def without_relu(pre, kept, z):
    return pre * kept


def predicted_values(pre, kept, z):
    return np.maximum(z, 0) * kept


def all_neurons(pre, kept, z):
    return np.maximum(pre, 0)


def the_others(pre, kept, z):
    return np.maximum(pre, 0) * ~kept


def masked(pre, kept, z):
    return np.maximum(pre, 0) * kept


def oracle_selection(params, x, K, V, *, keep):
    reference.ffn(params, x, K, V, keep=keep)
    return np.where(_largest(x @ K, keep), np.maximum(x @ K, 0), 0) @ V.T


def per_token_mean(selected, a):
    right = reference.agreement(selected, a)
    active = a > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = (active & selected).sum(axis=1) / active.sum(axis=1)
    return right._replace(recall=np.asarray(shares[active.any(axis=1)].mean()))


def swapped(selected, a):
    right = reference.agreement(selected, a)
    return right._replace(recall=right.precision, precision=right.recall)


def accuracy(selected, a):
    right = reference.agreement(selected, a)
    return right._replace(recall=np.asarray((selected == (a > 0)).mean()))


def counts_negative(selected, a):
    reference.agreement(selected, a)
    return reference.agreement(selected, np.abs(a))


def unweighted_recall(selected, a):
    right = reference.agreement(selected, a)
    return right._replace(weighted_recall=right.recall)


def signed_weights(selected, a):
    right = reference.agreement(selected, a)
    return right._replace(weighted_recall=np.asarray(a[selected].sum() / a.sum()))


def reading(weights, of=lambda d, m: 2 * d * m):
    """A wrong bill: `weights(d, r, m, keep)` over those `of` the dense layer."""

    def answer(params, *, keep):
        reference.weights_read(params, keep=keep)
        (d, r), m = params.down.shape, params.up.shape[1]
        return np.asarray(weights(d, r, m, keep) / of(d, m))

    return answer


def free_predictor(d, r, m, keep):
    return 2 * d * keep


def first_map_alone(d, r, m, keep):
    return r * d + 2 * d * keep


def one_matrix(d, r, m, keep):
    return r * (d + m) + d * keep


def first_matrix_whole(d, r, m, keep):
    return r * (d + m) + d * m + d * keep


def multiplied_out(d, r, m, keep):
    return d * m + 2 * d * keep


def whole_bill(d, r, m, keep):
    return r * (d + m) + 2 * d * keep


WRONG = {
    "logits": [
        ("there is no nonlinearity between the two maps", nonlinearity_between),
        ("return the logits; the sigmoid comes later", chances),
        ("the second map is missing", first_map_only),
    ],
    "loss": [
        ("zeros weigh the active share + 0.005; unweighted, the few ones drown", weighing(unweighted_loss)),
        ("the weight belongs to the zeros, a one counts 1", weighing(on_the_ones)),
        ("zeros weigh the ACTIVE share, not the silent one", weighing(silent_share)),
        ("the 0.005 is missing: with no active neuron nothing is learned", weighing(without_floor)),
        ("an activation below zero is not active: y = a > 0, not a != 0", weighing(card_weight, nonzero)),
        ("a mean over tokens and neurons, not a sum", summed),
        ("divide by the number of entries, not by the sum of the weights", divided_by_weights),
    ],
    "gradients": [
        ("the error is sigmoid(z) - y, not the reverse", turned),
        ("the loss is a mean: divide by t m", not_averaged),
        ("the mean runs over the neurons, too: divide by t m", averaged_over_tokens),
        ("zeros weigh less, in the gradient, too", unweighted),
        ("the sigmoid's slope cancels against the log's: the error is weight (p - y)", with_sigmoid_slope),
    ],
    "select": [
        ("rank the logits: chances close to 1 round to ties", by_chance),
        ("a very negative logit means silent: no magnitudes", by_magnitude),
        ("a fixed number per token, not all chances above 1/2", likely_ones),
        ("keep counts what is kept, not what is dropped", drops_keep),
        ("each token has its own neurons: do not rank over the batch", over_the_batch),
        ("a threshold keeps all ties: exactly `keep`, of equals the first", keeps_ties),
    ],
    "ffn": [
        ("a selected neuron still passes its ReLU", masking(without_relu)),
        ("the predictor selects; the activation comes from K", masking(predicted_values)),
        ("neurons are selected by the prediction, not by their true activation", oracle_selection),
        ("without the selection this is the dense layer", masking(all_neurons)),
        ("the selected neurons are computed, the others left out", masking(the_others)),
    ],
    "agreement": [
        ("count over all tokens together: a mean of ratios weighs quiet tokens too much", per_token_mean),
        ("recall divides by the active ones, precision by the selected", swapped),
        ("recall looks at the active neurons only: with 95 % silent, accuracy is blind", accuracy),
        ("active means a > 0", counts_negative),
        ("the third number weighs each neuron by |a|", unweighted_recall),
        ("weigh by |a|, or negative values cancel positive ones", signed_weights),
    ],
    "weights_read": [
        ("the predictor's own weights are read for every token, too", reading(free_predictor)),
        ("the predictor has two maps: r d weights and r m", reading(first_map_alone)),
        ("a predicted neuron is a column of K and one of V: 2 d weights", reading(one_matrix)),
        ("K is not read whole: that is what the predictor is for", reading(first_matrix_whole)),
        ("the two maps are read one after the other, not as one d x m matrix", reading(multiplied_out)),
        ("the dense layer has two matrices: divide by 2 d m", reading(whole_bill, lambda d, m: d * m)),
        ("a share: divide by the weights of the dense layer", reading(whole_bill, lambda d, m: 1)),
    ],
}


def logits_by_rank(params, x):
    if x.shape[1] != len(params.down) or params.down.shape[1] != len(params.up):
        raise ValueError(f"{x.shape}, {params.down.shape}, {params.up.shape}")
    return sum(np.outer(x @ params.down[:, r], params.up[r]) for r in range(len(params.up)))


def loss_in_two_parts(params, x, a):
    reference.loss(params, x, a)
    z, y = reference.logits(params, x), a > 0
    ones, zeros = np.logaddexp(0, -z[y]).sum(), np.logaddexp(0, z[~y]).sum()
    return (ones + (y.sum() / y.size + 0.005) * zeros) / y.size


def gradients_by_token(params, x, a):
    reference.gradients(params, x, a)
    down, up, y = np.zeros_like(params.down), np.zeros_like(params.up), a > 0
    weight = card_weight(y, y.mean())
    for t, row in enumerate(x):
        z = row @ params.down @ params.up
        error = weight[t] * ((1 + np.tanh(z / 2)) / 2 - y[t]) / a.size
        down += np.outer(row, params.up @ error)
        up += np.outer(row @ params.down, error)
    return down, up


def select_by_rank(params, x, *, keep):
    if not 0 <= keep <= params.up.shape[1]:
        raise ValueError(f"keep={keep} of {params.up.shape[1]}")
    z = reference.logits(params, x)
    return np.array([[np.sum(row > v) + np.sum(row[:i] == v) < keep for i, v in enumerate(row)] for row in z])


def agreement_by_loop(selected, a):
    reference.agreement(selected, a)
    pairs = list(zip(selected.ravel(), a.ravel(), strict=True))
    hits = sum(bool(s) and v > 0 for s, v in pairs)
    weight = sum(abs(v) for s, v in pairs if s) / sum(abs(v) for _, v in pairs)
    return hits / sum(v > 0 for _, v in pairs), hits / sum(bool(s) for s, _ in pairs), weight


def weights_counted(params, *, keep):
    """Every array that is read, by its size."""
    d, m = len(params.down), params.up.shape[1]
    if not 0 <= keep <= m:
        raise ValueError(f"keep={keep} of {m}")
    K, V = np.ones((d, m)), np.ones((d, m))
    read = sum(a.size for a in (*params, K[:, :keep], V[:, :keep]))
    return np.float64(read / (K.size + V.size))


RIGHT = {
    "logits": [logits_by_rank],
    "loss": [loss_in_two_parts],
    "gradients": [gradients_by_token],
    "select": [select_by_rank],
    "ffn": [masking(masked)],
    "agreement": [agreement_by_loop],
    "weights_read": [weights_counted],
}

UNCHECKED = "(x.shape[1], params.down.shape[1]) != (len(params.down), len(params.up))"
REFUSED = {f"{UNCHECKED} => False (if {UNCHECKED}:)": "the product refuses what does not chain, too"}
EVEN = "return np.stack([V[:, s] @ np.maximum(K[:, s].T @ row, 0) for row, s in zip(x, chosen, strict=True)])"
EQUIVALENT = {
    "logits": REFUSED,
    "loss": REFUSED,
    "gradients": REFUSED,
    "select": REFUSED,
    "ffn": REFUSED | {f"True => False ({EVEN})": "x and its selection are equally long"},
}

HINTS = {
    "logits": [
        "Two matrix products and nothing else.",
        "x is (t, d), down (d, r), up (r, m): multiply from the left to the right.",
        "x @ params.down @ params.up, after a ValueError for widths that do not chain.",
    ],
    "loss": [
        "Three arrays of shape (t, m): logits, labels, weights. The loss is a mean over all their entries.",
        "y = a > 0; the weight is 1 where y holds and y.mean() + 0.005 elsewhere.",
        "For a logit z the loss is log(1 + e^z) - y z; np.logaddexp(0, z) does not overflow.",
    ],
    "gradients": [
        "Start from d loss / d z, an array of the logits' shape.",
        "It is weight (sigmoid(z) - y) / (t m). A map's gradient: its input, transposed, times what arrives.",
        "down: x.T @ error @ up.T; up: (x @ down).T @ error.",
    ],
    "select": [
        "Every token gets the same number of neurons, however sure the predictor is.",
        "Sort each row of the logits by falling value, stably, and mark the first `keep`.",
        "np.argsort(-z, axis=1, kind='stable')[:, :keep], then np.put_along_axis on an array of False.",
    ],
    "ffn": [
        "The predictor says which neurons; the layer's own K says how strongly they fire.",
        "For one token with selection s: np.maximum(K[:, s].T @ row, 0) has the activations.",
        "V[:, s] times those, stacked over the tokens.",
    ],
    "agreement": [
        "Two boolean arrays: what is active (a > 0), what was selected. What is in both?",
        "Recall and precision share the numerator: hits over active, hits over selected.",
        "The third is np.abs(a[selected]).sum() over np.abs(a).sum().",
    ],
    "weights_read": [
        "List every array that one token reads: two of the predictor, and the columns that it asks for.",
        "params.down has d r weights, params.up r m; each of `keep` neurons d in K and d in V.",
        "(r * (d + m) + 2 * d * keep) / (2 * d * m), after a ValueError for a keep outside 0..m.",
    ],
}
