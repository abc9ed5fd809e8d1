"""Grading: it is the student's file that runs, and only a right answer passes, in every report alike."""

import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import nbformat
import numpy as np
import pytest
from course_examples import SOLUTION, write_course

from sparselab import judge
from sparselab.course import lessons, notebooks
from sparselab.grading import batch, child, grader, marks, reports, sandbox, secret, submission, wire

LESSON = "05_pruning/02_wanda"
RIGHT = SOLUTION.split('"""', 2)[2].strip() + "\n"
WRONG = "def score(w, x):\n    return w * 1.0\n"
EMPTY = "def score(w, x):\n    raise NotImplementedError\n"


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return write_course(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def settings(course):
    return grader.Settings(asked=grader.asked(course), hidden=(course / "solutions",))


@pytest.fixture
def grade(tmp_path, settings):
    """Marks of a notebook (given as its cells), or of a file with this content."""

    def graded(handed_in, name="", **fields):
        suffix = "py" if isinstance(handed_in, str) else "ipynb"
        path = tmp_path / "ada" / (name or f"02_wanda.{suffix}")
        path.parent.mkdir(exist_ok=True)
        if isinstance(handed_in, list):
            handed_in = json.dumps(notebook(*handed_in))
        path.write_bytes(handed_in.encode() if isinstance(handed_in, str) else handed_in)
        return grader.grade(path, dataclasses.replace(settings, **fields))

    return graded


def code(source, exercise=""):
    told = {"sparselab": {"exercise": exercise, "function": "score"}} if exercise else {}
    return {"cell_type": "code", "source": source, "metadata": told, "outputs": [], "execution_count": None}


def notebook(*cells, lesson=LESSON):
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"sparselab": {"lesson": lesson}},
        "cells": [cell if isinstance(cell, dict) else code(cell) for cell in cells],
    }


def message(graded):
    return graded.problem or graded.exercises[0].message


# ---------------------------------------------------------------- the student's file, and nothing else


def test_a_solved_notebook_passes_and_a_fresh_one_does_not(grade, course):
    [lesson] = lessons.load(course)
    assert grade(notebooks.to_bytes(notebooks.solved(lesson))).passed
    fresh = grade(notebooks.to_bytes(notebooks.student(lesson)))
    assert fresh.points == 0 and "not written yet" in message(fresh) and marks.exit_code([fresh]) == 1


def test_the_students_own_lines_run(grade):
    graded = grade([code("def score(w, x):\n    raise RuntimeError('it is mine')\n", "wanda.score")])
    assert "it is mine" in message(graded) and graded.points == 0
    assert "raise RuntimeError('it is mine')" in message(graded), "the student's line is shown"


def test_a_wrong_answer_is_told_its_cause(grade):
    graded = grade("def score(w, x):\n    return abs(w) * (x**2).mean(axis=0) ** 0.5\n")
    assert "Likely cause:" in message(graded) and not graded.passed


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ([code("def score(w, x)\n    return w\n", "wanda.score")], "cell 1, line 1 is not Python"),
        ([code("def scores(w, x):\n    return w\n", "wanda.score")], "there is no function score"),
        ([code("", "wanda.score")], "there is no function score"),
        ([], "there is no function score"),
        ([code("score = 1\n", "wanda.score")], "there is no function score"),
        ([code("from numpy import no\ndef score(w, x):\n    return no(w)\n")], "cannot import name"),
        ([code("def score(w, x):\n    return missing(w)\n")], "name 'missing' is not defined"),
        ([code("answer = input()\ndef score(w, x):\n    return answer\n")], "EOFError"),
        ([code("def score(w):\n    return w\n")], "TypeError"),
        ([code("def score(w, x):\n    return None\n")], "None (is a return missing?)"),
        ([code("async def score(w, x):\n    return w\n")], "there is no function score"),
    ],
)  # fmt: skip
def test_what_is_not_a_right_answer_never_passes(grade, cells, said):
    graded = grade(cells)
    assert graded.points == 0 and not graded.passed and said in message(graded)


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"\xff", b'{"cells": {}}', b"[]"])
def test_a_corrupt_notebook_is_a_problem_and_costs_every_point(grade, content):
    graded = grade(content)
    assert graded.problem and graded.points == 0 and graded.out_of == 5
    assert marks.exit_code([graded]) == 3


