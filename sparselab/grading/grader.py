"""One submission, from its path to its marks."""

import dataclasses
import hashlib
import platform
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from sparselab import __version__, files, judge
from sparselab.course import lessons
from sparselab.grading import submission, worker
from sparselab.grading.child import Child, Lost
from sparselab.grading.marks import Check, Exercise, Marks
from sparselab.grading.sandbox import Limits
from sparselab.grading.secret import Secret
from sparselab.method import PACKAGE, Method

ONLY_REFUSES = "refusing counts only beside a right answer"
NOTICED = set(worker.Watch.EVENTS.values())
CALLED = re.compile(r"called (sparselab\.(\w+)\.(\w+)\.(reference|fast|kernel|checks))\.(\w+)")
IMPORTED = re.compile(r"imported sparselab\.(\w+)\.(\w+)\.(checks)")
ANSWERS = worker.WATCHED | {"judge", "audit", "grading", "claim"}  # modules that no answer needs


@dataclass(frozen=True, kw_only=True)
class Asked:
    """An exercise as the grader needs it; plain data, so that it travels to other processes."""

    name: str
    function: str
    number: str
    weight: int
    lesson: str
    allowed: frozenset[tuple[str, str]]  # what its solution imports from the package


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a class is graded by."""

    asked: tuple[Asked, ...]
    lessons: tuple[str, ...] = ()  # every one of these is expected; none: those that a submission names
    secret: Secret = Secret()
    limits: Limits = Limits()
    hidden: tuple[Path, ...] = ()  # paths that no student's code may see
    container: tuple[str, ...] = ()
    refuse_reference: bool = False

    @property
    def digest(self) -> str:
        """Of everything that the marks depend on, besides the submission."""
        exercises = [(one.name, one.function, one.weight, sorted(one.allowed)) for one in self.asked]
        parts = (__version__, exercises, self.lessons, self.secret.digest, self.limits, self.refuse_reference)
        return hashlib.sha256(repr(parts).encode()).hexdigest()


def asked(root: Path | None = None) -> tuple[Asked, ...]:
    """Every exercise of the course; its weight is the importance that the lesson gives it."""
    root = root or files.root()
    return tuple(
        Asked(
            name=exercise.name,
            function=exercise.function,
            number=exercise.number,
            weight=exercise.importance,
            lesson=lesson.path,
            allowed=frozenset(
                submission.package_imports((root / "solutions" / f"{lesson.path}.py").read_text("utf-8"))
            ),
        )
        for lesson in lessons.load(root, known=judge.exercise)
        for exercise in lesson.exercises
    )


def grade(path: Path, settings: Settings) -> Marks:
    """The marks of one submission. It never raises for what a student did: that ends in the marks."""
    told = {"submission": submission.printable(str(path)), "student": student(path, settings.asked)}
    try:
        contents, left_out = submission.files(path)
    except (ValueError, OSError) as error:
        return Marks(**told, problem=submission.printable(getattr(error, "strerror", None) or str(error)))
    try:
        return _Grading(path, contents, settings).marks(told, left_out)
    except Lost as lost:
        return Marks(**told, problem=f"reading it {lost}", notes=tuple(left_out))


def student(path: Path, asked: Iterable[Asked] = ()) -> str:
    """The name of a file or folder; of the folder around it where the file is named as a lesson."""
    path = path.absolute()
    if path.stem in {Path(one.lesson).name for one in asked}:
        family = Path(next(one.lesson for one in asked if Path(one.lesson).name == path.stem)).parent.name
        path = path.parent.parent if path.parent.name == family else path.parent
    return submission.printable(path.stem if path.suffix in (".ipynb", ".py") else path.name)


def digest(path: Path, settings: Settings) -> str:
    """Of a submission's content and everything else that its marks depend on."""
    found = hashlib.sha256(settings.digest.encode())
    try:
        contents, left_out = submission.files(path)
    except (ValueError, OSError) as error:
        contents, left_out = {}, [str(error)]
    for name, content in contents.items():
        found.update(f"{name!r} {len(content)} ".encode("utf-8", "backslashreplace") + content)
    found.update(repr(left_out).encode())
    return found.hexdigest()


