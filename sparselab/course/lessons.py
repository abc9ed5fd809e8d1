"""Lesson sources: found, read and checked whole before anything is made of them.

`chapters/NN_family/MM_slug.py` is a notebook in jupytext's py:percent form under a small header:

    # ---
    # sparselab:
    #   title: Lazy neurons
    #   minutes: 50
    # ---

A cell starts with `# %%` (code) or `# %% [markdown]`; a code cell may carry `tags=["hide-input"]`. An
exercise is a code cell that holds one function and nothing else, which ends in `raise NotImplementedError`:

    # %% exercise="lazy_neuron.topk_ffn" difficulty=2 importance=5 minutes=10

The function of the same name in `solutions/NN_family/MM_slug.py` solves it, and a later cell checks it:
`grade("lazy_neuron.topk_ffn", topk_ffn)`. The title's heading and the line above each exercise are generated.
"""

import ast
import json
import re
import runpy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from sparselab import files
from sparselab.method import unknown

HEADER_KEYS = {"title": str, "minutes": int}
EXERCISE_KEYS = ("exercise", "difficulty", "importance", "minutes")
TAGS = frozenset(
    {"hide-input", "hide-output", "remove-cell", "remove-input", "raises-exception", "nbval-ignore-output"}
)

_FILE_NAME = re.compile(r"(\d\d)_([a-z0-9_]+)")
_EXERCISE_NAME = re.compile(r"([a-z0-9_]+/)?[a-z0-9_]+\.[a-z0-9_]+")
_VALUE = r'"[^"\n]*"|\d+|\[[^\]\n]*\]'
_MARKER = re.compile(rf"# %%( \[markdown\])?((?: [a-z]+=(?:{_VALUE}))*)\s*")
_ALMOST_A_MARKER = re.compile(r"\s*#+\s*(%%|<codecell>|<markdowncell>|In\[)")


class LessonError(ValueError):
    """A lesson that cannot be built: `file:line: what is wrong`."""

    def __init__(self, path: Path, line: int, problem: str):
        super().__init__(f"{path}:{line}: {problem}")


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One function to write: the judge's name for it, what it asks of the reader, and its solved source."""

    name: str
    function: str
    number: str
    difficulty: int
    importance: int
    minutes: int
    solution: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell as its author wrote it; `line` is where its marker stands."""

    kind: str
    source: str
    line: int
    tags: tuple[str, ...] = ()
    exercise: Exercise | None = None


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A lesson that passed every check."""

    path: str  # "01_lazy/01_lazy_neuron", the same below chapters/, solutions/ and a student's folder
    title: str
    minutes: int
    cells: tuple[Cell, ...]

    @property
    def number(self) -> str:
        return _number(self.path)

    @property
    def name(self) -> str:
        """`lazy_neuron`: the slug without its number."""
        return self.path.rpartition("/")[2][3:]

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        return tuple(cell.exercise for cell in self.cells if cell.exercise)


# ---------------------------------------------------------------- the course


def load(root: Path | None = None, *, known: Callable[[str], object] | None = None) -> list[Lesson]:
    """Every lesson in order. LessonError at the first problem in any of them, so that all or none exist.

    `known` is asked for each exercise's name and raises ValueError where there is none (`judge.exercise`).
    """
    root = root or files.root()
    lessons = [read(root, path, known=known) for path in sorted(_paths(root))]
    seen: dict[str, Path] = {}
    for lesson in lessons:
        source = root / "chapters" / f"{lesson.path}.py"
        if (other := seen.setdefault(lesson.number, source)) != source:
            raise LessonError(source, 1, f"lesson {lesson.number} is {other.name} already")
    return lessons


