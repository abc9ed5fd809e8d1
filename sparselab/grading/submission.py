"""What a student handed in: its files, their cells, and for each exercise the function with what it needs.

`files` reads the bytes and follows nothing out of the folder. Everything else works on those bytes, and in
grading it runs in the child, since even parsing may be attacked.
"""

import ast
import json
import os
import re
import stat
import symtable
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LARGEST = 20_000_000  # bytes of one file; a lesson's notebook has some 10_000
LARGEST_IN_ALL = 50_000_000
MOST_FILES = 100
MARKER = re.compile(r"^# %%(.*)$", re.MULTILINE)
EXERCISE_KEY = re.compile(r'exercise="([^"]*)"')
MAGIC = re.compile(r"^(\s*)[%!?].*$", re.MULTILINE)


# ---------------------------------------------------------------- files


def files(path: Path) -> tuple[dict[str, bytes], list[str]]:
    """({name: content}, what was left out and why) of a notebook, a .py file or a folder of them.

    Raises ValueError where there is nothing to grade. Links, devices and hidden folders are never read.
    """
    if path.is_symlink():
        raise ValueError("it is a symbolic link, which is not followed")
    if not path.exists():
        raise ValueError("there is no such file")
    found, left_out = {}, []
    for name in _names(path) if path.is_dir() else [path.name]:
        file = path / name if path.is_dir() else path
        if len(found) == MOST_FILES or sum(map(len, found.values())) > LARGEST_IN_ALL:
            left_out.append(f"only the first {len(found)} files were read")
            break
        try:
            found[name] = _read(file)
        except (ValueError, OSError) as error:
            left_out.append(f"{printable(name)}: {getattr(error, 'strerror', None) or error}")
    if not found:
        raise ValueError("; ".join(left_out) or "there is no notebook and no .py file in it")
    return found, left_out


def printable(text: str) -> str:
    """The text in one line, with what cannot be printed escaped."""
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _names(folder: Path) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(names):
            if name.endswith((".ipynb", ".py")) and not name.startswith("."):
                yield (Path(here) / name).relative_to(folder).as_posix()


