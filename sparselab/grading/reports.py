"""The marks in the forms that people and platforms read. Each function takes the marks of a class, in order.

No form names a hidden check or shows a value of one; what a student may see is the number that passed.
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from sparselab.files import write_atomically
from sparselab.grading.marks import Exercise, Marks, to_json

NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text(marks: Sequence[Marks]) -> str:
    """For a terminal: one submission in detail, a class as a table below the problems."""
    lines = []
    for one in marks:
        lines.append(f"{one.student}: {_points(one.points)} of {one.out_of} points")
        lines += [f"  not run: {one.problem}"] if one.problem else []
        lines += [f"  note: {note}" for note in one.notes if note != one.problem]
        for exercise in one.exercises:
            lines.append(f"  {'ok  ' if exercise.passed else 'FAIL'} {_line(exercise)}")
            if not exercise.passed and not one.problem:
                lines += [f"       {line}" for line in exercise.message.split("\n")]
            lines += [f"       note: {note}" for note in exercise.notes]
    missing = sorted({line for one in marks for line in one.isolation})
    lines += [f"Not isolated here. {line}" for line in missing]
    return "\n".join(lines) + "\n"


def junit(marks: Sequence[Marks]) -> str:
    """JUnit XML: a suite for each submission, a case for each public check and one for all hidden ones."""
    root = ElementTree.Element("testsuites", name="sparselab")
    for one in marks:
        suite = ElementTree.SubElement(root, "testsuite", name=_xml(one.student))
        cases = [
            (exercise, name, ok, message)
            for exercise in one.exercises
            for name, ok, message in _shown(exercise)
        ]
        for exercise, name, ok, message in cases:
            case = ElementTree.SubElement(suite, "testcase", classname=exercise.name, name=_xml(name))
            if not ok:
                ElementTree.SubElement(case, "failure", message=_xml(message)).text = _xml(exercise.message)
        if one.problem:
            case = ElementTree.SubElement(suite, "testcase", classname="submission", name="can be run")
            ElementTree.SubElement(case, "error", message=_xml(one.problem))
        suite.set("tests", str(len(cases) + bool(one.problem)))
        suite.set("failures", str(sum(not ok for _, _, ok, _ in cases)))
        suite.set("errors", str(int(bool(one.problem))))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def github(marks: Sequence[Marks]) -> str:
    """Workflow commands: an error for each exercise that did not pass, a notice with the total."""
    lines = []
    for one in marks:
        for title, message in _failures(one):
            lines.append(f"::error title={_property(title)}::{_data(message)}")
        for exercise in one.exercises:
            for note in exercise.notes:
                lines.append(f"::warning title={_property(exercise.name)}::{_data(note)}")
        lines.append(f"::notice title=Points::{_data(f'{one.student}: {_points(one.points)}/{one.out_of}')}")
    return "\n".join(lines) + "\n"


def summary(marks: Sequence[Marks]) -> str:
    """Markdown for a job's summary page."""
    lines = []
    for one in marks:
        lines += [f"## {_cell(one.student)}: {_points(one.points)} of {one.out_of} points", ""]
        lines += [_cell(one.problem), ""] if one.problem else []
        lines += ["| exercise | points | public checks | hidden checks |", "|---|---|---|---|"]
        for exercise in one.exercises:
            public, hidden = (exercise.count(hidden=kind) for kind in (False, True))
            shown = "{} of {}".format(*hidden) if hidden[1] else "none"
            points = f"{_points(exercise.points)} of {exercise.weight}"
            lines.append(
                f"| {exercise.number} {exercise.name} | {points} | {public[0]} of {public[1]} | {shown} |"
            )
        lines.append("")
        lines += [
            f"- {exercise.name}: {_cell(note)}" for exercise in one.exercises for note in exercise.notes
        ]
    return "\n".join(lines) + "\n"


def gitlab(marks: Sequence[Marks]) -> str:
    """GitLab's code quality report: an issue for each exercise that did not pass."""
    issues = [
        {
            "description": f"{title}: {message}",
            "check_name": title,
            "fingerprint": hashlib.sha256(f"{one.submission}\n{title}".encode()).hexdigest(),
            "severity": "major",
            "location": {"path": one.submission, "lines": {"begin": 1}},
        }
        for one in marks
        for title, message in _failures(one)
    ]
    return json.dumps(issues, indent=1) + "\n"


