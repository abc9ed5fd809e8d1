"""R-Sparse in NumPy: the definition."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["budget", "prepare", "calibrate", "linear", "initial", "breed", "search", "recipe"]

PROJECTIONS = ("q", "k", "v", "o", "gate", "up", "down")


class Budget(NamedTuple):
    """What a share of a weight's bytes buys."""

    keep: float
    """Share of the input entries that pass the weight: what `calibrate` asks for."""
    channels: int
    """Whole columns of the weight that this share is worth."""
    rank: int
    traffic: float
    """Bytes read over those of the weight: channels / inputs + rank (outputs + inputs) / (outputs inputs)."""


class Layer(NamedTuple):
    """A weight, its truncated SVD `left @ right`, and the factor of each input's score."""

    w: Float[np.ndarray, "o i"]
    left: Float[np.ndarray, "o r"]
    right: Float[np.ndarray, "r i"]
    scale: Float[np.ndarray, " i"]


class Draws(NamedTuple):
    """All that is random in a search: p individuals of l genes at first, then g generations of c children."""

    start: Float[np.ndarray, "p l"]
    """Standard normal."""
    parents: Int[np.ndarray, "g c 2"]
    """Ranks among the best, from 0."""
    cross: Bool[np.ndarray, "g c l"]
    """True where the gene comes from the second parent."""
    noise: Float[np.ndarray, "g c l"]
    """Standard normal."""


class Found(NamedTuple):
    """The best individual, and the best fitness at first and after each generation."""

    rho: Float[np.ndarray, " l"]
    best: Float[np.ndarray, " h"]


class Share(NamedTuple):
    """Split and target sparsity of one projection."""

    rho: float
    sparsity: float


def budget(*, outputs: int, inputs: int, sparsity: float, rho: float) -> Budget:
    """Channels first, rank from what is left, with C = 1 - sparsity:

        channels = floor(inputs C rho)
        rank     = floor((C outputs inputs - channels outputs) / (outputs + inputs))

    `keep` is rho C itself, not channels / inputs. Take the true sizes of grouped-query keys and values.
    Raises ValueError where a size is below 1 or sparsity or rho lies outside 0..1. Source: the released
    utils/setup.py.
    """
    if outputs < 1 or inputs < 1:
        raise ValueError(f"a weight of {outputs} x {inputs} has no bytes to split")
    if not (0 <= sparsity <= 1 and 0 <= rho <= 1):
        raise ValueError(f"sparsity={sparsity} and rho={rho} must both lie in 0..1")
    share = 1 - sparsity
    channels = int(inputs * share * rho)
    rank = int((share * outputs * inputs - channels * outputs) / (outputs + inputs))
    traffic = channels / inputs + rank * (outputs + inputs) / (outputs * inputs)
    return Budget(share * rho, channels, rank, traffic)


def prepare(w: Float[np.ndarray, "o i"], *, rank: int, weighted: bool = True) -> Layer:
    """Truncated SVD of the weight itself: left = U_r, right = S_r V_r^T; scale = ||w[:, i]||_2, or 1.

    The entry of largest magnitude in each row of `right` is positive, of equals the first. Raises ValueError
    where rank lies outside 0..min(o, i). The scale is the released code's; the paper ranks by |x| alone.
    """
    if not 0 <= rank <= min(w.shape):
        raise ValueError(f"rank={rank} must lie in 0..{min(w.shape)} for a weight of shape {w.shape}")
    u, s, vt = np.linalg.svd(w, full_matrices=False)
    left, right = u[:, :rank], s[:rank, None] * vt[:rank]
    largest = np.abs(right).argmax(axis=1)
    sign = np.where(right[np.arange(rank), largest] < 0, -1.0, 1.0)
    scale = np.sqrt((w**2).sum(axis=0)) if weighted else np.ones(w.shape[1])
    return Layer(w, left * sign, right * sign[:, None], scale)


def calibrate(
    x: Float[np.ndarray, "t i"], scale: Float[np.ndarray, " i"], *, keep: float
) -> Float[np.ndarray, ""]:
    """The cut: the k-th smallest of all t i scores |x| scale, k = floor(t i (1 - keep)); 0 where k = 0.

    One number for all tokens, so that a token may keep more or fewer than the share. Raises ValueError for an
    empty sample, for widths that differ and where keep lies outside 0..1. Source: the released code.
    """
    _check_inputs(x, scale)
    if not x.size:
        raise ValueError(f"a sample of {x.shape[0]} tokens x {x.shape[1]} inputs has no cut")
    if not 0 <= keep <= 1:
        raise ValueError(f"keep={keep} must lie in 0..1, the share of entries to keep")
    scores = np.sort(np.abs(x) * scale, axis=None)
    k = int(x.size * (1 - keep))
    return np.asarray(scores[k - 1] if k else 0.0)


def linear(x: Float[np.ndarray, "t i"], layer: Layer, cut: Float[np.ndarray, ""]) -> Float[np.ndarray, "t o"]:
    """W (x where |x| scale > cut) + left right (x elsewhere): every entry takes one of the two ways.

    Raises ValueError where the widths of x and the layer do not match.
    """
    _check_inputs(x, layer.scale)
    _check_layer(layer)
    large = np.where(np.abs(x) * layer.scale > cut, x, 0)
    small = x - large
    return large @ layer.w.T + small @ layer.right.T @ layer.left.T