def _read(file: Path) -> bytes:
    if file.suffix not in (".ipynb", ".py"):
        raise ValueError("neither a notebook nor a .py file; unpack an archive first")
    if file.is_symlink():
        raise ValueError("a symbolic link, which is not followed")
    handle = os.open(file, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(handle, "rb") as stream:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("not a plain file")
        content = stream.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError(f"larger than {LARGEST / 1e6:g} MB")
    return content


# ---------------------------------------------------------------- cells


@dataclass
class Document:
    """One file: its code as one text, what of it is Python, and why a part of it is not."""

    name: str
    lesson: str = ""  # the lesson that a notebook says it is
    problem: str = ""  # why nothing could be read
    parts: list[str] = field(default_factory=list)  # source of each code cell
    lines: int = 0
    statements: list[ast.stmt] = field(default_factory=list)
    marked: dict[int, str] = field(
        default_factory=dict
    )  # id of a function's node -> the exercise of its cell
    broken: dict[str, str] = field(default_factory=dict)  # exercise, or "" -> why its cell cannot be read
    mentioned: set[str] = field(default_factory=set)  # exercises that a cell's marker names

    @property
    def text(self) -> str:
        return "".join(self.parts)


def read(name: str, content: bytes) -> Document:
    """A file as far as it can be read: a cell that is not Python costs that cell alone."""
    document = Document(name)
    try:
        cells = list((_notebook if name.endswith(".ipynb") else _script)(content, document))
    except UnicodeDecodeError as error:
        document.problem = f"not UTF-8 from byte {error.start} on"
    except RecursionError:
        document.problem = "nested too deeply"
    except json.JSONDecodeError:
        document.problem = "not JSON, as if half of it was saved"
    except ValueError as error:
        document.problem = str(error)
    else:
        for number, (source, exercise) in enumerate(cells, 1):
            _add(document, source, exercise, number)
    return document


def _notebook(content: bytes, document: Document) -> Iterator[tuple[str, str]]:
    if not content.strip(b" \r\n\t\0"):
        raise ValueError("the file is empty")
    stored = json.loads(content.decode("utf-8-sig"))
    cells = stored.get("cells") if isinstance(stored, dict) else None
    if not isinstance(cells, list):
        raise ValueError("not a notebook")
    lesson = _mapping(_mapping(stored, "metadata"), "sparselab").get("lesson")
    document.lesson = lesson if isinstance(lesson, str) else ""
    for cell in cells:
        if not isinstance(cell, dict) or cell.get("cell_type") != "code":
            continue
        lines = cell.get("source")
        lines = [lines] if isinstance(lines, str) else lines
        if isinstance(lines, list) and all(isinstance(line, str) for line in lines):
            exercise = _mapping(_mapping(cell, "metadata"), "sparselab").get("exercise")
            yield MAGIC.sub(r"\1pass", "".join(lines)), exercise if isinstance(exercise, str) else ""


def _mapping(stored: dict, key: str) -> dict:
    value = stored.get(key)
    return value if isinstance(value, dict) else {}


def _script(content: bytes, document: Document) -> Iterator[tuple[str, str]]:
    """The cells of a py:percent file, or the whole of any other as one."""
    text = content.decode("utf-8-sig").replace("\r\n", "\n")
    if not text.strip():
        raise ValueError("the file is empty")
    starts = [0, *(found.start() for found in MARKER.finditer(text))]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        cell = text[start:end]
        key = EXERCISE_KEY.search(cell.split("\n", 1)[0]) if cell.startswith("# %%") else None
        yield cell.removesuffix("\n") if end < len(text) else cell, key[1] if key else ""


def _add(document: Document, source: str, exercise: str, number: int) -> None:
    if exercise:
        document.mentioned.add(exercise)
    above = document.lines
    document.parts.append(source + "\n")
    document.lines += source.count("\n") + 1
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        line = f", line {error.lineno}" if getattr(error, "lineno", None) else ""
        why = getattr(error, "msg", None) or "nested too deeply"
        document.broken.setdefault(exercise, f"cell {number}{line} is not Python: {why}")
        return
    ast.increment_lineno(tree, above)
    document.statements += tree.body
    for node in tree.body:
        if exercise and isinstance(node, ast.FunctionDef):
            document.marked[id(node)] = exercise


# ---------------------------------------------------------------- one exercise


@dataclass(frozen=True)
class Answer:
    """The function of one exercise: a module to compile, its text, and what a grader should know of it."""

    module: ast.Module
    file: str
    text: str
    function: str
    imports: tuple[tuple[str, str], ...]  # (module, name) of what it imports from the package
    notes: tuple[str, ...] = ()


class Missing(ValueError):
    """No function to grade; says why."""


def find(documents: Sequence[Document], exercise: str, function: str, *, prefer: str = "") -> Answer:
    """The student's function, with the imports, helpers and constants of its notebook that it uses.

    Where it is defined several times the last one counts that is not the stub, first in the file that carries
    the lesson's name `prefer`. Raises Missing.
    """
    found = [
        (document, node)
        for document in documents
        for node in _definitions(document, exercise, function, prefer)
    ]
    if not found:
        broken = [document.broken[exercise] for document in documents if exercise in document.broken]
        broken += [document.problem for document in documents if document.problem]
        broken += [document.broken[""] for document in documents if "" in document.broken]
        raise Missing(broken[0] if broken else f"there is no function {function}")
    written = [(document, node) for document, node in found if not _unwritten(node)]
    candidates = written or found
    named = [pair for pair in candidates if Path(pair[0].name).stem == Path(prefer).stem]
    home = (named or candidates)[0][0]
    node = [node for document, node in candidates if document is home][-1]
    notes = []
    if len(written) > 1:
        notes.append(
            f"{function} is defined {len(written)} times; line {node.lineno} of {home.name} was graded"
        )
    needed = _needed(home, node)
    return Answer(
        module=ast.Module(needed, []),
        file=home.name,
        text=home.text,
        function=function,
        imports=tuple(sorted(set(_package_imports(needed)))),
        notes=tuple(notes),
    )


def _definitions(document: Document, exercise: str, function: str, lesson: str) -> list[ast.FunctionDef]:
    """Those of the exercise's own cells, or any of that name at the top of a file that is no other lesson's.

    Lessons share names such as `mask`: the function of another exercise is none of this one.
    """
    named = [n for n in document.statements if isinstance(n, ast.FunctionDef) and n.name == function]
    named = [node for node in named if document.marked.get(id(node), exercise) == exercise]
    marked = [node for node in named if id(node) in document.marked]
    elsewhere = document.lesson and lesson and Path(document.lesson).stem != Path(lesson).stem
    return marked if elsewhere or any(not _unwritten(node) for node in marked) else named


def _unwritten(function: ast.FunctionDef) -> bool:
    last = function.body[-1]
    error = last.exc if isinstance(last, ast.Raise) else None
    error = error.func if isinstance(error, ast.Call) else error
    returns = any(isinstance(node, ast.Return) for node in ast.walk(function))
    return isinstance(error, ast.Name) and error.id == "NotImplementedError" and not returns


def _needed(document: Document, function: ast.FunctionDef) -> list[ast.stmt]:
    """The function and, in the order of the file, every statement that binds a name it needs."""
    binders: dict[str, list[ast.stmt]] = {}
    always = []
    for node in document.statements:
        if isinstance(node, ast.ImportFrom) and (node.module == "__future__" or node.names[0].name == "*"):
            always.append(node)
        for name in _bound(node):
            binders.setdefault(name, []).append(node)
    binders[function.name] = [function]
    chosen, open_ends = {id(node) for node in always} | {id(function)}, [function, *always]
    while open_ends:
        for name in _used(open_ends.pop()):
            for node in binders.get(name, ()):
                if id(node) not in chosen:
                    chosen.add(id(node))
                    open_ends.append(node)
    body = [node for node in document.statements if id(node) in chosen]
    future = [n for n in body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    return future + [node for node in body if node not in future]


def _bound(node: ast.stmt) -> set[str]:
    """Names that a definition, an import or a simple assignment makes; of an experiment, none."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name.split(".")[0] for alias in names}
        case ast.Assign(targets=targets):
            return {name.id for t in targets for name in ast.walk(t) if _stores(name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return {name}
        case ast.Try() | ast.If():
            inner = [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
            return set().union(*map(_bound, inner)) if inner else set()
    return set()


def _stores(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)


def _used(node: ast.stmt) -> set[str]:
    """The names that a statement looks up in its module; its own local names are none of them."""
    top = symtable.symtable(ast.unparse(node), "", "exec")
    names, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        names |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (table is top or symbol.is_global())
        }
    return names


def _package_imports(nodes: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    """(module, name) of each import of the package anywhere in these statements; name "" for the module."""
    for node in (child for top in nodes for child in ast.walk(top)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "sparselab")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sparselab":
            yield from ((node.module, alias.name) for alias in node.names)


def package_imports(source: str) -> set[tuple[str, str]]:
    """(module, name) of everything that a source imports from the package."""
    return set(_package_imports(ast.parse(source).body))
