"""RigL in torch: two thresholds instead of two sorts."""

from math import cos, floor, pi, prod
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

__all__ = ["erk", "drop_fraction", "drop_and_grow", "step"]


class Connectivity(NamedTuple):
    w: Float[Tensor, "*shape"]
    mask: Bool[Tensor, "*shape"]
    grown: Bool[Tensor, "*shape"]


class State(NamedTuple):
    w: Float[Tensor, "*shape"]
    mask: Bool[Tensor, "*shape"]
    velocity: Float[Tensor, "*shape"]
    t: int


def erk(shapes: tuple[tuple[int, ...], ...], *, density: float) -> tuple[float, ...]:
    """As the reference: eps for every number of dense layers at once, then the first that fits."""
    if not 0 <= density <= 1:
        raise ValueError(f"density={density} must lie in 0..1")
    if not shapes or any(prod(shape) < 1 for shape in shapes):
        raise ValueError(f"each of the {len(shapes)} layers needs a weight: {shapes}")
    sizes, sides = torch.tensor([(prod(shape), sum(shape)) for shape in shapes], dtype=torch.float64).T
    order = (sides / sizes).argsort(descending=True)
    left = sides[order].flip(0).cumsum(0).flip(0)
    eps = (density * sizes.sum() - sizes[order].cumsum(0) + sizes[order]) / left
    dense = (eps * sides[order] > sizes[order]).cumprod(0).sum().clamp(max=len(shapes) - 1)
    return tuple((eps[dense] * sides / sizes).clamp(max=1).tolist())


def drop_fraction(t: int, *, end: int, alpha: float) -> float:
    if t < 0 or end < 1 or not 0 <= alpha <= 1:
        raise ValueError(f"t={t}, end={end}, alpha={alpha}: need t >= 0, end >= 1 and alpha in 0..1")
    return alpha / 2 * (1 + cos(pi * min(t, end) / end))


@torch.no_grad()
def drop_and_grow(
    w: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    grad: Float[Tensor, "*shape"],
    *,
    keep: int,
) -> Connectivity:
    if not w.shape == mask.shape == grad.shape:
        shapes = tuple(w.shape), tuple(mask.shape), tuple(grad.shape)
        raise ValueError("w has shape {}, the mask {}, the gradient {}".format(*shapes))
    active = int(mask.sum())
    if not 0 <= keep <= active:
        raise ValueError(f"keep={keep} must lie in 0..{active}, the active weights")
    kept = _largest(w.abs(), mask, keep)
    new = kept | _largest(grad.abs(), ~kept, active - keep)
    return Connectivity(torch.where(new & mask, w, 0), new, new & ~mask)


@torch.no_grad()
def step(
    state: State,
    grad: Float[Tensor, "*shape"],
    *,
    lr: float,
    every: int,
    end: int,
    alpha: float = 0.3,
    momentum: float = 0.9,
) -> State:
    if state.w.shape != grad.shape:
        raise ValueError(f"w has shape {tuple(state.w.shape)}, the gradient {tuple(grad.shape)}")
    if every < 1:
        raise ValueError(f"every={every} must be at least 1 step")
    fraction = drop_fraction(state.t, end=end, alpha=alpha)
    if state.t > 0 and state.t % every == 0 and state.t < end:
        active = int(state.mask.sum())
        new = drop_and_grow(state.w, state.mask, grad, keep=active - floor(fraction * active))
        return State(new.w, new.mask, torch.where(new.mask, state.velocity, 0), state.t + 1)
    velocity = torch.where(state.mask, momentum * state.velocity + grad, 0)
    return State(state.w - lr * velocity, state.mask, velocity, state.t + 1)


def _largest(score: Tensor, among: Tensor, n: int) -> Tensor:
    """True for the n largest scores among the entries allowed; of equals the lower index."""
    if not n:
        return torch.zeros_like(among)
    allowed = score[among]
    least = allowed.kthvalue(len(allowed) - n + 1).values
    above, tied = among & (score > least), among & (score == least)
    rank = tied.flatten().cumsum(0).view_as(tied)
    return above | (tied & (rank <= n - above.sum()))
