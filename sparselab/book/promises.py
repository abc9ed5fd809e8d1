"""What the built site promises, read off its files: nothing from elsewhere, unsaid or given away."""

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sparselab.course.lessons import Lesson, statements

LOADED = {"src", "srcset", "data", "poster", "data-src"}
MEGABYTES = 40


class Page(HTMLParser):
    """The tags of one page, what its scripts, styles and input cells hold, and where a link may land."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.targets: set[str] = set()
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.inputs: list[str] = []
        self._inside = ""
        self._cell = 0
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        self.targets |= {attributes[name] for name in ("id", "name") if attributes.get(name)}
        if tag in {"script", "style"}:
            self._inside = tag
            (self.scripts if tag == "script" else self.styles).append("")
        if tag == "div" and (self._cell or "cell_input" in attributes.get("class", "").split()):
            if not self._cell:
                self.inputs.append("")
            self._cell += 1
        if "style" in attributes:
            self.styles.append(attributes["style"])

    def handle_endtag(self, tag):
        if tag == self._inside:
            self._inside = ""
        if tag == "div" and self._cell:
            self._cell -= 1

    def handle_data(self, data):
        if self._inside:
            (self.scripts if self._inside == "script" else self.styles)[-1] += data
        elif self._cell:
            self.inputs[-1] += data


def broken(site: Path, course: list[Lesson]) -> list[str]:
    """One line for each promise that a file of the site breaks."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    found = []
    for file, page in pages.items():
        lines = [*elsewhere(page), *unsaid(page), *dead_links(file, page, pages, site)]
        found += [f"{file.relative_to(site).as_posix()}: {line}" for line in lines]
    for file in sorted(site.rglob("*.css")):
        found += [f"{file.relative_to(site).as_posix()}: {line}" for line in _remote_styles(_text(file))]
    for lesson in course:
        if (file := site / f"{lesson.path}.html") in pages:
            found += [f"{lesson.path}.html: {line}" for line in given_away(pages[file], lesson)]
    if (index := site / "searchindex.js").is_file():
        found += found_by_search(_text(index))
    size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
    if size > MEGABYTES * 1e6:
        found.append(f"the site weighs {size / 1e6:.0f} MB, more than {MEGABYTES}")
    return found


def elsewhere(page: Page) -> Iterator[str]:
    """What a browser would fetch from another machine by itself; a link that a reader follows is none."""
    for tag, attributes in page.tags:
        names = LOADED | ({"href"} if tag in {"link", "image", "use"} else set())
        if tag == "link" and attributes.get("rel") in {"canonical", "license", "author"}:
            continue
        for name in names & attributes.keys():
            if re.match(r"\s*(https?:|wss?:|//)", attributes[name]):
                yield f"<{tag}> loads {attributes[name][:80]}"
    for style in page.styles:
        yield from _remote_styles(style)
    for script in page.scripts:
        for url in re.findall(
            r"""["'`](https?://[^"'`\s]+\.(?:m?js|css|json|woff2?)[^"'`\s]*)["'`]""", script
        ):
            yield f"a script names {url[:80]}"


def unsaid(page: Page) -> Iterator[str]:
    """Pictures that say nothing to a reader who does not see them."""
    for tag, attributes in page.tags:
        if tag == "img" and not attributes.get("alt", "").strip():
            yield f"a figure without alt text: {attributes.get('src', '')[:60]}"
        if tag == "svg" and attributes.get("role") == "img" and not attributes.get("aria-label", "").strip():
            yield "a drawing without a label"


def dead_links(file: Path, page: Page, pages: dict[Path, Page], site: Path) -> Iterator[str]:
    """Links inside the site whose page or place does not exist."""
    for tag, attributes in page.tags:
        target = urlsplit(attributes.get("href" if tag in {"a", "link"} else "src", ""))
        if target.scheme or target.netloc or not (target.path or target.fragment):
            continue
        there = (file.parent / unquote(target.path)).resolve() if target.path else file
        if not there.is_file():
            yield f"leads to {target.path}, which is not there"
        elif target.fragment and there in pages and unquote(target.fragment) not in pages[there].targets:
            yield f"leads to {target.path}#{target.fragment}, a place that {there.name} lacks"


def given_away(page: Page, lesson: Lesson) -> Iterator[str]:
    """Exercises of which two lines in a row, or the only one, stand in a code cell of the lesson's page."""
    shown = [[line.strip() for line in text.split("\n") if line.strip()] for text in page.inputs]
    stubs = {line.strip() for cell in lesson.cells if cell.exercise for line in cell.source.split("\n")}
    for exercise in lesson.exercises:
        own = [line for line in statements(exercise.solution) if line not in stubs]
        secrets = list(zip(own, own[1:], strict=False)) or [tuple(own)]
        secrets = [secret for secret in secrets if len("".join(secret)) >= 40] or [tuple(own)]
        if any(_stands_in(secret, lines) for secret in secrets for lines in shown):
            yield f"shows a part of the solution of exercise {exercise.number}"


def _stands_in(secret: tuple[str, ...], lines: list[str]) -> bool:
    return any(tuple(lines[i : i + len(secret)]) == secret for i in range(len(lines)))


def found_by_search(index: str) -> list[str]:
    """Pages of solutions that the search index knows a word of."""
    data = json.loads(index.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    secret = {i: name for i, name in enumerate(data["docnames"]) if name.startswith("solutions/")}
    known: set[int] = set()
    for kind in ("terms", "titleterms"):
        for places in data[kind].values():
            known |= {places} if isinstance(places, int) else set(places)
    for places in data["alltitles"].values():
        known |= {page for page, _ in places}
    return [f"searchindex.js: search finds {name}" for i, name in secret.items() if i in known]


def _remote_styles(text: str) -> Iterator[str]:
    for found in re.findall(
        r"""url\(\s*["']?((?:https?:)?//[^)"']*)|@import\s+["']((?:https?:)?//[^"']*)""", text
    ):
        yield f"a style loads {(found[0] or found[1])[:80]}"


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")