class _Grading:
    """The children and the verdicts of one submission.

    Public checks come first: what the code has seen of the hidden ones can then reach no message.
    """

    def __init__(self, path: Path, contents: dict[str, bytes], settings: Settings):
        self.contents, self.settings = contents, settings
        self.hidden = [*settings.hidden, path, path.absolute().parent]
        self.child: Child | None = None
        self.loaded: set[str] = set()
        self.stopped: set[str] = set()  # exercises that took their child with them
        self.isolation: tuple[str, ...] = ()
        self.deadline = time.monotonic() + settings.limits.total_seconds

    def marks(self, told: dict[str, str], left_out: list[str]) -> Marks:
        try:
            documents = self._started().documents
            wanted = self._wanted(documents)
            broken = [
                f"{submission.printable(name)}: {problem}" for name, _, _, problem in documents if problem
            ]
            problem = broken[0] if len(broken) == len(documents) else ""
            if not wanted:
                problem = problem or "it names no lesson and no exercise; say which lesson it is: --lesson"
            public = [(one, *self._public(one)) for one in wanted]
            exercises = tuple(self._with_hidden(*graded) for graded in public)
        finally:
            self._forget()
        versions = {"sparselab": __version__, "numpy": np.__version__, "python": platform.python_version()}
        return Marks(
            **told,
            exercises=exercises,
            problem=problem,
            notes=(*left_out, *broken),
            isolation=self.isolation,
            versions=tuple(versions.items()),
        )

    def _started(self) -> Child:
        """The child, a fresh one where the last is gone."""
        if self.child is None:
            limits, container = self.settings.limits, self.settings.container
            self.child = Child(
                self.contents,
                limits=limits,
                deadline=self.deadline,
                hidden=self.hidden,
                container=container,
            )
            self.isolation, self.loaded = tuple(map(str, self.child.isolation)), set()
        return self.child

    def _forget(self) -> None:
        if self.child:
            self.child.end()
        self.child = None

    def _wanted(self, documents: Sequence[tuple]) -> list[Asked]:
        """The exercises of the lessons that the teacher names, or else that the files say they are."""
        known = {one.lesson for one in self.settings.asked}
        by_file_name = {Path(lesson).name: lesson for lesson in known}
        expected = set(self.settings.lessons)
        for name, lesson, mentioned, _ in documents if not expected else ():
            own = lesson if lesson in known else by_file_name.get(Path(name).stem)
            expected |= {own} if own else {a.lesson for a in self.settings.asked if a.name in mentioned}
        return [one for one in self.settings.asked if one.lesson in expected]

    # ------------------------------------------------ one exercise

    def _public(self, one: Asked) -> tuple[list[Check], str, list[str]]:
        """(public checks, message, notes)."""
        method, op = judge.exercise(one.name)
        labels = [label for label, _ in judge.cases(method, op)]
        passed, messages, message, notes = self._run(one, method, op, len(labels), seed=0)
        checks = [
            Check(name=label, passed=ok, message=submission.printable(said))
            for label, ok, said in zip(labels, passed, messages, strict=True)
        ]
        return checks, message, notes

    def _with_hidden(self, one: Asked, checks: list[Check], message: str, notes: list[str]) -> Exercise:
        """The exercise with every secret check; they fail unrun where no public one passed."""
        secret, (method, op) = self.settings.secret, judge.exercise(one.name)
        rounds: list[tuple[Any, int]] = [(method, seed) for seed in secret.seeds]
        rounds += [(_OneCase(method, op, arguments), 0) for arguments in secret.extra(one.name)]
        alive = any(check.passed for check in checks)
        hidden: list[bool] = []
        for source, seed in rounds:
            count = len(judge.cases(source, op, seed=seed))
            if alive and one.name not in self.stopped:
                passed, _, _, seen = self._run(one, source, op, count, seed=seed)
                notes = notes + [line for line in seen if _is_known(line, one.allowed)]
            else:
                passed = [False] * count
            hidden += passed
        if hidden:
            message += f"\n{sum(hidden)} of {len(hidden)} hidden checks passed."
        checks = checks + [
            Check(name=f"hidden {number}", passed=ok, hidden=True) for number, ok in enumerate(hidden, 1)
        ]
        if self.settings.refuse_reference and any("sparselab." in note for note in notes):
            message = f"{one.name}: refused, since it uses the package's own answer"
            checks = [dataclasses.replace(check, passed=False, message="") for check in checks]
        return Exercise(
            name=one.name,
            number=one.number,
            weight=one.weight,
            checks=tuple(checks),
            message=message,
            notes=tuple(dict.fromkeys(notes)),
        )

    def _run(
        self, one: Asked, method: Any, op: str, count: int, *, seed: int
    ) -> tuple[list[bool], list[str], str, list[str]]:
        """(which of `count` cases passed, what is wrong with each, message, notes) from the judge."""
        notes: list[str] = []
        child = self._started()
        try:
            notes += self._load(child, one)
            verdict = judge.grade(method, op, lambda **arguments: child.call(one.name, arguments), seed=seed)
        except (Lost, submission.Missing) as problem:
            passed, messages, message = [False] * count, [str(problem)] * count, f"{one.name}: {problem}"
        else:
            if verdict.unwritten:
                passed, messages, message = [False] * count, [""] * count, f"{one.name}: not written yet"
            else:
                messages = [result.problem for result in verdict.results]
                message = str(verdict)
                passed = [not problem for problem in messages]
                refused = _refusals(method, op, seed)
                if not any(ok and not refusal for ok, refusal in zip(passed, refused, strict=True)):
                    passed = [False] * count  # who refuses every input has understood none
                    messages = [said or ONLY_REFUSES for said in messages]
        notes += [line for line in child.seen if _is_known(line, one.allowed)]
        child.seen.clear()
        if child.lost:
            self.stopped.add(one.name)
            messages = [child.lost if child.lost in said else said for said in messages]
            message = f"{one.name}: {child.lost}"
            self._forget()
        return passed, messages, message, notes

    def _load(self, child: Child, one: Asked) -> list[str]:
        """Make the function in the child, once; notes. Raises Missing where there is none to call."""
        if one.name in self.loaded:
            return []
        told = child.load(one.name, one.function, one.lesson)
        if "raised" in told:
            kind, text = str(told["raised"][0]), submission.printable(str(told["text"]))
            at = f" (in {submission.printable(str(told['line']))!r})" if told["line"] else ""
            raise submission.Missing(text if kind == "Missing" else f"raised {kind}: {text}{at}")
        self.loaded.add(one.name)
        notes = [submission.printable(str(note)) for note in told["notes"]]
        for module, name in sorted({(str(m), str(n)) for m, n in told["imports"]} - one.allowed):
            if ANSWERS & {*module.split("."), name} and not name[:1].isupper():
                notes.append(submission.printable(f"imports {module} {name}".strip()))
        return notes


