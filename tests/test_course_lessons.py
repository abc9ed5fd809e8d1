"""A lesson is read whole or refused with the file and the line."""

import re

import pytest
from course_examples import EXERCISE, FIGURE, HEADER, LESSON, SETUP, SOLUTION, write_course
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.course import lessons, notebooks
from sparselab.course.lessons import LessonError

SECRETS = [line.strip() for line in SOLUTION.split("\n") if "norm_of" in line or "inputs and" in line]
MARKER = '# %% exercise="wanda.score" difficulty=2 importance=5 minutes=10'


def line_of(text, part):
    return text[: text.index(part)].count("\n") + 1


def test_a_lesson_is_read(tmp_path):
    (lesson,) = lessons.load(write_course(tmp_path))
    (exercise,) = lesson.exercises
    assert (lesson.number, lesson.name, lesson.title, lesson.minutes) == (
        "5.2",
        "wanda",
        "Weights and inputs",
        30,
    )
    assert (exercise.name, exercise.function, exercise.number) == ("wanda.score", "score", "5.2.1")
    assert (exercise.difficulty, exercise.importance, exercise.minutes) == (2, 5, 10)
    assert lesson.cells[-1].tags == ("hide-input",)
    assert [cell.kind for cell in lesson.cells] == ["markdown"] + ["code"] * 5


def test_a_cell_knows_its_line(tmp_path):
    (lesson,) = lessons.load(write_course(tmp_path))
    text = LESSON.split("\n")
    assert all(text[cell.line - 1].startswith("# %%") for cell in lesson.cells)
    assert len({cell.line for cell in lesson.cells}) == len(lesson.cells)


def changed(old, new, text=LESSON):
    assert old in text
    return text.replace(old, new, 1)


BROKEN = {
    "no space before the marker": (changed(MARKER, "#" + MARKER[2:]), "malformed", MARKER),
    "no space after the marker": (changed(MARKER, MARKER.replace("%% ", "%%")), "malformed", MARKER),
    "three signs": (changed(MARKER, MARKER.replace("%%", "%%%")), "malformed", MARKER),
    "an indented marker": (changed(MARKER, " " + MARKER), "malformed", MARKER),
    "a quote that stays open": (changed('score" d', "score d"), "malformed", MARKER),
    "a bracket that stays open": (changed('"]', '"'), "malformed", "# %% tags"),
    "a cell title": (changed(MARKER, "# %% Exercise"), "malformed", MARKER),
    "half a kind": (changed("[markdown]", "[markdown"), "malformed", "# %% [mark"),
    "another marker language": (changed("# %%\ngrade", "# In[3]:\ngrade"), "malformed", "# %%\ngrade"),
    "a key that is not known": (changed("minutes=10", "minuets=10"), "did you mean 'minutes'", MARKER),
    "a key that is twice there": (
        changed("minutes=10", "minutes=10 minutes=9"),
        "minutes is given twice",
        MARKER,
    ),
    "a key that is missing": (changed(" minutes=10", ""), "lacks minutes", MARKER),
    "difficulty beyond the scale": (changed("difficulty=2", "difficulty=6"), "difficulty=6", MARKER),
    "importance below the scale": (changed("importance=5", "importance=0"), "importance=0", MARKER),
    "a word for a number": (changed("importance=5", 'importance="5"'), "importance='5'", MARKER),
    "a leading zero": (changed("importance=5", "importance=05"), "importance=05 cannot be read", MARKER),
    "a name without its method": (changed('"wanda.score"', '"score"'), "method.op", MARKER),
    "an exercise in words": (
        changed("# %% [markdown]", '# %% [markdown] exercise="a.b"'),
        "exercise",
        "# %% [mark",
    ),
    "a tag that is not known": (
        changed("hide-input", "hide-inputs"),
        "did you mean 'hide-input'",
        "# %% tags",
    ),
    "a tag that is no list": (changed('["hide-input"]', '"hide-input"'), "no list", "# %% tags"),
    "a difficulty without exercise": (
        changed("# %%\ngrade", "# %% difficulty=2\ngrade"),
        "difficulty",
        "# %%\ngrade",
    ),
    "text before the first cell": (
        changed("\n# %% [markdown]", "x = 1\n# %% [markdown]"),
        "before the first",
        "\n# %% [",
    ),
    "prose that is no comment": (
        changed("# Which weights", "Which weights"),
        "markdown cell starts",
        "# Which",
    ),
    "a second title": (changed("# Which", "# # Weights\n# Which"), "heading is generated", "# Which"),
    "no Python": (changed("print(", "print(("), "not Python", 'print("of'),
    "a magic": (changed("print(", "%time print("), "not Python", 'print("of'),
    "a marker in a string": (changed('print("kept:", 8)', 's = """\n# %%\n"""'), "in a string", "# %% [mark"),
    "an empty cell": (changed("# %%\ngrade", "# %%\n\n# %%\ngrade"), "empty cell", "# %%\ngrade"),
    "two functions": (
        changed("    raise Not", "    pass\n\n\ndef other():\n    raise Not"),
        "one function",
        MARKER,
    ),
    "more than a function": (changed(MARKER, MARKER + "\nk = 2"), "one function", MARKER),
    "a stub that works": (
        changed("    raise NotImplementedError", "    return w"),
        "does not end in",
        "    raise Not",
    ),
    "a stub that returns early": (
        changed("    raise Not", "    if True:\n        return w\n    raise Not"),
        "not end",
        None,
    ),
    "an exercise that is asked twice": (changed(FIGURE, EXERCISE + FIGURE), "asked twice", None),
    "an exercise without check": (
        changed('grade("wanda.score", score)', "1 + 1"),
        "no later cell checks",
        MARKER,
    ),
}


