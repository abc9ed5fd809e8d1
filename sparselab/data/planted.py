"""Data whose truth is known because it was planted: what a method should find can be counted.

`rng` is a NumPy Generator or a seed. Only `random`, `integers` and `standard_normal` are drawn from it, so
the same seed gives the same data on every platform, to the last bits of `exp` and `log`.
"""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

Rng = np.random.Generator | int


class Sparse(NamedTuple):
    """Sums of few features: `x = codes @ dictionary (+ noise)`, the rows of the dictionary of length 1."""

    x: Float[np.ndarray, "n d"]
    codes: Float[np.ndarray, "n m"]
    dictionary: Float[np.ndarray, "m d"]


class Mixture(NamedTuple):
    """A regression whose expert e is drawn by a gate: `y ~ N(slope_e x + bias_e, variance_e)`."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, " n"]
    expert: Int[np.ndarray, " n"]
    gate_slope: Float[np.ndarray, "e d"]
    gate_bias: Float[np.ndarray, " e"]
    slope: Float[np.ndarray, "e d"]
    bias: Float[np.ndarray, " e"]
    variance: Float[np.ndarray, " e"]


class Clusters(NamedTuple):
    """Points around centres, each cluster with a linear map of its own: `y = maps_c x`, c in `cluster`."""

    x: Float[np.ndarray, "n d"]
    y: Float[np.ndarray, "n o"]
    cluster: Int[np.ndarray, " n"]
    centres: Float[np.ndarray, "c d"]
    maps: Float[np.ndarray, "c o d"]


class Sequences(NamedTuple):
    """Token sequences with one question each: the last token asks for `target`, which stands at `source`."""

    tokens: Int[np.ndarray, "n t"]
    target: Int[np.ndarray, " n"]
    source: Int[np.ndarray, " n"]


def unit_rows(m: int, d: int, *, rng: Rng) -> Float[np.ndarray, "m d"]:
    """`m` directions drawn uniformly from the unit sphere in `d` dimensions."""
    rows = np.random.default_rng(rng).standard_normal((m, d))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sparse(
    dictionary: Float[np.ndarray, "m d"],
    *,
    n: int,
    active: float,
    zipf: float = 0.0,
    noise: float = 0.0,
    rng: Rng,
) -> Sparse:
    """`n` points made of `active` features on average, feature i on with probability `p_i ~ (i + 1)^-zipf`.

    Features switch on independently (Bernoulli; equally often for `zipf=0`) with magnitude `|1 + 0.25 eps|`,
    eps standard normal; `noise` is the standard deviation added to x. Raises ValueError where `active` would
    need a probability above 1.
    """
    rng, features = np.random.default_rng(rng), len(dictionary)
    share = (1 + np.arange(features)) ** -float(zipf)
    chance = active * share / share.sum()
    if active < 0 or chance.max() > 1:
        raise ValueError(
            f"{active=} of {features} features, {zipf=}: the first has probability {chance[0]:.2f}"
        )
    on = rng.random((n, features)) < chance
    codes = on * np.abs(1 + 0.25 * rng.standard_normal((n, features)))
    x = codes @ dictionary + noise * rng.standard_normal((n, dictionary.shape[1]))
    return Sparse(x, codes, dictionary)


def mixture(
    *,
    n: int,
    gate_slope: Float[np.ndarray, "e d"],
    gate_bias: Float[np.ndarray, " e"],
    slope: Float[np.ndarray, "e d"],
    bias: Float[np.ndarray, " e"],
    variance: Float[np.ndarray, " e"],
    keep: int,
    select: Literal["slope", "logit"] = "slope",
    rng: Rng,
) -> Mixture:
    """Gaussian mixture of experts under a top-k softmax gate, x uniform in [-1, 1]^d (arXiv:2309.13850).

    The gate keeps the `keep` experts of largest `gate_slope x` (of largest logit for `select="logit"`) and
    draws one by the softmax of the logits `gate_slope x + gate_bias` of those; ties keep the lowest index.
    `variance` is a variance, not a standard deviation. Raises ValueError for `keep` outside 1..e.
    """
    parameters = gate_slope, gate_bias, slope, bias, variance = [
        np.asarray(p, float) for p in (gate_slope, gate_bias, slope, bias, variance)
    ]
    experts, d = gate_slope.shape
    if not 1 <= keep <= experts:
        raise ValueError(f"{keep=} lies outside 1..{experts}, the number of experts")
    if select not in ("slope", "logit"):
        raise ValueError(f"select {select!r} is neither 'slope' nor 'logit'")
    rng = np.random.default_rng(rng)
    x = 2 * rng.random((n, d)) - 1
    logit = x @ gate_slope.T + gate_bias
    rank_by = logit - gate_bias if select == "slope" else logit
    kept = np.argsort(-rank_by, axis=1, kind="stable")[:, :keep]
    masked = np.full_like(logit, -np.inf)
    np.put_along_axis(masked, kept, np.take_along_axis(logit, kept, axis=1), axis=1)
    chance = np.exp(masked - masked.max(axis=1, keepdims=True)).cumsum(axis=1)
    expert = (rng.random((n, 1)) * chance[:, -1:] >= chance).sum(axis=1)
    mean = (slope[expert] * x).sum(axis=1) + bias[expert]
    y = mean + np.sqrt(variance[expert]) * rng.standard_normal(n)
    return Mixture(x, y, expert, *parameters)


def clusters(*, n: int, clusters: int, d: int, o: int, spread: float = 0.3, rng: Rng) -> Clusters:
    """Points at standard deviation `spread` around unit centres, equally many per cluster on average.

    Each cluster has its own linear map with entries N(0, 1/d): what an expert per cluster should learn.
    """
    rng = np.random.default_rng(rng)
    centres = unit_rows(clusters, d, rng=rng)
    maps = rng.standard_normal((clusters, o, d)) / np.sqrt(d)
    cluster = rng.integers(0, clusters, size=n)
    x = centres[cluster] + spread * rng.standard_normal((n, d))
    return Clusters(x, np.einsum("nod,nd->no", maps[cluster], x), cluster, centres, maps)


def correlated(
    *, n: int, d: int, correlation: float, mean: float = 0.0, rng: Rng
) -> Float[np.ndarray, "n d"]:
    """Inputs of variance 1 and mean `mean` with covariance `correlation^|i - j|`: neighbours know each other.

    An AR(1) process over the features, `x_i = c x_(i-1) + sqrt(1 - c^2) eps`. Raises ValueError for a
    correlation outside (-1, 1).
    """
    if not -1 < correlation < 1:
        raise ValueError(f"{correlation=} lies outside (-1, 1)")
    x = np.random.default_rng(rng).standard_normal((n, d))
    for i in range(1, d):
        x[:, i] = correlation * x[:, i - 1] + np.sqrt(1 - correlation**2) * x[:, i]
    return x + mean


def recall(
    *, n: int, length: int, pairs: int, keys: int = 32, values: int = 32, gap: int = 0, rng: Rng
) -> Sequences:
    """Associative recall: key-value pairs scattered in filler, then one of the keys; its value is the target.

    Token 0 is filler, 1..keys are keys, the `values` tokens after them values. The keys of a sequence differ;
    at least `gap` filler tokens stand before the question. Raises ValueError where the pairs do not fit.
    """
    slots = (length - 1 - gap) // 2
    if not 1 <= pairs <= min(slots, keys):
        most = min(slots, keys)
        raise ValueError(f"{pairs=} with {keys=} and {gap=} do not fit in {length=}: 1 to {most} do")
    rng = np.random.default_rng(rng)
    key = 1 + _shuffled(rng, n, keys)[:, :pairs]
    value = 1 + keys + rng.integers(0, values, size=(n, pairs))
    at = 2 * _shuffled(rng, n, slots)[:, :pairs]
    asked = rng.integers(0, pairs, size=(n, 1))
    tokens = np.zeros((n, length), np.int64)
    np.put_along_axis(tokens, at, key, axis=1)
    np.put_along_axis(tokens, at + 1, value, axis=1)
    tokens[:, -1:] = np.take_along_axis(key, asked, axis=1)
    target, source = (np.take_along_axis(a, asked, axis=1)[:, 0] for a in (value, at + 1))
    return Sequences(tokens, target, source)


def induction(*, n: int, length: int, prefix: int = 1, vocab: int, rng: Rng) -> Sequences:
    """Induction: distinct random tokens, then `prefix` of them once more; what followed them is the target.

    Only a head that looks for the earlier occurrence and reads the token after it can answer. Raises
    ValueError where the vocabulary is too small for `length - prefix` distinct tokens.
    """
    body = length - prefix
    if not 1 <= prefix < body <= vocab:
        raise ValueError(f"{length=} with {prefix=} needs {body} distinct tokens after it, of {vocab=}")
    rng = np.random.default_rng(rng)
    tokens = _shuffled(rng, n, vocab)[:, :body]
    source = rng.integers(prefix, body, size=(n, 1))
    repeat = np.take_along_axis(tokens, source - prefix + np.arange(prefix), axis=1)
    target = np.take_along_axis(tokens, source, axis=1)[:, 0]
    return Sequences(np.concatenate((tokens, repeat), axis=1), target, source[:, 0])


def _shuffled(rng: np.random.Generator, n: int, m: int) -> Int[np.ndarray, "n m"]:
    return np.argsort(rng.random((n, m)), axis=1, kind="stable")
