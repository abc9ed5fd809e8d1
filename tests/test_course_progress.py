"""What a student has done is kept, by notebooks and commands alike, in crashes and for later versions."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from course_examples import write_course

from sparselab import course as notebook
from sparselab.course import lessons, progress, workspace
from sparselab.course.progress import Record, Standing
from sparselab.pruning.wanda import reference

SCORE, MASK = "wanda.score", "wanda.mask"


@pytest.fixture
def course(tmp_path):
    return lessons.load(write_course(tmp_path / "course"))


@pytest.fixture
def folder(tmp_path, course, monkeypatch):
    """A student's folder, worked in from one of its sub-folders as a notebook is."""
    workspace.prepare(tmp_path / "mine", course)
    monkeypatch.chdir(tmp_path / "mine/05_pruning")
    return tmp_path / "mine"


@pytest.fixture
def told():
    return []


def wrong(w, x):
    return np.abs(w)


def unwritten(w, x):
    raise NotImplementedError


def stored(folder):
    return json.loads((folder / progress.FILE).read_text(encoding="utf-8"))


def files(folder):
    return {path.name for path in (folder / ".sparselab").iterdir()} - {"base", "progress.lock"}


# ---------------------------------------------------------------- the folder


def test_the_folder_is_found_upwards_and_only_where_lessons_were_delivered(folder, tmp_path):
    assert progress.folder_around(folder / "05_pruning") == progress.folder_at(folder) == folder
    (tmp_path / ".sparselab/runs").mkdir(parents=True)  # what `sparselab train` leaves
    assert progress.folder_around(tmp_path) is None
    with pytest.raises(ValueError, match="this is no folder of lessons"):
        progress.folder_at(tmp_path)


# ---------------------------------------------------------------- notebooks


@pytest.mark.parametrize(
    "answer, expected",
    [
        (reference.score, {SCORE: Record(passes=True, has_passed=True)}),
        (wrong, {SCORE: Record()}),
        (unwritten, {}),
    ],
)
def test_a_notebooks_grade_is_recorded(folder, told, answer, expected):
    notebook.grade(SCORE, answer)
    assert progress.read(folder, tell=told.append) == expected and not told


def test_an_answer_that_breaks_later_is_no_longer_done_but_has_passed(folder, told):
    for answer in (reference.score, unwritten):
        notebook.grade(SCORE, answer)
    assert progress.read(folder, tell=told.append) == {SCORE: Record(passes=False, has_passed=True)}


def test_the_ladder_goes_on_in_the_next_kernel(folder, capsys, monkeypatch):
    said = []
    for _ in range(4):
        monkeypatch.setattr(notebook, "_asked", type(notebook._asked)())
        notebook.hint(SCORE)
        said.append(capsys.readouterr().out.split(":")[0])
    assert said == ["Hint 1 of 3", "Hint 2 of 3", "Hint 3 of 3", "Hint 1 of 3"]
    assert stored(folder)["exercises"][SCORE]["hints"] == 4


