"""The Spark Transformer's cases, facts, mistakes and hints."""

import numpy as np

from sparselab import judge
from sparselab.lazy.spark import reference
from sparselab.topk.exact import reference as exact
from sparselab.topk.statistical import reference as statistical


def cases(rng):
    q, K1, K2, V = (rng.normal(size=shape) for shape in ((6, 5), (2, 12), (3, 12), (5, 12)))
    keys, layer = dict(K1=K1, K2=K2), dict(K1=K1, K2=K2, V=V)
    for op, given in (("hidden", keys), ("ffn", layer), ("decode", layer)):
        token = q[0] if op == "decode" else q
        yield op, "3 of 12", dict(given, q=token, k=3)
        yield op, "1 of 12", dict(given, q=token, k=1)
        yield op, "11 of 12 is still not dense", dict(given, q=token, k=11)
        yield op, "equal scores: nothing survives", dict(given, q=token, K1=np.ones((2, 12)), k=3)
        yield op, "all twelve for twelve", dict(given, q=token, k=12)
        yield op, "none of 12", dict(given, q=token, k=0)
        yield op, "keys of another size", dict(given, q=token, K2=K2[:, :11], k=3)
        yield op, "one key for twelve", dict(given, q=token, K2=K2[:, :1], k=3)
        yield op, "parts that do not make up the width", dict(given, q=token, K2=K2[:2], k=3)
        if op != "decode":
            yield op, "one token", dict(given, q=q[0], k=3)
            yield op, "a batch of sequences", dict(given, q=rng.normal(size=(2, 3, 5)), k=4)
            yield op, "no tokens", dict(given, q=q[:0], k=3)
        if op != "hidden":
            yield op, "values of another size", dict(given, q=token, V=V[:, :11], k=3)
            yield op, "one value for twelve", dict(given, q=token, V=V[:, :1], k=3)
            yield op, "values of another width", dict(given, q=token, V=V[:4], k=3)
    wide = [rng.normal(size=shape) for shape in ((5,), (2, 70), (3, 70), (5, 70))]
    yield "decode", "longer than a block", dict(zip(("q", "K1", "K2", "V"), wide, strict=True), k=9)
    four = dict(q=np.abs(q[0]), K1=np.ones((2, 1)) * (np.arange(12) < 4), K2=K2, V=V, k=3)
    yield "decode", "four survive where three are wanted", four
    square = [rng.normal(size=shape) for shape in ((6,), (3, 6), (3, 6), (6, 6))]
    yield (
        "decode",
        "as many neurons as coordinates",
        dict(zip(("q", "K1", "K2", "V"), square, strict=True), k=2),
    )
    yield "ffn", "predictor of one coordinate", dict(q=q, K1=K1[:1], K2=np.vstack([K1[1:], K2]), V=V, k=3)

    gated = dict(x=q, gate=rng.normal(size=(12, 5)), up=rng.normal(size=(12, 5)), down=V)
    yield "gate_ffn", "3 of 12", dict(gated, k=3)
    yield "gate_ffn", "one token", dict(gated, x=q[0], k=2)
    yield "gate_ffn", "all kept skips the selection", dict(gated, k=12)
    yield "gate_ffn", "equal gates: nothing survives", dict(gated, gate=np.ones((12, 5)), k=3)
    yield "gate_ffn", "none of 12", dict(gated, k=0)
    yield "gate_ffn", "more than the neurons", dict(gated, k=13)
    yield "gate_ffn", "up of another size", dict(gated, up=gated["up"][:11], k=3)
    yield "gate_ffn", "down of another size", dict(gated, down=V[:, :11], k=3)
    yield "gate_ffn", "an input of another width", dict(gated, x=q[:, :4], k=3)

    yield "flops", "the 2 B model's layer", dict(width=2304, entries=13824, r=1024, k=1106)
    yield "flops", "a head of attention", dict(width=256, entries=4096, r=128, k=256)
    yield "flops", "fewer keys than it may pick", dict(width=256, entries=100, r=128, k=256)
    yield "flops", "no predictor", dict(width=6, entries=10, r=0, k=3)
    yield "flops", "the predictor is all", dict(width=6, entries=10, r=6, k=3)
    yield "flops", "the least", dict(width=2, entries=1, r=1, k=1)
    yield "flops", "a predictor too wide", dict(width=6, entries=10, r=7, k=3)
    yield "flops", "a negative predictor", dict(width=6, entries=10, r=-1, k=3)
    yield "flops", "nothing picked", dict(width=6, entries=10, r=3, k=0)
    yield "flops", "nothing to pick", dict(width=6, entries=0, r=3, k=1)

    x = rng.normal(size=(2, 7, 10))
    yield "rotary_halves", "4 and 6", dict(x=x, r=4)
    yield "rotary_halves", "later positions", dict(x=x, r=6, start=5)
    yield "rotary_halves", "another base", dict(x=x, r=4, base=100.0)
    yield "rotary_halves", "one sequence, one part", dict(x=x[0], r=10)
    yield "rotary_halves", "the other part", dict(x=x[0], r=0)
    yield "rotary_halves", "an odd part", dict(x=x, r=3)
    yield "rotary_halves", "an odd whole", dict(x=x[..., :9], r=4)
    yield "rotary_halves", "too wide a part", dict(x=x, r=12)
    yield "rotary_halves", "a negative part", dict(x=x, r=-2)

    scores = rng.normal(size=(2, 9, 9))
    yield "select", "3 of 9", dict(scores=scores, keep=3)
    yield "select", "1 of 9", dict(scores=scores, keep=1)
    yield "select", "scores far from zero", dict(scores=scores + 50, keep=3)
    yield "select", "two axes in front", dict(scores=rng.normal(size=(2, 2, 5, 5)), keep=2)
    yield "select", "one sequence", dict(scores=scores[0], keep=4)
    yield "select", "all kept", dict(scores=scores, keep=9)
    yield "select", "more than there are", dict(scores=scores, keep=10)
    yield "select", "decoding: one query sees all", dict(scores=scores[:, -1:], keep=3)
    yield "select", "the last queries of many", dict(scores=rng.normal(size=(1, 3, 12)), keep=4)
    nothing = np.array([[1.0, 1, 1, 1, 0]])
    yield "select", "four equal of five: nothing exceeds", dict(scores=nothing, keep=1)
    yield "select", "all tied", dict(scores=np.ones((6, 6)), keep=2)
    yield "select", "one key", dict(scores=np.array([[-3.0]]), keep=1)
    yield "select", "more queries than keys", dict(scores=scores[:, :, :8], keep=3)
    yield "select", "nothing kept", dict(scores=scores, keep=0)

    q, k, v = (rng.normal(size=(2, h, 9, 6)) for h in (4, 2, 2))
    head = dict(q=q, k=k, v=v[..., :5])
    yield "attend", "two heads share a key head", dict(head, keep=3, r=2)
    yield "attend", "a head for each", dict(q=q, k=np.repeat(k, 2, 1), v=np.repeat(v, 2, 1), keep=2, r=4)
    yield "attend", "all kept", dict(head, keep=9, r=3)
    yield "attend", "decoding", dict(head, q=q[:, :, -1:], keep=3, r=3)
    yield "attend", "one token", dict(q=q[:, :, :1], k=k[:, :, :1], v=v[:, :, :1], keep=1, r=3)
    yield "attend", "given scales", dict(head, keep=3, r=3, scale=2.0, value_scale=0.1)
    large = dict(q=40 * q, k=40 * k, v=v)
    yield "attend", "large scores", dict(large, keep=3, r=3)
    few = np.array([1.0, 1, 1, 1, 0])[:, None] * np.ones(4)
    one = dict(q=np.ones((1, 1, 1, 4)), k=few[None, None], v=rng.normal(size=(1, 1, 5, 3)))
    yield "attend", "nothing exceeds: the first maximum", dict(one, keep=1, r=2)
    yield "attend", "more queries than keys", dict(head, k=k[:, :, :8], v=v[:, :, :8], keep=3, r=3)
    yield "attend", "nothing kept", dict(head, keep=0, r=3)
    yield "attend", "no predictor", dict(head, keep=3, r=0)
    yield "attend", "nothing but the predictor", dict(head, keep=3, r=6)
    yield "attend", "predictor of one coordinate", dict(head, keep=3, r=1)
    yield "attend", "heads that do not divide", dict(head, q=q[:, :1], keep=3, r=3)
    yield "attend", "one batch of keys for two", dict(head, k=k[:1], v=v[:1, ..., :5], keep=3, r=3)
    yield "attend", "one batch of keys for two of values", dict(head, k=k[:1], keep=3, r=3)
    yield "attend", "one batch of values for two", dict(head, v=v[:1], keep=3, r=3)
    yield "attend", "keys of another width", dict(head, k=k[..., :5], keep=3, r=3)
    yield "attend", "values for other keys", dict(head, v=v[:, :, :8], keep=3, r=3)

    token = dict(q=q[0, :, -1], k=k[0], v=v[0, ..., :5])
    yield "attend_one", "two heads share a key head", dict(token, keep=3, r=2)
    yield "attend_one", "a head for each", dict(q=q[0, :2, -1], k=k[0], v=v[0], keep=2, r=4)
    yield "attend_one", "all kept", dict(token, keep=9, r=3)
    yield "attend_one", "the first token", dict(token, k=k[0, :, :1], v=v[0, :, :1], keep=1, r=3)
    yield "attend_one", "given scales", dict(token, keep=3, r=3, scale=2.0, value_scale=0.1)
    yield "attend_one", "large scores", dict(token, q=1000 * q[0, :, -1], keep=3, r=3)
    yield "attend_one", "nothing exceeds: the first maximum", dict(one, **newest(one), keep=1, r=2)
    yield "attend_one", "nothing kept", dict(token, keep=0, r=3)
    yield "attend_one", "no predictor", dict(token, keep=3, r=0)
    yield "attend_one", "nothing but the predictor", dict(token, keep=3, r=6)
    yield "attend_one", "heads that do not divide", dict(token, q=q[0, :3, -1], keep=3, r=3)
    yield "attend_one", "keys of another width", dict(token, k=k[0, ..., :5], keep=3, r=3)
    yield "attend_one", "values for other keys", dict(token, v=v[0, :, :8], keep=3, r=3)
    yield "attend_one", "no tokens", dict(token, k=k[0, :, :0], v=v[0, :, :0], keep=3, r=3)
    yield "attend", "no key heads", dict(head, k=k[:, :0], v=v[:, :0], keep=3, r=3)


