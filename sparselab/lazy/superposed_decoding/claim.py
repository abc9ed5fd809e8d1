"""Superposed Decoding on the byte model: passes, time, quality, and how nearly affine the model is."""

import time
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.superposed_decoding import fast
from sparselab.models import TinyLM, activations, load, reaching

PREFIX, STEPS, DRAFTS, PROMPTS = 32, 10, 3, 40
MIX = dict(keep=9, alpha=0.7, temperature=0.5)  # the best mean over drafts in `tune`
RELEASED = dict(keep=9, alpha=0.54, temperature=0.06)
WEIGHTS = torch.tensor([0.01, 0.04, 0.15, 0.18, 0.12])


def measure(seed: int) -> dict[str, float]:
    """Means over held-out prompts; log-probabilities are per byte, by the model on the real text so far."""
    model, rng = Bytes(load("lm_relu")), np.random.default_rng(seed)
    grams = fast.count(torch.from_numpy(text.pydocs("train")).long(), vocab=256)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "spd": lambda prompt: superposed(model, prompt, grams),
        "released": lambda prompt: superposed(model, prompt, grams, **RELEASED),
        "without_ngrams": lambda prompt: superposed(model, prompt, grams, alpha=0.0),
        "greedy": lambda prompt: superposed(model, prompt, grams, drafts=1, keep=1, alpha=0.0),
        "table": lambda prompt: table_alone(prompt, grams),
        "beam": lambda prompt: beam(model, prompt),
        "batched": lambda prompt: nucleus(model, prompt, draws, batch=True),
        "sequential": lambda prompt: nucleus(model, prompt, draws, batch=False),
    }
    seconds, passes, quality = ({way: [] for way in ways} for _ in range(3))
    differing, cosines, alone, to_geometric, to_mixture, voices = ([] for _ in range(6))
    for prompt in prompts("test", rng):
        draws = torch.from_numpy(rng.random((STEPS, DRAFTS))).float()
        for way, write in ways.items():
            model.passes.clear()
            start = time.perf_counter()
            drafts = write(prompt)
            seconds[way].append(time.perf_counter() - start)
            passes[way].append(len(model.passes))
            quality[way].append(log_probability(model, prompt, drafts))
            if way == "spd":
                differing += [(a != b).float().mean() for a, b in combinations(drafts, 2)]
        seen = [affinity(model, *at) for at in follow(model, prompt, grams)]
        cosines.append([a.cosine for a in seen])
        alone.append([a.cosine_of_best for a in seen])
        to_geometric += [a.to_geometric for a in seen]
        to_mixture += [a.to_mixture for a in seen]
        voices += [effective_number(scores) for *_, scores in follow(model, prompt, grams, **RELEASED)]
    best = {way: float(torch.stack([q.max() for q in rows]).mean()) for way, rows in quality.items()}
    mean = {way: float(torch.stack([q.mean() for q in rows]).mean()) for way, rows in quality.items()}
    others = {way: float(torch.stack([q[1:].mean() for q in quality[way]]).mean()) for way in quality}
    typical = {way: float(np.median(times)) for way, times in seconds.items()}
    calls = {way: float(np.mean(counts)) for way, counts in passes.items()}
    cosine = np.mean(cosines, axis=0)
    return {
        "passes": calls["spd"],
        "passes_ratio": calls["sequential"] / calls["spd"],
        "batched_passes_ratio": calls["batched"] / calls["spd"],
        "speedup": typical["sequential"] / typical["spd"],
        "batched_speedup": typical["batched"] / typical["spd"],
        "mean": mean["spd"],
        "mean_gain": mean["spd"] - mean["batched"],
        "best_gain": best["spd"] - best["batched"],
        "released_mean_gain": mean["released"] - mean["batched"],
        "released_best_gain": best["released"] - best["batched"],
        "released_best_over_greedy": best["released"] - best["greedy"],
        "released_voices": float(np.mean(voices)),
        "mean_over_table": mean["spd"] - mean["table"],
        "beam_gap": best["beam"] - best["spd"],
        "ngram_gain": others["spd"] - others["without_ngrams"],
        "differing": float(torch.stack(differing).mean()),
        "last_cosine": float(cosine[-1]),
        "cosine_fall": float(cosine[0] - cosine[-1]),
        "last_cosine_over_best": float(cosine[-1] - np.mean(alone, axis=0)[-1]),
        "affinity_ratio": float(np.mean(to_geometric) / np.mean(to_mixture)),
    }


