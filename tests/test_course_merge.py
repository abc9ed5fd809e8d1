"""Cells merged three ways: whatever the student wrote is in the result."""

from collections import Counter
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselab.course.merge import merge


def cell(source, kind="code", name="", **metadata):
    outputs = {"outputs": [], "execution_count": None} if kind == "code" else {}
    return {"id": name, "cell_type": kind, "source": source, "metadata": metadata, **outputs}


def delivered(*sources):
    """Cells as the generator makes them: an id from place and content, each first `def f` the exercise f."""
    cells, asked = [], set()
    for i, source in enumerate(sources):
        name = source[4:5] if source.startswith("def ") else ""
        exercise = {"sparselab": {"exercise": name}} if name and name not in asked else {}
        asked.add(name)
        cells.append(cell(source, name=f"{i:02d}-{crc32(source.encode()):x}", **exercise))
    return cells


def edited(cells, place, source):
    return [{**c, "source": source} if i == place else c for i, c in enumerate(cells)]


def sources(cells):
    return [c["source"] for c in cells]


BASE = delivered("import numpy", "def f(): pass", "grade f", "the end")


def test_without_an_update_everything_stays():
    mine = edited(BASE, 1, "def f(): return 1")[::-1] + [cell("my own")]
    assert merge(BASE, mine, delivered(*sources(BASE))) == (mine, [])


def test_unedited_cells_follow_the_update():
    new = delivered("import numpy as np", "new prose", "def f(): pass", "grade f")
    merged = merge(BASE, BASE, new)
    assert (sources(merged.cells), merged.conflicts) == (sources(new), [])
    assert [c["id"] for c in merged.cells] == [c["id"] for c in new]


def test_edited_and_added_cells_stay_where_they_are():
    mine = edited(BASE, 1, "def f(): return 1")
    mine = [*mine[:2], cell("my try", name="try"), *mine[2:]]
    new = delivered("import numpy as np", "a word first", "def f(): pass", "grade f", "the end")
    merged = merge(BASE, mine, new)
    assert sources(merged.cells) == [
        "import numpy as np", "a word first", "def f(): return 1", "my try", "grade f", "the end",
    ]  # fmt: skip
    assert merged.conflicts == []


def test_cells_that_the_update_moves_move_with_what_was_added_to_them():
    mine = [*edited(BASE, 1, "def f(): return 1"), cell("after the end", name="x")]
    new = delivered("the end", "def f(): pass", "grade f", "import numpy")
    assert sources(merge(BASE, mine, new).cells) == [
        "the end", "after the end", "def f(): return 1", "grade f", "import numpy",
    ]  # fmt: skip


def test_the_order_of_the_student_stays_where_the_update_moves_nothing():
    mine = [BASE[3], BASE[0], BASE[2], BASE[1]]
    new = delivered("import numpy", "def f(): pass", "grade f", "grade f again", "the end")
    assert sources(merge(BASE, mine, new).cells) == [
        "the end", "import numpy", "grade f", "grade f again", "def f(): pass",
    ]  # fmt: skip


def test_where_both_changed_a_cell_the_students_stays_and_it_is_said():
    merged = merge(
        BASE, edited(BASE, 1, "def f(): return 1"), delivered("import numpy", "def f(x): pass", "grade f")
    )
    assert "def f(): return 1" in sources(merged.cells) and "def f(x): pass" not in sources(merged.cells)
    (said,) = merged.conflicts
    assert "yours is kept" in said and "'def f(): return 1'" in said


def test_an_edited_cell_that_the_update_drops_is_kept_and_it_is_said():
    merged = merge(BASE, edited(BASE, 3, "my end"), delivered(*sources(BASE)[:3]))
    assert sources(merged.cells)[-1] == "my end" and "drops a cell that you edited" in merged.conflicts[0]


def test_an_unedited_cell_that_the_update_drops_goes():
    assert sources(merge(BASE, BASE, delivered(*sources(BASE)[:3])).cells) == sources(BASE)[:3]


def test_the_same_change_on_both_sides_is_no_conflict():
    new = delivered("import numpy as np", *sources(BASE)[1:])
    merged = merge(BASE, edited(BASE, 0, "import numpy as np"), new)
    assert (sources(merged.cells), merged.conflicts) == (sources(new), [])


def test_a_deleted_cell_stays_deleted():
    mine = BASE[:2] + BASE[3:]
    new = delivered("import numpy as np", *sources(BASE)[1:])
    assert sources(merge(BASE, mine, new).cells) == ["import numpy as np", "def f(): pass", "the end"]


def test_outputs_and_metadata_of_the_notebook_are_no_edit():
    mine = [
        {**c, "metadata": {**c["metadata"], "collapsed": True}, "outputs": ["ran"], "execution_count": 3}
        for c in BASE
    ]
    new = delivered("import numpy as np", *sources(BASE)[1:])
    first, second, *_ = merge(BASE, mine, new).cells
    assert (first["source"], first["outputs"], first["execution_count"]) == ("import numpy as np", [], None)
    assert (second["outputs"], second["execution_count"]) == (["ran"], 3)
    assert second["metadata"] == {"collapsed": True, "sparselab": {"exercise": "f"}}