def newest(given):
    """The last query of a batch of one, with the cache it sees."""
    return dict(q=given["q"][0, :, -1], k=given["k"][0], v=given["v"][0])


def equal_columns_change_nothing(call, got, K1, **rest):
    """A vector added to every column of K1 shifts all scores of a token alike."""
    shift = np.linspace(-1, 2, len(K1))[:, None]
    return judge.same(call(K1=K1 + shift), got, atol=1e-9)


def neurons_may_be_renumbered(call, got, K1, K2, V, **rest):
    order = np.random.default_rng(0).permutation(K1.shape[1])
    return judge.same(call(K1=K1[:, order], K2=K2[:, order], V=V[:, order]), got, atol=1e-9)


def unpredicted_neurons_are_zero(call, got, q, K1, K2, k):
    return not got[q[..., : len(K1)] @ K1 <= (q[..., : len(K1)] @ K1).mean(axis=-1, keepdims=True)].any() or (
        2 * k >= K1.shape[1]
    )


def a_constant_coordinate_leaves_the_gelu(call, got, q, K1, K2, V, k):
    """With 1 for the other coordinates and K2 one row of ones this is V gelu(soft(K1^T q))."""
    r = len(K1)
    q = np.concatenate([q[..., :r], np.ones((*q.shape[:-1], 1))], axis=-1)
    plain = reference.gelu(statistical.soft(q[..., :r] @ K1, k=k)) @ V[: r + 1].T
    return judge.same(call(q=q, K2=np.ones((1, K1.shape[1])), V=V[: r + 1]), plain, atol=1e-9)