def test_a_notebook_of_an_older_lesson_earns_nothing(grade):
    stale = grade([code(RIGHT.replace("def score", "def importance"), "wanda.importance")])
    assert stale.points == 0 and not stale.passed and stale.out_of == 5


def test_a_stranger_cannot_be_graded_unless_the_lesson_is_named(grade):
    assert "--lesson" in grade("x = 1\n", name="notes.py").problem
    named = grade("x = 1\n", name="notes.py", lessons=(LESSON,))
    assert named.out_of == 5 and named.points == 0 and not named.problem
    assert grade(RIGHT, name="notes.py", lessons=(LESSON,)).passed


def test_no_exercise_is_no_pass():
    assert not marks.Marks(submission="a", student="a").passed
    assert marks.exit_code([]) == 1
    assert not marks.Exercise(name="a.b", number="1", weight=1, checks=()).passed


def test_nothing_of_a_lost_child_counts(grade):
    """Right for the first calls, then gone: what it said before the end is no pass."""
    graded = grade(
        "import os\nN = []\n"
        + RIGHT.replace("np.ndarray:\n", "np.ndarray:\n    N.append(1)\n    len(N) > 3 and os._exit(0)\n", 1)
    )
    assert not graded.passed and "without a report" in message(graded)


def test_a_submission_has_a_time_for_all_of_it(grade):
    """Calls that each stay below their own limit still come to an end."""
    slow = "import time\n" + RIGHT.replace("np.ndarray:\n", "np.ndarray:\n    time.sleep(0.6)\n", 1)
    limits = sandbox.Limits(call_seconds=5, total_seconds=2)
    assert "still running after 2 s in all" in message(grade(slow, limits=limits))


def test_refusing_everything_earns_nothing(grade):
    assert grade("def score(w, x):\n    raise ValueError('no')\n").points == 0


# ---------------------------------------------------------------- notebooks as students leave them


@pytest.mark.parametrize(
    "cells",
    [
        [code(RIGHT, "wanda.score"), "import functools\nimport numpy as np\n"],
        ["%matplotlib inline\n!ls\nimport numpy as np, functools\n", code(RIGHT, "wanda.score")],
        ["import numpy as np\nfunctools = None\nthis is no Python\n", code(RIGHT, "wanda.score")],
        [code(RIGHT), code(EMPTY, "wanda.score")],
        [code(EMPTY, "wanda.score"), code(RIGHT, "wanda.score"), code(EMPTY, "wanda.score")],
        [code(WRONG, "wanda.score"), code(RIGHT, "wanda.score")],
        ["raise SystemExit\n", "x = 1 / 0\n", "open('/nowhere')\n", code(RIGHT)],
        ["squared = w = x = undefined()\n", code(RIGHT)],
        [{"cell_type": "raw"}, {"source": 3}, 5, {"cell_type": "code", "source": [1]}, code(RIGHT)],
        [code(RIGHT.splitlines(True))],
        [
            "sum = None\n",
            "try:\n    import functools\nexcept ImportError:\n    functools = None\n",
            code(RIGHT),
        ],
    ],
)
def test_cells_may_be_in_any_state(grade, cells):
    graded = grade([cell for cell in cells if cell != 5] if 5 not in cells else cells)
    assert graded.passed, message(graded)


