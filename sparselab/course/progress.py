"""How far a student is, kept in DIR/.sparselab/progress.json: what passes, what was tried, hints asked for.

Notebooks and commands write to the same record, one after the other, each time in one step.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from sparselab.course import writing
from sparselab.course.lessons import Lesson
from sparselab.course.writing import OWN
from sparselab.files import write_atomically

FILE = f"{OWN}/progress.json"


@dataclass(frozen=True)
class Record:
    """What is known of one exercise; without a record it has not been touched."""

    passes: bool = False  # when it was checked last
    has_passed: bool = False  # in some check
    hints: int = 0  # how often the next hint was asked for
    gave_up: bool = False  # the solution was shown before a pass


@dataclass(frozen=True)
class Standing:
    """One line of the table: the exercises of a lesson, and the minutes that it still takes."""

    done: int
    tried: int
    open: int
    minutes: int


def folder_around(place: Path) -> Path | None:
    """The student's folder that `place` lies in, which `sparselab start` has made."""
    place = place.resolve()
    return next((folder for folder in (place, *place.parents) if (folder / OWN / "base").is_dir()), None)


def folder_at(place: Path) -> Path:
    """The student's folder around `place`; ValueError where there is none."""
    if folder := folder_around(place):
        return folder
    raise ValueError(
        "this is no folder of lessons; go into the one that `sparselab start` has made (a file can be "
        "checked anywhere: name it)"
    )


def read(folder: Path, *, tell: Callable[[str], None]) -> dict[str, Record]:
    """The record of each exercise. What is no record is moved aside, and `tell` is given its new name."""
    return _records(_stored(folder, tell))


def record(
    folder: Path, outcomes: Mapping[str, bool | None], *, tell: Callable[[str], None]
) -> dict[str, Record]:
    """Keep whether each exercise passes, None where it is not written; all records after it."""

    def outcome_of(known: dict[str, Record]) -> dict[str, Record]:
        found = {}
        for exercise, passes in outcomes.items():
            if passes is not None or exercise in known:
                before = known.get(exercise, Record())
                found[exercise] = replace(
                    before, passes=bool(passes), has_passed=before.has_passed or bool(passes)
                )
        return found

    return _change(folder, outcome_of, tell)


def next_hint(folder: Path, exercise: str, *, tell: Callable[[str], None]) -> int:
    """How often a hint of this exercise was asked for before; this time is counted."""

    def one_more(known: dict[str, Record]) -> dict[str, Record]:
        before = known.get(exercise, Record())
        return {exercise: replace(before, hints=before.hints + 1)}

    return _change(folder, one_more, tell)[exercise].hints - 1


def give_up(folder: Path, exercise: str, *, tell: Callable[[str], None]) -> None:
    """Keep that the solution was shown before a pass."""
    _change(folder, lambda known: {exercise: replace(known.get(exercise, Record()), gave_up=True)}, tell)


def standing(lesson: Lesson, records: Mapping[str, Record]) -> Standing:
    """Where a student stands in one lesson.

    A lesson's minutes, reading included, are left in proportion to the exercises' minutes that are not done.
    """
    known = {exercise.name: records.get(exercise.name) for exercise in lesson.exercises}
    done = {name for name, record in known.items() if record and record.passes}
    asked = sum(exercise.minutes for exercise in lesson.exercises)
    left = sum(exercise.minutes for exercise in lesson.exercises if exercise.name not in done)
    return Standing(
        done=len(done),
        tried=sum(record is not None for record in known.values()) - len(done),
        open=sum(record is None for record in known.values()),
        minutes=math.ceil(lesson.minutes * left / asked) if asked else lesson.minutes,
    )


def total(standings: Iterable[Standing]) -> Standing:
    """The sum of all lines."""
    standings = list(standings)
    return Standing(*(sum(getattr(line, field.name) for line in standings) for field in fields(Standing)))


# ---------------------------------------------------------------- the file


def _change(
    folder: Path, new: Callable[[dict[str, Record]], dict[str, Record]], tell: Callable[[str], None]
) -> dict[str, Record]:
    """Write the records that `new` makes of the known ones; what the file holds besides is kept.

    OSError where it cannot be written; then the file is as it was.
    """
    with _alone(folder):
        stored = _stored(folder, tell)
        before, known = json.dumps(stored), _records(stored)
        for exercise, found in new(known).items():
            known[exercise] = found
            stored["exercises"].setdefault(exercise, {}).update(asdict(found))
        if json.dumps(stored) != before:
            write_atomically(folder / FILE, json.dumps(stored, indent=1) + "\n")
    return known


def _stored(folder: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    path = folder / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {"exercises": {}}
    with suppress(ValueError, RecursionError):
        stored = json.loads(content)
        if _is_record(stored):
            return stored
    aside = writing.write_beside(path, "damaged", content)
    path.unlink()
    tell(f"the record of your progress was damaged; it is now {OWN}/{aside.name}, and a new one is begun")
    return {"exercises": {}}


def _is_record(stored: Any) -> bool:
    exercises = stored.get("exercises") if isinstance(stored, dict) else None
    return isinstance(exercises, dict) and all(
        isinstance(known, dict)
        and all(type(known.get(field.name, field.default)) is field.type for field in fields(Record))
        for known in exercises.values()
    )


def _records(stored: dict[str, Any]) -> dict[str, Record]:
    names = [field.name for field in fields(Record)]
    return {
        exercise: Record(**{name: known[name] for name in names if name in known})
        for exercise, known in stored["exercises"].items()
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Of several writers, one after the other; where the file system has no locks, as they come."""
    with open(folder / OWN / "progress.lock", "a", encoding="utf-8") as lock:
        with suppress(OSError):
            if os.name == "posix":
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX)
            else:
                import msvcrt

                msvcrt.locking(lock.fileno(), msvcrt.LK_LOCK, 1)
        yield
