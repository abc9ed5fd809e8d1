"""Attacks, a file each in tests/hostile: each ends as a grade of that submission alone, with a message."""

import gzip
import json
import os
import re
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from course_examples import SOLUTION, write_course

from sparselab import judge
from sparselab.grading import batch, grader, marks, reports, secret
from sparselab.grading.sandbox import Limits

HOSTILE = Path(__file__).parent / "hostile"
LIMITS = Limits(call_seconds=20, total_seconds=60, cpu_seconds=20, memory_mb=2048)
SHORT = Limits(call_seconds=3, total_seconds=30, cpu_seconds=20)
LESSON = "05_pruning/02_wanda"
WRONG = "differs|shape|dtype"
SAID = {
    "infinite_loop": "still running after 3 s, stopped",
    "sleeper": "still running after 3 s, stopped",
    "recursion_bomb": "RecursionError",
    "fork_bomb": "PermissionError|BlockingIOError",
    "starts_a_program": "PermissionError|BlockingIOError",
    "thread_bomb": "can't start new thread|killed by the system|MemoryError|ended itself|crashed",
    "huge_array": "MemoryError",
    "huge_answer": "WireError: it holds 40000.* bytes, at most",
    "nested_answer": "cannot be sent",
    "huge_output": "differs at",
    "full_disk": "No space left",
    "os_exit": "ended itself without a report",
    "sys_exit": "SystemExit",
    "at_exit": "differs at",
    "threads_left": "differs at",
    "replaced_judge": "differs at",
    "forged_report": "not complete, or not its own|without a report",
    "forged_nonce": "differs at",
    "segmentation_fault": "crashed .SIGSEGV. without a report",
    "kills_the_grader": "differs at",
    "network": "PermissionError|OSError|ConnectionRefusedError|Operation not permitted",
    "lifts_limits": "ValueError: not allowed to raise maximum limit",
    "pickled_answer": WRONG,
    "hostile_error": "Unprintable",
    "numpy_subclass": "differs at",
}  # fmt: skip


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return write_course(tmp_path_factory.mktemp("course"))


@pytest.fixture
def settings(course):
    def make(**fields):
        return grader.Settings(**{"asked": grader.asked(course), "limits": LIMITS} | fields)

    return make


def isolated(graded):
    return not graded.isolation


def attack(name, tmp_path, **replaced):
    """A copy of an attack, with the paths that it looks for."""
    text = (HOSTILE / f"{name}.py").read_text(encoding="utf-8")
    for word, path in replaced.items():
        text = text.replace(word, str(path))
    file = tmp_path / "handed_in" / f"{name}.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def failed(graded, said):
    """It did not pass, and the message says why."""
    assert not graded.passed and graded.points < graded.out_of or graded.problem
    told = graded.problem + "".join(
        e.message + "".join(check.message for check in e.checks) for e in graded.exercises
    )
    assert re.search(said, told), told
    assert len(told) < 20_000
    assert marks.exit_code([graded]) in (1, 3)
    for form in reports.FORMS.values():
        form([graded])


def test_every_attack_of_the_folder_is_tried():
    tried = set(SAID) | {
        "reads_the_solution",
        "reads_the_secret",
        "reads_the_grader",
        "imports_the_reference",
        "leaks_hidden_inputs",
    }
    assert {path.stem for path in HOSTILE.glob("*.py")} == tried


@pytest.mark.parametrize("name", SAID)
def test_an_attack_ends_as_a_grade_with_a_message(name, tmp_path, settings):
    limits = SHORT if "still running" in SAID[name] else LIMITS
    path = attack(name, tmp_path)
    graded = grader.grade(path, settings(limits=limits))
    if name == "full_disk" and not isolated(graded):
        pytest.skip("no folder of a fixed size here")
    failed(graded, SAID[name])
    assert graded.points == 0
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]


def test_an_attack_never_touches_its_neighbour(tmp_path, settings):
    honest = tmp_path / "handed_in" / "honest.py"
    paths = [attack(name, tmp_path) for name in ("os_exit", "kills_the_grader", "replaced_judge")]
    honest.write_text('# %% exercise="wanda.score"\n' + SOLUTION.split('"""', 2)[2])
    graded = batch.grade([*paths, honest], settings(), jobs=2)
    assert [one.passed for one in graded] == [False, False, False, True]


def test_the_solution_cannot_be_read(tmp_path, settings, course):
    solution = course / "solutions" / f"{LESSON}.py"
    path = attack("reads_the_solution", tmp_path, SOLUTION=solution)
    graded = grader.grade(path, settings(hidden=(course / "solutions",)))
    if not isolated(graded):
        pytest.skip("nothing can be hidden here")
    failed(graded, "FileNotFoundError|PermissionError|NotADirectoryError")
    assert grader.grade(path, settings()).passed, "the attack itself must work where nothing is hidden"


