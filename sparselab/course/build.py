"""The author's command: solved notebooks generated, executed in a clean kernel, stored with their outputs."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from traitlets import default

from sparselab import judge
from sparselab.course import guards, lessons, notebooks, writing
from sparselab.course.lessons import Lesson
from sparselab.files import root as default_root

SECONDS_PER_CELL = 60

STATIC = {
    "SPARSELAB_STATIC": "1",  # sliders as HTML over stored frames, see plots.explore
    "TRITON_INTERPRET": "1",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}


class BuildError(ValueError):
    """A solved notebook that cannot be stored: lesson, cell and what happened, in one line."""


def build(
    names: tuple[str, ...] = (),
    *,
    root: Path | None = None,
    known: Callable[[str], object] | None = judge.exercise,
    seconds: int = SECONDS_PER_CELL,
    progress: bool = True,
) -> list[Path]:
    """Write `solutions/**/X.ipynb` for the named lessons, or for all; the paths written.

    Every lesson of the course is checked before the first one runs. A cell has `seconds`; an exception, a
    word on stderr, a check that does not pass or a figure without alt text is a BuildError, and that notebook
    stays as it was.
    """
    root = root or default_root()
    course = lessons.load(root, known=known)
    chosen = [lessons.find(name, course) for name in names] or course
    written = []
    with _bar(progress, len(chosen)) as bar:
        for done, lesson in enumerate(chosen):
            notebook = execute(lesson, seconds=seconds, started=lambda cell, done=done: bar(done, cell))
            path = notebook_path(root, lesson)
            writing.write_if_new(path, notebooks.to_bytes(notebook))
            written.append(path)
    return written


def stale(
    *, root: Path | None = None, known: Callable[[str], object] | None = judge.exercise
) -> list[tuple[Path, str]]:
    """(path, reason) of each solved notebook that `build` would change, told without running any."""
    root = root or default_root()
    course = lessons.load(root, known=known)
    found = []
    for lesson in course:
        path = notebook_path(root, lesson)
        if not path.is_file():
            found.append((path, "missing"))
        elif reason := _outdated(path, notebooks.solved(lesson)):
            found.append((path, reason))
    expected = {notebook_path(root, lesson) for lesson in course}
    stray = sorted(set((root / "solutions").rglob("*.ipynb")) - expected)
    return found + [(path, "no lesson makes it") for path in stray if ".ipynb_checkpoints" not in path.parts]


def notebook_path(root: Path, lesson: Lesson) -> Path:
    """Where the solved notebook of a lesson is stored: beside its solutions."""
    return root / "solutions" / f"{lesson.path}.ipynb"


def execute(
    lesson: Lesson, *, seconds: int = SECONDS_PER_CELL, started: Callable[[str], None] = lambda cell: None
) -> nbformat.NotebookNode:
    """The solved notebook with the outputs of one run in a fresh kernel of this interpreter."""
    notebook = notebooks.solved(lesson)
    clean = {cell.id: cell.metadata.copy() for cell in notebook.cells}
    at = f"lesson {lesson.number} {lesson.name}, cell 0"

    def cell_started(cell, cell_index):
        nonlocal at
        at = f"lesson {lesson.number} {lesson.name}, cell {cell_index + 1}"
        started(at)

    with tempfile.TemporaryDirectory() as folder, _environment({**STATIC, "IPYTHONDIR": f"{folder}/ipython"}):
        client = NotebookClient(
            notebook,
            kernel_manager_class=_Kernel,
            timeout=seconds,
            resources={"metadata": {"path": folder}},
            record_timing=False,
            coalesce_streams=True,
            store_widget_state=False,
            on_cell_start=cell_started,
        )
        client.log.disabled = True  # what it would say is the BuildError below
        try:
            client.execute()
        except CellTimeoutError:
            raise BuildError(f"{at}: longer than {seconds} s") from None
        except CellExecutionError as error:
            raise BuildError(f"{at}: {error.ename}: {' '.join(error.evalue.split())}") from None
        except DeadKernelError:
            raise BuildError(f"{at}: the kernel died") from None
    notebook.metadata = nbformat.from_dict(notebooks.metadata(lesson))
    for cell in notebook.cells:
        cell.metadata = clean[cell.id]
    if problems := guards.problems(notebook, lesson):
        raise BuildError(f"lesson {lesson.number} {lesson.name}, {problems[0]}")
    return notebook


class _Kernel(AsyncKernelManager):
    @default("kernel_spec_manager")
    def _this_interpreter(self) -> KernelSpecManager:
        return _ThisInterpreter()


class _ThisInterpreter(KernelSpecManager):
    """Kernels of the interpreter that builds, whatever a `python3` kernel of this user may be."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**get_kernel_dict(["--HistoryManager.enabled=False", "--log-level=40"]))


def _outdated(path: Path, fresh: nbformat.NotebookNode) -> str:
    try:
        stored = nbformat.reads(path.read_text(encoding="utf-8"), as_version=4)
    except (ValueError, AttributeError, nbformat.ValidationError):
        return "unreadable"
    if stored.metadata != fresh.metadata:
        return "other metadata"
    if len(stored.cells) != len(fresh.cells):
        return f"{len(stored.cells)} cells, the lesson makes {len(fresh.cells)}"
    for number, (old, new) in enumerate(zip(stored.cells, fresh.cells, strict=True), 1):
        if any(old.get(key) != new[key] for key in ("id", "cell_type", "source", "metadata")):
            return f"cell {number} differs"
    return ""


@contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _bar(visible: bool, total: int) -> Iterator[Callable[[int, str], None]]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, disable=not visible, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done, text: bar.update(task, completed=done, description=text)
