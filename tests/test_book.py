"""The book's generators, and that each promise of the site can be broken and is then noticed."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import yaml
from course_examples import write_course

from sparselab import book, judge
from sparselab.book import api, chapters, measured, pages, papers, pictures, promises, systems, theme, typeset
from sparselab.course import lessons, notebooks
from sparselab.files import root
from sparselab.method import find, methods

each_method = pytest.mark.parametrize("method", methods(), ids=lambda m: f"{m.family}/{m.name}")


@pytest.fixture
def course(tmp_path):
    """One lesson with its solved notebook, not executed, in a root of its own."""
    found = lessons.load(write_course(tmp_path), known=judge.exercise)
    for lesson in found:
        file = tmp_path / "solutions" / f"{lesson.path}.ipynb"
        file.write_bytes(notebooks.to_bytes(notebooks.solved(lesson)))
    return found


# ---------------------------------------------------------------- formulas and prose


@pytest.mark.parametrize(
    ("typed", "set_in_latex"),
    [
        ('a = f(K^T x)      K "d m"', r"a & = f ( K ^{\top} \, x ) &\quad& K \, {\scriptsize d{\times}m}"),
        ("theta <- q_i.k_j", r"\theta & \leftarrow q_{i} {\cdot} k_{j}"),
        ("e^(x_ij - 1) <= sqrt(s - 2)", r" & e ^{x_{ij} - 1} \le \sqrt{s - 2}"),
        ("drop   the smallest of a row", r"\mathrm{drop} & \text{the smallest of a row}"),
        ("c = among a token's few", r"c & = \mathrm{among} \; \mathrm{a} \; \text{token's} \; \mathrm{few}"),
        ("W_enc = 100 % of {x}", r"W_{\mathrm{enc}} & = 100 \, \% \; \mathrm{of} \; \{ x \}"),
    ],
)  # fmt: skip
def test_typed_equations_become_latex(typed, set_in_latex):
    assert typeset.formula(typed) == f"\\begin{{aligned}}\n{set_in_latex}\n\\end{{aligned}}"


def test_what_stands_apart_goes_below_a_wide_row():
    wide = typeset.formula("y = " + "a + " * 14 + 'b      x "t d"')
    assert wide.count(r"\\") == 1 and "\\quad\\small x" in wide


@each_method
def test_the_equations_of_every_card_are_balanced(method):
    text = typeset.markdown(__import__(method.package, fromlist=["METHOD"]).__doc__, maths=True)
    for formula in re.findall(r"\$\$\n(.*?)\n\$\$", text, re.DOTALL):
        bare = re.sub(r"\\[{}]", "", formula)
        assert bare.count("{") == bare.count("}") and bare.count("\\left(") == bare.count("\\right(")
        assert '"' not in formula and "`" not in formula


def test_prose_keeps_its_letters_and_only_backticks_mean_something():
    assert typeset.prose("a*b_c `x*y`\n|z| <b>") == r"a\*b\_c `x*y` \|z\| \<b\>"
    assert typeset.prose("1. first") == r"1\. first"


def test_indented_blocks_are_code_outside_of_cards():
    assert typeset.markdown("One.\n\n    f(x)\n\n    g(x)\n") == "One.\n\n```python\nf(x)\n\ng(x)\n```"


# ---------------------------------------------------------------- pages


@each_method
def test_a_method_page_holds_the_whole_folder(method, course):
    page = systems.page(method, course)
    assert page.startswith(f"# {method.title}\n")
    for part in method.code:
        assert f"{{tab-item}} {systems.COLUMNS[part]}" in page
        assert (method.folder / f"{part}.py").read_text(encoding="utf-8").rstrip() in page
    assert all(f"### `{op}`" in page for op in method.ops)
    assert ("There is no kernel" in page) == bool(method.no_kernel)
    assert all(typeset.prose(claim.text) in page or claim.text in _unescaped(page) for claim in method.claims)


def _unescaped(page: str) -> str:
    from html import unescape

    return unescape(page)


def test_a_method_page_says_where_it_is_taught(course):
    page = systems.page(find("wanda"), course)
    assert "[5.2 Weights and inputs](../../05_pruning/02_wanda.ipynb)" not in page  # it imports no method
    lesson = lessons.load(root())[1]
    taught = systems.page(find("lazy_neuron"), [lesson])
    assert f"Lesson [{lesson.number} {lesson.title}]" in taught
    assert "(#exercise-lazy-neuron-topk-ffn)" in taught
    assert ":::{admonition} What the released code does" in taught


def test_a_lesson_page_shows_the_stub_and_never_the_solution(tmp_path, course):
    page = nbformat.reads(chapters.lesson_page(tmp_path, course[0]), as_version=4)
    sources = "\n".join(cell.source for cell in page.cells)
    assert "raise NotImplementedError" in sources and "squared_norm_of_each_input" not in sources
    assert "(exercise-wanda-score)=\n:::{admonition} Exercise 5.2.1: `score`" in sources
    assert (
        "difficulty ●●○○○ · importance ●●●●● · 10 minutes · [solution](#exercise-wanda-score-solution)"
        in sources
    )
    assert 'href="../notebooks/05_pruning/02_wanda.ipynb" download' in page.cells[0].source


def test_a_lesson_page_without_its_notebook_names_the_command(tmp_path, course):
    (tmp_path / "solutions/05_pruning/02_wanda.ipynb").unlink()
    with pytest.raises(FileNotFoundError, match=r"run `sparselab build 5\.2` first"):
        chapters.lesson_page(tmp_path, course[0])


def test_solutions_are_closed_and_kept_from_search(course):
    page = chapters.solutions_page(course[0])
    assert page.startswith("---\nnosearch: true\n---")
    door, inside = page.split("{dropdown} Show the solution\n")
    assert "squared_norm" not in door and "squared_norm" in inside
    assert ":open:" not in page


def test_a_quote_that_opens_in_bold_becomes_a_box():
    boxed = chapters._boxed("Before.\n\n> **What the released code does.** It rounds\n> up.\n\nAfter.")
    head = ":::{admonition} What the released code does\n:class: note\n"
    assert boxed == f"Before.\n\n{head}It rounds\nup.\n:::\n\nAfter."


def test_every_chapter_opens_with_a_title_a_question_and_a_picture():
    drawn = set()
    for chapter in chapters.names(root()):
        page = chapters.opening(root(), chapter, [])
        assert page.startswith(f"# {int(chapter[:2])} ")
        assert "?" in chapters._opening_text(root(), chapter).split("\n\n")[1]
        drawn.add(pictures.chapter(chapter))
    assert len(drawn) == 6


def test_the_chapter_map_adds_up(course):
    tiles = chapters.chapter_map(root(), course)
    assert tiles.count('class="tile"') == 6 and tiles.count("in preparation") == 5
    assert "1 lesson · 30 min" in tiles and 'aria-label="difficulty 2 of 5"' in tiles


def test_pictures_are_the_same_every_time():
    assert pictures.fading() == pictures.fading() and 'aria-label="' in pictures.fading()


def test_the_bibliography_gathers_cards_and_lessons(tmp_path):
    cell = (
        "# %% [markdown]\n# Further reading: Li et al., *On\n# Neurons*, arXiv:2210.06313; arXiv:9901.00001"
    )
    setup = "\n# %%\nfrom sparselab.course import grade\n"
    text = "# ---\n# sparselab:\n#   title: T\n#   minutes: 3\n# ---\n" + setup + "\n" + cell + "\n"
    write_course(tmp_path, lesson=text, solution='"""None."""\n', path="01_lazy/09_t")
    page = papers.page(lessons.load(tmp_path))
    assert "Li et al., *On Neurons*, [arXiv:2210.06313](https://arxiv.org/abs/2210.06313)" in page
    assert "lesson [1.9](01_lazy/09_t.ipynb)" in page
    assert all(method.paper.removeprefix("arXiv:") in page for method in methods())


def test_links_to_papers_are_made_once():
    once = papers.linked("arXiv:2210.06313.")
    assert papers.linked(once) == once == "[arXiv:2210.06313](https://arxiv.org/abs/2210.06313)."


def test_a_signature_shows_shapes():
    wanda = find("wanda").part("reference")
    assert api.signature(wanda.mask) == 'mask(w: "o i", x: "t i", *, n: int, m: int) -> Bool "o i"'


@pytest.mark.parametrize("name", api.MODULES)
def test_the_api_page_of_a_module_has_an_entry_for_each_name(name):
    import importlib

    found = api.public(importlib.import_module(f"sparselab.{name}"))
    page = api.page(name)
    assert found and all(f"\n## `{entry}`\n" in page for entry, _ in found)


def test_sources_are_written_once_and_strays_removed(tmp_path, course):
    (tmp_path / "book").symlink_to(root() / "book")
    (tmp_path / "CONTRIBUTING.md").write_text("# Contributing\n")
    source = tmp_path / "source"
    pages.write(source, tmp_path, course)
    times = {file: file.stat().st_mtime_ns for file in source.rglob("*") if file.is_file()}
    (source / "old").mkdir()
    (source / "old" / "stray.md").write_text("# gone\n")
    pages.write(source, tmp_path, course)
    assert {file: file.stat().st_mtime_ns for file in source.rglob("*") if file.is_file()} == times
    assert not (source / "old").exists()
    contents = (source / "_toc.yml").read_text()
    listed = set(re.findall(r"file: (\S+)", contents)) | {"index"}
    written = {
        file.relative_to(source).with_suffix("").as_posix()
        for file in times
        if file.suffix in {".md", ".ipynb"}
    }
    assert written - listed == {"generated/hero", "generated/map"} and listed <= written


def test_the_book_is_built_from_a_clone(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"from a clone of the repository; .* has no book/_config\.yml"
    ):
        book.build(root=tmp_path)


# ---------------------------------------------------------------- measured results

ROW = {"text": "a < b", "metric": "x", "target": "<= 0.5", "median": 0.4, "low": 0.3, "high": 0.6}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Results of one claim that holds in two of three seeds, and of one benchmark with a loss."""
    entry = {"method": "pruning/wanda", "seeds": [0, 1, 2], "claims": [{**ROW, "seeds_that_hold": 2}]}
    machine = {"date": "2026-01-02", "machine": "An <x> CPU"}
    way = {"median": 2.0, "spread": 1.1, "gb_per_s": 1.0, "efficiency": 0.5}
    bench = {
        "id": "W1", "method": "pruning/wanda", "text": "many *rows*", "levels": {}, "baseline": "sort",
        "threads": 2, "device": "cpu", "policy": "fresh", "load": [0.1, 0.2], **machine,
        "laws": {"normal": [
            {"name": "sparselab", "min": 2.0, "speedup": 0.5, "same_answer": True, **way},
            {"name": "rough", "min": 0.5, "speedup": 2.0, "same_answer": False, **way},
        ]},
    }  # fmt: skip
    (tmp_path / "claims.json").write_text(json.dumps({"pruning/wanda": {**entry, **machine}}))
    (tmp_path / "bench_pruning.json").write_text(json.dumps([bench]))
    monkeypatch.setattr("sparselab.claims.results", lambda: tmp_path)
    monkeypatch.setattr("sparselab.book.measured.results", lambda: tmp_path)


