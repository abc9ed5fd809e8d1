"""ReLUfication in NumPy: the definition."""

import numpy as np
from jaxtyping import Bool, Float

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


def shifted_relu(z: Float[np.ndarray, "*b m"], *, shift: float) -> Float[np.ndarray, "*b m"]:
    """max(z - shift, 0): what passes is lowered by the shift (section 5.3)."""
    return np.maximum(z - shift, 0)


def fatrelu(z: Float[np.ndarray, "*b m"], *, threshold: float) -> Float[np.ndarray, "*b m"]:
    """z where z > threshold, else 0: what passes keeps its value (ProSparse, arXiv:2402.13516).

    Raises ValueError for a negative threshold.
    """
    if threshold < 0:
        raise ValueError(f"threshold={threshold} is negative; 0 is the plain ReLU")
    return np.where(z > threshold, z, 0)


def hidden(
    x: Float[np.ndarray, "*b d"],
    up: Float[np.ndarray, "m d"],
    gate: Float[np.ndarray, "m d"] | None,
    *,
    shift: float = 0.0,
) -> Float[np.ndarray, "*b m"]:
    """Stage 1: the layer's activation becomes a (shifted) ReLU; no weight changes.

        relu(x up^T - shift)                          without a gate
        relu(x gate^T - shift) * (x up^T)             with one: only the gate decides what is zero

    Raises ValueError where the widths do not match.
    """
    if x.shape[-1] != up.shape[1]:
        raise ValueError(f"x has width {x.shape[-1]}, up takes {up.shape[1]}")
    if gate is None:
        return shifted_relu(x @ up.T, shift=shift)
    if gate.shape != up.shape:
        raise ValueError(f"gate {gate.shape} and up {up.shape} must both be (m, d)")
    return shifted_relu(x @ gate.T, shift=shift) * (x @ up.T)


def sparse_norm(
    x: Float[np.ndarray, "*b d"], scale: Float[np.ndarray, " d"], *, eps: float = 1e-6
) -> Float[np.ndarray, "*b d"]:
    """Stage 2: a ReLU after the norm, so that q, k, v and up read a part of their input.

        relu(x / sqrt(mean(x^2) + eps) * scale)

    Raises ValueError where x and scale differ in width.
    """
    if x.shape[-1] != len(scale):
        raise ValueError(f"x has width {x.shape[-1]}, scale {len(scale)}")
    return np.maximum(x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps) * scale, 0)


def aggregated_sparsity(a: Float[np.ndarray, "t m"]) -> Float[np.ndarray, " t"]:
    """Share of neurons that none of the first 1, 2, ... t tokens has activated (section 5.1)."""
    return np.array([1 - (a[: i + 1] != 0).any(axis=0).mean() for i in range(len(a))])


def union(a: Float[np.ndarray, "t m"], *, window: int) -> Float[np.ndarray, " w"]:
    """Share of neurons that at least one token of a window activates, for consecutive windows that are full.

    A batch, or a verification of `window` drafted tokens, reads the weights of this union. Raises ValueError
    where the window lies outside 1..t.
    """
    _check_window(a, window)
    full = len(a) // window * window
    return (a[:full].reshape(-1, window, a.shape[1]) != 0).any(axis=1).mean(axis=1)


def union_density(p: Float[np.ndarray, "*n"], *, tokens: int) -> Float[np.ndarray, "*n"]:
    """1 - (1 - p)^tokens: the union's density if tokens chose their neurons independently.

    Given one rate per neuron, the mean over neurons is the law with neurons that differ; by concavity it
    lies below the law at the mean rate. Raises ValueError for p outside [0, 1] and tokens below 0.
    """
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"densities {p.min():g} to {p.max():g} leave [0, 1]")
    if tokens < 0:
        raise ValueError(f"tokens={tokens} is negative")
    return np.asarray(1 - (1 - p) ** tokens)


def loaded(a: Float[np.ndarray, "t m"], *, window: int) -> Bool[np.ndarray, "t m"]:
    """True where a token may use a neuron, if every second window loads weights and the next reuses them.

    In windows 0, 2, 4, ... all True: what is active is loaded. In windows 1, 3, 5, ... True for the neurons
    that the window before has activated; `a * loaded(a)` is what such a model computes (section 5.1). Raises
    ValueError where the window lies outside 1..t.
    """
    _check_window(a, window)
    out = np.ones(a.shape, bool)
    for start in range(window, len(a), 2 * window):
        out[start : start + window] = (a[start - window : start] != 0).any(axis=0)
    return out


def _check_window(a: np.ndarray, window: int) -> None:
    if not 1 <= window <= len(a):
        raise ValueError(f"window={window} must lie in 1..{len(a)}, the tokens")
