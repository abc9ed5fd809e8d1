"""Wanda's cases, facts, mistakes and hints."""

import numpy as np

from sparselab.pruning.wanda import reference


def cases(rng):
    w, x = rng.normal(size=(4, 12)), rng.normal(size=(20, 12)) * np.geomspace(0.1, 10, 12)
    ties = dict(w=np.ones((2, 4)), x=np.ones((3, 4)))
    dead = x * (np.arange(12) != 5)
    yield "score", "uneven inputs", dict(w=w, x=x)
    yield "score", "a dead input", dict(w=w, x=dead)
    yield "score", "widths that differ", dict(w=w, x=x[:, :8])
    yield "score", "one input for twelve", dict(w=w, x=x[:, :1])
    yield "mask", "1 of 4", dict(w=w, x=x, n=1, m=4)
    yield "mask", "4 of 6", dict(w=w, x=x, n=4, m=6)
    yield "mask", "all tied", dict(**ties, n=3, m=4)
    yield "mask", "a dead input", dict(w=w, x=dead, n=2, m=3)
    yield "mask", "everything kept", dict(w=w, x=x, n=4, m=4)
    yield "mask", "nothing kept", dict(w=w, x=x, n=0, m=4)
    yield "mask", "one row", dict(w=w[:1], x=x, n=2, m=4)
    yield "mask", "groups of one", dict(w=w, x=x, n=1, m=1)
    yield "mask", "groups of none", dict(w=w, x=x, n=0, m=0)
    yield "mask", "groups that do not divide", dict(w=w, x=x, n=2, m=5)
    yield "mask", "more than the group", dict(w=w, x=x, n=5, m=4)
    yield "row_mask", "5 of 12", dict(w=w, x=x, keep=5)
    yield "row_mask", "all tied", dict(**ties, keep=3)
    yield "row_mask", "everything kept", dict(w=w, x=x, keep=12)
    yield "row_mask", "nothing kept", dict(w=w, x=x, keep=0)
    yield "row_mask", "more than the row", dict(w=w, x=x, keep=13)


def doubled_input_doubles_score(call, got, w, x):
    return np.array_equal(call(x=2 * x), 2 * got)


def keeps_n_of_each_group(call, got, w, x, n, m):
    return (got.reshape(len(w), -1, m).sum(axis=-1) == n).all()


def order_of_tokens_is_irrelevant(call, got, w, x, **sizes):
    return np.array_equal(call(x=x[::-1].copy(), **sizes), got)


def keeps_the_best_of_each_row(call, got, w, x, keep):
    s = reference.score(w, x)
    return all(s[o][got[o]].min(initial=np.inf) >= s[o][~got[o]].max(initial=-np.inf) for o in range(len(w)))


CHECKS = {
    "score": [("doubling the inputs doubles every score", doubled_input_doubles_score)],
    "mask": [
        ("every group keeps exactly n", keeps_n_of_each_group),
        ("the order of the tokens does not matter", order_of_tokens_is_irrelevant),
    ],
    "row_mask": [("no dropped score of a row beats a kept one", keeps_the_best_of_each_row)],
}


def drop_n(w, x, *, n, m):
    return reference.mask(w, x, n=m - n, m=m)