def functions(root: Path, lesson: Lesson) -> dict[str, tuple[Callable, Callable]]:
    """(stub, solved function) of each exercise by its name, from importing the lesson's solutions."""
    path = root / "solutions" / f"{lesson.path}.py"
    solutions = runpy.run_path(str(path))
    found = {}
    for cell in lesson.cells:
        if cell.exercise:
            made = dict(solutions)  # the stub has the solution's signature, so also its imports
            exec(compile(cell.source, str(path), "exec"), made)
            found[cell.exercise.name] = (made[cell.exercise.function], solutions[cell.exercise.function])
    return found


def find(name: str, lessons: list[Lesson]) -> Lesson:
    """The lesson called `1.1`, `lazy_neuron` or `01_lazy/01_lazy_neuron`; ValueError names the nearest."""
    wanted = name.removesuffix(".ipynb").removesuffix(".py")
    names = {key: lesson for lesson in lessons for key in (lesson.number, lesson.name, lesson.path)}
    if wanted not in names:
        raise ValueError(unknown("lesson", name, list(names)))
    return names[wanted]


def _paths(root: Path) -> Iterator[str]:
    """The path of each lesson; a source without its twin or under a wrong name is a LessonError."""
    chapters, solutions = root / "chapters", root / "solutions"
    for folder, twin, missing in (
        (chapters, solutions, "this lesson has no solutions; write them in {}"),
        (solutions, chapters, "these solutions have no lesson; write it in {}"),
    ):
        for source in folder.rglob("*.py"):
            path = source.relative_to(folder).with_suffix("")
            if len(path.parts) != 2 or not all(_FILE_NAME.fullmatch(part) for part in path.parts):
                raise LessonError(source, 1, "a lesson is called NN_family/MM_slug.py, in lower case")
            if not (other := twin / f"{path.as_posix()}.py").is_file():
                raise LessonError(source, 1, missing.format(other))
            if folder is chapters:
                yield path.as_posix()


def _number(path: str) -> str:
    return ".".join(str(int(part[:2])) for part in path.split("/"))


# ---------------------------------------------------------------- one lesson


def read(root: Path, path: str, *, known: Callable[[str], object] | None = None) -> Lesson:
    """One lesson with its solutions; LessonError where either is malformed or they do not fit."""
    source = root / "chapters" / f"{path}.py"
    text = _text(source)
    header, body_line = _header(source, text)
    cells = _cells(source, text, body_line)
    solutions = _Solutions(root / "solutions" / f"{path}.py")

    read_cells: list[Cell] = []
    exercises: list[Exercise] = []
    bound: set[str] = set()
    for cell, keys in cells:
        if "exercise" in keys:
            number = f"{_number(path)}.{len(exercises) + 1}"
            cell = replace(cell, exercise=_exercise(source, cell, keys, number, solutions, bound))
            _accept(source, cell, exercises, known)
            exercises.append(cell.exercise)
        if cell.kind == "code":
            bound |= _bound(ast.parse(cell.source))
        read_cells.append(cell)
    lesson = Lesson(path=path, cells=tuple(read_cells), **header)
    solutions.all_used({exercise.function for exercise in lesson.exercises}, source)
    _no_spoiler(source, lesson)
    _every_exercise_is_checked(source, lesson)
    return lesson


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise LessonError(path, line, "not UTF-8") from None


def _header(source: Path, text: str) -> tuple[dict, int]:
    """(title and minutes, the line after the header)."""
    import yaml  # comes with jupytext

    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if line.rstrip() == "# ---"]
    if len(fences) < 2 or fences[0] != 0:
        raise LessonError(source, 1, "a lesson starts with a header between two lines `# ---`")
    try:
        header = yaml.safe_load("\n".join(line.removeprefix("#") for line in lines[1 : fences[1]]))
    except yaml.YAMLError as error:
        raise LessonError(source, 2, f"the header is not YAML: {' '.join(str(error).split())}") from None
    keys = header.get("sparselab") if isinstance(header, dict) and len(header) == 1 else None
    if not isinstance(keys, dict) or set(keys) != set(HEADER_KEYS):
        raise LessonError(
            source, 2, f"the header holds `sparselab:` with {' and '.join(HEADER_KEYS)}, no more"
        )
    for key, kind in HEADER_KEYS.items():
        if type(keys[key]) is not kind or not keys[key] or (kind is int and keys[key] < 1):
            raise LessonError(source, 2, f"{key}={keys[key]!r} in the header is no {kind.__name__} to use")
    return keys, fences[1] + 1