def test_a_change_of_kind_is_an_edit():
    mine = edited(BASE, 3, "the end")
    mine[3]["cell_type"] = "markdown"
    merged = merge(BASE, mine, delivered(*sources(BASE)[:3], "the very end"))
    assert merged.cells[3]["cell_type"] == "markdown" and merged.conflicts


def test_lost_ids_cost_nothing():
    mine = [{k: v for k, v in c.items() if k != "id"} for c in edited(BASE, 1, "def f(): return 1")]
    new = delivered("import numpy as np", *sources(BASE)[1:])
    merged = merge(BASE, mine, new)
    assert sources(merged.cells) == ["import numpy as np", "def f(): return 1", "grade f", "the end"]
    assert [c["id"] for c in merged.cells] == [c["id"] for c in new]


def test_no_two_cells_share_an_id():
    new = delivered("import numpy as np", *sources(BASE)[1:])
    mine = [
        cell("a", name=BASE[2]["id"]),
        *BASE,
        cell("b", name=BASE[1]["id"]),
        cell("c", name=""),
        cell("d", name=""),
    ]
    merged = merge(BASE, mine, new)
    ids = [c["id"] for c in merged.cells]
    assert len(set(ids)) == len(ids) == 8 and all(ids)
    assert {c["source"]: c["id"] for c in merged.cells}["import numpy as np"] == new[0]["id"]


def test_an_update_that_is_merged_twice_is_merged_once():
    mine = edited(BASE, 1, "def f(): return 1")
    new = delivered("first", *sources(BASE), "last")
    once = merge(BASE, mine, new).cells
    assert merge(BASE, once, new).cells == once


def test_the_next_update_knows_the_cells_again():
    mine = edited(BASE, 1, "def f(): return 1")
    second = delivered("first", *sources(BASE))
    third = delivered("first", "second", "import numpy", "def f(): pass", "grade f", "the real end")
    twice = merge(second, merge(BASE, mine, second).cells, third)
    assert sources(twice.cells) == [
        "first",
        "second",
        "import numpy",
        "def f(): return 1",
        "grade f",
        "the real end",
    ]
    assert twice.conflicts == []


# ---------------------------------------------------------------- any edits, any update

WORDS = [
    "import a",
    "def f(): pass",
    "def g(): pass",
    "grade f",
    "plot",
    "plot",
    "the text of a long cell",
    "",
]
LESSONS = st.lists(
    st.sampled_from([*WORDS, *(f"{word} {n}" for word in WORDS for n in range(4))]), max_size=8
)
DISTINCT = st.lists(
    st.sampled_from([f"{word} {n}" for word in WORDS for n in range(4)]), max_size=8, unique=True
)
TEXTS = st.text(max_size=12) | st.sampled_from(WORDS)


@st.composite
def students_version(draw, base):
    """What a student made of `base`, and the sources of the cells that the student wrote or changed."""
    mine, wrote = [], []
    for original in base:
        what = draw(st.sampled_from(["keep", "keep", "edit", "delete", "add", "forget id"]))
        kept = dict(original, outputs=["ran"])
        if what == "edit":
            kept["source"] = draw(TEXTS)
            kept["source"] == original["source"] or wrote.append(kept["source"])
        if what == "forget id":
            del kept["id"]
        if what != "delete":
            mine.append(kept)
        if what == "add":
            own = cell(draw(TEXTS), name=draw(st.sampled_from(["", "x", original["id"]])))
            mine.append(own)
            wrote.append(own["source"])
    if draw(st.booleans()):
        mine = draw(st.permutations(mine))
    return mine, wrote


@settings(max_examples=200, deadline=None)
@given(data=st.data(), first=LESSONS, updates=st.lists(LESSONS, min_size=1, max_size=3))
def test_no_line_of_the_student_is_ever_lost(data, first, updates):
    base = delivered(*first)
    mine, wrote = data.draw(students_version(base))
    for update in updates:
        new = delivered(*update)
        mine = merge(base, mine, new).cells
        wrote = [source for source in wrote if source not in sources(base)]  # a delivered cell, word by word
        missing = Counter(wrote) - Counter(sources(mine))
        assert not missing, missing
        ids = [c.get("id") for c in mine]
        assert sources(new) == sources(base) or len(set(ids)) == len(ids)
        base = new


@settings(max_examples=200, deadline=None)
@given(first=LESSONS, second=LESSONS)
def test_without_edits_the_result_is_the_update(first, second):
    new = delivered(*second)
    merged = merge(delivered(*first), delivered(*first), new)
    assert sources(merged.cells) == second and merged.conflicts == []


@settings(max_examples=200, deadline=None)
@given(data=st.data(), first=DISTINCT, second=DISTINCT)
def test_merging_again_changes_nothing(data, first, second):
    """Also where the notebook was written and the machine died before `new` was on record as the base."""
    base, new = delivered(*first), delivered(*second)
    mine, _ = data.draw(students_version(base))
    once = merge(base, mine, new).cells
    assert merge(new, once, new).cells == once
    assert Counter(sources(merge(base, once, new).cells)) == Counter(sources(once))


def test_the_search_for_lost_lines_can_fail():
    lossy = merge(BASE, BASE, delivered("only this"))
    with pytest.raises(AssertionError):
        assert not Counter(["import numpy"]) - Counter(sources(lossy.cells))
