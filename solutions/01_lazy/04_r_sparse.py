"""Solutions of lesson 1.4, R-Sparse."""

import numpy as np
from jaxtyping import Float

from sparselab.lazy.r_sparse.reference import (
    PROJECTIONS,
    Budget,
    Draws,
    Found,
    Layer,
    Share,
    breed,
    initial,
)


def calibrate(
    x: Float[np.ndarray, "t i"], scale: Float[np.ndarray, " i"], *, keep: float
) -> Float[np.ndarray, ""]:
    """One sorted list for the whole layer."""
    if x.shape[1] != len(scale) or not x.size or not 0 <= keep <= 1:
        raise ValueError(f"x {x.shape}, scale {scale.shape} and keep={keep} do not fit")
    k = int(x.size * (1 - keep))
    scores = np.sort(np.abs(x) * scale, axis=None)
    return np.asarray(scores[k - 1] if k else 0.0)


def budget(*, outputs: int, inputs: int, sparsity: float, rho: float) -> Budget:
    """Channels first, rank from what is left."""
    if min(outputs, inputs) < 1 or not (0 <= sparsity <= 1 and 0 <= rho <= 1):
        raise ValueError(f"{outputs} x {inputs}, sparsity={sparsity}, rho={rho}")
    keep = rho * (1 - sparsity)
    channels = int(inputs * keep)
    left = (1 - sparsity) * outputs * inputs - channels * outputs
    rank = int(left / (outputs + inputs))
    read = channels * outputs + rank * (outputs + inputs)
    return Budget(keep, channels, rank, read / (outputs * inputs))


def linear(
    x: Float[np.ndarray, "t i"], layer: Layer, cut: Float[np.ndarray, ""]
) -> Float[np.ndarray, "t o"]:
    """Every entry takes one of two roads."""
    (o, i), r = layer.w.shape, len(layer.right)
    if layer.left.shape != (o, r) or not x.shape[1] == len(layer.scale) == i:
        raise ValueError(f"x {x.shape} does not fit w {layer.w.shape} and its factors")
    large = np.where(np.abs(x) * layer.scale > cut, x, 0)
    return large @ layer.w.T + (x - large) @ layer.right.T @ layer.left.T


def recipe(text: str) -> tuple[dict[str, Share], ...]:
    """Fourteen numbers a layer, two of them a matrix."""
    values = [float(word) for word in text.split()]
    if not values or len(values) % 14 or not all(0 <= v <= 1 for v in values):
        raise ValueError(f"{len(values)} numbers are no layers of 14 within 0..1")
    layers = [values[i : i + 14] for i in range(0, len(values), 14)]
    return tuple(
        {name: Share(*layer[2 * p : 2 * p + 2]) for p, name in enumerate(PROJECTIONS)}
        for layer in layers
    )


def search(
    fitness, draws: Draws, *, elite: int, centre: float = 0.95, step: float = 0.05
) -> Found:
    """The elite lives on, its children fill up."""
    rho = initial(draws.start, centre=centre, step=step)
    generations, children, _ = draws.parents.shape
    shape = (generations, children, rho.shape[1])
    if draws.cross.shape != shape or draws.noise.shape != shape:
        raise ValueError(
            f"cross {draws.cross.shape}, noise {draws.noise.shape}: {shape}"
        )
    if not 1 <= elite <= len(rho):
        raise ValueError(f"elite={elite} of {len(rho)} individuals")
    cost = np.array([float(fitness(one)) for one in rho])
    order = np.argsort(cost, kind="stable")
    best = [cost[order[0]]]
    for g in range(generations):
        kept = order[:elite]
        born = breed(
            rho[kept], draws.parents[g], draws.cross[g], draws.noise[g], step=step
        )
        rho = np.concatenate([rho[kept], born])
        cost = np.concatenate([cost[kept], [float(fitness(one)) for one in born]])
        order = np.argsort(cost, kind="stable")
        best.append(cost[order[0]])
    return Found(rho[order[0]], np.array(best))