def _cells(source: Path, text: str, body_line: int) -> list[tuple[Cell, dict]]:
    """(cell, the keys of its marker) for each cell; jupytext splits, the markers are checked here."""
    import jupytext

    markers = list(_markers(source, text, body_line))
    first = markers[0][0]
    notebook = jupytext.reads("\n".join(text.split("\n")[first - 1 :]), fmt="py:percent")
    if len(notebook.cells) != len(markers):
        raise LessonError(
            source, first, "jupytext reads other cells than the markers show; is one in a string?"
        )
    cells = []
    for (line, kind, keys), cell in zip(markers, notebook.cells, strict=True):
        if cell.cell_type != kind:
            raise LessonError(source, line, f"this marker says {kind}, its cell is {cell.cell_type}")
        if not cell.source.strip():
            raise LessonError(source, line, "an empty cell")
        if kind == "code":
            try:
                ast.parse(cell.source)
            except SyntaxError as error:
                raise LessonError(source, line + (error.lineno or 0), f"not Python: {error.msg}") from None
        elif re.match(r"# ", cell.source) and line == first:
            raise LessonError(source, line + 1, "the title stands in the header; its heading is generated")
        tags = tuple(keys.get("tags", ()))
        cells.append((Cell(kind=kind, source=cell.source, line=line, tags=tags), keys))
    return cells


def _markers(source: Path, text: str, body_line: int) -> Iterator[tuple[int, str, dict]]:
    """(line, kind, keys) of each marker; anything that nearly is one is a LessonError."""
    kind = None
    for line, content in enumerate(text.split("\n")[body_line:], body_line + 1):
        marker = _MARKER.fullmatch(content)
        if marker:
            kind = "markdown" if marker[1] else "code"
            yield line, kind, _keys(source, line, kind, marker[2])
        elif _ALMOST_A_MARKER.match(content):
            raise LessonError(source, line, f"malformed cell marker {content.strip()!r}")
        elif content.strip() and kind is None:
            raise LessonError(source, line, "text before the first cell marker")
        elif kind == "markdown" and content.strip() and not content.startswith("#"):
            raise LessonError(source, line, "a line of a markdown cell starts with `# `")
    if kind is None:
        raise LessonError(source, body_line + 1, "a lesson without cells")


def _keys(source: Path, line: int, kind: str, text: str) -> dict:
    """The keys of one marker, each known, in range and there once."""
    pairs = re.findall(rf"([a-z]+)=({_VALUE})", text)
    allowed = EXERCISE_KEYS if any(key == "exercise" for key, _ in pairs) else ("tags",)
    keys = {}
    for key, value in pairs:
        if key not in allowed or kind == "markdown":
            raise LessonError(source, line, unknown("key of this cell", key, [*allowed]))
        if key in keys:
            raise LessonError(source, line, f"{key} is given twice")
        try:
            keys[key] = json.loads(value)
        except json.JSONDecodeError:
            raise LessonError(source, line, f"{key}={value} cannot be read") from None
    if "tags" in keys:
        tags = keys["tags"]
        for tag in tags if isinstance(tags, list) else [tags]:
            if tag not in TAGS:
                raise LessonError(source, line, unknown("tag", str(tag), sorted(TAGS)))
        if not isinstance(tags, list):
            raise LessonError(source, line, f'tags={tags!r} is no list such as ["hide-input"]')
    if "exercise" in keys:
        _exercise_keys(source, line, keys)
    return keys


