"""Superposed Decoding in NumPy: the definition, and nucleus sampling in a batch to measure it against."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

__all__ = [
    "superpose",
    "geometric_mean",
    "shortlist",
    "count",
    "ngram",
    "interpolate",
    "grow",
    "decode",
    "nucleus",
    "sample",
]

Logits = Callable[[Float[np.ndarray, "b t d"]], Float[np.ndarray, "b v"]]


class Shortlist(NamedTuple):
    """The tokens worth a look by falling probability, and its logarithm, renormalised over them."""

    token_idx: Int[np.ndarray, " c"]
    log_p: Float[np.ndarray, " c"]


class NGrams(NamedTuple):
    """N-grams of several orders in one sorted table, as numbers in base v + 1 whose digits are tokens + 1."""

    key: Int[np.ndarray, " u"]
    upto: Int[np.ndarray, " u"]
    """How often this n-gram and all before it occur."""


class Grown(NamedTuple):
    """Drafts one token longer, best first: those that go on, and those that ended with this token."""

    tokens: Int[np.ndarray, "j t"]
    scores: Float[np.ndarray, " j"]
    ended: Int[np.ndarray, "e t"]
    ended_scores: Float[np.ndarray, " e"]


class Drafts(NamedTuple):
    """Drafts by falling score per token, -1 after the end of the shorter ones."""

    tokens: Int[np.ndarray, "j n"]
    scores: Float[np.ndarray, " j"]
    lengths: Int[np.ndarray, " j"]


def superpose(
    embedding: Float[np.ndarray, "v d"], last: Int[np.ndarray, " k"], scores: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " d"]:
    """One input vector for k drafts: their last tokens' embeddings, weighted by the drafts' probabilities.

        x = sum_i gamma_i E[last_i],   gamma = softmax(scores)

    `scores` are log-probabilities; a draft of score -inf counts for nothing. Raises ValueError for unknown
    tokens, for scores of another number, and where no score is finite (section 3.2).
    """
    _check_tokens(last, len(embedding))
    if len(last) != len(scores):
        raise ValueError(f"{len(scores)} scores for {len(last)} drafts")
    return _gamma(scores) @ embedding[last]


def geometric_mean(
    log_p: Float[np.ndarray, "k v"], scores: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " v"]:
    """What a superposed input predicts if logits are affine in it: log prod_i p_i^gamma_i, normalised.

    A token must be plausible for all drafts to survive it: this is not the mixture sum_i gamma_i p_i. `log_p`
    may be given up to a constant per row. Raises ValueError where there is not one finite score per row.
    """
    if len(log_p) != len(scores):
        raise ValueError(f"{len(scores)} scores for {len(log_p)} distributions")
    return _log_softmax(_gamma(scores) @ log_p)


def shortlist(logits: Float[np.ndarray, " v"], *, keep: int, temperature: float = 1.0) -> Shortlist:
    """The `keep` most likely tokens of softmax(logits / temperature), renormalised; of equals the lower.

    Raises ValueError for keep outside 1..v and for a temperature that is not positive.
    """
    if not 1 <= keep <= len(logits):
        raise ValueError(f"keep={keep} must lie in 1..{len(logits)}, the vocabulary")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive; keep=1 is greedy")
    token_idx = np.argsort(-logits, kind="stable")[:keep]
    return Shortlist(token_idx, _log_softmax(logits[token_idx] / temperature))


def count(corpus: Int[np.ndarray, " n"], *, vocab: int, orders: int = 6) -> NGrams:
    """How often every n-gram of 2 to `orders` tokens stands in the corpus.

    Raises ValueError for unknown tokens, for orders below 2 and where keys would not fit 63 bits.
    """
    _check_tokens(corpus, vocab)
    if orders < 2 or (vocab + 1) ** orders >= 2**63:
        raise ValueError(f"orders={orders} must be at least 2, with {vocab + 1}^{orders} below 2^63")
    keys = [_key(corpus[i : i + n], vocab) for n in range(2, orders + 1) for i in range(len(corpus) - n + 1)]
    key, times = np.unique(np.array(keys, np.int64), return_counts=True)
    return NGrams(key, np.cumsum(times))


def ngram(
    grams: NGrams,
    context: Int[np.ndarray, "k t"],
    tokens: Int[np.ndarray, " c"],
    weights: Float[np.ndarray, " o"],
    *,
    vocab: int,
) -> Float[np.ndarray, "k c"]:
    """Each draft's own chance of the listed tokens, from counts: orders 2, 3, ... mixed by fixed weights.

        sum_n weights_n count(last n-1 tokens of the draft, token) / count(last n-1 tokens, anything)

    An unseen context adds 0, an order longer than the draft is left out, the weights are not renormalised.
    Raises ValueError for unknown tokens.
    """
    _check_tokens(context, vocab)
    _check_tokens(tokens, vocab)
    out = np.zeros((len(context), len(tokens)))
    for i, draft in enumerate(context):
        for n, weight in enumerate(weights, start=2):
            if n - 1 > len(draft):
                continue
            first = _key(draft[len(draft) - n + 1 :], vocab) * (vocab + 1) + 1
            followed = _occurrences(grams, first, first + vocab)
            for j, token in enumerate(tokens):
                seen = _occurrences(grams, first + token, first + token + 1)
                out[i, j] += weight * seen / followed if followed else 0.0
    return out


def interpolate(
    log_p: Float[np.ndarray, " c"],
    p_ngram: Float[np.ndarray, "k c"],
    *,
    alpha: float,
    penalty: float = 200.0,
) -> Float[np.ndarray, "k c"]:
    """log p_f of each token after each draft: the unnormalised geometric mean of model and n-grams.

        (1 - alpha) log_p + alpha log p_ngram        -inf where p_ngram = 0
        (1 - alpha) log_p - penalty                  for a draft none of whose tokens has n-gram support

    alpha = 0 switches the n-grams off, the penalty included. Raises ValueError for alpha outside [0, 1], a
    negative penalty and tokens of another number (section 3.3).
    """
    if not 0 <= alpha <= 1 or penalty < 0:
        raise ValueError(f"alpha={alpha} must lie in [0, 1] and penalty={penalty} be at least 0")
    if p_ngram.shape[1] != len(log_p):
        raise ValueError(f"{p_ngram.shape[1]} n-gram chances for {len(log_p)} tokens")
    out = np.full(p_ngram.shape, -np.inf)
    for i, row in enumerate(p_ngram):
        possible = log_p > -np.inf
        supported = possible & (row > 0)
        if alpha == 0:
            out[i] = log_p
        elif supported.any():
            out[i, supported] = (1 - alpha) * log_p[supported] + alpha * np.log(row[supported])
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
    """The best continuations scores_i + log_p[i, c]: one step of beam search over all drafts and tokens.

    Of the best 2 `keep` pairs those that end in `eos` have ended; of the others the first `keep` go on. A
    pair of score -inf is dropped, so that fewer may be left; of equals the lower draft, then the earlier
    token. Raises ValueError for keep below 1 and for shapes that do not match.
    """
    if keep < 1:
        raise ValueError(f"keep={keep} must be at least 1 draft")
    if log_p.shape != (len(drafts), len(tokens)) or len(scores) != len(drafts):
        given = f"log_p {log_p.shape} and {len(scores)} scores"
        raise ValueError(f"{given} do not fit {len(drafts)} drafts, {len(tokens)} tokens")
    total = (scores[:, None] + log_p).ravel()
    best = np.argsort(-total, kind="stable")[: 2 * keep]
    best = best[total[best] > -np.inf]
    parent, new = best // len(tokens), tokens[best % len(tokens)]
    longer = np.concatenate([drafts[parent], new[:, None]], axis=1)
    ends = np.array([token == eos for token in new], bool)
    return Grown(longer[~ends][:keep], total[best][~ends][:keep], longer[ends], total[best][ends])


def decode(
    logits: Logits,
    embedding: Float[np.ndarray, "v d"],
    prompt: Int[np.ndarray, " m"],
    grams: NGrams,
    weights: Float[np.ndarray, " o"],
    *,
    context: int,
    steps: int = 10,
    drafts: int = 3,
    keep: int = 9,
    alpha: float = 0.54,
    temperature: float = 0.06,
    penalty: float = 200.0,
    eos: int | None = None,
) -> Drafts:
    """`drafts` continuations of one prompt for `steps` forward passes in all, not `steps` for each.

    `logits` maps the embeddings of a sequence to the logits of its next token. The sequence is the prompt,
    then one superposed vector per step; it only grows, so that a model with a cache computes one place per
    step. The first token is chosen by the model alone, the later ones with n-grams. Raises ValueError as the
    parts do, and for a prompt that is empty or leaves the context too short (algorithm 1).
    """
    _check_prompt(prompt, len(embedding), steps, context)
    stream = embedding[prompt]
    alive = Grown(prompt[None], np.zeros(1), np.zeros((0, 0), np.int64), np.zeros(0))
    ended = []
    for step in range(steps):
        if step:
            x = superpose(embedding, alive.tokens[:, -1], alive.scores)
            stream = np.concatenate([stream, x[None]])
        likely = shortlist(logits(stream[None])[0], keep=keep, temperature=temperature)
        own = ngram(grams, alive.tokens, likely.token_idx, weights, vocab=len(embedding))
        log_p = interpolate(likely.log_p, own, alpha=alpha if step else 0.0, penalty=penalty)
        alive = grow(alive.tokens, alive.scores, likely.token_idx, log_p, keep=drafts, eos=eos)
        ended += zip(alive.ended, alive.ended_scores, strict=True)
        if not len(alive.tokens):
            break
    found = [*ended, *zip(alive.tokens, alive.scores, strict=True)]
    new = [(draft[len(prompt) :], score) for draft, score in found]
    new = sorted(new, key=lambda pair: -pair[1] / len(pair[0]))[:drafts]
    longest = max(len(draft) for draft, _ in new)
    return Drafts(
        np.stack([np.pad(draft, (0, longest - len(draft)), constant_values=-1) for draft, _ in new]),
        np.array([score for _, score in new]),
        np.array([len(draft) for draft, _ in new]),
    )


def nucleus(
    logits: Float[np.ndarray, "b v"],
    draws: Float[np.ndarray, " b"],
    *,
    p: float = 0.9,
    temperature: float = 1.0,
) -> Int[np.ndarray, " b"]:
    """One token per row from the most likely ones that together hold at least p, by a uniform draw in [0, 1].

    The draw picks from the nucleus by falling probability (arXiv:1904.09751). Raises ValueError for p outside
    (0, 1], a temperature that is not positive, and for draws of another number or range.
    """
    if not (0 < p <= 1 and temperature > 0):
        raise ValueError(f"p={p} must lie in (0, 1] and temperature={temperature} be positive")
    if len(draws) != len(logits):
        raise ValueError(f"{len(draws)} draws for {len(logits)} rows")
    if not ((draws >= 0) & (draws <= 1)).all():
        raise ValueError(f"draws {draws.min():g} to {draws.max():g} leave [0, 1]")
    tokens = []
    for row, draw in zip(logits, draws, strict=True):
        order = np.argsort(-row, kind="stable")
        chance = _softmax(row[order] / temperature)
        size = 1 + (np.cumsum(chance)[:-1] < p).sum()
        upto = np.cumsum(chance[:size])
        tokens.append(order[min((upto <= draw * upto[-1]).sum(), size - 1)])
    return np.array(tokens, np.int64)


def sample(
    logits: Logits,
    embedding: Float[np.ndarray, "v d"],
    prompt: Int[np.ndarray, " m"],
    draws: Float[np.ndarray, "n k"],
    *,
    context: int,
    p: float = 0.9,
    temperature: float = 1.0,
) -> Int[np.ndarray, "k n"]:
    """k nucleus samples of n tokens each, in n forward passes of k rows: what the speed must be judged by.

    Raises ValueError as `nucleus` does, and for a prompt that is empty or leaves the context too short.
    """
    _check_prompt(prompt, len(embedding), len(draws), context)
    tokens = np.repeat(prompt[None], draws.shape[1], axis=0)
    for row in draws:
        new = nucleus(logits(embedding[tokens]), row, p=p, temperature=temperature)
        tokens = np.concatenate([tokens, new[:, None]], axis=1)
    return tokens[:, len(prompt) :]


def _gamma(scores):
    if not (scores > -np.inf).any():
        raise ValueError(f"none of the {len(scores)} drafts has a finite score: nothing to weigh")
    return _softmax(scores)


def _softmax(logits):
    p = np.exp(logits - logits.max())
    return p / p.sum()


def _log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _key(tokens, vocab):
    key = 0
    for token in tokens:
        key = key * (vocab + 1) + int(token) + 1
    return key


def _occurrences(grams, first, end):
    """How often the n-grams with a key in first..end-1 occur."""
    below = np.concatenate([[0], grams.upto])
    return below[np.searchsorted(grams.key, end)] - below[np.searchsorted(grams.key, first)]


def _check_tokens(tokens, vocab):
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab:
        raise ValueError(f"tokens {tokens.min()} to {tokens.max()} leave the vocabulary of {vocab}")


def _check_prompt(prompt, vocab, steps, context):
    if not len(prompt) or steps < 1 or len(prompt) + steps - 1 > context:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and {steps} new ones: give at least 1 of each, and at most "
            f"{context} + 1 together, the model's context and the last one"
        )
    _check_tokens(prompt, vocab)
