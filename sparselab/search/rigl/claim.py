"""RigL, SET and a static random mask on the digits: a 64-300-100-10 MLP, sparse from the first step."""

from functools import partial
from math import floor, prod

import numpy as np

from sparselab.data import images
from sparselab.search.rigl import fast

SHAPES = (300, 64), (100, 300), (10, 100)
STEPS, BATCH, EVERY, END, ALPHA, LR = 1500, 128, 50, 1125, 0.3, 0.05


def measure(seed: int) -> dict[str, float]:
    """Held-out accuracy and training loss of the three rules, at 5 % and 2 % of the weights.

    The rules share initial mask (ERK densities), initial weights, batches and learning rate.
    """
    found = {}
    for percent in (5, 2):
        for rule in (static, set_, rigl):
            key = f"{rule.__name__.strip('_')}_{percent}"
            found[f"accuracy_{key}"], found[f"loss_{key}"] = train(rule, percent / 100, seed)
    for percent in (5, 2):
        for other in ("static", "set"):
            gain = found[f"accuracy_rigl_{percent}"] - found[f"accuracy_{other}_{percent}"]
            found[f"gain_over_{other}_{percent}"] = gain
        found[f"loss_ratio_{percent}"] = found[f"loss_rigl_{percent}"] / found[f"loss_static_{percent}"]
    return found


def static(state, grad, lr, noise):
    """Learn on every step; the mask stays as it was drawn."""
    return fast.step(state, grad, lr=lr, every=EVERY, end=1)


def rigl(state, grad, lr, noise):
    """Learn, or drop the smallest and grow where the gradient is large."""
    return fast.step(state, grad, lr=lr, every=EVERY, end=END, alpha=ALPHA)


def set_(state, grad, lr, noise):
    """Learn on every step; then, where RigL would exchange, drop the smallest and grow at random."""
    t, state = state.t, static(state, grad, lr, noise)
    if not 0 < t < END or t % EVERY:
        return state
    n = int(state.mask.sum())
    keep = n - floor(fast.drop_fraction(t, end=END, alpha=ALPHA) * n)
    new = fast.drop_and_grow(state.w, state.mask, noise(state.w.shape), keep=keep)
    return state._replace(w=new.w, mask=new.mask, velocity=state.velocity * new.mask)


def train(rule, density: float, seed: int) -> tuple[float, float]:
    """(held-out accuracy, training loss) after STEPS steps."""
    import torch
    import torch.nn.functional as F

    rng = np.random.default_rng(seed)
    x, labels = _tensors("train")
    states = [
        _start(shape, share, rng)
        for shape, share in zip(SHAPES, fast.erk(SHAPES, density=density), strict=True)
    ]
    batches, noise = rng.integers(0, len(x), size=(STEPS, BATCH)), partial(_uniform, rng)

    def logits(weights, h):
        for w in weights[:-1]:
            h = F.linear(h, w).relu()
        return F.linear(h, weights[-1])

    for t, batch in enumerate(batches):
        weights = [state.w.requires_grad_() for state in states]
        grads = torch.autograd.grad(F.cross_entropy(logits(weights, x[batch]), labels[batch]), weights)
        lr = LR * min(1, 4 * (1 - t / STEPS))
        states = [rule(state, grad, lr, noise) for state, grad in zip(states, grads, strict=True)]
    weights = [state.w for state in states]
    unseen, truth = _tensors("held_out")
    accuracy = (logits(weights, unseen).argmax(dim=1) == truth).float().mean()
    return float(accuracy), float(F.cross_entropy(logits(weights, x), labels))


def _start(shape, share, rng):
    """Random mask with the layer's share of weights, He-scaled to the fan-in that is left; no velocity."""
    import torch

    mask = np.zeros(prod(shape), bool)
    mask[rng.permutation(mask.size)[: round(share * mask.size)]] = True
    w = rng.standard_normal(shape) * np.sqrt(2 / (share * shape[1])) * mask.reshape(shape)
    w = torch.from_numpy(w).float()
    return fast.State(w, torch.from_numpy(mask.reshape(shape)), torch.zeros_like(w), 0)


def _uniform(rng, shape):
    import torch

    return torch.from_numpy(rng.random(tuple(shape))).float()


def _tensors(split):
    import torch

    digits = images.digits(split)
    return torch.from_numpy(2 * digits.images.reshape(-1, 64) - 1).float(), torch.from_numpy(digits.labels)
