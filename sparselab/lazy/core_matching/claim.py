"""CoreMatching without an image-text model: planted patches for tokens, the gated byte LM for neurons."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.core_matching import fast
from sparselab.models import TinyLM, activations, causal, load, reaching

SHAPES, COLOURS, PATCHES, QUESTION = 24, 8, 64, 4
KEPT, WIDTH = 8, 64
PROMPT = 128
ASK = SHAPES * COLOURS  # tokens: patches, three words of a question, the shapes asked for, the colours
ANSWER = ASK + 3 + SHAPES


def measure(seed: int) -> dict[str, float]:
    """Zeroed keys, the elbow, core neurons on text, core tokens on patches."""
    return zeroed_keys(seed) | bells(seed) | neurons_on_text(seed) | tokens_on_patches(seed)


def zeroed_keys(seed: int) -> dict[str, float]:
    """Softmax weight on 576 keys' dropped nine tenths when they are zeroed, logits of deviation 2."""
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(200, 576, generator=draw)
    best, any_ = (
        torch.stack([flags(score) for score in scores])
        for scores in (logits, torch.rand(logits.shape, generator=draw))
    )

    def left(kept: Tensor) -> float:
        one, ones = torch.ones(1, 1), torch.ones(576, 1)
        rows = zip(logits, kept, strict=True)
        return 1 - float(
            torch.stack([fast.attend(one, r[:, None], ones, k, zeroed=True) for r, k in rows]).mean()
        )

    return {"zeroed_weight_best": left(best), "zeroed_weight_any": left(any_)}


def flags(score: Tensor, keep: int = 58) -> Tensor:
    """True for the `keep` best scores."""
    return torch.zeros_like(score, dtype=torch.bool).scatter(0, score.topk(keep).indices, True)


def bells(seed: int) -> dict[str, float]:
    """Smallest and largest share that the elbow keeps of 576 Gaussian overlaps, over 20 draws."""
    rng, found = np.random.default_rng(seed), {}
    draws = [
        torch.from_numpy(np.round(100 + 1000 * rng.normal(size=576)).astype(np.int64)) for _ in range(20)
    ]
    for name, signed in (("signed", True), ("unsigned", False)):
        shares = [float(fast.core_tokens(g, signed=signed).float().mean()) for g in draws]
        found |= {f"{name}_swing": max(shares) - min(shares)}
    return found


@torch.no_grad()
def neurons_on_text(seed: int) -> dict[str, float]:
    """Bits per byte of an answer of 128 bytes whose feed-forward layers keep the core of its prompt."""
    rng = np.random.default_rng(seed)
    windows = text.windows(text.pydocs("held_out"), length=2 * PROMPT, n=24, rng=rng)
    other = text.windows(text.pydocs("train"), length=2 * PROMPT, n=24, rng=rng)
    model = load("lm_gated")
    point = "blocks.*.ffn.hidden"
    prompts = activations(model, windows[:, :PROMPT], point)
    elsewhere = {name: a.flatten(0, 1) for name, a in activations(model, other, point).items()}

    def cost(choose: Callable[[str], Tensor]) -> float:
        kept = {name: choose(name)[:, None] for name in prompts}
        dense = torch.arange(windows.shape[1] - 1)[:, None] < PROMPT
        into = {name: lambda a, k=k: torch.where(dense | k, a, 0) for name, k in kept.items()}
        with reaching(model, into):
            logits = model(windows[:, :-1])[:, PROMPT - 1 :]
        wanted = torch.from_numpy(windows[:, PROMPT:]).long()
        return float(F.cross_entropy(logits.flatten(0, 1), wanted.flatten())) / math.log(2)

    def core(name: str, beta: float = 0.4, common: bool = False) -> Tensor:
        return torch.stack([fast.core_neurons(a, beta=beta, common=common).kept for a in prompts[name]])

    def loud(name: str) -> Tensor:
        return torch.stack([fast.core_neurons(a.abs()).kept for a in prompts[name]])

    def static(name: str) -> Tensor:
        return fast.core_neurons(elsewhere[name]).kept[None]

    def any_(name: str) -> Tensor:
        return torch.from_numpy(rng.random((1, elsewhere[name].shape[1]))) < 0.4

    by_share = {beta: cost(lambda name, beta=beta: core(name, beta)) for beta in (0.2, 0.4, 0.6, 0.8)}
    dense = cost(lambda name: torch.ones(1, 1, dtype=torch.bool))
    return {
        "dense_bits": dense,
        **{f"core_cost_{round(100 * beta)}": bits - dense for beta, bits in by_share.items()},
        "rises": float(all(np.diff(list(by_share.values())) <= 0)),
        "random_gain": float(np.mean([cost(any_) for _ in range(5)])) - by_share[0.4],
        "prompt_gain": cost(static) - by_share[0.4],
        "magnitude_gain": by_share[0.4] - cost(loud),
        "common_cost": cost(lambda name: core(name, common=True)) - by_share[0.4],
    }


