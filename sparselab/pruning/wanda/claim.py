"""Wanda against magnitude pruning, 2:4, on the real activations of the byte LM."""

import numpy as np
import torch

from sparselab.data import text
from sparselab.models import activations, load
from sparselab.pruning.wanda import fast


@torch.no_grad()
def measure(seed: int) -> dict[str, float]:
    """Relative output error of both masks on held-out tokens, mean over the down projections."""
    model, rng = load("lm_relu"), np.random.default_rng(seed)
    names = ["blocks.*.ffn.hidden"]
    seen, unseen = (
        activations(
            model, torch.from_numpy(text.windows(text.pydocs(split), length=128, n=16, rng=rng)), names
        )
        for split in ("train", "held_out")
    )
    errors = {"wanda": [], "magnitude": []}
    for i, block in enumerate(model.blocks):
        name = f"blocks.{i}.ffn.hidden"
        w, x, held_out = block.ffn.down, seen[name].flatten(0, 1), unseen[name].flatten(0, 1)
        for rule, inputs in (("wanda", x), ("magnitude", torch.ones_like(x))):
            kept = fast.mask(w, inputs, n=2, m=4)
            dense = held_out @ w.T
            errors[rule].append(float((held_out @ (w * kept).T - dense).norm() / dense.norm()))
    wanda, magnitude = np.mean(errors["wanda"]), np.mean(errors["magnitude"])
    return {"wanda_error": wanda, "magnitude_error": magnitude, "error_ratio": wanda / magnitude}
