"""Which pages the site has, where they stand, and their sources on disk."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from sparselab.book import api, chapters, measured, papers, systems
from sparselab.course.lessons import Lesson
from sparselab.course.writing import write_if_new
from sparselab.method import FAMILIES, methods

PROSE = ("_config.yml", "index.md", "instructors.md", "solutions.md", "glossary.md", "_static")


def write(source: Path, root: Path, course: list[Lesson]) -> None:
    """Write the sources of every page, only where they changed; what no page needs any more is removed."""
    wanted = dict(_pages(root, course))
    for name, content in wanted.items():
        write_if_new(source / name, content)
    for path in sorted(source.rglob("*"), reverse=True):
        name = path.relative_to(source).as_posix()
        if path.is_file() and name not in wanted:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)


def _pages(root: Path, course: list[Lesson]) -> Iterator[tuple[str, bytes]]:
    book = root / "book"
    for name in PROSE:
        files = [book / name] if (book / name).is_file() else sorted((book / name).rglob("*"))
        yield from ((f.relative_to(book).as_posix(), f.read_bytes()) for f in files if f.is_file())
    texts = {
        "generated/hero.md": chapters.hero(),
        "generated/map.md": chapters.chapter_map(root, course),
        "methods.md": systems.index(course),
        "results.md": measured.page(),
        "bibliography.md": papers.page(course),
        "api.md": api.index(),
        "add_a_method.md": (root / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "_toc.yml": yaml.safe_dump(_contents(root, course), sort_keys=False),
    }
    texts |= {f"api/{name.replace('.', '_')}.md": api.page(name) for name in api.MODULES}
    texts |= {
        f"{chapter}/index.md": chapters.opening(root, chapter, course) for chapter in chapters.names(root)
    }
    texts |= {f"methods/{m.family}/{m.name}.md": systems.page(m, course) for m in methods()}
    for lesson in course:
        texts[f"{lesson.path}.ipynb"] = chapters.lesson_page(root, lesson)
        if lesson.exercises:
            texts[f"{chapters.solutions_of(lesson)}.md"] = chapters.solutions_page(lesson)
    yield from ((name, text.encode("utf-8")) for name, text in texts.items())


def _contents(root: Path, course: list[Lesson]) -> dict:
    """The table of contents, in Jupyter Book's own form."""
    parts = []
    for chapter in chapters.names(root):
        inside = [{"file": lesson.path} for lesson in course if lesson.path.startswith(f"{chapter}/")]
        parts.append({"file": f"{chapter}/index", **({"sections": inside} if inside else {})})
    systems_of = [
        {"file": f"methods/{m.family}/{m.name}"} for f in FAMILIES for m in methods() if m.family == f
    ]
    modules = [{"file": f"api/{name.replace('.', '_')}"} for name in api.MODULES]
    solved = [{"file": chapters.solutions_of(lesson)} for lesson in course if lesson.exercises]
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {"caption": "The course", "chapters": parts},
            {
                "caption": "Reference",
                "chapters": [
                    {"file": "methods", "sections": systems_of},
                    {"file": "results"},
                    {"file": "api", "sections": modules},
                    {"file": "glossary"},
                    {"file": "bibliography"},
                ],
            },
            {
                "caption": "Teach and contribute",
                "chapters": [
                    {"file": "instructors"},
                    {"file": "solutions", **({"sections": solved} if solved else {})},
                    {"file": "add_a_method", "title": "Add a method"},
                ],
            },
        ],
    }
