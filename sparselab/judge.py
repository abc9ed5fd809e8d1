"""The judge: one way to compare an answer with the definition.

The test suite, a notebook cell, class CI and the benchmarks' gate all call `grade`. Arrays of any
library come in; the comparison itself is NumPy.
"""

import inspect
import sys
import traceback
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import jaxtyping
import numpy as np

from sparselab.method import Method, find, methods, unknown

RTOL, ATOL = 1e-9, 1e-12
SHOWN = 12  # an array with at most so many entries is shown whole


# ---------------------------------------------------------------- two answers


def same(got: Any, want: Any, *, scores: Any = None, rtol: float = RTOL, atol: float = ATOL) -> bool:
    """True where `difference` has nothing to say."""
    return difference(got, want, scores=scores, rtol=rtol, atol=atol) is None


def difference(
    got: Any, want: Any, *, scores: Any = None, rtol: float = RTOL, atol: float = ATOL
) -> str | None:
    """The first thing that parts `got` from `want`, in one line; None where they agree.

    Floats agree where |got - want| <= atol + rtol |want| (NaN agrees with NaN); booleans and integers
    agree exactly. A field of a NamedTuple that ends in `_idx` is a selection, see `same_selection`.
    """
    return _difference("", got, want, scores, rtol, atol)


def same_selection(
    got: Any, want: Any, scores: Any = None, *, rtol: float = RTOL, atol: float = ATOL
) -> bool:
    """True where two selections along the last axis are equal as sets, or differ between equal scores.

    `scores` has the selections' leading axes and is indexed by them along its last; -1 is an empty slot.
    """
    return _selection_difference("", numpy(got), numpy(want), scores, rtol, atol) is None


def no_worse(got: Any, plain: Any, want: Any) -> bool:
    """True where the error of `got` against float64 `want` is at most twice that of `plain`.

    `plain` is the same formula in the dtype of `got` without the kernel; a few units in the last place of
    the largest entry are always granted, for the case that `plain` happens to be exact.
    """
    got, plain, want = numpy(got), numpy(plain), numpy(want)
    if got.shape != want.shape or not np.array_equal(np.isfinite(got), np.isfinite(want)):
        return False
    finite = np.isfinite(want)
    if not finite.any():
        return True
    got, plain, want = (a[finite].astype(np.float64) for a in (got, plain, want))
    unit = 8 * np.finfo(np.float32).eps * np.abs(want).max()
    return bool(np.abs(got - want).max() <= 2 * np.abs(plain - want).max() + unit)


def numpy(value: Any) -> np.ndarray:
    """Any array, tensor or number as a NumPy array (bfloat16, which NumPy lacks, as float32)."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    return np.asarray(value)


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(path, array) of every array in nested tuples and dicts, in order: `.values`, `[0]`, `['w']`."""
    if value is None or isinstance(value, str):
        return
    if hasattr(value, "_fields"):
        for field in value._fields:
            yield from leaves(getattr(value, field), f"{name}.{field}")
    elif isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from leaves(item, f"{name}[{i}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{name}[{key!r}]")
    else:
        yield name, value