def test_results_show_failures_losses_dates_and_machines(stored):
    page = measured.page()
    assert "**0 of 1** hold in every seed" in page and "holds in 2 of 3 seeds" in page
    assert "a &lt; b" in page and "An &lt;x&gt; CPU" in page and "2026-01-02" in page
    assert '<rect class="bar slower"' in page and "rough *" in page and "many \\*rows\\*" in page
    assert "### Not measured yet" in page
    assert measured.score(find("wanda")) == "0 of 1" and measured.score(find("lazy_neuron")) == "not measured"


def test_an_interval_is_drawn_to_scale():
    drawn = measured._interval(ROW)
    goal, bar, tick = re.findall(r'class="(?:goal|bar|tick)" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    assert float(goal[0]) == 0 and float(bar[0]) < float(tick[0]) < float(bar[0]) + float(bar[1])
    assert float(goal[1]) < float(bar[0]) + float(bar[1])  # a part of the range misses the target


# ---------------------------------------------------------------- promises

CLEAN = '<html><head></head><body><a href="#a" id="a">x</a><img alt="a curve" src="data:,"></body></html>'


@pytest.fixture
def site(tmp_path, course):
    """A site that keeps its promises."""
    place = tmp_path / "site"
    lesson = '<div class="cell_input"><div>def score(w, x):\n    raise NotImplementedError</div></div>'
    index = {
        "docnames": ["index", "solutions/a"],
        "terms": {"lazi": [0]},
        "titleterms": {"top": 0},
        "alltitles": {},
    }
    for name, text in {
        "index.html": CLEAN,
        "05_pruning/02_wanda.html": CLEAN.replace("</body>", lesson + "</body>"),
        "style.css": "a { background: url(x.png) }",
        "searchindex.js": f"Search.setIndex({json.dumps(index)})",
    }.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def test_a_clean_site_breaks_no_promise(site, course):
    assert promises.broken(site, course) == []


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "<script> loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "<link> loads //cdn.example/x.css"),
        ('<img alt="x" srcset="https://e.example/x.png 2x">', "<img> loads https://e.example/x.png 2x"),
        ("<style>@import 'https://e.example/x.css'</style>", "a style loads https://e.example/x.css"),
        ('<p style="background:url(//e.example/x.png)">', "a style loads //e.example/x.png"),
        (
            "<script>load('https://unpkg.example/a@1/x.js')</script>",
            "a script names https://unpkg.example/a@1/x.js",
        ),
        ('<img src="data:,">', "a figure without alt text: data:,"),
        ('<img alt=" " src="data:,">', "a figure without alt text: data:,"),
        ('<svg role="img"></svg>', "a drawing without a label"),
        ('<a href="gone.html">x</a>', "leads to gone.html, which is not there"),
        ('<a href="#nowhere">x</a>', "leads to #nowhere, a place that index.html lacks"),
    ],
)
def test_a_broken_promise_is_found(site, course, planted, found):
    (site / "index.html").write_text(CLEAN.replace("</body>", planted + "</body>"))
    assert promises.broken(site, course) == [f"index.html: {found}"]


