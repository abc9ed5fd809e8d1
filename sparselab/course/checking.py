"""The public checks on what a student wrote: from the command line, once or at every save.

A notebook is checked as a class is graded: its exercises run in a child process under limits, see
`sparselab.grading`. What passes is kept in the student's folder.
"""

import ast
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sparselab.course import lessons, progress, workspace
from sparselab.course.lessons import Exercise, Lesson
from sparselab.course.progress import Record
from sparselab.course.writing import OWN
from sparselab.grading import grader, marks, submission
from sparselab.grading.child import NotStarted
from sparselab.grading.marks import Marks
from sparselab.method import unknown

Tell = Callable[[str], None]
Stamp = tuple[int, int] | None  # of a file, to see that it was saved
ALL_PASSED = "all public checks passed"
NOT_WRITTEN = "not written yet"


@dataclass(frozen=True)
class Part:
    """What is to be checked in one file: exercises of a lesson or, without a lesson, all that it holds."""

    file: Path
    lesson: Lesson | None = None
    exercises: tuple[Exercise, ...] = ()


def find_exercise(name: str, course: Iterable[Lesson]) -> tuple[Lesson, Exercise]:
    """The exercise called `lazy_neuron.topk_ffn` or `1.1.4`; ValueError names the nearest."""
    known = _exercises(course)
    if name not in known:
        raise ValueError(unknown("exercise", name, list(known)))
    return known[name]


def parts(name: str, course: Sequence[Lesson], place: Path) -> list[Part]:
    """What `check NAME` means at `place`: a file, an exercise, a lesson, or a student's whole folder.

    ValueError where nothing is called that, or where no student's folder is around.
    """
    path = place / name
    if path.is_file():
        return [_part_of(path, course)]
    folder = progress.folder_at(path if path.is_dir() else place)
    if path.is_dir():
        return _all(folder, path.resolve() if name else folder, course)
    if name in (exercises := _exercises(course)):
        lesson, exercise = exercises[name]
        return [replace(_part(folder, lesson), exercises=(exercise,))]
    try:
        return [_part(folder, lessons.find(name, list(course)))]
    except ValueError:
        named = [key for lesson in course for key in (lesson.number, lesson.name, lesson.path)]
        raise ValueError(unknown("file, lesson or exercise", name, [*named, *exercises])) from None


def check(part: Part, asked: Sequence[grader.Asked]) -> Marks:
    """The marks of the public checks; an exercise whose stub stands as it was delivered is not run.

    Raises ValueError where this system can start no process for them.
    """
    told = {"submission": str(part.file), "student": ""}
    try:
        contents, _ = submission.files(part.file)
    except (ValueError, OSError) as error:
        return Marks(**told, problem=getattr(error, "strerror", None) or str(error))
    document = submission.read(part.file.name, next(iter(contents.values())))
    if document.problem:
        return Marks(**told, problem=document.problem)
    if part.lesson is None:
        wanted, untouched, expected = tuple(asked), set(), ()
    else:
        names = {exercise.name for exercise in part.exercises}
        wanted = tuple(one for one in asked if one.lesson == part.lesson.path and one.name in names)
        untouched, expected = _untouched(document, part.lesson), (part.lesson.path,)
    graded = Marks(**told)
    if written := tuple(one for one in wanted if one.name not in untouched):
        try:
            graded = grader.grade(part.file, grader.Settings(asked=written, lessons=expected))
        except NotStarted as error:
            raise ValueError(str(error)) from None
    exercises = {exercise.name: exercise for exercise in graded.exercises}
    for one in written:
        if one.name in exercises and (note := _defined_elsewhere(document, one)):
            exercises[one.name] = replace(exercises[one.name], notes=(*exercises[one.name].notes, note))
    exercises |= {one.name: _not_written(one) for one in wanted if one.name in untouched}
    in_order = tuple(exercises[one.name] for one in wanted if one.name in exercises)
    return replace(graded, exercises=in_order)


def run(name: str, course: Sequence[Lesson], place: Path, *, tell: Tell) -> bool:
    """Check what `name` means, tell and record the outcome; True where every public check passed."""
    chosen = parts(name, course, place)
    checked = _check_and_tell(chosen, grader.asked(), tell, brief=len(chosen) > 1)
    tell(summary(checked))
    return summary(checked) == ALL_PASSED


