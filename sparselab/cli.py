"""The command line: every command is a thin door to a function, and imports what it needs when it runs.

Exit codes: 0 done; 1 a check that did not pass, an interruption, or a defect of sparselab; 2 something that
the user can put right, told in one red line; 3, of grade alone, a submission that could not be run.
SPARSELAB_DEBUG=1 shows the traceback behind that line.
"""

import os
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from typer.core import TyperGroup

UsageError = typer.BadParameter.__base__  # typer has its own copy of click's classes

IN_EXTRA = {
    "course": (
        "torch", "safetensors", "jupyterlab", "ipywidgets", "matplotlib", "jupytext", "yaml", "nbclient",
        "nbformat", "jupyter_client", "ipykernel", "IPython", "sklearn",
        "joblib",
    ),
    "class": ("dask", "distributed"),
    "book": ("jupyter_book",),
    "gpu": ("triton",),
    "hub": ("transformers",),
}  # fmt: skip


class _Polite(TyperGroup):
    """A command whose errors end as one line."""

    def invoke(self, ctx):
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            _red("stopped; what was finished is kept")
            raise typer.Exit(1) from None
        except UsageError as error:
            command = error.ctx.command_path if error.ctx else "sparselab"
            _red(f"{error.format_message()} (see: {command} --help)")
            raise typer.Exit(2) from None
        except Exception as error:
            line = _one_line(error)
            if line is None or os.environ.get("SPARSELAB_DEBUG"):
                traceback.print_exc()
            _red(line or "this is a defect of sparselab, not of yours; please report it with the lines above")
            raise typer.Exit(1 if line is None else 2) from None