def whole_layer(w, x, *, n, m):
    s = reference.score(w, x)
    kept = np.zeros(s.size, bool)
    kept[np.argsort(-s.ravel(), kind="stable")[: s.size * n // m]] = True
    return kept.reshape(s.shape)


def no_norm(w, x, *, n, m):
    return reference.mask(w, np.ones_like(x), n=n, m=m)


def along_outputs(w, x, *, n, m):
    return reference.mask(reference.score(w, x).T.copy(), np.ones((1, len(w))), n=n, m=m).T


def threshold_keeps_ties(w, x, *, n, m):
    s = reference.score(w, x).reshape(len(w), -1, m)
    return (s >= -np.sort(-s, axis=-1)[..., n - 1 : n]).reshape(w.shape)


def mean_square(w, x):
    return np.abs(w) * np.sqrt((x**2).mean(axis=0))


def no_root(w, x):
    return np.abs(w) * (x**2).sum(axis=0)


def signed(w, x):
    return w * np.sqrt((x**2).sum(axis=0))


def norm_of_tokens(w, x):
    return np.abs(w) * np.sqrt((x**2).sum(axis=1))[: w.shape[1]]


def drop_keep(w, x, *, keep):
    return reference.row_mask(w, x, keep=w.shape[1] - keep)


def layer_not_row(w, x, *, keep):
    return whole_layer(w, x, n=keep, m=w.shape[1])


def magnitude_rows(w, x, *, keep):
    return reference.row_mask(w, np.ones_like(x), keep=keep)


WRONG = {
    "score": [
        ("the norm of an input is a sum over the tokens, not a mean", mean_square),
        ("the norm needs its square root", no_root),
        ("a large negative weight matters as much as a positive one: take |W|", signed),
        ("one norm for each input (column of x), not for each token", norm_of_tokens),
    ],
    "mask": [
        ("n counts the weights kept, not dropped", drop_n),
        ("compare inside a group, not over the layer", whole_layer),
        ("without the input norm this is magnitude pruning", no_norm),
        ("groups are consecutive inputs of one row, not outputs of one column", along_outputs),
        ("a threshold keeps all ties: keep exactly n, of equals the first", threshold_keeps_ties),
    ],
    "row_mask": [
        ("keep counts the weights kept, not dropped", drop_keep),
        ("compare inside a row, not over the layer", layer_not_row),
        ("without the input norm this is magnitude pruning", magnitude_rows),
    ],
}


def diagonal_of_the_hessian(w, x):
    if w.shape[1] != x.shape[1]:
        raise ValueError(f"w has {w.shape[1]} inputs, x has {x.shape[1]}")
    return np.sqrt(w**2 * np.diag(x.T @ x))


def by_rank(w, x, *, n, m):
    s = reference.score(w, x)
    if m < 1 or s.shape[1] % m or n > m:
        raise ValueError(f"n={n}, m={m} does not fit {s.shape[1]} inputs")
    s = s.reshape(len(w), -1, m)
    earlier = np.arange(m)[None, :] < np.arange(m)[:, None]
    beaten = (s[..., None, :] > s[..., :, None]) | ((s[..., None, :] == s[..., :, None]) & earlier)
    return (beaten.sum(axis=-1) < n).reshape(w.shape)


def one_group_per_row(w, x, *, keep):
    if keep > w.shape[1]:
        raise ValueError(f"keep={keep} exceeds {w.shape[1]}")
    return by_rank(w, x, n=keep, m=w.shape[1])


RIGHT = {"score": [diagonal_of_the_hessian], "mask": [by_rank], "row_mask": [one_group_per_row]}

COMMON_FACTOR = "a factor that all inputs share changes no order"
EQUIVALENT = {
    op: {"(x ** 2).sum => (x ** 2).mean (return np.abs(w) * np.sqrt((x ** 2).sum(axis=0)))": COMMON_FACTOR}
    for op in ("mask", "row_mask")
}

HINTS = {
    "score": [
        "A weight matters when it is large and when its input is large. Multiply two arrays.",
        "The size of input i over all tokens is the Euclidean norm of column i of x: one number per input.",
        "np.abs(w) times np.sqrt of the sum over axis 0 of x squared; broadcasting does the rest.",
    ],
    "mask": [
        "Cut each row of the score into groups of m consecutive entries and look at one group at a time.",
        "Inside a group, sort by falling score and mark the first n; a stable sort settles ties.",
        "For row o and group start i: np.argsort(-s[o, i:i+m], kind='stable')[:n] are the places to keep.",
    ],
    "row_mask": [
        "The same rule as the N:M mask, with one group: the whole row.",
        "Sort each row by falling score, stably, and mark the first `keep` places.",
        "np.argsort(-s[o], kind='stable')[:keep] are the places of row o to keep.",
    ],
}