def gradescope(marks: Sequence[Marks]) -> str:
    """Gradescope's results.json, of one submission; ValueError for a class."""
    if len(marks) != 1:
        raise ValueError(f"a results.json of Gradescope holds one submission, not {len(marks)}")
    [one] = marks
    tests = []
    for exercise in one.exercises:
        tests.append(
            {
                "name": f"{exercise.number} {exercise.name}",
                "score": exercise.points,
                "max_score": exercise.weight,
                "status": "passed" if exercise.passed else "failed",
                "output": exercise.message,
                "visibility": "visible",
            }
        )
        if exercise.notes:
            notes = "\n".join(exercise.notes)
            tests.append({"name": f"{exercise.name}: notes", "output": notes, "visibility": "hidden"})
    output = one.problem or f"{_points(one.points)} of {one.out_of} points"
    return json.dumps({"score": one.points, "output": output, "tests": tests}, indent=1) + "\n"


def gradebook(marks: Sequence[Marks]) -> str:
    """CSV: a row for each student, a column for each exercise, with the points."""
    names = list(dict.fromkeys(exercise.name for one in marks for exercise in one.exercises))
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["student", "submission", "points", "out_of", "problem", "notes", *names])
    for one in marks:
        points = {exercise.name: _points(exercise.points) for exercise in one.exercises}
        notes = "; ".join(f"{e.name} {note}" for e in one.exercises for note in e.notes)
        fixed = [one.student, one.submission, _points(one.points), one.out_of, one.problem, notes]
        table.writerow([_inert(cell) for cell in [*fixed, *(points.get(name, "") for name in names)]])
    return out.getvalue()


FORMS: dict[str, Callable[[Sequence[Marks]], str]] = {
    "text": text,
    "json": to_json,
    "junit": junit,
    "github": github,
    "summary": summary,
    "gitlab": gitlab,
    "gradescope": gradescope,
    "csv": gradebook,
}


def destinations(wanted: Sequence[str]) -> list[tuple[str, Path]]:
    """(form, file) of each `form=file`; ValueError for what is none."""
    found = []
    for one in wanted:
        form, _, file = one.partition("=")
        if form not in FORMS or not file:
            raise ValueError(f"{one!r} is no report; write FORM=FILE with one of {', '.join(FORMS)}")
        found.append((form, Path(file)))
    return found


def write(marks: Sequence[Marks], places: Sequence[tuple[str, Path]]) -> None:
    """Write each report in one step."""
    for form, file in places:
        write_atomically(file, FORMS[form](marks))


# ------------------------------------------------


def _line(exercise: Exercise) -> str:
    public, hidden = (exercise.count(hidden=kind) for kind in (False, True))
    told = f"{exercise.number} {exercise.name}: {_points(exercise.points)} of {exercise.weight} points, "
    told += f"{public[0]} of {public[1]} public checks passed"
    return told + (f", {hidden[0]} of {hidden[1]} hidden" if hidden[1] else "")


def _shown(exercise: Exercise) -> list[tuple[str, bool, str]]:
    """(name, passed, message) of each public check, and of all hidden ones together."""
    shown = [(check.name, check.passed, check.message) for check in exercise.checks if not check.hidden]
    ok, count = exercise.count(hidden=True)
    return shown + ([("hidden checks", ok == count, f"{ok} of {count} passed")] if count else [])


def _failures(one: Marks) -> list[tuple[str, str]]:
    found = [("submission", one.problem)] if one.problem else []
    return found + [(e.name, e.message) for e in one.exercises if not e.passed and not one.problem]


def _points(points: float) -> str:
    return f"{points:g}"


def _xml(told: str) -> str:
    return NOT_XML.sub("\ufffd", told)


def _data(told: str) -> str:
    return told.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(told: str) -> str:
    return _data(told).replace(":", "%3A").replace(",", "%2C")


def _cell(told: str) -> str:
    """Text of a student's in Markdown: in one line, and as text only."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", " ".join(told.split()))


def _inert(cell: object) -> object:
    """A spreadsheet runs what starts like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell else cell
