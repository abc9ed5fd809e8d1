"""Columns never mix, and nothing heavy is imported before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sparselab.method import FAMILIES, PACKAGE, methods

STDLIB = set(sys.stdlib_module_names)
HEAVY = {"torch", "matplotlib", "numpy", "numba", "triton", "sklearn", "IPython", "typer"}
SHARED = {"models", "train", "bench", "plots", "course", "cli"}


def imported(source: str, package: str = "") -> set[str]:
    """Dotted names that a module of `package` imports anywhere in its text."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(filter(None, (above, node.module)))
            names |= {f"{module}.{alias.name}" for alias in node.names} | {module}
    return names


def strangers(part: str, source: str, family: str, name: str) -> set[str]:
    """Imports that the layer `part` of method `family/name` may not have."""
    package = f"sparselab.{family}.{name}"
    return {n for n in imported(source, package) if not allowed(part, n, package)}


def allowed(part: str, name: str, package: str) -> bool:
    top = name.split(".")[0]
    if part in {"model", "claim", "bench"}:
        return True
    if top != "sparselab":
        columns = {"fast": {"torch"}, "kernel": {"torch", "triton"}}
        common = {"numpy", "jaxtyping"} if part in {"reference", "checks"} else {"jaxtyping"}
        return top in STDLIB | common | columns.get(part, set())
    if name == "sparselab":
        return True  # what is imported from it has a name of its own
    if name == package or name.startswith(package + "."):
        return own_part(part, name.removeprefix(package).strip("."))
    if name.split(".")[1] in SHARED:
        return False
    if name.split(".")[1] in {"topk", "formats"}:  # a primitive's own columns, as far as this one may see
        visible = {"checks": {"reference"}, "kernel": {"kernel", "fast"}}.get(part, {part})
        return name.count(".") < 3 or name.split(".")[3] in visible
    return name.split(".")[1] not in FAMILIES and (part != "reference" or "kernels" not in name)


def own_part(part: str, tail: str) -> bool:
    mine = {"checks": {"", "reference"}, "kernel": {"", "fast"}, "fast": {"", "loops"}}.get(part, {""})
    return tail.split(".")[0] in mine


MODULES = [
    (m, part)
    for m in methods()
    for part in ("reference", "fast", "loops", "kernel", "checks", "claim")
    if m.has(part)
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
        ("fast", "from . import reference"),
        ("fast", "from sparselab.topk.exact import loops"),
        ("loops", "import numpy as np"),
        ("loops", "from . import fast"),
        ("reference", "from . import loops"),
        ("fast", "from ..magnitude.fast import mask"),
        ("checks", "import torch"),
        ("checks", "from sparselab import models"),
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
        ("kernel", "from .fast import score"),
        ("fast", "from . import loops"),
        ("loops", "from sparselab.loops import compiled"),
        ("checks", "from sparselab.pruning.wanda import reference"),
        ("checks", "from sparselab import judge"),
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
        package = ".".join(("sparselab", *relative.parts[:-1]))
        names = imported(path.read_text(encoding="utf-8"), package)
        methods_used = {n for n in names if n.startswith("sparselab.") and n.split(".")[1] in FAMILIES}
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
