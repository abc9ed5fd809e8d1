"""A class at once: in parallel, every result stored as soon as it is there, and none graded twice."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sparselab import files, judge
from sparselab.course import lessons as lesson_sources
from sparselab.grading import grader, sandbox
from sparselab.grading import secret as secrets
from sparselab.grading.child import NotStarted
from sparselab.grading.grader import Settings
from sparselab.grading.marks import Marks
from sparselab.grading.sandbox import Limits
from sparselab.grading.secret import Secret
from sparselab.grading.submission import printable
from sparselab.method import unknown

ENGINES = ("local", "dask")
ISOLATIONS = ("process", "container")


class Store:
    """Marks by submission, content, secret and version, in one SQLite file; a transaction for each.

    A kill at any moment loses what is being graded and nothing else. Raises ValueError for another file.
    """

    def __init__(self, path: Path | None):
        self.path = path
        try:
            self._base = sqlite3.connect(path or ":memory:", timeout=60)
            with self._base:
                self._base.execute(
                    "CREATE TABLE IF NOT EXISTS marks (key TEXT PRIMARY KEY, submission TEXT, marks TEXT)"
                )
        except sqlite3.Error as error:
            raise ValueError(f"{path} is no store of marks ({error}); name another with --store") from None

    def close(self) -> None:
        self._base.close()

    def get(self, key: str) -> Marks | None:
        row = self._base.execute("SELECT marks FROM marks WHERE key = ?", (key,)).fetchone()
        return Marks.from_dict(json.loads(row[0])) if row else None

    def put(self, key: str, marks: Marks) -> None:
        with self._base:
            self._base.execute(
                "INSERT OR IGNORE INTO marks VALUES (?, ?, ?)",
                (key, marks.submission, json.dumps(marks.to_dict())),
            )

    def __len__(self) -> int:
        return self._base.execute("SELECT count(*) FROM marks").fetchone()[0]


def run(
    submissions: Sequence[Path],
    *,
    lessons: Sequence[str] = (),
    secret: Path | None = None,
    store: Path | None = None,
    jobs: int = 0,
    engine: str = "local",
    scheduler: str = "",
    isolation: str = "process",
    image: str = "sparselab",
    refuse_reference: bool = False,
    progress: bool = False,
) -> list[Marks]:
    """`grade` with the course of this installation; ValueError for what the teacher can put right."""
    for kind, name, known in (("engine", engine, ENGINES), ("isolation", isolation, ISOLATIONS)):
        if name not in known:
            raise ValueError(unknown(kind, name, list(known)))
    container = sandbox.container_command(image, Limits()) if isolation == "container" else ()
    for path in submissions:
        if not path.exists() and not path.is_symlink():
            raise ValueError(f"there is no submission {printable(str(path))}")
    course, root = lesson_sources.load(known=judge.exercise), files.root()
    shut = [root / name for name in ("solutions", "chapters", "book", "tests", ".git")]
    settings = Settings(
        asked=grader.asked(),
        lessons=tuple(lesson_sources.find(name, course).path for name in lessons),
        secret=secrets.read(secret) if secret else Secret(),
        hidden=tuple(path.absolute() for path in [*shut, secret, store] if path),
        container=tuple(container),
        refuse_reference=refuse_reference,
    )
    jobs = jobs or os.cpu_count() or 1
    return grade(
        submissions, settings, store=store, jobs=jobs, engine=engine, scheduler=scheduler, progress=progress
    )


def grade(
    submissions: Sequence[Path],
    settings: Settings,
    *,
    store: Path | None = None,
    jobs: int = 1,
    engine: str = "local",
    scheduler: str = "",
    progress: bool = False,
) -> list[Marks]:
    """The marks of every submission, in their order.

    What `store` holds for the same content, secret and version is not graded again. A submission never stops
    the others; one for which no child could be started is not stored. ImportError where `engine` is missing.
    """
    with closing(Store(store)) as kept:
        keys = [_key(path, settings) for path in submissions]
        found = {i: marks for i, key in enumerate(keys) if (marks := kept.get(key))}
        todo = [(i, path) for i, path in enumerate(submissions) if i not in found]
        with _bar(progress, len(submissions), len(found)) as step, _engine(engine, jobs, scheduler):
            for i, marks, final in _in_parallel(todo, settings, jobs if len(todo) > 1 else 1, engine):
                if final:
                    kept.put(keys[i], marks)
                found[i] = marks
                step()
    return [found[i] for i in range(len(submissions))]


def one(i: int, path: Path, settings: Settings) -> tuple[int, Marks, bool]:
    """(i, marks, whether they are final) of one submission, whatever happens."""
    try:
        return i, grader.grade(path, settings), True
    except NotStarted as error:
        problem = str(error)
    except Exception as error:  # a defect of ours must not cost the class its marks
        problem = f"sparselab failed on it ({type(error).__name__}: {error}); please report this"
    told = {"submission": printable(str(path)), "student": grader.student(path, settings.asked)}
    return i, Marks(**told, problem=printable(problem)), False


def _in_parallel(
    todo: Sequence[tuple[int, Path]], settings: Settings, jobs: int, engine: str
) -> Iterator[tuple[int, Marks, bool]]:
    if jobs == 1 and engine == "local":
        yield from (one(i, path, settings) for i, path in todo)
        return
    import joblib

    run = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1)
    yield from run(joblib.delayed(one)(i, path, settings) for i, path in todo)


@contextmanager
def _engine(engine: str, jobs: int, scheduler: str) -> Iterator[None]:
    if engine == "local":
        yield
        return
    try:
        import joblib
        from dask.distributed import Client
    except ModuleNotFoundError:
        raise ImportError('--engine dask needs dask: pip install "sparselab[class]"') from None
    local: dict[str, Any] = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    with Client(scheduler) if scheduler else Client(**local), joblib.parallel_config("dask"):
        yield


def _key(path: Path, settings: Settings) -> str:
    name = str(path).encode("utf-8", "backslashreplace")
    return sha256(name + grader.digest(path, settings).encode()).hexdigest()


@contextmanager
def _bar(shown: bool, total: int, done: int) -> Iterator[Any]:
    columns = (TextColumn("graded"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda: bar.advance(task)
