"""The whole pipeline on a small lesson, offline: generated, executed, stored, and compared again by nbval."""

import os
import re
import subprocess
import sys

import nbformat
import pytest
from course_examples import EXERCISE, HEADER, LESSON, SOLUTION, write_course

from sparselab.course import build, guards, lessons
from sparselab.method import PACKAGE

OFFLINE = """
import socket

HERE = (None, "", "127.0.0.1", "::1", "localhost")


class Loopback(socket.socket):
    def connect(self, address):
        if isinstance(address, tuple) and address[0] not in HERE:
            raise OSError(f"no network in this test: {address}")
        return super().connect(address)


def local_names(host, *rest, real=socket.getaddrinfo, **options):
    if host not in (*HERE, "198.51.100.1"):
        raise OSError(f"no network in this test: {host}")
    return real(host, *rest, **options)


socket.socket, socket.getaddrinfo = Loopback, local_names
"""

REACH_OUT = """
# %%
import socket


def reach(host):
    try:
        socket.create_connection((host, 80), timeout=1)
    except OSError as error:
        return str(error)


print(reach("198.51.100.1"))
print(reach("example.org"))
"""


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """Every Python that starts from here, kernels included, reaches this machine only."""
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline/sitecustomize.py").write_text(OFFLINE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "offline"), str(PACKAGE.parent)]))
    monkeypatch.delenv("SPARSELAB_STATIC", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def run_build(root, **options):
    return build.build(root=root, known=None, progress=False, **options)


def nbval(path, *, static=True):
    changes = build.STATIC if static else {}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *guards.NBVAL, path.name],
        cwd=path.parent, env={**os.environ, **changes}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_pipeline_from_lesson_to_strict_comparison(tmp_path, offline):
    root = write_course(tmp_path, LESSON + REACH_OUT)
    (path,) = run_build(root)
    assert path == root / "solutions/05_pruning/02_wanda.ipynb"
    first = path.read_bytes()
    notebook = nbformat.reads(first.decode(), as_version=4)
    nbformat.validate(notebook)
    (lesson,) = lessons.load(root)
    assert guards.problems(notebook, lesson) == []
    printed = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert printed.split("\n")[:2] == [
        "no network in this test: ('198.51.100.1', 80)",
        "no network in this test: example.org",
    ]
    pages = [
        o.data["text/html"]
        for c in notebook.cells
        for o in c.get("outputs", [])
        if "text/html" in o.get("data", {})
    ]
    assert 'alt="A checkerboard: half of the cells are kept"' in pages[0]
    assert "sparselab-explore" in pages[1]

    assert run_build(root) == [path] and path.read_bytes() == first
    assert build.stale(root=root, known=None) == []

    compared = nbval(path)
    assert compared.returncode == 0, compared.stdout
    assert f"{len([c for c in notebook.cells if c.cell_type == 'code'])} passed" in compared.stdout

    path.write_bytes(first.replace(b"kept: 8", b"kept: 9"))
    compared = nbval(path)
    assert compared.returncode == 1 and "1 failed" in compared.stdout, compared.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell, message",
    [
        ("1 / 0", r"cell 6: ZeroDivisionError: division by zero"),
        ("import warnings; warnings.warn('old')", r"cell 6: writes to stderr: .*UserWarning: old"),
        ("import sys; print('x', file=sys.stderr)", r"cell 6: writes to stderr: x"),
        ("import time; time.sleep(30)", r"cell 6: longer than 2 s"),
        ("import os; os._exit(0)", r"cell 6: the kernel died"),
        ("import matplotlib.pyplot as plt; plt.plot([1]);", r"cell 6: a bare image/png has no alt text"),
        ("from IPython.display import HTML; HTML('<img src=x>')", r"cell 6: a figure without alt text"),
        ("grade('wanda.skore', score)", r"cell 6: ExerciseError: .*did you mean 'wanda.score'"),
        ("grade('wanda.score', np.add)", None),
        ("input()", r"cell 6: StdinNotImplementedError"),
    ],
)
def test_a_cell_that_misbehaves_stops_the_build_in_one_line(tmp_path, cell, message):
    setup = "\n# %%\nimport numpy as np\n\nfrom sparselab.course import grade\n"
    root = write_course(tmp_path, HEADER + setup + EXERCISE + f"\n# %%\n{cell}\n")
    target = root / "solutions/05_pruning/02_wanda.ipynb"
    target.write_bytes(b"the old one")
    if message is None:  # a wrong answer that the lesson shows on purpose is no failed check
        assert run_build(root, seconds=20) == [target]
        return
    with pytest.raises(build.BuildError, match=message) as caught:
        run_build(root, seconds=2 if "sleep" in cell else 20)
    assert str(caught.value).startswith("lesson 5.2 wanda, cell 6: ") and "\n" not in str(caught.value)
    assert target.read_bytes() == b"the old one"


