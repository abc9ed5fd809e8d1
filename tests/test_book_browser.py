"""The built book in a real browser without a network: every page, its formulas, its sliders, its search."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import browser
import pytest
from filelock import FileLock

from sparselab import book
from sparselab.course import lessons
from sparselab.files import root

pytestmark = pytest.mark.slow
needs_browser = pytest.mark.skipif(
    not browser.find(), reason="no Chromium on the path, and $CHROMIUM is not set"
)

NODE_MODULES = Path(os.environ.get("NODE_MODULES", root() / "node_modules"))
VALIDATE = NODE_MODULES / "html-validate" / "bin" / "html-validate.mjs"
AXE = NODE_MODULES / "axe-core" / "axe.min.js"

UNSET = """
[...document.querySelectorAll('.math')].filter(one => !one.querySelector('mjx-container')).length
+ document.querySelectorAll('[data-mml-node=merror]').length
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The whole book, built once for all workers of this run."""
    shared = tmp_path_factory.getbasetemp()
    shared = (shared if worker_id == "master" else shared.parent) / "book"
    with FileLock(f"{shared}.lock"):
        if not (shared / "done").exists():
            book.build(out=shared)
            (shared / "done").touch()
    return shared / "html"


@pytest.fixture
def tab():
    with browser.tab() as opened:
        yield opened


def one_of_each(site: Path) -> list[str]:
    """A page of each kind: the first lesson, its chapter and its solutions, a method, all single pages."""
    lesson = lessons.load()[0].path
    kinds = [
        f"{lesson}.html",
        f"{lesson.split('/')[0]}/index.html",
        f"solutions/{lesson}.html",
        "api/judge.html",
    ]
    return ["methods/topk/statistical.html", *kinds, *sorted(page.name for page in site.glob("*.html"))]


def visit(tab: browser.Tab, url: str) -> list[str]:
    """What is wrong with one page: a request to elsewhere, a complaint of the console, an unset formula."""
    tab.open(url)
    found = [
        f"asks for {address}" for address in tab.requests() if not address.startswith(("file:", "data:"))
    ]
    return found + tab.complaints() + [f"{count} formulas unset" for count in [tab.js(UNSET)] if count]


@needs_browser
def test_every_page_opens_from_a_file_without_a_request_or_a_complaint(site, tab):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    assert {page: wrong for page in pages if (wrong := visit(tab, page.as_uri()))} == {}


@needs_browser
@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("<script>fetch('https://sparselab.invalid/x').catch(() => 0)</script>", "asks for https://sparselab.invalid/x"),
        ("<script>null.x</script>", "TypeError"),
        ("<img src='gone.png' alt='x'>", "gone.png"),
        ("<p class='math'>x^2</p>", "1 formulas unset"),
    ],
)  # fmt: skip
def test_the_visit_sees_what_is_wrong(tmp_path, tab, planted, found):
    page = tmp_path / "page.html"
    page.write_text("<html><body>well</body></html>")
    assert visit(tab, page.as_uri()) == []
    typeset = "<script>window.MathJax = {startup: {promise: Promise.resolve()}}</script>"
    page.write_text(f"<html><body>{typeset}{planted}</body></html>")
    assert any(found in wrong for wrong in visit(tab, page.as_uri()))


@needs_browser
def test_no_page_is_wider_than_a_phone(site, tab):
    tab.look(width=390, height=844)
    wide = []
    for page in one_of_each(site):
        tab.open((site / page).as_uri())
        if tab.js("document.documentElement.scrollWidth > innerWidth"):
            wide.append(page)
    assert wide == []


@needs_browser
def test_search_finds_lessons_and_no_solution(site, tab):
    tab.open(f"{(site / 'search.html').as_uri()}?q=firing")
    hits = "[...document.querySelectorAll('ul.search li a')].map(link => link.getAttribute('href'))"
    tab.until(f"{hits}.some(hit => hit.includes('01_lazy_neuron.html'))")
    assert not any(hit.startswith("solutions/") for hit in tab.js(hits))
    tab.open(f"{(site / 'search.html').as_uri()}?q=door+solution")
    tab.until(
        "document.querySelector('#search-results p')?.textContent.match(/finished|did not match|found/i)"
    )
    assert not any(hit.startswith("solutions/0") for hit in tab.js(hits))


@needs_browser
def test_a_slider_moves_by_keyboard_and_says_where_it_is(site, tab):
    tab.open((site / f"{lessons.find('lazy_neuron', lessons.load()).path}.html").as_uri())
    tab.js("document.querySelector('.sparselab-explore input').focus()")
    state = (
        "(root => [root.querySelector('img').src, root.querySelector('img').alt,"
        " root.querySelector('output').textContent])(document.querySelector('.sparselab-explore'))"
    )
    before = tab.js(state)
    tab.press("ArrowRight", code=39)
    after = tab.js(state)
    assert before[0] != after[0] and before[1] != after[1]
    assert before[2] == "" and after[2] and after[2] in after[1]
    assert tab.js("document.querySelector('.sparselab-explore output').getAttribute('aria-live')") == "polite"


@needs_browser
def test_a_page_speaks_where_scripts_are_off(site, tab):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    lesson = lessons.find("lazy_neuron", lessons.load())
    tab.call("Page.navigate", url=(site / f"{lesson.path}.html").as_uri())
    tab.until("document.querySelector('.sparselab-explore-frame img[alt]')?.complete")
    assert not tab.js("document.querySelector('.sparselab-explore input')")


@needs_browser
@pytest.mark.skipif(not AXE.exists(), reason=f"axe-core is not in {NODE_MODULES} (set $NODE_MODULES)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(site, tab, width, dark):
    tab.look(width=width, dark=dark)
    found = []
    for page in one_of_each(site):
        tab.open((site / page).as_uri())
        tab.js(AXE.read_text(encoding="utf-8") + ";0")
        rules = (
            "axe.run().then(found => found.violations.map(one => [one.impact, one.id, one.nodes[0].html]))"
        )
        found += [
            (page, rule, html) for impact, rule, html in tab.js(rules) if impact in {"serious", "critical"}
        ]
    assert found == []


@pytest.mark.skipif(
    not VALIDATE.exists(), reason=f"html-validate is not in {NODE_MODULES} (set $NODE_MODULES)"
)
def test_every_page_is_valid_html(site, tmp_path):
    style = [
        "no-trailing-whitespace",
        "void-style",
        "attribute-boolean-style",
        "doctype-style",
        "no-inline-style",
    ]
    style += ["no-implicit-button-type", "prefer-native-element", "long-title", "text-content", "wcag/h32"]
    rules = {"root": True, "extends": ["html-validate:standard"], "rules": dict.fromkeys(style, "off")}
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    node = shutil.which("node", path=Path(sys.executable).parent) or "node"
    command = [node, str(VALIDATE), "--config", str(tmp_path / "rules.json"), "--formatter", "text"]
    found = subprocess.run([*command, *map(str, site.rglob("*.html"))], capture_output=True, text=True)
    assert (found.stdout, found.returncode) == ("", 0), found.stderr


def test_a_second_build_takes_what_changed_and_stops_at_a_warning(tmp_path):
    for name in ("chapters", "solutions"):
        (tmp_path / name).symlink_to(root() / name)
    shutil.copytree(root() / "book", tmp_path / "book", ignore=shutil.ignore_patterns("_build"))
    guide, out = tmp_path / "CONTRIBUTING.md", tmp_path / "out"
    guide.write_text("# Contributing\n")
    book.build(root=tmp_path, out=out)

    (tmp_path / "book/_static/course.css").write_text("a {}")  # no page changes, and Sphinx would not copy it
    book.build(root=tmp_path, out=out)
    assert (out / "html/_static/course.css").read_text() == "a {}"

    guide.write_text("# Contributing\n\n[nowhere](gone.md)\n")
    with pytest.raises(ValueError, match=r"Jupyter Book refuses the pages: .*add_a_method.*gone\.md"):
        book.build(root=tmp_path, out=out)
    assert not (out / "work").exists()  # or the next build would not read that page again
