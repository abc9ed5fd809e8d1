"""The wrong-answer gate: is a check able to fail? One row per exercise, with a mutation score."""

import ast
import copy
import dis
import inspect
import signal
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from sparselab import files, judge
from sparselab.method import Method, select

NEEDED = 0.95
SECONDS = 5  # a mutant that loops for ever has been noticed, too


def run(names: Sequence[str] = ()) -> Iterator["Audit"]:
    """Audit every exercise, or those of methods and families, with the lessons' solutions and stubs.

    Raises ValueError for an unknown name.
    """
    taught = dict(taught_exercises())
    for method in select(names):
        for op in method.part("checks").HINTS:
            stub, solution = taught.get((method.package, op), (None, None))
            yield audit(method, op, solution=solution, stub=stub)


def taught_exercises() -> Iterator[tuple[tuple[str, str], tuple[Callable, Callable]]]:
    """((package, op), (stub, solution)) of each exercise that a lesson asks."""
    from sparselab.course import lessons

    for lesson in lessons.load(known=judge.exercise):
        for name, pair in lessons.functions(files.root(), lesson).items():
            method, op = judge.exercise(name)
            yield (method.package, op), pair


@dataclass(frozen=True)
class Audit:
    """What the gate found for one exercise; `faults` is empty where every check can fail."""

    exercise: str
    faults: tuple[str, ...] = ()
    killed: int = 0
    mutants: int = 0
    survivors: tuple[str, ...] = ()
    excused: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        return self.killed / self.mutants if self.mutants else 1.0

    @property
    def ok(self) -> bool:
        return not self.faults and self.score >= NEEDED


def audit(
    method: Method, op: str, *, solution: Callable | None = None, stub: Callable | None = None
) -> Audit:
    """Stub, solution, every wrong and right answer, and every mutant of the solution, through the judge.

    Without a lesson the reference stands for the solution. A mutant that no input can tell from the
    solution is named in `EQUIVALENT[op]` of checks.py with the reason, and does not count.
    """
    checks = method.part("checks")
    solution = solution or getattr(method.part("reference"), op, None)
    faults = []
    if stub is not None and not judge.grade(method, op, stub).unwritten:
        faults.append("the stub is not refused as unwritten")
    if solution is None:
        return Audit(f"{method.name}.{op}", ("there is no solution to check",))
    if not (grade := judge.grade(method, op, solution)).ok:
        faults.append(f"the solution fails: {grade}")
    for hint, wrong in checks.WRONG[op]:
        grade = judge.grade(method, op, wrong)
        if grade.ok:
            faults.append(f"the wrong answer {wrong.__name__} passes")
        elif grade.cause != hint:
            faults.append(f"the wrong answer {wrong.__name__} is told {grade.cause!r}, not its own hint")
    for right in checks.RIGHT[op]:
        if not (grade := judge.grade(method, op, right)).ok:
            faults.append(f"the right answer {right.__name__} fails: {grade}")
    excuses = getattr(checks, "EQUIVALENT", {}).get(op, {})
    tried = {label: survives(method, op, mutant) for label, mutant in mutants(solution)}
    faults += [f"EQUIVALENT names no mutant: {label}" for label in excuses if label not in tried]
    counted = {label: alive for label, alive in tried.items() if label not in excuses}
    survivors = tuple(label for label, alive in counted.items() if alive)
    return Audit(
        exercise=f"{method.name}.{op}",
        faults=tuple(faults),
        killed=len(counted) - len(survivors),
        mutants=len(counted),
        survivors=survivors,
        excused=tuple(label for label in excuses if label in tried),
    )


def survives(method: Method, op: str, mutant: Callable) -> bool:
    """True where the judge cannot tell the mutant from the solution."""
    try:
        with limit(SECONDS), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return judge.grade(method, op, mutant).ok
    except TimeoutError:
        return False