@pytest.mark.slow
def test_a_solution_that_fails_its_check_stops_the_build(tmp_path):
    wrong = SOLUTION.replace("np.sqrt(squared_norm_of_each_input)", "squared_norm_of_each_input")
    with pytest.raises(
        build.BuildError, match=r"the check of wanda\.score does not pass: wanda\.score, case"
    ):
        run_build(write_course(tmp_path, solution=wrong))


def test_a_broken_lesson_stops_the_build_before_anything_runs(tmp_path, monkeypatch):
    root = write_course(
        write_course(tmp_path), LESSON.replace("difficulty=2", "difficulty=9"), path="06_x/01_y"
    )
    monkeypatch.setattr(build, "execute", lambda *_, **__: pytest.fail("a lesson ran"))
    with pytest.raises(lessons.LessonError, match="difficulty=9"):
        run_build(root)
    assert not list(root.rglob("*.ipynb"))


def test_the_judge_knows_no_such_exercise(tmp_path):
    root = write_course(tmp_path, LESSON.replace('"wanda.score"', '"wanda.skore"'))
    with pytest.raises(lessons.LessonError, match=r":16: .*did you mean 'wanda\.score'"):
        build.stale(root=root)


def store(root, change=lambda notebook: None):
    """A solved notebook as `build` would store it, without running it."""
    (lesson,) = lessons.load(root)
    notebook = build.notebooks.solved(lesson)
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count, cell.outputs = count, [nbformat.v4.new_output("stream", text="whatever")]
    change(notebook)
    path = build.notebook_path(root, lesson)
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    return path


def test_outputs_do_not_make_a_notebook_stale(tmp_path):
    root = write_course(tmp_path)
    store(root)
    assert build.stale(root=root, known=None) == []


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda n: n.cells[3].update(source="x"), "cell 4 differs"),
        (lambda n: n.cells[3].update(id="x"), "cell 4 differs"),
        (lambda n: n.cells[3].metadata.update(tags=["x"]), "cell 4 differs"),
        (lambda n: n.cells.pop(), "7 cells, the lesson makes 8"),
        (lambda n: n.metadata.language_info.update(version="3.11"), "other metadata"),
    ],
)
def test_a_stale_notebook_is_named_with_the_reason(tmp_path, change, reason):
    root = write_course(tmp_path)
    path = store(root, change)
    assert build.stale(root=root, known=None) == [(path, reason)]


def test_missing_unreadable_and_stray_notebooks_are_stale(tmp_path):
    root = write_course(tmp_path)
    path = root / "solutions/05_pruning/02_wanda.ipynb"
    assert build.stale(root=root, known=None) == [(path, "missing")]
    path.write_text("{")
    stray = path.with_name("03_old.ipynb")
    stray.write_text("{}")
    assert build.stale(root=root, known=None) == [(path, "unreadable"), (stray, "no lesson makes it")]


def test_the_sanitiser_hides_pictures_and_addresses_only():
    import configparser

    rules = configparser.RawConfigParser()
    rules.read(guards.SANITISE)

    def clean(text):
        for name in rules.sections():
            text = re.sub(rules[name]["regex"], rules[name]["replace"], text)
        return text

    assert clean("<f at 0x7f3a2b>") == clean("<f at 0x55d0c1>")
    assert clean('<img alt="a" src="data:image/webp;base64,AAA+/=">') == '<img alt="a" src="PICTURE">'
    assert clean("kept: 8, 0x1f, data") == "kept: 8, 0x1f, data"