def tokens_on_patches(seed: int) -> dict[str, float]:
    """Share of the patches asked for among the 8 that each rule keeps of 64, layer by layer."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        model = trained(rng)
        seen = questions(rng, n=128, patches=PATCHES, asked=1)
        random = torch.rand(len(seen.tokens), PATCHES)
    with torch.no_grad():
        points = ["blocks.*.ffn.hidden", "blocks.*.attention.q", "blocks.*.attention.k"]
        inside = activations(model, seen.tokens, points)
        found = {"patch_accuracy": accuracy(model, seen)} | chosen(model, seen, "random", random)
        for i in range(len(model.blocks)):
            a, q, k = (inside[point.replace("*", str(i))] for point in points)
            core = torch.stack([fast.overlap(one, fast.core_neurons(one).kept) for one in a])
            last = torch.stack([fast.overlap(one, one[-1] > 0) for one in a])
            logits = (k @ q[:, :, -1, :, None]).squeeze(-1) / q.shape[-1] ** 0.5
            rules = {
                "core": core,
                "share": core / (a > 0).sum(dim=2),
                "last": last,
                "attention": logits.softmax(-1).mean(1),
            }
            for name, score in rules.items():
                found |= chosen(model, seen, f"{name}_{i}", score[:, :PATCHES].double())
    best = {
        f"{name}_recall": max(found[f"{name}_{i}_recall"] for i in range(len(model.blocks)))
        for name in ("core", "share", "last", "attention")
    }
    return found | best | {"core_over_attention": best["core_recall"] - best["attention_recall"]}


def chosen(model: TinyLM, seen: "Questions", name: str, score: Tensor) -> dict[str, float]:
    """Recall of the relevant patches among the best 8, and accuracy where the model is shown no others."""
    kept = torch.stack([flags(s, KEPT) for s in score])
    recall = (kept & seen.relevant).sum(dim=1) / seen.relevant.sum(dim=1)
    return {f"{name}_recall": float(recall.mean()), f"{name}_accuracy": accuracy(model, seen, kept)}


class Questions(NamedTuple):
    """Patches, then questions of four words, the last of which is the shape; its colour is the answer."""

    tokens: np.ndarray
    answers: Tensor
    relevant: Tensor


def questions(rng: np.random.Generator, *, n: int, patches: int, asked: int) -> Questions:
    """Each shape of a picture has one colour and up to three patches; at least one is relevant."""
    colour = rng.integers(0, COLOURS, size=(n, SHAPES))
    shape = rng.permuted(np.tile(np.repeat(np.arange(SHAPES), 3), (n, 1)), axis=1)[:, :patches]
    patch = shape * COLOURS + np.take_along_axis(colour, shape, axis=1)
    wanted = np.take_along_axis(shape, rng.integers(0, patches, size=(n, asked)), axis=1)
    words = np.broadcast_to(ASK + np.arange(3), (n, asked, 3))
    question = np.concatenate([words, ASK + 3 + wanted[:, :, None]], axis=2).reshape(n, -1)
    answers = torch.from_numpy(ANSWER + np.take_along_axis(colour, wanted, axis=1))
    relevant = torch.from_numpy(shape == wanted[:, -1:])
    return Questions(np.concatenate([patch, question], axis=1), answers, relevant)


def trained(rng: np.random.Generator) -> TinyLM:
    """A SwiGLU transformer that answers; pictures grow from 4 to 16 to 64 patches as it learns.

    A patch's embedding starts as the sum of its shape's and its colour's, the question's as its shape's.
    """
    model = TinyLM(
        width=WIDTH,
        layers=3,
        heads=4,
        neurons=160,
        context=128,
        vocab=ANSWER + COLOURS,
        ffn=swiglu,
        gate=True,
    )
    shapes, colours = 0.1 * torch.randn(SHAPES, WIDTH), 0.1 * torch.randn(COLOURS, WIDTH)
    with torch.no_grad():
        embedding = model.embedding.weight
        embedding[:ASK] = (shapes[:, None] + colours).flatten(0, 1)
        embedding[ASK + 3 : ANSWER] = shapes + 0.1 * torch.randn(WIDTH)
        embedding[ANSWER:] = colours
    adam = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.98), fused=True)
    for patches in (4, 16, PATCHES):
        for _ in range(400):
            seen = questions(rng, n=32, patches=patches, asked=16)
            logits = model(seen.tokens)[:, patches + QUESTION - 1 :: QUESTION]
            adam.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), seen.answers.flatten()).backward()
            adam.step()
            if (logits.argmax(-1) == seen.answers).float().mean() > 0.98:
                break
    return model.eval()


def swiglu(x: Tensor, weights) -> Tensor:
    """The gated hidden layer, silu(x gate^T) * (x up^T)."""
    return F.silu(x @ weights.gate.mT) * (x @ weights.up.mT)


@torch.no_grad()
def accuracy(model: TinyLM, seen: Questions, kept: Tensor | None = None) -> float:
    """Share of right answers, with the patches that are not kept hidden from every layer."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        t = q.shape[2]
        shown = F.pad(kept, (0, t - PATCHES), value=True)[:, None, None] | torch.eye(t, dtype=torch.bool)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=shown.tril())

    for block in model.blocks:
        block.attention.attend = causal if kept is None else attend
    guess = model(seen.tokens)[:, -1].argmax(-1)
    return float((guess == seen.answers[:, -1]).float().mean())