@pytest.mark.parametrize("obstacle", ["a folder", "no lock", "full disk", "gone"])
def test_a_notebook_does_not_fail_where_nothing_can_be_recorded(folder, capsys, monkeypatch, obstacle):
    if obstacle == "a folder":
        (folder / progress.FILE).mkdir()
    elif obstacle == "no lock":
        (folder / ".sparselab/progress.lock").mkdir()
    elif obstacle == "gone":
        monkeypatch.setattr(progress.Path, "cwd", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    else:
        monkeypatch.setattr(
            progress, "write_atomically", lambda *_: (_ for _ in ()).throw(OSError(28, "No space"))
        )
    notebook.grade(SCORE, reference.score)
    notebook.hint(SCORE)
    assert "public checks passed" in (said := capsys.readouterr().out) and "Hint" in said
    assert not (folder / progress.FILE).is_file()


# ---------------------------------------------------------------- the file


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"exercises": {"wanda.score": {"pass',
        b"\xff\xfe",
        b"[]",
        b'{"exercises": []}',
        b'{"exercises": {"wanda.score": 3}}',
        b'{"exercises": {"wanda.score": {"hints": "two"}}}',
        b'{"exercises": {"wanda.score": {"passes": 1}}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_set_aside_and_named(folder, told, damage):
    (folder / progress.FILE).write_bytes(damage)
    assert progress.record(folder, {SCORE: True}, tell=told.append)[SCORE].passes
    assert len(told) == 1 and ".sparselab/progress.damaged.json" in told[0]
    assert (folder / ".sparselab/progress.damaged.json").read_bytes() == damage
    assert stored(folder)["exercises"][SCORE]["has_passed"] is True


def test_a_second_damaged_record_does_not_replace_the_first(folder, told):
    for damage in (b"first", b"second"):
        (folder / progress.FILE).write_bytes(damage)
        assert progress.read(folder, tell=told.append) == {}
    assert files(folder) == {"progress.damaged.json", "progress.damaged-2.json"} and len(told) == 2


def test_what_a_later_version_wrote_is_kept(folder, told):
    later = {
        "exercises": {SCORE: {"passes": True, "has_passed": True, "stars": 5}, "new.op": {"passes": True}},
        "streak": {"days": 3},
    }
    (folder / progress.FILE).write_text(json.dumps(later))
    progress.record(folder, {SCORE: False, MASK: True}, tell=told.append)
    now = stored(folder)
    assert now["streak"] == later["streak"] and now["exercises"]["new.op"] == {"passes": True}
    assert now["exercises"][SCORE] == {
        "passes": False, "has_passed": True, "stars": 5, "hints": 0, "gave_up": False
    }  # fmt: skip
    assert now["exercises"][MASK]["passes"] is True and not told


def test_a_kill_in_the_middle_of_writing_leaves_the_old_record(folder, told, monkeypatch):
    progress.record(folder, {SCORE: True}, tell=told.append)
    before = stored(folder)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        progress.record(folder, {MASK: True}, tell=told.append)
    assert stored(folder) == before and files(folder) == {"progress.json"}


def test_nothing_is_written_where_nothing_changed(folder, told):
    progress.record(folder, {SCORE: True}, tell=told.append)
    written = (folder / progress.FILE).stat()
    progress.record(folder, {SCORE: True, MASK: None}, tell=told.append)
    assert (folder / progress.FILE).stat().st_ino == written.st_ino
    assert set(stored(folder)["exercises"]) == {SCORE}


@pytest.mark.skipif(sys.platform == "win32", reason="locks are tried for some seconds only")
def test_writers_at_the_same_time_lose_nothing(folder, told):
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: progress.next_hint(folder, SCORE, tell=told.append), range(24)))
    assert sorted(asked) == list(range(24)) and not told


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    "records, expected",
    [
        ({}, Standing(done=0, tried=0, open=1, minutes=30)),
        ({SCORE: Record(hints=1)}, Standing(done=0, tried=1, open=0, minutes=30)),
        ({SCORE: Record(passes=False, has_passed=True)}, Standing(done=0, tried=1, open=0, minutes=30)),
        ({SCORE: Record(passes=True, has_passed=True)}, Standing(done=1, tried=0, open=0, minutes=0)),
        ({MASK: Record(passes=True, has_passed=True)}, Standing(done=0, tried=0, open=1, minutes=30)),
    ],
)
def test_where_a_student_stands_in_a_lesson(course, records, expected):
    assert progress.standing(course[0], records) == expected


def test_minutes_are_left_in_proportion_and_lines_add_up():
    lesson = next(lesson for lesson in lessons.load() if len(lesson.exercises) > 1)
    first = lesson.exercises[0]
    some = progress.standing(lesson, {first.name: Record(passes=True, has_passed=True)})
    asked = sum(exercise.minutes for exercise in lesson.exercises)
    assert some.minutes - 1 < lesson.minutes * (1 - first.minutes / asked) <= some.minutes
    none = progress.standing(lesson, {})
    assert none.minutes == lesson.minutes
    count = len(lesson.exercises)
    assert progress.total([some, none]) == Standing(1, 0, 2 * count - 1, some.minutes + none.minutes)
