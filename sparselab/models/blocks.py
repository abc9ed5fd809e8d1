"""The transformer block that every model here is made of, with attention and feed-forward as functions."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.method import unknown


class FFNWeights(NamedTuple):
    """Weights of one feed-forward layer; a row of `up` and a column of `down` are one neuron."""

    up: Float[Tensor, "m d"]
    down: Float[Tensor, "d m"]
    gate: Float[Tensor, "m d"] | None


Attend = Callable[
    [Float[Tensor, "b h t d"], Float[Tensor, "b h t d"], Float[Tensor, "b h t d"]], Float[Tensor, "b h t d"]
]
Hidden = Callable[[Float[Tensor, "b t d"], FFNWeights], Float[Tensor, "b t m"]]
Rotate = Callable[..., Float[Tensor, "b h t d"]]  # rotate(x, start=0): positions start, start + 1, ...


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense causal attention: `softmax(q k^T / sqrt(d)) v` over the keys up to each query."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def bidirectional(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Dense attention over all keys: `softmax(q k^T / sqrt(d)) v`."""
    return F.scaled_dot_product_attention(q, k, v)


HIDDEN: dict[str, Hidden] = {
    "relu": lambda x, w: F.relu(x @ w.up.mT),
    "gelu": lambda x, w: F.gelu(x @ w.up.mT),
    "gated": lambda x, w: F.gelu(x @ w.gate.mT) * (x @ w.up.mT),
}


def rotary(
    x: Float[Tensor, "b h t d"], *, start: int = 0, base: float = 10_000.0
) -> Float[Tensor, "b h t d"]:
    """Rotary positions: dimensions i and i + d/2 turn by the angle `t base^(-2i/d)` (arXiv:2104.09864).

    t counts from `start`.
    """
    t, d = x.shape[-2:]
    rate = base ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = torch.outer(start + torch.arange(t, dtype=torch.float64), rate)
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Attention(nn.Module):
    """Multi-head attention whose inner part is `attend(q, k, v) -> o` on `b h t d` arrays."""

    def __init__(self, width: int, heads: int, attend: Attend, *, rotate: Rotate | None):
        super().__init__()
        self.heads, self.attend, self.rotate = heads, attend, rotate
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.x, self.q, self.k, self.v, self.mixed, self.out = (nn.Identity() for _ in range(6))

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        q, k, v = self.qkv(self.x(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if self.rotate:
            q, k = self.rotate(q), self.rotate(k)
        mixed = self.attend(self.q(q), self.k(k), self.v(v))
        return self.out(self.project(self.mixed(mixed.transpose(1, 2).flatten(2))))


class FFN(nn.Module):
    """Feed-forward layer `h down^T` with `h = hidden(x, weights)`."""

    def __init__(self, width: int, neurons: int, hidden: Hidden, *, gate: bool):
        super().__init__()
        self.activation = hidden
        self.up = nn.Parameter(torch.empty(neurons, width))
        self.down = nn.Parameter(torch.empty(width, neurons))
        self.gate = nn.Parameter(torch.empty(neurons, width)) if gate else None
        self.x, self.hidden, self.out = (nn.Identity() for _ in range(3))

    @property
    def weights(self) -> FFNWeights:
        return FFNWeights(self.up, self.down, self.gate)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        h = self.hidden(self.activation(self.x(x), self.weights))
        return self.out(h @ self.down.mT)


class Block(nn.Module):
    """Pre-norm residual block: `x += attention(norm(x)); x += ffn(norm(x))`, norms being torch's RMSNorm."""

    def __init__(
        self, width: int, heads: int, neurons: int, attend: Attend, hidden: Hidden, *, gate, rotate, dropout
    ):
        super().__init__()
        self.attention_norm, self.ffn_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, attend, rotate=rotate)
        self.ffn = FFN(width, neurons, hidden, gate=gate)
        self.drop = nn.Dropout(dropout)
        self.residual = nn.Identity()

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        x = x + self.drop(self.attention(self.attention_norm(x)))
        return self.residual(x + self.drop(self.ffn(self.ffn_norm(x))))


def stack(
    *,
    width: int,
    layers: int,
    heads: int,
    neurons: int,
    attend: Attend | Sequence[Attend],
    ffn: str | Hidden | Sequence[str | Hidden],
    gate: bool,
    rotate: Rotate | None,
    dropout: float,
) -> nn.ModuleList:
    """The blocks of a model; `attend` and `ffn` are one for all of them or a list with one for each.

    Raises ValueError for sizes that do not fit, for an unknown name, and for a gate that is missing.
    """
    if min(width, layers, heads, neurons) < 1:
        raise ValueError(f"{width=}, {layers=}, {heads=} and {neurons=} must all be at least 1")
    if width % heads or (rotate and width // heads % 2):
        raise ValueError(f"{width=} does not give {heads=} of {'an even' if rotate else 'a whole'} width")
    attends = one_each("attend", attend, layers)
    hiddens = [_hidden(f, gate) for f in one_each("ffn", ffn, layers)]
    return nn.ModuleList(
        Block(width, heads, neurons, a, h, gate=gate, rotate=rotate, dropout=dropout)
        for a, h in zip(attends, hiddens, strict=True)
    )


def initialise(model: nn.Module) -> None:
    """Weights from N(0, 0.02^2), those that write to the residual stream over sqrt(2 layers) (GPT-2)."""
    writes = (2 * len(model.blocks)) ** -0.5
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.02 * (writes if name.endswith(("project.weight", "down")) else 1))


def one_each(what: str, given, layers: int) -> Sequence:
    """One of them for each layer; ValueError for a list of another length."""
    if not isinstance(given, list | tuple):
        return [given] * layers
    if len(given) != layers:
        raise ValueError(f"{what} lists {len(given)} functions for {layers} layers")
    return given


def _hidden(ffn: str | Hidden, gate: bool) -> Hidden:
    if not isinstance(ffn, str):
        return ffn
    if ffn not in HIDDEN:
        raise ValueError(unknown("feed-forward", ffn, list(HIDDEN)))
    if ffn == "gated" and not gate:
        raise ValueError("ffn='gated' needs the weights of gate=True")
    return HIDDEN[ffn]