def test_the_function_brings_its_helpers_and_constants_and_no_experiment(grade):
    graded = grade(
        [
            "import numpy as np\nPOWER = 2\nraise_it = 1\n",
            "@lambda f: f\ndef norm(a, p=POWER):\n    return Norm().of(a, p)\n",
            "class Norm:\n    def of(self, a, p):\n        return (a**p).sum(axis=0) ** (1 / p)\n",
            "norms = norm(np.ones(3)); print(norms); import sys; sys.exit(1)\n",
            code(
                "def score(w, x):\n    if w.shape[1] != x.shape[1]:\n"
                "        raise ValueError(f'w has {w.shape[1]} inputs and x has {x.shape[1]}')\n"
                "    norms = norm(x)\n    return np.abs(w) * norms\n",
                "wanda.score",
            ),
        ]
    )
    assert graded.passed, message(graded)


def test_a_function_defined_twice_is_told(grade):
    graded = grade([code(WRONG, "wanda.score"), code(RIGHT, "wanda.score")])
    assert "defined 2 times" in graded.exercises[0].notes[0]


def test_the_file_with_the_lessons_name_counts_in_a_folder(tmp_path, settings):
    folder = tmp_path / "ada"
    (folder / ".sparselab").mkdir(parents=True)
    for name, answer in (("02_wanda", RIGHT), ("a-copy", WRONG), ("z-copy", WRONG), (".sparselab/x", WRONG)):
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook(code(answer, "wanda.score"))))
    graded = grader.grade(folder, settings)
    assert graded.passed and graded.student == "ada"


def test_torch_answers_get_tensors_and_half_precision_is_no_double(grade):
    torch_answer = (
        "import torch\nfrom torch import Tensor\n"
        "def score(w: Tensor, x: Tensor) -> Tensor:\n"
        "    if w.shape[1] != x.shape[1]:\n"
        "        raise ValueError(f'w has {w.shape[1]} inputs and x has {x.shape[1]}')\n"
        "    return w.abs() * torch.linalg.vector_norm(x, dim=0)END\n"
    )
    assert grade(torch_answer.replace("END", "")).passed
    assert grade(torch_answer.replace("END", ".bfloat16()")).points < 5


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("class/ada/05_pruning/02_wanda.ipynb", "ada"),
        ("class/ada/02_wanda.py", "ada"),
        ("class/ada.ipynb", "ada"),
        ("class/ada", "ada"),
        ("class/a.b", "a.b"),
    ],
)
def test_a_student_is_named_by_the_path(path, name, settings):
    assert grader.student(Path(path), settings.asked) == name


# ---------------------------------------------------------------- every exercise there is


EXERCISES = [f"{m.name}.{op}" for m in judge.methods() if m.has("checks") for op in m.part("checks").HINTS]


def test_what_crosses_the_wire_is_what_was_sent():
    """The arguments of every case of every exercise, functions excepted, arrive as they left."""
    for name in EXERCISES:
        for _, arguments in judge.cases(*judge.exercise(name)):
            functions = []
            frame = wire.encode(arguments, functions)
            text, body = wire.read_frame(io.BytesIO(frame).read, most=len(frame))
            back = wire.decode(text, body, call=lambda number, told: None, trusted=True)
            assert back.keys() == arguments.keys()
            for key, value in arguments.items():
                if not callable(value):
                    assert judge.same(back[key], value) and type(back[key]) is type(value)


@pytest.mark.parametrize("name", ["r_sparse.search", "deja_vu.loss", "topk.step", "superposed_decoding.grow"])
def test_named_tuples_and_functions_reach_the_child(name):
    """An answer that is the reference itself passes through the child as it does in this process."""
    if name not in EXERCISES:
        pytest.skip("no such exercise")
    method, op = judge.exercise(name)
    source = (
        f"import {method.package}.reference as it\n"
        f"def {op}(*args, **kwargs):\n    return it.{op}(*args, **kwargs)\n"
    )
    with child.Child({"a.py": source.encode()}, limits=sandbox.Limits()) as started:
        assert "raised" not in started.load(name, op, "")
        verdict = judge.grade(method, op, lambda **given: started.call(name, given))
    assert verdict.ok, str(verdict)


