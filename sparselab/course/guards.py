"""What a stored notebook must show before its outputs may count as evidence.

nbval never compares a cell without an execution count, never compares pictures, and is content with a check
that fails in the same words twice; each of these is a problem here.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat

from sparselab.course import GRADED, notebooks
from sparselab.course.lessons import Lesson, graded

SANITISE = Path(__file__).with_name("nbval.cfg")
NBVAL = ("--nbval", "--nbval-current-env", "--nbval-cell-timeout=60", f"--nbval-sanitize-with={SANITISE}")

_UNCOMPARED_TAGS = ("nbval-ignore-output", "nbval-skip", "skip-execution")
_UNCOMPARED_COMMENT = re.compile(r"#\s*((?:NBVAL|PYTEST_VALIDATE)_(?:IGNORE_OUTPUT|SKIP))")


def problems(notebook: nbformat.NotebookNode, lesson: Lesson | None = None) -> list[str]:
    """One line for each thing that makes this executed notebook prove less than it seems to.

    With the lesson, its cells, their order and every check cell are held against it too.
    """
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "code":
            found += [f"cell {number}: {problem}" for problem in _cell_problems(cell)]
    return found + (_against(notebook, lesson) if lesson else [])


def uncompared(notebook: nbformat.NotebookNode) -> list[str]:
    """The cells that nbval runs without comparing, or does not run: to be counted and capped."""
    found = []
    for number, cell in enumerate(notebook.cells, 1):
        tags = [tag for tag in cell.metadata.get("tags", []) if tag in _UNCOMPARED_TAGS]
        found += [f"cell {number}: {why}" for why in tags + _UNCOMPARED_COMMENT.findall(cell.source)]
    return found


def _cell_problems(cell: nbformat.NotebookNode) -> list[str]:
    found = []
    if cell.execution_count is None:
        found.append("never executed, so its outputs are compared with nothing")
    raises = "raises-exception" in cell.metadata.get("tags", [])
    for output in cell.outputs:
        if output.output_type == "error" and not raises:
            found.append(f"stores an error: {output.ename}: {output.evalue}")
        if output.output_type == "stream" and output.name == "stderr":
            found.append(f"writes to stderr: {' '.join(output.text.split())}")
        found += _figure_problems(output.get("data", {}))
    if raises and not any(output.output_type == "error" for output in cell.outputs):
        found.append("is to raise an exception and raises none")
    return found


def _figure_problems(data: dict) -> list[str]:
    """A picture reaches the page only as an <img> with alt text, which `plots.show` writes."""
    found = [f"a bare {kind} has no alt text; use plots.show" for kind in data if kind.startswith("image/")]
    if "application/vnd.jupyter.widget-view+json" in data:
        found.append("a live widget is dead on a page; use plots.explore")
    pictures = _Pictures()
    pictures.feed(data.get("text/html", ""))
    return found + ["a figure without alt text"] * pictures.without_alt


class _Pictures(HTMLParser):
    without_alt = 0

    def handle_starttag(self, tag, attrs):
        if tag == "img" and not (dict(attrs).get("alt") or "").strip():
            self.without_alt += 1


def _against(notebook: nbformat.NotebookNode, lesson: Lesson) -> list[str]:
    fresh = notebooks.solved(lesson).cells
    stored = [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]
    if stored != [(cell.id, cell.cell_type, cell.source) for cell in fresh]:
        return ["its cells are not those of the lesson and its solutions; run `sparselab build`"]
    found = []
    asked = {(exercise.name, exercise.function) for exercise in lesson.exercises}
    for number, cell in enumerate(notebook.cells, 1):
        for name, function in graded(cell.source) if cell.cell_type == "code" else ():
            if (name, function) in asked and name not in _passed(cell):
                found.append(f"cell {number}: the check of {name} does not pass: {_said(cell)}")
    return found


def _passed(cell: nbformat.NotebookNode) -> set[str]:
    grades = [output.get("metadata", {}).get(GRADED, {}) for output in cell.outputs]
    return {grade["exercise"] for grade in grades if grade.get("ok") is True}


def _said(cell: nbformat.NotebookNode) -> str:
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return " ".join(" ".join(texts).split()) or "it prints nothing"
