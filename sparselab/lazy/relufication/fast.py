"""ReLUfication in torch."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "shifted_relu",
    "fatrelu",
    "hidden",
    "sparse_norm",
    "aggregated_sparsity",
    "union",
    "union_density",
    "loaded",
]


def shifted_relu(z: Float[Tensor, "*b m"], *, shift: float) -> Float[Tensor, "*b m"]:
    return F.relu(z - shift)


def fatrelu(z: Float[Tensor, "*b m"], *, threshold: float) -> Float[Tensor, "*b m"]:
    if threshold < 0:
        raise ValueError(f"threshold={threshold} is negative; 0 is the plain ReLU")
    return F.threshold(z, threshold, 0.0)


def hidden(
    x: Float[Tensor, "*b d"],
    up: Float[Tensor, "m d"],
    gate: Float[Tensor, "m d"] | None,
    *,
    shift: float = 0.0,
) -> Float[Tensor, "*b m"]:
    if x.shape[-1] != up.shape[1]:
        raise ValueError(f"x has width {x.shape[-1]}, up takes {up.shape[1]}")
    if gate is None:
        return shifted_relu(F.linear(x, up), shift=shift)
    if gate.shape != up.shape:
        raise ValueError(f"gate {tuple(gate.shape)} and up {tuple(up.shape)} must both be (m, d)")
    return shifted_relu(F.linear(x, gate), shift=shift) * F.linear(x, up)


def sparse_norm(
    x: Float[Tensor, "*b d"], scale: Float[Tensor, " d"], *, eps: float = 1e-6
) -> Float[Tensor, "*b d"]:
    if x.shape[-1] != len(scale):
        raise ValueError(f"x has width {x.shape[-1]}, scale {len(scale)}")
    return F.relu(F.rms_norm(x, scale.shape, scale, eps))


def aggregated_sparsity(a: Float[Tensor, "t m"]) -> Float[Tensor, " t"]:
    used = (a != 0).cummax(dim=0).values
    return 1 - used.to(a.dtype).mean(dim=1)


def union(a: Float[Tensor, "t m"], *, window: int) -> Float[Tensor, " w"]:
    _check_window(a, window)
    full = len(a) // window * window
    return (a[:full] != 0).unflatten(0, (-1, window)).any(dim=1).to(a.dtype).mean(dim=1)


def union_density(p: Float[Tensor, "*n"], *, tokens: int) -> Float[Tensor, "*n"]:
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"densities {p.min():g} to {p.max():g} leave [0, 1]")
    if tokens < 0:
        raise ValueError(f"tokens={tokens} is negative")
    return 1 - (1 - p) ** tokens


def loaded(a: Float[Tensor, "t m"], *, window: int) -> Bool[Tensor, "t m"]:
    _check_window(a, window)
    active = F.pad(a != 0, (0, 0, 0, -len(a) % (2 * window))).unflatten(0, (-1, 2, window))
    reused = active[:, 0].any(dim=1, keepdim=True).expand(-1, window, -1)
    return torch.stack((torch.ones_like(reused), reused), dim=1).flatten(0, 2)[: len(a)]


def _check_window(a: Tensor, window: int) -> None:
    if not 1 <= window <= len(a):
        raise ValueError(f"window={window} must lie in 1..{len(a)}, the tokens")
