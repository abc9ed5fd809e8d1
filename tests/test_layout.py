"""Where things stand: every folder has its parts, every card tells the truth about them."""

import ast
import re
from pathlib import Path

import pytest

from sparselab.method import BACKENDS, FAMILIES, PACKAGE, Claim, Method, find, folders, methods, select

ROOT = PACKAGE.parent
TOP_LEVEL = {"chapters", "sparselab", "solutions", "tests", "book"}

each_method = pytest.mark.parametrize("method", methods(), ids=lambda m: f"{m.family}/{m.name}")


def missing_parts(method: Method) -> list[str]:
    """What the card promises and the folder lacks, or the other way round."""
    expected = {BACKENDS[b] for b in method.backends} | {"checks"} | ({"claim"} if method.claims else set())
    optional = {"__init__", "loops", "model", "bench"}
    present = {path.stem for path in method.folder.glob("*.py")}
    return sorted((expected - present) | (present - expected - optional))


@each_method
def test_a_folder_holds_what_its_card_says(method):
    assert missing_parts(method) == []


def test_the_guard_sees_a_missing_part():
    card = find("wanda")
    fields = {name: getattr(card, name) for name in card.__dataclass_fields__} | {"no_kernel": ""}
    assert missing_parts(Method(**fields | {"backends": ("numpy", "torch", "triton")})) == ["kernel"]


@each_method
def test_a_card_names_its_folder_and_its_paper(method):
    assert method.package == f"sparselab.{method.family}.{method.name}"
    assert method.family in FAMILIES
    assert re.fullmatch(r"\d\.\d+", method.chapter)
    assert method.paper and 1900 < method.year < 2100
    assert method.summary.endswith(".") or ":" in method.summary
    for other in method.against:
        find(other)


@each_method
def test_a_card_with_claims_says_how_long_they_take(method):
    assert bool(method.claims) == bool(method.claim_seconds)


def test_every_folder_of_a_family_is_a_method():
    strangers = [
        path
        for family in FAMILIES
        for path in (PACKAGE / family).glob("*/")
        if path.name != "__pycache__" and (family, path.name) not in set(folders())
    ]
    assert strangers == []


def test_names_do_not_shadow_libraries():
    shadows = {"torch.py", "numpy.py", "triton.py", "select.py", "random.py", "math.py"}
    allowed = {PACKAGE / "judge.py"}
    found = [p for p in PACKAGE.rglob("*.py") if p.name in shadows and p not in allowed]
    assert found == []


def test_comparisons_go_through_the_judge():
    """`allclose` compares with a tolerance nobody chose, and its result is easily dropped."""
    own = Path(__file__)
    found = [
        p.name for p in own.parent.glob("*.py") if p != own and re.search(r"\ballclose\b", p.read_text())
    ]
    assert found == []


def test_a_claim_that_could_not_fail_is_refused():
    with pytest.raises(ValueError, match="could not fail"):
        Claim(text="nothing", metric="x")
    assert not Claim(text="t", metric="x", at_most=1).holds(float("nan"))


def test_public_functions_say_what_they_do():
    """One sentence on every function that a reader may call; `fast` inherits its reference's."""
    silent = []
    for path in PACKAGE.rglob("*.py"):
        if path.name in {"fast.py", "kernel.py", "checks.py", "bench.py"} or "_course" in path.parts:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node) and node.name != "main":
                silent.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert silent == []


def test_names_are_methods_and_families_and_each_method_comes_once():
    assert select() == list(methods())
    lazy = [m for m in methods() if m.family == "lazy"]
    assert select(["lazy", "lazy/teal"]) == lazy and len(lazy) > 5
    assert select(["teal", "sae"])[0] == find("lazy/teal")
    with pytest.raises(ValueError, match="no method is called 'lazzy'"):
        select(["lazzy"])