# ---------------------------------------------------------------- the secret


def test_a_secret_makes_hidden_checks_that_tell_more(grade, tmp_path):
    file = tmp_path / "secret.toml"
    made = secret.new(file, seeds=2, exercises=["wanda.score"])
    assert len(made.seeds) == 2 and secret.read(file) == made
    if os.name == "posix":
        assert file.stat().st_mode & 0o077 == 0
    [public] = judge.cases(*judge.exercise("wanda.score"))[:1]
    overfitted = (
        f"def score(w, x):\n    if w.shape[1] != x.shape[1]:\n        raise ValueError('shapes')\n"
        f"    known = {float(public[1]['w'][0, 0])!r}\n    s = (abs(w) * (x**2).sum(axis=0) ** 0.5)\n"
        f"    return s if w[0, 0] == known else s * 0\n"
    )
    assert grade(overfitted).passed
    caught = grade(overfitted, secret=made)
    assert not caught.passed and caught.exercises[0].count(hidden=False) == (4, 4)
    right = grade(RIGHT, secret=made)
    assert right.passed and right.exercises[0].count(hidden=True) == (8, 8)


def test_a_teachers_own_case_is_a_hidden_check(grade, tmp_path):
    file = tmp_path / "secret.toml"
    file.write_text(
        '[[case]]\nexercise = "wanda.score"\nw = { values = [[1.0, -2.0]] }\nx = { normal = [3, 2] }\n'
        '[[case]]\nexercise = "wanda.score"\nw = { uniform = [1, 2] }\n'
        "x = { integers = [0, 9], shape = [3, 4] }"
    )
    graded = grade(RIGHT, secret=secret.read(file))
    assert graded.passed and graded.exercises[0].count(hidden=True) == (2, 2)
    assert grade(WRONG, secret=secret.read(file)).exercises[0].count(hidden=True) == (
        0,
        2,
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("seeds = 3", "list of whole numbers"),
        ("seeds = [-1]", "list of whole numbers"),
        ("seed = [1]", "unknown key 'seed'"),
        ("", "no seed and no case"),
        ("seeds = [1", "not TOML"),
        (f"seeds = {list(range(101))}", "at most 100"),
        ('[[case]]\nexercise = "wanda.scor"', "did you mean"),
        ("[[case]]\nw = 1", "names no exercise"),
        ('[[case]]\nexercise = "wanda.score"\nw = { gauss = [1] }\nx = 1', "no array is made by gauss"),
        ('[[case]]\nexercise = "wanda.score"\nw = 1', "cannot take it"),
    ],
)
def test_a_broken_secret_is_one_line(content, said, tmp_path):
    file = tmp_path / "secret.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=said):
        secret.read(file)


def test_a_secret_is_never_overwritten(tmp_path):
    secret.new(tmp_path / "s.toml", seeds=1)
    with pytest.raises(ValueError, match="never overwritten"):
        secret.new(tmp_path / "s.toml", seeds=1)


def test_the_same_submission_and_secret_give_the_same_marks(grade):
    two = [grade(WRONG, secret=secret.Secret((1, 2), (), "x")).earned() for _ in range(2)]
    assert two[0] == two[1]


# ---------------------------------------------------------------- one model, many outputs


def some_marks():
    checks = (
        marks.Check(name="a", passed=True),
        marks.Check(name="b\x00<", passed=False, message="differs: 100%\nsecond"),
        marks.Check(name="hidden 1", passed=False, hidden=True),
    )
    good = marks.Exercise(name="m.f", number="1.1.1", weight=3, checks=checks[:1], message="m.f: all passed.")
    bad = marks.Exercise(
        name="m.g",
        number="1.1.2",
        weight=4,
        checks=checks,
        message="m.g: ]]> & \x1b[31m",
        notes=("called it",),
    )
    return [
        marks.Marks(
            submission="a/b.ipynb", student="=ada", exercises=(good, bad), versions=(("numpy", "2"),)
        ),
        marks.Marks(submission="c", student="carl", problem="not JSON", isolation=("no network wall",)),
        marks.Marks(submission="d", student="dora", exercises=(good,), notes=("left out",)),
    ]