def _one_line(error: Exception) -> str | None:
    """What the user needs to know about an error that the user can mend; None for a defect."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        missing = error.name.split(".")[0]
        for extra, modules in IN_EXTRA.items():
            if missing in modules:
                return f'{missing} is not installed: pip install "sparselab\\[{extra}]"'
        if missing in ("numpy", "jaxtyping"):
            return f"{missing} is not installed: pip install {missing} (see: sparselab doctor)"
        return None
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, ValueError | FileNotFoundError | ImportError):
        return " ".join(str(error).split())
    return None


def _red(line: str) -> None:
    Console(stderr=True, soft_wrap=True, highlight=False).print(line, style="red")


def _console() -> Console:
    return Console(highlight=False)


def _table(columns: str, rows: list[tuple[str, ...]]):
    from rich.table import Table

    table = Table(*columns.split(), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    table.columns[0].no_wrap = True
    table.columns[-2].overflow = "fold"
    return table


def _say(line: str) -> None:
    _console().print(line, markup=False, soft_wrap=True)


def _standings(course, records):
    """A table of what is done, tried and open in each lesson, and of the minutes that are left."""
    from sparselab.course import progress

    lines = [(lesson, progress.standing(lesson, records)) for lesson in course if lesson.exercises]
    rows = [(lesson.number, lesson.title, *_cells(standing)) for lesson, standing in lines]
    rows.append(("", "all", *_cells(progress.total(standing for _, standing in lines))))
    return _table("lesson title done tried open left", rows)


def _cells(standing) -> tuple[str, ...]:
    counts = (standing.done, standing.tried, standing.open)
    return (*(str(count) if count else "–" for count in counts), f"{standing.minutes} min")


app = typer.Typer(
    cls=_Polite,
    help="Sparsity in neural networks: a course and a package.",
    epilog="New here? [bold]sparselab start[/bold] opens the first lesson.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Names = Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="All, if none is named.")]
What = Annotated[
    str,
    typer.Argument(
        metavar="LESSON|EXERCISE|FILE", help="A notebook or .py file may lie anywhere; all, if none is named."
    ),
]
Exercise = Annotated[str, typer.Argument(metavar="EXERCISE", help="Its name or its number.")]


@app.command(epilog="Example: sparselab start my-course 1.2")
def start(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Your folder of notebooks.")] = Path(
        "sparselab-course"
    ),
    lesson: Annotated[str, typer.Argument(metavar="LESSON", help="Number or name of a lesson.")] = "",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open a browser, or print the address.")
    ] = True,
    port: Annotated[
        int | None, typer.Option(help="Port of JupyterLab, 8888 if it is free.", min=1, max=65535)
    ] = None,
    lab: Annotated[
        bool, typer.Option("--lab/--no-lab", help="Start JupyterLab, or only prepare the folder.")
    ] = True,
) -> None:
    """Make your folder of lessons, or bring it up to date, and open it in JupyterLab.

    Run it again after an update: what you wrote stays.
    """
    from sparselab.course import lab as jupyterlab
    from sparselab.course import lessons, workspace

    course = lessons.load()
    if not course:
        raise ValueError("there are no lessons yet")
    if not folder.exists() and not lesson and any(str(folder) == known.number for known in course):
        raise ValueError(
            f"{folder} is a lesson; its folder comes first: sparselab start sparselab-course {folder}"
        )
    opened = lessons.find(lesson, course) if lesson else course[0]
    console = _console()
    for line in workspace.prepare(folder, course):
        console.print(line, markup=False, soft_wrap=True)
    console.print(f"{len(course)} lesson{'s' * (len(course) != 1)} in {folder}", markup=False, soft_wrap=True)
    if lab:
        where = workspace.path_of(folder, opened)
        raise typer.Exit(jupyterlab.serve(folder, open_at=where, browser=browser, port=port))


@app.command("list", epilog="Example: sparselab list")
def list_() -> None:
    """Show all lessons and all methods; in your folder of lessons, how far you are."""
    from sparselab.course import lessons, progress
    from sparselab.method import methods

    course = lessons.load()
    console = _console()
    if folder := progress.folder_around(Path.cwd()):
        console.print(_standings(course, progress.read(folder, tell=_say)), "")
    else:
        rows = [(one.number, one.title, str(one.minutes), str(len(one.exercises))) for one in course]
        console.print(_table("lesson title minutes exercises", rows), "")
    systems = [
        (
            f"{method.family}/{method.name}",
            method.title,
            str(method.year),
            method.paper,
            " ".join(library for part, library in method.code.items() if part not in ("reference", "fast")),
        )
        for method in methods()
    ]
    grid = _table("method title year paper extra", systems)
    grid.columns[-2].min_width = len("arXiv:2506.06644")  # a number in two halves cannot be copied
    grid.caption, grid.caption_justify = "All have numpy and torch; extra is what goes faster still.", "left"
    console.print(grid)


@app.command(epilog="Example: sparselab progress")
def progress() -> None:
    """Show what you have done, tried and not begun, and the minutes that are left."""
    from sparselab.course import lessons
    from sparselab.course import progress as records

    known = records.read(records.folder_at(Path.cwd()), tell=_say)
    _console().print(_standings(lessons.load(), known))


@app.command(epilog="Example: sparselab check 1.1")
def check(name: What = "") -> None:
    """Run the public checks on what you wrote.

    Exit code 0: all of them passed; 1: not all.
    """
    from sparselab.course import checking, lessons

    if not checking.run(name, lessons.load(), Path.cwd(), tell=_say):
        raise typer.Exit(1)


@app.command(epilog="Example: sparselab watch 1.1")
def watch(name: What = "") -> None:
    """Check again each time you save, until Ctrl-C."""
    from sparselab.course import checking, lessons

    with suppress(KeyboardInterrupt):
        checking.watch(name, lessons.load(), Path.cwd(), tell=_say)
    _say("stopped; your progress is kept")


@app.command(epilog="Example: sparselab hint lazy_neuron.topk_ffn")
def hint(exercise: Exercise) -> None:
    """Give the next hint, from a nudge to nearly the line."""
    from sparselab import course
    from sparselab.course import checking, lessons
    from sparselab.course import progress as records

    _, found = checking.find_exercise(exercise, lessons.load())
    records.folder_at(Path.cwd())
    course.hint(found.name)


@app.command(epilog="Example: sparselab solution lazy_neuron.topk_ffn --give-up")
def solution(
    exercise: Exercise,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="Show it although yours has not passed; this is recorded.")
    ] = False,
) -> None:
    """Show the solution of an exercise that you have passed."""
    from rich.syntax import Syntax

    from sparselab.course import checking, lessons
    from sparselab.course import progress as records

    _, found = checking.find_exercise(exercise, lessons.load())
    folder = records.folder_at(Path.cwd())
    known = records.read(folder, tell=_say).get(found.name, records.Record())
    if not (known.has_passed or known.gave_up):
        if not give_up:
            raise ValueError(
                f"{found.name} has not passed yet; sparselab hint {found.name} helps, and "
                f"sparselab solution {found.name} --give-up shows it all the same"
            )
        records.give_up(folder, found.name, tell=_say)
    console = _console()
    coloured = Syntax(found.solution, "python", theme="ansi_dark", background_color="default")
    console.print(coloured if console.is_terminal else found.solution, markup=False, soft_wrap=True)


@app.command(epilog="Example: sparselab train tiny_lm --steps 200")
def train(
    name: Annotated[str, typer.Argument(help="A model of sparselab.train.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps, if not the model's own number.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of data order and initial weights.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw the checkpoint away and begin again.")
    ] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show a bar.")] = True,
    weights: Annotated[Path | None, typer.Option(help="Write the trained weights into this folder.")] = None,
) -> None:
    """Train one of the small models that the lessons use."""
    from sparselab import train as training

    outcome = training.run(
        name, out=out, steps=steps, seed=seed, resume=resume, restart=restart, progress=progress
    )
    _console().print(str(outcome), markup=False, soft_wrap=True)
    if not outcome.finished:
        raise typer.Exit(1)
    if weights:
        training.export(outcome.folder, weights)


@app.command(epilog="Example: sparselab frontier --seeds 5")
def frontier(
    names: Annotated[
        list[str] | None, typer.Argument(help="Small language models; all without names.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 3,
) -> None:
    """Train the language models of all recipes alike and small: quality against FLOPs."""
    from rich.table import Table

    from sparselab import frontier as study

    grid = Table("model", "FLOPs of a byte", "active", "nats per byte", "range", "weights", box=None)
    for row in study.summary(study.measure(names or (), seeds=range(seeds))):
        losses = f"{row['low']:.3f} to {row['high']:.3f}"
        counts = f"{row['flops']:,.0f}", f"{row['active']:.1%}", f"{row['loss']:.3f}", losses
        grid.add_row(row["title"], *counts, f"{row['parameters']:,}")
    _console().print(grid)


@app.command(epilog="Example: sparselab bench wanda --device cuda")
def bench(
    names: Names = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(help="Threads of the CPU.", min=1)] = 2,
    json: Annotated[Path | None, typer.Option(help="Write the measurements here.")] = None,
) -> None:
    """Time methods against the dense way and their peers, after the judge has passed them."""
    from sparselab import bench as benchmark

    benchmark.run(names or (), device=device, threads=threads, json=json)


@app.command(epilog="Example: sparselab claim wanda --seeds 5")
def claim(
    names: Names = None,
    seeds: Annotated[int, typer.Option(help="How many seeds.", min=1)] = 3,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Keep the results for the book.")] = True,
) -> None:
    """Measure the central claims of a paper at laptop size."""
    from rich.progress import track

    from sparselab import claims
    from sparselab.method import select

    console = _console()
    chosen = [method for method in select(names or ()) if method.claims]
    if not chosen:
        raise ValueError(f"{' '.join(names)}: 0 claims are declared there")
    as_declared = True
    for method in track(chosen, "measuring", console=Console(stderr=True), transient=True):
        measured = claims.measure(method, seeds=range(seeds))
        if save:
            claims.save([measured], claims.results_file())
        for row, declared in zip(measured["claims"], method.claims, strict=True):
            verdict = claims.in_words(row, seeds)
            if (verdict == "holds") != declared.reproduced:
                as_declared, verdict = False, f"{verdict}, against its declaration"
            spread = f"{row['median']:.3g} ({row['low']:.3g} to {row['high']:.3g})"
            line = f"{measured['method']}: {row['text']}: {spread}, target {row['target']}: {verdict}"
            console.print(line, markup=False, soft_wrap=True)
    if not as_declared:
        raise typer.Exit(1)


@app.command(epilog="Example: sparselab audit wanda")
def audit(names: Names = None) -> None:
    """Hold the checks to account: right answers pass, each wrong one fails with its own hint."""
    from sparselab import audit as gate

    console = _console()
    all_ok = True
    for found in gate.run(names or ()):
        all_ok &= found.ok
        line = f"{found.exercise}: {found.killed} of {found.mutants} mutants noticed"
        console.print(f"{'ok  ' if found.ok else 'FAIL'} {line}", markup=False, soft_wrap=True)
        for fault in (*found.faults, *(f"not noticed: {survivor}" for survivor in found.survivors)):
            console.print(f"     {fault}", markup=False, soft_wrap=True)
    if not all_ok:
        raise typer.Exit(1)


@app.command(epilog="Example: sparselab build 1.1 | sparselab build --check")
def build(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON...", help="All, if none is named.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Only say which solved notebooks are out of date.")
    ] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show a bar.")] = True,
) -> None:
    """For authors: generate, run and store the solved notebooks."""
    from sparselab.course import build as building

    console = _console()
    if not check:
        for path in building.build(tuple(names or ()), progress=progress):
            console.print(str(path), markup=False, soft_wrap=True)
        return
    outdated = building.stale()
    for path, reason in outdated:
        console.print(f"{path}: {reason}", markup=False, soft_wrap=True)
    if outdated:
        raise typer.Exit(1)


@app.command(epilog="Example: sparselab grade --secret secret.toml submissions/*")
def grade(
    submissions: Annotated[
        list[Path], typer.Argument(metavar="SUBMISSION...", help="Notebooks, .py files, or folders of them.")
    ],
    lesson: Annotated[
        list[str] | None,
        typer.Option(help="Grade every exercise of this lesson; else of the lessons that are handed in."),
    ] = None,
    secret: Annotated[Path | None, typer.Option(help="A file of `sparselab secret new`.")] = None,
    report: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM=FILE", help="json, junit, csv, github, summary, gitlab, gradescope or text."
        ),
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Keep finished marks here: a run that was stopped goes on.")
    ] = None,
    jobs: Annotated[int, typer.Option(help="How many at a time; 0: one for each core.", min=0)] = 0,
    engine: Annotated[str, typer.Option(help="local, or dask for several machines.")] = "local",
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    isolation: Annotated[str, typer.Option(help="process, or container with docker or podman.")] = "process",
    image: Annotated[str, typer.Option(help="The container's image, with sparselab in it.")] = "sparselab",
    refuse_reference: Annotated[
        bool, typer.Option("--refuse-reference", help="No points where the package's answer is used.")
    ] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show a bar.")] = True,
) -> None:
    """For teachers: grade what students handed in, each in a process of its own.

    Exit code 0: every check of every submission passed; 1: not all; 2: a mistake in this command; 3: a
    submission could not be run.
    """
    from sparselab.grading import batch, marks, reports

    places = reports.destinations(report or ())
    graded = batch.run(
        submissions,
        lessons=lesson or (),
        secret=secret,
        store=store,
        jobs=jobs,
        engine=engine,
        scheduler=scheduler,
        isolation=isolation,
        image=image,
        refuse_reference=refuse_reference,
        progress=progress and len(submissions) > 1,
    )
    reports.write(graded, places)
    _console().print(reports.text(graded), markup=False, soft_wrap=True, end="")
    raise typer.Exit(marks.exit_code(graded))


secret = typer.Typer(cls=_Polite, help="For teachers: the hidden checks.", no_args_is_help=True)
app.add_typer(secret, name="secret")


@secret.command("new", epilog="Example: sparselab secret new secret.toml")
def secret_new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Outside every student's reach.")] = Path(
        "secret.toml"
    ),
    seeds: Annotated[int, typer.Option(help="How many further runs of each check.", min=1, max=20)] = 3,
) -> None:
    """Make a file of secret seeds, which `sparselab grade --secret` turns into hidden checks."""
    from sparselab.grading import grader
    from sparselab.grading import secret as secrets

    secrets.new(file, seeds=seeds, exercises=[one.name for one in grader.asked()])
    _console().print(f"{file}: {seeds} seeds; give it to no student", markup=False, soft_wrap=True)


@app.command(epilog="Example: sparselab classroom my-class 1.0 1.1")
def classroom(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Gets the folders student and instructor.")],
    names: Annotated[
        list[str] | None, typer.Argument(metavar="LESSON...", help="All, if none is named.")
    ] = None,
) -> None:
    """For teachers: make a repository for students, and a folder with the secret and a how-to for you.

    Run it again after an update: what you edited stays.
    """
    from sparselab import classroom as rooms
    from sparselab.course import lessons

    course = lessons.load()
    chosen = [lessons.find(name, course) for name in names or ()] or course
    for line in rooms.write(folder, chosen, chosen=names or ()):
        _say(line)
    _say(f"{folder / 'student'} is for students, {folder / 'instructor'} for you: begin with its HOWTO.md")


@app.command(epilog="Example: sparselab book")
def book() -> None:
    """For authors: build the website."""
    from sparselab import book as site

    _console().print(str(site.build()), markup=False, soft_wrap=True)


@app.command(epilog="Example: sparselab doctor")
def doctor() -> None:
    """Say what is installed, what is missing, and how to mend it."""
    from rich.table import Table

    from sparselab import doctor as examination

    found = examination.examine()
    table = Table.grid(padding=(0, 2))
    for finding in found:
        mark = "[green]✓[/]" if finding.ok else "[red]✗[/]" if finding.required else "[yellow]–[/]"
        table.add_row(mark, finding.what.replace("[", "\\["), finding.detail.replace("[", "\\["))
    console = _console()
    console.print(table)
    mends = {finding.mend: finding for finding in found if not finding.ok and finding.mend}
    for mend, finding in mends.items():
        console.print(f"{finding.what}: {mend}", markup=False, soft_wrap=True)
    if any(finding.required and not finding.ok for finding in found):
        raise typer.Exit(1)


@app.command(epilog="Example: sparselab version")
def version() -> None:
    """Print the version."""
    from sparselab import __version__

    print(__version__)  # noqa: T201