class Bytes:
    """The byte model as the method sees it: embeddings in, logits of the next byte out; `passes` counts.

    Without a cache: each pass computes the text so far anew, for all ways of decoding alike.
    """

    def __init__(self, lm: TinyLM):
        self.lm, self.embedding, self.passes = lm, lm.embedding.weight.detach(), []

    def logits(self, rows: Tensor) -> Tensor:
        """One pass: "b t d" to "b v"."""
        self.passes.append(len(rows))
        return self.at(rows, "logits")[:, -1]

    @torch.no_grad()
    def at(self, rows: Tensor, point: str) -> Tensor:
        """The tensor at a named point of the model for rows of embeddings."""
        with reaching(self.lm, {"embedded": lambda _: rows}):
            return activations(self.lm, torch.zeros(rows.shape[:2]), point)[point]


def prompts(part: Literal["tune", "test"], rng: np.random.Generator) -> Tensor:
    """Random prompts from the first half of the held-out text, to tune on, or from its second."""
    data = text.pydocs("held_out")
    half = data[: len(data) // 2] if part == "tune" else data[len(data) // 2 :]
    return torch.from_numpy(text.windows(half, length=PREFIX, n=PROMPTS, rng=rng)).long()


def superposed(model: Bytes, prompt: Tensor, grams: fast.NGrams, **settings) -> Tensor:
    """Drafts from one stream."""
    settings = dict(context=model.lm.context, steps=STEPS, drafts=DRAFTS) | MIX | settings
    return fast.decode(model.logits, model.embedding, prompt, grams, WEIGHTS, **settings).tokens


def nucleus(model: Bytes, prompt: Tensor, draws: Tensor, *, batch: bool) -> Tensor:
    """Nucleus samples, all in one batch or one after the other: the same texts."""
    groups = [draws] if batch else list(draws.split(1, dim=1))
    given = model.logits, model.embedding, prompt
    return torch.cat([fast.sample(*given, group, context=model.lm.context) for group in groups])


def beam(model: Bytes, prompt: Tensor) -> Tensor:
    """Beam search: the same step, with a row of the batch and a distribution for each draft."""
    tokens, scores = prompt[None], torch.zeros(1)
    for _ in range(STEPS):
        log_p = model.logits(model.embedding[tokens]).log_softmax(1)
        grown = fast.grow(tokens, scores, torch.arange(256), log_p, keep=DRAFTS)
        tokens, scores = grown.tokens, grown.scores
    return tokens[:, len(prompt) :]


def table_alone(prompt: Tensor, grams: fast.NGrams) -> Tensor:
    """Beam search with the n-grams in place of the model."""
    tokens, scores, every = prompt[None], torch.zeros(1), torch.arange(256)
    for _ in range(STEPS):
        chance = fast.ngram(grams, tokens, every, WEIGHTS, vocab=256)
        grown = fast.grow(tokens, scores, every, chance.clamp(min=1e-9).log(), keep=DRAFTS)
        tokens, scores = grown.tokens, grown.scores
    return tokens[:, len(prompt) :]


def log_probability(model: Bytes, prompt: Tensor, drafts: Tensor) -> Tensor:
    """Mean log-probability per byte of each draft."""
    whole = torch.cat((prompt.expand(len(drafts), -1), drafts), dim=1)
    log_p = model.at(model.embedding[whole[:, :-1]], "logits").log_softmax(-1)
    return log_p[:, len(prompt) - 1 :].gather(2, drafts[:, :, None]).mean(dim=(1, 2))


def follow(
    model: Bytes, prompt: Tensor, grams: fast.NGrams, **settings
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """`fast.decode` step by step: (stream, drafts, scores) before each pass but the first."""
    settings = MIX | settings
    stream, tokens, scores = model.embedding[prompt], prompt[None], torch.zeros(1)
    for step in range(STEPS):
        if step:
            x = fast.superpose(model.embedding, tokens[:, -1], scores)
            stream = torch.cat((stream, x[None]))
            yield stream, tokens, scores
        logits = model.logits(stream[None])[0]
        likely = fast.shortlist(logits, keep=settings["keep"], temperature=settings["temperature"])
        own = fast.ngram(grams, tokens, likely.token_idx, WEIGHTS, vocab=256)
        log_p = fast.interpolate(likely.log_p, own, alpha=settings["alpha"] if step else 0.0)
        grown = fast.grow(tokens, scores, likely.token_idx, log_p, keep=DRAFTS)
        tokens, scores = grown.tokens, grown.scores


class Affinity(NamedTuple):
    """One superposed pass against separate passes over the drafts' own texts."""

    cosine: float
    """Between the last hidden state and the weighted mean of the drafts' own."""
    cosine_of_best: float
    """The same for the best draft's own state: what reading it and no other would give."""
    to_geometric: float
    """Divergence, in nats, of the geometric mean of the drafts' predictions from the superposed one."""
    to_mixture: float
    """The same for their mixture."""


def affinity(model: Bytes, stream: Tensor, tokens: Tensor, scores: Tensor) -> Affinity:
    """How near the model comes to an affine one on this step."""
    point = f"blocks.{len(model.lm.blocks) - 1}.residual"
    rows, gamma = model.embedding[tokens], scores.softmax(0)
    mixed, own = (model.at(x, point)[:, -1] for x in (stream[None], rows))
    predicted, each = (model.logits(x).log_softmax(1) for x in (stream[None], rows))
    mixture = torch.logsumexp(each + gamma.log()[:, None], dim=0)
    return Affinity(
        float(F.cosine_similarity(mixed[0], gamma @ own, dim=0)),
        float(F.cosine_similarity(own[gamma.argmax()], gamma @ own, dim=0)),
        divergence(fast.geometric_mean(each, scores), predicted[0]),
        divergence(mixture, predicted[0]),
    )


def effective_number(scores: Tensor) -> float:
    """How many drafts a blend holds: exp of the entropy of its weights."""
    return float(torch.special.entr(scores.softmax(0)).sum().exp())


def divergence(log_p: Tensor, log_q: Tensor) -> float:
    """Kullback-Leibler divergence of q from p, in nats."""
    return float(log_p.exp() @ (log_p - log_q))


def tune(seed: int = 0) -> dict[tuple[float, float], tuple[float, float]]:
    """{(alpha, temperature): mean log-probability of the best and of all drafts}."""
    model, rng = Bytes(load("lm_relu")), np.random.default_rng(seed)
    grams = fast.count(torch.from_numpy(text.pydocs("train")).long(), vocab=256)
    chosen, found = prompts("tune", rng), {}
    for alpha in (0.2, 0.34, 0.54, 0.7):
        for temperature in (0.06, 0.15, 0.3, 0.5, 1.0):
            drafts = [superposed(model, p, grams, alpha=alpha, temperature=temperature) for p in chosen]
            quality = [log_probability(model, p, d) for p, d in zip(chosen, drafts, strict=True)]
            best, mean = (torch.stack([f(q) for q in quality]).mean() for f in (torch.max, torch.mean))
            found[alpha, temperature] = float(best), float(mean)
    return found
