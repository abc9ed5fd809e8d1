"""RigL beyond the generic suite: the published densities, heavy ties, and the right support found."""

import numpy as np
import pytest
import torch

from sparselab import judge
from sparselab.search.rigl import checks, fast, reference


def test_solving_eps_again_spends_the_budget_that_clipping_loses():
    sizes = np.array([np.prod(shape) for shape in checks.MLP])
    clipped = checks.clipped(checks.MLP, density=0.2)
    solved = reference.erk(checks.MLP, density=0.2)
    assert np.round(clipped, 3).tolist() == [0.218, 0.153, 1.0]
    assert np.round(solved, 3).tolist() == [0.224, 0.158, 1.0]
    assert clipped @ sizes < 0.196 * sizes.sum()
    assert judge.same(solved @ sizes, 0.2 * sizes.sum())


@pytest.mark.parametrize("seed", range(30))
def test_columns_agree_where_almost_everything_ties(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 9, size=rng.integers(1, 4)))
    mask = rng.random(shape) < rng.random()
    w, grad = (rng.integers(-1, 2, size=shape).astype(float) for _ in range(2))
    keep = int(rng.integers(0, mask.sum() + 1))
    want = reference.drop_and_grow(w * mask, mask, grad, keep=keep)
    got = fast.drop_and_grow(*(torch.from_numpy(np.array(a)) for a in (w * mask, mask, grad)), keep=keep)
    assert judge.difference(got, want) is None


@pytest.mark.parametrize("seed", range(3))
def test_rigl_finds_the_support_that_a_static_mask_misses(seed):
    """On |w - target|^2 / 2 the gradient at an inactive weight is its target: all that RigL needs to see."""
    rng = np.random.default_rng(seed)
    target, mask = np.zeros(64), np.zeros(64, bool)
    target[rng.permutation(64)[:8]] = rng.choice([-1, 1], size=8) * (1 + rng.random(8))
    mask[rng.permutation(64)[:8]] = True
    assert not (target[mask] != 0).all()

    def trained(end):
        state = reference.State(np.zeros(64), mask, np.zeros(64), 0)
        for _ in range(400):
            state = reference.step(state, state.w - target, lr=0.1, every=10, end=end, momentum=0.0)
        return state

    rigl, static = trained(end=300), trained(end=1)
    assert np.array_equal(rigl.mask, target != 0)
    assert judge.same(rigl.w, target, atol=1e-3)
    assert np.array_equal(static.mask, mask)
    assert np.abs(static.w - target).max() >= 1
