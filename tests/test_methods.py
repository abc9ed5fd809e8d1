"""One suite over every method: `pytest -k wanda` is everything about Wanda."""

import inspect
import re

import numpy as np
import pytest
import torch

from sparselab import judge
from sparselab.method import BACKENDS, methods

METHODS = methods()
OPS = [(m, op) for m in METHODS for op in m.ops]
EXERCISES = [(m, op) for m in METHODS for op in m.part("checks").HINTS]
KERNELS = [(m, op) for m in METHODS if "triton" in m.backends for op in m.part("kernel").__all__]


def ids(pairs):
    return [f"{m.family}/{m.name}.{op}" for m, op in pairs]


def each(pairs):
    return pytest.mark.parametrize(("method", "op"), pairs, ids=ids(pairs))


# ---------------------------------------------------------------- the definition


@each(OPS)
def test_reference_obeys_its_own_facts(method, op):
    for seed in range(3):
        grade = judge.grade(method, op, getattr(method.part("reference"), op), seed=seed)
        assert grade.ok, grade


@each(OPS)
def test_every_op_has_cases_inside_and_at_the_ends(method, op):
    assert len(judge.cases(method, op)) >= 3
    assert len({label for label, _ in judge.cases(method, op)}) >= 3


@each(EXERCISES)
def test_bad_input_is_one_clear_line_with_the_numbers(method, op):
    for label, kwargs in judge.cases(method, op):
        for part in ("reference", "fast"):
            function = getattr(method.part(part), op, None)
            error = message(function, kwargs) if function else None
            if error is not None:
                assert "\n" not in error, (label, part)
                assert re.search(r"\d", error), (label, part, error)


# ---------------------------------------------------------------- the wrong-answer gate


@each(EXERCISES)
def test_an_exercise_has_mistakes_hints_and_another_right_answer(method, op):
    checks = method.part("checks")
    assert len(checks.HINTS[op]) >= 3
    assert len(checks.WRONG[op]) >= 3
    assert len(checks.RIGHT[op]) >= 1


@each(EXERCISES)
def test_every_wrong_answer_fails_with_its_own_hint(method, op):
    for hint, wrong in method.part("checks").WRONG[op]:
        for seed in range(2):
            grade = judge.grade(method, op, wrong, seed=seed)
            assert not grade.ok, f"{wrong.__name__} passes"
            assert grade.cause == hint, f"{wrong.__name__}: {grade}"


@each(EXERCISES)
def test_other_right_answers_pass(method, op):
    for right in method.part("checks").RIGHT[op]:
        for seed in range(3):
            grade = judge.grade(method, op, right, seed=seed)
            assert grade.ok, f"{right.__name__}: {grade}"


@each(OPS)
def test_an_answer_that_is_off_by_little_fails(method, op):
    """1e-6 on one number, one flipped bit, one other index: in every output that any case has."""
    reference = getattr(method.part("reference"), op)
    paths = set()
    for _, kwargs in judge.cases(method, op):
        if message(reference, kwargs) is not None:
            continue
        answer = reference(**judge.arguments(reference, kwargs))
        paths |= {path for path, leaf in judge.leaves(answer) if judge.numpy(leaf).size}
    assert paths
    for path in paths:
        grade = judge.grade(method, op, nudged(reference, path))
        assert not grade.ok, f"a slightly wrong {path or 'output'} passes"


def nudged(function, path):
    """`function` with the output at `path` changed by the least that matters."""

    def answer(*args, **kwargs):
        out = function(*args, **kwargs)
        target = iter([name == path for name, _ in judge.leaves(out)])
        return judge.map_leaves(lambda leaf: nudge(leaf, path) if next(target) else leaf, out)

    answer.__annotations__ = inspect.get_annotations(function)
    return answer