def map_leaves(change: Callable[[Any], Any], value: Any) -> Any:
    """The same nesting with each array replaced by `change(array)`."""
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "_fields"):
        return type(value)(*(map_leaves(change, item) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(map_leaves(change, item) for item in value)
    if isinstance(value, dict):
        return {key: map_leaves(change, item) for key, item in value.items()}
    return change(value)


def _difference(name: str, got: Any, want: Any, scores: Any, rtol: float, atol: float) -> str | None:
    at = f"{name.lstrip('.')}: " if name else ""
    if want is None or got is None:
        return None if got is want else f"{at}you returned {_kind(got)}, expected {_kind(want)}"
    if isinstance(want, tuple | dict):
        return _nested_difference(name, got, want, scores, rtol, atol)
    try:
        got = numpy(got)
    except (TypeError, ValueError):
        return f"{at}you returned {_kind(got)}, which is not an array"
    want = numpy(want)
    if got.shape != want.shape:
        return f"{at}your shape {got.shape}, expected {want.shape}"
    if name.endswith("_idx"):
        return _selection_difference(at, got, want, scores, rtol, atol)
    if _sort(got) != _sort(want):
        return f"{at}your dtype {got.dtype}, expected {_sort(want)} such as {want.dtype}"
    wrong = _wrong(got, want, rtol, atol)
    if not wrong.any():
        return None
    return at + _where(got, want, wrong)


def _nested_difference(name: str, got: Any, want: Any, scores: Any, rtol: float, atol: float) -> str | None:
    at = f"{name.lstrip('.')}: " if name else ""
    if isinstance(want, dict):
        if not isinstance(got, dict) or set(got) != set(want):
            return f"{at}you returned {_kind(got)}, expected a dict with the keys {', '.join(map(str, want))}"
        pairs = [(f"{name}[{key!r}]", got[key], want[key]) for key in want]
    else:
        if not isinstance(got, tuple | list) or len(got) != len(want):
            return f"{at}you returned {_kind(got)}, expected {_kind(want)}"
        fields = getattr(want, "_fields", None)
        names = [f"{name}.{f}" for f in fields] if fields else [f"{name}[{i}]" for i in range(len(want))]
        pairs = list(zip(names, got, want, strict=True))
    for path, one, other in pairs:
        if reason := _difference(path, one, other, scores, rtol, atol):
            return reason
    return _parted(pairs, rtol, atol)


def _parted(pairs: list[tuple[str, Any, Any]], rtol: float, atol: float) -> str | None:
    """Indices are compared as sets and values in order: both may be right and yet not belong together."""
    for idx_path, got_idx, want_idx in pairs:
        if not idx_path.endswith("_idx"):
            continue
        mine, theirs = numpy(got_idx), numpy(want_idx)
        for path, got, want in pairs if not np.array_equal(mine, theirs) else ():
            if path == idx_path or np.shape(numpy(want)) != theirs.shape:
                continue
            for row in np.ndindex(theirs.shape[:-1]):
                kept = [place for place in theirs[row].tolist() if place >= 0]
                if len(set(kept)) < len(kept):  # a known mistake may repeat an index: it has no one value
                    continue
                value_at = dict(zip(theirs[row].tolist(), numpy(want)[row], strict=True))
                for place, value in zip(mine[row].tolist(), numpy(got)[row], strict=True):
                    if place < 0 or same(value, value_at.get(place, value), rtol=rtol, atol=atol):
                        continue
                    return f"{path.lstrip('.')}: {_brief(value)} does not belong to the index {place}"
    return None


def _selection_difference(
    at: str, got: np.ndarray, want: np.ndarray, scores: Any, rtol: float, atol: float
) -> str | None:
    if got.shape != want.shape:
        return f"{at}your shape {got.shape}, expected {want.shape}"
    if got.dtype.kind not in "iu":
        return f"{at}your dtype {got.dtype}, expected integer indices"
    table = None if scores is None else numpy(scores)
    for row in np.ndindex(got.shape[:-1]):
        mine, theirs = sorted(got[row][got[row] >= 0]), sorted(want[row][want[row] >= 0])
        if mine == theirs:
            continue
        place = f" in row {_index(row)}" if row else ""
        shown = f"{at}you selected {_brief(got[row])}{place}, expected {_brief(want[row])}"
        if len(set(mine)) < len(mine) or len(mine) != len(theirs) or table is None:
            return shown
        if mine[-1] >= table.shape[-1]:
            return f"{shown}; index {mine[-1]} is out of range for {table.shape[-1]} entries"
        only_mine = [i for i in mine if i not in set(theirs)]
        only_theirs = [i for i in theirs if i not in set(mine)]
        if _wrong(np.sort(table[row][only_mine]), np.sort(table[row][only_theirs]), rtol, atol).any():
            return shown
    return None


def _wrong(got: np.ndarray, want: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    if want.dtype.kind not in "fc":
        return got != want
    with np.errstate(invalid="ignore"):
        near = np.abs(got.astype(want.dtype) - want) <= atol + rtol * np.abs(want)
    # an infinite target allows an infinite error: there, only equality counts
    return ~((near & np.isfinite(want)) | (got == want) | (np.isnan(got) & np.isnan(want)))


def _where(got: np.ndarray, want: np.ndarray, wrong: np.ndarray) -> str:
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    if got.size <= SHOWN and got.ndim:
        return f"differs at {_index(first)}. Yours {_brief(got)}, expected {_brief(want)}"
    values = f"yours {_brief(got[first])}, expected {_brief(want[first])}"
    if not got.ndim:
        return values
    return f"differs at {_index(first)}: {values} ({wrong.sum()} of {wrong.size} entries differ)"


def _sort(a: np.ndarray) -> str:
    """What must agree between two dtypes; a number of either precision is a float."""
    return {"b": "bool", "i": "integer", "u": "integer", "f": "float", "c": "complex"}.get(
        a.dtype.kind, "object"
    )


def _index(where: tuple[int, ...]) -> str:
    return str(where[0]) if len(where) == 1 else str(tuple(int(i) for i in where))


def _brief(a: Any) -> str:
    with np.printoptions(precision=6, threshold=SHOWN, edgeitems=4, linewidth=10_000, suppress=True):
        text = np.array2string(np.asarray(a), separator=", ")
    return " ".join(text.split())


def _kind(value: Any) -> str:
    if value is None:
        return "None (is a return missing?)"
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(value._fields)})"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


# ---------------------------------------------------------------- one answer, many cases


@dataclass(frozen=True)
class Result:
    """What one case says: `problem` is empty where the answer agrees."""

    case: str
    problem: str = ""


@dataclass(frozen=True)
class Grade:
    """The judge's message; `str(grade)` is what a student reads."""

    exercise: str
    results: tuple[Result, ...]
    cause: str = ""
    broken: str = ""
    hints: tuple[str, ...] = ()
    attempt: int = 0
    seed: int = 0
    unwritten: bool = False

    @property
    def total(self) -> int:
        return len(self.results)

    @property
    def passed(self) -> int:
        return sum(not r.problem for r in self.results)

    @property
    def ok(self) -> bool:
        return self.total > 0 and self.passed == self.total

    @property
    def hint(self) -> str:
        """The step of the ladder that this attempt has reached."""
        return self.hints[min(self.attempt, len(self.hints) - 1)] if self.hints else ""

    def __str__(self) -> str:
        if self.ok:
            return f"{self.exercise}: all {self.total} public checks passed."
        if self.unwritten:
            return f"{self.exercise}: not written yet. Hint: {self.hint}"
        first = next(r for r in self.results if r.problem)
        lines = [f"{self.exercise}, case '{first.case}': {first.problem}."]
        if self.cause:
            lines.append(f"Likely cause: {self.cause}.")
        elif self.broken:
            lines.append(f"What should hold: {self.broken}.")
        if self.hint:
            lines.append(f"Hint: {self.hint}")
        lines.append(
            f"{self.passed} of {self.total} cases agree. "
            f"case({self.exercise!r}, {first.case!r}, seed={self.seed}) gives you these inputs."
        )
        return "\n".join(lines)


@dataclass(frozen=True)
class Raised:
    """An exception as an outcome: it equals another of the same type."""

    error: Exception

    @property
    def line(self) -> str:
        frames = traceback.extract_tb(self.error.__traceback__)
        theirs = [f for f in frames if f.filename != __file__]
        source = f" (in {theirs[-1].line!r})" if theirs and theirs[-1].line else ""
        text = " ".join(str(self.error).split())
        return f"raised {type(self.error).__name__}: {text[:200]}{source}"


def exercise(name: str) -> tuple[Method, str]:
    """(method, op) of `lazy_neuron.topk_ffn`; ValueError names the nearest exercise otherwise."""
    owner, _, op = name.rpartition(".")
    known = [f"{m.name}.{o}" for m in methods() if m.has("checks") for o in m.part("checks").HINTS]
    try:
        method = find(owner)
        if op in method.part("checks").HINTS:
            return method, op
    except ValueError:
        pass
    raise ValueError(unknown("exercise", name, known))


def hints(method: Method, op: str) -> list[str]:
    """The ladder from a nudge to nearly the solution."""
    return list(method.part("checks").HINTS.get(op, ()))


def cases(method: Method, op: str, *, seed: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """(label, arguments) of every case of one op; labels are unique."""
    rng = np.random.default_rng(seed)
    found = [(label, kwargs) for name, label, kwargs in method.part("checks").cases(rng) if name == op]
    labels = [label for label, _ in found]
    if len(set(labels)) < len(labels):
        raise ValueError(f"{method.name}.{op}: two cases share a label among {labels}")
    return found


def case(name: str, label: str, *, seed: int = 0) -> dict[str, Any]:
    """The arguments of one case, to replay what the judge saw."""
    method, op = exercise(name)
    known = dict(cases(method, op, seed=seed))
    if label not in known:
        raise ValueError(unknown("case", label, list(known)))
    return known[label]


def grade(method: Method, op: str, answer: Callable, *, seed: int = 0, attempt: int = 0) -> Grade:
    """Run `answer` on every case of `op` and compare it with the reference and with the facts.

    `answer` gets NumPy arrays, or torch tensors where its annotations name them. Where it fails just as a
    known wrong answer does, that answer's hint is the cause.
    """
    checks, name = method.part("checks"), f"{method.name}.{op}"
    definition = getattr(method.part("reference"), op, None)
    results, outcomes, broken = [], [], ""
    for label, kwargs in cases(method, op, seed=seed):
        got = outcome(answer, kwargs)
        if isinstance(got, Raised) and isinstance(got.error, NotImplementedError):
            return Grade(
                name, (Result(label, "not written yet"),), hints=tuple(hints(method, op)), unwritten=True
            )
        want = outcome(definition, kwargs) if definition else None
        if definition:
            problem = _problem(checks, op, kwargs, got, want)
        else:
            problem = got.line if isinstance(got, Raised) else ""
        fact = _broken_fact(checks, op, answer, kwargs, got, want)
        if fact and not problem:
            problem = f"it does not hold that {fact}"
        broken = broken or (fact if problem else "")
        results.append(Result(label, problem))
        outcomes.append((kwargs, got, bool(problem) and not isinstance(want, Raised)))
    return Grade(
        name,
        tuple(results),
        cause=_cause(checks, op, outcomes) if any(r.problem for r in results) else "",
        broken=broken,
        hints=tuple(hints(method, op)),
        attempt=attempt,
        seed=seed,
    )


def _problem(checks: ModuleType, op: str, kwargs: dict, got: Any, want: Any) -> str:
    if isinstance(want, Raised):
        if not isinstance(want.error, ValueError):
            raise want.error  # the definition itself is broken
        expected = f"a {type(want.error).__name__} ({' '.join(str(want.error).split())})"
        if not isinstance(got, Raised):
            return f"you returned {_kind(got)}, expected {expected}"
        if isinstance(got.error, type(want.error)) or _from_shape_checker(got.error):
            return ""
        return f"{got.line}, expected {expected}"
    if isinstance(got, Raised):
        return got.line
    return difference(got, want, scores=_scores(checks, op, kwargs)) or ""


def _broken_fact(checks: ModuleType, op: str, answer: Callable, kwargs: dict, got: Any, want: Any) -> str:
    """The label of the first fact that this answer breaks."""
    if isinstance(got, Raised):
        return ""

    def call(**changed: Any) -> Any:
        out = outcome(answer, {**kwargs, **changed})
        if isinstance(out, Raised):
            raise out.error
        return _in_the_form_of(want, out)

    for label, fact in checks.CHECKS.get(op, ()):
        try:
            holds = bool(fact(call, _in_the_form_of(want, got), **kwargs))
        except Exception:  # an answer of the wrong form cannot be looked at, so it breaks the fact
            holds = False
        if not holds:
            return label
    return ""


def _in_the_form_of(want: Any, got: Any) -> Any:
    """`got` in NumPy, its tuples with the field names of `want`: facts speak of `got.density`."""
    if isinstance(want, tuple | list) and isinstance(got, tuple | list) and len(got) == len(want):
        parts = [_in_the_form_of(w, g) for w, g in zip(want, got, strict=True)]
        return type(want)(*parts) if hasattr(want, "_fields") else type(want)(parts)
    return map_leaves(numpy, got)


def _cause(checks: ModuleType, op: str, outcomes: list[tuple[dict, Any, bool]]) -> str:
    """The hint of the known wrong answer that gives what this answer gives, in every case."""
    for hint, wrong in checks.WRONG.get(op, ()):
        if all(_alike(checks, op, kwargs, got, outcome(wrong, kwargs)) for kwargs, got, _ in outcomes):
            return hint
    # Nothing agrees everywhere: an answer may also lack a refusal, or be wrong in one way more than we know.
    for hint, wrong in checks.WRONG.get(op, ()):
        failed = [(kwargs, got) for kwargs, got, bad in outcomes if bad and not isinstance(got, Raised)]
        if failed and all(_alike(checks, op, kwargs, got, outcome(wrong, kwargs)) for kwargs, got in failed):
            return hint
    return ""


def _alike(checks: ModuleType, op: str, kwargs: dict, got: Any, other: Any) -> bool:
    if isinstance(got, Raised) or isinstance(other, Raised):
        return isinstance(got, Raised) and isinstance(other, Raised) and type(got.error) is type(other.error)
    return same(got, other, scores=_scores(checks, op, kwargs))


def _scores(checks: ModuleType, op: str, kwargs: dict) -> Any:
    """The array that a selection of this op ranks, where checks.py names one."""
    ranks = getattr(checks, "SCORES", {}).get(op)
    return ranks(**kwargs) if ranks else None


# ---------------------------------------------------------------- calling an answer


def arguments(
    function: Callable, kwargs: dict[str, Any], *, dtype: str = "float64", device: str = "cpu"
) -> dict:
    """A fresh copy of `kwargs` in the arrays that `function`'s annotations name, floats in `dtype`."""
    annotations = inspect.get_annotations(inspect.unwrap(function))
    torch = _torch() if any(_names_tensor(a) for a in annotations.values()) else None
    return {name: _convert(v, annotations.get(name), torch, dtype, device) for name, v in kwargs.items()}


def outcome(function: Callable, kwargs: dict[str, Any]) -> Any:
    """What a call gives: its answer, or `Raised` with its error; an input changed in place is one, too."""
    given = arguments(function, kwargs)
    try:
        out = function(**given)
    except Exception as error:  # an answer may raise anything; that is its outcome
        return Raised((_at_the_door(function, kwargs) if _from_shape_checker(error) else None) or error)
    for name, value in given.items():
        for (path, now), (_, before) in zip(leaves(value, name), leaves(kwargs[name], name), strict=True):
            if isinstance(before, np.ndarray) and not np.array_equal(
                numpy(now), before, equal_nan=before.dtype.kind == "f"
            ):
                return Raised(RuntimeError(f"the input {path} was changed in place; work on a copy"))
    return out


def _from_shape_checker(error: Exception) -> bool:
    """True for the error with which jaxtyping, on in tests only, refuses a shape before the function runs."""
    return type(error).__name__ == "TypeCheckError"


@contextmanager
def unchecked_shapes() -> Iterator[None]:
    """Inside, functions raise what a user would read: the shape checker, on in tests only, stands aside."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def _at_the_door(function: Callable, kwargs: dict[str, Any]) -> ValueError | None:
    """The ValueError that a user would see where, under test, the shape checker stands before it."""
    try:
        with unchecked_shapes():
            function(**arguments(function, kwargs))
    except ValueError as error:
        return error
    except Exception:
        return None
    return None


def _convert(value: Any, annotation: Any, torch: ModuleType | None, dtype: str, device: str) -> Any:
    if isinstance(value, np.ndarray):
        array = value.astype(dtype) if value.dtype.kind == "f" and dtype != "bfloat16" else value.copy()
        if torch is None:
            return array
        tensor = torch.from_numpy(array).to(device)
        return tensor.to(getattr(torch, dtype)) if value.dtype.kind == "f" else tensor
    if hasattr(value, "_fields"):  # a NamedTuple of the reference becomes the answer's own
        own = _tuple_class(annotation) or type(value)
        inner = inspect.get_annotations(own)
        return own(*(_convert(v, inner.get(f), torch, dtype, device) for f, v in value._asdict().items()))
    if isinstance(value, tuple | list):
        return type(value)(_convert(item, None, torch, dtype, device) for item in value)
    if isinstance(value, dict):
        return {key: _convert(item, None, torch, dtype, device) for key, item in value.items()}
    return value


def _names_tensor(annotation: Any) -> bool:
    """True where an annotation speaks of torch tensors, nested in a NamedTuple or a union included."""
    if (fields := _tuple_class(annotation)) is not None:
        return any(_names_tensor(a) for a in inspect.get_annotations(fields).values())
    array = getattr(annotation, "array_type", annotation)
    if getattr(array, "__module__", "").split(".")[0] == "torch":
        return True
    return any(_names_tensor(a) for a in typing.get_args(annotation))


def _tuple_class(annotation: Any) -> type | None:
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and hasattr(candidate, "_fields"):
            return candidate
    return None


def _torch() -> ModuleType:
    """torch, which an answer that names its tensors has imported already."""
    return sys.modules["torch"]
