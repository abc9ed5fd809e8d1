"""Deja Vu on the ReLU byte model: one predictor per block, trained for some seconds on real activations."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.deja_vu import fast
from sparselab.models import TinyLM, activations, load, reaching

RANK, KEEP = 16, 96
STEPS, BATCH, RATE = 600, 512, 3e-3


def measure(seed: int) -> dict[str, float]:
    """How well the predictors meet the active neurons of held-out text, and what running on them costs."""
    model, rng = load("lm_relu"), np.random.default_rng(seed)
    seen, unseen = windows("train", rng, n=48), windows("held_out", rng, n=16)
    at = inputs_and_activations(model, seen)
    predictors = [train(x, a, seed=seed) for x, a in at]
    often = [(a > 0).float().mean(dim=0) for _, a in at]
    found, ranked = [], []
    for params, (x, a) in zip(predictors, inputs_and_activations(model, unseen), strict=True):
        found.append(fast.agreement(fast.logits(params, x) > 0, a))
        ranked.append(fast.agreement(fast.select(params, x, keep=KEEP), a))
    recall, precision, _ = torch.tensor(found).mean(dim=0).tolist()
    ranked_recall, _, weighted_recall = torch.tensor(ranked).mean(dim=0).tolist()
    dense, generator = loss(model, unseen), torch.Generator().manual_seed(seed)

    def predicted(i: int, x: Tensor) -> Tensor:
        return fast.select(predictors[i], x.flatten(0, 1), keep=KEEP).unflatten(0, x.shape[:2])

    def most_often(i: int, x: Tensor) -> Tensor:
        return often[i] >= often[i].sort(descending=True).values[KEEP - 1]

    def at_random(i: int, x: Tensor) -> Tensor:
        return torch.rand(len(often[i]), generator=generator).argsort() < KEEP

    return {
        "recall": recall,
        "precision": precision,
        "top_recall": ranked_recall,
        "weighted_gain": weighted_recall - ranked_recall,
        "cost": loss(model, unseen, predicted) - dense,
        "often_cost": loss(model, unseen, most_often) - dense,
        "random_cost": loss(model, unseen, at_random) - dense,
        "weights_read": float(fast.weights_read(predictors[0], keep=KEEP)),
        "density": float(torch.cat(often).mean()),
    }


def windows(split: str, rng: np.random.Generator, *, n: int) -> Tensor:
    """Random windows of the documentation text as tokens."""
    return torch.from_numpy(text.windows(text.pydocs(split), length=256, n=n, rng=rng)).long()


@torch.no_grad()
def inputs_and_activations(model: TinyLM, tokens: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(input, activations) of each block's feed-forward layer, one row per token."""
    at = activations(model, tokens, ["blocks.*.ffn.x", "blocks.*.ffn.hidden"])
    names = [f"blocks.{i}.ffn." for i in range(len(model.blocks))]
    return [(at[name + "x"].flatten(0, 1), at[name + "hidden"].flatten(0, 1)) for name in names]


def train(x: Tensor, a: Tensor, *, seed: int, steps: int = STEPS, rate: float = RATE) -> fast.Params:
    """A predictor fitted by AdamW."""
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(x.shape[1], RANK, generator=generator) * x.shape[1] ** -0.5
    up = torch.randn(RANK, a.shape[1], generator=generator) * RANK**-0.5
    params = fast.Params(down.requires_grad_(), up.requires_grad_())
    adam = torch.optim.AdamW(params, rate, weight_decay=0.01, fused=True)
    for _ in range(steps):
        chosen = torch.randint(len(x), (BATCH,), generator=generator)
        adam.zero_grad()
        fast.loss(params, x[chosen], a[chosen]).backward()
        adam.step()
    return fast.Params(*(p.detach() for p in params))


@torch.no_grad()
def loss(model: TinyLM, tokens: Tensor, kept: Callable[[int, Tensor], Tensor] | None = None) -> float:
    """Nats per byte; block i uses the neurons `kept(i, its input)` only."""
    into, inputs = {}, {}
    for i in range(len(model.blocks) if kept else 0):
        into[f"blocks.{i}.ffn.x"] = lambda x, i=i: inputs.update({i: x})
        into[f"blocks.{i}.ffn.hidden"] = lambda h, i=i: h * kept(i, inputs[i])
    with reaching(model, into):
        logits = model(tokens[:, :-1])
    return float(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))