def nudge(leaf, path):
    array = np.array(leaf, order="C")  # reshape(-1) must be a view
    if not array.size:
        return leaf
    flat = array.reshape(-1)
    if array.dtype.kind == "b":
        flat[-1] = ~flat[-1]
    elif array.dtype.kind in "iu":
        flat[-1] = flat[-1] + 1
    else:
        flat[np.argmax(np.abs(np.nan_to_num(flat, posinf=0, neginf=0)))] += 1e-6
    return array.reshape(np.shape(leaf))


# ---------------------------------------------------------------- the fast path


@each([(m, op) for m, op in OPS if m.has("fast")])
def test_fast_agrees_with_the_reference(method, op):
    fast = getattr(method.part("fast"), op)
    for seed in range(3):
        grade = judge.grade(method, op, fast, seed=seed)
        assert grade.ok, grade


@each([(m, op) for m, op in OPS if m.has("fast")])
def test_errors_of_the_columns_read_the_same(method, op):
    reference, fast = (getattr(method.part(part), op) for part in ("reference", "fast"))
    for label, kwargs in judge.cases(method, op):
        assert message(reference, kwargs) == message(fast, kwargs), label


def message(function, kwargs):
    """What a user reads who calls this with bad input; None where it is none."""
    try:
        with judge.unchecked_shapes():
            function(**judge.arguments(function, kwargs))
    except ValueError as error:
        return str(error)
    return None


@each(OPS)
def test_columns_share_one_signature(method, op):
    """Same names, kinds and defaults; and between reference and fast the same shapes."""
    shapes = {}
    for backend in method.backends:
        exported = method.part(BACKENDS[backend]).__all__
        if backend == "triton" and op not in exported:
            continue  # a kernel stands where it earns its place
        assert [o for o in method.ops if o in exported] == list(exported), backend
        assert op in exported, backend
        function = inspect.unwrap(getattr(method.part(BACKENDS[backend]), op))
        signature = inspect.signature(function)
        shapes[backend] = (
            [(p.name, p.kind, p.default) for p in signature.parameters.values()],
            shape_strings(inspect.get_annotations(function)) if backend != "triton" else None,
        )
    parameters = {backend: shape[0] for backend, shape in shapes.items()}
    assert all(p == parameters["numpy"] for p in parameters.values()), parameters
    if "torch" in shapes:
        assert shapes["torch"][1] == shapes["numpy"][1]


def shape_strings(annotations):
    return {name: shape_string(annotation) for name, annotation in annotations.items()}


def shape_string(annotation):
    if hasattr(annotation, "dim_str"):
        return f"{annotation.dtype.__name__} {annotation.dim_str}"
    if hasattr(annotation, "_fields"):
        return {field: shape_string(a) for field, a in inspect.get_annotations(annotation).items()}
    if parts := getattr(annotation, "__args__", None):
        return [shape_string(a) for a in parts]
    return str(annotation)


@each([(m, op) for m, op in OPS if m.has("fast")])
def test_fast_keeps_float32_and_stays_close(method, op):
    fast, reference = getattr(method.part("fast"), op), getattr(method.part("reference"), op)
    for label, kwargs in judge.cases(method, op):
        if message(reference, kwargs) is not None:
            continue
        rounded = judge.map_leaves(round_to_float32, kwargs)
        got = fast(**judge.arguments(fast, rounded, dtype="float32"))
        want = reference(**judge.arguments(reference, rounded))
        for (path, mine), (_, theirs) in zip(judge.leaves(got), judge.leaves(want), strict=True):
            if isinstance(mine, torch.Tensor) and mine.is_floating_point():
                assert mine.dtype == torch.float32, (label, path)
                size = np.abs(theirs)[np.isfinite(theirs)].max(initial=1.0)
                reason = judge.difference(mine, theirs, rtol=1e-4, atol=1e-5 * size)
                assert reason is None, (label, path, reason)


def round_to_float32(leaf):
    is_float = isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"
    return leaf.astype(np.float32).astype(np.float64) if is_float else leaf