def _refusals(method: Any, op: str, seed: int) -> list[bool]:
    """For each case whether the definition answers it with an error."""
    definition = getattr(method.part("reference"), op, None)
    cases = judge.cases(method, op, seed=seed)
    if definition is None:
        return [False] * len(cases)
    found = [isinstance(judge.outcome(definition, given), judge.Raised) for _, given in cases]
    return found if not all(found) else [False] * len(found)


class _OneCase:
    """A method with one case of the teacher's in place of its own."""

    def __init__(self, method: Method, op: str, arguments: dict[str, Any]):
        self.name, self._method = method.name, method
        self._case = (op, "a case of the teacher's", arguments)

    def part(self, name: str) -> Any:
        part = self._method.part(name)
        return (
            SimpleNamespace(**vars(part) | {"cases": lambda rng: [self._case]}) if name == "checks" else part
        )


def _is_known(line: str, allowed: frozenset[tuple[str, str]]) -> bool:
    """A child may say anything; only these words are believed and printed."""
    if line in NOTICED:
        return True
    if found := CALLED.fullmatch(line):
        module, family, method, part, function = found.groups()
        source = PACKAGE / family / method / f"{part}.py"
        return (
            (module, function) not in allowed
            and source.is_file()
            and f"def {function}(" in source.read_text(encoding="utf-8")
        )
    if found := IMPORTED.fullmatch(line):
        return PACKAGE.joinpath(*found.groups()).with_suffix(".py").is_file()
    return False
