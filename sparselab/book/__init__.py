"""The website: pages made from solved notebooks, cards and results, built by Jupyter Book without a network.

    write the sources -> Jupyter Book, warnings as errors -> hold the built site to its promises

`pages` says which pages there are and writes their sources into `book/_build/source`; what is on them comes
from `chapters`, `systems`, `measured`, `papers` and `api`. `promises` reads the built files in
`book/_build/html` and lists what breaks one: a request to elsewhere, a figure without alt text, a dead link,
a solution where it must not be.
"""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from sparselab import files, judge
from sparselab.book import pages, promises, theme
from sparselab.course import lessons, notebooks
from sparselab.course.writing import write_if_new

MATHJAX = "tex-svg.js"  # one file that brings its glyphs along: nothing to fetch, not even a font
UNREAD = (".buildinfo", "objects.inv", "genindex.html", "*-macros.html", "*.map")


def build(*, root: Path | None = None, out: Path | None = None) -> Path:
    """Make the whole site and return its front page; the second time only what changed is made again.

    Raises ValueError with Jupyter Book's own warnings where a page has one, and with the first of what
    `promises.broken` finds; FileNotFoundError outside a clone and where a solved notebook is missing.
    """
    root = root or files.root()
    out = out or root / "book" / "_build"
    if not (root / "book" / "_config.yml").is_file():
        raise FileNotFoundError(
            f"the book is built from a clone of the repository; {root} has no book/_config.yml"
        )
    course = lessons.load(root, known=judge.exercise)
    source, work, site = out / "source", out / "work", out / "html"
    pages.write(source, root, course)
    _jupyter_book(source, work)
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(work / "_build" / "html", site, ignore=shutil.ignore_patterns(*UNREAD))
    # Sphinx leaves these behind where no page changed.
    shutil.copytree(source / "_static", site / "_static", dirs_exist_ok=True)
    for page in site.rglob("*.html"):
        write_if_new(page, theme.mended(page.read_text(encoding="utf-8")).encode("utf-8"))
    write_if_new(site / "_static" / "mathjax" / MATHJAX, _mathjax())
    for lesson in course:
        write_if_new(
            site / "notebooks" / f"{lesson.path}.ipynb", notebooks.to_bytes(notebooks.student(lesson))
        )
    if found := promises.broken(site, course):
        raise ValueError(f"the site breaks {len(found)} of its promises, first: {found[0]}")
    return site / "index.html"


def _mathjax() -> bytes:
    """The script; put in after Jupyter Book, which would load whatever lies under `_static` a second time."""
    if (package := find_spec("sphinx-mathjax-offline")) is None:
        raise ModuleNotFoundError("sphinx-mathjax-offline is not installed", name="jupyter_book")
    return (Path(package.origin).parent / "static" / "mathjax" / MATHJAX).read_bytes()


def _jupyter_book(source: Path, work: Path) -> None:
    """Run it; a failed run leaves nothing behind, or the next would skip the pages that it complains of."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    command += ["--path-output", str(work), "-W", "-n", "--keep-going", "--quiet"]
    run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", errors="replace")
    if run.returncode:
        shutil.rmtree(work, ignore_errors=True)
        log = re.sub(r"\x1b\[[\d;]*m", "", run.stdout + run.stderr)
        lines = [line.strip() for line in log.splitlines() if re.search(r"WARNING|ERROR|Error\b", line)]
        raise ValueError(f"Jupyter Book refuses the pages: {'; '.join(lines[:5]) or log[-500:]}")