@each(OPS)
def test_fields_hold_what_their_annotations_promise(method, op):
    """beartype looks at a NamedTuple's class only; here the rank and dtype of each field are checked."""
    for part in ("reference", "fast") if method.has("fast") else ("reference",):
        function = getattr(method.part(part), op)
        for label, kwargs in judge.cases(method, op):
            if message(function, kwargs) is None:
                broken = list(broken_fields(function(**judge.arguments(function, kwargs))))
                assert broken == [], (part, label)


def broken_fields(value):
    if not hasattr(value, "_fields"):
        return
    for field, annotation in inspect.get_annotations(type(value)).items():
        leaf = getattr(value, field)
        leaf = np.asarray(leaf) if isinstance(leaf, np.generic) else leaf
        if hasattr(annotation, "dim_str") and not isinstance(leaf, annotation):
            yield f"{field} is {type(leaf).__name__} {getattr(leaf, 'shape', '')}, not {annotation.dim_str}"
        yield from broken_fields(leaf)


# ---------------------------------------------------------------- gradients


@each([(m, op) for m, op in OPS if m.gradient == "exact"])
def test_gradient_matches_central_differences_of_the_reference(method, op):
    """Along random directions, for random cotangents, wherever the reference is smooth."""
    fast, reference = getattr(method.part("fast"), op), getattr(method.part("reference"), op)
    smooth = floats = 0
    for label, kwargs in judge.cases(method, op):
        if message(reference, kwargs) is not None:
            continue
        rng = np.random.default_rng(7)
        slope = central_difference(reference, kwargs, np.random.default_rng(7))
        floats += slope is not None
        if slope is None or np.isnan(slope):
            continue
        smooth += 1
        got = directional_derivative(fast, kwargs, rng)
        assert judge.same(np.array(got), np.array(slope), rtol=1e-5, atol=1e-7), (label, got, slope)
    assert smooth or not floats, "no case is away from ties: the gradient was never compared"


def central_difference(function, kwargs, rng, step=1e-5):
    """d/dt <cotangent, f(x + t direction)>; None without floats, NaN at a kink (one-sided slopes differ)."""
    direction = {n: judge.map_leaves(lambda a: unit_like(a, rng), v) for n, v in sorted(kwargs.items())}

    def value(t):
        moved = {n: shifted(v, direction[n], t) for n, v in kwargs.items()}
        out = function(**judge.arguments(function, moved))
        return [np.asarray(a) for _, a in judge.leaves(out) if np.asarray(a).dtype.kind == "f"]

    here = value(0.0)
    if not here or not any(a is not None for _, a in floats_of(kwargs)):
        return None
    cotangent = [rng.normal(size=a.shape) for a in here]

    def project(t):
        return sum(
            float((c * np.where(np.isfinite(a), a, 0)).sum())
            for c, a in zip(cotangent, value(t), strict=True)
        )

    left, middle, right = project(-step), project(0.0), project(step)
    ahead, behind = (right - middle) / step, (middle - left) / step
    if abs(ahead - behind) > 1e-3 * max(1.0, abs(ahead)):
        return np.nan
    return (right - left) / (2 * step)


def floats_of(kwargs):
    return [
        (path, a) for path, a in judge.leaves(kwargs) if isinstance(a, np.ndarray) and a.dtype.kind == "f"
    ]


def unit_like(leaf, rng):
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f":
        return rng.normal(size=leaf.shape)
    return leaf


def shifted(value, direction, t):
    moves = iter([d for _, d in judge.leaves(direction)])

    def move(leaf):
        by = next(moves)
        is_float = isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f"
        return np.where(np.isfinite(leaf), leaf + t * by, leaf) if is_float else leaf

    return judge.map_leaves(move, value)


