"""The course on the site: front page, chapter openings, lessons with stubs, solutions behind closed doors."""

import re
from pathlib import Path

import nbformat

from sparselab.book import papers, pictures, typeset
from sparselab.course.lessons import Exercise, Lesson
from sparselab.method import Method, methods


def names(root: Path) -> list[str]:
    """Every chapter in order: `01_lazy` for `book/chapters/01_lazy.md`, which opens it."""
    return sorted(path.stem for path in (root / "book" / "chapters").glob("*.md"))


def title(root: Path, chapter: str) -> str:
    """A chapter's title, from the first heading of its opening."""
    return _opening_text(root, chapter).split("\n")[0].removeprefix("# ")


def hero() -> str:
    """The picture at the top of the front page."""
    return _raw(f'<div class="hero-picture">{pictures.fading()}</div>')


def chapter_map(root: Path, course: list[Lesson]) -> str:
    """A tile for each chapter: its picture, what it asks, lessons, minutes, difficulty."""
    tiles = []
    for chapter in names(root):
        inside = _lessons(chapter, course)
        question = _opening_text(root, chapter).split("\n\n")[1]
        tiles.append(
            f'<a class="tile" href="{chapter}/index.html">{pictures.chapter(chapter)}'
            f'<span class="tile-title"><span>{int(chapter[:2])}</span> {title(root, chapter)}</span>'
            f'<span class="tile-text">{" ".join(question.split())}</span>'
            f'<span class="tile-facts">{_facts(inside)}</span></a>'
        )
    return _raw(f'<nav class="tiles" aria-label="Chapters">{"".join(tiles)}</nav>')


def opening(root: Path, chapter: str, course: list[Lesson]) -> str:
    """A chapter's own words and picture, its lessons with time and difficulty, its systems."""
    heading, _, text = _opening_text(root, chapter).partition("\n")
    parts = [f"# {int(chapter[:2])} {heading.removeprefix('# ')}"]
    parts += [_raw(f'<div class="chapter-picture">{pictures.chapter(chapter)}</div>'), text.strip()]
    if inside := _lessons(chapter, course):
        rows = "".join(map(_lesson_row, inside))
        parts += ["## Lessons", _raw(f'<nav class="rows" aria-label="Lessons">{rows}</nav>')]
    else:
        parts += ["The lessons of this chapter are being written."]
    taught = [m for m in methods() if m.chapter.split(".")[0] == str(int(chapter[:2]))]
    if taught:
        parts += ["## Systems", "\n".join(_system(m) for m in sorted(taught, key=_place))]
    return "\n\n".join(parts) + "\n"


def lesson_page(root: Path, lesson: Lesson) -> str:
    """The solved notebook with its outputs; where it solves an exercise, the page shows the stub instead."""
    path = root / "solutions" / f"{lesson.path}.ipynb"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: run `sparselab build {lesson.number}` first")
    notebook = nbformat.read(path, as_version=4)
    asked = {cell.exercise.name: (cell.exercise, cell.source) for cell in lesson.cells if cell.exercise}
    _first(notebook, lesson)
    for before, cell in zip([None, *notebook.cells], notebook.cells, strict=False):
        if name := cell.metadata.get("sparselab", {}).get("exercise"):
            exercise, stub = asked[name]
            cell.source, before.source = stub, _exercise_box(exercise)
        elif cell.cell_type == "markdown":
            cell.source = papers.linked(_boxed(cell.source))
    return nbformat.writes(notebook) + "\n"


def solutions_of(lesson: Lesson) -> str:
    """Where the solutions of a lesson stand: an address made of names that do not change."""
    return f"solutions/{lesson.path}"


def solutions_page(lesson: Lesson) -> str:
    """Each solution behind a closed door, on a page that search does not index."""
    parts = ["---\nnosearch: true\n---", f"# Solutions of lesson {lesson.number}"]
    parts += [
        f"[{lesson.title}](../../{lesson.path}.ipynb). Each door opens on one solution; try once more first."
    ]
    for exercise in lesson.exercises:
        parts += [
            f"({anchor(exercise)}-solution)=\n## {exercise.number} `{exercise.function}`",
            f"[Back to the exercise](#{anchor(exercise)})",
            f"::::{{dropdown}} Show the solution\n```python\n{exercise.solution}\n```\n::::",
        ]
    return "\n\n".join(parts) + "\n"


