"""Spark's feed-forward layer against others of as many weights, in a byte model on the documentation."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.spark import fast as spark
from sparselab.models import FFNWeights
from sparselab.topk.exact import fast as exact
from sparselab.topk.statistical import fast as statistical

CONTEXT, WIDTH, BATCH, STEPS = 8, 128, 256, 1000
PLAIN, GATED = 576, 384  # neurons: 2 d m weights without a gate are 3 d m with one
SHARE, R = 0.08, WIDTH // 2


def measure(seed: int) -> dict[str, float]:
    """Held-out nats per byte of each layer, and how far the active share strays from its target."""
    runs = {name: train(name, seed=seed) for name in HIDDEN}
    loss = {name: run.loss for name, run in runs.items()}
    dense = 4 * WIDTH * PLAIN
    return {
        "spark_over_relu": loss["spark"] - loss["relu"],
        "spark_over_gelu": loss["spark"] - loss["gelu"],
        "spark_over_gated": loss["spark"] - loss["gated"],
        "spark_over_whole_input": loss["spark"] - loss["statistical"],
        "spark_over_hard": loss["spark"] - loss["hard"],
        "spark_over_gate": loss["spark"] - loss["gate"],
        "stray": max(abs(share - SHARE) for share in runs["spark"].shares),
        "spark_density": runs["spark"].shares[-1],
        "relu_density": runs["relu"].shares[-1],
        "flop_ratio": dense / spark.flops(width=WIDTH, entries=PLAIN, r=R, k=kept(PLAIN)),
        **{f"{name}_loss": value for name, value in loss.items()},
    }


def kept(neurons: int) -> int:
    """How many of a layer's neurons are to be active."""
    return round(SHARE * neurons)


HIDDEN = {
    "relu": lambda x, w: F.relu(x @ w.up.T),
    "gelu": lambda x, w: F.gelu(x @ w.up.T),
    "gated": lambda x, w: F.gelu(x @ w.gate.T) * (x @ w.up.T),
    "statistical": lambda x, w: F.gelu(statistical.soft(x @ w.up.T, k=kept(PLAIN))),
    "gate": lambda x, w: F.gelu(statistical.soft(x @ w.gate.T, k=kept(GATED))) * (x @ w.up.T),
    "spark": lambda x, w: spark.hidden(x, w.up.T[:R], w.up.T[R:], k=kept(PLAIN)),
    "hard": lambda x, w: F.gelu(exact.keep(x[:, :R] @ w.up.T[:R], k=kept(PLAIN))) * (x[:, R:] @ w.up.T[R:]),
}


class Blocks(nn.Module):
    """Next byte from the last eight: a linear mix of them, then two residual blocks h += V hidden(LN(h)).

    The mix comes first because the split wants coordinates that each know of the whole context.
    """

    def __init__(self, name: str):
        super().__init__()
        self.hidden, gated = HIDDEN[name], name.startswith("gate")
        neurons = GATED if gated else PLAIN
        self.embed = nn.Embedding(256, 16)
        self.mix = nn.Linear(16 * CONTEXT, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.up = nn.ParameterList(torch.randn(neurons, WIDTH) * (2 / WIDTH) ** 0.5 for _ in range(2))
        self.down = nn.ParameterList(torch.randn(WIDTH, neurons) * neurons**-0.5 for _ in range(2))
        self.gate = nn.ParameterList(torch.randn(neurons, WIDTH) * WIDTH**-0.5 for _ in range(2 * gated))
        self.out = nn.Linear(WIDTH, 256)

    def forward(self, contexts: Tensor) -> tuple[Tensor, list[float]]:
        """Logits, and the active share of each block."""
        h, shares = self.mix(self.embed(contexts).flatten(1)), []
        for i, norm in enumerate(self.norms):
            gate = self.gate[i] if self.gate else None
            active = self.hidden(norm(h), FFNWeights(self.up[i], self.down[i], gate))
            h = h + active @ self.down[i].T
            shares.append(float((active != 0).float().mean()))
        return self.out(h), shares


class Trained(NamedTuple):
    """How a model ended."""

    loss: float
    """Nats per held-out byte."""
    shares: list[float]
    """Active share of each block, every hundred training steps, and last on held-out bytes."""


def train(name: str, *, seed: int) -> Trained:
    """Adam on the training text, one batch size and rate for all."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, draw = Blocks(name), torch.Generator().manual_seed(seed)
        data, held_out = (torch.from_numpy(text.pydocs(split)).long() for split in ("train", "held_out"))
        adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
        seen = []
        for step in range(STEPS):
            loss, shares = _next_bytes(
                model, data, torch.randint(len(data) - CONTEXT, (BATCH,), generator=draw)
            )
            seen += shares if step % 100 == 0 else []
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            loss, shares = _next_bytes(
                model, held_out, torch.linspace(0, len(held_out) - CONTEXT - 1, 8192).long()
            )
        return Trained(float(loss), [*seen, *shares])


def _next_bytes(model: Blocks, data: Tensor, starts: Tensor) -> tuple[Tensor, list[float]]:
    """Cross-entropy of the byte after each window of eight, and the blocks' active shares."""
    windows = data[starts[:, None] + torch.arange(CONTEXT + 1)]
    logits, shares = model(windows[:, :-1])
    return F.cross_entropy(logits, windows[:, -1]), shares