def the_layer_as_trained(call, got, q, K1, K2, V, k):
    return judge.same(got, reference.ffn(q, K1, K2, V, k=k), atol=1e-9)


def rows_of_the_idle_are_not_read(call, got, q, K1, K2, V, k):
    active = statistical.soft(q[: len(K1)] @ K1, k=k) > 0
    return judge.same(call(K2=np.where(active, K2, np.nan), V=np.where(active, V, np.nan)), got)


def twice_up_is_twice_out(call, got, x, gate, up, down, k):
    return judge.same(call(up=2 * up), 2 * got)


def half_and_half(call, got, width, entries, r, k):
    """At r = d/2 this is d n + 3 d k."""
    return call(width=2 * width, r=width) == 2 * width * (entries + 3 * min(k, entries))


def lengths_stay(call, got, x, r, start=0, base=10_000.0):
    return judge.same((got**2).sum(axis=-1), (x**2).sum(axis=-1))


def parts_turn_alone(call, got, x, r, start=0, base=10_000.0):
    return judge.same(got[..., r:], call(x=x[..., r:], r=x.shape[-1] - r))


def only_the_distance_counts(call, got, x, r, start=0, base=10_000.0):
    later = call(start=start + 11)
    return judge.same(later @ later.mT, got @ got.mT, atol=1e-9)


def no_future(call, got, scores, keep):
    t, s = scores.shape[-2:]
    return not got[..., ~np.tri(t, s, s - t, dtype=bool)].any()


def the_future_is_irrelevant(call, got, scores, keep):
    t, s = scores.shape[-2:]
    return np.array_equal(call(scores=np.where(np.tri(t, s, s - t, dtype=bool), scores, 1e9)), got)


def every_row_keeps_one(call, got, scores, keep):
    return got.any(axis=-1).all()


def early_rows_keep_all(call, got, scores, keep):
    t, s = scores.shape[-2:]
    seen = s - t + 1 + np.arange(t)
    return (got.sum(axis=-1) == seen)[..., seen <= keep].all()