def test_points_are_the_share_of_the_checks():
    ada, carl, dora = some_marks()
    assert ada.points == 3 + round(4 / 3, 2) and ada.out_of == 7 and not ada.passed
    assert carl.points == 0 and dora.passed
    assert [marks.exit_code(m) for m in ([dora], [ada, dora], [ada, carl])] == [0, 1, 3]


def test_json_follows_its_schema_and_comes_back():
    text = marks.to_json(some_marks())
    schema = json.loads(marks.SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(text), schema)
    assert marks.from_json(text) == some_marks()
    told = json.loads(text)
    told["submissions"][0]["points"] = "many"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(told, schema)
    with pytest.raises(ValueError, match="not sparselab-marks"):
        marks.from_json('{"schema": "other"}')


def test_totals_in_a_file_are_computed_again_and_not_believed():
    told = json.loads(marks.to_json(some_marks()))
    told["submissions"][0] |= {"points": 99, "passed": True}
    assert marks.from_json(json.dumps(told))[0].points == some_marks()[0].points


def test_junit_counts_what_it_holds():
    root = ElementTree.fromstring(reports.junit(some_marks()))
    for suite in root:
        assert int(suite.get("tests")) == len(suite.findall("testcase")) > 0
        assert int(suite.get("failures")) == len(suite.findall(".//failure"))
        assert int(suite.get("errors")) == len(suite.findall(".//error"))
    assert [suite.get("failures") for suite in root] == ["2", "0", "0"]


def test_github_annotations_stay_on_their_line():
    lines = reports.github(some_marks()).splitlines()
    assert all(line.startswith(("::error ", "::warning ", "::notice ")) for line in lines)
    assert sum(line.startswith("::error ") for line in lines) == 2
    assert "| 1.1.2 m.g | 1.33 of 4 | 1 of 2 | 0 of 1 |" in reports.summary(some_marks())


def test_gitlab_issues_have_what_gitlab_asks_for():
    issues = json.loads(reports.gitlab(some_marks()))
    assert len({issue["fingerprint"] for issue in issues}) == len(issues) == 2
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert issue["location"]["lines"]["begin"] >= 1


def test_gradescope_keeps_notes_from_the_student():
    told = json.loads(reports.gradescope(some_marks()[:1]))
    assert told["score"] == some_marks()[0].points
    shown = [test for test in told["tests"] if test["visibility"] == "visible"]
    assert sum(test["score"] for test in shown) == pytest.approx(told["score"])
    assert "called it" not in json.dumps(shown)
    with pytest.raises(ValueError, match="one submission, not 3"):
        reports.gradescope(some_marks())


def test_the_gradebook_has_a_row_for_each_and_no_formula():
    rows = list(csv.DictReader(io.StringIO(reports.gradebook(some_marks()))))
    assert [row["student"] for row in rows] == ["'=ada", "carl", "dora"]
    assert rows[0]["m.g"] == "1.33" and rows[1]["m.g"] == "" and rows[1]["problem"] == "not JSON"


def test_hidden_checks_appear_in_no_report_but_as_a_number():
    for form in ("text", "junit", "github", "summary", "gitlab", "csv"):
        assert "hidden 1" not in reports.FORMS[form](some_marks())


def test_an_unknown_report_is_named():
    with pytest.raises(ValueError, match="no report; write FORM=FILE"):
        reports.destinations(["xml=a"])


# ---------------------------------------------------------------- walls