def directional_derivative(function, kwargs, rng):
    """The same number from autograd; zero where the graph does not reach the output."""
    direction = {n: judge.map_leaves(lambda a: unit_like(a, rng), v) for n, v in sorted(kwargs.items())}
    given = judge.arguments(function, kwargs)
    inputs = [
        a.requires_grad_() for _, a in judge.leaves(given) if torch.is_tensor(a) and a.is_floating_point()
    ]
    moves = [
        torch.from_numpy(d)
        for name in given
        for _, d in judge.leaves(direction[name])
        if isinstance(d, np.ndarray) and d.dtype.kind == "f"
    ]
    outputs = [a for _, a in judge.leaves(function(**given)) if torch.is_tensor(a) and a.is_floating_point()]
    total = sum(
        (torch.from_numpy(rng.normal(size=tuple(a.shape))) * torch.where(a.isfinite(), a, 0)).sum()
        for a in outputs
    )
    if not torch.is_tensor(total) or not total.requires_grad:
        return 0.0
    slopes = torch.autograd.grad(total, inputs, allow_unused=True)
    return sum(float((g * d).sum()) for g, d in zip(slopes, moves, strict=True) if g is not None)


# ---------------------------------------------------------------- kernels


@each(KERNELS)
def test_kernel_is_no_worse_than_fast(method, op):
    kernel, fast, reference = (getattr(method.part(p), op) for p in ("kernel", "fast", "reference"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for label, kwargs in judge.cases(method, op):
        if message(reference, kwargs) is not None:
            assert message(kernel, kwargs) == message(reference, kwargs), label
            continue
        rounded = judge.map_leaves(round_to_float32, kwargs)
        want = reference(**judge.arguments(reference, rounded))
        plain = fast(**judge.arguments(fast, rounded, dtype="float32"))
        like_fast = judge.arguments(fast, rounded, dtype="float32", device=device)
        compare_columns(label, kernel(**like_fast), plain, want)


def compare_columns(label, got, plain, want):
    triples = zip(judge.leaves(got), judge.leaves(plain), judge.leaves(want), strict=True)
    for (path, mine), (_, theirs), (_, definition) in triples:
        if judge.numpy(definition).dtype.kind == "f":
            assert judge.no_worse(mine, theirs, definition), (label, path)
        else:
            assert judge.same(mine, definition), (label, path)


@each([(m, op) for m, op in KERNELS if m.gradient == "exact"])
def test_kernel_gradient_is_no_worse_than_fast(method, op):
    kernel, fast, reference = (getattr(method.part(p), op) for p in ("kernel", "fast", "reference"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    compared = floats = 0
    for label, kwargs in judge.cases(method, op):
        if message(reference, kwargs) is not None:
            continue
        floats += len(floats_of(kwargs))
        rounded = judge.map_leaves(round_to_float32, kwargs)
        want = gradients(fast, fast, rounded, "float64", "cpu")
        plain = gradients(fast, fast, rounded, "float32", "cpu")
        got = gradients(kernel, fast, rounded, "float32", device)
        for name in want:
            compared += 1
            assert judge.no_worse(got[name], plain[name], want[name]), (label, name)
    assert compared or not floats, "no output of this op has a gradient: is `gradient` of the card right?"


def gradients(function, like, kwargs, dtype, device):
    """{input: gradient} of a random projection of every float output."""
    given, rng = judge.arguments(like, kwargs, dtype=dtype, device=device), np.random.default_rng(11)
    inputs = {
        p: a.requires_grad_() for p, a in judge.leaves(given) if torch.is_tensor(a) and a.is_floating_point()
    }
    outputs = [a for _, a in judge.leaves(function(**given)) if torch.is_tensor(a) and a.is_floating_point()]
    total = sum((torch.from_numpy(rng.normal(size=tuple(a.shape))).to(a) * a).sum() for a in outputs)
    if not torch.is_tensor(total) or not total.requires_grad:
        return {}
    slopes = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
    return {
        p: g if g is not None else torch.zeros_like(inputs[p]) for p, g in zip(inputs, slopes, strict=True)
    }