def no_dropped_beats_a_kept(call, got, scores, keep):
    t, s = scores.shape[-2:]
    dropped = np.tri(t, s, s - t, dtype=bool) & ~got
    worst = np.where(got, scores, np.inf).min(axis=-1)
    return (worst >= np.where(dropped, scores, -np.inf).max(axis=-1)).all()


def stretching_changes_nothing(call, got, scores, keep):
    return np.array_equal(call(scores=4 * scores), got)


def equal_keys_change_nothing(call, got, q, k, v, keep, r, **scales):
    """A vector added to the first half of every key shifts all scores of a query alike."""
    moved = k + np.where(np.arange(k.shape[-1]) < r, 0.25, 0)
    return np.abs(q).max() > 20 or judge.same(call(k=moved), got, atol=1e-9)


def the_first_token_sees_itself(call, got, q, k, v, keep, r, scale=None, value_scale=None):
    if q.shape[2] < k.shape[2]:
        return True
    first = np.repeat(k[:, :, 0], q.shape[1] // k.shape[1], axis=1)
    of = np.repeat(v[:, :, 0], q.shape[1] // k.shape[1], axis=1)
    w = (q[:, :, 0, r:] * first[..., r:]).sum(axis=-1) * (value_scale or (q.shape[-1] - r) ** -0.5)
    return judge.same(got[:, :, 0], np.logaddexp(0, w)[..., None] * of)


def the_last_row_of_attention(call, got, q, k, v, **rest):
    whole = reference.attend(q[None, :, None], k[None], v[None], **rest)
    return judge.same(got, whole[0, :, 0], atol=1e-9)


def the_idle_are_not_read(call, got, q, k, v, keep, r, scale=None, value_scale=None):
    """Keys that no head selects may hold anything in their second half, and so may their values."""
    u = np.repeat(k[..., :r], len(q) // len(k), axis=0) @ q[:, :r, None]
    kept = reference.select(u.mT if scale is None else scale * u.mT, keep=keep)[:, 0]
    idle = ~kept.reshape(len(k), -1, k.shape[1]).any(axis=1)[..., None]
    second = np.arange(k.shape[-1]) >= r
    return judge.same(call(k=np.where(idle & second, np.nan, k), v=np.where(idle, np.nan, v)), got)


def linear_in_the_values(call, got, q, k, v, **rest):
    return judge.same(call(v=2 * v), 2 * got)


def heads_select_for_themselves(call, got, q, k, v, **rest):
    return judge.same(call(q=q[:, ::-1], k=k[:, ::-1], v=v[:, ::-1]), got[:, ::-1], atol=1e-9)


SHIFT = ("adding one vector to every column of K1 changes nothing", equal_columns_change_nothing)
RENUMBERED = ("renumbering the neurons changes nothing", neurons_may_be_renumbered)
CHECKS = {
    "hidden": [
        SHIFT,
        ("a score below the row's mean is not among the best half", unpredicted_neurons_are_zero),
    ],
    "ffn": [
        SHIFT,
        RENUMBERED,
        ("a constant other half leaves V gelu(soft(K1^T q))", a_constant_coordinate_leaves_the_gelu),
    ],
    "decode": [
        SHIFT,
        RENUMBERED,
        ("this is the layer as it is trained", the_layer_as_trained),
        ("K2 and V are not read at idle neurons", rows_of_the_idle_are_not_read),
    ],
    "gate_ffn": [("twice `up` gives twice the output", twice_up_is_twice_out)],
    "flops": [("at r = d/2 a token costs d n + 3 d k", half_and_half)],
    "rotary_halves": [
        ("rotation keeps every length", lengths_stay),
        ("the second part turns as if it stood alone", parts_turn_alone),
        ("inner products depend on the distance alone", only_the_distance_counts),
    ],
    "select": [
        ("no query attends to the future", no_future),
        ("what the future holds does not matter", the_future_is_irrelevant),
        ("every query keeps a key", every_row_keeps_one),
        ("a row that sees no more than keep keeps them all", early_rows_keep_all),
        ("no dropped key beats a kept one", no_dropped_beats_a_kept),
        ("four times the scores select the same", stretching_changes_nothing),
    ],
    "attend": [
        ("adding one vector to the first half of every key changes nothing", equal_keys_change_nothing),
        (
            "a token that sees itself alone gets softplus of its second half times its value",
            the_first_token_sees_itself,
        ),
        ("twice the values give twice the output", linear_in_the_values),
        ("each head selects for itself", heads_select_for_themselves),
    ],
    "attend_one": [
        ("this is the last row of `attend`", the_last_row_of_attention),
        ("second halves and values are not read at idle keys", the_idle_are_not_read),
    ],
}


# ---------------------------------------------------------------- mistakes


def layer(activate):
    """`ffn` with another way from the scores u to the activation."""

    def ffn(q, K1, K2, V, *, k):
        reference.ffn(q, K1, K2, V, k=k)
        r = len(K1)
        return (activate(q[..., :r] @ K1, k) * (q[..., r:] @ K2)) @ V.T

    return ffn


def gelu_first(u, k):
    return statistical.soft(reference.gelu(u), k=k)


def hard(u, k):
    return np.where(statistical.survivors(u, k=k), reference.gelu(u), 0)


def exactly_k(u, k):
    return reference.gelu(np.where(exact.mask(u, k=k), u, 0))


def only_relu(u, k):
    return reference.gelu(np.maximum(u, 0))


def no_gelu(u, k):
    return statistical.soft(u, k=k)


def by_magnitude(u, k):
    return reference.gelu(statistical.soft(np.abs(u), k=k))


def drops_k(u, k):
    return reference.gelu(statistical.soft(u, k=u.shape[-1] - k))


def sample_deviation(u, k):
    z = statistical.threshold(u, k=k)[..., None] - u.mean(axis=-1, keepdims=True)
    n = u.shape[-1]
    return reference.gelu(np.maximum(u - u.mean(axis=-1, keepdims=True) - z * (n / (n - 1)) ** 0.5, 0))


def no_split(q, K1, K2, V, *, k):
    reference.ffn(q, K1, K2, V, k=k)
    u = q @ np.vstack([K1, K2])
    return (reference.gelu(statistical.soft(u, k=k)) * u) @ V.T


def gelu_of_the_values(q, K1, K2, V, *, k):
    reference.ffn(q, K1, K2, V, k=k)
    r = len(K1)
    return (statistical.soft(q[..., :r] @ K1, k=k) * reference.gelu(q[..., r:] @ K2)) @ V.T


def parts_swapped(q, K1, K2, V, *, k):
    reference.ffn(q, K1, K2, V, k=k)
    return reference.ffn(np.roll(q, len(K1), axis=-1), K1, K2, V, k=k)


def decode_with(wrong):
    def decode(q, K1, K2, V, *, k):
        return wrong(q, K1, K2, V, k=k)

    return decode


def only_k_of_them(q, K1, K2, V, *, k):
    """Fills k slots, whatever number survives."""
    active = statistical.soft(q[: len(K1)] @ K1, k=k)
    kept = np.argsort(-active, kind="stable")[:k]
    reference.ffn(q, K1, K2, V, k=k)
    return V[:, kept] @ (reference.gelu(active[kept]) * (q[len(K1) :] @ K2[:, kept]))


def dense_of_all(*, width, entries, r, k):
    reference.flops(width=width, entries=entries, r=r, k=k)
    return 4 * width * entries


def multiplications_only(*, width, entries, r, k):
    return reference.flops(width=width, entries=entries, r=r, k=k) // 2


def sparse_predictor(*, width, entries, r, k):
    reference.flops(width=width, entries=entries, r=r, k=k)
    return 4 * width * min(k, entries)


def dense_values(*, width, entries, r, k):
    reference.flops(width=width, entries=entries, r=r, k=k)
    return 2 * (r * entries + (width - r) * min(k, entries) + width * entries)


def without_values(*, width, entries, r, k):
    reference.flops(width=width, entries=entries, r=r, k=k)
    return 2 * (r * entries + (width - r) * min(k, entries))


def whole_rows_of_k2(*, width, entries, r, k):
    reference.flops(width=width, entries=entries, r=r, k=k)
    return 2 * (r * entries + 2 * width * min(k, entries))


def more_than_there_are(*, width, entries, r, k):
    reference.flops(width=width, entries=entries, r=r, k=k)
    return 2 * (r * entries + (width - r) * k + width * k)


def causal(scores):
    t, s = scores.shape[-2:]
    return np.broadcast_to(np.tri(t, s, s - t, dtype=bool), scores.shape)


def selection(kept):
    """`select` with another rule where a row sees more than keep; the maximum always stays."""

    def select(scores, *, keep):
        reference.select(scores, keep=keep)
        visible, n = causal(scores), causal(scores).sum(axis=-1, keepdims=True)
        best = np.where(visible, scores, -np.inf).argmax(axis=-1)[..., None] == np.arange(scores.shape[-1])
        return visible & (kept(scores, visible, keep) | best | (n <= keep))

    return select


def hidden_as_zeros(scores, visible, keep):
    return scores > _threshold(np.where(visible, scores, 0), np.full_like(scores, True), keep)


def hidden_as_minus_1e9(scores, visible, keep):
    return scores > _threshold(np.where(visible, scores, -1e9), np.full_like(scores, True), keep)


def whole_rows(scores, visible, keep):
    return scores > _threshold(scores, np.full_like(scores, True), keep)


def one_quantile(scores, visible, keep):
    """The quantile of the longest row for all."""
    n = visible.sum(axis=-1, keepdims=True)
    mean = np.where(visible, scores, 0).sum(axis=-1, keepdims=True) / n
    std = np.sqrt(np.where(visible, (scores - mean) ** 2, 0).sum(axis=-1, keepdims=True) / n)
    return scores > mean + std * _quantile(keep / scores.shape[-1])


def exactly_keep(scores, visible, keep):
    order = np.argsort(-np.where(visible, scores, -np.inf), axis=-1, kind="stable")
    return np.argsort(order, axis=-1) < keep


def not_causal(scores, *, keep):
    reference.select(scores, keep=keep)
    if keep >= scores.shape[-1]:
        return np.ones(scores.shape, bool)
    return statistical.survivors(scores, k=keep, keep_max=True)


def from_the_first_token(scores, *, keep):
    """The last of many queries see no more than the first would."""
    reference.select(scores, keep=keep)
    t, s = scores.shape[-2:]
    return _select(scores, np.tri(t, s, dtype=bool), keep)


def not_itself(scores, *, keep):
    """Query i sees the keys before its own place; the first one, which would see none, its own."""
    reference.select(scores, keep=keep)
    t, s = scores.shape[-2:]
    seen = np.tri(t, s, s - t - 1, dtype=bool)
    seen[:, 0] = True
    return _select(scores, seen, keep)


def _select(scores, seen, keep):
    seen = np.broadcast_to(seen, scores.shape)
    if keep >= scores.shape[-1]:
        return seen.copy()
    return statistical.survivors(scores, k=keep, mask=seen, keep_max=True)


def rows_may_be_empty(scores, *, keep):
    reference.select(scores, keep=keep)
    if keep >= scores.shape[-1]:
        return causal(scores).copy()
    return statistical.survivors(scores, k=keep, mask=causal(scores))


def all_maxima(scores, *, keep):
    kept = rows_may_be_empty(scores, keep=keep)
    seen = np.where(causal(scores), scores, -np.inf)
    return kept | (~kept.any(axis=-1, keepdims=True) & (seen == seen.max(axis=-1, keepdims=True)))


def _threshold(scores, counted, keep):
    n = counted.sum(axis=-1, keepdims=True)
    mean = scores.mean(axis=-1, keepdims=True)
    share = np.clip(keep / n, 1e-12, 1 - 1e-12)
    return mean + scores.std(axis=-1, keepdims=True) * _quantile(share)


def _quantile(share):
    from statistics import NormalDist

    return np.vectorize(lambda p: NormalDist().inv_cdf(1 - min(p, 1 - 1e-12)))(share)


def attention(weigh):
    """`attend` with another way to its weights: from scores u, the other half's products w, the selection."""

    def attend(q, k, v, *, keep, r, scale=None, value_scale=None):
        reference.attend(q, k, v, keep=keep, r=r)
        k, v = (np.repeat(a, q.shape[1] // k.shape[1], axis=1) for a in (k, v))
        by = r**-0.5 if scale is None else scale
        at = (q.shape[-1] - r) ** -0.5 if value_scale is None else value_scale
        u = by * q[..., :r] @ k[..., :r].mT
        w = at * q[..., r:] @ k[..., r:].mT
        return weigh(u, w, reference.select(u, keep=keep)) @ v

    return attend


def softmax(u, kept):
    u = np.where(kept, u, -np.inf)
    p = np.exp(u - u.max(axis=-1, keepdims=True))
    return p / p.sum(axis=-1, keepdims=True)


def softplus(w):
    return np.logaddexp(0, w)


def without_softplus(u, w, kept):
    return softmax(u, kept)


def renormalised(u, w, kept):
    weights = softmax(u, kept) * softplus(w)
    return weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300)


def relu_for_softplus(u, w, kept):
    return softmax(u, kept) * np.maximum(w, 0)


def softplus_of_the_scores(u, w, kept):
    return softmax(u, kept) * softplus(u)


def dropped_afterwards(u, w, kept):
    return softmax(u, causal(u)) * kept * softplus(w)


def dropped_as_zeros(u, w, kept):
    return softmax(np.where(kept, u, 0), True) * softplus(w)


def overflowing(u, w, kept):
    with np.errstate(over="ignore", invalid="ignore"):
        p = np.where(kept, np.exp(u), 0)
        return p / p.sum(axis=-1, keepdims=True) * softplus(w)


def shifted(u, w, kept):
    """Soft or hard selection: what a row subtracts cancels in its softmax."""
    return softmax(u - np.where(kept, u, np.inf).min(axis=-1, keepdims=True), kept) * softplus(w)


def grouped_by_turns(q, k, v, *, keep, r, scale=None, value_scale=None):
    reference.attend(q, k, v, keep=keep, r=r)
    turns = q.shape[1] // k.shape[1]
    k, v = np.tile(k, (1, turns, 1, 1)), np.tile(v, (1, turns, 1, 1))
    return reference.attend(q, k, v, keep=keep, r=r, scale=scale, value_scale=value_scale)


def scaled_by_the_whole(q, k, v, *, keep, r, scale=None, value_scale=None):
    d = q.shape[-1] ** -0.5
    scale, value_scale = (d if s is None else s for s in (scale, value_scale))
    return reference.attend(q, k, v, keep=keep, r=r, scale=scale, value_scale=value_scale)


def unscaled(q, k, v, *, keep, r, scale=None, value_scale=None):
    return reference.attend(q, k, v, keep=keep, r=r, scale=1.0, value_scale=1.0)


def halves_swapped(q, k, v, *, keep, r, scale=None, value_scale=None):
    reference.attend(q, k, v, keep=keep, r=r)
    q, k = (np.roll(a, r, axis=-1) for a in (q, k))
    swapped = dict(scale=value_scale, value_scale=scale)
    return reference.attend(q, k, v, keep=keep, r=q.shape[-1] - r, **swapped)


LAYER = [
    ("the threshold comes first, then the GELU: gelu(0) = 0 keeps the zeros", layer(gelu_first)),
    ("survivors are shifted by the threshold: soft, not hard", layer(hard)),
    ("the GELU of the survivors is missing", layer(no_gelu)),
    ("the largest scores, not the largest magnitudes", layer(by_magnitude)),
    ("k counts what is kept, not what is dropped", layer(drops_k)),
    ("the standard deviation divides by n, not by n - 1", layer(sample_deviation)),
    ("split the coordinates before the products: q[:r] predicts, q[r:] gives the value", no_split),
    ("the FIRST r coordinates predict", parts_swapped),
    ("statistical top-k: about k, less the threshold, and not the k largest as they are", layer(exactly_k)),
    ("a ReLU lets about half of the neurons pass: the scores go through statistical top-k", layer(only_relu)),
    ("the GELU belongs to the scores that choose, not to the values of the other half", gelu_of_the_values),
]
WRONG = {
    "ffn": LAYER,
    "decode": [
        *[(hint, decode_with(wrong)) for hint, wrong in LAYER[:5]],
        ("k is a target: compute every neuron that survives, not k of them", only_k_of_them),
        ("products with zeros read K2 and V all the same: leave them out", decode_with(reference.ffn)),
    ],
    "flops": [
        ("only the predictor sees all entries", dense_of_all),
        ("a multiplication and an addition are two FLOPs", multiplications_only),
        ("the predictor is dense: 2 r n, whatever k", sparse_predictor),
        ("V is read at the k picked entries only", dense_values),
        ("V is missing: each picked entry adds a column of `width` numbers", without_values),
        ("the r coordinates of K1 are read already: K2 has width - r", whole_rows_of_k2),
        ("no more than the entries there are can be picked: min(k, entries)", more_than_there_are),
    ],
    "select": [
        ("a key that is hidden is no zero: leave it out of the statistics", selection(hidden_as_zeros)),
        ("a key that is hidden is no -1e9: leave it out of the statistics", selection(hidden_as_minus_1e9)),
        ("the statistics are those of the visible keys only", selection(whole_rows)),
        ("the quantile belongs to the row: 1 - keep/n, n the keys it sees", selection(one_quantile)),
        ("a threshold keeps about `keep`, not exactly", selection(exactly_keep)),
        ("no query sees the future", not_causal),
        ("the t queries are the LAST of s tokens: np.tri(t, s, s - t)", from_the_first_token),
        ("a query sees its own key, too", not_itself),
        ("where nothing exceeds the threshold the maximum stays", rows_may_be_empty),
        ("of equal maxima the first alone stays", all_maxima),
    ],
    "attend": [
        ("each softmax weight is multiplied by softplus of the other half", attention(without_softplus)),
        ("the weights are not normalised again", attention(renormalised)),
        ("softplus(w) = ln(1 + e^w), not the ReLU", attention(relu_for_softplus)),
        ("softplus takes the products of the OTHER coordinates", attention(softplus_of_the_scores)),
        ("select before the softmax: it runs over the chosen keys alone", attention(dropped_afterwards)),
        ("a dropped score is -inf before the softmax, for e^0 = 1 counts", attention(dropped_as_zeros)),
        ("runs of h/g query heads share a key head, not every g-th", grouped_by_turns),
        ("large scores overflow: take the row's maximum away before the exponential", attention(overflowing)),
        ("the products are multiplied by `scale` and by `value_scale`", unscaled),
        ("each part has its own width: scales r^-0.5 and (d - r)^-0.5", scaled_by_the_whole),
        ("the FIRST r coordinates choose, the others give the softplus", halves_swapped),
    ],
}  # fmt: skip


def layer_by_loop(q, K1, K2, V, *, k):
    if (
        K1.shape[1] != K2.shape[1]
        or q.shape[-1] != len(K1) + len(K2)
        or V.shape != (q.shape[-1], K1.shape[1])
    ):
        raise ValueError(f"{q.shape}, {K1.shape}, {K2.shape}, {V.shape}")
    out = np.zeros(q.shape)
    for at in np.ndindex(q.shape[:-1]):
        u = K1.T @ q[at][: len(K1)]
        z = np.maximum(u - statistical.threshold(u, k=k), 0) if np.ptp(u) else 0 * u
        out[at] = V @ (reference.gelu(z) * (K2.T @ q[at][len(K1) :]))
    return out


def decode_by_lists(q, K1, K2, V, *, k):
    if K1.shape[1] != K2.shape[1] or len(q) != len(K1) + len(K2) or V.shape != (len(q), K1.shape[1]):
        raise ValueError(f"{q.shape}, {K1.shape}, {K2.shape}, {V.shape}")
    active = statistical.soft(q[: len(K1)] @ K1, k=k)
    some = active > 0
    return V[:, some] @ (reference.gelu(active[some]) * (q[len(K1) :] @ K2[:, some]))


def flops_by_matrix(*, width, entries, r, k):
    if not 0 <= r <= width or entries < 1 or k < 1:
        raise ValueError(f"{width}, {entries}, {r}, {k}")
    columns = min(entries, k)
    return sum(2 * rows * n for rows, n in ((r, entries), (width - r, columns), (width, columns)))


def select_by_row(scores, *, keep):
    t, s = scores.shape[-2:]
    if t > s or keep < 1:
        raise ValueError(f"{t} queries, {s} keys, keep={keep}")
    kept = np.zeros(scores.shape, bool)
    for *at, i in np.ndindex(scores.shape[:-1]):
        seen = scores[(*at, i)][: i + s - t + 1]
        if len(seen) <= keep:
            kept[(*at, i)][: len(seen)] = True
            continue
        above = seen > statistical.threshold(seen, k=keep)
        kept[(*at, i, np.flatnonzero(above) if above.any() else np.argmax(seen))] = True
    return kept


EQUIVALENT = {
    "select": {
        label: "statistical top-k refuses it too, in other words"
        for label in (
            "t > s or keep < 1 => t > s (if t > s or keep < 1:)",
            "1 => 0 (if t > s or keep < 1:)",
        )
    },
    "decode": {
        "1 => 0 (if V.shape != (q.shape[-1], K1.shape[1]):)": "one token has one axis: last is first",
        "1 => 0 (if q.shape[-1] != len(K1) + len(K2) or K1.shape[1] != K2.shape[1]:)": "likewise",
        "q.shape[-1] != len(K1) + len(K2) or K1.shape[1] != K2.shape[1] => K1.shape[1] != K2.shape[1] "
        "(if q.shape[-1] != len(K1) + len(K2) or K1.shape[1] != K2.shape[1]:)": "the products refuse it, too",
    },
}

RIGHT = {
    "ffn": [layer_by_loop],
    "decode": [decode_by_lists],
    "flops": [flops_by_matrix],
    "select": [select_by_row],
    "attend": [attention(shifted)],
}

HINTS = {
    "ffn": [
        "Two products, one for each part of q. Which of them decides which neurons are active?",
        "u = q[..., :r] @ K1 goes through statistical top-k, then through the GELU; r is len(K1).",
        "Multiply gelu(soft(u, k=k)) by q[..., r:] @ K2 and the result by V.T.",
    ],
    "decode": [
        "Compute all scores of the first part; then look at the neurons that survive, one by one.",
        "statistical.soft(q[:r] @ K1, k=k) is zero where a neuron is idle: np.flatnonzero lists the others.",
        "For each add gelu(active[i]) * (q[r:] @ K2[:, i]) * V[:, i]; no other column of K2 or V is touched.",
    ],
    "flops": [
        "Three products: the predictor, the other part, the values. How many columns does each read?",
        "A product of a vector of length a with n columns takes 2 a n.",
        "2 r n for all n entries, then 2 (d - r) and 2 d for each of the min(k, n) picked.",
    ],
    "select": [
        "Which keys does row i see? Everything else must be out of the mean, the deviation and the count.",
        "np.tri(t, s, s - t, dtype=bool), broadcast to the scores, is visible; keep >= s keeps all of it.",
        "Kept is what is visible and exceeds statistical.threshold(scores, k=keep, mask=visible)[..., None].",
        "Last, set the first maximum of each row's visible scores to True: argmax, then np.put_along_axis.",
    ],
    "attend": [
        "Two score matrices from the two parts of q and k. One is selected and goes through the softmax.",
        "Set the dropped scores to -inf before the softmax; the other matrix goes through softplus.",
        "o = (softmax(u) * np.logaddexp(0, w)) @ v; repeat k and v for the h/g heads that share them.",
    ],
}
