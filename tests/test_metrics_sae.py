"""The SAE metrics against what is known exactly."""

import numpy as np
import pytest

from sparselab import judge
from sparselab.metrics.sae import fvu, l0, mmcs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)) * np.geomspace(0.1, 10, 6) + 5


def test_fvu_of_the_mean_is_one_and_of_x_itself_zero():
    assert judge.same(fvu(X, np.broadcast_to(X.mean(axis=0), X.shape)), 1.0)
    assert fvu(X, X) == 0


def test_fvu_counts_a_constant_offset():
    assert judge.same(fvu(X, X + 2), 4 * X.size / ((X - X.mean(axis=0)) ** 2).sum())


def test_fvu_is_one_ratio_and_not_a_mean_of_ratios():
    x, x_hat = np.array([[0.0, 0], [2, 0], [0, 4]]), np.array([[0.0, 0], [2, 0], [0, 0]])
    mean = x.mean(axis=0)
    assert judge.same(fvu(x, x_hat), 16 / ((x - mean) ** 2).sum())


def test_fvu_of_float32_is_computed_in_float64():
    small = (1e4 + RNG.normal(size=(200, 3))).astype(np.float32)
    off = small + np.float32(0.5)
    assert judge.same(fvu(small, off), fvu(small.astype(float), off.astype(float)), rtol=1e-6)


def test_l0_counts_negative_values_and_reads_dense_and_kept_alike():
    dense = np.array([[0, -1.0, 2, 0], [0, 0, 0, 0], [3, 0, 0, 0]])
    assert l0(dense) == 1.0
    assert l0(np.array([[-1.0, 2], [0, 0], [3, 0]])) == l0(dense)


def test_mmcs_ignores_length_and_order_but_not_sign_unless_asked():
    true = RNG.normal(size=(7, 5))
    shuffled = true[::-1] * np.arange(1, 8)[:, None]
    assert judge.same(mmcs(shuffled, true), 1.0)
    assert mmcs(-true[:1], true[:1]) == pytest.approx(-1)
    assert judge.same(mmcs(-shuffled, true, signed=True), 1.0)


def test_mmcs_averages_over_the_true_features_and_not_the_latents():
    true = np.eye(4)
    assert judge.same(mmcs(true[:1], true), 0.25)
    assert judge.same(mmcs(np.concatenate([true, RNG.normal(size=(9, 4))]), true), 1.0)


def test_random_directions_score_what_the_docstring_says():
    rng = np.random.default_rng(1)
    found = [mmcs(rng.normal(size=(192, 32)), rng.normal(size=(500, 32))) for _ in range(8)]
    assert abs(np.mean(found) - 0.465) < 0.005


@pytest.mark.parametrize(
    "bad",
    [
        lambda: fvu(X, X[:, :3]),
        lambda: fvu(X[:1], X[:1]),
        lambda: l0(np.zeros((0, 3))),
        lambda: mmcs(np.eye(3), np.eye(4)),
        lambda: mmcs(np.zeros((2, 3)), np.eye(3)),
        lambda: mmcs(np.zeros((0, 3)), np.eye(3)),
    ],
)
def test_bad_input_is_one_line_with_the_numbers(bad):
    with pytest.raises(ValueError, match=r"^[^\n]*\d[^\n]*$"):
        bad()
