"""A student's folder of notebooks: made once, brought up to date ever after, and never a line of it lost.

DIR/01_lazy/01_lazy_neuron.ipynb                   the student's
DIR/.sparselab/base/01_lazy/01_lazy_neuron.ipynb   what was last delivered there
DIR/.sparselab/backup/01_lazy/...                  each of the student's files before it was rewritten
"""

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

from sparselab.course import notebooks, writing
from sparselab.course.lessons import Lesson
from sparselab.course.merge import merge
from sparselab.course.writing import OWN
from sparselab.files import write_atomically


def prepare(folder: Path, course: Iterable[Lesson]) -> list[str]:
    """Put every lesson's notebook into `folder`, or bring it up to date; what is worth telling, a line each.

    A file that needs no change is not touched. ValueError where `folder` cannot be one; OSError where it
    cannot be written, and then each notebook in it is whole: as it was, or as it will be.
    """
    course = list(course)
    for place in (folder, folder / OWN):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file, a folder of that name is needed; move it or choose another")
    if (folder / OWN).is_symlink():
        raise ValueError(f"{folder / OWN} is a symbolic link; move it away and start again")
    folder.mkdir(parents=True, exist_ok=True)
    renamed = _renamed(folder, course)
    told = [line for lesson in course for line in _deliver(folder, lesson, renamed[lesson.path])]
    return told + _retire(folder, {lesson.path for lesson in course})


def path_of(folder: Path, lesson: Lesson) -> Path:
    """Where the notebook of a lesson belongs in a student's folder."""
    return folder / f"{lesson.path}.ipynb"


def _deliver(folder: Path, lesson: Lesson, renamed: list[Path]) -> list[str]:
    """One lesson: a fresh notebook, an update, or a reason to keep away."""
    path, new = path_of(folder, lesson), notebooks.to_bytes(notebooks.student(lesson))
    base_path = folder / OWN / "base" / path.relative_to(folder)
    name = _name(folder, path)
    if reason := not_ours_to_write(folder, path):
        return [f"{name}: {reason}; left as it is"]
    if path.exists():
        told = _update(folder, path, base_path, new, lesson)
    elif len(renamed) == 1 and not not_ours_to_write(folder, renamed[0]):
        told = [f"{name}: you renamed it to {_name(folder, renamed[0])}, which is kept up to date"]
        told += _update(folder, renamed[0], base_path, new, lesson)
    else:
        told = []
        if renamed:
            names = " and ".join(_name(folder, found) for found in renamed)
            told = [f"{name}: you renamed it to {names}, left as it is; a fresh one is in its place"]
        elif base_path.exists():
            told = [f"{name}: was deleted; a fresh one is in its place"]
        write_atomically(path, new)
    writing.write_if_new(base_path, new)
    return told


def _update(folder: Path, path: Path, base_path: Path, new: bytes, lesson: Lesson) -> list[str]:
    """Merge the update into what stands at `path`, whatever that is."""
    name = _name(folder, path)
    try:
        mine = _read(path)
    except ValueError as error:
        aside = writing.write_beside(path, "damaged", path.read_bytes())
        write_atomically(path, new)
        return [f"{name}: {error}; it is now {aside.name}, and a fresh one is in its place"]
    if (says := notebooks.path_of(mine)) != lesson.path:
        what = f"says that it is {says}" if says else "is not one of this course"
        return [f"{name}: this notebook {what}; left as it is, rename it to get lesson {lesson.number}"]
    update = json.loads(new)
    _join_sources(update)
    try:
        base = _read(base_path)
    except (ValueError, OSError):
        if _sources(mine) == _sources(update):
            return []
        fresh = writing.write_beside(path, "fresh", new)
        return [
            f"{name}: left as it is, since what was delivered is not on record; a fresh one is {fresh.name}"
        ]
    cells, conflicts = merge(base["cells"], mine["cells"], update["cells"])
    told = [f"{name}: {conflict}" for conflict in conflicts]
    if cells == mine["cells"]:
        return told
    backup = _back_up(folder, path)
    write_atomically(
        path, _to_bytes({**mine, "cells": cells, "nbformat_minor": max(5, mine["nbformat_minor"])})
    )
    return [f"{name}: brought up to date; as it was: {_name(folder, backup)}", *told]


