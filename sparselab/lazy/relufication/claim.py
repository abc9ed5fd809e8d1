"""ReLUs put into the gated byte model, and the reuse of neurons in the model trained with ReLU."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparselab.data import text
from sparselab.lazy.relufication import fast
from sparselab.models import TinyLM, activations, load, reaching
from sparselab.topk.threshold.fast import calibrate

STEPS, BATCH, LENGTH, RATE = 80, 8, 128, 5e-4
SHIFT, DROPPED, WINDOW = 0.3, 0.2, 16


def measure(seed: int) -> dict[str, float]:
    """Both stages before and after tuning beside the original tuned as long; unions, reuse and FATReLU."""
    unseen = windows("held_out", np.random.default_rng(seed), n=16)
    return of_the_swap(seed, unseen) | of_the_union(seed, unseen)


def of_the_swap(seed: int, unseen: Tensor) -> dict[str, float]:
    """What ReLUs cost the gated model, and how many zeros they bring."""

    def swapped(shift: float) -> TinyLM:
        return load("lm_gated", ffn=lambda x, w: fast.hidden(x, w.up, w.gate, shift=shift))

    original, relu, shifted, everywhere = load("lm_gated"), swapped(0.0), swapped(SHIFT), swapped(0.0)
    hidden, normed = "blocks.*.ffn.hidden", ("blocks.*.attention.x", "blocks.*.ffn.x")
    rectified = dict.fromkeys(normed, F.relu)
    before, swap = loss(original, unseen), loss(relu, unseen)
    stage2 = loss(everywhere, unseen, rectified)
    for model in (original, relu, shifted):
        tune(model, seed)
    with reaching(everywhere, rectified):
        tune(everywhere, seed)
        stage2_tuned, stage2_density = loss(everywhere, unseen), density(everywhere, unseen, normed)
    after = loss(original, unseen)
    swap_density = density(relu, unseen, hidden)
    return {
        "loss": before,
        "tuned_loss": after,
        "swap_cost": swap - before,
        "swap_gap": loss(relu, unseen) - after,
        "swap_density": swap_density,
        "shift_gap": loss(shifted, unseen) - after,
        "shift_ratio": density(shifted, unseen, hidden) / swap_density,
        "stage2_cost": stage2 - before,
        "stage2_gap": stage2_tuned - after,
        "stage2_density": stage2_density,
    }


def of_the_union(seed: int, unseen: Tensor) -> dict[str, float]:
    """How far tokens of one text share neurons, and what it costs to use loaded or strong ones only."""
    model, generator = load("lm_relu"), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        maps = activations(model, unseen, "blocks.*.ffn.hidden")
    rates = [(layer > 0).float().mean(dim=(0, 1)) for layer in maps.values()]
    one_rate = torch.stack([fast.union_density(p.mean(), tokens=WINDOW) for p in rates]).mean()
    rate_each = torch.stack([fast.union_density(p, tokens=WINDOW).mean() for p in rates]).mean()
    texts = [a for layer in maps.values() for a in layer]
    union = torch.stack([fast.union(a, window=WINDOW).mean() for a in texts]).mean()

    def reused(h: Tensor) -> Tensor:
        return torch.stack([a * fast.loaded(a, window=WINDOW) for a in h])

    def as_many_at_random(h: Tensor) -> Tensor:
        order = torch.rand(h.shape[-1], generator=generator).argsort()
        return torch.stack([a * fast.loaded(a, window=WINDOW)[:, order] for a in h])

    def cost(at: Iterable[str], f: Callable[[Tensor], Tensor]) -> float:
        return loss(model, unseen, dict.fromkeys(at, f)) - dense

    dense, deep = loss(model, unseen), list(maps)[len(maps) // 2 :]
    cuts = {name: calibrate(layer[layer > 0], k=kept(layer)).item() for name, layer in maps.items()}
    fat = {name: partial(fast.fatrelu, threshold=cut) for name, cut in cuts.items()}
    return {
        "union": float(union),
        "union_to_law": float(union / one_rate),
        "union_to_rates": float(union / rate_each),
        "unused": float(torch.stack([fast.aggregated_sparsity(a)[-1] for a in texts]).mean()),
        "reuse_cost": cost(maps, reused),
        "reuse_gain": cost(maps, as_many_at_random) - cost(maps, reused),
        "deep_reuse_cost": cost(deep, reused),
        "deep_reuse_gain": cost(deep, as_many_at_random) - cost(deep, reused),
        "fatrelu_cost": loss(model, unseen, fat) - dense,
    }


def kept(layer: Tensor) -> int:
    """How many of the active entries a FATReLU leaves that drops the weakest."""
    return round((1 - DROPPED) * int((layer > 0).sum()))


def windows(split: str, rng: np.random.Generator, *, n: int) -> Tensor:
    """Random windows of the documentation text as tokens."""
    return torch.from_numpy(text.windows(text.pydocs(split), length=LENGTH + 1, n=n, rng=rng)).long()


def tune(model: TinyLM, seed: int) -> None:
    """A short run of AdamW on the training text, the same for every model."""
    rng = np.random.default_rng(seed)
    adam = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01, fused=True)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for step in range(STEPS):
            adam.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
            tokens = windows("train", rng, n=BATCH)
            adam.zero_grad()
            F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
            adam.step()
    model.eval()


@torch.no_grad()
def loss(model: TinyLM, tokens: Tensor, into: dict[str, Callable[[Tensor], Tensor]] | None = None) -> float:
    """Nats per byte, with functions at the named points."""
    with reaching(model, into or {}):
        logits = model(tokens[:, :-1])
    return float(F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))


@torch.no_grad()
def density(model: TinyLM, tokens: Tensor, names: Sequence[str]) -> float:
    """Share of entries at these points that are not zero."""
    shares = [(a != 0).float().mean() for a in activations(model, tokens, names).values()]
    return float(torch.stack(shares).mean())