def watch(
    name: str,
    course: Sequence[Lesson],
    place: Path,
    *,
    tell: Tell,
    wait: Callable[[], None] = lambda: time.sleep(1),
) -> None:
    """Check again at every save, and after it what passed before, until `wait` raises (Ctrl-C).

    A save is found by looking at the files, which works on every file system.
    """
    asked = grader.asked()
    verified: dict[Path, Stamp] = {}
    chosen = parts(name, course, place)
    tell(f"looking at {_files(len(chosen))} once a second (on every file system); Ctrl-C ends")
    for saved in _saved(lambda: parts(name, course, place), wait):
        whole = _stamps(part for part in saved if not part.lesson or part.exercises == part.lesson.exercises)
        checked = _check_and_tell(saved, asked, tell, brief=len(saved) > 1)
        tell(summary(checked))
        verified |= whole
        ran = {exercise.name for graded in checked for exercise in graded.exercises}
        for part in _passed_before(course, saved[0].file.parent, ran, tell):
            if verified.get(part.file) != (stamp := _stamp(part.file)):
                _check_again(part, asked, tell)
                verified[part.file] = stamp
        tell("")


def summary(checked: Sequence[Marks]) -> str:
    """The last line of a check."""
    exercises = [exercise for graded in checked for exercise in graded.exercises]
    problems = sum(bool(graded.problem) for graded in checked)
    passed, unwritten = sum(e.passed for e in exercises), sum(map(_is_unwritten, exercises))
    if exercises and passed == len(exercises) and not problems:
        return ALL_PASSED
    counts = [f"{passed} of {len(exercises)} exercises pass"] if exercises else []
    if failed := len(exercises) - passed - unwritten:
        counts.append(f"{failed} not yet")
    if unwritten:
        counts.append(f"{unwritten} not written")
    if problems:
        counts.append(f"{_files(problems)} could not be checked")
    return ", ".join(counts) + ("; sparselab hint NAME helps" if failed or unwritten else "")


# ---------------------------------------------------------------- which file


def _exercises(course: Iterable[Lesson]) -> dict[str, tuple[Lesson, Exercise]]:
    """By name and by number."""
    found = {}
    for lesson in course:
        for exercise in lesson.exercises:
            found.setdefault(exercise.name, (lesson, exercise))
            found[exercise.number] = (lesson, exercise)
    return found


def _all(folder: Path, below: Path, course: Iterable[Lesson]) -> list[Part]:
    """Every lesson with exercises that was delivered to a place below."""
    base = folder / OWN / "base"
    found = [
        _part(folder, lesson)
        for lesson in course
        if lesson.exercises
        and workspace.path_of(base, lesson).is_file()
        and workspace.path_of(folder, lesson).is_relative_to(below)
    ]
    if not found:
        raise ValueError(f"there is no lesson with exercises in {below}")
    return found


def _part(folder: Path, lesson: Lesson) -> Part:
    if not lesson.exercises:
        raise ValueError(f"lesson {lesson.number} has no exercises")
    return Part(_worked_in(folder, lesson), lesson, lesson.exercises)


def _part_of(file: Path, course: Iterable[Lesson]) -> Part:
    """A file that says which lesson it is, or is named as one; else whatever exercises it mentions."""
    document = _document(file)
    says = document.lesson if document else ""
    for lesson in course:
        if lesson.exercises and (lesson.path == says or not says and file.stem == Path(lesson.path).name):
            return Part(file, lesson, lesson.exercises)
    return Part(file)


def _document(file: Path) -> submission.Document | None:
    try:
        contents, _ = submission.files(file)
    except (ValueError, OSError):
        return None
    return submission.read(file.name, next(iter(contents.values())))


def _worked_in(folder: Path, lesson: Lesson) -> Path:
    """The notebook or .py form at the lesson's place, the one saved last; else the one that says it is it."""
    place = workspace.path_of(folder, lesson)
    forms = [path for path in (place, place.with_suffix(".py")) if path.is_file()]
    if forms:
        return max(forms, key=lambda path: path.stat().st_mtime_ns)
    return next((path for path in _says_it_is(folder, lesson)), place)


def _says_it_is(folder: Path, lesson: Lesson) -> Iterator[Path]:
    try:
        contents, _ = submission.files(folder)
    except ValueError:
        return
    for name, content in contents.items():
        if submission.read(name, content).lesson == lesson.path:
            yield folder / name


# ---------------------------------------------------------------- what is said, what is kept


def _check_and_tell(
    chosen: Iterable[Part], asked: Sequence[grader.Asked], tell: Tell, *, brief: bool = False
) -> list[Marks]:
    """Check, tell and record one file after the other. A lesson that is not begun is one line if `brief`."""
    checked = []
    for part in chosen:
        folder = progress.folder_around(part.file.parent)
        graded = check(part, asked)
        known = _record(folder, graded, tell)
        for line in _lines(part, graded, known, brief):
            tell(line)
        checked.append(graded)
    return checked


