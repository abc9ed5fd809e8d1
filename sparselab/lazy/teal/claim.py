"""TEAL on every linear map of the gated byte LM: what dropping half costs, and which law predicts it."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from sparselab.data import text
from sparselab.lazy.teal import fast as teal
from sparselab.models import TinyLM, activations, load, reaching

# Inputs of q k v, of the output projection, of gate and up, of down; weights of each in units of d^2.
POINTS = ("attention.x", "attention.mixed", "ffn.x", "ffn.hidden")
GAUSSIAN_HALF, LAPLACE_HALF = 0.2671, 0.1826  # relative error of dropping half, by the card's formulas


@torch.no_grad()
def measure(seed: int) -> dict[str, float]:
    """Nats per held-out byte above the dense model, calibrated on training text."""
    model, rng = load("lm_gated"), np.random.default_rng(seed)
    seen, unseen = (
        torch.from_numpy(text.windows(text.pydocs(split), length=129, n=n, rng=rng)).long()
        for split, n in (("train", 16), ("held_out", 64))
    )
    calibration = activations(model, seen[:, :-1], [f"blocks.*.{point}" for point in POINTS])
    dense = loss(model, unseen)
    sizes = torch.tensor(weights(model))
    uniform = {s: [torch.full((len(POINTS),), s)] * len(model.blocks) for s in (0.4, 0.5)}
    greedy = [allocate(model, i, seen[:, :-1], calibration, sizes) for i in range(len(model.blocks))]

    def cost(levels: list[Tensor]) -> float:
        return loss(model, unseen, cuts(calibration, levels, teal.sparsify)) - dense

    draw = torch.Generator().manual_seed(seed)
    at_random = cuts(
        calibration, uniform[0.5], lambda x, cut: x * (torch.rand(x.shape, generator=draw) < 0.5)
    )
    uniform_50, greedy_50 = cost(uniform[0.5]), cost(greedy)
    random_50 = loss(model, unseen, at_random) - dense
    errors = {
        point: [relative_error(x) for name, x in calibration.items() if point in name] for point in POINTS
    }
    return {
        "dense_loss": dense,
        "uniform_40": cost(uniform[0.4]),
        "uniform_50": uniform_50,
        "greedy_50": greedy_50,
        "random_50": random_50,
        "greedy_gain": uniform_50 - greedy_50,
        "random_over_uniform": random_50 / uniform_50,
        "greedy_mean": float(np.mean([float(sizes @ levels / sizes.sum()) for levels in greedy])),
        "outer_over_gaussian": np.mean(errors["attention.x"] + errors["ffn.x"]) / GAUSSIAN_HALF,
        "mixed_over_laplace": np.mean(errors["attention.mixed"]) / LAPLACE_HALF,
        "hidden_over_laplace": np.mean(errors["ffn.hidden"]) / LAPLACE_HALF,
        "stray": max(abs(float(dropped(x)) - 0.5) for x in calibration.values()),
    }


def weights(model: TinyLM) -> list[float]:
    """Sizes of what reads each of `POINTS`."""
    ffn = model.blocks[0].ffn.up
    ratio = ffn.shape[0] / ffn.shape[1]
    return [3.0, 1.0, 2 * ratio, ratio]


def cuts(calibration: dict[str, Tensor], levels: list[Tensor], drop: Callable) -> dict[str, Callable]:
    """What to do at each point of each block, for `reaching`."""
    into = {}
    for i, of_block in enumerate(levels):
        for point, level in zip(POINTS, of_block, strict=True):
            name = f"blocks.{i}.{point}"
            cut = teal.calibrate(calibration[name], sparsity=float(level))
            into[name] = lambda x, cut=cut: drop(x, cut)
    return into


def loss(model: TinyLM, windows: Tensor, into: dict[str, Callable] | None = None) -> float:
    """Nats per byte, with the named points changed."""
    with reaching(model, into or {}):
        logits = model(windows[:, :-1])
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))


def allocate(model: TinyLM, i: int, tokens: Tensor, calibration: dict[str, Tensor], sizes: Tensor) -> Tensor:
    """Greedy sparsities of block i whose weighted mean is one half."""
    before = "embedded" if i == 0 else f"blocks.{i - 1}.residual"
    x = activations(model, tokens, before)[before]
    late = slice(3 * x.shape[1] // 4, None)
    target, names = model.blocks[i](x)[:, late], [f"blocks.{i}.{point}" for point in POINTS]

    @cache
    def drop(name: str, level: float) -> Callable[[Tensor], Tensor]:
        cut = teal.calibrate(calibration[name], sparsity=level)
        return lambda activation: teal.sparsify(activation, cut)

    def error(levels: Tensor) -> float:
        """L2 over the last quarter of the tokens, mean over the channels."""
        into = {name: drop(name, level) for name, level in zip(names, levels.tolist(), strict=True)}
        with reaching(model, into):
            return float(torch.linalg.vector_norm(model.blocks[i](x)[:, late] - target, dim=1).mean())

    return teal.greedy(error, sizes, sparsity=0.5, step=0.1).levels


def dropped(x: Tensor) -> Tensor:
    """Share of a sample that the cut for one half drops."""
    return (x.abs() <= teal.calibrate(x, sparsity=0.5)).float().mean()


def relative_error(x: Tensor) -> float:
    """Norm of what falls when half of a tensor's entries do, over its own."""
    half = x.abs().median()
    return float((x - teal.sparsify(x, half)).norm() / x.norm())