def test_a_container_is_shut_on_every_side(monkeypatch):
    line = sandbox.container_command("image", sandbox.Limits(memory_mb=512), engine="podman")
    assert line[:3] == ["podman", "run", "--rm"]
    for wall in ("--network=none", "--read-only", "--cap-drop=ALL", "--pids-limit=64", "--memory=512m"):
        assert line.index(wall) < line.index("image")
    assert line[line.index("image") + 1] == "timeout" and "sparselab.grading.worker" in line
    assert not any("secret" in word for word in line)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ValueError, match="docker or podman, and neither is on the PATH"):
        sandbox.container_command("image", sandbox.Limits())


def test_a_worker_behind_other_walls_speaks_the_same_protocol(settings, tmp_path):
    """The command of a container, with the container taken away: what is left is a worker on a pipe."""
    line = sandbox.worker_line(["a container's"])
    (tmp_path / "02_wanda.py").write_text(RIGHT)
    graded = grader.grade(tmp_path / "02_wanda.py", dataclasses.replace(settings, container=tuple(line)))
    assert graded.passed and graded.isolation == ("a container's",)


def test_a_system_that_cannot_start_children_is_no_fault_of_the_submission(settings, tmp_path):
    (tmp_path / "02_wanda.py").write_text(RIGHT)
    for line in (("/nowhere/python",), (sys.executable, "-c", "raise SystemExit('no room here')")):
        broken = dataclasses.replace(settings, container=line)
        with pytest.raises(child.NotStarted, match="no child could be started"):
            grader.grade(tmp_path / "02_wanda.py", broken)
        [graded] = batch.grade([tmp_path / "02_wanda.py"], broken, store=tmp_path / "s.sqlite")
        assert graded.problem and marks.exit_code([graded]) == 3
    assert batch.grade([tmp_path / "02_wanda.py"], settings, store=tmp_path / "s.sqlite")[0].passed


