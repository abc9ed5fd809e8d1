"""What the generic suite cannot say of block-sparse attention: torch's own opinion, sizes above a tile."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sparselab import judge
from sparselab.attention.block_sparse import fast, kernel, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def problem(b=1, h=2, g=1, t=24, s=40, d=8, e=6, *, lists=2, slots=3, query_block=8, key_block=8, seed=0):
    """(q, k, v, blocks_idx) in float64 and the sizes; about one slot in five is empty."""
    rng = np.random.default_rng(seed)
    n, blocks = -(-t // query_block), -(-s // key_block)
    idx = np.argsort(rng.random((b, lists, n, blocks)), axis=-1)[..., :slots]
    idx = np.where(rng.random(idx.shape) < 0.2, -1, idx)
    shapes = (b, h, t, d), (b, g, s, d), (b, g, s, e)
    arrays = [torch.from_numpy(rng.normal(size=shape)) for shape in shapes]
    return (*arrays, torch.from_numpy(idx)), dict(query_block=query_block, key_block=key_block)


def shown(q, k, idx, *, query_block, key_block, causal=False):
    """The mask "b h t s" that the lists mean."""
    blocks = -(-k.shape[2] // key_block)
    listed = (idx.unsqueeze(-1) == torch.arange(blocks)).any(dim=3)
    mask = listed.repeat_interleave(query_block, 2).repeat_interleave(key_block, 3)
    mask = mask[:, :, : q.shape[2], : k.shape[2]].repeat_interleave(q.shape[1] // idx.shape[1], 1)
    return mask.tril(k.shape[2] - q.shape[2]) if causal else mask


def slopes(out, inputs):
    weight = torch.from_numpy(np.random.default_rng(5).normal(size=tuple(out.shape))).to(out)
    return torch.autograd.grad((weight * out).sum(), inputs)


@pytest.mark.parametrize("causal", [False, True])
def test_torch_attention_under_the_same_mask_agrees(causal):
    (q, k, v, idx), sizes = problem(h=4, g=2, lists=2, t=21, s=37)
    idx[..., 0] = torch.arange(3) + 2 * causal  # a row that sees nothing is NaN there, and here 0
    idx[..., 1:][idx[..., 1:] == idx[..., :1]] = -1
    inputs = [a.requires_grad_() for a in (q, k, v)]
    ours = fast.attend(q, k, v, idx, **sizes, causal=causal).out
    mask = shown(q, k, idx, **sizes, causal=causal)
    assert mask.any(dim=-1).all()
    theirs = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    assert judge.same(ours, theirs)
    assert judge.same(slopes(ours, inputs), slopes(theirs, inputs))


def test_the_size_of_a_chunk_changes_nothing(monkeypatch):
    (q, k, v, idx), sizes = problem(h=4, g=2, lists=4)
    inputs = [a.requires_grad_() for a in (q, k, v)]

    def run():
        result = fast.attend(q, k, v, idx, **sizes, causal=True)
        return result, slopes(result.out, inputs)

    whole = run()
    for numbers in (1, 5_000):
        monkeypatch.setattr(fast, "CHUNK", numbers)
        assert judge.same(run(), whole), numbers


@pytest.mark.parametrize("attend", [fast.attend, kernel.attend], ids=["fast", "kernel"])
def test_the_layout_in_memory_changes_nothing(attend):
    """Heads behind the tokens, as a projection leaves them, and lists of another layout and width."""
    (q, k, v, idx), sizes = problem(h=2, g=2, t=12)
    q, k, v, idx = (a.to(DEVICE) for a in (q.float(), k.float(), v.float(), idx))
    strided = [a.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for a in (q, k, v)]
    plain = [a.requires_grad_() for a in (q, k, v)]
    lists = idx.transpose(2, 3).contiguous().transpose(2, 3).int()
    one, other = attend(*plain, idx, **sizes), attend(*strided, lists, **sizes)
    assert judge.same(other, one, rtol=0, atol=0)
    upwards = torch.ones_like(one.out).transpose(1, 2).contiguous().transpose(1, 2)
    slopes_of_one = torch.autograd.grad(one.out, plain, torch.ones_like(one.out))
    assert judge.same(torch.autograd.grad(other.out, strided, upwards), slopes_of_one, rtol=0, atol=0)


def test_slopes_of_the_logits_cancel_and_keys_on_no_list_have_none():
    (q, k, v, idx), sizes = problem(h=1, lists=1)
    idx[idx == 2] = -1
    idx[..., 0] = 1
    idx[..., 1:][idx[..., 1:] == 1] = -1
    weights = torch.zeros(k.shape[:3], dtype=k.dtype)
    inputs = [a.requires_grad_() for a in (k, v, weights)]
    out = fast.attend(q, k, v, idx, weights, **sizes).out
    grad_k, grad_v, grad_weights = slopes(out, inputs)
    assert not grad_k[:, :, 16:24].any() and not grad_v[:, :, 16:24].any()
    assert grad_k[:, :, 8:16].all() and grad_v[:, :, 8:16].all()
    assert judge.same(grad_weights.sum(), np.float64(0))
    total = torch.ones_like(out)
    assert judge.same(
        torch.autograd.grad(fast.attend(q, k, v, idx, **sizes).out, v, total)[0].sum(), out.numel() * 1.0
    )


def test_pooled_keys_stand_for_their_block():
    """Where keys and values are constant inside each block, one pooled key with weight log 8 is the block."""
    (q, k, v, idx), sizes = problem(lists=2, h=2, g=2)
    k, v = (a[:, :, ::8].repeat_interleave(8, dim=2) for a in (k, v))
    idx = torch.arange(5).expand(1, 2, 3, 5)
    fine = idx.where(idx % 2 == 0, -1)
    pooled = (
        k[:, :, ::8],
        v[:, :, ::8],
        idx.where(idx % 2 == 1, -1),
        torch.full((1, 2, 5), math.log(8), dtype=q.dtype),
    )
    mixed = fast.merge(
        fast.attend(q, k, v, fine, **sizes), fast.attend(q, *pooled, query_block=8, key_block=1)
    )
    assert judge.same(mixed, fast.attend(q, k, v, idx, **sizes))


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, *([torch.bfloat16] if DEVICE == "cuda" else [])]
)
@pytest.mark.parametrize(
    "shape",
    [
        dict(h=4, g=2, lists=2, t=90, s=150, query_block=45, key_block=70, slots=2),
        dict(h=2, g=2, lists=2, t=9, s=200, query_block=1, key_block=16, slots=9, d=20, e=70),
        dict(h=2, g=1, lists=1, t=70, s=70, query_block=70, key_block=3, slots=23),
    ],
    ids=["blocks above a tile", "one query each, wide values", "one list of many small blocks"],
)
def test_kernel_tiles_do_not_show(shape, dtype):
    (q, k, v, idx), sizes = problem(**shape)
    q, k, v = (a.to(dtype) for a in (q, k, v))
    want = reference.attend(*(a.double().numpy() for a in (q, k, v)), idx.numpy(), **sizes, causal=True)

    def run(attend, dtype, device="cpu"):
        inputs = [a.to(device, dtype).requires_grad_() for a in (q, k, v)]
        got = attend(*inputs, idx.to(device), **sizes, causal=True)
        finite = torch.where(got.lse.isfinite(), got.lse, 0)
        return got, torch.autograd.grad((got.out.float() ** 2).sum() + finite.sum(), inputs)

    (plain, plain_slopes), (got, got_slopes) = run(fast.attend, dtype), run(kernel.attend, dtype, DEVICE)
    _, true_slopes = run(fast.attend, torch.float64)
    assert got.out.dtype == dtype and got.lse.dtype == plain.lse.dtype == torch.float32
    assert judge.no_worse(got.lse, plain.lse, want.lse)
    unit = 4 * torch.finfo(dtype).eps  # weights are rounded to the dtype before they meet the values
    for mine, theirs, true in [
        (got.out, plain.out, want.out),
        *zip(got_slopes, plain_slopes, true_slopes, strict=True),
    ]:
        true, size = judge.numpy(true).astype(np.float64), float(np.abs(judge.numpy(true)).max())
        error, error_of_plain = (np.abs(judge.numpy(a) - true).max() for a in (mine, theirs))
        assert error <= 2 * error_of_plain + unit * size


def test_kernel_names_the_way_out_where_it_cannot_run(monkeypatch):
    (q, k, v, idx), sizes = problem()
    with pytest.raises(ValueError, match="float64"):
        kernel.attend(q, k, v, idx, **sizes)
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match="interpreter"):
            kernel.attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), idx, **sizes)
        monkeypatch.setattr(kernel.triton.knobs.runtime, "interpret", False)
        with pytest.raises(ValueError, match="use fast"):
            kernel.attend(q.float(), k.float(), v.float(), idx, **sizes)
