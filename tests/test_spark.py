"""Spark's gradients flow through mean and deviation, and not through the threshold of attention."""

import numpy as np
import torch
from torch.nn import functional as F

from sparselab import judge
from sparselab.lazy.spark import fast as spark
from sparselab.topk.statistical import fast as statistical


def slopes(layer, seed=3, b=4, r=3, e=2, m=40, k=6):
    """Gradient of K1 for a random projection of the layer's output."""
    rng = np.random.default_rng(seed)
    q, K1, K2, V = (
        torch.from_numpy(rng.normal(size=shape)) for shape in ((b, r + e), (r, m), (e, m), (r + e, m))
    )
    K1.requires_grad_()
    total = (layer(q, K1, K2, V, k=k) * torch.from_numpy(rng.normal(size=(b, r + e)))).sum()
    return torch.autograd.grad(total, K1)[0]


def detached(q, K1, K2, V, *, k):
    """The layer with mean and deviation taken for constants."""
    u = q[..., : len(K1)] @ K1
    active = F.relu(u - statistical.threshold(u.detach(), k=k).unsqueeze(-1))
    return (F.gelu(active) * (q[..., len(K1) :] @ K2)) @ V.T


def test_gradients_of_a_row_of_scores_sum_to_zero():
    """Adding one number to a row changes nothing, so the columns of K1's gradient sum to zero."""
    assert judge.same(slopes(spark.ffn).sum(1), np.zeros(3), atol=1e-9)


def test_detached_statistics_break_that_law():
    assert slopes(detached).sum(1).abs().min() > 1e-2


def test_the_layer_itself_does_not_change_when_statistics_are_detached():
    rng = np.random.default_rng(0)
    q, K1, K2, V = (torch.from_numpy(rng.normal(size=s)) for s in ((4, 5), (3, 40), (2, 40), (5, 40)))
    assert judge.same(detached(q, K1, K2, V, k=6), spark.ffn(q, K1, K2, V, k=6))


def test_scores_and_their_gradients_are_orthogonal_up_to_the_output():
    """soft(a u) = a soft(u): sum u g = sum soft(u) dy, row by row."""
    rng = np.random.default_rng(1)
    u, dy = (torch.from_numpy(rng.normal(size=(5, 30))) for _ in range(2))
    u.requires_grad_()
    y = statistical.soft(u, k=4)
    (g,) = torch.autograd.grad((y * dy).sum(), u)
    assert judge.same((u * g).sum(-1), (y * dy).sum(-1), atol=1e-9)


def test_no_gradient_reaches_the_threshold_of_attention():
    """With the selection given, the gradient is that of a masked softmax; keys that are dropped get none."""
    rng = np.random.default_rng(2)
    q, k, v = (torch.from_numpy(rng.normal(size=(1, 1, 12, 6))).requires_grad_() for _ in range(3))
    out = spark.attend(q, k, v, keep=2, r=3, scale=1.0, value_scale=1.0)
    u, w = q[..., :3] @ k[..., :3].mT, q[..., 3:] @ k[..., 3:].mT
    kept = spark.select(u, keep=2)
    plain = (u.masked_fill(~kept, -torch.inf).softmax(-1) * F.softplus(w)) @ v
    cotangent = torch.from_numpy(rng.normal(size=(1, 1, 12, 6)))
    for one, other in zip(
        *(torch.autograd.grad((a * cotangent).sum(), (q, k, v)) for a in (out, plain)), strict=True
    ):
        assert judge.same(one, other)
    (dv,) = torch.autograd.grad(spark.attend(q, k, v, keep=2, r=3)[..., -1, :].sum(), v)
    last = spark.select(q[..., :3] @ k[..., :3].mT, keep=2)[0, 0, -1]
    assert np.array_equal(judge.numpy(dv[0, 0].abs().sum(-1) > 0), judge.numpy(last))


def test_gradients_of_keys_first_halves_sum_to_zero():
    rng = np.random.default_rng(4)
    q, k, v = (torch.from_numpy(rng.normal(size=(2, 2, 9, 4))) for _ in range(3))
    k.requires_grad_()
    (g,) = torch.autograd.grad((spark.attend(q, k, v, keep=3, r=2) ** 2).sum(), k)
    assert judge.same(g[..., :2].sum(2), np.zeros((2, 2, 2)), atol=1e-9)
    assert g[..., 2:].sum(2).abs().min() > 1e-3


def test_about_k_neurons_of_a_gaussian_layer_are_active():
    rng = np.random.default_rng(5)
    q, K1, K2 = (torch.from_numpy(rng.normal(size=s)) for s in ((200, 128), (64, 2048), (64, 2048)))
    active = (spark.hidden(q, K1, K2, k=164) != 0).sum(1).double()
    assert abs(float(active.mean()) / 164 - 1) < 0.02
    assert float(active.std()) < (164 * (1 - 164 / 2048)) ** 0.5