WITHOUT_NAMESPACES = """
import sys
from pathlib import Path
from sparselab.grading import grader, sandbox

machine = sandbox.platform.machine()
audit, numbers = sandbox.NUMBERS[machine]
sandbox.NUMBERS = {machine: (audit, {"unshare": numbers["unshare"]})}
assert not sandbox._system_calls()
for path in sys.argv[2:]:
    settings = grader.Settings(asked=grader.asked(Path(sys.argv[1])))
    graded = grader.grade(Path(path), settings)
    print(f"{graded.points:g}", "|".join(graded.isolation), graded.exercises[0].message)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="filters of system calls are Linux's")
def test_without_namespaces_it_says_so_and_still_refuses_processes_and_network(course):
    hostile = Path(__file__).parent / "hostile"
    paths = [hostile / f"{name}.py" for name in ("fork_bomb", "network", "kills_the_grader", "os_exit")]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_NAMESPACES, course, *paths], capture_output=True, text=True
    )
    lines = [line for line in ran.stdout.splitlines() if line[:1].isdigit() and "isolation container" in line]
    assert len(lines) == 4, ran.stdout + ran.stderr
    assert all(line.startswith("0 files, network: this system allows no namespaces") for line in lines)
    for line, said in zip(
        lines, ("PermissionError", "PermissionError", "differs", "without a report"), strict=True
    ):
        assert said in line


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc of Linux")
def test_on_linux_every_wall_is_up_or_named(grade):
    """What the child says of itself, not what the launcher believes."""
    look = (
        "import os\nfrom pathlib import Path\n"
        "def score(w, x):\n"
        "    told = dict(line.split(':', 1) for line in Path('/proc/self/status').read_text().splitlines())\n"
        "    raise RuntimeError([told['CapEff'].strip(), told['Seccomp'].strip(), "
        "sorted(os.environ), os.listdir()])\n"
    )
    graded = grade(look)
    assert "'0000000000000000', '2'" in message(graded)
    assert message(graded).count("[]") == 1, "the working folder is empty"
    assert "OMP_NUM_THREADS" in message(graded) and "PYTEST" not in message(graded)


# ---------------------------------------------------------------- a class


def hand_in(folder, answers):
    paths = []
    for name, answer in answers.items():
        paths.append(folder / name / "02_wanda.py")
        paths[-1].parent.mkdir(parents=True)
        paths[-1].write_text(answer)
    return paths


def test_a_class_keeps_its_order_and_stops_for_nobody(tmp_path, settings, monkeypatch):
    paths = hand_in(
        tmp_path, {"ada": RIGHT, "bob": WRONG, "eve": "import os\nos._exit(0)\n" + RIGHT, "dan": RIGHT}
    )
    graded = batch.grade([*paths, tmp_path / "gone.py"], settings, jobs=2)
    assert [one.student for one in graded] == ["ada", "bob", "eve", "dan", "gone"]
    assert [one.passed for one in graded] == [True, False, True, True, False]

    def defect(path, settings):
        raise KeyError("a defect")

    monkeypatch.setattr(grader, "grade", defect)
    assert "sparselab failed on it" in batch.grade(paths[:1], settings)[0].problem


def test_what_is_stored_is_not_graded_again(tmp_path, settings, monkeypatch):
    paths = hand_in(tmp_path, {"ada": RIGHT, "bob": WRONG})
    store, ran = tmp_path / "marks.sqlite", []
    honest = grader.grade
    monkeypatch.setattr(grader, "grade", lambda path, s: ran.append(path.parent.name) or honest(path, s))
    first = batch.grade(paths, settings, store=store)
    assert ran == ["ada", "bob"]
    assert batch.grade(paths, settings, store=store) == first and ran == ["ada", "bob"]
    paths[1].write_text(RIGHT)
    assert batch.grade(paths, settings, store=store)[1].passed and ran == ["ada", "bob", "bob"]
    other = dataclasses.replace(settings, secret=secret.Secret((1,), (), "digest"))
    batch.grade(paths, other, store=store)
    assert ran == ["ada", "bob", "bob", "ada", "bob"]


KILLED = """
import os, signal, sys
from pathlib import Path
from sparselab.grading import batch, grader

put, count = batch.Store.put, []
def counted(self, key, marks):
    put(self, key, marks)
    count.append(key)
    if len(count) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
batch.Store.put = counted
settings = grader.Settings(asked=grader.asked(Path(sys.argv[1])), hidden=(Path(sys.argv[1]) / "solutions",))
batch.grade([Path(p) for p in sys.argv[3:]], settings, store=Path(sys.argv[2]))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")
def test_a_killed_run_goes_on_where_it_was(tmp_path, settings, course, monkeypatch):
    paths = hand_in(tmp_path / "in", {f"s{i}": RIGHT if i % 2 else WRONG for i in range(5)})
    store = tmp_path / "marks.sqlite"
    ran = subprocess.run([sys.executable, "-c", KILLED, course, store, *paths], capture_output=True)
    assert ran.returncode == -9, ran.stderr
    again, honest = [], grader.grade
    monkeypatch.setattr(grader, "grade", lambda path, s: again.append(path) or honest(path, s))
    graded = batch.grade(paths, settings, store=store)
    assert again == paths[3:]
    assert [one.passed for one in graded] == [False, True, False, True, False]


def test_another_file_is_no_store(tmp_path, settings):
    (tmp_path / "notes").write_text("x" * 4000)
    with pytest.raises(ValueError, match="no store of marks"):
        batch.grade([], settings, store=tmp_path / "notes")


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker_loses_no_submission(tmp_path, settings):
    distributed = pytest.importorskip("dask.distributed")
    paths = hand_in(tmp_path / "in", {f"s{i}": RIGHT if i % 2 else WRONG for i in range(12)})
    store = tmp_path / "marks.sqlite"
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
    ):
        put, stored = batch.Store.put, []

        def killing(self, key, graded):
            put(self, key, graded)
            stored.append(key)
            if len(stored) == 3:
                os.kill(next(iter(cluster.workers.values())).process.pid, 9)

        batch.Store.put = killing
        try:
            graded = batch.grade(
                paths, settings, store=store, jobs=2, engine="dask", scheduler=cluster.scheduler_address
            )
        finally:
            batch.Store.put = put
    assert [one.passed for one in graded] == [bool(i % 2) for i in range(12)]
    assert len(stored) == len(set(stored)) == 12
    with batch.closing(batch.Store(store)) as kept:
        assert len(kept) == 12


