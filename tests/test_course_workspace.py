"""A student's folder survives updates, accidents and full disks; a file that is not ours is left alone."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from course_examples import FIGURE, LESSON, SLIDER, write_course
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.course import lessons, notebooks, workspace, writing

NAME = "05_pruning/02_wanda.ipynb"
PROSE = "\n# %% [markdown]\n# A new word.\n"
UPDATED = LESSON.replace(FIGURE, PROSE + FIGURE).replace("Guess first", "Guess now")


def course(root, text=LESSON, path="05_pruning/02_wanda"):
    return lessons.load(write_course(root, text, path=path))


@pytest.fixture
def old(tmp_path):
    return course(tmp_path / "old")


@pytest.fixture
def new(tmp_path):
    return course(tmp_path / "new", UPDATED)


@pytest.fixture
def folder(tmp_path, old):
    assert workspace.prepare(tmp_path / "mine", old) == []
    return tmp_path / "mine"


def state(folder):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def read(path):
    stored = json.loads(path.read_text(encoding="utf-8"))
    for cell in stored["cells"]:
        cell["source"] = "".join(cell["source"])
    return stored


def sources(path):
    return [cell["source"] for cell in read(path)["cells"]]


def edit(path, change):
    stored = read(path)
    change(stored)
    path.write_text(json.dumps(stored), encoding="utf-8")


def solve(stored):
    cell = next(cell for cell in stored["cells"] if "def score" in cell["source"])
    cell["source"] = cell["source"].replace("raise NotImplementedError", "return abs(w)  # my own try")


def backups(folder):
    return sorted((folder / ".sparselab/backup").rglob("*.ipynb"))


def test_a_fresh_folder_holds_the_students_notebooks(folder, old):
    assert (folder / NAME).read_bytes() == notebooks.to_bytes(notebooks.student(old[0]))
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == ["05_pruning"]


def test_without_a_change_no_file_is_touched(folder, old):
    before = state(folder)
    assert workspace.prepare(folder, old) == [] and state(folder) == before
    edit(folder / NAME, solve)
    before = state(folder)
    assert workspace.prepare(folder, old) == [] and state(folder) == before


def test_an_update_keeps_what_was_written(folder, new, old):
    edit(folder / NAME, solve)
    before = (folder / NAME).read_bytes()
    (told,) = workspace.prepare(folder, new)
    (backup,) = backups(folder)
    assert told == f"{NAME}: brought up to date; as it was: {backup.relative_to(folder).as_posix()}"
    assert backup.read_bytes() == before
    found = sources(folder / NAME)
    assert any("# my own try" in source for source in found)
    assert "A new word." in found and any("Guess now" in source for source in found)
    assert len(found) == len(notebooks.student(new[0]).cells)
    before = state(folder)
    assert workspace.prepare(folder, new) == [] and state(folder) == before


def test_a_notebook_that_was_never_touched_becomes_the_update(folder, new):
    workspace.prepare(folder, new)
    (fresh,) = [notebooks.student(lesson) for lesson in new]
    assert read(folder / NAME)["cells"] == read_bytes(notebooks.to_bytes(fresh))["cells"]


def read_bytes(content):
    stored = json.loads(content)
    for cell in stored["cells"]:
        cell["source"] = "".join(cell["source"])
    return stored


def test_backups_never_meet(folder, new, old):
    for course_now in (new, old, new, old):
        edit(folder / NAME, lambda stored: stored["cells"].append(own_cell(len(stored["cells"]))))
        workspace.prepare(folder, course_now)
    assert len(backups(folder)) == 4 == len({backup.read_bytes() for backup in backups(folder)})


def own_cell(number):
    return {"cell_type": "code", "id": f"mine{number}", "metadata": {}, "outputs": [],
            "source": f"x = {number}", "execution_count": None}  # fmt: skip


def what_jupyterlab_adds(stored):
    stored["metadata"]["language_info"] = {"name": "python", "version": "3.13.1", "mimetype": "text/x-python"}
    stored["metadata"]["widgets"] = {"state": {}}
    for cell in stored["cells"]:
        cell["metadata"]["trusted"] = True
        if cell["cell_type"] == "code":
            cell["execution_count"] = 7
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["ran\n"]}]


def test_outputs_and_metadata_are_no_edit_and_outputs_of_unchanged_cells_stay(folder, new, old):
    edit(folder / NAME, what_jupyterlab_adds)
    before = state(folder)
    assert workspace.prepare(folder, old) == [] and state(folder) == before
    workspace.prepare(folder, new)
    stored = read(folder / NAME)
    assert [cell["source"] for cell in stored["cells"]] == [c.source for c in notebooks.student(new[0]).cells]
    code = [cell for cell in stored["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] and cell["execution_count"] == 7 for cell in code)
    assert stored["metadata"]["language_info"]["version"] == "3.13.1" and "widgets" in stored["metadata"]


def test_a_changed_cell_loses_the_outputs_of_the_old_one(folder, tmp_path):
    edit(folder / NAME, what_jupyterlab_adds)
    workspace.prepare(
        folder, course(tmp_path / "newer", LESSON.replace('print("kept:", 8)', 'print("kept:", 2 * 4)'))
    )
    cell = next(cell for cell in read(folder / NAME)["cells"] if "2 * 4" in cell["source"])
    assert cell["outputs"] == [] and cell["execution_count"] is None


def test_a_conflict_keeps_the_students_cell_and_says_so(folder, tmp_path):
    edit(folder / NAME, solve)
    changed = LESSON.replace("Importance of each weight", "The importance")
    told = workspace.prepare(folder, course(tmp_path / "newer", changed))
    assert any("yours is kept: 'def score" in line for line in told), told
    assert any("# my own try" in source for source in sources(folder / NAME))


def test_all_else_in_the_file_is_kept(folder, new):
    def change(stored):
        stored["metadata"]["mine"] = {"a": [1, "é"]}
        stored["cells"][1].update(
            source="![](attachment:x.png) half: \ud800", attachments={"x.png": {"image/png": "QQ=="}}
        )
        stored["cells"].append(
            {"cell_type": "raw", "id": "raw", "metadata": {}, "source": "raw\r\ntext\u2028"}
        )

    edit(folder / NAME, change)
    workspace.prepare(folder, new)
    stored = read(folder / NAME)
    assert stored["metadata"]["mine"] == {"a": [1, "é"]}
    kept = [cell for cell in stored["cells"] if "attachments" in cell]
    assert kept[0]["attachments"] == {"x.png": {"image/png": "QQ=="}} and kept[0]["source"].endswith("\ud800")
    assert stored["cells"][-1]["source"] == "raw\r\ntext\u2028"


def test_a_deleted_notebook_comes_back_fresh_and_it_is_said(folder, old):
    (folder / NAME).unlink()
    assert workspace.prepare(folder, old) == [f"{NAME}: was deleted; a fresh one is in its place"]
    assert (folder / NAME).read_bytes() == notebooks.to_bytes(notebooks.student(old[0]))


def test_a_renamed_notebook_is_kept_up_to_date_under_its_new_name(folder, old, new):
    edit(folder / NAME, solve)
    (folder / "my work").mkdir()
    renamed = folder / "my work/wanda.ipynb"
    (folder / NAME).rename(renamed)
    told = workspace.prepare(folder, old)
    assert told == [f"{NAME}: you renamed it to my work/wanda.ipynb, which is kept up to date"]
    told = workspace.prepare(folder, new)
    assert len(told) == 2 and not (folder / NAME).exists()
    assert "A new word." in sources(renamed) and any("# my own try" in source for source in sources(renamed))


def test_two_renamed_notebooks_are_left_and_a_fresh_one_is_made(folder, new):
    for name in ("a.ipynb", "b.ipynb"):
        (folder / name).write_bytes((folder / NAME).read_bytes())
    (folder / NAME).unlink()
    before = [(folder / name).read_bytes() for name in ("a.ipynb", "b.ipynb")]
    told = workspace.prepare(folder, new)
    assert told == [
        f"{NAME}: you renamed it to a.ipynb and b.ipynb, left as it is; a fresh one is in its place"
    ]
    assert [(folder / name).read_bytes() for name in ("a.ipynb", "b.ipynb")] == before
    assert "A new word." in sources(folder / NAME)


def test_a_copy_is_the_students_own(folder, new):
    copied = folder / "05_pruning/02_wanda-Copy1.ipynb"
    copied.write_bytes((folder / NAME).read_bytes())
    before = copied.read_bytes()
    workspace.prepare(folder, new)
    assert copied.read_bytes() == before and "A new word." in sources(folder / NAME)


GOOD = json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
DAMAGED = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\0\0", "is empty"),
    "half saved": (GOOD[:40].encode(), "not JSON"),
    "two in one": ((GOOD + GOOD).encode(), "not JSON"),
    "nested without end": (b"[" * 100_000, "not JSON"),
    "latin-1": (GOOD.replace("{}", '{"é": 1}').encode("latin-1"), "not UTF-8"),
    "utf-16": (GOOD.encode("utf-16"), "not UTF-8"),
    "a list": (b"[1, 2]", "not a notebook"),
    "no cells": (b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}', "not a notebook"),
    "an old format": (GOOD.replace('"nbformat": 4', '"nbformat": 3').encode(), "not a notebook"),
    "a cell that is none": (GOOD.replace("[]", "[7]").encode(), "not a notebook"),
    "a source that is none": (
        GOOD.replace("[]", '[{"cell_type": "code", "source": [1]}]').encode(),
        "not a notebook",
    ),
    "a picture": (b"\x89PNG\r\n\x1a\n", "not UTF-8"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_notebook_is_put_aside_and_replaced(folder, old, name):
    content, problem = DAMAGED[name]
    for aside in ("02_wanda.damaged.ipynb", "02_wanda.damaged-2.ipynb"):
        (folder / NAME).write_bytes(content)
        (told,) = workspace.prepare(folder, old)
        assert problem in told and aside in told
        assert (folder / "05_pruning" / aside).read_bytes() == content
        assert (folder / NAME).read_bytes() == notebooks.to_bytes(notebooks.student(old[0]))
    assert workspace.prepare(folder, old) == []


def test_a_byte_order_mark_is_no_damage(folder, new):
    edit(folder / NAME, solve)
    (folder / NAME).write_bytes(b"\xef\xbb\xbf" + (folder / NAME).read_bytes())
    workspace.prepare(folder, new)
    assert any("# my own try" in source for source in sources(folder / NAME))


@pytest.mark.parametrize(
    "content, says", [(GOOD, "is not one of this course"), (None, "says that it is 01_a/01_b")]
)
def test_another_notebook_under_the_name_is_left_alone(folder, new, content, says):
    if content is None:
        edit(folder / NAME, lambda stored: stored["metadata"]["sparselab"].update(lesson="01_a/01_b"))
    else:
        (folder / NAME).write_text(content)
    before = (folder / NAME).read_bytes()
    (told,) = workspace.prepare(folder, new)
    assert says in told and "rename it to get lesson 5.2" in told and (folder / NAME).read_bytes() == before


@pytest.mark.parametrize("lose", [os.unlink, lambda path: path.write_text("{")])
def test_a_lost_record_costs_nothing(folder, old, new, lose):
    record = folder / ".sparselab/base" / NAME
    lose(record)
    assert workspace.prepare(folder, old) == []
    edit(folder / NAME, solve)
    before = (folder / NAME).read_bytes()
    lose(record)
    (told,) = workspace.prepare(folder, new)
    assert "left as it is" in told and "02_wanda.fresh.ipynb" in told
    assert (folder / NAME).read_bytes() == before and "A new word." in sources(
        folder / "05_pruning/02_wanda.fresh.ipynb"
    )
    assert workspace.prepare(folder, new) == []


def test_a_lesson_that_left_the_course_is_told_once_and_kept(folder, old, tmp_path):
    other = course(tmp_path / "other", path="06_search/01_random")
    assert workspace.prepare(folder, other) == [f"{NAME}: no longer part of the course; yours is kept"]
    assert (folder / NAME).exists() and workspace.prepare(folder, other) == []


# ---------------------------------------------------------------- what is not ours to write


def unchanged(folder, target, course_now, reason):
    before = target.read_bytes()
    (told,) = workspace.prepare(folder, course_now)
    assert reason in told and told.endswith("left as it is"), told
    assert target.read_bytes() == before


def test_a_symbolic_link_is_not_written_through(folder, new, tmp_path):
    elsewhere = tmp_path / "elsewhere.ipynb"
    (folder / NAME).rename(elsewhere)
    (folder / NAME).symlink_to(elsewhere)
    unchanged(folder, elsewhere, new, "02_wanda.ipynb is a symbolic link")
    assert (folder / NAME).is_symlink()


def test_a_linked_folder_is_not_written_into(folder, new, tmp_path):
    (folder / "05_pruning").rename(tmp_path / "elsewhere")
    (folder / "05_pruning").symlink_to(tmp_path / "elsewhere")
    unchanged(folder, tmp_path / "elsewhere/02_wanda.ipynb", new, "05_pruning is a symbolic link")


def test_a_dangling_link_is_left_alone(folder, new):
    (folder / NAME).unlink()
    (folder / NAME).symlink_to(folder / "nowhere")
    (told,) = workspace.prepare(folder, new)
    assert "is a symbolic link" in told and (folder / NAME).is_symlink()


def test_a_read_only_notebook_is_left_alone_and_later_brought_up_to_date(folder, new):
    edit(folder / NAME, solve)
    (folder / NAME).chmod(0o444)
    unchanged(folder, folder / NAME, new, "read-only")
    (folder / NAME).chmod(0o644)
    workspace.prepare(folder, new)
    found = sources(folder / NAME)
    assert "A new word." in found and any("# my own try" in source for source in found)


def test_a_folder_under_the_name_is_left_alone(folder, new):
    (folder / NAME).unlink()
    (folder / NAME).mkdir()
    (told,) = workspace.prepare(folder, new)
    assert "a folder stands where" in told and (folder / NAME).is_dir()


@pytest.mark.parametrize("name", ["", ".sparselab"])
def test_a_file_where_a_folder_belongs_is_said(tmp_path, old, name):
    (tmp_path / "mine").write_text("x") if not name else (tmp_path / "mine").mkdir()
    if name:
        (tmp_path / "mine" / name).write_text("x")
    with pytest.raises(ValueError, match="is a file, a folder of that name is needed"):
        workspace.prepare(tmp_path / "mine", old)


def test_a_record_that_is_a_link_is_refused(tmp_path, folder, old):
    (folder / ".sparselab").rename(tmp_path / "elsewhere")
    (folder / ".sparselab").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="is a symbolic link"):
        workspace.prepare(folder, old)


# ---------------------------------------------------------------- accidents

FULL_DISK = """
import resource, sys
from pathlib import Path
from sparselab.course import lessons, workspace
course = lessons.load(Path(sys.argv[2]))
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    workspace.prepare(Path(sys.argv[1]), course)
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX's")
@pytest.mark.parametrize("limit", [0, 1000])
def test_a_full_disk_leaves_the_notebook_whole(folder, new, tmp_path, limit):
    edit(folder / NAME, solve)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    command = [sys.executable, "-c", FULL_DISK, str(folder), str(tmp_path / "new"), str(limit)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.stdout.startswith("OSError 27"), (ran.stdout, ran.stderr)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    workspace.prepare(folder, new)
    assert any("# my own try" in source for source in sources(folder / NAME))


@pytest.mark.parametrize("stop_at", range(5))
def test_a_run_that_dies_anywhere_is_made_good_by_the_next(folder, new, monkeypatch, stop_at):
    """The update dies at its first, second, ... write: the notebook is whole, the next run finishes it."""
    edit(folder / NAME, solve)
    edit(folder / NAME, lambda stored: stored["cells"].append(own_cell(1)))
    before, writes = (folder / NAME).read_bytes(), 0

    def dying(real):
        def write(*arguments):
            nonlocal writes
            writes += 1
            if writes > stop_at:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return write

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying(os.replace))
        patched.setattr(writing, "write_beside", dying(writing.write_beside))
        try:
            workspace.prepare(folder, new)
            assert stop_at >= 3
        except OSError:
            assert stop_at < 3
    assert (folder / NAME).read_bytes() == before or "A new word." in sources(folder / NAME)
    assert not list(folder.rglob(".0*"))
    workspace.prepare(folder, new)
    found = sources(folder / NAME)
    assert found.count("A new word.") == 1 and found.count("x = 1") == 1
    assert sum("# my own try" in source for source in found) == 1
    assert len(found) == len(notebooks.student(new[0]).cells) + 1


