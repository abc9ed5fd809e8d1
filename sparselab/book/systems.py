"""One page for each method, made from its folder: equation, claims, interface, columns of code, use."""

import importlib
import inspect
import re

from sparselab.book import api, chapters, measured, papers, typeset
from sparselab.course.lessons import Lesson
from sparselab.method import BACKENDS, FAMILIES, Method, methods

COLUMNS = {
    "reference": "NumPy: the definition",
    "fast": "torch: the fast path",
    "loops": "Numba: compiled loops",
    "kernel": "Triton: the kernel",
}
FAMILY = {
    "topk": "Selection primitives", "formats": "Sparse formats", "lazy": "Lazy neurons",
    "gating": "Top-k gating", "sae": "Sparse autoencoders", "attention": "Sparse attention",
    "pruning": "N:M pruning", "search": "Sparse search",
}  # fmt: skip
CHECKED = {
    "official": "checked against the authors' code",
    "partial": "checked against the authors' code in part",
    "reconstruction": "reconstructed from the paper alone",
}
GRADIENT = {
    "exact": "exact gradient",
    "straight-through": "straight-through gradient",
    "none": "a selection, without gradient",
}


def index(course: list[Lesson]) -> str:
    """All methods by family: paper, columns of code, how many claims hold here."""
    parts = [
        "# Methods",
        "One folder of the package for each published system; one page here, from equation to kernel.",
    ]
    for family in FAMILIES:
        listed = [m for m in methods() if m.family == family]
        if listed:
            rows = [_row(m) for m in listed]
            head = "| method | paper | year | code | claims that hold here |\n|---|---|---|---|---|"
            parts += [f"## {FAMILY[family]}", "\n".join([head, *rows])]
    return "\n\n".join(parts) + "\n"


def _row(m: Method) -> str:
    name = f"[{m.title}](methods/{m.family}/{m.name}.md)"
    return f"| {name} | {papers.link(m)} | {m.year} | {', '.join(m.code.values())} | {measured.score(m)} |"


def page(m: Method, course: list[Lesson]) -> str:
    """The whole page of one method."""
    card, *told = re.split(
        r"\n\nWhat the released code does:\s+", inspect.getdoc(importlib.import_module(m.package))
    )
    facts = [papers.link(m), str(m.year), CHECKED[m.source], GRADIENT[m.gradient]]
    parts = [f"# {m.title}", f"{{.facts}}\n{' · '.join(facts)}", typeset.markdown(card, maths=True)]
    told = [typeset.markdown(text[:1].upper() + text[1:]) for text in told]
    told += [
        papers.linked(box)
        for lesson in course
        if m in _taught_in(lesson)
        for box in chapters.released_code(lesson)
    ]
    parts += [f":::{{admonition}} What the released code does\n:class: note\n{text}\n:::" for text in told]
    if m.claims:
        parts += ["## What the paper claims, measured here", measured.claims(m)]
    parts += ["## Interface", _import(m)]
    parts += [_interface(m, op) for op in m.ops]
    parts += ["## Code", _columns(m)]
    if m.no_kernel:
        parts += [f"There is no kernel: {typeset.prose(m.no_kernel)}."]
    if used := _use(m, course):
        parts += ["## Where it is used", "\n".join(used)]
    return "\n\n".join(parts) + "\n"


def _import(m: Method) -> str:
    names = [BACKENDS[backend] for backend in m.backends]
    return f"```python\nfrom {m.package} import {names[1] if len(names) > 1 else names[0]} as {m.name}\n```"


def _interface(m: Method, op: str) -> str:
    value = inspect.unwrap(getattr(m.part("reference"), op))
    call = api.signature(value) if inspect.isfunction(value) else op
    return f"### `{op}`\n\n```python\n{call}\n```\n\n{typeset.markdown(inspect.getdoc(value) or '')}"


def _columns(m: Method) -> str:
    tabs = []
    for part in m.code:
        code = (m.folder / f"{part}.py").read_text(encoding="utf-8").rstrip()
        tabs.append(f"::::{{tab-item}} {COLUMNS[part]}\n```python\n{code}\n```\n::::")
    return ":::::{tab-set}\n" + "\n".join(tabs) + "\n:::::"


def _use(m: Method, course: list[Lesson]) -> list[str]:
    """Where a reader meets it: lessons and their exercises, methods that build on it or compare with it."""
    lines = []
    for lesson in course:
        if m in _taught_in(lesson):
            asked = [e for e in lesson.exercises if m.name == e.name.split("/")[-1].split(".")[0]]
            links = ", ".join(f"[{e.number} `{e.function}`](#{chapters.anchor(e)})" for e in asked)
            exercises = f", exercise{'s' * (len(asked) > 1)} {links}" if asked else ""
            lines.append(f"- Lesson [{lesson.number} {lesson.title}](../../{lesson.path}.ipynb){exercises}")
    for other in methods():
        link = f"[{other.title}](../{other.family}/{other.name}.md)"
        if other != m and _builds_on(other, m):
            lines.append(f"- {link} builds on it.")
        elif m.name in other.against:
            lines.append(f"- {link} is measured against it.")
    return lines


def _taught_in(lesson: Lesson) -> list[Method]:
    """The methods that a lesson imports or asks exercises of."""
    code = "\n".join(cell.source for cell in lesson.cells if cell.kind == "code")
    return [m for m in methods() if _imports(code, m)]


def _builds_on(other: Method, m: Method) -> bool:
    parts = ("reference", "fast", "kernel")
    return any(
        _imports((other.folder / f"{p}.py").read_text(encoding="utf-8"), m) for p in parts if other.has(p)
    )


def _imports(code: str, m: Method) -> bool:
    whole = rf"from {re.escape(m.package)}(?:\.\w+)* import"
    part = rf"from sparselab\.{m.family} import [^\n]*\b{m.name}\b"
    return bool(re.search(f"{whole}|{part}", code))