def _record(folder: Path | None, graded: Marks, tell: Tell) -> Mapping[str, Record]:
    """The records after this check; a folder that cannot be written costs no check."""
    outcomes = {e.name: None if _is_unwritten(e) else e.passed for e in graded.exercises}
    if folder is None or not outcomes:
        return {}
    try:
        return progress.record(folder, outcomes, tell=tell)
    except OSError as error:
        tell(f"your progress could not be kept: {error.strerror or error}")
        return {}


def _lines(part: Part, graded: Marks, known: Mapping[str, Record], brief: bool) -> Iterator[str]:
    if graded.problem:
        yield f"{part.file.name}: {graded.problem}"
    if brief and part.lesson and graded.exercises and all(map(_is_unwritten, graded.exercises)):
        count = len(graded.exercises)
        yield f"{part.lesson.number} {part.lesson.title}: {count} exercise{'s' * (count != 1)}, {NOT_WRITTEN}"
        return
    for exercise in graded.exercises:
        yield exercise.message
        yield from (f"Note: {note}." for note in exercise.notes)
        if not exercise.passed and (record := known.get(exercise.name)) and record.has_passed:
            yield f"{exercise.name} passed before."


def _is_unwritten(exercise: marks.Exercise) -> bool:
    return exercise.message.endswith(NOT_WRITTEN)


def _not_written(one: grader.Asked) -> marks.Exercise:
    message = f"{one.name}: {NOT_WRITTEN}"
    return marks.Exercise(name=one.name, number=one.number, weight=one.weight, checks=(), message=message)


def _untouched(document: submission.Document, lesson: Lesson) -> set[str]:
    """Exercises of which the file holds the stub and nothing else: no child need be started for them."""
    functions = [node for node in document.statements if isinstance(node, ast.FunctionDef)]
    found = set()
    for cell in lesson.cells:
        if cell.exercise:
            same_name = {ast.dump(node) for node in functions if node.name == cell.exercise.function}
            if same_name == {ast.dump(ast.parse(cell.source).body[0])}:
                found.add(cell.exercise.name)
    return found


def _defined_elsewhere(document: submission.Document, one: grader.Asked) -> str:
    """A kernel would take the cell that ran last; a check takes the exercise's own, and says so."""
    named = [n for n in document.statements if isinstance(n, ast.FunctionDef) and n.name == one.function]
    own = [node for node in named if document.marked.get(id(node)) == one.name]
    if not own or own == named:
        return ""
    return f"{one.function} is also defined in another cell; where the exercise's own is written, it counts"


def _files(count: int) -> str:
    return f"{count} file{'s' * (count != 1)}"


# ---------------------------------------------------------------- watching


def _stamp(file: Path) -> Stamp:
    """What changes when a file is saved; None where there is none."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _stamps(chosen: Iterable[Part]) -> dict[Path, Stamp]:
    return {part.file: _stamp(part.file) for part in chosen}


def _saved(find: Callable[[], list[Part]], wait: Callable[[], None]) -> Iterator[list[Part]]:
    """Everything at first; then, again and again, what has been saved and is no longer being written."""
    chosen, seen = find(), {}
    before = _stamps(chosen)
    while True:
        now = _stamps(chosen)
        changed = [part for part in chosen if part.file not in seen or seen[part.file] != now[part.file]]
        if changed and now == before:
            yield changed
            chosen, seen = find(), now
        before = now
        wait()


def _passed_before(course: Sequence[Lesson], place: Path, ran: set[str], tell: Tell) -> Iterator[Part]:
    """Every exercise of the student's folder that has passed in some check and did not run in this one."""
    folder = progress.folder_around(place)
    try:
        known = progress.read(folder, tell=tell) if folder else {}
    except OSError:  # the check itself has told of it
        return
    for part in parts(".", course, folder):
        due = [
            e for e in part.exercises if e.name not in ran and e.name in known and known[e.name].has_passed
        ]
        if due:
            yield replace(part, exercises=tuple(due))


def _check_again(part: Part, asked: Sequence[grader.Asked], tell: Tell) -> None:
    """Tell only what passed before and does not now."""
    graded = check(part, asked)
    known = _record(progress.folder_around(part.file.parent), graded, tell)
    failed = tuple(exercise for exercise in graded.exercises if not exercise.passed)
    for line in _lines(part, replace(graded, exercises=failed), known, brief=False):
        tell(line)
    if passed := len(graded.exercises) - len(failed):
        tell(f"{part.file.name}: {passed} that passed before still pass{'es' * (passed == 1)}")
