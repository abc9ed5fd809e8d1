"""TopK SAEs on a planted dictionary: what k does to the fit and to the features found."""

import numpy as np

from sparselab.data import planted
from sparselab.metrics.sae import fvu, l0, mmcs
from sparselab.sae.topk import fast

FEATURES, WIDTH, LATENTS, ACTIVE = 96, 32, 192, 4
STEPS, BATCH, LR, WINDOW = 1500, 512, 3e-3, 20_000


def measure(seed: int) -> dict[str, float]:
    """FVU, MMCS and L0 on fresh data for k at, and four times, the true number of active features.

    `dead_*` is the share of latents that are silent on 4,000 inputs, with AuxK and without.
    """
    right, large = train(seed, k=ACTIVE), train(seed, k=4 * ACTIVE)
    without = train(seed, k=ACTIVE, alpha=0.0)
    dictionary = planted.unit_rows(FEATURES, WIDTH, rng=seed)
    chance = mmcs(planted.unit_rows(LATENTS, WIDTH, rng=seed + 1), dictionary)
    return {
        **{f"{name}_true_k": value for name, value in right.items()},
        **{f"{name}_large_k": value for name, value in large.items()},
        **{f"{name}_without_auxk": value for name, value in without.items()},
        "mmcs_chance": chance,
        "fvu_ratio": large["fvu"] / right["fvu"],
        "mmcs_lost": right["mmcs"] - large["mmcs"],
        "dead_ratio": right["dead"] / without["dead"],
    }


def train(seed: int, *, k: int, alpha: float = 1 / 32) -> dict[str, float]:
    """Train on sums of Zipf-distributed features, lr falling to 0 over the last fifth; then evaluate."""
    import torch

    rng = np.random.default_rng(seed)
    dictionary = planted.unit_rows(FEATURES, WIDTH, rng=seed)
    seen, unseen = (
        planted.sparse(dictionary, n=n, active=ACTIVE, zipf=1, rng=rng).x for n in (50_000, 4_000)
    )
    x, held_out = torch.from_numpy(seen).float(), torch.from_numpy(unseen).float()
    directions = torch.from_numpy(rng.standard_normal((LATENTS, WIDTH))).float()
    state = fast.start(fast.init(x[:BATCH], directions))
    for t in range(STEPS):
        batch = x[rng.integers(0, len(x), size=BATCH)]
        lr = LR * min(1, 5 * (1 - t / STEPS))
        state = fast.step(state, batch, k=k, k_aux=WIDTH // 2, window=WINDOW, lr=lr, alpha=alpha)
    code = fast.encode(state.params, held_out, k=k)
    fired = code.latent_idx[code.values > 0].unique()
    return {
        "fvu": fvu(unseen, fast.decode(state.params, code).numpy()),
        "mmcs": mmcs(state.params.w_dec.numpy(), dictionary),
        "l0": l0(code.values.numpy()),
        "dead": 1 - len(fired) / LATENTS,
    }
