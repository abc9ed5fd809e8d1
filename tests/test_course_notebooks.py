"""Two editions of a lesson, the same bytes each time; and the course's solved ones prove what they show."""

import json

import nbformat
import pytest
from course_examples import EXERCISE, FIGURE, LESSON, SOLUTION, write_course

from sparselab import files
from sparselab.course import GRADED, guards, lessons, notebooks

UNCOMPARED_AT_MOST = 2  # in the whole course; a cell that nbval does not compare proves nothing


@pytest.fixture
def lesson(tmp_path):
    (read,) = lessons.load(write_course(tmp_path))
    return read


def test_the_student_gets_stubs_and_nothing_else(lesson):
    notebook = notebooks.student(lesson)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and cell.outputs == [] for cell in code)
    (stub,) = [cell.source for cell in code if "def score" in cell.source]
    assert stub.endswith("raise NotImplementedError")
    assert "functools" not in notebooks.to_bytes(notebook).decode()


def test_the_solved_edition_has_the_solution_with_the_imports_it_lacks(lesson):
    (solved,) = [cell.source for cell in notebooks.solved(lesson).cells if "def score" in cell.source]
    assert solved.startswith("import functools\n\n\ndef score(") and "import numpy" not in solved
    assert solved.endswith(SOLUTION.rstrip().split("\n")[-1])


def test_a_decorator_of_the_solution_comes_along(tmp_path):
    decorated = SOLUTION.replace("def score", "@functools.cache\n@np.vectorize\ndef score")
    (lesson,) = lessons.load(write_course(tmp_path, solution=decorated))
    (solved,) = [cell.source for cell in notebooks.solved(lesson).cells if "def score" in cell.source]
    assert "import functools\n\n\n@functools.cache\n@np.vectorize\ndef score" in solved


def test_heading_and_exercise_line_are_generated(lesson):
    sources = [cell.source for cell in notebooks.student(lesson).cells]
    assert sources[0] == "# 5.2 Weights and inputs\n\n30 minutes · 1 exercise"
    at = next(i for i, source in enumerate(sources) if "def score" in source)
    assert sources[at - 1] == "**Exercise 5.2.1** · difficulty ●●○○○ · importance ●●●●● · 10 minutes"


@pytest.mark.parametrize("edition", [notebooks.student, notebooks.solved])
def test_the_same_lesson_gives_the_same_bytes(tmp_path, edition):
    one, other = (lessons.load(write_course(tmp_path / name))[0] for name in "ab")
    assert notebooks.to_bytes(edition(one)) == notebooks.to_bytes(edition(other))
    stored = json.loads(notebooks.to_bytes(edition(one)))
    assert set(stored["metadata"]) == {"kernelspec", "language_info", "sparselab"}
    assert stored["metadata"]["language_info"] == {"name": "python"}
    assert (stored["nbformat"], stored["nbformat_minor"]) == (4, 5)


def test_ids_come_from_position_and_content(tmp_path, lesson):
    ids = [cell.id for cell in notebooks.student(lesson).cells]
    assert ids == [cell.id for cell in notebooks.solved(lesson).cells]
    assert [name[:3] for name in ids] == [f"{i:02d}-" for i in range(len(ids))]
    changed = LESSON.replace("Guess first", "Guess now")
    (other,) = lessons.load(write_course(tmp_path / "other", changed))
    parted = [a != b.id for a, b in zip(ids, notebooks.student(other).cells, strict=True)]
    assert parted == [False, True] + [False] * (len(ids) - 2)


# ---------------------------------------------------------------- guards that must be able to fail


def ran(lesson):
    """The solved notebook as if it had run: counted cells, a pass, a figure with alt text."""
    notebook = notebooks.solved(lesson)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    check = next(cell for cell in code if cell.source.startswith("grade"))
    passed = {GRADED: {"exercise": "wanda.score", "ok": True}}
    check.outputs = [nbformat.v4.new_output("display_data", {"text/plain": "all passed"}, metadata=passed)]
    figure = next(cell for cell in code if cell.source.startswith("fig"))
    figure.outputs = [
        nbformat.v4.new_output(
            "display_data", {"text/html": '<img alt="half" src="data:image/webp;base64,">'}
        ),
        nbformat.v4.new_output("stream", name="stdout", text="kept: 8\n"),
    ]
    return notebook