def test_without_dask_the_way_to_it_is_one_line(tmp_path, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(ImportError, match="pip install"):
        batch.grade([tmp_path / "a.py"], settings, engine="dask")


# ---------------------------------------------------------------- the command


def command(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "sparselab", *map(str, arguments)], capture_output=True, text=True, **kwargs
    )


@pytest.mark.slow
def test_the_command_from_secret_to_reports(tmp_path):
    """With the lessons that ship: a class of two, all forms of report, every exit code."""
    made = command("secret", "new", tmp_path / "secret.toml", "--seeds", 1)
    assert made.returncode == 0, made.stderr
    lesson = lessons.load()[-1]
    for who, edition in (("ada", notebooks.solved), ("bob", notebooks.student)):
        path = tmp_path / who / f"{Path(lesson.path).name}.ipynb"
        path.parent.mkdir()
        nbformat.write(edition(lesson), path)
    forms = [form for form in reports.FORMS if form != "gradescope"]
    wanted = [f"--report={form}={tmp_path / form}" for form in forms]
    secrets = ["--secret", tmp_path / "secret.toml"]
    ran = command("grade", *secrets, *wanted, tmp_path / "ada", tmp_path / "bob")
    assert ran.returncode == 1, ran.stderr
    assert [one.passed for one in marks.from_json((tmp_path / "json").read_text())] == [True, False]
    assert (tmp_path / "text").read_text() == ran.stdout
    alone = command("grade", *secrets, f"--report=gradescope={tmp_path / 'results.json'}", tmp_path / "ada")
    assert alone.returncode == 0 and json.loads((tmp_path / "results.json").read_text())["score"] > 0
    (tmp_path / "empty.ipynb").write_text("")
    assert command("grade", tmp_path / "empty.ipynb").returncode == 3
    for wrong in (
        ["nowhere"],
        [tmp_path / "ada", "--engine=ray"],
        [tmp_path / "ada", "--report=pdf=x"],
        [".", "--isolation=contaner"],
    ):
        refused = command("grade", *wrong)
        assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr


def test_rounding_never_makes_a_pass():
    almost = tuple(marks.Check(name=str(i), passed=i > 0) for i in range(2000))
    exercise = marks.Exercise(name="a.b", number="1", weight=1, checks=almost)
    assert not exercise.passed and exercise.points == 1.0


def test_needed_names_are_the_modules_own():
    document = submission.read("a.py", b"w = 1\nk = 2\ndef score(w, x):\n    y = w\n    return y + k\n")
    found = submission.find([document], "wanda.score", "score")
    assert len(found.module.body) == 2
    assert np.array_equal([node.lineno for node in found.module.body], [2, 3])


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("called sparselab.pruning.wanda.reference.score", True),
        ("called sparselab.pruning.wanda.reference.leak_0_1257", False),
        ("called sparselab.a.b.reference.score", False),
        ("imported sparselab.pruning.wanda.checks", True),
        ("imported sparselab.leak.me.checks", False),
        ("started a process", True),
        ("started a process 0.1257", False),
    ],
)
def test_a_child_can_only_say_what_is_on_the_list(line, known):
    assert grader._is_known(line, frozenset()) is known
    assert not grader._is_known(line, frozenset({("sparselab.pruning.wanda.reference", "score")})) or (
        "called" not in line
    )
