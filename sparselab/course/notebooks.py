"""Two editions of a lesson: the student's notebook with stubs, the solved one with answers.

The same lesson gives the same bytes: a cell's id is its position and a hash of its source, and no version or
date is stored. Both editions share their ids.
"""

import hashlib
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sparselab.course.lessons import Cell, Exercise, Lesson

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def student(lesson: Lesson) -> nbformat.NotebookNode:
    """The notebook to work in: stubs, nothing of a solution, no outputs."""
    return _notebook(lesson, solve=False)


def solved(lesson: Lesson) -> nbformat.NotebookNode:
    """The notebook with every stub replaced by its solved function, not executed yet."""
    return _notebook(lesson, solve=True)


def to_bytes(notebook: nbformat.NotebookNode) -> bytes:
    """The notebook as it is stored."""
    nbformat.validate(notebook)
    return (nbformat.writes(notebook) + "\n").encode("utf-8")


def path_of(notebook: dict) -> str | None:
    """The lesson that a notebook says it is, under whatever name it is kept."""
    stored = notebook.get("metadata", {}).get("sparselab", {})
    return stored.get("lesson") if isinstance(stored, dict) else None


def metadata(lesson: Lesson) -> dict[str, Any]:
    """What a notebook says of itself: its kernel, its language, its lesson; nothing of a machine."""
    return {
        "kernelspec": dict(KERNEL),
        "language_info": {"name": "python"},
        "sparselab": {"lesson": lesson.path},
    }


def _notebook(lesson: Lesson, *, solve: bool) -> nbformat.NotebookNode:
    parts: list[tuple[str, Cell | None]] = [(_heading(lesson), None)]
    for cell in lesson.cells:
        if cell.exercise:
            parts.append((_exercise_line(cell.exercise), None))
        parts.append((cell.source, cell))
    cells = []
    for position, (source, cell) in enumerate(parts):
        kind = cell.kind if cell else "markdown"
        digest = hashlib.sha256(f"{kind}\n{source}".encode()).hexdigest()
        new = new_code_cell if kind == "code" else new_markdown_cell
        shown = cell.exercise.solution if solve and cell and cell.exercise else source
        cells.append(new(shown, id=f"{position:02d}-{digest[:8]}", metadata=_cell_metadata(cell)))
    return new_notebook(cells=cells, metadata=metadata(lesson))


def _cell_metadata(cell: Cell | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if cell and cell.tags:
        found["tags"] = list(cell.tags)
    if cell and "hide-input" in cell.tags:
        found["jupyter"] = {"source_hidden": True}  # what JupyterLab reads; the book reads the tag
    if cell and cell.exercise:
        found["sparselab"] = {"exercise": cell.exercise.name, "function": cell.exercise.function}
    return found


def _heading(lesson: Lesson) -> str:
    exercises = len(lesson.exercises)
    count = f" · {exercises} exercise{'s' if exercises > 1 else ''}" if exercises else ""
    return f"# {lesson.number} {lesson.title}\n\n{lesson.minutes} minutes{count}"


def _exercise_line(exercise: Exercise) -> str:
    return (
        f"**Exercise {exercise.number}** · difficulty {_dots(exercise.difficulty)} · "
        f"importance {_dots(exercise.importance)} · {exercise.minutes} minutes"
    )


def _dots(count: int) -> str:
    return "●" * count + "○" * (5 - count)
