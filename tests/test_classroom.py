"""A class's repositories do what they promise: their own commands run in a clean clone, and nothing leaks."""

import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from course_examples import LESSON, write_course
from typer.testing import CliRunner

from sparselab import classroom, cli
from sparselab.course import lessons, notebooks, workspace
from sparselab.grading import secret, submission
from sparselab.method import PACKAGE

WORKFLOW = "student/.github/workflows/grade.yml"


@pytest.fixture
def course(tmp_path):
    return lessons.load(write_course(tmp_path / "course"))


@pytest.fixture
def room(tmp_path, course):
    assert classroom.write(tmp_path / "class", course) == []
    return tmp_path / "class"


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def files_of(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {entry.filename: (opened.read(entry), entry.external_attr >> 16) for entry in opened.filelist}


# ---------------------------------------------------------------- what is written


def test_both_folders_hold_what_they_should(room):
    assert set(contents(room)) == {
        "student/05_pruning/02_wanda.ipynb",
        "student/.sparselab/base/05_pruning/02_wanda.ipynb",
        "student/README.md",
        "student/requirements.txt",
        "student/.gitignore",
        "student/.gitlab-ci.yml",
        WORKFLOW,
        "instructor/HOWTO.md",
        "instructor/.gitignore",
        "instructor/secret.toml",
        "instructor/gradescope.zip",
        "instructor/delivered.json",
    }
    for name, content in contents(room).items():
        assert not re.search(rb"@[a-z]+@", content), name
    readme = (room / "student/README.md").read_text(encoding="utf-8")
    assert "| [5.2 Weights and inputs](05_pruning/02_wanda.ipynb) | 30 |" in readme


def test_nothing_of_the_teachers_reaches_the_students_folder(room):
    seeds = secret.read(room / classroom.SECRET).seeds
    student = b"\n".join(contents(room / "student").values())
    assert len(seeds) == 3 and not any(str(seed).encode() in student for seed in seeds)
    assert b"squared_norm_of_each_input" not in student and b"secret.toml" not in student
    assert (room / "instructor/.gitignore").read_text() == "*\n"
    if os.name == "posix":
        assert (room / "instructor").stat().st_mode & 0o077 == 0


def test_workflows_grade_every_lesson_by_name_and_read_no_secret(room):
    for name in (WORKFLOW, "student/.gitlab-ci.yml"):
        text = (room / name).read_text(encoding="utf-8")
        assert "sparselab grade . --lesson 5.2 --report" in text and "--secret" not in text
        assert "${{ secrets" not in text and yaml.safe_load(text)


def test_the_autograder_carries_the_secret_and_is_the_same_each_time(room, course):
    archive = (room / "instructor/gradescope.zip").read_bytes()
    members = files_of(archive)
    assert set(members) == {"setup.sh", "run_autograder", "requirements.txt", "secret.toml"}
    assert members["secret.toml"][0] == (room / classroom.SECRET).read_bytes()
    assert {name for name, (_, mode) in members.items() if mode & 0o111} == {"setup.sh", "run_autograder"}
    assert not any(b"\r" in data for data, _ in members.values())
    (room / "instructor/gradescope.zip").unlink()
    classroom.write(room, course)
    assert (room / "instructor/gradescope.zip").read_bytes() == archive


# ---------------------------------------------------------------- again


def test_again_without_a_change_touches_nothing(room, course):
    before = {path: path.stat().st_mtime_ns for path in room.rglob("*") if path.is_file()}
    assert classroom.write(room, course) == []
    assert {path: path.stat().st_mtime_ns for path in room.rglob("*") if path.is_file()} == before


def test_an_update_reaches_what_nobody_edited_and_spares_the_rest(room, course, monkeypatch):
    mine = "sparselab[course] @ git+https://example.org/ours\n"
    (room / "student/requirements.txt").write_text(mine)
    (room / "student/README.md").write_text("Our class.\n")
    monkeypatch.setattr(classroom, "__version__", "9.9")
    told = classroom.write(room, course)
    assert told == [
        "student/requirements.txt: yours is kept as it is; the new version is "
        "instructor/fresh/student/requirements.fresh.txt",
        "instructor/gradescope.zip: brought up to date",
    ]
    assert (room / "student/requirements.txt").read_text() == mine
    assert "==9.9" in (room / "instructor/fresh/student/requirements.fresh.txt").read_text()
    assert (room / "student/README.md").read_text() == "Our class.\n"
    assert files_of((room / "instructor/gradescope.zip").read_bytes())["requirements.txt"][0] == mine.encode()
    assert classroom.write(room, course) == []


def test_an_update_of_the_course_merges_notebooks_and_names_new_lessons(room, tmp_path):
    root = write_course(tmp_path / "course")
    write_course(root, LESSON.replace("Weights and inputs", "Again"), path="05_pruning/03_again")
    notebook = room / "student/05_pruning/02_wanda.ipynb"
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("Which weights", "WHICH weights"))
    told = classroom.write(room, lessons.load(root))
    assert "WHICH weights" in notebook.read_text(encoding="utf-8")
    assert f"{WORKFLOW}: brought up to date" in told
    assert "--lesson 5.2 --lesson 5.3" in (room / WORKFLOW).read_text()


