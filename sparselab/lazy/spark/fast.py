"""The Spark Transformer in torch: dense where it is trained, gathered where it decodes."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from sparselab.formats.rows import fast as rows
from sparselab.topk.statistical import fast as statistical

__all__ = ["hidden", "ffn", "decode", "gate_ffn", "flops", "rotary_halves", "select", "attend", "attend_one"]


def hidden(
    q: Float[Tensor, "*b d"], K1: Float[Tensor, "r m"], K2: Float[Tensor, "e m"], *, k: int
) -> Float[Tensor, "*b m"]:
    check_keys(q, K1, K2)
    r = len(K1)
    return F.gelu(statistical.soft(q[..., :r] @ K1, k=k)) * (q[..., r:] @ K2)


def ffn(
    q: Float[Tensor, "*b d"],
    K1: Float[Tensor, "r m"],
    K2: Float[Tensor, "e m"],
    V: Float[Tensor, "d m"],
    *,
    k: int,
) -> Float[Tensor, "*b d"]:
    check_keys(q, K1, K2)
    check_values(q, K1, V)
    return hidden(q, K1, K2, k=k) @ V.T


def decode(
    q: Float[Tensor, " d"],
    K1: Float[Tensor, "r m"],
    K2: Float[Tensor, "e m"],
    V: Float[Tensor, "d m"],
    *,
    k: int,
) -> Float[Tensor, " d"]:
    """Store all three column by column (`K1.T` contiguous, and so on): a neuron is then a row of each."""
    check_keys(q, K1, K2)
    check_values(q, K1, V)
    r = len(K1)
    active = statistical.soft(K1.T @ q[:r], k=k)
    neuron = active.detach().nonzero().squeeze(1)
    return rows.total(V.T, neuron, F.gelu(active[neuron]) * rows.dot(K2.T, neuron, q[r:]))


def gate_ffn(
    x: Float[Tensor, "*b d"],
    gate: Float[Tensor, "m d"],
    up: Float[Tensor, "m d"],
    down: Float[Tensor, "d m"],
    *,
    k: int,
) -> Float[Tensor, "*b d"]:
    if not (x.shape[-1] == gate.shape[1] and gate.shape == up.shape == down.T.shape):
        x, gate, up, down = (tuple(a.shape) for a in (x, gate, up, down))
        raise ValueError(
            f"x {x}, gate {gate}, up {up} and down {down} must be (.., d), (m, d), (m, d) and (d, m)"
        )
    z = x @ gate.T
    active = z if k == len(gate) else statistical.soft(z, k=k)
    return (F.gelu(active, approximate="tanh") * (x @ up.T)) @ down.T


def flops(*, width: int, entries: int, r: int, k: int) -> int:
    if not (0 <= r <= width and min(entries, k) > 0):
        raise ValueError(f"r={r} must lie in 0..{width}; entries={entries} and k={k} must be at least 1")
    return 2 * r * entries + 2 * (2 * width - r) * min(k, entries)


def rotary_halves(
    x: Float[Tensor, "*b t d"], *, r: int, start: int = 0, base: float = 10_000.0
) -> Float[Tensor, "*b t d"]:
    d = x.shape[-1]
    if not (0 <= r <= d and r % 2 == 0 and d % 2 == 0):
        raise ValueError(f"r={r} and d - r={d - r} must both be even and not negative")
    return torch.cat([_rotary(part, start, base) for part in (x[..., :r], x[..., r:])], dim=-1)


@torch.no_grad()
def select(scores: Float[Tensor, "*b t s"], *, keep: int) -> Bool[Tensor, "*b t s"]:
    t, s = scores.shape[-2:]
    if t > s:
        raise ValueError(f"{t} queries for {s} keys: the first {t - s} would see none")
    if keep < 1:
        raise ValueError(f"keep={keep} must be at least 1")
    visible = torch.ones(t, s, dtype=torch.bool, device=scores.device).tril(s - t).expand(scores.shape)
    if keep >= s:
        return visible.clone()
    return statistical.survivors(scores, k=keep, mask=visible, keep_max=True)


def attend(
    q: Float[Tensor, "b h t d"],
    k: Float[Tensor, "b g s d"],
    v: Float[Tensor, "b g s e"],
    *,
    keep: int,
    r: int,
    scale: float | None = None,
    value_scale: float | None = None,
) -> Float[Tensor, "b h t e"]:
    (b, h, _, d), (_, g, s, _) = q.shape, k.shape
    if k.shape != (b, g, s, d) or v.shape[:3] != k.shape[:3] or g < 1 or h % g:
        q, k, v = (tuple(a.shape) for a in (q, k, v))
        raise ValueError(
            f"q {q}, k {k} and v {v} must be (b, h, t, d), (b, g, s, d) and (b, g, s, e), h a multiple of g"
        )
    if not 0 < r < d:
        raise ValueError(f"r={r} must lie strictly between 0 and {d}, the width of a head")
    q, k, v = q.unflatten(1, (g, h // g)), k.unsqueeze(2), v.unsqueeze(2)
    u = (r**-0.5 if scale is None else scale) * q[..., :r] @ k[..., :r].mT
    w = ((d - r) ** -0.5 if value_scale is None else value_scale) * q[..., r:] @ k[..., r:].mT
    p = u.masked_fill(~select(u, keep=keep), -torch.inf).softmax(dim=-1)
    return ((p * F.softplus(w)) @ v).flatten(1, 2)


def attend_one(
    q: Float[Tensor, "h d"],
    k: Float[Tensor, "g s d"],
    v: Float[Tensor, "g s e"],
    *,
    keep: int,
    r: int,
    scale: float | None = None,
    value_scale: float | None = None,
) -> Float[Tensor, "h e"]:
    (h, d), (g, s, _) = q.shape, v.shape
    if k.shape != (g, s, d) or g < 1 or h % g:
        q, k, v = (tuple(a.shape) for a in (q, k, v))
        raise ValueError(f"q {q}, k {k} and v {v} must be (h, d), (g, s, d) and (g, s, e), h a multiple of g")
    if not 0 < r < d:
        raise ValueError(f"r={r} must lie strictly between 0 and {d}, the width of a head")
    u = ((r**-0.5 if scale is None else scale) * q.unflatten(0, (g, -1))[..., :r] @ k[..., :r].mT).flatten(
        0, 1
    )
    kept = select(u.unsqueeze(1), keep=keep).squeeze(1)
    p = u.masked_fill(~kept, -torch.inf).softmax(dim=-1)
    head, key = kept.nonzero(as_tuple=True)
    row = head // (h // g) * s + key  # of the keys and values of all groups, one after the other
    w = (k[..., r:].flatten(0, 1)[row] * q[head, r:]).sum(dim=-1)
    weight = p[head, key] * F.softplus(((d - r) ** -0.5 if value_scale is None else value_scale) * w)
    first = F.pad(kept.sum(dim=-1).cumsum(0)[:-1], (1, 0))
    return F.embedding_bag(row, v.flatten(0, 1), first, mode="sum", per_sample_weights=weight)


def _rotary(x: Tensor, start: int, base: float) -> Tensor:
    """Angles in float64: in float32 those of late positions are off."""
    t, d = x.shape[-2:]
    rate = base ** (-torch.arange(0, d, 2, dtype=torch.float64, device=x.device) / d)
    angle = torch.outer(start + torch.arange(t, dtype=torch.float64, device=x.device), rate)
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x[..., : d // 2], x[..., d // 2 :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def check_keys(q: Tensor, K1: Tensor, K2: Tensor) -> None:
    if q.shape[-1] != len(K1) + len(K2) or K1.shape[1] != K2.shape[1]:
        q, K1, K2 = (tuple(a.shape) for a in (q, K1, K2))
        raise ValueError(f"q {q}, K1 {K1} and K2 {K2} must be (.., d), (r, m), (d - r, m)")


def check_values(q: Tensor, K1: Tensor, V: Tensor) -> None:
    if V.shape != (q.shape[-1], K1.shape[1]):
        raise ValueError(f"V {tuple(V.shape)} must be {(q.shape[-1], K1.shape[1])}, the widths of q and K1")
