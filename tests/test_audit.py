"""The gate on every exercise; and the gate itself, shown to close."""

import time

import numpy as np
import pytest

from sparselab import audit, judge
from sparselab.method import find, methods

TAUGHT = dict(audit.taught_exercises())
EXERCISES = [(m, op) for m in methods() for op in m.part("checks").HINTS]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "op"), EXERCISES, ids=[f"{m.family}/{m.name}.{op}" for m, op in EXERCISES]
)
def test_an_exercise_passes_the_gate(method, op):
    stub, solution = TAUGHT.get((method.package, op), (None, None))
    result = audit.audit(method, op, solution=solution, stub=stub)
    assert result.ok, (result.faults, f"{result.killed}/{result.mutants}", result.survivors)


def test_every_lesson_asks_for_exercises_that_are_audited():
    assert set(TAUGHT) <= {(m.package, op) for m, op in EXERCISES}


# ---------------------------------------------------------------- the gate itself


def keep_positive(x, *, k):
    """Not a docstring to change: 1 > 0."""
    if k < 0:
        raise ValueError(f"k={k + 0} is below 0")
    return np.where(x > 0, x + k, 0)


def test_mutants_change_one_thing_each_and_no_message():
    labels = [label for label, _ in audit.mutants(keep_positive)]
    assert "x > 0 => x >= 0 (return np.where(x > 0, x + k, 0))" in labels
    assert "x + k => x - k (return np.where(x > 0, x + k, 0))" in labels
    assert "x + k => x (return np.where(x > 0, x + k, 0))" in labels
    assert "k < 0 => False (if k < 0:)" in labels
    assert not any("k + 0" in label or "docstring" in label for label in labels)
    assert len(labels) == len(set(labels))


def test_a_mutant_does_what_its_label_says():
    mutants = dict(audit.mutants(keep_positive))
    minus = mutants["x + k => x - k (return np.where(x > 0, x + k, 0))"]
    assert judge.same(minus(np.array([3.0, -1.0]), k=2), np.array([1.0, 0.0]))
    assert judge.same(keep_positive(np.array([3.0, -1.0]), k=2), np.array([5.0, 0.0]))


def helper(x):
    return x * 2


def uses_a_helper(x):
    return helper(x) + 1


def test_helpers_are_mutated_too():
    mutants = dict(audit.mutants(uses_a_helper))
    assert mutants["x * 2 => x / 2 (return x * 2)"](8) == 5
    assert helper(8) == 16


def test_a_check_that_cannot_tell_leaves_survivors(monkeypatch):
    method = find("wanda")
    checks = method.part("checks")
    monkeypatch.setattr(
        checks,
        "cases",
        lambda rng: [("mask", "all tied", {"w": np.ones((2, 4)), "x": np.ones((3, 4)), "n": 4, "m": 4})],
    )
    monkeypatch.setattr(checks, "CHECKS", {})
    result = audit.audit(method, "mask")
    assert not result.ok
    assert result.survivors
    assert any("passes" in fault for fault in result.faults), "a wrong answer must be seen to pass"


def test_a_hint_that_belongs_to_another_mistake_is_a_fault(monkeypatch):
    checks = find("wanda").part("checks")
    (hint, wrong), *rest = checks.WRONG["score"]
    monkeypatch.setitem(checks.WRONG, "score", [("another hint", wrong), (hint, wrong), *rest])
    assert any("not its own hint" in fault for fault in audit.audit(find("wanda"), "score").faults)


def test_a_stub_that_answers_is_a_fault():
    result = audit.audit(find("wanda"), "score", stub=lambda w, x: w)
    assert "the stub is not refused as unwritten" in result.faults


def test_a_solution_that_fails_is_a_fault():
    result = audit.audit(find("wanda"), "score", solution=lambda w, x: w)
    assert any(fault.startswith("the solution fails") for fault in result.faults)


def test_an_excuse_for_no_mutant_is_a_fault(monkeypatch):
    monkeypatch.setattr(
        find("wanda").part("checks"), "EQUIVALENT", {"score": {"x => y": "none"}}, raising=False
    )
    assert "EQUIVALENT names no mutant: x => y" in audit.audit(find("wanda"), "score").faults


def test_a_mutant_that_never_ends_is_stopped():
    start = time.monotonic()
    with pytest.raises(TimeoutError), audit.limit(0.2):
        while time.monotonic() < start + 60:
            pass


def pick(x):
    return x


def doubled(x):
    return 2 * x


def answer(x):
    return x.pick + doubled(x)


def test_an_attribute_is_not_a_function_of_the_module():
    assert audit._family(answer) == [answer, doubled]
