"""The API reference, from docstrings and signatures."""

import ast
import importlib
import inspect
import re
import textwrap
from types import ModuleType

from sparselab.book import typeset

MODULES = (
    "method", "judge", "data.text", "data.images", "data.planted", "models", "train", "plots", "course",
    "claims", "bench", "frontier", "classroom",
    "grading.grader", "grading.batch", "grading.marks", "grading.secret",
)  # fmt: skip
WIDTH = 84  # a signature that is longer stands on several lines


def index() -> str:
    """One line for each module that a reader calls."""
    rows = "\n".join(
        f"- [`sparselab.{name}`](api/{name.replace('.', '_')}.md): {_summary(name)}" for name in MODULES
    )
    text = "What lessons, tests and your own code import. The methods have [pages of their own](methods.md)."
    return f"# API reference\n\n{text}\n\n{rows}\n"


def page(name: str) -> str:
    """A module's docstring and its public functions and classes, in the order of their definition."""
    module = importlib.import_module(f"sparselab.{name}")
    parts = [f"# `sparselab.{name}`", typeset.markdown(inspect.getdoc(module) or "")]
    for name, value in public(module):
        parts += [f"## `{name}`", _entry(value)]
    return "\n\n".join(parts) + "\n"


def public(module: ModuleType) -> list[tuple[str, object]]:
    """(name, function or class) of what a module offers: in `__all__`, or else defined in it."""
    names = getattr(module, "__all__", None) or [n for n in vars(module) if not n.startswith("_")]
    found = []
    for name in names:
        value = inspect.unwrap(getattr(module, name))
        own = str(getattr(value, "__module__", "")).startswith(module.__name__)
        if own and (inspect.isfunction(value) or inspect.isclass(value)):
            found.append((name, value))
    return found


def signature(function) -> str:
    """How a function is called, with shapes in place of jaxtyping's types: `mask(w: "o i", *, n: int)`."""
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body[0]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    arguments = _arguments(node.args)
    line = f"{node.name}({', '.join(arguments)}){returns}"
    if len(_shapes(line)) > WIDTH:
        line = f"{node.name}(\n    " + ",\n    ".join(arguments) + f",\n){returns}"
    return _shapes(line)


def _arguments(args: ast.arguments) -> list[str]:
    """Each argument as written; a bare `*` stands where sizes begin."""
    return _split(ast.unparse(args))


def _split(text: str) -> list[str]:
    parts, depth, start, quoted = [], 0, 0, ""
    for place, letter in enumerate(text):
        if letter in "\"'" and (not quoted or quoted == letter):
            quoted = "" if quoted else letter
        depth += 0 if quoted else (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0 and not quoted:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()] if text.strip() else []


def _shapes(text: str) -> str:
    kinds = r"(Float|Bool|Int|Integer|UInt8|Num|Real|Shaped)"
    text = re.sub(rf"\b{kinds}\[[\w. |]+, (['\"])([^'\"]*)\2\]", _shape, text)
    return text.replace("np.random.Generator", "Generator")


def _shape(found: re.Match) -> str:
    kind = "" if found[1] in {"Float", "Num", "Real", "Shaped"} else f"{found[1]} "
    return f'{kind}"{" ".join(found[3].split())}"'


def _entry(value) -> str:
    parts = []
    if inspect.isclass(value):
        parts.append(_class(value))
        methods = [
            (name, member)
            for name, member in vars(value).items()
            if inspect.isfunction(member) and not name.startswith("_") and inspect.getdoc(member)
        ]
        for _, member in methods:
            parts += [f"```python\n{signature(member)}\n```", typeset.markdown(inspect.getdoc(member))]
    else:
        parts += [f"```python\n{signature(value)}\n```", typeset.markdown(inspect.getdoc(value) or "")]
    return "\n\n".join(part for part in parts if part)


def _class(value: type) -> str:
    """How an instance is made, and what the class says of itself; fields of a record count as arguments."""
    head = value.__name__
    fields = [name for name in getattr(value, "__annotations__", {}) if not name.startswith("_")]
    own_init = vars(value).get("__init__")
    if inspect.isfunction(own_init) and not hasattr(value, "__dataclass_fields__"):
        head = signature(own_init).replace("__init__", head).replace("self, ", "").replace("    self,\n", "")
    elif fields:
        head = f"{head}({', '.join(fields)})"
    own = vars(value).get("__doc__") or ""
    doc = typeset.markdown(inspect.cleandoc(own)) if own and not own.startswith(f"{value.__name__}(") else ""
    return f"```python\n{head}\n```\n\n{doc}"


def _summary(name: str) -> str:
    doc = inspect.getdoc(importlib.import_module(f"sparselab.{name}")) or ""
    return typeset.prose(doc.split("\n\n")[0])
