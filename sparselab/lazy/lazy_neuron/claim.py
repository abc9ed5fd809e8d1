"""Lazy neurons at laptop size: a byte model on the Python documentation, and label noise on digits."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselab.data import images, text
from sparselab.lazy.lazy_neuron import fast

CONTEXT, WIDTH, BATCH = 8, 128, 256
WRONG_LABELS, PIXEL_NOISE, CLASSES = 0.4, 0.3, 10


def measure(seed: int) -> dict[str, float]:
    """The phenomenon on text, its controls, and what a Top-k buys on digits with wrong labels."""
    dense, wide = train(seed=seed), train(seed=seed, hidden=2048, steps=700)
    narrow = train(seed=seed, steps=700)
    shuffled, topk = train(seed=seed, shuffled=True), train(seed=seed, k=32)
    plain, kept = (digits(seed, k=k, wrong_labels=WRONG_LABELS) for k in (1024, 128))
    clean_plain, clean_kept = (digits(seed, k=k, wrong_labels=0.0) for k in (1024, 128))
    return {
        "density": max(dense.density),
        "depth_gap": dense.density[0] - dense.density[1],
        "width_gap": max(narrow.density) - max(wide.density),
        "shuffled_density": max(shuffled.density),
        "topk_cost": topk.loss - dense.loss,
        "loss": dense.loss,
        "ece_gain": plain.ece - kept.ece,
        "input_noise_gain": clean_kept.noisy_inputs - clean_plain.noisy_inputs,
        "label_noise_gain": kept.accuracy - plain.accuracy,
        "digits_density": clean_plain.density,
    }


class Blocks(nn.Module):
    """Next byte from the last eight: two residual blocks h += V Top_k(relu(K LN(h)))."""

    def __init__(self, hidden: int, k: int | None):
        super().__init__()
        self.embed = nn.Embedding(256, 16)
        self.mix = nn.Linear(16 * CONTEXT, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.K = nn.ParameterList(torch.randn(WIDTH, hidden) * (2 / WIDTH) ** 0.5 for _ in range(2))
        self.V = nn.ParameterList(torch.randn(WIDTH, hidden) * hidden**-0.5 for _ in range(2))
        self.out = nn.Linear(WIDTH, 256)
        self.k = hidden if k is None else k

    def forward(self, contexts: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the activation map of each block."""
        h, maps = self.mix(self.embed(contexts).flatten(1)), []
        for norm, K, V in zip(self.norms, self.K, self.V, strict=True):
            maps.append(fast.topk_relu(norm(h) @ K, k=self.k))
            h = h + maps[-1] @ V.T
        return self.out(h), maps


class Trained(NamedTuple):
    """A trained model and how it does on held-out bytes."""

    model: Blocks
    loss: float
    """Nats per held-out byte."""
    density: list[float]
    """Active share of each block on held-out bytes."""


def train(
    *,
    seed: int,
    steps: int = 1500,
    hidden: int = 512,
    k: int | None = None,
    shuffled: bool = False,
    every: int = 0,
    report: Callable[[int, list[float]], None] | None = None,
) -> Trained:
    """Train `Blocks` by Adam and measure it on held-out text; `report(step, density)` each `every` steps."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, draw = Blocks(hidden, k), torch.Generator().manual_seed(seed)
        seen, held_out = pairs("train"), pairs("held_out")
        adam = torch.optim.Adam(model.parameters(), lr=2e-3, fused=True)
        for step in range(steps + 1):
            if report and step % every == 0:
                report(step, evaluate(model, held_out).density)
            if step == steps:
                break
            contexts, targets = seen.batch(torch.randint(len(seen.starts), (BATCH,), generator=draw))
            if shuffled:
                targets = targets[torch.randperm(BATCH, generator=draw)]
            adam.zero_grad()
            F.cross_entropy(model(contexts)[0], targets).backward()
            adam.step()
        return evaluate(model, held_out)


class Pairs(NamedTuple):
    """Bytes, and every place at which eight of them and their successor start."""

    data: Tensor
    starts: Tensor

    def batch(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """(contexts, the byte after each)."""
        windows = self.data[self.starts[chosen, None] + torch.arange(CONTEXT + 1)].long()
        return windows[:, :-1], windows[:, -1]


def pairs(split: str) -> Pairs:
    """Every place of the documentation text that has eight bytes before it."""
    data = torch.from_numpy(text.pydocs(split))
    return Pairs(data, torch.arange(len(data) - CONTEXT))


@torch.no_grad()
def evaluate(model: Blocks, held_out: Pairs, tokens: int = 8192) -> Trained:
    """Loss and active shares on evenly spaced held-out bytes."""
    chosen = torch.linspace(0, len(held_out.starts) - 1, tokens).long()
    contexts, targets = held_out.batch(chosen)
    logits, maps = model(contexts)
    real = torch.ones(tokens, dtype=torch.bool)
    density = [float(fast.nonzero_stats(a, real).density) for a in maps]
    return Trained(model, float(F.cross_entropy(logits, targets)), density)


class Robustness(NamedTuple):
    """Measured on held-out digits."""

    accuracy: float
    noisy_inputs: float
    ece: float
    density: float


def digits(seed: int, *, k: int, wrong_labels: float, epochs: int = 40) -> Robustness:
    """A 64-1024-10 network trained on digits; a share of the labels is drawn anew over all classes."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        (x, y), (held_x, held_y) = (tensors(split) for split in ("train", "held_out"))
        wrong = torch.rand(len(y)) < wrong_labels
        y = torch.where(wrong, torch.randint(CLASSES, y.shape), y)
        up, out = nn.Linear(64, 1024), nn.Linear(1024, CLASSES)
        nn.init.kaiming_normal_(up.weight)
        adam = torch.optim.Adam([*up.parameters(), *out.parameters()], lr=1e-3, fused=True)

        def hidden(inputs: Tensor) -> Tensor:
            return fast.topk_relu(up(inputs), k=k)

        def logits(inputs: Tensor) -> Tensor:
            return out(hidden(inputs))

        for _ in range(epochs):
            for chosen in torch.randperm(len(y)).split(64):
                adam.zero_grad()
                F.cross_entropy(logits(x[chosen]), y[chosen]).backward()
                adam.step()
        with torch.no_grad():
            p = logits(held_x).softmax(1)
            noisy = logits(held_x + PIXEL_NOISE * torch.randn(held_x.shape)).argmax(1)
        return Robustness(
            accuracy=float((p.argmax(1) == held_y).float().mean()),
            noisy_inputs=float((noisy == held_y).float().mean()),
            ece=calibration_error(p, held_y),
            density=float((hidden(held_x) > 0).float().mean()),
        )


def tensors(split: str) -> Iterator[Tensor]:
    """Flat pixels in [0, 1] and labels."""
    x, y = images.digits(split)
    return torch.from_numpy(x).float().flatten(1), torch.from_numpy(y).long()


def calibration_error(p: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected calibration error of the top-1 probability over equal-width bins."""
    confidence, guess = p.max(dim=1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins).index_add(0, which, (guess == y).float() - confidence)
    return float(gap.abs().sum() / len(y))
