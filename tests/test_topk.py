"""What the generic suite cannot say about selection: tie rule, NaN, layouts, float32 at its limits."""

import sys

import numpy as np
import pytest
import torch

from sparselab import judge
from sparselab.kernels import require
from sparselab.topk.batch import fast as batch
from sparselab.topk.exact import fast as exact
from sparselab.topk.exact import reference as exact_definition
from sparselab.topk.statistical import fast as statistical
from sparselab.topk.statistical import kernel as statistical_kernel
from sparselab.topk.statistical import reference as statistical_definition
from sparselab.topk.threshold import fast as threshold

# ---------------------------------------------------------------- exact


def draws(kind, rng, shape):
    normal = rng.normal(size=shape)
    return {
        "normal": normal,
        "few values": np.round(normal),
        "mostly zero": np.maximum(normal - 2, 0),
        "constant": np.ones(shape),
        "rising": np.sort(normal),
        "falling": -np.sort(normal),
        "NaN and infinities": np.where(
            normal > 1, np.nan, np.where(normal > 0.8, np.inf, np.where(normal < -1, -np.inf, normal))
        ),
        "nothing but NaN": np.full(shape, np.nan),
        "half hidden": np.where(normal > 0, normal, -np.inf),
        "both zeros": np.where(normal > 0.5, 0.0, np.where(normal < -0.5, -0.0, np.abs(normal) - 1)),
        "tiny": 1e-42 * normal,  # below the smallest normal float32
        "all large ones in one group": np.where(np.arange(shape[1]) % 16, normal, normal + 9),
    }[kind]