def test_a_link_that_a_reader_follows_is_no_request(site, course):
    (site / "index.html").write_text(CLEAN.replace("</body>", '<a href="https://arxiv.org">x</a></body>'))
    assert promises.broken(site, course) == []


def test_a_font_from_elsewhere_is_found_in_a_stylesheet(site, course):
    (site / "style.css").write_text("@font-face { src: url('https://fonts.example/x.woff2') }")
    assert promises.broken(site, course) == ["style.css: a style loads https://fonts.example/x.woff2"]


def test_a_line_of_a_solution_on_a_lesson_page_is_found(site, course):
    solved = course[0].exercises[0].solution.replace("<", "&lt;")
    file = site / "05_pruning/02_wanda.html"
    for shown in (solved, "\n".join(solved.split("\n")[-2:])):
        file.write_text(CLEAN + f'<div class="cell_input"><div><pre>{shown}</pre></div></div>')
        assert promises.broken(site, course) == [
            "05_pruning/02_wanda.html: shows a part of the solution of exercise 5.2.1"
        ]


@pytest.mark.parametrize("kind", ["terms", "titleterms", "alltitles"])
def test_a_solution_in_the_search_index_is_found(site, course, kind):
    index = json.loads((site / "searchindex.js").read_text()[len("Search.setIndex(") : -1])
    index[kind]["secret"] = [[1, ""]] if kind == "alltitles" else 1
    (site / "searchindex.js").write_text(f"Search.setIndex({json.dumps(index)})")
    assert promises.broken(site, course) == ["searchindex.js: search finds solutions/a"]