@pytest.mark.parametrize("name", [name for name, (_, message, _) in BROKEN.items() if message])
def test_a_broken_lesson_is_refused_with_file_and_line(tmp_path, name):
    text, message, part = BROKEN[name]
    with pytest.raises(LessonError) as caught:
        lessons.load(write_course(tmp_path, text))
    said = str(caught.value)
    source = tmp_path / "chapters" / "05_pruning" / "02_wanda.py"
    found = re.fullmatch(re.escape(str(source)) + r":(\d+): (.*)", said)
    assert found and message in found[2], said
    if part:
        assert abs(int(found[1]) - line_of(LESSON, part)) <= 1, said


@pytest.mark.parametrize(
    "header, message",
    [
        ("", "starts with a header"),
        ("# ---\n# title: x\n# ---\n", "the header holds"),
        (HEADER.replace("30", "0"), "minutes=0"),
        (HEADER.replace("30", "yes"), "minutes=True"),
        (HEADER.replace("Weights and inputs", ""), "title=None"),
        (HEADER.replace("#   minutes: 30\n", ""), "the header holds"),
        (HEADER.replace("minutes", "author: me\n#   minutes"), "the header holds"),
        (HEADER.replace("title: Weights", "title: ]["), "not YAML"),
    ],
)
def test_a_header_holds_title_and_minutes(tmp_path, header, message):
    with pytest.raises(LessonError, match=r"02_wanda\.py:\d+: .*" + re.escape(message)):
        lessons.load(write_course(tmp_path, header + SETUP))


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("def score", "def scores", "score has no solution"),
        ("x: np.ndarray", "x", "its stub at"),
        ("x: np.ndarray", "x: np.ndarray, k=1", "its stub at"),
        ("-> np.ndarray", "-> float", "its stub at"),
        ("import numpy as np\n", "import numpy as np\n\nK = 3\n", "imports and solved functions"),
        ("def score", "def other():\n    return 1\n\n\ndef score", "other solves no exercise"),
        ("def score", "def score():\n    return 1\n\n\ndef score", "solved twice"),
        ("    return np.abs", "    return (np.abs", "not Python"),
    ],
)
def test_solutions_fit_their_stubs(tmp_path, old, new, message):
    with pytest.raises(LessonError, match=r"\.py:\d+: .*" + message):
        lessons.load(write_course(tmp_path, solution=changed(old, new, SOLUTION)))