def _exercise_keys(source: Path, line: int, keys: dict) -> None:
    if missing := [key for key in EXERCISE_KEYS if key not in keys]:
        raise LessonError(source, line, f"this exercise lacks {', '.join(missing)}")
    if not _EXERCISE_NAME.fullmatch(str(keys["exercise"])):
        raise LessonError(source, line, f"exercise={keys['exercise']!r} is not written method.op")
    for key, high in (("difficulty", 5), ("importance", 5), ("minutes", 120)):
        if type(keys[key]) is not int or not 1 <= keys[key] <= high:
            raise LessonError(source, line, f"{key}={keys[key]!r} is not between 1 and {high}")


# ---------------------------------------------------------------- exercises and their solutions


class _Solutions:
    """The functions of one solutions file, as source."""

    def __init__(self, path: Path):
        self.path, self.text = path, _text(path)
        try:
            tree = ast.parse(self.text)
        except SyntaxError as error:
            raise LessonError(path, error.lineno or 1, f"not Python: {error.msg}") from None
        self.functions: dict[str, ast.FunctionDef] = {}
        self.imports: dict[str, str] = {}
        for position, node in enumerate(tree.body):
            if isinstance(node, ast.FunctionDef):
                if node.name in self.functions:
                    raise LessonError(path, node.lineno, f"{node.name} is solved twice")
                self.functions[node.name] = node
            elif isinstance(node, ast.Import | ast.ImportFrom):
                for alias in node.names:
                    one = ast.copy_location(_only(node, alias), node)
                    self.imports[alias.asname or alias.name.split(".")[0]] = ast.unparse(one)
            elif position or not _is_docstring(node):
                raise LessonError(path, node.lineno, "solutions hold imports and solved functions, no more")

    def source(self, function: str, bound: set[str]) -> str:
        """The solved function, under those of its imports that the lesson has not made by then."""
        node = self.functions[function]
        used = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        imports = [line for name, line in self.imports.items() if name in used - bound]
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        lines = self.text.split("\n")[first - 1 : node.end_lineno]
        return "\n".join([*imports, *([""] * 2 if imports else []), *lines])

    def all_used(self, exercises: set[str], lesson: Path) -> None:
        for name, node in self.functions.items():
            if name not in exercises:
                raise LessonError(self.path, node.lineno, f"{name} solves no exercise of {lesson}")


def _exercise(
    source: Path, cell: Cell, keys: dict, number: str, solutions: _Solutions, bound: set[str]
) -> Exercise:
    body = ast.parse(cell.source).body
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    if len(functions) != 1 or len(body) != 1:
        raise LessonError(source, cell.line, "an exercise cell holds one function and nothing else")
    stub = functions[0]
    if not _raises_not_implemented(stub):
        line = cell.line + stub.body[-1].lineno
        raise LessonError(source, line, f"the stub {stub.name} does not end in `raise NotImplementedError`")
    if stub.name not in solutions.functions:
        raise LessonError(source, cell.line, f"{stub.name} has no solution in {solutions.path}")
    solved = solutions.functions[stub.name]
    if _raises_not_implemented(solved):
        raise LessonError(solutions.path, solved.lineno, f"{stub.name} is not solved")
    if (asked := _signature(stub)) != (given := _signature(solved)):
        raise LessonError(
            solutions.path,
            solved.lineno,
            f"the solution is {given}, its stub at {source}:{cell.line} {asked}",
        )
    return Exercise(
        name=keys["exercise"],
        function=stub.name,
        number=number,
        difficulty=keys["difficulty"],
        importance=keys["importance"],
        minutes=keys["minutes"],
        solution=solutions.source(stub.name, bound),
    )


def _accept(source: Path, cell: Cell, before: list[Exercise], known: Callable[[str], object] | None) -> None:
    """The exercise is new in this lesson and the judge knows it."""
    exercise = cell.exercise
    if any(exercise.name == other.name or exercise.function == other.function for other in before):
        raise LessonError(source, cell.line, f"{exercise.name} ({exercise.function}) is asked twice")
    try:
        if known:
            known(exercise.name)
    except ValueError as error:
        raise LessonError(source, cell.line, str(error)) from None


