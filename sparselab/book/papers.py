"""The papers: links wherever one is named, and the bibliography, gathered from the cards and the lessons."""

import re
from collections import defaultdict

from sparselab.course.lessons import Lesson
from sparselab.method import Method, methods

_ARXIV = re.compile(r"(?<![\[/\w])arXiv:(\d{4}\.\d{4,5})")
_CITED = re.compile(r"(?:^|[:;.]\s|\n)\s*([^:;.*]+?(?:et al\.)?),\s+\*([^*]+)\*,\s+arXiv:(\d{4}\.\d{4,5})")


def link(method: Method) -> str:
    """The paper of a card as a link, where it has an address."""
    return linked(method.paper)


def linked(text: str) -> str:
    """The text with every arXiv number as a link."""
    return _ARXIV.sub(r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def page(course: list[Lesson]) -> str:
    """Every paper that a card or a lesson names: who wrote it, what here is made of it, where it is read."""
    cited = _cited(course)
    made, read = defaultdict(list), defaultdict(list)
    for method in methods():
        made[method.paper.removeprefix("arXiv:")].append(method)
    for lesson in course:
        for number in {number for cell in lesson.cells for number in _ARXIV.findall(cell.source)}:
            read[number].append(lesson)
    by_year = defaultdict(list)
    for number in sorted({*made, *read}):
        year = made[number][0].year if made[number] else 2000 + int(number[:2])
        by_year[year].append(_entry(number, cited.get(number), made[number], read[number]))
    parts = ["# Bibliography", "The papers behind the methods and those that the lessons send you to."]
    for year in sorted(by_year, reverse=True):
        parts += [f"## {year}", "\n".join(by_year[year])]
    return "\n\n".join(parts) + "\n"


def _cited(course: list[Lesson]) -> dict[str, tuple[str, str]]:
    """number: (authors, title), as the lessons write them: `Li et al., *Title*, arXiv:2210.06313`."""
    found = {}
    for lesson in course:
        for cell in lesson.cells:
            for authors, title, number in _CITED.findall(cell.source if cell.kind == "markdown" else ""):
                found[number] = (" ".join(authors.split()), " ".join(title.split()))
    return found


def _entry(number: str, cited: tuple[str, str] | None, made: list[Method], read: list[Lesson]) -> str:
    paper = linked(f"arXiv:{number}") if re.fullmatch(r"\d{4}\.\d+", number) else number
    name = f"{cited[0]}, *{cited[1]}*" if cited else " and ".join(m.title for m in made)
    head = f"{name}, {paper}" if name else paper
    systems = ", ".join(f"[{m.title}](methods/{m.family}/{m.name}.md)" for m in made)
    lessons = ", ".join(f"[{lesson.number}]({lesson.path}.ipynb)" for lesson in read)
    notes = [f"method: {systems}"] * bool(made) + [f"lesson {lessons}"] * bool(read)
    return f"- {head} ({'; '.join(notes)})"