def test_the_secret_cannot_be_read(tmp_path, settings):
    file = tmp_path / "secret.toml"
    file.write_text("seeds = [31337]\n")
    path = attack("reads_the_secret", tmp_path, SECRET=file)
    graded = grader.grade(path, settings(secret=secret.read(file), hidden=(file,)))
    if not isolated(graded):
        pytest.skip("nothing can be hidden here")
    assert not graded.passed and "31337" not in marks.to_json([graded])
    assert "31337" in marks.to_json([grader.grade(path, settings())])


def test_neither_environment_nor_memory_of_the_grader_can_be_read(tmp_path, settings, monkeypatch):
    monkeypatch.setenv("TOKEN_OF_THE_GRADER", "sesame")
    path = attack("reads_the_grader", tmp_path)
    graded = grader.grade(path, settings())
    failed(graded, "RuntimeError")
    if isolated(graded):
        assert "sesame" not in marks.to_json([graded]) and "TOKEN_OF" not in marks.to_json([graded])


def test_using_the_reference_is_told_and_may_be_refused(tmp_path, settings):
    path = attack("imports_the_reference", tmp_path)
    graded = grader.grade(path, settings())
    assert graded.passed
    assert graded.exercises[0].notes == ("called sparselab.pruning.wanda.reference.score",)
    assert "called sparselab.pruning.wanda" in reports.text([graded])
    refused = grader.grade(path, settings(refuse_reference=True))
    assert refused.points == 0 and not refused.passed


def test_importing_the_reference_is_told_without_running_it(tmp_path, settings):
    file = tmp_path / "a.py"
    file.write_text(
        'from sparselab.pruning.wanda.reference import score as known\n# %% exercise="wanda.score"\n'
        "def score(w, x):\n    raise RuntimeError\n    return known(w, x)\n"
    )
    graded = grader.grade(file, settings())
    assert graded.exercises[0].notes == ("imports sparselab.pruning.wanda.reference score",)


def test_hidden_inputs_reach_no_output(tmp_path, settings):
    file = tmp_path / "secret.toml"
    file.write_text("seeds = [5, 6]\n")
    graded = grader.grade(
        attack("leaks_hidden_inputs", tmp_path), settings(secret=secret.read(file), hidden=(file,))
    )
    public, hidden = (graded.exercises[0].count(hidden=kind) for kind in (False, True))
    assert public[0] >= 1 and hidden[0] < hidden[1]
    inputs = judge.cases(*judge.exercise("wanda.score"), seed=5)[0][1]["w"]
    shown = "".join(form([graded]) for form in reports.FORMS.values())
    assert "LEAK" not in shown
    assert not any(repr(float(value))[:10] in shown for value in inputs.ravel())


# ---------------------------------------------------------------- files that are no honest files


def test_links_are_not_followed(tmp_path, settings, course):
    elsewhere = tmp_path / "elsewhere.py"
    elsewhere.write_text('# %% exercise="wanda.score"\n' + SOLUTION.split('"""', 2)[2])
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / "02_wanda.py").symlink_to(elsewhere)
    (tmp_path / "direct.py").symlink_to(elsewhere)
    (folder / "inner").symlink_to(tmp_path, target_is_directory=True)
    for path in (folder, tmp_path / "direct.py"):
        failed(grader.grade(path, settings(lessons=(LESSON,))), "symbolic link")
    assert grader.grade(elsewhere, settings()).passed


def test_a_pipe_and_a_folder_named_as_a_notebook_are_no_trap(tmp_path, settings):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.ipynb")
        failed(grader.grade(tmp_path / "pipe.ipynb", settings()), "not a plain file")
    (tmp_path / "folder.ipynb").mkdir()
    failed(grader.grade(tmp_path / "folder.ipynb", settings()), "no notebook")


@pytest.mark.parametrize("name", ["a\nb.py", "::error::x.py", "=cmd.py", "<b>.py", "🦆.py", b"\xff\xfe.py"])
def test_odd_names_break_no_report(name, tmp_path, settings):
    path = tmp_path / os.fsdecode(name)
    path.write_text('# %% exercise="wanda.score"\ndef score(w, x):\n    return w\n')
    graded = grader.grade(path, settings())
    failed(graded, WRONG)
    assert "\n" not in graded.student + graded.submission
    for form in reports.FORMS.values():
        form([graded]).encode("utf-8")
    assert len(reports.gradebook([graded]).splitlines()) == 2
    assert not re.search("^=", reports.gradebook([graded]).splitlines()[1])


