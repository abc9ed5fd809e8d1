"""R-Sparse on two planted spectra, and on every projection of the gated byte LM."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.r_sparse import fast
from sparselab.models import TinyLM, activations, load

SPLITS = (1.0, 0.95, 0.8, 0.5, 0.0)
INDIVIDUALS, ELITE, GENERATIONS = 16, 4, 4


def measure(seed: int) -> dict[str, float]:
    """Output errors on planted weights; bits per byte of the gated LM under each recipe of equal bytes."""
    return planted(seed) | on_text(seed)


def planted(seed: int) -> dict[str, float]:
    """Relative output errors at half of the bytes, Laplace inputs, a flat and a spiked spectrum."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(np.random.default_rng(seed).laplace(size=(512, 256))).float()
    flat = torch.randn(256, 256, generator=draw) * torch.exp(0.5 * torch.randn(256, generator=draw))
    spikes = torch.randn(256, 16, generator=draw) @ torch.randn(16, 256, generator=draw)
    spiked = torch.randn(256, 256, generator=draw) + 0.5 * spikes

    def error(w: Tensor, rho: float, weighted: bool) -> float:
        budget = fast.budget(outputs=256, inputs=256, sparsity=0.5, rho=rho)
        layer = fast.prepare(w, rank=budget.rank, weighted=weighted)
        cut = fast.calibrate(x, layer.scale, keep=budget.keep)
        dense = x @ w.T
        return float((fast.linear(x, layer, cut) - dense).norm() / dense.norm())

    unscaled, plain, mixed = (
        [error(w, rho, weighted) for rho in SPLITS]
        for w, weighted in ((flat, False), (flat, True), (spiked, True))
    )
    return {
        "score_ratio": plain[0] / unscaled[0],
        "flat_ratio": min(plain[1:]) / plain[0],
        "spiked_ratio": min(mixed[1:]) / mixed[0],
        "spiked_best_split": SPLITS[int(np.argmin(mixed))],
    }


def on_text(seed: int) -> dict[str, float]:
    """Bits per held-out byte of the gated LM under recipes of equal bytes, every token sparse."""
    rng = np.random.default_rng(seed)
    seen = text.windows(text.pydocs("train"), length=129, n=8, rng=rng)
    unseen = text.windows(text.pydocs("held_out"), length=257, n=24, rng=rng)
    model = load("lm_gated")
    found = {"dense_bits": bits(model, unseen)}
    projections = calibrated(model, seen[:, :-1])
    ones, zeros = torch.ones(len(projections)), torch.zeros(len(projections))
    found["drift_50"] = drift(projections, calibrated(model, unseen[:, :-1]), keep=0.5)
    for percent in (50, 70):

        def cost(rho: Tensor, on: np.ndarray = seen, weighted: bool = True, percent: int = percent) -> float:
            how = dict(sparsity=percent / 100, weighted=weighted)
            insert(model, [sparse(one, float(r), **how) for one, r in zip(projections, rho, strict=True)])
            return bits(model, on)

        best = fast.search(cost, draws(rng, genes=len(projections)), elite=ELITE)
        magnitude, scaled = cost(ones, unseen, weighted=False), cost(ones, unseen)
        uniform, searched = cost(0.95 * ones, unseen), cost(best.rho, unseen)
        found |= {
            f"scaled_bits_{percent}": scaled,
            f"score_gain_{percent}": magnitude - scaled,
            f"uniform_gain_{percent}": scaled - uniform,
            f"searched_gain_{percent}": scaled - searched,
            f"seen_gain_{percent}": cost(ones) - float(best.best[-1]),
            f"low_rank_cost_{percent}": cost(zeros, unseen) - scaled,
            f"over_uniform_{percent}": uniform - searched,
            f"mean_rho_{percent}": float(best.rho.mean()),
        }
    return found | {"deeper_gain": found["searched_gain_70"] - found["searched_gain_50"]}


class Projection(NamedTuple):
    """One linear map of the model with its whole SVD, and its inputs on the calibration text."""

    whole: fast.Layer
    inputs: Tensor


@torch.no_grad()
def calibrated(model: TinyLM, tokens: np.ndarray) -> list[Projection]:
    """q, k, v, o, gate, up and down of every block, in this order."""
    points = ("attention.x", "attention.mixed", "ffn.x", "ffn.hidden")
    inputs, found = activations(model, tokens, [f"blocks.*.{point}" for point in points]), []
    for i, block in enumerate(model.blocks):
        attention, ffn = block.attention, block.ffn
        weights = (attention.qkv.weight.chunk(3), [attention.project.weight], (ffn.gate, ffn.up), [ffn.down])
        for point, ws in zip(points, weights, strict=True):
            x = inputs[f"blocks.{i}.{point}"].flatten(0, 1)
            found += [Projection(fast.prepare(w, rank=min(w.shape)), x) for w in ws]
    return found


def drift(seen: list[Projection], unseen: list[Projection], *, keep: float) -> float:
    """Largest distance of the share kept on other text from the share calibrated, over the projections."""
    scales = [projection.whole.scale for projection in seen]
    cuts = [fast.calibrate(one.inputs, scale, keep=keep) for one, scale in zip(seen, scales, strict=True)]
    shares = [
        float((one.inputs.abs() * scale > cut).float().mean())
        for one, scale, cut in zip(unseen, scales, cuts, strict=True)
    ]
    return max(abs(share - keep) for share in shares)


def insert(model: TinyLM, maps: list[Callable[[Tensor], Tensor]]) -> None:
    """Put these maps in place of the projections, in the order of `calibrated`."""
    for i, block in enumerate(model.blocks):
        q, k, v, o, gate, up, down = maps[7 * i : 7 * i + 7]
        block.attention.qkv = Map(lambda x, qkv=(q, k, v): torch.cat([f(x) for f in qkv], dim=-1))
        block.attention.project = Map(o)
        block.ffn = Map(lambda x, gate=gate, up=up, down=down: down(F.gelu(gate(x)) * up(x)))


def sparse(
    projection: Projection, rho: float, *, sparsity: float, weighted: bool
) -> Callable[[Tensor], Tensor]:
    """One projection at this split of its byte budget, calibrated."""
    w, left, right, scale = projection.whole
    outputs, inputs = w.shape
    budget = fast.budget(outputs=outputs, inputs=inputs, sparsity=sparsity, rho=rho)
    scale = scale if weighted else torch.ones_like(scale)
    layer = fast.Layer(w, left[:, : budget.rank], right[: budget.rank], scale)
    cut = fast.calibrate(projection.inputs, scale, keep=budget.keep)
    return lambda x: fast.linear(x.flatten(0, -2), layer, cut).unflatten(0, x.shape[:-1])


class Map(nn.Module):
    """A function where the model keeps a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def draws(rng: np.random.Generator, *, genes: int) -> fast.Draws:
    """The random numbers of one search."""
    shape = (GENERATIONS, INDIVIDUALS - ELITE, genes)
    drawn = (
        rng.normal(size=(INDIVIDUALS, genes)),
        rng.integers(0, ELITE, size=(*shape[:2], 2)),
        rng.random(shape) < 0.5,
        rng.normal(size=shape),
    )
    return fast.Draws(*map(torch.from_numpy, drawn))


@torch.no_grad()
def bits(model: TinyLM, windows: np.ndarray) -> float:
    """Bits per byte of the next byte."""
    logits = model(windows[:, :-1]).flatten(0, 1)
    return float(F.cross_entropy(logits, torch.from_numpy(windows[:, 1:]).long().flatten())) / math.log(2)
