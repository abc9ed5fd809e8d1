"""TopK SAE beyond the generic suite: autograd and torch's Adam as witnesses, memory layout, no dense code."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sparselab import judge
from sparselab.sae.topk import checks, fast, reference

SETTINGS = dict(k=3, k_aux=4, alpha=0.5)


def batch(seed, *, d=6, m=48, b=20):
    rng = np.random.default_rng(seed)
    return checks.params(rng, d, m), rng.normal(size=(b, d)), rng.random(m) < 0.4


def in_torch(params):
    return fast.Params(*(torch.from_numpy(p.copy()).requires_grad_() for p in params))


def dense_loss(params, x, dead, *, k, k_aux, alpha):
    """The paper's loss on dense codes, for autograd."""

    def relu_of_largest(pi, n):
        kept = torch.zeros_like(pi).scatter(1, pi.topk(n).indices, 1.0)
        return torch.where(kept > 0, pi, 0).relu()

    pi = (x - params.b_dec) @ params.w_enc + params.b_enc
    error = x - (relu_of_largest(pi, k) @ params.w_dec + params.b_dec)
    left = error.detach()
    dead_pi = pi.masked_fill(~dead, -torch.inf)
    left_by_dead = left - relu_of_largest(dead_pi, min(k_aux, int(dead.sum()))) @ params.w_dec
    mse = (error**2).sum() / ((x - x.mean(0)) ** 2).sum()
    return mse + alpha * (left_by_dead**2).sum() / ((left - left.mean(0)) ** 2).sum()


@pytest.mark.parametrize("seed", range(5))
def test_gradients_are_those_of_autograd_with_the_residual_detached(seed):
    params, x, dead = batch(seed)
    weights = in_torch(params)
    total = dense_loss(weights, torch.from_numpy(x), torch.from_numpy(dead), **SETTINGS)
    assert judge.same(reference.loss(params, x, dead, **SETTINGS).total, total)
    witness = reference.Params(*torch.autograd.grad(total, weights))
    reason = judge.difference(reference.gradients(params, x, dead, **SETTINGS), witness)
    assert reason is None, reason


@pytest.mark.parametrize("seed", range(3))
def test_the_fast_loss_has_the_fast_gradients(seed):
    params, x, dead = batch(seed)
    weights, x, dead = in_torch(params), torch.from_numpy(x), torch.from_numpy(dead)
    slopes = torch.autograd.grad(fast.loss(weights, x, dead, **SETTINGS).total, weights)
    reason = judge.difference(fast.gradients(weights, x, dead, **SETTINGS), fast.Params(*slopes))
    assert reason is None, reason


def test_five_steps_are_those_of_torch_adam_with_projection_between():
    params, x, _ = batch(0)
    state, weights = reference.start(params), in_torch(params)
    adam = torch.optim.Adam(weights, lr=0.02)
    settings = dict(k=3, k_aux=4, window=45)
    for _ in range(5):
        code = reference.encode(state.params, x, k=3)
        since = state.since_fired + len(x)
        since[code.latent_idx[code.values > 0]] = 0
        dead = torch.from_numpy(since >= 45)
        if dead.any():
            total = dense_loss(weights, torch.from_numpy(x), dead, k=3, k_aux=4, alpha=1 / 32)
        else:
            total = fast.loss(weights, torch.from_numpy(x), dead, k=3, k_aux=4).total
        adam.zero_grad()
        total.backward()
        rows = weights.w_dec
        rows.grad -= (rows.grad * rows.detach()).sum(1, keepdim=True) * rows.detach()
        adam.step()
        with torch.no_grad():
            rows /= rows.norm(dim=1, keepdim=True)
        state = reference.step(state, x, lr=0.02, **settings)
    assert dead.any(), "the run never reaches AuxK"
    reason = judge.difference(state.params, reference.Params(*weights))
    assert reason is None, reason


def test_a_step_does_not_depend_on_how_the_weights_lie_in_memory():
    params, x, _ = batch(1)
    x = torch.from_numpy(x)
    rows = fast.Params(*(torch.from_numpy(p) for p in params))
    columns = fast.Params(*(p.T.contiguous().T if p.ndim == 2 else p for p in rows))
    assert rows.w_enc.stride() != columns.w_enc.stride()
    settings = dict(k=3, k_aux=4, window=1, lr=0.01)
    one, other = fast.start(rows), fast.start(columns)
    for _ in range(2):
        one, other = fast.step(one, x, **settings), fast.step(other, x, **settings)
    assert judge.difference(one, other) is None


class Largest(TorchDispatchMode):
    """The size of the largest tensor made while it is on."""

    numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return out


def test_decoding_and_its_gradients_build_no_dense_code():
    params, x, _ = batch(2, d=4, m=512, b=64)
    weights, x = fast.Params(*(torch.from_numpy(p) for p in params)), torch.from_numpy(x)
    code = fast.encode(weights, x, k=3)
    with Largest() as largest:
        fast.decode(weights, code)
        fast._gradients(weights, x, code, torch.zeros(512, dtype=torch.bool), 4, 0.5)
    assert 0 < largest.numel <= weights.w_dec.numel() < x.shape[0] * 512
    with Largest() as guard:
        fast.encode(weights, x, k=3)
    assert guard.numel == x.shape[0] * 512, "the guard sees a dense array where there is one"


def test_training_brings_a_dead_latent_back():
    """A latent that never fires moves towards what the others leave, and AuxK alone does it."""
    params, x, _ = batch(3, m=12)
    params.b_enc[0] = 0
    params.w_enc[:, 0] = params.w_dec[0] * 1e-3
    state = reference.start(params)._replace(since_fired=np.eye(12, dtype=np.int64)[0] * 1000)
    settings = dict(k=1, k_aux=3, window=500, lr=0.01)
    moved = reference.step(state, x, **settings).params.w_dec[0]
    still = reference.step(state, x, **settings, alpha=0.0).params.w_dec[0]
    fired = 0 in reference.encode(params, x, k=1).latent_idx
    assert not fired
    assert judge.same(still, params.w_dec[0])
    assert not judge.same(moved, params.w_dec[0], rtol=1e-3)