def test_the_secret_is_never_written_again(room, course):
    own = "seeds = [7]\n"
    (room / classroom.SECRET).write_text(own)
    assert classroom.write(room, course) == ["instructor/gradescope.zip: brought up to date"]
    assert (room / classroom.SECRET).read_text() == own
    (room / classroom.SECRET).write_text("seeds = 7\n")
    with pytest.raises(ValueError, match="seeds is a list"):
        classroom.write(room, course)
    assert (room / classroom.SECRET).read_text() == "seeds = 7\n"


@pytest.mark.parametrize("record", [None, b"{", b"[]"])
def test_without_a_record_every_changed_file_counts_as_edited(room, course, record, monkeypatch):
    (room / classroom.DELIVERED).unlink()
    if record:
        (room / classroom.DELIVERED).write_bytes(record)
    monkeypatch.setattr(classroom, "__version__", "9.9")
    before = contents(room / "student")
    assert any("requirements.txt: yours is kept" in line for line in classroom.write(room, course))
    assert contents(room / "student") == before


def test_what_was_deleted_comes_back_and_is_said(room, course):
    (room / WORKFLOW).unlink()
    assert classroom.write(room, course) == [f"{WORKFLOW}: was deleted; a fresh one is in its place"]
    assert (room / WORKFLOW).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_is_left_alone(room, course, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").write_text("not ours")
    (room / "student/README.md").unlink()
    (room / "student/README.md").symlink_to(tmp_path / "elsewhere")
    told = classroom.write(room, course)
    assert told == ["student/README.md: student/README.md is a symbolic link; left as it is"]
    assert (tmp_path / "elsewhere").read_text() == "not ours"


def test_a_file_in_the_way_is_one_line(tmp_path, course):
    (tmp_path / "class").write_text("x")
    with pytest.raises(ValueError, match="is no folder"):
        classroom.write(tmp_path / "class", course)


def test_the_command_takes_lessons_and_says_where_to_begin(tmp_path, course, monkeypatch):
    monkeypatch.setattr(lessons, "load", lambda *_, **__: course)
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(cli.app, ["classroom", "mine", "5.2"])
    assert ran.exit_code == 0 and ran.stdout.endswith("begin with its HOWTO.md\n")
    assert "sparselab classroom mine 5.2\n" in Path("mine/instructor/HOWTO.md").read_text(encoding="utf-8")
    assert "jupyter lab\n" in Path("mine/student/README.md").read_text(encoding="utf-8")
    ran = CliRunner().invoke(cli.app, ["classroom", "other", "wandda"])
    assert (ran.exit_code, ran.stderr) == (2, "no lesson is called 'wandda'; did you mean 'wanda'?\n")
    assert not Path("other").exists()


# ---------------------------------------------------------------- in a clean clone


def test_lessons_that_share_a_functions_name_are_told_apart():
    """A whole repository is one submission: the mask of one lesson is no answer in another."""
    files = {}
    for lesson, exercise, body in (
        ("01_a/00_exact", "exact.mask", "raise NotImplementedError"),
        ("05_b/02_wanda", "wanda.mask", "return 1"),
    ):
        cell = {"cell_type": "code", "source": f"def mask(x):\n    {body}"}
        cell["metadata"] = {"sparselab": {"exercise": exercise}}
        stored = {"cells": [cell], "metadata": {"sparselab": {"lesson": lesson}}}
        files[f"{lesson}.ipynb"] = json.dumps(stored).encode()
    documents = [submission.read(name, content) for name, content in files.items()]
    for document, exercise in zip(documents, ("exact.mask", "wanda.mask"), strict=True):
        found = submission.find(documents, exercise, "mask", prefer=document.lesson)
        assert found.file == document.name and not found.notes


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The first real lesson as a class repository, cloned; `sparselab` is this interpreter's."""
    place = tmp_path_factory.mktemp("class")
    lesson = next(lesson for lesson in lessons.load() if lesson.exercises)
    classroom.write(place, [lesson], chosen=[lesson.number])
    (place / "bin").mkdir()
    (place / "bin/sparselab").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sparselab "$@"\n')
    (place / "bin/sparselab").chmod(0o755)
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Lessons"]):
        shell(place, ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], "student")
    shell(place, ["git", "clone", "--quiet", "student", "clone"], ".")
    return place, lesson


