"""RigL in NumPy: the definition."""

from math import cos, floor, pi, prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

__all__ = ["erk", "drop_fraction", "drop_and_grow", "step"]


class Connectivity(NamedTuple):
    """Weights (0 where inactive), what is active, and what became active: its optimiser state starts at 0."""

    w: Float[np.ndarray, "*shape"]
    mask: Bool[np.ndarray, "*shape"]
    grown: Bool[np.ndarray, "*shape"]


class State(NamedTuple):
    """Training state of one weight array: SGD's momentum `velocity` is 0 where inactive, `t` counts steps."""

    w: Float[np.ndarray, "*shape"]
    mask: Bool[np.ndarray, "*shape"]
    velocity: Float[np.ndarray, "*shape"]
    t: int


def erk(shapes: tuple[tuple[int, ...], ...], *, density: float) -> tuple[float, ...]:
    """Erdos-Renyi-kernel densities: eps sum(shape) / prod(shape), one eps, so that the whole has `density`.

    A layer above 1 becomes dense, the largest ratio first, and eps is solved again for the others (RigL,
    section 3, and its released code). Raises ValueError where density lies outside 0..1 or a layer is empty.
    """
    if not 0 <= density <= 1:
        raise ValueError(f"density={density} must lie in 0..1")
    if not shapes or any(prod(shape) < 1 for shape in shapes):
        raise ValueError(f"each of the {len(shapes)} layers needs a weight: {shapes}")
    found, budget, sides = {}, density * sum(map(prod, shapes)), sum(map(sum, shapes))
    for i in sorted(range(len(shapes)), key=lambda i: -sum(shapes[i]) / prod(shapes[i])):
        eps = budget / sides  # moves only where the layer before was full
        found[i] = min(1.0, eps * sum(shapes[i]) / prod(shapes[i]))
        budget, sides = budget - found[i] * prod(shapes[i]), sides - sum(shapes[i])
    return tuple(found[i] for i in range(len(shapes)))


def drop_fraction(t: int, *, end: int, alpha: float) -> float:
    """Share of the active weights exchanged at step t: alpha / 2 (1 + cos(pi t / end)), 0 from `end` on.

    RigL, section 3. Raises ValueError where t is negative, end is below 1 or alpha lies outside 0..1.
    """
    if t < 0 or end < 1 or not 0 <= alpha <= 1:
        raise ValueError(f"t={t}, end={end}, alpha={alpha}: need t >= 0, end >= 1 and alpha in 0..1")
    return alpha / 2 * (1 + cos(pi * min(t, end) / end))


def drop_and_grow(
    w: Float[np.ndarray, "*shape"],
    mask: Bool[np.ndarray, "*shape"],
    grad: Float[np.ndarray, "*shape"],
    *,
    keep: int,
) -> Connectivity:
    """Keep the `keep` largest |w| among the active, then grow the largest |grad| among all others.

    As many are active afterwards as before. Of equals the lower index is kept, and grows. A weight that was
    active stays as it was, dropped and grown again included; one that was not starts at 0. With uniform
    noise for `grad` this is SET's exchange. Raises ValueError where the shapes differ or keep lies outside
    0..active.
    """
    if not w.shape == mask.shape == grad.shape:
        raise ValueError(f"w has shape {w.shape}, the mask {mask.shape}, the gradient {grad.shape}")
    active = int(mask.sum())
    if not 0 <= keep <= active:
        raise ValueError(f"keep={keep} must lie in 0..{active}, the active weights")
    kept = _largest(np.abs(w), mask, keep)
    new = kept | _largest(np.abs(grad), ~kept, active - keep)
    return Connectivity(np.where(new & mask, w, 0), new, new & ~mask)


def step(
    state: State,
    grad: Float[np.ndarray, "*shape"],
    *,
    lr: float,
    every: int,
    end: int,
    alpha: float = 0.3,
    momentum: float = 0.9,
) -> State:
    """One training step from the dense gradient at the sparse weights: an exchange where due, else SGD.

    Due at every multiple of `every` above 0 and below `end`; then floor(f n) of the n active weights are
    dropped and no weight learns; grown ones start with velocity 0. Otherwise, on active weights,

        velocity <- momentum velocity + grad,   w <- w - lr velocity

    Raises ValueError as `drop_fraction` does, where the shapes differ, and where every is below 1.
    """
    if state.w.shape != grad.shape:
        raise ValueError(f"w has shape {state.w.shape}, the gradient {grad.shape}")
    if every < 1:
        raise ValueError(f"every={every} must be at least 1 step")
    fraction = drop_fraction(state.t, end=end, alpha=alpha)
    if state.t > 0 and state.t % every == 0 and state.t < end:
        active = int(state.mask.sum())
        new = drop_and_grow(state.w, state.mask, grad, keep=active - floor(fraction * active))
        return State(new.w, new.mask, np.where(new.mask, state.velocity, 0), state.t + 1)
    velocity = np.where(state.mask, momentum * state.velocity + grad, 0)
    return State(state.w - lr * velocity, state.mask, velocity, state.t + 1)


def _largest(score, among, n):
    """True for the n largest scores among the entries allowed; of equals the lower index."""
    order = np.argsort(np.where(among, -score, np.inf), axis=None, kind="stable")
    chosen = np.zeros(score.size, bool)
    chosen[order[:n]] = True
    return chosen.reshape(score.shape)