def _renamed(folder: Path, course: list[Lesson]) -> dict[str, list[Path]]:
    """For each lesson that was delivered and is gone from its place: the notebooks that say they are it."""
    found: dict[str, list[Path]] = defaultdict(list)
    places = {path_of(folder, lesson): lesson.path for lesson in course}
    gone = {
        lesson
        for place, lesson in places.items()
        if not place.exists() and (folder / OWN / "base" / f"{lesson}.ipynb").exists()
    }
    for here, folders, names in os.walk(folder) if gone else ():
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(here, name) for name in sorted(names) if name.endswith(".ipynb")):
            if path not in places and not path.is_symlink() and (lesson := _lesson_of(path)) in gone:
                found[lesson].append(path)
    return found


def _retire(folder: Path, current: set[str]) -> list[str]:
    """Tell once of each delivered lesson that the course no longer has; the student's file stays."""
    told = []
    base = folder / OWN / "base"
    for path in sorted(base.rglob("*.ipynb")):
        name = _name(base, path)
        if name.removesuffix(".ipynb") not in current:
            path.unlink()
            if (folder / name).exists():
                told.append(f"{name}: no longer part of the course; yours is kept")
    return told


def not_ours_to_write(folder: Path, path: Path) -> str:
    """Why this place is left alone, or nothing."""
    for part in (*reversed(path.relative_to(folder).parents), path.relative_to(folder)):
        if (folder / part).is_symlink() and part != Path("."):
            return f"{part.as_posix()} is a symbolic link"
    if path.is_dir():
        return "a folder stands where this file belongs"
    if path.exists() and not path.stat().st_mode & 0o222:
        return "the file is read-only"
    return ""


def _back_up(folder: Path, path: Path) -> Path:
    place = folder / OWN / "backup" / path.relative_to(folder)
    return writing.write_beside(place, datetime.now().strftime("%Y-%m-%d-%H%M%S"), path.read_bytes())


def _name(folder: Path, path: Path) -> str:
    return path.relative_to(folder).as_posix()


# ---------------------------------------------------------------- a notebook that comes back


def _read(path: Path) -> dict[str, Any]:
    """A notebook with each source as one string; ValueError says why the file cannot be one."""
    content = path.read_bytes()
    if not content.strip(b" \r\n\t\0"):
        raise ValueError("the file is empty")
    try:
        stored = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("the file is not UTF-8") from None
    except (json.JSONDecodeError, RecursionError):
        raise ValueError("the file is not JSON, as if half of it was saved") from None
    if not _is_notebook(stored):
        raise ValueError("the file is not a notebook")
    _join_sources(stored)
    return stored


def _is_notebook(stored: Any) -> bool:
    return (
        isinstance(stored, dict)
        and stored.get("nbformat") == 4
        and isinstance(stored.get("nbformat_minor"), int)
        and isinstance(stored.get("metadata"), dict)
        and isinstance(stored.get("cells"), list)
        and all(_is_cell(cell) for cell in stored["cells"])
    )


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata", {}), dict):
        return False
    source = cell.get("source")
    lines = source if isinstance(source, list) else [source]
    return isinstance(cell.get("cell_type"), str) and all(isinstance(line, str) for line in lines)


def _join_sources(notebook: dict) -> None:
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])


def _sources(notebook: dict) -> list[tuple[str, str]]:
    return [(cell["cell_type"], cell["source"]) for cell in notebook["cells"]]


def _to_bytes(notebook: dict) -> bytes:
    """The notebook as Jupyter stores it, with all else that was in the file."""
    cells = [{**cell, "source": cell["source"].splitlines(True)} for cell in notebook["cells"]]
    stored = {**notebook, "cells": cells}
    try:
        return (json.dumps(stored, indent=1, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # half of a character, which only an escape can store
        return (json.dumps(stored, indent=1) + "\n").encode("utf-8")


def _lesson_of(path: Path) -> str | None:
    try:
        return notebooks.path_of(_read(path))
    except (ValueError, OSError):
        return None
