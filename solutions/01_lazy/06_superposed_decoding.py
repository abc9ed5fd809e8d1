"""Solutions of lesson 1.6, superposed decoding."""

import numpy as np
from jaxtyping import Float, Int

from sparselab.lazy.superposed_decoding.reference import Grown


def superpose(
    embedding: Float[np.ndarray, "v d"],
    last: Int[np.ndarray, " k"],
    scores: Float[np.ndarray, " k"],
) -> Float[np.ndarray, " d"]:
    """A softmax of the scores, then a weighted sum of k rows."""
    if len(last) != len(scores) or not (scores > -np.inf).any():
        raise ValueError(f"{len(last)} drafts and the scores {scores}")
    if not 0 <= last.min() <= last.max() < len(embedding):
        raise ValueError(f"tokens {last} leave the vocabulary of {len(embedding)}")
    gamma = np.exp(scores - scores.max())
    return gamma / gamma.sum() @ embedding[last]


def compromise(k: int, v: int) -> Float[np.ndarray, "k v"]:
    """Token i for draft i, and token k as everybody's second choice."""
    chance = np.full((k, v), 0.001 / v)
    chance[:, k] = 0.5 / k
    chance[range(k), range(k)] = 1
    return np.log(chance / chance.sum(axis=1, keepdims=True))


def interpolate(
    log_p: Float[np.ndarray, " c"],
    p_ngram: Float[np.ndarray, "k c"],
    *,
    alpha: float,
    penalty: float = 200.0,
) -> Float[np.ndarray, "k c"]:
    """A weighted sum of logarithms where both are finite."""
    if not 0 <= alpha <= 1 or penalty < 0 or p_ngram.shape[1] != len(log_p):
        raise ValueError(f"{alpha=}, {penalty=}, {p_ngram.shape} for {len(log_p)}")
    if alpha == 0:
        return np.tile(log_p, (len(p_ngram), 1))
    out = np.full(p_ngram.shape, -np.inf)
    for i, own in enumerate(p_ngram):
        possible = log_p > -np.inf
        supported = possible & (own > 0)
        if supported.any():
            model, ngrams = log_p[supported], np.log(own[supported])
            out[i, supported] = (1 - alpha) * model + alpha * ngrams
        else:
            out[i, possible] = (1 - alpha) * log_p[possible] - penalty
    return out


def grow(
    drafts: Int[np.ndarray, "k s"],
    scores: Float[np.ndarray, " k"],
    tokens: Int[np.ndarray, " c"],
    log_p: Float[np.ndarray, "k c"],
    *,
    keep: int,
    eos: int | None = None,
) -> Grown:
    """All pairs in one ranking; // and % find the parent and the token."""
    if keep < 1 or log_p.shape != (len(drafts), len(tokens)):
        raise ValueError(f"{keep=}, {log_p.shape} for {len(drafts)}, {len(tokens)}")
    if len(scores) != len(drafts):
        raise ValueError(f"{len(scores)} scores for {len(drafts)} drafts")
    total = (scores[:, None] + log_p).ravel()
    best = np.argsort(-total, kind="stable")[: 2 * keep]
    best = best[total[best] > -np.inf]
    parent, column = best // len(tokens), best % len(tokens)
    longer = np.concatenate([drafts[parent], tokens[column][:, None]], axis=1)
    ends = np.array([token == eos for token in tokens[column]], bool)
    return Grown(
        longer[~ends][:keep], total[best][~ends][:keep], longer[ends], total[best][ends]
    )
