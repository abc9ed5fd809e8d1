"""R-Sparse in torch: many tokens by dense products, one token by reading only the columns it keeps."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparselab.formats.rows import fast as rows

__all__ = ["budget", "prepare", "calibrate", "linear", "initial", "breed", "search", "recipe"]

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


class Budget(NamedTuple):
    keep: float
    channels: int
    rank: int
    traffic: float


class Layer(NamedTuple):
    """For decoding store w column by column (`w.T` contiguous): a kept input is then one run of memory."""

    w: Float[Tensor, "o i"]
    left: Float[Tensor, "o r"]
    right: Float[Tensor, "r i"]
    scale: Float[Tensor, " i"]


class Draws(NamedTuple):
    start: Float[Tensor, "p l"]
    parents: Int[Tensor, "g c 2"]
    cross: Bool[Tensor, "g c l"]
    noise: Float[Tensor, "g c l"]


class Found(NamedTuple):
    rho: Float[Tensor, " l"]
    best: Float[Tensor, " h"]


class Share(NamedTuple):
    rho: float
    sparsity: float


def budget(*, outputs: int, inputs: int, sparsity: float, rho: float) -> Budget:
    if outputs < 1 or inputs < 1:
        raise ValueError(f"a weight of {outputs} x {inputs} has no bytes to split")
    if not (0 <= sparsity <= 1 and 0 <= rho <= 1):
        raise ValueError(f"sparsity={sparsity} and rho={rho} must both lie in 0..1")
    budget = (1 - sparsity) * outputs * inputs
    channels = int(inputs * (1 - sparsity) * rho)
    rank = int((budget - channels * outputs) / (outputs + inputs))
    spent = channels * outputs + rank * (outputs + inputs)
    return Budget((1 - sparsity) * rho, channels, rank, spent / (outputs * inputs))


@torch.no_grad()
def prepare(w: Float[Tensor, "o i"], *, rank: int, weighted: bool = True) -> Layer:
    """The SVD is taken in float64: in float32 the small singular vectors lose half their digits."""
    if not 0 <= rank <= min(w.shape):
        raise ValueError(f"rank={rank} must lie in 0..{min(w.shape)} for a weight of shape {tuple(w.shape)}")
    u, s, vt = torch.linalg.svd(w.double(), full_matrices=False)
    left, right = u[:, :rank], s[:rank, None] * vt[:rank]
    largest = right.gather(1, right.abs().argmax(dim=1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).double()
    scale = torch.linalg.vector_norm(w, dim=0) if weighted else w.new_ones(w.shape[1])
    return Layer(w, (left * sign.T).to(w.dtype), (right * sign).to(w.dtype), scale)


def calibrate(x: Float[Tensor, "t i"], scale: Float[Tensor, " i"], *, keep: float) -> Float[Tensor, ""]:
    _check_inputs(x, scale)
    if not x.numel():
        raise ValueError(f"a sample of {x.shape[0]} tokens x {x.shape[1]} inputs has no cut")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep={keep} must lie in 0..1, the share of entries to keep")
    k = int(x.numel() * (1 - keep))
    return (x.abs() * scale).flatten().kthvalue(k).values if k else x.new_zeros(())


def linear(x: Float[Tensor, "t i"], layer: Layer, cut: Float[Tensor, ""]) -> Float[Tensor, "t o"]:
    """One token reads the columns it keeps, without a copy; for several a dense product is the faster."""
    _check_inputs(x, layer.scale)
    _check_layer(layer)
    kept = x.abs() * layer.scale > cut
    small = torch.where(kept, 0, x)
    if len(x) == 1:
        columns = kept[0].nonzero().squeeze(1)
        dense = rows.total(layer.w.T, columns, x[0, columns])
    else:
        dense = torch.where(kept, x, 0) @ layer.w.T
    return dense + small @ layer.right.T @ layer.left.T


def initial(start: Float[Tensor, "p l"], *, centre: float = 0.95, step: float = 0.05) -> Float[Tensor, "p l"]:
    _check_step(step)
    if len(start) < 2 or not 0 <= centre <= 1:
        raise ValueError(f"{len(start)} individuals around {centre}: need 2 or more, and centre in 0..1")
    head = start.new_tensor([1.0, centre])[:, None].expand(2, start.shape[1])
    return torch.cat((head, (centre + step * start[2:]).clamp(0, 1)))


def breed(
    elite: Float[Tensor, "e l"],
    parents: Int[Tensor, "c 2"],
    cross: Bool[Tensor, "c l"],
    noise: Float[Tensor, "c l"],
    *,
    step: float = 0.05,
) -> Float[Tensor, "c l"]:
    _check_step(step)
    if not cross.shape == noise.shape == (len(parents), elite.shape[1]):
        raise ValueError(
            f"{len(parents)} pairs of parents with {elite.shape[1]} genes, "
            f"but crossings {tuple(cross.shape)} and noise {tuple(noise.shape)}"
        )
    if parents.numel() and not (parents.min() >= 0 and parents.max() < len(elite)):
        raise ValueError(f"parents {parents.min()}..{parents.max()} must lie in 0..{len(elite) - 1}")
    genes = torch.where(cross, elite[parents[:, 1]], elite[parents[:, 0]])
    return (genes + step * noise).clamp(0, 1)


def search(
    fitness: Callable[[Float[Tensor, " l"]], float],
    draws: Draws,
    *,
    elite: int,
    centre: float = 0.95,
    step: float = 0.05,
) -> Found:
    rho = initial(draws.start, centre=centre, step=step)
    if not draws.cross.shape == draws.noise.shape == (*draws.parents.shape[:2], rho.shape[1]):
        shapes = [tuple(drawn.shape) for drawn in draws[1:]]
        raise ValueError(
            f"parents {shapes[0]}, cross {shapes[1]} and noise {shapes[2]} must be "
            f"(g, c, 2), (g, c, {rho.shape[1]}) and (g, c, {rho.shape[1]})"
        )
    if not 1 <= elite <= len(rho):
        raise ValueError(f"elite={elite} must lie in 1..{len(rho)}, the individuals")
    ranked = sorted(((float(fitness(one)), one) for one in rho), key=_cost)
    best = [ranked[0][0]]
    for parents, cross, noise in zip(*draws[1:], strict=True):
        ranked = ranked[:elite]
        born = breed(torch.stack([one for _, one in ranked]), parents, cross, noise, step=step)
        ranked = sorted(ranked + [(float(fitness(one)), one) for one in born], key=_cost)
        best.append(ranked[0][0])
    return Found(ranked[0][1], rho.new_tensor(best))


def recipe(text: str) -> tuple[dict[str, Share], ...]:
    values, width = [], 2 * len(PROJECTIONS)
    for i, word in enumerate(text.split(), 1):
        try:
            value = float(word)
        except ValueError:
            raise ValueError(f"number {i} of the recipe is {word!r}, not a number") from None
        if not 0 <= value <= 1:
            raise ValueError(f"number {i} of the recipe is {word}: rho and sparsity lie in 0..1")
        values.append(value)
    if not values or len(values) % width:
        raise ValueError(f"{len(values)} numbers do not fill layers of {width}")
    layers = torch.tensor(values, dtype=torch.float64).view(-1, len(PROJECTIONS), 2).tolist()
    return tuple(
        {name: Share(*pair) for name, pair in zip(PROJECTIONS, layer, strict=True)} for layer in layers
    )


def _cost(ranked: tuple[float, Tensor]) -> tuple[bool, float]:
    """NaN, which compares with nothing, ranks last."""
    cost = ranked[0]
    return (True, 0.0) if cost != cost else (False, cost)


def _check_inputs(x: Tensor, scale: Tensor) -> None:
    if x.shape[1] != len(scale):
        raise ValueError(f"x has {x.shape[1]} inputs, the layer {len(scale)}")


def _check_layer(layer: Layer) -> None:
    o, i = layer.w.shape
    rank = layer.left.shape[1]
    if (layer.left.shape, layer.right.shape, len(layer.scale)) != ((o, rank), (rank, i), i):
        raise ValueError(
            f"w {tuple(layer.w.shape)}, left {tuple(layer.left.shape)}, right {tuple(layer.right.shape)} "
            f"and scale {tuple(layer.scale.shape)} must be (o, i), (o, r), (r, i) and (i,)"
        )


def _check_step(step: float) -> None:
    if not step >= 0:
        raise ValueError(f"step={step} must be at least 0")