def anchor(exercise: Exercise) -> str:
    """The address of an exercise on its page, for links that survive every edit."""
    return "exercise-" + re.sub(r"[^a-z0-9]+", "-", exercise.name)


def released_code(lesson: Lesson) -> list[str]:
    """The boxes of a lesson that say what the released code does, as Markdown without the quote marks."""
    return [
        box for cell in lesson.cells for lead, box in _boxes(cell.source) if "released code" in lead.lower()
    ]


# ---------------------------------------------------------------- parts of a page


def _first(notebook: nbformat.NotebookNode, lesson: Lesson) -> None:
    heading, facts = notebook.cells[0].source.split("\n\n")
    marks = " · ".join([facts, *([_difficulty([lesson])] if lesson.exercises else [])])
    download = (
        f'<a class="download" href="../notebooks/{lesson.path}.ipynb" download>Download this lesson</a>'
    )
    notebook.cells[0].source = f'{heading}\n\n<p class="facts"><span>{marks}</span> {download}</p>'


def _exercise_box(exercise: Exercise) -> str:
    return (
        f"({anchor(exercise)})=\n"
        f":::{{admonition}} Exercise {exercise.number}: `{exercise.function}`\n:class: exercise\n"
        f"difficulty {dots(exercise.difficulty)} · importance {dots(exercise.importance)} · "
        f"{exercise.minutes} minutes · [solution](#{anchor(exercise)}-solution)\n:::"
    )


def _boxed(source: str) -> str:
    """Quotes that open in bold become boxes under that heading."""
    for lead, text in _boxes(source):
        quoted = re.search(rf"(?m)^> \*\*{re.escape(lead)}\*\*.*(?:\n>.*)*", source)[0]
        source = source.replace(quoted, f":::{{admonition}} {lead.rstrip('.')}\n:class: note\n{text}\n:::")
    return source


def _boxes(source: str) -> list[tuple[str, str]]:
    """(lead, text) of each quote that opens in bold."""
    found = []
    for quote in re.findall(r"(?m)^> \*\*.*(?:\n>.*)*", source):
        text = re.sub(r"(?m)^> ?", "", quote)
        lead, _, rest = text.removeprefix("**").partition("**")
        found.append((lead, rest.strip()))
    return found


def _lessons(chapter: str, course: list[Lesson]) -> list[Lesson]:
    return [lesson for lesson in course if lesson.path.startswith(f"{chapter}/")]


def _lesson_row(lesson: Lesson) -> str:
    count = len(lesson.exercises)
    facts = f"{lesson.minutes} min · {count} exercise{'s' * (count != 1)} · {_difficulty([lesson])}"
    return (
        f'<a class="row" href="{lesson.path.split("/")[1]}.html">'
        f'<span class="row-number">{lesson.number}</span><span class="row-title">{lesson.title}</span>'
        f'<span class="row-facts">{facts}</span></a>'
    )


def _facts(inside: list[Lesson]) -> str:
    if not inside:
        return "lessons in preparation"
    count = f"{len(inside)} lesson{'s' * (len(inside) > 1)}"
    return f"{count} · {sum(lesson.minutes for lesson in inside)} min · {_difficulty(inside)}"


def _difficulty(inside: list[Lesson]) -> str:
    """The mean difficulty of their exercises, as dots that a screen reader says in words."""
    marks = [exercise.difficulty for lesson in inside for exercise in lesson.exercises]
    level = round(sum(marks) / len(marks)) if marks else 1
    return f'<span role="img" aria-label="difficulty {level} of 5" title="difficulty">{dots(level)}</span>'


def dots(count: int) -> str:
    """`●●○○○` for 2 of 5."""
    return "●" * count + "○" * (5 - count)


def _system(method: Method) -> str:
    summary = method.summary.partition(": ")[2] or method.summary
    link = f"[{method.title}](../methods/{method.family}/{method.name}.md)"
    return f"- {link} ({method.year}): {typeset.prose(summary)}"


def _place(method: Method) -> tuple[int, ...]:
    return tuple(map(int, method.chapter.split(".")))


def _opening_text(root: Path, chapter: str) -> str:
    return (root / "book" / "chapters" / f"{chapter}.md").read_text(encoding="utf-8")


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"
