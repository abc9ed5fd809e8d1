"""What a lesson's notebook imports: `from sparselab.course import case, grade, hint`."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

GRADED = "sparselab_grade"  # key of an output's metadata: what the judge decided, for the builder

_attempts: Counter[str] = Counter()  # of this kernel: each failed attempt climbs the ladder of hints by one
_asked: Counter[str] = Counter()


class ExerciseError(ValueError):
    """A name that no exercise has: one line in a notebook, an exception everywhere else."""

    def _render_traceback_(self) -> list[str]:  # IPython shows this in place of a traceback
        return [str(self)]


def grade(exercise: str, answer: Callable, *, seed: int = 0) -> None:
    """Print what the judge says about an answer; ExerciseError names the nearest name for an unknown one."""
    from sparselab import judge

    method, op = _find(exercise)
    if not callable(answer):
        raise ExerciseError(
            f'grade("{exercise}", {op}): give the function itself, not {type(answer).__name__}'
        )
    verdict = judge.grade(method, op, answer, seed=seed, attempt=_attempts[exercise])
    _attempts[exercise] += not verdict.ok
    _say(str(verdict), exercise=exercise, ok=verdict.ok)
    _record(exercise, None if verdict.unwritten else verdict.ok)


def hint(exercise: str) -> None:
    """Print the next hint of the ladder, from a nudge to nearly the line; after the last, the first again."""
    from sparselab import judge

    ladder = judge.hints(*_find(exercise))
    if not ladder:
        raise ExerciseError(f"{exercise} has no hints")
    step = _hints_asked_before(exercise) % len(ladder)
    print(f"Hint {step + 1} of {len(ladder)}: {ladder[step]}")  # noqa: T201


def case(exercise: str, label: str, *, seed: int = 0) -> dict[str, Any]:
    """The inputs of one of the judge's cases, by the label that its message names."""
    from sparselab import judge

    _find(exercise)
    try:
        return judge.case(exercise, label, seed=seed)
    except ValueError as error:
        raise ExerciseError(str(error)) from None


def _find(exercise: str):
    from sparselab import judge

    if not isinstance(exercise, str):
        raise ExerciseError(
            f"an exercise is named by a string such as 'lazy_neuron.topk_ffn', not {exercise!r}"
        )
    try:
        return judge.exercise(exercise)
    except ValueError as error:
        raise ExerciseError(str(error)) from None


def _record(exercise: str, outcome: bool | None) -> None:
    """Keep it in the student's folder, if we are in one; a notebook never fails for the record's sake."""
    from sparselab.course import progress

    with suppress(OSError):
        if folder := progress.folder_around(Path.cwd()):
            progress.record(folder, {exercise: outcome}, tell=print)


def _hints_asked_before(exercise: str) -> int:
    """Counted in the student's folder, where the command line goes on; elsewhere in this kernel."""
    from sparselab.course import progress

    with suppress(OSError):
        if folder := progress.folder_around(Path.cwd()):
            return progress.next_hint(folder, exercise, tell=print)
    _asked[exercise] += 1
    return _asked[exercise] - 1


def _say(message: str, *, exercise: str, ok: bool) -> None:
    """Print; in a notebook the verdict is stored beside the text, where the builder reads it."""
    try:
        shell = get_ipython()  # a builtin of notebooks only
    except NameError:
        print(message)  # noqa: T201
        return
    data, metadata = {"text/plain": message}, {GRADED: {"exercise": exercise, "ok": ok}}
    shell.display_pub.publish(data=data, metadata=metadata)