def test_an_unsolved_solution_is_refused(tmp_path):
    unsolved = SOLUTION[: SOLUTION.index("    if w")] + "    raise NotImplementedError\n"
    with pytest.raises(LessonError, match="score is not solved"):
        lessons.load(write_course(tmp_path, solution=unsolved))


def test_the_judge_is_asked_for_each_name(tmp_path):
    def known(name):
        raise ValueError(f"no exercise is called {name!r}")

    with pytest.raises(LessonError, match="02_wanda.py:16: no exercise is called 'wanda.score'"):
        lessons.load(write_course(tmp_path), known=known)


def test_a_lesson_and_its_solutions_come_in_pairs(tmp_path):
    root = write_course(tmp_path)
    (root / "solutions/05_pruning/02_wanda.py").unlink()
    with pytest.raises(LessonError, match="has no solutions"):
        lessons.load(root)
    (root / "chapters/05_pruning/02_wanda.py").rename(root / "solutions/05_pruning/02_wanda.py")
    with pytest.raises(LessonError, match="have no lesson"):
        lessons.load(root)


@pytest.mark.parametrize(
    "path", ["5_pruning/02_wanda", "05_pruning/wanda", "02_wanda", "05_pruning/02_Wanda"]
)
def test_a_lesson_has_numbers_in_its_name(tmp_path, path):
    with pytest.raises(LessonError, match="NN_family/MM_slug"):
        lessons.load(write_course(tmp_path, path=path))


def test_two_lessons_with_one_number_are_refused(tmp_path):
    root = write_course(write_course(tmp_path), path="05_pruning/02_other")
    with pytest.raises(LessonError, match=r"lesson 5\.2 is 02_other\.py already"):
        lessons.load(root)


def test_a_lesson_that_is_not_text_is_refused(tmp_path):
    root = write_course(tmp_path)
    (root / "chapters/05_pruning/02_wanda.py").write_bytes(LESSON.encode().replace(b"Guess", b"\xff"))
    with pytest.raises(LessonError, match=r"02_wanda\.py:\d+: not UTF-8"):
        lessons.load(root)


@pytest.mark.parametrize("as_prose", [False, True])
def test_a_spoiler_is_refused(tmp_path, as_prose):
    spoiler = "\n".join(SOLUTION.rstrip().split("\n")[-2:])
    cell = (
        "\n# %% [markdown]\n# " + spoiler.replace("\n", "\n# ")
        if as_prose
        else f"\n# %%\nif True:\n{spoiler[:-1]}"
    )
    cell = cell if as_prose else "\n# %%\ndef shown(w, x):\n" + spoiler
    with pytest.raises(LessonError, match="stands in the solution of wanda.score"):
        lessons.load(write_course(tmp_path, LESSON + cell + "\n"))


def test_a_line_that_the_stub_gives_away_is_no_spoiler(tmp_path):
    given = "\n".join(SOLUTION.split("\n")[9:11]) + "\n"
    text = changed("    raise NotImp", given + "    raise NotImp")
    (lesson,) = lessons.load(write_course(tmp_path, text + "\n# %%\ndef shown(w, x):\n" + given))
    assert given in lesson.cells[-1].source + "\n"


def test_a_name_finds_its_lesson(tmp_path):
    course = lessons.load(write_course(tmp_path))
    for name in ("5.2", "wanda", "05_pruning/02_wanda", "05_pruning/02_wanda.ipynb"):
        assert lessons.find(name, course) is course[0]
    with pytest.raises(ValueError, match="did you mean 'wanda'"):
        lessons.find("wandda", course)


