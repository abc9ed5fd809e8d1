"""Columns never mix, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sparselab.method import FAMILIES, PACKAGE, methods

STDLIB = set(sys.stdlib_module_names)
HEAVY = {"torch", "matplotlib", "numpy", "triton", "sklearn", "IPython", "typer"}
SHARED = {"models", "train", "bench", "plots", "course", "cli"}


def imported(source: str) -> set[str]:
    """Dotted names that a module imports anywhere in its text."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def strangers(part: str, source: str, family: str, name: str) -> set[str]:
    """Imports that the layer `part` of method `family/name` may not have."""
    return {n for n in imported(source) if not allowed(part, n, f"sparselab.{family}.{name}")}


def allowed(part: str, name: str, package: str) -> bool:
    top = name.split(".")[0]
    if part in {"claim", "bench"}:
        return True
    if top != "sparselab":
        columns = {"reference": set(), "fast": {"torch"}, "kernel": {"torch", "triton"}, "checks": set()}
        common = {"numpy", "jaxtyping"} if part in {"reference", "checks"} else {"jaxtyping"}
        return top in STDLIB | common | columns[part]
    if name in {"sparselab", package} or name.startswith(package + "."):
        return own_part(part, name.removeprefix(package).strip("."))
    if name.split(".")[1] in SHARED:
        return False
    if name.split(".")[1] in {"topk", "formats"}:  # a primitive's same column
        return name.count(".") < 3 or name.split(".")[3] == ("reference" if part == "checks" else part)
    return name.split(".")[1] not in FAMILIES and (part != "reference" or "kernels" not in name)


def own_part(part: str, tail: str) -> bool:
    mine = {"checks": {"", "reference"}, "kernel": {"", "fast"}}.get(part, {""})
    return tail.split(".")[0] in mine


MODULES = [
    (m, part) for m in methods() for part in ("reference", "fast", "kernel", "checks", "claim") if m.has(part)
]


@pytest.mark.parametrize(("method", "part"), MODULES, ids=[f"{m.family}/{m.name}.{p}" for m, p in MODULES])
def test_columns_never_mix(method, part):
    source = (method.folder / f"{part}.py").read_text(encoding="utf-8")
    assert strangers(part, source, method.family, method.name) == set()


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("reference", "import torch"),
        ("reference", "from sparselab.pruning.wanda import fast"),
        ("reference", "from sparselab.topk.exact import fast"),
        ("reference", "from sparselab.lazy.lazy_neuron import reference"),
        ("fast", "import numpy as np"),
        ("fast", "from sparselab.pruning.wanda import reference"),
        ("fast", "from sparselab.models import load"),
        ("kernel", "from sparselab.pruning.wanda import reference"),
        ("checks", "import torch"),
    ],
)
def test_the_guard_sees_a_mixed_column(part, line):
    assert strangers(part, line, "pruning", "wanda")


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("reference", "import numpy as np"),
        ("reference", "from sparselab.topk.exact import reference as exact"),
        ("fast", "from sparselab.topk.exact import fast as exact"),
        ("checks", "from sparselab.pruning.wanda import reference"),
    ],
)
def test_the_guard_lets_a_column_be_itself(part, line):
    assert not strangers(part, line, "pruning", "wanda")


def test_shared_modules_import_no_method():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        relative = path.relative_to(PACKAGE)
        if relative.parts[0] in {*FAMILIES, "_course"}:
            continue
        methods_used = {
            n for n in imported(path.read_text(encoding="utf-8"))
            if n.startswith("sparselab.") and n.split(".")[1] in FAMILIES
        }  # fmt: skip
        if methods_used:
            found[str(relative)] = methods_used
    assert found == {}


def run(code: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)


def test_import_sparselab_is_light():
    code = f"""
import sys, sparselab, sparselab.__main__, sparselab.method
sparselab.method.methods()
print(sorted(set(sys.modules) & {HEAVY!r}))
"""
    assert run(code).stdout.strip() == "[]"


WITHOUT_TORCH = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "triton", "matplotlib", "sklearn"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""


def test_every_reference_works_where_torch_is_not_installed():
    code = f"""{WITHOUT_TORCH}
from sparselab import judge
from sparselab.method import methods
for m in methods():
    for op in m.ops:
        grade = judge.grade(m, op, getattr(m.part("reference"), op))
        assert grade.ok, grade
print("all of them")
"""
    result = run(code)
    assert result.stdout.strip() == "all of them", result.stderr


def test_torch_is_really_absent_there():
    result = run(f"{WITHOUT_TORCH}\nfrom sparselab.pruning.wanda import fast")
    assert "ModuleNotFoundError" in result.stderr


def test_the_repository_imports_from_its_own_folder():
    assert Path(run("import sparselab; print(sparselab.__file__)").stdout.strip()).parent == PACKAGE