@pytest.mark.parametrize("content", [b"new", b""])
def test_writing_beside_never_overwrites(tmp_path, content):
    path = tmp_path / "a.ipynb"
    names = [writing.write_beside(path, "damaged", content).name for _ in range(3)]
    assert names == ["a.damaged.ipynb", "a.damaged-2.ipynb", "a.damaged-3.ipynb"]


# ---------------------------------------------------------------- any edits, any update

CELLS = st.lists(
    st.sampled_from([FIGURE, SLIDER, PROSE, "\n# %%\nx = 1\n", "\n# %% [markdown]\n# Read on.\n"]), max_size=5
)
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["edit", "add", "delete", "move", "run"]), st.integers(0, 99), st.text(max_size=9)
    )
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(first=CELLS, updates=st.lists(CELLS, min_size=1, max_size=2), changes=CHANGES)
def test_no_update_loses_a_line(tmp_path_factory, first, updates, changes):
    tmp_path, start = tmp_path_factory.mktemp("any"), LESSON[: LESSON.index(FIGURE)]
    folder = tmp_path / "mine"
    workspace.prepare(folder, course(tmp_path / "0", start + "".join(first)))
    stored, wrote = read(folder / NAME), Counter()
    for kind, place, text in changes:
        cells = stored["cells"]
        at = place % len(cells) if cells else 0
        mark = f"mine {len(wrote)} {text}"
        if kind == "add" or not cells:
            cells.insert(at, {**own_cell(len(wrote)), "source": mark})
            wrote[mark] += 1
        elif kind == "edit":
            wrote -= Counter([cells[at]["source"]])
            cells[at]["source"] += mark
            wrote[cells[at]["source"]] += 1
        elif kind == "delete":
            wrote -= Counter([cells.pop(at)["source"]])
        elif kind == "move":
            cells.append(cells.pop(at))
        else:
            cells[at].update(outputs=[], execution_count=place, metadata={**cells[at]["metadata"], "x": 1})
    (folder / NAME).write_text(json.dumps(copy.deepcopy(stored)), encoding="utf-8")
    for number, update in enumerate(updates, 1):
        workspace.prepare(folder, course(tmp_path / str(number), start + "".join(update)))
        assert not wrote - Counter(sources(folder / NAME))