def test_a_heavy_site_is_found(site, course, monkeypatch):
    monkeypatch.setattr(promises, "MEGABYTES", 1e-4)
    assert promises.broken(site, course)[0].startswith("the site weighs")


def test_the_theme_is_mended():
    slider = '<div class="sparselab-explore">\n<style>a {}</style>\n<p>'
    page = theme.mended(f'<head></head><summary><span class="toctree-toggle">{slider}{slider}')
    assert page.count("<style>") == 1 and page.index("<style>") < page.index("</head>")
    assert '<summary aria-label="Pages of this part"><span' in page


# ---------------------------------------------------------------- publishing


def test_publishing_calls_make_book_and_nothing_else_of_ours():
    github = yaml.safe_load((root() / ".github/workflows/pages.yml").read_text())
    runs = [step["run"] for step in github["jobs"]["book"]["steps"] if "run" in step]
    gitlab = yaml.safe_load((root() / ".gitlab-ci.yml").read_text())["pages"]["script"]
    assert runs == ["make book"] and gitlab == ["make book", "mv book/_build/html public"]
    uploads = [step for step in github["jobs"]["book"]["steps"] if "upload-pages" in step.get("uses", "")]
    assert uploads[0]["with"]["path"] == "book/_build/html"
    makefile = Path(root() / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^book: .*\n\t\$\(BIN\)/python -m sparselab book$", makefile, re.MULTILINE)
