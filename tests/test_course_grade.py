"""What a notebook's check cells do: print the judge's words, climb the ladder, and fail in one line."""

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell

from sparselab import course, judge
from sparselab.pruning.wanda import reference


@pytest.fixture(autouse=True)
def fresh_counts(monkeypatch):
    for name in ("_attempts", "_asked"):
        monkeypatch.setattr(course, name, type(getattr(course, name))())


def wrong(w, x):
    return np.abs(w) * (x**2).sum(axis=0)


def unwritten(w, x):
    raise NotImplementedError


def test_grade_prints_what_the_judge_says_and_returns_nothing(capsys):
    assert course.grade("wanda.score", reference.score) is None
    method, op = judge.exercise("wanda.score")
    assert capsys.readouterr().out == f"{judge.grade(method, op, reference.score)}\n"


@pytest.mark.parametrize("answer", [wrong, unwritten, lambda: None, lambda w, x: 1 / 0])
def test_a_failing_grade_is_told_and_does_not_raise(capsys, answer):
    assert course.grade("wanda.score", answer) is None
    assert capsys.readouterr().out.startswith("wanda.score")


def test_each_failed_attempt_climbs_the_ladder(capsys):
    ladder = judge.hints(*judge.exercise("wanda.score"))
    for hint in [*ladder, ladder[-1]]:
        course.grade("wanda.score", wrong)
        assert hint in capsys.readouterr().out
    course.grade("wanda.score", reference.score)


def test_the_seed_reaches_the_judge(capsys):
    course.grade("wanda.score", wrong, seed=7)
    assert "seed=7" in capsys.readouterr().out


def test_hints_come_one_at_a_time_and_begin_again(capsys):
    ladder = judge.hints(*judge.exercise("wanda.score"))
    for step in [*range(len(ladder)), 0]:
        assert course.hint("wanda.score") is None
        assert capsys.readouterr().out == f"Hint {step + 1} of {len(ladder)}: {ladder[step]}\n"


def test_case_gives_the_inputs_that_a_message_names():
    method, op = judge.exercise("wanda.score")
    label, inputs = judge.cases(method, op)[1]
    assert judge.same(course.case("wanda.score", label), inputs)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: course.grade("wanda.skore", wrong), "did you mean 'wanda.score'"),
        (lambda: course.grade("skore", wrong), "no exercise is called 'skore'"),
        (lambda: course.grade(wrong, "wanda.score"), "named by a string"),
        (lambda: course.grade("wanda.score", 3), "give the function itself, not int"),
        (lambda: course.hint("wanda.skore"), "did you mean 'wanda.score'"),
        (lambda: course.case("wanda.score", "uneven input"), "did you mean 'uneven inputs'"),
        (lambda: course.case("wanda.skore", "x"), "did you mean 'wanda.score'"),
    ],
)
def test_an_unknown_name_is_one_line_with_the_nearest(call, says):
    with pytest.raises(course.ExerciseError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [str(caught.value)]


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_in_a_notebook_an_unknown_name_is_an_error_without_a_traceback(shell, capsys):
    ran = shell.run_cell("from sparselab.course import grade\ngrade('wanda.skore', print)")
    assert isinstance(ran.error_in_exec, course.ExerciseError)
    said = capsys.readouterr()
    assert said.out.strip() == str(ran.error_in_exec) and said.err == ""


def test_in_a_notebook_the_verdict_is_stored_beside_the_words(shell, monkeypatch):
    published = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda **what: published.append(what))
    shell.user_ns.update(right=reference.score, wrong=wrong, grade=course.grade)
    assert shell.run_cell("grade('wanda.score', right)").result is None
    shell.run_cell("grade('wanda.score', wrong)")
    assert [what["metadata"][course.GRADED]["ok"] for what in published] == [True, False]
    assert "passed" in published[0]["data"]["text/plain"]
