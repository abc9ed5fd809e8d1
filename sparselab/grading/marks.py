"""The one result model: what a submission earned, check by check, and under which conditions.

`Marks.earned()` is what must be the same on every machine; conditions (isolation, versions) stand beside it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

SCHEMA = "sparselab-marks/1"
SCHEMA_FILE = Path(__file__).with_name("marks.schema.json")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One case of the judge. A hidden one shows neither its name nor its values."""

    name: str
    passed: bool
    hidden: bool = False
    weight: int = 1
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """The checks of one exercise, together worth `weight` points; a teacher decides on `notes`."""

    name: str
    number: str
    weight: int
    checks: tuple[Check, ...]
    message: str = ""  # what the student reads
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def points(self) -> float:
        """The share of the checks' weight that passed, of the exercise's weight; two decimals."""
        total = sum(check.weight for check in self.checks)
        earned = sum(check.weight for check in self.checks if check.passed)
        return float(round(self.weight * Fraction(earned, total), 2)) if total else 0.0

    def count(self, *, hidden: bool) -> tuple[int, int]:
        """(passed, all) of the public or of the hidden checks."""
        checks = [check for check in self.checks if check.hidden == hidden]
        return sum(check.passed for check in checks), len(checks)


@dataclass(frozen=True, kw_only=True)
class Marks:
    """One submission. `problem` says why it could not be run at all; then nothing has passed."""

    submission: str
    student: str
    exercises: tuple[Exercise, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()
    isolation: tuple[str, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def points(self) -> float:
        return round(sum(exercise.points for exercise in self.exercises), 2)

    @property
    def out_of(self) -> int:
        return sum(exercise.weight for exercise in self.exercises)

    @property
    def passed(self) -> bool:
        """True where it ran, something was asked, and every check of it passed."""
        return not self.problem and bool(self.exercises) and all(e.passed for e in self.exercises)

    def earned(self) -> dict[str, Any]:
        """What does not depend on the machine."""
        return {k: v for k, v in self.to_dict().items() if k not in ("isolation", "versions", "submission")}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with the totals that a reader wants."""
        told = asdict(self) | {"versions": dict(self.versions)}
        for exercise, data in zip(self.exercises, told["exercises"], strict=True):
            data |= {"points": exercise.points, "passed": exercise.passed}
        return told | {"points": self.points, "out_of": self.out_of, "passed": self.passed}

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> "Marks":
        """The inverse of `to_dict`; totals are computed again, not believed."""
        exercises = tuple(
            Exercise(
                **{key: exercise[key] for key in ("name", "number", "weight", "message")},
                notes=tuple(exercise["notes"]),
                checks=tuple(Check(**check) for check in exercise["checks"]),
            )
            for exercise in told["exercises"]
        )
        return cls(
            **{key: told[key] for key in ("submission", "student", "problem")},
            exercises=exercises,
            notes=tuple(told["notes"]),
            isolation=tuple(told["isolation"]),
            versions=tuple(told["versions"].items()),
        )


def to_json(marks: Sequence[Marks]) -> str:
    """The published form, described by marks.schema.json."""
    told = {"schema": SCHEMA, "submissions": [one.to_dict() for one in marks]}
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> list[Marks]:
    """The marks of `to_json`; ValueError for another form."""
    told = json.loads(text)
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        raise ValueError(f"this is not {SCHEMA}")
    return [Marks.from_dict(one) for one in told["submissions"]]


def exit_code(marks: Sequence[Marks]) -> int:
    """0 every check of every submission passed, 1 not all, 3 one could not be run."""
    if any(one.problem for one in marks):
        return 3
    return 0 if marks and all(one.passed for one in marks) else 1