def test_functions_give_the_stub_and_the_solved_function(tmp_path):
    root = write_course(tmp_path)
    (lesson,) = lessons.load(root)
    stub, solved = lessons.functions(root, lesson)["wanda.score"]
    with pytest.raises(NotImplementedError):
        stub(None, None)
    import numpy as np

    assert solved(np.array([[-2.0]]), np.array([[3.0], [4.0]])).tolist() == [[10.0]]


# ---------------------------------------------------------------- whatever is broken, nothing leaks

EDITS = st.lists(
    st.tuples(
        st.sampled_from(["drop", "double", "swap", "character", "cut", "insert"]),
        st.integers(0, 10_000),
        st.sampled_from([*'#% []="\\{}_', " ", "exercise", "tags", "# %%", '"""', "[markdown]", "\n"]),
    ),
    min_size=1,
    max_size=4,
)


def break_markers(text, edits):
    """`text` with its marker lines, or the lines beside them, damaged."""
    for kind, at, piece in edits:
        lines = text.split("\n")
        markers = [i for i, line in enumerate(lines) if "%%" in line] or [0]
        i = markers[at % len(markers)]
        line = lines[i]
        if kind == "drop":
            del lines[i]
        elif kind == "double":
            lines.insert(i, line)
        elif kind == "swap":
            j = (i + 1) % len(lines)
            lines[i], lines[j] = lines[j], line
        elif kind == "cut":
            lines[i] = line[: at % (len(line) + 1)]
        elif kind == "character" and line:
            j = at % len(line)
            lines[i] = line[:j] + piece + line[j + 1 :]
        else:
            j = at % (len(line) + 1)
            lines[i] = line[:j] + piece + line[j:]
        text = "\n".join(lines)
    return text


@settings(max_examples=200, deadline=None)
@given(edits=EDITS, in_solution=st.booleans())
def test_no_broken_marker_lets_a_solution_line_out(tmp_path_factory, edits, in_solution):
    tmp_path = tmp_path_factory.mktemp("fuzz")
    lesson, solution = break_markers(LESSON, edits), SOLUTION
    if in_solution:
        solution = break_markers(SOLUTION.replace("    if w", "    # %%\n    if w"), edits)
    try:
        (read,) = lessons.load(write_course(tmp_path, lesson, solution))
    except LessonError as error:
        assert re.match(r".*\.py:\d+: ", str(error))
        return
    handed_out = notebooks.to_bytes(notebooks.student(read)).decode()
    assert not any(secret in handed_out for secret in [*SECRETS, "functools"])


@settings(max_examples=60, deadline=None)
@given(start=st.sampled_from([0, 2]), at=st.integers(0, 10_000), edits=EDITS)
def test_no_pasted_solution_gets_out(tmp_path_factory, start, at, edits):
    """Two lines or more of the solution, pasted as a cell of a lesson whose markers may be broken too."""
    body = SOLUTION.rstrip().split("\n")[-4:]
    pasted = "\n".join(body[start:])
    lines = LESSON.split("\n")
    starts = [i for i, line in enumerate(lines) if line.startswith("# %%")]
    lines.insert(starts[at % len(starts)], "# %%\ndef pasted(w, x):\n" + pasted)
    for text in ("\n".join(lines), break_markers("\n".join(lines), edits)):
        try:
            (read,) = lessons.load(write_course(tmp_path_factory.mktemp("fuzz"), text))
        except LessonError:
            continue
        assert not any(secret in notebooks.to_bytes(notebooks.student(read)).decode() for secret in SECRETS)


def test_the_leak_tests_can_fail(tmp_path):
    (lesson,) = lessons.load(write_course(tmp_path))
    solved = notebooks.to_bytes(notebooks.solved(lesson)).decode().replace('\\"', '"')
    assert all(secret in solved for secret in SECRETS) and "functools" in solved