def initial(
    start: Float[np.ndarray, "p l"], *, centre: float = 0.95, step: float = 0.05
) -> Float[np.ndarray, "p l"]:
    """The first individuals: input sparsity alone (all ones), the uniform recipe `centre`, then

        clip(centre + step start, 0, 1)

    so that the best can be no worse than the first two. Raises ValueError where there are fewer than 2
    individuals, centre lies outside 0..1 or step is negative.
    """
    _check_step(step)
    if len(start) < 2 or not 0 <= centre <= 1:
        raise ValueError(f"{len(start)} individuals around {centre}: need 2 or more, and centre in 0..1")
    rho = np.clip(centre + step * start, 0, 1)
    rho[0], rho[1] = 1.0, centre
    return rho


def breed(
    elite: Float[np.ndarray, "e l"],
    parents: Int[np.ndarray, "c 2"],
    cross: Bool[np.ndarray, "c l"],
    noise: Float[np.ndarray, "c l"],
    *,
    step: float = 0.05,
) -> Float[np.ndarray, "c l"]:
    """Children: each gene from one of two parents (uniform crossover), then clip(gene + step noise, 0, 1).

    Raises ValueError where a parent is not one of the elite, sizes differ or step is negative.
    """
    _check_step(step)
    if not cross.shape == noise.shape == (len(parents), elite.shape[1]):
        raise ValueError(
            f"{len(parents)} pairs of parents with {elite.shape[1]} genes, "
            f"but crossings {cross.shape} and noise {noise.shape}"
        )
    if parents.size and not (parents.min() >= 0 and parents.max() < len(elite)):
        raise ValueError(f"parents {parents.min()}..{parents.max()} must lie in 0..{len(elite) - 1}")
    genes = np.where(cross, elite[parents[:, 1]], elite[parents[:, 0]])
    return np.clip(genes + step * noise, 0, 1)


def search(
    fitness: Callable[[Float[np.ndarray, " l"]], float],
    draws: Draws,
    *,
    elite: int,
    centre: float = 0.95,
    step: float = 0.05,
) -> Found:
    """Evolutionary search for the split of every layer that makes `fitness(rho)` least.

    Each generation is the `elite` best of the one before, unchanged, and their children (`breed`): the best
    fitness never rises. Of equals the earlier individual ranks first, NaN last. Raises ValueError where elite
    lies outside 1..p or the sizes of the draws differ, and as `initial` and `breed` do. The paper takes 32
    individuals, 5 generations and the perplexity on 16 sequences; crossover, step and elite are not
    published, those here are ours.
    """
    rho = initial(draws.start, centre=centre, step=step)
    if not draws.cross.shape == draws.noise.shape == (*draws.parents.shape[:2], rho.shape[1]):
        raise ValueError(
            f"parents {draws.parents.shape}, cross {draws.cross.shape} and noise {draws.noise.shape} must be "
            f"(g, c, 2), (g, c, {rho.shape[1]}) and (g, c, {rho.shape[1]})"
        )
    if not 1 <= elite <= len(rho):
        raise ValueError(f"elite={elite} must lie in 1..{len(rho)}, the individuals")
    cost = np.array([float(fitness(one)) for one in rho])
    order = np.argsort(cost, kind="stable")
    best = [cost[order[0]]]
    for g, parents in enumerate(draws.parents):
        kept = order[:elite]
        born = breed(rho[kept], parents, draws.cross[g], draws.noise[g], step=step)
        rho = np.concatenate([rho[kept], born])
        cost = np.concatenate([cost[kept], [float(fitness(one)) for one in born]])
        order = np.argsort(cost, kind="stable")
        best.append(cost[order[0]])
    return Found(rho[order[0]], np.array(best))


def recipe(text: str) -> tuple[dict[str, Share], ...]:
    """The published recipe as data: numbers one a line, rho and sparsity in turn, seven projections a layer.

    The order inside a layer is q, k, v, o, gate, up, down. Raises ValueError for a word that is no number,
    for a value outside 0..1 and where the numbers do not fill whole layers. Source: the file
    config/llama3_sparsity_50_evolutionary_search.npy of the official repository, which is text.
    """
    values = []
    for i, word in enumerate(text.split(), 1):
        try:
            values.append(float(word))
        except ValueError:
            raise ValueError(f"number {i} of the recipe is {word!r}, not a number") from None
        if not 0 <= values[-1] <= 1:
            raise ValueError(f"number {i} of the recipe is {word}: rho and sparsity lie in 0..1")
    if not values or len(values) % 14:
        raise ValueError(f"{len(values)} numbers do not fill layers of 14")
    pairs = [Share(*values[i : i + 2]) for i in range(0, len(values), 2)]
    starts = range(0, len(pairs), len(PROJECTIONS))
    return tuple({name: pairs[start + p] for p, name in enumerate(PROJECTIONS)} for start in starts)


def _check_inputs(x: np.ndarray, scale: np.ndarray) -> None:
    if x.shape[1] != len(scale):
        raise ValueError(f"x has {x.shape[1]} inputs, the layer {len(scale)}")


def _check_layer(layer: Layer) -> None:
    o, i = layer.w.shape
    rank = layer.left.shape[1]
    if (layer.left.shape, layer.right.shape, len(layer.scale)) != ((o, rank), (rank, i), i):
        raise ValueError(
            f"w {layer.w.shape}, left {layer.left.shape}, right {layer.right.shape} and scale "
            f"{layer.scale.shape} must be (o, i), (o, r), (r, i) and (i,)"
        )


def _check_step(step: float) -> None:
    if not step >= 0:
        raise ValueError(f"step={step} must be at least 0")