def shell(place, arguments, folder, **environment):
    settings = {
        **os.environ,
        "PATH": os.pathsep.join([str(place / "bin"), os.environ["PATH"]]),
        "PYTHONPATH": str(PACKAGE.parent),
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GITHUB_STEP_SUMMARY": str(place / "step-summary.md"),
        **environment,
    }
    ran = subprocess.run(
        arguments, cwd=place / folder, env=settings, capture_output=True, text=True, timeout=600
    )
    assert arguments[0] != "git" or ran.returncode == 0, ran.stderr
    return ran


def own_commands(text, steps):
    """The workflow's own commands; the installation is what this interpreter has done already."""
    found = [command for command in steps(yaml.safe_load(text)) if not command.startswith("pip install")]
    assert found and "sparselab grade" in found[0]
    return found


def solve(folder, lesson):
    workspace.path_of(folder, lesson).write_bytes(notebooks.to_bytes(notebooks.solved(lesson)))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None or os.name != "posix", reason="needs git and a shell")
def test_the_workflows_own_commands_run_in_a_clean_clone(clone):
    place, lesson = clone
    tracked = shell(place, ["git", "ls-files"], "clone").stdout.split()
    assert f".sparselab/base/{lesson.path}.ipynb" in tracked and ".github/workflows/grade.yml" in tracked
    assert not any("secret" in name for name in tracked)
    github = own_commands(
        (place / "clone/.github/workflows/grade.yml").read_text(),
        lambda told: [step["run"] for step in told["jobs"]["grade"]["steps"] if "run" in step],
    )
    gitlab = own_commands((place / "clone/.gitlab-ci.yml").read_text(), lambda told: told["grade"]["script"])

    ran = [shell(place, ["bash", "-e", "-c", command], "clone") for command in github]
    assert [one.returncode for one in ran] == [1, 0], ran
    assert ran[1].stdout.count("::error") == len(lesson.exercises) and "not written yet" in ran[1].stdout
    assert "0 of" in (place / "step-summary.md").read_text()

    solve(place / "clone", lesson)
    ran = [shell(place, ["bash", "-e", "-c", command], "clone") for command in [*github, *gitlab]]
    assert [one.returncode for one in ran] == [0, 0, 0], ran
    assert "::error" not in ran[1].stdout
    assert json.loads((place / "clone/reports/quality.json").read_text()) == []
    assert 'failures="0"' in (place / "clone/reports/junit.xml").read_text()
    assert shell(place, ["git", "status", "--porcelain"], "clone").stdout.split() == [
        "M", f"{lesson.path}.ipynb"
    ]  # fmt: skip

    workspace.path_of(place / "clone", lesson).unlink()
    assert shell(place, ["bash", "-e", "-c", github[0]], "clone").returncode in (1, 3)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None or os.name != "posix", reason="needs git and a shell")
def test_the_autograder_writes_results_with_hidden_checks(clone):
    place, lesson = clone
    home = place / "autograder"
    with zipfile.ZipFile(place / "instructor/gradescope.zip") as archive:
        archive.extractall(home / "source")
    script = (home / "source/run_autograder").read_text().replace("/autograder", str(home))
    (home / "run_autograder").write_text(script)
    family = Path(lesson.path).parent
    shutil.copytree(place / "student" / family, home / "submission" / family)
    scores = []
    for solved in (False, True):
        if solved:
            solve(home / "submission", lesson)
        ran = shell(place, ["bash", str(home / "run_autograder")], ".")
        assert ran.returncode == 0, ran.stderr
        results = json.loads((home / "results/results.json").read_text())
        scores.append(sum(test["score"] for test in results["tests"]))
    assert scores[0] == 0 < scores[1] == sum(test["max_score"] for test in results["tests"])
    assert "hidden" in json.dumps(results) and str(secret.read(place / classroom.SECRET).seeds[0]) not in str(
        results
    )
    (home / "source/secret.toml").write_text("nonsense")
    assert shell(place, ["bash", str(home / "run_autograder")], ".").returncode == 2