def _raises_not_implemented(function: ast.FunctionDef) -> bool:
    """True where the last statement is `raise NotImplementedError` and nothing before it leaves."""
    last = function.body[-1]
    helpers = [
        node for node in ast.walk(function) if isinstance(node, ast.FunctionDef) and node is not function
    ]
    inner = {id(node) for helper in helpers for node in ast.walk(helper)}
    leaves = any(
        isinstance(node, ast.Return | ast.Yield | ast.YieldFrom) and id(node) not in inner
        for node in ast.walk(function)
    )
    error = last.exc if isinstance(last, ast.Raise) else None
    error = error.func if isinstance(error, ast.Call) else error
    return isinstance(error, ast.Name) and error.id == "NotImplementedError" and not leaves


def _signature(function: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    return f"{function.name}({ast.unparse(function.args)}){returns}"


def _no_spoiler(source: Path, lesson: Lesson) -> None:
    """LessonError where a solution's whole body, or two of its lines in a row, stand in the lesson.

    Lines that the stub gives away on purpose do not count, nor does what is too short to be a secret.
    """
    given = {line.strip() for cell in lesson.cells if cell.exercise for line in cell.source.split("\n")}
    secrets: dict[tuple[str, ...], str] = {}
    for exercise in lesson.exercises:
        own = [line for line in statements(exercise.solution) if line not in given]
        if len("".join(own)) >= 20:
            secrets[tuple(own)] = exercise.name
        for pair in zip(own, own[1:], strict=False):
            if len("".join(pair)) >= 40:
                secrets[pair] = exercise.name
    for cell in lesson.cells:
        lines = [line.strip() for line in cell.source.split("\n")]
        for start in range(len(lines)):
            for secret, name in secrets.items():
                if tuple(lines[start : start + len(secret)]) == secret:
                    line = cell.line + start + 1
                    raise LessonError(source, line, f"this line stands in the solution of {name}")


def statements(solution: str) -> list[str]:
    """The lines of a solved function below its signature and docstring, without blanks and comments."""
    function = next(node for node in ast.parse(solution).body if isinstance(node, ast.FunctionDef))
    body = function.body[1:] if _is_docstring(function.body[0]) else function.body
    lines = solution.split("\n")[body[0].lineno - 1 :] if body else []
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _every_exercise_is_checked(source: Path, lesson: Lesson) -> None:
    code = [cell for cell in lesson.cells if cell.kind == "code"]
    checks = [(check, cell.line) for cell in code for check in graded(cell.source)]
    for cell in lesson.cells:
        if (asked := cell.exercise) is None:
            continue
        if not any(check == (asked.name, asked.function) and line > cell.line for check, line in checks):
            wanted = f'grade("{asked.name}", {asked.function})'
            raise LessonError(source, cell.line, f"no later cell checks this exercise: {wanted}")


def graded(code: str) -> list[tuple[str, str]]:
    """(exercise, function) of each statement `grade("lazy_neuron.topk_ffn", topk_ffn)` of a code cell."""
    calls = [node.value for node in ast.parse(code).body if isinstance(node, ast.Expr)]
    return [
        (call.args[0].value, call.args[1].id)
        for call in calls
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "grade"
        and len(call.args) == 2
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[1], ast.Name)
    ]


def _bound(tree: ast.Module) -> set[str]:
    """Names that a cell makes at its top level."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return names


def _only(node: ast.Import | ast.ImportFrom, alias: ast.alias) -> ast.stmt:
    if isinstance(node, ast.Import):
        return ast.Import(names=[alias])
    return ast.ImportFrom(module=node.module, names=[alias], level=node.level)


def _is_docstring(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
