"""Compiled loops: what they take, how they share work out, and that torch alone agrees with them."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sparselab import judge, loops
from sparselab.formats.rows import fast as rows
from sparselab.method import methods
from sparselab.topk.statistical import fast as statistical

WITH_LOOPS = [m for m in methods() if m.has("loops")]
X = torch.arange(12.0).reshape(3, 4)


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads of torch, and no work too small for both."""
    monkeypatch.setattr(loops, "GRAIN", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_some_methods_have_loops():
    assert {"rows", "statistical"} <= {m.name for m in WITH_LOOPS}


@pytest.mark.parametrize("a", [X, X.double()])
def test_plain_floats_in_main_memory_fit(a):
    assert loops.fit(a, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (X, X.double()),
        (X.bfloat16(), X.bfloat16()),
        (X.half(), X.half()),
        (X.int(), X.int()),
        (X.T, X),
        (X, X.T),
        (X.to("meta"), X),
        (X.clone().requires_grad_(), X),
        (X, X.clone().requires_grad_()),
    ],
    ids=["mixed", "bf16", "half", "int", "columns", "columns2", "elsewhere", "gradient", "gradient2"],
)
def test_anything_else_is_left_to_torch(a, b):
    assert not loops.fit(a, b)


def test_a_tensor_without_memory_does_not_fit():
    with FakeTensorMode():
        assert not loops.fit(torch.ones(3), torch.ones(3))


@pytest.mark.slow
def test_functions_that_torch_compiles_give_the_same_answer():
    """In a process of its own: torch cannot compile the checker of shapes, which is there under test only."""
    script = """
import torch
from sparselab.formats.rows import fast as rows
from sparselab.topk.exact import fast as exact
from sparselab.topk.statistical import fast as statistical

x, idx = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 1])
for call in (
    lambda: statistical.soft(x, k=8),
    lambda: exact.keep(x, k=8),
    lambda: rows.dot(x, idx, x[0]),
    lambda: rows.total(x, idx, x[0, :2]),
):
    torch.testing.assert_close(torch.compile(call, backend="eager")(), call())
print("the same")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.stdout == "the same\n", run.stderr


def test_a_weight_that_could_have_a_gradient_fits_where_none_is_asked_for():
    with torch.no_grad():
        assert loops.fit(X.clone().requires_grad_(), X)


@pytest.mark.parametrize("method", WITH_LOOPS, ids=lambda m: m.name)
def test_without_numba_torch_gives_the_same_answers(method, monkeypatch):
    monkeypatch.setattr(loops, "_numba_is_there", lambda: False)
    assert not loops.fit(X, X)
    for op in method.ops:
        grade = judge.grade(method, op, getattr(method.part("fast"), op))
        assert grade.ok, grade


@pytest.mark.parametrize("method", WITH_LOOPS, ids=lambda m: m.name)
def test_two_threads_give_the_same_answers(method, two_threads):
    for op in method.ops:
        grade = judge.grade(method, op, getattr(method.part("fast"), op))
        assert grade.ok, grade


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_each_thread_does_its_part_once(size, two_threads):
    out = torch.zeros(size)

    def counted(start, stop, out):
        out[start:stop] += 1
        return True

    run = loops.compiled(counted)
    assert run(size, out, work=100)
    assert judge.same(out, torch.ones(size))


def test_one_part_that_fails_is_told(two_threads):
    def first_half_only(start, stop):
        return start == 0

    assert not loops.compiled(first_half_only)(4, work=100)
    assert loops.compiled(first_half_only)(4, work=0), "too little work for two"


def test_an_error_in_another_thread_is_not_lost(two_threads):
    def breaks_later(start, stop):
        if start > 0:
            raise IndexError("the second part")
        return True

    with pytest.raises(IndexError, match="second part"):
        loops.compiled(breaks_later)(4, work=100)


@pytest.mark.parametrize(("grain", "woken"), [(6, 0), (1, 1)])
def test_little_work_wakes_no_thread(grain, woken, two_threads, monkeypatch):
    monkeypatch.setattr(loops, "GRAIN", grain)
    loops._threads.cache_clear()
    before = set(threading.enumerate())
    rows.dot(X, torch.tensor([0, 2]), X[0])
    assert len(set(threading.enumerate()) - before) == woken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process")  # that threads do not survive is the point
def test_a_forked_process_has_threads_of_its_own(two_threads):
    table, idx = torch.ones(9, 6), torch.tensor([1, 2, 3])
    rows.dot(table, idx, torch.ones(6))  # wakes a thread here
    child = os.fork()
    if not child:
        right = rows.dot(table, idx, torch.ones(6)).tolist() == [6.0] * 3
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_columns_and_half_precision_are_summed_too():
    idx, weight = torch.tensor([2, 0]), torch.tensor([1.0, -1.0])
    assert judge.same(rows.total(X.T, torch.tensor([3, 0]), weight), X[:, 3] - X[:, 0])
    assert judge.same(rows.total(X.bfloat16(), idx, weight.bfloat16()).float(), X[2] - X[0])
    assert judge.same(rows.dot(X.bfloat16(), idx, X[1].bfloat16()).float(), X[idx] @ X[1], rtol=1e-2)


@pytest.mark.parametrize("op", [rows.dot, rows.total])
@pytest.mark.parametrize("table", [X, X.T.contiguous().T], ids=["loops", "torch"])
def test_a_row_that_is_not_there_is_refused_either_way(op, table):
    given = torch.ones(4) if op is rows.dot else torch.ones(2)
    for idx in ([0, 3], [-1, 0]):
        with pytest.raises(ValueError, match=f"rows {idx[0]} to {idx[1]} are asked for, the table has 3"):
            op(table, torch.tensor(idx), given)


@pytest.mark.parametrize("odd", [torch.nan, torch.inf])
def test_a_row_with_a_hole_is_all_holes_and_no_other_row(odd):
    x = torch.randn(3, 50)
    x[1, 7] = odd
    out = statistical.soft(x, k=5)
    assert out[1].isnan().all() and not out[[0, 2]].isnan().any()
    assert judge.same(out[[0, 2]], statistical.soft(x[[0, 2]], k=5))
