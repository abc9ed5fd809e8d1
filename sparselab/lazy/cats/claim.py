"""CATS on the gated byte LM, whose gate is a GELU: what half of its neurons cost, and bytes against TEAL."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.cats import fast as cats
from sparselab.models import TinyLM, activations, load, reaching


@torch.no_grad()
def measure(seed: int) -> dict[str, float]:
    """Nats per held-out byte above the dense model at half of the gates, calibrated on training text."""
    model, rng = load("lm_gated"), np.random.default_rng(seed)
    seen, unseen = (
        torch.from_numpy(text.windows(text.pydocs(split), length=129, n=n, rng=rng)).long()
        for split, n in (("train", 16), ("held_out", 64))
    )
    dense, inputs = (
        loss(model, unseen),
        activations(model, seen[:, :-1], ["blocks.*.ffn.x", "blocks.*.ffn.hidden"]),
    )
    at_calibration = [gates(block.ffn, inputs[f"blocks.{i}.ffn.x"]) for i, block in enumerate(model.blocks)]
    cuts = [cats.calibrate(a, sparsity=0.5) for a in at_calibration]
    kept = [[] for _ in model.blocks]

    def by_gate(i: int) -> Callable[[Tensor, Tensor], Tensor]:
        def hidden(a: Tensor, h: Tensor) -> Tensor:
            kept[i].append(a.abs() > cuts[i])
            return torch.where(kept[i][-1], h, 0)

        return hidden

    draw = torch.Generator().manual_seed(seed)
    cats_50 = masked_loss(model, unseen, by_gate) - dense
    random_50 = (
        masked_loss(model, unseen, lambda i: lambda a, h: h * (torch.rand(h.shape, generator=draw) < 0.5))
        - dense
    )
    width, neurons = model.blocks[0].ffn.down.shape
    read = [cats.bytes_read(k.flatten(0, 1), width=width).double() / (6 * width * neurons) for [k] in kept]
    third = {name: x.abs().flatten().kthvalue(x.numel() // 3).values for name, x in inputs.items()}
    magnitudes = {name: lambda x, t=t: torch.where(x.abs() > t, x, 0) for name, t in third.items()}
    with reaching(model, magnitudes):
        equal_bytes = loss(model, unseen) - dense
    shares = [float(k.double().mean()) for [k] in kept]
    return {
        "dense_loss": dense,
        "cats_50": cats_50,
        "random_50": random_50,
        "random_over_cats": random_50 / cats_50,
        "cats_over_inputs": cats_50 - equal_bytes,
        "calibration_share": max(
            float((a.abs() < cut).double().mean()) for a, cut in zip(at_calibration, cuts, strict=True)
        ),
        "held_out_stray": max(abs(share - 0.5) for share in shares),
        "bytes": float(torch.stack(read).mean()),
        "least_bytes": float(torch.stack(read).min()),
    }


def gates(ffn: torch.nn.Module, x: Tensor) -> Tensor:
    """Activations of the gate, by which neurons are chosen."""
    return F.gelu(x @ ffn.gate.T)


def loss(model: TinyLM, windows: Tensor) -> float:
    """Nats per byte."""
    return float(F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten()))


def masked_loss(
    model: TinyLM, windows: Tensor, rule: Callable[[int], Callable[[Tensor, Tensor], Tensor]]
) -> float:
    """The loss with `rule(i)(gate, hidden)` in the place of block i's hidden layer."""
    seen, into = {}, {}
    for i, block in enumerate(model.blocks):
        into[f"blocks.{i}.ffn.x"] = lambda x, i=i, ffn=block.ffn: seen.update({i: gates(ffn, x)})
        change = rule(i)
        into[f"blocks.{i}.ffn.hidden"] = lambda h, i=i, change=change: change(seen[i], h)
    with reaching(model, into):
        return loss(model, windows)