def test_archives_are_not_unpacked(tmp_path, settings):
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("02_wanda.ipynb", bytes(10_000_000))
    (tmp_path / "bomb.ipynb").write_bytes(gzip.compress(bytes(10_000_000)))
    failed(grader.grade(tmp_path / "bomb.zip", settings()), "unpack an archive first")
    failed(grader.grade(tmp_path / "bomb.ipynb", settings()), "not UTF-8")


def test_a_file_beyond_the_limit_is_not_read(tmp_path, settings):
    with open(tmp_path / "huge.ipynb", "wb") as file:
        file.truncate(10**12)
    failed(grader.grade(tmp_path / "huge.ipynb", settings()), "larger than 20 MB")


def test_files_beside_a_submission_are_never_imported(tmp_path, settings):
    folder = tmp_path / "student"
    (folder / "sparselab").mkdir(parents=True)
    for name in ("conftest.py", "sitecustomize.py", "usercustomize.py", "numpy.py", "sparselab/judge.py"):
        (folder / name).write_text("import os\nos._exit(0)\n")
    (folder / "evil.pth").write_text("import os; os._exit(0)\n")
    (folder / "answer.py").write_text('# %% exercise="wanda.score"\n' + SOLUTION.split('"""', 2)[2])
    assert grader.grade(folder, settings()).passed
    (folder / "answer.py").write_text('# %% exercise="wanda.score"\ndef score(w, x):\n    return w\n')
    failed(grader.grade(folder, settings()), "differs at")


def deep(text):
    return f'# %% exercise="wanda.score"\ndef score(w, x):\n    return {text}\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("utf8.py", b"# \xff\xfe\n", "not UTF-8 from byte 2"),
        ("utf8.ipynb", b'{"cells": "\xff"}', "not UTF-8"),
        ("half.ipynb", b'{"cells": [{"cell_type": "code", "sour', "not JSON, as if half of it was saved"),
        ("empty.ipynb", b"\0\0\n", "the file is empty"),
        ("list.ipynb", b"[1, 2]", "not a notebook"),
        ("deep.ipynb", b"[" * 100_000, "nested too deeply|not JSON"),
        ("number.ipynb", b'{"cells": ' + b"9" * 5000 + b"}", "limit|not a notebook"),
        ("parens.py", deep("(" * 50_000 + ")" * 50_000).encode(), "not Python|nested|crashed"),
        ("minus.py", deep("-" * 200_000 + "1").encode(), "not Python|nested|crashed|RecursionError"),
        ("attribute.py", deep("w" + ".T" * 200_000).encode(), "not Python|nested|crashed|RecursionError"),
        ("null.py", b'# %% exercise="wanda.score"\ndef score(w, x):\n    return "\0"\n', "not Python"),
    ],
)
def test_contents_that_break_readers(name, content, said, tmp_path, settings):
    (tmp_path / name).write_bytes(content)
    failed(grader.grade(tmp_path / name, settings(lessons=(LESSON,))), said)


def test_a_notebook_of_a_hundred_thousand_cells(tmp_path, settings):
    cell = {"cell_type": "code", "source": ["x = 1\n"], "metadata": {}}
    told = {"sparselab": {"exercise": "wanda.score", "function": "score"}}
    answer = {"cell_type": "code", "metadata": told, "source": "def score(w, x):\n    return w\n"}
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell] * 100_000 + [answer]}
    (tmp_path / "many.ipynb").write_text(json.dumps(notebook))
    failed(grader.grade(tmp_path / "many.ipynb", settings()), "differs at")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no /proc to look into")
def test_nothing_is_left_running(tmp_path, settings):
    def workers():
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if readable(path)]
        return sum(b"threads_left_marker" in line for line in lines)

    def readable(path):
        try:
            return bool(path.read_bytes())
        except OSError:
            return False

    path = attack("threads_left", tmp_path).rename(tmp_path / "threads_left_marker.py")
    hidden = (tmp_path / "threads_left_marker.py",)  # its name stands in the child's command line
    grader.grade(path, settings(hidden=hidden))
    for _ in range(50):
        if not workers():
            break
        time.sleep(0.1)
    assert workers() == 0


def test_random_bytes_are_no_report():
    from sparselab.grading import wire

    rng = np.random.default_rng(0)
    for _ in range(200):
        text, body = rng.bytes(int(rng.integers(0, 60))), rng.bytes(16)
        with pytest.raises(wire.WireError):
            wire.decode(b'{"array": ' + text, body, trusted=False)