KINDS = ("normal", "few values", "mostly zero", "constant", "rising", "falling", "NaN and infinities")
MORE = ("nothing but NaN", "half hidden", "both zeros", "tiny", "all large ones in one group")


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
@pytest.mark.parametrize("way", ["loops", "tournament"])
@pytest.mark.parametrize(("n", "k"), [(7, 3), (64, 4), (129, 8), (1000, 5), (4099, 40), (600, 299)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_very_entries_of_the_definition_are_picked(kind, way, n, k, dtype, monkeypatch):
    """Not only equal scores: the lowest index of equals, at widths that groups divide or do not."""
    if way == "tournament":
        monkeypatch.setattr(exact, "fit", lambda a, b: False)
    x = torch.from_numpy(draws(kind, np.random.default_rng(n + k), (4, n))).to(dtype)
    want = exact_definition.topk(x.double().numpy(), k=k)
    got = exact.topk(x, k=k)
    assert np.array_equal(np.sort(got.top_idx.numpy()), np.sort(want.top_idx))
    assert judge.same(got.values.double(), want.values)


def test_a_tournament_is_played_in_these_tests(monkeypatch):
    """Were every row too short for it, the test above would test torch.topk."""
    monkeypatch.setattr(exact, "fit", lambda a, b: False)
    rounds = []
    plain = exact._tournament
    monkeypatch.setattr(exact, "_tournament", lambda *a, **o: rounds.append(a[0].shape[1]) or plain(*a, **o))
    exact.topk(torch.randn(2, 4099), k=40)
    assert rounds == [4099, 512]


def test_the_loops_leave_only_hard_rows_to_the_tournament(monkeypatch):
    rows = []
    plain = exact._tournament
    monkeypatch.setattr(exact, "_tournament", lambda *a, **o: rows.append(len(a[0])) or plain(*a, **o))
    x = torch.randn(6, 4099, generator=torch.Generator().manual_seed(0))
    x[4, 7] = torch.nan
    exact.topk(x[:4], k=40)
    assert rows == []
    exact.topk(x, k=40)
    assert rows[0] == 1


@pytest.mark.parametrize("layout", ["transposed", "strided", "expanded"])
def test_any_layout_of_memory(layout):
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    view = {"transposed": x.T, "strided": x[::2, ::3], "expanded": x[:1].expand(5, -1)}[layout]
    want = exact_definition.topk(view.numpy(), k=9)
    assert judge.same(exact.topk(view, k=9).values, want.values)
    assert judge.same(statistical.soft(view, k=9), statistical.soft(view.contiguous(), k=9))
    assert judge.same(batch.keep(view, k=2), batch.keep(view.contiguous(), k=2))


def test_ties_late_in_a_long_row_are_found():
    """The first of the equals stand beyond the part of the row that is searched first."""
    x = torch.zeros(1, 60_000)
    x[0, 2000:] = 1.0
    assert exact.topk(x, k=3).top_idx.tolist() == [[2000, 2001, 2002]]


def test_gradient_of_values_reaches_the_survivors_only():
    x = torch.randn(3, 200, requires_grad=True)
    exact.topk(x, k=5).values.sum().backward()
    assert torch.equal(x.grad.bool(), exact.mask(x.detach(), k=5))


def test_kth_of_many_rows_is_the_last_of_topk():
    x = torch.randn(5, 999, dtype=torch.float64)
    assert torch.equal(threshold.kth(x, k=17), exact.topk(x, k=17).values[:, -1])


# ---------------------------------------------------------------- statistical


@pytest.mark.parametrize("soft", [statistical.soft, statistical_kernel.soft], ids=["fast", "kernel"])
@pytest.mark.parametrize(("mean", "std"), [(0, 1), (1e4, 1), (-1e6, 3), (1e4, 1e-2), (0, 1e-12), (1e7, 1e3)])
def test_moments_stay_right_where_the_mean_dwarfs_the_spread(soft, mean, std):
    """Float32 input as it is; the error is a few roundings of the spread, not of the mean."""
    rng = np.random.default_rng(0)
    x = (mean + std * rng.normal(size=(3, 3000))).astype(np.float32)
    want = statistical_definition.soft(x.astype(np.float64), k=240)
    got = soft(torch.from_numpy(x), k=240)
    assert judge.same(got.double(), want, rtol=0, atol=3e-6 * x.std(dtype=np.float64))


def test_two_moments_would_fail_there():
    """The guard can fail: E[x^2] - E[x]^2 in float32 loses everything at mean 1e4."""
    x = torch.from_numpy((1e4 + np.random.default_rng(0).normal(size=3000)).astype(np.float32))
    std = (x.square().mean() - x.mean().square()).clamp_min(0).sqrt()
    assert abs(std - 1) > 0.1


@pytest.mark.parametrize("soft", [statistical.soft, statistical_kernel.soft], ids=["fast", "kernel"])
@pytest.mark.parametrize("value", [0.7, -1e9, 1e-30, 0.0])
def test_a_constant_row_gives_zero_and_gradient_zero(soft, value):
    x = torch.full((2, 1001), value, requires_grad=True)
    y = soft(x, k=80)
    (y.sum() + y.square().sum()).backward()
    assert not y.any() and not x.grad.any()


@pytest.mark.parametrize("soft", [statistical.soft, statistical_kernel.soft], ids=["fast", "kernel"])
def test_the_laws_of_the_gradient(soft):
    """sum g = 0 and sum x g = sum y dy: both fail where mean and std are detached."""
    generator = torch.Generator().manual_seed(0)
    x = (3 + 2 * torch.randn(4, 700, generator=generator)).requires_grad_()
    cotangent = torch.randn(4, 700, generator=generator)
    y = soft(x, k=60)
    (g,) = torch.autograd.grad(y, x, cotangent)
    size = g.abs().sum(-1).double()
    assert (g.double().sum(-1).abs() <= 1e-6 * size).all()
    euler = (x.double() * g.double()).sum(-1) - (y * cotangent).double().sum(-1)
    assert (euler.abs() <= 1e-5 * size).all()
    detached = cotangent * (y > 0)
    assert (detached.double().sum(-1).abs() > 1e-3 * size).all()


def test_the_closed_form_is_what_autograd_finds():
    x = torch.randn(3, 50, dtype=torch.float64, requires_grad=True)
    y = statistical.soft(x, k=8)
    cotangent = torch.randn(3, 50, dtype=torch.float64)
    theta = statistical.threshold(x, k=8).unsqueeze(-1)
    (closed,) = torch.autograd.grad(y, x, cotangent)
    (plain,) = torch.autograd.grad((x - theta).clamp_min(0), x, cotangent)
    assert judge.same(closed, plain)


@pytest.mark.parametrize("soft", [statistical.soft, statistical_kernel.soft], ids=["fast", "kernel"])
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy's, inside the interpreter
def test_a_poisoned_row_is_nan_and_its_neighbour_is_not(soft, poison):
    x = torch.randn(2, 37)
    x[0, 20] = poison
    y = soft(x, k=4)
    assert y[0].isnan().all() and y[1].isfinite().all()
    assert statistical.threshold(x, k=4).isnan().tolist() == [True, False]


def test_half_precision_has_its_statistics_in_float32():
    x = 100 + torch.randn(2, 4000)
    for dtype in (torch.bfloat16, torch.float16):
        half = x.to(dtype)
        got, want = statistical.soft(half, k=300), statistical.soft(half.float(), k=300)
        assert got.dtype == dtype
        assert torch.equal(got, want.to(dtype))
        assert judge.same(statistical_kernel.soft(half, k=300), want.to(dtype), atol=1e-5, rtol=1e-2)


def test_rows_are_the_same_alone_and_in_chunks(monkeypatch):
    x = torch.randn(9, 101, dtype=torch.float64)
    whole = statistical.soft(x, k=9)
    monkeypatch.setattr(statistical, "CHUNK", 1)
    assert torch.equal(statistical.soft(x, k=9), whole)


def test_a_long_row_takes_several_blocks_of_the_kernel():
    x = torch.randn(2, 40_000, requires_grad=True)
    got, want = statistical_kernel.soft(x, k=900), statistical.soft(x, k=900)
    cotangent = torch.randn(2, 40_000)
    assert judge.same(got, want, atol=1e-5)
    assert judge.same(
        torch.autograd.grad(got, x, cotangent)[0], torch.autograd.grad(want, x, cotangent)[0], atol=1e-5
    )


def test_survivors_are_those_of_soft():
    x = torch.randn(20, 300)
    assert torch.equal(statistical.survivors(x, k=20), statistical.soft(x, k=20) > 0)


# ---------------------------------------------------------------- batch


def test_the_cut_makes_inference_keep_what_training_keeps():
    """Over many batches of one law, tokens keep about k each with the running cut."""
    generator = torch.Generator().manual_seed(0)
    cut = torch.tensor(float("nan"))
    for _ in range(200):
        cut = batch.update(cut, torch.randn(64, 100, generator=generator), k=5, rate=0.05)
    kept = (batch.above(torch.randn(2000, 100, generator=generator), cut) > 0).sum() / 2000
    assert 4.8 < kept < 5.2


def test_before_the_first_batch_nothing_is_kept():
    assert not batch.above(torch.ones(3, 4), torch.tensor(float("nan"))).any()


# ---------------------------------------------------------------- where a kernel cannot run


def test_without_a_gpu_or_the_interpreter_a_kernel_names_fast(monkeypatch):
    import triton

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(ImportError, match="needs a GPU.*: use sparselab.topk.statistical.fast here"):
        require("sparselab.topk.statistical.kernel")


def test_without_triton_a_kernel_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match="needs triton, not installed: use sparselab.a.b.fast here"):
        require("sparselab.a.b.kernel")
