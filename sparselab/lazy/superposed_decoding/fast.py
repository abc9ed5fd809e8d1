"""Superposed Decoding in torch: bookkeeping on k x c numbers around the model's own forward pass."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

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

Logits = Callable[[Float[Tensor, "b t d"]], Float[Tensor, "b v"]]


class Shortlist(NamedTuple):
    token_idx: Int[Tensor, " c"]
    log_p: Float[Tensor, " c"]


class NGrams(NamedTuple):
    key: Int[Tensor, " u"]
    upto: Int[Tensor, " u"]


class Grown(NamedTuple):
    tokens: Int[Tensor, "j t"]
    scores: Float[Tensor, " j"]
    ended: Int[Tensor, "e t"]
    ended_scores: Float[Tensor, " e"]


class Drafts(NamedTuple):
    tokens: Int[Tensor, "j n"]
    scores: Float[Tensor, " j"]
    lengths: Int[Tensor, " j"]


def superpose(
    embedding: Float[Tensor, "v d"], last: Int[Tensor, " k"], scores: Float[Tensor, " k"]
) -> Float[Tensor, " d"]:
    _check_tokens(last, len(embedding))
    if len(last) != len(scores):
        raise ValueError(f"{len(scores)} scores for {len(last)} drafts")
    return _gamma(scores) @ embedding[last]


def geometric_mean(log_p: Float[Tensor, "k v"], scores: Float[Tensor, " k"]) -> Float[Tensor, " v"]:
    if len(log_p) != len(scores):
        raise ValueError(f"{len(scores)} scores for {len(log_p)} distributions")
    return (_gamma(scores) @ log_p).log_softmax(0)


def shortlist(logits: Float[Tensor, " v"], *, keep: int, temperature: float = 1.0) -> Shortlist:
    if not 1 <= keep <= len(logits):
        raise ValueError(f"keep={keep} must lie in 1..{len(logits)}, the vocabulary")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be positive; keep=1 is greedy")
    best = logits.sort(descending=True, stable=True)
    return Shortlist(best.indices[:keep], (best.values[:keep] / temperature).log_softmax(0))


def count(corpus: Int[Tensor, " n"], *, vocab: int, orders: int = 6) -> NGrams:
    _check_tokens(corpus, vocab)
    if orders < 2 or (vocab + 1) ** orders >= 2**63:
        raise ValueError(f"orders={orders} must be at least 2, with {vocab + 1}^{orders} below 2^63")
    digits = corpus.long() + 1
    keys, grown = [], digits
    for n in range(2, orders + 1):
        grown = grown[: max(len(corpus) - n + 1, 0)] * (vocab + 1) + digits[n - 1 :]
        keys.append(grown)
    key, times = torch.cat(keys).unique(return_counts=True)
    return NGrams(key, times.cumsum(0))


def ngram(
    grams: NGrams,
    context: Int[Tensor, "k t"],
    tokens: Int[Tensor, " c"],
    weights: Float[Tensor, " o"],
    *,
    vocab: int,
) -> Float[Tensor, "k c"]:
    _check_tokens(context, vocab)
    _check_tokens(tokens, vocab)
    below = torch.cat((grams.upto.new_zeros(1), grams.upto))
    out = weights.new_zeros(len(context), len(tokens))
    key, place = torch.zeros_like(context[:, 0]) if context.shape[1] else None, 1
    for n, weight in enumerate(weights, start=2):
        if n - 1 > context.shape[1]:
            break
        key, place = key + (context[:, -(n - 1)] + 1) * place, place * (vocab + 1)
        first = (key * (vocab + 1) + 1)[:, None]
        bounds = torch.cat((first, first + vocab, first + tokens, first + tokens + 1), dim=1)
        seen = below[torch.searchsorted(grams.key, bounds)]
        followed = seen[:, 1:2] - seen[:, :1]
        times = seen[:, 2 + len(tokens) :] - seen[:, 2 : 2 + len(tokens)]
        out += weight * times / followed.clamp(min=1)
    return out


def interpolate(
    log_p: Float[Tensor, " c"], p_ngram: Float[Tensor, "k c"], *, alpha: float, penalty: float = 200.0
) -> Float[Tensor, "k c"]:
    if not 0 <= alpha <= 1 or penalty < 0:
        raise ValueError(f"alpha={alpha} must lie in [0, 1] and penalty={penalty} be at least 0")
    if p_ngram.shape[1] != len(log_p):
        raise ValueError(f"{p_ngram.shape[1]} n-gram chances for {len(log_p)} tokens")
    if alpha == 0:
        return log_p.expand_as(p_ngram).clone()
    possible = log_p > -torch.inf
    model = (1 - alpha) * log_p.where(possible, 0)
    supported = possible & (p_ngram > 0)
    mixed = (model + alpha * p_ngram.where(supported, 1).log()).where(supported, -torch.inf)
    alone = (model - penalty).where(possible, -torch.inf)
    return mixed.where(supported.any(dim=1, keepdim=True), alone)


def grow(
    drafts: Int[Tensor, "k s"],
    scores: Float[Tensor, " k"],
    tokens: Int[Tensor, " c"],
    log_p: Float[Tensor, "k c"],
    *,
    keep: int,
    eos: int | None = None,
) -> Grown:
    if keep < 1:
        raise ValueError(f"keep={keep} must be at least 1 draft")
    if log_p.shape != (len(drafts), len(tokens)) or len(scores) != len(drafts):
        given = f"log_p {tuple(log_p.shape)} and {len(scores)} scores"
        raise ValueError(f"{given} do not fit {len(drafts)} drafts, {len(tokens)} tokens")
    total, best = (scores[:, None] + log_p).flatten().sort(descending=True, stable=True)
    total, best = total[: 2 * keep], best[: 2 * keep]
    best, total = best[total > -torch.inf], total[total > -torch.inf]
    new = tokens[best % len(tokens)]
    longer = torch.cat((drafts[best // len(tokens)], new[:, None]), dim=1)
    ends = torch.zeros_like(new, dtype=torch.bool) if eos is None else new == eos
    return Grown(longer[~ends][:keep], total[~ends][:keep], longer[ends], total[ends])


@torch.no_grad()
def decode(
    logits: Logits,
    embedding: Float[Tensor, "v d"],
    prompt: Int[Tensor, " m"],
    grams: NGrams,
    weights: Float[Tensor, " o"],
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
    _check_prompt(prompt, len(embedding), steps, context)
    stream, ended = embedding[prompt], []
    tokens, scores = prompt[None], embedding.new_zeros(1)
    for step in range(steps):
        if step:
            stream = torch.cat((stream, superpose(embedding, tokens[:, -1], scores)[None]))
        likely = shortlist(logits(stream[None])[0], keep=keep, temperature=temperature)
        own = ngram(grams, tokens, likely.token_idx, weights, vocab=len(embedding))
        log_p = interpolate(likely.log_p, own, alpha=alpha if step else 0.0, penalty=penalty)
        grown = grow(tokens, scores, likely.token_idx, log_p, keep=drafts, eos=eos)
        tokens, scores = grown.tokens, grown.scores
        ended += zip(grown.ended, grown.ended_scores, strict=True)
        if not len(tokens):
            break
    found = [*ended, *zip(tokens, scores, strict=True)]
    lengths = torch.tensor([len(draft) - len(prompt) for draft, _ in found], device=prompt.device)
    scores = torch.stack([score for _, score in found])
    best = (scores / lengths).sort(descending=True, stable=True).indices[:drafts]
    new = [found[i][0][len(prompt) :] for i in best.tolist()]
    padded = torch.nn.utils.rnn.pad_sequence(new, batch_first=True, padding_value=-1)
    return Drafts(padded, scores[best], lengths[best])


def nucleus(
    logits: Float[Tensor, "b v"], draws: Float[Tensor, " b"], *, p: float = 0.9, temperature: float = 1.0
) -> Int[Tensor, " b"]:
    if not (0 < p <= 1 and temperature > 0):
        raise ValueError(f"p={p} must lie in (0, 1] and temperature={temperature} be positive")
    if len(draws) != len(logits):
        raise ValueError(f"{len(draws)} draws for {len(logits)} rows")
    if not ((draws >= 0) & (draws <= 1)).all():
        raise ValueError(f"draws {draws.min():g} to {draws.max():g} leave [0, 1]")
    best = logits.sort(dim=1, descending=True, stable=True)
    chance = (best.values / temperature).softmax(1)
    before = chance.cumsum(1).roll(1, dims=1)
    before[:, 0] = 0
    size = (before < p).sum(1, keepdim=True)
    upto = chance.where(before < p, 0).cumsum(1)
    place = (upto <= draws[:, None] * upto[:, -1:]).sum(1, keepdim=True)
    return best.indices.gather(1, place.minimum(size - 1)).squeeze(1)


@torch.no_grad()
def sample(
    logits: Logits,
    embedding: Float[Tensor, "v d"],
    prompt: Int[Tensor, " m"],
    draws: Float[Tensor, "n k"],
    *,
    context: int,
    p: float = 0.9,
    temperature: float = 1.0,
) -> Int[Tensor, "k n"]:
    _check_prompt(prompt, len(embedding), len(draws), context)
    tokens = prompt.expand(draws.shape[1], -1)
    for row in draws:
        new = nucleus(logits(embedding[tokens]), row, p=p, temperature=temperature)
        tokens = torch.cat((tokens, new[:, None]), dim=1)
    return tokens[:, len(prompt) :]


def _gamma(scores: Tensor) -> Tensor:
    if not (scores > -torch.inf).any():
        raise ValueError(f"none of the {len(scores)} drafts has a finite score: nothing to weigh")
    return scores.softmax(0)


def _check_tokens(tokens: Tensor, vocab: int) -> None:
    if tokens.numel() and not 0 <= tokens.min() <= tokens.max() < vocab:
        raise ValueError(f"tokens {tokens.min()} to {tokens.max()} leave the vocabulary of {vocab}")


def _check_prompt(prompt: Tensor, vocab: int, steps: int, context: int) -> None:
    if not len(prompt) or steps < 1 or len(prompt) + steps - 1 > context:
        raise ValueError(
            f"a prompt of {len(prompt)} tokens and {steps} new ones: give at least 1 of each, and at most "
            f"{context} + 1 together, the model's context and the last one"
        )
    _check_tokens(prompt, vocab)
