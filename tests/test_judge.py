"""The judge is judged: every way to be wrong must be seen, and said in words that help."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from jaxtyping import Float
from torch import Tensor

from sparselab import judge
from sparselab.method import find
from sparselab.pruning.wanda import reference as wanda


class Pair(NamedTuple):
    values: np.ndarray
    kept_idx: np.ndarray


def toy(**ops):
    """A method whose reference, cases and checks are given on the spot."""
    parts = {
        "reference": SimpleNamespace(**{name: spec["definition"] for name, spec in ops.items()}),
        "checks": SimpleNamespace(
            cases=lambda rng: [(op, label, kw) for op, s in ops.items() for label, kw in s["cases"]],
            CHECKS={op: s.get("facts", []) for op, s in ops.items()},
            WRONG={op: s.get("wrong", []) for op, s in ops.items()},
            HINTS={op: ["look", "step", "line"] for op in ops},
        ),
    }
    return SimpleNamespace(name="toy", part=parts.__getitem__)


DOUBLE = toy(double=dict(definition=lambda x: 2 * x, cases=[("three", {"x": np.arange(3.0)})]))


# ---------------------------------------------------------------- two arrays


finite = arrays.arrays(np.float64, st.integers(1, 6), elements=st.floats(-1e6, 1e6))


@given(finite)
def test_an_array_equals_itself(a):
    assert judge.difference(a.copy(), a) is None


@given(finite, st.integers(0, 5))
def test_a_change_of_one_part_in_a_million_is_seen(a, where):
    b = a.copy()
    b[where % len(a)] += 1e-6 * max(1.0, abs(b[where % len(a)]))
    assert f"differs at {where % len(a)}" in judge.difference(b, a)


@given(arrays.arrays(bool, st.integers(1, 6)), st.integers(0, 5))
def test_one_flipped_bit_is_seen(a, where):
    b = a.copy()
    b[where % len(a)] ^= True
    assert judge.difference(b, a) is not None


@pytest.mark.parametrize(
    ("got", "want", "said"),
    [
        (np.zeros((2, 3)), np.zeros((3, 2)), "your shape (2, 3), expected (3, 2)"),
        (np.zeros(2), np.zeros(2, bool), "your dtype float64, expected bool"),
        (np.zeros(2, int), np.zeros(2), "your dtype int64, expected float"),
        (None, np.zeros(2), "is a return missing?"),
        ("text", np.zeros(2), "your shape ()"),
        (np.zeros(2), (np.zeros(2), np.zeros(2)), "expected a tuple of 2"),
        ({"a": 1.0}, {"b": 1.0}, "the keys b"),
        (np.array([np.nan, 1]), np.array([0.0, 1]), "differs at 0"),
        (np.array([np.inf, 1]), np.array([-np.inf, 1]), "differs at 0"),
        (np.float64(1.0), np.float64(2.0), "yours 1., expected 2."),
    ],
)
def test_a_difference_is_named(got, want, said):
    assert said in judge.difference(got, want)


def test_nan_and_infinity_agree_with_themselves():
    a = np.array([np.nan, np.inf, -np.inf])
    assert judge.same(a.copy(), a)


def test_a_tensor_and_an_array_may_be_the_same():
    assert judge.same(torch.arange(3.0, dtype=torch.float64), np.arange(3.0))
    assert judge.same(torch.ones(2, dtype=torch.bfloat16), np.ones(2))
    assert judge.same(torch.ones(2, requires_grad=True), np.ones(2))


# ---------------------------------------------------------------- selections


SCORES = np.array([[3.0, 1.0, 2.0, 2.0]])


@pytest.mark.parametrize("got", [[[0, 2]], [[2, 0]], [[0, 3]], [[3, 0]]])
def test_a_selection_is_a_set_and_ties_are_free(got):
    assert judge.same_selection(np.array(got), np.array([[0, 2]]), SCORES)


@pytest.mark.parametrize(
    ("got", "why"),
    [
        ([[0, 1]], "a lower score"),
        ([[0, 0]], "the same index twice"),
        ([[0, -1]], "an empty slot"),
        ([[0, 9]], "out of range"),
        ([[0.0, 2.0]], "not integers"),
    ],
)
def test_a_wrong_selection_is_seen(got, why):
    assert not judge.same_selection(np.array(got), np.array([[0, 2]]), SCORES), why


def test_without_scores_only_equal_sets_agree():
    assert not judge.same_selection(np.array([[0, 3]]), np.array([[0, 2]]))


def test_the_name_of_a_field_makes_it_a_selection():
    want = Pair(np.array([3.0, 2.0]), np.array([0, 2]))
    assert judge.same(
        Pair(np.array([2.0, 2.0]), np.array([2, 0])), Pair(np.array([2.0, 2.0]), np.array([0, 2]))
    )
    assert not judge.same(want._replace(values=np.array([2.0, 3.0])), want)


def test_a_value_must_belong_to_the_index_beside_it():
    want = Pair(np.array([3.0, 2.0]), np.array([0, 2]))
    assert judge.same(Pair(np.array([3.0, 2.0]), np.array([0, 2])), want)
    parted = Pair(np.array([3.0, 2.0]), np.array([2, 0]))
    assert "3. does not belong to the index 2" in judge.difference(parted, want)


def test_values_and_indices_may_tie_elsewhere():
    want = Pair(np.array([3.0, 2.0]), np.array([0, 2]))
    assert judge.same(Pair(np.array([3.0, 2.0]), np.array([0, 3])), want, scores=SCORES[0])


# ---------------------------------------------------------------- kernels' tolerance


def test_twice_the_plain_error_passes_and_more_does_not():
    want = np.ones(100)
    plain = want + 1e-3
    assert judge.no_worse(want - 1.9e-3, plain, want)
    assert not judge.no_worse(want - 2.1e-3, plain, want)


def test_an_unwritten_output_is_worse():
    want = np.ones(4)
    assert not judge.no_worse(np.array([1, 1, np.nan, 1]), want, want)


def test_the_tolerance_is_not_too_wide():
    want = np.linspace(1, 2, 50)
    plain = want.astype(np.float32)
    assert not judge.no_worse(want + 1e-5, plain, want)


# ---------------------------------------------------------------- grades


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: 2 * x + 1e-6, "differs at 0"),
        (lambda x: None, "is a return missing?"),
        (lambda x: x[5], "raised IndexError"),
        (lambda: 1, "raised TypeError"),
        (lambda x: np.multiply(x, 2, out=x), "the input x was changed in place"),
        (lambda x: np.empty(3), "differs at"),
    ],
)
def test_a_wrong_answer_fails_with_the_reason(answer, said):
    grade = judge.grade(DOUBLE, "double", answer)
    assert not grade.ok
    assert said in str(grade)


def test_a_right_answer_passes():
    assert str(judge.grade(DOUBLE, "double", lambda x: x + x)) == "toy.double: all 1 public checks passed."


def test_a_stub_fails_politely():
    def stub(x):
        raise NotImplementedError

    grade = judge.grade(DOUBLE, "double", stub)
    assert not grade.ok
    assert str(grade) == "toy.double: not written yet. Hint: look"


def test_no_cases_is_no_pass():
    assert not judge.grade(toy(f=dict(definition=abs, cases=[])), "f", abs).ok


def test_each_attempt_reaches_one_hint_further():
    said = [judge.grade(DOUBLE, "double", lambda x: x, attempt=i).hint for i in range(5)]
    assert said == ["look", "step", "line", "line", "line"]


def test_a_wrong_answer_that_passes_is_caught():
    """The gate of test_methods on a method whose facts and cases are too weak to tell."""

    def squared(x):
        return x**2

    def magnitude(x):
        return np.abs(x)

    def grade(x):
        method = toy(f=dict(definition=squared, cases=[("only", {"x": x})], wrong=[("square it", magnitude)]))
        return judge.grade(method, "f", magnitude)

    assert grade(np.ones(2)).ok, "this case cannot tell |x| from x^2"
    assert grade(np.full(2, 2.0)).cause == "square it"


def test_the_cause_is_the_mistake_that_was_made():
    grade = judge.grade(find("wanda"), "mask", lambda w, x, *, n, m: wanda.mask(w, np.ones_like(x), n=n, m=m))
    assert grade.cause == "without the input norm this is magnitude pruning"


def test_a_missing_refusal_does_not_hide_the_cause():
    def careless(w, x, *, n, m):
        groups = np.abs(w).reshape(len(w), -1, m) if m and w.shape[1] % m == 0 else np.abs(w)[:, None]
        order = np.argsort(-groups, axis=-1, kind="stable")
        return (np.argsort(order, axis=-1, kind="stable") < n).reshape(w.shape)

    grade = judge.grade(find("wanda"), "mask", careless)
    assert grade.cause == "without the input norm this is magnitude pruning"


def test_an_unknown_mistake_has_no_cause_but_a_broken_fact():
    grade = judge.grade(find("wanda"), "mask", lambda w, x, *, n, m: np.zeros(w.shape, bool))
    assert grade.cause == ""
    assert grade.broken == "every group keeps exactly n"


def test_a_fact_that_breaks_fails_an_answer_without_a_definition():
    checks = SimpleNamespace(
        cases=lambda rng: [("law", "any", {"n": 4})],
        CHECKS={"law": [("the answer is even", lambda call, got, n: got % 2 == 0)]},
        WRONG={},
        HINTS={"law": ["one", "two", "three"]},
    )
    method = SimpleNamespace(name="toy", part={"reference": SimpleNamespace(), "checks": checks}.__getitem__)
    assert judge.grade(method, "law", lambda n: n).ok
    assert "the answer is even" in str(judge.grade(method, "law", lambda n: n + 1))


def test_an_answer_that_breaks_off_fails_without_a_definition():
    positive = [("it is positive", lambda call, got, x: (got > 0).all())]
    method = toy(find=dict(definition=None, cases=[("two", {"x": np.ones(2)})], facts=positive))
    assert judge.grade(method, "find", lambda x: x).ok
    assert "raised IndexError" in str(judge.grade(method, "find", lambda x: x[9]))


def test_an_error_that_the_definition_asks_for_must_be_raised():
    grade = judge.grade(
        find("wanda"), "row_mask", lambda w, x, *, keep: wanda.row_mask(w, x, keep=min(keep, 12))
    )
    assert "expected a ValueError (keep=13 must lie in 0..12" in str(grade)


def test_a_broken_definition_is_not_an_expected_error():
    broken = toy(f=dict(definition=lambda x: x[9], cases=[("short", {"x": np.ones(2)})]))
    with pytest.raises(IndexError):
        judge.grade(broken, "f", lambda x: x[9])


def test_an_answer_in_torch_gets_tensors():
    seen = []

    def double(x: Float[Tensor, " n"]):
        seen.append(type(x))
        return 2 * x

    assert judge.grade(DOUBLE, "double", double).ok
    assert seen == [Tensor]


def test_a_case_can_be_replayed():
    replayed = judge.case("wanda.mask", "1 of 4", seed=5)
    again = judge.case("wanda.mask", "1 of 4", seed=5)
    other = judge.case("wanda.mask", "1 of 4", seed=6)
    assert judge.same(replayed, again)
    assert not judge.same(replayed, other)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("wanda.msk", "no exercise is called 'wanda.msk'; did you mean 'wanda.mask'?"),
        ("lazy_neuron.topkffn", "did you mean 'lazy_neuron.topk_ffn'?"),
        ("", "no exercise is called ''"),
    ],
)
def test_an_unknown_exercise_suggests_the_nearest(name, said):
    with pytest.raises(ValueError) as error:
        judge.exercise(name)
    assert said in str(error.value)


@settings(max_examples=20)
@given(st.text())
def test_no_name_breaks_the_look_up(name):
    with pytest.raises(ValueError):
        judge.exercise(f"x{name}.y")


# ---------------------------------------------------------------- the conditions of the suite


def test_fresh_memory_is_poisoned():
    assert np.isnan(np.empty(3)).all()
    assert torch.isnan(torch.empty(3)).all()
    assert torch.isnan(torch.zeros(2).new_empty(3)).all()


def test_shapes_are_enforced_on_the_way_in_and_out():
    from jaxtyping import TypeCheckError

    with pytest.raises(TypeCheckError):
        wanda.score(np.ones((2, 3)), np.ones((4, 5)))
    with pytest.raises(TypeCheckError):
        wanda.mask(np.ones((2, 4), dtype=int), np.ones((4, 4)), n=2, m=4)


def test_an_output_of_another_shape_than_promised_is_caught():
    import beartype
    from jaxtyping import TypeCheckError, jaxtyped

    @jaxtyped(typechecker=beartype.beartype)
    def transposed(w: Float[np.ndarray, "o i"]) -> Float[np.ndarray, "o i"]:
        return w.T

    with pytest.raises(TypeCheckError):
        transposed(np.ones((2, 3)))