class _Late(BaseException):
    """No Exception: the judge takes those for an answer's outcome, and the next case would loop unwatched."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """TimeoutError inside the block after so many seconds, where the system has an alarm clock."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _Late:
        raise TimeoutError(f"still running after {seconds} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- mutants


def mutants(function: Callable) -> Iterator[tuple[str, Callable]]:
    """(label, function) for each small change of the function or of a helper beside it: `z > 0 => z >= 0`."""
    family, labels = [_definition(f) for f in _family(inspect.unwrap(function))], Counter()
    for which, definition in enumerate(family):
        seen = {ast.unparse(definition)}
        for path, node in _expressions(definition):
            for change in [*_changes(node), *_forced(path)]:
                mutant = copy.deepcopy(definition)
                _replace(mutant, path, change)
                if (text := ast.unparse(mutant)) not in seen:
                    seen.add(text)
                    where = _statement(definition, path)
                    label = f"{ast.unparse(node)} => {ast.unparse(change)} ({where})"
                    labels[label] += 1
                    again = f" #{labels[label]}" if labels[label] > 1 else ""
                    mutated = [*family[:which], mutant, *family[which + 1 :]]
                    yield label + again, _compiled(function, mutated)


def _family(function: Callable) -> list[Callable]:
    """The function and those of its own module that it calls, directly or not."""
    found, open_ends = {}, [function]
    while open_ends:
        member = open_ends.pop()
        if member.__name__ in found:
            continue
        found[member.__name__] = member
        used = (i.argval for i in dis.get_instructions(member) if i.opname == "LOAD_GLOBAL")
        for name in used:
            callee = inspect.unwrap(member.__globals__.get(name))
            if inspect.isfunction(callee) and callee.__module__ == function.__module__:
                open_ends.append(callee)
    return list(found.values())


def _definition(function: Callable) -> ast.FunctionDef:
    definition = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    definition.decorator_list = []
    return definition


def _compiled(function: Callable, family: list[ast.FunctionDef]) -> Callable:
    plain = inspect.unwrap(function)
    namespace = dict(plain.__globals__)
    module = ast.fix_missing_locations(ast.Module(family, []))
    exec(compile(module, f"<mutant of {plain.__name__}>", "exec"), namespace)
    return namespace[plain.__name__]


def _expressions(definition: ast.FunctionDef) -> Iterator[tuple[list, ast.AST]]:
    """(path, node) of everything that may be changed: not the docstring, not an error's wording."""

    def walk(node: ast.AST, path: list) -> Iterator[tuple[list, ast.AST]]:
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.FormattedValue):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if path:
            yield path, node
        for name, value in ast.iter_fields(node):
            if name in {"annotation", "returns", "decorator_list", "args"} and isinstance(
                node, ast.FunctionDef | ast.arg | ast.AnnAssign
            ):
                continue
            for i, child in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(child, ast.AST):
                    yield from walk(child, [*path, (name, i if isinstance(value, list) else None)])

    yield from walk(definition, [])


SWAPPED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Pow: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.And: ast.Or, ast.Or: ast.And,
}  # fmt: skip
RENAMED = {
    "argmax": "argmin", "argmin": "argmax", "max": "min", "min": "max", "sum": "mean", "mean": "sum",
    "maximum": "minimum", "minimum": "maximum", "any": "all", "all": "any", "zeros": "ones", "ones": "zeros",
    "zeros_like": "ones_like", "ones_like": "zeros_like", "std": "var", "var": "std", "cumsum": "cumprod",
    "floor": "ceil", "ceil": "floor",
}  # fmt: skip
UNARY = {"abs", "sqrt", "exp", "log", "square", "relu", "sort", "copy"}


def _changes(node: ast.AST) -> Iterator[ast.AST]:
    """What a hand could have written instead: an operator, a constant, an axis, a term, a function."""

    def changed(**fields: object) -> ast.AST:
        other = copy.deepcopy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        return other

    match node:
        case ast.BinOp(left, op, right):
            if type(op) in SWAPPED:
                yield changed(op=SWAPPED[type(op)]())
            if isinstance(op, ast.Add | ast.Sub | ast.Mult | ast.Div | ast.Pow):
                yield left
            if isinstance(op, ast.Add | ast.Mult):
                yield right
        case ast.BoolOp(op, values):
            yield changed(op=SWAPPED[type(op)]())
            for i in range(len(values)):
                rest = values[:i] + values[i + 1 :]
                yield rest[0] if len(rest) == 1 else changed(values=rest)
        case ast.Compare(_, [op], _) if type(op) in SWAPPED:
            yield changed(ops=[SWAPPED[type(op)]()])
        case ast.UnaryOp(ast.USub() | ast.Not() | ast.Invert(), operand):
            yield operand
        case ast.Constant(bool() as value):
            yield changed(value=not value)
        case ast.Constant(int() as value):
            yield changed(value=value + 1)
            if value > 0:
                yield changed(value=value - 1)
        case ast.Constant(float() as value):
            yield changed(value=value * 1.5 if value else 1.0)
        case ast.keyword("axis" | "dim", value):
            yield changed(value=ast.Constant(0 if ast.unparse(value) != "0" else -1))
        case ast.keyword("keepdims", _):
            pass
        case ast.Attribute(_, name, ast.Load()) if name in RENAMED:
            yield changed(attr=RENAMED[name])
        case ast.Call(ast.Attribute(_, name) | ast.Name(name), [argument, *_]) if name in UNARY:
            yield argument
        case ast.IfExp(_, body, orelse):
            yield body
            yield orelse


def _forced(path: list) -> list[ast.AST]:
    """A test that is always and never true."""
    return [ast.Constant(False), ast.Constant(True)] if path[-1] == ("test", None) else []


def _replace(root: ast.AST, path: list, new: ast.AST) -> None:
    *way, (name, i) = path
    for field_name, at in way:
        value = getattr(root, field_name)
        root = value if at is None else value[at]
    if i is None:
        setattr(root, name, new)
    else:
        getattr(root, name)[i] = new


def _statement(definition: ast.FunctionDef, path: list) -> str:
    """First line of the statement that holds the change: it tells two equal changes apart."""
    node, statement = definition, definition
    for name, i in path:
        value = getattr(node, name)
        node = value if i is None else value[i]
        statement = node if isinstance(node, ast.stmt) else statement
    return ast.unparse(statement).splitlines()[0]