def test_a_good_notebook_has_no_problem(lesson):
    assert guards.problems(ran(lesson), lesson) == [] == guards.uncompared(ran(lesson))


def find(notebook, start):
    return next(cell for cell in notebook.cells if cell.source.startswith(start))


def never_run(notebook):
    find(notebook, "grade").execution_count = None


def no_alt(notebook):
    find(notebook, "fig").outputs[0].data["text/html"] = '<p><img src="x"></p>'


def blank_alt(notebook):
    find(notebook, "fig").outputs[0].data["text/html"] = '<img alt=" " src="x">'


def bare_png(notebook):
    find(notebook, "fig").outputs[0].data = {"image/png": "", "text/plain": "<Figure>"}


def live_widget(notebook):
    find(notebook, "fig").outputs[0].data = {"application/vnd.jupyter.widget-view+json": {}}


def warned(notebook):
    find(notebook, "fig").outputs[1].name = "stderr"


def raised(notebook):
    find(notebook, "fig").outputs = [
        nbformat.v4.new_output("error", ename="KeyError", evalue="'k'", traceback=[])
    ]


def raised_nothing(notebook):
    find(notebook, "fig").metadata["tags"] = ["raises-exception"]


def failed_check(notebook):
    find(notebook, "grade").outputs[0].metadata[GRADED]["ok"] = False


def silent_check(notebook):
    find(notebook, "grade").outputs = []


def check_of_something_else(notebook):
    find(notebook, "grade").outputs[0].metadata[GRADED]["exercise"] = "wanda.mask"


def stale_source(notebook):
    find(notebook, "fig").source += "\n"


def another_order(notebook):
    notebook.cells[-1], notebook.cells[-2] = notebook.cells[-2], notebook.cells[-1]


def one_cell_less(notebook):
    del notebook.cells[1]


@pytest.mark.parametrize(
    "spoil, message",
    [
        (never_run, "never executed"),
        (no_alt, "without alt text"),
        (blank_alt, "without alt text"),
        (bare_png, "a bare image/png"),
        (live_widget, "live widget"),
        (warned, "writes to stderr: kept: 8"),
        (raised, "stores an error: KeyError: 'k'"),
        (raised_nothing, "raises none"),
        (failed_check, "wanda.score does not pass: all passed"),
        (silent_check, "wanda.score does not pass: it prints nothing"),
        (check_of_something_else, "wanda.score does not pass"),
        (stale_source, "not those of the lesson"),
        (another_order, "not those of the lesson"),
        (one_cell_less, "not those of the lesson"),
    ],
)
def test_a_bad_notebook_is_noticed(lesson, spoil, message):
    notebook = ran(lesson)
    spoil(notebook)
    problems = guards.problems(notebook, lesson)
    assert len(problems) == 1 and message in problems[0], problems


def test_cells_that_are_not_compared_are_counted(lesson):
    notebook = ran(lesson)
    notebook.cells[2].metadata["tags"] = ["nbval-ignore-output"]
    notebook.cells[4].source += "\n# NBVAL_SKIP"
    assert guards.uncompared(notebook) == ["cell 3: nbval-ignore-output", "cell 5: NBVAL_SKIP"]


# ---------------------------------------------------------------- the course itself

COURSE = lessons.load()


@pytest.mark.parametrize("real", COURSE, ids=lambda real: real.path)
def test_a_solved_notebook_of_the_course_proves_what_it_shows(real):
    path = files.root() / "solutions" / f"{real.path}.ipynb"
    assert path.is_file(), "run `sparselab build`"
    assert guards.problems(nbformat.read(path, as_version=4), real) == []


def test_few_cells_of_the_course_are_not_compared():
    paths = sorted((files.root() / "solutions").rglob("*.ipynb"))
    found = [line for path in paths for line in guards.uncompared(nbformat.read(path, as_version=4))]
    assert len(found) <= UNCOMPARED_AT_MOST, found


def test_the_course_has_no_stray_notebook():
    paths = {
        path.relative_to(files.root() / "solutions") for path in (files.root() / "solutions").rglob("*.ipynb")
    }
    assert {path.with_suffix("").as_posix() for path in paths} <= {lesson.path for lesson in COURSE}


def test_the_examples_are_what_these_tests_think():
    assert EXERCISE in LESSON and FIGURE in LESSON
